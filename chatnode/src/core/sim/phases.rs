//! After the last fault: everything converges, works as if nothing had been, and comes to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::aged::{self, TALKED};
use super::conns::Call;
use super::nodes::{Comes, Node};
use super::world::{Event, NodeId, World};
use crate::core::bounds::SILENCE_MAX;
use crate::core::copies::COPIES_WAIT_MAX;
use crate::core::pace::FETCH_MAX;
use crate::core::presence::{SETTLED_AFTER, UNHEARD_MAX};
use crate::model::names::{EntryId, Origin, RoomName, UserName};

/// How often the world looks at what holds at all times, and whether it has converged.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After the last fault everything has converged within this,
pub(super) const CONVERGE_MAX: Duration = FETCH_MAX.saturating_add(Duration::from_secs(4));
/// or, as long as numbers that were passed still come, within this after the last of them: the core
/// asks for them again at its leisure, one page at a time.
const REFILL_MAX: Duration = Duration::from_secs(5);
/// What only a dead node had is given up within this after all know that it is gone.
pub(super) const GIVEN_UP_MAX: Duration = Duration::from_secs(2);
/// A link on which no beat came for so long does not count as one.
const SILENT_MAX: Duration = SETTLED_AFTER;
/// What was under way when the last fault ended arrives within this.
const UNDER_WAY_MAX: Duration = Duration::from_millis(300);
/// After a long partition what the other half said is here within this, while clients talk on.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);
/// Then clients talk for so long, on a mesh that has nothing to mend.
const TALK: Duration = Duration::from_secs(2);
/// Then everything comes to rest: longer than a send may wait for copies that there cannot be.
const REST: Duration = COPIES_WAIT_MAX.saturating_add(Duration::from_millis(500));

/// What a run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Things break.
    Faults,
    /// A long partition is over, and clients go on talking.
    CatchUp,
    /// Nobody talks, all converges.
    Converge,
    /// Clients talk, and nothing is wrong.
    Talk,
    /// Nobody talks, and all is to be judged.
    Rest,
    /// It was judged.
    Over,
}

impl World {
    pub(super) fn clients_talk(&self) -> bool {
        let quiet = self.plan.aged && self.phase == Phase::Faults && self.now >= TALKED;
        !quiet && matches!(self.phase, Phase::Faults | Phase::CatchUp | Phase::Talk)
    }

    fn enter(&mut self, phase: Phase) {
        self.tell(|_| format!("{phase:?}"));
        self.phase = phase;
        self.phase_since = self.now;
        if phase == Phase::Talk {
            self.talk_since = Some(self.now);
        }
    }

    /// The last fault is over.
    pub(super) fn heal(&mut self) {
        self.net.heal();
        self.heal_brokers();
        for machine in &mut self.machines {
            if let Some(disk) = &mut machine.disk {
                disk.heal(self.now);
            }
        }
        for id in self.live() {
            self.at(Duration::ZERO, Event::Thaw(id));
        }
        for index in 0..self.clients.len() {
            if let Some(home) = self.clients[index].home {
                let reads_on = Comes::Client(index, home.conn, Call::ReadsOn);
                self.at(Duration::ZERO, Event::Input(home.node, reads_on));
            }
        }
        self.calm_since = self.now;
        self.enter(match self.plan.long_partition {
            Some(_) => Phase::CatchUp,
            None => Phase::Converge,
        });
        self.heads_at_heal = self
            .live()
            .into_iter()
            .map(|id| (id, self.head(id)))
            .collect();
    }

    fn head(&self, id: NodeId) -> u64 {
        self.ledger.of(id).len() as u64
    }

