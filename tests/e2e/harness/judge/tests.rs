//! The rules are checked: each fault of a program that they are there for makes them fail.

use super::{Evidence, Kind, Trace, awaited, judge};
use crate::harness::Instant;
use crate::harness::record::{Attempt, Fate, Join};
use crate::harness::wire::{Joined, Msg, Position, Sent};

/// A message of ada's; its timestamp is made of its number, and of its origin's letter.
fn message(id: &str, mid: &str) -> Msg {
    let (origin, seq) = id.split_once('.').unwrap();
    let seq: u64 = seq.parse().unwrap();
    Msg {
        room: "tea".to_owned(),
        id: id.to_owned(),
        mid: Some(mid.to_owned()),
        from: "ada".to_owned(),
        ts: seq * 100 + u64::from(origin.as_bytes()[0]),
        text: format!("text of {mid}"),
    }
}

fn attempt(origin: &str, mid: &str, fate: Fate) -> Attempt {
    let now = Instant::now();
    Attempt {
        mid: mid.to_owned(),
        room: "tea".to_owned(),
        from: "ada".to_owned(),
        text: format!("text of {mid}"),
        origin: origin.to_owned(),
        sent_at: now,
        replied_at: now,
        fate,
    }
}

fn accepted(id: &str, mid: &str, copies: u64) -> Attempt {
    let kept = message(id, mid);
    let sent = Sent {
        id: id.to_owned(),
        ts: kept.ts,
        copies,
    };
    attempt(kept.origin(), mid, Fate::Accepted(sent))
}

fn sender(origin: &str, attempts: Vec<Attempt>) -> Trace {
    Trace {
        person: "ada".to_owned(),
        origin: origin.to_owned(),
        attempts,
        ..Trace::default()
    }
}

/// A connection of bob's that began at `since`, or at nothing, and was shown these, live.
fn reads(origin: &str, since: Option<&[&str]>, replayed: &[&Msg], live: &[&Msg]) -> Trace {
    let position = |ids: &[&str]| {
        let ids: Vec<_> = ids.iter().map(|&id| id.to_owned()).collect();
        Position::parse(&ids).unwrap()
    };
    Trace {
        person: "bob".to_owned(),
        origin: origin.to_owned(),
        joins: vec![Join {
            room: "tea".to_owned(),
            since: since.map(position),
            joined: Joined {
                recovered: since.map(|_| true),
                at: Vec::new(),
                messages: replayed.iter().map(|&message| message.clone()).collect(),
                members: Vec::new(),
                count: 0,
            },
            before: 0,
        }],
        messages: live
            .iter()
            .map(|&message| (Instant::now(), message.clone()))
            .collect(),
        is_open: true,
        ..Trace::default()
    }
}

/// a.1, a.2 and b.1, by ada, in the order of the history, and a sender that was told so.
fn three() -> ([Msg; 3], Trace, Trace) {
    let messages = [
        message("a.1", "1"),
        message("b.1", "3"),
        message("a.2", "2"),
    ];
    let at_a = sender("a", vec![accepted("a.1", "1", 0), accepted("a.2", "2", 0)]);
    let at_b = sender("b", vec![accepted("b.1", "3", 0)]);
    (messages, at_a, at_b)
}

fn evidence(history: &[&Msg], traces: Vec<Trace>) -> Evidence {
    Evidence {
        room: "tea".to_owned(),
        traces,
        history: history.iter().map(|&message| message.clone()).collect(),
        ..Evidence::default()
    }
}

#[track_caller]
fn good(evidence: &Evidence) {
    let verdict = judge(evidence);
    assert_eq!(verdict.fault_count(), 0, "{:#?}", verdict.faults);
}

#[track_caller]
fn finds(kind: Kind, what: &str, evidence: &Evidence) {
    let verdict = judge(evidence);
    assert!(verdict.count(kind) > 0, "{what} was not found: {verdict:?}");
}

#[test]
fn a_stream_with_a_fault_is_found_out() {
    let ([one, three, two], at_a, at_b) = three();
    let stream = |live: &[&Msg]| {
        let traces = vec![at_a.clone(), at_b.clone(), reads("b", None, &[], live)];
        evidence(&[&one, &three, &two], traces)
    };
    good(&stream(&[&one, &two, &three]));
    good(&stream(&[&three, &one, &two]));
    let mut other_text = two.clone();
    "changed".clone_into(&mut other_text.text);
    let other_id = Msg {
        id: "a.3".to_owned(),
        ..two.clone()
    };
    finds(Kind::Lost, "missing", &stream(&[&one, &three]));
    let twice = stream(&[&one, &two, &two, &three]);
    finds(Kind::Doubled, "twice", &twice);
    let by_mid = stream(&[&one, &two, &other_id, &three]);
    finds(Kind::Doubled, "twice by mid", &by_mid);
    let swapped = stream(&[&two, &one, &three]);
    finds(Kind::Misordered, "out of order", &swapped);
    let altered = stream(&[&one, &other_text, &three]);
    finds(Kind::Altered, "altered", &altered);
    let phantom = stream(&[&one, &two, &three, &message("a.3", "9")]);
    finds(Kind::Phantom, "shown and not kept", &phantom);
}

