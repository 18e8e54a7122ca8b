//! Bridges: the room of the plain form, and the textbook's programs at Redis and RabbitMQ.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use crate::harness::check::{history, parsed};
use crate::harness::engines::Broker;
use crate::harness::engines::rabbit::Rabbit;
use crate::harness::engines::redis::Redis;
use crate::harness::sealed::Over;
use crate::harness::tools::{Foreign, free_port};
use crate::harness::{
    Client, Cluster, Instant, Node, Outcome, PATIENCE, eventually, long, ms, secs,
};

/// What the foreign programs publish on.
const CHANNEL: &str = "chat_messages";

/// Runs a test, `async fn(impl Broker) -> Outcome`, at both.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use super::{Outcome, Rabbit, Redis};

            #[tokio::test]
            async fn at_redis() -> Outcome {
                super::$test(Redis::start().await?).await
            }

            #[tokio::test]
            async fn at_rabbitmq() -> Outcome {
                super::$test(Rabbit::start().await?).await
            }
        }
    )+};
}

on_both!(
    each_text_goes_to_the_other_side_once,
    another_takes_over_and_brings_what_was_said_meanwhile,
    what_was_said_while_the_broker_was_away_goes_out,
);

fn url(broker: &impl Broker) -> String {
    format!("{}/{CHANNEL}", broker.url())
}

/// What `/api/mesh` says of a node's bridges.
async fn bridges(node: &Node) -> Result<Vec<Value>> {
    let mesh = node.get_json("/api/mesh").await?;
    Ok(mesh["bridges"].as_array().context("no bridges")?.clone())
}

