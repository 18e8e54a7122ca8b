//! The path from one node to a broker, which fails while the broker lives.
//!
//! It is a TCP proxy before each port. When one direction is swallowed the other one goes on, as
//! with a firewall that has forgotten half of a connection.

use anyhow::Result;

use super::Broker;
use crate::harness::proxy::Proxy;

/// A path of a node's own; ends when dropped. It leads to wherever the broker comes back.
#[derive(Debug)]
pub(crate) struct Path {
    /// The URL to give to the node.
    pub(crate) url: String,
    proxies: Vec<Proxy>,
}

impl Path {
    /// An open one. Servers that tell clients of other addresses, as sentinels and clusters do,
    /// lead them past it.
    pub(crate) async fn to(broker: &impl Broker) -> Result<Self> {
        let mut proxies = Vec::new();
        for address in broker.addresses() {
            proxies.push(Proxy::to(address).await?);
        }
        let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.address).collect();
        let url = broker.url_at(&addresses);
        Ok(Self { url, proxies })
    }

    /// Passes everything on that is connected from now.
    pub(crate) fn pass(&self) {
        self.proxies.iter().for_each(Proxy::pass);
    }

    /// Swallows everything, and keeps the connections open.
    pub(crate) fn black_hole(&self) {
        self.proxies.iter().for_each(Proxy::black_hole);
    }

    /// Swallows what the broker says: the node can publish and hears nothing.
    pub(crate) fn deafen(&self) {
        self.proxies.iter().for_each(Proxy::deafen);
    }

    /// Swallows what the node says: it hears all and is not heard.
    pub(crate) fn mute(&self) {
        self.proxies.iter().for_each(Proxy::mute);
    }

    /// Closes all connections, and every one to come.
    pub(crate) fn cut(&self) {
        self.proxies.iter().for_each(Proxy::cut);
    }
}
