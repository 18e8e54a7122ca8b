//! How much a node keeps on its disk, and what `--data` cannot be.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use tempfile::tempdir;

use crate::harness::check::history;
use crate::harness::disks::{
    alone, bytes_in, flags, member, number, pour, reborn, storage, written,
};
use crate::harness::process::Launch;
use crate::harness::rig::Small;
use crate::harness::{
    Client, Node, Outcome, PATIENCE, Registry, check::converged, eventually, linked, say, secs,
};

/// The least that may be asked to be kept.
const KEPT: usize = 1000;
/// What the folder may take beside what retention leaves: pages that wait to be used again, and
/// what is written ahead.
const BESIDE: u64 = 24 << 20;

/// Waits until the node shows the newest `count` of what was said, and nothing else.
async fn shows_the_newest(node: &Node, all: &[String], count: usize) -> anyhow::Result<()> {
    eventually(PATIENCE, "history ends where retention says", async || {
        let state = storage(node).await?;
        ensure!(state["messages"] == count, "{state}");
        let shown = history(node, "tea").await?;
        let first = shown
            .first()
            .and_then(|first| all.iter().position(|text| text == first));
        ensure!(
            shown == all[all.len() - count..],
            "{} shown of {}, from {first:?}",
            shown.len(),
            all.len()
        );
        Ok(())
    })
    .await
}

/// Goal: history on disk ends where `--data-messages` says, on that node and on no other; what is
/// gone is no hole and is not fetched again; a restart keeps it so, and the disk does not grow.
/// Method: a node that keeps 1000 beside one that keeps all; 3000 messages, a kill, 6000 more.
#[tokio::test]
async fn a_disk_keeps_so_many_messages_as_it_was_told() -> Outcome {
    let (registry, folder) = (Registry::start().await?, tempdir()?);
    let data = folder.path().join("data");
    let limits = ["--data-messages", "1000", "--retain-messages", "1000"];
    let mut node = member(&registry, Some(&data), &limits).await?;
    let other = member(&registry, None, &[]).await?;
    linked(&[&node, &other], PATIENCE).await?;
    let bob = Client::joined(&other, "bob", "tea").await?;
    let ada = Client::hello(&node, "ada").await?;
    let texts = |who: &str, count| {
        let who = who.to_owned();
        (0..count).map(move |nth| format!("{who} says number {nth} of the messages"))
    };
    pour(&ada, "tea", texts("ada", 1500)).await?;
    pour(&bob, "tea", texts("bob", 1500)).await?;
    converged(&[&node, &other], PATIENCE).await?;
    let all = history(&other, "tea").await?;
    assert_eq!(all.len(), 3000, "the other is not disturbed");
    shows_the_newest(&node, &all, KEPT).await?;
    written(&node).await?;
    let size = bytes_in(&data)?;

    node.process.kill().await?;
    reborn(&mut node).await?;
    shows_the_newest(&node, &all, KEPT).await?;
    let fetched = number(&node, "repaired_total").await?;
    assert_eq!(
        fetched, 0,
        "what retention has removed is not fetched again"
    );

    linked(&[&node, &other], PATIENCE).await?;
    let ada = Client::hello(&node, "ada").await?;
    pour(&ada, "tea", texts("ada again", 3000)).await?;
    pour(&bob, "tea", texts("bob again", 3000)).await?;
    converged(&[&node, &other], PATIENCE).await?;
    let all = history(&other, "tea").await?;
    assert_eq!(all.len(), 9000, "the other is not disturbed");
    shows_the_newest(&node, &all, KEPT).await?;
    node.process.stop(secs(10)).await?;
    let after = bytes_in(&data)?;
    reborn(&mut node).await?;
    shows_the_newest(&node, &all, KEPT).await?;
    for node in [&node, &other] {
        let lost = node.get_json("/api/mesh").await?["lost"].take();
        assert_eq!(
            lost,
            serde_json::json!([]),
            "what retention removed is no hole"
        );
    }
    let gaps = bob.pushed("gap");
    assert!(gaps.is_empty(), "{gaps:?}");
    say!(
        "folder: {} KiB after 3000 messages, {} KiB after 9000",
        size / 1024,
        after / 1024
    );
    assert!(after <= size + (4 << 20), "the disk grows: {size}, {after}");
    Ok(())
}

