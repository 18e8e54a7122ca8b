//! The list itself, pure: register, renew, leave, expire. Time is an argument; no lock, no socket.
//!
//! Changes gather until [`Directory::publish`] makes one version of them. A renewal that says
//! nothing new is not a change.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::api::{InvalidRegistration, Listing, NODES_MAX, Node, Registration};
use base::endpoint::Endpoint;

/// How often [`Directory::expire`] is to be called.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// All live nodes.
#[derive(Debug)]
pub(crate) struct Directory {
    epoch: String,
    version: u64,
    changed: bool,
    lease: Duration,
    last_tick: Instant,
    nodes: BTreeMap<String, Record>,
    /// Who holds an endpoint: each is held by one node at a time.
    holders: HashMap<Endpoint, String>,
}

#[derive(Debug)]
struct Record {
    registration: Registration,
    endpoints: Vec<Endpoint>,
    since: Instant,
    deadline: Instant,
}

/// What a registration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Put {
    /// The id is new. Those that held its endpoints are out.
    Created {
        /// The ids that it replaced.
        replaced: Vec<String>,
    },
    /// The id was there and now says something else. Those that held its endpoints are out.
    Changed {
        /// The ids that it replaced.
        replaced: Vec<String>,
    },
    /// The lease is longer; nothing else changed.
    Renewed,
}

/// Why a registration was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It says something that is not allowed; the sender must mend it.
    #[error(transparent)]
    Invalid(#[from] InvalidRegistration),
    /// There is no room for a new id; try again when nodes have left.
    #[error("{NODES_MAX} nodes are registered, which is all that fit")]
    Full,
}

/// What a tick did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Expired {
    /// The ids whose lease had passed: they are out.
    pub(crate) ids: Vec<String>,
    /// How much all leases were extended, if the tick came late by more than a tick.
    pub(crate) extended: Option<Duration>,
}

impl Directory {
    /// An empty list. `epoch` is new for each start; nodes stay for `lease` after a renewal.
    pub(crate) fn new(epoch: String, lease: Duration, now: Instant) -> Self {
        Self {
            epoch,
            version: 1,
            changed: false,
            lease,
            last_tick: now,
            nodes: BTreeMap::new(),
            holders: HashMap::new(),
        }
    }

    /// Registers or renews.
    ///
    /// # Errors
    /// When the registration is invalid, or new and there is no room.
    pub(crate) fn put(
        &mut self,
        id: &str,
        said: Registration,
        now: Instant,
    ) -> Result<Put, Refused> {
        let deadline = now + self.lease;
        if let Some(record) = self.nodes.get_mut(id)
            && record.registration == said
        {
            record.deadline = deadline;
            return Ok(Put::Renewed);
        }
        let endpoints = said.check()?;
        let mut replaced: Vec<String> = endpoints
            .iter()
            .filter_map(|endpoint| self.holders.get(endpoint))
            .filter(|holder| *holder != id)
            .cloned()
            .collect();
        replaced.sort_unstable();
        replaced.dedup();
        let known = self.nodes.contains_key(id);
        if !known && self.nodes.len() - replaced.len() >= NODES_MAX {
            return Err(Refused::Full);
        }
        for holder in &replaced {
            self.remove(holder);
        }
        let since = self.remove(id).map_or(now, |record| record.since);
        for endpoint in &endpoints {
            self.holders.insert(endpoint.clone(), id.to_owned());
        }
        let record = Record {
            registration: said,
            endpoints,
            since,
            deadline,
        };
        self.nodes.insert(id.to_owned(), record);
        self.changed = true;
        Ok(if known {
            Put::Changed { replaced }
        } else {
            Put::Created { replaced }
        })
    }

    /// Takes a node out. Says whether it was there.
    pub(crate) fn leave(&mut self, id: &str) -> bool {
        self.remove(id).is_some()
    }

    /// Takes out those whose lease has passed; to be called every [`TICK`].
    ///
    /// A tick that comes late means that this process, or its whole machine, stood still, and that
    /// renewals may be waiting at its door: time in which nobody listened does not count, so all
    /// leases are extended by it.
    pub(crate) fn expire(&mut self, now: Instant) -> Expired {
        let gap = now.saturating_duration_since(self.last_tick);
        let late = gap.saturating_sub(TICK);
        self.last_tick = now;
        for record in self.nodes.values_mut() {
            record.deadline = (record.deadline + late).min(now + self.lease);
        }
        let past = self
            .nodes
            .iter()
            .filter(|(_, record)| record.deadline <= now);
        let ids: Vec<String> = past.map(|(id, _)| id.clone()).collect();
        for id in &ids {
            self.remove(id);
        }
        Expired {
            ids,
            extended: (late > TICK).then_some(late),
        }
    }

    /// Makes one version of all changes since the last call, if there were any.
    pub(crate) fn publish(&mut self, now: Instant) -> Option<Listing> {
        std::mem::take(&mut self.changed).then(|| {
            self.version += 1;
            self.listing(now)
        })
    }

    /// The list as it is, under the version last published.
    pub(crate) fn listing(&self, now: Instant) -> Listing {
        let node = |(id, record): (&String, &Record)| Node {
            id: id.clone(),
            name: record.registration.name.clone(),
            endpoints: record.registration.endpoints.clone(),
            meta: record.registration.meta.clone(),
            age_ms: millis(now.saturating_duration_since(record.since)),
        };
        Listing {
            epoch: self.epoch.clone(),
            version: self.version,
            token: format!("{}.{}", self.epoch, self.version),
            nodes: self.nodes.iter().map(node).collect(),
        }
    }

    /// The version that holds everything done so far: the next one if changes wait for it.
    pub(crate) fn version(&self) -> u64 {
        self.version + u64::from(self.changed)
    }

    fn remove(&mut self, id: &str) -> Option<Record> {
        let record = self.nodes.remove(id)?;
        for endpoint in &record.endpoints {
            self.holders.remove(endpoint);
        }
        self.changed = true;
        Some(record)
    }
}

/// Whole milliseconds, as on the wire.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
