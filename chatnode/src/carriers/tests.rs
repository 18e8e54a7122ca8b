//! What a carrier must do, and what such tests need.

mod conformance;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::carriers::zmq::{ZmqCarrier, listen};
use crate::carriers::{Carrier, CarrierEvent};
use crate::core::links::{LinkId, Speech};
use crate::core::news::{Ack, Beat, Entries, Live, News};
use crate::model::names::Origin;
use crate::wire::frame::Topic;
use crate::wire::frame::{decode, encode};

/// Longer than anything here takes, also on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

pub(super) const A: &str = "aaaaaaaaaa";
pub(super) const B: &str = "bbbbbbbbbb";

pub(super) fn origin(text: &str) -> Origin {
    text.parse().unwrap()
}

/// A node of the mesh without a name of its own: its carrier, its endpoint, and the carrier's tasks.
pub(super) async fn bind(me: &str) -> (ZmqCarrier, String, TaskTracker) {
    bind_in("main", me).await
}

pub(super) async fn bind_in(mesh: &str, me: &str) -> (ZmqCarrier, String, TaskTracker) {
    bind_at(listen("127.0.0.1:0".parse().unwrap()).unwrap(), mesh, me).await
}

async fn bind_at(
    listener: std::net::TcpListener,
    mesh: &str,
    me: &str,
) -> (ZmqCarrier, String, TaskTracker) {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let mesh = mesh.parse().unwrap();
    let bound = ZmqCarrier::bind(listener, origin(me), &mesh, tasks.clone(), stop).await;
    let (carrier, endpoint) = bound.unwrap();
    (carrier, endpoint, tasks)
}

/// A frame that names itself by a number.
pub(super) fn numbered(number: u64) -> Bytes {
    encode(&News::Ack(Ack {
        from: origin("aaaaaaaaaa"),
        to: origin("aaaaaaaaaa"),
        through: number,
    }))
}

pub(super) fn number(frame: &Bytes) -> u64 {
    match decode(Topic::Ack(origin("aaaaaaaaaa")), frame) {
        Ok(News::Ack(ack)) => ack.through,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn next(carrier: &mut ZmqCarrier) -> CarrierEvent {
    timeout(DEADLINE, carrier.event())
        .await
        .expect("an event before the deadline")
}

pub(super) async fn connected(carrier: &mut ZmqCarrier, link: LinkId) {
    match next(carrier).await {
        CarrierEvent::Connected(got) if got == link => {}
        other => panic!("{other:?} instead of a connection"),
    }
}

pub(super) async fn closed(carrier: &mut ZmqCarrier, link: LinkId) -> String {
    loop {
        match next(carrier).await {
            CarrierEvent::Closed(got, reason) if got == link => return reason.text,
            CarrierEvent::Frame(..) | CarrierEvent::Plain(..) => {}
            other => panic!("{other:?} instead of an end"),
        }
    }
}

/// Publishes frames of this number until one is heard: a subscription needs a moment to arrive,
/// and nobody tells when it has. Frames of that number may still follow.
pub(super) async fn heard(
    publisher: &mut ZmqCarrier,
    listener: &mut ZmqCarrier,
    link: LinkId,
    mark: u64,
) {
    let attempt = async {
        loop {
            publisher.publish(Topic::Live, numbered(mark));
            let soon = timeout(Duration::from_millis(5), listener.event()).await;
            if let Ok(CarrierEvent::Frame(got, Topic::Live, frame)) = soon
                && got == link
                && number(&frame) == mark
            {
                return;
            }
        }
    };
    timeout(DEADLINE, attempt)
        .await
        .expect("the publisher is heard before the deadline");
}

/// The listener dials the publisher and hears it.
pub(super) async fn meet(
    publisher: &mut ZmqCarrier,
    listener: &mut ZmqCarrier,
    link: LinkId,
    endpoint: &str,
) {
    listener.dial(link, endpoint, Speech::Mesh);
    connected(listener, link).await;
    heard(publisher, listener, link, 0).await;
}

/// Two nodes of which the second hears the first, by its link 1; and where the first is.
pub(super) async fn pair() -> (ZmqCarrier, ZmqCarrier, String) {
    let (mut a, at, _) = bind(A).await;
    let (mut b, _, _) = bind(B).await;
    meet(&mut a, &mut b, LinkId(1), &at).await;
    (a, b, at)
}

/// Publishes frames of these numbers.
pub(super) fn publish(publisher: &mut ZmqCarrier, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        publisher.publish(Topic::Live, numbered(number));
    }
}

/// The next frames are of these numbers, in this order.
pub(super) async fn in_order(listener: &mut ZmqCarrier, numbers: impl IntoIterator<Item = u64>) {
    for expected in numbers {
        assert_eq!(number(&frame(listener).await.2), expected);
    }
}

/// The next frame but those of [`meet`].
pub(super) async fn frame(carrier: &mut ZmqCarrier) -> (LinkId, Topic, Bytes) {
    loop {
        match next(carrier).await {
            CarrierEvent::Frame(_, Topic::Live, frame)
                if decode(Topic::Live, &frame).is_err() && number(&frame) == 0 => {}
            CarrierEvent::Frame(link, topic, frame) => return (link, topic, frame),
            other => panic!("{other:?} instead of a frame"),
        }
    }
}

pub(super) fn some_beat(of: Origin) -> News {
    News::Beat(Beat {
        origin: of,
        name: "ada".into(),
        http: "http://127.0.0.1:1".into(),
        publisher: "tcp://127.0.0.1:2".into(),
        ts: 3,
        clock: 3,
        head: 4,
        position: Vec::new(),
        hears: Vec::new(),
        members_version: 5,
        ready: true,
    })
}

pub(super) fn some_log(of: Origin) -> News {
    News::Entries(Entries {
        origin: of,
        ack_wanted: true,
        entries: Vec::new(),
    })
}

pub(super) fn some_live(of: Origin) -> News {
    News::Live(Live {
        origin: of,
        events: Vec::new(),
    })
}
