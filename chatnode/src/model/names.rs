//! Names: parsed once at the door, valid ever after.
//!
//! Every name a stranger can send becomes one of these types or an [`InvalidName`], so that no
//! code behind the door checks again, and that two spellings of one name are one name.

mod spelling;

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rand::{Rng, RngExt as _};

/// Longest room name, in characters.
pub(crate) const ROOM_CHARS_MAX: usize = 64;
/// Longest user name, in characters.
pub(crate) const NAME_CHARS_MAX: usize = 32;
/// Longest `mid`, in characters.
pub(crate) const MID_CHARS_MAX: usize = 64;
/// Combining marks that may stand above and below one character of a name. More would climb over
/// other lines, and no language needs them (UTS #39, 5.4).
const NAME_MARKS_MAX: usize = 4;

/// Why a name was refused. Nothing changed; the sender must choose another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidName {
    /// Not letters with their marks, digits and `._-`, 1 to 64; or one of the path words `.` and `..`.
    #[error("a room is 1 to 64 letters, digits, '.', '_' or '-', and not '.' or '..': {0}")]
    Room(String),
    /// Neither a room nor the beginning of rooms with `*` behind it.
    #[error("a pattern is a room, or what rooms begin with and a '*' at its end: {0}")]
    Pattern(String),
    /// Empty, too long, or with a character that cannot be seen or that reorders its surroundings.
    #[error("a name is 1 to 32 visible characters: {0}")]
    User(String),
    /// Empty or too long, or with control characters.
    #[error("a mid is 1 to 64 characters without control characters: {0}")]
    Mid(String),
    /// Not ten characters `[a-z2-7]`.
    #[error("an origin is ten characters a-z or 2-7: {0:?}")]
    Origin(String),
    /// Not `<origin>.<seq>`.
    #[error("an id is <origin>.<seq>: {0:?}")]
    Id(String),
}

impl InvalidName {
    /// The stable code that clients see.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Room(_) => "room_invalid",
            Self::Pattern(_) => "pattern_invalid",
            Self::User(_) => "name_invalid",
            Self::Mid(_) => "mid_invalid",
            Self::Origin(_) => "origin_invalid",
            Self::Id(_) => "id_invalid",
        }
    }

    /// The same of a pattern that is one room.
    pub(super) fn pattern(self) -> Self {
        match self {
            Self::Room(why) => Self::Pattern(why),
            other => other,
        }
    }
}

/// The id of one start of one node: ten random characters `[a-z2-7]` (50 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Origin([u8; Origin::LEN]);

impl Origin {
    /// Length in characters, which are bytes.
    pub(crate) const LEN: usize = 10;
    /// No origin: in a position it says when that was made.
    pub(crate) const MADE: Self = Self(*b"madeattime");
    /// No origin: in a position it stands for all that are not named.
    pub(crate) const REST: Self = Self(*b"alltherest");
    const ALPHABET: &'static [u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

    /// A new origin from this generator.
    pub(crate) fn generate(rng: &mut impl Rng) -> Self {
        loop {
            let origin = Self(std::array::from_fn(|_| {
                Self::ALPHABET[rng.random_range(0..32)]
            }));
            if !origin.is_mark() {
                return origin;
            }
        }
    }

    /// Whether it stands in positions for something else than an origin; no node is called so.
    pub(crate) fn is_mark(&self) -> bool {
        *self == Self::MADE || *self == Self::REST
    }

    /// The characters.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an origin is ASCII by construction")
    }

    /// The characters as bytes, for wire formats.
    pub(crate) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The origin with these bytes, or `None` if one is outside `[a-z2-7]`.
    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        bytes
            .iter()
            .all(|b| Self::ALPHABET.contains(b))
            .then_some(Self(bytes))
    }
}

impl FromStr for Origin {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        <[u8; Self::LEN]>::try_from(text.as_bytes())
            .ok()
            .and_then(Self::from_bytes)
            .ok_or_else(|| InvalidName::Origin(excerpt(text)))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An entry's name, `<origin>.<seq>`; as a position, "all of `origin` through `seq`".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct EntryId {
    /// Who said it.
    pub(crate) origin: Origin,
    /// Which of the origin's entries, from 1 without holes; as a position 0 is "nothing yet".
    pub(crate) seq: u64,
}

impl FromStr for EntryId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName::Id(excerpt(text));
        let (origin, seq) = text.split_once('.').ok_or_else(invalid)?;
        if seq.is_empty() || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let seq = seq.parse().map_err(|_| invalid())?;
        Ok(Self {
            origin: origin.parse().map_err(|_| invalid())?,
            seq,
        })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.origin, self.seq)
    }
}

macro_rules! shared_name {
    ($(#[$doc:meta])* $name:ident, $check:path, $variant:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub(crate) struct $name(Arc<str>);

        impl $name {
            /// The characters.
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                match $check(text, 1) {
                    Ok(name) => Ok(Self(name.into())),
                    Err(why) => Err(InvalidName::$variant(why)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }
    };
}

shared_name!(
    /// A room: 1 to 64 letters with their marks, digits and `._-`, in NFC. Cheap to clone.
    RoomName, spelling::room, Room
);
shared_name!(
    /// The name that a person shows: 1 to 32 visible characters, in NFC. Cheap to clone.
    UserName, spelling::user, User
);
shared_name!(
    /// A client's own id for a send, the idempotency key: as it came, to the byte. Cheap to clone.
    Mid, check_mid, Mid
);

/// Names that are spelled in one way were once kept as they came: what other nodes and files have.
macro_rules! older_name {
    ($name:ident, $check:path, $variant:ident) => {
        impl $name {
            /// The name that a node of an older version has taken, which did not normalise it: what
            /// was as long as a name may be then may have become longer.
            ///
            /// # Errors
            /// As parsing.
            pub(crate) fn of_peer(text: &str) -> Result<Self, InvalidName> {
                match $check(text, spelling::GROWTH_MAX) {
                    Ok(name) => Ok(Self(name.into())),
                    Err(why) => Err(InvalidName::$variant(why)),
                }
            }
        }
    };
}

older_name!(RoomName, spelling::room, Room);
older_name!(UserName, spelling::user, User);

/// What rooms may begin with, in NFC; nothing is the beginning of all.
pub(super) fn room_beginning(text: &str) -> Result<Cow<'_, str>, String> {
    // Words of paths are no rooms; others begin so.
    match text {
        "" | "." | ".." => Ok(Cow::Borrowed(text)),
        text => spelling::room(text, 1),
    }
}

fn check_mid(text: &str, _times: usize) -> Result<Cow<'_, str>, String> {
    spelling::check_length(text, MID_CHARS_MAX)?;
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(spelling::not_allowed(c)),
        None => Ok(Cow::Borrowed(text)),
    }
}

/// At most the first characters of what a stranger sent, for an error's text.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests;
