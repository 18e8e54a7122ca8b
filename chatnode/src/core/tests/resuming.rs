//! Clients that were elsewhere.

use super::journal::{kept, rig_with};
use super::*;
use crate::core::archive::Need;
use crate::core::journal::{Loaded, LoadedMid};
use crate::core::named::{Named, NamedBudget};
use crate::model::pattern::Scope;

/// A node that holds `b.1 b.2 b.3` and `c.1`.
fn rig() -> Rig {
    let mut rig = Rig::linked("bc");
    rig.comes("b.1 b.2 b.3");
    rig.comes("c.1");
    rig
}

fn entries(resumed: &resumed::Resumed) -> String {
    tell_ids(resumed.entries.iter().map(|entry| entry.id()))
}

#[test]
fn without_a_position_the_newest_page_comes() {
    let resumed = rig().resumes(None);
    assert!(!resumed.recovered);
    assert_eq!(entries(&resumed), "b.2 b.3");
    assert_eq!(tell_ids(resumed.at), "b.3 c.1");
}

#[test]
fn what_lies_beyond_the_position_is_replayed_exactly() {
    let resumed = rig().resumes(Some("b.2"));
    assert!(resumed.recovered);
    assert_eq!(entries(&resumed), "c.1 b.3", "in the one order");
    let resumed = rig().resumes(Some("b.3 c.1"));
    assert_eq!((resumed.recovered, entries(&resumed).as_str()), (true, ""));
}

#[test]
fn a_client_ahead_of_this_node_is_not_shown_again_what_it_has_seen() {
    let resumed = rig().resumes(Some("b.5 c.1"));
    assert!(resumed.recovered);
    assert_eq!(entries(&resumed), "");
    assert_eq!(resumed.ahead.origins.get(&origin('b')), Some(&5));
    assert_eq!(tell_ids(resumed.at), "b.5 c.1");
}

#[test]
fn a_client_that_may_have_seen_what_is_a_hole_here_is_ahead() {
    let mut rig = Rig::linked("bc");
    rig.comes("b.1 b.3");
    rig.dies('b');
    rig.passes_with(2000, &[('c', "a", "")]);
    assert_eq!(rig.answer(Some("")), ["gap b.2-2", "deliver b.3"]);
    let resumed = rig.resumes(Some("b.3"));
    assert_eq!(resumed.ahead.origins.get(&origin('b')), Some(&3));
    assert_eq!(tell_ids(resumed.at), "b.3");
    let resumed = rig.resumes(Some("b.1"));
    assert_eq!(entries(&resumed), "b.3");
    assert!(resumed.ahead.is_empty());
    let hole = Span {
        after: 1,
        through: 2,
    };
    assert_eq!(resumed.gaps, [(origin('b'), hole)]);
}

#[test]
fn an_unknown_origin_is_all_new_or_all_ahead() {
    let resumed = rig().resumes(Some("b.3"));
    assert_eq!(entries(&resumed), "c.1", "of c the client has seen nothing");
    let resumed = rig().resumes(Some("b.3 c.1 h.7"));
    assert_eq!(resumed.ahead.origins.get(&origin('h')), Some(&7));
}

#[test]
fn a_forged_position_harms_nobody() {
    let wild = format!("b.{} b.0 c.{} h.{}", u64::MAX, u64::MAX, u64::MAX);
    let resumed = rig().resumes(Some(&wild));
    assert!(resumed.recovered && resumed.entries.is_empty());
    let long: Vec<EntryId> = (0..100_000)
        .map(|n| EntryId {
            origin: origin('b'),
            seq: n,
        })
        .collect();
    let resumed = rig()
        .core
        .resume(
            &lobby().into(),
            Some(&long),
            &mut Named::default(),
            2,
            &asked_others(),
        )
        .unwrap();
    assert!(
        resumed
            .entries
            .iter()
            .all(|entry| entry.origin == origin('c'))
    );
}

#[test]
fn a_mid_that_was_seen_from_another_node_is_not_replayed() {
    let mut rig = Rig::linked("bc");
    rig.come(vec![entry("b.1", 10, Some("m"))], false);
    rig.come(vec![entry("c.1", 20, Some("m"))], false);
    let resumed = rig.resumes(Some("c.1"));
    assert_eq!(entries(&resumed), "", "it was c.1 where the client was");
}

