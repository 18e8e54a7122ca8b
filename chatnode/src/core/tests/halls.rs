//! Nodes that are met at brokers.

use super::*;
use crate::core::links::{LinkId, Speech, Target, Via};

const BROKER: &str = "redis://h:6379";

impl Rig {
    /// A node that has begun to join, with so many brokers; each hall is connected, in the order of links.
    fn at_brokers(count: u8) -> Self {
        let mut rig = Self::with(Retention::default());
        let mut options = CoreOptions::of(rig.core.identity().clone());
        options.fixed = (0..count).map(hall).collect();
        let store = MemoryStore::new(Retention::default());
        rig.core = Core::new(options, store, StdRng::seed_from_u64(1), rig.now());
        rig.is_alone();
        rig.passes(1);
        for nth in 1..=count {
            rig.takes(Input::Connected(LinkId(nth.into())));
        }
        rig
    }

    fn comes_on(&mut self, link: u64, letter: char, hears: &str, position: &str) -> Vec<String> {
        let beat = self.beat_of(letter, hears, position, 0);
        self.takes(Input::News(LinkId(link), News::Beat(beat)))
    }
}

fn hall(nth: u8) -> Target {
    Target {
        origin: None,
        endpoint: format!("{BROKER}{nth}"),
        http: String::new(),
        speech: Speech::Hall,
        via: Via::Broker(nth),
    }
}

/// Goal: a node that joins at a broker waits for all who are there, though no registry lists them: as long as
/// one of them may go without a beat. Method: somebody is met in the hall at once, somebody a second later.
#[test]
fn joining_waits_for_whom_the_hall_may_still_bring() {
    let mut rig = Rig::at_brokers(1);
    assert_eq!(
        rig.comes_on(1, 'a', "", ""),
        ["HallUp(\"redis://h:63790\")"]
    );
    assert_eq!(
        rig.comes_on(1, 'b', "", ""),
        [format!("dial 2 {BROKER}0#bbbbbbbbbb")]
    );
    rig.takes(Input::Connected(LinkId(2)));
    assert_eq!(rig.comes_on(2, 'b', "a", ""), ["b is heard"]);
    assert_eq!(rig.passes(900), [""; 0], "others may come");
    let met = rig.comes_on(1, 'c', "", "");
    assert_eq!(met[0], format!("dial 3 {BROKER}0#cccccccccc"));
    let told = rig.passes(400);
    assert!(!told.iter().any(|it| it.starts_with("ready")), "{told:?}");
    rig.takes(Input::Connected(LinkId(3)));
    let told = rig.comes_on(3, 'c', "a", "");
    assert_eq!(told, ["c is heard", "ready []"]);
}

/// Goal: a broker that is away keeps no node from its own clients.
#[test]
fn a_broker_that_cannot_be_had_is_not_waited_for() {
    let mut rig = Rig::with(Retention::default());
    let mut options = CoreOptions::of(rig.core.identity().clone());
    options.fixed = vec![hall(0)];
    let store = MemoryStore::new(Retention::default());
    rig.core = Core::new(options, store, StdRng::seed_from_u64(1), rig.now());
    rig.is_alone();
    rig.passes(300);
    assert!(!rig.core.is_ready());
    let told = rig.takes(Input::Closed(LinkId(1), Fault::refused()));
    let later = rig.passes(200);
    let told: Vec<_> = told.into_iter().chain(later).collect();
    assert!(told.contains(&"ready []".to_owned()), "{told:?}");
}

/// Goal: what is told later by a slower carrier is no news: it proves its own link, and changes nothing.
/// Method: a node is heard by two brokers; by the second come its older beats.
#[test]
fn older_beats_by_another_carrier_change_nothing() {
    let mut rig = Rig::at_brokers(2);
    for hall in [1, 2] {
        rig.comes_on(hall, 'a', "", "");
        rig.comes_on(hall, 'b', "", "");
    }
    for link in [3, 4] {
        rig.takes(Input::Connected(LinkId(link)));
    }
    rig.comes_on(3, 'b', "a", "c.4");
    rig.comes_on(4, 'b', "", "");
    let b = rig.core.peers().get(origin('b')).unwrap();
    assert_eq!(b.position.get(&origin('c')), Some(&4));
    assert_eq!(b.hears, [origin('a')]);
    // Once the first is gone, the second speaks for it.
    let told = rig.takes(Input::Closed(LinkId(1), Fault::ended()));
    assert!(!told.contains(&"b is not heard".to_owned()), "{told:?}");
    rig.comes_on(4, 'b', "", "c.5");
    let b = rig.core.peers().get(origin('b')).unwrap();
    assert_eq!(b.position.get(&origin('c')), Some(&5));
}

/// Goal: while a broker is away its nodes serve their own clients, so clients are told of them still, but not
/// of one that is dead. Method: three are met, the hall ends, and at the HTTP of one nobody listens.
#[test]
fn clients_are_told_of_nodes_that_only_the_broker_keeps_apart() {
    let mut rig = Rig::at_brokers(1);
    rig.comes_on(1, 'a', "", "");
    for (letter, link) in [('b', 2), ('c', 3)] {
        rig.comes_on(1, letter, "", "");
        rig.takes(Input::Connected(LinkId(link)));
        rig.comes_on(link, letter, "a", "");
    }
    assert_eq!(rig.core.nodes(), ["http://a", "http://b", "http://c"]);
    let told = rig.takes(Input::Closed(LinkId(1), Fault::ended()));
    assert!(told.contains(&"b is not heard".to_owned()), "{told:?}");
    assert_eq!(rig.core.nodes(), ["http://a", "http://b", "http://c"]);
    rig.greeted('c', Some(Why::Refused));
    rig.passes(1100);
    assert_eq!(rig.core.nodes(), ["http://a", "http://b"]);
    // The broker is back, and without b.
    rig.takes(Input::Connected(LinkId(4)));
    rig.comes_on(4, 'a', "", "");
    assert_eq!(rig.core.nodes(), ["http://a"]);
}

/// Goal: nodes that meet at a broker cost each other few beats and no request, however many they are. Method:
/// seven are met at once, who do not hear this one yet; one of them never does.
#[test]
fn many_who_meet_at_a_broker_are_told_by_few_beats() {
    let hellos = |told: &[String]| told.iter().filter(|it| it.starts_with("hello")).count();
    let mut rig = Rig::at_brokers(1);
    rig.comes_on(1, 'a', "", "");
    let links: Vec<(char, u64)> = ('b'..='h').zip(2..).collect();
    for (letter, _) in &links {
        assert_eq!(hellos(&rig.comes_on(1, *letter, "", "")), 0);
    }
    let mut beats = 0;
    let mut last = rig.core.beat_last;
    for (letter, link) in &links {
        rig.takes(Input::Connected(LinkId(*link)));
        assert_eq!(hellos(&rig.comes_on(*link, *letter, "", "")), 0);
        rig.passes(5);
        beats += u32::from(rig.core.beat_last > last);
        last = rig.core.beat_last;
    }
    assert!(beats <= 4, "{beats} for seven who came one after the other");
    rig.comes_on(8, 'h', "", "");
    rig.passes(40);
    assert!(rig.core.beat_last > last, "and then they are told");
    for (letter, link) in &links[1..] {
        rig.comes_on(*link, *letter, "a", "");
    }
    assert_eq!(hellos(&rig.passes(120)), 0);
    let told = rig.passes(150);
    assert!(told.contains(&"hello b".to_owned()), "{told:?}");
    assert_eq!(hellos(&told), 1, "who does not hear it in time is asked");
}
