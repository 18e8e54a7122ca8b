//! Scripts of halls: brokers on which all beat, this node too.

use super::*;

const BROKER: &str = "redis://h:6379";
const OTHER: &str = "nats://h:4222";

fn hall(endpoint: &str, nth: u8) -> Target {
    Target {
        speech: Speech::Hall,
        via: Via::Broker(nth),
        ..target("", endpoint)
    }
}

fn dial_hall(link: u64, endpoint: &str) -> Effect {
    Effect::Dial {
        link: LinkId(link),
        endpoint: endpoint.into(),
        speech: Speech::Hall,
    }
}

fn at(broker: &str, origin: &str) -> String {
    format!("{broker}#{origin}")
}

fn hall_up(endpoint: &str) -> Effect {
    Effect::HallUp {
        endpoint: endpoint.into(),
    }
}

fn hall_down(endpoint: &str) -> Effect {
    Effect::HallDown {
        endpoint: endpoint.into(),
    }
}

/// A beat that a node said at so many milliseconds of its clock.
fn said(origin: &str, clock: u64) -> Beat {
    Beat {
        ts: clock * 1000,
        clock: clock * 1000,
        ..beat(origin)
    }
}

/// The hall is proven over link 1 and A is heard over link 2, at time 0.
fn in_hall() -> Links {
    let mut links = links(vec![hall(BROKER, 0)]);
    assert_eq!(links.tick(ms(0)), [dial_hall(1, BROKER)]);
    assert_eq!(links.connected(ms(0), LinkId(1)), []);
    assert_eq!(
        links.beat(ms(0), LinkId(1), &said(ME, 0)),
        [hall_up(BROKER)]
    );
    let beat = said(A, 0);
    assert_eq!(
        links.beat(ms(0), LinkId(1), &beat),
        [dial(2, &at(BROKER, A))]
    );
    assert_eq!(heard_at(&at(BROKER, A)), Some(A.parse().unwrap()));
    assert_eq!(links.connected(ms(0), LinkId(2)), []);
    assert_eq!(links.beat(ms(0), LinkId(2), &beat), [up(A)]);
    links
}

#[test]
fn nobody_is_dialled_before_the_own_beat_has_come_back() {
    let mut links = links(vec![hall(BROKER, 0)]);
    links.tick(ms(0));
    links.connected(ms(0), LinkId(1));
    assert_eq!(links.beat(ms(1), LinkId(1), &said(A, 0)), []);
    assert_eq!(links.origin_of(LinkId(1)), None, "a hall speaks for nobody");
    assert_eq!(
        links.beat(ms(2), LinkId(1), &said(ME, 0)),
        [hall_up(BROKER), dial(2, &at(BROKER, A))]
    );
}

/// Goal: a subscription that is dead in silence is noticed, though others' beats come. Method: all beat
/// on but this node.
#[test]
fn without_the_own_beat_a_hall_is_torn_down_with_all_links_by_it() {
    let mut links = in_hall();
    for second in 1..3 {
        links.beat(ms(second * 1000), LinkId(1), &said(A, second * 1000));
        assert_eq!(
            links.beat(ms(second * 1000), LinkId(2), &said(A, second * 1000)),
            []
        );
    }
    let (when, effects) = wait(&mut links, ms(2000));
    assert!(when <= SILENCE_MAX + TICK, "{when:?}");
    let silent = Effect::Silent {
        link: LinkId(1),
        origin: Some(ME.parse().unwrap()),
    };
    let gone = [silent, down(A), hang_up(2), hall_down(BROKER), hang_up(1)];
    assert_eq!(effects[..5], gone);
    assert_eq!(
        effects[5..],
        [dial_hall(3, BROKER)],
        "it has waited long enough"
    );
}

#[test]
fn the_end_of_a_broker_is_the_end_of_all_heard_by_it_and_they_come_back_with_it() {
    let mut links = in_hall();
    assert_eq!(
        links.closed(ms(10), LinkId(1), Fault::ended()),
        [down(A), hang_up(2), hall_down(BROKER)]
    );
    assert_eq!(links.closed(ms(10), LinkId(2), Fault::ended()), []);
    let (when, effects) = wait(&mut links, ms(10));
    assert_eq!(effects, [dial_hall(3, BROKER)]);
    links.connected(when, LinkId(3));
    assert_eq!(
        links.beat(when, LinkId(3), &said(ME, 500)),
        [hall_up(BROKER), dial(4, &at(BROKER, A))],
        "he is wanted still"
    );
}

/// Goal: a broker by which this node's own beats come ever later is given up.
#[test]
fn a_broker_that_lags_is_given_up() {
    let mut links = in_hall();
    let mut now = 0;
    let effects = loop {
        now += 1000;
        let effects = links.beat(ms(now), LinkId(1), &said(ME, now / 8));
        links.beat(ms(now), LinkId(2), &said(A, now));
        if !effects.is_empty() {
            break effects;
        }
        assert!(now < 20_000);
    };
    assert!(effects.contains(&hall_down(BROKER)), "{effects:?}");
    assert_eq!(links.counters().behind, 1);
}

/// Goal: of several carriers, one that goes is noticed by nobody.
#[test]
fn who_is_heard_by_two_ways_is_down_with_the_last() {
    let mut links = links(vec![hall(BROKER, 0), hall(OTHER, 1)]);
    assert_eq!(links.want(ms(0), vec![target(A, "tcp://h:2")]).len(), 3);
    let ids = |links: &Links, endpoint: &str| {
        let status = links.status(ms(0));
        let mut linked = status.iter().filter(|it| it.publisher == endpoint);
        linked.next().unwrap().link.unwrap()
    };
    let direct = ids(&links, "tcp://h:2");
    links.connected(ms(0), direct);
    assert_eq!(links.beat(ms(0), direct, &said(A, 0)), [up(A)]);
    let mut ways = vec![(direct, direct)];
    for broker in [BROKER, OTHER] {
        let hall = ids(&links, broker);
        links.connected(ms(0), hall);
        links.beat(ms(0), hall, &said(ME, 0));
        links.beat(ms(0), hall, &said(A, 0));
        let link = ids(&links, &at(broker, A));
        links.connected(ms(0), link);
        assert_eq!(links.beat(ms(0), link, &said(A, 0)), []);
        assert_eq!(links.origin_of(link), Some(A.parse().unwrap()));
        ways.push((hall, link));
    }
    let mut downs = Vec::new();
    for (hall, _) in ways {
        let effects = links.closed(ms(1), hall, Fault::ended());
        downs.push(effects.contains(&down(A)));
    }
    assert_eq!(downs, [false, false, true]);
}

/// Goal: whoever may publish at a broker cannot fill the table.
#[test]
fn forged_beats_are_bounded_as_hellos_are() {
    let mut links = in_hall();
    for count in 0..10_000 {
        links.beat(ms(1), LinkId(1), &said(&to_letters(count), 0));
    }
    assert!(links.status(ms(1)).len() <= STRANGERS_MAX + 2);
    assert_eq!(links.counters().refused, 10_000 - STRANGERS_MAX as u64);
}

fn to_letters(count: u32) -> String {
    let letter = |nth: u32| char::from(b'a' + u8::try_from((count >> (4 * nth)) & 15).unwrap());
    (0..10)
        .map(|nth| if nth < 8 { letter(nth) } else { 'z' })
        .collect()
}
