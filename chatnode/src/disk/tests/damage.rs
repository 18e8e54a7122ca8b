//! Files that rot: whatever happens to them, an entry that comes out is one that went in.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::rig::{PATIENCE, Rig, damaged, entry, options, room, said, shown, with_mid};
use crate::disk::{self, Batch, DiskRetention};
use crate::model::entry::Entry;
use crate::model::names::EntryId;

/// Entries that one flipped bit may cost at the most: those of one page.
const PAGE_ENTRIES_MAX: usize = 30;

/// Entries of each of three logs.
const LOG: u64 = 150;
/// Entries of all three.
const KEPT: usize = 450;
/// Entries of a fourth log, of which nothing is left. With them it is enough to be indexed.
const TRIMMED: u64 = 600;

/// What was written: each entry, and whether it is shown.
type Written = HashMap<EntryId, (Arc<Entry>, bool)>;

/// A store with a bit of everything: long entries, hidden ones, mids, several rooms and logs, a log
/// that is trimmed whole, and an index of words.
async fn written() -> (Written, tempfile::TempDir, Vec<u8>) {
    let mut rig = Rig::with(DiskRetention {
        messages: KEPT as u64,
        ..DiskRetention::default()
    });
    rig.store(shown((1..=TRIMMED).map(|seq| entry('z', seq, seq))))
        .await;
    let mut batch = Batch::default();
    for seq in 1..=LOG {
        for (letter, at) in [('a', "lobby"), ('b', "größe"), ('c', "lobby")] {
            let text = if seq % 50 == 0 {
                format!("long {}", "x".repeat(9000))
            } else {
                format!("number {seq} of {letter}")
            };
            let mid = (seq % 3 == 0).then(|| format!("mid-{seq}").parse().unwrap());
            let entry = with_mid(letter, seq, TRIMMED + seq, at, &text, mid);
            batch.entries.push((entry, seq % 7 != 0));
        }
    }
    rig.store(batch.clone()).await;
    while rig.disk.size().0 > KEPT as u64 || rig.disk.unindexed() >= 1000 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let dir = rig.close().await;
    let file = std::fs::read(dir.path().join("history.db")).unwrap();
    let written = batch.entries.into_iter();
    let written = written.map(|(entry, shown)| (entry.id(), (entry, shown)));
    (written.collect(), dir, file)
}

/// Opens what is in a folder, and proves that all that comes out went in. Returns how many entries
/// there are, and whether the file was set aside.
async fn open(dir: &Path, written: &Written, what: &str) -> (usize, bool) {
    let opened = disk::open(options(dir));
    let (disk, loaded, _outcomes) = opened.unwrap_or_else(|why| panic!("{what}: {why}"));
    for (entry, shown) in &loaded.entries {
        let (was, was_shown) = &written[&entry.id()];
        assert_eq!((entry, shown), (was, was_shown), "{what}");
    }
    for name in ["lobby", "größe"] {
        let page = disk.page(&room(name), None, usize::MAX).await.unwrap();
        for entry in page.entries {
            assert_eq!(
                (&entry, &true),
                (&written[&entry.id()].0, &written[&entry.id()].1),
                "{what}"
            );
        }
    }
    assert_eq!(damaged(&disk), 0, "{what}: all was checked");
    assert_eq!(disk.size().0, loaded.entries.len() as u64, "{what}");
    for log in &loaded.logs {
        let dead = log.origin == super::rig::origin('z');
        let ends = (log.held, log.floor);
        assert!(
            ends == if dead { (TRIMMED, TRIMMED) } else { (LOG, 0) },
            "{what}: {log:?}"
        );
    }
    if let Some(aside) = &loaded.set_aside {
        assert!(aside.exists() && aside.starts_with(dir), "{what}");
    }
    disk.close(PATIENCE).await;
    (loaded.entries.len(), loaded.set_aside.is_some())
}

fn put(file: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("history.db"), file).unwrap();
    dir
}

/// Goal: one flipped bit, wherever it is, yields no wrong entry, stops no start, and costs no more
/// than the entries of one page; the damaged file is kept. Method: bits at random places of a small
/// file, and at each byte of its header, one at a time. `SEED=n` in the message replays a place.
#[tokio::test]
async fn a_flipped_bit_yields_no_wrong_entry() {
    let (written, _dir, file) = written().await;
    let (mut aside, mut lost) = (0, 0);
    let mut random = StdRng::seed_from_u64(7);
    let header = (0..100).step_by(4);
    let places: Vec<usize> = header
        .chain((0..65).map(|_| random.random_range(0..file.len())))
        .collect();
    for place in &places {
        let bit = random.random_range(0..8);
        let mut damaged = file.clone();
        damaged[*place] ^= 1 << bit;
        let dir = put(&damaged);
        let what = format!("bit {bit} of byte {place}");
        let (count, is_aside) = open(dir.path(), &written, &what).await;
        let missing = written.len() - count;
        assert!(
            missing <= PAGE_ENTRIES_MAX,
            "{what}: {missing} entries are lost"
        );
        assert!(
            is_aside || missing == 0,
            "{what}: {missing} are lost in silence"
        );
        aside += usize::from(is_aside);
        lost += missing;
    }
    let count = places.len();
    println!("{count} flipped bits: {aside} files set aside, {lost} entries lost in all");
    assert!(aside > count / 4, "most of the file matters: {aside}");
}

