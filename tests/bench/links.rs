//! What a link between nodes costs: to make it, to keep it, and to have a peer at its end that is
//! stopped. A false peer dials, as a node does, and then only holds what it has.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base::secret::Secrets;
use base::tls::{ALPN_BUS, KeyRing};
use rustix::process::{Signal, getpid};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::LOAD_CORE;
use crate::clock::{MILLI, SECOND, now, rest};
use crate::hist::Histogram;
use crate::procs::{cpu, peak, resident};
use crate::runner::Runner;
use crate::servers::{Servers, get};

/// Links that are made and dropped before those that are measured: a node's first ones pay for what
/// all of them share.
const BEFORE: usize = 40;
/// The false peer comes from so many addresses, since a node lets in only so many a second of one.
const ADDRESSES: usize = 8;
/// After so long a node has told its beat to all links, and tables that grew have been written to.
const SETTLES: u64 = 2 * SECOND;
/// A node that does not answer a dial for so long is stuck.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// What flows past a peer that is stopped.
const FLOW: &str = "fanout --clients 2 --senders 1 --sender-node 1 --rate 2000 --bytes 4000 \
                    --settle 0 --warmup 0 --secs";

/// A link that is held.
enum Held {
    Plain(TcpStream),
    Sealed(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Where to dial, and with which keys if it is sealed.
struct Dialler {
    at: SocketAddr,
    config: Option<Arc<ClientConfig>>,
}

/// Makes so many links to a node, one after the other, and holds them.
pub(crate) fn held(peer: &str, count: usize) -> Result<Value> {
    let servers = Servers::start(peer, 1)?;
    crate::pin(LOAD_CORE)?;
    let dialler = Dialler::to(&servers)?;
    let own = [u32::try_from(getpid().as_raw_nonzero().get())?];
    for number in 0..BEFORE {
        drop(dialler.dial(number)?);
    }
    rest(SETTLES);
    let (mut links, mut took) = (Vec::with_capacity(count), Histogram::new());
    let base = resident(&servers.pids);
    let (theirs, ours, begun) = (cpu(&servers.pids), cpu(&own), now());
    for number in 0..count {
        let begun = now();
        links.push(dialler.dial(BEFORE + number)?);
        took.add(now() - begun);
    }
    let all = now() - begun;
    // What the node does behind its last answer belongs to that link.
    rest(20 * MILLI);
    let (theirs, ours) = (cpu(&servers.pids) - theirs, cpu(&own) - ours);
    rest(SETTLES);
    let ended = links.iter().filter(|link| link.has_ended()).count();
    ensure!(ended == 0, "of {count} links {ended} were not held");
    let memory = resident(&servers.pids) as f64 - base as f64;
    let a_link = |nanos: u64| nanos as f64 / 1e3 / count as f64;
    Ok(json!({
        "dial_p50_us": took.quantile(0.5) as f64 / 1e3,
        "dial_p99_us": took.quantile(0.99) as f64 / 1e3,
        "dial_us": a_link(all),
        "accepting_cpu_us": a_link(theirs),
        "dialling_cpu_us": a_link(ours),
        "rss_bytes_per_link": memory / count as f64,
    }))
}

/// Has so many nodes join a node one by one; what the last one costs, and what they cost the first.
pub(crate) fn joined(peer: &str, count: usize) -> Result<Value> {
    let mut servers = Servers::mesh(peer, 1)?;
    rest(SETTLES);
    let first = servers.node_pid(0);
    let base = resident(&[first]);
    for _ in 1..count {
        servers.add_chatnode()?;
    }
    servers.await_links()?;
    rest(SETTLES);
    let (before, begun) = (cpu(&servers.pids), now());
    servers.add_chatnode()?;
    servers.await_links()?;
    let (after, took) = (cpu(&servers.pids), now() - begun);
    rest(SETTLES);
    let memory = resident(&[first]) as f64 - base as f64;
    Ok(json!({
        "linked_ms": took as f64 / 1e6,
        "linking_cpu_ms": (after - before) as f64 / 1e6,
        "rss_bytes_per_peer": memory / count as f64,
    }))
}

/// The sender's peak of memory while one of three nodes is stopped for so many seconds of messages,
/// beside the same when none is.
pub(crate) fn stopped(runner: &Runner, peer: &str, seconds: usize) -> Result<Value> {
    let args: Vec<String> = format!("{FLOW} {seconds}")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let sender = |is_stopped: bool| {
        let servers = Servers::mesh(peer, 3)?;
        if is_stopped {
            servers.signal_last(Signal::STOP)?;
        }
        let figures = runner.load(&servers.first(2), &args)?;
        ensure!(figures["lost"] == 0, "{} were lost", figures["lost"]);
        Ok(peak(servers.node_pid(0)))
    };
    let (without, with) = (sender(false)?, sender(true)?);
    Ok(json!({
        "without_rss_bytes": without,
        "with_rss_bytes": with,
        "extra_rss_bytes": with as f64 - without as f64,
    }))
}

impl Dialler {
    fn to(servers: &Servers) -> Result<Self> {
        let mesh = get(&servers.urls[0], "/api/mesh")?;
        let endpoint = mesh["pub"].as_str().context("no endpoint")?;
        let config = match &servers.secret {
            Some(secret) => {
                let keys = KeyRing::new(&Secrets::read_of_node(secret)?.of_mesh());
                Some(Arc::new(keys.client(ALPN_BUS)))
            }
            None => None,
        };
        Ok(Self {
            at: crate::wire::host(endpoint).parse()?,
            config,
        })
    }

    /// Until the node has answered: then a node that dials calls its link connected.
    fn dial(&self, number: usize) -> Result<Held> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let from = Ipv4Addr::new(127, 0, 0, 2 + (number % ADDRESSES) as u8);
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&self.at.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWERS_WITHIN))?;
        let socket = TcpStream::from(socket);
        match &self.config {
            None => shake_hands_plainly(socket).map(Held::Plain),
            Some(config) => {
                let name = ServerName::try_from("chatmesh.invalid")?;
                let tls = ClientConnection::new(Arc::clone(config), name)?;
                let mut stream = StreamOwned::new(tls, socket);
                stream.write_all(&hello(number))?;
                let mut head = [0; 5];
                stream.read_exact(&mut head).context("no answer")?;
                let [a, b, c, d, kind] = head;
                ensure!(kind == 0, "its answer is no hello");
                let mut body = vec![0; u32::from_be_bytes([a, b, c, d]) as usize - 1];
                stream.read_exact(&mut body)?;
                Ok(Held::Sealed(Box::new(stream)))
            }
        }
    }
}

