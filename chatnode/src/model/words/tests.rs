//! Words in many scripts.

use proptest::prelude::*;

use super::words;
use crate::model::query::Query;

/// What the node and the page are both tested with.
#[derive(serde::Deserialize)]
pub(crate) struct Table {
    words: Vec<(String, String, String)>,
    /// A search, a text, and whether it is found.
    pub(crate) finds: Vec<(String, String, bool, String)>,
}

impl Table {
    pub(crate) fn read() -> Self {
        let table = include_str!("../../../../tests/tables/words.json");
        serde_json::from_str(table).expect("the table is of this shape")
    }
}

/// Goal: in every script what people take for one word is one, and for two is two. Method: a table
/// that the page is tested with as well.
#[test]
fn words_are_what_people_take_for_words() {
    let table = Table::read();
    for (text, wanted, why) in &table.words {
        assert_eq!(words(text), *wanted, "{why}: {text}");
    }
    for (query, text, found, why) in &table.finds {
        let query: Query = query.parse().expect("a query");
        assert_eq!(query.matches(text), *found, "{why}: {text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Goal: words are made of words: folding them again changes nothing, and nothing in them is
    /// syntax for an index. Method: any characters.
    #[test]
    fn the_words_of_words_are_the_same(text in r#"(\PC|[a-zA-Z ]|\p{L}|\p{M}){0,20}"#) {
        let once = words(&text);
        prop_assert_eq!(words(&once), once.clone());
        let plain = |c: char| !c.is_ascii() || c == ' ' || c.is_ascii_lowercase() || c.is_ascii_digit();
        prop_assert!(once.chars().all(plain));
        prop_assert!(!once.starts_with(' ') && !once.ends_with(' ') && !once.contains("  "));
    }
}
