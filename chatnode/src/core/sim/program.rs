//! The program as the simulator runs it: all that comes to a node's core goes through here, and
//! what it shows is looked at as it is. Who changes how the core is called changes this file.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::time::Duration;

use rand::rngs::StdRng;

use crate::core::archive::{Archive, Need};
use crate::core::journal::{Batch, Loaded};
use crate::core::members::Snapshot;
use crate::core::memory::{MemoryStore, Retention};
use crate::core::named::{Named, NamedBudget};
use crate::core::news::{Beat, News};
use crate::core::repair::FetchId;
use crate::core::resumed::Resumed;
use crate::core::{Core, CoreOptions, Identity, LogPage, Now, Output, Say};
use crate::model::names::{EntryId, Mid, Origin, RoomName, UserName};

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

/// What a client that enters has seen, and what was read for it.
#[derive(Debug, Default)]
pub(super) struct Entering {
    /// The position that it has.
    pub(super) since: Option<Vec<EntryId>>,
    /// The mids of what it has seen behind these, if it names them.
    pub(super) named: Option<Vec<EntryId>>,
    pub(super) mids: Vec<Mid>,
    /// What its node has read, and how often.
    pub(super) archive: Archive,
    pub(super) reads: usize,
    /// Whether one of them took too long.
    pub(super) slow: bool,
}

impl Program {
    pub(super) fn new(me: Identity, retention: Retention, rng: StdRng, now: Now) -> Self {
        let store = MemoryStore::new(retention);
        Self(Core::new(CoreOptions::of(me), store, rng, now))
    }

    /// The time that the node makes of what its clocks show.
    pub(super) fn time(&mut self, clocks: Now) -> Now {
        let now = self.0.time(clocks, Duration::ZERO);
        self.0.look(now);
        now
    }

    pub(super) fn tick(&mut self, now: Now) {
        self.0.tick(now);
    }

    /// All that it wants done, in order.
    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        self.0.take_outputs(Vec::new())
    }

    /// What it decided to ask of others by now is asked.
    pub(super) fn send_requests(&mut self, now: Now) {
        self.0.send_requests(now);
    }

    /// Its process was stopped for so long, and its clock with it: it catches up if that was long.
    pub(super) fn woke(&mut self, clocks: Now, stopped: Duration) {
        self.0.time(clocks, stopped);
    }

    // Of the others.

    pub(super) fn expect(&mut self, now: Now, listed: BTreeSet<Origin>) {
        self.0.expect(now, listed);
    }

    pub(super) fn listed(&mut self, now: Now, others: Option<&BTreeSet<Origin>>) {
        self.0.listed(now, others);
    }

    pub(super) fn greeted(&mut self, now: Now, who: Origin, there: bool) {
        self.0.greeted(now, who, there);
    }

    pub(super) fn ask_beat(&mut self, now: Now) {
        self.0.ask_beat(now);
    }

    pub(super) fn linked(&mut self, now: Now, peer: Origin) {
        self.0.linked(now, peer);
    }

    pub(super) fn unlinked(&mut self, now: Now, peer: Origin) {
        self.0.unlinked(now, peer);
    }

    pub(super) fn news(&mut self, now: Now, from: Origin, news: News) {
        self.0.news(now, from, news);
    }

    pub(super) fn fetched(&mut self, now: Now, fetch: FetchId, page: Option<LogPage>) {
        self.0.fetched(now, fetch, page);
    }

    pub(super) fn members_fetched(&mut self, of: Origin, snapshot: Option<Snapshot>) {
        self.0.members_fetched(of, snapshot);
    }

    pub(super) fn position_told(&mut self, now: Now, from: Origin, told: Option<&Beat>) {
        self.0.position_told(now, from, told);
    }

    pub(super) fn beat(&mut self, now: Now) -> Beat {
        self.0.beat(now)
    }

    pub(super) fn call_roll(&mut self, now: Now) -> u64 {
        self.0.call_roll(now)
    }

    // Of clients.

    pub(super) fn say(&mut self, now: Now, say: Say<'_>) {
        self.0.say(now, say);
    }

    pub(super) fn enter(&mut self, room: &RoomName, name: &UserName) {
        self.0.enter(room, name);
    }

    pub(super) fn leave(&mut self, room: &RoomName, name: &UserName) {
        self.0.leave(room, name);
    }

    /// What a client gets that enters.
    ///
    /// # Errors
    /// What has to be read or asked first.
    pub(super) fn resume(
        &self,
        room: &RoomName,
        entering: &Entering,
        history: usize,
    ) -> Result<Resumed, Need> {
        let mut named = Named {
            behind: entering.named.clone(),
            ..Named::default()
        };
        let budget = NamedBudget::default();
        let added = named
            .mids
            .add(entering.mids.clone(), &budget, Duration::MAX);
        added.expect("a client of the simulator has not seen so much");
        let since = entering.since.as_deref();
        self.0
            .resume(room, since, &mut named, history, &entering.archive)
    }

    /// It was let in, with all beyond its position.
    pub(super) fn has_resumed(&mut self, entering: &Entering) {
        self.0.has_resumed(entering.since.as_deref());
    }

    // Of the disk.

    pub(super) fn restore(&mut self, now: Now, loaded: Loaded) {
        self.0.restore(now, loaded);
    }

    pub(super) fn next_batch(&mut self, now: Now) -> Option<Batch> {
        self.0.next_batch(now)
    }

    pub(super) fn stored(&mut self, now: Now) {
        self.0.stored(now);
    }

    pub(super) fn disk_full(&mut self, now: Now) {
        self.0.disk_full(now);
    }

    pub(super) fn disk_broken(&mut self) {
        self.0.disk_broken();
    }

    pub(super) fn disk_trimmed(&mut self, now: Now, floors: Vec<(Origin, u64)>) {
        self.0.disk_trimmed(now, floors);
    }
}
