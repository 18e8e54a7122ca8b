//! Two meshes: what they meet at, a port, a registry, is no reason to become one.

use serde_json::{Value, json};

use crate::harness::cluster::{Listing, http};
use crate::harness::process::Launch;
use crate::harness::tools::free_port;
use crate::harness::{
    Client, Cluster, Duration, Instant, NOISE, Node, Outcome, PATIENCE, Registry, eventually,
    histories, linked, ms, secs,
};
use crate::hostile::still_chats;

/// A lease, and what it takes to be seen to have ended.
const UNLISTED_WITHIN: Duration = secs(12);

/// The link of a node to where this origin, or this endpoint, should be.
pub(crate) async fn link_to(node: &Node, who: &str) -> anyhow::Result<Value> {
    let mesh = node.get_json("/api/mesh").await?;
    let links = mesh["links"].as_array().cloned().unwrap_or_default();
    let link = links
        .iter()
        .find(|it| it["origin"] == who || it["pub"] == who);
    Ok(link.cloned().unwrap_or_default())
}

/// Waits until a node says this of a peer: in `/api/mesh` and in `/readyz`.
pub(crate) async fn says(node: &Node, who: &str, reason: &str) -> anyhow::Result<()> {
    eventually(PATIENCE, "the reason is told", async || {
        let link = link_to(node, who).await?;
        anyhow::ensure!(link["reason"] == reason, "{link}");
        let ready = node.get("/readyz").await?.text().await?;
        let text = link["error"].as_str().unwrap_or("?");
        anyhow::ensure!(
            ready.contains(who) && ready.contains(text),
            "{link} but {ready}"
        );
        Ok(())
    })
    .await
}

/// Each node hears nobody but those of its own mesh, and has only their history.
async fn apart(ours: &[&Node], theirs: &[&Node]) -> anyhow::Result<()> {
    for (mine, others) in [(ours, theirs), (theirs, ours)] {
        for node in mine {
            let mesh = node.mesh().await?;
            for other in others {
                assert!(
                    !mesh.is_linked(&other.origin),
                    "strangers are linked: {mesh:?}"
                );
                let of = format!("{}.", other.origin);
                let knows = mesh.position.iter().any(|id| id.starts_with(&of));
                assert!(!knows, "strangers share a history: {mesh:?}");
            }
        }
        assert_eq!(histories(mine, "tea", PATIENCE).await?.len(), mine.len());
    }
    Ok(())
}

async fn each_says(nodes: &[&Node]) -> Outcome {
    for node in nodes {
        node.takes_clients(PATIENCE).await?;
        let client = Client::joined(node, "ada", "tea").await?;
        client
            .send("tea", &format!("said at {}", node.origin))
            .await?;
    }
    Ok(())
}

/// Goal: when a node is killed and one of another mesh starts on its ports within its lease, the two
/// meshes stay two, though they have one name. Method: two registries; the newcomer takes the HTTP
/// port, the PUB port, or both; until the lease has ended nobody is linked to a stranger, and the
/// survivor says who is there instead.
#[tokio::test]
async fn a_stranger_on_a_dead_nodes_ports_is_not_taken_for_it() -> Outcome {
    for flags in [&["--http"][..], &["--pub"], &["--http", "--pub"]] {
        let mut cluster = Cluster::start(2).await?;
        each_says(&[&cluster.nodes[0]]).await?;
        let other = Registry::start().await?;
        let friend = Node::start(["--registry", &other.url]).await?;
        let mut dead = cluster.nodes.remove(1);
        let survivor = &cluster.nodes[0];
        dead.process.kill().await?;
        let mut args = vec!["--registry", &other.url];
        for flag in flags {
            let endpoint = if *flag == "--http" {
                &dead.http
            } else {
                &dead.publishes
            };
            let (_, address) = endpoint.split_once("://").unwrap_or_default();
            args.extend([*flag, address]);
        }
        let stranger = Node::start(args).await?;
        says(survivor, &dead.origin, "other_node").await?;
        let link = link_to(survivor, &dead.origin).await?;
        let text = link["error"].as_str().unwrap_or_default();
        assert!(text.contains(&stranger.origin), "{flags:?}: {link}");
        linked(&[&friend, &stranger], PATIENCE).await?;
        each_says(&[&friend, &stranger]).await?;
        eventually(
            UNLISTED_WITHIN,
            "the dead one's lease has ended",
            async || {
                let listed = cluster.registry.listed().await?;
                anyhow::ensure!(listed.len() == 1, "{listed:?}");
                apart(&[survivor], &[&friend, &stranger]).await
            },
        )
        .await?;
    }
    Ok(())
}

