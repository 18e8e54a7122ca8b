//! The door of a port that takes plain HTTP and TLS alike: who stands before it, and who comes in.
//!
//! The first byte tells the two apart, since 0x16 begins each TLS connection and no request. What a TLS
//! client offers (ALPN, RFC 7301) tells what it is: a program of the mesh, or nobody whom this port
//! serves. Until then who comes has a place before the door and none behind it: so those who come and
//! say nothing, or half of a handshake, take the place of no client and of no peer.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::bucket::{Bucket, Rate};
use crate::rates::{Rates, network};
use crate::tls::{ALPN_BUS, ALPN_HTTP, KeyId, KeyRing};

/// Connections before the door at the most; when another comes, the one that stands there longest goes.
pub const ARRIVALS_MAX: usize = 1024;
/// Of these, those of one address, or of one network of IPv6.
pub const ARRIVALS_OF_ONE_MAX: usize = 256;
/// How long one may stand there: for its first byte, and for its handshake.
const ARRIVAL_MAX: Duration = Duration::from_secs(5);
/// Handshakes a second, which cost a tenth of a millisecond and more before it is known who asks. A mesh
/// of a hundred nodes may come at once.
const HANDSHAKES: Rate = Rate::new(200.0, 400.0);
/// Of these, those of one address: a machine may have many nodes.
const HANDSHAKES_OF_ONE: Rate = Rate::new(100.0, 200.0);
/// Connections of the mesh that speak HTTP, at once.
const CALLS_MAX: usize = 1024;

/// The first byte of a TLS connection: a record of the kind *handshake* (RFC 8446, section 5.1).
const TLS_RECORD_HANDSHAKE: u8 = 0x16;

/// The alert to whoever offers nothing to speak (RFC 7301, section 3.2), as it stands before any key.
const NO_APPLICATION_PROTOCOL: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 120];

/// A link that another node has made, behind its handshake.
pub struct Link {
    /// What it speaks on.
    pub stream: TlsStream<TcpStream>,
    /// Whence it came.
    pub remote: SocketAddr,
    /// The key that it has shown.
    pub key: KeyId,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (remote, key) = (&self.remote, &self.key);
        f.debug_struct("Link")
            .field("remote", remote)
            .field("key", key)
            .finish_non_exhaustive()
    }
}

/// Where links go. Called in the task of the connection.
type TakeLink = dyn Fn(Link) + Send + Sync;

/// The door. Clones are the same one.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    keys: KeyRing,
    config: Arc<ServerConfig>,
    links: Option<Box<TakeLink>>,
    calls: Arc<Semaphore>,
    arrivals: Arc<Mutex<Arrivals>>,
    budget: Mutex<Budget>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Door").field(&self.0.keys).finish()
    }
}

/// Who has come in.
pub(super) enum Came {
    /// A client, in plain HTTP; nothing has been read.
    Plain(TcpStream, Arrival),
    /// A program of the mesh that speaks HTTP, and its place.
    Call(Box<TlsStream<TcpStream>>, KeyId, OwnedSemaphorePermit),
    /// Somebody else took it, or it is gone.
    Nobody,
}

impl Door {
    /// For programs that have these keys. `links` takes links; without it nobody is let in for one.
    pub fn new(keys: KeyRing, links: Option<Box<TakeLink>>) -> Self {
        let protocols: &[&[u8]] = match links {
            Some(_) => &[ALPN_BUS, ALPN_HTTP],
            None => &[ALPN_HTTP],
        };
        let budget = Budget {
            since: Instant::now(),
            all: Bucket::default(),
            each: Rates::default(),
        };
        Self(Arc::new(Inner {
            config: keys.server(protocols),
            keys,
            links,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            arrivals: Arc::default(),
            budget: Mutex::new(budget),
        }))
    }

    /// Someone comes; whoever stands before the door for longest may have to go.
    pub(super) fn arrive(&self, from: IpAddr) -> Arrival {
        Arrival::new(&self.0.arrivals, network(from))
    }

    /// Finds out who it is, within [`ARRIVAL_MAX`].
    pub(super) async fn let_in(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        arrival: Arrival,
    ) -> Came {
        let shown_out = arrival.shown_out.clone();
        let end = Instant::now() + ARRIVAL_MAX;
        let mut first = [0];
        let peeked = timeout_at(end, stream.peek(&mut first));
        let Some(Ok(Ok(1))) = shown_out.run_until_cancelled(peeked).await else {
            return Came::Nobody;
        };
        if first != [TLS_RECORD_HANDSHAKE] {
            return Came::Plain(stream, arrival);
        }
        let shaken = timeout_at(end, self.shake_hands(stream, remote));
        let Some(Ok(Some((stream, key)))) = shown_out.run_until_cancelled(shaken).await else {
            return Came::Nobody;
        };
        drop(arrival);
        if stream.get_ref().1.alpn_protocol() == Some(ALPN_BUS) {
            if let Some(take) = &self.0.links {
                take(Link {
                    stream,
                    remote,
                    key,
                });
            }
            return Came::Nobody;
        }
        match Arc::clone(&self.0.calls).try_acquire_owned() {
            Ok(place) => Came::Call(Box::new(stream), key, place),
            Err(_) => Came::Nobody,
        }
    }

    /// Resolves when this key is accepted no more. Cancel safe.
    pub(super) async fn removed(&self, key: KeyId) {
        let keys = &self.0.keys;
        let still = || keys.accepted().into_iter().find(|it| *it == key);
        keys.is_removed(&mut keys.changes(), still).await;
    }

