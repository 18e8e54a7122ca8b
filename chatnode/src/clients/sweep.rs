//! The end of a turn, and what time alone brings: who is silent, who is slow, who is gone.

use std::time::Duration;

use super::pace::{STREAM_QUIET, Watch};
use super::rules;
use super::serve::REPLIES_BYTES_MAX;
use super::slot::{ConnId, Ended, Style};
use super::websocket::append_ping;
use super::{Clients, Side};
use crate::core::{Core, Now};
use crate::wire::sse;

/// The table of connections is looked at in so many shares.
const SHARES: usize = 8;
/// How often a share of the connections is looked at; all are, each second.
const SWEEP_EVERY: Duration = Duration::from_millis(125);

/// Where the look at all connections has got to.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    share: usize,
    due: Duration,
}

impl Clients {
    /// Reads those of whom nobody tells that they have something.
    pub(crate) fn begin_turn(&mut self, core: &mut Core, now: Now) {
        if now.mono >= self.reads_due(core) {
            self.read_on(core, now);
        }
    }

    /// With a tick of the core it is decided anew whom positions name.
    pub(crate) fn ticked(&mut self) {
        self.streams.is_stale = true;
    }

    /// Writes to each client what the turn brought it; when the next is due at the latest.
    pub(crate) fn end_turn(&mut self, core: &mut Core, now: Now) -> Duration {
        if now.mono >= self.sweep.due {
            self.look_at_share(core, now);
        }
        for id in self.table.take_unfinished() {
            if self.table.drain(id).is_err() {
                self.end(core, id, now);
            } else {
                self.if_said_all(core, id, now);
            }
        }
        self.table.flush(now.mono);
        for (id, ended) in self.table.take_ended() {
            match ended {
                Ended::Broken => self.end(core, id, now),
                Ended::Slow => {
                    tracing::info!("a client is closed as slow");
                    if let Some(id) = rules::leaves(id) {
                        self.leave_all(core, id, now);
                    }
                }
            }
        }
        self.close_those_who_said_all(core, now);
        // What ended connections left behind is for the next turn.
        self.settle(core, now);
        if self.has_output() {
            return now.mono;
        }
        self.sweep.due.min(self.reads_due(core))
    }

    fn look_at_share(&mut self, core: &mut Core, now: Now) {
        self.sweep.due = now.mono + SWEEP_EVERY;
        self.sweep.share = (self.sweep.share + 1) % SHARES;
        if self.sweep.share == 0 {
            self.table.expire_named(now.mono);
        }
        for id in self.table.share(self.sweep.share, SHARES) {
            match self.table.closing(id) {
                Some(until) if now.mono >= until => self.end(core, id, now),
                Some(_) => {}
                None => {
                    self.table.check_slow(id, now.mono);
                    self.look_at(core, id, now);
                }
            }
        }
    }

    fn look_at(&mut self, core: &mut Core, id: ConnId, now: Now) {
        let style = self.table.style(id);
        let reads_slowly = self.table.pending(id) > REPLIES_BYTES_MAX;
        let Some(client) = self.client(id) else {
            return;
        };
        if let Some((_, named)) = client.seen.as_deref_mut() {
            named.expire(now.mono);
        }
        let session = match &mut client.side {
            Side::Says(session) => session,
            Side::Hears(told) if now.mono >= *told + STREAM_QUIET => {
                *told = now.mono;
                let quiet = |output: &mut Vec<u8>| output.extend_from_slice(sse::QUIET.as_bytes());
                return self.table.append(id, quiet);
            }
            Side::Hears(_) | Side::Fed => return,
        };
        if reads_slowly {
            // Our ping stands behind what it has not read, and what it says is not looked at: it is
            // judged by whether it takes bytes.
            session.pace.heard(now.mono);
        }
        let greeted = session.is_greeted();
        match session.pace.watch(greeted, now.mono) {
            Watch::Fine => {}
            Watch::Ping if style == Some(Style::Chat) => self.table.send(id, "{}"),
            Watch::Ping => self.table.append(id, append_ping),
            Watch::Close(close) => self.close(core, id, &close, now),
        }
    }
}
