//! What a dead node had said: all survivors agree on it, and what none of them has is told.

use std::net::SocketAddr;

use crate::harness::cluster::Listing;
use crate::harness::metrics::told;
use crate::harness::proxy::Proxy;
use crate::harness::sluice::Sluice;
use crate::harness::{
    Cluster, Duration, Expect, Instant, Load, NOISE, Node, Outcome, PATIENCE, Recorder, eventually,
    linked, say, secs,
};

/// How soon after a death all survivors keep the same.
const AGREED_WITHIN: Duration = secs(2);

/// Goal: within 2 s of the death of a node in the middle of a burst of 1000 messages a second all
/// survivors keep the same of what it had said, and their clients were shown it.
/// Method: the killed node is the only sender, of eight in turn, and never comes back.
#[tokio::test]
async fn survivors_agree_within_2_s_on_what_a_killed_sender_had_said() -> Outcome {
    let mut cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let mut times = Vec::new();
    for round in 0..8 {
        let recorder = Recorder::new();
        let room = format!("tea{round}");
        let node = &cluster.nodes[2];
        let senders = recorder.clients([(node, "ada"), (node, "bob")]).await?;
        let mut readers = Vec::new();
        for (node, name) in cluster.nodes.iter().zip(["one", "two"]) {
            readers.push(recorder.reader(node, name, &room).await?);
        }
        let load = Load::start(senders, &room, 500);
        readers[0].shown(300, PATIENCE).await?;
        recorder.kill(&mut cluster.nodes.remove(2)).await?;
        let killed = Instant::now();
        load.stop().await?;
        let expect = Expect {
            within: AGREED_WITHIN + NOISE,
            ..Expect::default()
        };
        let begun = killed.elapsed();
        let checked = recorder.check_with(&cluster.nodes, &room, expect).await?;
        assert_eq!(checked.verdict.to_the_end, 2);
        times.push(begun + checked.converged);
        say!("round {round}: {checked}");
        cluster.add().await?;
        cluster.linked(PATIENCE).await?;
    }
    agreed_in_time(times);
    Ok(())
}

fn agreed_in_time(times: Vec<Duration>) {
    let (median, _, worst) = told("from the kill until survivors agreed", times);
    assert!(median <= AGREED_WITHIN && worst <= AGREED_WITHIN + NOISE);
}

/// Goal: what one survivor has not heard of the dead node's last words it gets from the other,
/// within 2 s, though the dead node's connection to it stands still and never ends.
/// Method: one survivor hears the sender directly, the other through a proxy that swallows the
/// last of a burst of 1000 messages a second, and the end of the connection too.
#[tokio::test]
async fn last_words_that_one_survivor_did_not_hear_come_from_the_other() -> Outcome {
    let mut times = Vec::new();
    for round in 0..3 {
        let alone = ["--registry", "none", "--rate-limit", "0"];
        let mut doomed = Node::start(alone).await?;
        let target: SocketAddr = doomed.publishes.trim_start_matches("tcp://").parse()?;
        let proxy = Proxy::to(target).await?;
        let peer = ["--peer", &doomed.publishes];
        let near = Node::start([&alone[..], &peer].concat()).await?;
        let through = format!("tcp://{}", proxy.address);
        let peers = ["--peer", &through, "--peer", &near.publishes];
        let far = Node::start([&alone[..], &peers].concat()).await?;
        linked(&[&doomed, &near, &far], PATIENCE).await?;
        let recorder = Recorder::new();
        let senders = recorder
            .clients([(&doomed, "ada"), (&doomed, "bob")])
            .await?;
        let mut heard = recorder.reader(&near, "near", "tea").await?;
        let mut missed = recorder.reader(&far, "far", "tea").await?;
        let load = Load::start(senders, "tea", 500);
        missed.shown(300, PATIENCE).await?;
        proxy.black_hole();
        let before = heard.stream().len();
        heard.shown(before + 300, PATIENCE).await?;
        recorder.kill(&mut doomed).await?;
        let killed = Instant::now();
        load.stop().await?;
        let unheard = heard.stream().len().saturating_sub(missed.stream().len());
        let begun = killed.elapsed();
        let expect = Expect {
            within: AGREED_WITHIN + NOISE,
            repaired: true,
            ..Expect::default()
        };
        let checked = recorder.check_with(&[&near, &far], "tea", expect).await?;
        assert_eq!(checked.verdict.to_the_end, 2);
        times.push(begun + checked.converged);
        say!("round {round}: {unheard} were not heard by one; {checked}");
    }
    agreed_in_time(times);
    Ok(())
}