async fn states(nodes: &[&Node]) -> Result<Vec<String>> {
    let mut states = Vec::new();
    for node in nodes {
        for bridge in bridges(node).await? {
            states.push(bridge["state"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(states)
}

/// Waits until one of these bridges and all others would; which one.
async fn one_bridges(nodes: &[&Node]) -> Result<usize> {
    eventually(PATIENCE, "one bridges", async || {
        let states = states(nodes).await?;
        let bridging: Vec<usize> = (0..states.len())
            .filter(|nth| states[*nth] == "bridging")
            .collect();
        let others = states.iter().filter(|state| *state == "standby").count();
        ensure!(
            bridging.len() == 1 && others + 1 == states.len(),
            "{states:?}"
        );
        Ok(bridging[0])
    })
    .await
}

/// What was said in the room, and by whom.
async fn room(node: &Node) -> Result<Vec<(String, String)>> {
    let said = parsed(&history(node, "lobby").await?)?;
    Ok(said.into_iter().map(|it| (it.from, it.text)).collect())
}

fn counted(texts: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    counts
}

/// Goal: the textbook's program and a mesh hear each other, each text once and none back. Method: two nodes
/// with the bridge and one without, a client at each, one foreign program; what each side has in the end.
async fn each_text_goes_to_the_other_side_once(broker: impl Broker) -> Outcome {
    let by = broker
        .url()
        .split(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    let mut cluster = Cluster::with(2, &["--bridge", &url(&broker)]).await?;
    let mut foreign = Foreign::at(&broker.url(), CHANNEL).await?;
    let plain = Node::start(cluster.registry.flags()).await?;
    let nodes: Vec<&Node> = cluster.nodes.iter().chain([&plain]).collect();
    one_bridges(&nodes[..2]).await?;
    plain.takes_clients(PATIENCE).await?;
    let mut said = Vec::new();
    for (nth, node) in nodes.iter().enumerate() {
        let client = Client::joined(node, &format!("c{nth}"), "lobby").await?;
        for text in ["grüße", "\"quoted\" \\ and <b>", "alike"] {
            let text = format!("{text} {}", if text == "alike" { 0 } else { nth });
            client.send("lobby", &text).await?;
            said.push(text);
        }
        client.send("tea", "elsewhere").await?;
    }
    for text in ["hello from afar", "ünïcödé", "alike 0"] {
        foreign.say(text).await?;
        said.push(text.to_owned());
    }
    foreign.say("end of foreign").await?;
    for node in &nodes {
        eventually(PATIENCE, "the last text is there", async || {
            let last = (by.clone(), "end of foreign".to_owned());
            let room = room(node).await?;
            ensure!(room.contains(&last), "{room:?}");
            Ok(())
        })
        .await?;
    }
    let client = Client::joined(&plain, "last", "lobby").await?;
    client.send("lobby", "end of mesh").await?;
    said.extend(["end of foreign", "end of mesh"].map(str::to_owned));
    let mut heard = foreign.hears("end of mesh").await?;
    heard.push("end of mesh".to_owned());
    assert_eq!(counted(heard), counted(said.clone()));
    for node in &nodes {
        let room = room(node).await?;
        let foreign = room.iter().filter(|(from, _)| *from == by).count();
        assert_eq!(foreign, 4);
        assert_eq!(
            counted(room.into_iter().map(|(_, text)| text)),
            counted(said.clone())
        );
    }
    for bridge in bridges(nodes[0]).await? {
        let shown = bridge["url"].as_str().unwrap_or_default();
        assert!(
            shown.ends_with(CHANNEL) && !shown.contains("guest:"),
            "{shown}"
        );
    }
    cluster.nodes.clear();
    Ok(())
}

/// Goal: the one that bridges may die: another takes over within four seconds, and nothing is lost on either
/// side. Method: both sides speak all the time, `kill -9`; twice with `CHATMESH_LONG=1`.
async fn another_takes_over_and_brings_what_was_said_meanwhile(broker: impl Broker) -> Outcome {
    takeover(&broker, |nodes, bridging| {
        nodes.remove(bridging).process.signal(Signal::KILL)
    })
    .await
}

/// Goal: one that bridges and was stopped says nothing again, when it goes on, that another has said. Method: as
/// above, with SIGSTOP, and SIGCONT when another bridges.
#[tokio::test]
async fn one_that_was_stopped_says_nothing_again() -> Outcome {
    let redis = Redis::start().await?;
    takeover(&redis, |nodes, bridging| {
        nodes[bridging].process.signal(Signal::STOP)
    })
    .await
}

async fn takeover(
    broker: &impl Broker,
    hurt: impl Fn(&mut Vec<Node>, usize) -> Result<()>,
) -> Outcome {
    let mut cluster = Cluster::with(3, &["--bridge", &url(broker)]).await?;
    let mut foreign = Foreign::at(&broker.url(), CHANNEL).await?;
    let speaker = Node::start(cluster.registry.flags()).await?;
    speaker.takes_clients(PATIENCE).await?;
    let client = Client::joined(&speaker, "ada", "lobby").await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..if long() { 2 } else { 1 } {
        let nodes: Vec<&Node> = cluster.nodes.iter().collect();
        let bridging = one_bridges(&nodes).await?;
        for nth in 0..120 {
            if nth == 20 {
                hurt(&mut cluster.nodes, bridging)?;
            }
            if nth == 100 {
                // Whoever was stopped goes on beside the other.
                for node in &cluster.nodes {
                    node.process.signal(Signal::CONT)?;
                }
            }
            for (mine, all) in [(true, &mut ours), (false, &mut theirs)] {
                let text = format!("{} {}", if mine { "ours" } else { "theirs" }, all.len());
                match mine {
                    true => drop(client.send("lobby", &text).await?),
                    false => foreign.say(&text).await?,
                }
                all.push(text);
            }
            // A pace, and nothing that is waited for.
            sleep(ms(50)).await;
        }
    }
    client.send("lobby", "end of mesh").await?;
    foreign.say("end of foreign").await?;
    eventually(PATIENCE, "the last text is there", async || {
        let room = room(&speaker).await?;
        ensure!(
            room.iter().any(|(_, text)| text == "end of foreign"),
            "{} are",
            room.len()
        );
        Ok(())
    })
    .await?;
    let heard = counted(foreign.hears("end of mesh").await?);
    let room = counted(room(&speaker).await?.into_iter().map(|(_, text)| text));
    let mut twice = 0;
    for text in ours.iter().chain(&theirs) {
        for side in [&heard, &room] {
            let times = side.get(text).copied().unwrap_or_default();
            assert!(times > 0, "{text} is lost");
            twice += times - 1;
        }
    }
    // What was on its way when one died.
    assert!(twice <= 4, "{twice} came twice");
    Ok(())
}

/// Goal: while the broker is away the mesh chats on, says so, and brings that later, as far as it is not older than
/// ten seconds. Method: it is killed and comes back, and somebody talks until a node bridges again: a broker takes
/// as long to start as its machine likes.
async fn what_was_said_while_the_broker_was_away_goes_out(mut broker: impl Broker) -> Outcome {
    let cluster = Cluster::with(2, &["--bridge", &url(&broker)]).await?;
    let nodes = cluster.each::<2>();
    one_bridges(&nodes).await?;
    let client = Client::joined(nodes[1], "ada", "lobby").await?;
    broker.kill().await?;
    eventually(PATIENCE, "both say so", async || {
        let states = states(&nodes).await?;
        ensure!(states == ["away", "away"], "{states:?}");
        Ok(())
    })
    .await?;
    let bridged = async {
        broker.again().await?;
        let foreign = Foreign::at(&broker.url(), CHANNEL).await?;
        one_bridges(&nodes).await?;
        Ok::<_, anyhow::Error>(foreign)
    };
    let mut bridged = std::pin::pin!(bridged);
    let mut said = Vec::new();
    let mut foreign = loop {
        tokio::select! {
            foreign = &mut bridged => break foreign?,
            () = sleep(ms(100)) => {
                let text = format!("meanwhile {}", said.len());
                client.send("lobby", &text).await?;
                said.push((text, Instant::now()));
            }
        }
    };
    // Half of the time for which a text is kept, whatever looking has taken.
    let recent = said.iter().filter(|(_, at)| at.elapsed() < secs(5)).count();
    client.send("lobby", "afterwards").await?;
    let heard = foreign.hears("afterwards").await?;
    let said: Vec<String> = said.into_iter().map(|(text, _)| text).collect();
    assert!(said.ends_with(&heard), "{heard:?} of {said:?}");
    assert!(
        heard.len() >= recent && recent > 10,
        "{recent}: {heard:?} of {said:?}"
    );
    Ok(())
}

/// Goal: nothing goes round in circles. Method: bridges to both on one node, a foreign program at each; what
/// one says the other must not hear.
#[tokio::test]
async fn what_came_in_by_one_bridge_does_not_go_out_by_another() -> Outcome {
    let (redis, rabbit) = (Redis::start().await?, Rabbit::start().await?);
    let (one, other) = (url(&redis), url(&rabbit));
    let cluster = Cluster::with(1, &["--bridge", &one, "--bridge", &other]).await?;
    let [node] = cluster.each();
    eventually(PATIENCE, "both are bridged", async || {
        let states = states(&[node]).await?;
        ensure!(states == ["bridging", "bridging"], "{states:?}");
        Ok(())
    })
    .await?;
    let mut foreign = [
        Foreign::at(&redis.url(), CHANNEL).await?,
        Foreign::at(&rabbit.url(), CHANNEL).await?,
    ];
    let client = Client::joined(node, "ada", "lobby").await?;
    for (nth, foreign) in foreign.iter_mut().enumerate() {
        let text = format!("said by {nth}");
        foreign.say(&text).await?;
        client.message(PATIENCE, &text).await?;
    }
    client.send("lobby", "end").await?;
    for (nth, foreign) in foreign.iter_mut().enumerate() {
        assert_eq!(foreign.hears("end").await?, [format!("said by {nth}")]);
    }
    Ok(())
}

/// Goal: a bridge goes with a mesh secret and with history on disk. Method: two nodes with both; what is said
/// is there once, and again after a start from the disk, and goes out only once.
#[tokio::test]
async fn a_bridge_goes_with_a_secret_and_a_disk() -> Outcome {
    let redis = Redis::start().await?;
    let mut cluster = Cluster::over(Over::Tls, 1, &["--bridge", &url(&redis)]).await?;
    let data = tempfile::tempdir()?;
    let mut flags = cluster.registry.flags();
    let dir = data.path().display().to_string();
    flags.extend(["--bridge".to_owned(), url(&redis), "--data".to_owned(), dir]);
    cluster.nodes.push(Node::start(flags).await?);
    one_bridges(&cluster.each::<2>()).await?;
    let mut foreign = Foreign::at(&redis.url(), CHANNEL).await?;
    let client = Client::joined(&cluster.nodes[1], "ada", "lobby").await?;
    client.send("lobby", "ours").await?;
    // Else theirs could come first.
    assert!(foreign.hears("ours").await?.is_empty());
    foreign.say("theirs").await?;
    client.message(PATIENCE, "theirs").await?;
    cluster.nodes[1].process.kill().await?;
    cluster.nodes[1].again().await?;
    cluster.nodes[1].takes_clients(PATIENCE).await?;
    one_bridges(&cluster.each::<2>()).await?;
    let client = Client::joined(&cluster.nodes[1], "ada", "lobby").await?;
    client.send("lobby", "end").await?;
    assert_eq!(foreign.hears("end").await?, ["theirs"]);
    for node in cluster.each::<2>() {
        let texts = room(node).await?.into_iter().map(|(_, text)| text);
        assert_eq!(texts.collect::<Vec<_>>(), ["ours", "theirs", "end"]);
    }
    Ok(())
}

/// Goal: what foreign programs say goes out to none of another make. Method: a node in static mode with a
/// bridge, a ZeroMQ program and one at Redis.
#[tokio::test]
async fn a_bridge_and_static_mode_do_not_say_each_other_again() -> Outcome {
    let redis = Redis::start().await?;
    let (own, other) = (free_port()?, free_port()?);
    let [own_port, other_port] = [own, other].map(|port| port.to_string());
    let flags = [
        "--http",
        "0",
        "--pub",
        &own_port,
        "--sub",
        &other_port,
        "--bridge",
    ];
    let flags = flags.iter().map(|&flag| flag.to_owned());
    let node = Node::start(flags.chain([url(&redis)])).await?;
    one_bridges(&[&node]).await?;
    let mut foreign = [
        Foreign::start(other, &[own]).await?,
        Foreign::at(&redis.url(), CHANNEL).await?,
    ];
    let client = Client::joined(&node, "ada", "lobby").await?;
    for (nth, foreign) in foreign.iter_mut().enumerate() {
        eventually(PATIENCE, "it is heard", async || {
            let text = format!("said by {nth} {}", rand::random::<u32>());
            foreign.say(&text).await?;
            client.message(ms(300), &text).await
        })
        .await?;
    }
    eventually(PATIENCE, "both hear", async || {
        let text = format!("end {}", rand::random::<u32>());
        client.send("lobby", &text).await?;
        for (nth, foreign) in foreign.iter_mut().enumerate() {
            loop {
                let heard = foreign.next(ms(500)).await?;
                let by_other = format!("said by {}", 1 - nth);
                assert!(!heard.starts_with(&by_other), "{nth} hears {heard:?}");
                if heard == text {
                    break;
                }
            }
        }
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

/// Goal: whoever reaches the channel may say what he likes: what is no message is refused and counted.
#[tokio::test]
async fn what_is_no_text_is_refused() -> Outcome {
    let redis = Redis::start().await?;
    let cluster = Cluster::with(1, &["--bridge", &url(&redis)]).await?;
    let [node] = cluster.each();
    one_bridges(&[node]).await?;
    let long = vec![b'x'; 1 << 20];
    for bad in [&b"\xff\xfe"[..], b"", b" \n", &long] {
        redis
            .command(&[&b"PUBLISH"[..], CHANNEL.as_bytes(), bad])
            .await?;
    }
    let own = format!("chatmesh:{{main}}:bridge:{CHANNEL}");
    for bad in [&b""[..], b"b", b"baaaaaaaaa!", &long] {
        redis
            .command(&[&b"PUBLISH"[..], own.as_bytes(), bad])
            .await?;
    }
    redis.command(&["PUBLISH", CHANNEL, "a text"]).await?;
    eventually(secs(5), "the text is there", async || {
        let room = room(node).await?;
        ensure!(
            room == [("redis".to_owned(), "a text".to_owned())],
            "{room:?}"
        );
        Ok(())
    })
    .await?;
    let bridge = bridges(node).await?.remove(0);
    assert_eq!(
        (&bridge["refused"], &bridge["in"]),
        (&4.into(), &1.into()),
        "{bridge}"
    );
    Ok(())
}
