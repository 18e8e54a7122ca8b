//! How names are spelled: what may stand in them, and that there is one spelling of each.
//!
//! Names are normalised to NFC: `é` as one character and as two is one name. Rooms are identifiers,
//! after the rules for those in UAX #31 and in RFC 8264 (its `IdentifierClass`): letters with the marks
//! that write them, digits, and the two joiners where they change what is seen (RFC 5892, A.1 and
//! A.2). User names are free text that shows all that it holds.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::CodePointMapData;
use icu_properties::props::{CanonicalCombiningClass, JoiningType};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

use super::{NAME_CHARS_MAX, NAME_MARKS_MAX, ROOM_CHARS_MAX};

/// How much longer a text may be than what it is normalised to, and the other way round: so many
/// times (UAX #15, 14).
pub(super) const GROWTH_MAX: usize = 3;

const ZERO_WIDTH_NON_JOINER: char = '\u{200C}';
const ZERO_WIDTH_JOINER: char = '\u{200D}';

/// A room's name as it is spelled here. Of at most `times` as many characters and marks as a name
/// may have.
pub(super) fn room(text: &str, times: usize) -> Result<Cow<'_, str>, String> {
    let name = normal(text, ROOM_CHARS_MAX * times)?;
    if &*name == "." || &*name == ".." {
        return Err("'.' and '..' are words of paths".into());
    }
    // First what is mostly there, and needs no look into a table.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || is_sign(b.into());
    if name.bytes().all(is_plain) {
        return Ok(name);
    }
    let mut before = None;
    for (at, c) in name.char_indices() {
        let allowed = is_sign(c)
            || is_letter_or_number(c)
            || (is_writing_mark(c) && before.is_some_and(|b| !is_sign(b)))
            || joins(&name, at, c);
        if !allowed {
            return Err(not_allowed(c));
        }
        before = Some(c);
    }
    check_marks(&name, times)?;
    Ok(name)
}

/// A user's name as it is spelled here; `times` as with [`room`].
pub(super) fn user(text: &str, times: usize) -> Result<Cow<'_, str>, String> {
    let name = normal(text, NAME_CHARS_MAX * times)?;
    if name.trim() != &*name {
        return Err("white space at an end".into());
    }
    let refused = |(at, c): &(usize, char)| !is_visible(*c) && !joins(&name, *at, *c);
    if let Some((_, c)) = name.char_indices().find(refused) {
        return Err(not_allowed(c));
    }
    check_marks(&name, times)?;
    Ok(name)
}

/// Neither empty nor longer than this.
pub(super) fn check_length(text: &str, chars_max: usize) -> Result<(), String> {
    // A character is at most four bytes: long texts are refused without being counted.
    if text.is_empty() {
        Err("empty".into())
    } else if text.len() > chars_max * 4 || text.chars().count() > chars_max {
        Err(format!("longer than {chars_max} characters"))
    } else {
        Ok(())
    }
}

/// What an error says of a character.
pub(super) fn not_allowed(c: char) -> String {
    format!("U+{:04X} is not allowed here", u32::from(c))
}

/// In NFC, of at most this length then.
fn normal(text: &str, chars_max: usize) -> Result<Cow<'_, str>, String> {
    if text.is_ascii() {
        check_length(text, chars_max)?;
        return Ok(Cow::Borrowed(text));
    }
    // Long texts are refused without being normalised.
    if text.len() > chars_max * 4 * GROWTH_MAX {
        return Err(format!("longer than {chars_max} characters"));
    }
    let name = ComposingNormalizerBorrowed::new_nfc().normalize(text);
    check_length(&name, chars_max)?;
    Ok(name)
}

/// What a room's name may have besides letters and digits.
fn is_sign(c: char) -> bool {
    matches!(c, '.' | '_' | '-')
}

fn is_letter_or_number(c: char) -> bool {
    matches!(
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
}

/// A mark that writing needs, unlike those that enclose.
fn is_writing_mark(c: char) -> bool {
    matches!(
        c.general_category(),
        GeneralCategory::NonspacingMark | GeneralCategory::SpacingMark
    ) && !is_blank_letter(c)
}

/// Whether this is a joiner that changes how its surroundings look: after a virama, or, the one that
/// parts, between two letters that would join.
fn joins(name: &str, at: usize, c: char) -> bool {
    if c != ZERO_WIDTH_JOINER && c != ZERO_WIDTH_NON_JOINER {
        return false;
    }
    let before = name[..at].chars().next_back();
    let is_after_virama = before.is_some_and(|before| {
        CodePointMapData::<CanonicalCombiningClass>::new().get(before)
            == CanonicalCombiningClass::Virama
    });
    if c == ZERO_WIDTH_JOINER {
        return is_after_virama;
    }
    let after = name[at + c.len_utf8()..].chars().next();
    let joining = |c: char| CodePointMapData::<JoiningType>::new().get(c);
    let mut letters = name[..at].chars().rev();
    let letter = letters.find(|c| joining(*c) != JoiningType::Transparent);
    let is_between = letter.is_some_and(|letter| {
        matches!(
            joining(letter),
            JoiningType::DualJoining | JoiningType::LeftJoining
        )
    }) && after.is_some_and(|after| {
        matches!(
            joining(after),
            JoiningType::DualJoining | JoiningType::RightJoining
        )
    });
    is_between || (is_after_virama && after.is_some_and(is_letter_or_number))
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

/// Marks that stand above and below each other; those that stand beside take room of their own.
fn check_marks(name: &str, times: usize) -> Result<(), String> {
    let mut marks = 0;
    for c in name.chars() {
        let piles_up = !c.is_ascii()
            && matches!(
                c.general_category(),
                GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark
            );
        marks = if piles_up { marks + 1 } else { 0 };
        if marks > NAME_MARKS_MAX * times {
            return Err(format!(
                "more than {NAME_MARKS_MAX} combining marks in a row"
            ));
        }
    }
    Ok(())
}
