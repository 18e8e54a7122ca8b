//! History on disk: what a node with `--data` has after it was stopped or killed.

use std::collections::HashSet;

use anyhow::ensure;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tempfile::tempdir;

use crate::harness::check::history;
use crate::harness::disks::{
    FILE, alone, copy_folder, flags, member, number, pour, reborn, written,
};
use crate::harness::load::spread;
use crate::harness::metrics::told;
use crate::harness::process::Launch;
use crate::harness::pump::Pump;
use crate::harness::wire::Msg;
use crate::harness::{
    Client, Duration, Instant, NOISE, Node, Outcome, PATIENCE, Registry, linked, long, ms, same,
    say, secs,
};

/// Half of the restarts of a node with a small history take no longer. It is about a tenth of
/// this; nothing is promised.
const QUICK: Duration = secs(2);
/// Entries of each node's log that a test begins with.
const BEGIN: usize = 700;

fn texts(who: &str, count: usize) -> impl Iterator<Item = String> {
    let who = who.to_owned();
    (0..count).map(move |nth| format!("{who} says {nth}"))
}

/// Goal: a node alone has its whole history after SIGTERM and after kill -9, to the byte; it is a
/// new origin, quickly ready, fetches nothing, and goes on after what was said before.
/// Method: two rooms, three senders, one of them by HTTP; three restarts of each kind.
#[tokio::test]
async fn a_node_alone_has_its_history_after_a_restart() -> Outcome {
    let folder = tempdir()?;
    let mut node = alone(&folder.path().join("data"), &[]).await?;
    let ada = Client::hello(&node, "ada").await?;
    pour(&ada, "tea", texts("ada", BEGIN)).await?;
    pour(&ada, "coffee", texts("ada", 30)).await?;
    drop(ada);
    let mut origins = HashSet::from([node.origin.clone()]);
    let mut times = Vec::new();
    for round in 0..6 {
        let message =
            json!({ "from": "bob", "text": format!("round {round}"), "mid": round.to_string() });
        let (status, _) = node.post("/api/rooms/tea/messages", &message).await?;
        assert_eq!(status, 201);
        let (tea, coffee) = (
            history(&node, "tea").await?,
            history(&node, "coffee").await?,
        );
        assert_eq!((tea.len(), coffee.len()), (BEGIN + round + 1, 30));
        if round % 2 == 0 {
            node.process.stop(secs(10)).await?;
        } else {
            node.process.kill().await?;
        }
        times.push(reborn(&mut node).await?);
        assert!(
            origins.insert(node.origin.clone()),
            "a restarted node is a new origin"
        );
        assert_eq!(history(&node, "tea").await?, tea);
        assert_eq!(history(&node, "coffee").await?, coffee);
        for count in ["fetches_total", "repaired_total"] {
            assert_eq!(number(&node, count).await?, 0, "{count}");
        }
        // The mid is known still: no second message.
        let (status, _) = node.post("/api/rooms/tea/messages", &message).await?;
        assert_eq!((status, history(&node, "tea").await?), (201, tea));
    }
    let tea = history(&node, "tea").await?;
    let last: Vec<Msg> = tea[BEGIN..]
        .iter()
        .map(|text| serde_json::from_str(text))
        .collect::<Result<_, _>>()?;
    let rounds: Vec<_> = last.iter().map(|message| message.text.as_str()).collect();
    let due: Vec<_> = (0..6).map(|round| format!("round {round}")).collect();
    assert_eq!(rounds, due, "each start goes on after the one before");
    let (median, ..) = told("restart until clients are taken", times);
    assert!(median < QUICK, "half of the restarts took {median:?}");
    Ok(())
}

/// Three linked nodes with disks, each with a log in the room `tea`.
async fn three(registry: &Registry, folder: &std::path::Path) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for name in ["one", "two", "three"] {
        nodes.push(member(registry, Some(&folder.join(name)), &[]).await?);
    }
    linked(&nodes, PATIENCE).await?;
    for (node, name) in nodes.iter().zip(["ada", "bob", "eve"]) {
        let client = Client::hello(node, name).await?;
        pour(&client, "tea", texts(name, BEGIN)).await?;
    }
    let begin = same(&nodes, "tea", PATIENCE).await?;
    ensure!(begin.len() == 3 * BEGIN, "{} messages", begin.len());
    for node in &nodes {
        written(node).await?;
    }
    Ok(nodes)
}

