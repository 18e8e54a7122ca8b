//! A node that was stopped: it takes no send and no join before it holds what its peers hold.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{ANSWERS_MAX, Answer, Hub, Node, Said};
use crate::core::{Now, Source};
use crate::model::names::{Mid, RoomName, UserName};
use crate::wire::protocol::Refusal;

/// A node catches up after so long a stop. One that hardly gets the processor stands still for a second
/// again and again; to ask all for their positions each time would take what it has.
pub(crate) const CATCH_UP_AFTER: Duration = Duration::from_secs(2);

impl Hub {
    /// Says something for a client of the HTTP API.
    ///
    /// # Errors
    /// `overloaded` if too many wait, `storage_full` and others if the disk does not take it,
    /// `stopping` if the node stops before the outcome is known.
    pub(crate) async fn publish(
        &self,
        room: &RoomName,
        from: &UserName,
        mid: Option<&Mid>,
        text: &str,
        copies: usize,
    ) -> Result<Said, Refusal> {
        let (sender, outcome) = oneshot::channel();
        let mut answer = Some(Answer::Http(sender));
        while answer.is_some() {
            self.ready().await;
            let taken = self.with(|node, now| {
                // It may have been stopped between the two.
                let taken = node.answers.len() < ANSWERS_MAX;
                if taken
                    && node.takes_clients()
                    && let Some(answer) = answer.take()
                {
                    node.say(room, from, mid, text, copies, answer, Source::Client, now);
                }
                taken
            });
            if !taken {
                return Err(Refusal::new(
                    "overloaded",
                    "too many messages wait for their copies",
                ));
            }
        }
        outcome
            .await
            .map_err(|_| Refusal::new("stopping", "this node is going away"))?
    }
}

impl Node {
    /// The time by which this node goes. One that finds that it was stopped has first to learn what was
    /// said meanwhile.
    pub(super) fn now(&mut self) -> Now {
        let now = self.clock.now();
        let stopped = self.clock.woke();
        self.core.slept(stopped);
        let now = self.core.time(now);
        if !stopped.is_zero() {
            // By its own clock, which stood still, it is not time yet; the others' did not.
            self.core.ask_beat(now);
        }
        if stopped >= CATCH_UP_AFTER {
            self.catch_up(now);
        }
        now
    }

    /// Takes no send and no join before it holds what its peers hold now.
    fn catch_up(&mut self, now: Now) {
        self.ready.send_replace(false);
        self.read_nobody(true);
        self.core.catch_up(now);
        self.carry_out(now);
    }

    /// Whether what clients say is taken now.
    pub(crate) fn takes_clients(&self) -> bool {
        self.core.is_ready() && !self.core.is_catching_up()
    }

    /// What was said while this node was stopped is here.
    pub(super) fn caught_up(&mut self) {
        tracing::info!("caught up with the others: takes what clients say again");
        self.ready.send_replace(self.takes_clients());
        self.read_nobody(!self.takes_clients());
    }
}
