//! Brokers between nodes with a mesh secret: what a stranger reads there, and who is not heard.

use anyhow::{Result, ensure};

use crate::harness::buses::{bus_of, flags, nodes_at, sealed_on_each};
use crate::harness::engines::Broker;
use crate::harness::sealed::Seal;
use crate::harness::{Client, Node, Outcome, PATIENCE, eventually, histories};

sealed_on_each!(only_who_has_the_secret_reads_and_is_heard);

/// Waits until a node says this of others on its broker, which is up.
async fn says(node: &Node, reason: &str, words: &str) -> Result<()> {
    eventually(PATIENCE, words, async || {
        let bus = bus_of(node).await?;
        ensure!(bus.state == "up" && bus.reason == reason, "{bus:?}");
        ensure!(bus.error.contains(words), "{bus:?}");
        Ok(())
    })
    .await
}

/// Whether these bytes are somewhere in those.
fn is_in(part: &str, whole: &[u8]) -> bool {
    whole.windows(part.len()).any(|it| it == part.as_bytes())
}

/// Goal: with a mesh secret nodes meet at any broker, and all that they say there is sealed, for whoever may
/// subscribe to everything; who has no secret, or another, is not heard, hears nobody, and each says why.
/// Method: two nodes with a secret, whose clients talk; one without and one with another, each with a client;
/// a stranger who keeps all that goes by the broker, and reads of it what the one without has said.
async fn only_who_has_the_secret_reads_and_is_heard(broker: impl Broker, seal: Seal) -> Outcome {
    let overheard = broker.overheard().await?;
    let bare = Node::start(flags(&[&broker.url()], None)).await?;
    let theirs = Seal::new().await?;
    let other = Node::start(flags(&[&broker.url()], Some(&theirs))).await?;
    let nodes = nodes_at(&broker, Some(&seal), 2).await?;

    let ada = Client::joined(&nodes[0], "ada", "tea").await?;
    let bob = Client::joined(&nodes[1], "bob", "tea").await?;
    ada.send("tea", "hidden, says ada").await?;
    bob.message(PATIENCE, "hidden, says ada").await?;
    bob.send("tea", "hidden, says bob").await?;
    ada.message(PATIENCE, "hidden, says bob").await?;
    for node in [&bare, &other] {
        node.takes_clients(PATIENCE).await?;
        let eve = Client::joined(node, "eve", "tea").await?;
        eve.send("tea", "for all to read").await?;
    }

    says(&bare, "not_sealed", "this node has none: --mesh-secret").await?;
    for node in [&nodes[0], &other] {
        says(
            node,
            "not_sealed",
            "others on this broker have no mesh secret",
        )
        .await?;
        says(node, "other_key", "others on this broker have another").await?;
    }
    let log = bare.process.log_text();
    assert_eq!(log.matches("others on this broker").count(), 1, "{log}");
    for node in [&bare, &other] {
        let mesh = node.mesh().await?;
        assert!(mesh.links.is_empty(), "it hears nobody: {mesh:?}");
    }
    assert_eq!(histories(&nodes, "tea", PATIENCE).await?.len(), 2);

    // What it says without a secret shows that the stranger hears, and can read.
    eventually(PATIENCE, "all is overheard", async || {
        let messages = overheard.messages();
        let read = messages.iter().filter(|it| is_in("for all to read", it));
        ensure!(read.count() > 0, "of {} none", messages.len());
        Ok(())
    })
    .await?;
    let (mut sealed, mut open) = (0, 0);
    for message in overheard.messages() {
        assert!(!is_in("hidden", &message), "{}", message.escape_ascii());
        // Its version, the key, who has sealed it; or what it is, a version, who says it.
        let is_by = |node: &Node, at: usize| message[at..].starts_with(node.origin.as_bytes());
        if is_by(&bare, 2) {
            open += 1;
        } else {
            let is_sealed = message[0] == 1 && nodes.iter().chain([&other]).any(|it| is_by(it, 5));
            assert!(is_sealed, "{}", message.escape_ascii());
            sealed += 1;
        }
    }
    assert!(sealed >= 8 && open >= 2, "{sealed} and {open}");
    Ok(())
}
