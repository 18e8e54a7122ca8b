//! Nodes that find each other at etcd and Consul, and at several places at once.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::harness::engines::Broker as _;
use crate::harness::engines::certificates::Certificates;
use crate::harness::engines::consul::Consul;
use crate::harness::engines::etcd::Etcd;
use crate::harness::engines::redis::Redis;
use crate::harness::process::Launch;
use crate::harness::sealed::{Over, over_each};
use crate::harness::sources::{all_hear, flags, nodes_with, source_is, source_of};
use crate::harness::tools::free_port;
use crate::harness::{
    Habits, Instant, Node, Outcome, PATIENCE, Pace, Recorder, Registry, Roamer, eventually, linked,
    ms, say, secs,
};

over_each!(etcd_is_killed_and_comes_back_with_its_data_or_empty);

/// How the keys of nodes begin.
const PREFIX: &str = "test/chat";

/// Waits until etcd has a key for each of these nodes, and for no other.
async fn has_keys(etcd: &Etcd, nodes: &[&Node]) -> Result<()> {
    let mut wanted: Vec<String> = nodes
        .iter()
        .map(|node| format!("{PREFIX}/main/{}", node.origin))
        .collect();
    wanted.sort();
    eventually(PATIENCE, "etcd has the keys of all nodes", async || {
        let keys = etcd.keys(PREFIX).await?;
        let keys: Vec<_> = keys.into_iter().map(|(key, ..)| key).collect();
        ensure!(keys == wanted, "{keys:?}, not {wanted:?}");
        Ok(())
    })
    .await
}

fn each(nodes: &[Node]) -> Vec<&Node> {
    nodes.iter().collect()
}

/// Goal: etcd may be killed and come back, with its data or without: nothing that is said is lost, no link
/// closes, all nodes are known there again, and who starts then finds all. Method: clients talk on three
/// nodes; kill -9, a while, again with the data; once more, again empty; then a fourth node.
async fn etcd_is_killed_and_comes_back_with_its_data_or_empty(over: Over) -> Outcome {
    let seal = over.seal().await?;
    let mut etcd = Etcd::start().await?;
    let flags = flags(&[&etcd.url(PREFIX)], seal.as_ref());
    let mut nodes = nodes_with(&flags, 3).await?;
    has_keys(&etcd, &each(&nodes)).await?;
    let recorder = Recorder::new();
    let mut talkers = Vec::new();
    for (node, name) in nodes.iter().zip(["ada", "bob", "eve"]) {
        let habits = Habits::new("tea", Pace::Steady(50), 1);
        talkers.push(Roamer::start(&recorder, &[node], name, habits).await?);
    }
    for keeps in [true, false] {
        etcd.kill().await?;
        for node in &nodes {
            source_is(node, "down", "no way to it").await?;
        }
        all_hear(&nodes).await?;
        for talker in &mut talkers {
            talker.has_said(talker.answered() + 20, PATIENCE).await?;
        }
        match keeps {
            true => etcd.again().await?,
            false => etcd.again_empty().await?,
        }
        let back = Instant::now();
        has_keys(&etcd, &each(&nodes)).await?;
        say!(
            "back, kept {keeps}: all are known after {:?}",
            back.elapsed()
        );
        for node in &nodes {
            source_is(node, "up", "").await?;
        }
        all_hear(&nodes).await?;
    }
    nodes.push(Node::start(flags).await?);
    linked(&nodes, PATIENCE).await?;
    for talker in &mut talkers {
        talker.hush(PATIENCE).await?;
        assert_eq!(talker.moves().len(), 0, "no client had to move");
    }
    let checked = recorder.check(&nodes, "tea").await?;
    say!("{checked}");
    assert_eq!((checked.verdict.to_the_end, checked.losses.lost), (3, 0));
    Ok(())
}

