//! Names: parsed once at the door, valid ever after.
//!
//! Every name a stranger can send becomes one of these types or an [`InvalidName`], so that no
//! code behind the door checks again. Limits are those of DESIGN's section on clients.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rand::{Rng, RngExt as _};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

/// Longest room name, in characters.
pub const ROOM_CHARS_MAX: usize = 64;
/// Longest user name, in characters.
pub const NAME_CHARS_MAX: usize = 32;
/// Longest `mid`, in characters.
pub const MID_CHARS_MAX: usize = 64;
/// Combining marks that may follow each other in a user name; more would climb over other lines.
pub const NAME_MARKS_MAX: usize = 2;

/// Why a name was refused. Nothing changed; the sender must choose another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not `[\p{L}\p{N}._-]{1,64}`, or one of the path words `.` and `..`.
    #[error("a room is 1 to 64 letters, digits, '.', '_' or '-', and not '.' or '..': {0}")]
    Room(String),
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
    pub fn code(&self) -> &'static str {
        match self {
            Self::Room(_) => "room_invalid",
            Self::User(_) => "name_invalid",
            Self::Mid(_) => "mid_invalid",
            Self::Origin(_) => "origin_invalid",
            Self::Id(_) => "id_invalid",
        }
    }
}

/// The id of one start of one node: ten random characters `[a-z2-7]` (50 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin([u8; Origin::LEN]);

impl Origin {
    /// Length in characters, which are bytes.
    pub const LEN: usize = 10;
    /// Sorts before or with every origin.
    pub const LEAST: Self = Self([b'2'; Self::LEN]);
    const ALPHABET: &'static [u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

    /// A new origin from this generator.
    pub fn generate(rng: &mut impl Rng) -> Self {
        Self(std::array::from_fn(|_| {
            Self::ALPHABET[rng.random_range(0..32)]
        }))
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an origin is ASCII by construction")
    }

