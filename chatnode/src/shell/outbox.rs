//! What is to be published: entries of one turn travel in one frame.

use std::sync::Arc;
use std::time::Duration;

use base::bucket::{Bucket, Rate};

use super::Shell;
use crate::carriers::Command;
use crate::core::Now;
use crate::core::news::{Entries, News};
use crate::model::entry::Entry;
use crate::wire::frame::{self, Topic};

/// Frames of entries a second, and so many in a row, that are published at the end of the turn that
/// brought them. Beyond, under load, entries wait for each other, half a millisecond at a time.
const FRAMES: Rate = Rate::new(2000.0, 16.0);
/// Entries wait for each other until there are so many bytes of them, at the most.
const BATCH_BYTES: usize = 64 << 10;

/// Own entries that are to be published.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: Vec<Arc<Entry>>,
    bytes: usize,
    ack_wanted: bool,
    frames: Bucket,
    /// When the next frame may go.
    due: Duration,
}

impl Outbox {
    /// Whether nothing is to be published.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When the next frame may go.
    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// Adds an entry; whether it should not wait any longer.
    pub(super) fn append(&mut self, entry: Arc<Entry>, ack_wanted: bool) -> bool {
        self.bytes += frame::entry_len(&entry);
        self.ack_wanted |= ack_wanted;
        self.entries.push(entry);
        self.bytes >= BATCH_BYTES
    }
}

impl Shell {
    /// Publishes the entries that wait.
    pub(super) fn publish_log(&mut self, now: Now) {
        if self.outbox.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.outbox.entries);
        self.outbox.bytes = 0;
        let wait = self.outbox.frames.borrow(FRAMES, now.mono);
        self.outbox.due = now.mono + wait;
        let log = News::Entries(Entries {
            origin: self.core.identity().origin,
            ack_wanted: std::mem::take(&mut self.outbox.ack_wanted),
            entries,
        });
        self.carrier(Command::Publish(Topic::of(&log), frame::encode(&log)));
        if let News::Entries(mut log) = log {
            log.entries.clear();
            self.outbox.entries = log.entries;
        }
    }

    /// Tells the other nodes, behind all entries before it.
    pub(super) fn publish(&mut self, news: &News, now: Now) {
        if matches!(news, News::Beat(_)) {
            self.publish_log(now);
        }
        self.carrier(Command::Publish(Topic::of(news), frame::encode(news)));
    }
}
