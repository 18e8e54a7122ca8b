//! Keepers: what was acknowledged as kept outlives all nodes, and archives have it.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::check::{history, parsed};
use crate::harness::disks::member;
use crate::harness::engines::Broker;
use crate::harness::engines::nats::Nats;
use crate::harness::engines::path::Path;
use crate::harness::engines::rabbit::Rabbit;
use crate::harness::engines::redis::{KEEPS, Redis};
use crate::harness::{
    Client, Duration, Instant, Node, Outcome, PATIENCE, Registry, eventually, linked, long, ms,
    say, secs,
};

/// NATS with JetStream, in its own folder.
pub(crate) const JETSTREAM: &str = "jetstream { store_dir: \"js\" }";

/// Runs a test, `async fn(impl Broker) -> Outcome`, at each that keeps.
macro_rules! at_each {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use super::*;

            #[tokio::test]
            async fn at_rabbitmq() -> Outcome {
                super::$test(Rabbit::start().await?).await
            }

            #[tokio::test]
            async fn at_jetstream() -> Outcome {
                super::$test(Nats::with(JETSTREAM, &[]).await?).await
            }

            #[tokio::test]
            async fn at_redis() -> Outcome {
                super::$test(Redis::with(&KEEPS).await?).await
            }
        }
    )+};
}

at_each!(
    what_was_kept_outlives_all_nodes,
    what_passed_while_an_archive_was_away_is_there_when_it_is_back,
    a_keeper_that_is_away_is_never_said_to_have_something,
    what_an_archive_was_brought_on_a_way_that_is_cut_comes_again,
);

/// Nodes without a disk that are kept by this, linked.
pub(crate) async fn kept(registry: &Registry, url: &str, count: usize) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(member(registry, None, &["--keep", url]).await?);
    }
    linked(&nodes, PATIENCE).await?;
    for node in &nodes {
        is_up(node).await?;
    }
    Ok(nodes)
}

/// An archive with its history in this folder.
pub(crate) async fn archive(
    registry: &Registry,
    url: &str,
    data: &std::path::Path,
) -> Result<Node> {
    let node = member(registry, Some(data), &["--keep", url]).await?;
    is_up(&node).await?;
    Ok(node)
}

/// What a node says of its keeper.
pub(crate) async fn keeper(node: &Node) -> Result<Value> {
    Ok(node.get_json("/api/mesh").await?["keeper"].take())
}

/// Waits until the keeper is there and counts.
pub(crate) async fn is_up(node: &Node) -> Result<()> {
    eventually(PATIENCE, "the keeper is there", async || {
        let keeper = keeper(node).await?;
        ensure!(
            keeper["state"] == "up" && keeper["counts"] == true,
            "{keeper}"
        );
        Ok(())
    })
    .await
}

/// Waits until an archive has nothing left to take in.
pub(crate) async fn is_drained(node: &Node) -> Result<()> {
    eventually(PATIENCE, "the archive has all", async || {
        let keeper = keeper(node).await?;
        ensure!(keeper["archive"]["lag"] == 0, "{keeper}");
        Ok(())
    })
    .await
}

/// The texts of a room here that are not there twice.
pub(crate) async fn texts(node: &Node, room: &str) -> Result<HashSet<String>> {
    let said = parsed(&history(node, room).await?)?;
    let count = said.len();
    let texts: HashSet<String> = said.into_iter().map(|it| it.text).collect();
    ensure!(
        texts.len() == count,
        "{count} messages, {} texts",
        texts.len()
    );
    Ok(texts)
}

/// Sends so many messages at once, and waits for so many replies, each of which says that the keeper has it.
/// What those said.
pub(crate) async fn say_kept(
    client: &Client,
    round: &str,
    count: usize,
    until: usize,
) -> Result<Vec<String>> {
    let text = |nth: usize| format!("{round} {nth}");
    let bodies = (0..count).map(|nth| json!({ "room": "tea", "text": text(nth), "copies": 1 }));
    let replies = client.start_all("send", bodies);
    let mut acknowledged = Vec::new();
    for (nth, reply) in replies.into_iter().enumerate().take(until) {
        let reply = client.reply("send", reply).await?;
        ensure!(reply["keeper"] == true, "{reply}");
        ensure!(reply["copies"].as_u64() >= Some(1), "{reply}");
        acknowledged.push(text(nth));
    }
    Ok(acknowledged)
}

