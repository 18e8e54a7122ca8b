//! What a [`Core`] shows of itself, to clients, peers and operators.

use super::clock::Now;
use super::copies::Held;
use super::links::{LinkStatus, Links};
use super::log::{Counts, Log, Span};
use super::members::Members;
use super::news::Beat;
use super::peers::{Peer, Peers};
use super::question::LogPage;
use super::rules;
use super::state::{Core, Identity};
use crate::model::names::{EntryId, Origin};
use crate::model::page::RoomSummary;

impl Core {
    /// Who this node is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.me
    }

    /// Whether this node has joined. Whether it takes clients now, `takes_clients` tells.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The last number held of each origin that said anything, by origin.
    pub(crate) fn position(&self) -> Vec<EntryId> {
        self.logs
            .iter()
            .filter(|(_, log)| log.held() > 0)
            .map(|(origin, log)| EntryId {
                origin: *origin,
                seq: log.held(),
            })
            .collect()
    }

    /// The numbers of an origin's log.
    pub(crate) fn log(&self, origin: Origin) -> Option<&Log> {
        self.logs.get(&origin)
    }

    /// Numbers that nobody had, of all logs, as far as they are remembered.
    pub(crate) fn holes(&self) -> impl Iterator<Item = (Origin, Span)> {
        let of = |(origin, log): (&Origin, &Log)| {
            let origin = *origin;
            let holes = log.holes().to_vec();
            holes.into_iter().map(move |hole| (origin, hole))
        };
        self.logs.iter().flat_map(of)
    }

    /// What is counted of all other nodes' logs.
    pub(crate) fn counts(&self) -> Counts {
        let others = self
            .logs
            .iter()
            .filter(|(origin, _)| **origin != self.me.origin);
        others.fold(Counts::default(), |sum, (_, log)| sum + log.counts)
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Whom this node hears, and how its links are.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// Whether the peer of this link says that it hears this node.
    pub(crate) fn hears_us(&self, link: &LinkStatus) -> bool {
        let peer = link.origin.and_then(|origin| self.peers.get(origin));
        peer.is_some_and(|peer| peer.hears.contains(&self.me.origin))
    }

    /// The HTTP endpoints of the nodes that take clients, this one's first.
    pub(crate) fn nodes(&self) -> &[String] {
        self.nodes.live()
    }

    /// The HTTP endpoints of all nodes that were ever seen alive.
    pub(crate) fn nodes_seen(&self) -> impl Iterator<Item = &str> {
        self.nodes.seen()
    }

    /// Members of all rooms.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// Rooms with messages, by name.
    pub(crate) fn rooms(&self) -> Vec<RoomSummary> {
        self.store.rooms()
    }

    /// How many entries are kept, and the bytes they take.
    pub(crate) fn kept(&self) -> (usize, usize) {
        self.store.size()
    }

    /// Entries of one origin for a peer that lacks them, held-back ones included.
    pub(crate) fn log_page(&self, origin: Origin, span: Span, bytes_max: usize) -> LogPage {
        let Some(log) = self.logs.get(&origin) else {
            return LogPage::default();
        };
        let mut entries = self
            .store
            .range(origin, span.after, span.through, bytes_max);
        let whole = entries.last().map_or(span.after, |entry| entry.seq) >= log.held()
            || entries.is_empty();
        if whole {
            let mut bytes: usize = entries.iter().map(|entry| entry.json.len()).sum();
            let held_back = log.held_back(span).take_while(|entry| {
                let first = bytes == 0;
                bytes += entry.json.len();
                first || bytes <= bytes_max
            });
            entries.extend(held_back.cloned());
        }
        LogPage {
            floor: log.floor(),
            floor_ts: log.floor_ts(),
            entries,
        }
    }

    /// This node's beat, as it would be published now.
    pub(crate) fn beat(&self, now: Now) -> Beat {
        let mut position = Vec::with_capacity(self.logs.len());
        position.extend(self.ahead_of(now));
        for (&origin, log) in &self.logs {
            if log.held() <= log.floor() {
                continue;
            }
            // An origin in whose log there is a hole is there twice: before it, and in all.
            let seqs = [log.solid(), log.held()];
            let seqs = if seqs[0] < seqs[1] {
                &seqs[..]
            } else {
                &seqs[1..]
            };
            position.extend(seqs.iter().map(|&seq| EntryId { origin, seq }));
        }
        Beat {
            origin: self.me.origin,
            name: self.me.name.clone(),
            http: self.me.http.clone(),
            publisher: self.me.publisher.clone(),
            ts: now.wall_us,
            clock: self.time.clock(now),
            head: self.logs[&self.me.origin].held(),
            position,
            hears: self.peers.heard().map(|(origin, _)| origin).collect(),
            members_version: self.members.version(),
            ready: self.ready,
        }
    }

    /// Who is known to hold an entry, besides its origin.
    pub(super) fn held(&self, id: EntryId) -> Held {
        Held::by(self.copies(id), self.is_kept(id))
    }

    /// How many other nodes are known to hold an entry: nodes that are heard now, and have shown
    /// that they hold all of its origin's log through it.
    pub(super) fn copies(&self, id: EntryId) -> usize {
        let holds = |(_, peer): &(Origin, &Peer)| peer.solid(id.origin) >= id.seq;
        let counts = |(_, peer): &(Origin, &Peer)| {
            rules::counts_as_copy(peer.linked && peer.beat_at.is_some())
        };
        self.peers.iter().filter(counts).filter(holds).count()
    }
}
