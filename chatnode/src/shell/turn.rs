//! The end of a turn: publish, then write; and what time alone brings.

use std::sync::Arc;
use std::time::Duration;

use super::{CarrierCommand, Hub, Node};
use crate::clients::Ended;
use crate::clients::session::Watch;
use crate::clients::websocket::append_ping;
use crate::core::news::{Entries, News};
use crate::core::{Input, Now};
use crate::model::entry::Entry;
use crate::shell::chat::REPLIES_BYTES_MAX;
use crate::wire::frame::Topic;
use crate::wire::frame::{self};
use crate::wire::sse;
use base::bucket::{Bucket, Rate};

/// Entries are published at the end of the turn that brought them while that makes no more frames a
/// second than this, with so many in a row; beyond, under load, they wait for each other, half a
/// millisecond at a time,
const FRAMES: Rate = Rate::new(2000.0, 16.0);
/// or until there are so many bytes of them.
const BATCH_BYTES: usize = 64 << 10;
/// The table of connections is looked at in so many shares.
const SWEEP_SHARES: usize = 8;
/// How often a share of the connections is looked at; all are, each second.
const SWEEP_EVERY: Duration = Duration::from_millis(125);

/// Own entries that are to be published.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: Vec<Arc<Entry>>,
    bytes: usize,
    ack_wanted: bool,
    frames: Bucket,
    /// When the next frame may go.
    due: Duration,
}

impl Outbox {
    /// Whether nothing is to be published.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it should not wait any longer.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    /// Adds an entry.
    pub(crate) fn append(&mut self, entry: Arc<Entry>, ack_wanted: bool) {
        self.bytes += frame::entry_len(&entry);
        self.ack_wanted |= ack_wanted;
        self.entries.push(entry);
    }
}

/// Where the look at all connections has got to.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    share: usize,
    due: Duration,
}

impl Hub {
    /// Ends turns until the process stops.
    ///
    /// # Errors
    /// None.
    pub(crate) async fn run_turns(self) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        loop {
            let (due, errands) = {
                let mut node = self.lock();
                let now = node.now();
                let due = node.turn(now);
                node.turn_due = due;
                (node.clock.instant(due), std::mem::take(&mut node.errands))
            };
            for errand in errands {
                self.run(errand);
            }
            if due <= tokio::time::Instant::now() {
                // There is more to do at once; others have their turn between.
                tokio::task::yield_now().await;
            }
            // Cancel safe: a notification that is not taken stays.
            tokio::select! {
                biased;
                () = stopped.cancelled() => break,
                () = self.shared.turn.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
        // What was queued at last, close frames say, goes out too.
        let mut node = self.lock();
        let now = node.now();
        node.turn(now);
        node.end_turns();
        Ok(())
    }
}

impl Node {
    /// Publishes and writes what the turn brought; when the next is due at the latest.
    fn turn(&mut self, now: Now) -> Duration {
        if now.mono >= self.reads.due() {
            self.read_on(now);
        }
        if now.mono >= self.core.deadline() {
            self.core.handle(Input::Tick, now);
            self.events.is_stale = true;
            if let Some(disk) = &self.disk {
                disk.correct_clock(self.core.correction_us());
            }
        }
        self.carry_out(now);
        self.feed_disk(now);
        if !self.outbox.is_empty() && now.mono >= self.outbox.due {
            self.publish_log(now);
        }
        if now.mono >= self.sweep.due {
            self.sweep(now);
        }
        for id in self.clients.take_unfinished() {
            if self.clients.drain(id).is_err() {
                self.end(id);
            } else {
                self.if_said_all(id);
            }
        }
        self.clients.flush(now.mono);
        for (id, ended) in self.clients.take_ended() {
            match ended {
                Ended::Broken => self.end(id),
                Ended::Slow => {
                    tracing::info!("a client is closed as slow");
                    self.leave_all(id);
                }
            }
        }
        self.close_those_who_said_all(now);
        // What ended connections left behind is for the next turn.
        self.carry_out(now);
        if self.clients.has_output() {
            return now.mono;
        }
        let publish = if self.outbox.is_empty() {
            Duration::MAX
        } else {
            self.outbox.due
        };
        let reads = self.reads.due();
        let due = self.core.deadline().min(self.sweep.due);
        due.min(publish).min(reads)
    }

    /// Publishes the entries that wait.
    pub(crate) fn publish_log(&mut self, now: Now) {
        if self.outbox.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.outbox.entries);
        self.outbox.bytes = 0;
        let frames = &mut self.outbox.frames;
        let wait = frames.borrow(FRAMES, now.mono);
        self.outbox.due = now.mono + wait;
        let ack_wanted = std::mem::take(&mut self.outbox.ack_wanted);
        let origin = self.core.identity().origin;
        let log = News::Entries(Entries {
            origin,
            ack_wanted,
            entries,
        });
        let bytes = frame::encode(&log);
        self.carrier(CarrierCommand::Publish(Topic::of(&log), bytes));
        if let News::Entries(mut log) = log {
            log.entries.clear();
            self.outbox.entries = log.entries;
        }
    }

    /// Tells the other nodes, behind all entries before it.
    pub(crate) fn publish(&mut self, news: &News, now: Now) {
        if matches!(news, News::Beat(_)) && !self.outbox.is_empty() {
            self.publish_log(now);
        }
        self.carrier(CarrierCommand::Publish(
            Topic::of(news),
            frame::encode(news),
        ));
    }

    /// Looks at a share of the connections: who is silent, who is slow, who is gone.
    fn sweep(&mut self, now: Now) {
        self.sweep.due = now.mono + SWEEP_EVERY;
        self.sweep.share = (self.sweep.share + 1) % SWEEP_SHARES;
        if self.sweep.share == 0 {
            self.clients.expire_named(now.mono);
        }
        for id in self.clients.share(self.sweep.share, SWEEP_SHARES) {
            if let Some(until) = self.clients.closing(id) {
                if now.mono >= until {
                    self.end(id);
                }
                continue;
            }
            self.clients.check_slow(id, now.mono);
            let chat = self.clients.is_chat(id);
            let stream = self.clients.is_stream(id);
            let reads_slowly = self.clients.pending(id) > REPLIES_BYTES_MAX;
            let Some(conn) = self.clients.get_mut(id) else {
                continue;
            };
            if stream {
                if conn.session.is_quiet(now.mono) {
                    self.clients
                        .append(id, |output| output.extend_from_slice(sse::QUIET.as_bytes()));
                }
                continue;
            }
            if reads_slowly {
                // Our ping stands behind what it has not read, and what it says is not looked at: it is
                // judged by whether it takes bytes.
                conn.session.heard(now.mono);
            }
            if let Some((_, named)) = conn.session.seen.as_deref_mut() {
                named.expire(now.mono);
            }
            match conn.session.watch(now.mono) {
                Watch::Fine => {}
                Watch::Ping if chat => self.clients.send(id, "{}"),
                Watch::Ping => self.clients.append(id, append_ping),
                Watch::Close(close) => self.close(id, &close, now),
            }
        }
    }
}
