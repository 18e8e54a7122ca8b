//! The program as the simulator runs it: the core and the clients, as the shell has them. All that comes
//! to a node comes through these, as it does in the shell, and all that it does is taken from them. What it
//! shows is looked at as it is.

use std::ops::Deref;
use std::time::Duration;

use base::serve::Admission;
use rand::rngs::StdRng;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clients::socket::{Pipe, Told};
use crate::clients::{Clients, Said};
use crate::core::copies::Ticket;
use crate::core::journal::Loaded;
use crate::core::links::Target;
use crate::core::memory::{MemoryStore, Retention};
use crate::core::question::{Found, Question, ReadError};
use crate::core::{Core, CoreOptions, Identity, Input, Now, Output, Say};
use crate::wire::protocol::Refusal;

/// What becomes of something said over HTTP.
pub(super) type Posted = oneshot::Receiver<Result<Said, Refusal>>;
/// What is found for a peer.
pub(super) type Answered = oneshot::Receiver<Result<Found, ReadError>>;

/// What one node runs.
#[derive(Debug)]
pub(super) struct Program {
    core: Core,
    clients: Clients,
}

/// What it shows; nothing comes in this way.
impl Deref for Program {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl Program {
    pub(super) fn new(
        me: Identity,
        fixed: Vec<Target>,
        retention: Retention,
        rng: StdRng,
        now: Now,
    ) -> Self {
        let store = MemoryStore::new(retention);
        let options = CoreOptions {
            own: vec![me.publisher.clone()],
            fixed,
            ..CoreOptions::of(me)
        };
        // Its clients' pipes are not registered there.
        let poll = mio::Poll::new().and_then(|poll| poll.registry().try_clone());
        let readiness = poll.expect("a few descriptors for each node");
        Self {
            core: Core::new(options, store, rng, now),
            clients: Clients::new(readiness, usize::MAX, 0, false),
        }
    }

    /// What its machine's disk kept, before all else.
    pub(super) fn restore(&mut self, now: Now, loaded: Loaded) {
        self.core.restore(now, loaded);
    }

    /// The time that the node makes of what its clocks show, when its process was stopped for so long
    /// before.
    pub(super) fn time(&mut self, clocks: Now, stopped: Duration) -> Now {
        self.core.time(clocks, stopped)
    }

    /// Something comes.
    pub(super) fn handle(&mut self, input: Input<'_>, now: Now) {
        self.core.handle(input, now);
    }

    /// A client comes, and has said something already.
    pub(super) fn adopt(&mut self, pipe: Pipe, begun: &[u8], now: Now) {
        let seat = self.clients.seats().take().expect("there is no limit");
        let comes = (pipe, (Admission::default(), seat));
        let adopted = self.clients.adopt(&mut self.core, comes, begun, None, now);
        adopted.expect("a pipe fails in nothing");
    }

    /// A client's pipe has something, or room, or has ended.
    pub(super) fn ready(&mut self, told: Told, now: Now) {
        self.clients.ready(&mut self.core, told, now);
    }

    /// Something is said over HTTP; what `say` names as its ticket is replaced.
    pub(super) fn post(&mut self, say: Say<'_>, now: Now) -> Posted {
        let (answer, outcome) = oneshot::channel();
        let posted = self.clients.post(&mut self.core, say, answer, now);
        posted.expect("few wait");
        outcome
    }

    /// A task of the node asks something.
    pub(super) fn ask(&mut self, question: Question, now: Now) -> Answered {
        let (answer, found) = oneshot::channel();
        let asks = (question, answer);
        let gone = CancellationToken::new();
        let asked = self.clients.ask_for_task(&mut self.core, asks, gone, now);
        asked.expect("few wait");
        found
    }

    /// For which client's entering something is read, as its pipe is registered.
    pub(super) fn enters(&self, ticket: Ticket) -> Option<mio::Token> {
        self.clients.enters(ticket)
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self, now: Now) {
        self.clients.begin_turn(&mut self.core, now);
    }

    /// The time has come for which the core asked, if it has.
    pub(super) fn tick_if_due(&mut self, now: Now) {
        if now.mono >= self.core.deadline() {
            self.tick(now);
        }
    }

    /// Time goes on.
    pub(super) fn tick(&mut self, now: Now) {
        self.core.handle(Input::Tick, now);
        self.clients.ticked();
    }

    /// Whether there is something for clients.
    pub(super) fn has_output(&self) -> bool {
        self.clients.has_output()
    }

    /// A turn ends: what it brought is written to clients.
    pub(super) fn end_turn(&mut self, now: Now) {
        self.clients.end_turn(&mut self.core, now);
    }

    /// When there is something to do without anything that comes. The look at those who are silent waits
    /// until then: a node does something each second.
    pub(super) fn due(&self) -> Duration {
        if self.clients.has_output() {
            return Duration::ZERO;
        }
        self.core.deadline().min(self.clients.reads_due(&self.core))
    }

    /// All that it wants of others than clients, in order, and what clients are told in its place, to be
    /// judged.
    pub(super) fn settle(&mut self, now: Now) -> Vec<Output> {
        self.clients.settle(&mut self.core, now);
        self.clients.take_beyond(Vec::new())
    }
}
