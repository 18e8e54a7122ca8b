//! Why a peer is not heard, and how often that is said.

use super::*;

/// What is said of peers until this time, each second of which ends a dial with a refusal.
fn said(links: &mut Links, from: Duration, until: Duration) -> Vec<String> {
    let mut said = Vec::new();
    let mut now = from;
    while now < until {
        now += TICK;
        for effect in links.tick(now) {
            match effect {
                Effect::Dial { link, .. } => {
                    links.closed(now, link, Fault::refused());
                }
                Effect::Unlinked { origin, fault, .. } => said.push(format!(
                    "{} {}",
                    origin.map(|it| it.to_string()).unwrap_or_default(),
                    fault.why.as_str()
                )),
                _ => {}
            }
        }
    }
    said
}

fn why(links: &Links, now: Duration, origin: &str) -> Option<(Why, String)> {
    let origin = origin.parse().ok();
    let status = links.status(now);
    let link = status.iter().find(|link| link.origin == origin)?;
    link.fault.clone().map(|fault| (fault.why, fault.text))
}

#[test]
fn a_peer_that_is_not_linked_is_told_of_once_with_its_reason() {
    let mut links = links(vec![]);
    links.want(ms(0), vec![target(A, "tcp://h:2")]);
    assert_eq!(
        said(&mut links, ms(0), ms(9000)),
        [""; 0],
        "it may still come"
    );
    let told = said(&mut links, ms(9000), ms(60_000));
    assert_eq!(told, [format!("{A} refused")]);
    assert_eq!(why(&links, ms(60_000), A).unwrap().0, Why::Refused);
}

#[test]
fn two_that_tell_one_endpoint_are_both_named_and_do_not_take_turns() {
    let mut links = links(vec![]);
    links.want(ms(0), vec![target(A, "tcp://h:2"), target(B, "tcp://h:2")]);
    links.connected(ms(0), LinkId(1));
    assert_eq!(links.beat(ms(10), LinkId(1), &beat(A)), [up(A)]);
    let (reason, text) = why(&links, ms(10), B).unwrap();
    assert_eq!(reason, Why::SameEndpoint);
    assert!(text.contains(A) && text.contains(B), "{text}");
    let mut told = Vec::new();
    for second in 1..30 {
        links.beat(
            ms(second * 1000),
            LinkId(1),
            &Beat {
                ts: second * 1_000_000,
                clock: second * 1_000_000,
                ..beat(A)
            },
        );
        let from = ms(second * 1000);
        told.extend(said(&mut links, from, from + ms(1000)));
    }
    assert_eq!(told, [format!("{B} same_endpoint")]);
    assert_eq!(links.up.len(), 1);
}

#[test]
fn a_peer_by_hand_that_came_back_on_its_port_is_no_clash() {
    let mut links = links(vec![target("", "tcp://h:2")]);
    links.tick(ms(0));
    links.connected(ms(0), LinkId(1));
    assert_eq!(links.beat(ms(10), LinkId(1), &beat(A)), [up(A)]);
    links.closed(ms(20), LinkId(1), Fault::refused());
    links.introduced(ms(30), target(B, "tcp://h:2"));
    links.connected(ms(40), LinkId(2));
    assert_eq!(links.beat(ms(50), LinkId(2), &beat(B)), [up(B)]);
    let faults = links
        .status(ms(60))
        .into_iter()
        .filter_map(|link| link.fault);
    let clash = faults.filter(|fault| fault.why == Why::SameEndpoint);
    assert_eq!(clash.count(), 0);
}

#[test]
fn one_that_tells_this_nodes_own_endpoint_is_shown_and_never_dialled() {
    let mut links = links(vec![]);
    assert_eq!(links.want(ms(0), vec![target(A, "tcp://127.0.0.1:1")]), []);
    let (reason, text) = why(&links, ms(0), A).unwrap();
    assert_eq!(reason, Why::SameEndpoint);
    assert!(text.contains(A) && text.contains(ME), "{text}");
}

#[test]
fn another_node_or_another_mesh_in_its_place_is_named() {
    let mut links = links(vec![target("", "tcp://h:3")]);
    links.want(ms(0), vec![target(A, "tcp://h:2")]);
    links.tick(ms(0));
    links.connected(ms(0), LinkId(1));
    links.connected(ms(0), LinkId(2));
    let status = links.status(ms(0));
    let of_a = |link: &&LinkStatus| link.origin.is_some();
    assert_eq!(status.iter().filter(of_a).count(), 1);
    let beat_of_b = links.beat(ms(10), LinkId(1), &beat(B));
    assert_eq!(beat_of_b.len(), 1, "hung up, and not up: {beat_of_b:?}");
    let (reason, text) = why(&links, ms(10), A).unwrap();
    assert_eq!(reason, Why::OtherNode);
    assert!(text.contains(A) && text.contains(B), "{text}");
    let gone = links.stranger(ms(20), LinkId(2), &"blue".parse().unwrap());
    assert!(gone.contains(&hang_up(2)), "{gone:?}");
    assert_eq!(links.counters().strangers, 1);
    let by_hand = links.status(ms(20));
    let by_hand = by_hand.iter().find(|link| link.origin.is_none()).unwrap();
    let fault = by_hand.fault.clone().unwrap();
    assert_eq!(fault.why, Why::OtherMesh);
    assert!(fault.text.contains("blue"), "{}", fault.text);
}

#[test]
fn what_its_http_says_of_who_is_there_weighs_more_than_silence() {
    let mut links = links(vec![]);
    links.want(ms(0), vec![target(A, "tcp://h:2")]);
    let fault = Fault::new(Why::OtherNode, "somebody else");
    links.greeted(A.parse().unwrap(), Some(&fault));
    links.closed(ms(5), LinkId(1), Fault::refused());
    assert_eq!(why(&links, ms(5), A).unwrap().0, Why::OtherNode);
}

#[test]
fn a_loopback_address_is_named_where_other_machines_are_about() {
    for (own, expected) in [
        ("tcp://10.0.0.1:1", Why::Loopback),
        ("tcp://127.0.0.1:1", Why::Refused),
    ] {
        let options = LinksOptions {
            me: ME.parse().unwrap(),
            own: vec![own.into()],
            fixed: vec![],
        };
        let mut links = Links::new(options, StdRng::seed_from_u64(7));
        links.want(ms(0), vec![target(A, "tcp://127.0.0.1:2")]);
        links.closed(ms(5), LinkId(1), Fault::refused());
        assert_eq!(why(&links, ms(5), A).unwrap().0, expected);
    }
}
