//! Links whose other end is gone without a word: packets dropped, no FIN.

use crate::harness::apart::{Apart, Proxied};
use crate::harness::load::spread;
use crate::harness::metrics::undelayed;
use crate::harness::sealed::{Over, over_each};
use crate::harness::{
    Attempt, Client, Duration, Instant, Load, NOISE, Node, Outcome, PATIENCE, Recorder, eventually,
    histories, linked, ms, say, secs,
};

over_each!(
    a_half_open_link_is_torn_down_and_comes_back_with_repair,
    a_path_cut_in_one_direction_ends_with_the_same_history,
    a_peer_reborn_behind_a_cut_is_found_when_the_path_is_back,
);

/// The dead are seen: a link without a beat for 3 s is torn down; beats come each second, so 3 to 4 s after the
/// last one, which may have come up to a second before the cut.
const TORN_DOWN: std::ops::Range<Duration> = ms(1900)..ms(4000);
/// The contract: on failure 100 ms doubling to 2 s with jitter. A dial into a black hole lasts
/// until it is given up as well; no number is promised for that, so it is asserted generously.
const BACK_WITHIN: Duration = secs(8);

/// The time from the cut until the node has torn its link to the origin down.
async fn deaf(node: &Node, origin: &str, cut: Instant) -> anyhow::Result<Duration> {
    eventually(
        TORN_DOWN.end + NOISE,
        "the dead link is torn down",
        async || {
            let mesh = node.mesh().await?;
            anyhow::ensure!(
                !mesh.is_linked(origin),
                "{:?} of {}",
                mesh.links,
                node.origin
            );
            Ok(cut.elapsed())
        },
    )
    .await
}

fn in_time(what: &str, took: Duration) {
    say!("{what}: torn down {took:?} after the cut");
    assert!(
        took >= TORN_DOWN.start,
        "{what}: torn down after {took:?}, before 3 s of silence"
    );
    assert!(
        took <= TORN_DOWN.end + NOISE,
        "{what}: torn down only after {took:?}"
    );
}

/// Goal: a half-open link is torn down within 3 to 4 s, dialled again as long as the peer
/// is listed, and comes back when the path does, with repair: nothing missed, nothing twice. Each
/// side serves its own clients meanwhile.
/// Method: two nodes in two network namespaces, every packet between them dropped while both are
/// talked to and stay registered; then let pass. Without namespaces: a proxy, one direction.
async fn a_half_open_link_is_torn_down_and_comes_back_with_repair(over: Over) -> Outcome {
    let Some(pair) = Apart::start(over, 1, 1, "a TCP proxy").await? else {
        return through_a_black_hole(over).await;
    };
    let (near, far, registry) = (&pair.near[0], &pair.far[0], &pair.registry);
    let recorder = Recorder::new();
    let _here = recorder.reader(near, "here", "tea").await?;
    let _there = recorder.reader(far, "there", "tea").await?;
    let senders = recorder.clients([(near, "ada"), (far, "bob")]).await?;
    let load = Load::start(senders, "tea", 10);
    pair.wire.cut()?;
    let cut = Instant::now();
    let (near_took, far_took) =
        tokio::join!(deaf(near, &far.origin, cut), deaf(far, &near.origin, cut));
    in_time("near", near_took?);
    in_time("far", far_took?);
    assert_eq!(
        registry.listed().await?.len(),
        2,
        "both stay listed: only their path is cut"
    );
    // Long enough for several failed dials.
    tokio::time::sleep_until(cut + secs(8)).await;
    assert_eq!(registry.listed().await?.len(), 2);
    pair.wire.heal()?;
    let healed = Instant::now();
    linked(&[near, far], BACK_WITHIN).await?;
    let back = healed.elapsed();
    let attempts = load.stop().await?;
    let checked = recorder.check(&[near, far], "tea").await?;
    assert_eq!(checked.verdict.shown, 2 * checked.history.len());
    for (node, reader) in [(near, "here"), (far, "there")] {
        let own =
            |sent: &Attempt| sent.origin == node.origin && (cut..healed).contains(&sent.sent_at);
        let times = recorder.deliveries(reader, own);
        undelayed(&format!("deliveries {reader} while cut"), times);
        let replies = attempts.iter().filter(|sent| own(sent)).map(Attempt::delay);
        undelayed(&format!("replies {reader} while cut"), replies.collect());
    }
    say!("linked both ways {back:?} after the path was back; {checked}");
    Ok(())
}

