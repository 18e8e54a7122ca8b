//! Who waits to hear that others hold an entry.

use std::time::Duration;

use super::names::EntryId;

/// How long a send waits for its copies.
pub const COPIES_WAIT_MAX: Duration = Duration::from_secs(2);
/// Sends that wait at the most; beyond, a send is answered at once with the copies there are.
pub const COPIES_WAITING_MAX: usize = 65_536;

/// Names a request of the rim's, so that its outcome finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A send that waits.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// Whom to tell.
    pub ticket: Ticket,
    /// For which entry.
    pub id: EntryId,
    /// The entry's timestamp, for the reply.
    pub ts: u64,
    /// How many copies.
    pub need: usize,
    /// When to answer whatever has come.
    pub until: Duration,
}

/// Sends that wait.
#[derive(Debug, Default)]
pub struct Waits {
    waits: Vec<Wait>,
}

impl Waits {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// Adds one; `false` if too many wait.
    pub fn add(&mut self, wait: Wait) -> bool {
        let room = self.waits.len() < COPIES_WAITING_MAX;
        if room {
            self.waits.push(wait);
        }
        room
    }

    /// Takes those that have their copies, or that waited long enough, in the order they came.
    pub fn settle(
        &mut self,
        now: Duration,
        copies: impl Fn(EntryId) -> usize,
        mut settled: impl FnMut(Wait, usize),
    ) {
        self.waits.retain(|wait| {
            let copies = copies(wait.id);
            let done = copies >= wait.need || now >= wait.until;
            if done {
                settled(*wait, copies);
            }
            !done
        });
    }
}
