//! Nodes that find each other by a name of DNS alone, as pods and containers do.

use std::net::Ipv4Addr;

use anyhow::ensure;

use crate::harness::cluster::secret_flags;
use crate::harness::engines::dns::{Mood, NameServer};
use crate::harness::sealed::{Over, Seal, over_each};
use crate::harness::sources::{POLLED_WITHIN, all_hear, flags, node_on, source_is, source_of};
use crate::harness::tools::free_port;
use crate::harness::{
    Habits, Node, Outcome, PATIENCE, Pace, Recorder, Registry, Roamer, eventually, linked, say,
};

over_each!(nodes_are_found_by_a_name_alone_as_they_come_and_go);

/// The name under which nodes are.
const NAME: &str = "chat.test";

fn pods<const N: usize>() -> [Ipv4Addr; N] {
    let mut last = 1;
    [(); N].map(|()| {
        last += 1;
        Ipv4Addr::new(127, 0, 0, last)
    })
}

/// Goal: a name that leads to all nodes, and nothing else, makes a mesh of them, with a mesh secret too: one
/// that is added is found, one that is killed and its successor at the same address harm nobody. Method: nodes
/// on addresses of their own with one port, as pods have; the name lists two, then three; clients talk while
/// one is killed and another is started in its place; the promises are judged.
async fn nodes_are_found_by_a_name_alone_as_they_come_and_go(over: Over) -> Outcome {
    let seal = over.seal().await?;
    let dns = NameServer::start().await?;
    let (pods, port) = (pods::<3>(), free_port()?);
    let flags = flags(&[&dns.url(NAME, port)], seal.as_ref());
    dns.host(NAME, &pods[..2]);
    let mut nodes = Vec::new();
    for pod in &pods[..2] {
        nodes.push(node_on(*pod, port, &flags).await?);
    }
    let took = linked(&nodes, POLLED_WITHIN).await?;
    say!("two that were started together heard each other after {took:?}");
    for node in &nodes {
        node.takes_clients(PATIENCE).await?;
        source_is(node, "up", "").await?;
        // No registry is used beside.
        assert_eq!(node.mesh().await?.registries.len(), 1);
    }
    let recorder = Recorder::new();
    let mut talkers = Vec::new();
    for (node, name) in nodes.iter().zip(["ada", "bob"]) {
        let habits = Habits::new("tea", Pace::Steady(50), 1);
        talkers.push(Roamer::start(&recorder, &[node], name, habits).await?);
    }
    // One more, which is in no answer yet: it finds the others, and they hear it by its hello.
    nodes.push(node_on(pods[2], port, &flags).await?);
    linked(&nodes, POLLED_WITHIN).await?;
    dns.host(NAME, &pods);
    nodes[2].takes_clients(PATIENCE).await?;
    for talker in &mut talkers {
        talker.has_said(talker.answered() + 20, PATIENCE).await?;
    }
    recorder.kill(&mut nodes[2]).await?;
    let old = nodes[2].origin.clone();
    nodes[2].again().await?;
    linked(&nodes, POLLED_WITHIN).await?;
    for node in &nodes {
        source_is(node, "up", "").await?;
        let mesh = node.mesh().await?;
        assert!(!mesh.is_linked(&old), "{mesh:?}");
    }
    for talker in &mut talkers {
        talker.hush(PATIENCE).await?;
    }
    let checked = recorder.check(&nodes, "tea").await?;
    say!("{checked}");
    assert_eq!(checked.verdict.to_the_end, 2);
    Ok(())
}

/// Goal: what the system knows under a name is enough, with no name server named: one node finds the other, and
/// that one hears it. Method: `localhost`, at the port of a node that looks for nobody.
#[tokio::test]
async fn a_name_that_the_system_knows_is_enough() -> Outcome {
    let one = Node::start(["--registry", "none"]).await?;
    let (_, port) = one.address().rsplit_once(':').unwrap_or_default();
    let two = Node::start(flags(&[&format!("dns+localhost:{port}")], None)).await?;
    let both = [one, two];
    linked(&both, POLLED_WITHIN).await?;
    Ok(())
}