#[test]
fn a_history_with_a_fault_is_found_out() {
    let ([one, three, two], at_a, at_b) = three();
    let kept = |history: &[&Msg]| evidence(history, vec![at_a.clone(), at_b.clone()]);
    good(&kept(&[&one, &three, &two]));
    finds(Kind::Lost, "lost", &kept(&[&one, &three]));
    let phantom = message("b.9", "9");
    finds(
        Kind::Phantom,
        "phantom",
        &kept(&[&one, &three, &two, &phantom]),
    );
    let other_id = Msg {
        id: "a.7".to_owned(),
        ..two.clone()
    };
    finds(
        Kind::Altered,
        "another id",
        &kept(&[&one, &three, &other_id]),
    );
    let other_name = Msg {
        from: "eve".to_owned(),
        ..two.clone()
    };
    finds(
        Kind::Altered,
        "another name",
        &kept(&[&one, &three, &other_name]),
    );
    finds(Kind::Misordered, "order", &kept(&[&one, &two, &three]));
    finds(
        Kind::Doubled,
        "an id twice",
        &kept(&[&one, &one, &three, &two]),
    );
    let mid_again = Msg {
        id: "b.2".to_owned(),
        ts: two.ts + 1,
        ..two.clone()
    };
    finds(
        Kind::Doubled,
        "a mid twice",
        &kept(&[&one, &three, &two, &mid_again]),
    );
}

#[test]
fn what_was_refused_may_not_be_kept() {
    let refused = attempt("a", "1", Fate::Refused("rate_limited".to_owned()));
    let one = message("a.1", "1");
    let traces = || vec![sender("a", vec![refused.clone()])];
    good(&evidence(&[], traces()));
    finds(Kind::Phantom, "refused", &evidence(&[&one], traces()));
    // The retry was accepted.
    let retried = vec![sender("a", vec![refused, accepted("a.1", "1", 0)])];
    good(&evidence(&[&one], retried));
}

#[test]
fn only_what_a_killed_node_acknowledged_without_copies_may_be_lost() {
    let lost = |copies: u64, killed: &str| {
        let traces = vec![sender("a", vec![accepted("a.1", "1", copies)])];
        let mut evidence = evidence(&[], traces);
        evidence.killed.insert(killed.to_owned());
        evidence
    };
    good(&lost(0, "a"));
    assert_eq!(judge(&lost(0, "a")).excused, 1);
    finds(Kind::Lost, "lost with a copy", &lost(1, "a"));
    let mut durable = lost(0, "a");
    durable.durable.insert("a".to_owned());
    finds(Kind::Lost, "lost in spite of a data directory", &durable);
    finds(Kind::Lost, "lost at a node that lives", &lost(0, "b"));
}

#[test]
fn what_was_shown_and_then_lost_is_a_fault_unless_its_node_was_killed() {
    let one = message("a.1", "1");
    let unknown = attempt("a", "1", Fate::Unknown);
    let traces = vec![sender("a", vec![unknown]), reads("a", None, &[], &[&one])];
    let mut evidence = evidence(&[], traces);
    finds(Kind::Phantom, "shown and not kept", &evidence);
    evidence.killed.insert("a".to_owned());
    good(&evidence);
    assert_eq!(judge(&evidence).vanished, 1);
}

#[test]
fn a_sender_whose_messages_were_swapped_is_found_out() {
    let (first, second) = (message("a.1", "second"), message("a.2", "first"));
    let said = vec![accepted("a.2", "first", 0), accepted("a.1", "second", 0)];
    let swapped = evidence(&[&first, &second], vec![sender("a", said)]);
    finds(Kind::Misordered, "swapped", &swapped);
    // Without replies the history tells it.
    let silent = |mid| attempt("a", mid, Fate::Unknown);
    let said = vec![silent("first"), silent("second")];
    let swapped = evidence(&[&first, &second], vec![sender("a", said)]);
    finds(Kind::Misordered, "swapped without replies", &swapped);
}

