//! What clients want to hear: their room, all rooms of a pattern, or both, and patterns of which one has
//! the rooms of another. Whoever wants more than one thing asks for all at once, with one position.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::clients::{Client, Entering};
use super::conns::Request;
use super::world::World;
use crate::model::names::{EntryId, Mid, Origin, RoomName};
use crate::model::pattern::Pattern;

/// What a client asks for when it enters a room for the first time.
const HISTORY: usize = 10;
/// Mids that a client names in one line at the most.
const MIDS_A_LINE: usize = 3;

/// Something that a client wants to hear.
#[derive(Debug, Clone)]
pub(super) enum Want {
    /// A room, of which it is a member.
    Join(RoomName),
    /// What is said in the rooms of a pattern.
    Watch(Pattern),
}

/// Some of a client's wants, as bits by their number.
pub(super) type Wants = u8;

impl Want {
    /// Those of a client in this room: most join it and want nothing else.
    pub(super) fn all(index: usize, room: &RoomName) -> Vec<Self> {
        let join = || Self::Join(room.clone());
        let watch = |pattern: &str| Self::Watch(pattern.parse().expect("a pattern"));
        let own = || Self::Watch(Pattern::Room(room.clone()));
        match index % 8 {
            2 => vec![watch("*")],
            3 => vec![join(), watch("room*")],
            5 => vec![own(), watch("*"), watch("room*")],
            6 => vec![watch("*"), join()],
            _ => vec![join()],
        }
    }

    /// Whether what is said in a room is part of it.
    pub(super) fn has(&self, room: &RoomName) -> bool {
        match self {
            Self::Join(own) => own == room,
            Self::Watch(pattern) => pattern.has(room),
        }
    }

    /// Whether a node that speaks of it so means this.
    pub(super) fn is_named(&self, room: Option<&str>, rooms: Option<&str>) -> bool {
        match self {
            Self::Join(own) => room == Some(own.as_str()) && rooms.is_none(),
            Self::Watch(pattern) => rooms == Some(&pattern.to_string()) && room.is_none(),
        }
    }
}

impl Client {
    /// Whether it is a member of its room.
    pub(super) fn joins(&self) -> bool {
        self.wants.iter().any(|want| matches!(want, Want::Join(_)))
    }

    /// Whether it is to see what is said in a room.
    pub(super) fn hears(&self, room: &RoomName) -> bool {
        self.wants.iter().any(|want| want.has(room))
    }

    /// All that it wants.
    pub(super) fn wants_all(&self) -> Wants {
        (1 << self.wants.len()) - 1
    }

    /// Whether some of what it wants has a room.
    pub(super) fn have(&self, wants: Wants, room: &RoomName) -> bool {
        let mut of = self.wants.iter().enumerate();
        of.any(|(number, want)| wants & (1 << number) != 0 && want.has(room))
    }

    /// It has lost its node. Who had but a part of what it wants has no position for all of that, and comes
    /// back as if it had never been there.
    pub(super) fn loses_home(&mut self) {
        let Some(home) = self.home.take() else { return };
        self.ats.clear();
        if home.inside != 0 && home.inside != self.wants_all() {
            self.position = None;
            self.seen.clear();
            self.mids.clear();
            self.gaps.clear();
        }
    }
}

impl World {
    /// The lines by which a client asks its node to let it in. Of what it wants, this, or all; it names what
    /// it has seen behind these.
    pub(super) fn wants_in(
        &mut self,
        index: usize,
        asked: Option<(usize, &[EntryId])>,
    ) -> (String, Vec<Request>) {
        let mut lines = String::new();
        let mut requests = Vec::new();
        for number in 0..self.clients[index].wants.len() {
            let behind = match asked {
                Some((of, _)) if of != number => continue,
                Some((_, behind)) => Some(behind),
                None => None,
            };
            if !lines.is_empty() {
                lines.push('\n');
            }
            requests.push(self.wants_one(index, number, behind, &mut lines));
        }
        (lines, requests)
    }

    fn wants_one(
        &mut self,
        index: usize,
        number: usize,
        asked: Option<&[EntryId]>,
        lines: &mut String,
    ) -> Request {
        self.serial += 1;
        let request = self.serial;
        let client = &self.clients[index];
        let want = &client.wants[number];
        let since: Option<Vec<EntryId>> = client.position.as_ref().map(|position| {
            let ids = position.iter();
            let id = |(origin, seq): (&Origin, &u64)| EntryId {
                origin: *origin,
                seq: *seq,
            };
            ids.map(id).collect()
        });
        let behind = |id: &EntryId| {
            let mut asked = asked.into_iter().flatten();
            asked.any(|from| from.origin == id.origin && from.seq < id.seq)
        };
        let mut mids: BTreeMap<&RoomName, Vec<Mid>> = BTreeMap::new();
        for (mid, id) in client.mids.iter().filter(|(_, id)| behind(id)) {
            let said = self.ledger.get(*id).expect("it was said");
            if want.has(&said.entry.room) {
                mids.entry(&said.entry.room).or_default().push(mid.clone());
            }
        }
        let last = match want {
            Want::Join(room) => self.names(want, mids.remove(room), room, lines, true),
            Want::Watch(_) => {
                for (room, mids) in &mids {
                    self.names(want, Some(mids.clone()), room, lines, false);
                }
                Vec::new()
            }
        };
        let _ = match want {
            Want::Join(room) => write!(
                lines,
                "{{\"id\":{request},\"join\":{{\"room\":\"{room}\",\"history\":{HISTORY},\"mids\":{}",
                list(last.iter())
            ),
            Want::Watch(rooms) => write!(
                lines,
                "{{\"id\":{request},\"watch\":{{\"rooms\":\"{rooms}\""
            ),
        };
        if let Some(since) = &since {
            let _ = write!(lines, ",\"since\":{}", list(since.iter()));
        }
        if client.names_mids {
            let named = list(asked.unwrap_or_default().iter());
            let _ = write!(lines, ",\"named\":{named}");
        }
        lines.push_str("}}");
        let named = client.mids.iter().filter(|(_, id)| behind(id));
        let entering = Entering {
            want: number,
            since,
            mids: named.map(|(mid, _)| mid.clone()).collect(),
            trimmed: Arc::clone(&client.trimmed),
            reads: 0,
            slow: false,
        };
        Request::Enter(request, entering)
    }

    /// The lines by which a client names what it was shown in a room; what the request itself is to name is
    /// left.
    fn names(
        &self,
        want: &Want,
        mids: Option<Vec<Mid>>,
        room: &RoomName,
        lines: &mut String,
        leaves_some: bool,
    ) -> Vec<Mid> {
        let mids = mids.unwrap_or_default();
        let mut parts: Vec<&[Mid]> = mids.chunks(MIDS_A_LINE).collect();
        let last = if leaves_some { parts.pop() } else { None };
        for part in parts {
            let rooms = match want {
                Want::Join(_) => String::new(),
                Want::Watch(rooms) => format!("\"rooms\":\"{rooms}\","),
            };
            let mids = list(part.iter());
            let _ = writeln!(
                lines,
                "{{\"seen\":{{\"room\":\"{room}\",{rooms}\"mids\":{mids}}}}}"
            );
        }
        last.unwrap_or_default().to_vec()
    }
}

/// A list of names as JSON: none of them has to be escaped.
fn list<T: ToString>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names
        .map(|name| format!("\"{}\"", name.to_string()))
        .collect();
    format!("[{}]", names.join(","))
}
