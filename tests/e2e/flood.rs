//! More than the queues hold: bursts in pipelined frames, and a node that does not take them.

use crate::harness::load::send_at_once;
use crate::harness::{
    Cluster, Duration, Expect, Instant, Node, Outcome, PATIENCE, Recorder, say, secs,
};

/// Flags of nodes that keep all of it.
const KEEPS_ALL: [&str; 6] = [
    "--rate-limit",
    "0",
    "--retain-messages",
    "200000",
    "--retain-bytes",
    "268435456",
];
/// A burst, with its replies and to all nodes, may take so long on a busy machine.
const BURST_WITHIN: Duration = secs(60);

/// Goal: a burst as fast as it is taken, a hundred thousand messages in pipelined frames from
/// four senders on three nodes, is in every history, once, in order; the counters are true.
/// Method: `--rate-limit 0`; frames of 200 sends and more; readers on each node, all of whom are
/// shown all.
#[tokio::test]
async fn a_burst_of_a_hundred_thousand_messages_is_in_every_history() -> Outcome {
    let cluster = Cluster::with(3, &KEEPS_ALL).await?;
    let recorder = Recorder::new();
    let _readers = recorder.readers(&cluster.nodes, "tea").await?;
    let begun = Instant::now();
    burst(&recorder, &cluster.nodes, 25_000, 0).await?;
    let taken = begun.elapsed();
    let expect = Expect {
        within: BURST_WITHIN,
        ..Expect::default()
    };
    let checked = recorder.check_with(&cluster.nodes, "tea", expect).await?;
    say!("taken in {taken:?}; {checked}");
    assert_eq!(checked.verdict.acknowledged, 100_000);
    Ok(())
}

/// Goal: what was dropped because a node took nothing, more than all queues and buffers
/// hold, is found by that node and filled, and counted: gaps and repairs on it, nothing lost.
/// Method: SIGSTOP of the third node; 30 MB from the two others, as fast as they are taken; it stays
/// stopped for 8 s more, until the kernel has cut its links; SIGCONT.
#[tokio::test]
async fn what_a_stopped_node_did_not_take_is_found_and_filled() -> Outcome {
    let cluster = Cluster::with(3, &KEEPS_ALL).await?;
    let recorder = Recorder::new();
    let [one, two, frozen] = cluster.each();
    let _awake = recorder.reader(one, "awake", "tea").await?;
    frozen.process.freeze()?;
    burst(&recorder, &cluster.nodes[..2], 5000, 1500).await?;
    let taken = Instant::now();
    // The fault's own length: a connection that takes nothing is cut after 5 s.
    tokio::time::sleep_until(taken + secs(8)).await;
    frozen.process.thaw()?;
    let expect = Expect {
        within: BURST_WITHIN,
        repaired: true,
        ..Expect::default()
    };
    let nodes = [one, two, frozen];
    let checked = recorder.check_with(&nodes, "tea", expect).await?;
    let counts = frozen.metrics().await?;
    let count = |kind: &str| counts.get(&format!("{kind}_total"));
    say!(
        "the stopped node counts {} gaps, {} repaired in {} requests; {checked}",
        count("gaps")?,
        count("repaired")?,
        count("fetches")?
    );
    assert!(count("gaps")? > 0 && count("repaired")? > 0);
    cluster.linked(PATIENCE).await?;
    Ok(())
}

/// Four senders, two on the first node, send so many messages each, of at least so many bytes, in
/// frames of many, as fast as they are answered.
async fn burst(
    recorder: &Recorder,
    nodes: &[Node],
    messages: usize,
    bytes: usize,
) -> anyhow::Result<()> {
    let mut senders = Vec::new();
    for (count, place) in [0, 0, 1, 2].into_iter().enumerate() {
        let node = &nodes[place.min(nodes.len() - 1)];
        let name = format!("sender{count}");
        senders.push(recorder.client(node, &name).await?);
    }
    let all = senders
        .iter()
        .map(|sender| send_at_once(sender, "tea", messages, bytes));
    for sent in futures::future::join_all(all).await {
        sent?;
    }
    Ok(())
}
