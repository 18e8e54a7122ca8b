//! Scripts, one for each rule, and a small world of nodes that come and go.

mod hall;
mod reasons;
mod world;

use rand::SeedableRng as _;

use super::peer::DIAL_MAX;
use super::*;
use crate::core::bounds::SILENCE_MAX;

const ME: &str = "meeeeeeeee";
const A: &str = "aaaaaaaaaa";
const B: &str = "bbbbbbbbbb";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn target(origin: &str, endpoint: &str) -> Target {
    Target {
        origin: (!origin.is_empty()).then(|| origin.parse().unwrap()),
        endpoint: endpoint.into(),
        http: String::new(),
        speech: Speech::Mesh,
        via: Via::Nodes,
    }
}

/// How often the core ticks.
const TICK: Duration = Duration::from_millis(100);

fn beat(origin: &str) -> Beat {
    Beat {
        origin: origin.parse().unwrap(),
        name: format!("node {origin}"),
        http: "http://127.0.0.1:8080".into(),
        publisher: String::new(),
        ts: 1,
        clock: 1,
        head: 0,
        position: Vec::new(),
        hears: Vec::new(),
        members_version: 0,
        ready: true,
    }
}

fn links(fixed: Vec<Target>) -> Links {
    let own = vec!["tcp://127.0.0.1:1".into()];
    let options = LinksOptions {
        me: ME.parse().unwrap(),
        own,
        fixed,
    };
    Links::new(options, StdRng::seed_from_u64(7))
}

fn dial(link: u64, endpoint: &str) -> Effect {
    Effect::Dial {
        link: LinkId(link),
        endpoint: endpoint.into(),
        speech: Speech::Mesh,
    }
}

fn hang_up(link: u64) -> Effect {
    Effect::HangUp { link: LinkId(link) }
}

fn up(origin: &str) -> Effect {
    Effect::Up {
        origin: origin.parse().unwrap(),
    }
}

fn down(origin: &str) -> Effect {
    Effect::Down {
        origin: origin.parse().unwrap(),
    }
}

/// Ticks until something happens, at the latest for five seconds; when, and what.
fn wait(links: &mut Links, mut now: Duration) -> (Duration, Vec<Effect>) {
    let end = now + ms(5000);
    while now < end {
        now += TICK;
        let effects = links.tick(now);
        if !effects.is_empty() {
            return (now, effects);
        }
    }
    (now, Vec::new())
}

/// A is listed at port 2 and heard, over link 1, at time 0.
fn heard() -> Links {
    let mut links = links(Vec::new());
    assert_eq!(
        links.want(ms(0), vec![target(A, "tcp://h:2")]),
        [dial(1, "tcp://h:2")]
    );
    assert_eq!(links.connected(ms(0), LinkId(1)), []);
    assert_eq!(links.beat(ms(0), LinkId(1), &beat(A)), [up(A)]);
    links
}

#[test]
fn a_listed_peer_is_dialled_at_once_and_this_node_never() {
    let mut links = links(Vec::new());
    let listed = vec![
        target(ME, "tcp://h:9"),
        target(B, "tcp://localhost:1"),
        target(A, "tcp://h:2"),
    ];
    assert_eq!(links.want(ms(5), listed), [dial(1, "tcp://h:2")]);
}

#[test]
fn a_failed_dial_is_repeated_ever_more_rarely_as_long_as_the_peer_is_listed() {
    let mut links = links(Vec::new());
    links.want(ms(0), vec![target(A, "tcp://h:2")]);
    let mut now = ms(0);
    let mut pauses = Vec::new();
    for link in 1..=9 {
        assert_eq!(links.closed(now, LinkId(link), Fault::ended()), []);
        let (then, effects) = wait(&mut links, now);
        assert_eq!(effects, [dial(link + 1, "tcp://h:2")]);
        pauses.push((then - now).as_millis());
        now = then;
    }
    assert!(
        pauses[0] <= 100 && pauses.is_sorted_by(|a, b| a <= b || *a > 1500),
        "{pauses:?}"
    );
    assert!(pauses[8] >= 1500 && pauses[8] <= 2000, "{pauses:?}");
    assert_eq!(links.status(now)[0].fault, Some(Fault::ended()));
    assert_eq!(links.want(now, Vec::new()), [hang_up(10)]);
    assert_eq!(wait(&mut links, now).1, []);
    assert_eq!(links.status(now), []);
}

