//! The promises of [`Carrier`], for each transport.

mod brokers;

use std::collections::HashMap;

use base::process::Tasks;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::carriers::tls::TlsCarrier;
use crate::carriers::zmq::{ZmqCarrier, listen};
use crate::model::mesh_name::MeshName;

const A: &str = "aaaaaaaaaa";
const B: &str = "bbbbbbbbbb";

/// Makes nodes that can reach each other.
trait Fixture {
    type Carrier: Carrier;
    /// Whether the end of a node ends the links by which others hear it; at a broker nobody sees that.
    const SHOWS_ENDS: bool = true;
    async fn bind(&mut self, me: Origin) -> (Self::Carrier, String);
    /// At the endpoint of a node that is gone, or is about to be.
    async fn bind_again(&mut self, endpoint: &str, me: Origin) -> Self::Carrier;
}

#[derive(Default)]
struct OverZmq;

impl Fixture for OverZmq {
    type Carrier = ZmqCarrier;
    async fn bind(&mut self, me: Origin) -> (ZmqCarrier, String) {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        ZmqCarrier::bind(listener, me, &MeshName::default(), tasks, stop)
            .await
            .unwrap()
    }
    async fn bind_again(&mut self, endpoint: &str, me: Origin) -> ZmqCarrier {
        let addr = endpoint.strip_prefix("tcp://").unwrap().parse().unwrap();
        let again = async {
            loop {
                match listen(addr) {
                    Ok(listener) => return listener,
                    // The old listener's task has not had its turn yet.
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let listener = timeout(DEADLINE, again).await.unwrap();
        let stop = CancellationToken::new();
        ZmqCarrier::bind(listener, me, &MeshName::default(), TaskTracker::new(), stop)
            .await
            .unwrap()
            .0
    }
}

#[derive(Default)]
struct OverTls(HashMap<String, Tasks>);

impl Fixture for OverTls {
    type Carrier = TlsCarrier;
    async fn bind(&mut self, me: Origin) -> (TlsCarrier, String) {
        let bound = listen_at("127.0.0.1:0".parse().unwrap(), me, &keys(1));
        let (carrier, endpoint, tasks) = bound.unwrap();
        self.0.insert(endpoint.clone(), tasks);
        (carrier, endpoint)
    }
    async fn bind_again(&mut self, endpoint: &str, me: Origin) -> TlsCarrier {
        if let Some(tasks) = self.0.remove(endpoint) {
            tasks.drain(DEADLINE).await;
        }
        let addr = endpoint.strip_prefix("tls://").unwrap().parse().unwrap();
        let (carrier, endpoint, tasks) = listen_at(addr, me, &keys(1)).unwrap();
        self.0.insert(endpoint, tasks);
        carrier
    }
}

macro_rules! for_each_transport {
    ($($name:ident)*) => {
        mod over_zmq {
            $(#[tokio::test] async fn $name() { super::$name(super::OverZmq).await })*
        }
        mod over_tls {
            $(#[tokio::test] async fn $name() { super::$name(super::OverTls::default()).await })*
        }
    };
}

for_each_transport! {
    frames_arrive_whole_and_in_order
    an_acknowledgement_reaches_only_the_one_it_is_for
    nothing_of_a_link_comes_after_it_was_hung_up
    a_hung_up_dial_says_nothing
    the_end_of_a_peer_is_reported
    a_peer_that_came_back_can_be_dialled_again
    a_dial_to_nobody_fails
    two_nodes_hear_each_other
    what_was_published_before_closing_arrives
    what_is_too_long_is_not_sent
}

#[tokio::test]
async fn a_plain_listener_hears_plain_text_only_over_zmq() {
    a_plain_listener_hears_plain_text_only(OverZmq).await;
}

async fn frames_arrive_whole_and_in_order<F: Fixture>(mut fixture: F) {
    let (mut a, at) = fixture.bind(origin(A)).await;
    let (mut b, _) = fixture.bind(origin(B)).await;
    meet(&mut a, &mut b, LinkId(7), &at).await;
    let frames = [
        (Topic::Log, some_log(origin(A))),
        (Topic::Beat, some_beat(origin(A))),
        (Topic::Live, some_live(origin(A))),
    ];
    for round in 0..50 {
        for (topic, frame) in &frames {
            a.publish(*topic, encode(frame));
        }
        a.publish(Topic::Ack(origin(B)), numbered(round));
    }
    for round in 0..50 {
        for (topic, sent) in &frames {
            let (link, got, bytes) = frame(&mut b).await;
            assert_eq!((link, got), (LinkId(7), *topic));
            assert_eq!(decode(*topic, &bytes), Ok(sent.clone()));
        }
        let (_, topic, bytes) = frame(&mut b).await;
        assert_eq!((topic, number(&bytes)), (Topic::Ack(origin(B)), round));
    }
}

async fn an_acknowledgement_reaches_only_the_one_it_is_for<F: Fixture>(mut fixture: F) {
    let (mut a, at) = fixture.bind(origin(A)).await;
    let (mut b, _) = fixture.bind(origin(B)).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    a.publish(Topic::Ack(origin("cccccccccc")), numbered(1));
    a.publish(Topic::Ack(origin(B)), numbered(2));
    let (_, topic, bytes) = frame(&mut b).await;
    assert_eq!((topic, number(&bytes)), (Topic::Ack(origin(B)), 2));
}

async fn nothing_of_a_link_comes_after_it_was_hung_up<F: Fixture>(mut fixture: F) {
    let (mut a, at) = fixture.bind(origin(A)).await;
    let (mut b, _) = fixture.bind(origin(B)).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    for number in 1..100 {
        a.publish(Topic::Live, numbered(number));
    }
    assert_eq!(
        number(&frame(&mut b).await.2),
        1,
        "the others are on their way"
    );
    b.hang_up(LinkId(1));
    b.dial(LinkId(2), &at, Speech::Mesh);
    connected(&mut b, LinkId(2)).await;
    heard(&mut a, &mut b, LinkId(2), numbered(1000)).await;
    drop(a);
    if F::SHOWS_ENDS {
        let reason = closed(&mut b, LinkId(2)).await;
        assert!(!reason.is_empty());
    }
}

async fn a_hung_up_dial_says_nothing<F: Fixture>(mut fixture: F) {
    let (mut a, at) = fixture.bind(origin(A)).await;
    let (mut b, _) = fixture.bind(origin(B)).await;
    b.dial(LinkId(1), &at, Speech::Mesh);
    b.hang_up(LinkId(1));
    b.hang_up(LinkId(99));
    meet(&mut a, &mut b, LinkId(2), &at).await;
}

async fn the_end_of_a_peer_is_reported<F: Fixture>(mut fixture: F) {
    let (mut a, at) = fixture.bind(origin(A)).await;
    let (mut b, _) = fixture.bind(origin(B)).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    let (mut c, _) = fixture.bind(origin("cccccccccc")).await;
    meet(&mut a, &mut c, LinkId(1), &at).await;
    drop(a);
    timeout(Duration::from_millis(100), closed(&mut b, LinkId(1)))
        .await
        .expect("within 100 ms");
    timeout(Duration::from_millis(100), closed(&mut c, LinkId(1)))
        .await
        .expect("within 100 ms");
}

async fn a_peer_that_came_back_can_be_dialled_again<F: Fixture>(mut fixture: F) {
    let (mut a, at) = fixture.bind(origin(A)).await;
    let (mut b, _) = fixture.bind(origin(B)).await;
    let mut who = origin(A);
    for link in 1..6 {
        meet_at(&mut a, who, &mut b, LinkId(link), &at).await;
        drop(a);
        closed(&mut b, LinkId(link)).await;
        who = origin("cccccccccc");
        a = fixture.bind_again(&at, who).await;
    }
    meet_at(&mut a, who, &mut b, LinkId(6), &at).await;
    a.publish(Topic::Live, numbered_of(who, 1));
    a.publish(Topic::Live, numbered_of(who, 2));
    assert_eq!(number(&frame(&mut b).await.2), 1, "nothing comes twice");
    assert_eq!(number(&frame(&mut b).await.2), 2);
}

async fn a_dial_to_nobody_fails<F: Fixture>(mut fixture: F) {
    let (a, at) = fixture.bind(origin(A)).await;
    let (mut b, _) = fixture.bind(origin(B)).await;
    drop(a);
    for (link, endpoint) in [
        (1, at.as_str()),
        (2, "tcp://no.such.host.invalid:1"),
        (3, "nonsense"),
    ] {
        b.dial(LinkId(link), endpoint, Speech::Mesh);
        let reason = closed(&mut b, LinkId(link)).await;
        assert!(!reason.is_empty());
    }
}

async fn two_nodes_hear_each_other<F: Fixture>(mut fixture: F) {
    let (mut a, at_a) = fixture.bind(origin(A)).await;
    let (mut b, at_b) = fixture.bind(origin(B)).await;
    meet(&mut a, &mut b, LinkId(1), &at_a).await;
    meet_at(&mut b, origin(B), &mut a, LinkId(1), &at_b).await;
    for number in 1..20 {
        a.publish(Topic::Live, numbered(number));
        b.publish(Topic::Live, numbered_of(origin(B), 100 + number));
    }
    for expected in 1..20 {
        assert_eq!(number(&frame(&mut b).await.2), expected);
        assert_eq!(number(&frame(&mut a).await.2), 100 + expected);
    }
}

async fn a_plain_listener_hears_plain_text_only<F: Fixture>(mut fixture: F) {
    let (mut a, at) = fixture.bind(origin(A)).await;
    let (mut b, _) = fixture.bind(origin(B)).await;
    let (mut c, _) = fixture.bind(origin("cccccccccc")).await;
    meet(&mut a, &mut c, LinkId(1), &at).await;
    b.dial(LinkId(1), &at, Speech::Plain);
    connected(&mut b, LinkId(1)).await;
    let greeted = async {
        loop {
            a.publish_plain("again");
            let soon = timeout(Duration::from_millis(5), b.event()).await;
            if matches!(soon, Ok(CarrierEvent::Plain(LinkId(1), text)) if text == "again") {
                return;
            }
        }
    };
    timeout(DEADLINE, greeted).await.unwrap();
    a.publish(Topic::Live, numbered(1));
    a.publish_plain(&"x".repeat(5000));
    a.publish_plain("grüße, 🦀\nzwei");
    loop {
        match next(&mut b).await {
            CarrierEvent::Plain(_, text) if text == "again" => {}
            CarrierEvent::Plain(link, text) => {
                assert_eq!((link, text.as_str()), (LinkId(1), "grüße, 🦀\nzwei"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        number(&frame(&mut c).await.2),
        1,
        "and a node hears no plain text"
    );
}

async fn what_was_published_before_closing_arrives<F: Fixture>(mut fixture: F) {
    let (mut a, at) = fixture.bind(origin(A)).await;
    let (mut b, _) = fixture.bind(origin(B)).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    for number in 1..=5000 {
        a.publish(Topic::Live, numbered(number));
    }
    a.close(DEADLINE).await;
    for expected in 1..=5000 {
        assert_eq!(number(&frame(&mut b).await.2), expected);
    }
    if F::SHOWS_ENDS {
        closed(&mut b, LinkId(1)).await;
    }
}

async fn what_is_too_long_is_not_sent<F: Fixture>(mut fixture: F) {
    let (mut a, at) = fixture.bind(origin(A)).await;
    let (mut b, _) = fixture.bind(origin(B)).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    a.publish(
        Topic::Live,
        vec![1; crate::wire::frame::FRAME_LEN_MAX + 1].into(),
    );
    a.publish(Topic::Live, numbered(1));
    assert_eq!(number(&frame(&mut b).await.2), 1);
}