/// Goal: a range that nobody has, since its node died before anybody could get it, is
/// announced to the room's clients as a gap, counted, and visible in `/api/mesh`; what came after
/// it is shown, on every node; what was there before stays.
/// Method: the survivors hear a node through a sluice, which loses twenty of its messages and keeps
/// five later ones back until the node is stopped; so nobody can ask it for what these show to be
/// missing. Then kill -9.
#[tokio::test]
async fn what_nobody_has_is_told_and_counted_and_the_rest_is_shown() -> Outcome {
    let cluster = Cluster::with(2, &["--rate-limit", "0"]).await?;
    let mut doomed = Node::start(["--registry", "none", "--rate-limit", "0"]).await?;
    let publisher = doomed.publishes.trim_start_matches("tcp://").parse()?;
    let sluice = Sluice::before(publisher).await?;
    let publishes = format!("tcp://{}", sluice.address);
    let _listing = Listing::of(&doomed.origin, &publishes, &doomed.http, &cluster.registry).await?;
    let survivors: Vec<_> = cluster.nodes.iter().collect();
    linked(&[survivors[0], survivors[1], &doomed], PATIENCE).await?;
    let recorder = Recorder::new();
    let mut readers = Vec::new();
    for (node, name) in survivors.iter().zip(["one", "two"]) {
        readers.push(recorder.reader(node, name, "tea").await?);
    }
    let ada = recorder.client(&doomed, "ada").await?;
    for number in 1..=10 {
        ada.send("tea", &format!("heard {number}")).await?;
    }
    for reader in &mut readers {
        reader.shown(10, PATIENCE).await?;
    }
    // What follows takes much less than the silence that ends a link.
    sluice.waste();
    for number in 1..=20 {
        ada.send("tea", &format!("lost {number}")).await?;
    }
    sluice.has_caught("lost 20", 2).await?;
    sluice.shut();
    for number in 1..=5 {
        ada.send("tea", &format!("later {number}")).await?;
    }
    sluice.has_caught("later 5", 2).await?;
    doomed.process.freeze()?;
    sluice.open();
    eventually(PATIENCE, "both have found the gap", async || {
        for node in &survivors {
            let gaps = node.metrics().await?.get("gaps_total")?;
            anyhow::ensure!(gaps > 0, "{} counts {gaps}", node.origin);
        }
        Ok(())
    })
    .await?;
    for reader in &mut readers {
        let shown = reader.stream().len();
        assert_eq!(shown, 10, "shown what is behind a hole, or what was lost");
    }
    recorder.kill(&mut doomed).await?;
    let killed = Instant::now();
    for reader in &mut readers {
        let of_it = |gap: &serde_json::Value| gap["origin"] == doomed.origin;
        let gap = reader.client().push(PATIENCE, "gap", of_it).await?;
        let span = (gap["after"].as_u64(), gap["through"].as_u64());
        assert_eq!(span, (Some(10), Some(30)), "{gap}");
        reader.shown(15, PATIENCE).await?;
    }
    say!("told {:?} after the kill", killed.elapsed());
    for node in &survivors {
        let mesh = node.mesh().await?;
        let link = mesh.links.iter().find(|link| link.leads_to(&doomed));
        assert_eq!(link.map(|link| link.lost), Some(20), "{:?}", mesh.links);
    }
    let expect = Expect {
        holes: true,
        ..Expect::default()
    };
    let checked = recorder.check_with(&survivors, "tea", expect).await?;
    say!("{checked}");
    assert_eq!(checked.history.len(), 15);
    assert_eq!((checked.verdict.excused, checked.losses.lost), (20, 40));
    Ok(())
}

/// Longer than a link may be silent, and than an origin once had to be unheard to count as gone.
const STOPPED: Duration = secs(10);

/// Goal: a node that is listed and stands still for ten seconds is not there yet: nothing of it is
/// told to be lost, and what was missing comes when it goes on. Method: as before, but SIGSTOP instead
/// of the kill, then SIGCONT. Old nodes told of a gap after five seconds.
#[tokio::test]
async fn a_listed_node_that_stands_still_for_seconds_is_waited_for() -> Outcome {
    let cluster = Cluster::with(2, &["--rate-limit", "0"]).await?;
    let still = Node::start(["--registry", "none", "--rate-limit", "0"]).await?;
    let publisher = still.publishes.trim_start_matches("tcp://").parse()?;
    let sluice = Sluice::before(publisher).await?;
    let publishes = format!("tcp://{}", sluice.address);
    let _listing = Listing::of(&still.origin, &publishes, &still.http, &cluster.registry).await?;
    let [one, two] = [&cluster.nodes[0], &cluster.nodes[1]];
    linked(&[one, two, &still], PATIENCE).await?;
    let recorder = Recorder::new();
    let mut readers = [
        recorder.reader(one, "one", "tea").await?,
        recorder.reader(two, "two", "tea").await?,
    ];
    let ada = recorder.client(&still, "ada").await?;
    sluice.waste();
    ada.send("tea", "missed").await?;
    sluice.has_caught("missed", 2).await?;
    sluice.shut();
    ada.send("tea", "later").await?;
    sluice.has_caught("later", 2).await?;
    still.process.freeze()?;
    let stopped = Instant::now();
    sluice.open();
    eventually(PATIENCE, "both hear it no more", async || {
        for node in [one, two] {
            let gaps = node.metrics().await?.get("gaps_total")?;
            let deaf = !node.mesh().await?.is_linked(&still.origin);
            anyhow::ensure!(gaps > 0 && deaf, "{gaps} gaps, deaf {deaf}");
        }
        Ok(())
    })
    .await?;
    tokio::time::sleep_until(stopped + STOPPED).await;
    for node in [one, two] {
        assert_eq!(node.metrics().await?.get("lost_total")?, 0);
    }
    still.process.thaw()?;
    for reader in &mut readers {
        reader.shown(2, PATIENCE).await?;
    }
    let checked = recorder.check(&[one, two, &still], "tea").await?;
    say!("{checked}");
    Ok(())
}