#[test]
fn at_most_so_many_dials_are_under_way_and_new_peers_go_first() {
    let mut links = links(Vec::new());
    let all = |count: usize| -> Vec<Target> {
        (0..count)
            .map(|n| {
                let letter = |n| char::from(b"abcdefgh"[n]);
                let origin = format!("{}{}aaaaaaaa", letter(n / 8), letter(n % 8));
                target(&origin, &format!("tcp://h:{}", n + 10))
            })
            .collect()
    };
    assert_eq!(links.want(ms(0), all(40)).len(), DIALS_AT_ONCE_MAX);
    assert_eq!(links.tick(ms(100)), []);
    let effects = links.closed(ms(150), LinkId(1), Fault::ended());
    assert_eq!(effects.len(), 1, "the next in line takes its place");
    // The failed one is due again, but those never tried go first.
    for link in 2..=8 {
        let effects = links.closed(ms(2000), LinkId(link), Fault::ended());
        assert!(matches!(effects[..], [Effect::Dial { .. }]), "{effects:?}");
    }
    assert_eq!(links.counters().dials, 40);
}

#[test]
fn absence_from_the_registry_closes_no_link_that_beats() {
    let mut links = heard();
    assert_eq!(links.want(ms(10), Vec::new()), []);
    for second in 1..60 {
        assert_eq!(links.tick(ms(second * 1000 - 500)), []);
        assert_eq!(links.beat(ms(second * 1000), LinkId(1), &beat(A)), []);
    }
    assert_eq!(links.up.len(), 1);
    assert_eq!(
        links.closed(ms(60_000), LinkId(1), Fault::ended()),
        [down(A)]
    );
    assert_eq!(
        wait(&mut links, ms(60_000)).1,
        [],
        "unlisted and dead is forgotten"
    );
}

#[test]
fn a_link_that_breaks_is_dialled_again_soon() {
    let mut links = heard();
    assert_eq!(links.closed(ms(500), LinkId(1), Fault::ended()), [down(A)]);
    assert_eq!(
        wait(&mut links, ms(500)),
        (ms(600), vec![dial(2, "tcp://h:2")])
    );
}

#[test]
fn a_silent_link_is_torn_down_and_dialled_again_while_listed() {
    let mut links = heard();
    let (now, effects) = wait(&mut links, ms(0));
    let silent = Effect::Silent {
        link: LinkId(1),
        origin: Some(A.parse().unwrap()),
    };
    assert_eq!(effects, [silent, down(A), hang_up(1), dial(2, "tcp://h:2")]);
    assert_eq!(now, SILENCE_MAX);
    assert_eq!(
        links.beat(now, LinkId(1), &beat(A)),
        [],
        "the old link is no more"
    );
    links.connected(now, LinkId(2));
    let (later, effects) = wait(&mut links, now);
    assert_eq!(
        later,
        now + SILENCE_MAX,
        "a link that never beat is silent too"
    );
    assert_eq!(
        effects[..2],
        [
            Effect::Silent {
                link: LinkId(2),
                origin: None
            },
            hang_up(2)
        ]
    );
    assert_eq!(links.counters().silent, 2);
}

#[test]
fn a_link_on_which_everything_comes_later_and_later_is_given_up_and_dialled_again() {
    let mut links = heard();
    let mut beat = beat(A);
    let mut given_up = Vec::new();
    // Beats that were sent each second come every one and a half.
    for second in 1..20 {
        beat.clock = second * 1_000_000;
        let effects = links.beat(ms(1500 * second), LinkId(1), &beat);
        if !effects.is_empty() {
            given_up.push((second, effects));
        }
    }
    assert_eq!(given_up.len(), 1);
    assert_eq!(given_up[0].1, [down(A), hang_up(1)]);
    assert!((10..=11).contains(&given_up[0].0), "{given_up:?}");
    assert_eq!(links.counters().behind, 1);
}

/// A mesh whose time was wrong goes back to its clocks a tenth slower than time, which may take hours.
#[test]
fn a_peer_that_goes_back_to_its_clock_is_not_given_up() {
    let mut links = heard();
    let mut beat = beat(A);
    for second in 1..200 {
        (beat.clock, beat.ts) = (second * 1_000_000, second * 900_000);
        assert_eq!(links.beat(ms(1000 * second), LinkId(1), &beat), []);
    }
}

#[test]
fn a_clock_that_jumps_gives_no_link_up() {
    let mut links = heard();
    let mut beat = beat(A);
    for (second, clock) in [
        (1, 50_000_000),
        (2, 4_000_000_000),
        (3, 1_000_000),
        (4, 2_000_000),
    ] {
        beat.clock = clock;
        assert_eq!(links.beat(ms(1000 * second), LinkId(1), &beat), []);
    }
}

