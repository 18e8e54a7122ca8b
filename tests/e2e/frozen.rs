//! What is stopped or does not read hurts only itself.

use serde_json::{Value, json};

use crate::harness::metrics::told;
use crate::harness::sealed::{Over, over_each};
use crate::harness::{
    Attempt, Client, Cluster, Duration, Expect, Instant, Load, NOISE, Outcome, PATIENCE, Recorder,
    eventually, long, ms, say, secs,
};

over_each!(
    a_node_stopped_for_12_s_delays_nobody_and_catches_up,
    a_node_stopped_for_2_s_is_not_noticed,
    a_stopped_peer_does_not_fill_the_memory_of_the_others,
);

/// Longest that a reply or a delivery to others may take while someone is frozen; half of them are
/// far below.
const UNDELAYED: Duration = ms(100);
/// The slowest of thousands may meet a hiccup of the machine, never a wait for the frozen.
const SLOWEST: Duration = ms(100).saturating_add(NOISE);
/// How long a node is stopped: much longer than the silence after which it is given up.
const FROZEN: Duration = secs(12);
/// How soon after it goes on it has the same history as the others.
const THAWED_WITHIN: Duration = secs(5);
/// What a node's memory may grow by while a peer or a client is frozen, beside the history.
const GROWTH_MAX: u64 = 24 << 20;

fn undelayed(what: &str, times: Vec<Duration>) {
    let count = times.len();
    let (median, p99, worst) = told(what, times);
    assert!(
        count > 100 && median <= UNDELAYED && p99 <= SLOWEST && worst <= 2 * SLOWEST,
        "{what} were delayed"
    );
}

/// Goal: a node stopped for 12 s under load delays nobody; its members leave; the memory
/// of the others stays bounded; within 5 s of going on it is the same node with the same history
/// as the others, nothing lost or doubled.
/// Method: 200 messages a second of 1 KB from the two others; SIGSTOP of the third; SIGCONT.
async fn a_node_stopped_for_12_s_delays_nobody_and_catches_up(over: Over) -> Outcome {
    let cluster = Cluster::over(over, 3, &["--rate-limit", "0"]).await?;
    let [one, two, frozen] = cluster.each();
    let recorder = Recorder::new();
    let _readers = [
        recorder.reader(one, "one-reads", "tea").await?,
        recorder.reader(two, "two-reads", "tea").await?,
        recorder.reader(frozen, "frozen-reads", "tea").await?,
    ];
    let watcher = Client::joined(one, "watcher", "tea").await?;
    let mut load = Load::new();
    for (node, name) in [(one, "ada"), (two, "bob")] {
        load.add_long(recorder.client(node, name).await?, "tea", 100, 1024);
    }
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
    tokio::time::sleep_until(stopped + FROZEN).await;
    let after = [one.process.usage()?, two.process.usage()?];
    load.stop().await?;
    frozen.process.thaw()?;
    let thawed = Instant::now();
    let within = THAWED_WITHIN + NOISE;
    let expect = Expect {
        within,
        ..Expect::default()
    };
    let checked = recorder.check_with(&cluster.nodes, "tea", expect).await?;
    let same_after = checked.converged;
    cluster.linked(PATIENCE).await?;
    let relinked = thawed.elapsed();
    let back = |change: &Value| change["joined"] == json!(["frozen-reads"]);
    watcher.push(PATIENCE, "members", back).await?;

    let attempts = recorder.attempts("tea");
    undelayed("replies", attempts.iter().map(Attempt::delay).collect());
    for reader in ["one-reads", "two-reads"] {
        undelayed("deliveries", recorder.deliveries(reader, |_| true));
    }
    for (before, after) in before.iter().zip(&after) {
        let growth = after.rss.saturating_sub(before.rss);
        say!("memory grew by {} KiB in {FROZEN:?}", growth >> 10);
        assert!(growth <= GROWTH_MAX, "memory grew by {growth} bytes");
    }
    say!(
        "its member left after {left_after:?}; after it went on: the same history within \
         {same_after:?}, linked within {relinked:?}; {checked}"
    );
    assert_eq!(
        frozen.mesh().await?.origin,
        frozen.origin,
        "still the same node"
    );
    Ok(())
}