/// Goal: a killed node that comes back fetches what it lacks and nothing else, and has all.
/// Method: 2100 messages on three nodes; one is killed, 250 more are said, it comes back.
#[tokio::test]
async fn a_killed_node_fetches_only_what_it_lacks() -> Outcome {
    let (registry, folder) = (Registry::start().await?, tempdir()?);
    let mut nodes = three(&registry, folder.path()).await?;
    let old = nodes[2].origin.clone();
    nodes[2].process.kill().await?;
    let bob = Client::hello(&nodes[1], "bob").await?;
    pour(&bob, "tea", texts("bob again", 250)).await?;
    let took = reborn(&mut nodes[2]).await?;
    let tea = same(&nodes, "tea", PATIENCE).await?;
    assert_eq!(tea.len(), 3 * BEGIN + 250);
    let of_old = tea.iter().filter(|text| text.contains(&old)).count();
    assert_eq!(of_old, BEGIN, "what the old origin said is there");
    let fetches = number(&nodes[2], "fetches_total").await?;
    let repaired = number(&nodes[2], "repaired_total").await?;
    say!("back after {took:?}: {repaired} entries in {fetches} requests");
    assert!(repaired <= 250, "{repaired} entries fetched");
    assert!(fetches <= 20, "{fetches} requests");
    for node in &nodes[..2] {
        let repaired = number(node, "repaired_total").await?;
        assert!(repaired <= 20, "a survivor fetched {repaired}");
    }
    Ok(())
}

/// Goal: a mesh that was killed as a whole is there again, with the same history on each node, and
/// goes on. Method: kill -9 three nodes at once, one of them in the middle of a load; start all.
#[tokio::test]
async fn a_mesh_that_was_killed_as_a_whole_has_its_history() -> Outcome {
    let (registry, folder) = (Registry::start().await?, tempdir()?);
    let mut nodes = three(&registry, folder.path()).await?;
    let before = history(&nodes[0], "tea").await?;
    let pump = Pump::start(3, &nodes[0], "milk", 100);
    pump.accepts(200).await?;
    for node in &mut nodes {
        node.process.kill().await?;
    }
    pump.has_no_node();
    let mut times = Vec::new();
    for node in &mut nodes {
        times.push(reborn(node).await?);
    }
    linked(&nodes, PATIENCE).await?;
    pump.go_on_at(&nodes[1]);
    pump.accepts(50).await?;
    let ledger = pump.stop().await?;
    assert_eq!(same(&nodes, "tea", PATIENCE).await?, before);
    ledger.check(&same(&nodes, "milk", PATIENCE).await?)?;
    say!(
        "back after {times:?}; {} accepted, {} of them after a retry",
        ledger.accepted(),
        ledger.retried()
    );
    Ok(())
}

/// Goal: in a mixed mesh the node with the disk keeps for all: after the death of everyone the
/// nodes without disks get the history back from it. Method: one with, two without; kill all;
/// start the one with the disk, then the others.
#[tokio::test]
async fn nodes_without_a_disk_get_the_history_from_the_one_that_has() -> Outcome {
    let (registry, folder) = (Registry::start().await?, tempdir()?);
    let mut nodes = vec![
        member(&registry, None, &[]).await?,
        member(&registry, None, &[]).await?,
        member(&registry, Some(&folder.path().join("data")), &[]).await?,
    ];
    linked(&nodes, PATIENCE).await?;
    for (node, name) in nodes.iter().zip(["ada", "bob", "eve"]) {
        let client = Client::hello(node, name).await?;
        pour(&client, "tea", texts(name, 300)).await?;
    }
    let before = same(&nodes, "tea", PATIENCE).await?;
    assert_eq!(before.len(), 900);
    written(&nodes[2]).await?;
    for node in &mut nodes {
        node.process.kill().await?;
    }
    for place in [2, 0, 1] {
        reborn(&mut nodes[place]).await?;
    }
    linked(&nodes, PATIENCE).await?;
    assert_eq!(same(&nodes, "tea", PATIENCE).await?, before);
    Ok(())
}

/// Goal: an acknowledged message survives kill -9 of a node alone, and a retry of what had no
/// reply makes one message. Method: six senders in a closed loop; the node is killed after a random
/// number of replies and started again, over and over; what has no reply is sent again with its
/// mid to the next start. A hundred times, or as often as a busy machine can in 40 s, 25 times at
/// the least. At the end the history is held against what the senders were told.
#[tokio::test]
async fn an_acknowledged_message_survives_kill_9_every_time() -> Outcome {
    let (rounds, least) = if long() { (300, 300) } else { (100, 25) };
    let seed = rand::random();
    say!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempdir()?;
    let mut node = alone(&folder.path().join("data"), &[]).await?;
    let pump = Pump::start(6, &node, "tea", 200);
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.len() < rounds && (times.len() < least || begun.elapsed() < secs(40)) {
        pump.accepts(rng.random_range(1..60)).await?;
        node.process.kill().await?;
        pump.has_no_node();
        times.push(reborn(&mut node).await?);
        pump.go_on_at(&node);
    }
    let ledger = pump.stop().await?;
    ledger.check(&history(&node, "tea").await?)?;
    let kills = times.len();
    let (median, p99, worst) = spread(times);
    say!(
        "{kills} kills: {} accepted, {} of them after a retry, none lost, none doubled; restart \
         median {median:?}, p99 {p99:?}, worst {worst:?}",
        ledger.accepted(),
        ledger.retried()
    );
    assert!(ledger.retried() > 0, "no kill met a send under way");
    Ok(())
}

