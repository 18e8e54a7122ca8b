//! Nodes without files to open, or without a processor.

use tokio::net::TcpStream;

use crate::harness::load::spread;
use crate::harness::metrics::undelayed;
use crate::harness::process::Launch;
use crate::harness::quota::Starvation;
use crate::harness::{
    Client, Cluster, Duration, Instant, Load, Node, Outcome, PATIENCE, Recorder, eventually,
    linked, say, secs,
};

/// Files that the starved node may open.
const FILES: usize = 64;
/// How long it is watched without any.
const WATCHED: Duration = secs(3);
/// The most of a processor that it may use meanwhile, besides what its load costs.
const SHARE_MAX: f64 = 0.2;
/// Warnings that it may log meanwhile.
const WARNINGS_MAX: usize = 10;

/// Goal: a node that has no file left to open refuses clients or lets them wait, does not
/// spin, does not fill its log, goes on hearing and being heard by its peer, and takes clients and
/// peers again when there is room. Method: a hard limit of 64 files; first clients, to the last
/// place, then connections to its publisher until no file is left; processor time; let go.
#[tokio::test]
async fn a_node_without_files_does_not_spin_and_stays_in_the_mesh() -> Outcome {
    let mut cluster = Cluster::with(1, &["--rate-limit", "0"]).await?;
    let args = ["--registry", &cluster.registry.url, "--rate-limit", "0"];
    let few = format!("--nofile={FILES}:{FILES}");
    let launch = Launch::new("chatnode", args).by(["prlimit", &few]);
    let starved = Node::launch(launch).await?;
    linked(&[&cluster.nodes[0], &starved], PATIENCE).await?;
    starved.takes_clients(PATIENCE).await?;
    let recorder = Recorder::new();
    let _here = recorder.reader(&starved, "here", "tea").await?;
    let _there = recorder.reader(&cluster.nodes[0], "there", "tea").await?;
    let senders = recorder
        .clients([(&starved, "ada"), (&cluster.nodes[0], "bob")])
        .await?;
    let before = starved.metrics().await?;
    let load = Load::start(senders, "tea", 20);

    let guests = fill_with_guests(&starved).await?;
    let held = take_all_files(&starved).await?;
    let from = Instant::now();
    watch_without_files(&starved).await?;
    let without = from..Instant::now();
    drop((held, guests));

    let newcomer = cluster.add().await?.origin.clone();
    linked(&[&cluster.nodes[0], &cluster.nodes[1], &starved], PATIENCE).await?;
    assert!(starved.mesh().await?.hears(&newcomer));
    let _late = recorder.reader(&starved, "late", "tea").await?;
    load.stop().await?;
    let nodes = [&cluster.nodes[0], &cluster.nodes[1], &starved];
    let checked = recorder.check(&nodes, "tea").await?;
    assert_eq!(checked.verdict.to_the_end, 3, "{checked}");
    for reader in ["here", "there"] {
        let times = recorder.deliveries(reader, |sent| without.contains(&sent.sent_at));
        undelayed(&format!("deliveries {reader} without files"), times);
    }
    let after = starved.metrics().await?;
    let dialled = after.get("dials_total")? - before.get("dials_total")?;
    assert!(
        dialled <= 3,
        "{dialled} dials, for one newcomer that may have been early"
    );
    assert_eq!(after.get("silent_links_total")?, 0);
    Ok(())
}

/// As many clients as there is room for; then one is told so, and a probe is still answered.
async fn fill_with_guests(starved: &Node) -> anyhow::Result<Vec<Client>> {
    let mut guests = Vec::new();
    let refused = loop {
        match Client::hello(starved, &format!("guest{}", guests.len())).await {
            Ok(guest) => guests.push(guest),
            Err(error) => break format!("{error:#}"),
        }
        assert!(guests.len() < FILES, "more clients than files");
    };
    say!("{} guests, then: {refused}", guests.len());
    assert!(refused.contains("503"), "the last was refused by {refused}");
    assert_eq!(starved.get("/healthz").await?.status(), 200);
    Ok(guests)
}

/// Idle connections to its publisher, then to its HTTP, until it has no file left.
async fn take_all_files(starved: &Node) -> anyhow::Result<Vec<TcpStream>> {
    let mut held = Vec::new();
    let publisher = starved.publishes.trim_start_matches("tcp://");
    for address in [publisher, starved.address()] {
        for _ in 0..2 * FILES {
            held.push(TcpStream::connect(address).await?);
        }
    }
    eventually(PATIENCE, "it has no file left", async || {
        let files = starved.process.usage()?.files;
        anyhow::ensure!(files >= FILES - 1, "{files} files");
        Ok(())
    })
    .await?;
    Ok(held)
}

