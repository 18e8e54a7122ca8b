//! The program as the simulator runs it: all that comes to a node comes through [`Program::handle`], as
//! it does in the shell, and all that it does is taken from it. What it shows is looked at as it is.

use std::ops::Deref;
use std::time::Duration;

use rand::rngs::StdRng;

use crate::core::journal::Loaded;
use crate::core::memory::{MemoryStore, Retention};
use crate::core::{Core, CoreOptions, Identity, Input, Now, Output};

/// What one node runs.
#[derive(Debug)]
pub(super) struct Program(Core);

/// What it shows; nothing comes in this way.
impl Deref for Program {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.0
    }
}

impl Program {
    pub(super) fn new(me: Identity, retention: Retention, rng: StdRng, now: Now) -> Self {
        let store = MemoryStore::new(retention);
        let options = CoreOptions {
            own: vec![me.publisher.clone()],
            ..CoreOptions::of(me)
        };
        Self(Core::new(options, store, rng, now))
    }

    /// What its machine's disk kept, before all else.
    pub(super) fn restore(&mut self, now: Now, loaded: Loaded) {
        self.0.restore(now, loaded);
    }

    /// The time that the node makes of what its clocks show, when its process was stopped for so long
    /// before.
    pub(super) fn time(&mut self, clocks: Now, stopped: Duration) -> Now {
        self.0.time(clocks, stopped)
    }

    /// Something comes.
    pub(super) fn handle(&mut self, input: Input<'_>, now: Now) {
        self.0.handle(input, now);
    }

    /// All that it wants done, in order.
    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        self.0.take_outputs(Vec::new())
    }
}