impl Held {
    fn has_ended(&self) -> bool {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Sealed(stream) => &stream.sock,
        };
        // Nothing to read yet is no end.
        socket.set_nonblocking(true).is_err() || matches!(socket.peek(&mut [0]), Ok(0))
    }
}

/// The record by which a node says who it is; each number is another origin.
fn hello(number: usize) -> Vec<u8> {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let origin: String = (0..10)
        .map(|place| char::from(DIGITS[number >> (5 * place) & 31]))
        .collect();
    let body = json!({ "protocol": 1, "origin": origin, "mesh": "main" }).to_string();
    let mut record = (body.len() as u32 + 1).to_be_bytes().to_vec();
    record.push(0);
    record.extend_from_slice(body.as_bytes());
    record
}

/// What a ZeroMQ SUB socket says (ZMTP 3.0, NULL), until the PUB socket is ready.
fn shake_hands_plainly(mut socket: TcpStream) -> Result<TcpStream> {
    const READY: &[u8] = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB";
    const SUBSCRIBE: &[u8] = b"\0\x04\x01m1.";
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9..16].copy_from_slice(b"\x7f\x03\0NULL");
    socket.write_all(&greeting)?;
    socket.read_exact(&mut greeting)?;
    ensure!(greeting[0] == 0xff, "no ZeroMQ is there");
    socket.write_all(READY)?;
    let mut head = [0; 2];
    socket.read_exact(&mut head)?;
    ensure!(head[0] == 4, "it is not ready");
    socket.read_exact(&mut vec![0; usize::from(head[1])])?;
    socket.write_all(SUBSCRIBE)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Goal: a node takes the links of one false peer for those of many nodes, whom it hears side by
    /// side: one that names the same origin again would replace the other. Method: as many hellos as
    /// are ever said, whose length is what their head says.
    #[test]
    fn each_link_is_of_another_node() {
        let hellos: Vec<_> = (0..2000).map(hello).collect();
        for hello in &hellos {
            let len: [u8; 4] = hello[..4].try_into().unwrap();
            assert_eq!(u32::from_be_bytes(len) as usize, hello.len() - 4);
        }
        assert_eq!(hellos.iter().collect::<BTreeSet<_>>().len(), hellos.len());
    }
}