/// Goal: the same for the write-ahead log of a node that was killed: what is behind the damage is
/// lost, which nobody can know, but nothing is wrong.
#[tokio::test]
async fn a_flipped_bit_in_the_log_yields_no_wrong_entry() {
    let mut rig = Rig::new();
    let mut written = Written::new();
    for seq in 1..=40 {
        let batch = shown([said('a', seq, seq, "lobby", &format!("number {seq}"))]);
        let (entry, shown) = batch.entries[0].clone();
        written.insert(entry.id(), (entry, shown));
        rig.store(batch).await;
    }
    let read = |name| std::fs::read(rig.dir.path().join(name)).unwrap();
    let (file, log) = (read("history.db"), read("history.db-wal"));
    let mut random = StdRng::seed_from_u64(8);
    let mut least = 40;
    for _ in 0..60 {
        let place = random.random_range(0..log.len());
        let mut damaged = log.clone();
        damaged[place] ^= 1 << random.random_range(0..8);
        let dir = put(&file);
        std::fs::write(dir.path().join("history.db-wal"), damaged).unwrap();
        let opened = disk::open(options(dir.path()));
        let (disk, loaded, _outcomes) = opened.unwrap();
        assert_eq!(loaded.set_aside, None, "byte {place}");
        for (entry, shown) in &loaded.entries {
            assert_eq!(
                (entry, shown),
                (&written[&entry.id()].0, &true),
                "byte {place}"
            );
        }
        least = least.min(loaded.entries.len());
        disk.close(PATIENCE).await;
    }
    assert!(least < 40, "the log was in use");
}