    /// Looks around, now and then.
    pub(super) fn look(&mut self) {
        self.watch();
        self.list();
        self.see_who_waits_for_the_dead();
        self.halls_without_echo_are_left();
        let passed = self.now - self.phase_since;
        match self.phase {
            Phase::Faults | Phase::Over => {}
            Phase::CatchUp => match self.behind() {
                None => {
                    self.outcome.caught_up = Some(passed);
                    self.calm_since = self.now;
                    self.enter(Phase::Converge);
                }
                Some(why) if passed > CATCH_UP_MAX => self.broken(format!("still {why}")),
                Some(_) => {}
            },
            Phase::Converge if self.is_disturbed() => {}
            Phase::Converge => match self.unsettled() {
                None => {
                    self.outcome.converged = self.now.saturating_sub(self.calm_since);
                    self.enter(Phase::Talk);
                }
                Some(why) if self.now > self.converged_by() => {
                    let after = self.now.saturating_sub(self.calm_since);
                    self.broken(format!("after {after:?} {why}"));
                }
                Some(_) => {}
            },
            Phase::Talk if passed >= TALK => self.enter(Phase::Rest),
            Phase::Rest if passed >= REST => self.enter(Phase::Over),
            Phase::Talk | Phase::Rest => {}
        }
        let quiet = self.plan.aged && self.phase == Phase::Faults && self.now >= TALKED;
        let next = if quiet { aged::LOOK_EVERY } else { LOOK_EVERY };
        self.at(next, Event::Look);
    }

    /// Whether faults still have their effects: frames are under way, nodes start later, or the
    /// registries are still silent.
    fn is_disturbed(&self) -> bool {
        let unlisted = |node: &Node| node.alive && !node.listed;
        let under_way = self.now < self.calm_since + UNDER_WAY_MAX;
        under_way || self.starting > 0 || self.nodes.iter().any(unlisted)
    }

    fn converged_by(&self) -> Duration {
        let refilled = self
            .hole_filled
            .map_or(Duration::ZERO, |at| at + REFILL_MAX);
        let given_up = self
            .dead_awaited
            .map_or(Duration::ZERO, |at| at + GIVEN_UP_MAX);
        let at_once = self.calm_since + CONVERGE_MAX;
        refilled.max(at_once).max(given_up)
    }

    /// Notes whether somebody does not know yet of a dead node that it is gone: what only that had is
    /// waited for. Longer than a lease after the last link to it can have lasted nobody may.
    fn see_who_waits_for_the_dead(&mut self) {
        if self.now > self.calm_since + SILENCE_MAX + UNHEARD_MAX {
            return;
        }
        let dead: Vec<Origin> = self
            .nodes
            .iter()
            .filter(|node| !node.alive)
            .map(|node| node.origin)
            .collect();
        let waits = |id: NodeId| {
            let (peers, mono) = (self.nodes[id].core.peers(), self.clocks_of(id).mono);
            dead.iter().any(|origin| !peers.is_gone(*origin, mono))
        };
        if self.live().into_iter().any(waits) {
            self.dead_awaited = Some(self.now);
        }
    }

    /// Who lacks what was said before the partition's end.
    fn behind(&self) -> Option<String> {
        self.live().into_iter().find_map(|id| {
            let lacks = |(other, head): &(NodeId, u64)| {
                let log = self.nodes[id].core.log(self.nodes[*other].origin);
                log.map_or(0, |log| log.held()) < *head
            };
            let (other, head) = self.heads_at_heal.iter().find(|head| lacks(head))?;
            Some(format!("n{id} has not all {head} of n{other}"))
        })
    }

    /// Why the mesh has not converged, if it has not.
    pub(super) fn unsettled(&self) -> Option<String> {
        let live = self.live();
        self.unwritten(&live)
            .or_else(|| self.unready(&live))
            .or_else(|| self.unlinked(&live))
            .or_else(|| self.logs_differ(&live))
            .or_else(|| self.members_differ(&live))
    }

    fn unwritten(&self, live: &[NodeId]) -> Option<String> {
        let waits = |id: &&NodeId| {
            let node = &self.nodes[**id];
            node.writing.is_some() || node.core.disk_waiting() != (0, 0)
        };
        let id = live.iter().find(waits)?;
        Some(format!("n{id} waits for its disk"))
    }