/// Goal: history on disk takes no more bytes than `--data-bytes` says, however much is said; the
/// newest is kept, in order, also over a restart. Method: 16 MiB, and about 15 MB of texts, which the index makes twice as much.
#[tokio::test]
async fn a_disk_takes_so_many_bytes_as_it_was_told() -> Outcome {
    let folder = tempdir()?;
    let data = folder.path().join("data");
    let limit: u64 = 16 << 20;
    let limits = [
        "--data-bytes",
        &limit.to_string(),
        "--retain-messages",
        "1000",
    ];
    let mut node = alone(&data, &limits).await?;
    let ada = Client::hello(&node, "ada").await?;
    let text = |nth: usize| {
        let words = (0..600).map(|word| format!("w{} ", (nth * 31 + word * 7) % 5000));
        format!("number {nth}: {}", words.collect::<String>())
    };
    let mut largest = 0;
    for part in 0..4 {
        pour(&ada, "tea", (part * 900..(part + 1) * 900).map(text)).await?;
        largest = largest.max(bytes_in(&data)?);
    }
    let bound = async |node: &Node| {
        eventually(PATIENCE, "the history fits", async || {
            let state = storage(node).await?;
            let shown = history(node, "tea").await?.len();
            ensure!(state["messages"] == shown, "{shown} shown of {state}");
            ensure!(shown < 3600, "{shown} shown");
            Ok(shown)
        })
        .await
    };
    let shown = bound(&node).await?;
    node.process.kill().await?;
    reborn(&mut node).await?;
    let again = bound(&node).await?;
    let texts = history(&node, "tea").await?;
    for (place, text) in texts.iter().rev().enumerate() {
        let due = format!("\"number {}:", 3599 - place);
        assert!(text.contains(&due), "{due} is not {text}");
    }
    say!(
        "{shown} messages kept, {again} after a restart; the folder took {} MiB at the most",
        largest >> 20
    );
    assert!(shown >= 1000 && again >= 1000, "the newest are kept");
    assert!(largest <= limit + BESIDE, "the folder took {largest}");
    Ok(())
}

/// One start that must not come to anything: exit code 2, and one line that has these words.
async fn refused(what: &str, args: Vec<String>, words: &[&str]) -> anyhow::Result<()> {
    let ended = Launch::new("chatnode", args).to_end(secs(10)).await?;
    let stderr = ended.stderr.trim_end();
    say!("{what}: {stderr}");
    ensure!(ended.code == Some(2), "{what}: {:?} {stderr}", ended.code);
    ensure!(
        stderr.lines().count() == 1 && ended.stdout.is_empty(),
        "{what}: {stderr}\n{}",
        ended.stdout
    );
    for word in words {
        ensure!(stderr.contains(word), "{what}: no {word:?} in {stderr}");
    }
    Ok(())
}

/// Goal: what `--data` cannot be, or cannot be with, is one line that says what, where and how to
/// mend it, exit code 2, before anything listens. Method: each mistake once.
#[tokio::test]
async fn a_folder_that_cannot_be_used_is_one_line_and_exit_code_2() -> Outcome {
    let folder = tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "a letter")?;
    let shown = |path: &Path| path.display().to_string();
    refused(
        "a file",
        flags(&file, &[]),
        &["--data", &shown(&file), "folder"],
    )
    .await?;
    assert_eq!(fs::read_to_string(&file)?, "a letter");
    let lost = folder.path().join("no/such/parent");
    refused("no parent", flags(&lost, &[]), &["--data", &shown(&lost)]).await?;
    let proc = Path::new("/proc/chatmesh");
    refused("/proc", flags(proc, &[]), &["--data", "/proc/chatmesh"]).await?;
    if let Some(small) = Small::read_only()? {
        let data = small.data();
        refused(
            "read-only",
            flags(&data, &[]),
            &["--data", &shown(&data), "writable"],
        )
        .await?;
    }
    let data = folder.path().join("data");
    for (limit, value) in [("--data-messages", "5"), ("--data-bytes", "5")] {
        refused(limit, flags(&data, &[limit, value]), &[limit, "at least"]).await?;
        let alone = [limit, "1000000000", "--registry", "none"].map(ToOwned::to_owned);
        refused("without --data", alone.to_vec(), &[limit, "--data DIR"]).await?;
    }
    let days = ["--data-days", "5", "--registry", "none"].map(ToOwned::to_owned);
    refused(
        "without --data",
        days.to_vec(),
        &["--data-days", "--data DIR"],
    )
    .await?;
    assert!(!data.exists(), "a start that is refused makes nothing");
    Ok(())
}
