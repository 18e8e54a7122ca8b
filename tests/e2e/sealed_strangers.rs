//! Who has no key of the mesh: none gets in, each is told by TLS and by nothing else.

use std::sync::Arc;

use anyhow::{Result, ensure};
use base::tls::{ALPN_BUS, ALPN_HTTP, KeyRing};
use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::client_hello::{
    ALERT, HANDSHAKE, PRE_SHARED_KEY, PROTOCOL_VERSION, extensions_of, of_tls_1_2, records,
    with_ticket_and_early_data,
};
use crate::harness::process::Launch;
use crate::harness::raw::Raw;
use crate::harness::sealed::{Over, Seal, secret};
use crate::harness::sealed_peer::{hello, shake_hands};
use crate::harness::stranger::{Credulous, Shows, Tickets, certificate, stranger};
use crate::harness::{
    Client, Duration, NOISE, Node, Outcome, PATIENCE, Registry, eventually, linked, secs,
};

/// Whoever stands before the door for so long goes.
const SHOWN_OUT_WITHIN: Duration = secs(5).saturating_add(NOISE);

/// How soon a connection ends whose key was removed. One that says nothing ends after ten seconds.
const ENDED_WITHIN: Duration = secs(2).saturating_add(NOISE);

/// Knocks, says hello, and waits for an answer: what it is told.
async fn told(address: &str, config: ClientConfig) -> String {
    let mut stream = match shake_hands(address, config).await {
        Ok(stream) => stream,
        Err(why) => return format!("{why:#}"),
    };
    // The handshake is over here before the other side has looked at the key.
    let mut answer = [0; 64];
    let said = stream.write_all(&hello("strangeraa")).await;
    match said.and(stream.read(&mut answer).await) {
        Ok(0) => "closed".to_owned(),
        Ok(count) => format!("LET IN: {}", answer[..count].escape_ascii()),
        Err(why) => why.to_string(),
    }
}

/// A mesh of two, whose nodes log all, and a door of each kind.
struct Doors {
    registry: Registry,
    nodes: Vec<Node>,
}

impl Doors {
    async fn open() -> Result<Self> {
        let registry = Registry::over(Over::Tls, "127.0.0.1:0").await?;
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let launch = Launch::new("chatnode", registry.flags());
            nodes.push(Node::launch(launch.with("RUST_LOG", "debug")).await?);
        }
        linked(&nodes, PATIENCE).await?;
        for node in &nodes {
            node.takes_clients(PATIENCE).await?;
        }
        Ok(Self { registry, nodes })
    }

    fn seal(&self) -> &Seal {
        self.registry
            .seal
            .as_ref()
            .expect("it was started with one")
    }

    /// Nobody else is known, listed or linked, and those who belong here chat.
    async fn nobody_came_in(&self) -> Result<()> {
        for node in &self.nodes {
            let mesh = node.mesh().await?;
            ensure!(mesh.links.len() == 1 && mesh.up() == 1, "{mesh:?}");
        }
        ensure!(self.registry.listed().await?.len() == 2);
        let ada = Client::joined(&self.nodes[0], "ada", "tea").await?;
        let bob = Client::joined(&self.nodes[1], "bob", "tea").await?;
        ada.send("tea", "nobody else is here").await?;
        bob.message(PATIENCE, "nobody else is here").await?;
        Ok(())
    }
}

/// What it offers to speak who knocks.
const BUS: &[&[u8]] = &[ALPN_BUS];
const CALLS: &[&[u8]] = &[ALPN_HTTP];
const WEB: &[&[u8]] = &[b"h2", b"http/1.1"];
const GARBAGE: &[&[u8]] = &[&[0xff; 200], b"x"];
/// What TLS tells who knocks.
const DENIED: &str = "AccessDenied";
const NO_HANDSHAKE: &str = "HandshakeFailure";
const NO_PROTOCOL: &str = "NoApplicationProtocol";
/// What the side says of itself that refuses.
const NOT_OURS: &str = "ApplicationVerificationFailure";
const NO_TYPE: &str = "IncorrectCertificateTypeExtension";
const UNKNOWN: &str = "any known protocol";

/// One that has this key.
fn keyed(ring: &KeyRing, alpn: &[&[u8]]) -> Result<ClientConfig> {
    let takes = Arc::new(Credulous { raw: true });
    stranger(takes, Some(Arc::new(ring.clone())), alpn)
}

/// One that has none, and takes raw keys or certificates.
fn bare(raw: bool, alpn: &[&[u8]]) -> Result<ClientConfig> {
    stranger(Arc::new(Credulous { raw }), None, alpn)
}

/// One that announces a raw key or a certificate, and shows this.
fn showing(raw: bool, shown: Option<Arc<CertifiedKey>>, alpn: &[&[u8]]) -> Result<ClientConfig> {
    let shows = Arc::new(Shows { raw, shown });
    stranger(Arc::new(Credulous { raw }), Some(shows), alpn)
}

