//! Who of a mesh bridges, and what has to go to either side.
//!
//! All nodes with the same bridge hear the foreign channel and each other. One bridges; the others keep, for
//! [`KEPT_FOR`], what of either side they have not seen on the other: when the one is gone, another brings
//! that too. Texts have no names there, so they are counted: of each text how often it was heard on the
//! channel, said by the mesh, and taken in from the channel. In the end the first is the sum of the others.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::core::SILENCE_MAX;
use crate::model::names::Origin;

/// How often a node says at the broker that it is there.
pub(super) const PRESENT_EVERY: Duration = Duration::from_millis(500);
/// Whoever is there has been heard after so long.
const MET_AFTER: Duration = Duration::from_millis(1500);
/// What was seen on one side only is brought to the other for so long.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// Texts that were seen on one side only, and their bytes; of more the oldest are dropped.
pub(crate) const TEXTS_MAX: usize = 4096;
pub(crate) const TEXT_BYTES_MAX: usize = 8 << 20;
/// Nodes that have the same bridge, as far as they are told apart.
const PEERS_MAX: usize = 256;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Say this on the foreign channel.
    Publish(String),
    /// Take this in, as a message of this node.
    Take(String),
}

/// What a node says of itself to those that have the same bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// It bridges.
    Bridges,
    /// It would.
    Waits,
    /// It takes no clients now, and cannot.
    Cannot,
    /// It ends.
    Goes,
}

impl Stand {
    const BYTES: [(u8, Self); 4] = [
        (b'b', Self::Bridges),
        (b'w', Self::Waits),
        (b'n', Self::Cannot),
        (b'g', Self::Goes),
    ];

    /// As it is said: a byte, and who.
    pub(super) fn said_by(self, me: Origin) -> Vec<u8> {
        let byte = Self::BYTES.iter().find(|(_, stand)| *stand == self);
        let byte = byte.map_or(b'n', |(byte, _)| *byte);
        [&[byte], &me.as_bytes()[..]].concat()
    }

    /// Who says what.
    pub(super) fn read(bytes: &[u8]) -> Option<(Origin, Self)> {
        let (byte, origin) = bytes.split_first()?;
        let (_, stand) = Self::BYTES.iter().find(|(it, _)| it == byte)?;
        Some((Origin::from_bytes(origin.try_into().ok()?)?, *stand))
    }
}

/// How often a text was seen, and what was done about it.
#[derive(Debug, Default)]
struct Seen {
    text: String,
    at: Duration,
    /// When this node published it last.
    published_at: Duration,
    /// On the foreign channel.
    heard: u32,
    /// Of a client of the mesh, and what came into it by this bridge.
    said: u32,
    foreign: u32,
    /// Said there by this node and not heard there yet; taken in and not shown yet.
    published: u32,
    taken: u32,
}

impl Seen {
    fn lacks_there(&self) -> u32 {
        let more = (self.said + self.foreign).saturating_sub(self.heard);
        self.said.min(more).saturating_sub(self.published)
    }

    fn lacks_here(&self) -> u32 {
        let more = self.heard.saturating_sub(self.said + self.foreign);
        more.saturating_sub(self.taken)
    }

    fn is_even(&self) -> bool {
        self.heard == self.said + self.foreign && self.published + self.taken == 0
    }
}

/// The state of one bridge.
#[derive(Debug)]
pub(super) struct Plan {
    me: Origin,
    seen: BTreeMap<u64, Seen>,
    by_text: HashMap<String, u64>,
    next: u64,
    bytes: usize,
    /// Texts that had no room.
    pub(super) dropped: u64,
    peers: BTreeMap<Origin, (Duration, Stand)>,
    /// Since when the broker brings all.
    since: Option<Duration>,
    /// When the last own word came back.
    echo: Option<Duration>,
    bridges: bool,
    can: bool,
}

impl Plan {
    pub(super) fn new(me: Origin) -> Self {
        Self {
            me,
            seen: BTreeMap::new(),
            by_text: HashMap::new(),
            next: 0,
            bytes: 0,
            dropped: 0,
            peers: BTreeMap::new(),
            since: None,
            echo: None,
            bridges: false,
            can: false,
        }
    }

    /// The connections stand, and bring all from now on.
    pub(super) fn begin(&mut self, now: Duration) {
        self.since = Some(now);
        self.echo = None;
        self.peers.clear();
        // What was on its way may be lost.
        for seen in self.seen.values_mut() {
            seen.published = 0;
        }
    }

    /// They are gone.
    pub(super) fn end(&mut self) {
        self.since = None;
        self.bridges = false;
    }

    pub(super) fn bridges(&self) -> bool {
        self.bridges
    }

    pub(super) fn stand(&self) -> Stand {
        match (self.bridges, self.can) {
            (true, _) => Stand::Bridges,
            (false, true) => Stand::Waits,
            (false, false) => Stand::Cannot,
        }
    }

