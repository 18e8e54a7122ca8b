//! Searching, on disk and as `Query::matches` has it.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::rig::{PATIENCE, Rig, entry, lobby, options, room, said, seqs, shown};
use crate::disk::{Batch, Disk, DiskRetention};
use crate::model::entry::{Entry, Place};
use crate::model::query::Query;
use crate::model::words::tests::Table;
use crate::model::words::words;

async fn found(disk: &Disk, query: &str, before: Option<Place>, limit: usize) -> (Vec<u64>, bool) {
    let query: Query = query.parse().unwrap();
    let page = disk.search(&lobby(), &query, before, limit).await.unwrap();
    (seqs(&page), page.more)
}

impl Rig {
    /// Waits until all but the last few entries are in the index of words.
    async fn indexed(&self) {
        while self.disk.unindexed() >= 1000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Entries that no search is for, so that the index gets those before them.
fn filler(from: u64, count: u64) -> impl Iterator<Item = Arc<Entry>> {
    (from..from + count).map(|seq| said('f', seq, 1_000_000 + seq, "filler", "nothing"))
}

/// Goal: all words and phrases must occur, in any case, with or without accents; in this room, if
/// shown; and the same whether the index has them yet or not. Method: the same searches before and
/// after indexing.
#[tokio::test]
async fn a_search_finds_what_has_all_of_it() {
    let mut rig = Rig::new();
    let texts = [
        "The quick brown fox",
        "the brown quick fox",
        "Ein Gruß aus Zürich, e-mail folgt",
        "don't panic: 42",
        "quick",
    ];
    let entries = (1..)
        .zip(texts)
        .map(|(seq, text)| said('a', seq, seq, "lobby", text));
    let mut batch = shown(entries);
    batch.entries[4].1 = false;
    batch
        .entries
        .push((said('b', 9, 9, "elsewhere", "quick fox"), true));
    rig.store(batch).await;
    for indexed in [false, true] {
        if indexed {
            rig.store(shown(filler(1, 994))).await;
            rig.indexed().await;
        }
        assert_eq!(rig.disk.unindexed() == 0, indexed);
        for (query, wanted) in [
            ("quick", vec![1, 2]),
            ("FOX quick", vec![1, 2]),
            ("\"quick brown\"", vec![1]),
            ("\"brown quick\" the", vec![2]),
            ("\"quick fox\" brown", vec![2]),
            ("zurich", vec![3]),
            ("ZÜRICH", vec![3]),
            ("e-mail", vec![3]),
            ("\"e mail\"", vec![3]),
            ("mail-e", vec![]),
            ("don't", vec![4]),
            ("42", vec![4]),
            ("4", vec![]),
            ("quic", vec![]),
            ("NEAR(quick fox)", vec![]),
            ("quick -fox", vec![1, 2]),
            ("text:quick", vec![]),
            ("quick OR mail", vec![]),
            ("r1", vec![]),
            ("quick*", vec![1, 2]),
        ] {
            assert_eq!(found(&rig.disk, query, None, 9).await.0, wanted, "{query}");
        }
    }
}

/// Goal: in every script a disk finds what a look at the text finds, indexed or not. Method: the table
/// that memory and the page are tested with.
#[tokio::test]
async fn a_disk_finds_the_same_words_as_memory() {
    let mut rig = Rig::new();
    let finds = Table::read().finds;
    let texts = (1..).zip(&finds);
    rig.store(shown(
        texts.map(|(seq, (_, text, ..))| said('a', seq, seq, "lobby", text)),
    ))
    .await;
    for indexed in [false, true] {
        if indexed {
            rig.store(shown(filler(1, 1000))).await;
            rig.indexed().await;
        }
        for (seq, (query, _, wanted, why)) in (1..).zip(&finds) {
            let seqs = found(&rig.disk, query, None, 99).await.0;
            assert_eq!(seqs.contains(&seq), *wanted, "{why}: {query}");
            let memory: Query = query.parse().unwrap();
            let all = (1..).zip(&finds);
            let all = all.filter(|(_, (_, text, ..))| memory.matches(text));
            assert_eq!(seqs, all.map(|(seq, _)| seq).collect::<Vec<u64>>(), "{why}");
        }
    }
}

/// Goal: the newest by place, page by page, whatever the order in which they were written; across
/// the blocks by which a search ends early, and across the end of the index. Method: 9000 entries
/// of which every third is looked for, the older half written last; compared with a filter.
#[tokio::test]
async fn a_search_is_paged_by_place() {
    let mut rig = Rig::new();
    let word = |seq: u64| {
        if seq.is_multiple_of(3) {
            "three"
        } else {
            "other"
        }
    };
    let all: Vec<_> = (1..=9000)
        .map(|seq| said('a', seq, 10 * seq, "lobby", word(seq)))
        .collect();
    let (old, new) = all.split_at(4500);
    for part in new.chunks(1500).chain(old.chunks(1500)) {
        rig.store(shown(part.to_vec())).await;
    }
    rig.indexed().await;
    let late = said('a', 9001, 45_005, "lobby", "three");
    rig.store(shown([late])).await;
    let mut wanted: Vec<u64> = (1..=3000).map(|n| 3 * n).collect();
    wanted.insert(1500, 9001);
    let mut before = None;
    let mut seen: Vec<u64> = Vec::new();
    loop {
        let query = "three".parse().unwrap();
        let page = rig
            .disk
            .search(&lobby(), &query, before, 170)
            .await
            .unwrap();
        before = page.entries.first().map(|entry| entry.place());
        seen.splice(0..0, seqs(&page));
        if !page.more {
            break;
        }
        assert_eq!(page.entries.len(), 170);
    }
    assert_eq!(seen, wanted);
    // Place by place, also where a timestamp is the bound itself.
    let at = |ts, origin| Some(Place { ts, origin });
    let a = super::rig::origin('a');
    let b = super::rig::origin('b');
    assert_eq!(found(&rig.disk, "three", at(60, a), 9).await.0, [3]);
    assert_eq!(found(&rig.disk, "three", at(60, b), 9).await.0, [3, 6]);
    assert_eq!(
        found(&rig.disk, "three", at(60, b), 1).await,
        (vec![6], true)
    );
    assert_eq!(
        found(&rig.disk, "three", at(0, a), 9).await,
        (vec![], false)
    );
}

/// Goal: what is trimmed or hidden is not found. Method: index, then trim and hide.
#[tokio::test]
async fn what_is_trimmed_or_hidden_is_not_found() {
    let mut rig = Rig::new();
    rig.store(shown((1..=1500).map(|seq| entry('a', seq, seq))))
        .await;
    rig.indexed().await;
    rig.store(Batch {
        entries: Vec::new(),
        shows: vec![(super::rig::id('a', 1400), false)],
    })
    .await;
    let dir = rig.close().await;
    let options = crate::disk::DiskOptions {
        retention: DiskRetention {
            messages: 200,
            ..DiskRetention::default()
        },
        ..options(dir.path())
    };
    let mut rig = Rig::open(dir, options).unwrap();
    while rig.disk.size().0 > 200 {
        rig.outcome().await;
    }
    for (word, count) in [("1300", 0), ("1301", 1), ("1400", 0), ("1500", 1)] {
        assert_eq!(
            found(&rig.disk, word, None, 9).await.0.len(),
            count,
            "{word}"
        );
    }
    assert_eq!(found(&rig.disk, "number", None, 999).await.0.len(), 199);
    // The numbers of rows go on, so that the index never takes one for another.
    rig.store(shown([said('a', 1501, 1501, "lobby", "fresh")]))
        .await;
    assert_eq!(found(&rig.disk, "fresh", None, 9).await.0, [1501]);
    let rig = rig.reopen().await;
    assert_eq!(rig.loaded.set_aside, None);
    assert_eq!(found(&rig.disk, "fresh", None, 9).await.0, [1501]);
}

/// Goal: a damaged index of words costs no entry: it is made anew. Method: its rows are removed
/// behind its back; the search finds all the same.
#[tokio::test]
async fn a_damaged_index_is_made_anew() {
    let mut rig = Rig::new();
    rig.store(shown((1..=3000).map(|seq| entry('a', seq, seq))))
        .await;
    rig.indexed().await;
    let dir = rig.close().await;
    let damage = |sql: &str| {
        let db = rusqlite::Connection::open(dir.path().join("history.db")).unwrap();
        assert!(db.execute(sql, []).unwrap() > 0);
    };
    damage("DELETE FROM search_docsize WHERE id % 7 = 0");
    let (disk, loaded, _outcomes) = crate::disk::open(options(dir.path())).unwrap();
    assert_eq!(loaded.set_aside, None);
    assert_eq!(loaded.entries.len(), 3000);
    assert_eq!(found(&disk, "700", None, 9).await.0, [700]);
    while disk.unindexed() >= 1000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(found(&disk, "700", None, 9).await.0, [700]);
    disk.close(PATIENCE).await;
    damage("DELETE FROM search_data WHERE id > 10");
    let (disk, loaded, _outcomes) = crate::disk::open(options(dir.path())).unwrap();
    assert_eq!(loaded.set_aside, None);
    assert_eq!(found(&disk, "700", None, 9).await.0, [700]);
    disk.close(PATIENCE).await;
}

/// An engine of its own, without files, for many queries.
struct Fts(rusqlite::Connection);

impl Fts {
    fn new() -> Self {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch(crate::disk::schema::SEARCH_TABLE).unwrap();
        Self(db)
    }

    fn matches(&self, query: &Query, text: &str) -> rusqlite::Result<bool> {
        self.0.execute("DELETE FROM search WHERE rowid = 1", [])?;
        let add = "INSERT INTO search (rowid, room, text) VALUES (1, 'r1', ?1)";
        self.0.execute(add, [words(text)])?;
        let terms = format!("room : \"r1\" AND text : ({})", query.to_fts());
        let count = "SELECT count(*) FROM search WHERE search MATCH ?1";
        self.0.query_row(count, [terms], |row| row.get(0))
    }
}

fn piece() -> impl Strategy<Value = String> {
    let signs = prop::sample::select(vec![
        "\"", "*", "^", ":", "(", ")", "{", "}", "+", "-", "\\", "'", "\0", ".", ",", " ", "NEAR",
        "AND", "OR", "NOT", "text", "room", "r1",
    ]);
    prop_oneof![
        signs.prop_map(ToOwned::to_owned),
        "[a-z]{1,3}",
        any::<char>().prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Goal: nothing that is typed is an error of the index, or syntax. Method: any characters, with
    /// those that mean something to FTS5 made likely.
    #[test]
    fn no_query_is_syntax(pieces in prop::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        thread_local!(static FTS: Fts = Fts::new());
        if let Ok(query) = text.parse::<Query>() {
            let found = FTS.with(|fts| fts.matches(&query, &text));
            prop_assert!(found.is_ok(), "{found:?}");
            prop_assert!(query.matches(&text));
        } else {
            prop_assert!(text.chars().count() > 256 || words(&text).is_empty());
        }
    }

    /// Goal: a node without an index finds the same. Method: texts of few letters of many scripts, so
    /// that queries of the same letters often match.
    #[test]
    fn memory_and_disk_find_the_same(
        text in r#"([abAB1]{1,2}|[ -~]|[σςΣßẞİıéا٣ًשׁकि्ท่了かガ゙한ᄒ\u{301}\u{200C}]|\PC){0,30}"#,
        query in r#"([abAB1]{1,2}|[ "\-]|[σςΣßẞİıéا٣ًשׁकि्ท่了かガ゙한ᄒ\u{301}\u{200C}]){1,8}"#,
    ) {
        thread_local!(static FTS: Fts = Fts::new());
        if let Ok(query) = query.parse::<Query>() {
            let found = FTS.with(|fts| fts.matches(&query, &text));
            prop_assert_eq!(found.unwrap(), query.matches(&text));
        }
    }
}

/// Goal: a search that would take long is given up, and the next one is answered. Method: a reader
/// is made to look at more than it can in the time.
#[tokio::test]
async fn a_search_that_takes_too_long_is_given_up() {
    let mut rig = Rig::new();
    rig.store(shown([said('a', 1, 1, "lobby", "hello")])).await;
    let endless = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) \
                   SELECT count(*) FROM n";
    let given_up = rig.disk.ask(|reader| {
        reader.read_in_time(Duration::from_millis(250), |reader| {
            reader.db.query_row(endless, [], |row| row.get::<_, i64>(0))
        })
    });
    assert_eq!(given_up.await, Err(crate::disk::ReadError::Slow));
    assert_eq!(found(&rig.disk, "hello", None, 9).await.0, [1]);
    let elsewhere = "hello".parse().unwrap();
    let page = rig
        .disk
        .search(&room("nowhere"), &elsewhere, None, 9)
        .await
        .unwrap();
    assert_eq!(page.entries.len(), 0);
}
