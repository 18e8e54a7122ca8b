//! The promises of [`Carrier`].

use super::*;
use crate::carriers::zmq::listen;

const C: &str = "cccccccccc";

/// At the endpoint of a node that is gone, or is about to be.
async fn bind_again(endpoint: &str, me: &str) -> ZmqCarrier {
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
    bind_at(listener, "main", me).await.0
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order() {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
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

#[tokio::test]
async fn an_acknowledgement_reaches_only_the_one_it_is_for() {
    let (mut a, mut b, _) = pair().await;
    a.publish(Topic::Ack(origin(C)), numbered(1));
    a.publish(Topic::Ack(origin(B)), numbered(2));
    let (_, topic, bytes) = frame(&mut b).await;
    assert_eq!((topic, number(&bytes)), (Topic::Ack(origin(B)), 2));
}

#[tokio::test]
async fn nothing_of_a_link_comes_after_it_was_hung_up() {
    let (mut a, mut b, at) = pair().await;
    publish(&mut a, 1..100);
    assert_eq!(
        number(&frame(&mut b).await.2),
        1,
        "the others are on their way"
    );
    b.hang_up(LinkId(1));
    b.dial(LinkId(2), &at, Speech::Mesh);
    connected(&mut b, LinkId(2)).await;
    heard(&mut a, &mut b, LinkId(2), 1000).await;
    drop(a);
    let reason = closed(&mut b, LinkId(2)).await;
    assert!(!reason.is_empty());
}

#[tokio::test]
async fn a_hung_up_dial_says_nothing() {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
    b.dial(LinkId(1), &at, Speech::Mesh);
    b.hang_up(LinkId(1));
    b.hang_up(LinkId(99));
    meet(&mut a, &mut b, LinkId(2), &at).await;
}

#[tokio::test]
async fn the_end_of_a_peer_is_reported() {
    let (mut a, mut b, at) = pair().await;
    let (mut c, _, _) = bind(C).await;
    meet(&mut a, &mut c, LinkId(1), &at).await;
    drop(a);
    timeout(Duration::from_millis(100), closed(&mut b, LinkId(1)))
        .await
        .expect("within 100 ms");
    timeout(Duration::from_millis(100), closed(&mut c, LinkId(1)))
        .await
        .expect("within 100 ms");
}

#[tokio::test]
async fn a_peer_that_came_back_can_be_dialled_again() {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
    for link in 1..6 {
        meet(&mut a, &mut b, LinkId(link), &at).await;
        drop(a);
        closed(&mut b, LinkId(link)).await;
        a = bind_again(&at, C).await;
    }
    meet(&mut a, &mut b, LinkId(6), &at).await;
    a.publish(Topic::Live, numbered(1));
    a.publish(Topic::Live, numbered(2));
    assert_eq!(number(&frame(&mut b).await.2), 1, "nothing comes twice");
    assert_eq!(number(&frame(&mut b).await.2), 2);
}

#[tokio::test]
async fn a_dial_to_nobody_fails() {
    let (a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
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

#[tokio::test]
async fn two_nodes_hear_each_other() {
    let (mut a, at_a, _) = bind(A).await;
    let (mut b, at_b, _) = bind(B).await;
    meet(&mut a, &mut b, LinkId(1), &at_a).await;
    meet(&mut b, &mut a, LinkId(1), &at_b).await;
    for number in 1..20 {
        a.publish(Topic::Live, numbered(number));
        b.publish(Topic::Live, numbered(100 + number));
    }
    for expected in 1..20 {
        assert_eq!(number(&frame(&mut b).await.2), expected);
        assert_eq!(number(&frame(&mut a).await.2), 100 + expected);
    }
}

#[tokio::test]
async fn a_plain_listener_hears_plain_text_only() {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
    let (mut c, _, _) = bind(C).await;
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

#[tokio::test]
async fn what_was_published_before_closing_arrives() {
    let (mut a, mut b, _) = pair().await;
    publish(&mut a, 1..=5000);
    a.close(DEADLINE).await;
    in_order(&mut b, 1..=5000).await;
    closed(&mut b, LinkId(1)).await;
}

#[tokio::test]
async fn what_is_too_long_is_not_sent() {
    let (mut a, mut b, _) = pair().await;
    a.publish(
        Topic::Live,
        vec![1; crate::wire::frame::FRAME_LEN_MAX + 1].into(),
    );
    a.publish(Topic::Live, numbered(1));
    assert_eq!(number(&frame(&mut b).await.2), 1);
}
