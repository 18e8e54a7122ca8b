//! Roll calls, and a node that was stopped.

use super::*;

impl Rig {
    fn told(&mut self, letter: char, told: Option<&str>) -> Vec<String> {
        let told = told.map(|told| self.beat_of(letter, "a", told, 0));
        self.takes(Input::PositionTold(origin(letter), told.as_ref()))
    }
}

#[test]
fn a_node_that_was_stopped_waits_for_what_was_said_meanwhile() {
    let mut rig = Rig::linked("bc");
    rig.comes("b.1");
    let asked = rig.does(|r, now| r.catch_up(now));
    assert_eq!(asked, ["position of b", "position of c"]);
    assert!(rig.core.is_catching_up());
    assert_eq!(rig.told('b', Some("b.3")), [""; 0], "its link may bring it");
    assert_eq!(rig.told('c', Some("c.0 b.2")), [""; 0]);
    assert!(rig.core.is_catching_up());
    assert_eq!(rig.comes("b.2"), ["deliver b.2"]);
    assert_eq!(rig.comes("b.3"), ["deliver b.3", "caught up"]);
    assert!(!rig.core.is_catching_up());
}

/// What a dead peer said last may still be in its link: the end of that is waited for.
#[test]
fn the_link_of_a_peer_that_died_meanwhile_is_read_to_its_end() {
    let mut rig = Rig::linked("b");
    rig.does(|r, now| r.catch_up(now));
    assert_eq!(rig.told('b', None), [""; 0], "it does not answer");
    assert_eq!(rig.comes("b.1"), ["deliver b.1"]);
    assert_eq!(rig.passes(250), ["position of b"], "it is asked again");
    assert_eq!(rig.told('b', None), [""; 0]);
    let ended = rig.does(|r, now| r.unlinked(now, origin('b')));
    assert_eq!(ended, ["caught up"]);
}

#[test]
fn a_node_that_hears_nobody_has_nothing_to_catch_up_with() {
    let mut rig = Rig::new();
    assert_eq!(rig.does(|r, now| r.catch_up(now)), ["caught up"]);
}

#[test]
fn catching_up_is_bounded() {
    let mut rig = Rig::linked("b");
    rig.does(|r, now| r.catch_up(now));
    let mut told = Vec::new();
    while rig.core.is_catching_up() {
        let now = rig.passes_with(100, &[('b', "a", "")]);
        if now.iter().any(|effect| effect == "position of b") {
            rig.told('b', Some("b.9"));
        }
        told.extend(now);
        assert!(rig.ms < 6_000, "{told:?}");
    }
    assert!(rig.ms >= 4_900, "{}", rig.ms);
}

/// Who asks while a roll call runs is told of the next: the answers to this one may be older. They do not
/// follow each other without a pause, however many ask.
#[test]
fn a_roll_call_is_never_older_than_who_waits_for_it() {
    let mut rig = Rig::linked("b");
    let mut numbers = Vec::new();
    let mut call = |rig: &mut Rig| {
        numbers.push(rig.core.next_roll());
        rig.does(|r, now| r.call_roll(now))
    };
    assert_eq!(call(&mut rig), ["position of b"]);
    assert_eq!(call(&mut rig), [""; 0]);
    assert_eq!(call(&mut rig), [""; 0]);
    rig.told('b', Some("b.0"));
    assert_eq!(rig.core.rolls_over(), 1);
    let again = rig.passes_with(100, &[]);
    assert!(
        again.iter().any(|effect| effect == "position of b"),
        "{again:?}"
    );
    rig.told('b', Some("b.0"));
    assert_eq!(rig.core.rolls_over(), 2);
    assert_eq!(numbers, [1, 2, 2]);
}
