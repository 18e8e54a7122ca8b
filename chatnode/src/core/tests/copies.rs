//! Who holds what, as replies say.

use super::*;

fn ack(from: char, through: u64) -> News {
    News::Ack(Ack {
        from: origin(from),
        to: origin('a'),
        through,
    })
}

#[test]
fn a_reply_waits_for_its_copies() {
    let mut rig = Rig::linked("bc");
    assert_eq!(rig.says(1, None, 2), ["append a.1 ack", "deliver a.1"]);
    assert!(rig.frame('b', ack('b', 1)).is_empty());
    assert_eq!(rig.frame('c', ack('c', 1)), ["said 1 a.1 copies 2"]);
}

#[test]
fn one_acknowledgement_answers_all_that_it_covers() {
    let mut rig = Rig::linked("bc");
    rig.says(1, None, 1);
    rig.says(2, None, 2);
    rig.says(3, None, 1);
    rig.says(4, None, 1);
    let settled = rig.frame('b', ack('b', 3));
    assert_eq!(settled, ["said 1 a.1 copies 1", "said 3 a.3 copies 1"]);
    let settled = rig.frame('c', ack('c', 4));
    assert_eq!(settled, ["said 4 a.4 copies 1", "said 2 a.2 copies 2"]);
}

#[test]
fn a_beat_acknowledges_too() {
    let mut rig = Rig::linked("b");
    rig.says(1, None, 1);
    assert_eq!(rig.beat('b', "a", "a.1"), ["said 1 a.1 copies 1"]);
}

#[test]
fn after_two_seconds_the_reply_says_how_many_there_are() {
    let mut rig = Rig::linked("b");
    rig.says(1, None, 1);
    assert!(rig.passes_with(1500, &[('b', "a", "")]).is_empty());
    let told = rig.passes_with(1000, &[('b', "a", "")]);
    assert_eq!(told, ["said 1 a.1 copies 0"]);
}

#[test]
fn a_node_that_is_gone_or_has_a_hole_there_is_no_copy() {
    let mut rig = Rig::linked("bc");
    for ticket in 1..=4 {
        rig.says(ticket, None, 0);
    }
    rig.beat('b', "a", "a.4");
    assert_eq!(rig.core.copies(id("a.4")), 1);
    rig.beat('c', "a", "a.2 a.4");
    assert_eq!(rig.core.copies(id("a.2")), 2);
    assert_eq!(rig.core.copies(id("a.3")), 1, "c has a hole behind a.2");
    rig.unlink('b');
    assert_eq!(rig.core.copies(id("a.3")), 0);
    rig.frame('c', ack('c', 4));
    assert_eq!(rig.core.copies(id("a.3")), 1, "it is filled");
}

#[test]
fn acknowledgements_are_five_milliseconds_apart() {
    let mut rig = Rig::linked("b");
    let one = |seq: u64| vec![entry(&format!("b.{seq}"), 0, None)];
    assert_eq!(rig.come(one(1), true), ["deliver b.1", "ack 1 to b"]);
    assert_eq!(rig.come(one(2), true), ["deliver b.2"]);
    assert_eq!(rig.come(one(3), true), ["deliver b.3"]);
    assert_eq!(rig.passes(5), ["ack 3 to b"]);
    assert_eq!(rig.come(one(4), false), ["deliver b.4"]);
    assert!(rig.passes(50).is_empty());
}

#[test]
fn what_came_by_repair_is_acknowledged_if_it_was_asked_for() {
    let mut rig = Rig::linked("b");
    let two = vec![entry("b.2", 0, None)];
    assert!(
        rig.come(two, true).is_empty(),
        "there is nothing to acknowledge"
    );
    assert_eq!(rig.passes(20), ["fetch b.1-1 of b"]);
    let mended = rig.answer(Some("b.1"));
    assert_eq!(mended, ["deliver b.1", "deliver b.2", "ack 2 to b"]);
}
