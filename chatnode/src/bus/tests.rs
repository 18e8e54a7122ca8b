//! What every transport must do, run against each, and what such tests need.

mod conformance;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::frame::{AckFrame, Beat, Frame, LiveFrame, LogFrame, decode, encode};
use super::{Bus, BusEvent, LinkId, Speech, Topic};
use crate::replica::names::Origin;

/// Longer than anything here takes, also on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn origin(text: &str) -> Origin {
    text.parse().unwrap()
}

/// A frame that names itself by a number.
pub(super) fn numbered(number: u64) -> Bytes {
    encode(&Frame::Ack(AckFrame {
        from: origin("aaaaaaaaaa"),
        through: number,
    }))
}

pub(super) fn number(frame: &Bytes) -> u64 {
    match decode(Topic::Ack(origin("aaaaaaaaaa")), frame) {
        Ok(Frame::Ack(ack)) => ack.through,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn next(bus: &mut impl Bus) -> BusEvent {
    timeout(DEADLINE, bus.event())
        .await
        .expect("an event before the deadline")
}

pub(super) async fn connected(bus: &mut impl Bus, link: LinkId) {
    match next(bus).await {
        BusEvent::Connected(got) if got == link => {}
        other => panic!("{other:?} instead of a connection"),
    }
}

pub(super) async fn closed(bus: &mut impl Bus, link: LinkId) -> String {
    loop {
        match next(bus).await {
            BusEvent::Closed(got, reason) if got == link => return reason.text,
            BusEvent::Frame(..) | BusEvent::Plain(..) => {}
            other => panic!("{other:?} instead of an end"),
        }
    }
}

/// Publishes frames of this number until one is heard: a subscription needs a moment to arrive,
/// and nobody tells when it has. Frames of that number may still follow.
pub(super) async fn heard(
    publisher: &mut impl Bus,
    listener: &mut impl Bus,
    link: LinkId,
    mark: u64,
) {
    let attempt = async {
        loop {
            publisher.publish(Topic::Live, numbered(mark));
            let soon = timeout(Duration::from_millis(5), listener.event()).await;
            if let Ok(BusEvent::Frame(got, Topic::Live, frame)) = soon
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
    publisher: &mut impl Bus,
    listener: &mut impl Bus,
    link: LinkId,
    endpoint: &str,
) {
    listener.dial(link, endpoint, Speech::Mesh);
    connected(listener, link).await;
    heard(publisher, listener, link, 0).await;
}

/// The next frame but those of [`meet`].
pub(super) async fn frame(bus: &mut impl Bus) -> (LinkId, Topic, Bytes) {
    loop {
        match next(bus).await {
            BusEvent::Frame(_, Topic::Live, frame)
                if decode(Topic::Live, &frame).is_err() && number(&frame) == 0 => {}
            BusEvent::Frame(link, topic, frame) => return (link, topic, frame),
            other => panic!("{other:?} instead of a frame"),
        }
    }
}

pub(super) fn some_beat(of: Origin) -> Frame {
    Frame::Beat(Beat {
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

pub(super) fn some_log(of: Origin) -> Frame {
    Frame::Log(LogFrame {
        origin: of,
        ack_wanted: true,
        entries: Vec::new(),
    })
}

pub(super) fn some_live(of: Origin) -> Frame {
    Frame::Live(LiveFrame {
        origin: of,
        events: Vec::new(),
    })
}
