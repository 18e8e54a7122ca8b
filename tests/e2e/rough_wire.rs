//! A wire between nodes that loses packets, is reset, or is too thin for what is said.

use crate::harness::apart::Apart;
use crate::harness::load::spread;
use crate::harness::metrics::undelayed;
use crate::harness::sealed::{Over, over_each};
use crate::harness::{
    Attempt, Duration, Expect, Instant, Load, NOISE, Node, Outcome, PATIENCE, Recorder, eventually,
    linked, say, secs,
};

over_each!(
    a_wire_that_loses_three_packets_in_ten_loses_no_message,
    links_that_are_reset_are_dialled_again_and_nothing_is_doubled,
    a_wire_too_thin_for_what_is_said_delays_nobody_and_repair_goes_on,
);

/// How long packets are lost.
const LOSSY: Duration = secs(15);
/// Packets that must have been lost for the test to prove anything.
const DROPPED_MIN: u64 = 100;
/// While three of ten packets are lost TCP waits ever longer, links are torn down and dialled
/// again: all converges nevertheless, some seconds after the last word.
const CONVERGED_WITHIN: Duration = secs(100);

/// Goal: on a wire that loses 30 % of all packets, each way, everything is slower and
/// nothing is lost or doubled, and the two nodes converge while it still loses. Method: iptables
/// by chance, 20 messages a second on each side for 15 s.
async fn a_wire_that_loses_three_packets_in_ten_loses_no_message(over: Over) -> Outcome {
    let instead = "the late and torn paths of rough_path.rs";
    let Some(pair) = Apart::start(over, 1, 1, instead).await? else {
        return Ok(());
    };
    let (near, far) = (&pair.near[0], &pair.far[0]);
    let recorder = Recorder::new();
    let _here = recorder.reader(near, "here", "tea").await?;
    let _there = recorder.reader(far, "there", "tea").await?;
    let senders = recorder.clients([(near, "ada"), (far, "bob")]).await?;
    pair.wire.lose(0.3)?;
    let load = Load::start(senders, "tea", 20);
    tokio::time::sleep_until(Instant::now() + LOSSY).await;
    load.stop().await?;
    let expect = Expect {
        within: CONVERGED_WITHIN,
        ..Expect::default()
    };
    let checked = recorder.check_with(&[near, far], "tea", expect).await?;
    assert_eq!(checked.verdict.shown, 2 * checked.history.len());
    let dropped = pair.wire.dropped()?;
    let mut times = recorder.deliveries("here", |sent| sent.origin == far.origin);
    times.extend(recorder.deliveries("there", |sent| sent.origin == near.origin));
    let (median, p99, worst) = spread(times);
    say!(
        "30 % of packets lost, {dropped}: over the wire after {median:?}, p99 {p99:?}, worst \
         {worst:?}; {checked}"
    );
    assert!(dropped >= DROPPED_MIN, "only {dropped} packets were lost");
    for node in [near, far] {
        told(node, "30 % lost").await?;
    }
    Ok(())
}

/// Says what a node counts of its links and of repair. Nothing is lost, damaged or slow.
async fn told(node: &Node, what: &str) -> anyhow::Result<()> {
    let metrics = node.metrics().await?;
    say!(
        "{what}: {} dials, {} links silent, {} behind; {} entries by {} repair requests, {} failed",
        metrics.get("dials_total")?,
        metrics.get("silent_links_total")?,
        metrics.get("behind_links_total")?,
        metrics.get("repaired_total")?,
        metrics.get("fetches_total")?,
        metrics.get("fetches_failed_total")?
    );
    for name in [
        "lost_total",
        "holes_total",
        "frames_bad_total",
        "slow_total",
    ] {
        assert_eq!(metrics.get(name)?, 0, "{name} of {}", node.origin);
    }
    Ok(())
}

/// How often the connections are reset.
const RESETS: u32 = 5;
/// A link that was up is dialled again after a tenth of a second.
const BACK_WITHIN: Duration = secs(2);

/// Goal: a reset of all connections between two nodes, several times, costs a dial and a
/// repair, no message, and no client its connection. Method: `ss -K` at both ends, under load.
async fn links_that_are_reset_are_dialled_again_and_nothing_is_doubled(over: Over) -> Outcome {
    let instead = "the tears of rough_path.rs";
    let Some(pair) = Apart::start(over, 1, 1, instead).await? else {
        return Ok(());
    };
    let (near, far) = (&pair.near[0], &pair.far[0]);
    let recorder = Recorder::new();
    let mut here = recorder.reader(near, "here", "tea").await?;
    let _there = recorder.reader(far, "there", "tea").await?;
    let senders = recorder.clients([(near, "ada"), (far, "bob")]).await?;
    let load = Load::start(senders, "tea", 100);
    let mut times = Vec::new();
    for round in 1..=RESETS {
        let before = [dials(near).await?, dials(far).await?];
        let count = pair.wire.reset()?;
        let reset = Instant::now();
        eventually(PATIENCE, "both links are dialled again", async || {
            let now = [dials(near).await?, dials(far).await?];
            let both = now.iter().zip(&before).all(|(now, before)| now > before);
            anyhow::ensure!(both, "{now:?} dials, {before:?} before");
            Ok(())
        })
        .await?;
        linked(&[near, far], PATIENCE).await?;
        times.push(reset.elapsed());
        say!(
            "reset {round}: {count} connections; linked both ways {:?} after it",
            reset.elapsed()
        );
        // The next one finds the load flowing again.
        let shown = here.stream().len();
        here.shown(shown + 50, PATIENCE).await?;
    }
    let (median, _, worst) = spread(times);
    assert!(median <= BACK_WITHIN, "half of them took {median:?}");
    assert!(worst <= BACK_WITHIN + 2 * NOISE, "one took {worst:?}");
    load.stop().await?;
    let checked = recorder.check(&[near, far], "tea").await?;
    assert_eq!(checked.verdict.shown, 2 * checked.history.len());
    say!("{RESETS} resets: {checked}");
    for node in [near, far] {
        told(node, "resets").await?;
    }
    Ok(())
}

