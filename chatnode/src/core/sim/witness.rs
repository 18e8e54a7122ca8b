//! What clients get is judged at once, by what each has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::clients::Client;
use super::clients::Entering;
use super::exempt::Exempt;
use super::ledger::Said;
use super::stopped::is_of_a_burst;
use super::wants::{Want, Wants};
use super::world::{NodeId, World};
use crate::core::log::{Log, Span};
use crate::core::members::Change;
use crate::core::resumed::Resumed;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, Origin, UserName};

/// What was gone when a client's position was made.
#[derive(Debug, Default)]
pub(super) struct Trimmed {
    at: Duration,
    /// By node and origin, the number through which the node had trimmed that log.
    floors: BTreeMap<(NodeId, Origin), u64>,
}

/// What a client is told that has entered.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) resumed: Resumed,
    /// Who is in its room, and how many, if it has entered that.
    pub(super) members: Option<(BTreeSet<UserName>, usize)>,
    /// Of what it wants, what it had all of before.
    pub(super) before: Wants,
    /// What nodes had let go of then.
    pub(super) trimmed: Trimmed,
}

/// What a node sends to a client.
#[derive(Debug)]
pub(super) enum Push {
    /// It was let in, as it wanted to be.
    Joined(Box<Told>, Box<Entering>),
    /// It is to name what it has seen behind these, and ask again.
    MidsWanted(usize, Vec<EntryId>),
    Message(Arc<Entry>),
    Gap(Origin, Span),
    Members(Change, usize),
    /// What became of a message; if it was taken, its mid.
    Said(Option<Mid>),
    /// Whether it is there.
    Ping,
    /// Nothing more comes.
    Ended,
}

