//! A node that does not take what its broker has for it: the broker cuts it off, or drops what is oldest.

use anyhow::{Result, ensure};

use crate::harness::buses::{bus_of, nodes_at};
use crate::harness::engines::nats::Nats;
use crate::harness::engines::rabbit::Rabbit;
use crate::harness::engines::redis::Redis;
use crate::harness::metrics::told;
use crate::harness::{
    Attempt, Duration, Habits, Instant, NOISE, Node, Outcome, PATIENCE, Pace, Recorder, Roamer,
    eventually, linked, ms, say, secs,
};

/// Half of what is said takes no longer than this while another node is stopped.
const UNDELAYED: Duration = ms(250);

/// Stops the last of three nodes under load until its broker has given up what it does not take; then it
/// goes on. Nobody else is slower meanwhile, but for so long as the broker itself waits for it, once; and what
/// it missed it repairs: nothing is lost or doubled.
async fn is_stopped_and_repairs(
    nodes: &[Node],
    under_way: usize,
    engine_waits: Duration,
    is_given_up: impl AsyncFn(&mut Roamer) -> Result<()>,
) -> Result<()> {
    let recorder = Recorder::new();
    let mut readers = Vec::new();
    for (node, name) in nodes[1..].iter().zip(["bob", "eve"]) {
        let habits = Habits::new("tea", Pace::Silent, 0);
        readers.push(Roamer::start(&recorder, &[node], name, habits).await?);
    }
    let mut habits = Habits::new("tea", Pace::Eager(under_way), 1);
    habits.bytes = 4000;
    let mut talker = Roamer::start(&recorder, &[&nodes[0]], "ada", habits).await?;
    talker.has_said(100, PATIENCE).await?;
    let stopped = Instant::now();
    nodes[2].process.freeze()?;
    is_given_up(&mut talker).await?;
    talker.has_said(talker.answered() + 200, PATIENCE).await?;
    let took = stopped.elapsed();
    let meanwhile = |attempt: &Attempt| (stopped..stopped + took).contains(&attempt.sent_at);
    nodes[2].process.thaw()?;
    linked(nodes, PATIENCE).await?;
    talker.hush(PATIENCE).await?;
    let checked = recorder.check(nodes, "tea").await?;
    say!("stopped for {took:?}; {checked}");
    assert!(checked.losses.repaired > 0, "{:?}", checked.losses);
    let attempts = recorder.attempts("tea").into_iter();
    let delays = attempts.filter(meanwhile).map(|it| it.delay()).collect();
    for (what, times) in [
        ("replies", delays),
        ("deliveries", recorder.deliveries("bob", meanwhile)),
    ] {
        let (median, p99, _) = told(what, times);
        assert!(median <= UNDELAYED, "{what}: half of them took {median:?}");
        assert!(p99 <= engine_waits + UNDELAYED + NOISE, "{what}: {p99:?}");
    }
    Ok(())
}

/// See [`is_stopped_and_repairs`]. Method: Redis lets a subscriber be 256 KiB behind.
#[tokio::test]
async fn a_node_that_redis_cuts_off_repairs_what_it_missed() -> Outcome {
    let redis = Redis::start().await?;
    let limit = "pubsub 256kb 128kb 1";
    redis
        .command(&["CONFIG", "SET", "client-output-buffer-limit", limit])
        .await?;
    let nodes = nodes_at(&redis, None, 3).await?;
    let is_cut_off = async |_: &mut Roamer| {
        eventually(PATIENCE, "Redis cuts the stopped node off", async || {
            let clients = redis.command(&["CLIENT", "LIST"]).await?;
            let clients = clients.text()?.to_owned();
            let mut of_it = clients.lines().filter(|it| it.contains(&nodes[2].origin));
            ensure!(!of_it.any(|it| it.contains("flags=P")), "{clients}");
            Ok(())
        })
        .await
    };
    is_stopped_and_repairs(&nodes, 16, Duration::ZERO, is_cut_off).await?;
    Ok(())
}

/// See [`is_stopped_and_repairs`]. Method: NATS holds 200 KB for a subscriber at the most, and waits one second for
/// one that takes nothing, as docs/brokers.md advises: it makes who publishes wait as long, and with its own ten
/// seconds all nodes would lose it.
#[tokio::test]
async fn a_node_that_nats_cuts_off_repairs_what_it_missed() -> Outcome {
    let limits = "max_payload: 100000\nmax_pending: 200000\nwrite_deadline: \"1s\"";
    let nats = Nats::with(limits, &[]).await?;
    let nodes = nodes_at(&nats, None, 3).await?;
    let is_cut_off = async |_: &mut Roamer| {
        eventually(PATIENCE, "NATS cuts the stopped node off", async || {
            let seen = nats.monitored("varz").await?;
            // It may count one twice: for what waits, and for how long it has.
            ensure!(seen["slow_consumers"] != 0, "it cuts nobody off");
            let seen = nats.monitored("connz").await?;
            ensure!(seen["num_connections"] == 2, "{seen}");
            Ok(())
        })
        .await
    };
    is_stopped_and_repairs(&nodes, 16, secs(1), is_cut_off).await?;
    for (node, dials) in nodes.iter().zip([1, 1, 2]) {
        let bus = bus_of(node).await?;
        assert_eq!(bus.dials, dials, "nobody else was cut off: {bus:?}");
    }
    Ok(())
}

/// See [`is_stopped_and_repairs`]. RabbitMQ cuts nobody off: of the queue that a node has declared it drops what is
/// oldest. Method: an operator's policy gives such queues 256 KiB instead of 32 MiB, of messages of 4 KB. What is
/// on its way besides is 256 frames of at most four of them.
#[tokio::test]
async fn a_node_for_which_rabbitmq_drops_the_oldest_repairs_what_it_missed() -> Outcome {
    let rabbit = Rabbit::start().await?;
    let bound = ["small", "^amq\\.gen", "{\"max-length-bytes\":262144}"];
    let policy = ["set_policy", "-p", &rabbit.vhost, "--apply-to", "queues"];
    rabbit.ctl(&[&policy[..], &bound].concat()).await?;
    let nodes = nodes_at(&rabbit, None, 3).await?;
    let has_dropped =
        async |talker: &mut Roamer| talker.has_said(talker.answered() + 1200, PATIENCE).await;
    is_stopped_and_repairs(&nodes, 4, Duration::ZERO, has_dropped).await?;
    for node in &nodes {
        let bus = bus_of(node).await?;
        assert_eq!(bus.dials, 1, "nobody was cut off: {bus:?}");
    }
    Ok(())
}