async fn dials(node: &Node) -> anyhow::Result<u64> {
    node.metrics().await?.get("dials_total")
}

/// What passes of the wire, in kilobits a second,
const THIN: u32 = 256;
/// and messages a second on each side: at 200 bytes each, twice what passes.
const TOO_MANY: u32 = 320;
/// A link that lags by 5 s is given up, or is so late that its beats are 3 s apart; at this load
/// that takes some 10 s.
const GIVEN_UP_WITHIN: Duration = secs(60);
/// So long at least, for more to be missed than comes in the 5 s that a repair request may take.
const THIN_MIN: Duration = secs(10);
/// Entries that each side must have repaired over the thin wire. More than a page of those that
/// were too long for it.
const REPAIRED_MIN: u64 = 500;
/// How long that may take. In practice some 12 s: a page too long to come in 5 s, then shorter ones.
const REPAIRED_WITHIN: Duration = secs(60);
/// What a node's memory may grow by meanwhile, what it keeps included: 4 MiB of socket buffers for
/// each connection, and what waits before them.
const GROWTH_MAX: u64 = 32 << 20;

/// Goal: a wire that carries half of what is said hurts nobody but itself: the
/// links that lag are given up, clients on both sides are served as ever, memory stays bounded,
/// repair goes on over the thin wire in pages short enough to come, and both converge when it is
/// wide again. Method: `tc tbf` at 256 kbit, 64 KB a second on each side until both links lagged.
async fn a_wire_too_thin_for_what_is_said_delays_nobody_and_repair_goes_on(over: Over) -> Outcome {
    let instead = "the stopped peer of frozen.rs";
    let Some(pair) = Apart::start(over, 1, 1, instead).await? else {
        return Ok(());
    };
    let (near, far) = (&pair.near[0], &pair.far[0]);
    let recorder = Recorder::new();
    let _here = recorder.reader(near, "here", "tea").await?;
    let _there = recorder.reader(far, "there", "tea").await?;
    let senders = recorder.clients([(near, "ada"), (far, "bob")]).await?;
    let before = [near.process.usage()?.rss, far.process.usage()?.rss];
    let mut most = before;
    let load = Load::start(senders, "tea", TOO_MANY);
    pair.wire.squeeze(THIN)?;
    let thin = Instant::now();
    eventually(GIVEN_UP_WITHIN, "both links are given up", async || {
        for (most, node) in most.iter_mut().zip([near, far]) {
            *most = node.process.usage()?.rss.max(*most);
        }
        for node in [near, far] {
            let metrics = node.metrics().await?;
            let (behind, silent) = (
                metrics.get("behind_links_total")?,
                metrics.get("silent_links_total")?,
            );
            anyhow::ensure!(behind + silent > 0, "{} gave up none", node.origin);
        }
        let lasted = thin.elapsed();
        anyhow::ensure!(lasted >= THIN_MIN, "only {lasted:?}");
        Ok(())
    })
    .await?;
    say!("both links were given up after {:?}", thin.elapsed());
    let attempts = load.stop().await?;
    eventually(
        REPAIRED_WITHIN,
        "both repair over the thin wire",
        async || {
            for node in [near, far] {
                let repaired = node.metrics().await?.get("repaired_total")?;
                anyhow::ensure!(repaired >= REPAIRED_MIN, "{repaired} at {}", node.origin);
            }
            Ok(())
        },
    )
    .await?;
    say!(
        "both had repaired {REPAIRED_MIN} after {:?}",
        thin.elapsed()
    );
    pair.wire.widen()?;
    let checked = recorder.check(&[near, far], "tea").await?;
    assert_eq!(checked.verdict.shown, 2 * checked.history.len());
    say!(
        "the wire is wide again; memory grew by {} and {} KiB; {checked}",
        (most[0] - before[0]) >> 10,
        (most[1] - before[1]) >> 10
    );
    for (reader, node) in [("here", near), ("there", far)] {
        let own = |sent: &Attempt| sent.origin == node.origin;
        let times = recorder.deliveries(reader, own);
        undelayed(&format!("deliveries {reader}"), times);
        let replies = attempts.iter().filter(|sent| own(sent)).map(Attempt::delay);
        undelayed(&format!("replies {reader}"), replies.collect());
        told(node, "thin wire").await?;
    }
    for (most, before) in most.into_iter().zip(before) {
        let growth = most - before;
        assert!(growth <= GROWTH_MAX, "memory grew by {growth} bytes");
    }
    Ok(())
}
