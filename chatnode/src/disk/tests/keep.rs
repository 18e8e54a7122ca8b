//! What is kept is there again.

use std::sync::atomic::Ordering;

use super::rig::{PATIENCE, Rig, entry, id, options, origin, room, said, seqs, shown, with_mid};
use crate::core::journal::{LoadedLog, LoadedMid};
use crate::core::log::Span;
use crate::core::memory::Retention;
use crate::disk::time::wall_us;
use crate::disk::{Batch, DiskOptions, Outcome};
use crate::model::entry::Place;
use crate::model::page::RoomSummary;

/// Goal: a restart loses nothing and changes nothing. Method: entries of two logs in two rooms, one
/// of them hidden, one with all that an entry can have; read back byte for byte after a reopening.
#[tokio::test]
async fn a_reopened_store_has_the_same_entries_in_the_same_order() {
    let mid = Some("7c1\"ü".parse().unwrap());
    let kept = [
        (entry('b', 1, 10), true),
        (with_mid('a', 1, 10, "größe", "ein \"Wort\"\n", mid), true),
        (said('a', 2, 11, "lobby", &"x".repeat(20_000)), false),
        (entry('b', 2, 12), true),
    ];
    let mut rig = Rig::new();
    assert_eq!(rig.loaded.entries.len() + rig.loaded.logs.len(), 0);
    let batch = Batch {
        entries: kept.to_vec(),
        shows: Vec::new(),
    };
    rig.store(batch).await;
    let rig = rig.reopen().await;
    let [b1, a1, a2, b2] = kept;
    assert_eq!(rig.loaded.entries, [a1, b1, a2, b2.clone()]);
    let logs: Vec<_> = rig
        .loaded
        .logs
        .iter()
        .map(|log| (log.origin, log.held))
        .collect();
    assert_eq!(logs, [(origin('a'), 2), (origin('b'), 2)]);
    assert_eq!(rig.loaded.set_aside, None);
    assert_eq!(rig.disk.size().0, 4);
    assert!(rig.disk.size().1 > 4096);
    let rooms = rig.disk.rooms().await.unwrap();
    let summary = |name, messages, newest: &_| RoomSummary {
        room: room(name),
        messages,
        newest: Some(*newest),
    };
    let a1 = Place {
        ts: 10,
        origin: origin('a'),
    };
    let wanted = [summary("größe", 1, &a1), summary("lobby", 2, &b2.0.place())];
    assert_eq!(rooms, wanted);
}

/// Goal: keeping twice is once, and the first one stays. Method: the same batch twice, then another
/// entry under a number that is taken.
#[tokio::test]
async fn an_entry_is_kept_once() {
    let mut rig = Rig::new();
    let batch = shown([entry('a', 1, 10), entry('a', 2, 20), entry('a', 1, 10)]);
    rig.store(batch.clone()).await;
    rig.store(batch).await;
    rig.store(shown([said('a', 2, 21, "elsewhere", "another")]))
        .await;
    let page = rig.lobby().await;
    assert_eq!(page.entries, [entry('a', 1, 10), entry('a', 2, 20)]);
    let rooms = rig.disk.rooms().await.unwrap();
    assert_eq!((rooms.len(), rooms[0].messages), (1, 2));
    let rig = rig.reopen().await;
    assert_eq!(rig.loaded.set_aside, None, "the counts are right");
    assert_eq!(rig.loaded.entries.len(), 2);
}

/// Goal: what is shown changes, with the counts, and stays so. Method: hide one, show one that was
/// kept hidden, name one that is not kept; look at once and after a reopening.
#[tokio::test]
async fn entries_are_shown_and_hidden_later() {
    let mut rig = Rig::new();
    rig.store(Batch {
        entries: vec![
            (entry('a', 1, 10), true),
            (entry('a', 2, 20), false),
            (entry('a', 3, 30), true),
        ],
        shows: Vec::new(),
    })
    .await;
    rig.store(Batch {
        entries: Vec::new(),
        shows: vec![
            (id('a', 1), false),
            (id('a', 2), true),
            (id('a', 3), true),
            (id('a', 9), true),
        ],
    })
    .await;
    assert_eq!(seqs(&rig.lobby().await), [2, 3]);
    let rig = rig.reopen().await;
    assert_eq!(rig.loaded.set_aside, None);
    assert_eq!(seqs(&rig.lobby().await), [2, 3]);
    assert_eq!(rig.disk.rooms().await.unwrap()[0].messages, 2);
    let flags: Vec<_> = rig.loaded.entries.iter().map(|(_, shown)| *shown).collect();
    assert_eq!(flags, [false, true, true]);
}