/// Goal: a node of a mesh with another name is a stranger at a port that was given by hand, and is
/// named as one. Method: `--peer`; the peer is killed, and a node with another `--mesh` takes both its
/// ports; then the true one comes back and is linked.
#[tokio::test]
async fn a_peer_by_hand_must_be_of_the_same_mesh() -> Outcome {
    for (name, other) in [("main", "blue"), ("blue", "main")] {
        let alone = ["--registry", "none", "--mesh", name];
        let mut peer = Node::start(alone).await?;
        let at = peer.publishes.clone();
        let node = Node::start(alone.into_iter().chain(["--peer", &at])).await?;
        linked(&[&node, &peer], PATIENCE).await?;
        each_says(&[&node]).await?;
        peer.process.kill().await?;
        let of = |url: &str| url.split_once("://").map(|(_, it)| it.to_owned());
        let (http, publishes) = (of(&peer.http), of(&at));
        let mut launch = Launch::new("chatnode", ["--registry", "none", "--mesh", other]);
        for (flag, address) in [("--http", http), ("--pub", publishes)] {
            launch
                .args
                .extend([flag.to_owned(), address.unwrap_or_default()]);
        }
        let mut stranger = Node::launch(launch).await?;
        says(&node, &at, "other_mesh").await?;
        let link = link_to(&node, &at).await?;
        assert!(
            link["error"].as_str().unwrap_or_default().contains(other),
            "{link}"
        );
        each_says(&[&stranger]).await?;
        let heard = node.mesh().await?.up() + stranger.mesh().await?.up();
        assert_eq!(heard, 0, "nobody hears a stranger");
        assert_eq!(histories(&[&stranger], "tea", PATIENCE).await?.len(), 1);
        stranger.process.kill().await?;
        peer.again_on_its_ports().await?;
        linked(&[&node, &peer], PATIENCE).await?;
    }
    Ok(())
}

/// Goal: meshes with two names share a registry and stay two. Method: two nodes of each.
#[tokio::test]
async fn two_meshes_share_a_registry_and_stay_two() -> Outcome {
    let registry = Registry::start().await?;
    let start = async |mesh: &str| {
        Node::start(["--registry", &registry.url, "--mesh", mesh].map(str::to_owned)).await
    };
    let red = [start("red").await?, start("red").await?];
    let main = [start("main").await?, start("main").await?];
    let (red, main): (Vec<_>, Vec<_>) = (red.iter().collect(), main.iter().collect());
    for nodes in [&red, &main] {
        linked(nodes, PATIENCE).await?;
        each_says(nodes).await?;
    }
    assert_eq!(registry.listed().await?.len(), 4);
    apart(&red, &main).await?;
    let body = json!({
        "origin": "strangeraa", "pub": "tcp://127.0.0.1:9", "http": "http://127.0.0.1:9",
        "to": red[0].origin, "mesh": "main",
    });
    let (status, answer) = red[0].post("/mesh/hello", &body).await?;
    assert_eq!(
        (status, &answer["code"]),
        (421, &json!("other_mesh")),
        "{answer}"
    );
    for door in ["log/strangeraa?after=0&through=1&", "members?", "position?"] {
        for (meant, code) in [
            ("to=strangeraa&mesh=red".to_owned(), "other_node"),
            (format!("to={}&mesh=main", red[0].origin), "other_mesh"),
        ] {
            let answer = red[0].get(&format!("/mesh/{door}{meant}")).await?;
            assert_eq!(answer.status(), 421, "{door}{meant}");
            let problem: Value = answer.json().await?;
            assert_eq!(problem["code"], code, "{door}{meant}");
        }
    }
    Ok(())
}

/// Goal: a node that lacks peers takes clients after 5 s, not before and not never; whom it lacks it
/// names with the reason, in `/readyz`, `/api/mesh` and the log. Method: `--peer` to a port where
/// nobody listens, to one that takes connections and says nothing, to one that is no publisher.
#[tokio::test]
async fn a_node_says_whom_it_lacks_and_why() -> Outcome {
    let refuses = format!("tcp://127.0.0.1:{}", free_port()?);
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let silent = format!("tcp://{}", mute.local_addr()?);
    let registry = Registry::start().await?;
    let none = registry.url.replace("http://", "tcp://");
    let mut args = vec!["--registry", "none"];
    args.extend(
        [&refuses, &silent, &none]
            .iter()
            .flat_map(|peer| ["--peer", peer]),
    );
    let node = Node::start(args).await?;
    let waiting = node.get("/readyz").await?;
    assert_eq!(waiting.status(), 503, "ready without its peers at once");
    node.takes_clients(secs(5) + NOISE * 2).await?;
    let took = node.process.ready_at.elapsed();
    assert!(took >= secs(4), "ready without its peers after {took:?}");
    for (peer, reason, word) in [
        (&refuses, "refused", "refused"),
        (&silent, "timed_out", "timed out"),
        (&none, "no_publisher", "no publisher"),
    ] {
        says(&node, peer, reason).await?;
        // At the latest when it has been so for ten seconds, it is said in a line of its own.
        eventually(PATIENCE, "the log says so", async || {
            let log = node.process.log_text();
            let told = |line: &str| line.contains(&**peer) && line.contains(word);
            anyhow::ensure!(log.lines().any(told), "{peer} {word}: {log}");
            Ok(())
        })
        .await?;
    }
    drop(mute);
    Ok(())
}

