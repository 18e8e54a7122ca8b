//! A registry and nodes, and what they say of themselves.

use std::borrow::Borrow;

use anyhow::{Context as _, Result, ensure};
use base::tls::KeyRing;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::eventually::eventually;
use super::metrics::Metrics;
use super::process::{Launch, Process};
use super::sealed::{Over, Seal};

/// How long one HTTP request of a test may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// An HTTP client that opens a connection for each request: a pooled one may lead to a process
/// that was killed meanwhile.
pub(crate) fn http() -> Result<reqwest::Client> {
    client(None)
}

fn client(keys: Option<&KeyRing>) -> Result<reqwest::Client> {
    Ok(base::tls::http_client(keys)
        .no_proxy()
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(REQUEST_WITHIN)
        .build()?)
}

/// GET of a URL.
pub(crate) async fn get(url: &str) -> Result<reqwest::Response> {
    let sent = http()?.get(url).send().await;
    sent.with_context(|| format!("GET {url}"))
}

/// A running registry.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) process: Process,
    /// `http://127.0.0.1:PORT`, or `tls://…` with a mesh secret.
    pub(crate) url: String,
    /// The mesh secret of it and of its nodes.
    pub(crate) seal: Option<Seal>,
}

impl Registry {
    /// A registry on a free port.
    pub(crate) async fn start() -> Result<Self> {
        Self::on("127.0.0.1:0").await
    }

    /// A registry on this address.
    pub(crate) async fn on(address: &str) -> Result<Self> {
        Self::with(address, None).await
    }

    /// A registry on this address, of nodes that speak so.
    pub(crate) async fn over(over: Over, address: &str) -> Result<Self> {
        Self::with(address, over.seal().await?).await
    }

    /// A registry on this address with this mesh secret, if any.
    pub(crate) async fn with(address: &str, seal: Option<Seal>) -> Result<Self> {
        let mut launch = Launch::new("registry", ["--http", address]);
        launch.args.extend(secret_flags(seal.as_ref()));
        let process = Process::start(&launch).await?;
        let url = process.ready_text("http")?;
        Ok(Self { process, url, seal })
    }

    /// Another one in its place, after this one was killed.
    pub(crate) async fn again(&mut self) -> Result<()> {
        let address = self.address().to_owned();
        *self = Self::with(&address, self.seal.take()).await?;
        Ok(())
    }

    /// `ADDR:PORT`.
    pub(crate) fn address(&self) -> &str {
        self.url
            .split_once("://")
            .map_or(&self.url, |(_, address)| address)
    }

    /// With what a node is started that is to be in its list.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--registry".to_owned(), self.url.clone()];
        flags.extend(secret_flags(self.seal.as_ref()));
        flags
    }

    /// The URL of this path for [`Self::http`].
    pub(crate) fn url_of(&self, path: &str) -> String {
        let scheme = self.seal.as_ref().map_or("http", |_| "https");
        format!("{scheme}://{}{path}", self.address())
    }

    /// As [`http`], for its list too.
    pub(crate) fn http(&self) -> Result<reqwest::Client> {
        client(self.seal.as_ref().map(Seal::keys_of_registries))
    }

    /// Waits until it lists so many nodes; how long after its start that is.
    pub(crate) async fn lists(&self, count: usize, within: Duration) -> Result<Duration> {
        let what = format!("the registry lists {count} nodes");
        eventually(within, &what, async || {
            let listed = self.listed().await?;
            ensure!(listed.len() == count, "it lists {listed:?}");
            Ok(self.process.ready_at.elapsed())
        })
        .await
    }

    /// The ids of the nodes that it lists, sorted.
    pub(crate) async fn listed(&self) -> Result<Vec<String>> {
        let list: Value = self
            .http()?
            .get(self.url_of("/v1/nodes"))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let nodes = list["nodes"].as_array().context("no nodes in the list")?;
        let mut ids: Vec<String> = nodes
            .iter()
            .filter_map(|node| Some(node["id"].as_str()?.to_owned()))
            .collect();
        ids.sort();
        Ok(ids)
    }
}

/// The flag of a mesh secret, if there is one.
pub(crate) fn secret_flags(seal: Option<&Seal>) -> Vec<String> {
    let flags = seal.map(|seal| ["--mesh-secret".to_owned(), seal.file()]);
    flags.into_iter().flatten().collect()
}

/// Somebody in a registry's list by the hand of the test, at any endpoints; ends when dropped.
#[derive(Debug)]
pub(crate) struct Listing(JoinHandle<()>);

