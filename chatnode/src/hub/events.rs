//! Server-sent events: a room's messages over plain HTTP.
//!
//! An event's id is the position up to which its client has seen the room, the event's own entry
//! first, so `Last-Event-ID` resumes on any node as `since` does.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::mpsc;

use crate::replica::entry::Entry;
use crate::replica::names::{EntryId, Origin, RoomName};
use crate::replica::resume::Resumed;

/// Events that wait for one client at the most; beyond, its stream ends and it resumes.
pub(crate) const EVENTS_MAX: usize = 512;
/// Streams of one node at the most.
pub(crate) const STREAMS_MAX: usize = 1024;

#[derive(Debug)]
struct Stream {
    sender: mpsc::Sender<String>,
    seen: BTreeMap<Origin, u64>,
    ahead: BTreeMap<Origin, u64>,
}

/// All streams, by room.
#[derive(Debug, Default)]
pub(crate) struct Events {
    streams: HashMap<RoomName, Vec<Stream>>,
    count: usize,
}

impl Events {
    /// How many streams there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Opens a stream that begins with what lies beyond `since`, a client's position. `None` if
    /// there are too many.
    pub(crate) fn open(
        &mut self,
        room: &RoomName,
        since: &[EntryId],
        resumed: &Resumed,
    ) -> Option<mpsc::Receiver<String>> {
        self.sweep();
        if self.count >= STREAMS_MAX {
            return None;
        }
        let (sender, events) = mpsc::channel(EVENTS_MAX + resumed.entries.len());
        let position = |ids: &[EntryId]| ids.iter().map(|id| (id.origin, id.seq)).collect();
        let mut stream = Stream {
            sender,
            seen: position(since),
            ahead: BTreeMap::new(),
        };
        for entry in &resumed.entries {
            stream.send(entry);
        }
        stream.seen = position(&resumed.at);
        stream.ahead.clone_from(&resumed.ahead);
        self.streams.entry(room.clone()).or_default().push(stream);
        self.count += 1;
        Some(events)
    }

    /// Brings an entry to the streams of its room.
    pub(crate) fn deliver(&mut self, entry: &Entry) {
        let Some(streams) = self.streams.get_mut(&entry.room) else {
            return;
        };
        let before = streams.len();
        streams.retain_mut(|stream| stream.send(entry));
        self.count -= before - streams.len();
        if streams.is_empty() {
            self.streams.remove(&entry.room);
        }
    }

    /// Ends all streams.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    fn sweep(&mut self) {
        self.streams.retain(|_, streams| {
            streams.retain(|stream| !stream.sender.is_closed());
            !streams.is_empty()
        });
        self.count = self.streams.values().map(Vec::len).sum();
    }
}

impl Stream {
    /// Sends an event, unless the client has seen it; `false` if the stream has ended.
    fn send(&mut self, entry: &Entry) -> bool {
        if self
            .ahead
            .get(&entry.origin)
            .is_some_and(|through| entry.seq <= *through)
        {
            return true;
        }
        let seen = self.seen.entry(entry.origin).or_default();
        *seen = (*seen).max(entry.seq);
        let mut event = format!("id: {}", entry.id());
        for (origin, seq) in &self.seen {
            if *origin != entry.origin && *seq > 0 {
                event.push_str(&format!(
                    ",{}",
                    EntryId {
                        origin: *origin,
                        seq: *seq
                    }
                ));
            }
        }
        event.push_str("\ndata: ");
        event.push_str(std::str::from_utf8(&entry.json).unwrap_or("null"));
        event.push_str("\n\n");
        self.sender.try_send(event).is_ok()
    }
}
