//! Which client ids were seen: what makes a retry no second message.

use std::collections::{HashMap, VecDeque};

use super::entry::{Entry, Place};
use super::names::{EntryId, Mid};

/// How long a mid is known at least, though its entry was trimmed. Microseconds.
pub const MID_KEPT_US: u64 = 5 * 60 * 1_000_000;
/// Mids of trimmed entries that are known at the most; the oldest is forgotten first.
pub const MIDS_TRIMMED_MAX: usize = 500_000;

/// What is known of a mid.
#[derive(Debug, Clone)]
struct Use {
    shown: Place,
    id: EntryId,
    /// Other entries with the same mid, which are not shown: retries through other nodes.
    hidden: Vec<EntryId>,
}

/// What to do with an entry because of its mid.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody said this before: show it and deliver it.
    First,
    /// Another entry with this mid stands earlier in the order: do not show this one.
    Repeats,
    /// It stands earlier than the one that is shown: it takes that one's place in the transcript.
    /// Clients have had the message.
    Replaces(Place),
}

/// The mids of the entries held, and of those trimmed not long ago.
#[derive(Debug, Default)]
pub struct Mids {
    uses: HashMap<Mid, Use>,
    trimmed: VecDeque<(u64, Mid)>,
}

impl Mids {
    /// The entry that a mid stands for: its id and timestamp.
    pub fn get(&self, mid: &Mid) -> Option<(EntryId, u64)> {
        self.uses.get(mid).map(|known| (known.id, known.shown.ts))
    }

    /// Notes an accepted entry. Every node that holds the same entries shows the same ones.
    pub fn note(&mut self, entry: &Entry) -> Verdict {
        let Some(mid) = &entry.mid else {
            return Verdict::First;
        };
        let Some(known) = self.uses.get_mut(mid) else {
            let fresh = Use {
                shown: entry.place(),
                id: entry.id(),
                hidden: Vec::new(),
            };
            self.uses.insert(mid.clone(), fresh);
            return Verdict::First;
        };
        if known.shown <= entry.place() {
            if known.id != entry.id() {
                known.hidden.push(entry.id());
            }
            return Verdict::Repeats;
        }
        let replaced = known.shown;
        known.hidden.push(known.id);
        known.shown = entry.place();
        known.id = entry.id();
        Verdict::Replaces(replaced)
    }

    /// Other entries that said the same as this one.
    pub fn repeats(&self, entry: &Entry) -> &[EntryId] {
        let known = entry.mid.as_ref().and_then(|mid| self.uses.get(mid));
        known.map_or(&[], |known| &known.hidden)
    }

    /// Notes that an entry was trimmed: its mid is known for five minutes more at least.
    pub fn trimmed(&mut self, entry: &Entry) {
        let Some(mid) = &entry.mid else { return };
        if self
            .uses
            .get(mid)
            .is_some_and(|known| known.id == entry.id())
        {
            self.trimmed.push_back((entry.ts, mid.clone()));
        }
    }

    /// Forgets the mids of trimmed entries that are old enough, or too many.
    pub fn expire(&mut self, wall_us: u64) {
        while let Some((ts, _)) = self.trimmed.front() {
            let old = ts.saturating_add(MID_KEPT_US) < wall_us;
            if !old && self.trimmed.len() <= MIDS_TRIMMED_MAX {
                break;
            }
            if let Some((_, mid)) = self.trimmed.pop_front() {
                self.uses.remove(&mid);
            }
        }
    }
}
