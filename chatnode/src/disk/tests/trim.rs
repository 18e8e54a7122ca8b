//! Retention: by number, by bytes, by age; and what is known of what is gone.

use std::sync::Arc;
use std::time::Duration;

use super::rig::{Rig, entry, lobby, options, origin, said, seqs, shown};
use crate::core::log::Span;
use crate::disk::time::wall_us;
use crate::disk::{DiskOptions, DiskRetention, Outcome};
use crate::model::entry::Entry;
use crate::model::names::Origin;

impl Rig {
    /// The last floor that was told of a log.
    fn told(&self, letter: char) -> Option<u64> {
        let mut told = self.trimmed.iter().rev();
        told.find(|(of, _)| *of == origin(letter))
            .map(|(_, floor)| *floor)
    }

    /// Waits until this floor of a log is told: it is, after the size has changed.
    async fn hears(&mut self, letter: char, floor: u64) {
        while self.told(letter) != Some(floor) {
            match self.outcome().await {
                Outcome::Trimmed(logs) => self.trimmed.extend(logs),
                other => panic!("{other:?}, and {:?} was told", self.told(letter)),
            }
        }
    }
}

fn by_messages(messages: u64) -> DiskRetention {
    DiskRetention {
        messages,
        ..DiskRetention::default()
    }
}

/// Two logs that were said in turns: `a` at 10, 20, …, `b` between.
fn turns(count: u64) -> Vec<Arc<Entry>> {
    (1..=count)
        .flat_map(|seq| [entry('a', seq, 10 * seq), entry('b', seq, 10 * seq + 5)])
        .collect()
}

/// Goal: the oldest of all go, from the front of each log, and that is told. Method: 20 entries of
/// two logs, 7 may stay; look at the transcript, the floors, the counts, and again after a restart.
#[tokio::test]
async fn the_oldest_of_all_logs_are_trimmed_by_number() {
    let mut rig = Rig::with(by_messages(7));
    rig.store(shown(turns(10))).await;
    rig.left(7).await;
    rig.hears('a', 7).await;
    rig.hears('b', 6).await;
    assert_eq!(seqs(&rig.lobby().await), [7, 8, 8, 9, 9, 10, 10]);
    let (floor, range) = rig.disk.range(origin('a'), 0, 99, 1 << 20).await.unwrap();
    assert_eq!(floor, 7);
    assert_eq!(range[0].seq, 8);
    assert_eq!(rig.disk.rooms().await.unwrap()[0].messages, 7);
    let rig = rig.reopen().await;
    assert_eq!(rig.loaded.set_aside, None);
    assert_eq!(rig.loaded.entries.len(), 7);
    let floors: Vec<_> = rig
        .loaded
        .logs
        .iter()
        .map(|log| (log.floor, log.held, log.holes.len()))
        .collect();
    assert_eq!(floors, [(7, 10, 0), (6, 10, 0)]);
}

/// Goal: a log that is trimmed whole is known still, and its numbers do not come back. Method: all
/// of `a` is older than what stays of `b`; then an entry of `a` comes late.
#[tokio::test]
async fn a_log_that_is_trimmed_whole_is_still_known() {
    let mut rig = Rig::with(by_messages(2));
    let old = [said('a', 4, 1, "old", "one"), said('a', 6, 2, "old", "two")];
    let new = [entry('b', 1, 10), entry('b', 2, 20)];
    rig.store(shown(old.clone().into_iter().chain(new))).await;
    rig.left(2).await;
    rig.hears('a', 6).await;
    assert_eq!(rig.told('b'), None);
    rig.store(shown(old)).await;
    assert_eq!(rig.disk.size().0, 2, "what was trimmed stays so");
    assert_eq!(rig.disk.rooms().await.unwrap().len(), 1);
    let rig = rig.reopen().await;
    assert_eq!(rig.loaded.set_aside, None);
    let a = &rig.loaded.logs[0];
    assert_eq!((a.origin, a.held, a.floor), (origin('a'), 6, 6));
    assert_eq!(a.holes, []);
}

/// Goal: a number that is missing stays so when what is before it is trimmed.
#[tokio::test]
async fn a_hole_beyond_the_floor_is_told_after_trimming() {
    let mut rig = Rig::with(by_messages(2));
    let seqs = [1, 2, 3, 6, 7];
    rig.store(shown(seqs.map(|seq| entry('a', seq, seq)))).await;
    rig.left(2).await;
    let rig = rig.reopen().await;
    let a = &rig.loaded.logs[0];
    assert_eq!((a.floor, a.held), (3, 7));
    let hole = Span {
        after: 3,
        through: 5,
    };
    assert_eq!(a.holes, [hole]);
}

/// Goal: what is older than it may be goes, though nothing new comes. Method: entries of two hours
/// ago and of now, with an hour allowed; the second half is found when the store is opened.
#[tokio::test]
async fn entries_that_are_too_old_are_trimmed() {
    let hour = 3_600_000_000;
    let now = wall_us();
    let retention = DiskRetention {
        age: Some(Duration::from_micros(hour)),
        ..DiskRetention::default()
    };
    let ages = [2 * hour, hour + 1_000_000, hour / 2, 0];
    let entries = (1..).zip(ages).map(|(seq, age)| entry('a', seq, now - age));
    let entries: Vec<_> = entries.collect();
    let mut rig = Rig::with(retention);
    rig.store(shown(entries.clone())).await;
    rig.left(2).await;
    rig.hears('a', 2).await;
    // Without limits nothing goes; with them, at the start.
    let mut rig = Rig::new();
    rig.store(shown(entries)).await;
    let dir = rig.close().await;
    let options = DiskOptions {
        retention,
        ..options(dir.path())
    };
    let mut rig = Rig::open(dir, options).unwrap();
    assert_eq!(rig.loaded.entries.len(), 4);
    rig.left(2).await;
    rig.hears('a', 2).await;
}