/// Goal: whatever is done to a node's key and lease, or to what etcd remembers, the node is known again; what
/// strangers put there is left out; a node that ends in order is gone at once. Method: the test revokes a
/// lease, deletes a key, compacts, puts keys that are none, and then starts and stops a node.
#[tokio::test]
async fn a_lease_or_a_key_that_is_lost_is_made_anew() -> Outcome {
    let etcd = Etcd::start().await?;
    let flags = flags(&[&etcd.url(PREFIX)], None);
    let nodes = nodes_with(&flags, 2).await?;
    has_keys(&etcd, &each(&nodes)).await?;
    let lease_of = async |node: &Node| {
        let key = format!("{PREFIX}/main/{}", node.origin);
        let keys = etcd.keys(&key).await?;
        ensure!(keys.len() == 1, "{keys:?}");
        Ok(keys[0].2.clone())
    };
    let lost = lease_of(&nodes[0]).await?;
    etcd.ask("lease/revoke", json!({ "ID": lost })).await?;
    has_keys(&etcd, &each(&nodes)).await?;
    let taken = lease_of(&nodes[0]).await?;
    assert!(taken != lost && taken != "0", "it is kept by a lease");
    etcd.delete(&format!("{PREFIX}/main/{}", nodes[1].origin))
        .await?;
    has_keys(&etcd, &each(&nodes)).await?;
    etcd.compact().await?;
    let value = json!({ "name": "x", "endpoints": {
        "http": "http://127.0.0.1:9", "pub": "tcp://127.0.0.1:9",
    } });
    // Of another mesh, of no origin, of no form, too long.
    for (key, value) in [
        ("red/strangeraa", value.to_string()),
        ("main/no-origin", value.to_string()),
        ("main/strangeraa", "no JSON".to_owned()),
        ("main/strangerbb", format!("{value}{}", " ".repeat(10_000))),
        (
            "main/strangercc",
            value.to_string().replace("127.0.0.1", "0.0.0.0"),
        ),
    ] {
        etcd.put(&format!("{PREFIX}/{key}"), &value).await?;
    }
    // Who starts behind all that sees what is there, and is seen.
    let mut third = Node::start(flags).await?;
    let all = [&nodes[0], &nodes[1], &third];
    linked(&all, PATIENCE).await?;
    for node in all {
        let mesh = node.mesh().await?;
        assert_eq!(mesh.links.len(), 2, "strangers are dialled: {mesh:?}");
    }
    let key = format!("{PREFIX}/main/{}", third.origin);
    assert_eq!(etcd.keys(&key).await?.len(), 1);
    third.process.stop(PATIENCE).await?;
    assert!(etcd.keys(&key).await?.is_empty(), "its lease is revoked");
    Ok(())
}

/// Goal: who has to say who he is at etcd is let in by what stands in the variable, and a password is told
/// nowhere. Method: etcd with users; a node whose password is wrong, and two whose is right.
#[tokio::test]
async fn users_of_etcd_are_let_in_and_their_passwords_told_nowhere() -> Outcome {
    const PASSWORD: &str = "s3cret-and-long";
    let etcd = Etcd::start().await?;
    etcd.lock("chat", PASSWORD, PREFIX).await?;
    let start = async |password: &str| {
        let url = format!("etcd://chat:{password}@{}/{PREFIX}", etcd.address());
        let launch = Launch::new("chatnode", ["--log", "text"]);
        Node::launch(
            launch
                .with("CHATNODE_DISCOVER", url)
                .with("RUST_LOG", "debug"),
        )
        .await
    };
    let wrong = start(&format!("{PASSWORD}-no")).await?;
    source_is(&wrong, "down", "authentication failed").await?;
    let right = [start(PASSWORD).await?, start(PASSWORD).await?];
    linked(&right, PATIENCE).await?;
    for node in right.iter().chain([&wrong]) {
        let mut told = node.process.log_text();
        for path in ["/api/mesh", "/readyz", "/metrics"] {
            told.push_str(&node.get(path).await?.text().await?);
        }
        assert!(!told.contains("s3cret"), "the password is told");
    }
    Ok(())
}

