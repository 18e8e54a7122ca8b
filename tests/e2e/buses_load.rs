//! Brokers under many nodes, and nodes under much load without their broker.

use anyhow::ensure;

use crate::harness::buses::{bus_is_lost, flags, nodes_with};
use crate::harness::engines::Broker;
use crate::harness::engines::redis::Redis;
use crate::harness::{
    Client, Instant, Load, NOISE, Outcome, PATIENCE, linked, long, ms, say, secs,
};

/// Goal: when a broker is back all of a large mesh hear each other at once, and do not storm it. Method:
/// twelve nodes at one Redis, which is killed and started again; how long until all hear all, and how many
/// connections were made. With `CHATMESH_LONG=1` they are thirty, or fifty of `--release`.
#[tokio::test]
async fn many_nodes_meet_again_when_their_broker_is_back() -> Outcome {
    let count = match (long(), cfg!(debug_assertions)) {
        (true, true) => 30,
        (true, false) => 50,
        (false, _) => 12,
    };
    let mut redis = Redis::start().await?;
    let url = redis.url();
    let nodes = nodes_with(&flags(&[&url], None), count).await?;
    redis.kill().await?;
    for node in &nodes {
        bus_is_lost(node, PATIENCE).await?;
    }
    redis.again().await?;
    let back = Instant::now();
    linked(&nodes, secs(60)).await?;
    let took = back.elapsed();
    let info = redis.command(&["INFO", "stats"]).await?;
    let info = info.text()?.to_owned();
    let made = info
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"));
    let made: usize = made.unwrap_or_default().trim().parse()?;
    say!("{count} nodes: all heard all {took:?} after it was back; {made} connections");
    // The redial's longest pause, and a moment for each node.
    assert!(took <= secs(2) + ms(100) * u32::try_from(count)? + NOISE);
    // Two for each node, once more for some, and this test's own.
    assert!(made <= 4 * count + 20, "{made} connections");
    Ok(())
}

/// Goal: a node whose broker is away holds no more memory for that, however long and whatever its clients say.
/// Method: a thousand messages a second of 1 KB for ten seconds (sixty with `CHATMESH_LONG=1`), on a node
/// that keeps little history.
#[tokio::test]
async fn a_broker_that_is_away_takes_no_memory() -> Outcome {
    const MIB: u64 = 1 << 20;
    let mut redis = Redis::start().await?;
    let url = redis.url();
    let mut flags = flags(&[&url], None);
    flags.extend(["--retain-messages", "1000", "--retain-bytes", "2097152"].map(str::to_owned));
    let nodes = nodes_with(&flags, 2).await?;
    let mut load = Load::new();
    for name in ["ada", "bob"] {
        let client = Client::joined(&nodes[0], name, "tea").await?;
        load.add_long(client, "tea", 500, 1024);
    }
    let said = async || -> anyhow::Result<u64> { nodes[0].metrics().await?.get("said_total") };
    let has_said = async |least: u64| {
        crate::harness::eventually(secs(120), "it is said", async || {
            let said = said().await?;
            ensure!(said >= least, "{said} of {least}");
            Ok(())
        })
        .await
    };
    has_said(3000).await?;
    redis.kill().await?;
    bus_is_lost(&nodes[0], PATIENCE).await?;
    has_said(said().await? + 2000).await?;
    let before = nodes[0].process.usage()?.rss;
    let seconds = if long() { 60 } else { 10 };
    has_said(said().await? + seconds * 1000).await?;
    let after = nodes[0].process.usage()?.rss;
    let more = after.saturating_sub(before) / MIB;
    say!(
        "{seconds} s of 1000 messages a second: {} MiB, then {more} MiB more",
        before / MIB
    );
    assert!(more <= 32, "{more} MiB more");
    redis.again().await?;
    load.stop().await?;
    linked(&nodes, PATIENCE).await?;
    Ok(())
}
