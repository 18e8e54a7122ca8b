//! What clients get is judged at once, by what each has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::clients::Client;
use super::exempt::Exempt;
use super::judge::Asked;
use super::stopped::is_of_a_burst;
use super::world::{NodeId, World};
use crate::core::log::Span;
use crate::core::resumed::Resumed;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, Origin};

/// By node and origin, the number through which the node has trimmed that log.
pub(super) type Trimmed = BTreeMap<(NodeId, Origin), u64>;

/// What a node sends to a client.
#[derive(Debug)]
pub(super) enum Push {
    /// With what nodes had let go of then.
    Joined(Box<Resumed>, Trimmed),
    /// It is to name what it has seen behind these, and ask that node again.
    MidsWanted(NodeId, Vec<EntryId>),
    Message(Arc<Entry>),
    Gap(Origin, Span),
    Said(Option<Mid>),
}

impl World {
    /// A reply goes to whoever asked.
    pub(super) fn replied(&mut self, id: NodeId, asked: Asked) {
        if let Some(conn) = asked.conn {
            self.push(id, conn, Push::Said(asked.mid));
        } else if let Some(mid) = asked.mid {
            self.clients[asked.client].pending.remove(&mid);
        }
    }

    /// A node tells a client that enters what it has missed: all that the node has or had of the
    /// room beyond the client's position, or that it cannot.
    pub(super) fn resumed(
        &self,
        id: NodeId,
        index: usize,
        (since, mids): (&[EntryId], &[Mid]),
        told: &Resumed,
    ) {
        let Client { room, trimmed, .. } = &self.clients[index];
        let node = &self.nodes[id];
        let mut had: BTreeMap<Origin, u64> = BTreeMap::new();
        for at in since {
            had.insert(at.origin, at.seq);
        }
        let mids: BTreeSet<&Mid> = mids.iter().collect();
        let had = |id: &EntryId| had.get(&id.origin).is_some_and(|seq| *seq >= id.seq);
        let back = |at: &&EntryId| {
            let now = told.at.iter().find(|now| now.origin == at.origin);
            now.map_or(0, |now| now.seq) < at.seq
        };
        // When a position was made is not believed of a clock that is far ahead.
        let mut since_of = since.iter().filter(|at| at.origin != Origin::MADE);
        if let Some(at) = since_of.find(back).filter(|_| told.recovered) {
            self.broken(format!("n{id} takes a client back behind {at:?}"));
        }
        if !told.recovered {
            return;
        }
        let given: BTreeSet<EntryId> = told.entries.iter().map(|entry| entry.id()).collect();
        for of in &self.nodes {
            let Some(log) = node.core.log(of.origin) else {
                continue;
            };
            let held = log.held();
            // What this node had let go of before the client's position was made, and the node that
            // made it never had, is nothing that the client has missed.
            let named = since.iter().any(|at| at.origin == of.origin);
            let gone = trimmed.get(&(id, of.origin)).filter(|_| !named);
            let gone = gone.copied().unwrap_or_default();
            let log = self.ledger.node(of.origin).map(|of| self.ledger.of(of));
            for said in log.unwrap_or_default() {
                let entry = &said.entry;
                let name = entry.id();
                if name.seq > held {
                    break;
                }
                if name.seq <= gone {
                    continue;
                }
                let by_mid = entry.mid.as_ref().is_some_and(|mid| mids.contains(mid));
                if entry.room != *room || had(&name) || given.contains(&name) || by_mid {
                    continue;
                }
                let alike = self.ledger.alike(entry).iter();
                let has = |other: &EntryId| had(other) || given.contains(other);
                if self.accepted(id, name) && !alike.clone().any(has) {
                    self.broken(format!(
                        "n{id} says that a client has all beyond {since:?}, but not {name:?}"
                    ));
                }
            }
        }
    }

    pub(super) fn got(&mut self, index: usize, conn: u64, push: Push) {
        let Some(home) = self.clients[index].home else {
            return;
        };
        if home.conn != conn {
            return;
        }
        match push {
            Push::Joined(resumed, trimmed) => {
                self.clients[index].trimmed.extend(trimmed);
                self.joined(index, *resumed);
            }
            Push::MidsWanted(node, behind) => self.comes_in(index, node, conn, Some(behind)),
            Push::Message(entry) => {
                self.see(index, &entry);
                self.clients[index].advance(entry.id());
            }
            Push::Gap(origin, span) => self.clients[index].gaps.push((origin, span)),
            Push::Said(mid) => {
                if let Some(mid) = mid {
                    self.clients[index].pending.remove(&mid);
                }
            }
        }
    }

    /// What all nodes have let go of by now.
    pub(super) fn trimmed(&self) -> Trimmed {
        let of = |id: NodeId| {
            let core = &self.nodes[id].core;
            let origins = core.position().into_iter().map(|at| at.origin);
            origins.filter_map(move |origin| Some(((id, origin), core.log(origin)?.floor())))
        };
        self.live().into_iter().flat_map(of).collect()
    }