    fn unready(&self, live: &[NodeId]) -> Option<String> {
        let unready = |id: &&NodeId| !self.nodes[**id].core.is_ready();
        let id = live.iter().find(unready)?;
        Some(format!("n{id} is not ready"))
    }

    fn unlinked(&self, live: &[NodeId]) -> Option<String> {
        live.iter().find_map(|&id| {
            let peers = self.nodes[id].core.peers();
            // One whose link is silent since the faults is not torn down yet.
            let since = self.clocks_of(id).mono.saturating_sub(SILENT_MAX);
            let deaf = |other: &&NodeId| {
                let peer = peers.get(self.nodes[**other].origin);
                let beat_at = peer
                    .filter(|peer| peer.linked)
                    .and_then(|peer| peer.beat_at);
                beat_at.is_none_or(|at| at < since) && **other != id
            };
            let other = live.iter().find(deaf)?;
            Some(format!("n{id} does not hear n{other}"))
        })
    }

    /// A log of one origin as a node holds it: how far, and what not.
    fn extent(&self, id: NodeId, origin: Origin) -> (u64, Vec<u64>) {
        let log = self.nodes[id].core.log(origin);
        log.map_or((0, Vec::new()), |log| {
            let holes = log.holes().iter();
            let lost = holes.flat_map(|hole| hole.after + 1..=hole.through);
            // Where all have trimmed it, or do not have it either, a hole stays.
            let fills = |seq: &u64| {
                let name = EntryId { origin, seq: *seq };
                !(self.is_kept_nowhere(name) && self.has_been_let_go(name))
            };
            (log.held(), lost.filter(fills).collect())
        })
    }

    fn logs_differ(&self, live: &[NodeId]) -> Option<String> {
        for node in &self.nodes {
            let origin = node.origin;
            let extents: Vec<_> = live.iter().map(|id| self.extent(*id, origin)).collect();
            // Of a dead node of which nobody keeps anything nobody speaks any more.
            let seq = extents.iter().map(|(held, _)| *held).max().unwrap_or(0);
            let last = EntryId { origin, seq };
            let spent = !node.alive && seq > 0 && self.is_kept_nowhere(last);
            if spent && self.has_been_let_go(last) {
                continue;
            }
            let differs = (1..live.len()).find(|&index| extents[index] != extents[0]);
            if let Some(index) = differs {
                let (first, other) = (&extents[0], &extents[index]);
                return Some(format!(
                    "n{} holds {origin} to {first:?}, n{} to {other:?}",
                    live[0], live[index]
                ));
            }
            let missing = |id: &&NodeId| {
                let log = self.nodes[**id].core.log(origin);
                log.is_some_and(|log| log.missing().is_some())
            };
            if let Some(id) = live.iter().find(missing) {
                return Some(format!("n{id} misses some of {origin}"));
            }
        }
        None
    }

    /// Who is in which room, as it should be.
    fn members(&self) -> Result<BTreeMap<&RoomName, BTreeSet<&UserName>>, String> {
        let mut members: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| !client.gone) {
            let joined =
                |home: &super::clients::Home| home.joined.is_some() && self.nodes[home.node].alive;
            if !client.home.as_ref().is_some_and(joined) {
                return Err(format!("{} is not in its room", client.name));
            }
            if client.joins() {
                let names = members.entry(&client.room).or_default();
                names.insert(&client.name);
            }
        }
        Ok(members)
    }

    fn members_differ(&self, live: &[NodeId]) -> Option<String> {
        let members = match self.members() {
            Ok(members) => members,
            Err(why) => return Some(why),
        };
        for room in self.clients.iter().map(|client| &client.room) {
            let expected = members.get(room).cloned().unwrap_or_default();
            for &id in live {
                let listed = self.nodes[id].core.members().list(room);
                if !listed.iter().eq(&expected) {
                    return Some(format!(
                        "n{id} lists {listed:?} in {room}; there are {expected:?}"
                    ));
                }
            }
        }
        None
    }
}
