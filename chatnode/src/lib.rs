//! One node of a chatmesh: WebSocket chat that needs no broker.
//!
//! A node keeps a log of what its own clients said, publishes it, and holds a copy of every other
//! node's. What follows from that is in `core`, which is pure; everything else carries bytes.
//!
//! The rooms, from the ground up; each uses only those that lie below it:
//!
//! - `model`: names, entries and their order.
//! - `core` decides: input and time in, outputs out.
//! - `wire`: bytes, and what they mean.
//! - `carriers` carry frames between nodes, `discovery` tells whom to hear, `disk` keeps entries,
//!   `peers` asks other nodes by HTTP, `clients` reads and writes sockets, each client once per turn.
//! - `shell` owns core and clients, carries out what the core wants, and ends each turn: publish, then
//!   write.
//! - `http` is the door: who may come in, the API, the page, upgrades to WebSocket.

mod carriers;
mod clients;
mod config;
mod core;
mod discovery;
mod disk;
mod http;
mod model;
mod peers;
mod ports;
mod shell;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::endpoint::Endpoint;
use base::process::{self, Failure, STOP_ORDERLY, Tasks};
use base::secret::{Reader, SecretFile};
use base::serve;
use base::tls::KeyRing;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::carriers::broker::gauges::Gauges;
use crate::carriers::broker::url::BrokerUrl;
use crate::config::{Checked, Config, Told};
use crate::core::journal::Loaded;
use crate::core::links::{Speech, Target, Via};
use crate::core::memory::MemoryStore;
use crate::core::{Core, CoreOptions, Identity, Now};
use crate::discovery::url::DiscoverUrl;
use crate::discovery::{Discovery, Meet, Sources};
use crate::disk::{Disk, DiskOptions, Outcome};
use crate::http::{Doors, Front, assets};
use crate::model::names::Origin;
use crate::peers::Asker;
use crate::ports::{Bridges, Keeping, Ports, Secret, keys_of_registries, warn_of_exposure};
use crate::shell::{Bus, Handle, Parts, Settings};

/// Sockets that are kept free for links, registries and files when clients fill the rest.
const DESCRIPTORS_KEPT: u64 = 256;
/// Connections that clients leave to those who ask and go: peers that repair, probes, the API.
const CALLS_KEPT: u64 = 128;
/// Clients of one node at the most, whatever the limit of open files,
const CLIENTS_MAX: u64 = 1 << 20;
/// and so many, however low it is.
const CLIENTS_MIN: u64 = 16;
/// Clients are told this long before that the node goes.
const GOAWAY_AFTER: Duration = Duration::from_millis(300);
/// Of the time that a stopping node has, so much is kept for the tasks to end,
const DRAIN: Duration = Duration::from_millis(400);
/// and so much for the disk to be closed well. Before, its disk takes what was said here, and other
/// nodes get to hold it.
const DISK_GRACE: Duration = Duration::from_millis(400);

/// The ready line.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    ready: &'static str,
    origin: &'a str,
    http: &'a str,
    /// `null`, if only brokers carry.
    #[serde(rename = "pub")]
    publisher: Option<&'a str>,
}

/// The program: binds, says that it is ready, serves until a signal, drains.
///
/// # Errors
/// `Config` for what cannot work as configured, `Runtime` when a critical task died.
pub fn main(config: &Config) -> Result<(), Failure> {
    if let Some(command) = &config.command {
        return command.run();
    }
    let checked = config.check()?;
    let file = config.mesh_secret.as_deref();
    let file = file.map(|path| SecretFile::open(path, Reader::Node));
    let secret = file.transpose()?.map(|file| Secret {
        file,
        reread: Arc::default(),
    });
    process::init_logging(config.log)?;
    let descriptors = process::raise_open_files_limit();
    let reread = secret.as_ref().map(|secret| Arc::clone(&secret.reread));
    let stop = process::stop_signal(reread)?;
    let runtime = process::runtime()?;
    let outcome = runtime.block_on(async {
        let mut stop = std::pin::pin!(stop);
        let started = start(config, checked, secret, descriptors);
        let started = tokio::select! {
            biased;
            started = started => started?,
            () = &mut stop => {
                tracing::info!("stopped before it was ready");
                return Ok(());
            }
        };
        started.until(stop).await
    });
    // What hangs in a thread is not waited for.
    runtime.shutdown_background();
    outcome
}