    /// The other side, if it is a program of the mesh. Whoever is none is told what TLS tells it.
    async fn shake_hands(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> Option<(TlsStream<TcpStream>, KeyId)> {
        let refused = |why: &std::io::Error| tracing::debug!(%remote, "no handshake: {why}");
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await;
        let mut start = start.inspect_err(refused).ok()?;
        if start.client_hello().alpn().is_none() {
            // TLS itself would let it in, to speak who knows what.
            let why = "the other side doesn't support any known protocol: it offers none";
            refused(&std::io::Error::other(why));
            let _ = start.io.write_all(&NO_APPLICATION_PROTOCOL).await;
            return None;
        }
        // Only now does it cost something.
        self.wait_for_turn(remote.ip()).await;
        let accepted = start.into_stream(Arc::clone(&self.0.config)).await;
        let stream = accepted.inspect_err(refused).ok()?;
        let key = self
            .0
            .keys
            .accepts(stream.get_ref().1.peer_certificates())?;
        Some((stream, key))
    }

    /// Waits until another handshake may be made. Whoever waits stands before the door meanwhile.
    async fn wait_for_turn(&self, from: IpAddr) {
        loop {
            let wait = self.budget().take(from);
            match wait {
                Ok(()) => return,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.0.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many handshakes may be made.
#[derive(Debug)]
struct Budget {
    since: Instant,
    all: Bucket,
    each: Rates,
}

impl Budget {
    fn take(&mut self, from: IpAddr) -> Result<(), Duration> {
        let now = self.since.elapsed();
        let before = self.all;
        self.all.take(1, HANDSHAKES, now)?;
        self.each
            .count(from, HANDSHAKES_OF_ONE, now)
            .inspect_err(|_| self.all = before)
    }
}

/// Those who stand before the door, in the order in which they came.
#[derive(Debug, Default)]
struct Arrivals {
    came: u64,
    waiting: BTreeMap<u64, (IpAddr, CancellationToken)>,
    of_one: HashMap<IpAddr, usize>,
}

impl Arrivals {
    /// Shows out the one that has waited longest, of this address if one is named.
    fn show_out(&mut self, from: Option<IpAddr>) {
        let mut waiting = self.waiting.iter();
        let oldest = waiting.find(|(_, (of, _))| from.is_none_or(|from| from == *of));
        if let Some(oldest) = oldest.map(|(number, _)| *number) {
            self.leave(oldest);
        }
    }

    fn leave(&mut self, number: u64) {
        let Some((from, shown_out)) = self.waiting.remove(&number) else {
            return;
        };
        shown_out.cancel();
        if let Some(count) = self.of_one.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.of_one.remove(&from);
            }
        }
    }
}

/// A place before the door, until it is dropped.
#[derive(Debug)]
pub(super) struct Arrival {
    arrivals: Arc<Mutex<Arrivals>>,
    number: u64,
    /// Cancelled when it has to go.
    pub(super) shown_out: CancellationToken,
}

impl Arrival {
    fn new(arrivals: &Arc<Mutex<Arrivals>>, from: IpAddr) -> Self {
        let mut all = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if all
            .of_one
            .get(&from)
            .is_some_and(|count| *count >= ARRIVALS_OF_ONE_MAX)
        {
            all.show_out(Some(from));
        } else if all.waiting.len() >= ARRIVALS_MAX {
            all.show_out(None);
        }
        all.came += 1;
        let number = all.came;
        let shown_out = CancellationToken::new();
        all.waiting.insert(number, (from, shown_out.clone()));
        *all.of_one.entry(from).or_default() += 1;
        Self {
            arrivals: Arc::clone(arrivals),
            number,
            shown_out,
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut all = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        all.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        number.to_be_bytes().into()
    }

    /// Goal: a flood from one address shows out its own, and one from many whoever waited longest; what
    /// is remembered is bounded.
    #[test]
    fn who_floods_the_door_is_shown_out_first() {
        let door = Door::new(KeyRing::new(&[crate::secret::Seed([1; 32])]), None);
        let peer = door.arrive(ip(1));
        let flood: Vec<_> = (0..2 * ARRIVALS_OF_ONE_MAX)
            .map(|_| door.arrive(ip(2)))
            .collect();
        assert!(!peer.shown_out.is_cancelled());
        let gone = flood
            .iter()
            .filter(|it| it.shown_out.is_cancelled())
            .count();
        assert_eq!(gone, ARRIVALS_OF_ONE_MAX);
        assert!(!flood.last().unwrap().shown_out.is_cancelled());
        let many: Vec<_> = (10..)
            .take(ARRIVALS_MAX)
            .map(|it| door.arrive(ip(it)))
            .collect();
        assert!(peer.shown_out.is_cancelled(), "it waited longest");
        assert!(many.iter().all(|it| !it.shown_out.is_cancelled()));
        drop((peer, flood, many));
        let all = door.0.arrivals.lock().unwrap();
        assert!(all.waiting.is_empty() && all.of_one.is_empty());
    }

    #[test]
    fn handshakes_are_bounded_by_the_second_and_by_address() {
        let mut budget = Budget {
            since: Instant::now(),
            all: Bucket::default(),
            each: Rates::default(),
        };
        let mut taken = |from: u32| {
            (0..1000)
                .take_while(|_| budget.take(ip(from)).is_ok())
                .count()
        };
        let one = taken(1);
        assert!((200..400).contains(&one), "{one}");
        let all = one + (2..10).map(&mut taken).sum::<usize>();
        assert!((400..600).contains(&all), "{all}");
    }
}
