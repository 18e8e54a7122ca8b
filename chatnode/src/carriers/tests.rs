//! What every transport must do, run against each, and what such tests need.

mod conformance;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use base::process::Tasks;
use base::secret::Secrets;
use base::serve::door::Door;
use base::serve::{self, Limits};
use base::tls::KeyRing;

use bytes::Bytes;
use tokio::time::timeout;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::carriers::tls::TlsCarrier;
use crate::carriers::{Carrier, CarrierEvent, Command};
use crate::core::links::{LinkId, Speech};
use crate::core::news::{Ack, Beat, Entries, Live, News};
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::wire::frame::Topic;
use crate::wire::frame::{decode, encode};

/// Longer than anything here takes, also on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Keys of a mesh, the same for the same numbers.
pub(super) fn ring(numbers: &[u8]) -> KeyRing {
    KeyRing::new(&secrets(numbers).of_mesh())
}

pub(super) fn keys(number: u8) -> KeyRing {
    ring(&[number])
}

pub(super) fn secrets(numbers: &[u8]) -> Secrets {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    // 43 characters of base64url, of which the last may only be one of some.
    let line = |number: &u8| {
        format!(
            "cm1_{}A\n",
            char::from(b'a' + number).to_string().repeat(42)
        )
    };
    std::fs::write(&path, numbers.iter().map(line).collect::<String>()).unwrap();
    let owners = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, owners).unwrap();
    Secrets::read(&path).unwrap()
}

/// A carrier behind a door of its own, until the tasks stop.
pub(super) fn listen_at(
    addr: SocketAddr,
    me: Origin,
    keys: &KeyRing,
) -> io::Result<(TlsCarrier, String, Tasks)> {
    let listener = serve::listen(addr)?;
    let addr = listener.local_addr()?;
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let mesh = MeshName::default();
    let carrier = TlsCarrier::new(me, &mesh, keys.clone(), tracker, &stop);
    let door = Door::new(keys.clone(), Some(carrier.takes_links()));
    let tasks = Tasks::new();
    let serving = serve::serve(
        listener,
        Router::new(),
        tasks.clone(),
        Limits::default(),
        Some(door),
    );
    tasks.spawn_critical("http", serving);
    Ok((carrier, format!("tls://{addr}"), tasks))
}

/// Commands as verbs.
pub(super) trait Verbs: Carrier {
    fn publish(&mut self, topic: Topic, body: Bytes) {
        self.carry(Command::Publish(topic, body));
    }
    fn publish_plain(&mut self, text: &str) {
        self.carry(Command::PublishPlain(text.to_owned()));
    }
    fn dial(&mut self, link: LinkId, endpoint: &str, speech: Speech) {
        self.carry(Command::Dial(link, endpoint.to_owned(), speech));
    }
    fn hang_up(&mut self, link: LinkId) {
        self.carry(Command::HangUp(link));
    }
}

impl<C: Carrier> Verbs for C {}

pub(super) fn origin(text: &str) -> Origin {
    text.parse().unwrap()
}

/// A frame of the node `a…` that names itself by a number.
pub(super) fn numbered(number: u64) -> Bytes {
    numbered_of(origin("aaaaaaaaaa"), number)
}

/// The same of any node.
pub(super) fn numbered_of(from: Origin, number: u64) -> Bytes {
    encode(&News::Ack(Ack {
        from,
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

pub(super) async fn next(carrier: &mut impl Carrier) -> CarrierEvent {
    timeout(DEADLINE, carrier.event())
        .await
        .expect("an event before the deadline")
}

pub(super) async fn connected(carrier: &mut impl Carrier, link: LinkId) {
    match next(carrier).await {
        CarrierEvent::Connected(got, _) if got == link => {}
        other => panic!("{other:?} instead of a connection"),
    }
}

pub(super) async fn closed(carrier: &mut impl Carrier, link: LinkId) -> String {
    loop {
        match next(carrier).await {
            CarrierEvent::Closed(got, reason) if got == link => return reason.text,
            CarrierEvent::Frame(..) | CarrierEvent::Plain(..) => {}
            other => panic!("{other:?} instead of an end"),
        }
    }
}

/// Publishes this frame until it is heard: a subscription needs a moment to arrive, and nobody tells when it
/// has. It may come again later.
pub(super) async fn heard(
    publisher: &mut impl Carrier,
    listener: &mut impl Carrier,
    link: LinkId,
    mark: Bytes,
) {
    let attempt = async {
        loop {
            publisher.publish(Topic::Live, mark.clone());
            let soon = timeout(Duration::from_millis(5), listener.event()).await;
            if let Ok(CarrierEvent::Frame(got, Topic::Live, frame)) = soon
                && got == link
                && frame == mark
            {
                return;
            }
        }
    };
    timeout(DEADLINE, attempt)
        .await
        .expect("the publisher is heard before the deadline");
}

/// The listener dials the publisher, the node `a…`, and hears it.
pub(super) async fn meet(
    publisher: &mut impl Carrier,
    listener: &mut impl Carrier,
    link: LinkId,
    endpoint: &str,
) {
    meet_at(publisher, origin("aaaaaaaaaa"), listener, link, endpoint).await;
}

/// The same of any node.
pub(super) async fn meet_at(
    publisher: &mut impl Carrier,
    who: Origin,
    listener: &mut impl Carrier,
    link: LinkId,
    endpoint: &str,
) {
    listener.dial(link, endpoint, Speech::Mesh);
    connected(listener, link).await;
    heard(publisher, listener, link, numbered_of(who, 0)).await;
}

/// The next frame but those of [`meet`].
pub(super) async fn frame(carrier: &mut impl Carrier) -> (LinkId, Topic, Bytes) {
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