/// A node that serves.
struct Started {
    tasks: Tasks,
    node: Handle,
    discovery: Discovery,
    disk: Option<Disk>,
}

async fn start(
    config: &Config,
    checked: Checked,
    secret: Option<Secret>,
    descriptors: u64,
) -> Result<Started, Failure> {
    let told = checked.told().await?;
    let tasks = Tasks::new();
    let mut rng = StdRng::from_rng(&mut rand::rng());
    let origin = Origin::generate(&mut rng);
    let opened = open_disk(config, &checked).await?;
    let ports = Ports::bind(&checked, origin, &config.mesh, &tasks).await?;
    let me = identity(config, origin, &ports, &checked, &told);
    warn_of_exposure(&checked);
    say_start(config, &checked, &me, descriptors);

    let (kept, outcomes) = opened
        .map(|(disk, loaded, outcomes)| ((disk, loaded), outcomes))
        .unzip();
    let places = Places::of(descriptors);
    let settings = Settings {
        rate_limit: config.rate_limit,
        mesh: config.mesh.clone(),
        clients_max: places.clients,
    };
    let asker = ports::asker(secret.as_ref(), &config.mesh)?;
    let meet = meet(&asker, &me);
    let own = own_endpoints(&me, &ports);
    let brokers = brokers_of(&checked);
    let bridges = Bridges::of(&checked.bridges);
    let now = Now {
        mono: Duration::ZERO,
        wall_us: shell::wall_us(),
    };
    let mut core = core_of((&checked, kept.is_some()), &me, own, now, &mut rng);
    let disk = kept.map(|(disk, loaded)| {
        core.restore(now, loaded);
        disk
    });
    let keeping = Keeping::of(checked.keep.as_ref(), disk.as_ref());
    let parts = Parts {
        settings,
        core,
        asker,
        disk: disk.clone(),
        buses: brokers.iter().map(bus).collect(),
        bridges: bridges.all(),
        keeper: keeping.as_ref().map(Keeping::keeper),
    };
    let (node, sockets, commands) =
        Handle::new(parts, tasks.clone()).context("cannot watch clients")?;
    let keys = keys_of_registries(secret.as_ref());
    let discovery = discover(&checked, keys, &node, meet, &tasks)?;
    let asked_at = asked_at(&checked, &me, &ports);
    let front = front(config, &checked, &node, asked_at);
    let limits = places.limits();
    if let Some(outcomes) = outcomes {
        tasks.spawn_critical("disk", node.clone().run_disk(outcomes));
    }
    tasks.spawn_critical("clients", node.clone().run_clients(sockets));
    tasks.spawn_critical("turns", node.clone().run_turns());
    let (listener, door) =
        ports.carry(&node, commands, brokers, (bridges, keeping), secret, &tasks);
    tasks.spawn_critical("views", node.clone().run_views(discovery.views()));
    tasks.spawn_critical(
        "http",
        serve::serve(listener, front, tasks.clone(), limits, door),
    );
    process::announce(&Ready {
        ready: "chatnode",
        origin: origin.as_str(),
        http: &me.http,
        publisher: Some(&*me.publisher).filter(|it| !it.is_empty()),
    });

    Ok(Started {
        tasks,
        node,
        discovery,
        disk,
    })
}