/// Goal: in TLS etcd is who its certificate says, by the authorities that the node's machine trusts. Method: two
/// nodes that trust the authority, and one that trusts another.
#[tokio::test]
async fn etcd_in_tls_is_trusted_by_its_certificate_only() -> Outcome {
    let (folder, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let [own, other] = [&folder, &other].map(|folder| Certificates::new(folder.path()));
    let (own, other) = (own?, other?);
    let etcd = Etcd::in_tls(&own).await?;
    let start = async |trusted: &Certificates| {
        let launch = Launch::new("chatnode", flags(&[&etcd.url_in_tls(PREFIX)], None));
        let trusted = trusted.authority.display().to_string();
        let launch = launch.with("SSL_CERT_FILE", trusted);
        Node::launch(launch.with("SSL_CERT_DIR", "")).await
    };
    let nodes = [start(&own).await?, start(&own).await?];
    linked(&nodes, PATIENCE).await?;
    source_is(&nodes[0], "up", "").await?;
    let stranger = start(&other).await?;
    source_is(&stranger, "down", "its certificate is not trusted").await?;
    Ok(())
}

/// Goal: of several places where nodes find each other one may die, and nobody notices; who is known at one
/// only is heard by all. Method: etcd and a registry; one node at etcd only, one at the registry only, one at
/// both; etcd dies, then it is back and the registry dies; clients talk all the time.
#[tokio::test]
async fn of_etcd_and_a_registry_one_may_die() -> Outcome {
    let mut etcd = Etcd::start().await?;
    let mut registry = Registry::start().await?;
    let (here, there) = (etcd.url(PREFIX), format!("registry+{}", registry.url));
    let sources: [&[&str]; 3] = [&[&here, &there], &[&here], &[&there]];
    let mut nodes = Vec::new();
    for sources in sources {
        nodes.push(Node::start(flags(sources, None)).await?);
    }
    // The one that is at both places hears both; of the others each is heard by its hello, and hears.
    let both = &nodes[0];
    eventually(PATIENCE, "the one at both hears both", async || {
        let mesh = both.mesh().await?;
        ensure!(mesh.up() == 2, "{mesh:?}");
        Ok(())
    })
    .await?;
    nodes.truncate(1);
    for _ in 0..2 {
        nodes.push(Node::start(flags(&[&here, &there], None)).await?);
    }
    linked(&nodes, PATIENCE).await?;
    let recorder = Recorder::new();
    let mut talkers = Vec::new();
    for (node, name) in nodes.iter().zip(["ada", "bob", "eve"]) {
        let habits = Habits::new("tea", Pace::Steady(50), 1);
        talkers.push(Roamer::start(&recorder, &[node], name, habits).await?);
    }
    let states = async |wanted: [&str; 2]| {
        eventually(PATIENCE, "each says which is up", async || {
            for node in &nodes {
                let mesh = node.mesh().await?;
                let states: Vec<_> = mesh.registries.iter().map(|it| it.state.as_str()).collect();
                ensure!(states == wanted, "{mesh:?}");
            }
            Ok(())
        })
        .await
    };
    // Registries stand first.
    states(["up", "up"]).await?;
    etcd.kill().await?;
    states(["up", "down"]).await?;
    all_hear(&nodes).await?;
    etcd.again().await?;
    states(["up", "up"]).await?;
    registry.process.kill().await?;
    states(["down", "up"]).await?;
    for talker in &mut talkers {
        talker.has_said(talker.answered() + 20, PATIENCE).await?;
    }
    all_hear(&nodes).await?;
    registry.again().await?;
    states(["up", "up"]).await?;
    for talker in &mut talkers {
        talker.hush(PATIENCE).await?;
        assert_eq!(talker.moves().len(), 0, "no client had to move");
    }
    let checked = recorder.check(&nodes, "tea").await?;
    say!("{checked}");
    assert_eq!((checked.verdict.to_the_end, checked.losses.lost), (3, 0));
    Ok(())
}

/// Waits until just these pass their checks.
async fn pass(consul: &Consul, nodes: &[&Node]) -> Result<()> {
    let mut wanted: Vec<_> = nodes.iter().map(|node| node.origin.clone()).collect();
    wanted.sort();
    eventually(PATIENCE, "these pass", async || {
        let passing = consul.passing();
        ensure!(passing == wanted, "{passing:?}, not {wanted:?}");
        Ok(())
    })
    .await
}

/// Goal: nodes find each other as instances of a service of Consul; whatever the agent forgets they say
/// again; an index that goes back, or moves for nothing, does no harm. Method: a double of an agent, which
/// wants a token, forgets a check, wakes queries for nothing, is killed, and comes back empty with a lower
/// index; beside the nodes are listed other programs and a node of another mesh.
#[tokio::test]
async fn nodes_find_each_other_as_a_service_of_consul() -> Outcome {
    let mut consul = Consul::start(Some("s3cret")).await?;
    let meta = json!({ "mesh": "red", "name": "x", "http": "http://127.0.0.1:9", "pub": "tcp://127.0.0.1:9" });
    for (id, meta) in [
        ("strangeraa", meta),
        ("other", json!({})),
        ("none", json!(null)),
    ] {
        consul.list(json!({ "ID": id, "Name": "chat", "Meta": meta, "Address": "", "Port": 9 }));
    }
    let address = consul.address();
    let start = async |token: &str| {
        let url = format!("consul://{token}{address}/chat");
        Node::launch(Launch::new("chatnode", ["--log", "text"]).with("CHATNODE_DISCOVER", url))
            .await
    };
    let stranger = start("").await?;
    source_is(&stranger, "down", "Permission denied").await?;
    let mut nodes = vec![start("s3cret@").await?, start("s3cret@").await?];
    linked(&nodes, PATIENCE).await?;
    let said = consul.said(&nodes[0].origin).unwrap_or_default();
    assert_eq!(said["Meta"]["http"], nodes[0].http, "{said}");
    assert_eq!(said["Address"], Ipv4Addr::LOCALHOST.to_string(), "{said}");
    // Queries are bounded though each returns at once.
    let woken = Instant::now();
    let mut ticks = tokio::time::interval(ms(10));
    while woken.elapsed() < secs(3) {
        ticks.tick().await;
        consul.touch();
    }
    let queries = consul.queries_since(woken);
    say!("two nodes asked {queries} times in {:?}", woken.elapsed());
    assert!(queries >= 4, "they do ask");
    assert!(queries <= 2 * (4 + 2 * 5), "{queries} queries");
    for id in ["strangeraa", "other", "none"] {
        consul.forget(id);
    }
    consul.forget(&nodes[0].origin);
    pass(&consul, &[&nodes[0], &nodes[1]]).await?;
    consul.kill()?;
    for node in &nodes {
        source_is(node, "down", "no way to it").await?;
    }
    all_hear(&nodes).await?;
    consul.again_empty()?;
    pass(&consul, &[&nodes[0], &nodes[1]]).await?;
    for node in &nodes {
        source_is(node, "up", "").await?;
        assert_eq!(node.mesh().await?.links.len(), 1);
        assert!(!node.process.log_text().contains("s3cret"));
        assert!(!source_of(node).await?.url.contains("s3cret"));
    }
    nodes.push(start("s3cret@").await?);
    linked(&nodes, PATIENCE).await?;
    let mut third = nodes.pop().expect("it was pushed");
    third.process.stop(PATIENCE).await?;
    assert!(!consul.passing().contains(&third.origin), "it is taken out");
    all_hear(&nodes).await?;
    Ok(())
}

/// Goal: what else a node is told goes with it: a name of the mesh parts those who share an etcd, a broker may
/// carry, foreign programs may be heard, history may be on disk. Method: two nodes of `red` at Redis and etcd;
/// two of `blue` at the same etcd, of which one hears a publisher by hand and one keeps its history.
#[tokio::test]
async fn names_of_meshes_brokers_static_mode_and_disks_go_with_it() -> Outcome {
    let (etcd, redis) = (Etcd::start().await?, Redis::start().await?);
    let at = flags(&[&etcd.url(PREFIX)], None);
    let with = |more: &[&str]| {
        let more = more.iter().map(|&flag| flag.to_owned());
        at.iter().cloned().chain(more).collect::<Vec<_>>()
    };
    let url = redis.url();
    let red = nodes_with(&with(&["--mesh", "red", "--bus", &url]), 2).await?;
    let disk = tempfile::tempdir()?;
    let data = disk.path().join("data").display().to_string();
    let nobody = free_port()?.to_string();
    let blue = [
        Node::start(with(&["--mesh", "blue", "--sub", &nobody])).await?,
        Node::start(with(&["--mesh", "blue", "--data", &data])).await?,
    ];
    linked(&blue, PATIENCE).await?;
    for (mesh, nodes, is_published) in [("red", &red[..], false), ("blue", &blue, true)] {
        let keys = etcd.keys(&format!("{PREFIX}/{mesh}/")).await?;
        assert_eq!(keys.len(), 2, "{keys:?}");
        for (_, said, _) in &keys {
            let has_publisher = said["endpoints"].get("pub").is_some();
            assert_eq!(has_publisher, is_published, "{said}");
        }
        for node in nodes {
            let links = node.mesh().await?.links;
            let others = links.iter().filter(|link| link.origin.is_some());
            assert_eq!(others.count(), 1, "{links:?}");
        }
    }
    Ok(())
}
