//! Becoming ready.

use super::*;

fn newcomer(expects: &str) -> Rig {
    let mut rig = Rig::with(Retention::default());
    rig.core.awaited.expected = Some(expects.chars().map(origin).collect());
    assert!(rig.passes(0).is_empty());
    rig
}

#[test]
fn a_node_is_ready_when_all_are_linked_both_ways_and_all_they_held_is_here() {
    let mut rig = newcomer("bc");
    assert!(rig.link('b', "a", "b.1").is_empty());
    assert_eq!(rig.passes(20), ["fetch b.1-1 of b"]);
    assert!(
        rig.answer(Some("b.1")).is_empty(),
        "nothing is delivered yet"
    );
    assert!(rig.link('c', "", "d.1").is_empty());
    assert!(rig.beat('c', "a", "d.1").is_empty(), "it hears us now");
    assert_eq!(rig.passes(20), ["fetch d.1-1 of c"]);
    assert_eq!(rig.answer(Some("d.1")), ["ready []"]);
    assert_eq!(rig.transcript(), "b.1 d.1");
    assert_eq!(rig.comes("b.2"), ["deliver b.2"]);
}

#[test]
fn after_five_seconds_a_node_is_ready_and_says_whom_it_lacks() {
    let mut rig = newcomer("bc");
    rig.link('b', "a", "");
    let waits = rig.passes_with(4500, &[('b', "a", "")]);
    assert!(waits.is_empty());
    let ready = rig.passes_with(1000, &[('b', "a", "")]);
    assert_eq!(ready, ["ready [c]"]);
}

#[test]
fn what_others_have_trimmed_is_no_hole_for_a_newcomer() {
    let mut rig = newcomer("b");
    rig.link('b', "a", "b.502");
    assert_eq!(rig.passes(20), ["fetch b.1-502 of b"]);
    let ready = rig.answer_behind(500, Some("b.501 b.502"));
    assert_eq!(ready, ["ready []"]);
    let log = rig.core.log(origin('b')).unwrap();
    assert_eq!((log.floor(), log.held(), log.holes().len()), (500, 502, 0));
}

#[test]
fn a_log_that_is_trimmed_whole_is_not_waited_for() {
    let mut rig = newcomer("b");
    rig.link('b', "a", "b.7");
    assert_eq!(rig.passes(20), ["fetch b.1-7 of b"]);
    assert_eq!(rig.answer_behind(7, Some("")), ["ready []"]);
}

/// Found by the soak: a newcomer fetched a dead node's log page by page while all others trimmed it.
#[test]
fn what_others_trim_while_a_newcomer_reads_is_no_loss() {
    let mut rig = newcomer("b");
    rig.link('b', "a", "d.9");
    assert_eq!(rig.passes(20), ["fetch d.1-9 of b"]);
    let next = rig.answer_behind(2, Some("d.3 d.4"));
    assert_eq!(next, ["fetch d.5-9 of b"]);
    let again = rig.answer_behind(7, Some("d.8"));
    assert_eq!(again, ["fetch d.5-7 of b"], "b has let go of 5 to 7");
    assert_eq!(rig.answer_behind(8, Some("")), ["fetch d.9-9 of b"]);
    assert_eq!(rig.answer_behind(9, Some("")), ["fetch d.9-9 of b"]);
    assert_eq!(rig.answer_behind(9, Some("")), ["ready []"]);
    let log = rig.core.log(origin('d')).unwrap();
    let counts = (log.counts.lost, log.holes().len());
    assert_eq!((log.held(), counts), (9, (0, 0)));
    let since = rig.resumes(Some("d.4"));
    assert!(
        !since.recovered,
        "5 to 9 cannot be replayed, and it says so"
    );
    assert!(rig.resumes(Some("d.9")).recovered);
}

#[test]
fn what_nobody_has_is_a_loss_for_a_newcomer_too() {
    let mut rig = newcomer("b");
    rig.link('b', "a", "d.4 d.9");
    assert_eq!(rig.passes(20), ["fetch d.1-9 of b"]);
    let lacking = rig.answer_behind(2, Some("d.3 d.4 d.8 d.9"));
    assert_eq!(lacking, ["fetch d.5-7 of b"]);
    assert_eq!(
        rig.answer_behind(2, Some("")),
        ["gap d.5-7", "ready []"],
        "b has passed them before; nobody is there to be told, but it is counted"
    );
    assert_eq!(rig.core.log(origin('d')).unwrap().counts.lost, 3);
}