impl Started {
    /// Serves until the signal, or until a critical task ends; then ends in good order.
    async fn until(self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let stopping = self.tasks.stopping();
        let asked = tokio::select! {
            () = stop => true,
            () = stopping.cancelled() => false,
        };
        let end = Instant::now() + STOP_ORDERLY;
        if asked {
            drain(&self.node, self.discovery, end - DRAIN - DISK_GRACE).await;
        }
        let drained = self.tasks.drain(left(end - DISK_GRACE)).await;
        match drained {
            0 => tracing::info!("stopped"),
            left => tracing::warn!(count = left, "stopped before all tasks had ended"),
        }
        if let Some(disk) = self.disk
            && !disk.close(left(end)).await
        {
            return Err(anyhow::anyhow!("the history on disk was not closed in order").into());
        }
        // The process ends here: a full history is not taken apart message by message.
        std::mem::forget(self.node);
        if self.tasks.failed() {
            return Err(anyhow::anyhow!("a critical task ended early").into());
        }
        Ok(())
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Tells the log with what this node starts.
fn say_start(config: &Config, checked: &Checked, me: &Identity, descriptors: u64) {
    let registries: Vec<String> = checked.registries.iter().map(ToString::to_string).collect();
    let discover: Vec<&str> = checked.discover.iter().map(DiscoverUrl::shown).collect();
    tracing::info!(
        node = me.name, origin = %me.origin, http = me.http, "pub" = me.publisher, descriptors,
        mesh = %config.mesh, registries = registries.join(" "), discover = discover.join(" "),
        rate_limit = config.rate_limit, retain_messages = checked.retention.messages,
        retain_bytes = checked.retention.bytes, "starting"
    );
}

/// Who this node is, and where.
fn identity(
    config: &Config,
    origin: Origin,
    ports: &Ports,
    checked: &Checked,
    told: &Told,
) -> Identity {
    let name = config.name.clone();
    Identity {
        origin,
        name: name.unwrap_or_else(|| origin.as_str()[..4].to_owned()),
        http: format!("http://{}:{}", told.http, ports.local.port()),
        publisher: ports.publisher(checked, told),
    }
}

/// The core, before it knows what is on disk.
fn core_of(
    (checked, has_disk): (&Checked, bool),
    me: &Identity,
    own: Vec<String>,
    now: Now,
    rng: &mut StdRng,
) -> Core {
    let store = MemoryStore::new(checked.retention);
    let rng_of_core = StdRng::seed_from_u64(rng.random());
    let fixed = |endpoint: &Endpoint, speech| Target {
        origin: None,
        endpoint: endpoint.to_string(),
        http: String::new(),
        speech,
        via: Via::Nodes,
    };
    let peers = checked
        .peers
        .iter()
        .map(|endpoint| fixed(endpoint, Speech::Mesh));
    let brokers = checked.buses.brokers.iter().zip(0..);
    let halls = brokers.map(|(url, nth)| Target {
        origin: None,
        endpoint: url.shown().to_owned(),
        http: String::new(),
        speech: Speech::Hall,
        via: Via::Broker(nth),
    });
    let subs = checked
        .subs
        .iter()
        .map(|endpoint| fixed(endpoint, Speech::Plain));
    let options = CoreOptions {
        me: me.clone(),
        own,
        fixed: peers.chain(subs).chain(halls).collect(),
        publish_plain: !checked.subs.is_empty(),
        has_keeper: checked.keep.is_some(),
        is_archive: checked.keep.is_some() && has_disk,
    };
    Core::new(options, store, rng_of_core, now)
}

/// By what URL clients may ask.
fn asked_at(checked: &Checked, me: &Identity, ports: &Ports) -> String {
    match &checked.advertise {
        Some(host) => format!("http://{host}:{}", ports.local.port()),
        None => me.http.clone(),
    }
}

/// Starts to look for other nodes, and to be found.
fn discover(
    checked: &Checked,
    keys: Option<&KeyRing>,
    node: &Handle,
    meet: Meet,
    tasks: &Tasks,
) -> anyhow::Result<Discovery> {
    let registries: Vec<String> = checked.registries.iter().map(ToString::to_string).collect();
    let sources = Sources {
        registries: &registries,
        keys,
        discover: &checked.discover,
        meet,
        hears: Arc::new({
            let node = node.clone();
            move |origin| node.hears(origin)
        }),
    };
    Discovery::start(&sources, node.identity(), node.mesh(), tasks)
}

/// How this node asks who is at an address.
fn meet(asker: &Asker, me: &Identity) -> Meet {
    let (asker, me) = (asker.clone(), me.clone());
    Arc::new(move |address| {
        let (asker, me) = (asker.clone(), me.clone());
        Box::pin(async move { asker.meet(&address, &me).await })
    })
}

/// Where this node could find itself.
fn own_endpoints(me: &Identity, ports: &Ports) -> Vec<String> {
    let told = Some(me.publisher.clone()).filter(|told| !told.is_empty());
    told.into_iter().chain(ports.own()).collect()
}

/// The brokers by which nodes meet, and what will be counted of each.
fn brokers_of(checked: &Checked) -> Vec<(BrokerUrl, Arc<Gauges>)> {
    let brokers = checked.buses.brokers.iter();
    brokers.map(|url| (url.clone(), Arc::default())).collect()
}

/// A broker as it is seen.
fn bus((url, gauges): &(BrokerUrl, Arc<Gauges>)) -> Bus {
    Bus {
        url: url.shown().to_owned(),
        carrier: url.engine().as_str(),
        gauges: Arc::clone(gauges),
    }
}

/// A disk, what is on it, and what becomes of what it is given.
type OpenedDisk = (Disk, Loaded, mpsc::Receiver<Outcome>);

/// Opens the folder of `--data`, if there is one, and reads what memory holds of it: in a thread,
/// since to check much history takes long, and a disk may hang.
async fn open_disk(config: &Config, checked: &Checked) -> Result<Option<OpenedDisk>, Failure> {
    let Some(dir) = &config.data else {
        return Ok(None);
    };
    let options = DiskOptions {
        dir: dir.clone(),
        retention: config.disk_retention(),
        window: checked.retention,
        wall_us: shell::wall_us(),
    };
    let opened = tokio::task::spawn_blocking(|| disk::open(options)).await;
    let (disk, loaded, outcomes) = opened
        .context("the thread that opens the history has ended")?
        .map_err(|why| Failure::Config(why.to_string()))?;
    let (messages, bytes) = disk.size();
    let (origins, in_memory) = (loaded.logs.len(), loaded.entries.len());
    tracing::info!(messages, bytes, origins, in_memory, "history is on disk");
    Ok(Some((disk, loaded, outcomes)))
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
struct Places {
    clients: usize,
    calls: usize,
}

impl Places {
    /// Under this limit of open files.
    fn of(descriptors: u64) -> Self {
        let clients = descriptors
            .saturating_sub(DESCRIPTORS_KEPT + CALLS_KEPT)
            .clamp(CLIENTS_MIN, CLIENTS_MAX);
        let fits = |count| usize::try_from(count).expect("CLIENTS_MAX fits");
        Self {
            clients: fits(clients),
            calls: fits(clients.min(CALLS_KEPT)),
        }
    }

    /// The same for who accepts them.
    fn limits(self) -> serve::Limits {
        serve::Limits {
            connections_max: self.clients + self.calls,
            ..serve::Limits::default()
        }
    }
}

/// The door for HTTP.
fn front(config: &Config, checked: &Checked, node: &Handle, advertised: String) -> Front {
    let doors = Doors {
        advertised,
        allow_origins: checked.allow_origins.clone(),
        is_sealed: checked.is_sealed,
        insecure_mesh: config.insecure_mesh,
    };
    let page = match &config.www {
        Some(dir) => assets::folder(dir),
        None => assets::embedded(),
    };
    Front::new(node.clone(), doors, page)
}

/// Leaves without losing anything, if that can be done until then: clients are told, others hold
/// what was said here.
async fn drain(node: &Handle, discovery: Discovery, until: Instant) {
    node.go_away(GOAWAY_AFTER);
    tokio::join!(discovery.leave(), async {
        tokio::time::sleep(GOAWAY_AFTER).await;
        node.close_clients(left(until)).await;
        node.written(left(until)).await;
        node.handed_over(left(until)).await;
    });
}