#[test]
fn a_retry_may_be_kept_under_the_id_of_an_unanswered_attempt_only() {
    let (old, new) = (message("a.1", "1"), message("b.2", "1"));
    let retried = |first: Fate| {
        let first = attempt("a", "1", first);
        let second = accepted("b.2", "1", 1);
        vec![sender("a", vec![first]), sender("b", vec![second])]
    };
    good(&evidence(&[&old], retried(Fate::Unknown)));
    good(&evidence(&[&new], retried(Fate::Unknown)));
    let refused = Fate::Refused("stopping".to_owned());
    finds(
        Kind::Altered,
        "an entry of nobody",
        &evidence(&[&old], retried(refused)),
    );
    // Shown the one, kept the other: the message was shown.
    let mut shown = retried(Fate::Unknown);
    shown.push(reads("b", None, &[], &[&new]));
    good(&evidence(&[&old], shown));
}

#[test]
fn a_reader_that_moved_is_judged_over_all_its_connections() {
    let ([one, three, two], at_a, at_b) = three();
    let moved = |replayed: &[&Msg], live: &[&Msg]| {
        let mut before = reads("a", None, &[], &[&one]);
        before.is_open = false;
        let after = reads("b", Some(&["a.1"]), replayed, live);
        let traces = vec![at_a.clone(), at_b.clone(), before, after];
        evidence(&[&one, &three, &two], traces)
    };
    good(&moved(&[&three], &[&two]));
    good(&moved(&[&three, &two], &[]));
    finds(Kind::Lost, "a hole at the move", &moved(&[], &[&two]));
    finds(
        Kind::Doubled,
        "a repeat at the move",
        &moved(&[&one, &three], &[&two]),
    );
    assert_eq!(awaited(&moved(&[&three], &[])).len(), 1);
    let mut not_recovered = moved(&[&three, &two], &[]);
    not_recovered.traces[3].joins[0].joined.recovered = Some(false);
    finds(Kind::Unrecovered, "recovered:false", &not_recovered);
    let mut told = moved(&[&three, &two], &[]);
    let gap = serde_json::json!({ "room": "tea", "origin": "a", "after": 0, "through": 1 });
    told.traces[3].gaps.push(gap);
    finds(Kind::Unrecovered, "a gap", &told);
    let mut killed = told.clone();
    killed.killed.insert("a".to_owned());
    good(&killed);
    killed.durable.insert("a".to_owned());
    finds(Kind::Unrecovered, "a gap of what is on disk", &killed);
    told.holes = true;
    good(&told);
}

#[test]
fn a_mid_on_two_connections_is_a_fault() {
    let (old, new) = (message("a.1", "1"), message("b.2", "1"));
    let mut before = reads("a", None, &[], &[&old]);
    before.is_open = false;
    let after = reads("b", Some(&["a.1"]), &[], &[&new]);
    let mut traces = vec![sender("a", vec![attempt("a", "1", Fate::Unknown)])];
    traces.push(sender("b", vec![accepted("b.2", "1", 0)]));
    traces.extend([before, after]);
    let mut evidence = evidence(&[&new], traces);
    evidence.killed.insert("a".to_owned());
    finds(Kind::Doubled, "again by mid", &evidence);
}

#[test]
fn a_reader_that_was_cut_off_has_a_run_without_holes() {
    let ([one, three, two], at_a, at_b) = three();
    let cut = |live: &[&Msg]| {
        let mut guest = reads("b", None, &[], live);
        guest.is_open = false;
        evidence(
            &[&one, &three, &two],
            vec![at_a.clone(), at_b.clone(), guest],
        )
    };
    good(&cut(&[]));
    good(&cut(&[&one]));
    good(&cut(&[&three, &one, &two]));
    finds(Kind::Lost, "a hole before the cut", &cut(&[&two]));
}

#[test]
fn what_was_before_it_began_may_not_be_shown_live() {
    let ([one, three, two], at_a, at_b) = three();
    let began = |page: &[&Msg], live: &[&Msg]| {
        let mut reader = reads("b", None, page, live);
        reader.joins[0].joined.at = vec!["a.1".to_owned()];
        evidence(
            &[&one, &three, &two],
            vec![at_a.clone(), at_b.clone(), reader],
        )
    };
    good(&began(&[], &[&three, &two]));
    good(&began(&[&one], &[&three, &two]));
    finds(
        Kind::Doubled,
        "history as live",
        &began(&[], &[&one, &three, &two]),
    );
    finds(
        Kind::Doubled,
        "page and live",
        &began(&[&one], &[&one, &three, &two]),
    );
}
