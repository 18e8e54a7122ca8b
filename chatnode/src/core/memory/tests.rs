//! Tests of entries in memory.

use super::*;

fn entry(origin: &str, seq: u64, ts: u64) -> Arc<Entry> {
    let id = EntryId {
        origin: origin.parse().unwrap(),
        seq,
    };
    let name = "ada".parse().unwrap();
    Arc::new(Entry::new(
        id,
        ts,
        "lobby".parse().unwrap(),
        None,
        &name,
        "hello",
    ))
}

#[test]
fn a_page_ends_before_a_place_and_says_whether_there_is_more() {
    let mut store = MemoryStore::new(Retention::default());
    for seq in 1..=5 {
        let entry = entry("aaaaaaaaaa", seq, 10 * seq);
        store.keep(&entry);
        store.show(&entry);
    }
    let room = "lobby".parse().unwrap();
    let seqs = |page: &Page| page.entries.iter().map(|e| e.seq).collect::<Vec<_>>();
    let newest = store.page(&room, None, 2);
    assert_eq!((seqs(&newest), newest.more), (vec![4, 5], true));
    let older = store.page(&room, Some(newest.entries[0].place()), 9);
    assert_eq!((seqs(&older), older.more), (vec![1, 2, 3], false));
}

/// Goal: what a room remembers of what was trimmed does not grow with the nodes that come and go, and
/// still nobody is told that he missed nothing who missed something. Method: more origins than are
/// remembered, each says one thing.
#[test]
fn a_room_remembers_so_many_trimmed_origins_and_no_more() {
    let mut store = MemoryStore::new(Retention {
        messages: 2,
        bytes: 1 << 20,
    });
    let letters = b"abcdefghijklmnopqrstuvwxyz234567";
    let letter = |n: usize, at: usize| char::from(letters[(n >> (5 * at)) & 31]);
    let origin = |n: usize| format!("origin{}{}{}a", letter(n, 2), letter(n, 1), letter(n, 0));
    let room: RoomName = "lobby".parse().unwrap();
    for n in 0..3 * ROOM_MARKS_MAX {
        let entry = entry(&origin(n), 1, n as u64 + 1);
        store.keep(&entry);
        store.show(&entry);
        while store.trim(|_| true).is_some() {}
        assert!(store.rooms[&room].trimmed.len() <= ROOM_MARKS_MAX);
    }
    let after = |n: usize, seq| EntryId {
        origin: origin(n).parse().unwrap(),
        seq,
    };
    let scope = room.into();
    let has_trimmed = |after| store.view(&scope).has_trimmed(after);
    assert!(has_trimmed(after(0, 0)));
    assert!(has_trimmed(after(3 * ROOM_MARKS_MAX - 3, 0)));
    let kept = 3 * ROOM_MARKS_MAX - 1;
    assert!(!has_trimmed(after(kept, 0)));
}

/// Goal: many origins with one entry each do not fill the tables of logs, however few entries these
/// are. Method: more than there may be; the oldest go.
#[test]
fn of_so_many_origins_entries_are_kept_and_no_more() {
    let mut store = MemoryStore::new(Retention::default());
    let letters = b"abcdefghijklmnopqrstuvwxyz234567";
    let letter = |n: usize, at: usize| char::from(letters[(n >> (5 * at)) & 31]);
    let mut trimmed = Vec::new();
    for n in 0..ORIGINS_KEPT_MAX + 2 {
        let origin = format!("origin{}{}{}a", letter(n, 2), letter(n, 1), letter(n, 0));
        store.keep(&entry(&origin, 1, n as u64 + 1));
        trimmed.extend(std::iter::from_fn(|| store.trim(|_| true)));
    }
    let oldest: Vec<u64> = trimmed.iter().map(|entry| entry.ts).collect();
    assert_eq!(oldest, [1, 2]);
}

#[test]
fn retention_removes_the_oldest_of_all_logs() {
    let mut store = MemoryStore::new(Retention {
        messages: 2,
        bytes: 1 << 20,
    });
    for entry in [
        entry("aaaaaaaaaa", 1, 10),
        entry("bbbbbbbbbb", 1, 5),
        entry("aaaaaaaaaa", 2, 20),
    ] {
        store.keep(&entry);
        store.show(&entry);
    }
    assert_eq!(store.trim(|_| true).unwrap().ts, 5);
    assert!(store.trim(|_| true).is_none());
    assert_eq!(store.size().0, 2);
    assert_eq!(
        store.page(&"lobby".parse().unwrap(), None, 9).entries.len(),
        2
    );
}
