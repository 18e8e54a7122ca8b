//! What was ever said, and what of it reached whom, as the world saw it: the truth that nodes and
//! clients are judged by.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::world::NodeId;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, Origin, RoomName};

/// One thing said, and when.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) entry: Arc<Entry>,
    pub(super) at: Duration,
}

/// All that was ever said.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By node. They are few: to look them through costs less than to hash one.
    origins: Vec<Origin>,
    said: Vec<Vec<Said>>,
    mids: HashMap<(RoomName, Mid), Vec<EntryId>>,
}

impl Ledger {
    /// A node has started.
    pub(super) fn start(&mut self, id: NodeId, origin: Origin) {
        assert_eq!(self.said.len(), id, "nodes are numbered as they start");
        assert!(self.node(origin).is_none(), "{origin} twice");
        self.origins.push(origin);
        self.said.push(Vec::new());
    }

    /// Whose start an origin is.
    pub(super) fn node(&self, origin: Origin) -> Option<NodeId> {
        self.origins.iter().position(|other| *other == origin)
    }

    /// Something is said. `Err` if its number is not its origin's next: one number has one content
    /// for ever.
    pub(super) fn say(&mut self, entry: &Arc<Entry>, at: Duration) -> Result<(), String> {
        let id = entry.id();
        let node = self.node(id.origin).ok_or("a foreign origin")?;
        let log = &mut self.said[node];
        if id.seq != log.len() as u64 + 1 {
            return Err(format!("{id:?} is said, after {}", log.len()));
        }
        log.push(Said {
            entry: Arc::clone(entry),
            at,
        });
        if let Some(mid) = &entry.mid {
            let key = (entry.room.clone(), mid.clone());
            self.mids.entry(key).or_default().push(id);
        }
        Ok(())
    }

    /// What was said under this name.
    pub(super) fn get(&self, id: EntryId) -> Option<&Said> {
        let index = usize::try_from(id.seq.checked_sub(1)?).ok()?;
        self.said.get(self.node(id.origin)?)?.get(index)
    }

    /// All that a node said, in order.
    pub(super) fn of(&self, node: NodeId) -> &[Said] {
        &self.said[node]
    }

    /// All that was said, by node.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Said> {
        self.said.iter().flatten()
    }

    /// How much was said.
    pub(super) fn len(&self) -> usize {
        self.said.iter().map(Vec::len).sum()
    }

    /// The entries with the mid of this one, itself among them; none if it has no mid.
    pub(super) fn alike(&self, entry: &Entry) -> &[EntryId] {
        let Some(mid) = &entry.mid else { return &[] };
        let key = (entry.room.clone(), mid.clone());
        self.mids.get(&key).map_or(&[], Vec::as_slice)
    }

    /// How many entries repeat the mid of another.
    pub(super) fn repeats(&self) -> usize {
        self.mids.values().map(|alike| alike.len() - 1).sum()
    }
}

/// When each entry reached a node first.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Vec<Vec<Duration>>);

impl Arrivals {
    const NEVER: Duration = Duration::MAX;

    /// An entry of this node has arrived.
    pub(super) fn note(&mut self, of: NodeId, seq: u64, at: Duration) {
        let index = usize::try_from(seq).expect("a run is short");
        if self.0.len() <= of {
            self.0.resize_with(of + 1, Vec::new);
        }
        let log = &mut self.0[of];
        if log.len() <= index {
            log.resize(index + 1, Self::NEVER);
        }
        log[index] = log[index].min(at);
    }

    /// The last number of a node that has arrived.
    pub(super) fn last(&self, of: NodeId) -> u64 {
        let log = self.0.get(of).map_or(0, Vec::len);
        (log as u64).saturating_sub(1)
    }

    /// When it arrived, if it did.
    pub(super) fn at(&self, of: NodeId, seq: u64) -> Option<Duration> {
        let index = usize::try_from(seq).ok()?;
        let at = *self.0.get(of)?.get(index)?;
        (at != Self::NEVER).then_some(at)
    }
}
