//! The power of the disk is cut: what was acknowledged is there afterwards. And the control: of a
//! program that forgets to sync, the same test finds out that it loses.

use std::io::Write as _;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::harness::check::history;
use crate::harness::disks::{alone, flags};
use crate::harness::inject;
use crate::harness::load::spread;
use crate::harness::process::Launch;
use crate::harness::pump::{Ledger, Pump};
use crate::harness::rig::{Copied, Rig};
use crate::harness::{Instant, Node, Outcome, PATIENCE, long, say, secs};

/// Cuts in each run.
const ROUNDS: usize = 8;
/// Bytes of a text. Each transaction writes some pages whatever it says: a few hundred of them, and
/// what was written ahead goes into the file, so that some cuts are in the middle of that.
const BYTES: usize = 300;

/// What a start finds on a disk whose power was cut: the history, and how long the start took.
async fn found(copied: Copied) -> anyhow::Result<(Vec<String>, crate::harness::Duration)> {
    let cut = copied.mount()?;
    let begun = Instant::now();
    let mut node = alone(&cut.data(), &[]).await?;
    let took = begun.elapsed();
    let texts = history(&node, "tea").await?;
    node.process.kill().await?;
    Ok((texts, took))
}

/// Goal: the rig is what it says: after a cut there is what was synced, and not what was not.
/// Method: two files, one of them synced.
#[test]
fn a_cut_keeps_what_was_synced_and_nothing_else() -> Outcome {
    let Some(mut rig) = Rig::make()? else {
        return Ok(());
    };
    std::fs::create_dir(rig.data())?;
    std::fs::File::open(rig.data())?.sync_all()?;
    for (name, syncs) in [("synced", true), ("forgotten", false)] {
        let mut file = std::fs::File::create(rig.data().join(name))?;
        file.write_all(b"a text")?;
        if syncs {
            file.sync_all()?;
        }
    }
    let cut = rig.copy()?.mount()?;
    assert_eq!(std::fs::read(cut.data().join("synced"))?, b"a text");
    let forgotten = std::fs::read(cut.data().join("forgotten"));
    assert!(
        forgotten.as_ref().map_or(true, Vec::is_empty),
        "{forgotten:?}"
    );
    Ok(())
}

/// Goal: what was acknowledged before the power went is there when it comes back.
/// Method: a node on ext4 on a loop device, whose image is copied under load at once and as a
/// whole; what the senders knew before the copy is held against what a node on the copy shows.
/// Eight copies, each after a random number of replies.
#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut() -> Outcome {
    let Some(mut rig) = Rig::make()? else {
        return Ok(());
    };
    let seed = rand::random();
    say!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let node = alone(&rig.data(), &[]).await?;
    let pump = Pump::start(6, &node, "tea", BYTES);
    let mut times = Vec::new();
    let (mut promised, mut last) = (0, Vec::new());
    for round in 0..if long() { 5 * ROUNDS } else { ROUNDS } {
        pump.accepts(rng.random_range(20..600)).await?;
        let before = pump.ledger();
        let copied = rig.copy()?;
        // Only so that reading the copy is not slower than it need be.
        pump.hold(true);
        let (texts, took) = found(copied).await?;
        pump.ledger().explains(&texts)?;
        let lost = before.lost(&texts)?;
        assert!(
            lost.is_empty(),
            "round {round}: {} of {} acknowledged messages are lost, first {:?}",
            lost.len(),
            before.accepted(),
            lost[0]
        );
        times.push(took);
        promised = before.accepted();
        last = texts;
        pump.hold(false);
    }
    let ledger = pump.stop().await?;
    ledger.check(&history(&node, "tea").await?)?;
    let (median, _, worst) = spread(times);
    say!(
        "0 of {promised} lost, {} there; start after a cut: median {median:?}, worst {worst:?}",
        last.len()
    );
    Ok(())
}

/// Goal: the test above can fail: it sees that a program does not sync.
/// Method: the same, with a node whose calls that sync are not done but claim success, after a
/// beginning that is on the disk. Acknowledged messages must be lost in one of eight rounds.
#[tokio::test]
async fn a_program_that_forgets_to_sync_is_found_out_by_a_power_cut() -> Outcome {
    let (Some(mut rig), Some(prefix)) = (Rig::make()?, inject::that_never_syncs()?) else {
        return Ok(());
    };
    let ledger = begun(&rig).await?;
    let launch = Launch::new("chatnode", flags(&rig.data(), &[]));
    let node = Node::launch(launch.by(prefix)).await?;
    node.takes_clients(PATIENCE).await?;
    let pump = Pump::start(6, &node, "tea", BYTES);
    let mut lost_by_round = Vec::new();
    for _ in 0..ROUNDS {
        pump.accepts(200).await?;
        let mut before = pump.ledger();
        before.merge(ledger.clone());
        let copied = rig.copy()?;
        pump.hold(true);
        let (texts, _) = found(copied).await?;
        pump.hold(false);
        let lost = before.lost(&texts)?.len();
        lost_by_round.push((lost, before.accepted()));
        if lost > 0 {
            break;
        }
    }
    drop(pump);
    say!("lost without syncing: {lost_by_round:?}");
    assert!(
        lost_by_round.iter().any(|(lost, _)| *lost > 0),
        "the rig does not see that nothing is synced"
    );
    Ok(())
}

/// A beginning that is on the disk for certain.
async fn begun(rig: &Rig) -> anyhow::Result<Ledger> {
    let mut node = alone(&rig.data(), &[]).await?;
    let pump = Pump::start(2, &node, "tea", BYTES);
    pump.accepts(50).await?;
    let ledger = pump.stop().await?;
    node.process.stop(secs(10)).await?;
    Ok(ledger)
}
