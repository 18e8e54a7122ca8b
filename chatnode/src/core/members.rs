//! Who is in which room, on every node.
//!
//! A node answers for its own clients: it counts them, numbers each change, and tells the others.
//! They apply changes in the order of those numbers; when a beat shows another number than theirs,
//! a change was lost and they fetch the whole. A name that several connections use, on one node or
//! on many, is one member.

use std::collections::btree_map::Entry as TreeEntry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::rules;
use crate::model::names::{Origin, RoomName, UserName};

/// Rooms with more members are told as a count and a sample.
pub(super) const MEMBERS_LISTED_MAX: usize = 500;
/// How many members a sample has.
const MEMBERS_SAMPLE: usize = 100;

/// A change that the clients of a room may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Where.
    pub(crate) room: RoomName,
    /// Names that were not there before on any node.
    pub(crate) joined: Vec<UserName>,
    /// Names that are on no node any more.
    pub(crate) left: Vec<UserName>,
}

/// A node's own members, as told to other nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Number of the last change in it.
    pub(crate) version: u64,
    /// Names by room.
    pub(crate) rooms: Vec<(RoomName, Vec<UserName>)>,
}

#[derive(Debug, Default)]
struct Remote {
    version: u64,
    newest: u64,
    rooms: HashMap<RoomName, BTreeSet<UserName>>,
}

/// Members of all rooms.
#[derive(Debug, Default)]
pub(crate) struct Members {
    version: u64,
    own: HashMap<RoomName, BTreeMap<UserName, u32>>,
    remote: BTreeMap<Origin, Remote>,
    /// On how many nodes a name is, by room.
    all: HashMap<RoomName, BTreeMap<UserName, u32>>,
}

impl Members {
    /// The number of this node's last own change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// How many members a room has.
    pub(crate) fn count(&self, room: &RoomName) -> usize {
        self.all.get(room).map_or(0, BTreeMap::len)
    }

    /// The members of a room by name: all, or a sample of a crowd.
    pub(crate) fn list(&self, room: &RoomName) -> Vec<&UserName> {
        let Some(names) = self.all.get(room) else {
            return Vec::new();
        };
        let limit = if names.len() > MEMBERS_LISTED_MAX {
            MEMBERS_SAMPLE
        } else {
            names.len()
        };
        names.keys().take(limit).collect()
    }