#[test]
fn a_dial_that_the_bus_forgets_fails() {
    let mut links = links(vec![target("", "tcp://h:2")]);
    assert_eq!(links.tick(ms(0)), [dial(1, "tcp://h:2")]);
    let (now, effects) = wait(&mut links, ms(0));
    assert_eq!((now, effects), (DIAL_MAX, vec![hang_up(1)]));
    assert_eq!(wait(&mut links, now).1, [dial(2, "tcp://h:2")]);
}

#[test]
fn a_node_that_was_stopped_does_not_blame_its_peers() {
    let mut links = heard();
    assert_eq!(links.tick(ms(100)), []);
    links.excuse(ms(20_000), ms(19_900));
    assert_eq!(links.tick(ms(20_000)), []);
    assert_eq!(
        wait(&mut links, ms(20_000)).0,
        ms(20_000) + SILENCE_MAX - ms(100)
    );
}

#[test]
fn another_origin_than_expected_closes_the_link() {
    let mut links = links(Vec::new());
    links.want(ms(0), vec![target(A, "tcp://h:2")]);
    links.connected(ms(0), LinkId(1));
    assert_eq!(links.beat(ms(10), LinkId(1), &beat(B)), [hang_up(1)]);
    assert_eq!(links.counters().misdirected, 1);
    assert_eq!(links.origin_of(LinkId(1)), None);
    // The registry notices the restart: the newcomer is dialled at once.
    let effects = links.want(ms(20), vec![target(B, "tcp://h:2")]);
    assert_eq!(effects, [dial(2, "tcp://h:2")]);
}

#[test]
fn a_newcomer_at_the_endpoint_of_a_dial_does_not_wait_for_it() {
    let mut links = links(Vec::new());
    links.want(ms(0), vec![target(A, "tcp://h:2")]);
    let effects = links.want(ms(10), vec![target(B, "tcp://h:2")]);
    assert_eq!(effects, [hang_up(1), dial(2, "tcp://h:2")]);
    links.connected(ms(20), LinkId(2));
    let effects = links.want(ms(30), vec![target(A, "tcp://h:2")]);
    assert_eq!(
        effects,
        [hang_up(2), dial(3, "tcp://h:2")],
        "nor for an unproven link"
    );
    links.connected(ms(40), LinkId(3));
    assert_eq!(
        links.want(ms(50), Vec::new()),
        [],
        "which otherwise may prove itself"
    );
    assert_eq!(links.beat(ms(60), LinkId(3), &beat(A)), [up(A)]);
}

#[test]
fn a_changed_endpoint_replaces_the_link() {
    let mut links = heard();
    let effects = links.want(ms(10), vec![target(A, "tcp://h:3")]);
    assert_eq!(effects, [down(A), hang_up(1), dial(2, "tcp://h:3")]);
}

#[test]
fn an_endpoint_given_by_hand_is_dialled_for_ever_and_learns_who_is_there() {
    let mut links = links(vec![target("", "tcp://h:2"), target("", "tcp://h:1")]);
    assert_eq!(links.tick(ms(0)).len(), 2);
    assert_eq!(links.want(ms(0), Vec::new()), []);
    links.connected(ms(0), LinkId(2));
    assert_eq!(links.beat(ms(10), LinkId(2), &beat(A)), [up(A)]);
    assert_eq!(links.origin_of(LinkId(2)), Some(A.parse().unwrap()));
    assert_eq!(links.closed(ms(20), LinkId(2), Fault::ended()), [down(A)]);
    let (now, effects) = wait(&mut links, ms(20));
    assert_eq!(effects, [dial(3, "tcp://h:2")]);
    links.connected(now, LinkId(3));
    assert_eq!(
        links.beat(now, LinkId(3), &beat(B)),
        [up(B)],
        "a restarted node is another"
    );
    assert_eq!(links.counters().misdirected, 0);
}

#[test]
fn an_endpoint_that_turns_out_to_be_this_node_rests() {
    let mut links = links(vec![target("", "tcp://alias:1")]);
    links.tick(ms(0));
    links.connected(ms(0), LinkId(1));
    assert_eq!(links.beat(ms(10), LinkId(1), &beat(ME)), [hang_up(1)]);
    assert_eq!(wait(&mut links, ms(10)).1, []);
    assert_eq!(links.status(ms(10)), []);
}

