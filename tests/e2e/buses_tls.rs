//! Brokers in TLS: whose certificate is taken, and what is said of all others.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::harness::buses::{bus_is, bus_of, bus_says, flags};
use crate::harness::engines::Broker as _;
use crate::harness::engines::certificates::Certificates;
use crate::harness::engines::nats::Nats;
use crate::harness::engines::rabbit::Rabbit;
use crate::harness::engines::redis::Redis;
use crate::harness::process::Launch;
use crate::harness::tools::free_port;
use crate::harness::{Client, Node, Outcome, PATIENCE, eventually, linked};

/// What a node says of a certificate of an authority that it does not know, and of one for another name.
const UNKNOWN: &str = "no TLS with the broker: its certificate is of no authority that this machine trusts; \
                       SSL_CERT_FILE names others";
const MISNAMED: &str =
    "no TLS with the broker: invalid peer certificate: certificate not valid for name ";

/// A node at this broker that trusts this authority alone.
async fn node(url: &str, authority: &Path) -> Result<Node> {
    let launch = Launch::new("chatnode", flags(&[url], None));
    let authority = authority.display().to_string();
    let launch = launch.with("SSL_CERT_FILE", authority);
    // What this machine trusts besides.
    Node::launch(launch.with("SSL_CERT_DIR", "")).await
}

/// Waits until a node says why its broker is not up, in its view and in its log; it serves its clients
/// and tries again.
async fn refuses(node: &Node, words: &str) -> Result<()> {
    bus_says(node, "not_sealed", words).await?;
    node.takes_clients(PATIENCE).await?;
    eventually(PATIENCE, "it tries again", async || {
        let bus = bus_of(node).await?;
        ensure!(bus.dials >= 3 && bus.error.contains(words), "{bus:?}");
        Ok(())
    })
    .await?;
    let log = node.process.log_text();
    // When it takes clients without it, and when it has not heard it for ten seconds.
    let lines = log.lines().filter(|line| line.contains(words));
    ensure!((1..=2).contains(&lines.count()), "{log}");
    Ok(())
}

/// Goal: nodes speak with a broker in TLS and meet there, and take no certificate but one of an authority
/// that they trust, for the name by which they call the broker. Method: two such nodes, of which each hears
/// the other's client; one that trusts another authority; one that calls the broker by its address, which
/// the certificate does not name.
async fn nodes_meet_in_tls(url_at: impl Fn(&str) -> String, authority: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let other = Certificates::new(folder.path())?.authority;
    let url = url_at("localhost");
    let nodes = [node(&url, authority).await?, node(&url, authority).await?];
    let strange = node(&url, &other).await?;
    let misnamed = node(&url_at("127.0.0.1"), authority).await?;
    linked(&nodes, PATIENCE).await?;
    let ada = Client::joined(&nodes[0], "ada", "tea").await?;
    let bob = Client::joined(&nodes[1], "bob", "tea").await?;
    ada.send("tea", "from ada").await?;
    bob.message(PATIENCE, "from ada").await?;
    bob.send("tea", "from bob").await?;
    ada.message(PATIENCE, "from bob").await?;
    refuses(&strange, UNKNOWN).await?;
    refuses(&misnamed, MISNAMED).await?;
    for node in &nodes {
        let mesh = node.mesh().await?;
        ensure!(mesh.links.len() == 1, "nobody else came in: {mesh:?}");
    }
    Ok(())
}

/// See [`nodes_meet_in_tls`]. Besides, what is put right is met without a restart of the node. Method: the
/// server shows a certificate of another authority, and then its own; a node without TLS is at its port.
#[tokio::test]
async fn nodes_meet_in_tls_on_redis() -> Outcome {
    let folder = tempfile::tempdir()?;
    let wrong = tempfile::tempdir()?;
    let [own, wrong] = [&folder, &wrong].map(|folder| Certificates::new(folder.path()));
    let [own, wrong] = [own?, wrong?];
    let port = free_port()?.to_string();
    let [certificate, key] = [&wrong.certificate, &wrong.key].map(|it| it.display().to_string());
    let named = ["--tls-cert-file", &certificate, "--tls-key-file", &key];
    let listens = ["--tls-port", &port, "--tls-auth-clients", "no"];
    let redis = Redis::with(&[named, listens].concat()).await?;
    let url_at = |host: &str| format!("rediss://{host}:{port}");
    let waiting = node(&url_at("localhost"), &own.authority).await?;
    refuses(&waiting, UNKNOWN).await?;
    let [certificate, key] = [&own.certificate, &own.key].map(|it| it.display().to_string());
    let set = ["CONFIG", "SET", "tls-cert-file", &certificate];
    let words = [&set[..], &["tls-key-file", &key]].concat();
    redis.command(&words).await?;
    bus_is(&waiting, "up", PATIENCE).await?;
    drop(waiting);
    let bare = node(&format!("redis://localhost:{port}"), &own.authority).await?;
    bus_says(&bare, "ended", "the connection ended").await?;
    drop(bare);
    nodes_meet_in_tls(url_at, &own.authority).await?;
    Ok(())
}

/// See [`nodes_meet_in_tls`]. A node without TLS is told to write it; the file of the authority may come late.
#[tokio::test]
async fn nodes_meet_in_tls_on_nats() -> Outcome {
    let folder = tempfile::tempdir()?;
    let own = Certificates::new(folder.path())?;
    let [certificate, key] = [&own.certificate, &own.key].map(|it| it.display().to_string());
    let tls = format!("tls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}");
    let nats = Nats::with(&tls, &[]).await?;
    let bare = node(&nats.url(), &own.authority).await?;
    bus_says(
        &bare,
        "not_sealed",
        "the broker wants TLS: write tls+nats://",
    )
    .await?;
    let port = nats.address().port();
    let url_at = |host: &str| format!("tls+nats://{host}:{port}");
    let late = folder.path().join("late.pem");
    let waiting = node(&url_at("localhost"), &late).await?;
    refuses(&waiting, "this machine names no authorities to trust").await?;
    std::fs::copy(&own.authority, &late)?;
    bus_is(&waiting, "up", PATIENCE).await?;
    drop((bare, waiting));
    nodes_meet_in_tls(url_at, &own.authority).await?;
    Ok(())
}

/// See [`nodes_meet_in_tls`]. What is no TLS is no broker to a node that wants it.
#[tokio::test]
async fn nodes_meet_in_tls_on_rabbitmq() -> Outcome {
    let rabbit = Rabbit::start().await?;
    let bare = format!("amqps://{}/{}", rabbit.address(), rabbit.vhost);
    let bare = node(&bare, &rabbit.authority()).await?;
    bus_says(&bare, "not_sealed", "no TLS with the broker: ").await?;
    nodes_meet_in_tls(|host| rabbit.url_in_tls(host), &rabbit.authority()).await?;
    Ok(())
}
