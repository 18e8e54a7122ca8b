//! Nodes that meet at a broker: the promises hold there as from node to node, whatever is killed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::buses::{bus_is_lost, flags, nodes_at, nodes_with, on_each};
use crate::harness::engines::Broker;
use crate::harness::engines::redis::Redis;
use crate::harness::load::spread;
use crate::harness::sealed::Seal;
use crate::harness::{
    Expect, Habits, Instant, NOISE, Outcome, PATIENCE, Pace, Recorder, Roamer, linked, long, ms,
    say, secs, seed,
};

on_each!(
    kills_of_a_node_and_of_the_broker_lose_and_double_nothing,
    a_broker_that_comes_back_empty_is_met_again_and_nothing_is_missed,
);

/// Kills: with `CHATMESH_LONG=1` as many as the first.
const ROUNDS_LONG: usize = 10;
const ROUNDS: usize = 4;
/// How soon after the last fault has ended all nodes keep the same.
const SAME_WITHIN: crate::harness::Duration = secs(2);
/// How soon after a broker listens again all nodes hear each other.
const MET_WITHIN: crate::harness::Duration = ms(2500);

/// Goal: whatever is killed, a node or the broker, of what was acknowledged with a copy nothing is lost,
/// nothing is doubled, and all nodes keep the same within two seconds after the last fault has ended.
/// Method: three clients send with `copies: 1` as fast as they are answered, and read; several times a node, the
/// broker, or both are killed at a random moment and started again, the broker with nothing.
async fn kills_of_a_node_and_of_the_broker_lose_and_double_nothing(
    mut broker: impl Broker,
    seal: Option<Seal>,
) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut nodes = nodes_at(&broker, seal.as_ref(), 3).await?;
    let (mut same, mut messages, mut copied) = (Vec::new(), 0, 0);
    let rounds = if long() { ROUNDS_LONG } else { ROUNDS };
    for round in 0..rounds {
        let recorder = Recorder::new();
        let room = format!("tea{round}");
        let habits = Habits::new(&room, Pace::Eager(4), 1);
        let mut talkers = Vec::new();
        for name in ["ada", "bob", "eve"] {
            talkers.push(Roamer::start(&recorder, &nodes, name, habits.clone()).await?);
        }
        for talker in &mut talkers {
            talker.has_said(30, PATIENCE).await?;
        }
        // Not a wait for anything: any moment of the flow is as good for a kill.
        tokio::time::sleep(ms(rng.random_range(0..200))).await;
        let (a_node, the_broker) = [(true, false), (false, true), (true, true)][round % 3];
        if the_broker {
            broker.kill().await?;
        }
        if a_node {
            let killed = &mut nodes[rng.random_range(0..3)];
            let origin = killed.origin.clone();
            recorder.kill(killed).await?;
            killed.again().await?;
            for talker in &mut talkers {
                talker.is_away_from(&origin, PATIENCE).await?;
            }
        }
        if the_broker {
            broker.again().await?;
        }
        linked(&nodes, PATIENCE).await?;
        for talker in &mut talkers {
            talker.has_said(talker.answered() + 30, PATIENCE).await?;
        }
        for talker in &mut talkers {
            talker.hush(PATIENCE).await?;
        }
        let checked = recorder
            .check_with(&nodes, &room, Expect::default())
            .await?;
        say!("round {round}: {checked}");
        same.push(checked.converged);
        assert_eq!(checked.verdict.to_the_end, 3);
        messages += checked.verdict.messages;
        copied += checked.verdict.copied;
    }
    let (median, _, worst) = spread(same);
    say!(
        "{rounds} kills: {messages} messages, {copied} with a copy, nothing of these lost or doubled; the \
         same everywhere after {median:?} (median), {worst:?} (longest)"
    );
    assert!(copied > rounds * 60, "only {copied} had a copy");
    assert!(median <= SAME_WITHIN && worst <= SAME_WITHIN + NOISE);
    Ok(())
}

/// A broker's URL as nodes show it: without its password.
fn shown(broker: &impl Broker) -> String {
    let url = broker.url().replace("localhost", "127.0.0.1");
    url.replace("guest:guest@", "")
}