/// Goal: a resolver that fails, in whatever way, takes nobody from the mesh, and is told: what was found
/// stays, and a node that starts meanwhile goes on looking. Method: two nodes; the name server fails, knows
/// no name, has no record, says nothing; each time both say so and hear each other, and are well again
/// when it is. The third starts while it is silent.
#[tokio::test]
async fn a_resolver_that_fails_takes_nobody_away() -> Outcome {
    let dns = NameServer::start().await?;
    let (pods, port) = (pods::<3>(), free_port()?);
    let url = dns.url(NAME, port);
    let flags = flags(&[&url], None);
    dns.host(NAME, &pods);
    let mut nodes = Vec::new();
    for pod in &pods[..2] {
        nodes.push(node_on(*pod, port, &flags).await?);
    }
    linked(&nodes, POLLED_WITHIN).await?;
    for (mood, words) in [
        (Mood::Fails, "cannot be looked up"),
        (Mood::KnowsNoName, "there is no name chat.test"),
        (Mood::IsEmpty, "chat.test has no address"),
        (Mood::IsSilent, "no name server answers"),
    ] {
        dns.is(mood);
        source_is(&nodes[0], "down", words).await?;
        all_hear(&nodes).await?;
        let listed = format!("source_listed{{source=\"{url}\"}}");
        assert_eq!(
            nodes[0].metrics().await?.get(&listed)?,
            1,
            "it is forgotten"
        );
    }
    let late = node_on(pods[2], port, &flags).await?;
    late.takes_clients(PATIENCE).await?;
    source_is(&late, "down", "no name server answers").await?;
    let log = late.process.log_text();
    assert!(
        log.contains("no name server answers for chat.test"),
        "{log}"
    );
    let before = dns.asked();
    dns.is(Mood::Well);
    nodes.push(late);
    linked(&nodes, POLLED_WITHIN).await?;
    source_is(&nodes[0], "up", "").await?;
    assert!(dns.asked() > before);
    Ok(())
}

/// Goal: a name that leads to strangers does no harm, and each is told for what it is; the port comes from
/// service records. Method: records name two nodes, a registry, a node of another mesh, a node with a mesh
/// secret, and a port where nobody listens.
#[tokio::test]
async fn strangers_under_a_name_are_told_and_harm_nobody() -> Outcome {
    const SERVICE: &str = "_http._tcp.chat.test";
    let dns = NameServer::start().await?;
    let url = dns.url_of_services(SERVICE);
    let registry = Registry::start().await?;
    let seal = Seal::new().await?;
    let red = Node::start(["--registry", "none", "--mesh", "red"]).await?;
    let mut sealed = vec!["--registry".to_owned(), "none".to_owned()];
    sealed.extend(secret_flags(Some(&seal)));
    let sealed = Node::start(sealed).await?;
    let ours = [
        Node::start(flags(&[&url], None)).await?,
        Node::start(flags(&[&url], None)).await?,
    ];
    let port = |address: &str| -> anyhow::Result<u16> {
        let (_, port) = address.rsplit_once(':').unwrap_or_default();
        Ok(port.parse()?)
    };
    let nobody = free_port()?;
    let places = [
        port(registry.address())?,
        port(red.address())?,
        port(sealed.address())?,
        port(ours[0].address())?,
        port(ours[1].address())?,
        nobody,
    ];
    dns.host("pod.chat.test", &[Ipv4Addr::LOCALHOST]);
    let places: Vec<_> = places.map(|port| ("pod.chat.test", port)).into();
    dns.service(SERVICE, &places);
    linked(&ours, POLLED_WITHIN).await?;
    for node in &ours {
        node.takes_clients(PATIENCE).await?;
        eventually(POLLED_WITHIN, "each stranger is told", async || {
            let source = source_of(node).await?;
            ensure!(source.state == "up", "{source:?}");
            for (address, words) in [
                (registry.address(), "does not take this node's hello"),
                (red.address(), "of the mesh red"),
                (sealed.address(), "this is for nodes of the mesh"),
                (&*format!("127.0.0.1:{nobody}"), "nobody listens"),
            ] {
                let told = source.error.split("; ").find(|it| it.contains(address));
                ensure!(told.is_some_and(|it| it.contains(words)), "{source:?}");
            }
            Ok(())
        })
        .await?;
        let mesh = node.mesh().await?;
        assert_eq!(mesh.links.len(), 1, "it dials nobody else: {mesh:?}");
    }
    for stranger in [&red, &sealed] {
        let mesh = stranger.mesh().await?;
        assert!(mesh.links.is_empty(), "a hello to an address: {mesh:?}");
    }
    Ok(())
}
