//! Static mode: ports typed by hand, and the plain form, `chat <text>`, between programs of all
//! makes.

use std::collections::HashMap;

use crate::harness::tools::{Foreign, free_port};
use crate::harness::{Client, Cluster, Node, Outcome, PATIENCE, Plain, eventually, ms};

/// Three nodes with one list of ports: each publishes on one port and subscribes to all three.
async fn three(ports: &[u16; 3]) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for port in ports {
        let mut args = ["--http", "0", "--pub", &port.to_string()]
            .map(str::to_owned)
            .to_vec();
        for other in ports {
            args.extend(["--sub".to_owned(), other.to_string()]);
        }
        nodes.push(Node::start(args).await?);
    }
    Ok(nodes)
}

fn count(lines: &[String]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for line in lines {
        *counts.entry(line.as_str()).or_default() += 1;
    }
    counts
}

/// Waits until what is said at each is heard at all: plain subscriptions carry no beats, so there
/// is no other sign that they stand.
async fn all_hear_all(clients: &[Plain]) -> anyhow::Result<()> {
    for (place, client) in clients.iter().enumerate() {
        eventually(PATIENCE, "all hear all", async || {
            let probe = format!("probe {place} {}", rand::random::<u32>());
            client.say(&probe);
            for other in clients {
                other
                    .line(std::time::Duration::from_millis(300), &probe)
                    .await?;
            }
            anyhow::Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Goal: the plain form is anybody's: a foreign ZeroMQ program hears `chat <text>` and is heard,
/// each text once. Method: libzmq under Node.js in the place of the third server.
#[tokio::test]
async fn a_foreign_zeromq_program_is_heard_and_hears() -> Outcome {
    let ports = [free_port()?, free_port()?, free_port()?];
    let args = |own: u16, others: [u16; 2]| {
        [
            "--http",
            "0",
            "--pub",
            &own.to_string(),
            "--sub",
            &others[0].to_string(),
            "--sub",
            &format!("tcp://127.0.0.1:{}", others[1]),
        ]
        .map(str::to_owned)
    };
    let one = Node::start(args(ports[0], [ports[1], ports[2]])).await?;
    let two = Node::start(args(ports[1], [ports[0], ports[2]])).await?;
    let clients = [
        Plain::connect(&one, "").await?,
        Plain::connect(&two, "").await?,
    ];
    let mut foreign = Foreign::start(ports[2], &ports[..2]).await?;
    all_hear_all(&clients).await?;
    // The foreign program must be heard by both before what it says is counted.
    for client in &clients {
        eventually(PATIENCE, "the foreign program is heard", async || {
            let probe = format!("foreign probe {}", rand::random::<u32>());
            foreign.say(&probe).await?;
            client
                .line(std::time::Duration::from_millis(300), &probe)
                .await
        })
        .await?;
    }
    foreign.say("grüße <b>from afar</b>").await?;
    for client in &clients {
        client.line(PATIENCE, "grüße <b>from afar</b>").await?;
    }
    for round in 0..20 {
        clients[0].say(&format!("to the foreign {round}"));
    }
    clients[0].say("fence");
    let heard = foreign.hears("fence").await?;
    let counts = count(&heard);
    for round in 0..20 {
        assert_eq!(
            counts.get(&*format!("to the foreign {round}")),
            Some(&1),
            "{heard:?}"
        );
    }
    assert!(
        !heard.iter().any(|text| text.contains("grüße")),
        "its own words went out again"
    );
    for client in &clients {
        client.line(PATIENCE, "fence").await?;
        assert_eq!(count(&client.lines())["grüße <b>from afar</b>"], 1);
    }
    Ok(())
}

/// Goal: programs of both editions of the textbook are heard, each in its own form, and a node speaks in the
/// form that it is told to. Method: a program of each, and a node for each that hears both programs; one of
/// them with `--sub-form two`.
#[tokio::test]
async fn both_editions_are_heard_and_each_is_spoken_to_in_its_form() -> Outcome {
    let ports = [free_port()?, free_port()?, free_port()?, free_port()?];
    let [here, there, third, fourth] = ports;
    let mut old = Foreign::start(third, &[here]).await?;
    let mut new = Foreign::in_two_parts(fourth, &[there]).await?;
    let args = |own: u16, form: &str| {
        let args = format!("--pub {own} --sub {third} --sub {fourth} --sub-form {form}");
        args.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let nodes = [
        Node::start(args(here, "one")).await?,
        Node::start(args(there, "two")).await?,
    ];
    for (node, foreign) in nodes.iter().zip([&mut old, &mut new]) {
        let client = Plain::connect(node, "").await?;
        eventually(PATIENCE, "the program is heard, and hears", async || {
            let probe = format!("probe {}", rand::random::<u32>());
            foreign.say(&probe).await?;
            client.line(ms(300), &probe).await?;
            client.say(&format!("back {probe}"));
            let heard = foreign.next(ms(300)).await?;
            anyhow::ensure!(heard.starts_with("back probe"), "{heard}");
            Ok::<(), anyhow::Error>(())
        })
        .await?;
    }
    let client = Plain::connect(&nodes[0], "").await?;
    for (foreign, text) in [(&mut old, "from the third"), (&mut new, "from the fourth")] {
        foreign.say(text).await?;
        client.line(PATIENCE, text).await?;
        assert_eq!(count(&client.lines())[text], 1);
    }
    Ok(())
}

/// Goal: what comes in plain is appended to the node's own log, so that one node feeds a mesh, and
/// never goes out in plain form again. Method: a mesh of two, one of them with `--sub` to the
/// foreign program; all clients of the mesh are shown it once; the foreign program hears only
/// what clients of that one node say.
#[tokio::test]
async fn one_node_feeds_a_mesh_from_a_foreign_publisher() -> Outcome {
    let mut cluster = Cluster::start(1).await?;
    let [foreign_port, feeder_port] = [free_port()?, free_port()?];
    let mut foreign = Foreign::start(foreign_port, &[feeder_port]).await?;
    let feeder = Node::start(
        [
            "--registry",
            &cluster.registry.url,
            "--pub",
            &feeder_port.to_string(),
            "--sub",
            &foreign_port.to_string(),
        ]
        .map(str::to_owned),
    )
    .await?;
    cluster.nodes.push(feeder);
    cluster.linked(PATIENCE).await?;
    let far = Client::joined(&cluster.nodes[0], "ada", "lobby").await?;
    let near = Client::joined(&cluster.nodes[1], "bob", "lobby").await?;
    eventually(PATIENCE, "the foreign program is heard", async || {
        let probe = format!("probe {}", rand::random::<u32>());
        foreign.say(&probe).await?;
        far.message(std::time::Duration::from_millis(300), &probe)
            .await
    })
    .await?;
    eventually(PATIENCE, "the foreign program hears", async || {
        near.send("lobby", "probe").await?;
        foreign.next(std::time::Duration::from_millis(300)).await
    })
    .await?;
    foreign.say("from afar").await?;
    for client in [&far, &near] {
        let message = client.message(PATIENCE, "from afar").await?;
        assert_eq!(
            message.origin(),
            cluster.nodes[1].origin,
            "the feeder's own log holds it"
        );
    }
    near.send("lobby", "fence").await?;
    let heard = foreign.hears("fence").await?;
    assert!(
        heard.iter().all(|text| !text.contains("from afar")),
        "{heard:?}"
    );
    far.message(PATIENCE, "fence").await?;
    let texts: Vec<_> = far
        .messages()
        .into_iter()
        .map(|(_, msg)| msg.text)
        .collect();
    assert_eq!(count(&texts)["from afar"], 1);
    Ok(())
}

/// Goal: a static peer that dies and comes back on its port is heard again.
/// Method: kill -9 one of three, start it again with its flags.
#[tokio::test]
async fn a_static_peer_that_comes_back_is_heard_again() -> Outcome {
    let ports = [free_port()?, free_port()?, free_port()?];
    let mut nodes = three(&ports).await?;
    let survivors = [
        Plain::connect(&nodes[0], "").await?,
        Plain::connect(&nodes[1], "").await?,
    ];
    nodes[2].process.kill().await?;
    nodes[2].again().await?;
    let back = Plain::connect(&nodes[2], "").await?;
    let [one, two] = survivors;
    all_hear_all(&[one, two, back]).await?;
    Ok(())
}

/// Where the nodes of a case keep their history: a letter for each, `m` in memory, `d` on a disk.
const CASES: [&str; 8] = ["m", "d", "mm", "md", "dd", "mmm", "mdd", "ddd"];
/// What each node's client says in each round.
const TEXTS: usize = 10;

/// Goal: static mode is a chat, each text once for each client and once in each history, wherever
/// the nodes keep it, also over a kill -9 and a start with the same folder; and no registry is used.
/// Method: the lines of `--help`, for one, two and three nodes in memory and on disk, in memory each
/// with one list of ports, its own among them; all talk; then all are killed and started again, talk
/// again, and each history is counted: what a node heard and said again would double in it, and what
/// it found on its disk and said again as well.
#[tokio::test]
async fn static_mode_says_each_text_once_in_memory_and_on_disk() -> Outcome {
    for case in CASES {
        once(case).await?;
    }
    Ok(())
}

async fn once(case: &str) -> Outcome {
    let folder = tempfile::tempdir()?;
    let ports = case
        .chars()
        .map(|_| free_port())
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut nodes = Vec::new();
    for (place, kept) in case.chars().enumerate() {
        let mut args = ["--http", "0", "--pub"].map(str::to_owned).to_vec();
        args.push(ports[place].to_string());
        let one_list = case == "mmm";
        let others = ports.iter().enumerate();
        for (_, other) in others.filter(|(it, _)| one_list || *it != place) {
            args.extend(["--sub".to_owned(), other.to_string()]);
        }
        if ports.len() == 1 {
            args.extend(["--sub".to_owned(), free_port()?.to_string()]);
        }
        if kept == 'd' {
            let own = folder.path().join(place.to_string());
            args.extend(["--data".to_owned(), own.display().to_string()]);
        }
        nodes.push(Node::start(args).await?);
    }
    talk(case, &nodes, "first").await?;
    for node in &mut nodes {
        node.process.kill().await?;
    }
    for node in &mut nodes {
        node.again().await?;
    }
    talk(case, &nodes, "second").await?;
    for (node, kept) in nodes.iter().zip(case.chars()) {
        let both = kept == 'd';
        let lines = texts(node).await?;
        let counts = count(&lines);
        for place in 0..nodes.len() {
            for number in 0..TEXTS {
                let of = |round: &str| counts.get(&*format!("{round} {place}.{number}")).copied();
                assert_eq!(of("second"), Some(1), "{case}: {lines:?}");
                assert_eq!(of("first"), both.then_some(1), "{case}: {lines:?}");
            }
        }
        let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
        assert!(doubled.is_empty(), "{case}: said again: {doubled:?}");
    }
    Ok(())
}

/// A client on each node says its texts, and each sees all of them once.
async fn talk(case: &str, nodes: &[Node], round: &str) -> Outcome {
    let mut clients = Vec::new();
    for node in nodes {
        node.takes_clients(PATIENCE).await?;
        assert!(node.mesh().await?.registries.is_empty(), "{case}");
        clients.push(Plain::connect(node, "").await?);
    }
    all_hear_all(&clients).await?;
    for (place, client) in clients.iter().enumerate() {
        for number in 0..TEXTS {
            client.say(&format!("{round} {place}.{number}"));
        }
        client.say(&format!("{round} fence {place}"));
    }
    // What goes round comes round: a second fence is said when the first is seen everywhere.
    for fence in ["fence", "last fence"] {
        for client in &clients {
            for place in 0..clients.len() {
                let text = format!("{round} {fence} {place}");
                client.line(PATIENCE, &text).await?;
            }
        }
        if fence == "fence" {
            for (place, client) in clients.iter().enumerate() {
                client.say(&format!("{round} last fence {place}"));
            }
        }
    }
    for client in &clients {
        let lines = client.lines();
        for (text, count) in count(&lines) {
            assert_eq!(count, 1, "{case}: {text:?} came {count} times");
        }
    }
    Ok(())
}

/// The texts of a node's room, all of them.
async fn texts(node: &Node) -> anyhow::Result<Vec<String>> {
    let page = node.get_json("/api/rooms/lobby/messages?limit=200").await?;
    assert_eq!(page["more"], false, "more than a page was said");
    let messages = page["messages"].as_array().cloned().unwrap_or_default();
    let text = |message: &serde_json::Value| message["text"].as_str().map(str::to_owned);
    Ok(messages.iter().filter_map(text).collect())
}
