//! What befalls a broker, or the way to it, while it runs.

use anyhow::ensure;

use crate::harness::buses::{bus_is, bus_is_lost, bus_of, flags, nodes_at, nodes_with, on_each};
use crate::harness::cluster::LinkState;
use crate::harness::engines::Broker;
use crate::harness::engines::path::Path;
use crate::harness::engines::redis::Redis;
use crate::harness::engines::sentinels::Sentinels;
use crate::harness::sealed::Seal;
use crate::harness::{
    Habits, Instant, NOISE, Node, Outcome, PATIENCE, Pace, Recorder, Roamer, eventually, linked,
    ms, say, secs,
};

on_each!(
    a_broker_that_is_stopped_is_left_and_met_again,
    half_a_way_to_the_broker_is_none,
);

/// A node that hears nothing for so long takes its broker, or a peer, to be lost; and a moment more.
const NOTICED_WITHIN: crate::harness::Duration = ms(3500);

/// Goal: a broker that is stopped as it stands, its connections open, is left after three seconds of silence;
/// what comes late from it harms nothing. Method: it is stopped under load, until each node has dialled it anew.
async fn a_broker_that_is_stopped_is_left_and_met_again(
    mut broker: impl Broker,
    seal: Option<Seal>,
) -> Outcome {
    let nodes = nodes_at(&broker, seal.as_ref(), 2).await?;
    let recorder = Recorder::new();
    let mut talkers = Vec::new();
    for (node, name) in nodes.iter().zip(["ada", "bob"]) {
        let habits = Habits::new("tea", Pace::Steady(100), 0);
        talkers.push(Roamer::start(&recorder, &[node], name, habits).await?);
    }
    for talker in &mut talkers {
        talker.has_said(20, PATIENCE).await?;
    }
    let stopped = Instant::now();
    broker.pause().await?;
    for node in &nodes {
        let bus = bus_is_lost(node, PATIENCE).await?;
        assert!(["silent", "timed_out"].contains(&&*bus.reason), "{bus:?}");
    }
    let noticed = stopped.elapsed();
    for node in &nodes {
        eventually(PATIENCE, "it is dialled anew", async || {
            let bus = bus_of(node).await?;
            ensure!(bus.dials >= 2, "{bus:?}");
            Ok(())
        })
        .await?;
    }
    broker.resume()?;
    let took = linked(&nodes, PATIENCE).await?;
    for talker in &mut talkers {
        talker.hush(PATIENCE).await?;
    }
    let checked = recorder.check(&nodes, "tea").await?;
    say!("left after {noticed:?}, linked {took:?} after it went on; {checked}");
    assert!(noticed <= NOTICED_WITHIN + NOISE, "{noticed:?}");
    assert_eq!(checked.verdict.to_the_end, 2);
    Ok(())
}

/// Goal: a node that can publish and hears nothing notices it by its own beats that do not come back, though
/// the broker takes all it says; one that hears and cannot publish likewise, and all others lose them. Method:
/// a way of its own for two of four nodes; of the one the direction back is swallowed, of the other that there.
async fn half_a_way_to_the_broker_is_none(broker: impl Broker, seal: Option<Seal>) -> Outcome {
    let paths = [Path::to(&broker).await?, Path::to(&broker).await?];
    let mut nodes = nodes_at(&broker, seal.as_ref(), 2).await?;
    for path in &paths {
        let far = Node::start(flags(&[&path.url], seal.as_ref())).await?;
        nodes.push(far);
    }
    linked(&nodes, PATIENCE).await?;
    let recorder = Recorder::new();
    let mut talkers = Vec::new();
    for (node, name) in nodes.iter().zip(["ada", "bob", "eve", "joe"]) {
        let habits = Habits::new("tea", Pace::Steady(20), 0);
        talkers.push(Roamer::start(&recorder, &[node], name, habits).await?);
    }
    let begun = Instant::now();
    paths[0].deafen();
    paths[1].mute();
    let mut reasons = Vec::new();
    for far in &nodes[2..] {
        reasons.push(bus_is_lost(far, PATIENCE).await?.error);
    }
    let noticed = begun.elapsed();
    for node in &nodes[..2] {
        eventually(PATIENCE, "the others lose them", async || {
            let mesh = node.mesh().await?;
            // They may have been dialled again by now, and no beat comes.
            let beats = |link: &&LinkState| link.beat_age_ms.is_some();
            let is_far = |link: &&LinkState| nodes[2..].iter().any(|far| link.leads_to(far));
            let mut live = mesh.links.iter().filter(is_far).filter(beats);
            ensure!(live.all(|link| link.state == "dialing"), "{mesh:?}");
            ensure!(mesh.buses[0].state == "up", "their own is well: {mesh:?}");
            Ok(())
        })
        .await?;
    }
    let lost = begun.elapsed();
    paths.iter().for_each(Path::pass);
    for far in &nodes[2..] {
        bus_is(far, "up", PATIENCE).await?;
    }
    let took = linked(&nodes, PATIENCE).await?;
    say!(
        "noticed after {noticed:?} ({}), lost after {lost:?}, linked again after {took:?}",
        reasons.join("; ")
    );
    assert!(noticed <= NOTICED_WITHIN + NOISE, "{noticed:?}");
    assert!(lost <= NOTICED_WITHIN + secs(1) + NOISE, "{lost:?}");
    for talker in &mut talkers {
        talker.hush(PATIENCE).await?;
    }
    let checked = recorder.check(&nodes, "tea").await?;
    say!("{checked}");
    assert_eq!(checked.verdict.to_the_end, 4);
    Ok(())
}

