//! Patterns of rooms: one room, or all rooms whose names begin alike.
//!
//! Of two patterns one holds all rooms of the other, or they share none: there is nothing between. So of
//! the patterns of one client those that no other of them holds are disjoint, and hear all.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::names::{InvalidName, RoomName, room_beginning};

/// Some rooms by their names: exact, or ending in `*`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Pattern {
    /// This room.
    Room(RoomName),
    /// All rooms whose names begin so, as they are normalised; with nothing all rooms.
    Beginning(Arc<str>),
}

impl Pattern {
    /// Whether a room is one of these.
    pub(crate) fn has(&self, room: &RoomName) -> bool {
        match self {
            Self::Room(own) => own == room,
            Self::Beginning(beginning) => room.as_str().starts_with(&**beginning),
        }
    }

    /// Whether all rooms of another pattern are among these.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Room(room)) => self.has(room),
            (Self::Beginning(own), Self::Beginning(other)) => other.starts_with(&**own),
            (Self::Room(_), Self::Beginning(_)) => false,
        }
    }

    /// What the names of its rooms begin with.
    pub(crate) fn beginning(&self) -> &str {
        match self {
            Self::Room(room) => room.as_str(),
            Self::Beginning(beginning) => beginning,
        }
    }
}

impl From<RoomName> for Pattern {
    fn from(room: RoomName) -> Self {
        Self::Room(room)
    }
}

impl FromStr for Pattern {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let pattern = match text.strip_suffix('*') {
            Some(beginning) => {
                room_beginning(beginning).map(|beginning| Self::Beginning(beginning.into()))
            }
            None => return text.parse().map(Self::Room).map_err(InvalidName::pattern),
        };
        pattern.map_err(InvalidName::Pattern)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(room) => room.fmt(f),
            Self::Beginning(beginning) => write!(f, "{beginning}*"),
        }
    }
}

impl serde::Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// The rooms of which a client wants to have what it has missed.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// These,
    pub(crate) rooms: Pattern,
    /// but for those of which it has all.
    pub(crate) except: Vec<Pattern>,
}

impl Scope {
    /// Whether a room is one of these.
    pub(crate) fn has(&self, room: &RoomName) -> bool {
        self.rooms.has(room) && !self.except.iter().any(|pattern| pattern.has(room))
    }

    /// Whether there is no such room.
    pub(crate) fn is_empty(&self) -> bool {
        let mut except = self.except.iter();
        except.any(|pattern| pattern.holds(&self.rooms))
    }

    /// The room, if it is one by its name.
    pub(crate) fn room(&self) -> Option<&RoomName> {
        match &self.rooms {
            Pattern::Room(room) => Some(room),
            Pattern::Beginning(_) => None,
        }
    }
}

impl<P: Into<Pattern>> From<P> for Scope {
    fn from(rooms: P) -> Self {
        Self {
            rooms: rooms.into(),
            except: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_is_exact_or_ends_in_a_star() {
        let room = |name: &str| name.parse::<RoomName>().unwrap();
        assert!(pattern("chat.*").has(&room("chat.one")));
        assert!(pattern("chat.*").has(&room("chat.")));
        assert!(!pattern("chat.*").has(&room("chat")));
        assert!(pattern("*").has(&room("chat")));
        assert!(pattern("chat").has(&room("chat")) && !pattern("chat").has(&room("chat.")));
        assert!(pattern(".*").has(&room(".hidden")) && pattern("..*").has(&room("...")));
        // Both are spelled in one way.
        assert!(pattern("cafe\u{301}*").has(&room("caf\u{e9}s")));
        assert!(!pattern("cafe*").has(&room("caf\u{e9}")));
        let longest = "x".repeat(64);
        assert!(pattern(&format!("{longest}*")).has(&room(&longest)));
        for text in ["*", "chat.*", "chat", "Grüße*"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = "x".repeat(65);
        let endless = "x".repeat(1 << 20);
        for text in [
            "",
            "a*b",
            "**",
            "a**",
            "*a",
            "a b*",
            ".",
            "..",
            "a/*",
            "a\u{0}*",
            "\u{200b}*",
            "é\u{20dd}*",
            "chat.?",
            "[a]*",
            &long,
            &format!("{long}*"),
            &format!("{endless}*"),
        ] {
            let why = text.parse::<Pattern>().unwrap_err();
            assert_eq!(why.code(), "pattern_invalid", "{why}");
            assert!(why.to_string().len() < 300, "{why}");
        }
    }

    proptest! {
        /// One holds another exactly if it has all its rooms, and two that share a room are one in the
        /// other: on this rests that a client hears each message once.
        #[test]
        fn two_patterns_that_share_a_room_are_one_in_the_other(
            names in prop::collection::vec("[ab.]{1,3}x", 1..12),
            one in "([ab.]{1,3}x|[ab.]{0,3}\\*)",
            other in "([ab.]{1,3}x|[ab.]{0,3}\\*)",
        ) {
            let (one, other) = (pattern(&one), pattern(&other));
            let rooms: Vec<RoomName> = names.iter().map(|name| name.parse().unwrap()).collect();
            for room in &rooms {
                if one.has(room) && other.has(room) {
                    prop_assert!(one.holds(&other) || other.holds(&one));
                }
                if one.holds(&other) && other.has(room) {
                    prop_assert!(one.has(room));
                }
            }
        }
    }
}