/// Who knocks, what it is told, and what the log says.
type Line = (&'static str, ClientConfig, &'static str, &'static str);

fn at_a_node(mine: &Seal, others: &Seal) -> Result<Vec<Line>> {
    let (nodes, registries) = (mine.keys_of_nodes(), mine.keys_of_registries());
    let theirs = others.keys_of_nodes();
    let (cert, none) = (Some(certificate()?), "no certificates");
    Ok(vec![
        ("another key", keyed(theirs, BUS)?, DENIED, NOT_OURS),
        ("another key, HTTP", keyed(theirs, CALLS)?, DENIED, NOT_OURS),
        ("registries' key", keyed(registries, BUS)?, DENIED, NOT_OURS),
        (
            "registries' key, HTTP",
            keyed(registries, CALLS)?,
            DENIED,
            NOT_OURS,
        ),
        ("no key", bare(true, BUS)?, NO_HANDSHAKE, NO_TYPE),
        (
            "a certificate",
            showing(false, cert, BUS)?,
            NO_HANDSHAKE,
            NO_TYPE,
        ),
        ("neither", bare(false, CALLS)?, NO_HANDSHAKE, NO_TYPE),
        (
            "none shown",
            showing(true, None, BUS)?,
            "CertificateRequired",
            none,
        ),
        (
            "it takes another",
            theirs.client(ALPN_BUS),
            NOT_OURS,
            DENIED,
        ),
        ("a browser", bare(false, WEB)?, NO_PROTOCOL, UNKNOWN),
        (
            "a browser, with the key",
            keyed(nodes, WEB)?,
            NO_PROTOCOL,
            UNKNOWN,
        ),
        (
            "garbage, with the key",
            keyed(nodes, GARBAGE)?,
            NO_PROTOCOL,
            UNKNOWN,
        ),
        (
            "no offer, with the key",
            keyed(nodes, &[])?,
            NO_PROTOCOL,
            UNKNOWN,
        ),
        ("no offer", bare(false, &[])?, NO_PROTOCOL, UNKNOWN),
    ])
}

/// A registry's log is not looked at.
fn at_a_registry(mine: &Seal, others: &Seal) -> Result<Vec<Line>> {
    let (nodes, registries) = (mine.keys_of_nodes(), mine.keys_of_registries());
    let theirs = others.keys_of_registries();
    Ok(vec![
        ("another key", keyed(theirs, CALLS)?, DENIED, ""),
        ("nodes' key", keyed(nodes, CALLS)?, DENIED, ""),
        ("no key", bare(true, CALLS)?, NO_HANDSHAKE, ""),
        (
            "frames, with the key",
            keyed(registries, BUS)?,
            NO_PROTOCOL,
            "",
        ),
        ("a browser", bare(false, WEB)?, NO_PROTOCOL, ""),
        (
            "no offer, with the key",
            keyed(registries, &[])?,
            NO_PROTOCOL,
            "",
        ),
    ])
}

/// Goal: whoever has no key of the mesh is told so by an alert of TLS and by nothing else, the log says
/// what TLS says, and nobody gets in, at the door of a node and of a registry. Method: a line for each
/// kind of stranger; what it is told, and what the node logs.
#[tokio::test]
async fn strangers_in_tls_are_told_what_tls_tells_them() -> Outcome {
    let doors = Doors::open().await?;
    let others = Seal::new().await?;
    let node = &doors.nodes[0];
    for (who, config, told_so, logged) in at_a_node(doors.seal(), &others)? {
        let before = node.process.log_text().len();
        let answer = told(node.address(), config).await;
        assert!(answer.contains(told_so), "{who}: {answer}");
        eventually(PATIENCE, "the log says why", async || {
            let log = node.process.log_text();
            let new = log.get(before..).unwrap_or_default();
            let mut refused = new.lines().filter(|line| line.contains("no handshake"));
            ensure!(refused.any(|line| line.contains(logged)), "{who}: {new}");
            Ok(())
        })
        .await?;
    }
    for (who, config, told_so, _) in at_a_registry(doors.seal(), &others)? {
        let answer = told(doors.registry.address(), config).await;
        assert!(answer.contains(told_so), "registry, {who}: {answer}");
    }
    doors.nobody_came_in().await?;
    Ok(())
}

/// Says bytes to a door; all that it answers until it closes.
async fn answered(address: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut raw = Raw::connect(address).await?;
    raw.send(bytes).await?;
    raw.until_closed(SHOWN_OUT_WITHIN).await
}

/// Goal: bytes that are no handshake, half of one, an old one, or one with a ticket and early data, get
/// no further than any: an alert or nothing; what is plain gets a plain refusal. Method: by hand, at a
/// node and a registry, all at once, each until the door closes.
#[tokio::test]
async fn bytes_that_are_no_handshake_get_an_alert_or_nothing() -> Outcome {
    let doors = Doors::open().await?;
    let greeting = [
        &[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0][..],
        b"NULL",
        &[0; 48],
    ]
    .concat();
    let asks = b"GET /mesh/position HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let (old, ticket) = (of_tls_1_2(), with_ticket_and_early_data());
    let half = old[..60].to_vec();
    let long = [HANDSHAKE; 5]
        .into_iter()
        .chain([0xff; 600])
        .collect::<Vec<_>>();
    for address in [doors.nodes[0].address(), doors.registry.address()] {
        let (half, first, wrong, aged, resumed, zmtp, plain) = tokio::try_join!(
            answered(address, &half),
            answered(address, &[HANDSHAKE]),
            answered(address, &long),
            answered(address, &old),
            answered(address, &ticket),
            answered(address, &greeting),
            answered(address, asks),
        )?;
        assert!(
            half.is_empty() && first.is_empty(),
            "half of a hello is answered"
        );
        let said = records(&wrong)?;
        assert!(said.iter().all(|(kind, _)| *kind == ALERT), "{said:?}");
        let said = records(&aged)?;
        assert_eq!(said, [(ALERT, vec![2, PROTOCOL_VERSION])]);
        let said = records(&resumed)?;
        let (kind, server_hello) = said.first().ok_or("no answer to a hello")?;
        assert_eq!(*kind, HANDSHAKE);
        let taken = extensions_of(server_hello)?;
        assert!(
            !taken.contains(&PRE_SHARED_KEY),
            "a ticket is taken: {taken:?}"
        );
        let zmtp = String::from_utf8_lossy(&zmtp).into_owned();
        assert!(
            zmtp.is_empty() || zmtp.starts_with("HTTP/1.1 400"),
            "{zmtp}"
        );
        let plain = String::from_utf8_lossy(&plain).into_owned();
        let refused = if address == doors.registry.address() {
            "404"
        } else {
            "403"
        };
        assert!(plain.starts_with(&format!("HTTP/1.1 {refused}")), "{plain}");
    }
    doors.nobody_came_in().await?;
    Ok(())
}

/// Goal: who was in gets nothing to come in with again: no ticket, no early data; when its key was
/// removed it is out, at once. Method: a peer that would take tickets and early data, at a node and at
/// a registry, which keeps a connection open; then all have another secret.
#[tokio::test]
async fn a_removed_key_is_out_and_nothing_was_given_to_come_back_with() -> Outcome {
    let doors = Doors::open().await?;
    let (nodes, registries) = (
        doors.seal().keys_of_nodes().clone(),
        doors.seal().keys_of_registries().clone(),
    );
    let tickets = Arc::new(Tickets::default());
    let resuming = |ring: &KeyRing| {
        let mut config = ring.client(ALPN_HTTP);
        config.resumption = Resumption::store(Arc::<Tickets>::clone(&tickets));
        config.enable_early_data = true;
        config
    };
    let both = [
        (doors.nodes[0].address(), &nodes),
        (doors.registry.address(), &registries),
    ];
    for (address, ring) in both {
        for _ in 0..2 {
            let mut stream = shake_hands(address, resuming(ring)).await?;
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(rustls::HandshakeKind::Full));
            let asks = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
            stream.write_all(asks).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            assert!(
                answer.starts_with(b"HTTP/1.1 200"),
                "{}",
                answer.escape_ascii()
            );
        }
    }
    assert_eq!(tickets.count(), 0, "a ticket was given");
    let mut kept = Vec::new();
    for (address, ring) in both {
        kept.push(shake_hands(address, ring.client(ALPN_HTTP)).await?);
    }
    let seal = doors.seal();
    seal.files().write("mesh", &secret(&[]).await?)?;
    doors.registry.process.signal(Signal::HUP)?;
    for node in &doors.nodes {
        node.process.signal(Signal::HUP)?;
    }
    for mut stream in kept {
        let ended = tokio::time::timeout(ENDED_WITHIN, stream.read(&mut [0])).await;
        let ended = ended.map_err(|_| "a connection outlived its key")?;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    for (address, ring) in both {
        eventually(PATIENCE, "the removed key is out", async || {
            // It takes the new key, so that it is the door that refuses.
            let mut config = keyed(ring, CALLS)?;
            config.resumption = Resumption::store(Arc::<Tickets>::clone(&tickets));
            config.enable_early_data = true;
            let answer = told(address, config).await;
            ensure!(answer.contains(DENIED), "{answer}");
            Ok(())
        })
        .await?;
    }
    linked(&doors.nodes, PATIENCE).await?;
    Ok(())
}
