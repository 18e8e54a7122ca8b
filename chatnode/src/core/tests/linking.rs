//! Peers as they are met: listed, dialled, greeted, heard, and lost.

use super::*;
use crate::core::links::{LinkId, Speech, Target, Via};

fn target(letter: char) -> Target {
    Target {
        origin: Some(origin(letter)),
        endpoint: format!("tcp://{letter}:1"),
        http: format!("http://{letter}"),
        speech: Speech::Mesh,
        via: Via::Nodes,
    }
}

impl Rig {
    /// All registries have answered, and list these.
    fn sees(&mut self, letters: &str) -> Vec<String> {
        self.takes(Input::Listed(Listed {
            members: letters.chars().map(target).collect(),
            answering: Some(letters.chars().map(origin).collect()),
            is_settled: true,
        }))
    }

    fn beats_on(&mut self, link: u64, letter: char, hears: &str, position: &str) -> Vec<String> {
        let beat = self.beat_of(letter, hears, position, 0);
        self.takes(Input::News(LinkId(link), News::Beat(beat)))
    }
}

#[test]
fn a_listed_node_is_dialled_greeted_and_linked_by_its_first_beat() {
    let mut rig = Rig::with(Retention::default());
    assert_eq!(rig.sees("b"), ["dial 1 tcp://b:1", "hello b"]);
    assert!(rig.takes(Input::Connected(LinkId(1))).is_empty());
    assert!(rig.greeted('b', None).is_empty());
    assert_eq!(rig.core.nodes(), ["http://a"]);
    assert_eq!(rig.beats_on(1, 'b', "a", ""), ["b is heard", "ready []"]);
    assert_eq!(rig.core.nodes(), ["http://a", "http://b"]);
    let closed = Input::Closed(LinkId(1), Fault::ended());
    assert_eq!(rig.takes(closed), ["b is not heard", "hello b"]);
    assert_eq!(rig.core.nodes(), ["http://a"]);
    let seen: Vec<_> = rig.core.nodes_seen().collect();
    assert_eq!(seen, ["http://a", "http://b"]);
}

#[test]
fn what_comes_on_a_link_before_a_beat_has_proved_it_is_not_taken() {
    let mut rig = Rig::with(Retention::default());
    rig.sees("b");
    rig.takes(Input::Connected(LinkId(1)));
    let log = |letter| {
        News::Entries(Entries {
            origin: origin(letter),
            ack_wanted: false,
            entries: vec![entry(&format!("{letter}.1"), 0, None)],
        })
    };
    assert!(rig.takes(Input::News(LinkId(1), log('b'))).is_empty());
    rig.beats_on(1, 'b', "a", "");
    assert!(rig.takes(Input::News(LinkId(1), log('c'))).is_empty());
    assert!(rig.takes(Input::News(LinkId(2), log('b'))).is_empty());
    let taken = rig.takes(Input::News(LinkId(1), log('b')));
    assert_eq!(taken, ["deliver b.1"]);
}

#[test]
fn joining_waits_for_whom_the_registries_list_and_a_way_leads_to() {
    let mut rig = Rig::with(Retention::default());
    rig.sees("bcd");
    rig.takes(Input::Connected(LinkId(1)));
    assert_eq!(rig.beats_on(1, 'b', "a", ""), ["b is heard"]);
    assert!(rig.greeted('c', Some(Why::Unreachable)).is_empty());
    assert!(rig.greeted('d', Some(Why::TimedOut)).is_empty());
    assert_eq!(rig.greeted('d', Some(Why::Refused)), ["ready []"]);
}

/// Found by the simulator: a node took clients without any history, since the registry was started anew
/// while it joined.
#[test]
fn joining_waits_for_whom_registries_have_listed_though_they_forget_it() {
    let mut rig = Rig::with(Retention::default());
    rig.sees("b");
    assert!(rig.sees("").iter().all(|told| !told.starts_with("ready")));
    rig.sees("b");
    rig.takes(Input::Connected(LinkId(2)));
    assert_eq!(rig.beats_on(2, 'b', "a", ""), ["b is heard", "ready []"]);
}

/// Who is listed where another was has taken its place: that one is dead.
#[test]
fn joining_does_not_wait_for_whom_another_has_replaced() {
    let mut rig = Rig::with(Retention::default());
    rig.sees("b");
    let newcomer = Target {
        origin: Some(origin('c')),
        ..target('b')
    };
    rig.takes(Input::Listed(Listed {
        members: vec![newcomer],
        answering: Some([origin('c')].into()),
        is_settled: true,
    }));
    rig.takes(Input::Connected(LinkId(2)));
    assert_eq!(rig.beats_on(2, 'c', "a", ""), ["c is heard", "ready []"]);
}

#[test]
fn a_peer_given_by_hand_is_waited_for_until_it_beats() {
    let me = Rig::with(Retention::default()).core.me;
    let by_hand = Target {
        origin: None,
        ..target('b')
    };
    let options = CoreOptions {
        fixed: vec![by_hand],
        ..CoreOptions::of(me)
    };
    let mut rig = Rig::with(Retention::default());
    let store = MemoryStore::new(Retention::default());
    rig.core = Core::new(options, store, StdRng::seed_from_u64(1), rig.now());
    assert_eq!(rig.sees(""), ["dial 1 tcp://b:1"]);
    assert!(rig.passes(100).is_empty());
    rig.takes(Input::Connected(LinkId(1)));
    assert_eq!(rig.beats_on(1, 'b', "a", ""), ["b is heard", "ready []"]);
}

/// A peer that has not told where its HTTP is cannot be asked, and nothing waits for its answer.
#[test]
fn a_peer_whose_http_is_not_known_is_not_asked() {
    let mut rig = Rig::linked("bc");
    let mut beat = rig.beat_of('b', "a", "b.3", 1);
    beat.http = String::new();
    assert!(rig.frame('b', News::Beat(beat)).is_empty());
    assert!(rig.passes(500).is_empty());
    assert_eq!(rig.beat('c', "a", "b.3"), ["fetch b.1-3 of c"]);
}

#[test]
fn a_peer_with_a_wrong_clock_is_told_of_once_for_each_time_that_it_is_heard() {
    let mut rig = Rig::with(Retention::default());
    rig.sees("b");
    rig.takes(Input::Connected(LinkId(1)));
    rig.beats_on(1, 'b', "a", "");
    for times in [1, 0] {
        let mut beat = rig.beat_of('b', "a", "", 0);
        beat.ts += 120_000_000;
        let told = rig.takes(Input::News(LinkId(1), News::Beat(beat)));
        assert_eq!(told, vec!["b has a wrong clock"; times]);
    }
}

/// Goal: a node that was stopped asks what it has missed before it takes anything, if it was for long.
#[test]
fn a_node_that_was_stopped_for_long_catches_up() {
    let mut rig = Rig::linked("b");
    for (ms, told) in [(1500, &[][..]), (2500, &["catching up", "position of b"])] {
        let stopped = Duration::from_millis(ms);
        assert_eq!(rig.does(|core, now| _ = core.time(now, stopped)), told);
    }
}
