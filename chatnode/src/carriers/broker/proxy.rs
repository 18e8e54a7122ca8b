//! By a ZeroMQ proxy: a PUB connects to where it takes what is published, a SUB to where it gives that.
//!
//! A proxy confirms nothing and says nothing of what it drops. What the PUB queues for one that takes nothing
//! is bounded by the [`outbox`](super::outbox) alone: by the bytes after the last own beat that came back.
//! The library has no limit for what one message may claim to be long, and ends the process beyond what
//! memory holds: only a proxy that all trust may be named.

use bytes::Bytes;
use futures::FutureExt as _;

use super::session::{Connected, Messages, Publish, Subscribe};
use super::url::BrokerUrl;
use crate::carriers::zmq::proxy;
use crate::core::links::fault::{Fault, Why};

/// Connects twice.
pub(super) async fn connect(
    url: &BrokerUrl,
) -> Result<Connected<Publisher, Subscriber, Heard>, Fault> {
    let [publishers, subscribers] = url.servers() else {
        return Err(Fault::new(Why::Unreachable, "no two ports are named"));
    };
    let (publishers, subscribers) = (publishers.to_string(), subscribers.to_string());
    let ((publisher, mut end), (hearing, subscriber, heard)) = futures::try_join!(
        proxy::Publisher::connect(&publishers),
        proxy::Hearing::connect(&subscribers)
    )?;
    let driver = async move {
        tokio::select! {
            fault = end.come() => fault,
            fault = hearing.run() => fault,
        }
    };
    Ok(Connected {
        publisher: Publisher(publisher),
        subscriber: Subscriber(subscriber),
        messages: Heard(heard),
        driver: driver.boxed(),
    })
}

/// Publishes.
pub(super) struct Publisher(proxy::Publisher);

impl Publish for Publisher {
    async fn publish(&mut self, messages: &[(String, Bytes)]) -> Result<Option<u64>, Fault> {
        self.0.publish(messages).await;
        Ok(None)
    }
}

/// Subscribes.
pub(super) struct Subscriber(proxy::Subscriber);

impl Subscribe for Subscriber {
    async fn subscribe(&mut self, names: &[String]) -> Result<(), Fault> {
        self.0.tell(names, true).await;
        Ok(())
    }

    async fn unsubscribe(&mut self, names: &[String]) -> Result<(), Fault> {
        self.0.tell(names, false).await;
        Ok(())
    }
}

/// What comes.
pub(super) struct Heard(proxy::Heard);

impl Messages for Heard {
    async fn next(&mut self) -> Result<(Bytes, Bytes), Fault> {
        self.0.recv().await.ok_or_else(Fault::ended)
    }
}
