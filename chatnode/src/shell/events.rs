//! Server-sent events: a room's messages over plain HTTP.
//!
//! An event's id is the position up to which its client has seen the room, the event's own entry
//! first, so `Last-Event-ID` resumes on any node as `since` does. A stream says where it begins by
//! an id without data: a client that loses it before the first event misses nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Node;
use crate::clients::seats::Seat;
use crate::core::Core;
use crate::core::archive::{Archive, Need};
use crate::core::log::Span;
use crate::core::named::Named;
use crate::core::position::{FRESH_MAX, NAMED_DEAD_MAX, NAMED_SPENT_MAX};
use crate::core::resume::Ahead;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName};
use crate::shell::pages::Gap;
use crate::wire::protocol::{self, PAGE_DEFAULT};

/// Events that wait for one client at the most,
pub(crate) const EVENTS_MAX: usize = 512;
/// and their bytes; beyond, its stream ends and it resumes.
pub(crate) const EVENTS_BYTES_MAX: usize = 1 << 20;
/// Streams of one node at the most.
pub(crate) const STREAMS_MAX: usize = 1024;
/// Origins of which a client has seen something and this node knows nothing, that its ids carry on
/// at the most: true ones are few, the others it has made up.
const STRANGERS_MAX: usize = 64;
/// Origins in a stream's position: when there are more, because it has lasted long, those that this
/// node's positions do not name any more leave it. An id comes back in a request's head, which is
/// bounded.
pub(crate) const ORIGINS_NAMED_MAX: usize =
    NAMED_DEAD_MAX + NAMED_SPENT_MAX + FRESH_MAX + STRANGERS_MAX;
/// Bytes of a replay that are made at once, as its client takes them.
const REPLAY_BYTES: usize = 64 << 10;

/// A position, by origin.
type Seen = BTreeMap<Origin, u64>;

/// All streams, by room.
#[derive(Debug)]
pub(crate) struct Events {
    streams: HashMap<RoomName, Vec<Stream>>,
    places: Arc<Semaphore>,
    /// Streams that were ended because their clients did not take what came.
    pub(crate) slow: u64,
}

/// The end of a stream that the node holds.
#[derive(Debug)]
struct Stream {
    sender: mpsc::Sender<Bytes>,
    queued: Arc<AtomicUsize>,
    seen: Seen,
    ahead: Ahead,
}

/// The end of a stream that its client holds: what comes from now on.
#[derive(Debug)]
pub(crate) struct Live {
    events: mpsc::Receiver<Bytes>,
    queued: Arc<AtomicUsize>,
    /// Kept until all that it queued is gone.
    _seat: StreamSeat,
}

/// The seat of a stream, or of one who waits for it, among [`STREAMS_MAX`] and among all clients.
#[derive(Debug, Clone)]
pub(crate) struct StreamSeat(
    #[expect(dead_code, reason = "dropping it is its use")] Arc<(Seat, OwnedSemaphorePermit)>,
);

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

/// What a stream begins with: where it is, and what its client has missed.
#[derive(Debug)]
pub(crate) struct Opening {
    head: Option<String>,
    /// What is replayed, and whether ids name its origin. If not, it is one of many that are gone, and
    /// the mark that stands for them all moves on.
    entries: std::vec::IntoIter<(Arc<Entry>, bool)>,
    /// The client's position, for the ids of what is replayed; `None` if they get none.
    seen: Option<Seen>,
    tail: Option<String>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            streams: HashMap::new(),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            slow: 0,
        }
    }
}

impl Node {
    /// A seat for one more stream, to be taken before anything is waited for.
    pub(crate) fn stream_seat(&self) -> Option<StreamSeat> {
        let stream = Arc::clone(&self.events.places).try_acquire_owned().ok()?;
        Some(StreamSeat(Arc::new((self.seats.take()?, stream))))
    }

