//! What clients and replies tell is judged at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::world::{NodeId, Reply, World};
use crate::replica::copies::Ticket;
use crate::replica::entry::Entry;
use crate::replica::log::Span;
use crate::replica::names::{EntryId, Mid, Origin};
use crate::replica::resume::Resumed;

/// What a node sends to a client.
#[derive(Debug)]
pub(super) enum Push {
    Joined(Resumed),
    Message(Arc<Entry>),
    Gap(Origin, Span),
    Said(Option<Mid>),
}

impl World {
    /// A reply: it must be honest the moment that it is given.
    pub(super) fn said(&mut self, id: NodeId, ticket: Ticket, entry: EntryId, copies: usize) {
        let Some(asked) = self.tickets.remove(&ticket) else {
            self.broken(format!("{ticket:?} was answered twice"));
        };
        // A dead node is no holder any more once its link here has ended.
        let dead = |other: &NodeId| {
            let link = self.nodes[id].links.get(other);
            self.nodes[*other].crashed.is_some() && link.is_none_or(|link| !link.up)
        };
        let holders: Vec<NodeId> = (0..self.nodes.len())
            .filter(|other| *other != id && !dead(other) && self.holds(*other, entry))
            .collect();
        if holders.len() < copies && !self.plan.trims {
            self.broken(format!(
                "n{id} says that {copies} others hold {entry:?}, but only {holders:?} do"
            ));
        }
        if copies < asked.copies {
            self.counters.note("copies timed out");
        } else if copies > 0 {
            self.counters.note("copies answered");
        }
        self.tell(|_| format!("n{id} replies {entry:?} copies {copies} to {asked:?}"));
        self.replies.push(Reply {
            node: id,
            id: entry,
            holders,
        });
        if let Some(conn) = asked.conn {
            self.push(id, conn, Push::Said(asked.mid));
        } else if let Some(mid) = asked.mid {
            self.clients[asked.client].pending.remove(&mid);
        }
    }

    /// A node gives numbers up: it may not while one that it has long heard has long heard their
    /// origin, nor while it hears the origin itself.
    pub(super) fn gave_up(&self, id: NodeId, origin: Origin) {
        if self.plan.trims || self.plan.loss > 0.0 {
            return;
        }
        let long = |of: NodeId, heard: Origin| {
            let node = &self.nodes[of];
            let long_ago = self.now + node.mono_offset - Duration::from_secs(5);
            let peer = node.replica.peers().get(heard);
            peer.is_some_and(|peer| peer.linked && peer.linked_since < long_ago)
        };
        if long(id, origin) {
            self.broken(format!("n{id} gives up on {origin}, which it hears"));
        }
        for other in self.live() {
            let node = &self.nodes[other];
            let awake = !node.frozen && self.now > node.thawed + Duration::from_secs(5);
            if awake && long(id, node.origin) && long(other, origin) {
                self.broken(format!("n{id} gives up on {origin}, which n{other} hears"));
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
            Push::Joined(resumed) => self.joined(index, resumed),
            Push::Message(entry) => {
                self.see(index, &entry, true);
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

    fn joined(&mut self, index: usize, resumed: Resumed) {
        self.tell(|w| {
            let had = &w.clients[index].position;
            let ids: Vec<_> = resumed.entries.iter().map(|e| e.id()).collect();
            let (at, ahead, gaps) = (&resumed.at, &resumed.ahead, &resumed.gaps);
            format!(
                "client {index} had {had:?}, gets {ids:?} at {at:?} ahead {ahead:?} gaps {gaps:?}"
            )
        });
        let client = &mut self.clients[index];
        if let Some(home) = &mut client.home {
            home.joined = true;
        }
        let resumes = client.position.is_some();
        if !resumed.ahead.is_empty() {
            client.was_ahead = true;
            self.counters.note("resume with ahead filter");
        }
        client.gaps.extend(resumed.gaps);
        if resumes && resumed.recovered {
            if !resumed.entries.is_empty() {
                self.counters.note("resume with replay");
            }
            for entry in &resumed.entries {
                self.see(index, entry, true);
            }
        } else {
            if resumes {
                self.counters.note("resume told recovered:false");
                if !self.plan.trims {
                    self.broken(format!("client {index} could not resume"));
                }
            }
            // It starts anew: what the page shows it may have had.
            let client = &mut self.clients[index];
            client.position = Some(BTreeMap::new());
            client.base.clear();
            client
                .base
                .extend(resumed.at.iter().map(|id| (id.origin, id.seq)));
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

    /// A client sees a message: once, and in its origin's order.
    fn see(&mut self, index: usize, entry: &Arc<Entry>, ordered: bool) {
        let id = entry.id();
        self.tell(|_| format!("client {index} sees {id:?} {:?}", entry.mid));
        if self.ledger.get(&id).is_none_or(|said| said != entry) {
            self.broken(format!("client {index} sees {id:?}, which nobody said"));
        }
        let client = &self.clients[index];
        if entry.room != client.room {
            self.broken(format!("client {index} sees {id:?} of another room"));
        }
        if client.seen.contains(&id) {
            self.broken(format!("client {index} sees {id:?} twice"));
        }
        if let Some(mid) = &entry.mid
            && let Some(other) = client.mids.get(mid)
            && !client.was_ahead
            && !self.plan.trims
        {
            self.broken(format!(
                "client {index} sees {mid:?} as {other:?} and {id:?}"
            ));
        }
        let had = client.position.as_ref().and_then(|p| p.get(&id.origin));
        let late = had.is_some_and(|had| *had >= id.seq);
        let before_it_came = client
            .base
            .get(&id.origin)
            .is_some_and(|seq| *seq >= id.seq);
        if ordered && late && !before_it_came && !client.was_told_of(id) {
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
