//! What is stopped or does not read hurts only itself.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::harness::load::spread;
use crate::harness::{
    Attempt, Client, Cluster, Duration, Instant, Load, NOISE, Node, Outcome, PATIENCE, Reader,
    check_chain, check_histories, eventually, histories, ms, say, secs,
};

/// Longest that a reply or a delivery to others may take while someone is frozen; half of them are
/// far below.
const UNDELAYED: Duration = ms(100);
/// The slowest of thousands may meet a hiccup of the machine, never a wait for the frozen.
const SLOWEST: Duration = ms(100).saturating_add(NOISE);
/// What a node's memory may grow by while a peer or a client is frozen, beside the history.
const GROWTH_MAX: u64 = 24 << 20;

fn delays(attempts: &[Attempt], reader: &Client) -> Vec<Duration> {
    let arrived: HashMap<_, _> = reader
        .messages()
        .into_iter()
        .filter_map(|(at, msg)| Some((msg.mid?, at)))
        .collect();
    attempts
        .iter()
        .filter_map(|attempt| Some(*arrived.get(&attempt.mid)? - attempt.sent_at))
        .collect()
}

fn undelayed(what: &str, times: Vec<Duration>) {
    let count = times.len();
    let (median, p99, worst) = spread(times);
    say(format_args!(
        "{what}: {count} times, median {median:?}, p99 {p99:?}, worst {worst:?}"
    ));
    assert!(
        count > 100 && median <= UNDELAYED && p99 <= SLOWEST && worst <= 2 * SLOWEST,
        "{what} were delayed"
    );
}

/// Goal (P8): a node stopped for 10 s under load delays nobody; its members leave; the memory of
/// the others stays bounded; after it goes on all have the same history, nothing lost or doubled.
/// Method: SIGSTOP of the third node; senders and readers on the two others; SIGCONT.
#[tokio::test]
async fn a_node_stopped_for_10_s_delays_nobody_and_catches_up() -> Outcome {
    let cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let [one, two, frozen] = &cluster.nodes[..] else {
        unreachable!("three nodes")
    };
    let mut readers = [
        Reader::start(one, "one-reads", "tea").await?,
        Reader::start(two, "two-reads", "tea").await?,
        Reader::start(frozen, "frozen-reads", "tea").await?,
    ];
    let watcher = Client::joined(one, "watcher", "tea").await?;
    let senders = [
        Client::hello(one, "ada").await?,
        Client::hello(two, "bob").await?,
    ];
    let load = Load::start(senders, "tea", 100);
    let before = [one.process.usage()?, two.process.usage()?];
    let stopped = Instant::now();
    frozen.process.freeze()?;
    let has_left = |change: &Value| change["left"] == json!(["frozen-reads"]);
    watcher.push(PATIENCE, "members", has_left).await?;
    let left_after = stopped.elapsed();
    assert!(
        left_after <= secs(4) + NOISE,
        "its member left only after {left_after:?}"
    );
    tokio::time::sleep_until(stopped + secs(10)).await;
    let after = [one.process.usage()?, two.process.usage()?];
    frozen.process.thaw()?;
    cluster.linked(PATIENCE).await?;
    let relinked = stopped.elapsed() - secs(10);
    let back = |change: &Value| change["joined"] == json!(["frozen-reads"]);
    watcher.push(PATIENCE, "members", back).await?;
    let attempts = load.stop().await?;

    undelayed("replies", attempts.iter().map(Attempt::delay).collect());
    for reader in &readers[..2] {
        undelayed("deliveries", delays(&attempts, reader.client()));
    }
    for (before, after) in before.iter().zip(&after) {
        let growth = after.rss.saturating_sub(before.rss);
        say(format_args!("memory grew by {} KiB in 10 s", growth >> 10));
        assert!(growth <= GROWTH_MAX, "memory grew by {growth} bytes");
    }
    say(format_args!(
        "its member left after {left_after:?}; linked again {relinked:?} after it"
    ));
    let history = histories(&cluster.nodes.iter().collect::<Vec<_>>(), "tea", PATIENCE).await?;
    check_histories(&history, &attempts, |_| true)?;
    for reader in &mut readers {
        check_chain(reader, &history, PATIENCE).await?;
    }
    assert_eq!(
        frozen.mesh().await?.origin,
        frozen.origin,
        "still the same node"
    );
    Ok(())
}