/// Goal: what was acknowledged as kept survives the death of all nodes in the instant after. Method: two nodes
/// without a disk, a client at each; all killed as soon as some of what is under way is acknowledged; then an
/// archive and a fresh node. Again and again, with one archive.
async fn what_was_kept_outlives_all_nodes(broker: impl Broker) -> Outcome {
    let registry = Registry::start().await?;
    let folder = tempfile::tempdir()?;
    let mut acknowledged = Vec::new();
    for round in 0..if long() { 20 } else { 4 } {
        let mut nodes = kept(&registry, &broker.url(), 2).await?;
        for (nth, node) in nodes.iter().enumerate() {
            let client = Client::hello(node, &format!("c{nth}")).await?;
            let begin = format!("round {round} at {nth}");
            acknowledged.extend(say_kept(&client, &begin, 200, 100).await?);
        }
        for node in &mut nodes {
            node.process.kill().await?;
        }
        let mut archive = archive(&registry, &broker.url(), folder.path()).await?;
        let fresh = member(&registry, None, &["--keep", &broker.url()]).await?;
        is_drained(&archive).await?;
        for node in [&archive, &fresh] {
            eventually(PATIENCE, "all that was acknowledged is there", async || {
                let texts = texts(node, "tea").await?;
                let lost: Vec<_> = acknowledged
                    .iter()
                    .filter(|it| !texts.contains(*it))
                    .collect();
                ensure!(
                    lost.is_empty(),
                    "{} of {}: {lost:?}",
                    lost.len(),
                    acknowledged.len()
                );
                Ok(())
            })
            .await?;
        }
        archive.process.kill().await?;
    }
    Ok(())
}

/// Goal: an archive has what passed while it was away, also when nobody else has it any more, and what is
/// no message stops nothing. Method: an archive that is killed, a node that says much and is killed, then the
/// archive alone, which is killed thrice while it takes in.
async fn what_passed_while_an_archive_was_away_is_there_when_it_is_back(
    broker: impl Broker,
) -> Outcome {
    let registry = Registry::start().await?;
    let folder = tempfile::tempdir()?;
    let mut away = archive(&registry, &broker.url(), folder.path()).await?;
    let mut nodes = kept(&registry, &broker.url(), 1).await?;
    let client = Client::hello(&nodes[0], "c").await?;
    let mut acknowledged = say_kept(&client, "before", 100, 100).await?;
    away.process.kill().await?;
    for round in 0..20 {
        acknowledged.extend(say_kept(&client, &format!("away {round}"), 200, 200).await?);
    }
    nodes[0].process.kill().await?;
    // In the middle of whatever it does with what comes.
    for after in [30, 60, 120] {
        away.again().await?;
        sleep(ms(after)).await;
        away.process.kill().await?;
    }
    away.again().await?;
    away.takes_clients(PATIENCE).await?;
    is_drained(&away).await?;
    let texts = texts(&away, "tea").await?;
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|it| !texts.contains(*it))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    Ok(())
}

/// Goal: what an archive was brought, and could not acknowledge, comes again, and no acknowledgement is for
/// something else. Method: the way to the keeper loses what the archive says for a moment, and is cut, again and
/// again while it takes in what only the keeper has.
async fn what_an_archive_was_brought_on_a_way_that_is_cut_comes_again(
    broker: impl Broker,
) -> Outcome {
    let registry = Registry::start().await?;
    let mut nodes = kept(&registry, &broker.url(), 1).await?;
    let client = Client::hello(&nodes[0], "c").await?;
    for round in 0..20 {
        say_kept(&client, &format!("round {round}"), 200, 200).await?;
    }
    nodes[0].process.kill().await?;
    let folder = tempfile::tempdir()?;
    let way = Path::to(&broker).await?;
    let node = member(&registry, Some(folder.path()), &["--keep", &way.url]).await?;
    for passes in [5, 10, 20, 40, 80] {
        sleep(ms(passes)).await;
        way.mute();
        sleep(ms(10)).await;
        way.cut();
        way.pass();
    }
    eventually(2 * PATIENCE, "all of it is there", async || {
        let count = texts(&node, "tea").await?.len();
        ensure!(count == 4000, "{count}");
        Ok(())
    })
    .await?;
    is_drained(&node).await?;
    Ok(())
}

