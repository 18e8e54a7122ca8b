//! A path between nodes that is late, unsteady, narrow to a few bytes, or ends within a frame.

use crate::harness::apart::Proxied;
use crate::harness::metrics::told;
use crate::harness::sealed::{Over, over_each};
use crate::harness::{
    Duration, Instant, Load, Outcome, PATIENCE, Recorder, eventually, linked, ms, say, secs,
};

over_each!(half_a_frame_is_never_parsed);

/// Each kind of lateness lasts so long: four beats.
const LATE_FOR: Duration = secs(4);
/// Beats come each second, so a path that is late by less than this never keeps them apart by the 3 s
/// that a link may be silent. In practice the latest message takes 0.7 s.
const LATE_MAX: Duration = ms(1800);
/// How often a connection is torn within a frame.
const TEARS: u32 = 5;

/// Goal: a path that is late by less than the 3 s after which a link is dead, steadily, by
/// chance, or because it passes a few bytes at a time, is late and nothing else: no link is torn
/// down, nothing is repaired that was not lost. Method: a proxy before one node's publisher, 10
/// messages a second, each kind for 4 s.
#[tokio::test]
async fn a_late_path_is_not_taken_for_a_dead_one() -> Outcome {
    let pair = Proxied::start(Over::Zmq).await?;
    let (near, far) = (&pair.near, &pair.far);
    let recorder = Recorder::new();
    let _here = recorder.reader(near, "here", "tea").await?;
    let before = near.metrics().await?;
    let load = Load::start([recorder.client(far, "bob").await?], "tea", 10);
    let mut spans = Vec::new();
    // Beats and messages are some 3 KB a second; what trickles is twice that and more.
    for (kind, late_by) in [
        ("late by 300 ms", ms(300)),
        ("late by up to 400 ms", ms(50)),
        ("ten bytes at a time", ms(10)),
    ] {
        match spans.len() {
            0 => pair.proxy.delay(ms(300)),
            1 => pair.proxy.jitter(ms(400)),
            _ => pair.proxy.trickle(10, ms(1)),
        }
        let from = Instant::now();
        tokio::time::sleep_until(from + LATE_FOR).await;
        spans.push((kind, late_by, from..Instant::now()));
    }
    pair.proxy.pass();
    load.stop().await?;
    let checked = recorder.check(&[near, far], "tea").await?;
    assert_eq!(checked.verdict.shown, checked.history.len());
    let mut latest = Duration::ZERO;
    for (kind, late_by, span) in spans {
        let times = recorder.deliveries("here", |sent| span.contains(&sent.sent_at));
        let (median, _, worst) = told(&format!("messages over the path, {kind}"), times);
        assert!(median >= late_by, "{kind}: the path was not late");
        latest = latest.max(worst);
    }
    let after = near.metrics().await?;
    if latest <= LATE_MAX {
        for name in ["silent_links_total", "behind_links_total", "dials_total"] {
            assert_eq!(after.get(name)?, before.get(name)?, "{name}");
        }
    } else {
        say!("this machine was too busy: a message took {latest:?}, and so may beats");
    }
    for name in ["frames_bad_total", "lost_total", "holes_total"] {
        assert_eq!(after.get(name)?, 0, "{name}");
    }
    Ok(())
}

/// Goal: a connection that ends within a frame costs a dial and a repair: half a frame
/// is never parsed, and nothing is missed, doubled or altered. Method: the proxy passes half of a
/// long piece and closes, five times under 500 messages a second.
async fn half_a_frame_is_never_parsed(over: Over) -> Outcome {
    let pair = Proxied::start(over).await?;
    let (near, far) = (&pair.near, &pair.far);
    let recorder = Recorder::new();
    let mut here = recorder.reader(near, "here", "tea").await?;
    let before = near.metrics().await?;
    let senders = recorder.clients([(far, "bob"), (far, "eve")]).await?;
    let load = Load::start(senders, "tea", 250);
    for _ in 0..TEARS {
        let shown = here.stream().len();
        here.shown(shown + 20, PATIENCE).await?;
        let dialled = near.metrics().await?.get("dials_total")?;
        pair.proxy.tear(PATIENCE).await?;
        let torn = Instant::now();
        eventually(PATIENCE, "the torn link is dialled again", async || {
            let dials = near.metrics().await?.get("dials_total")?;
            anyhow::ensure!(dials > dialled, "{dials} dials");
            Ok(())
        })
        .await?;
        linked(&[near, far], PATIENCE).await?;
        say!("linked {:?} after the tear", torn.elapsed());
    }
    load.stop().await?;
    let checked = recorder.check(&[near, far], "tea").await?;
    assert_eq!(checked.verdict.shown, checked.history.len());
    let after = near.metrics().await?;
    let dialled = after.get("dials_total")? - before.get("dials_total")?;
    say!("{TEARS} tears: {dialled} dials; {checked}");
    assert!(dialled >= u64::from(TEARS), "{dialled} dials");
    for name in ["frames_bad_total", "lost_total", "holes_total"] {
        assert_eq!(after.get(name)?, 0, "{name}");
    }
    Ok(())
}
