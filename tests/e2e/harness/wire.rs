//! The objects of `chat.v1`, as the contract writes them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Messages whose mids a client remembers to have been shown; a node asks for no more at once.
const SHOWN_MAX: usize = 10_000;

/// A message as clients get it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Msg {
    pub(crate) room: String,
    pub(crate) id: String,
    pub(crate) mid: Option<String>,
    pub(crate) from: String,
    pub(crate) ts: u64,
    pub(crate) text: String,
}

impl Msg {
    /// The origin in its id.
    pub(crate) fn origin(&self) -> &str {
        self.id.split_once('.').map_or("", |(origin, _)| origin)
    }

    /// The number in its id.
    pub(crate) fn seq(&self) -> u64 {
        self.id
            .split_once('.')
            .and_then(|(_, seq)| seq.parse().ok())
            .unwrap_or(0)
    }

    /// Its place in the one order.
    pub(crate) fn place(&self) -> (u64, &str) {
        (self.ts, self.origin())
    }
}

/// The reply to a join.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Joined {
    /// Absent where nothing was asked to be recovered.
    pub(crate) recovered: Option<bool>,
    pub(crate) at: Vec<String>,
    pub(crate) messages: Vec<Msg>,
    /// Of a join; a watch has none.
    #[serde(default)]
    pub(crate) members: Vec<String>,
    #[serde(default)]
    pub(crate) count: u64,
}

/// What a client was shown, for a node that asks for the mids of what nobody has any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown(VecDeque<Msg>);

impl Shown {
    /// A message was shown.
    pub(crate) fn note(&mut self, message: &Msg) {
        if message.mid.is_some() {
            self.0.push_back(message.clone());
        }
        if self.0.len() > SHOWN_MAX {
            self.0.pop_front();
        }
    }

    /// The mids of all of these origins' messages behind these numbers, by room.
    pub(crate) fn behind(&self, ids: &Position) -> BTreeMap<&str, Vec<&str>> {
        let asked = |message: &&Msg| {
            let behind = ids.0.get(message.origin());
            behind.is_some_and(|&seq| message.seq() > seq)
        };
        let asked = self.0.iter().filter(asked);
        let mut mids: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for message in asked {
            let of_room = mids.entry(&message.room).or_default();
            of_room.extend(message.mid.as_deref());
        }
        mids
    }
}

/// The reply to a send.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) ts: u64,
    pub(crate) copies: u64,
}

impl Sent {
    /// The origin in its id.
    pub(crate) fn origin(&self) -> &str {
        self.id.split_once('.').map_or("", |(origin, _)| origin)
    }
}

/// The reply to a request that was refused.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Refused {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) retry_ms: Option<u64>,
    /// Of `mids_wanted`.
    #[serde(default)]
    pub(crate) behind: Vec<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {} ({})", self.code, self.message)
    }
}

impl std::error::Error for Refused {}

/// The last number held of each origin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position(BTreeMap<String, u64>);

impl Position {
    /// From a list of ids.
    pub(crate) fn parse(ids: &[String]) -> Result<Self> {
        let mut position = Self::default();
        for id in ids {
            let (origin, seq) = id
                .split_once('.')
                .with_context(|| format!("no id: {id:?}"))?;
            position.0.insert(origin.to_owned(), seq.parse()?);
        }
        Ok(position)
    }

    /// Whether this message is at or before it.
    pub(crate) fn covers(&self, message: &Msg) -> bool {
        self.0
            .get(message.origin())
            .is_some_and(|&seq| message.seq() <= seq)
    }

    /// Whether the message of this id is at or before it.
    pub(crate) fn covers_id(&self, id: &str) -> bool {
        let parts = id.split_once('.');
        parts.is_some_and(|(origin, seq)| {
            let last = self.0.get(origin);
            last.is_some_and(|&last| seq.parse().is_ok_and(|seq: u64| seq <= last))
        })
    }

    /// Whether both have the same number of each origin that both know.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let known = |(origin, seq): (&String, &u64)| Some((other.0.get(origin)?, *seq));
        let mut both = self.0.iter().filter_map(known);
        both.all(|(theirs, own)| *theirs == own)
    }

    /// The last number of an origin; 0 if there is none.
    pub(crate) fn of(&self, origin: &str) -> u64 {
        self.0.get(origin).copied().unwrap_or_default()
    }

    /// Takes a message in, as a client does that keeps the highest id of each origin.
    pub(crate) fn advance(&mut self, message: &Msg) {
        let seq = self.0.entry(message.origin().to_owned()).or_default();
        *seq = (*seq).max(message.seq());
    }

    /// Takes another position in.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (origin, &seq) in &other.0 {
            let held = self.0.entry(origin.clone()).or_default();
            *held = (*held).max(seq);
        }
    }

    /// Whether it is nowhere behind another.
    pub(crate) fn reaches(&self, other: &Self) -> bool {
        let mut due = other.0.iter();
        due.all(|(origin, &seq)| self.of(origin) >= seq)
    }

    /// As a list of ids.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(origin, seq)| format!("{origin}.{seq}"))
            .collect()
    }
}