/// Goal: while the broker is away each node serves its own clients and stays ready, and says what it lacks;
/// when it is back, with nothing, all hear each other within 2.5 s, and everybody is shown all, once.
/// Method: a talker and a reader on each of three nodes; the broker is killed for two seconds, and meanwhile
/// each node's clients are answered.
async fn a_broker_that_comes_back_empty_is_met_again_and_nothing_is_missed(
    mut broker: impl Broker,
    seal: Option<Seal>,
) -> Outcome {
    let nodes = nodes_at(&broker, seal.as_ref(), 3).await?;
    let recorder = Recorder::new();
    let mut talkers = Vec::new();
    for (node, name) in nodes.iter().zip(["ada", "bob", "eve"]) {
        let habits = Habits::new("tea", Pace::Steady(50), 0);
        talkers.push(Roamer::start(&recorder, &[node], name, habits).await?);
    }
    for talker in &mut talkers {
        talker.has_said(20, PATIENCE).await?;
    }
    broker.kill().await?;
    let killed = Instant::now();
    for node in &nodes {
        let bus = bus_is_lost(node, PATIENCE).await?;
        assert_ne!(bus.reason, "", "{bus:?}");
    }
    let noticed = killed.elapsed();
    for (node, talker) in nodes.iter().zip(&mut talkers) {
        let ready = node.get("/readyz").await?;
        assert_eq!(ready.status(), 200, "its own clients are served");
        let text = ready.text().await?;
        assert!(text.contains(&shown(&broker)), "{text}");
        talker.has_said(talker.answered() + 20, PATIENCE).await?;
    }
    // What the issue asks for: it is away for two seconds.
    tokio::time::sleep_until(killed + secs(2)).await;
    broker.again().await?;
    let took = linked(&nodes, PATIENCE).await?;
    for talker in &mut talkers {
        talker.hush(PATIENCE).await?;
    }
    let checked = recorder.check(&nodes, "tea").await?;
    say!("its end was noticed after {noticed:?}; back, all were linked after {took:?}; {checked}");
    assert!(took <= MET_WITHIN + NOISE, "{took:?}");
    assert_eq!(checked.verdict.to_the_end, 3);
    for talker in &talkers {
        assert_eq!(talker.moves().len(), 0, "no client had to move");
    }
    Ok(())
}

/// Goal: with two brokers one may die, and nobody who chats sees it. Method: a steady talker and readers on
/// three nodes at two servers; one of them is killed and started again, six times in turn; the longest time
/// of any message from its sender to a reader tells.
#[tokio::test]
async fn of_two_brokers_one_dies_and_nobody_sees_it() -> Outcome {
    let mut brokers = [Redis::start().await?, Redis::start().await?];
    let urls = [brokers[0].url(), brokers[1].url()];
    let flags = flags(&[&urls[0], &urls[1]], None);
    let nodes = nodes_with(&flags, 3).await?;
    let recorder = Recorder::new();
    let habits = |pace| Habits::new("tea", pace, 1);
    let mut talker =
        Roamer::start(&recorder, &[&nodes[0]], "ada", habits(Pace::Steady(100))).await?;
    let mut readers = Vec::new();
    for (node, name) in nodes.iter().zip(["r0", "r1", "r2"]) {
        readers.push(Roamer::start(&recorder, &[node], name, habits(Pace::Silent)).await?);
    }
    for round in 0..6 {
        let both_are_up = async || {
            let mesh = nodes[0].mesh().await?;
            let up = mesh.buses.iter().all(|bus| bus.state == "up");
            anyhow::ensure!(up && mesh.up() == 4, "{mesh:?}");
            Ok(())
        };
        crate::harness::eventually(PATIENCE, "both brokers carry all links", both_are_up).await?;
        let broker = &mut brokers[round % 2];
        broker.kill().await?;
        talker.has_said(talker.answered() + 100, PATIENCE).await?;
        broker.again().await?;
    }
    talker.hush(PATIENCE).await?;
    let checked = recorder.check(&nodes, "tea").await?;
    let mut worst = ms(0);
    for name in ["r1", "r2"] {
        let (median, p99, longest) = spread(recorder.deliveries(name, |_| true));
        say!("{name}: a message took {median:?}, {p99:?} (99 of 100), {longest:?} (longest)");
        worst = worst.max(p99);
    }
    let (_, p99, longest) = recorder.replies("tea");
    say!("replies with a copy: {p99:?} (99 of 100), {longest:?} (longest); {checked}");
    assert!(worst <= ms(100) + NOISE, "{worst:?}");
    assert_eq!(checked.losses.lost, 0);
    Ok(())
}
