//! What holds at every moment, faults or not.

use std::time::Duration;

use super::disk::SLOW_MAX;
use super::fetches::Ask;
use super::world::{NodeId, World};
use crate::core::bounds::{JOIN_MAX, SILENCE_MAX, TICK_EVERY};
use crate::core::copies::{COPIES_WAIT_MAX, COPIES_WAITING_MAX};
use crate::core::journal::BATCH_ENTRIES_MAX;
use crate::core::log::{AHEAD_BYTES_MAX, AHEAD_ENTRIES_MAX, HOLES_MAX, Span};
use crate::core::repair::{
    FETCHES_JOINING_MAX, FETCHES_MAX, FETCHES_OF_PEER_JOINING_MAX, FETCHES_OF_PEER_MAX, Fetch,
};
use crate::model::names::{EntryId, Origin};

/// Members of a node whose beats have ended leave within this.
const MEMBERS_LEAVE_MAX: Duration = SILENCE_MAX.saturating_add(Duration::from_secs(1));
/// What is due is done so late at the most: a tick, and what a busy thread does before.
const LATE_MAX: Duration = TICK_EVERY.saturating_add(Duration::from_millis(100));

const ALL: Span = Span {
    after: 0,
    through: u64::MAX,
};

impl World {
    /// Looks at all nodes that are at work.
    pub(super) fn watch(&self) {
        for id in self.live() {
            let Some(awake) = self.nodes[id].awake_since() else {
                continue;
            };
            self.held_is_bounded(id);
            self.members_are_told(id);
            // A node that was stopped gets time to read what waits for it.
            if self.now > awake + Duration::from_secs(2) {
                self.dead_members_left(id);
            }
            self.ready_in_time(id);
            self.nothing_is_let_go(id);
            if self.plan.trims {
                self.only_too_much_is_let_go(id);
            }
            self.replies_in_time(id, awake);
        }
    }

    fn held_is_bounded(&self, id: NodeId) {
        let core = &self.nodes[id].core;
        // What its disk has not got yet stays in memory, and what is newer waits behind it.
        let node = &self.nodes[id];
        let under_way = node.writing.as_ref().map_or(0, |batch| batch.entries.len());
        let unwritten = core.disk_waiting().1 + under_way;
        let behind = if unwritten > 0 { BATCH_ENTRIES_MAX } else { 0 };
        let most = self.plan.retention.messages + unwritten + behind;
        if self.plan.trims && core.kept().0 > most {
            self.broken(format!("n{id} keeps {:?}", core.kept()));
        }
        for node in &self.nodes {
            let Some(log) = core.log(node.origin) else {
                continue;
            };
            let (mut count, mut bytes) = (0, 0);
            for entry in log.held_back(ALL) {
                count += 1;
                bytes += entry.json.len();
            }
            let holes = log.holes().len();
            if count > AHEAD_ENTRIES_MAX || bytes > AHEAD_BYTES_MAX || holes > HOLES_MAX {
                self.broken(format!(
                    "n{id} holds back {count} entries of {}, {bytes} bytes; {holes} holes",
                    node.origin
                ));
            }
        }
    }

    /// What clients were told of members is what a list says.
    fn members_are_told(&self, id: NodeId) {
        let node = &self.nodes[id];
        for (room, told) in &node.told_members {
            let listed = node.core.members().list(room);
            if !listed.iter().copied().eq(told) {
                self.broken(format!("n{id} lists {listed:?} in {room}, told {told:?}"));
            }
        }
    }

    fn dead_members_left(&self, id: NodeId) {
        let node = &self.nodes[id];
        for (other, peer) in self.nodes.iter().enumerate() {
            let beat = node.beats.get(&other).copied().unwrap_or_default();
            // Who was itself stopped could not hear it.
            let silent = self.now > beat.max(node.thawed) + MEMBERS_LEAVE_MAX;
            if other != id && silent && node.core.members().knows(peer.origin) {
                self.broken(format!(
                    "n{id} lists members of n{other}, whose last beat came at {beat:?}"
                ));
            }
        }
    }

