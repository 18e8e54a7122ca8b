//! What nodes do is judged at once, by what the world knows.

use std::sync::Arc;
use std::time::Duration;

use super::exempt::Exempt;
use super::phases::Phase;
use super::world::{NodeId, World};
use crate::core::bounds::BEAT_EVERY;
use crate::core::clock::AHEAD_MAX_US;
use crate::core::copies::{COPIES_WAIT_MAX, OTHERS_WAITING_MAX};
use crate::core::log::Span;
use crate::core::news::{Beat, News};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, Origin};

/// On a mesh with nothing to mend an entry is brought to clients everywhere within this, and a
/// reply that waits for copies comes within this. A frame takes 2 ms at the most then.
const CALM_MAX: Duration = Duration::from_millis(50);
/// Beats are heard so much later than they were sent at the most, about.
const HEARD_LATE_US: i64 = 10_000_000;
/// Nodes that hear each other go by one time within this.
const CLOCKS_COMPARED: Duration = Duration::from_secs(3);
/// While a node catches up with one half of the mesh, the other half's entries come within this.
const LIVE_MAX: Duration = Duration::from_millis(100);

/// A request to say something that was not answered yet.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) node: NodeId,
    pub(super) at: Duration,
    /// How long the node's clock had stood still by then.
    pub(super) stood_still: Duration,
    pub(super) client: usize,
    /// On which connection; `None` over HTTP.
    pub(super) conn: Option<u64>,
    pub(super) mid: Option<Mid>,
    pub(super) copies: usize,
}

/// A reply that said how many hold an entry.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) node: NodeId,
    pub(super) id: EntryId,
    pub(super) holders: Vec<NodeId>,
}

impl World {
    /// A node appends to its own log: the next number, a mid that it does not hold, and a time
    /// after all that it has seen.
    pub(super) fn appended(&mut self, id: NodeId, entry: &Arc<Entry>) {
        self.tell(|_| format!("n{id} appends {:?} {:?}", entry.id(), entry.mid));
        let staged = self.asked_at(id, entry);
        let known = |other: &&EntryId| {
            self.accepted_before(id, **other, staged) && !self.is_said_long_ago(id, **other)
        };
        if let Some(other) = self.ledger.alike(entry).iter().find(known) {
            self.broken(format!("n{id} makes {:?} of {other:?} again", entry.id()));
        }
        let own =
            |other: &&EntryId| other.origin == entry.origin && !self.is_said_long_ago(id, **other);
        if let Some(other) = self.ledger.alike(entry).iter().find(own) {
            self.broken(format!("n{id} says {other:?} again, as {:?}", entry.id()));
        }
        self.stamped(id, entry, staged);
        self.not_said_while_stopped(id, entry, staged);
        if let Some(disk) = self.disk_of(id)
            && !disk.has(entry.id())
            && entry.seq > disk.floor(entry.origin)
        {
            self.broken(format!("n{id} says {:?}, not on its disk", entry.id()));
        }
        if entry.origin != self.nodes[id].origin {
            self.broken(format!("n{id} appends {:?}", entry.id()));
        }
        let now = self.now;
        if let Err(why) = self.ledger.say(entry, now) {
            self.broken(why);
        }
        self.nodes[id].arrivals.note(id, entry.seq, now);
        let mut alike = self.ledger.alike(entry).iter();
        if alike.any(|other| self.is_said_long_ago(id, *other)) {
            self.note("mid said again as another message");
        }
    }

    /// Since when a node may have had an entry of its own: what waits for a disk has its place
    /// before it is said.
    fn asked_at(&self, id: NodeId, entry: &Entry) -> Duration {
        let of = |asked: &&Asked| asked.node == id && asked.mid == entry.mid;
        let waits = self.disk_of(id).is_some();
        let asked = self.tickets.values().filter(|_| waits).filter(of);
        asked.map(|asked| asked.at).min().unwrap_or(self.now)
    }

    /// Whether a node has an entry, and had it before a time or has no disk.
    fn accepted_before(&self, id: NodeId, entry: EntryId, at: Duration) -> bool {
        let of = self.ledger.node(entry.origin).unwrap_or(id);
        // What came may have been held back; what was delivered, or restored, is held.
        let node = &self.nodes[id];
        let delivered = node.delivered.at(of, entry.seq);
        let restored = node.arrivals.at(of, entry.seq) == Some(node.started);
        let before = restored || delivered.is_some_and(|delivered| delivered < at);
        (before || self.disk_of(id).is_none()) && self.accepted(id, entry)
    }

