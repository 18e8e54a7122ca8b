//! Search, on a node with a disk by its index, and on one without through memory.

use std::collections::HashMap;

use anyhow::{Context as _, ensure};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::harness::cluster::http;
use crate::harness::disks::{member, pour, reborn, written};
use crate::harness::metrics::told;
use crate::harness::wire::Msg;
use crate::harness::{
    Client, Instant, Node, Outcome, PATIENCE, Registry, check::history, eventually, linked, same,
};

/// Longest that half of these searches may take: they are of words that few messages have.
const QUICK: crate::harness::Duration = crate::harness::ms(250);

/// What is said, in this order, besides what is said to be many.
const CORPUS: [&str; 24] = [
    "The release is next week",
    "the RELEASE notes are not done",
    "next release, same week",
    "week next: nothing",
    "Releases are not a release-train",
    "mail ada@example.org or call",
    "e-mail is a word of two",
    "a OR b, AND not c",
    "near the river",
    "col:x is what he typed",
    "naïve café in Zürich",
    "ночь, улица, фонарь, аптека",
    "emoji 🎉 party",
    "<b>bold</b> & \"quoted\"",
    "ΤΗΣ Αθήνας",
    "İSTANBUL, ılık",
    "Große Straße",
    "Tôi ở Đà Nẵng",
    "قال مُحَمَّد",
    "שָׁלוֹם, मैं हिन्दी बोलता हूँ",
    "อยู่ที่นี่",
    "今天讨论了部署方案",
    "東京ﾀﾜｰに行く",
    "오늘 배포가 끝났다",
];

/// What is looked for, and which of the corpus have it, by their places.
const FINDS: [(&str, &[usize]); 44] = [
    ("release", &[0, 1, 2, 4]),
    ("RELEASE week", &[0, 2]),
    ("\"next week\"", &[0]),
    ("\"week next\"", &[3]),
    ("\"next release\" week", &[2]),
    ("releas", &[]),
    ("releases", &[4]),
    ("release-train", &[4]),
    ("train", &[4]),
    ("e-mail", &[6]),
    ("mail", &[5, 6]),
    ("ada@example.org", &[5]),
    ("a OR b", &[7]),
    ("NOT c", &[7]),
    ("release NOT week", &[]),
    ("rele*", &[]),
    ("NEAR(", &[8]),
    ("NEAR(the river)", &[8]),
    ("-river", &[8]),
    ("col:x", &[9]),
    ("col : x", &[9]),
    ("УЛИЦА", &[11]),
    ("^party", &[12]),
    ("\"bold b\"", &[13]),
    ("naive cafe", &[10]),
    ("ZURICH", &[10]),
    ("Zu\u{308}rich", &[10]),
    ("της", &[14]),
    ("αθηνας", &[14]),
    ("istanbul ILIK", &[15]),
    ("STRASSE", &[16]),
    ("da nang", &[17]),
    ("محمد", &[18]),
    ("שלום", &[19]),
    ("हिन्दी", &[19]),
    ("हन्द", &[]),
    ("ที่", &[20]),
    ("部署", &[21]),
    ("方案 讨论", &[21]),
    ("署部", &[]),
    ("タワー", &[22]),
    ("東京", &[22]),
    ("배포", &[23]),
    ("\u{1107}\u{1162}\u{1111}\u{1169}", &[23]),
];

/// Searches for nothing.
const INVALID: [&str; 13] = [
    "", " ", "\"", "\"\"", "\"\"\"", "\"*", "*", "()", "🎉", "\0", "-", "\u{202e}", "'; --",
];

/// Searches for something, however odd.
const VALID: [&str; 23] = [
    "a\0b",
    "\"a",
    "a\"",
    "a\"\"b",
    "{a b}",
    "a AND",
    "OR",
    "NOT",
    "a NEAR/2 b",
    "NEAR(a b, 99999)",
    "rowid:1",
    "text:release",
    "room:tea",
    "a + b",
    "a ^ b",
    "%_%a",
    "'a'; DROP TABLE entries; --",
    "\u{fffd}a",
    "a\u{300}\u{300}\u{300}",
    "İ",
    "ß",
    "\u{1f1e9}a\u{1f1ea}",
    "1e400",
];

struct Pair {
    disk: Node,
    memory: Node,
    corpus: Vec<String>,
    _registry: Registry,
    _folder: TempDir,
}