#[test]
fn what_was_trimmed_cannot_be_replayed_and_that_is_said() {
    let mut rig = Rig::with(Retention {
        messages: 3,
        bytes: 1 << 20,
    });
    rig.is_alone();
    rig.link('b', "a", "");
    rig.comes("b.1 b.2 b.3 b.4 b.5");
    assert!(rig.resumes(Some("b.2")).recovered);
    let resumed = rig.resumes(Some("b.1"));
    assert!(!resumed.recovered);
    assert_eq!(entries(&resumed), "b.4 b.5");
}

#[test]
fn a_room_that_missed_nothing_resumes_though_others_were_trimmed() {
    let mut rig = Rig::with(Retention {
        messages: 3,
        bytes: 1 << 20,
    });
    rig.is_alone();
    rig.link('b', "a", "");
    rig.link('c', "a", "");
    let busy = |seq: u64| {
        let id = id(&format!("b.{seq}"));
        let name = "bob".parse().unwrap();
        let room = "busy".parse().unwrap();
        Arc::new(Entry::new(id, WALL_US + seq, room, None, &name, "hello"))
    };
    rig.come(vec![entry("c.1", 10, None)], false);
    rig.come((1..=5).map(busy).collect(), false);
    rig.come(vec![entry("c.2", 20, None)], false);
    let resumed = rig.resumes(Some("c.1"));
    assert_eq!(
        (resumed.recovered, entries(&resumed).as_str()),
        (true, "c.2")
    );
    let busy = rig
        .core
        .resume(
            &"busy".parse::<RoomName>().unwrap().into(),
            Some(&ids("c.2")),
            &mut Named::default(),
            2,
            &Archive::default(),
        )
        .unwrap();
    assert!(!busy.recovered);
    // Of a pattern it is so as of the rooms that it has, and what is left out counts for nothing.
    let watched = |rooms: &str, except: &[&str]| {
        let scope = Scope {
            rooms: rooms.parse().unwrap(),
            except: except.iter().map(|rooms| rooms.parse().unwrap()).collect(),
        };
        let (since, mut named) = (ids("c.1"), Named::default());
        let archive = Archive::default();
        let resumed = rig
            .core
            .resume(&scope, Some(&since), &mut named, 2, &archive);
        let resumed = resumed.unwrap();
        (resumed.recovered, entries(&resumed))
    };
    assert_eq!(watched("lob*", &[]), (true, "c.2".to_owned()));
    assert_eq!(watched("*", &["b*"]), (true, "c.2".to_owned()));
    assert_eq!(watched("*", &[]), (false, String::new()));
    assert_eq!(watched("bu*", &["lobby"]), (false, String::new()));
    assert_eq!(watched("bu*", &["b*"]), (true, String::new()));
    assert_eq!(watched("new.*", &[]), (true, String::new()));
}

#[test]
fn a_dead_origin_that_was_trimmed_whole_and_the_client_never_met_is_no_loss() {
    let mut rig = Rig::with(Retention {
        messages: 2,
        bytes: 1 << 20,
    });
    rig.is_alone();
    rig.link('b', "a", "");
    rig.link('c', "a", "");
    rig.comes("b.1");
    rig.unlink('b');
    rig.ms += 10;
    rig.comes("c.1 c.2 c.3");
    // The client was on a node that started after all of b was trimmed everywhere.
    let mut since = ids("c.2");
    since.push(EntryId {
        origin: Origin::MADE,
        seq: rig.now().wall_us,
    });
    let named = &mut Named::default();
    let resumed = rig
        .core
        .resume(&lobby().into(), Some(&since), named, 2, &asked_others());
    assert!(resumed.unwrap().recovered);
    assert!(!rig.resumes(Some("b.0 c.2")).recovered, "this one knew b");
}

fn asked_others() -> Archive {
    Archive {
        others_asked: true,
        ..Archive::default()
    }
}

/// What a client names that can be asked.
fn names(mids: &[&str], behind: &str) -> Named {
    let mut named = Named {
        behind: Some(ids(behind)),
        ..Named::default()
    };
    let mids = mids.iter().map(|mid| mid.parse::<Mid>().unwrap());
    let budget = NamedBudget::default();
    named
        .mids
        .add(&lobby(), mids, &budget, Duration::MAX)
        .unwrap();
    named
}