/// Goal: the bytes in use come down to what is allowed, and not far below. Method: 8000 entries,
/// indexed; then reopen with room for half of what they take. That the index of words shrinks too is
/// what makes it end: about half of the entries must be left.
#[tokio::test]
async fn trimming_by_bytes_ends_near_what_is_allowed() {
    let mut rig = Rig::new();
    let text = |seq: u64| {
        let words = (0..12).map(|n| format!("word{}", (seq * 31 + n * 17) % 500));
        words.collect::<Vec<_>>().join(" ")
    };
    for from in (0..8000).step_by(500) {
        let entries = (from + 1..=from + 500).map(|seq| said('a', seq, seq, "lobby", &text(seq)));
        rig.store(shown(entries)).await;
    }
    while rig.disk.unindexed() >= 1000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let dir = rig.close().await;
    let length = std::fs::metadata(dir.path().join("history.db"))
        .unwrap()
        .len();
    let allowed = length / 2;
    let options = DiskOptions {
        retention: DiskRetention {
            bytes: allowed,
            ..DiskRetention::default()
        },
        ..options(dir.path())
    };
    let rig = Rig::open(dir, options).unwrap();
    let db = rusqlite::Connection::open(rig.dir.path().join("history.db")).unwrap();
    let pages = "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count";
    let used = || -> u64 {
        let pages: i64 = db.query_row(pages, [], |row| row.get(0)).unwrap();
        4096 * pages.cast_unsigned()
    };
    let count = || -> u64 {
        let count = db.query_row("SELECT count(*) FROM entries", [], |row| {
            row.get::<_, i64>(0)
        });
        count.unwrap().cast_unsigned()
    };
    // The file is ahead of what the writer tells of it, by a moment.
    while used() > allowed || rig.disk.size().0 != count() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let left = rig.disk.size().0;
    let _dir = rig.close().await;
    let used = used();
    println!("{length} bytes, {allowed} allowed, {used} used by {left} entries of 8000");
    assert!(used <= allowed, "{used} of {allowed}");
    assert!((3000..5000).contains(&left), "{left} entries are left");
    assert_eq!(count(), left, "nothing is trimmed any more");
}

/// Goal: while batches come without a pause, retention is kept all the same. Method: 30 000 entries
/// with room for 1000, written as fast as may be; never more than a few steps over.
#[tokio::test]
async fn retention_is_kept_under_load() {
    let mut rig = Rig::with(by_messages(1000));
    let mut most = 0;
    for from in (0..30_000).step_by(200) {
        rig.store(shown(
            (from + 1..=from + 200).map(|seq| entry('a', seq, seq)),
        ))
        .await;
        most = most.max(rig.disk.size().0);
    }
    rig.left(1000).await;
    assert!(most > 1000, "it was over at times, {most}");
    assert!(most < 29_000, "something was trimmed meanwhile, {most}");
    rig.hears('a', 29_000).await;
    let page = rig.disk.page(&lobby(), None, 2000).await.unwrap();
    assert_eq!((page.entries.len(), page.entries[0].seq), (1000, 29_001));
}

/// Goal: a log whose timestamps do not increase is trimmed from the front all the same, and by no
/// more. Method: the oldest by timestamp is the last by number.
#[tokio::test]
async fn a_log_is_trimmed_from_the_front_whatever_its_timestamps() {
    let mut rig = Rig::with(by_messages(3));
    let said = [50, 40, 30, 20, 10];
    rig.store(shown((1..).zip(said).map(|(seq, ts)| entry('a', seq, ts))))
        .await;
    rig.left(3).await;
    rig.hears('a', 2).await;
    assert_eq!(seqs(&rig.lobby().await), [5, 4, 3]);
}

/// Goal: what is known of dead origins is bounded. Method: more logs than that, each of one entry,
/// of which all but one are trimmed; those that ended first are forgotten.
#[tokio::test]
async fn of_many_dead_logs_the_oldest_are_forgotten() {
    let most = crate::core::ORIGINS_MAX;
    let name = |number: usize| -> Origin {
        let letters = (0..10).map(|digit| ['a', 'b', 'c', 'd'][number >> (2 * digit) & 3]);
        letters.collect::<String>().parse().unwrap()
    };
    let ada = "ada".parse().unwrap();
    let said = |number: usize| {
        let id = crate::model::names::EntryId {
            origin: name(number),
            seq: 1,
        };
        Arc::new(Entry::new(id, number as u64 + 1, lobby(), None, &ada, "x"))
    };
    let mut rig = Rig::with(by_messages(1));
    rig.store(shown((0..most + 10).map(said))).await;
    rig.left(1).await;
    let rig = rig.reopen().await;
    assert_eq!(rig.loaded.set_aside, None);
    let logs = &rig.loaded.logs;
    assert_eq!(logs.len(), most);
    let has = |number| logs.iter().any(|log| log.origin == name(number));
    assert!(!has(0) && !has(9) && has(10) && has(most + 9));
}
