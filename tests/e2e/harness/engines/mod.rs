//! Brokers that people operate, as real servers on free ports of 127.0.0.1, each in a folder of its
//! own: Redis, Redis with sentinels, NATS, RabbitMQ, a forwarder of libzmq. They are killed,
//! started again where they were, stopped as they stand, and asked what an operator asks. So is etcd,
//! where nodes find each other; DNS and Consul are doubles.
//!
//! The test ends them, also when it fails or is killed. One that is not installed is an error.

pub(crate) mod amqp;
pub(crate) mod certificates;
pub(crate) mod consul;
pub(crate) mod dns;
pub(crate) mod etcd;
pub(crate) mod nats;
pub(crate) mod overheard;
pub(crate) mod path;
pub(crate) mod rabbit;
pub(crate) mod rabbit_home;
pub(crate) mod redis;
pub(crate) mod sentinels;
pub(crate) mod server;
pub(crate) mod zmq_proxy;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::time::Duration;

use super::eventually::eventually;
use overheard::Overheard;
use server::Server;

/// How long a server may take until it answers: RabbitMQ needs three seconds of a processor.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// What the faults need of every broker.
pub(crate) trait Broker {
    /// Its process.
    fn server(&mut self) -> &mut Server;

    /// Where it listens.
    fn addresses(&self) -> Vec<SocketAddr>;

    /// The URL by which a node finds it at these addresses: its own, or those of what lies before it.
    fn url_at(&self, addresses: &[SocketAddr]) -> String;

    /// Looks once whether it answers. Does not end while it is stopped.
    async fn answers(&self) -> Result<()>;

    /// Subscribes to everything there, as a stranger who may.
    async fn overheard(&self) -> Result<Overheard>;

    /// The URL by which a node finds it.
    fn url(&self) -> String {
        self.url_at(&self.addresses())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It does not, or has ended; the text has the end of its log.
    async fn is_ready(&mut self) -> Result<()> {
        eventually(ANSWERS_WITHIN, "the server answers", async || {
            if self.server().lives() {
                self.answers().await.map(|()| Ok(()))
            } else {
                // Nothing to wait for.
                Ok(Err(self.server().ended()))
            }
        })
        .await?
    }

    /// `kill -9`, and waits until it is gone.
    async fn kill(&mut self) -> Result<()> {
        self.server().kill().await
    }

    /// Starts it again on its ports, with what it had written down.
    async fn again(&mut self) -> Result<()> {
        self.server().launch()?;
        self.is_ready().await
    }

    /// Stops it as it stands: its connections stay, and it answers nothing.
    async fn pause(&mut self) -> Result<()> {
        self.server().pause().await
    }

    /// Lets it go on.
    fn resume(&mut self) -> Result<()> {
        self.server().resume()
    }
}

/// This port of 127.0.0.1.
fn here(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