/// Goal: a node that is stopped for 2 s, as by a busy machine, is not suspected by anybody,
/// and suspects nobody: no link closes, no member leaves, nobody is told of a gap.
/// Method: SIGSTOP for 2 s under load, three times, each after one of its beats, for a stop that
/// begins a second after the last beat makes the three seconds of silence that are too long; the
/// counters of dials and silences stand still, and nobody is told that somebody left. A round in
/// which this machine was late by half a second was no stop of 2 s: it is done again.
async fn a_node_stopped_for_2_s_is_not_noticed(over: Over) -> Outcome {
    let cluster = Cluster::over(over, 3, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let mut load = Load::new();
    for (node, name) in cluster.nodes.iter().zip(["ada", "bob", "eve"]) {
        load.add(recorder.client(node, name).await?, "tea", 67);
    }
    let mut readers = Vec::new();
    for (node, name) in cluster.nodes.iter().zip(["one", "two", "three"]) {
        readers.push(recorder.reader(node, name, "tea").await?);
    }
    let watcher = Client::joined(&cluster.nodes[0], "watcher", "tea").await?;
    let mut rounds = Vec::new();
    while rounds.len() < 12 && rounds.iter().filter(|&&on_time| on_time).count() < 3 {
        let before = noticed(&cluster, &watcher).await?;
        let frozen = &cluster.nodes[2];
        eventually(PATIENCE, "the node has just beaten", async || {
            let mesh = cluster.nodes[0].mesh().await?;
            let link = mesh.links.iter().find(|link| link.leads_to(frozen));
            let age = link.and_then(|link| link.beat_age_ms);
            anyhow::ensure!(age.is_some_and(|age| age < 300), "{age:?} ms ago");
            Ok(())
        })
        .await?;
        let seen = readers[0].stream().len();
        frozen.process.freeze()?;
        let stopped = Instant::now();
        tokio::time::sleep_until(stopped + secs(2)).await;
        frozen.process.thaw()?;
        // What was said meanwhile, there too, has come to the others.
        readers[0].shown(seen + 390, PATIENCE).await?;
        let on_time = stopped.elapsed() < ms(2500);
        rounds.push(on_time);
        let after = noticed(&cluster, &watcher).await?;
        assert!(
            after == before || !on_time,
            "noticed: {before:?}, {after:?}"
        );
    }
    assert!(rounds.contains(&true), "this machine is late each time");
    load.stop().await?;
    let checked = recorder.check(&cluster.nodes, "tea").await?;
    say!("rounds on time: {rounds:?}; {checked}");
    Ok(())
}

/// How often links were dialled, found silent or given up, and members left.
async fn noticed(cluster: &Cluster, watcher: &Client) -> anyhow::Result<Vec<u64>> {
    let mut counts = Vec::new();
    for node in &cluster.nodes {
        let metrics = node.metrics().await?;
        for kind in ["dials", "silent_links", "behind_links"] {
            counts.push(metrics.get(&format!("{kind}_total"))?);
        }
    }
    let left = |change: &&Value| change["left"] != json!([]);
    let changes = watcher.pushed("members");
    counts.push(changes.iter().filter(left).count() as u64);
    Ok(counts)
}

/// Goal: the memory of a node whose peer is stopped is bounded, not by luck of a light load.
/// Method: a node that keeps 1 MiB of history, 3 MiB a second of texts for 12 s, a stopped peer: a
/// queue without bound would hold 36 MiB.
async fn a_stopped_peer_does_not_fill_the_memory_of_the_others(over: Over) -> Outcome {
    let args = ["--rate-limit", "0", "--retain-bytes", "1048576"];
    let cluster = Cluster::over(over, 2, &args).await?;
    let [node, frozen] = cluster.each();
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
    say!(
        "a stopped peer for 12 s: {} MiB were sent, memory grew by {} MiB at most",
        sent >> 20,
        growth >> 20
    );
    assert!(
        growth <= GROWTH_MAX,
        "memory grew by {growth} bytes while {sent} were sent"
    );
    cluster.linked(PATIENCE).await?;
    Ok(())
}

/// Goal: a registry that is stopped and not dead (it accepts and says nothing) hurts as
/// little as a dead one; who starts meanwhile serves alone, says once what it waits for, and joins
/// when the registry goes on. Method: SIGSTOP it for 8 s (60 s with `CHATMESH_LONG=1`) under load;
/// a newcomer in the middle; SIGCONT; all are listed and linked.
#[tokio::test]
async fn a_stopped_registry_closes_no_link() -> Outcome {
    let stop = if long() { secs(60) } else { secs(8) };
    let mut cluster = Cluster::start(3).await?;
    let recorder = Recorder::new();
    let _reader = recorder.reader(&cluster.nodes[1], "reader", "tea").await?;
    let sender = recorder.client(&cluster.nodes[0], "ada").await?;
    let load = Load::start([sender], "tea", 20);
    cluster.registry.process.freeze()?;
    let stopped = Instant::now();
    let newcomer = cluster.add().await?;
    assert_eq!(newcomer.get("/healthz").await?.status(), 200);
    let mut ticks = tokio::time::interval(ms(200));
    while stopped.elapsed() < stop {
        ticks.tick().await;
        for node in &cluster.nodes[..3] {
            let mesh = node.mesh().await?;
            assert_eq!(
                mesh.up(),
                2,
                "a link closed while the registry was stopped: {mesh:?}"
            );
        }
    }
    let waits = cluster.nodes[3].process.log_text();
    let waits = waits.matches("joining when it appears").count();
    assert!(
        (1..=3).contains(&waits),
        "the newcomer said {waits} times that the registry is not there"
    );
    cluster.registry.process.thaw()?;
    let goes_on = Instant::now();
    cluster.registry.lists(4, secs(3) + NOISE).await?;
    cluster.linked(secs(5) + NOISE).await?;
    say!(
        "registry stopped for {stop:?}: all listed, and the newcomer linked, {:?} after it",
        goes_on.elapsed()
    );
    load.stop().await?;
    recorder.check(&cluster.nodes, "tea").await?;
    Ok(())
}