impl Listing {
    /// Lists an origin at these endpoints, and renews that each second.
    pub(crate) async fn of(
        origin: &str,
        publishes: &str,
        http_url: &str,
        registry: &Registry,
    ) -> Result<Self> {
        let url = registry.url_of(&format!("/v1/nodes/{origin}"));
        let endpoints = json!({ "pub": publishes, "http": http_url });
        let record = json!({ "name": "listed", "endpoints": endpoints, "meta": {} });
        let client = registry.http()?;
        let put = client.put(&url).json(&record).send().await?;
        put.error_for_status()?;
        Ok(Self(super::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_secs(1));
            loop {
                beat.tick().await;
                // A renewal that is lost is made good by the next.
                drop(client.put(&url).json(&record).send().await);
            }
        })))
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) process: Process,
    launch: Launch,
    pub(crate) origin: String,
    /// `http://127.0.0.1:PORT`.
    pub(crate) http: String,
    /// `tcp://127.0.0.1:PORT`, or `tls://…` with a mesh secret; empty where only brokers carry.
    pub(crate) publishes: String,
}

/// What a node says of one link in `/api/mesh`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LinkState {
    /// Unknown until the first beat.
    pub(crate) origin: Option<String>,
    pub(crate) state: String,
    pub(crate) beat_age_ms: Option<u64>,
    /// Entries of its log that are here, repaired ones included.
    #[serde(default)]
    pub(crate) received: u64,
    #[serde(default)]
    pub(crate) gaps: u64,
    #[serde(default)]
    pub(crate) repaired: u64,
    #[serde(default)]
    pub(crate) lost: u64,
}

impl LinkState {
    /// Whether it is the link to this node.
    pub(crate) fn leads_to(&self, node: &Node) -> bool {
        self.origin.as_ref() == Some(&node.origin)
    }
}

/// What a node says of a registry, or of another source, in `/api/mesh`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RegistryState {
    pub(crate) url: String,
    pub(crate) state: String,
    pub(crate) error: String,
}

/// What a node says of a broker in `/api/mesh`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct BusState {
    pub(crate) state: String,
    pub(crate) dials: u64,
    pub(crate) reason: String,
    pub(crate) error: String,
}

/// `/api/mesh`, as far as tests ask.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Mesh {
    pub(crate) origin: String,
    pub(crate) registries: Vec<RegistryState>,
    pub(crate) buses: Vec<BusState>,
    pub(crate) links: Vec<LinkState>,
    pub(crate) position: Vec<String>,
    pub(crate) clients: u64,
}

impl Mesh {
    /// What the node at this HTTP endpoint says.
    pub(crate) async fn at(http: &str) -> Result<Self> {
        let body = get(&format!("{http}/api/mesh")).await?;
        let body = body.error_for_status()?.bytes().await?;
        serde_json::from_slice(&body)
            .with_context(|| format!("/api/mesh is not as expected: {}", body.escape_ascii()))
    }

    /// Whether it hears this origin.
    pub(crate) fn hears(&self, origin: &str) -> bool {
        self.links
            .iter()
            .any(|link| link.origin.as_deref() == Some(origin) && link.state == "up")
    }

    /// Whether it has a link to this origin that is not torn down, though it may be silent.
    pub(crate) fn is_linked(&self, origin: &str) -> bool {
        let lives = |link: &LinkState| ["up", "silent"].contains(&link.state.as_str());
        self.links
            .iter()
            .any(|link| link.origin.as_deref() == Some(origin) && lives(link))
    }

    /// How many links beat.
    pub(crate) fn up(&self) -> usize {
        self.links.iter().filter(|link| link.state == "up").count()
    }
}

