//! Files of an older version, in which the names of rooms are spelled as clients did.

use std::path::Path;

use rusqlite::Connection;

use super::rig::{Rig, damaged, options, room, said, seqs, shown};
use crate::disk::{self, row, schema};

const SPELLED: &str = "cafe\u{301}";

/// Makes a room, as its number, one that an older version has written.
fn spell(db: &Connection, number: i64) {
    let name: String = db
        .query_row("SELECT name FROM rooms WHERE id = ?1", [number], |row| {
            row.get(0)
        })
        .unwrap();
    let name = room(&name);
    let sql = format!(
        "SELECT {} FROM entries e WHERE room = {number}",
        row::COLUMNS
    );
    let mut rows = db.prepare(&sql).unwrap();
    let mut rows = rows.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let kept = row::read(row, &name).unwrap().unwrap();
        let mut entry = (*kept.entry).clone();
        let json = std::str::from_utf8(&entry.json).unwrap();
        entry.json = json.replacen(name.as_str(), SPELLED, 1).into();
        let sum = row::sum_spelled(kept.id, &entry, kept.shown, SPELLED);
        db.execute(
            "UPDATE entries SET json = ?2, sum = ?3 WHERE id = ?1",
            (kept.id, &*entry.json, sum),
        )
        .unwrap();
    }
    db.execute(
        "UPDATE rooms SET name = ?2 WHERE id = ?1",
        (number, SPELLED),
    )
    .unwrap();
}

/// Makes the file one of the first version, with its index of words.
fn age(db: &Connection) {
    db.execute_batch("DROP TABLE search").unwrap();
    db.execute_batch(schema::SEARCH_TABLE_FIRST).unwrap();
    db.execute_batch(
        "INSERT INTO search (rowid, room, text) \
         SELECT id, 'r' || room, json_extract(CAST(json AS TEXT), '$.text') FROM entries; \
         UPDATE meta SET value = (SELECT max(id) FROM entries) WHERE key = 'indexed'; \
         UPDATE meta SET value = 1 WHERE key = 'schema'; PRAGMA user_version = 1",
    )
    .unwrap();
}

async fn written(rooms: [&str; 2]) -> tempfile::TempDir {
    let mut rig = Rig::new();
    let mut batch = shown([
        said('a', 1, 1, rooms[0], "one"),
        said('a', 2, 2, rooms[1], "two"),
        said('a', 3, 3, rooms[0], "three"),
        said('a', 4, 4, "lobby", "four"),
    ]);
    batch.entries[2].1 = false;
    rig.store(batch).await;
    rig.close().await
}

fn open(dir: &Path) -> Connection {
    Connection::open(dir.join("history.db")).unwrap()
}

/// Goal: a room that was spelled otherwise is the room that it is now, and so is what was said in it;
/// of two that were told apart one is left. Method: the sums and bytes that an older version wrote.
#[tokio::test]
async fn rooms_of_an_older_file_are_respelled() {
    for rooms in [["caf\u{E9}"; 2], ["tea", "caf\u{E9}"]] {
        let dir = written(rooms).await;
        let db = open(dir.path());
        spell(&db, 1);
        age(&db);
        drop(db);
        let path = dir.path().to_owned();
        let mut rig = Rig::open(dir, options(&path)).unwrap();
        let cafe = room("caf\u{E9}");
        for _ in 0..2 {
            assert_eq!(rig.loaded.set_aside, None);
            assert_eq!(rig.loaded.entries.len(), 4);
            let one = &rig.loaded.entries[0].0;
            assert_eq!(*one, said('a', 1, 1, "caf\u{E9}", "one"));
            let page = rig.disk.page(&cafe, None, 9).await.unwrap();
            assert_eq!(seqs(&page), [1, 2]);
            assert_eq!(rig.disk.rooms().await.unwrap().len(), 2);
            for (word, wanted) in [("one", vec![1]), ("two", vec![2]), ("three", vec![])] {
                let query = word.parse().unwrap();
                let found = rig.disk.search(&cafe, &query, None, 9).await.unwrap();
                assert_eq!(seqs(&found), wanted, "{word}");
            }
            rig = rig.reopen().await;
        }
        assert_eq!(damaged(&rig.disk), 0);
    }
}

/// Goal: the index of words of an older file is made anew while the node works, and meanwhile all is
/// found, as it is afterwards; nothing is lost, trimming goes on. Method: a file of many entries.
#[tokio::test]
async fn the_index_of_an_older_file_is_made_anew() {
    let mut rig = Rig::new();
    let entries = (1..=3000).map(|seq| said('a', seq, seq, "lobby", &format!("ΤΗΣ {seq}")));
    for batch in entries.collect::<Vec<_>>().chunks(1000) {
        rig.store(shown(batch.to_vec())).await;
    }
    let dir = rig.close().await;
    age(&open(dir.path()));
    let path = dir.path().to_owned();
    let options = disk::DiskOptions {
        retention: disk::DiskRetention {
            messages: 2000,
            ..disk::DiskRetention::default()
        },
        ..options(&path)
    };
    let mut rig = Rig::open(dir, options).unwrap();
    assert_eq!(rig.loaded.set_aside, None);
    // A search that is slow meanwhile is one to be made again.
    let found = async |rig: &Rig, query: &str| {
        let query = query.parse().unwrap();
        loop {
            match rig.disk.search(&room("lobby"), &query, None, 9).await {
                Ok(page) => return seqs(&page),
                Err(disk::ReadError::Slow) => {}
                Err(why) => panic!("{why}"),
            }
        }
    };
    assert_eq!(found(&rig, "της 2500").await, [2500]);
    rig.left(2000).await;
    while rig.disk.unindexed() >= 1000 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(found(&rig, "της 1001").await, [1001]);
    assert_eq!(found(&rig, "της 1000").await, [0; 0]);
    let rig = rig.reopen().await;
    assert_eq!(rig.loaded.set_aside, None);
    assert_eq!(rig.loaded.entries.len(), 2000);
    assert_eq!(found(&rig, "της").await, (2992..=3000).collect::<Vec<_>>());
}

/// Goal: what is saved of a damaged file of that kind is respelled, too. Method: the file's versions
/// differ.
#[tokio::test]
async fn what_is_saved_of_an_older_file_is_respelled() {
    let dir = written(["tea", "caf\u{E9}"]).await;
    let db = open(dir.path());
    spell(&db, 1);
    db.execute_batch("PRAGMA user_version = 9").unwrap();
    drop(db);
    let (disk, loaded, _outcomes) = disk::open(options(dir.path())).unwrap();
    assert!(loaded.set_aside.is_some());
    assert_eq!(loaded.entries.len(), 4);
    let page = disk.page(&room("caf\u{E9}"), None, 9).await.unwrap();
    assert_eq!(seqs(&page), [1, 2]);
}
