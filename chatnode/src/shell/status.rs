//! How the node is: a snapshot, for operators and programs that watch.

use std::time::Duration;

use base::tls::KeyId;

use super::{Bus, Handle, Shell, wall_us};
use crate::carriers::broker::bridge::Bridge;
use crate::carriers::broker::keeper::Keeper;
use crate::clients::Count;
use crate::core::Now;
use crate::core::journal::Health;
use crate::core::keeper::KeeperStatus;
use crate::core::links::{self, LinkStatus, Speech, Via};
use crate::core::log::{Counts, Span};
use crate::discovery::SourceStatus;
use crate::model::names::{EntryId, Origin};

/// Logs of which not all is here yet that are named at the most.
const LACKING_MAX: usize = 256;

/// Totals since the start of what goes out of the node and comes in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Messages that this node's clients said.
    pub(crate) said: u64,
    /// Frames from peers that could not be decoded.
    pub(crate) frames_bad: u64,
    /// Frames that the carrier had no room for.
    pub(crate) frames_dropped: u64,
    /// Repair requests sent.
    pub(crate) fetches: u64,
    /// Repair requests that failed.
    pub(crate) fetches_failed: u64,
    /// What a foreign publisher said and is no message.
    pub(crate) refused: u64,
    /// Spans of entries that nobody had.
    pub(crate) holes: u64,
    /// Batches handed to the disk.
    pub(crate) batches: u64,
}

/// How history is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storage {
    /// How the disk is; `None` if history is kept in memory only.
    pub(crate) health: Option<Health>,
    /// Messages that are kept there.
    pub(crate) messages: u64,
    /// Bytes that they take.
    pub(crate) bytes: u64,
    /// Messages that wait for the disk.
    pub(crate) waiting: usize,
    /// Messages of others that left memory before the disk had room for them.
    pub(crate) skipped: u64,
}

/// A link, and what is known of its peer.
#[derive(Debug)]
pub(crate) struct Link {
    /// The link.
    pub(crate) link: LinkStatus,
    /// What is counted of the peer's log.
    pub(crate) counts: Counts,
    /// How late its last beat came, by both clocks.
    pub(crate) lag_us: Option<u64>,
    /// Whether it says that it hears this node.
    pub(crate) hears_us: bool,
    /// With a mesh secret: the key that it has shown.
    pub(crate) key: Option<KeyId>,
}

/// A broker, and how it is.
#[derive(Debug)]
pub(crate) struct BusStatus {
    /// The broker.
    pub(crate) bus: Bus,
    /// The link to it.
    pub(crate) hall: Option<LinkStatus>,
}

/// A keeper, and how it is.
#[derive(Debug)]
pub(crate) struct KeeperRow {
    /// The keeper.
    pub(crate) keeper: Keeper,
    /// How far it is.
    pub(crate) is: KeeperStatus,
    /// Whether this node takes in what it holds.
    pub(crate) is_archive: bool,
    /// Microseconds since 1970, by this machine's clock.
    pub(crate) now_us: u64,
}

impl Status {
    /// The name of the carrier by which somebody is heard.
    pub(crate) fn carrier_of(&self, link: &LinkStatus) -> &'static str {
        match link.via {
            Via::Nodes => self.direct,
            Via::Broker(nth) => self
                .buses
                .get(usize::from(nth))
                .map_or("", |it| it.bus.carrier),
        }
    }
}

/// How far the node is in each log.
#[derive(Debug)]
pub(crate) struct Logs {
    /// The last number held of each origin.
    pub(crate) position: Vec<EntryId>,
    /// Numbers that nobody had.
    pub(crate) lost: Vec<(Origin, Span)>,
    /// What others held when this node joined, and is not here yet; some, if it is much.
    pub(crate) lacking: Vec<(Origin, Span)>,
}