    /// A node says that it is there.
    pub(super) fn present(&mut self, origin: Origin, stand: Stand, now: Duration) {
        if origin == self.me {
            self.echo = Some(now);
            return;
        }
        let Some(since) = self.since else { return };
        if stand == Stand::Goes {
            self.peers.remove(&origin);
            return;
        }
        let known = self.peers.contains_key(&origin);
        if stand == Stand::Bridges && !known && now < since + MET_AFTER {
            // It has bridged what this node kept while it was away.
            self.forget_all();
        }
        if known || self.peers.len() < PEERS_MAX {
            self.peers.insert(origin, (now, stand));
        }
    }

    /// A text came on the foreign channel.
    pub(super) fn heard(&mut self, text: &str, now: Duration) -> Vec<Act> {
        self.see(text, now, |seen| {
            seen.heard += 1;
            seen.published = seen.published.saturating_sub(1);
        })
    }

    /// A message is shown in the mesh: one that a client said, or that came in by this bridge.
    pub(super) fn shown(&mut self, text: &str, foreign: bool, now: Duration) -> Vec<Act> {
        self.see(text, now, |seen| match foreign {
            true => {
                seen.foreign += 1;
                seen.taken = seen.taken.saturating_sub(1);
            }
            false => seen.said += 1,
        })
    }

    /// Time has passed; `can` is whether this node takes clients.
    pub(super) fn tick(&mut self, can: bool, now: Duration) -> Vec<Act> {
        self.can = can;
        self.peers.retain(|_, (at, _)| now < *at + SILENCE_MAX);
        let old = |seen: &&Seen| now >= seen.at + KEPT_FOR;
        while let Some((nth, _)) = self.seen.iter().next().filter(|(_, seen)| old(seen)) {
            let nth = *nth;
            self.forget(nth);
        }
        let was = self.bridges;
        let mut others = self
            .peers
            .iter()
            .filter(|(_, (_, at))| *at != Stand::Cannot);
        let is_first = |origin: &Origin| self.me < *origin;
        let bridging = |(_, (_, stand)): &(_, &(Duration, Stand))| *stand == Stand::Bridges;
        let proven = self.echo.is_some() && self.since.is_some_and(|at| now >= at + MET_AFTER);
        self.bridges = can
            && if was {
                others.filter(bridging).all(|(origin, _)| is_first(origin))
            } else {
                proven && others.all(|other| is_first(other.0) && !bridging(&other))
            };
        let mut acts = Vec::new();
        if self.bridges && !was {
            let all: Vec<u64> = self.seen.keys().copied().collect();
            all.into_iter()
                .for_each(|nth| self.act(nth, now, &mut acts));
        }
        acts
    }

    /// Whether what this node says there does not come back.
    pub(super) fn is_deaf(&self, now: Duration) -> bool {
        let last = self.echo.max(self.since);
        let silent = last.is_some_and(|last| now >= last + SILENCE_MAX);
        let mut lost = self.seen.values().filter(|seen| seen.published > 0);
        silent || self.bridges && lost.any(|seen| now >= seen.published_at + SILENCE_MAX)
    }

    fn see(&mut self, text: &str, now: Duration, count: impl FnOnce(&mut Seen)) -> Vec<Act> {
        let nth = self.by_text.get(text).copied();
        let nth = nth.unwrap_or_else(|| self.begin_with(text, now));
        let mut acts = Vec::new();
        if let Some(seen) = self.seen.get_mut(&nth) {
            count(seen);
        }
        if self.bridges {
            self.act(nth, now, &mut acts);
        }
        if self.seen.get(&nth).is_some_and(Seen::is_even) {
            self.forget(nth);
        }
        acts
    }

    fn begin_with(&mut self, text: &str, now: Duration) -> u64 {
        self.bytes += text.len();
        let seen = Seen {
            text: text.to_owned(),
            at: now,
            ..Seen::default()
        };
        let nth = self.next;
        self.next += 1;
        self.seen.insert(nth, seen);
        self.by_text.insert(text.to_owned(), nth);
        while self.seen.len() > TEXTS_MAX || self.bytes > TEXT_BYTES_MAX && self.seen.len() > 1 {
            let Some((&oldest, _)) = self.seen.first_key_value() else {
                break;
            };
            self.forget(oldest);
            self.dropped += 1;
        }
        nth
    }

    /// Does what a text lacks on either side.
    fn act(&mut self, nth: u64, now: Duration, acts: &mut Vec<Act>) {
        let Some(seen) = self.seen.get_mut(&nth) else {
            return;
        };
        let (there, here) = (seen.lacks_there(), seen.lacks_here());
        seen.published += there;
        seen.published_at = now;
        seen.taken += here;
        acts.extend((0..there).map(|_| Act::Publish(seen.text.clone())));
        acts.extend((0..here).map(|_| Act::Take(seen.text.clone())));
    }

    fn forget(&mut self, nth: u64) {
        if let Some(seen) = self.seen.remove(&nth) {
            self.bytes -= seen.text.len();
            self.by_text.remove(&seen.text);
        }
    }

    fn forget_all(&mut self) {
        self.seen.clear();
        self.by_text.clear();
        self.bytes = 0;
    }
}
