//! What the process binds, and what comes through it: HTTP, the carrier between nodes, requests to peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::process::{Failure, Tasks};
use base::resolver::Resolver;
use base::secret::SecretFile;
use base::serve::door::Door;
use base::tls::{Http, KeyRing};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use crate::carriers::Command;
use crate::carriers::all::{All, Direct};
use crate::carriers::broker::bridge::{Bridge, BridgeUrl, Session, Shown, TAKEN_MAX};
use crate::carriers::broker::gauges::Gauges;
use crate::carriers::broker::keeper::{self, Archive, Batches, KeepUrl, Keeper};
use crate::carriers::broker::url::BrokerUrl;
use crate::carriers::broker::{BrokerCarrier, Me, Seals};
use crate::carriers::sealed::Sealed;
use crate::carriers::tls::TlsCarrier;
use crate::carriers::zmq::{self, ZmqCarrier};
use crate::config::{Checked, Told};
use crate::disk::Disk;
use crate::http;
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::peers::Asker;
use crate::shell::{Archiving, Handle, wall_us};

/// How long the carrier has to send what is queued.
const CARRIER_GRACE: Duration = Duration::from_millis(200);

/// News of a keeper that wait for the node.
const KEEPER_EVENTS_MAX: usize = 16;

/// A mesh secret, and what tells that its file is to be read again.
#[derive(Debug)]
pub(crate) struct Secret {
    pub(crate) file: SecretFile,
    pub(crate) reread: Arc<Notify>,
}

/// What is bound.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) listener: TcpListener,
    /// Where HTTP is.
    pub(crate) local: SocketAddr,
    /// ZeroMQ, and where it publishes. With a secret it is for foreign programs only.
    zmq: Option<(ZmqCarrier, SocketAddr)>,
}

impl Ports {
    /// Binds what the configuration says.
    ///
    /// # Errors
    /// `Config` when a port cannot be had.
    pub(crate) async fn bind(
        checked: &Checked,
        origin: Origin,
        mesh: &MeshName,
        tasks: &Tasks,
    ) -> Result<Self, Failure> {
        let taken = |flag, addr| move |why: std::io::Error| port_taken(flag, addr, &why);
        let listener = http::listen(checked.http).map_err(taken("--http", checked.http))?;
        let local = listener.local_addr();
        let local = local.context("the listener has no address")?;
        let speaks = checked.buses.direct && !checked.is_sealed;
        let zmq = if !speaks && checked.subs.is_empty() {
            None
        } else {
            let at = checked.publisher;
            let publisher = zmq::listen(at).map_err(taken("--pub", at))?;
            let published = publisher.local_addr();
            let published = published.context("the PUB listener has no address")?;
            let (tracker, stopping) = (tasks.tracker(), tasks.stopping());
            let zmq = ZmqCarrier::bind(publisher, origin, mesh, tracker, stopping);
            let (zmq, _) = zmq.await.context("cannot publish")?;
            Some((zmq.speaks_plain(checked.sub_form), published))
        };
        Ok(Self {
            listener,
            local,
            zmq,
        })
    }

    /// By which endpoint other nodes hear this one; empty, if only brokers carry.
    pub(crate) fn publisher(&self, checked: &Checked, told: &Told) -> String {
        match &self.zmq {
            _ if !checked.buses.direct => String::new(),
            Some((_, published)) if !checked.is_sealed => {
                format!("tcp://{}:{}", told.publisher, published.port())
            }
            _ => format!("tls://{}:{}", told.http, self.local.port()),
        }
    }

    /// By which endpoint this node's own publisher could be found.
    pub(crate) fn own(&self) -> Option<String> {
        let (_, published) = self.zmq.as_ref()?;
        Some(format!("tcp://{published}"))
    }

    /// Starts to carry. With a secret, also the door of the HTTP port, and the listener.
    pub(crate) fn carry(
        self,
        node: &Handle,
        commands: mpsc::Receiver<Command>,
        brokers: Vec<(BrokerUrl, Arc<Gauges>)>,
        (bridges, keeping): (Bridges, Option<Keeping>),
        secret: Option<Secret>,
        tasks: &Tasks,
    ) -> (TcpListener, Option<Door>) {
        let zmq = self.zmq.map(|(zmq, _)| zmq);
        let (tracker, stopping) = (tasks.tracker(), tasks.stopping());
        let me = node.identity();
        let is_direct = !me.publisher.is_empty();
        let on_brokers = Me {
            origin: me.origin,
            name: me.name.clone(),
            mesh: node.mesh().clone(),
            seals: secret.as_ref().map(|secret| {
                let ring = secret.file.brokers().clone();
                Seals::new(ring, me.origin)
            }),
        };
        bridges.start(&on_brokers, node, tasks);
        if let Some(keeping) = keeping {
            keeping.start(&on_brokers, node, tasks);
        }
        let by_broker = |(url, gauges)| {
            let me = on_brokers.clone();
            BrokerCarrier::new(url, me, gauges, tasks.tracker(), &stopping)
        };
        let brokers = brokers.into_iter().map(by_broker).collect();
        let mut door = None;
        let direct = match secret {
            None => zmq.map(|zmq| Direct::Plain(Box::new(zmq))),
            Some(Secret { file, reread }) => {
                let keys = file.mesh().clone();
                let tls = is_direct.then(|| {
                    TlsCarrier::new(me.origin, node.mesh(), keys.clone(), tracker, &stopping)
                });
                door = Some(Door::new(keys, tls.as_ref().map(TlsCarrier::takes_links)));
                let stopping = stopping.clone();
                tasks.spawn(async move {
                    stopping.run_until_cancelled(file.follow(reread)).await;
                });
                tls.map(|tls| Direct::Sealed(Box::new(Sealed { tls, plain: zmq })))
            }
        };
        let carrier = All { direct, brokers };
        let carrying = node.clone().run_carrier(carrier, commands, CARRIER_GRACE);
        tasks.spawn_critical("carrier", carrying);
        (self.listener, door)
    }
}