#[test]
fn an_origin_has_one_link_by_however_many_ways_it_is_known() {
    let mut links = links(vec![target("", "tcp://alias:2")]);
    links.tick(ms(0));
    assert_eq!(
        links.want(ms(0), vec![target(A, "tcp://h:2")]),
        [dial(2, "tcp://h:2")]
    );
    links.connected(ms(0), LinkId(1));
    links.connected(ms(0), LinkId(2));
    assert_eq!(links.beat(ms(10), LinkId(2), &beat(A)), [up(A)]);
    assert_eq!(
        links.beat(ms(11), LinkId(1), &beat(A)),
        [hang_up(1)],
        "the newer goes"
    );
    assert_eq!(links.counters().redundant, 1);
    assert_eq!(links.status(ms(11)).len(), 1);
    for now in 1..9 {
        assert_eq!(links.tick(ms(now * 500)), []);
        links.beat(ms(now * 500), LinkId(2), &beat(A));
    }
    // When that link ends, the other way is tried at once.
    let effects = links.closed(ms(5000), LinkId(2), Fault::ended());
    assert_eq!(effects, [down(A), dial(3, "tcp://alias:2")]);
}

#[test]
fn two_ways_to_one_endpoint_are_one_dial() {
    let mut links = links(vec![target("", "tcp://localhost:2")]);
    assert_eq!(links.tick(ms(0)), [dial(1, "tcp://localhost:2")]);
    assert_eq!(links.want(ms(0), vec![target(A, "tcp://127.0.0.1:2/")]), []);
    assert_eq!(links.introduced(ms(0), target(B, "tcp://127.0.0.1:2")), []);
}

#[test]
fn who_says_hello_is_wanted_for_a_while() {
    let mut links = links(Vec::new());
    assert_eq!(links.introduced(ms(0), target("", "tcp://h:2")), []);
    assert_eq!(links.introduced(ms(0), target(ME, "tcp://h:2")), []);
    assert_eq!(
        links.introduced(ms(0), target(A, "tcp://h:2")),
        [dial(1, "tcp://h:2")]
    );
    assert_eq!(
        links.want(ms(10), Vec::new()),
        [],
        "the registry does not know it yet"
    );
    assert_eq!(
        links.introduced(ms(20), target(B, "tcp://h:3")),
        [dial(2, "tcp://h:3")]
    );
    links.connected(ms(20), LinkId(2));
    links.beat(ms(20), LinkId(2), &beat(B));
    let mut link = 1;
    let mut redialled = ms(0);
    for now in (100..15_000).step_by(100).map(ms) {
        links.beat(now, LinkId(2), &beat(B));
        links.closed(now, LinkId(link), Fault::ended());
        for effect in links.tick(now) {
            let Effect::Dial { link: next, .. } = effect else {
                panic!("{effect:?}")
            };
            (link, redialled) = (next.0, now);
        }
    }
    assert!(
        redialled > ms(7000) && redialled < INTRODUCED_MAX,
        "{redialled:?}"
    );
    let status = links.status(ms(15_000));
    assert_eq!(
        status.len(),
        1,
        "one was forgotten, the other beats: {status:?}"
    );
    assert_eq!(
        (status[0].name.as_str(), status[0].state),
        ("node bbbbbbbbbb", LinkState::Up)
    );
}

#[test]
fn a_hello_moves_no_link_that_the_registry_or_a_beat_vouches_for() {
    let mut links = heard();
    assert_eq!(links.introduced(ms(10), target(A, "tcp://evil:2")), []);
    links.want(ms(20), Vec::new());
    assert_eq!(links.introduced(ms(30), target(A, "tcp://evil:2")), []);
    assert_eq!(links.status(ms(30))[0].publisher, "tcp://h:2");
}

#[test]
fn strangers_do_not_fill_the_table() {
    let mut links = links(Vec::new());
    for n in 0..300 {
        let mut rng = StdRng::seed_from_u64(n);
        let origin = Origin::generate(&mut rng);
        links.introduced(
            ms(0),
            target(origin.as_str(), &format!("tcp://h:{}", n + 10)),
        );
    }
    assert_eq!(links.status(ms(0)).len(), STRANGERS_MAX);
    assert_eq!(links.counters().refused, 300 - STRANGERS_MAX as u64);
    assert_eq!(links.want(ms(0), vec![target(A, &"x".repeat(256))]), []);
}

#[test]
fn a_foreign_publisher_needs_no_beats() {
    let mut fixed = target("", "tcp://h:5001");
    fixed.speech = Speech::Plain;
    let mut links = links(vec![fixed]);
    let dialled = |link| {
        let endpoint = "tcp://h:5001".into();
        [Effect::Dial {
            link: LinkId(link),
            endpoint,
            speech: Speech::Plain,
        }]
    };
    assert_eq!(links.tick(ms(0)), dialled(1));
    links.connected(ms(0), LinkId(1));
    assert_eq!(wait(&mut links, ms(0)).1, []);
    assert_eq!(links.status(ms(5000))[0].state, LinkState::Up);
    assert_eq!(links.closed(ms(5000), LinkId(1), Fault::ended()), []);
    assert_eq!(wait(&mut links, ms(5000)), (ms(5100), dialled(2).to_vec()));
}