/// Goal (P8): the memory of a node whose peer is stopped is bounded, not by luck of a light load.
/// Method: a node that keeps 1 MiB of history, 3 MiB a second of texts for 12 s, a stopped peer: a
/// queue without bound would hold 36 MiB.
#[tokio::test]
async fn a_stopped_peer_does_not_fill_the_memory_of_the_others() -> Outcome {
    let args = ["--rate-limit", "0", "--retain-bytes", "1048576"];
    let cluster = Cluster::with(2, &args).await?;
    let [node, frozen] = &cluster.nodes[..] else {
        unreachable!("two nodes")
    };
    let client = Client::hello(node, "ada").await?;
    let text = "x".repeat(4000);
    // Warm first: the caches and buffers that any load fills are not what is measured.
    for _ in 0..500 {
        client.send("tea", &text).await?;
    }
    let before = node.process.usage()?.rss;
    frozen.process.freeze()?;
    let mut beat = tokio::time::interval(ms(100));
    let mut most = before;
    let mut sent: u64 = 0;
    for _ in 0..120 {
        beat.tick().await;
        let waiting: Vec<_> = (0..75)
            .map(|_| client.start("send", json!({ "room": "tea", "text": text })))
            .collect();
        for reply in waiting {
            client.reply("send", reply).await?;
            sent += text.len() as u64;
        }
        most = most.max(node.process.usage()?.rss);
    }
    frozen.process.thaw()?;
    let growth = most - before;
    say(format_args!(
        "a stopped peer for 12 s: {} MiB were sent, memory grew by {} MiB at most",
        sent >> 20,
        growth >> 20
    ));
    assert!(
        growth <= GROWTH_MAX,
        "memory grew by {growth} bytes while {sent} were sent"
    );
    cluster.linked(PATIENCE).await?;
    Ok(())
}

/// Goal (P8): a client that never reads is closed with 4000, the others are not delayed, and the
/// node's memory is bounded. Method: it joins a room with a heavy flow and stops reading; when
/// the members say that it is gone, it reads what was left for it.
#[tokio::test]
async fn a_client_that_never_reads_is_closed_with_4000_and_delays_nobody() -> Outcome {
    let node = Node::start([
        "--registry",
        "none",
        "--rate-limit",
        "0",
        "--retain-bytes",
        "1048576",
    ])
    .await?;
    let frozen = Client::joined(&node, "frozen", "tea").await?;
    let reader = Client::joined(&node, "reader", "tea").await?;
    let sender = Client::hello(&node, "ada").await?;
    let before = node.process.usage()?.rss;
    frozen.freeze();
    let mut most = before;
    let text = "x".repeat(4000);
    let mut times = Vec::new();
    let start = Instant::now();
    let left = |reader: &Client| {
        reader
            .pushed("members")
            .iter()
            .any(|change| change["left"] == json!(["frozen"]))
    };
    while !left(&reader) {
        assert!(
            start.elapsed() < secs(30),
            "the frozen client is still a member after 30 s"
        );
        for _ in 0..20 {
            let sent_at = Instant::now();
            sender.send("tea", &text).await?;
            times.push(sent_at.elapsed());
        }
        most = most.max(node.process.usage()?.rss);
    }
    let took = start.elapsed();
    frozen.thaw();
    let closed = frozen.closed(PATIENCE).await?;
    assert_eq!(closed.code, 4000, "{closed:?}");
    undelayed("replies beside a frozen client", times);
    say(format_args!(
        "closed after {took:?}; memory grew by {} KiB at most",
        (most - before) >> 10
    ));
    assert!(
        most - before <= GROWTH_MAX,
        "memory grew by {} bytes",
        most - before
    );
    assert!(reader.is_closed().is_none());
    Ok(())
}

/// Goal: a registry that is stopped and not dead (it accepts and says nothing) hurts as little as
/// a dead one. Method: SIGSTOP it for 8 s under load; links stay; SIGCONT; all are listed.
#[tokio::test]
async fn a_stopped_registry_closes_no_link() -> Outcome {
    let cluster = Cluster::start(3).await?;
    let mut reader = Reader::start(&cluster.nodes[1], "reader", "tea").await?;
    let load = Load::start([Client::hello(&cluster.nodes[0], "ada").await?], "tea", 20);
    cluster.registry.process.freeze()?;
    let stopped = Instant::now();
    let mut ticks = tokio::time::interval(ms(200));
    while stopped.elapsed() < secs(8) {
        ticks.tick().await;
        for node in &cluster.nodes {
            let mesh = node.mesh().await?;
            assert_eq!(
                mesh.up(),
                2,
                "a link closed while the registry was stopped: {mesh:?}"
            );
        }
    }
    cluster.registry.process.thaw()?;
    eventually(secs(3) + NOISE, "all nodes are listed", async || {
        let listed = cluster.registry.listed().await?;
        anyhow::ensure!(listed.len() == 3, "{listed:?}");
        Ok(())
    })
    .await?;
    let attempts = load.stop().await?;
    let history = histories(&cluster.nodes.iter().collect::<Vec<_>>(), "tea", PATIENCE).await?;
    check_histories(&history, &attempts, |_| true)?;
    check_chain(&mut reader, &history, PATIENCE).await?;
    Ok(())
}