#[test]
fn what_a_listed_node_may_have_yet_is_waited_for_by_a_newcomer() {
    let mut rig = newcomer("bd");
    rig.list("bd");
    rig.link('b', "a", "e.4 e.9");
    assert_eq!(rig.passes(20), ["fetch e.1-9 of b"]);
    let rest = rig.answer(Some("e.1 e.2 e.3 e.4 e.8 e.9"));
    assert_eq!(rest, ["fetch e.5-7 of b"]);
    assert!(rig.answer(Some("")).is_empty(), "d may have them");
    assert_eq!(rig.link('d', "a", "e.9"), ["fetch e.5-7 of d"]);
    let all = rig.answer(Some("e.5 e.6 e.7"));
    assert_eq!(all, ["ready []"]);
}

#[test]
fn a_listed_node_where_nobody_listens_is_not_waited_for() {
    let mut rig = newcomer("bd");
    rig.list("bd");
    rig.link('b', "a", "d.4 d.9");
    assert_eq!(rig.passes(20), ["fetch d.1-9 of b"]);
    let rest = rig.answer(Some("d.1 d.2 d.3 d.4 d.8 d.9"));
    assert_eq!(rest, ["fetch d.5-7 of b"]);
    rig.greeted('d', Some(Why::Refused));
    assert_eq!(rig.answer(Some("")), ["gap d.5-7", "ready []"]);
}

/// Goal: a mesh that has seen a thousand starts, one message each, is joined in some sixty round trips,
/// not in ten seconds of ticks. Method: no time passes; all that is under way is answered at once.
#[test]
fn each_answer_brings_the_next_request_of_whatever_origin() {
    const STARTS: usize = 1000;
    let letters = b"abcdefghijklmnopqrstuvwxyz234567";
    let past: Vec<Origin> = (0..STARTS)
        .map(|number| {
            let (high, low) = (letters[number / 32] as char, letters[number % 32] as char);
            format!("zzzzzzzz{high}{low}").parse().unwrap()
        })
        .collect();
    let mut rig = newcomer("b");
    rig.does(|r, now| r.linked(now, origin('b')));
    let mut beat = rig.beat_of('b', "a", "", 0);
    beat.position = past
        .iter()
        .map(|&origin| EntryId { origin, seq: 1 })
        .collect();
    let now = rig.now();
    rig.core.news(now, origin('b'), News::Beat(beat));
    rig.ms += 20;
    let now = rig.now();
    rig.core.handle(Input::Tick, now);
    let name: UserName = "ada".parse().unwrap();
    let mut rounds = 0;
    let mut under_way = Vec::new();
    let mut ready = false;
    loop {
        rig.core.send_requests(now);
        for output in rig.core.take_outputs(Vec::new()) {
            match output {
                Output::Fetch { fetch, .. } => under_way.push(fetch),
                Output::Ready { unlinked, lacking } => {
                    assert!(unlinked.is_empty() && lacking.is_empty());
                    ready = true;
                }
                _ => {}
            }
        }
        if under_way.is_empty() {
            break;
        }
        assert!(under_way.len() <= repair::FETCHES_OF_PEER_JOINING_MAX);
        rounds += 1;
        for fetch in std::mem::take(&mut under_way) {
            let id = EntryId {
                origin: fetch.origin,
                seq: 1,
            };
            let entry = Entry::new(id, WALL_US, lobby(), None, &name, "hello");
            let page = LogPage {
                floor: 0,
                floor_ts: 0,
                entries: vec![Arc::new(entry)],
            };
            let came = Input::Fetched(fetch.id, Some(page), Duration::ZERO);
            rig.core.handle(came, now);
        }
    }
    let least = STARTS.div_ceil(repair::FETCHES_OF_PEER_JOINING_MAX);
    assert!(ready, "not ready after {rounds} rounds");
    assert!(rounds <= least + 2, "{rounds} rounds, not {least}");
}

#[test]
fn a_node_that_takes_clients_without_all_says_what_it_lacks() {
    let mut rig = newcomer("b");
    rig.list("b");
    assert!(rig.link('b', "a", "b.2 d.3").is_empty());
    let waits = rig.passes_with(4500, &[('b', "a", "b.2 d.3")]);
    assert_eq!(waits.len(), 2, "{waits:?}");
    if waits[0] == "fetch b.1-2 of b" {
        rig.fetches.swap(0, 1);
    }
    assert_eq!(rig.answer(Some("d.1 d.2")), ["fetch d.3-3 of b"]);
    let ready = rig.passes_with(1000, &[('b', "a", "b.2 d.3")]);
    assert_eq!(ready, ["ready without 0 nor 2 logs"]);
    let lacking: Vec<_> = rig.core.lacking().collect();
    let span = |after, through| Span { after, through };
    assert_eq!(
        lacking,
        [(origin('b'), span(0, 2)), (origin('d'), span(2, 3))]
    );
    assert_eq!(rig.answer(Some("b.1 b.2")), ["deliver b.1", "deliver b.2"]);
    assert_eq!(rig.answer(Some("d.3")), ["deliver d.3", "whole"]);
    assert_eq!(rig.core.lacking().count(), 0);
}
