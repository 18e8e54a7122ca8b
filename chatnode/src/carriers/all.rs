//! All carriers of one node, as one: what it says goes by each, and whom it hears it hears by each.

use std::task::Poll;
use std::time::Duration;

use super::broker::BrokerCarrier;
use super::sealed::Sealed;
use super::zmq::ZmqCarrier;
use super::{Carrier, CarrierEvent, Command};

/// What carries from node to node.
#[derive(Debug)]
pub(crate) enum Direct {
    /// ZeroMQ.
    Plain(Box<ZmqCarrier>),
    /// TLS, with a mesh secret.
    Sealed(Box<Sealed>),
}

impl Carrier for Direct {
    fn carry(&mut self, command: Command) {
        match self {
            Self::Plain(zmq) => zmq.carry(command),
            Self::Sealed(sealed) => sealed.carry(command),
        }
    }

    async fn event(&mut self) -> CarrierEvent {
        match self {
            Self::Plain(zmq) => zmq.event().await,
            Self::Sealed(sealed) => sealed.event().await,
        }
    }

    async fn close(self, grace: Duration) {
        match self {
            Self::Plain(zmq) => zmq.close(grace).await,
            Self::Sealed(sealed) => sealed.close(grace).await,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct All {
    /// From node to node, if nodes are to meet so.
    pub(crate) direct: Option<Direct>,
    /// By brokers.
    pub(crate) brokers: Vec<BrokerCarrier>,
}

impl All {
    /// The next event of a broker; each has its turn.
    async fn event_of_brokers(brokers: &mut [BrokerCarrier]) -> CarrierEvent {
        std::future::poll_fn(|cx| {
            for _ in 0..brokers.len() {
                brokers.rotate_left(1);
                let Some(broker) = brokers.last_mut() else {
                    break;
                };
                // Cancel safe: an event that is not taken stays.
                let event = std::pin::pin!(broker.event());
                if let Poll::Ready(event) = event.poll(cx) {
                    return Poll::Ready(event);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Carrier for All {
    fn carry(&mut self, command: Command) {
        let Self { direct, brokers } = self;
        match &command {
            Command::Dial(_, endpoint, _) => {
                if let Some(broker) = brokers.iter_mut().find(|it| it.is_at(endpoint)) {
                    return broker.carry(command);
                }
            }
            Command::HangUp(link) => {
                // Only one knows it.
                for broker in brokers {
                    broker.carry(Command::HangUp(*link));
                }
            }
            Command::Publish(topic, body) => {
                for broker in brokers {
                    broker.carry(Command::Publish(*topic, body.clone()));
                }
            }
            Command::PublishPlain(_) => {}
        }
        if let Some(direct) = direct {
            direct.carry(command);
        }
    }

    async fn event(&mut self) -> CarrierEvent {
        let Self { direct, brokers } = self;
        let Some(direct) = direct else {
            return Self::event_of_brokers(brokers).await;
        };
        if brokers.is_empty() {
            return direct.event().await;
        }
        // Both are cancel safe.
        tokio::select! {
            event = direct.event() => event,
            event = Self::event_of_brokers(brokers) => event,
        }
    }

    async fn close(self, grace: Duration) {
        let direct = async {
            if let Some(direct) = self.direct {
                direct.close(grace).await;
            }
        };
        let brokers = self.brokers.into_iter().map(|it| it.close(grace));
        tokio::join!(direct, futures::future::join_all(brokers));
    }
}