    fn stamped(&self, id: NodeId, entry: &Entry, staged: Duration) {
        let node = &self.nodes[id];
        let (least, most) = node.time_wrong_us;
        self.goes_by_the_time_of_most(id, entry);
        for (of, other) in self.nodes.iter().enumerate() {
            let held = node.core.log(other.origin).map_or(0, |log| log.held());
            let last = EntryId {
                origin: other.origin,
                seq: held,
            };
            let (Some(last), Some(at)) = (self.ledger.get(last), node.arrivals.at(of, held)) else {
                continue;
            };
            let seen = last.entry.ts <= self.wall_us(at, least) + AHEAD_MAX_US;
            let known = self.accepted_before(id, last.entry.id(), staged);
            if entry.ts <= last.entry.ts && seen && known {
                self.broken(format!(
                    "n{id} says {:?} at {}, having seen {:?} of {}",
                    entry.id(),
                    entry.ts,
                    last.entry.id(),
                    last.entry.ts
                ));
            }
        }
        let latest = self.wall_us(self.now, most) + AHEAD_MAX_US + entry.seq;
        if entry.ts > latest {
            self.broken(format!("n{id} says {:?} at {}", entry.id(), entry.ts));
        }
    }

    /// A node that has heard two others that take clients for a while goes by the time of most, itself
    /// counted.
    fn goes_by_the_time_of_most(&self, id: NodeId, entry: &Entry) {
        let node = &self.nodes[id];
        let calm = self.now >= self.clocks_changed + CLOCKS_COMPARED;
        if !node.core.is_ready() || !calm || self.nodes.iter().any(|node| node.frozen) {
            return;
        }
        let time_of = |id: NodeId| {
            let correction = self.nodes[id].core.correction_us();
            self.clocks_of(id).wall_us.cast_signed() + correction
        };
        let mono = self.clocks_of(id).mono;
        let mut heard = node.core.peers().heard();
        let settled = heard.all(|(_, peer)| {
            let fresh = peer.beat_at.is_some_and(|at| mono < at + CLOCKS_COMPARED);
            fresh && mono >= peer.linked_since + CLOCKS_COMPARED
        });
        // Nobody goes by the time of those that join.
        let heard = node.core.peers().heard().filter(|(_, peer)| peer.ready);
        let heard = heard.filter_map(|(origin, _)| self.ledger.node(origin));
        let mut times: Vec<i64> = heard.map(time_of).collect();
        let own = time_of(id);
        if times.len() < 2 || !settled {
            return;
        }
        times.sort_unstable();
        let theirs = times[(times.len() - 1) / 2];
        times.push(own);
        times.sort_unstable();
        let most = times[(times.len() - 1) / 2];
        let far = |time: i64| own.abs_diff(time) > AHEAD_MAX_US + HEARD_LATE_US.unsigned_abs();
        if far(theirs) && far(most) {
            let by = (own - most) / 1_000_000;
            self.broken(format!(
                "n{id} says {:?}, {by} s from the others",
                entry.id()
            ));
        }
    }

    /// A node brings an entry to its clients: once, whole, in its origin's order, and only once of
    /// those with one mid.
    pub(super) fn delivered(&mut self, id: NodeId, entry: &Arc<Entry>) {
        let name = entry.id();
        let said = self.ledger.get(name);
        let Some(said) = said.filter(|said| said.entry == *entry) else {
            self.broken(format!("n{id} delivers {name:?}, which nobody said"));
        };
        let late = self.now - said.at;
        let of = self.ledger.node(name.origin).unwrap_or(id);
        let node = &self.nodes[id];
        if !node.core.is_ready() {
            self.broken(format!("n{id} delivers {name:?} before it takes clients"));
        }
        if node.delivered.at(of, name.seq).is_some() {
            self.broken(format!("n{id} delivers {name:?} twice"));
        }
        let before = |other: &&EntryId| {
            let of = self.ledger.node(other.origin).unwrap_or(id);
            let before = **other != name && node.delivered.at(of, other.seq).is_some();
            before && !self.is_said_long_ago(id, **other)
        };
        if let Some(other) = self.ledger.alike(entry).iter().find(before) {
            self.broken(format!(
                "n{id} delivers {name:?} after {other:?}, said again"
            ));
        }
        let later = node.delivered.last(of) > name.seq;
        if later && !node.announced(name.origin, name.seq) {
            self.broken(format!("n{id} delivers {name:?} out of order"));
        }
        let calm = self.talk_since.is_some_and(|since| said.at >= since);
        let side = |id: NodeId| self.nodes[id].slot < self.plan.slots / 2;
        let live =
            self.phase == Phase::CatchUp && said.at >= self.phase_since && side(id) == side(of);
        if (calm && late > CALM_MAX) || (live && late > LIVE_MAX) {
            self.broken(format!("n{id} delivers {name:?} after {late:?}"));
        }
        if live {
            self.outcome.live_latency = self.outcome.live_latency.max(late);
        }
        let now = self.now;
        self.nodes[id].delivered.note(of, name.seq, now);
    }

