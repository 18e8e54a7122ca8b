//! Server-sent events: where a stream begins, what it brings, and when it ends.

use std::sync::Arc;

use super::*;
use crate::core::log::Span;
use crate::core::news::{Entries, News};
use crate::model::entry::Entry;
use crate::model::names::EntryId;

const EVENTS: &str = "/api/rooms/tea/events";

/// An event as a browser sees it: its kind, its data, and the id that it would come back with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    kind: String,
    data: String,
    id: String,
}

/// A stream read by the rules of the specification.
struct Source {
    response: reqwest::Response,
    text: String,
    last: String,
}

impl Source {
    async fn open(f: &Fixture, last: Option<&str>) -> Self {
        let mut request = f.request(Method::GET, EVENTS);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self::of(response, last.unwrap_or_default())
    }

    fn of(response: reqwest::Response, last: &str) -> Self {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
            last: last.to_owned(),
        }
    }

    /// The next block that dispatches an event, or, with `silent`, any that has an id.
    async fn block(&mut self, silent: bool) -> Event {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let mut lines = block.lines().rev();
                    lines
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::to_owned)
                };
                let id = field("id: ");
                let named = id.is_some();
                self.last = id.unwrap_or_else(|| self.last.clone());
                let data = field("data: ").unwrap_or_default();
                if !data.is_empty() || (silent && named) {
                    let kind = field("event: ").unwrap_or_default();
                    let id = self.last.clone();
                    return Event { kind, data, id };
                }
            }
            let piece = self.response.chunk().await.unwrap();
            let piece = piece.expect("the stream goes on");
            self.text.push_str(str::from_utf8(&piece).unwrap());
        }
    }

    /// The next event before the stream ends.
    async fn until_end(&mut self) -> Option<Event> {
        while !self.text.contains("\n\n") {
            // Whoever is cut off may be told so by a reset.
            let piece = self.response.chunk().await.ok().flatten()?;
            self.text.push_str(&String::from_utf8_lossy(&piece));
        }
        Some(self.next().await)
    }

    async fn next(&mut self) -> Event {
        self.block(false).await
    }

    /// The text of the next message.
    async fn text(&mut self) -> String {
        let event = self.next().await;
        assert_eq!(event.kind, "", "{event:?}");
        let message: Value = serde_json::from_str(&event.data).unwrap();
        message["text"].as_str().unwrap().to_owned()
    }
}

/// The ids of a position that name an origin.
fn named(position: &str) -> String {
    let ids = position.split(',').filter(|id| {
        let id: EntryId = id.parse().unwrap();
        !id.origin.is_mark()
    });
    ids.collect::<Vec<_>>().join(",")
}