/// Bridges that have not begun, and what each is shown.
pub(crate) struct Bridges(Vec<(BridgeUrl, Bridge, mpsc::Receiver<Arc<Shown>>)>);

impl Bridges {
    /// Those of these URLs.
    pub(crate) fn of(urls: &[BridgeUrl]) -> Self {
        let bridge = |url: &BridgeUrl| {
            let (bridge, shown) = Bridge::new(url);
            (url.clone(), bridge, shown)
        };
        Self(urls.iter().map(bridge).collect())
    }

    /// As the node sees them.
    pub(crate) fn all(&self) -> Vec<Bridge> {
        self.0.iter().map(|(_, bridge, _)| bridge.clone()).collect()
    }

    fn start(self, me: &Me, node: &Handle, tasks: &Tasks) {
        if self.0.is_empty() {
            return;
        }
        let (sender, taken) = mpsc::channel(TAKEN_MAX);
        for (url, bridge, shown) in self.0 {
            let me = Me {
                seals: None,
                ..me.clone()
            };
            let (sender, ready) = (sender.clone(), node.readiness());
            let ends = (tasks.stopping(), wall_us as fn() -> u64);
            let session = Session::new(url, me, bridge.status, (shown, sender), ready, ends);
            tasks.spawn(session.run());
        }
        tasks.spawn_critical("bridges", node.clone().run_bridges(taken));
    }
}

/// A keeper that has not begun, and what it is given.
pub(crate) struct Keeping {
    keeper: Keeper,
    batches: Batches,
    /// Where an archive stores what the keeper holds.
    disk: Option<Disk>,
}

impl Keeping {
    /// What this URL says, if there is one.
    pub(crate) fn of(url: Option<&KeepUrl>, disk: Option<&Disk>) -> Option<Self> {
        let (keeper, batches) = Keeper::new(url?.clone());
        let disk = disk.cloned();
        Some(Self {
            keeper,
            batches,
            disk,
        })
    }

    /// As the node sees it.
    pub(crate) fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    fn start(self, me: &Me, node: &Handle, tasks: &Tasks) {
        let (url, status) = (self.keeper.url.clone(), Arc::clone(&self.keeper.status));
        let (events, told) = mpsc::channel(KEEPER_EVENTS_MAX);
        let session = keeper::Session {
            url: url.clone(),
            me: me.clone(),
            status: Arc::clone(&status),
            batches: self.batches,
            events,
            stop: tasks.stopping(),
        };
        tasks.spawn(session.run());
        tasks.spawn_critical("keeper", node.clone().run_keeper(told));
        let Some(disk) = self.disk else {
            return;
        };
        let (archive, deliveries, settled) =
            Archive::new(url, me.clone(), status, tasks.stopping());
        tasks.spawn(archive.run());
        let archiving = Archiving {
            deliveries,
            settled,
            keeper: self.keeper,
            disk,
        };
        tasks.spawn_critical("archive", node.clone().run_archive(archiving));
    }
}

/// Requests to peers: no proxy, no redirects; in TLS with the keys of a secret, if there is one.
///
/// # Errors
/// No HTTP client can be made.
pub(crate) fn asker(secret: Option<&Secret>, mesh: &MeshName) -> anyhow::Result<Asker> {
    let keys = secret.map(|secret| secret.file.mesh());
    let http = Http::new(keys, |http| {
        http.no_proxy()
            .dns_resolver(Resolver::system())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(2))
            .pool_idle_timeout(Duration::from_secs(5))
    });
    let http = http.context("cannot make an HTTP client")?;
    Ok(Asker::new(http, mesh.clone(), keys.is_some()))
}

/// The keys that registries are shown.
pub(crate) fn keys_of_registries(secret: Option<&Secret>) -> Option<&KeyRing> {
    secret.map(|secret| secret.file.registry())
}

fn port_taken(flag: &str, addr: SocketAddr, why: &std::io::Error) -> Failure {
    let mend = match why.kind() {
        std::io::ErrorKind::PermissionDenied => "choose a port of 1024 or above".to_owned(),
        std::io::ErrorKind::AddrNotAvailable => {
            "choose an address that this machine has, or 0.0.0.0 for all".to_owned()
        }
        _ => format!(
            "end the program that holds it, or choose another port, or leave {flag} out for any \
             free one"
        ),
    };
    Failure::Config(format!("{flag} {addr}: {why}; {mend}"))
}

/// Says what whoever reaches a port may do.
pub(crate) fn warn_of_exposure(checked: &Checked) {
    if checked.is_sealed {
        return;
    }
    let brokers = checked.buses.brokers.iter();
    if let Some(url) = brokers.clone().find(|url| !url.is_here()) {
        tracing::warn!(
            bus = url.shown(),
            "nothing on the broker is encrypted or authenticated: whoever may use it reads all rooms, \
             and can forge what nodes say"
        );
    }
    if checked.buses.direct && !checked.publisher.ip().is_loopback() {
        tracing::warn!(
            "pub" = %checked.publisher,
            "the mesh is not encrypted or authenticated: whoever reaches it reads all rooms, and \
             can stop this node with a few bytes"
        );
    } else if checked.insecure_mesh {
        tracing::warn!("--insecure-mesh: /mesh/ answers whoever reaches the HTTP port");
    }
}
