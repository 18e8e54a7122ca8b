//! Nodes on two sides: of a wire that can be cut, or of a proxy.

use std::net::SocketAddr;

use anyhow::Result;

use super::cluster::{Listing, secret_flags};
use super::netns::{FAR_CONTROL, FAR_MESH, NEAR_CONTROL, NEAR_MESH, Namespaces};
use super::process::Launch;
use super::proxy::Proxy;
use super::sealed::Over;
use super::{Node, PATIENCE, Registry, linked};

/// Ports of the first node of a side; the next ones follow.
const HTTP_PORT: usize = 8080;
const PUB_PORT: usize = 5000;

/// Nodes in two network namespaces. They meet on the mesh wire, register on the control wire, and
/// the test speaks to all of them where nothing is cut.
#[derive(Debug)]
pub(crate) struct Apart {
    pub(crate) near: Vec<Node>,
    pub(crate) far: Vec<Node>,
    pub(crate) registry: Registry,
    pub(crate) wire: Namespaces,
}

impl Apart {
    /// So many nodes on the near side and on the far side, all linked and taking clients. `None`
    /// where the machine does not let it; see [`Namespaces::enter`].
    pub(crate) async fn start(
        over: Over,
        near: usize,
        far: usize,
        instead: &str,
    ) -> Result<Option<Self>> {
        let Some(wire) = Namespaces::enter(instead)? else {
            return Ok(None);
        };
        let registry = Registry::over(over, &format!("{NEAR_CONTROL}:0")).await?;
        let mut apart = Self {
            near: Vec::new(),
            far: Vec::new(),
            registry,
            wire,
        };
        for place in 0..near {
            let node = apart.node(place, NEAR_MESH, NEAR_CONTROL).await?;
            apart.near.push(node);
        }
        for place in 0..far {
            let node = apart.node(place, FAR_MESH, FAR_CONTROL).await?;
            apart.far.push(node);
        }
        linked(&apart.nodes(), PATIENCE).await?;
        for node in apart.nodes() {
            node.takes_clients(PATIENCE).await?;
        }
        Ok(Some(apart))
    }

    async fn node(&self, place: usize, mesh: &str, control: &str) -> Result<Node> {
        let port = HTTP_PORT + place;
        let mut args = self.registry.flags();
        let http = format!("0.0.0.0:{port}");
        args.extend(["--http", &http, "--advertise", mesh, "--rate-limit", "0"].map(str::to_owned));
        if self.registry.seal.is_none() {
            let publisher = format!("{mesh}:{}", PUB_PORT + place);
            args.extend(["--insecure-mesh", "--pub", &publisher].map(str::to_owned));
        }
        let mut launch = Launch::new("chatnode", args);
        if mesh == FAR_MESH {
            launch.prefix = self.wire.far();
        }
        let mut node = Node::launch(launch).await?;
        node.http = format!("http://{control}:{port}");
        Ok(node)
    }

    /// All nodes, the near ones first.
    pub(crate) fn nodes(&self) -> Vec<&Node> {
        self.near.iter().chain(&self.far).collect()
    }

    /// Starts the first far node again, which has been killed.
    pub(crate) async fn far_again(&mut self) -> Result<()> {
        self.far[0].again().await?;
        self.far[0].http = format!("http://{FAR_CONTROL}:{HTTP_PORT}");
        Ok(())
    }
}

/// A node near that hears a node far only through a proxy, and a node far that hears it directly.
#[derive(Debug)]
pub(crate) struct Proxied {
    pub(crate) near: Node,
    pub(crate) far: Node,
    pub(crate) proxy: Proxy,
    _registry: Registry,
    _listing: Listing,
}

impl Proxied {
    /// Only the near node uses the registry; the far one is listed there by the test, with the
    /// proxy's endpoint, and what the registry says weighs more than what a hello says.
    pub(crate) async fn start(over: Over) -> Result<Self> {
        let registry = Registry::over(over, "127.0.0.1:0").await?;
        let mut args = ["--registry", "none", "--rate-limit", "0"]
            .map(str::to_owned)
            .to_vec();
        args.extend(secret_flags(registry.seal.as_ref()));
        let far = Node::start(args).await?;
        let (scheme, target) = far.publishes.split_once("://").unwrap_or_default();
        let proxy = Proxy::to(target.parse::<SocketAddr>()?).await?;
        let publishes = format!("{scheme}://{}", proxy.address);
        let listing = Listing::of(&far.origin, &publishes, &far.http, &registry).await?;
        let mut args = registry.flags();
        args.extend(["--rate-limit", "0"].map(str::to_owned));
        let near = Node::start(args).await?;
        linked(&[&near, &far], PATIENCE).await?;
        Ok(Self {
            near,
            far,
            proxy,
            _registry: registry,
            _listing: listing,
        })
    }
}