/// Goal: two ids that tell one endpoint do not throw each other out of the list in turns: the newer is
/// listed, the elder says so once with both ids, and comes back when the other is gone. Method: the
/// test lists a rival at a node's endpoint; the registry's versions are counted.
#[tokio::test]
async fn two_that_tell_one_endpoint_do_not_take_turns() -> Outcome {
    const RIVAL: &str = "rivalaaaaa";
    let registry = Registry::start().await?;
    let node = Node::start(["--registry", &registry.url]).await?;
    node.takes_clients(PATIENCE).await?;
    let version = async || {
        let url = format!("{}/v1/nodes", registry.url);
        let answer = http()?.get(url).send().await?;
        let list: Value = answer.json().await?;
        anyhow::Ok(list["version"].as_u64().unwrap_or_default())
    };
    let before = version().await?;
    let elsewhere = "http://127.0.0.1:9";
    let listing = Listing::of(RIVAL, &node.publishes, elsewhere, &registry).await?;
    eventually(PATIENCE, "the elder says who is in its place", async || {
        let row = node.get_json("/api/mesh").await?["registries"][0].clone();
        let error = row["error"].as_str().unwrap_or_default();
        anyhow::ensure!(
            error.contains(RIVAL) && error.contains(&node.origin),
            "{row}"
        );
        Ok(())
    })
    .await?;
    assert_eq!(registry.listed().await?, [RIVAL]);
    drop(listing);
    eventually(UNLISTED_WITHIN, "the elder is listed again", async || {
        let listed = registry.listed().await?;
        anyhow::ensure!(listed == [node.origin.clone()], "{listed:?}");
        Ok(())
    })
    .await?;
    let changes = version().await? - before;
    assert!(changes <= 6, "{changes} versions: they took turns");
    let log = node.process.log_text();
    let said = log
        .lines()
        .filter(|line| line.contains("both tell"))
        .count();
    assert_eq!(said, 1, "{log}");
    Ok(())
}

/// Goal: pages of a node that was heard may use another; that a registry lists an address makes it
/// no web origin. Method: somebody is listed at the address of an evil page, and never beats.
#[tokio::test]
async fn a_listed_address_is_no_web_origin_before_it_is_heard() -> Outcome {
    const LISTED: &str = "listedaaaa";
    const EVIL: &str = "http://evil.example:8080";
    let cluster = Cluster::start(2).await?;
    let [node, friend] = cluster.each();
    let nobody = "tcp://127.0.0.1:9";
    let _listing = Listing::of(LISTED, nobody, EVIL, &cluster.registry).await?;
    eventually(PATIENCE, "the list has arrived", async || {
        let link = link_to(node, LISTED).await?;
        anyhow::ensure!(link["http"] == EVIL, "{link}");
        Ok(())
    })
    .await?;
    let asked_by = async |page: &str| {
        let request = http()?.get(format!("{}/ws", node.http));
        let answer = request.header("origin", page).send().await?;
        anyhow::Ok(answer.status().as_u16())
    };
    assert_eq!(asked_by(EVIL).await?, 403, "what is only listed");
    assert_eq!(asked_by(&friend.http).await?, 426, "what was heard");
    Ok(())
}

/// Goal: a registry that lists nonsense (dead endpoints, one that says nothing, one that is no
/// publisher) hurts no live link. Method: such records beside two live nodes, who chat on for 5 s.
#[tokio::test]
async fn records_of_nobody_hurt_no_live_link() -> Outcome {
    let mut cluster = Cluster::start(2).await?;
    let mute = std::net::TcpListener::bind("127.0.0.1:0")?;
    let silent = format!("tcp://{}", mute.local_addr()?);
    let no_publisher = format!("tcp://{}", cluster.nodes[1].address());
    let mut listings = Vec::new();
    for (id, publishes) in [
        ("deadaaaaaa", "tcp://127.0.0.1:1"),
        ("silentaaaa", &silent),
        ("httpaaaaaa", &no_publisher),
    ] {
        let http = "http://127.0.0.1:9";
        listings.push(Listing::of(id, publishes, http, &cluster.registry).await?);
    }
    let until = Instant::now() + secs(5);
    let ada = Client::joined(&cluster.nodes[0], "ada", "tea").await?;
    let bob = Client::joined(&cluster.nodes[1], "bob", "tea").await?;
    let mut count = 0;
    while Instant::now() < until {
        count += 1;
        ada.send("tea", &count.to_string()).await?;
        bob.message(secs(1) + NOISE, &count.to_string()).await?;
        tokio::time::sleep(ms(300)).await;
    }
    for node in &mut cluster.nodes {
        still_chats(node).await?;
    }
    cluster.linked(PATIENCE).await?;
    Ok(())
}