    fn ready_in_time(&self, id: NodeId) {
        let node = &self.nodes[id];
        let late = node.started.max(node.thawed) + LATE_MAX;
        if !node.core.is_ready()
            && self.now > late.max(node.started + node.stood_still + JOIN_MAX + LATE_MAX)
        {
            self.broken(format!("n{id} takes no clients since {:?}", node.started));
        }
    }

    /// What memory has let go is on the disk, if there is one.
    fn nothing_is_let_go(&self, id: NodeId) {
        const LOOK_BACK: u64 = 64;
        let Some(disk) = self.disk_of(id) else { return };
        for (of, node) in self.nodes.iter().enumerate() {
            let Some(log) = self.nodes[id].core.log(node.origin) else {
                continue;
            };
            let window = log.window();
            // What was held back when it began behind a trimmed front was dropped.
            let began = self.nodes[id].began_behind.get(&node.origin).copied();
            let floor = log.floor().max(began.unwrap_or_default());
            for seq in floor.max(window.saturating_sub(LOOK_BACK)) + 1..=window {
                let origin = node.origin;
                let name = EntryId { origin, seq };
                let in_hole = |hole: &Span| hole.after < seq && seq <= hole.through;
                let lost = log.holes().iter().any(in_hole);
                let came = self.nodes[id].arrivals.at(of, seq).is_some();
                let kept = disk.has(name) || seq <= disk.floor(origin);
                if came && !lost && !kept && !self.holds(id, name) {
                    self.broken(format!("n{id} has {name:?} neither in memory nor on disk"));
                }
            }
        }
    }

    fn replies_in_time(&self, id: NodeId, awake: Duration) {
        let mut waiting = 0;
        for (ticket, asked) in self.tickets.iter().filter(|(_, asked)| asked.node == id) {
            waiting += 1;
            // What is said waits for the batch that is under way, then for its own.
            let disk = self.disk_of(id).map_or(Duration::ZERO, |_| 2 * SLOW_MAX);
            let stood = self.nodes[id].stood_still - asked.stood_still;
            let due = (asked.at + stood + COPIES_WAIT_MAX + disk).max(awake + disk);
            if self.now > due + LATE_MAX {
                self.broken(format!("n{id} owes a reply to {ticket}, {asked:?}"));
            }
        }
        if waiting > COPIES_WAITING_MAX {
            self.broken(format!("{waiting} wait at n{id}"));
        }
    }

    /// A node asks for entries: few at a time, and nothing twice at a time.
    pub(super) fn fetches_are_few(&mut self, id: NodeId, fetch: &Fetch) {
        let node = &self.nodes[id];
        let held = |origin: Origin| node.core.log(origin).map_or(0, |log| log.held());
        let under_way = node.asked.values().filter_map(|(ask, _)| match ask {
            Ask::Log(other, _) => Some(other),
            Ask::Hello(_) | Ask::Members(_) | Ask::Position(_) => None,
        });
        let under_way: Vec<&Fetch> = under_way.collect();
        let of_peer = under_way.iter().filter(|other| other.from == fetch.from);
        // What was decided before it was ready is asked with that.
        let (most, most_of_peer) = if node.ready_at.is_some_and(|ready| ready < self.now) {
            (FETCHES_MAX, FETCHES_OF_PEER_MAX)
        } else {
            (FETCHES_JOINING_MAX, FETCHES_OF_PEER_JOINING_MAX)
        };
        if under_way.len() >= most || of_peer.count() >= most_of_peer {
            self.broken(format!("n{id} asks {fetch:?} beside {under_way:?}"));
        }
        // What is missing is asked of one at a time; what was passed may be asked of several.
        let repairs = |fetch: &Fetch| fetch.span.through > held(fetch.origin);
        let same = |other: &&&Fetch| other.origin == fetch.origin && repairs(other);
        if repairs(fetch)
            && let Some(other) = under_way.iter().find(same)
        {
            self.broken(format!("n{id} asks {fetch:?} beside {other:?}"));
        }
        let most = &mut self.outcome.fetches_most;
        *most = (*most).max(under_way.len() + 1);
    }
}