    /// Opens a stream of a room. What cannot be replayed is said, and the newest page brought
    /// instead.
    ///
    /// # Errors
    /// What has to be read from the disk first.
    pub(crate) fn open_events(
        &mut self,
        room: &RoomName,
        since: &Since,
        archive: &Archive,
        seat: &StreamSeat,
    ) -> Result<(Opening, Live), Need> {
        let (position_of, history) = match since {
            Since::Now => (None, 0),
            Since::At(ids) => (Some(&ids[..]), PAGE_DEFAULT),
            Since::Unreadable => (None, PAGE_DEFAULT),
        };
        let named = &mut Named::default();
        let resumed = self
            .core
            .resume(room, position_of, named, history, archive)?;
        // Never empty, which would be none: it has a mark.
        let at = bounded(&self.core, position(&resumed.at));
        let live = self.events.add(room, at.clone(), resumed.ahead, seat);
        let named = |entry: Arc<Entry>| {
            let named = self.core.names(entry.origin);
            (entry, named)
        };
        let entries: Vec<_> = resumed.entries.into_iter().map(named).collect();
        let here = format!("id: {}\n\n", id_of(None, &at));
        let mut opening = Opening {
            head: Some(": open\nretry: 1000\n\n".to_owned()),
            entries: entries.into_iter(),
            seen: None,
            tail: Some(here),
        };
        match since {
            Since::At(ids) if resumed.recovered => {
                opening.seen = Some(bounded(&self.core, position(ids)));
            }
            // As long as the page is not through, the client is where it was.
            Since::At(_) | Since::Unreadable => {
                if let Some(head) = &mut opening.head {
                    head.push_str("event: reset\ndata: {\"recovered\":false}\n\n");
                }
            }
            Since::Now => {}
        }
        if let Some(tail) = &mut opening.tail {
            for (origin, span) in &resumed.gaps {
                tail.push_str(&gap_event(room, *origin, *span));
            }
        }
        Ok((opening, live))
    }
}

impl Events {
    /// How many streams there are, those that are about to begin among them.
    pub(crate) fn count(&self) -> usize {
        STREAMS_MAX - self.places.available_permits()
    }

    fn add(&mut self, room: &RoomName, seen: Seen, ahead: Ahead, seat: &StreamSeat) -> Live {
        self.sweep();
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let queued = Arc::new(AtomicUsize::new(0));
        let stream = Stream {
            sender,
            queued: Arc::clone(&queued),
            seen,
            ahead,
        };
        self.streams.entry(room.clone()).or_default().push(stream);
        Live {
            events,
            queued,
            _seat: seat.clone(),
        }
    }

    /// Brings an entry to the streams of its room.
    pub(crate) fn deliver(&mut self, entry: &Entry, whole: u64) {
        if let Some(streams) = self.streams.get_mut(&entry.room) {
            let slow = retain(streams, |stream| stream.deliver(entry, whole));
            self.slow += slow;
            if streams.is_empty() {
                self.streams.remove(&entry.room);
            }
        }
    }

    /// Tells all clients that entries of an origin are lost.
    pub(crate) fn gap(&mut self, origin: Origin, span: Span) {
        for (room, streams) in &mut self.streams {
            let event = Bytes::from(gap_event(room, origin, span));
            self.slow += retain(streams, |stream| stream.send(event.clone()));
        }
        self.sweep();
    }

    /// Shortens positions that have become long: what the node does not name any more, its clients
    /// have had. Only when all that was accepted has been sent.
    pub(crate) fn shorten(&mut self, core: &Core) {
        let streams = self.streams.values_mut().flatten();
        for stream in streams.filter(|stream| stream.seen.len() > ORIGINS_NAMED_MAX) {
            let Stream { seen, ahead, .. } = stream;
            seen.retain(|origin, _| {
                origin.is_mark() || core.names(*origin) || ahead.origins.contains_key(origin)
            });
            if core.rest() > 0 {
                seen.insert(Origin::REST, core.rest());
            }
        }
    }

    /// Ends all streams.
    pub(crate) fn end(&mut self) {
        self.streams.clear();
    }

    /// Forgets streams whose clients have gone.
    fn sweep(&mut self) {
        self.streams.retain(|_, streams| {
            streams.retain(|stream| !stream.sender.is_closed());
            !streams.is_empty()
        });
    }
}

