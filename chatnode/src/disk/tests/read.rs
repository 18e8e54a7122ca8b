//! Pages, ranges, and what lies beyond a position.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::rig::{PATIENCE, Rig, damaged, entry, id, lobby, origin, room, said, seqs, shown};
use crate::core::log::Span;
use crate::core::memory::{MemoryStore, Retention};
use crate::core::question::ReadError;
use crate::disk::{Batch, READS_MAX};
use crate::model::entry::{Entry, Place};
use crate::model::page::{PAGE_BYTES_MAX, Page};
use crate::model::pattern::Scope;

/// Goal: the order of places, also where timestamps are equal, and pages that join on. Method: three
/// logs with the same timestamps, written in disorder; paged by every size and compared with what
/// the store in memory says.
#[tokio::test]
async fn pages_are_those_of_the_store_in_memory() {
    let mut rig = Rig::new();
    let mut memory = MemoryStore::new(Retention::default());
    let mut entries: Vec<_> = (1..=7)
        .flat_map(|seq| ['c', 'a', 'b'].map(|letter| entry(letter, seq, 10 * seq)))
        .collect();
    entries.reverse();
    for entry in &entries {
        memory.keep(entry);
        memory.show(entry);
    }
    // Not in this room, and not shown.
    entries.push(said('d', 1, 15, "elsewhere", "x"));
    let mut batch = shown(entries);
    batch.entries.push((entry('d', 2, 25), false));
    rig.store(batch).await;
    for limit in 1..=22 {
        let mut before = None;
        loop {
            let page = rig.disk.page(&lobby(), before, limit).await.unwrap();
            assert_eq!(page, memory.page(&lobby(), before, limit));
            if !page.more {
                break;
            }
            before = Some(page.entries[0].place());
        }
    }
    let none = rig.disk.page(&room("nowhere"), None, 9).await.unwrap();
    assert_eq!(none, Page::default());
}

/// Goal: a page is bounded in bytes, and holds one entry at least.
#[tokio::test]
async fn a_page_is_bounded_in_bytes() {
    let mut rig = Rig::new();
    let large = |seq| said('a', seq, seq, "lobby", &"x".repeat(PAGE_BYTES_MAX / 3));
    rig.store(shown((1..=5).map(large))).await;
    let page = rig.lobby().await;
    assert_eq!((seqs(&page), page.more), (vec![3, 4, 5], true));
    let huge = said('a', 6, 6, "lobby", &"x".repeat(2 * PAGE_BYTES_MAX));
    rig.store(shown([huge])).await;
    let page = rig.lobby().await;
    assert_eq!((seqs(&page), page.more), (vec![6], true));
}

/// Goal: a log by number, hidden entries too, until there is enough; and places by name.
#[tokio::test]
async fn a_range_is_of_one_log_by_number() {
    let mut rig = Rig::new();
    let mut batch = shown([1, 2, 3, 5, 6].map(|seq| entry('a', seq, 100 - seq)));
    batch.entries[1].1 = false;
    batch.entries.push((entry('b', 2, 1), true));
    rig.store(batch).await;
    let cost = entry('a', 1, 1).json.len();
    let range = async |after, through, bytes_max| {
        let range = rig.disk.range(origin('a'), after, through, bytes_max);
        let (floor, entries) = range.await.unwrap();
        assert_eq!(floor, 0);
        entries.iter().map(|entry| entry.seq).collect::<Vec<_>>()
    };
    assert_eq!(range(0, u64::MAX, usize::MAX).await, [1, 2, 3, 5, 6]);
    assert_eq!(range(1, 5, usize::MAX).await, [2, 3, 5]);
    assert_eq!(range(0, 9, 2 * cost + cost / 2).await, [1, 2]);
    assert_eq!(range(0, 9, 0).await, [1]);
    assert!(range(6, 9, 99).await.is_empty());
    assert!(range(9, 3, 99).await.is_empty());
    assert!(range(u64::MAX, u64::MAX, 99).await.is_empty());
    let place = rig.disk.place(id('a', 5)).await.unwrap();
    assert_eq!(place, Some(entry('a', 5, 95).place()));
    assert_eq!(rig.disk.place(id('a', 4)).await.unwrap(), None);
    assert_eq!(rig.disk.place(id('z', u64::MAX)).await.unwrap(), None);
}