impl Pair {
    /// The corpus, said at both nodes in turns.
    async fn start() -> anyhow::Result<Self> {
        let (registry, folder) = (Registry::start().await?, tempdir()?);
        let disk = member(&registry, Some(&folder.path().join("data")), &[]).await?;
        let memory = member(&registry, None, &[]).await?;
        linked(&[&disk, &memory], PATIENCE).await?;
        let ada = Client::joined(&disk, "ada", "tea").await?;
        let bob = Client::joined(&memory, "bob", "tea").await?;
        for (place, text) in CORPUS.iter().enumerate() {
            let (says, hears) = if place % 2 == 0 {
                (&ada, &bob)
            } else {
                (&bob, &ada)
            };
            says.send("tea", text).await?;
            hears.message(PATIENCE, text).await?;
        }
        ada.send("milk", "a release in another room").await?;
        let corpus = same(&[&disk, &memory], "tea", PATIENCE).await?;
        written(&disk).await?;
        Ok(Self {
            disk,
            memory,
            corpus,
            _registry: registry,
            _folder: folder,
        })
    }
}

/// A search over HTTP: status and body, as bytes.
async fn ask(node: &Node, query: &[(&str, &str)]) -> anyhow::Result<(u16, String)> {
    let url = format!("{}/api/rooms/tea/search", node.http);
    let url = reqwest::Url::parse_with_params(&url, query)?;
    let answer = http()?.get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// The codes of what is wrong beside the query.
async fn refuses_what_is_no_search(node: &Node) -> anyhow::Result<()> {
    for (path, status, code) in [
        ("search", 400, "bad_request"),
        ("search?q=a&before=x", 400, "id_invalid"),
        ("search?q=a&before=aaaaaaaaaa.9", 404, "id_unknown"),
        ("search?q=a&limit=x", 400, "bad_request"),
    ] {
        let answer = node.get(&format!("/api/rooms/tea/{path}")).await?;
        let found = answer.status().as_u16();
        let problem: Value = answer.json().await?;
        ensure!(
            found == status && problem["code"] == code,
            "{path}: {found} {problem}"
        );
    }
    Ok(())
}

#[derive(serde::Deserialize)]
struct Page {
    messages: Vec<Box<RawValue>>,
    more: bool,
}

/// What a search over HTTP finds, each as its bytes, and whether there is more.
async fn found(node: &Node, query: &[(&str, &str)]) -> anyhow::Result<(Vec<String>, bool)> {
    let (status, body) = ask(node, query).await?;
    ensure!(status == 200, "{query:?}: {status} {body}");
    let page: Page = serde_json::from_str(&body)?;
    let texts = page.messages.iter().map(|raw| raw.get().to_owned());
    Ok((texts.collect(), page.more))
}

/// Goal: a search finds the messages that have all its words and phrases, whole words in any case,
/// of any script without regard to accents, of this room only, as the bytes that history has; nothing
/// that is typed is syntax; over HTTP and over WebSocket, with a disk and without, alike.
/// Method: a corpus of traps, and for each query the places that it must find, on four ways.
#[tokio::test]
async fn a_search_finds_words_and_phrases_and_nothing_is_syntax() -> Outcome {
    let pair = Pair::start().await?;
    let mut times = Vec::new();
    for node in [&pair.disk, &pair.memory] {
        let eve = Client::hello(node, "eve").await?;
        for (query, places) in FINDS {
            let due: Vec<String> = places.iter().map(|&at| pair.corpus[at].clone()).collect();
            let begun = Instant::now();
            let (texts, more) = found(node, &[("q", query)]).await?;
            times.push(begun.elapsed());
            assert_eq!(texts, due, "{query:?} at {}", node.http);
            assert!(!more, "{query:?}");
            let reply = eve
                .ask("search", json!({ "room": "tea", "q": query }))
                .await?;
            let due: Vec<Value> = due
                .iter()
                .map(|text| serde_json::from_str(text))
                .collect::<Result<_, _>>()?;
            assert_eq!(
                reply,
                json!({ "room": "tea", "messages": due, "more": false }),
                "{query:?}"
            );
        }
    }
    let (median, ..) = told("searches", times);
    assert!(median < QUICK, "half of the searches took {median:?}");
    Ok(())
}

/// Goal: whatever a stranger types is found, not found, or `query_invalid`: never an error of the
/// server, never the end of a connection. Method: what breaks parsers, on four ways.
#[tokio::test]
async fn a_hostile_search_is_answered_or_refused_with_a_code() -> Outcome {
    let pair = Pair::start().await?;
    let (long, wide) = ("a ".repeat(5000), "ä".repeat(257));
    let most = format!("\"{}", "b ".repeat(127));
    let invalid = INVALID.into_iter().chain([&*long, &wide]);
    let valid = VALID.into_iter().chain([&*most]);
    for node in [&pair.disk, &pair.memory] {
        let eve = Client::hello(node, "eve").await?;
        for query in invalid.clone() {
            let (status, body) = ask(node, &[("q", query)]).await?;
            let problem: Value = serde_json::from_str(&body).context(body)?;
            assert_eq!(
                (status, &problem["code"]),
                (400, &json!("query_invalid")),
                "{query:.20?}"
            );
            let body = json!({ "room": "tea", "q": query });
            assert_eq!(
                eve.refusal("search", body).await?.code,
                "query_invalid",
                "{query:.20?}"
            );
        }
        for query in valid.clone() {
            found(node, &[("q", query)]).await?;
            eve.ask("search", json!({ "room": "tea", "q": query }))
                .await?;
        }
        // None of it was SQL.
        assert_eq!(history(node, "tea").await?, pair.corpus);
        for body in [
            json!({ "room": "tea" }),
            json!({ "room": "tea", "q": 7 }),
            json!({ "room": "tea", "q": ["a"] }),
        ] {
            assert_eq!(eve.refusal("search", body).await?.code, "bad_request");
        }
        let body = json!({ "room": "..", "q": "a" });
        assert_eq!(eve.refusal("search", body).await?.code, "room_invalid");
        refuses_what_is_no_search(node).await?;
        eve.ping("", PATIENCE).await?;
        let log = node.process.log_text();
        assert!(
            !log.contains("panicked") && !log.contains(" ERROR "),
            "{log}"
        );
    }
    Ok(())
}

/// Goal: many finds come page by page, the newest first, each once, and `more` is true until the
/// last; also of what memory has let go, and after a restart.
/// Method: 240 among 3000 messages, 1000 of which memory holds; pages of 50, 200 and 7.
#[tokio::test]
async fn many_finds_come_page_by_page() -> Outcome {
    let (registry, folder) = (Registry::start().await?, tempdir()?);
    let little = ["--retain-messages", "1000"];
    let mut disk = member(&registry, Some(&folder.path().join("data")), &little).await?;
    let memory = member(&registry, None, &[]).await?;
    linked(&[&disk, &memory], PATIENCE).await?;
    let bob = Client::hello(&memory, "bob").await?;
    // Every 25th: of those two kinds one can be found with the other's words only.
    let text = |nth: usize| match nth % 25 {
        3 => format!("a needle, number {nth}"),
        4 => format!("the needle of Cleopatra, number {nth}"),
        _ => format!("hay, number {nth}"),
    };
    pour(&bob, "tea", (0..3000).map(text)).await?;
    let tea = same(&[&disk, &memory], "tea", PATIENCE).await?;
    written(&disk).await?;
    for round in 0..2 {
        for (query, word, count) in [
            ("needle", "needle", 240),
            ("needle cleopatra", "Cleopatra", 120),
        ] {
            let due: Vec<String> = tea
                .iter()
                .filter(|text| text.contains(word))
                .cloned()
                .collect();
            assert_eq!(due.len(), count);
            for node in [&disk, &memory] {
                for limit in [50, 200, 7] {
                    let texts = paged(node, query, limit).await?;
                    assert!(
                        texts == due,
                        "{query} by {limit} at {}, round {round}",
                        node.http
                    );
                }
            }
        }
        if round == 0 {
            disk.process.kill().await?;
            reborn(&mut disk).await?;
        }
    }
    Ok(())
}

async fn paged(node: &Node, query: &str, limit: usize) -> anyhow::Result<Vec<String>> {
    let mut pages = Vec::new();
    let mut before: Option<String> = None;
    let size = limit.to_string();
    loop {
        let mut parameters = vec![("q", query), ("limit", &size)];
        parameters.extend(before.as_deref().map(|before| ("before", before)));
        let (texts, more) = found(node, &parameters).await?;
        ensure!(texts.len() <= limit, "a page of {}", texts.len());
        ensure!(texts.len() == limit || !more, "a short page, and more");
        before = match texts.first() {
            Some(first) => Some(serde_json::from_str::<Msg>(first)?.id),
            None => None,
        };
        pages.push(texts);
        if !more {
            pages.reverse();
            return Ok(pages.concat());
        }
    }
}

/// Goal: what was just acknowledged is found; on a node with a disk at once, elsewhere when it is
/// shown there. Method: say a word of its own, search for it, fifty times.
#[tokio::test]
async fn what_was_just_said_is_found() -> Outcome {
    let pair = Pair::start().await?;
    let ada = Client::hello(&pair.disk, "ada").await?;
    let mut counts: HashMap<bool, usize> = HashMap::new();
    for nth in 0..50 {
        let word = format!("word{nth}x");
        ada.send("tea", &format!("here is {word}")).await?;
        let (texts, _) = found(&pair.disk, &[("q", &word)]).await?;
        *counts.entry(texts.len() == 1).or_default() += 1;
        eventually(PATIENCE, "it is found at the other node", async || {
            let (texts, _) = found(&pair.memory, &[("q", &word)]).await?;
            ensure!(texts.len() == 1, "{texts:?}");
            Ok(())
        })
        .await?;
    }
    assert_eq!(counts, HashMap::from([(true, 50)]), "found at once");
    Ok(())
}