/// Others are asked for what a client has seen and this node has not, before it is taken in.
#[test]
fn a_client_that_is_ahead_waits_until_others_were_asked() {
    let rig = rig();
    let resume = |since: &str, archive: &Archive| {
        let (since, named) = (ids(since), &mut Named::default());
        rig.core
            .resume(&lobby().into(), Some(&since), named, 2, archive)
            .map(|resumed| resumed.recovered)
    };
    let at_once = Archive::default();
    assert_eq!(resume("b.3 c.1", &at_once), Ok(true));
    assert_eq!(resume("b.5 c.1", &at_once), Err(Need::Others));
    assert_eq!(resume("b.5 c.1", &asked_others()), Ok(true));
    assert_eq!(
        resume("a.7", &at_once),
        Ok(false),
        "no such number was ever"
    );
}

/// A node shows what is said there and is killed before any other has it; its sender says it again
/// elsewhere. Who saw the first is not shown the second, if it names what it saw by its mid: all of
/// it, and it is told from where.
#[test]
fn a_retry_of_what_died_with_its_node_is_not_shown_again() {
    let since = ids("b.1 d.5");
    let mut rig = Rig::linked("b");
    rig.comes("b.1");
    rig.says(1, Some("m"), 0);
    let resume = |mut named: Named| {
        let resumed = rig.core.resume(
            &lobby().into(),
            Some(&since),
            &mut named,
            2,
            &asked_others(),
        );
        resumed.unwrap()
    };
    let ids_of = |resumed: &resumed::Resumed| tell_ids(resumed.entries.iter().map(|e| e.id()));
    let silent = resume(Named::default());
    assert!(silent.recovered);
    assert_eq!(ids_of(&silent), "a.1", "it names nothing");
    for named in [names(&[], ""), names(&["n"], "d.4 b.0")] {
        let asked = resume(named);
        assert_eq!(tell_ids(asked.unnamed), "d.0", "all of d is to be named");
    }
    let mut resumed = resume(names(&["m", "n"], "d.0"));
    assert!(resumed.recovered && resumed.unnamed.is_empty());
    assert_eq!(ids_of(&resumed), "");

    // The other one is said again after it has come.
    let mut has_seen = |text, mid| resumed.ahead.has_seen(&entry(text, 0, mid), 0);
    assert!(!has_seen("a.2", None));
    assert!(has_seen("a.3", Some("n")));
    assert!(
        !has_seen("a.4", Some("m")),
        "known here: no entry comes of it"
    );
    assert!(has_seen("d.5", None), "and d.4 may come yet");
    assert!(resumed.ahead.mids.is_empty());
    assert!(resumed.ahead.has_seen(&entry("d.4", 0, None), 5));
    assert!(!resumed.ahead.has_seen(&entry("d.6", 0, None), 6));
    assert!(resumed.ahead.is_empty());
}

/// Goal: what a disk has trimmed is missed by whom had not seen it, though its node was started again since
/// and all that the disk has fits into memory. Method: positions before and behind what was trimmed.
#[test]
fn what_was_trimmed_before_a_restart_cannot_be_replayed_and_that_is_said() {
    let left = [6, 7].map(|seq| (entry(&format!("b.{seq}"), seq, None), true));
    let rig = rig_with(Retention::default(), kept(&left, &[('b', 5, 7)]));
    assert!(!rig.resumes(Some("b.3")).recovered);
    assert!(
        !rig.resumes(Some("c.1")).recovered,
        "nor has it seen any of b"
    );
    let resumed = rig.resumes(Some("b.5"));
    assert_eq!(
        (resumed.recovered, entries(&resumed).as_str()),
        (true, "b.6 b.7")
    );
}

/// Goal: of an origin that a position does not name all is brought that is here, though the disk has trimmed
/// some of it and memory not. Method: memory begins at 4, the disk behind 4; the position is newer.
#[test]
fn what_memory_has_still_is_replayed_though_the_disk_has_trimmed_it() {
    let small = Retention {
        messages: 2,
        bytes: 1 << 20,
    };
    let mut rig = rig_with(small, kept(&[], &[]));
    for seq in 1..=5 {
        rig.comes_and_is_stored(seq);
    }
    rig.does(|core, now| core.disk_trimmed(now, vec![(origin('b'), 4)]));
    rig.ms += 1000;
    rig.passes(200);
    let mut since = rig.core.client_position();
    since.retain(|id| id.origin.is_mark());
    let named = &mut Named::default();
    let resumed = rig
        .core
        .resume(&lobby().into(), Some(&since), named, 2, &Archive::default());
    let resumed = resumed.unwrap();
    assert_eq!(
        (resumed.recovered, entries(&resumed).as_str()),
        (true, "b.4 b.5")
    );
}

