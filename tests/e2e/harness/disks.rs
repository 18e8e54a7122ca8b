//! Nodes with `--data`, what they say of their disks, and much history quickly.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::client::Client;
use super::cluster::{Node, Registry};
use super::eventually::{eventually, holds};
use super::wire::Sent;
use super::{PATIENCE, say};

/// Sends that are under way at the same time when history is made.
const AT_ONCE: usize = 200;
/// The file in the folder of `--data`.
pub(crate) const FILE: &str = "history.db";

/// The flags of a node that keeps its history in this folder and knows no other node.
pub(crate) fn flags(data: &Path, extra: &[&str]) -> Vec<String> {
    let mut flags: Vec<String> = ["--registry", "none", "--rate-limit", "0", "--data"]
        .map(ToOwned::to_owned)
        .to_vec();
    flags.push(data.display().to_string());
    flags.extend(extra.iter().map(|&flag| flag.to_owned()));
    flags
}

/// A node that keeps its history in this folder and knows no other node.
pub(crate) async fn alone(data: &Path, extra: &[&str]) -> Result<Node> {
    let node = Node::start(flags(data, extra)).await?;
    node.takes_clients(PATIENCE).await?;
    Ok(node)
}

/// A node of a mesh, with history in this folder, or without a disk.
pub(crate) async fn member(
    registry: &Registry,
    data: Option<&Path>,
    extra: &[&str],
) -> Result<Node> {
    let mut flags = vec!["--registry".to_owned(), registry.url.clone()];
    flags.extend(["--rate-limit", "0"].map(ToOwned::to_owned));
    if let Some(data) = data {
        flags.extend(["--data".to_owned(), data.display().to_string()]);
    }
    flags.extend(extra.iter().map(|&flag| flag.to_owned()));
    let node = Node::start(flags).await?;
    node.takes_clients(PATIENCE).await?;
    Ok(node)
}

/// Starts a node that has ended once more, and waits until it takes clients; how long both took.
pub(crate) async fn reborn(node: &mut Node) -> Result<Duration> {
    let begun = Instant::now();
    node.again().await?;
    node.takes_clients(PATIENCE).await?;
    Ok(begun.elapsed())
}

/// One number of `/metrics`: the name without `chatnode_`.
pub(crate) async fn number(node: &Node, name: &str) -> Result<u64> {
    node.metrics().await?.get(name)
}

/// What `/api/mesh` says of where history is kept.
pub(crate) async fn storage(node: &Node) -> Result<Value> {
    Ok(node.get_json("/api/mesh").await?["storage"].take())
}

/// Waits until the disk of the node is in this state and nothing waits for it.
pub(crate) async fn written(node: &Node) -> Result<()> {
    eventually(PATIENCE, "everything is on the disk", async || {
        let state = storage(node).await.map_err(|error| error.to_string())?;
        let waiting = number(node, "storage_waiting").await;
        let waiting = waiting.map_err(|error| error.to_string())?;
        holds(
            state["state"] == "ok" && waiting == 0,
            format_args!("{state}, {waiting} wait"),
        )
    })
    .await
}

/// Says these texts, many at once.
pub(crate) async fn pour(
    client: &Client,
    room: &str,
    texts: impl IntoIterator<Item = String>,
) -> Result<Vec<Sent>> {
    let begun = Instant::now();
    let mut under_way = std::collections::VecDeque::new();
    let mut all = Vec::new();
    for text in texts {
        let body = json!({ "room": room, "mid": client.new_mid(), "text": text });
        under_way.push_back(client.start("send", body));
        if under_way.len() >= AT_ONCE {
            all.push(poured(client, under_way.pop_front()).await?);
        }
    }
    while let Some(waiting) = under_way.pop_front() {
        all.push(poured(client, Some(waiting)).await?);
    }
    say!("{} messages said in {:?}", all.len(), begun.elapsed());
    Ok(all)
}

async fn poured(
    client: &Client,
    waiting: Option<tokio::sync::oneshot::Receiver<Value>>,
) -> Result<Sent> {
    let waiting = waiting.context("one is under way")?;
    Ok(serde_json::from_value(
        client.reply("send", waiting).await?,
    )?)
}

/// Bytes of all files in a folder, as their lengths say.
pub(crate) fn bytes_in(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for file in fs::read_dir(folder)? {
        // A file may go while one looks.
        sum += file?.metadata().map_or(0, |data| data.len());
    }
    Ok(sum)
}

/// The names of all files in a folder, sorted.
pub(crate) fn names_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(folder)? {
        names.push(file?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Copies the files of a folder into a new one.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// Waits until sends are taken, which were refused; how long that takes.
pub(crate) async fn taken_again(client: &Client) -> Result<Duration> {
    let begun = Instant::now();
    eventually(PATIENCE, "sends are taken again", async || {
        client.send("tea", "is there room").await?;
        anyhow::Ok(begun.elapsed())
    })
    .await
}
