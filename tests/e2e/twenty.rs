//! Twenty nodes on one machine.

use crate::harness::{Client, Cluster, Instant, Outcome, PATIENCE, histories, say, secs};

const NODES: usize = 20;
/// How long the idle mesh is watched: some beats of everyone.
const WATCHED: std::time::Duration = secs(5);
/// What a node may use of memory when idle. Far above what is expected: a leak fails it.
const RSS_MAX: u64 = 64 << 20;

/// Goal: twenty nodes are all linked (380 links), a message of each reaches all, the histories are
/// the same bytes; and what a node costs idle is measured. Method: start twenty, watch processor
/// time and memory for some seconds of silence; then each says one thing.
#[tokio::test]
async fn twenty_nodes_are_all_linked_and_a_message_reaches_all() -> Outcome {
    let start = Instant::now();
    let cluster = Cluster::start(NODES).await?;
    let linked = start.elapsed();
    let mut links = 0;
    for node in &cluster.nodes {
        links += node.mesh().await?.up();
    }
    assert_eq!(links, NODES * (NODES - 1));

    let usage = || {
        cluster
            .nodes
            .iter()
            .map(|node| node.process.usage())
            .collect::<Result<Vec<_>, _>>()
    };
    let before = usage()?;
    let watched = Instant::now();
    tokio::time::sleep(WATCHED).await;
    let after = usage()?;
    let span = watched.elapsed().as_secs_f64();
    let share = |place: usize| (after[place].cpu - before[place].cpu).as_secs_f64() / span * 100.0;
    let shares: Vec<_> = (0..NODES).map(share).collect();
    let mean = shares.iter().sum::<f64>() / NODES as f64;
    let largest = after
        .iter()
        .map(|usage| usage.rss)
        .max()
        .unwrap_or_default();
    let files = after
        .iter()
        .map(|usage| usage.files)
        .max()
        .unwrap_or_default();
    say!(
        "{NODES} nodes linked {linked:?} after the first start; idle, {span:.1} s: {mean:.2} % of \
         a core and at most {:.1} MiB and {files} files a node",
        largest as f64 / f64::from(1 << 20)
    );
    assert!(largest <= RSS_MAX, "an idle node uses {largest} bytes");

    let mut clients = Vec::new();
    for (place, node) in cluster.nodes.iter().enumerate() {
        clients.push(Client::joined(node, &format!("c{place}"), "hall").await?);
    }
    for (place, client) in clients.iter().enumerate() {
        client.send("hall", &format!("from {place}")).await?;
    }
    for client in &clients {
        for place in 0..NODES {
            client.message(PATIENCE, &format!("from {place}")).await?;
        }
    }
    assert_eq!(
        histories(&cluster.nodes, "hall", PATIENCE).await?.len(),
        NODES
    );
    for client in &clients {
        assert_eq!(
            client.messages().len(),
            NODES,
            "{} was shown something twice",
            client.name
        );
    }
    Ok(())
}
