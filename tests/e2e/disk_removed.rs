//! The folder of `--data` taken away from a node that runs.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use tempfile::tempdir;

use crate::harness::check::history;
use crate::harness::disks::alone;
use crate::harness::{Client, Duration, Instant, NOISE, Outcome, PATIENCE, eventually, say, secs};

/// A node notices within so long that its files are gone, and has ended as soon after.
const NOTICED: Duration = secs(2);
const ENDED: Duration = secs(3);

/// What somebody does to the folder, and where what was acknowledged before is then.
type Harm = fn(&Path) -> anyhow::Result<()>;

/// The store's own tests have more ways.
const HARMS: [(&str, Harm, Option<&str>); 3] = [
    ("rm -rf", |data| Ok(fs::remove_dir_all(data)?), None),
    (
        "mv",
        |data| Ok(fs::rename(data, data.with_extension("away"))?),
        Some("away"),
    ),
    (
        "rm of the write-ahead log",
        |data| Ok(fs::remove_file(data.join("history.db-wal"))?),
        None,
    ),
];

/// Goal: a node whose files are not where the next start looks for them acknowledges nothing any
/// more, is not ready, and ends as one whose disk failed; what it acknowledged before is where its
/// files went.
/// Method: each way of taking them away; one send at once after it, or none.
#[tokio::test]
async fn a_node_whose_folder_is_taken_away_acknowledges_nothing_and_ends() -> Outcome {
    for (what, harm, left) in HARMS {
        for sends in [true, false] {
            let folder = tempdir()?;
            let data = folder.path().join("data");
            let mut node = alone(&data, &[]).await?;
            let ada = Client::joined(&node, "ada", "tea").await?;
            for nth in 0..20 {
                ada.send("tea", &format!("early {nth}")).await?;
            }
            harm(&data)?;
            let harmed = Instant::now();
            if sends {
                let late = ada.send("tea", "late").await;
                assert!(late.is_err(), "{what}: {late:?}");
            } else {
                eventually(NOTICED + NOISE, "it is noticed", async || {
                    let ready = node
                        .get("/readyz")
                        .await
                        .is_ok_and(|ready| ready.status() == 200);
                    ensure!(!ready, "{what}");
                    Ok(())
                })
                .await?;
            }
            let (code, _) = node.process.wait(ENDED + NOISE).await?;
            say!("{what}: ended {:?} later", harmed.elapsed());
            assert!(code == 1, "{what}: exit code {code}");
            let log = node.process.log_text();
            assert!(
                log.contains("history."),
                "{what}: the log names the file: {log}"
            );
            if let Some(left) = left {
                let node = alone(&data.with_extension(left), &[]).await?;
                let kept = history(&node, "tea").await?;
                assert!(kept.len() >= 20, "{what}: {} kept", kept.len());
            }
        }
    }
    Ok(())
}

/// Goal: a folder that is taken away just before SIGTERM holds no stop up.
#[tokio::test]
async fn a_node_whose_folder_is_gone_stops_in_time() -> Outcome {
    let folder = tempdir()?;
    let data = folder.path().join("data");
    let mut node = alone(&data, &[]).await?;
    fs::remove_dir_all(&data)?;
    node.process.signal(rustix::process::Signal::TERM)?;
    let (code, _) = node.process.wait(ENDED + PATIENCE).await?;
    assert!([0, 1].contains(&code), "{code}");
    Ok(())
}
