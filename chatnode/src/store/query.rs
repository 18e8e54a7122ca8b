//! What people look for in a transcript: words and "quoted phrases", all of which must occur.
//!
//! Whatever the text is, it is no syntax: there are no operators, so nothing that a stranger types
//! can be wrong, or mean something else than its words.

use std::iter;
use std::str::FromStr;

/// Longest search, in characters.
pub const QUERY_CHARS_MAX: usize = 256;

/// Why a search was refused. Nothing was read; the person must type something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuery {
    /// More than [`QUERY_CHARS_MAX`] characters.
    #[error("a search is at most {QUERY_CHARS_MAX} characters")]
    TooLong,
    /// No letter and no digit in it.
    #[error("a search is words or \"quoted phrases\", with a letter or a digit at least")]
    Nothing,
}

impl InvalidQuery {
    /// The stable code that clients see.
    pub fn code(&self) -> &'static str {
        "query_invalid"
    }
}

/// A search, parsed: its phrases, each at least one token long. A word is a phrase too: `e-mail`
/// is found where `e` is followed by `mail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// As typed, without quotes.
    parts: Vec<String>,
    /// The tokens of each part.
    phrases: Vec<Vec<String>>,
}

impl FromStr for Query {
    type Err = InvalidQuery;

    fn from_str(text: &str) -> Result<Self, InvalidQuery> {
        // A character is at most four bytes: long texts are refused without being counted.
        if text.len() > QUERY_CHARS_MAX * 4 || text.chars().count() > QUERY_CHARS_MAX {
            return Err(InvalidQuery::TooLong);
        }
        let mut parts = Vec::new();
        // Every other piece between quotes is a phrase; a quote that is not closed ends at the end.
        for (index, piece) in text.split('"').enumerate() {
            if index % 2 == 1 {
                parts.push(piece.to_owned());
            } else {
                parts.extend(piece.split_whitespace().map(ToOwned::to_owned));
            }
        }
        parts.retain(|part| part.chars().any(char::is_alphanumeric));
        if parts.is_empty() {
            return Err(InvalidQuery::Nothing);
        }
        let phrases = parts.iter().map(|part| tokens(part).collect()).collect();
        Ok(Self { parts, phrases })
    }
}

impl Query {
    /// Whether a text has all of it. For nodes that keep no index; on ASCII texts it says the same
    /// as the index on disk does, which also takes accents off letters.
    pub fn matches(&self, text: &str) -> bool {
        let words: Vec<String> = tokens(text).collect();
        self.phrases
            .iter()
            .all(|phrase| words.windows(phrase.len()).any(|window| window == phrase))
    }

    /// The same for FTS5: string literals, joined by AND. Nothing in a literal is syntax but its
    /// quotes, which are doubled, and NUL, which would end it.
    pub(super) fn to_fts(&self) -> String {
        let literal =
            |part: &String| format!("\"{}\"", part.replace('"', "\"\"").replace('\0', " "));
        let literals: Vec<String> = self.parts.iter().map(literal).collect();
        literals.join(" AND ")
    }
}

/// The runs of letters and digits of a text, in lower case.
fn tokens(text: &str) -> impl Iterator<Item = String> {
    let mut chars = text.chars().peekable();
    iter::from_fn(move || {
        while chars.next_if(|c| !c.is_alphanumeric()).is_some() {}
        let mut token = String::new();
        while let Some(c) = chars.next_if(|c| c.is_alphanumeric()) {
            token.extend(c.to_lowercase());
        }
        (!token.is_empty()).then_some(token)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<String> {
        text.parse::<Query>().unwrap().parts
    }

    #[test]
    fn a_query_is_words_and_phrases() {
        assert_eq!(parts("one two"), ["one", "two"]);
        assert_eq!(
            parts("one \"two three\" four"),
            ["one", "two three", "four"]
        );
        assert_eq!(parts("one\"two three"), ["one", "two three"]);
        assert_eq!(parts("- \"\" * ä !"), ["ä"]);
        for nothing in ["", " ", "\"\"", "* - ( \" . \"", "🦀"] {
            assert_eq!(
                nothing.parse::<Query>(),
                Err(InvalidQuery::Nothing),
                "{nothing}"
            );
        }
        assert_eq!(InvalidQuery::Nothing.code(), "query_invalid");
    }

    #[test]
    fn a_query_is_bounded_in_characters() {
        assert!("ü".repeat(QUERY_CHARS_MAX).parse::<Query>().is_ok());
        for long in [QUERY_CHARS_MAX + 1, 1 << 20] {
            assert_eq!(
                "ü".repeat(long).parse::<Query>(),
                Err(InvalidQuery::TooLong)
            );
        }
    }

    #[test]
    fn all_words_and_phrases_must_occur() {
        let matches = |query: &str, text: &str| query.parse::<Query>().unwrap().matches(text);
        assert!(matches("fox QUICK", "The quick, brown fox."));
        assert!(matches("\"quick brown\"", "The quick, brown fox."));
        assert!(!matches("\"brown quick\"", "The quick, brown fox."));
        assert!(!matches("fox cat", "The quick, brown fox."));
        assert!(!matches("qui", "The quick, brown fox."));
        assert!(matches("größe", "GRÖSSE Größe"));
    }
}
