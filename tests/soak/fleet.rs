//! The processes of the soak: a registry, and nodes in numbered places.

use std::cell::{Cell, RefCell};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::time::{Duration, Instant};

use crate::brokers::Broker;
use crate::harness::cluster::Mesh;
use crate::harness::process::Usage;
use crate::harness::{Node, PATIENCE, Registry, eventually, linked};
use crate::options::Options;

/// Messages that a node retains: two rounds of the fastest kind and their bursts.
const RETAINED: &str = "90000";

/// A place of a node.
#[derive(Debug)]
struct Place {
    args: Vec<String>,
    /// Away while it is being killed and started again.
    node: Option<Node>,
    frozen: bool,
    /// When it was last stopped, killed or let go on.
    troubled: Option<Instant>,
}

/// All processes. One task uses it; nothing is borrowed across an await.
#[derive(Debug)]
pub(crate) struct Fleet {
    places: RefCell<Vec<Place>>,
    registry: RefCell<Option<Registry>>,
    registry_answers: Cell<bool>,
    brokers: RefCell<Vec<Broker>>,
    /// While nodes cannot meet, and when they could again.
    is_apart: Cell<bool>,
    met_again: Cell<Option<Instant>>,
    _data: Option<TempDir>,
}

impl Fleet {
    /// Starts all, and waits until they are linked.
    pub(crate) async fn start(options: &Options) -> Result<Self> {
        let registry = Registry::start().await?;
        let brokers = match options.bus {
            Some(bus) => bus.start().await?,
            None => Vec::new(),
        };
        let data = options.data.then(TempDir::new).transpose()?;
        let mut nodes = Vec::new();
        let mut flags = Vec::new();
        for count in 0..options.nodes {
            let mut args = vec!["--registry".to_owned(), registry.url.clone()];
            args.extend(["--rate-limit", "0", "--retain-messages", RETAINED].map(str::to_owned));
            for broker in &brokers {
                args.extend(["--bus".to_owned(), broker.url()]);
            }
            if let Some(data) = data.as_ref().filter(|_| count % 2 == 1) {
                let folder = data.path().join(format!("node{count}"));
                let folder = folder.to_str().context("a temporary folder has a name")?;
                args.extend(["--data".to_owned(), folder.to_owned()]);
            }
            flags.push(args.clone());
            nodes.push(Node::start(args).await?);
        }
        linked(&nodes, PATIENCE).await?;
        for node in &nodes {
            node.takes_clients(PATIENCE).await?;
        }
        let places = nodes.into_iter().zip(flags).map(|(node, args)| Place {
            args,
            node: Some(node),
            frozen: false,
            troubled: None,
        });
        Ok(Self {
            places: RefCell::new(places.collect()),
            registry: RefCell::new(Some(registry)),
            registry_answers: Cell::new(true),
            brokers: RefCell::new(brokers),
            is_apart: Cell::new(false),
            met_again: Cell::new(None),
            _data: data,
        })
    }

