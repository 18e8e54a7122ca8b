//! Event streams: slots of the same table as WebSockets. What is said is framed once for all streams of a
//! room, or of a pattern, its id too: that is the position of this node when it was brought.
//!
//! A client that has seen something before this node has ids of its own, until that has passed. A
//! stream says where it begins by an id without data: a client that loses it before the first event
//! misses nothing.

use std::sync::Arc;

use base::serve::Admission;
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::backlog::Replay;
use super::seats::Seat;
use super::slot::{Heard, Style};
use super::tell::gap_of;
use super::waiting::Waiting;
use super::{Client, Clients, Side};
use crate::core::named::Named;
use crate::core::question::{Found, Question, Resume, Unread};
use crate::core::resumed::{Ahead, Resumed};
use crate::core::{Core, Now};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin};
use crate::wire::protocol::{PAGE_DEFAULT, Refusal};
use crate::wire::refusals::{id_unknown, unread};
use crate::wire::sse::{self, Seen};

/// Origins of which a client has seen something and this node knows nothing, that its ids carry on
/// at the most: true ones are few, the others it has made up.
const STRANGERS_MAX: usize = 64;
/// Origins that an id names, about, between two beats.
#[cfg(test)]
pub(crate) const ORIGINS_NAMED_MAX: usize = crate::core::position::NAMED_DEAD_MAX
    + crate::core::position::NAMED_SPENT_MAX
    + crate::core::position::FRESH_MAX
    + STRANGERS_MAX;
/// Bytes of a replay that are made at once, as its client takes them.
const REPLAY_BYTES: usize = 64 << 10;

/// Where a client wants a stream to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Since {
    /// With what is said from now on.
    Now,
    /// Behind this position.
    At(Vec<EntryId>),
    /// It names a position of which nothing can be read.
    Unreadable,
}

/// A stream that was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Of this.
    pub(crate) heard: Heard,
    /// From there.
    pub(crate) since: Since,
    /// Its seat.
    pub(crate) seat: Seat,
}

/// A stream's connection, which has left HTTP.
#[derive(Debug)]
pub(crate) struct Line {
    /// The socket.
    pub(crate) stream: TcpStream,
    /// Its place among all connections.
    pub(crate) admission: Admission,
    /// What is written to it first.
    pub(crate) head: Vec<u8>,
}

/// A stream that is about to begin.
#[derive(Debug)]
pub(crate) struct Comes {
    /// What was asked for.
    pub(crate) asked: Asked,
    /// Its connection.
    pub(crate) line: Line,
    /// Where it goes if it cannot begin, and why.
    pub(crate) refused: oneshot::Sender<(Refusal, TcpStream)>,
}

/// The position of what this node has brought to its streams. None as long as there are none.
#[derive(Debug, Default)]
pub(super) struct Streams {
    seen: Option<Seen>,
    /// It may have become shorter: with a tick it is decided whom positions name.
    pub(super) is_stale: bool,
}

/// What a stream begins with: where it is, and what its client has missed.
#[derive(Debug)]
struct Opening {
    head: Option<Vec<u8>>,
    /// What is replayed, and whether ids name its origin. If not, it is one of many that are gone, and
    /// the mark that stands for them all moves on.
    entries: std::vec::IntoIter<(Arc<Entry>, bool)>,
    /// The client's position, for the ids of what is replayed; `None` if they get none.
    seen: Option<Seen>,
    tail: Option<String>,
}

impl Streams {
    /// An entry is brought.
    pub(super) fn saw(&mut self, entry: &Entry) {
        if let Some(seen) = &mut self.seen {
            sse::see(seen, [entry.id()]);
        }
    }

    /// The id of an entry that was brought, for a client that has seen that `ahead` of this node.
    pub(super) fn id(&self, core: &Core, entry: &Entry, ahead: &Ahead) -> String {
        let nothing = Seen::new();
        let seen = self.seen.as_ref().unwrap_or(&nothing);
        if ahead.origins.is_empty() {
            return sse::id(Some(entry.id()), seen, &nothing);
        }
        let mut ahead = ahead.origins.clone();
        bound(core, &mut ahead);
        sse::id(Some(entry.id()), seen, &ahead)
    }

    /// All that was accepted has been brought: if it may have become shorter, the position is that of
    /// the node.
    pub(super) fn refresh_if_stale(&mut self, core: &Core, streams: usize) {
        if self.is_stale {
            self.refresh(core, streams);
        }
    }

    fn refresh(&mut self, core: &Core, streams: usize) {
        self.is_stale = false;
        self.seen = (streams > 0).then(|| sse::position(&core.client_position()));
    }
}

