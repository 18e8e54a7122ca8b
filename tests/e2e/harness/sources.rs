//! Nodes that find each other by `--discover`, and what they say of its sources.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use tokio::time::Duration;

use super::cluster::{Node, RegistryState, linked, secret_flags};
use super::sealed::Seal;
use super::{PATIENCE, eventually, secs};

/// How soon a node notices what DNS says: it asks each five seconds, and a name server may be silent. Long
/// enough that only what never happens fails it.
pub(crate) const POLLED_WITHIN: Duration = secs(30);

/// The flags of a node that looks for others there.
pub(crate) fn flags(sources: &[&str], seal: Option<&Seal>) -> Vec<String> {
    let mut flags = vec!["--rate-limit".to_owned(), "0".to_owned()];
    for url in sources {
        flags.extend(["--discover".to_owned(), (*url).to_owned()]);
    }
    flags.extend(secret_flags(seal));
    flags
}

/// Nodes with these flags, linked, that take clients.
pub(crate) async fn nodes_with(flags: &[String], count: usize) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Node::start(flags.iter().cloned()).await?);
    }
    linked(&nodes, PATIENCE).await?;
    for node in &nodes {
        node.takes_clients(PATIENCE).await?;
    }
    Ok(nodes)
}

/// A node at this address and port, as a pod has an address of its own.
pub(crate) async fn node_on(at: Ipv4Addr, port: u16, flags: &[String]) -> Result<Node> {
    let mut args = flags.to_vec();
    args.extend(["--http".to_owned(), format!("{at}:{port}")]);
    Node::start(args).await
}

/// What a node says of its only source, or of its first.
pub(crate) async fn source_of(node: &Node) -> Result<RegistryState> {
    let source = node.mesh().await?.registries.into_iter().next();
    source.ok_or_else(|| anyhow::anyhow!("the node names no source"))
}

/// Waits until a node says that its only source is in this state, with these words, in `/api/mesh`; and
/// that one which does not answer is told in `/readyz`, while the node takes clients all the same.
pub(crate) async fn source_is(node: &Node, state: &str, words: &str) -> Result<()> {
    let what = format!("the source is {state}: {words:?}");
    eventually(POLLED_WITHIN, &what, async || {
        let source = source_of(node).await?;
        let is_told = source.error.contains(words) && source.error.is_empty() == words.is_empty();
        ensure!(source.state == state && is_told, "{source:?}");
        ensure!(!source.error.contains('\n'), "{source:?}");
        let ready = node.get("/readyz").await?;
        ensure!(ready.status() == 200, "it takes no clients");
        let text = ready.text().await?;
        ensure!(text.contains(&source.url) == (state == "down"), "{text}");
        let up = node.metrics().await?;
        let up = up.get(&format!("source_up{{source=\"{}\"}}", source.url))?;
        ensure!((up == 1) == (state == "up"), "/metrics has {up}");
        Ok(())
    })
    .await
}

/// Sees that every one of these nodes hears every other now.
pub(crate) async fn all_hear(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        let mesh = node.mesh().await?;
        let others = nodes.iter().filter(|other| other.origin != node.origin);
        for other in others {
            ensure!(mesh.is_linked(&other.origin), "a link has closed: {mesh:?}");
        }
    }
    Ok(())
}
