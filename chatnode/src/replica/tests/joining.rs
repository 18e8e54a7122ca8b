//! Becoming ready.

use super::*;

fn newcomer(expects: &str) -> Rig {
    let mut rig = Rig::with(Retention::default());
    let expected = expects.chars().map(origin).collect();
    assert!(rig.does(|r, now| r.expect(now, expected)).is_empty());
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
    let log = rig.replica.log(origin('b')).unwrap();
    assert_eq!((log.floor(), log.held(), log.holes().len()), (500, 502, 0));
}

#[test]
fn a_log_that_is_trimmed_whole_is_not_waited_for() {
    let mut rig = newcomer("b");
    rig.link('b', "a", "b.7");
    assert_eq!(rig.passes(20), ["fetch b.1-7 of b"]);
    assert_eq!(rig.answer_behind(7, Some("")), ["ready []"]);
}