    /// Rooms with members.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.all.keys()
    }

    /// A connection of this node enters. `Some(version)` if other nodes must be told.
    pub(super) fn enter(
        &mut self,
        room: &RoomName,
        name: &UserName,
    ) -> (Option<u64>, Option<Change>) {
        let count = self
            .own
            .entry(room.clone())
            .or_default()
            .entry(name.clone())
            .or_default();
        *count += 1;
        if *count > 1 {
            return (None, None);
        }
        self.version += 1;
        let change = self.add(room, name).then(|| Change {
            room: room.clone(),
            joined: vec![name.clone()],
            left: Vec::new(),
        });
        (Some(self.version), change)
    }

    /// A connection of this node leaves. `Some(version)` if other nodes must be told.
    pub(super) fn leave(
        &mut self,
        room: &RoomName,
        name: &UserName,
    ) -> (Option<u64>, Option<Change>) {
        let Some(names) = self.own.get_mut(room) else {
            return (None, None);
        };
        let TreeEntry::Occupied(mut count) = names.entry(name.clone()) else {
            return (None, None);
        };
        *count.get_mut() -= 1;
        if *count.get() > 0 {
            return (None, None);
        }
        count.remove();
        if names.is_empty() {
            self.own.remove(room);
        }
        self.version += 1;
        let change = self.remove(room, name).then(|| Change {
            room: room.clone(),
            joined: Vec::new(),
            left: vec![name.clone()],
        });
        (Some(self.version), change)
    }

    /// This node's own members, for another node.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut rooms: Vec<_> = self
            .own
            .iter()
            .map(|(room, names)| (room.clone(), names.keys().cloned().collect()))
            .collect();
        rooms.sort();
        Snapshot {
            version: self.version,
            rooms,
        }
    }

    /// Another node tells a change. `None` if a change before it was lost, or it is known.
    pub(super) fn told(&mut self, origin: Origin, version: u64, change: &Change) -> Option<Change> {
        let remote = self.remote.entry(origin).or_default();
        remote.newest = remote.newest.max(version);
        if version.checked_sub(1) != Some(remote.version) {
            return None;
        }
        remote.version = version;
        let mut joined = Vec::new();
        let mut left = Vec::new();
        let mut names = remote.rooms.remove(&change.room).unwrap_or_default();
        for name in &change.joined {
            if names.insert(name.clone()) && self.add(&change.room, name) {
                joined.push(name.clone());
            }
        }
        for name in &change.left {
            if names.remove(name) && self.remove(&change.room, name) {
                left.push(name.clone());
            }
        }
        if !names.is_empty() {
            self.remote
                .entry(origin)
                .or_default()
                .rooms
                .insert(change.room.clone(), names);
        }
        let seen = !joined.is_empty() || !left.is_empty();
        seen.then(|| Change {
            room: change.room.clone(),
            joined,
            left,
        })
    }

    /// Another node's beat says that its changes reach this number.
    pub(super) fn claim(&mut self, origin: Origin, version: u64) {
        let remote = self.remote.entry(origin).or_default();
        remote.newest = remote.newest.max(version);
    }

    /// Whether something that this origin told is known to be missing.
    pub(super) fn is_stale(&self, origin: Origin) -> bool {
        self.remote
            .get(&origin)
            .is_some_and(|remote| rules::lacks_changes(remote.newest, remote.version))
    }

    /// Replaces all that is known of another node, unless more is known.
    pub(super) fn replace(&mut self, origin: Origin, snapshot: Snapshot) -> Vec<Change> {
        let known = self.remote.get(&origin).map_or(0, |remote| remote.version);
        if snapshot.version < known {
            return Vec::new();
        }
        self.set(origin, snapshot)
    }

    fn set(&mut self, origin: Origin, snapshot: Snapshot) -> Vec<Change> {
        let newest = self.remote.get(&origin).map_or(0, |remote| remote.newest);
        let mut after: HashMap<RoomName, BTreeSet<UserName>> = HashMap::new();
        // A node of an older version may list two spellings of one room.
        for (room, names) in snapshot.rooms {
            after.entry(room).or_default().extend(names);
        }
        let before = self.remote.remove(&origin).unwrap_or_default().rooms;
        let mut rooms: Vec<RoomName> = before.keys().chain(after.keys()).cloned().collect();
        rooms.sort();
        rooms.dedup();
        let none = BTreeSet::new();
        let mut changes = Vec::new();
        for room in rooms {
            let (old, new) = (
                before.get(&room).unwrap_or(&none),
                after.get(&room).unwrap_or(&none),
            );
            let joined = new
                .difference(old)
                .filter(|name| self.add(&room, name))
                .cloned()
                .collect();
            let left = old
                .difference(new)
                .filter(|name| self.remove(&room, name))
                .cloned()
                .collect();
            changes.push(Change { room, joined, left });
        }
        after.retain(|_, names| !names.is_empty());
        let remote = Remote {
            version: snapshot.version,
            newest: newest.max(snapshot.version),
            rooms: after,
        };
        self.remote.insert(origin, remote);
        changes.retain(|change| !change.joined.is_empty() || !change.left.is_empty());
        changes
    }

    /// Another node is gone, and its members with it.
    pub(super) fn forget(&mut self, origin: Origin) -> Vec<Change> {
        let changes = self.set(origin, Snapshot::default());
        self.remote.remove(&origin);
        changes
    }

    /// Whether anything is known of another node's members.
    pub(super) fn knows(&self, origin: Origin) -> bool {
        self.remote.contains_key(&origin)
    }

    fn add(&mut self, room: &RoomName, name: &UserName) -> bool {
        let nodes = self
            .all
            .entry(room.clone())
            .or_default()
            .entry(name.clone())
            .or_default();
        *nodes += 1;
        *nodes == 1
    }

    fn remove(&mut self, room: &RoomName, name: &UserName) -> bool {
        let Some(names) = self.all.get_mut(room) else {
            return false;
        };
        let TreeEntry::Occupied(mut nodes) = names.entry(name.clone()) else {
            return false;
        };
        *nodes.get_mut() -= 1;
        let gone = *nodes.get() == 0;
        if gone {
            nodes.remove();
            if names.is_empty() {
                self.all.remove(room);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> RoomName {
        "lobby".parse().unwrap()
    }

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    #[test]
    fn a_name_counts_once_over_connections_and_nodes() {
        let mut members = Members::default();
        let other: Origin = "bbbbbbbbbb".parse().unwrap();
        assert!(members.enter(&room(), &user("ada")).1.is_some());
        assert_eq!(members.enter(&room(), &user("ada")), (None, None));
        let told = Change {
            room: room(),
            joined: vec![user("ada"), user("bob")],
            left: vec![],
        };
        let seen = members.told(other, 1, &told).unwrap();
        assert_eq!(seen.joined, [user("bob")]);
        assert_eq!(members.count(&room()), 2);
        members.leave(&room(), &user("ada"));
        let (version, seen) = members.leave(&room(), &user("ada"));
        assert_eq!((version, seen), (Some(2), None), "still on the other node");
        let gone = members.forget(other);
        assert_eq!(gone[0].left, [user("ada"), user("bob")]);
        assert_eq!(members.count(&room()), 0);
        assert!(!members.knows(other));
    }

    #[test]
    fn a_lost_change_is_noticed_and_a_snapshot_mends_it() {
        let mut members = Members::default();
        let other: Origin = "bbbbbbbbbb".parse().unwrap();
        let told = Change {
            room: room(),
            joined: vec![user("bob")],
            left: vec![],
        };
        assert!(members.told(other, 2, &told).is_none());
        assert!(members.is_stale(other));
        let snapshot = Snapshot {
            version: 2,
            rooms: vec![(room(), vec![user("bob"), user("eve")])],
        };
        assert_eq!(
            members.replace(other, snapshot)[0].joined,
            [user("bob"), user("eve")]
        );
        assert!(!members.is_stale(other));
        members.claim(other, 3);
        assert!(members.is_stale(other));
    }
}
