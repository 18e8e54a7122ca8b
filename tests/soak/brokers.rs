//! The brokers that nodes meet at, if they do: servers that are hurt as nodes are.

use anyhow::Result;

use crate::harness::engines::Broker as _;
use crate::harness::engines::nats::Nats;
use crate::harness::engines::rabbit::Rabbit;
use crate::harness::engines::redis::Redis;
use crate::harness::engines::zmq_proxy::ZmqProxy;

/// At what nodes meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bus {
    Redis,
    Nats,
    Amqp,
    Proxy,
    /// Two Redis, one of which is hurt at a time.
    Two,
}

impl Bus {
    /// As it is written in the command line.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "redis" => Self::Redis,
            "nats" => Self::Nats,
            "amqp" => Self::Amqp,
            "proxy" => Self::Proxy,
            "two" => Self::Two,
            _ => return None,
        })
    }

    /// Its servers, started.
    pub(crate) async fn start(self) -> Result<Vec<Broker>> {
        Ok(match self {
            Self::Redis => vec![Broker::Redis(Redis::start().await?)],
            Self::Nats => vec![Broker::Nats(Nats::start().await?)],
            Self::Amqp => vec![Broker::Amqp(Rabbit::start().await?)],
            Self::Proxy => vec![Broker::Proxy(ZmqProxy::start().await?)],
            Self::Two => vec![
                Broker::Redis(Redis::start().await?),
                Broker::Redis(Redis::start().await?),
            ],
        })
    }
}

/// One server.
#[derive(Debug)]
pub(crate) enum Broker {
    Redis(Redis),
    Nats(Nats),
    Amqp(Rabbit),
    Proxy(ZmqProxy),
}

macro_rules! of_each {
    ($broker:expr, $it:ident => $does:expr) => {
        match $broker {
            Broker::Redis($it) => $does,
            Broker::Nats($it) => $does,
            Broker::Amqp($it) => $does,
            Broker::Proxy($it) => $does,
        }
    };
}

impl Broker {
    pub(crate) fn url(&self) -> String {
        of_each!(self, it => it.url())
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        of_each!(self, it => it.kill().await)
    }

    /// Starts it again: of what goes through it it had written down nothing.
    pub(crate) async fn again(&mut self) -> Result<()> {
        of_each!(self, it => it.again().await)
    }

    /// Stops it as it stands.
    pub(crate) async fn pause(&mut self) -> Result<()> {
        of_each!(self, it => it.pause().await)
    }

    pub(crate) fn resume(&mut self) -> Result<()> {
        of_each!(self, it => it.resume())
    }
}