fn numbers(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

#[tokio::test]
async fn a_stream_that_breaks_before_its_first_event_misses_nothing() {
    let f = Fixture::new(&PLAIN);
    for (before, seq) in [(0, 1), (3, 7)] {
        f.say("tea", numbers(0..before)).await;
        let mut source = Source::open(&f, None).await;
        let begin = source.block(true).await;
        assert_eq!(begin.data, "", "an old message");
        drop(source);
        f.say("tea", ["missed".to_owned()]).await;
        let mut source = Source::open(&f, Some(&begin.id)).await;
        assert_eq!(source.text().await, "missed", "{begin:?}");
        let id = format!("{}.{seq}", f.origin);
        assert_eq!(named(&source.last), id);
        assert!(source.last.starts_with(&id), "its own first");
        assert_eq!(named(&source.block(true).await.id), id);
        f.say("tea", ["live".to_owned()]).await;
        assert_eq!(source.text().await, "live");
        assert_nothing_twice(&f, source).await;
    }
}

/// Nothing is brought twice to one who comes back.
async fn assert_nothing_twice(f: &Fixture, source: Source) {
    let mut again = Source::open(f, Some(&source.last)).await;
    f.say("tea", ["marker".to_owned()]).await;
    assert_eq!(again.text().await, "marker");
}

#[tokio::test]
async fn a_long_replay_can_be_broken_off_anywhere() {
    let f = Fixture::new(&PLAIN);
    f.say("tea", numbers(0..900)).await;
    let mut last = format!("{}.0", f.origin);
    let mut seen = Vec::new();
    while seen.len() < 900 {
        let mut source = Source::open(&f, Some(&last)).await;
        for _ in 0..90 {
            seen.push(source.text().await);
        }
        last = source.last;
    }
    assert_eq!(seen, numbers(0..900).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_cannot_be_replayed_is_said_and_the_newest_page_comes_instead() {
    let f = Fixture::new(&Options {
        messages: 100,
        ..PLAIN
    });
    f.say("tea", numbers(0..300)).await;
    let old = format!("{}.7", f.origin);
    let mut source = Source::open(&f, Some(&old)).await;
    let reset = source.next().await;
    assert_eq!(reset.kind, "reset");
    assert_eq!(reset.data, r#"{"recovered":false}"#);
    for number in 250..300 {
        assert_eq!(source.text().await, number.to_string());
        assert_eq!(source.last, old, "broken off here, the page comes again");
    }
    let end = source.block(true).await.id;
    assert_eq!(named(&end), format!("{}.300", f.origin));
    assert_nothing_twice(&f, source).await;
}

/// Goal: a stream whose client does not read ends, gives back what it held, and goes on with what was
/// missed when it comes back. Method: much is said, in few and in many events.
#[tokio::test]
async fn a_client_that_does_not_read_is_let_go_and_resumes() {
    let f = Fixture::new(&PLAIN);
    let mut said = 0;
    for (slow, bytes) in [(1, 4000), (2, 1)] {
        let mut source = Source::open(&f, None).await;
        source.block(true).await;
        while f.node.status().clients.totals.slow < slow {
            let texts = (0..50).map(|_| "x".repeat(bytes));
            f.say("tea", texts).await;
            said += 50;
            assert!(said < 100_000, "it is never let go");
        }
        let mut last = source.last.clone();
        while let Some(event) = source.until_end().await {
            last = event.id;
        }
        assert_eq!(f.node.status().clients.spooled, 0);
        let gone = async {
            while f.node.status().clients.stream_seats > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        gone.expect("its seat is free again");
        let mut again = Source::open(&f, Some(&last)).await;
        f.say("tea", ["marker".to_owned()]).await;
        said += 1;
        let mut texts = 0;
        // It has missed so much that it may be reset.
        while !again.next().await.data.contains("marker") {
            texts += 1;
        }
        assert!(texts > 0, "it had missed something");
    }
    // Who has gone was not slow.
    let source = Source::open(&f, None).await;
    drop(source);
    f.say("tea", ["nobody listens".to_owned()]).await;
    assert_eq!(f.node.status().clients.totals.slow, 2);
}

#[tokio::test]
async fn origins_that_a_client_made_up_do_not_ride_in_every_id() {
    let f = Fixture::new(&PLAIN);
    f.say("tea", ["said".to_owned()]).await;
    let mut rng = StdRng::seed_from_u64(1);
    let invented = (0..200).map(|_| format!("{}.5", Origin::generate(&mut rng)));
    let last = invented.collect::<Vec<_>>().join(",");
    let mut source = Source::open(&f, Some(&last)).await;
    // Of the replay, and live: the message's own id, and a bounded number of strangers.
    assert_eq!(source.text().await, "said");
    assert_eq!(named(&source.last).split(',').count(), 65);
    f.say("tea", ["live".to_owned()]).await;
    assert_eq!(source.text().await, "live");
    assert_eq!(named(&source.last).split(',').count(), 65);
}

/// Goal: a stream's ids are taken back by the door that gave them out, however many nodes have come and
/// gone, before the stream was opened and while it lasts. Method: thousands of origins say one thing each,
/// half of them before; with each id the stream is opened again, and misses nothing.
#[tokio::test]
async fn ids_stay_short_however_many_nodes_have_come_and_gone() {
    const EACH: usize = 1200;
    let f = Fixture::new(&Options {
        messages: 100_000,
        ..PLAIN
    });
    let mut rng = StdRng::seed_from_u64(2);
    let mut come_and_go = |count: usize| {
        for _ in 0..count {
            let origin = Origin::generate(&mut rng);
            f.node
                .with_core(|core, now| speaks_and_goes(core, now, origin));
        }
    };
    come_and_go(EACH);
    beats_later(&f);
    let mut source = Source::open(&f, None).await;
    let begin = source.block(true).await.id;
    assert!(begin.len() < 4096, "{} bytes", begin.len());
    for _ in 0..EACH / 100 {
        come_and_go(100);
        beats_later(&f);
        for _ in 0..100 {
            assert_eq!(source.text().await, "hello");
        }
        assert!(source.last.len() < 8192, "{} bytes", source.last.len());
    }
    let mut again = Source::open(&f, Some(&begin)).await;
    for nth in 0..EACH {
        assert_eq!(again.text().await, "hello");
        assert!(again.last.len() < 8192, "{} bytes", again.last.len());
        if nth % 300 == 299 {
            // Broken off within the replay, too.
            again = Source::open(&f, Some(&again.last)).await;
        }
    }
    assert_nothing_twice(&f, again).await;
    assert_eq!(source.text().await, "marker");
    assert_nothing_twice(&f, source).await;
}

/// A beat of a time when those who have gone are gone.
fn beats_later(f: &Fixture) {
    f.node.with_core(|core, now| {
        let mono = now.mono + Duration::from_secs(3);
        core.beat_now(Now { mono, ..now });
    });
}

/// A node that is linked, says one thing, and is gone.
fn speaks_and_goes(core: &mut Core, now: Now, origin: Origin) {
    let id = EntryId { origin, seq: 1 };
    let name = "bob".parse().unwrap();
    let room = "tea".parse().unwrap();
    let entry = Entry::new(id, now.wall_us, room, None, &name, "hello");
    let frame = News::Entries(Entries {
        origin,
        ack_wanted: false,
        entries: vec![Arc::new(entry)],
    });
    core.speaks_and_goes(now, origin, frame);
}

#[tokio::test]
async fn a_gap_is_told_to_the_streams_of_all_rooms() {
    let f = Fixture::new(&PLAIN);
    let mut source = Source::open(&f, None).await;
    let begin = source.block(true).await;
    let origin: Origin = "abcdefghij".parse().unwrap();
    let span = Span {
        after: 7,
        through: 9,
    };
    f.node.with_core(|core, _| core.give_up(origin, span));
    let gap = source.next().await;
    assert_eq!(gap.kind, "gap");
    assert_eq!(
        gap.data,
        r#"{"room":"tea","origin":"abcdefghij","after":7,"through":9}"#
    );
    assert_eq!(gap.id, begin.id, "a gap is no position");
}

/// What a browser comes back with is never refused: it would give the stream up for good.
#[tokio::test]
async fn a_position_that_cannot_be_read_is_answered_by_a_reset() {
    let f = Fixture::new(&PLAIN);
    f.say("tea", numbers(0..60)).await;
    let header = |id: &str| f.request(Method::GET, EVENTS).header("last-event-id", id);
    let query = |query: &str| f.request(Method::GET, &format!("{EVENTS}?{query}"));
    let bytes = reqwest::header::HeaderValue::from_bytes(b"\xff\xfe").unwrap();
    for (what, request, resets) in [
        ("garbage", header("garbage"), true),
        ("an id of another form", header("1760000000000-0"), true),
        (
            "a number too large",
            header("abcdefghij.99999999999999999999"),
            true,
        ),
        ("one of two", header("abcdefghij.1,x"), true),
        (
            "not UTF-8",
            f.request(Method::GET, EVENTS)
                .header("last-event-id", bytes),
            true,
        ),
        ("in the query", query("last_event_id=x"), true),
        (
            "twice in the query",
            query("last_event_id=a&last_event_id=b"),
            true,
        ),
        ("not UTF-8 in the query", query("last_event_id=%FF"), true),
        ("half an escape", query("last_event_id=%"), true),
        (
            "the header before the query",
            query("last_event_id=x").header("last-event-id", ""),
            false,
        ),
        ("empty", header(""), false),
        ("empty in the query", query("last_event_id="), false),
        ("without a value", query("last_event_id"), false),
        ("another query", query("a=b&a=c"), false),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{what}");
        let mut source = Source::of(response, "");
        if resets {
            let reset = source.next().await;
            assert_eq!(
                (&*reset.kind, &*reset.data),
                ("reset", r#"{"recovered":false}"#),
                "{what}"
            );
            for number in 10..60 {
                assert_eq!(source.text().await, number.to_string(), "{what}");
            }
        }
        let begin = source.block(true).await;
        assert_eq!(begin.data, "", "{what}");
        let here = format!("{}.60", f.origin);
        assert!(
            begin.id.split(',').any(|id| id == here),
            "{what}: {begin:?}"
        );
    }
}

/// A stream that is behind a proxy comes through it at once, from its first byte on.
#[tokio::test]
async fn a_stream_asks_not_to_be_gathered_and_begins_at_once() {
    let f = Fixture::new(&PLAIN);
    let response = f.get(EVENTS).await;
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let cache = "no-cache, no-store, no-transform";
    assert_eq!(response.headers()["cache-control"], cache);
    let begin = Source::of(response, "").block(true).await;
    assert!(!begin.id.is_empty());
}

/// Goal: a stop is not held up by streams, whoever reads them. Method: a stream that is open and is not
/// read, and one that comes when all clients were closed.
#[tokio::test]
async fn no_stream_outlives_a_stop() {
    let f = Fixture::new(&PLAIN);
    let open = Source::open(&f, None).await;
    f.say("tea", (0..200).map(|_| "x".repeat(4000))).await;
    f.node.close_clients(PATIENCE).await;
    let late = f.request(Method::GET, EVENTS).send().await;
    assert!(late.is_err(), "{late:?}");
    f.node.tasks().stop();
    let gone = async {
        while f.node.status().clients.stream_seats > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(1), gone).await;
    gone.expect("none is left");
    drop(open);
}

/// Goal: a long replay gives way to others. Method: it is read as fast as it comes, and all of it comes.
#[tokio::test]
async fn a_long_replay_comes_whole() {
    let f = Fixture::new(&PLAIN);
    f.say(
        "tea",
        (0..900).map(|number| format!("{number} {}", "x".repeat(4000))),
    )
    .await;
    let mut source = Source::open(&f, Some(&format!("{}.0", f.origin))).await;
    for number in 0..900 {
        let text = source.text().await;
        assert!(text.starts_with(&format!("{number} ")), "{number}");
    }
    f.say("tea", ["live".to_owned()]).await;
    assert_eq!(source.text().await, "live");
}