    /// A reply: of the right entry, in time, and honest about copies the moment that it is given.
    pub(super) fn said(
        &mut self,
        id: NodeId,
        request: u64,
        entry: (EntryId, u64),
        copies: usize,
    ) -> Asked {
        let (entry, ts) = entry;
        let Some(asked) = self.tickets.remove(&request) else {
            self.broken(format!("n{id} answers {request} twice"));
        };
        let room = &self.clients[asked.client].room;
        let fits = |of: &Entry| of.ts == ts && of.mid == asked.mid && of.room == *room;
        if self.ledger.get(entry).is_none_or(|said| !fits(&said.entry)) {
            self.broken(format!("n{id} replies {entry:?} of {ts} to {asked:?}"));
        }
        self.copies_are_honest(id, entry, copies);
        self.is_not_of_old(id, entry, asked.at);
        let waited = self.now - asked.at;
        if copies < asked.copies && self.passes(Exempt::FewerCopies) {
            self.note("copies timed out");
            let waiting = self.tickets.values().filter(|asked| asked.node == id);
            if waited < COPIES_WAIT_MAX && waiting.count() < OTHERS_WAITING_MAX {
                self.broken(format!("n{id} gives up copies after {waited:?}: {asked:?}"));
            }
        } else if copies > 0 {
            self.note("copies answered");
        }
        let calm = self.talk_since.is_some_and(|since| asked.at >= since);
        // Who holds what another node said, or what was said before, is learnt by beats alone, and
        // not at all where something before it is lost or trimmed.
        let own = entry.origin == self.nodes[id].origin;
        let said = self.ledger.get(entry).map(|said| said.at);
        let new = said >= self.talk_since;
        let most = if own && new {
            CALM_MAX
        } else {
            BEAT_EVERY + CALM_MAX
        };
        // Who has a hole before it acknowledges nothing that lies behind, and who has trimmed it, as the
        // oldest by a clock that is behind, holds it no more.
        let whole = |other: &&NodeId| {
            let log = self.nodes[**other].core.log(entry.origin);
            let holds = log.is_none_or(|log| log.holes().is_empty() && log.floor() < entry.seq);
            **other != id && holds
        };
        let whole = self.live().iter().filter(whole).count();
        let filled = self.hole_filled.is_some_and(|at| at >= asked.at);
        let holed = (filled || asked.copies > whole) && self.passes(Exempt::FewerCopies);
        let possible = own && !holed;
        if calm && possible && (waited > most || copies < asked.copies) {
            self.broken(format!(
                "n{id} replies {entry:?} copies {copies} after {waited:?} to {asked:?}"
            ));
        }
        self.tell(|_| format!("n{id} replies {entry:?} copies {copies} to {asked:?}"));
        asked
    }

    fn copies_are_honest(&mut self, id: NodeId, entry: EntryId, copies: usize) {
        // A dead node is no holder any more once its link here has ended; within a turn a reply may come first.
        let (hears, unheard) = (&self.nodes[id].hears, self.nodes[id].unheard);
        let dead = |other: &NodeId| {
            let node = &self.nodes[*other];
            node.crashed.is_some() && !hears.contains(&node.origin) && unheard < self.now
        };
        // What its origin has trimmed counts as held by who has all else.
        let of = self.ledger.node(entry.origin).unwrap_or(id);
        let spent = self.has_let_go(of, entry);
        let holders: Vec<NodeId> = (0..self.nodes.len())
            .filter(|other| {
                let log = self.nodes[*other].core.log(entry.origin);
                let else_all = spent && log.is_some_and(|log| log.held() >= entry.seq);
                let has = self.keeps(*other, entry) || self.has_let_go(*other, entry);
                *other != id && !dead(other) && (has || else_all)
            })
            .collect();
        if holders.len() < copies {
            self.broken(format!(
                "n{id} says that {copies} others hold {entry:?}, but only {holders:?} do"
            ));
        }
        self.replies.push(Reply {
            node: id,
            id: entry,
            holders,
        });
    }