    fn joined(&mut self, index: usize, resumed: Resumed) {
        self.tell(|w| {
            let had = &w.clients[index].position;
            let ids: Vec<_> = resumed.entries.iter().map(|e| e.id()).collect();
            let (at, ahead, gaps) = (&resumed.at, &resumed.ahead, &resumed.gaps);
            format!(
                "client {index} had {had:?}, gets {ids:?} at {at:?} ahead {ahead:?} gaps {gaps:?}"
            )
        });
        let now = self.now;
        let client = &mut self.clients[index];
        if let Some(home) = &mut client.home {
            home.joined = Some(now);
        }
        let resumes = client.position.is_some();
        client.gaps.extend(resumed.gaps);
        client.ahead = resumed.ahead.origins;
        if !client.ahead.is_empty() {
            self.note("resume with ahead filter");
        }
        if resumes && resumed.recovered {
            if !resumed.entries.is_empty() {
                self.note("resume with replay");
            }
            for entry in &resumed.entries {
                self.see(index, entry);
            }
        } else {
            if resumes {
                self.note("resume told recovered:false");
                let told =
                    self.nodes.iter().any(|node| node.alive) && self.may_be_beyond_recovery(index);
                if !told || !self.passes(Exempt::ToldNotRecovered) {
                    self.broken(format!("client {index} could not resume"));
                }
            }
            // It starts anew: what the page shows it may have had.
            let client = &mut self.clients[index];
            client.position = Some(BTreeMap::new());
            let at = resumed.at.iter().map(|id| (id.origin, id.seq));
            client.base = at.collect();
            for entry in &resumed.entries {
                client.seen.insert(entry.id());
                if let Some(mid) = &entry.mid {
                    client.mids.insert(mid.clone(), entry.id());
                }
            }
        }
        for id in resumed.at {
            self.clients[index].advance(id);
        }
    }

    /// Whether the node at which a client is may not know that it has seen this: it has let it go, or
    /// never had it, since it came later; or that was long ago.
    fn may_not_know(&self, client: &Client, seen: EntryId) -> bool {
        let Some(home) = client.home else {
            return false;
        };
        let never = self.plan.trims && !self.accepted(home.node, seen);
        let late = self.is_said_long_ago(home.node, seen);
        (never && self.passes(Exempt::NeverSeen))
            || (late && self.passes(Exempt::SaidAgainLater))
            || self.has_let_go(home.node, seen)
    }

    /// Whether a node may have to tell a client that it cannot bring it all: it has let go of something,
    /// or its disk is so slow that this takes too long.
    fn may_be_beyond_recovery(&self, index: usize) -> bool {
        let Some(home) = self.clients[index].home else {
            return false;
        };
        let node = &self.nodes[home.node];
        let origins = self.nodes.iter().map(|other| other.origin);
        let mut floors = origins.map(|origin| node.core.log(origin).map_or(0, |log| log.floor()));
        floors.any(|floor| floor > 0) || self.disk_of(home.node).is_some()
    }

    /// A client sees a message: once, and in its origin's order.
    fn see(&mut self, index: usize, entry: &Arc<Entry>) {
        let id = entry.id();
        self.tell(|_| format!("client {index} sees {id:?} {:?}", entry.mid));
        let said = self.ledger.get(id);
        if said.is_none_or(|said| said.entry != *entry) {
            self.broken(format!("client {index} sees {id:?}, which nobody said"));
        }
        let client = &self.clients[index];
        if entry.room != client.room {
            self.broken(format!("client {index} sees {id:?} of another room"));
        }
        if client.seen.contains(&id) {
            self.broken(format!("client {index} sees {id:?} twice"));
        }
        // A node that has not yet what the client saw elsewhere cannot know that this repeats it,
        // unless the client tells it.
        let ahead = |other: &EntryId| {
            let seq = client.ahead.get(&other.origin);
            let ahead = seq.is_some_and(|seq| *seq >= other.seq);
            let forgets = ahead && !client.names_mids && !is_of_a_burst(entry);
            forgets && self.passes(Exempt::DropsByMid)
        };
        if let Some(mid) = &entry.mid
            && let Some(other) = client.mids.get(mid)
            && !ahead(other)
            && !self.may_not_know(client, *other)
        {
            self.broken(format!(
                "client {index} sees {mid:?} as {other:?} and {id:?}"
            ));
        }
        let had = client.position.as_ref().and_then(|p| p.get(&id.origin));
        let late = had.is_some_and(|had| *had >= id.seq);
        let before = |base: &BTreeMap<Origin, u64>| {
            let seq = base.get(&id.origin);
            seq.is_some_and(|seq| *seq >= id.seq)
        };
        if late && !before(&client.base) && !client.was_told_of(id) {
            self.broken(format!(
                "client {index} sees {id:?} after {had:?}, out of order"
            ));
        }
        let client = &mut self.clients[index];
        client.seen.insert(id);
        if let Some(mid) = &entry.mid {
            client.mids.insert(mid.clone(), id);
        }
    }
}
