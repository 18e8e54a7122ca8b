//! Two thousand clients lose their node in one instant.

use futures::StreamExt as _;
use futures::stream;

use crate::harness::load::spread;
use crate::harness::metrics::told;
use crate::harness::{
    Cluster, Duration, Habits, Instant, Load, NOISE, Node, Outcome, Pace, Recorder, Roamer,
    many_files, say, secs,
};

const CLIENTS: usize = 2000;
/// Rooms that they are in, some in each.
const ROOMS: usize = 40;
/// All of them are back at other nodes within this time.
const BACK_WITHIN: Duration = secs(30);
/// What a message of the others takes meanwhile, 99 of 100.
const DELIVERED_WITHIN: Duration = secs(1);

/// Goal: when the node of two thousand clients is killed, all are back at the two others
/// within 30 s, recovered; and the messages of those who were at the others are hardly late.
/// Method: two thousand readers in forty rooms, all at one node of three, who come back with full
/// jitter; somebody speaks in each room; on the others two talk and are read, 50 messages a
/// second.
#[tokio::test]
async fn two_thousand_clients_that_lose_their_node_are_back_within_30_s() -> Outcome {
    many_files()?;
    let mut cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let others = [&cluster.nodes[1], &cluster.nodes[2]];
    let mut load = Load::new();
    let mut readers = Vec::new();
    for (node, name) in others.into_iter().zip(["ada", "bob"]) {
        load.add(recorder.client(node, name).await?, "tea", 25);
        let reads = format!("{name}-reads");
        readers.push(recorder.reader(node, &reads, "tea").await?);
    }
    for room in 0..ROOMS {
        let node = others[room % 2];
        let name = format!("speaker{room}");
        let speaker = recorder.client(node, &name).await?;
        load.add(speaker, &format!("hall{room}"), 1);
    }
    let doomed = &cluster.nodes[0];
    let mut crowd = gather(&recorder, doomed).await?;
    assert_eq!(doomed.mesh().await?.clients, CLIENTS as u64);

    let origin = doomed.origin.clone();
    let killed = Instant::now();
    recorder.kill(&mut cluster.nodes[0]).await?;
    let mut times = Vec::new();
    for client in &mut crowd {
        let left = (killed + BACK_WITHIN + NOISE).duration_since(Instant::now());
        client.is_away_from(&origin, left).await?;
        let moved = client.moves();
        times.extend(moved.last().map(|moved| moved.back_at - killed));
    }
    let back = killed.elapsed();
    let nodes = [&cluster.nodes[1], &cluster.nodes[2]];
    load.stop().await?;
    let (median, p99, worst) = spread(times);
    say!(
        "{CLIENTS} clients are back {median:?} (median), {p99:?} (99 of 100), {worst:?} (last) \
         after their node was killed: {} and {} at the others",
        nodes[0].mesh().await?.clients,
        nodes[1].mesh().await?.clients
    );
    for reader in ["ada-reads", "bob-reads"] {
        let span = killed..killed + back;
        let meanwhile = recorder.deliveries(reader, |sent| span.contains(&sent.sent_at));
        let (median, p99, _) = told(&format!("{reader} meanwhile"), meanwhile);
        assert!(median <= DELIVERED_WITHIN && p99 <= DELIVERED_WITHIN + NOISE);
    }
    say!("{}", recorder.check(&nodes, "tea").await?);
    let mut shown = 0;
    for room in 0..ROOMS {
        let room = format!("hall{room}");
        let verdict = recorder.check(&nodes, &room).await?.verdict;
        assert_eq!(verdict.moves, CLIENTS / ROOMS);
        assert_eq!(verdict.to_the_end, CLIENTS / ROOMS);
        shown += verdict.shown;
    }
    say!("in the {ROOMS} halls {shown} were shown, none missed, none twice");
    Ok(())
}

/// All of the crowd, at this node.
async fn gather(recorder: &Recorder, node: &Node) -> anyhow::Result<Vec<Roamer>> {
    let starts = (0..CLIENTS).map(|count| async move {
        let habits = Habits::new(format!("hall{}", count % ROOMS), Pace::Silent, 0);
        let name = format!("client{count}");
        Roamer::start(recorder, &[node], &name, habits).await
    });
    let mut crowd = Vec::new();
    let mut starts = stream::iter(starts).buffer_unordered(50);
    while let Some(client) = starts.next().await {
        crowd.push(client?);
    }
    Ok(crowd)
}