/// Goal: numbers that are missing are told, so that they can be asked for. Method: a log with a hole
/// at its front and one inside.
#[tokio::test]
async fn holes_of_a_log_are_told() {
    let mut rig = Rig::new();
    let seqs = [3, 4, 7, 8, 9];
    rig.store(shown(seqs.map(|seq| entry('a', seq, seq)))).await;
    let mut rig = rig.reopen().await;
    let hole = |after, through| Span { after, through };
    let log = |holes| LoadedLog {
        origin: origin('a'),
        held: 9,
        floor: 0,
        holes,
        last_ts: 9,
    };
    assert_eq!(rig.loaded.logs, [log(vec![hole(0, 2), hole(4, 6)])]);
    rig.store(shown([
        entry('a', 5, 5),
        entry('a', 6, 6),
        entry('a', 1, 1),
    ]))
    .await;
    let rig = rig.reopen().await;
    assert_eq!(rig.loaded.logs, [log(vec![hole(1, 2)])]);
}

/// Goal: memory gets the newest, up to its bounds, and the mids of what was said before.
/// Method: ten entries of which memory has room for three; the first was said long ago.
#[tokio::test]
async fn the_newest_are_loaded_and_the_mids_before_them() {
    let now = wall_us();
    let said = |seq: u64| {
        let mid = format!("m{seq}").parse().unwrap();
        let age = if seq == 1 { 301_000_000 } else { 100 - seq };
        with_mid('a', seq, now - age, "lobby", "hello", Some(mid))
    };
    let mut rig = Rig::new();
    let mut batch = shown((1..=10).map(said));
    batch.entries[4].1 = false;
    rig.store(batch).await;
    let dir = rig.close().await;
    let window = |messages, bytes| DiskOptions {
        window: Retention { messages, bytes },
        wall_us: now,
        ..options(dir.path())
    };
    let by_number = window(3, usize::MAX);
    let cost = said(10).json.len() + 384;
    let by_bytes = window(usize::MAX, 3 * cost + cost / 2);
    for options in [by_number, by_bytes] {
        let (disk, loaded, _outcomes) = crate::disk::open(options).unwrap();
        let seqs: Vec<_> = loaded.entries.iter().map(|(entry, _)| entry.seq).collect();
        assert_eq!(seqs, [8, 9, 10]);
        let mids: Vec<_> = loaded.mids.iter().map(|mid| mid.id.seq).collect();
        assert_eq!(mids, [1, 2, 3, 4, 5, 6, 7], "the old one too");
        let hidden = loaded.mids.iter().find(|mid| !mid.shown);
        assert_eq!(hidden.map(|mid| mid.id.seq), Some(5));
        assert_eq!(
            Some(&loaded.mids[1]),
            LoadedMid::of(&said(2), true).as_ref()
        );
        assert_eq!(loaded.logs[0].held, 10);
        disk.close(PATIENCE).await;
    }
}

/// Goal: a full disk loses nothing but the batch, and the writer lives on. Method: the file may not
/// grow; a batch is refused whole; then it may, and the same batch is taken.
#[tokio::test]
async fn a_batch_that_finds_the_disk_full_is_refused_whole_and_can_be_tried_again() {
    let mut rig = Rig::new();
    rig.store(shown([entry('a', 1, 1)])).await;
    let large = |seq: u64| said('a', seq, seq, &format!("r{seq}"), &"x".repeat(4000));
    let batch = shown((2..100).map(large));
    let pages = rig.disk.0.shared.pages_max.swap(40, Ordering::Relaxed);
    assert_eq!(pages, 0);
    for _ in 0..3 {
        let outcome = rig.write(batch.clone()).await;
        assert!(matches!(outcome, Outcome::Full(_)), "{outcome:?}");
    }
    assert_eq!(rig.disk.rooms().await.unwrap().len(), 1);
    assert_eq!(rig.disk.size().0, 1);
    rig.disk.0.shared.pages_max.store(0, Ordering::Relaxed);
    rig.store(batch).await;
    let rig = rig.reopen().await;
    assert_eq!(rig.loaded.set_aside, None);
    assert_eq!(rig.loaded.entries.len(), 99);
}

/// Goal: what was handed over is written though the store is closed at once.
#[tokio::test]
async fn closing_writes_what_was_handed_over() {
    let rig = Rig::new();
    rig.disk.write(shown([entry('a', 1, 1)]));
    let dir = rig.close().await;
    let files: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !files.iter().any(|name| name.ends_with("-wal")),
        "{files:?}"
    );
    let options = options(dir.path());
    let rig = Rig::open(dir, options).unwrap();
    assert_eq!(rig.loaded.entries.len(), 1);
}

/// Goal: a process that is killed loses nothing that was told as stored. Method: the files as they
/// are at that moment, copied while the store is open, in another folder.
#[tokio::test]
async fn what_is_stored_is_there_though_nobody_closed() {
    let mut rig = Rig::new();
    for seq in 1..=50 {
        rig.store(shown([entry('a', seq, seq)])).await;
    }
    let copy = tempfile::tempdir().unwrap();
    for name in ["history.db", "history.db-wal"] {
        std::fs::copy(rig.dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let options = options(copy.path());
    let copied = Rig::open(copy, options).unwrap();
    assert_eq!(copied.loaded.entries.len(), 50);
    assert_eq!(copied.loaded.set_aside, None);
}