    /// The characters as bytes, for wire formats.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The origin with these bytes, or `None` if one is outside `[a-z2-7]`.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
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
pub struct EntryId {
    /// Who said it.
    pub origin: Origin,
    /// Which of the origin's entries, from 1 without holes; as a position 0 is "nothing yet".
    pub seq: u64,
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
    ($(#[$doc:meta])* $name:ident, $check:ident, $variant:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The characters.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.into())),
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
    /// A room: `[\p{L}\p{N}._-]{1,64}`. Cheap to clone.
    RoomName, check_room, Room
);
shared_name!(
    /// The name that a person shows: 1 to 32 visible characters. Cheap to clone.
    UserName, check_user, User
);
shared_name!(
    /// A client's own id for a send, the idempotency key. Cheap to clone.
    Mid, check_mid, Mid
);

fn check_room(text: &str) -> Result<(), String> {
    check_length(text, ROOM_CHARS_MAX)?;
    if text == "." || text == ".." {
        return Err("'.' and '..' are words of paths".into());
    }
    let allowed = |c: char| {
        // First what is mostly there, and needs no look into a table.
        c.is_ascii_alphanumeric()
            || matches!(c, '.' | '_' | '-')
            || matches!(
                c.general_category(),
                GeneralCategory::UppercaseLetter
                    | GeneralCategory::LowercaseLetter
                    | GeneralCategory::TitlecaseLetter
                    | GeneralCategory::ModifierLetter
                    | GeneralCategory::OtherLetter
                    | GeneralCategory::DecimalNumber
                    | GeneralCategory::LetterNumber
                    | GeneralCategory::OtherNumber
            ) && !is_blank_letter(c)
    };
    refuse_any(text, |c| !allowed(c))
}

fn check_user(text: &str) -> Result<(), String> {
    check_length(text, NAME_CHARS_MAX)?;
    if text.trim() != text {
        return Err("white space at an end".into());
    }
    refuse_any(text, |c| !is_visible(c))?;
    let mut marks = 0;
    for c in text.chars() {
        marks = if is_mark(c) { marks + 1 } else { 0 };
        if marks > NAME_MARKS_MAX {
            return Err(format!(
                "more than {NAME_MARKS_MAX} combining marks in a row"
            ));
        }
    }
    Ok(())
}

fn check_mid(text: &str) -> Result<(), String> {
    check_length(text, MID_CHARS_MAX)?;
    refuse_any(text, char::is_control)
}

fn check_length(text: &str, chars_max: usize) -> Result<(), String> {
    // A character is at most four bytes: long texts are refused without being counted.
    if text.is_empty() {
        Err("empty".into())
    } else if text.len() > chars_max * 4 || text.chars().count() > chars_max {
        Err(format!("longer than {chars_max} characters"))
    } else {
        Ok(())
    }
}

fn refuse_any(text: &str, refused: impl Fn(char) -> bool) -> Result<(), String> {
    match text.chars().find(|&c| refused(c)) {
        Some(c) => Err(format!("U+{:04X} is not allowed", u32::from(c))),
        None => Ok(()),
    }
}

/// Neither control, format (bidi, zero width, tags), private, unassigned, nor a line separator.
fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    !is_blank_letter(c)
        && !matches!(
            c.general_category(),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::Surrogate
                | GeneralCategory::PrivateUse
                | GeneralCategory::Unassigned
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
        )
}

/// Letters and marks that show nothing: Hangul fillers, the blank Braille pattern and such.
fn is_blank_letter(c: char) -> bool {
    matches!(
        c,
        '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{2800}'
    ) || matches!(
        c,
        '\u{034F}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
    ) || matches!(c, '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}')
}

fn is_mark(c: char) -> bool {
    !c.is_ascii()
        && matches!(
            c.general_category(),
            GeneralCategory::NonspacingMark
                | GeneralCategory::SpacingMark
                | GeneralCategory::EnclosingMark
        )
}

/// At most the first characters of what a stranger sent, for an error's text.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_letters_digits_and_three_signs() {
        for good in [
            "lobby",
            "a",
            "..a",
            "Größe-1_2.3",
            "日本",
            "__proto__",
            &"x".repeat(64),
        ] {
            assert!(good.parse::<RoomName>().is_ok(), "{good}");
        }
        for bad in [
            "", ".", "..", "a/b", "a b", "\u{200B}", "a\n", "🦀", "\u{3164}",
        ] {
            assert!(bad.parse::<RoomName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(65).parse::<RoomName>().is_err());
    }

    #[test]
    fn names_show_all_that_they_hold() {
        for good in [
            "ada",
            "Ada Lovelace",
            "Zoë",
            "李",
            "🦀",
            "e\u{301}",
            &"é".repeat(32),
        ] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        let tricks = [
            "",
            " ",
            " ada",
            "a\u{200B}b",
            "\u{202E}ada",
            "\u{FEFF}",
            "\u{3164}",
            "\u{E0041}",
            "a\nb",
            "a\0",
            "\u{1B}[2J",
            "\u{2028}",
            "\u{E000}",
        ];
        for bad in tricks {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
        assert!(
            format!("a{}", "\u{301}".repeat(60))
                .parse::<UserName>()
                .is_err()
        );
        assert!("x".repeat(33).parse::<UserName>().is_err());
        let refused = "a\u{200B}".parse::<UserName>().unwrap_err();
        assert_eq!(refused.code(), "name_invalid");
        assert!(refused.to_string().contains("U+200B"));
    }

    #[test]
    fn ids_are_an_origin_and_a_number() {
        let id: EntryId = "k3f7q2m7xa.42".parse().unwrap();
        assert_eq!((id.origin.as_str(), id.seq), ("k3f7q2m7xa", 42));
        assert_eq!(id.to_string(), "k3f7q2m7xa.42");
        for bad in [
            "",
            "k3f7q2m7xa",
            "k3f7q2m7xa.",
            "k3f7q2m7xa.-1",
            "k3f7q2m7xa.+1",
            "K3f7q2m7xa.1",
        ] {
            assert!(bad.parse::<EntryId>().is_err(), "{bad:?}");
        }
        assert!(
            "k3f7q2m7xa.18446744073709551616"
                .parse::<EntryId>()
                .is_err()
        );
    }
}
