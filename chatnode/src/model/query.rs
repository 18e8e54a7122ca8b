//! What people look for in a transcript: words and "quoted phrases", all of which must occur.
//!
//! Whatever the text is, it is no syntax: there are no operators, so nothing that a stranger types
//! can be wrong, or mean something else than its words.

use std::str::FromStr;

use super::words::words;

/// Longest search, in characters.
const QUERY_CHARS_MAX: usize = 256;

/// Why a search was refused. Nothing was read; the person must type something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidQuery {
    /// More than [`QUERY_CHARS_MAX`] characters.
    #[error("a search is at most {QUERY_CHARS_MAX} characters")]
    TooLong,
    /// No letter and no digit in it.
    #[error("a search is words or \"quoted phrases\", with a letter or a digit at least")]
    Nothing,
}

/// A search, parsed: its phrases, each at least one word long. What was typed as a word is a phrase,
/// too: `e-mail` is found where `e` is followed by `mail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// The words of each phrase, each once, with a space before and behind each word.
    phrases: Vec<String>,
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
        let phrases = parts.iter().map(|part| words(part));
        let phrases = phrases.filter(|phrase| !phrase.is_empty());
        let mut phrases: Vec<String> = phrases.map(|phrase| format!(" {phrase} ")).collect();
        phrases.sort_unstable();
        phrases.dedup();
        if phrases.is_empty() {
            return Err(InvalidQuery::Nothing);
        }
        Ok(Self { phrases })
    }
}

impl Query {
    /// Whether a text has all of it. What the index on disk finds is the same.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let words = format!(" {} ", words(text));
        self.phrases.iter().all(|phrase| words.contains(phrase))
    }

    /// The same for FTS5: string literals, joined by AND. Nothing in a word is syntax.
    pub(crate) fn to_fts(&self) -> String {
        let literal = |phrase: &String| format!("\"{}\"", phrase.trim());
        let literals: Vec<String> = self.phrases.iter().map(literal).collect();
        literals.join(" AND ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<String> {
        let query: Query = text.parse().unwrap();
        let phrases = query.phrases.iter();
        phrases.map(|phrase| phrase.trim().to_owned()).collect()
    }

    #[test]
    fn a_query_is_words_and_phrases() {
        assert_eq!(parts("one two"), ["one", "two"]);
        assert_eq!(
            parts("one \"two three\" four"),
            ["four", "one", "two three"]
        );
        assert_eq!(parts("one\"two three"), ["one", "two three"]);
        assert_eq!(parts("- \"\" * ä ! Ä"), ["a"]);
        for nothing in ["", " ", "\"\"", "* - ( \" . \"", "🦀", "\u{640}"] {
            assert_eq!(
                nothing.parse::<Query>(),
                Err(InvalidQuery::Nothing),
                "{nothing}"
            );
        }
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
        assert!(!matches("quick fox", "quickfox"));
        assert!(matches("größe", "GRÖSSE"));
    }
}