    /// The HTTP endpoints of the nodes that run.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let places = self.places.borrow();
        let awake = places.iter().filter(|place| !place.frozen);
        let nodes = awake.filter_map(|place| place.node.as_ref());
        nodes.map(|node| node.http.clone()).collect()
    }

    /// The HTTP endpoint of one of the nodes that run.
    pub(crate) fn endpoint(&self, victim: usize) -> Option<String> {
        let endpoints = self.endpoints();
        endpoints.get(victim % endpoints.len().max(1)).cloned()
    }

    /// How many nodes run.
    pub(crate) fn running(&self) -> usize {
        self.endpoints().len()
    }

    /// Takes a node away to end it: the one meant, or the next that may be ended. The first never
    /// is, so that there is one whose memory is known over the whole run; and none that is
    /// stopped or was in trouble just now, for it may be the only one that holds what somebody
    /// said who was killed before; nor, for the same reason, while the one broker is in trouble.
    pub(crate) fn take(&self, victim: usize, rested: Duration) -> Option<(usize, Node)> {
        let met = self.met_again.get();
        if self.is_apart.get() || met.is_some_and(|at| at.elapsed() < rested) {
            return None;
        }
        let mut places = self.places.borrow_mut();
        let count = places.len() - 1;
        let mut numbers = (0..count).map(|step| 1 + (victim + step) % count);
        let number = numbers.find(|&number| {
            let place = &places[number];
            let calm = place.troubled.is_none_or(|at| at.elapsed() >= rested);
            place.node.is_some() && !place.frozen && calm
        })?;
        Some((number, places[number].node.take()?))
    }

    /// The flags of the node of a place.
    pub(crate) fn args(&self, number: usize) -> Vec<String> {
        self.places.borrow()[number].args.clone()
    }

    /// A node is back at its place.
    pub(crate) fn put(&self, number: usize, node: Node) {
        let place = &mut self.places.borrow_mut()[number];
        place.node = Some(node);
        place.troubled = Some(Instant::now());
    }

    /// Stops a node: the one meant, or the next that is there.
    pub(crate) fn freeze(&self, victim: usize) -> Result<Option<usize>> {
        let mut places = self.places.borrow_mut();
        let count = places.len();
        let mut numbers = (0..count).map(|step| (victim + step) % count);
        let Some(number) = numbers.find(|&number| places[number].node.is_some()) else {
            return Ok(None);
        };
        let place = &mut places[number];
        if let Some(node) = &place.node {
            node.process.freeze()?;
            place.frozen = true;
        }
        Ok(Some(number))
    }

    /// Lets a stopped node go on.
    pub(crate) fn thaw(&self, number: usize) -> Result<()> {
        let place = &mut self.places.borrow_mut()[number];
        place.frozen = false;
        place.troubled = Some(Instant::now());
        let node = place.node.as_ref();
        node.context("who is stopped is there")?.process.thaw()
    }

    /// Waits until a node and all that run hear each other.
    pub(crate) async fn is_linked(&self, number: usize, within: Duration) -> Result<()> {
        eventually(
            within,
            "a node and all others hear each other",
            async || {
                let all = self.origins();
                let place = all.iter().find(|(place, ..)| *place == number);
                let (_, me, mine) = place.context("it is away")?;
                let seen = Mesh::at(mine).await?;
                for (_, origin, http) in all.iter().filter(|(place, ..)| *place != number) {
                    ensure!(seen.hears(origin), "{me} does not hear {origin}");
                    let theirs = Mesh::at(http).await?;
                    ensure!(theirs.hears(me), "{origin} does not hear {me}");
                }
                Ok(())
            },
        )
        .await
    }

    /// Places, origins and HTTP endpoints of the nodes that run.
    fn origins(&self) -> Vec<(usize, String, String)> {
        let places = self.places.borrow();
        let awake = places.iter().enumerate().filter(|(_, place)| !place.frozen);
        let row = |(number, place): (usize, &Place)| {
            let node = place.node.as_ref()?;
            Some((number, node.origin.clone(), node.http.clone()))
        };
        awake.filter_map(row).collect()
    }

    /// Takes the registry away to end it, or to stop it.
    pub(crate) fn take_registry(&self) -> Result<Registry> {
        self.registry_answers.set(false);
        self.registry.take().context("the registry is away")
    }

    /// The registry is back.
    pub(crate) fn put_registry(&self, registry: Registry) {
        self.registry.replace(Some(registry));
        self.registry_answers.set(true);
    }

    /// Whether the registry answers.
    pub(crate) fn registry_answers(&self) -> bool {
        self.registry_answers.get()
    }

    /// Takes a broker away to hurt it, if there is one.
    pub(crate) fn take_broker(&self, victim: usize) -> Option<Broker> {
        let mut brokers = self.brokers.borrow_mut();
        let count = brokers.len();
        let broker = (count > 0).then(|| brokers.remove(victim % count));
        self.is_apart.set(brokers.is_empty());
        broker
    }

    /// A broker is back.
    pub(crate) fn put_broker(&self, broker: Broker) {
        self.brokers.borrow_mut().push(broker);
    }

    /// All hear each other again.
    pub(crate) fn are_met(&self) {
        if self.is_apart.replace(false) {
            self.met_again.set(Some(Instant::now()));
        }
    }

    /// Whether nodes meet at a broker.
    pub(crate) fn has_brokers(&self) -> bool {
        !self.brokers.borrow().is_empty()
    }

    /// Waits until all nodes that run hear each other.
    pub(crate) async fn all_linked(&self, within: Duration) -> Result<()> {
        eventually(within, "all hear each other", async || {
            // Who is ended meanwhile does not answer, and is none of them the next time.
            let all = self.origins();
            for (_, me, http) in &all {
                let seen = Mesh::at(http).await?;
                for (_, origin, _) in all.iter().filter(|(_, origin, _)| origin != me) {
                    ensure!(seen.hears(origin), "{me} does not hear {origin}");
                }
            }
            Ok(())
        })
        .await
    }

    /// Waits until a registry lists all nodes that run.
    pub(crate) async fn is_listed(&self, registry: &Registry, within: Duration) -> Result<()> {
        eventually(
            within,
            "the registry lists all nodes that run",
            async || {
                let listed = registry.listed().await?;
                for (_, origin, _) in self.origins() {
                    ensure!(listed.contains(&origin), "not {origin}: {listed:?}");
                }
                Ok(())
            },
        )
        .await
    }

    /// Takes all nodes, for looking at them when nothing happens to them.
    pub(crate) fn take_all(&self) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for place in self.places.borrow_mut().iter_mut() {
            let mut node = place.node.take().context("a node is away")?;
            ensure!(node.process.lives()?, "{} ended by itself", node.origin);
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// All are back.
    pub(crate) fn put_all(&self, nodes: Vec<Node>) {
        for (place, node) in self.places.borrow_mut().iter_mut().zip(nodes) {
            place.node = Some(node);
        }
    }

    /// What the nodes that run use: place, origin, HTTP endpoint, usage.
    pub(crate) fn usages(&self) -> Vec<(usize, String, String, Usage)> {
        let rows = self.origins().into_iter();
        rows.filter_map(|(number, origin, http)| {
            let places = self.places.borrow();
            let usage = places[number].node.as_ref()?.process.usage().ok()?;
            Some((number, origin, http, usage))
        })
        .collect()
    }
}