/// Goal: what a client that comes back has missed, by either way of looking; or that it cannot be
/// told. Method: a quiet room and a busy one, so that one way is taken in each.
#[tokio::test]
async fn what_lies_beyond_a_position_is_found_or_refused() {
    let mut rig = Rig::new();
    let at = |seq: u64| {
        if seq.is_multiple_of(10) {
            "quiet"
        } else {
            "busy"
        }
    };
    let mut batch = Batch::default();
    for seq in 1..=50 {
        for letter in ['a', 'b'] {
            batch
                .entries
                .push((said(letter, seq, seq, at(seq), "hello"), seq != 40));
        }
    }
    rig.store(batch).await;
    let span = |letter, after, through| (origin(letter), Span { after, through });
    let beyond = async |room_name: &str, spans, entries_max, bytes_max| {
        let room = room(room_name);
        let found = rig
            .disk
            .beyond(room.into(), spans, entries_max, bytes_max)
            .await;
        let mut found: Vec<_> = found.unwrap()?.iter().map(|entry| entry.id()).collect();
        found.sort_unstable();
        Some(found)
    };
    let both = || vec![span('a', 15, 99), span('b', 30, 45)];
    let wanted = vec![id('a', 20), id('a', 30), id('a', 50)];
    assert_eq!(beyond("quiet", both(), 9, 1 << 20).await, Some(wanted));
    let few = || vec![span('a', 18, 22), span('b', 48, 48), span('b', 47, 48)];
    let wanted = vec![id('a', 19), id('a', 21), id('a', 22), id('b', 48)];
    assert_eq!(beyond("busy", few(), 4, 1 << 20).await, Some(wanted));
    assert_eq!(beyond("busy", few(), 3, 1 << 20).await, None);
    assert_eq!(beyond("busy", few(), 4, 100).await, None);
    assert_eq!(beyond("quiet", both(), 2, 1 << 20).await, None);
    assert_eq!(beyond("quiet", both(), 9, 100).await, None);
    assert_eq!(beyond("nowhere", both(), 9, 9).await, Some(vec![]));
    assert_eq!(beyond("busy", vec![span('z', 0, 1)], 9, 9).await, None);
    // Of a pattern too, by the logs or by its rooms, whichever are less, but for those that are left out.
    let of = async |rooms: &str, except: &[&str], spans, entries_max| {
        let scope = Scope {
            rooms: rooms.parse().unwrap(),
            except: except.iter().map(|rooms| rooms.parse().unwrap()).collect(),
        };
        let found = rig.disk.beyond(scope, spans, entries_max, 1 << 20).await;
        let mut found: Vec<_> = found.unwrap()?.iter().map(|entry| entry.id()).collect();
        found.sort_unstable();
        Some(found)
    };
    let quiet = vec![id('a', 20), id('a', 30), id('a', 50)];
    assert_eq!(of("qu*", &[], both(), 9).await, Some(quiet.clone()));
    assert_eq!(of("*", &["b*"], both(), 9).await, Some(quiet.clone()));
    assert_eq!(of("*", &["busy"], both(), 2).await, None);
    let all = vec![
        id('a', 19),
        id('a', 20),
        id('a', 21),
        id('a', 22),
        id('b', 48),
    ];
    assert_eq!(of("*", &[], few(), 5).await, Some(all));
    assert_eq!(of("*", &[], few(), 4).await, None);
    assert_eq!(of("x*", &[], both(), 9).await, Some(vec![]));
    assert_eq!(
        beyond("busy", vec![span('z', 1, 1)], 9, 9).await,
        Some(vec![])
    );
}

/// Goal: what was trimmed is never taken for nothing. Method: spans from below the floor and from it.
#[tokio::test]
async fn nothing_is_said_of_what_was_trimmed() {
    let retention = crate::disk::DiskRetention {
        messages: 2,
        ..Default::default()
    };
    let mut rig = Rig::with(retention);
    rig.store(shown((1..=5).map(|seq| entry('a', seq, seq))))
        .await;
    rig.left(2).await;
    assert_eq!(rig.trimmed.last(), Some(&(origin('a'), 3)));
    let beyond = async |after| {
        let (at, span) = (lobby(), Span { after, through: 5 });
        let found = rig
            .disk
            .beyond(at.into(), vec![(origin('a'), span)], 9, 1 << 20);
        found.await.unwrap().map(|found| found.len())
    };
    assert_eq!(beyond(2).await, None);
    assert_eq!(beyond(3).await, Some(2));
}

