//! The tasks that bring what happens: sockets, the carrier, the registries, the disk, and time.

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::Handle;
use crate::carriers::broker::bridge::Taken;
use crate::carriers::broker::keeper::KeeperEvent;
use crate::carriers::{Carrier, Command};
use crate::core::Input;
use crate::discovery::View;
use crate::disk::Outcome;

/// After so many frames the others have their turn, clients and the turn task: a full frame has some
/// hundred messages, and a node that lags has hundreds of frames to take.
const EVENTS_TOGETHER: usize = 8;
/// Sockets that are read before the turn ends; more are the next turn's.
const READS_MAX: usize = 1024;
/// How often a stopping node looks whether clients are left.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Lets the runtime watch a poll.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe, as a descriptor must stay open while it is watched; a \
              poll owns its own"
)]
fn watched(poll: mio::Poll) -> io::Result<AsyncFd<mio::Poll>> {
    AsyncFd::new(poll)
}

impl Handle {
    /// Ends turns until the process stops.
    pub(crate) async fn run_turns(self) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        loop {
            let due = self.turn();
            if due <= tokio::time::Instant::now() {
                // There is more to do at once; others have their turn between.
                tokio::task::yield_now().await;
            }
            tokio::select! {
                biased;
                () = stopped.cancelled() => break,
                () = self.turn_wanted() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
        // What was queued at last, close frames say, goes out too.
        self.turn();
        self.with(|shell, now| shell.clients.end_turns(&mut shell.core, now));
        Ok(())
    }

    /// Reads clients as long as the process runs, and then until the last one has ended.
    ///
    /// # Errors
    /// The poll failed.
    pub(crate) async fn run_clients(self, poll: mio::Poll) -> anyhow::Result<()> {
        let mut poll = watched(poll)?;
        let mut events = mio::Events::with_capacity(READS_MAX);
        let stopping = self.tasks().stopping();
        let mut stopped = std::pin::pin!(stopping.cancelled());
        while !stopping.is_cancelled() || self.look(|shell| !shell.clients.is_empty()) {
            let is_stopping = stopping.is_cancelled();
            if is_stopping && self.with(|shell, now| shell.clients.read_out(&mut shell.core, now)) {
                tokio::task::yield_now().await;
                continue;
            }
            // Cancel safe: readiness stays until it is cleared.
            tokio::select! {
                biased;
                ready = poll.readable_mut() => ready?.clear_ready(),
                () = &mut stopped, if !is_stopping => continue,
                // The last turn, which is still to come, may end the last client.
                () = tokio::time::sleep(LOOK_EVERY), if is_stopping => continue,
            }
            // Readiness was cleared first: what comes from here on wakes this task again.
            loop {
                match poll.get_mut().poll(&mut events, Some(Duration::ZERO)) {
                    Err(why) if why.kind() == ErrorKind::Interrupted => continue,
                    polled => polled?,
                }
                let count = events.iter().count();
                if count > 0 {
                    self.with(|shell, now| {
                        for event in &events {
                            shell.clients.ready(&mut shell.core, event.into(), now);
                            shell.settle(now);
                        }
                    });
                }
                if count < READS_MAX {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Moves frames between the node and the carrier until the process stops, then closes the carrier.
    pub(crate) async fn run_carrier<B: Carrier>(
        self,
        mut carrier: B,
        mut commands: mpsc::Receiver<Command>,
        grace: Duration,
    ) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        let mut together = 0;
        loop {
            // Each branch is cancel safe: a command or an event that is not taken stays.
            tokio::select! {
                biased;
                Some(command) = commands.recv() => carrier.carry(command),
                () = stopped.cancelled() => break,
                event = carrier.event() => {
                    self.with(|shell, now| shell.carrier_event(event, now));
                    together += 1;
                }
            }
            if together >= EVENTS_TOGETHER {
                together = 0;
                tokio::task::yield_now().await;
            }
        }
        while let Ok(command) = commands.try_recv() {
            carrier.carry(command);
        }
        carrier.close(grace).await;
        Ok(())
    }

    /// Takes in what bridges bring until the process stops.
    pub(crate) async fn run_bridges(self, mut taken: mpsc::Receiver<Taken>) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        // Cancel safe.
        while let Some(Some(taken)) = stopped.run_until_cancelled(taken.recv()).await {
            self.with(|shell, now| shell.foreign(taken.by, &taken.text, now));
        }
        stopped.cancelled().await;
        Ok(())
    }

    /// Follows what becomes of the keeper, and of what it is given, until the process stops.
    pub(crate) async fn run_keeper(
        self,
        mut events: mpsc::Receiver<KeeperEvent>,
    ) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        // Cancel safe.
        while let Some(Some(event)) = stopped.run_until_cancelled(events.recv()).await {
            self.send(match event {
                KeeperEvent::Up(counts) => Input::KeeperUp(counts),
                KeeperEvent::Down => Input::KeeperDown,
                KeeperEvent::Kept(number) => Input::Kept(number),
            });
        }
        stopped.cancelled().await;
        Ok(())
    }

    /// Follows what the registries list until the process stops.
    pub(crate) async fn run_views(self, mut views: watch::Receiver<View>) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        loop {
            let view = views.borrow_and_update().clone();
            self.with(|shell, now| shell.take_view(view, now));
            tokio::select! {
                biased;
                () = stopped.cancelled() => return Ok(()),
                changed = views.changed() => if changed.is_err() {
                    stopped.cancelled().await;
                    return Ok(());
                },
            }
        }
    }

    /// Follows what becomes of the batches until the process stops, or the disk fails.
    ///
    /// # Errors
    /// The disk failed: what it was given may be lost, and the process must end.
    pub(crate) async fn run_disk(
        self,
        mut outcomes: mpsc::Receiver<Outcome>,
    ) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        loop {
            let outcome = tokio::select! {
                biased;
                outcome = outcomes.recv() => outcome,
                () = stopped.cancelled() => return Ok(()),
            };
            let Some(outcome) = outcome else {
                anyhow::bail!("the thread that writes to the disk has ended");
            };
            match outcome {
                Outcome::Stored => {
                    self.send(Input::Stored);
                    self.stored().notify_one();
                }
                Outcome::Full(why) => self.send(Input::DiskFull(why)),
                Outcome::Trimmed(floors) => self.send(Input::DiskTrimmed(floors)),
                Outcome::Broken(why) => {
                    self.with(|shell, now| {
                        shell.core.handle(Input::DiskBroken, now);
                        shell.ready.send_replace(false);
                    });
                    anyhow::bail!(
                        "the disk failed: {why}; nothing is acknowledged any more. The next start \
                         checks what is there"
                    );
                }
            }
        }
    }
}