/// Ends those streams to which `send` fails; how many of their clients are still there.
fn retain(streams: &mut Vec<Stream>, mut send: impl FnMut(&mut Stream) -> bool) -> u64 {
    let mut slow = 0;
    streams.retain_mut(|stream| {
        let sent = send(stream);
        slow += u64::from(!sent && !stream.sender.is_closed());
        sent
    });
    slow
}

impl Stream {
    /// Sends an entry, unless the client has seen it; `false` if the stream is over.
    fn deliver(&mut self, entry: &Entry, whole: u64) -> bool {
        if self.ahead.has_seen(entry, whole) {
            return true;
        }
        let event = event(entry, Some(&mut self.seen));
        self.send(event.into())
    }

    fn send(&mut self, event: Bytes) -> bool {
        let bytes = event.len();
        let queued = self.queued.fetch_add(bytes, Ordering::Relaxed);
        queued + bytes <= EVENTS_BYTES_MAX && self.sender.try_send(event).is_ok()
    }
}

impl Live {
    /// The next event; `None` when the stream is over. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let event = self.events.recv().await?;
        self.queued.fetch_sub(event.len(), Ordering::Relaxed);
        Some(event)
    }
}

impl Iterator for Opening {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut chunk = self.head.take().unwrap_or_default();
        while chunk.len() < REPLAY_BYTES {
            let Some((entry, named)) = self.entries.next() else {
                chunk.push_str(&self.tail.take().unwrap_or_default());
                break;
            };
            if let Some(seen) = self.seen.as_mut().filter(|_| !named)
                && !seen.contains_key(&entry.origin)
            {
                let rest = seen.entry(Origin::REST).or_default();
                *rest = (*rest).max(entry.ts);
                chunk.push_str(&as_event(&entry, seen));
                continue;
            }
            chunk.push_str(&event(&entry, self.seen.as_mut()));
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }
}

/// The event of an entry, which its client has then seen.
fn event(entry: &Entry, seen: Option<&mut Seen>) -> String {
    let Some(seen) = seen else {
        return data(entry, String::new());
    };
    let through = seen.entry(entry.origin).or_default();
    *through = (*through).max(entry.seq);
    as_event(entry, seen)
}

/// The event of an entry, with the position at which its client then is.
fn as_event(entry: &Entry, seen: &Seen) -> String {
    data(entry, format!("id: {}\n", id_of(Some(entry.id()), seen)))
}

fn data(entry: &Entry, mut event: String) -> String {
    event.push_str("data: ");
    // Decoding checked that it is UTF-8; an own entry is serialized from strings.
    event.push_str(std::str::from_utf8(&entry.json).unwrap_or("null"));
    event.push_str("\n\n");
    event
}

fn gap_event(room: &RoomName, origin: Origin, span: Span) -> String {
    let gap = Gap {
        room,
        origin: origin.as_str(),
        after: span.after,
        through: span.through,
    };
    format!("event: gap\ndata: {}\n\n", protocol::json(&gap))
}

/// A position as ids with commas, that of an entry first.
fn id_of(first: Option<EntryId>, seen: &Seen) -> String {
    let mut text = first.map(|id| id.to_string()).unwrap_or_default();
    for (&origin, &seq) in seen {
        // Of an entry's own origin the client may have seen more: the entry filled a hole.
        if first != Some(EntryId { origin, seq }) {
            let comma = if text.is_empty() { "" } else { "," };
            write!(text, "{comma}{}", EntryId { origin, seq }).expect("a string takes all");
        }
    }
    text
}

fn position(ids: &[EntryId]) -> Seen {
    let mut seen = Seen::new();
    for id in ids {
        let seq = seen.entry(id.origin).or_default();
        *seq = (*seq).max(id.seq);
    }
    seen
}

/// What of a position every id of a stream carries.
fn bounded(core: &Core, mut seen: Seen) -> Seen {
    let mut strangers = 0;
    seen.retain(|origin, _| {
        let known = origin.is_mark() || core.log(*origin).is_some();
        strangers += usize::from(!known);
        known || strangers <= STRANGERS_MAX
    });
    seen
}