impl Clients {
    /// Begins a stream of a room, as soon as what it begins with was read.
    pub(crate) fn open_stream(&mut self, core: &mut Core, comes: Comes, now: Now) {
        let page = match &comes.asked.heard {
            Heard::Room(_) => PAGE_DEFAULT,
            // Of many rooms there is no newest page.
            Heard::Pattern(_) => 0,
        };
        let (since, history) = match &comes.asked.since {
            Since::Now => (None, 0),
            Since::At(ids) => (Some(ids.clone()), page),
            Since::Unreadable => (None, page),
        };
        let resume = Resume {
            scope: comes.asked.heard.rooms().into(),
            since,
            named: Named::default(),
            history,
        };
        let waiting = Waiting::Stream(Box::new(comes));
        self.ask(core, waiting, Question::Resume(resume), now);
    }

    /// What a stream begins with is here. What cannot be replayed is said, and the newest page brought
    /// instead.
    pub(super) fn begin_stream(
        &mut self,
        core: &mut Core,
        comes: Comes,
        found: Result<Found, Unread>,
        now: Now,
    ) {
        let Comes {
            asked,
            line,
            refused,
        } = comes;
        let mut resumed = match found {
            Ok(Found::Resumed(resumed, _)) => *resumed,
            found => {
                let refusal = found.map_or_else(|none| unread(&none.why), |_| id_unknown());
                // Fails if the node is going away.
                let _ = refused.send((refusal, line.stream));
                return;
            }
        };
        if self.closed || self.sockets.turns_ended() {
            // Nobody would close it any more. Its client comes back, and not to this node.
            return;
        }
        let Asked { heard, since, seat } = asked;
        let ahead = std::mem::take(&mut resumed.ahead);
        let opening = opening(core, &heard, &since, resumed, &line.head);
        let client = Client {
            side: Side::Hears(now.mono),
            name: None,
            seen: None,
            waits: false,
            awaits: 0,
        };
        let adopted = line.stream.into_std().and_then(|socket| {
            let socket = mio::net::TcpStream::from_std(socket);
            let held = (line.admission, seat);
            self.table.adopt(socket, held, Style::Events, client)
        });
        let id = match adopted {
            Ok(id) => id,
            Err(why) => return tracing::warn!("a stream cannot be served: {why}"),
        };
        // All that was accepted has been brought to those who were here before: an answer is the last
        // that the core wants.
        self.streams.refresh(core, self.table.streams());
        self.table.replay(id, Replay::new(opening));
        match &heard {
            Heard::Room(room) => self.table.subscribe(id, room, ahead),
            Heard::Pattern(rooms) => self.table.watch(id, rooms, ahead, true),
        }
        // Nobody would tell that the socket has room: it has from the start.
        if self.table.drain(id).is_err() {
            self.end(core, id, now);
        }
    }
}

fn opening(core: &Core, heard: &Heard, since: &Since, resumed: Resumed, head: &[u8]) -> Opening {
    // Never empty, which would be none: it has a mark.
    let mut at = sse::position(&resumed.at);
    bound(core, &mut at);
    let named = |entry: Arc<Entry>| {
        let named = core.names(entry.origin);
        (entry, named)
    };
    let entries: Vec<_> = resumed.entries.into_iter().map(named).collect();
    let mut opening = Opening {
        head: Some([head, sse::OPEN.as_bytes()].concat()),
        entries: entries.into_iter(),
        seen: None,
        tail: Some(sse::here(&at)),
    };
    match since {
        Since::At(ids) if resumed.recovered => {
            let mut seen = sse::position(ids);
            bound(core, &mut seen);
            opening.seen = Some(seen);
        }
        // As long as the page is not through, the client is where it was.
        Since::At(_) | Since::Unreadable => {
            if let Some(head) = &mut opening.head {
                head.extend_from_slice(sse::RESET.as_bytes());
            }
        }
        Since::Now => {}
    }
    if let Some(tail) = &mut opening.tail {
        for (origin, span) in &resumed.gaps {
            tail.push_str(&sse::gap(&gap_of(heard, origin, span)));
        }
    }
    opening
}

impl Iterator for Opening {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut chunk = self.head.take().unwrap_or_default();
        while chunk.len() < REPLAY_BYTES {
            let Some((entry, named)) = self.entries.next() else {
                chunk.extend_from_slice(self.tail.take().unwrap_or_default().as_bytes());
                break;
            };
            let id = self.seen.as_mut().map(|seen| replayed(&entry, named, seen));
            chunk.extend_from_slice(sse::event(&entry, id.as_deref()).as_bytes());
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }
}

/// The id of an entry that is replayed, which its client has then seen.
fn replayed(entry: &Entry, named: bool, seen: &mut Seen) -> String {
    if named || seen.contains_key(&entry.origin) {
        sse::see(seen, [entry.id()]);
    } else {
        let rest = seen.entry(Origin::REST).or_default();
        *rest = (*rest).max(entry.ts);
    }
    sse::id(Some(entry.id()), seen, &Seen::new())
}

/// What of a position every id of a stream carries.
fn bound(core: &Core, seen: &mut Seen) {
    let mut strangers = 0;
    seen.retain(|origin, _| {
        let known = origin.is_mark() || core.log(*origin).is_some();
        strangers += usize::from(!known);
        known || strangers <= STRANGERS_MAX
    });
}