impl World {
    /// A node tells a client that enters what it has missed: all that the node has or had of the
    /// room beyond the client's position, or that it cannot.
    pub(super) fn resumed(&self, id: NodeId, index: usize, entering: &Entering, told: &Told) {
        let Some(since) = &entering.since else { return };
        let before = told.before;
        let told = &told.resumed;
        if !told.recovered {
            return self.could_not_replay(id, index, since, entering);
        }
        let client = &self.clients[index];
        let want = &client.wants[entering.want];
        let node = &self.nodes[id];
        let mut had: BTreeMap<Origin, u64> = BTreeMap::new();
        for at in since {
            had.insert(at.origin, at.seq);
        }
        let mids: BTreeSet<&Mid> = entering.mids.iter().collect();
        let had = |id: &EntryId| had.get(&id.origin).is_some_and(|seq| *seq >= id.seq);
        let back = |at: &&EntryId| {
            let now = told.at.iter().find(|now| now.origin == at.origin);
            now.map_or(0, |now| now.seq) < at.seq
        };
        // When a position was made is not believed of a clock that is far ahead.
        let mut since_of = since.iter().filter(|at| at.origin != Origin::MADE);
        if let Some(at) = since_of.find(back) {
            self.broken(format!("n{id} takes a client back behind {at:?}"));
        }
        let given: BTreeSet<EntryId> = told.entries.iter().map(|entry| entry.id()).collect();
        for (number, of) in self.nodes.iter().enumerate() {
            let Some(log) = node.core.log(of.origin) else {
                continue;
            };
            let held = log.held();
            // What this node had let go of before the client's position was made, and the node that
            // made it never had, is nothing that the client has missed.
            let named = since.iter().any(|at| at.origin == of.origin);
            let gone = if named {
                0
            } else {
                self.gone_then(&entering.trimmed, id, of.origin)
            };
            let unsure = !named && self.was_perhaps_gone(id, log, since);
            let floor = log.floor();
            let log = self.ledger.node(of.origin).map(|of| self.ledger.of(of));
            for said in log.unwrap_or_default() {
                let entry = &said.entry;
                let name = entry.id();
                if name.seq > held {
                    break;
                }
                if name.seq <= gone && !self.has(id, name) && self.passes(Exempt::TrimmedBefore) {
                    continue;
                }
                if unsure && name.seq <= floor && self.passes(Exempt::ClocksApart) {
                    continue;
                }
                let lost = |(origin, span): &(Origin, Span)| {
                    *origin == name.origin && span.after < name.seq && name.seq <= span.through
                };
                let by_mid = entry.mid.as_ref().is_some_and(|mid| mids.contains(mid));
                // It was let in within this turn, and gets what came since like all others.
                let live = node.delivered.at(number, name.seq) == Some(self.now);
                // What it hears otherwise, and has all of, is not brought again.
                let elsewhere = client.have(before, &entry.room);
                if elsewhere && given.contains(&name) {
                    self.broken(format!("n{id} brings client {index} {name:?} again"));
                }
                let of_rooms = want.has(&entry.room) && !elsewhere;
                if !of_rooms || had(&name) || given.contains(&name) || by_mid || live {
                    continue;
                }
                let alike = self.ledger.alike(entry).iter();
                let has = |other: &EntryId| had(other) || given.contains(other);
                if !told.gaps.iter().any(lost) && !alike.clone().any(has) {
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
            Push::Joined(told, entering) => {
                self.has_not_missed(index, &told.resumed);
                let client = &mut self.clients[index];
                client.trimmed = Arc::new(told.trimmed);
                if let Some((members, count)) = told.members {
                    client.members = members;
                    self.counts(index, count);
                }
                self.joined(index, entering.want, told.resumed);
            }
            Push::MidsWanted(want, behind) => {
                let (lines, requests) = self.wants_in(index, Some((want, &behind)));
                self.says_line(index, &lines, requests);
            }
            Push::Message(entry) => {
                if home.inside == 0 {
                    let id = entry.id();
                    self.broken(format!(
                        "client {index} sees {id:?} before it is in its room"
                    ));
                }
                self.see(index, &entry);
                self.clients[index].advance(entry.id());
            }
            Push::Gap(origin, span) => self.clients[index].gaps.push((origin, span)),
            Push::Members(change, count) => {
                let client = &mut self.clients[index];
                let left = change.left.iter().all(|name| client.members.remove(name));
                let mut joined = change.joined.iter();
                let joined = joined.all(|name| client.members.insert(name.clone()));
                if !left || !joined || change.room != client.room || !client.joins() {
                    self.broken(format!("client {index} is told {change:?}, which was so"));
                }
                self.counts(index, count);
            }
            Push::Said(mid) => {
                let client = &mut self.clients[index];
                if let Some(home) = &mut client.home {
                    home.awaits -= 1;
                }
                if let Some(mid) = mid {
                    client.pending.remove(&mid);
                }
            }
            Push::Ping => self.says_line(index, "{}", Vec::new()),
            // It comes back, to whichever node.
            Push::Ended => self.leaves(index, home),
        }
    }

    /// A client is told how many are in its room.
    fn counts(&self, index: usize, count: usize) {
        let members = &self.clients[index].members;
        if members.len() != count {
            self.broken(format!("client {index} is told of {count}: {members:?}"));
        }
    }

    /// What all nodes have let go of by now.
    pub(super) fn trimmed(&self) -> Trimmed {
        let of = |id: NodeId| {
            let core = &self.nodes[id].core;
            let origins = core.position().into_iter().map(|at| at.origin);
            origins.filter_map(move |origin| Some(((id, origin), core.log(origin)?.floor())))
        };
        Trimmed {
            at: self.now,
            floors: self.live().into_iter().flat_map(of).collect(),
        }
    }

    /// Through which number a node had trimmed a log when a client's position was made, or, if it was not
    /// there, its disk.
    fn gone_then(&self, trimmed: &Trimmed, id: NodeId, origin: Origin) -> u64 {
        let Trimmed { at, floors } = trimmed;
        let disk = || Some(self.disk_of(id)?.floor_at(origin, *at));
        let gone = floors.get(&(id, origin)).copied().or_else(disk);
        gone.unwrap_or_default()
    }

    /// Of an origin that its position does not name a client has not missed what its node had let go of then.
    fn has_not_missed(&mut self, index: usize, told: &Resumed) {
        let client = &self.clients[index];
        let (Some(home), Some(position)) = (client.home, &client.position) else {
            return;
        };
        let mut base = client.base.clone();
        for at in told
            .at
            .iter()
            .filter(|at| !position.contains_key(&at.origin))
        {
            let seq = base.entry(at.origin).or_default();
            *seq = (*seq).max(self.gone_then(&client.trimmed, home.node, at.origin));
        }
        self.clients[index].base = base;
    }

    fn joined(&mut self, index: usize, want: usize, resumed: Resumed) {
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
        let Some(mut home) = client.home else { return };
        // What it hears by something else that it wants, of which it began anew.
        let anew = home.inside & !home.whole;
        let is_first = home.inside == 0;
        if is_first {
            client.ahead.clear();
        }
        home.inside |= 1 << want;
        home.whole |= u8::from(resumed.recovered) << want;
        let is_all = home.inside == client.wants_all();
        if client.wants.len() == 1 {
            home.joined = Some(now);
        }
        client.home = Some(home);
        let resumes = client.position.is_some();
        client.gaps.extend(resumed.gaps);
        for (origin, seq) in resumed.ahead.origins {
            let ahead = client.ahead.entry(origin).or_default();
            *ahead = (*ahead).max(seq);
        }
        if !client.ahead.is_empty() {
            self.note("resume with ahead filter");
        }
        if resumes && resumed.recovered {
            self.replayed(index, want, anew, &resumed.entries);
        } else {
            if resumes {
                self.note("resume told recovered:false");
            }
            // It starts anew: what the page shows it may have had.
            let client = &mut self.clients[index];
            client.position = Some(BTreeMap::new());
            if is_first {
                client.base.clear();
            }
            for at in &resumed.at {
                let base = client.base.entry(at.origin).or_default();
                *base = (*base).max(at.seq);
            }
            for entry in &resumed.entries {
                client.seen.insert(entry.id());
                if let Some(mid) = &entry.mid {
                    client.mids.insert(mid.clone(), entry.id());
                }
            }
        }
        let client = &mut self.clients[index];
        client.ats.extend(resumed.at);
        if is_all {
            if let Some(home) = &mut client.home {
                home.joined.get_or_insert(now);
            }
            for id in std::mem::take(&mut client.ats) {
                self.clients[index].advance(id);
            }
        }
    }

    /// A client is brought what it has missed of something that it wants.
    fn replayed(&mut self, index: usize, want: usize, anew: Wants, entries: &[Arc<Entry>]) {
        if entries.is_empty() {
            return;
        }
        self.note("resume with replay");
        if matches!(self.clients[index].wants[want], Want::Watch(_)) {
            self.note("watch with replay");
        }
        let mut last: BTreeMap<Origin, u64> = BTreeMap::new();
        for entry in entries {
            let id = entry.id();
            if last
                .insert(id.origin, id.seq)
                .is_some_and(|seq| seq >= id.seq)
            {
                self.broken(format!("client {index} is brought {id:?} out of order"));
            }
            let client = &mut self.clients[index];
            let again = client.have(anew, &entry.room) && client.seen.contains(&id);
            if !again || !self.passes(Exempt::HeardAnew) {
                self.see(index, entry);
            }
        }
    }

    /// Whether the node at which a client is may not know that it has seen this: it has let it go, or
    /// never had it, since it came later; or that was long ago.
    fn may_not_know(&self, client: &Client, seen: EntryId) -> bool {
        let Some(home) = client.home else {
            return false;
        };
        let never = !self.accepted(home.node, seen) && self.has_let_go(home.node, seen);
        let late = self.is_said_long_ago(home.node, seen);
        (never && self.passes(Exempt::NeverSeen)) || (late && self.passes(Exempt::SaidAgainLater))
    }

    /// Whether a node takes what it has trimmed for gone when a position was made, by the clock of a node
    /// that it has never compared with its own.
    fn was_perhaps_gone(&self, id: NodeId, log: &Log, since: &[EntryId]) -> bool {
        let node = &self.nodes[id];
        let made = since.iter().find(|at| at.origin == Origin::MADE);
        let ahead = self.nodes.iter().map(|other| other.time_wrong_us.1).max();
        let ahead = ahead.unwrap_or_default() - node.time_wrong_us.0;
        let apart = u64::try_from(ahead).unwrap_or_default();
        let early = |made: &EntryId| made.seq < log.times.trimmed + apart;
        apart > node.core.positions.skew && made.is_some_and(early)
    }

    /// By how much a node's time has been ahead of another's at the most, in microseconds: what it trimmed
    /// looks so much later than positions that were made there.
    fn ahead_of_others(&self, id: NodeId) -> u64 {
        let others = self.nodes.iter().map(|other| other.time_wrong_us.0);
        let ahead = self.nodes[id].time_wrong_us.1 - others.min().unwrap_or_default();
        u64::try_from(ahead).unwrap_or_default()
    }

    /// A node tells a client that it cannot bring all that lies beyond its position: it has let go of some of
    /// that, or cannot know, since it never had it; or its disk is too slow.
    fn could_not_replay(&self, id: NodeId, index: usize, since: &[EntryId], entering: &Entering) {
        let client = &self.clients[index];
        let node = &self.nodes[id];
        let made = since.iter().find(|at| at.origin == Origin::MADE);
        let made = made.map_or(0, |at| at.seq);
        let missed = |of: NodeId| {
            let origin = self.nodes[of].origin;
            let Some(log) = node.core.log(origin) else {
                return false;
            };
            let named = since.iter().find(|at| at.origin == origin);
            let after = named.map_or_else(
                || self.gone_then(&entering.trimmed, id, origin),
                |at| at.seq,
            );
            // What of it has gone since, and what before, a node does not know; nor whether that was since,
            // if it was within the time by which clocks are apart.
            let trimmed = log.times.trimmed;
            let skew = node.core.positions.skew;
            let early = trimmed.saturating_sub(skew.max(self.ahead_of_others(id)));
            let apart = (early..trimmed + skew).contains(&made);
            let since = after < log.floor() || (apart && self.passes(Exempt::ClocksApart));
            let after = if named.is_none() && since && self.passes(Exempt::TrimmedSince) {
                0
            } else {
                after
            };
            // Of what a disk has removed it does not know of which room that was.
            let unsure = self.disk_of(id).is_some() && after < log.floor();
            let gone = |said: &Said| {
                let name = said.entry.id();
                let of_rooms = client.wants[entering.want].has(&said.entry.room);
                let beyond = of_rooms && name.seq > after;
                beyond && (self.has_let_go(id, name) || unsure) && !self.holds(id, name)
            };
            let began = node.began_behind.get(&origin).copied();
            let unknown = after < began.unwrap_or_default().max(log.unknown());
            unknown || self.ledger.of(of).iter().any(gone)
        };
        let slow = entering.slow && self.passes(Exempt::TooSlow);
        let missed = || (0..self.nodes.len()).any(missed) && self.passes(Exempt::ToldNotRecovered);
        if !slow && !missed() {
            self.broken(format!(
                "n{id} says that client {index} missed what it cannot bring beyond {since:?}"
            ));
        }
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
        if !client.hears(&entry.room) {
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
        // What it wants comes in several parts at first; each has its order.
        let enters = client.home.is_some_and(|home| home.joined.is_none());
        let late = had.is_some_and(|had| *had >= id.seq) && !enters;
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