/// Goal: a folder is for one node: a second one says so and goes, the first notices nothing.
/// Method: start another on the same folder, ten times while the first talks.
#[tokio::test]
async fn a_folder_in_use_is_refused() -> Outcome {
    let folder = tempdir()?;
    let data = folder.path().join("data");
    let node = alone(&data, &[]).await?;
    let pump = Pump::start(2, &node, "tea", 100);
    for _ in 0..10 {
        let ended = Launch::new("chatnode", flags(&data, &[]))
            .to_end(secs(10))
            .await?;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert!(
            lines.len() == 1
                && lines[0].contains(&data.display().to_string())
                && lines[0].contains("uses this folder"),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "");
        pump.accepts(5).await?;
    }
    let ledger = pump.stop().await?;
    ledger.check(&history(&node, "tea").await?)?;
    Ok(())
}

/// Goal: a copied folder, started beside the original, is another node with the same past:
/// both live, their histories stay equal, nothing is there twice.
/// Method: copy it while the node is stopped; start both; talk on both; restart the copy.
#[tokio::test]
async fn a_copied_folder_is_another_node_with_the_same_past() -> Outcome {
    let (registry, folder) = (Registry::start().await?, tempdir()?);
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let mut node = member(&registry, Some(&data), &[]).await?;
    let ada = Client::hello(&node, "ada").await?;
    pour(&ada, "tea", texts("ada", 400)).await?;
    drop(ada);
    node.process.stop(secs(10)).await?;
    copy_folder(&data, &copy)?;
    reborn(&mut node).await?;
    let mut twin = member(&registry, Some(&copy), &[]).await?;
    linked(&[&node, &twin], PATIENCE).await?;
    assert_ne!(node.origin, twin.origin);
    assert_eq!(same(&[&node, &twin], "tea", PATIENCE).await?.len(), 400);
    let pumps = [
        Pump::start(2, &node, "milk", 50),
        Pump::start(2, &twin, "milk", 50),
    ];
    for pump in &pumps {
        pump.accepts(100).await?;
    }
    twin.process.kill().await?;
    pumps[1].has_no_node();
    pumps[0].accepts(100).await?;
    reborn(&mut twin).await?;
    pumps[1].go_on_at(&twin);
    pumps[1].accepts(100).await?;
    let [one, two] = pumps;
    let mut ledger = one.stop().await?;
    ledger.merge(two.stop().await?);
    linked(&[&node, &twin], PATIENCE).await?;
    assert_eq!(same(&[&node, &twin], "tea", PATIENCE).await?.len(), 400);
    ledger.check(&same(&[&node, &twin], "milk", PATIENCE).await?)?;
    for data in [&data, &copy] {
        assert!(data.join(FILE).is_file(), "the file has the name it has");
    }
    Ok(())
}

/// Goal: a stop by SIGTERM with sends under way loses nothing either, and is no slower for the
/// disk. Method: SIGTERM under load, ten times.
#[tokio::test]
async fn a_stop_under_load_loses_nothing() -> Outcome {
    let folder = tempdir()?;
    let mut node = alone(&folder.path().join("data"), &[]).await?;
    let pump = Pump::start(6, &node, "tea", 200);
    let mut times = Vec::new();
    for _ in 0..10 {
        pump.accepts(100).await?;
        let begun = Instant::now();
        node.process.stop(secs(10)).await?;
        times.push(begun.elapsed());
        pump.has_no_node();
        reborn(&mut node).await?;
        pump.go_on_at(&node);
    }
    let ledger = pump.stop().await?;
    let lost = ledger.lost(&history(&node, "tea").await?)?.len();
    assert_eq!(lost, 0, "of {}", ledger.accepted());
    ledger.explains(&history(&node, "tea").await?)?;
    let (median, ..) = told("SIGTERM to end", times);
    assert!(
        median < secs(1) + NOISE,
        "half of the stops took {median:?}"
    );
    assert!(ms(0) < median);
    Ok(())
}