/// How the node is now.
#[derive(Debug)]
pub(crate) struct Status {
    /// Since when it runs.
    pub(crate) uptime: Duration,
    /// Whether it has joined.
    pub(crate) ready: bool,
    /// Whether it is going away.
    pub(crate) stopping: bool,
    /// Peers that should be heard and are not, each with where and why.
    pub(crate) not_linked: Vec<String>,
    /// Messages that others held when this node joined, and that are not here yet.
    pub(crate) lacking_messages: u64,
    /// Whom it hears, or should.
    pub(crate) links: Vec<Link>,
    /// By which brokers.
    pub(crate) buses: Vec<BusStatus>,
    /// Bridges to foreign programs.
    pub(crate) bridges: Vec<Bridge>,
    /// What keeps what is said besides.
    pub(crate) keeper: Option<KeeperRow>,
    /// What carries from node to node.
    pub(crate) direct: &'static str,
    /// What is counted of links.
    pub(crate) link_counts: links::Counters,
    /// How the registries are, and what else tells of other nodes.
    pub(crate) sources: Vec<SourceStatus>,
    /// Rooms with members.
    pub(crate) rooms: usize,
    /// Messages in memory, and the bytes that they take.
    pub(crate) kept: (usize, usize),
    /// How history is kept.
    pub(crate) storage: Storage,
    /// What is counted of all other nodes' logs.
    pub(crate) counts: Counts,
    /// How many clients there are.
    pub(crate) clients: Count,
    /// Totals since the start.
    pub(crate) totals: Totals,
}

impl Handle {
    /// How the node is now.
    pub(crate) fn status(&self) -> Status {
        self.with(|shell, now| shell.status(now))
    }

    /// How far the node is in each log.
    pub(crate) fn logs(&self) -> Logs {
        self.look(|shell| Logs {
            position: shell.core.position(),
            lost: shell.core.holes().collect(),
            lacking: shell.core.lacking().take(LACKING_MAX).collect(),
        })
    }
}

impl Shell {
    fn status(&self, now: Now) -> Status {
        let core = &self.core;
        let links = core.links().status(now.mono).into_iter();
        let (halls, links): (Vec<_>, Vec<_>) = links.partition(|link| link.speech == Speech::Hall);
        let buses = self.buses.iter().map(|bus| BusStatus {
            bus: bus.clone(),
            hall: halls.iter().find(|hall| hall.publisher == bus.url).cloned(),
        });
        let (own, others) = core.disk_waiting();
        let kept = core.kept();
        let clients = self.clients.count();
        let (messages, bytes) = match &self.disk {
            Some(disk) => disk.size(),
            None => (kept.0 as u64, kept.1 as u64),
        };
        Status {
            uptime: now.mono,
            ready: core.is_ready(),
            stopping: self.stopping,
            not_linked: self.lacking(now),
            lacking_messages: self.lacking_messages(),
            links: links.into_iter().map(|link| self.link(link)).collect(),
            buses: buses.collect(),
            bridges: self.bridges.clone(),
            keeper: self.keeper_row(),
            direct: if core.identity().publisher.starts_with("tls://") {
                "tls"
            } else {
                "zmq"
            },
            link_counts: core.links().counters(),
            sources: self.view.sources.clone(),
            rooms: core.members().rooms().count(),
            kept,
            storage: Storage {
                health: core.disk_health(),
                messages,
                bytes,
                waiting: own + others,
                skipped: core.disk_skipped(),
            },
            counts: core.counts(),
            clients,
            totals: Totals {
                holes: self.totals.holes + clients.totals.holes,
                ..self.totals
            },
        }
    }

    fn keeper_row(&self) -> Option<KeeperRow> {
        Some(KeeperRow {
            keeper: self.keeper.clone()?,
            is: self.core.keeper()?,
            is_archive: self.disk.is_some(),
            now_us: wall_us(),
        })
    }

    fn link(&self, link: LinkStatus) -> Link {
        let log = link.origin.and_then(|origin| self.core.log(origin));
        let peer = link.origin.and_then(|origin| self.core.peers().get(origin));
        Link {
            counts: log.map(|log| log.counts).unwrap_or_default(),
            lag_us: peer.map(|peer| peer.lag_us),
            hears_us: self.core.hears_us(&link),
            key: link
                .link
                .and_then(|link| self.link_keys.get(&link).copied()),
            link,
        }
    }
}
