//! Nodes that meet at brokers, and tests that are run on each kind of broker.

use anyhow::{Result, ensure};
use tokio::time::Duration;

use super::cluster::{BusState, Node, linked};
use super::engines::Broker;
use super::sealed::Seal;
use super::{Instant, PATIENCE, eventually};

/// Runs a test, `async fn(impl Broker, Option<Seal>) -> Outcome`, on each kind of broker.
macro_rules! on_each {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use crate::harness::Outcome;
            use crate::harness::engines::nats::Nats;
            use crate::harness::engines::rabbit::Rabbit;
            use crate::harness::engines::redis::Redis;
            use crate::harness::engines::zmq_proxy::ZmqProxy;
            use crate::harness::sealed::Seal;

            #[tokio::test]
            async fn on_redis() -> Outcome {
                super::$test(Redis::start().await?, None).await
            }

            #[tokio::test]
            async fn on_redis_sealed() -> Outcome {
                super::$test(Redis::start().await?, Some(Seal::new().await?)).await
            }

            #[tokio::test]
            async fn on_nats() -> Outcome {
                super::$test(Nats::start().await?, None).await
            }

            #[tokio::test]
            async fn on_rabbitmq() -> Outcome {
                super::$test(Rabbit::start().await?, None).await
            }

            #[tokio::test]
            async fn on_a_zmq_proxy() -> Outcome {
                super::$test(ZmqProxy::start().await?, None).await
            }
        }
    )+};
}
pub(crate) use on_each;

/// Runs a test, `async fn(impl Broker, Seal) -> Outcome`, on each kind of broker, with a mesh secret.
macro_rules! sealed_on_each {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use crate::harness::Outcome;
            use crate::harness::engines::nats::Nats;
            use crate::harness::engines::rabbit::Rabbit;
            use crate::harness::engines::redis::Redis;
            use crate::harness::engines::zmq_proxy::ZmqProxy;
            use crate::harness::sealed::Seal;

            #[tokio::test]
            async fn on_redis() -> Outcome {
                super::$test(Redis::start().await?, Seal::new().await?).await
            }

            #[tokio::test]
            async fn on_nats() -> Outcome {
                super::$test(Nats::start().await?, Seal::new().await?).await
            }

            #[tokio::test]
            async fn on_rabbitmq() -> Outcome {
                super::$test(Rabbit::start().await?, Seal::new().await?).await
            }

            #[tokio::test]
            async fn on_a_zmq_proxy() -> Outcome {
                super::$test(ZmqProxy::start().await?, Seal::new().await?).await
            }
        }
    )+};
}
pub(crate) use sealed_on_each;

/// The flags of a node at these brokers.
pub(crate) fn flags(urls: &[&str], seal: Option<&Seal>) -> Vec<String> {
    let mut flags = vec!["--rate-limit".to_owned(), "0".to_owned()];
    for url in urls {
        flags.extend(["--bus".to_owned(), (*url).to_owned()]);
    }
    if let Some(seal) = seal {
        flags.extend(["--mesh-secret".to_owned(), seal.file()]);
    }
    flags
}

/// So many nodes at a broker, linked, that take clients.
pub(crate) async fn nodes_at(
    broker: &impl Broker,
    seal: Option<&Seal>,
    count: usize,
) -> Result<Vec<Node>> {
    let url = broker.url();
    nodes_with(&flags(&[&url], seal), count).await
}

/// So many nodes with these flags, linked, that take clients.
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

/// What a node says of its only broker, or of its first.
pub(crate) async fn bus_of(node: &Node) -> Result<BusState> {
    let bus = node.mesh().await?.buses.into_iter().next();
    bus.ok_or_else(|| anyhow::anyhow!("the node names no broker"))
}

/// Waits until a node says that its broker is in this state; how long that took.
pub(crate) async fn bus_is(node: &Node, state: &str, within: Duration) -> Result<Duration> {
    let start = Instant::now();
    eventually(within, &format!("the broker is {state}"), async || {
        let bus = bus_of(node).await?;
        ensure!(bus.state == state, "{bus:?}");
        Ok(start.elapsed())
    })
    .await
}

/// Waits until a node says that its broker is not up.
pub(crate) async fn bus_is_lost(node: &Node, within: Duration) -> Result<BusState> {
    eventually(within, "the broker is not heard", async || {
        let bus = bus_of(node).await?;
        ensure!(bus.state == "dialing", "{bus:?}");
        Ok(bus)
    })
    .await
}

/// Waits until a node says in one line why its broker is not up: this reason, and these words.
pub(crate) async fn bus_says(node: &Node, reason: &str, words: &str) -> Result<()> {
    eventually(PATIENCE, words, async || {
        let bus = bus_of(node).await?;
        ensure!(bus.state != "up" && bus.reason == reason, "{bus:?}");
        let is_line = bus.error.contains(words) && !bus.error.contains('\n');
        ensure!(is_line, "{bus:?}");
        Ok(())
    })
    .await
}
