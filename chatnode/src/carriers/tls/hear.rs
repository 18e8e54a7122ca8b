//! Those whom this node hears: one task for each link, from the dial to the end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::tls::{self, KeyRing, Refusal};
use rand::RngExt as _;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::record::{Hello, Mismatch, Reader, Record};
use crate::carriers::CarrierEvent;
use crate::carriers::dial::{self, DIAL_TIMEOUT};
use crate::core::links::LinkId;
use crate::core::links::fault::{Fault, Why};
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::wire::frame;

/// A peer that has taken nothing for so long, though there is something, is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// Links of a key that is accepted no more end within this time, not all at once.
pub(super) const REMOVED_WITHIN: Duration = Duration::from_secs(2);

/// One link's task.
#[derive(Debug)]
pub(super) struct Hearing {
    pub(super) link: LinkId,
    pub(super) me: Origin,
    pub(super) mesh: MeshName,
    pub(super) keys: KeyRing,
    pub(super) config: Arc<rustls::ClientConfig>,
    pub(super) sender: mpsc::Sender<CarrierEvent>,
}

impl Hearing {
    /// Hears until the connection ends. Dropped when the link is hung up.
    pub(super) async fn run(self, endpoint: String) {
        let fault = match self.hear(&endpoint).await {
            Ok(()) => Fault::ended(),
            Err(fault) => fault,
        };
        self.report(CarrierEvent::Closed(self.link, fault)).await;
    }

    async fn hear(&self, endpoint: &str) -> Result<(), Fault> {
        let end = Instant::now() + DIAL_TIMEOUT;
        // Beside the task, which stays as long as the link: a handshake takes more room than a link.
        let met = timeout_at(end, Box::pin(self.meet(endpoint))).await;
        let timed_out = |_| Fault::new(Why::TimedOut, "timed out: no answer from there");
        let (mut stream, mut reader, origin) = met.map_err(timed_out)??;
        let mut changes = self.keys.changes();
        let shown = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        let key = self.keys.accepts(shown.as_deref());
        self.report(CarrierEvent::Connected(self.link, key)).await;
        loop {
            let record = loop {
                if let Some(record) = reader.next().map_err(|why| ended(&why))? {
                    break record;
                }
                reader.rest();
                let shown = || self.keys.accepts(shown.as_deref());
                // Both are cancel safe: what was not read stays, and what has changed is looked at again.
                let removed = self.keys.is_removed(&mut changes, shown);
                tokio::select! {
                    biased;
                    () = removed => {}
                    read = stream.read_buf(reader.space()) => match read {
                        Ok(0) => return Ok(()),
                        Ok(_) => continue,
                        Err(why) => return Err(ended(&why)),
                    },
                }
                let pause = REMOVED_WITHIN.mul_f64(rand::rng().random());
                tokio::time::sleep(pause).await;
                return Err(Fault::new(
                    Why::OtherKey,
                    "its key was removed from the mesh's secret",
                ));
            };
            match record {
                Record::Frame(topic, frame) => {
                    if let Some(other) = frame::origin_of(&frame).filter(|it| *it != origin) {
                        let text = format!("{origin} is there, and speaks as {other}");
                        return Err(Fault::new(Why::OtherNode, text));
                    }
                    self.report(CarrierEvent::Frame(self.link, topic, frame))
                        .await;
                }
                Record::Hello(_) => {
                    return Err(Fault::new(Why::Ended, "it said hello twice"));
                }
            }
        }
    }

    /// Connects, shakes hands, and lets both say hello. That the handshake is over here tells nothing:
    /// the other side looks at this one's key after that. Its hello tells, and who it is: whose frames
    /// the link carries.
    async fn meet(&self, endpoint: &str) -> Result<(TlsStream<TcpStream>, Reader, Origin), Fault> {
        let socket = connect(endpoint).await?;
        let name = ServerName::try_from("chatmesh.invalid").expect("it has the form of a name");
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(name, socket).await;
        let mut stream = stream.map_err(|why| refused(&why))?;
        let hello = Hello::of(self.me, &self.mesh).to_record();
        stream
            .write_all(&hello)
            .await
            .map_err(|why| refused(&why))?;
        stream.flush().await.map_err(|why| refused(&why))?;
        let mut reader = Reader::new(self.me);
        let answer = loop {
            match reader.next().map_err(|why| ended(&why))? {
                Some(Record::Hello(answer)) => break answer,
                Some(Record::Frame(..)) => {
                    return Err(Fault::new(Why::Ended, "it speaks without a hello"));
                }
                None => {}
            }
            if stream
                .read_buf(reader.space())
                .await
                .map_err(|why| refused(&why))?
                == 0
            {
                return Err(Fault::new(Why::Ended, "it ends before it has said hello"));
            }
        };
        match answer.understood(self.me, &self.mesh) {
            Ok(origin) => Ok((stream, reader, origin)),
            Err(Mismatch::Mesh(theirs)) => {
                self.report(CarrierEvent::Stranger(self.link, theirs.clone()))
                    .await;
                let text = format!("a node of the mesh {theirs} is there");
                Err(Fault::new(Why::OtherMesh, text))
            }
            Err(Mismatch::Itself) => Err(Fault::new(Why::OtherNode, "this node itself is there")),
            Err(Mismatch::Protocol(theirs)) => {
                let text =
                    format!("it speaks version {theirs} between nodes, and this node another");
                Err(Fault::new(Why::Ended, text))
            }
        }
    }

    async fn report(&self, event: CarrierEvent) {
        // An error means that the carrier is gone, and then so is this task.
        let _ = self.sender.send(event).await;
    }
}

/// A connection to there, which ends by itself when the peer has vanished.
async fn connect(endpoint: &str) -> Result<TcpStream, Fault> {
    let unreachable =
        |why: &dyn std::fmt::Display| Fault::new(Why::Unreachable, format!("no way there: {why}"));
    let (address, _) = dial::by_address(endpoint)
        .await
        .map_err(|why| unreachable(&why))?;
    let place = address.strip_prefix("tls://").unwrap_or(&address);
    let socket = match TcpStream::connect(place).await {
        Ok(socket) => socket,
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => return Err(Fault::refused()),
        Err(why) => return Err(unreachable(&why)),
    };
    // A dial to a free port of this machine can connect to itself.
    if socket.local_addr().ok() == socket.peer_addr().ok() {
        return Err(Fault::refused());
    }
    guard(&socket).map_err(|why| unreachable(&why))?;
    Ok(socket)
}

/// Makes a socket end by itself when its other end has vanished or takes nothing.
pub(super) fn guard(socket: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}

/// Why there was no handshake.
fn refused(why: &io::Error) -> Fault {
    match tls::refusal(why) {
        Some(refusal) => {
            let word = match refusal {
                Refusal::OtherKey => Why::OtherKey,
                Refusal::NotSealed => Why::NotSealed,
            };
            Fault::new(word, format!("what is there {}", refusal.what()))
        }
        None => ended(why),
    }
}

fn ended(why: &dyn std::fmt::Display) -> Fault {
    Fault::new(Why::Ended, format!("the connection ended: {why}"))
}