/// Where entries are in a file: pages, counted from 1, and how many are in each.
fn leaves(file: &Path) -> Vec<(usize, usize)> {
    let db = rusqlite::Connection::open(file).unwrap();
    let sql = "SELECT pageno, ncell FROM dbstat WHERE name = 'entries' AND pagetype = 'leaf' \
               ORDER BY path";
    let mut leaves = db.prepare(sql).unwrap();
    let number = |number: i64| usize::try_from(number).unwrap();
    let leaves = leaves.query_map([], |row| Ok((number(row.get(0)?), number(row.get(1)?))));
    leaves.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Goal: a file that was cut short costs what was cut off, no more. Method: cut at many lengths; what
/// must be left is counted by SQLite in the whole file, less the long ones, whose ends may be gone.
#[tokio::test]
async fn a_truncated_file_is_set_aside_and_the_rest_is_saved() {
    let (written, whole, file) = written().await;
    let leaves = leaves(&whole.path().join("history.db"));
    let long = 3 * usize::try_from(LOG / 50).unwrap();
    for eighths in 0..8 {
        let length = file.len() * eighths / 8 + 17;
        let dir = put(&file[..length]);
        let (disk, loaded, _outcomes) = disk::open(options(dir.path())).unwrap();
        let aside = loaded.set_aside.clone().expect("it is damaged");
        assert_eq!(std::fs::read(&aside).unwrap(), file[..length]);
        for (entry, shown) in &loaded.entries {
            let (was, was_shown) = &written[&entry.id()];
            assert_eq!((entry, shown), (was, was_shown));
        }
        let there = leaves.iter().filter(|(page, _)| page * 4096 <= length);
        let there: usize = there.map(|(_, count)| count).sum();
        let count = loaded.entries.len();
        println!(
            "{length} of {} bytes: {count} of {there} entries",
            file.len()
        );
        assert!(count <= there && count + long >= there);
        disk.close(PATIENCE).await;
    }
}

/// Goal: a leaf that does not read costs its own entries, and none of the next leaf, which may be
/// nowhere but in the write-ahead log. Method: a file whose last leaf is full, what follows is in the
/// log alone, and that leaf is overwritten.
#[tokio::test]
async fn what_follows_a_damaged_leaf_is_saved_from_the_log() {
    let entries = |numbers: std::ops::RangeInclusive<u64>| {
        shown(numbers.map(|seq| said('a', seq, seq, "lobby", &format!("number {seq:5}"))))
    };
    // With this many the last leaf is full: one more begins another.
    let mut rig = Rig::new();
    rig.store(entries(1..=100)).await;
    let mut full = 100;
    let begun = leaves(&rig.dir.path().join("history.db")).len();
    while leaves(&rig.dir.path().join("history.db")).len() == begun {
        full += 1;
        rig.store(entries(full..=full)).await;
    }
    full -= 1;
    let mut rig = Rig::new();
    rig.store(entries(1..=full)).await;
    let mut rig = rig.reopen().await;
    let path = rig.dir.path().join("history.db");
    let mut file = std::fs::read(&path).unwrap();
    let (page, lost) = *leaves(&path).last().unwrap();
    rig.store(entries(full + 1..=full + 5)).await;
    assert_eq!(leaves(&path).len(), begun + 1);
    file[(page - 1) * 4096..page * 4096].fill(0xAA);
    let dir = put(&file);
    std::fs::copy(
        rig.dir.path().join("history.db-wal"),
        dir.path().join("history.db-wal"),
    )
    .unwrap();
    let (disk, loaded, _outcomes) = disk::open(options(dir.path())).unwrap();
    assert!(loaded.set_aside.is_some());
    let seqs: Vec<u64> = loaded.entries.iter().map(|(entry, _)| entry.seq).collect();
    let before = full - lost as u64;
    let left: Vec<u64> = (1..=before).chain(full + 1..=full + 5).collect();
    assert_eq!(seqs, left);
    disk.close(PATIENCE).await;
}

/// Goal: a file whose beginning is gone is still read, page by page. Method: overwrite the first
/// page, which has the header and the tables' roots; then a middle part with noise.
#[tokio::test]
async fn entries_are_saved_though_sqlite_cannot_read_the_file() {
    let (written, _dir, file) = written().await;
    let mut beheaded = file.clone();
    beheaded[..4096].fill(0);
    let dir = put(&beheaded);
    assert_eq!(
        open(dir.path(), &written, "no first page").await,
        (KEPT, true)
    );
    let mut random = StdRng::seed_from_u64(9);
    let mut holed = file.clone();
    let (from, to) = (file.len() / 3, file.len() / 2);
    holed[from..to].fill_with(|| random.random());
    let dir = put(&holed);
    let (disk, loaded, _outcomes) = disk::open(options(dir.path())).unwrap();
    assert!(loaded.set_aside.is_some());
    for (entry, shown) in &loaded.entries {
        let (was, was_shown) = &written[&entry.id()];
        assert_eq!((entry, shown), (was, was_shown));
    }
    assert!(loaded.entries.len() > KEPT / 3, "{}", loaded.entries.len());
    disk.close(PATIENCE).await;
}

/// Goal: damage that is met while writing ends the writer: nothing is told as stored that may not be.
/// Method: another connection makes the writer forget the pages that it remembers; then the file is
/// overwritten under its feet.
#[tokio::test]
async fn damage_met_while_writing_ends_the_writer() {
    let mut rig = Rig::new();
    rig.store(shown((1..=500).map(|seq| entry('a', seq, seq))))
        .await;
    let file = rig.dir.path().join("history.db");
    let other = rusqlite::Connection::open(&file).unwrap();
    other
        .execute_batch("UPDATE meta SET value = value")
        .unwrap();
    other
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096..].fill(0xAA);
    std::fs::write(&file, bytes).unwrap();
    let outcome = rig.write(shown([entry('a', 501, 501)])).await;
    assert!(matches!(outcome, disk::Outcome::Broken(_)), "{outcome:?}");
    assert_eq!(rig.outcomes.recv().await, None, "the writer has ended");
    rig.disk.write(shown([entry('a', 502, 502)]));
    let page = rig.disk.page(&room("lobby"), None, 9).await;
    assert!(matches!(page, Err(disk::ReadError::Broken(_))), "{page:?}");
    drop(other);
    let rig = rig.reopen().await;
    assert!(rig.loaded.set_aside.is_some());
}

/// Goal: what is no database at all is set aside, not deleted, and a new one is begun, again and
/// again. Method: files of other kinds, one after the other in the same folder.
#[tokio::test]
async fn garbage_is_set_aside_and_a_new_file_is_begun() {
    let mut random = StdRng::seed_from_u64(10);
    let noise: Vec<u8> = (0..50_000).map(|_| random.random()).collect();
    let text = b"This is no database.".repeat(1000);
    let other = tempfile::tempdir().unwrap();
    let foreign = other.path().join("foreign.db");
    let db = rusqlite::Connection::open(&foreign).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    db.close().unwrap();
    let foreign = std::fs::read(foreign).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut kept = Vec::new();
    for garbage in [noise, text, foreign, Vec::new(), vec![0; 4096]] {
        std::fs::write(dir.path().join("history.db"), &garbage).unwrap();
        let opened = disk::open(options(dir.path())).unwrap();
        let (disk, loaded, mut outcomes) = opened;
        kept.push((loaded.set_aside.expect("it is damaged"), garbage));
        assert_eq!(loaded.entries.len(), 0);
        disk.write(shown([entry('a', 1, 1)]));
        assert_eq!(outcomes.recv().await, Some(disk::Outcome::Stored));
        disk.close(PATIENCE).await;
    }
    for (aside, garbage) in kept {
        assert_eq!(std::fs::read(aside).unwrap(), garbage);
    }
}
