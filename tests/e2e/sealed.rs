//! Beyond one machine: with a mesh secret all between nodes is in TLS, and strangers stay out.

use std::io::Read as _;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::netns::{FAR_CONTROL, NEAR_CONTROL, Namespaces};
use crate::harness::process::Launch;
use crate::harness::sealed::{SecretFiles, sealed_cluster, sealed_node, sealed_registry, secret};
use crate::harness::{
    Client, Instant, Load, NOISE, Node, Outcome, PATIENCE, Recorder, eventually, histories, linked,
    ms, say, secs,
};

/// All that goes between this namespace and the far one, from now on.
struct Capture(Socket);

impl Capture {
    fn start() -> Result<Self> {
        const ALL: u16 = 0x0003;
        let protocol = Protocol::from(i32::from(ALL.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        socket.set_recv_buffer_size(64 << 20)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// The packets that have gone so far, one behind the other.
    fn bytes(&self) -> Vec<u8> {
        const ADDRESSES: std::ops::Range<usize> = 14 + 12..14 + 20;
        let far: std::net::Ipv4Addr = FAR_CONTROL.parse().expect("an address");
        let mut all = Vec::new();
        let mut packet = vec![0; 1 << 17];
        while let Ok(len) = (&self.0).read(&mut packet) {
            let addresses = packet[..len].get(ADDRESSES).unwrap_or_default();
            if addresses.chunks(4).any(|it| it == far.octets()) {
                all.extend_from_slice(&packet[..len]);
            }
        }
        all
    }
}

/// Goal: `chatnode --http 0.0.0.0:8080 --registry tls://ADDRESS:7171 --mesh-secret FILE`, the same on
/// each machine, is a mesh, and nothing of what is said can be read between them; the registry has the
/// weaker secret. Method: two network namespaces; all packets between them are looked through for texts,
/// names and rooms. Those who chat are on nodes of the near one.
#[tokio::test]
async fn the_same_command_on_each_machine_is_a_sealed_mesh() -> Outcome {
    let Some(wire) = Namespaces::enter("unit tests of the carrier on loopback")? else {
        return Ok(());
    };
    let files = SecretFiles::new()?;
    let mesh = files.write("mesh", &secret(&[]).await?)?;
    let weaker = secret(&["--registry", &mesh.display().to_string()]).await?;
    let weaker = files.write("registry", &weaker)?;
    let capture = Capture::start()?;
    let (_registry, url) = sealed_registry(&format!("{NEAR_CONTROL}:7171"), &weaker).await?;
    let command = |port: u16| {
        let http = format!("0.0.0.0:{port}");
        sealed_node(&url, &mesh, &["--http", &http, "--rate-limit", "0"])
    };
    let near = Node::launch(command(8080)).await?;
    let beside = Node::launch(command(8081)).await?;
    let mut launch = command(8080);
    launch.prefix = wire.far();
    let far = Node::launch(launch).await?;
    let begun = Instant::now();
    assert_eq!(far.http, format!("http://{FAR_CONTROL}:8080"));
    assert_eq!(far.publishes, format!("tls://{FAR_CONTROL}:8080"));
    let nodes = [&near, &beside, &far];
    linked(&nodes, PATIENCE).await?;
    let took = begun.elapsed();
    for node in nodes {
        node.takes_clients(PATIENCE).await?;
    }
    let said = [&near, &beside].map(|node| Client::joined(node, "ada-unseen", "tea-unseen"));
    let said = futures::future::try_join_all(said).await?;
    for count in 0..40 {
        let text = format!("a text that nobody sees {count}");
        let body = json!({ "room": "tea-unseen", "text": text, "copies": 2 });
        let sent = said[count % 2].send_with(body).await?;
        assert_eq!(sent.copies, 2, "{sent:?}");
    }
    let bytes = capture.bytes();
    assert!(bytes.len() > 40 * 100, "{} bytes were seen", bytes.len());
    for text in ["nobody sees", "tea-unseen", "ada-unseen"] {
        let seen = bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes());
        assert!(!seen, "{text:?} can be read between machines");
    }
    assert_eq!(histories(&nodes, "tea-unseen", PATIENCE).await?.len(), 40);
    say!("linked within {took:?} of the last ready line");
    assert!(took < ms(500) + NOISE, "{took:?}");
    Ok(())
}

/// Goal: who has no secret, or another, hears nothing, is heard by nobody, changes no list, and says in
/// one line why. Method: strangers of each kind beside a mesh of two: a plain node and one with another
/// secret at its registry, a node with its secret at a plain registry, plain requests to `/mesh/` and
/// `/v1/`.
#[tokio::test]
async fn strangers_stay_out_and_are_told_why() -> Outcome {
    let files = SecretFiles::new()?;
    let (_registry, url, nodes) = sealed_cluster(&files, 2).await?;
    let plain_url = url.replace("tls://", "http://");
    let other = files.write("other", &secret(&[]).await?)?;
    let (_third, third_url) = sealed_registry("127.0.0.1:0", &other).await?;
    let mesh = files.write("mesh2", &std::fs::read_to_string(files.path("mesh"))?)?;
    let plain_registry = crate::harness::Registry::start().await?;
    let plain_as_tls = plain_registry.url.replace("http://", "tls://");
    for (launch, said) in [
        (
            Launch::new("chatnode", ["--registry", &plain_url]),
            "secret_needed",
        ),
        (sealed_node(&url, &other, &[]), "another mesh secret"),
        (sealed_node(&third_url, &mesh, &[]), "another mesh secret"),
        (sealed_node(&plain_as_tls, &mesh, &[]), "speaks no TLS"),
    ] {
        let stranger = Node::launch(launch).await?;
        eventually(PATIENCE, "the stranger says why", async || {
            let mesh = stranger.get_json("/api/mesh").await?;
            let error = mesh["registries"][0]["error"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            ensure!(error.contains(said), "{error:?} has no {said:?}");
            Ok(())
        })
        .await?;
        assert_eq!(stranger.mesh().await?.up(), 0);
    }
    // A peer by hand, with another secret, is told apart from one that is not there.
    let at = nodes[0].publishes.clone();
    let launch = sealed_node("none", &other, &["--peer", &at]);
    let stranger = Node::launch(launch).await?;
    eventually(PATIENCE, "the stranger says why", async || {
        let mesh = stranger.get_json("/api/mesh").await?;
        ensure!(mesh["links"][0]["reason"] == "other_key", "{mesh}");
        Ok(())
    })
    .await?;
    for (url, code) in [
        (format!("{plain_url}/v1/nodes"), "secret_needed"),
        (format!("{plain_url}/v1/events"), "secret_needed"),
        (format!("{}/mesh/position", nodes[0].http), "nodes_only"),
        (format!("{}/mesh/members", nodes[0].http), "nodes_only"),
    ] {
        let answer = crate::harness::cluster::get(&url).await?;
        assert_eq!(answer.status(), 403);
        assert_eq!(
            answer.json::<serde_json::Value>().await?["code"],
            code,
            "{url}"
        );
    }
    for path in ["/", "/healthz", "/metrics"] {
        assert_eq!(
            crate::harness::cluster::get(&format!("{plain_url}{path}"))
                .await?
                .status(),
            200
        );
    }
    for node in &nodes {
        assert_eq!(node.mesh().await?.links.len(), 1, "nobody else is known");
    }
    Ok(())
}

/// Goal: a flood at the door takes no place of a client or a peer. Method: ten thousand connections from
/// one address, in turn with nothing said, half of a handshake, and garbage; meanwhile a node joins, and
/// clients chat.
#[tokio::test]
async fn a_flood_of_half_handshakes_keeps_nobody_out() -> Outcome {
    const HELLO_BEGUN: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let files = SecretFiles::new()?;
    let (_registry, url, mut nodes) = sealed_cluster(&files, 2).await?;
    let address = nodes[0].address().to_owned();
    let flood = crate::harness::spawn(async move {
        let mut open = std::collections::VecDeque::new();
        for count in 0..10_000 {
            let Ok(mut stream) = TcpStream::connect(&address).await else {
                continue;
            };
            let said: &[u8] = [&b""[..], HELLO_BEGUN, &[0x16; 64]][count % 3];
            // What is shown out does not take it.
            let _ = stream.write_all(said).await;
            open.push_back(stream);
            if open.len() > 400 {
                open.pop_front();
            }
        }
        open.len()
    });
    let recorder = Recorder::new();
    let mut reader = recorder.reader(&nodes[0], "reader", "tea").await?;
    let load = Load::start([recorder.client(&nodes[1], "ada").await?], "tea", 100);
    let begun = Instant::now();
    let file = files.path("mesh");
    nodes.push(Node::launch(sealed_node(&url, &file, &[])).await?);
    linked(&nodes.iter().collect::<Vec<_>>(), PATIENCE).await?;
    let joined = begun.elapsed();
    reader.shown(200, PATIENCE).await?;
    let still = !flood.is_finished();
    let left = flood.await?;
    load.stop().await?;
    let checked = recorder
        .check(&nodes.iter().collect::<Vec<_>>(), "tea")
        .await?;
    say!("joined in {joined:?}, the flood still on: {still}, {left} open; {checked}");
    Ok(())
}

/// Goal: a secret is changed under load, and nothing is lost, doubled or announced as a gap; who has the
/// old one only is out. Method: 200 messages a second; the three steps, on three nodes and a registry,
/// by SIGHUP; then a node with the old line.
#[tokio::test]
async fn the_secret_is_changed_under_load_and_nothing_is_lost() -> Outcome {
    let files = SecretFiles::new()?;
    let (registry, url, nodes) = sealed_cluster(&files, 3).await?;
    let old = std::fs::read_to_string(files.path("mesh"))?;
    let new = secret(&[]).await?;
    let recorder = Recorder::new();
    let mut reader = recorder.reader(&nodes[2], "reader", "tea").await?;
    let senders = [
        recorder.client(&nodes[0], "ada").await?,
        recorder.client(&nodes[1], "bob").await?,
    ];
    let load = Load::start(senders, "tea", 200);
    reader.shown(50, PATIENCE).await?;
    let key = async |node: &Node| -> Result<Vec<String>> {
        let mesh = node.get_json("/api/mesh").await?;
        let links = mesh["links"].as_array().cloned().unwrap_or_default();
        let keys = links.iter().filter_map(|link| link["key"].as_str());
        Ok(keys.map(str::to_owned).collect())
    };
    let before = key(&nodes[0]).await?;
    assert_eq!(before.len(), 2);
    for lines in [format!("{old}{new}"), format!("{new}{old}"), new.clone()] {
        files.write("mesh", &lines)?;
        registry.signal(Signal::HUP)?;
        for node in &nodes {
            node.process.signal(Signal::HUP)?;
        }
        let count = reader.client().messages().len();
        reader.shown(count + 100, PATIENCE).await?;
    }
    eventually(PATIENCE, "all links show the new key", async || {
        for node in &nodes {
            let keys = key(node).await?;
            ensure!(
                keys.len() == 2 && keys.iter().all(|key| *key != before[0]),
                "{keys:?}"
            );
        }
        Ok(())
    })
    .await?;
    linked(&nodes.iter().collect::<Vec<_>>(), PATIENCE).await?;
    let left = files.write("left", &old)?;
    let out = Node::launch(sealed_node(&url, &left, &["--peer", &nodes[0].publishes])).await?;
    eventually(secs(15), "who has the old secret is out", async || {
        let mesh = out.get_json("/api/mesh").await?;
        ensure!(mesh["links"][0]["reason"] == "other_key", "{mesh}");
        Ok(())
    })
    .await?;
    load.stop().await?;
    let checked = recorder
        .check(&nodes.iter().collect::<Vec<_>>(), "tea")
        .await?;
    let mut gaps = 0;
    for node in &nodes {
        gaps += node
            .mesh()
            .await?
            .links
            .iter()
            .map(|link| link.lost)
            .sum::<u64>();
    }
    assert_eq!(gaps, 0);
    say!("{checked}");
    Ok(())
}