/// It waits and does not spin, and says so a few times at most.
async fn watch_without_files(starved: &Node) -> anyhow::Result<()> {
    let (watched, cpu) = (Instant::now(), starved.process.usage()?.cpu);
    tokio::time::sleep_until(watched + WATCHED).await;
    let used = starved.process.usage()?.cpu - cpu;
    let share = used.as_secs_f64() / watched.elapsed().as_secs_f64();
    let warnings = starved.process.log_text();
    let warnings = warnings.matches(" WARN ").count();
    say!(
        "without files: {:.1} % of a processor, {warnings} warnings",
        share * 100.0
    );
    assert!(share <= SHARE_MAX, "{used:?} of processor time");
    assert!(warnings <= WARNINGS_MAX, "{warnings} warnings");
    Ok(())
}

/// Of the time that a node needs to start and to join when nothing keeps it, two together may run so
/// much in each second: enough for what they are asked, and for nothing at once. It is measured, since
/// that time is another on each machine, and from one minute to the next.
const SHARE: f64 = 0.8;
/// How long they are watched: ten beats and more.
const STARVED_FOR: Duration = secs(12);

/// Goal: a node that is let run 1 % of the time is late, and is not taken for dead:
/// no link is torn down for silence, no lease ends, nothing is lost. Method: two nodes of three in
/// a control group with a quota of 15 ms a second; where there are none, on one processor with
/// eight who use it up. That they waited to run for long is seen in `/proc`.
#[tokio::test]
async fn a_node_that_hardly_runs_is_not_taken_for_dead() -> Outcome {
    let mut cluster = Cluster::with(2, &["--rate-limit", "0"]).await?;
    let mut fed = cluster.nodes.pop().expect("there are two");
    let needed = fed.process.ran()?;
    fed.process.stop(PATIENCE).await?;
    say!("a node starts and joins in {needed:?} of a processor");
    let starvation = Starvation::new(needed.mul_f64(SHARE), secs(1))?;
    for _ in 0..2 {
        let args = ["--registry", &cluster.registry.url, "--rate-limit", "0"];
        let mut launch = Launch::new("chatnode", args);
        launch.prefix = starvation.prefix();
        cluster.nodes.push(Node::launch(launch).await?);
    }
    cluster.linked(PATIENCE).await?;
    let recorder = Recorder::new();
    let mut readers = Vec::new();
    for (place, node) in cluster.nodes.iter().enumerate() {
        node.takes_clients(PATIENCE).await?;
        let name = format!("reader{place}");
        readers.push(recorder.reader(node, &name, "tea").await?);
    }
    let mut load = Load::new();
    for (place, node) in cluster.nodes.iter().enumerate() {
        let sender = recorder.client(node, &format!("sender{place}")).await?;
        load.add(sender, "tea", 5);
    }
    let starved = &cluster.nodes[1..];
    let waited = || -> anyhow::Result<Vec<Duration>> {
        let processes = starved.iter().map(|node| node.process.waited());
        processes.collect()
    };
    let (watched, before) = (Instant::now(), waited()?);
    tokio::time::sleep_until(watched + STARVED_FOR).await;
    let span = watched.elapsed();
    let waited: Vec<_> = waited()?.iter().zip(before).map(|(n, b)| *n - b).collect();
    let listed = cluster.registry.listed().await?;
    load.stop().await?;
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    let checked = recorder.check(&nodes, "tea").await?;
    assert_eq!(checked.verdict.shown, nodes.len() * checked.history.len());
    for reader in &readers {
        let (median, p99, worst) = spread(recorder.deliveries(&reader.name, |_| true));
        say!(
            "deliveries to {}: median {median:?}, p99 {p99:?}, worst {worst:?}",
            reader.name
        );
    }
    say!("in {span:?} they waited to run for {waited:?}; {checked}");
    let much = |time: &Duration| *time * 5 > span;
    assert!(waited.iter().all(much), "they were not starved: {waited:?}");
    assert_eq!(listed.len(), 3, "a lease ended");
    for node in &cluster.nodes {
        let metrics = node.metrics().await?;
        let counts = [
            "silent_links_total",
            "behind_links_total",
            "lost_total",
            "slow_total",
        ];
        for name in counts {
            assert_eq!(metrics.get(name)?, 0, "{name} of {}", node.origin);
        }
    }
    drop(cluster);
    starvation.end().await?;
    Ok(())
}