/// Goal: a writer that hangs stops nobody who reads, nor who hands a batch over. Method: another
/// connection holds the lock for writing; reads are answered meanwhile, and the batch is stored when
/// the lock is free.
#[tokio::test]
async fn reads_are_answered_while_the_writer_hangs() {
    let mut rig = Rig::new();
    rig.store(shown([entry('a', 1, 1)])).await;
    let other = Connection::open(rig.dir.path().join("history.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    rig.disk.write(shown([entry('a', 2, 2)]));
    for _ in 0..20 {
        assert_eq!(seqs(&rig.lobby().await), [1]);
        assert_eq!(rig.disk.rooms().await.unwrap().len(), 1);
    }
    let stored = tokio::time::timeout(Duration::from_millis(50), rig.outcomes.recv()).await;
    assert!(stored.is_err(), "the writer hangs: {stored:?}");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(rig.outcome().await, crate::disk::Outcome::Stored);
    assert_eq!(seqs(&rig.lobby().await), [1, 2]);
}

/// Goal: reads that wait are bounded, those that nobody waits for are skipped, and a closed store
/// says so. Method: both threads are held up by jobs that wait for a word; the queue is filled.
#[tokio::test]
async fn reads_that_wait_are_bounded() {
    let mut rig = Rig::new();
    rig.store(shown([entry('a', 1, 1)])).await;
    let gate = Arc::new(std::sync::Barrier::new(3));
    let second = Arc::clone(&gate);
    let hold = |disk: crate::disk::Disk| {
        let gate = Arc::clone(&gate);
        tokio::task::spawn_local(async move {
            disk.ask(move |_| {
                gate.wait();
                gate.wait();
                Ok(())
            })
            .await
        })
    };
    let local = tokio::task::LocalSet::new();
    let disk = rig.disk.clone();
    local
        .run_until(async move {
            let held = [hold(disk.clone()), hold(disk.clone())];
            tokio::task::yield_now().await;
            let first = Arc::clone(&second);
            tokio::task::spawn_blocking(move || first.wait())
                .await
                .unwrap();
            let asked = Rc::new(Cell::new(0));
            let mut reads: Vec<_> = (0..READS_MAX)
                .map(|_| {
                    let (disk, asked) = (disk.clone(), Rc::clone(&asked));
                    tokio::task::spawn_local(async move {
                        // Where it waits it has asked.
                        asked.set(asked.get() + 1);
                        disk.place(id('a', 1)).await
                    })
                })
                .collect();
            while asked.get() < READS_MAX {
                tokio::task::yield_now().await;
            }
            let busy = disk.place(id('a', 1)).await;
            assert_eq!(busy, Err(ReadError::Busy));
            // Half of those who asked go away.
            for read in reads.drain(..READS_MAX / 2) {
                read.abort();
            }
            second.wait();
            for read in reads {
                let place = Place {
                    ts: 1,
                    origin: origin('a'),
                };
                assert_eq!(read.await.unwrap(), Ok(Some(place)));
            }
            for held in held {
                assert_eq!(held.await.unwrap(), Ok(()));
            }
        })
        .await;
    let disk = rig.disk.clone();
    rig.disk.close(PATIENCE).await;
    assert_eq!(disk.rooms().await, Err(ReadError::Closed));
    disk.write(Batch::default());
}

/// Goal: a row that rots while the node runs is left out and counted, never given out changed.
/// Method: change a byte of one entry's text under the store's feet, through SQLite.
#[tokio::test]
async fn a_row_that_rots_is_left_out_and_counted() {
    let mut rig = Rig::new();
    rig.store(shown((1..=3).map(|seq| entry('a', seq, seq))))
        .await;
    let other = Connection::open(rig.dir.path().join("history.db")).unwrap();
    let change = "UPDATE entries SET json = CAST(replace(json, 'number 2', 'number 9') AS BLOB)";
    assert_eq!(other.execute(change, []).unwrap(), 3);
    for _ in 0..3 {
        let page = rig.lobby().await;
        assert_eq!((seqs(&page), page.more), (vec![1, 3], false));
        let (_, range) = rig.disk.range(origin('a'), 0, 9, 1 << 20).await.unwrap();
        assert_eq!(range.len(), 2);
        assert_eq!(rig.disk.place(id('a', 2)).await.unwrap(), None);
    }
    assert_eq!(damaged(&rig.disk), 1);
    // Nor is it made whole by a change to it.
    rig.store(Batch {
        entries: Vec::new(),
        shows: vec![(id('a', 2), false)],
    })
    .await;
    drop(other);
    let rig = rig.reopen().await;
    let left: Vec<Arc<Entry>> = rig
        .loaded
        .entries
        .iter()
        .map(|(e, _)| Arc::clone(e))
        .collect();
    assert_eq!(left, [entry('a', 1, 1), entry('a', 3, 3)]);
    assert!(rig.loaded.set_aside.is_some());
}