/// Goal: after a restart a node knows what repeated a mid, though only its disk has it. Method: of two with
/// one mid the first is shown; a client has seen the other, elsewhere; and only the other is left.
#[test]
fn what_repeats_a_mid_is_known_after_a_restart() {
    let said = |name: &str| entry(name, id(name).seq, Some("m"));
    let restarted = |mids: &[(&str, bool)]| {
        let mids = mids
            .iter()
            .filter_map(|(name, shown)| LoadedMid::of(&said(name), *shown));
        let loaded = Loaded {
            mids: mids.collect(),
            ..kept(
                &[(entry("b.9", 9, None), true)],
                &[('b', 0, 9), ('c', 0, 2)],
            )
        };
        rig_with(Retention::default(), loaded)
    };
    let mut rig = restarted(&[("b.1", true), ("c.2", false)]);
    let first = said("b.1");
    assert_eq!(tell_ids(rig.core.mids.repeats(&first)), "c.2");
    assert!(rig.says(1, Some("m"), 0).concat().starts_with("said 1 b.1"));
    let mut rig = restarted(&[("c.2", false)]);
    let batch = rig.batch().unwrap();
    assert!(
        batch.ends_with("| c.2"),
        "what it repeated is gone: {batch}"
    );
    assert!(rig.says(1, Some("m"), 0).concat().starts_with("said 1 c.2"));
}

/// Goal: who has seen a message is not brought what repeats it, though the one that it saw is gone. Method: of
/// two with one mid the first is trimmed, and the other shown in its place, or comes later still.
#[test]
fn who_saw_what_is_gone_is_not_brought_what_repeats_it() {
    for late in [false, true] {
        let mut rig = Rig::with(Retention {
            messages: 3,
            bytes: 1 << 20,
        });
        rig.is_alone();
        rig.link('b', "a", "");
        rig.link('c', "a", "");
        let again = vec![entry("c.1", 20, Some("m"))];
        rig.come(vec![entry("b.1", 10, Some("m"))], false);
        if !late {
            rig.come(again.clone(), false);
        }
        rig.come(
            [2, 3, 4]
                .map(|seq| entry(&format!("b.{seq}"), 10 + seq, None))
                .to_vec(),
            false,
        );
        if late {
            rig.come(again, false);
        }
        assert!(rig.transcript().contains("c.1"));
        let resumed = rig.resumes(Some("b.4"));
        assert_eq!((resumed.recovered, entries(&resumed).as_str()), (true, ""));
    }
}

/// Goal: who is told that it missed something is all the same not shown again what it named. Method: nobody has
/// what it saw of one node, and of another more was trimmed than it has seen.
#[test]
fn who_begins_anew_is_not_shown_again_what_it_named() {
    let mut rig = Rig::with(Retention {
        messages: 2,
        bytes: 1 << 20,
    });
    rig.is_alone();
    rig.link('b', "a", "");
    rig.comes("b.1 b.2 b.3 b.4");
    let (since, archive) = (ids("b.1 d.5"), asked_others());
    let mut named = names(&["m"], "d.0");
    let resumed = rig
        .core
        .resume(&lobby().into(), Some(&since), &mut named, 2, &archive);
    let mut resumed = resumed.unwrap();
    assert!(!resumed.recovered);
    assert!(resumed.ahead.has_seen(&entry("b.5", 0, Some("m")), 5));
}

/// Goal: a hole does not become silent when retention goes beyond it. Method: what comes behind a hole is of
/// another room, and is trimmed; who had seen what is before the hole comes back.
#[test]
fn a_hole_that_is_trimmed_is_not_forgotten() {
    let mut rig = Rig::with(Retention {
        messages: 2,
        bytes: 1 << 20,
    });
    rig.is_alone();
    rig.link('b', "a", "");
    rig.link('c', "a", "");
    rig.comes("b.1");
    let elsewhere = |seq: u64| {
        let (id, name) = (id(&format!("b.{seq}")), "bob".parse().unwrap());
        let (ts, room) = (WALL_US + seq, "busy".parse().unwrap());
        Arc::new(Entry::new(id, ts, room, None, &name, "hello"))
    };
    rig.come((3..=6).map(elsewhere).collect(), false);
    rig.dies('b');
    rig.passes_with(2000, &[('c', "a", "")]);
    assert!(rig.answer(Some("")).contains(&"gap b.2-2".to_owned()));
    assert!(
        rig.core
            .log(origin('b'))
            .is_some_and(|log| log.floor() == 4)
    );
    assert!(!rig.resumes(Some("b.1")).recovered);
    assert!(rig.resumes(Some("b.2")).recovered);
}