    /// A node takes clients, and says that it lacks nobody: all is here that its peers held when it
    /// started.
    pub(super) fn ready_with_all(&self, id: NodeId, lacking: &[Origin]) {
        let node = &self.nodes[id];
        if !lacking.is_empty() {
            self.broken(format!("n{id} is ready early, and lacks {lacking:?}"));
        }
        for (peer, origin, seq) in &node.held_at_start {
            let held = node.core.log(*origin).map_or(0, |log| log.held());
            let of = self.ledger.node(*origin).unwrap_or(id);
            // Of what a peer has trimmed whole nobody speaks but its origin, if that is there and listed.
            let last = EntryId {
                origin: *origin,
                seq: *seq,
            };
            let speaks = self.nodes[of].alive && node.expects.contains(&of);
            let spent = !speaks && self.has_let_go(*peer, last);
            let expected = self.nodes[*peer].alive && node.expects.contains(peer);
            if !spent && expected && held < *seq {
                self.broken(format!(
                    "n{id} is ready with {held} of {origin}; n{peer} held {seq} when it started"
                ));
            }
        }
    }

    /// A node takes clients without having all, and says what it lacks.
    pub(super) fn ready_says_what_it_lacks(&self, id: NodeId, lacking: &[Origin]) {
        let node = &self.nodes[id];
        for (peer_origin, peer) in node.core.peers().heard() {
            for origin in peer.position.keys() {
                let log = node.core.log(*origin);
                let open = log.is_some_and(|log| log.missing().is_some());
                let by = self.ledger.node(peer_origin).unwrap_or(id);
                let held = log.map_or(0, |log| log.held());
                // What a peer has come to hold since this node started is live, not history; and of what it
                // has trimmed whole since nobody needs to speak.
                let old = node.held_at_start.iter().any(|(peer, of, at)| {
                    let (origin, seq) = (*origin, *at);
                    let lacks = *peer == by && *of == origin && held < seq;
                    lacks && !self.has_let_go(by, EntryId { origin, seq })
                });
                let told = || lacking.contains(origin) && self.passes(Exempt::SaysWhomItLacks);
                if open && old && !told() {
                    self.broken(format!(
                        "n{id} is ready without all of {origin}, and silent"
                    ));
                }
            }
        }
    }

    /// What a node tells others of its logs is true.
    pub(super) fn tells_the_truth(&self, id: NodeId, news: &News) {
        match news {
            News::Ack(ack) => self.holds_all(id, ack.to, ack.through),
            News::Beat(beat) => self.beat_is_true(id, beat),
            News::Entries(_) | News::Live(_) => {}
        }
    }

    fn beat_is_true(&self, id: NodeId, beat: &Beat) {
        if beat.head != self.ledger.of(id).len() as u64 {
            self.broken(format!("n{id} beats with the head {}", beat.head));
        }
        let mut before = None;
        for at in beat.position.iter().filter(|at| !at.origin.is_mark()) {
            // An origin in whose log there is a hole is there twice: before it, and in all.
            if before != Some(at.origin) {
                self.holds_all(id, at.origin, at.seq);
            }
            before = Some(at.origin);
            let held = self.nodes[id].core.log(at.origin).map(|log| log.held());
            if held.is_none_or(|held| held < at.seq) {
                self.broken(format!("n{id} beats with {at:?}, but holds {held:?}"));
            }
        }
    }

    /// What a node says to hold without a hole it does hold.
    fn holds_all(&self, id: NodeId, origin: Origin, through: u64) {
        let log = self.nodes[id].core.log(origin);
        // A hole that its origin has trimmed does not count.
        let of = self.ledger.node(origin).unwrap_or(id);
        let open = |hole: &&Span| {
            let seq = hole.through;
            hole.after < through && !self.has_let_go(of, EntryId { origin, seq })
        };
        let hole = log.and_then(|log| log.holes().iter().find(open));
        let held = log.map_or(0, |log| log.held());
        if hole.is_some() || held < through {
            self.broken(format!(
                "n{id} says that it holds {origin} through {through}: {held}, {hole:?}"
            ));
        }
    }
}