/// Goal: no reply lies while the keeper is away: after two seconds it says who has the message. Method: the
/// keeper is killed under load, and back with what it had; a node is asked meanwhile and afterwards.
async fn a_keeper_that_is_away_is_never_said_to_have_something(mut broker: impl Broker) -> Outcome {
    let registry = Registry::start().await?;
    let url = broker.url();
    let nodes = kept(&registry, &url, 2).await?;
    let client = Client::hello(&nodes[0], "c").await?;
    say_kept(&client, "before", 100, 100).await?;
    broker.kill().await?;
    let body = |text: &str, copies: u64| json!({ "room": "tea", "text": text, "copies": copies });
    for copies in [1, 2] {
        let reply = client
            .ask("send", body(&format!("away {copies}"), copies))
            .await?;
        assert!(reply["keeper"] == false && reply["copies"] == 1, "{reply}");
    }
    // Who does not ask for copies does not wait for the keeper.
    let reply = client.ask("send", body("away too", 0)).await?;
    assert!(reply["keeper"] == false, "{reply}");
    broker.again().await?;
    for node in &nodes {
        is_up(node).await?;
    }
    eventually(
        PATIENCE,
        "what was said meanwhile is kept too",
        async || {
            let keeper = keeper(&nodes[0]).await?;
            ensure!(keeper["behind"] == 0, "{keeper}");
            Ok(())
        },
    )
    .await?;
    say_kept(&client, "after", 100, 100).await?;
    let folder = tempfile::tempdir()?;
    let archive = archive(&registry, &url, folder.path()).await?;
    is_drained(&archive).await?;
    let texts = texts(&archive, "tea").await?;
    assert_eq!(texts.len(), 203);
    Ok(())
}

/// How long messages take from one node to the other, half of them and 99 of 100, while something is done.
async fn hops<T>(
    (from, to): (&Client, &Client),
    meanwhile: impl Future<Output = Result<T>>,
) -> Result<(T, [Duration; 2])> {
    let mut meanwhile = std::pin::pin!(meanwhile);
    let mut sent = Vec::new();
    let mut ticks = tokio::time::interval(ms(5));
    let done = loop {
        tokio::select! {
            done = &mut meanwhile => break done?,
            _ = ticks.tick() => {
                let text = format!("hop {:08x}", rand::random::<u32>());
                drop(from.start("send", json!({ "room": "hops", "text": text })));
                sent.push((text, Instant::now()));
            }
        }
    };
    let (last, _) = sent.last().context("something was sent")?;
    to.message(PATIENCE, last).await?;
    let came: HashMap<String, Instant> = to
        .messages()
        .into_iter()
        .map(|(at, message)| (message.text, at))
        .collect();
    let took = sent
        .iter()
        .filter_map(|(text, at)| Some(came.get(text)?.saturating_duration_since(*at)));
    let mut took: Vec<Duration> = took.collect();
    took.sort_unstable();
    ensure!(
        took.len() == sent.len(),
        "{} of {} came",
        took.len(),
        sent.len()
    );
    Ok((
        done,
        [50, 99].map(|share| took[(took.len() - 1) * share / 100]),
    ))
}

/// Goal: an archive that was away takes in much that passed meanwhile quickly, and delays nobody. Method: many
/// messages with the archive away; how long it takes when it is back, and how long a hop takes before and during
/// that. What is asserted is that all is there; the times are told.
#[tokio::test]
async fn an_archive_that_was_away_catches_up_beside_live_traffic() -> Outcome {
    let count = if long() { 100_000 } else { 10_000 };
    let registry = Registry::start().await?;
    let rabbit = Rabbit::start().await?;
    let folder = tempfile::tempdir()?;
    let mut archive = archive(&registry, &rabbit.url(), folder.path()).await?;
    archive.process.kill().await?;
    let nodes = kept(&registry, &rabbit.url(), 2).await?;
    let client = Client::hello(&nodes[0], "c").await?;
    for round in 0..count / 100 {
        say_kept(&client, &format!("away {round}"), 100, 100).await?;
    }
    let hopping = Client::hello(&nodes[0], "from").await?;
    let heard = Client::joined(&nodes[1], "to", "hops").await?;
    let rest = async {
        sleep(secs(3)).await;
        Ok(())
    };
    let ((), before) = hops((&hopping, &heard), rest).await?;
    let catching_up = async {
        let begun = Instant::now();
        archive.again().await?;
        let most = 4 * PATIENCE;
        eventually(most, "the archive has all", async || {
            let keeper = keeper(&archive).await?;
            ensure!(keeper["archive"]["lag"] == 0, "{keeper}");
            Ok(())
        })
        .await?;
        Ok(begun.elapsed())
    };
    let (took, during) = hops((&hopping, &heard), catching_up).await?;
    say!(
        "{count} messages taken in {took:?} after its start; a hop before {before:?}, meanwhile {during:?}"
    );
    drop(nodes);
    let stored = archive.get_json("/api/mesh").await?["storage"]["messages"].as_u64();
    assert!(stored >= Some(count), "{stored:?}");
    Ok(())
}
