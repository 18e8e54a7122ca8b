//! Properties: what holds for every order of arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::clock::Clock;
use super::clock::Now;
use super::log::{Log, Span};
use super::members::{Change, Members};
use super::mids::{Mids, Verdict};
use crate::core::memory::{MemoryStore, Retention};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName, UserName};
use crate::model::pattern::Scope;

fn origin(number: u8) -> Origin {
    let letter = char::from(b'a' + number);
    letter.to_string().repeat(10).parse().unwrap()
}

fn room(number: u8) -> RoomName {
    format!("room{number}").parse().unwrap()
}

fn entry(of: u8, seq: u64, ts: u64, mid: Option<u8>, at: u8) -> Arc<Entry> {
    let id = EntryId {
        origin: origin(of),
        seq,
    };
    let mid = mid.map(|mid| format!("m{mid}").parse().unwrap());
    let name = "ada".parse().unwrap();
    Arc::new(Entry::new(id, ts, room(at), mid, &name, "hello"))
}

/// An entry's origin and number, its timestamp and mid.
type Drawn = ((u8, u64), (u64, u8));

proptest! {
    #[test]
    fn a_log_accepts_each_number_once_and_in_order(seqs in prop::collection::vec(1..40_u64, 0..200)) {
        let mut log = Log::default();
        let mut accepted = Vec::new();
        for &seq in &seqs {
            log.arrive(entry(0, seq, seq, None, 0), &mut accepted);
        }
        let distinct: BTreeSet<u64> = seqs.into_iter().collect();
        let whole = (1..).take_while(|seq| distinct.contains(seq)).count() as u64;
        let got: Vec<u64> = accepted.iter().map(|entry| entry.seq).collect();
        prop_assert_eq!(got, (1..=whole).collect::<Vec<_>>());
        prop_assert_eq!(log.held(), whole);
        let all = Span { after: 0, through: u64::MAX };
        let waiting: Vec<u64> = log.held_back(all).map(|entry| entry.seq).collect();
        prop_assert_eq!(waiting, distinct.into_iter().filter(|seq| *seq > whole).collect::<Vec<_>>());
    }

    #[test]
    fn passing_and_filling_neither_lose_nor_double(
        steps in prop::collection::vec((1..30_u64, any::<bool>()), 0..150)
    ) {
        let mut log = Log::default();
        let mut accepted = Vec::new();
        let mut fed = BTreeSet::new();
        for (seq, passes) in steps {
            match log.missing() {
                Some(span) if passes => {
                    log.pass(span.through, &mut accepted);
                }
                _ => {
                    fed.insert(seq);
                    log.arrive(entry(0, seq, seq, None, 0), &mut accepted);
                }
            }
            let got: BTreeSet<u64> = accepted.iter().map(|entry| entry.seq).collect();
            prop_assert_eq!(got.len(), accepted.len(), "none twice");
            let holes: BTreeSet<u64> = log
                .holes()
                .iter()
                .flat_map(|hole| hole.after + 1..=hole.through)
                .collect();
            prop_assert_eq!(log.counts.lost, holes.len() as u64);
            prop_assert!(got.is_disjoint(&holes));
            let below: BTreeSet<u64> = (1..=log.held()).collect();
            let known: BTreeSet<u64> = got.union(&holes).copied().collect();
            prop_assert_eq!(&known, &below, "each number is here or known to be lost");
            let held: BTreeSet<u64> = fed.range(..=log.held()).copied().collect();
            prop_assert_eq!(got, held, "what came is here");
            let solid = (1..).take_while(|seq| known.contains(seq) && !holes.contains(seq));
            prop_assert_eq!(log.solid(), solid.count() as u64);
        }
    }

    #[test]
    fn stamps_increase_and_follow_what_was_seen(
        steps in prop::collection::vec((0..1_000_u64, prop::option::of(0..2_000_u64)), 1..50)
    ) {
        let mut clock = Clock::default();
        let mut last = 0;
        for (wall, seen) in steps {
            if let Some(ts) = seen {
                clock.observe(ts, wall);
                last = last.max(ts);
            }
            let stamp = clock.stamp(wall);
            prop_assert!(stamp > last && stamp >= wall);
            last = stamp;
        }
    }

    #[test]
    fn the_same_entries_in_any_order_show_the_same(
        entries in prop::collection::btree_map((0..4_u8, 1..8_u64), (0..20_u64, 0..4_u8), 0..20)
            .prop_flat_map(|entries| {
                let entries: Vec<_> = entries.into_iter().collect();
                (Just(entries.clone()), Just(entries).prop_shuffle())
            })
    ) {
        let shown = |entries: &[Drawn]| {
            let mut mids = Mids::default();
            let mut shown = BTreeMap::new();
            let mut delivered = BTreeSet::new();
            for ((of, seq), (ts, mid)) in entries {
                let entry = entry(*of, *seq, *ts * 100 + *seq, Some(*mid), 0);
                match mids.note(&entry, |_| true) {
                    Verdict::First => {
                        assert!(delivered.insert(*mid), "delivered once");
                        shown.insert(entry.place(), entry.id());
                    }
                    Verdict::Repeats => {}
                    Verdict::Replaces(place, _) => {
                        shown.remove(&place).expect("it was shown");
                        shown.insert(entry.place(), entry.id());
                    }
                    Verdict::Outlives => panic!("nothing was trimmed"),
                }
                assert_eq!(mids.note(&entry, |_| true), Verdict::Repeats, "noted twice is once");
            }
            shown
        };
        let (one, other) = entries;
        prop_assert_eq!(shown(&one), shown(&other));
    }

    #[test]
    fn what_is_shown_depends_only_on_what_is_kept(
        entries in prop::collection::vec((0..3_u8, 0..3_u8), 1..40),
        keeps in 1..10_usize,
    ) {
        // Entries come in order, and the oldest are trimmed; a newcomer gets only those kept.
        let now = Now { mono: Duration::ZERO, wall_us: 1000 };
        let mut mids = Mids::default();
        let mut store = MemoryStore::new(Retention { messages: keeps, bytes: 1 << 20 });
        let mut seqs = [0; 3];
        let mut all = Vec::new();
        for (index, (of, mid)) in entries.into_iter().enumerate() {
            seqs[usize::from(of)] += 1;
            let entry = entry(of, seqs[usize::from(of)], index as u64 + 1, Some(mid), 0);
            store.keep(&entry);
            match mids.note(&entry, |id| store.get(id).is_some()) {
                Verdict::First | Verdict::Outlives => store.show(&entry),
                Verdict::Repeats => {}
                Verdict::Replaces(..) => panic!("they come in order"),
            }
            all.push(entry);
            while let Some(trimmed) = store.trim(|_| true) {
                let kept = |id| store.get(id).is_some();
                if let Some(instead) = mids.trimmed(&trimmed, now, kept) {
                    store.show(&store.get(instead).expect("kept"));
                }
            }
        }
        let mut seen = BTreeSet::new();
        let kept = &all[all.len().saturating_sub(keeps)..];
        let first = kept.iter().filter(|entry| seen.insert(entry.mid.clone()));
        let page = store.page(&room(0), None, usize::MAX);
        prop_assert_eq!(page.entries, first.cloned().collect::<Vec<_>>());
    }

    #[test]
    fn members_converge_whatever_was_lost_or_came_late(
        doings in prop::collection::vec((0..2_u8, 0..3_u8, any::<bool>()), 0..40),
        hears in prop::collection::vec((0..60_usize, any::<bool>()), 0..80),
    ) {
        let mut own = Members::default();
        let mut told = Vec::new();
        let mut snapshots = vec![own.snapshot()];
        for (at, who, enters) in doings {
            let name: UserName = format!("user{who}").parse().unwrap();
            let (version, _) = if enters { own.enter(&room(at), &name) } else { own.leave(&room(at), &name) };
            if let Some(version) = version {
                let (joined, left) = if enters { (vec![name], vec![]) } else { (vec![], vec![name]) };
                told.push((version, Change { room: room(at), joined, left }));
            }
            snapshots.push(own.snapshot());
        }
        let mut other = Members::default();
        let mut seen: BTreeMap<RoomName, BTreeSet<UserName>> = BTreeMap::new();
        let mut see = |change: Change| {
            let names = seen.entry(change.room).or_default();
            for name in change.joined { assert!(names.insert(name)); }
            for name in change.left { assert!(names.remove(&name)); }
        };
        for (index, whole) in hears {
            if whole {
                let snapshot = snapshots[index % snapshots.len()].clone();
                other.replace(origin(1), snapshot).into_iter().for_each(&mut see);
            } else if let Some((version, change)) = told.get(index) {
                other.told(origin(1), *version, change).into_iter().for_each(&mut see);
            }
        }
        other.claim(origin(1), own.version());
        if other.is_stale(origin(1)) {
            other.replace(origin(1), own.snapshot()).into_iter().for_each(&mut see);
        }
        prop_assert!(!other.is_stale(origin(1)));
        for at in 0..2 {
            prop_assert_eq!(other.list(&room(at)), own.list(&room(at)));
            let seen = seen.get(&room(at)).cloned().unwrap_or_default();
            prop_assert_eq!(seen.iter().collect::<Vec<_>>(), own.list(&room(at)));
        }
    }

    #[test]
    fn a_store_does_as_a_plain_list_does(
        entries in prop::collection::btree_map((0..3_u8, 1..12_u64), 0..3_u8, 0..30)
            .prop_map(|entries| entries.into_iter().collect::<Vec<_>>()).prop_shuffle(),
        keeps in 1..30_usize,
        hides in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        (of, after, through) in (0..3_u8, 0..12_u64, 0..12_u64),
    ) {
        let mut store = MemoryStore::new(Retention { messages: keeps, bytes: 1 << 20 });
        let mut list: Vec<Arc<Entry>> = Vec::new();
        for ((of, seq), at) in entries {
            let entry = entry(of, seq, seq * 10 + u64::from(of), None, at);
            for _ in 0..2 {
                store.keep(&entry);
                store.show(&entry);
            }
            list.push(entry);
        }
        let mut shown = list.clone();
        for hide in hides {
            if !list.is_empty() {
                let entry = hide.get(&list);
                store.hide(&entry.room, entry.place());
                shown.retain(|other| other != entry);
            }
        }
        list.sort_by_key(|entry| entry.place());
        shown.sort_by_key(|entry| entry.place());
        let surplus = list.len().saturating_sub(keeps);
        let trimmed: Vec<_> = std::iter::from_fn(|| store.trim(|_| true)).collect();
        prop_assert_eq!(&trimmed[..], &list[..surplus]);
        list.drain(..surplus);
        shown.retain(|entry| !trimmed.contains(entry));
        prop_assert_eq!(store.size().0, list.len());

        let log = list.iter().filter(|e| e.origin == origin(of) && e.seq > after && e.seq <= through);
        let range = store.range(origin(of), after, through, usize::MAX);
        prop_assert_eq!(range, log.cloned().collect::<Vec<_>>());
        for at in 0..3 {
            let in_room: Vec<_> = shown.iter().filter(|e| e.room == room(at)).cloned().collect();
            let page = store.page(&room(at), None, 3);
            prop_assert_eq!(page.more, in_room.len() > 3);
            prop_assert_eq!(&page.entries[..], &in_room[in_room.len().saturating_sub(3)..]);
            let position = EntryId { origin: origin(of), seq: after };
            let beyond = |e: &&Arc<Entry>| e.origin == position.origin && e.seq > position.seq;
            let scope = Scope::from(room(at));
            let found: Vec<_> = store.view(&scope).shown_beyond(position).cloned().collect();
            prop_assert_eq!(found, in_room.iter().filter(beyond).cloned().collect::<Vec<_>>());
            let lost = trimmed.iter().filter(|e| e.room == room(at)).any(|e| beyond(&e));
            prop_assert_eq!(store.view(&scope).has_trimmed(position), lost);
            // The same of all rooms but one: the rooms are looked at, or the log.
            let scope = Scope { rooms: "room*".parse().unwrap(), except: vec![room(at).into()] };
            let view = store.view(&scope);
            let beyond = |e: &&Arc<Entry>| beyond(e) && e.room != room(at);
            let wanted: Vec<_> = shown.iter().filter(beyond).cloned().collect();
            for looked in [1, u64::MAX] {
                let mut found: Vec<_> = view.shown_in(position, looked).cloned().collect();
                found.sort_by_key(|entry| entry.place());
                prop_assert_eq!(&found, &wanted);
            }
            prop_assert_eq!(view.has_trimmed(position), trimmed.iter().any(|e| beyond(&e)));
        }
    }
}