/// Goal: cut in one direction only, the deaf side tears its link down, both end with the same
/// history, and nobody is stuck. Method: drop what comes from the far side.
async fn a_path_cut_in_one_direction_ends_with_the_same_history(over: Over) -> Outcome {
    let Some(pair) = Apart::start(over, 1, 1, "a TCP proxy").await? else {
        return through_a_black_hole(over).await;
    };
    let (near, far) = (&pair.near[0], &pair.far[0]);
    let recorder = Recorder::new();
    let senders = recorder.clients([(near, "ada"), (far, "bob")]).await?;
    let _here = recorder.reader(near, "here", "tea").await?;
    let load = Load::start(senders, "tea", 10);
    pair.wire.deafen_near()?;
    let cut = Instant::now();
    in_time("the deaf side", deaf(near, &far.origin, cut).await?);
    pair.wire.heal()?;
    linked(&[near, far], BACK_WITHIN).await?;
    load.stop().await?;
    recorder.check(&[near, far], "tea").await?;
    Ok(())
}

/// Goal: a peer that died behind a cut, its last word never heard, and came back on the same
/// address as a new origin, is found when the path is back: the old connection, which would look
/// alive for ever, is not waited for. Method: cut, kill -9 the far node, start it again, heal.
async fn a_peer_reborn_behind_a_cut_is_found_when_the_path_is_back(over: Over) -> Outcome {
    let Some(mut pair) = Apart::start(over, 1, 1, "a TCP proxy").await? else {
        return through_a_black_hole(over).await;
    };
    let old = pair.far[0].origin.clone();
    let ada = Client::joined(&pair.near[0], "ada", "tea").await?;
    pair.wire.cut()?;
    let cut = Instant::now();
    pair.far[0].process.kill().await?;
    pair.far_again().await?;
    let (near, far) = (&pair.near[0], &pair.far[0]);
    ada.send("tea", "said during the cut").await?;
    in_time("the dead origin", deaf(near, &old, cut).await?);
    pair.wire.heal()?;
    let healed = Instant::now();
    linked(&[near, far], BACK_WITHIN).await?;
    say!(
        "the reborn peer was linked {:?} after the path was back",
        healed.elapsed()
    );
    let history = histories(&[near, far], "tea", PATIENCE).await?;
    assert_eq!(history.len(), 1);
    Ok(())
}

/// Goal: as above, where packets cannot be dropped: a TCP proxy that keeps the connection open and
/// swallows everything. Method: one node hears the other through the proxy.
#[tokio::test]
async fn a_link_through_a_black_hole_is_torn_down_and_comes_back() -> Outcome {
    through_a_black_hole(Over::Zmq).await
}

async fn through_a_black_hole(over: Over) -> Outcome {
    let pair = Proxied::start(over).await?;
    let (near, far) = (&pair.near, &pair.far);
    let recorder = Recorder::new();
    let mut here = recorder.reader(near, "here", "tea").await?;
    let load = Load::start([recorder.client(far, "bob").await?], "tea", 50);
    here.shown(20, PATIENCE).await?;
    let mut times = Vec::new();
    for _ in 0..3 {
        pair.proxy.black_hole();
        let cut = Instant::now();
        let took = deaf(near, &far.origin, cut).await?;
        in_time("the hearing side", took);
        times.push(took);
        assert!(
            far.mesh().await?.hears(&near.origin),
            "the other direction was not cut"
        );
        pair.proxy.pass();
        let healed = Instant::now();
        linked(&[near, far], BACK_WITHIN).await?;
        say!("linked {:?} after the black hole ended", healed.elapsed());
    }
    let median = spread(times).0;
    assert!(
        median < TORN_DOWN.end,
        "half of the dead links took {median:?} and more"
    );
    load.stop().await?;
    let checked = recorder.check(&[near, far], "tea").await?;
    assert_eq!(checked.verdict.shown, checked.history.len());
    Ok(())
}
