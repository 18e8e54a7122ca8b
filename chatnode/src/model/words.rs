//! What the words of a text are, for those who search: the one definition, which the index on disk
//! and a search in memory share.
//!
//! A text is taken apart (NFKD), accents and what is not seen are taken off, letters are folded so
//! that case does not matter, and what belongs together is put together again (NFC). What is left is
//! words: runs of letters, digits and the marks that write them. Scripts that put no space between
//! words, and Hangul, in which particles are written to them, are cut into characters: there any part
//! of a text is found, as a phrase of those.

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

/// The words of a text, with one space between them. No word has a space, or an ASCII character
/// other than a lower-case letter or a digit.
///
/// The index on disk holds what this was when it was written: whoever changes it raises
/// `schema::SCHEMA`, by which the index is made anew.
pub(crate) fn words(text: &str) -> String {
    let mut words = Words::of_length(text.len());
    if text.is_ascii() {
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() {
                words.letter(byte.to_ascii_lowercase().into());
            } else {
                words.end();
            }
        }
        return words.text;
    }
    for c in ComposingNormalizerBorrowed::new_nfc()
        .normalize(&folded(text))
        .chars()
    {
        if is_mark(c) {
            words.mark(c);
        } else if !c.is_alphanumeric() {
            words.end();
        } else if stands_alone(c) {
            words.end();
            words.letter(c);
            words.is_closed = true;
        } else {
            words.letter(c);
        }
    }
    words.text
}

/// Words that are written one after the other.
struct Words {
    text: String,
    /// Whether a word has begun.
    is_open: bool,
    /// Whether the word takes marks only.
    is_closed: bool,
}

impl Words {
    fn of_length(len: usize) -> Self {
        Self {
            text: String::with_capacity(len),
            is_open: false,
            is_closed: false,
        }
    }

    fn letter(&mut self, c: char) {
        if self.is_closed {
            self.end();
        }
        if !self.is_open && !self.text.is_empty() {
            self.text.push(' ');
        }
        self.is_open = true;
        self.text.push(c);
    }

    /// A mark belongs to the letter before it; without one it is none of a word.
    fn mark(&mut self, c: char) {
        if self.is_open {
            self.text.push(c);
        }
    }

    fn end(&mut self) {
        (self.is_open, self.is_closed) = (false, false);
    }
}

/// Taken apart, without what is taken off, and without regard to case, all of it: `Σ`, `σ` and `ς` are
/// one, `ß` is `ss`, and the four letters i of Turkish, whose capitals are those of others, are one.
fn folded(text: &str) -> String {
    let apart = DecomposingNormalizerBorrowed::new_nfkd().normalize(text);
    let mut folded = String::with_capacity(apart.len());
    let mut before = ' ';
    for c in apart.chars() {
        // The one letter with an accent that nobody takes for the bare one; as in the order of CLDR's
        // root.
        let is_short_i = c == '\u{306}' && matches!(before, 'и' | 'И');
        before = c;
        if c.is_ascii() {
            folded.push(c.to_ascii_lowercase());
        } else if is_short_i || !is_taken_off(c) {
            // What has no capital of its own may have one of another length, and the other way round.
            let upper = c.to_lowercase().flat_map(char::to_uppercase);
            for c in upper.flat_map(char::to_lowercase) {
                match stroked(c) {
                    Some(plain) => folded.push_str(plain),
                    None => folded.push(c),
                }
            }
        }
    }
    folded
}

/// Letters that do not come apart, as people type them who have no such keys.
fn stroked(c: char) -> Option<&'static str> {
    Some(match c {
        'đ' => "d",
        'ħ' => "h",
        'ł' => "l",
        'ø' => "o",
        'ŧ' => "t",
        'æ' => "ae",
        'œ' => "oe",
        _ => return None,
    })
}

/// Accents of Latin, Greek and Cyrillic, vowel points of Hebrew, Arabic and Syriac, and what joins,
/// parts or lengthens letters without being one. Not the marks that other scripts write with.
fn is_taken_off(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36F}' | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}'
        | '\u{20D0}'..='\u{20FF}' | '\u{FE20}'..='\u{FE2F}')
        || matches!(c,
            '\u{483}'..='\u{489}' | '\u{591}'..='\u{5BD}' | '\u{5BF}' | '\u{5C1}' | '\u{5C2}'
            | '\u{5C4}' | '\u{5C5}' | '\u{5C7}')
        || matches!(c,
            '\u{610}'..='\u{61A}' | '\u{640}' | '\u{64B}'..='\u{65F}' | '\u{670}'
            | '\u{6D6}'..='\u{6DC}' | '\u{6DF}'..='\u{6E4}' | '\u{6E7}' | '\u{6E8}'
            | '\u{6EA}'..='\u{6ED}' | '\u{711}' | '\u{730}'..='\u{74A}'
            | '\u{898}'..='\u{89F}' | '\u{8CA}'..='\u{8FF}')
        // Soft hyphens, joiners, directions, variations. Not U+200B, which parts words.
        || matches!(c,
            '\u{AD}' | '\u{61C}' | '\u{180B}'..='\u{180F}' | '\u{200C}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}' | '\u{E0000}'..='\u{E0FFF}')
}

fn is_mark(c: char) -> bool {
    !c.is_ascii() && c.general_category_group() == GeneralCategoryGroup::Mark
}

/// Letters of scripts that are cut into characters: Han, Kana, Bopomofo, Hangul, Yi, Thai, Lao,
/// Myanmar, Khmer, Tai, Javanese and others of the south-east.
fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{E00}'..='\u{EFF}' | '\u{1000}'..='\u{109F}' | '\u{1100}'..='\u{11FF}'
        | '\u{1780}'..='\u{17DF}' | '\u{1950}'..='\u{19DF}' | '\u{1A20}'..='\u{1AAF}'
        | '\u{1B00}'..='\u{1B7F}')
        || matches!(c,
            '\u{2E80}'..='\u{2FDF}' | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}'
            | '\u{3031}'..='\u{303C}' | '\u{3041}'..='\u{31FF}' | '\u{3400}'..='\u{4DBF}'
            | '\u{4E00}'..='\u{A4CF}' | '\u{A960}'..='\u{A97F}' | '\u{A980}'..='\u{A9FF}'
            | '\u{AA60}'..='\u{AADF}' | '\u{AC00}'..='\u{D7FF}' | '\u{F900}'..='\u{FAFF}')
        || matches!(c, '\u{1AFF0}'..='\u{1B2FF}' | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
pub(crate) mod tests;