/// Goal: a subscriber's connection that is killed alone, while the publisher's stays, is noticed where the
/// socket says so, at once, and all is linked again and repaired. Method: `CLIENT KILL TYPE pubsub`, five
/// times under load.
#[tokio::test]
async fn a_subscriber_that_is_killed_alone_is_back_at_once() -> Outcome {
    let redis = Redis::start().await?;
    let nodes = nodes_at(&redis, None, 3).await?;
    let recorder = Recorder::new();
    let habits = Habits::new("tea", Pace::Steady(100), 1);
    let mut talker = Roamer::start(&recorder, &[&nodes[0]], "ada", habits).await?;
    for _ in 0..5 {
        talker.has_said(talker.answered() + 30, PATIENCE).await?;
        let dials: u64 = bus_of(&nodes[0]).await?.dials;
        let begun = Instant::now();
        redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
        eventually(PATIENCE, "the broker is dialled again", async || {
            let bus = bus_of(&nodes[0]).await?;
            ensure!(bus.dials > dials && bus.state == "up", "{bus:?}");
            Ok(())
        })
        .await?;
        linked(&nodes, PATIENCE).await?;
        let took = begun.elapsed();
        say!("all linked again after {took:?}");
        assert!(took <= ms(500) + NOISE, "{took:?}");
    }
    talker.hush(PATIENCE).await?;
    let checked = recorder.check(&nodes, "tea").await?;
    say!("{checked}");
    Ok(())
}

/// Goal: nodes follow their primary: none stays at a server that is no primary any more. Method: the
/// primary is killed; then sentinels switch while it lives. Messages go on, none is lost.
#[tokio::test]
async fn nodes_follow_the_primary_that_sentinels_name() -> Outcome {
    let mut watched = Sentinels::start().await?;
    let url = watched.url();
    let nodes = nodes_with(&flags(&[&url], None), 2).await?;
    let recorder = Recorder::new();
    let habits = Habits::new("tea", Pace::Steady(50), 0);
    let mut talker = Roamer::start(&recorder, &[&nodes[0]], "ada", habits).await?;
    talker.has_said(20, PATIENCE).await?;
    let first = watched.master().await?;
    watched.redis[first].kill().await?;
    let begun = Instant::now();
    watched.switched_to(1 - first).await?;
    let switched = begun.elapsed();
    linked(&nodes, secs(20)).await?;
    let met = begun.elapsed() - switched;
    say!("switched after {switched:?}, linked {met:?} later");
    talker.has_said(talker.answered() + 20, PATIENCE).await?;
    watched.redis[first].again().await?;
    watched.follows(first).await?;
    watched.failover().await?;
    watched.switched_to(first).await?;
    let begun = Instant::now();
    let port = watched.redis[first].address().port().to_string();
    eventually(secs(20), "both are at the new primary", async || {
        let clients = watched.redis[first].command(&["CLIENT", "LIST"]).await?;
        let clients = clients.text()?.to_owned();
        let named = |node: &Node| clients.matches(&node.origin).count();
        ensure!(
            nodes.iter().all(|node| named(node) == 2),
            "{port}: {clients}"
        );
        Ok(())
    })
    .await?;
    linked(&nodes, PATIENCE).await?;
    say!("both were at the new primary after {:?}", begun.elapsed());
    assert!(begun.elapsed() <= secs(5) + NOISE);
    talker.hush(PATIENCE).await?;
    let checked = recorder.check(&nodes, "tea").await?;
    say!("{checked}");
    Ok(())
}