impl Node {
    /// Starts a node with these flags.
    pub(crate) async fn start<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::launch(Launch::new("chatnode", args)).await
    }

    /// Starts a node.
    pub(crate) async fn launch(launch: Launch) -> Result<Self> {
        let process = Process::start(&launch).await?;
        let origin = process.ready_text("origin")?;
        let http = process.ready_text("http")?;
        let publishes = match process.ready["pub"] {
            Value::Null => String::new(),
            _ => process.ready_text("pub")?,
        };
        Ok(Self {
            process,
            launch,
            origin,
            http,
            publishes,
        })
    }

    /// Starts a node with the flags of this one, after this one has ended.
    pub(crate) async fn again(&mut self) -> Result<()> {
        ensure!(!self.process.lives()?, "the node still runs");
        *self = Self::launch(self.launch.clone()).await?;
        Ok(())
    }

    /// Like [`Node::again`], on the ports that this one had.
    pub(crate) async fn again_on_its_ports(&mut self) -> Result<()> {
        for (flag, address) in [("--http", &self.http), ("--pub", &self.publishes)] {
            let is_other = flag == "--http" || address.starts_with("tcp://");
            if is_other && !self.launch.args.iter().any(|arg| arg == flag) {
                let (_, address) = address
                    .split_once("://")
                    .context("an endpoint has a scheme")?;
                self.launch
                    .args
                    .extend([flag.to_owned(), address.to_owned()]);
            }
        }
        self.again().await
    }

    /// `/api/mesh`.
    pub(crate) async fn mesh(&self) -> Result<Mesh> {
        Mesh::at(&self.http).await
    }

    /// `/metrics`.
    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        Metrics::at(&self.http).await
    }

    /// GET of a path.
    pub(crate) async fn get(&self, path: &str) -> Result<reqwest::Response> {
        get(&format!("{}{path}", self.http)).await
    }

    /// GET of a path, as JSON.
    pub(crate) async fn get_json(&self, path: &str) -> Result<Value> {
        Ok(self.get(path).await?.error_for_status()?.json().await?)
    }

    /// POST of JSON: status and body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let url = format!("{}{path}", self.http);
        let response = http()?.post(&url).json(body).send().await?;
        let status = response.status().as_u16();
        Ok((status, response.json().await.unwrap_or(Value::Null)))
    }

    /// Whether it was given a data directory.
    pub(crate) fn keeps_data(&self) -> bool {
        self.launch.args.iter().any(|arg| arg == "--data")
    }

    /// `ADDR:PORT` of its HTTP side.
    pub(crate) fn address(&self) -> &str {
        self.http.trim_start_matches("http://")
    }

    /// Waits until `/readyz` says yes.
    pub(crate) async fn takes_clients(&self, within: Duration) -> Result<()> {
        eventually(within, "the node takes clients", async || {
            let response = self.get("/readyz").await?;
            ensure!(response.status() == 200, "/readyz is {}", response.status());
            Ok(())
        })
        .await
    }
}

/// A registry and nodes that it introduced to each other.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) registry: Registry,
    pub(crate) nodes: Vec<Node>,
    extra: Vec<String>,
}

impl Cluster {
    /// `count` linked nodes.
    pub(crate) async fn start(count: usize) -> Result<Self> {
        Self::with(count, &[]).await
    }

    /// `count` linked nodes with these flags.
    pub(crate) async fn with(count: usize, extra: &[&str]) -> Result<Self> {
        Self::over(Over::Zmq, count, extra).await
    }

    /// `count` linked nodes with these flags, which speak so.
    pub(crate) async fn over(over: Over, count: usize, extra: &[&str]) -> Result<Self> {
        let registry = Registry::over(over, "127.0.0.1:0").await?;
        let extra = extra.iter().map(|&flag| flag.to_owned()).collect();
        let mut cluster = Self {
            registry,
            nodes: Vec::new(),
            extra,
        };
        for _ in 0..count {
            cluster.add().await?;
        }
        cluster.linked(super::PATIENCE).await?;
        for node in &cluster.nodes {
            node.takes_clients(super::PATIENCE).await?;
        }
        Ok(cluster)
    }

    /// Its nodes, of which there are so many.
    pub(crate) fn each<const N: usize>(&self) -> [&Node; N] {
        let nodes: Vec<_> = self.nodes.iter().collect();
        nodes.try_into().expect("as many nodes as were started")
    }

    /// Starts one more node, and does not wait for its links.
    pub(crate) async fn add(&mut self) -> Result<&Node> {
        let mut args = self.registry.flags();
        args.extend(self.extra.iter().cloned());
        self.nodes.push(Node::start(args).await?);
        Ok(&self.nodes[self.nodes.len() - 1])
    }

    /// Waits until every node hears every other; how long that took.
    pub(crate) async fn linked(&self, within: Duration) -> Result<Duration> {
        linked(&self.nodes, within).await
    }
}

/// Nodes, however a test holds them.
pub(crate) fn each(nodes: &[impl Borrow<Node>]) -> Vec<&Node> {
    nodes.iter().map(Borrow::borrow).collect()
}

/// Waits until every one of these nodes hears every other; how long that took.
pub(crate) async fn linked(nodes: &[impl Borrow<Node>], within: Duration) -> Result<Duration> {
    let (nodes, start) = (each(nodes), Instant::now());
    let mut settled = vec![false; nodes.len()];
    eventually(within, "every node hears every other", async || {
        for (place, node) in nodes.iter().enumerate() {
            if settled[place] {
                continue;
            }
            let mesh = node.mesh().await?;
            for other in nodes.iter().filter(|other| other.origin != node.origin) {
                ensure!(
                    mesh.hears(&other.origin),
                    "{} ({} of {}) does not hear {}: {:?}",
                    node.origin,
                    place,
                    nodes.len(),
                    other.origin,
                    mesh.links
                );
            }
            settled[place] = true;
        }
        Ok(start.elapsed())
    })
    .await
}
