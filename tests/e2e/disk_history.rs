//! History that is older than memory: paging back, joining a quiet room, coming back after long.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::harness::check::history;
use crate::harness::disks::{member, number, pour, reborn, written};
use crate::harness::metrics::told;
use crate::harness::pump::filled;
use crate::harness::raw::Raw;
use crate::harness::tools::{Event, Events};
use crate::harness::wire::{Joined, Msg};
use crate::harness::{
    Client, Instant, Load, Node, Outcome, PATIENCE, Registry, eventually, linked, ms, same, say,
    spawn,
};

/// What the node with the disk holds in memory, the least that there is.
const MEMORY: usize = 1000;
/// What was said in the busy room.
const SAID: usize = 5000;
/// Bytes of a text there of which all is more than a resume may bring, and most is not.
const LONG: usize = 900;
/// Bytes of a text where that does not matter.
const SHORT: usize = 60;

/// A node with a disk and little memory, and one that holds all in memory.
struct Pair {
    disk: Node,
    memory: Node,
    /// What was said in the busy room, as the node with enough memory has it.
    busy: Vec<String>,
    quiet: Vec<String>,
    _registry: Registry,
    _folder: TempDir,
}

impl Pair {
    /// With texts of so many bytes.
    async fn start(bytes: usize) -> anyhow::Result<Self> {
        let (registry, folder) = (Registry::start().await?, tempdir()?);
        let little = ["--retain-messages", "1000"];
        let disk = member(&registry, Some(&folder.path().join("data")), &little).await?;
        let memory = member(&registry, None, &[]).await?;
        linked(&[&disk, &memory], PATIENCE).await?;
        let (ada, bob) = (
            Client::hello(&disk, "ada").await?,
            Client::hello(&memory, "bob").await?,
        );
        pour(&ada, "quiet", (0..20).map(|nth| format!("hush {nth}"))).await?;
        pour(&bob, "quiet", (20..40).map(|nth| format!("hush {nth}"))).await?;
        let texts = |who: &str, count: usize| {
            let who = who.to_owned();
            (0..count).map(move |nth| filled(&format!("{who} {nth}"), bytes))
        };
        let (one, two) = tokio::join!(
            pour(&ada, "busy", texts("ada", SAID / 2)),
            pour(&bob, "busy", texts("bob", SAID / 2))
        );
        ensure!(one?.len() + two?.len() == SAID, "all were said");
        let busy = same(&[&disk, &memory], "busy", PATIENCE).await?;
        ensure!(busy.len() == SAID, "{} in the busy room", busy.len());
        let quiet = history(&memory, "quiet").await?;
        written(&disk).await?;
        let held = number(&disk, "history_messages").await?;
        ensure!(
            held <= MEMORY as u64,
            "{held} in memory: the test would not be about the disk"
        );
        Ok(Self {
            disk,
            memory,
            busy,
            quiet,
            _registry: registry,
            _folder: folder,
        })
    }

    /// The position of a client that has seen so many of the busy room.
    fn position(&self, seen: usize) -> anyhow::Result<Vec<String>> {
        let mut position = BTreeMap::new();
        for text in &self.busy[..seen] {
            let message: Msg = serde_json::from_str(text)?;
            let seq = position.entry(message.origin().to_owned()).or_insert(0);
            *seq = message.seq().max(*seq);
        }
        let ids = position
            .iter()
            .map(|(origin, seq)| format!("{origin}.{seq}"));
        Ok(ids.collect())
    }
}

fn parsed(texts: &[String]) -> anyhow::Result<Vec<Msg>> {
    Ok(texts
        .iter()
        .map(|text| serde_json::from_str(text))
        .collect::<Result<_, _>>()?)
}

/// The history of a room by the verb `history`, page by page.
async fn by_verb(client: &Client, room: &str, limit: usize) -> anyhow::Result<Vec<Msg>> {
    let mut pages: Vec<Vec<Msg>> = Vec::new();
    let mut before = Value::Null;
    loop {
        let body = json!({ "room": room, "before": before, "limit": limit });
        let mut page = client.ask("history", body).await?;
        let messages: Vec<Msg> = serde_json::from_value(page["messages"].take())?;
        ensure!(messages.len() <= limit, "a page of {}", messages.len());
        if let Some(first) = messages.first() {
            before = Value::from(first.id.as_str());
        }
        pages.push(messages);
        if page["more"] != true {
            break;
        }
    }
    pages.reverse();
    Ok(pages.concat())
}

/// Goal: paging back goes through memory into the disk without a seam: each message once, in order,
/// the same bytes as on a node that holds all in memory, over HTTP and over WebSocket; also after a
/// restart, and in a room of which memory holds nothing.
/// Method: 5000 messages on a node that holds 1000 in memory.
#[tokio::test]
async fn paging_back_goes_beyond_memory_without_a_seam() -> Outcome {
    let mut pair = Pair::start(SHORT).await?;
    // The pages of HTTP were compared when the pair was started.
    for round in 0..2 {
        let ada = Client::hello(&pair.disk, "ada").await?;
        for limit in if round == 0 { &[200, 77][..] } else { &[150] } {
            let busy = by_verb(&ada, "busy", *limit).await?;
            assert!(
                busy == parsed(&pair.busy)?,
                "round {round}, pages of {limit}"
            );
        }
        assert_eq!(by_verb(&ada, "quiet", 7).await?, parsed(&pair.quiet)?);
        let body = json!({ "room": "quiet", "history": 50 });
        let joined = ada.join_with(body).await?;
        assert_eq!(
            joined.messages,
            parsed(&pair.quiet)?,
            "a quiet room has its newest, though memory let them go"
        );
        let rooms = pair.disk.get_json("/api/rooms").await?;
        let counts: BTreeMap<_, _> = rooms["rooms"]
            .as_array()
            .context("rooms are a list")?
            .iter()
            .map(|room| (room["room"].as_str(), room["messages"].as_u64()))
            .collect();
        assert_eq!(counts[&Some("busy")], Some(SAID as u64), "{rooms}");
        assert_eq!(counts[&Some("quiet")], Some(40), "{rooms}");
        assert_eq!(history(&pair.disk, "quiet").await?, pair.quiet);
        if round == 0 {
            pair.disk.process.kill().await?;
            reborn(&mut pair.disk).await?;
            linked(&[&pair.disk, &pair.memory], PATIENCE).await?;
            assert!(history(&pair.disk, "busy").await? == pair.busy);
        }
    }
    let strange = json!({ "room": "busy", "before": "aaaaaaaaaa.7" });
    let ada = Client::hello(&pair.disk, "ada").await?;
    assert_eq!(ada.refusal("history", strange).await?.code, "id_unknown");
    Ok(())
}

/// Goal: a client that comes back with a position older than memory gets all that lies beyond,
/// each once, and is told so; one that is further behind than a resume may bring is told that, and
/// gets the newest page. Live messages go on after either without a seam. Over WebSocket, and by
/// server-sent events.
/// Method: positions after 1, 2500 and 4990 of 5000 messages, while others talk in another room, so
/// that memory lets something go all the time.
#[tokio::test]
async fn a_client_resumes_from_before_what_memory_holds() -> Outcome {
    let pair = Pair::start(LONG).await?;
    let others = Load::start([Client::hello(&pair.disk, "kim").await?], "elsewhere", 40);
    for seen in [SAID - 10, SAID / 2, 1] {
        let (ada, joined) = resumed(&pair, seen).await?;
        let due = match seen {
            1 => &pair.busy[SAID - 50..],
            _ => &pair.busy[seen..],
        };
        assert!(joined.messages == parsed(due)?, "{seen} seen");
        // In another room, so that the busy one stays what it was.
        let text = format!("after {seen}");
        ada.join("live").await?;
        ada.send("live", &text).await?;
        assert_eq!(ada.message(PATIENCE, &text).await?.text, text);
        assert_eq!(ada.messages().len(), 1, "nothing of the busy room twice");
    }
    by_events(&pair).await?;
    let said = others.stop().await?.len();
    assert!(said >= 10, "only {said} messages meanwhile");
    Ok(())
}

/// Comes back after so many of the busy room. A disk on which that takes more than 2 s is too slow,
/// which a busy machine may be once; that is said too, and another time it is not.
async fn resumed(pair: &Pair, seen: usize) -> anyhow::Result<(Client, Joined)> {
    let since = json!(pair.position(seen)?);
    eventually(PATIENCE, "what can be replayed is replayed", async || {
        let ada = Client::hello(&pair.disk, "ada").await?;
        let begun = Instant::now();
        let body = json!({ "room": "busy", "since": since, "history": 50 });
        let joined: Joined = ada.join_with(body).await?;
        say!(
            "{} messages replayed in {:?}, recovered: {:?}",
            joined.messages.len(),
            begun.elapsed(),
            joined.recovered
        );
        ensure!(joined.recovered == Some(seen > 1), "{seen} seen");
        Ok((ada, joined))
    })
    .await
}

/// The stream after so many of the busy room, and its first event; as [`resumed`].
async fn streamed(pair: &Pair, seen: usize) -> anyhow::Result<(Events, Event)> {
    let last = pair.position(seen)?.join(",");
    eventually(PATIENCE, "what can be replayed is replayed", async || {
        let mut events = Events::open(&pair.disk, "/api/rooms/busy/events", Some(&last)).await?;
        let first = events.next(PATIENCE).await?;
        ensure!((first.kind == "reset") == (seen == 1), "{first:?}");
        Ok((events, first))
    })
    .await
}

/// The same by server-sent events with `Last-Event-ID`: all that lies beyond, in order, then the live
/// ones; or `reset` and the newest page.
async fn by_events(pair: &Pair) -> Outcome {
    let bob = Client::hello(&pair.memory, "bob").await?;
    let (mut events, first) = streamed(pair, SAID / 2).await?;
    assert_eq!(first.data, pair.busy[SAID / 2]);
    for due in &pair.busy[SAID / 2 + 1..] {
        let event = events.next(PATIENCE).await?;
        assert_eq!(&event.data, due);
    }
    bob.send("busy", "and live").await?;
    let event = events.next(PATIENCE).await?;
    assert_eq!(serde_json::from_str::<Msg>(&event.data)?.text, "and live");
    // From the id of the last event a new stream goes on.
    bob.send("busy", "missed").await?;
    assert_eq!(
        serde_json::from_str::<Msg>(&events.next(PATIENCE).await?.data)?.text,
        "missed"
    );
    drop(events);
    let mut events = Events::open(&pair.disk, "/api/rooms/busy/events", Some(&event.id)).await?;
    let again = events.next(PATIENCE).await?;
    assert_eq!(serde_json::from_str::<Msg>(&again.data)?.text, "missed");

    let (mut events, reset) = streamed(pair, 1).await?;
    assert_eq!(reset.data, r#"{"recovered":false}"#);
    let newest = events.next(PATIENCE).await?;
    assert_eq!(newest.data, pair.busy[SAID - 48], "the newest 50 follow");
    Ok(())
}

/// Replies by which it is judged whether somebody was held up.
const JUDGED_MIN: usize = 20;

/// Goal: those who read what is older than memory hold up nobody else. Method: three clients
/// resume from far back and page through all of the room; another's requests are answered
/// meanwhile, and messages are shown.
#[tokio::test]
async fn reading_the_disk_holds_up_nobody_else() -> Outcome {
    let pair = Pair::start(SHORT).await?;
    let since = json!(pair.position(SAID / 2)?);
    let mut readers = Vec::new();
    let ada = Client::hello(&pair.disk, "ada").await?;
    let reader = Client::joined(&pair.disk, "reader", "live").await?;
    let (mut replies, mut shown) = (Vec::new(), Vec::new());
    loop {
        if readers.iter().all(tokio::task::JoinHandle::is_finished) {
            for reader in readers.drain(..) {
                reader.await??;
            }
            // A quick machine reads all of it before there is much to judge.
            if replies.len() >= JUDGED_MIN {
                break;
            }
            for nth in 0..3 {
                let eve = Raw::websocket(&pair.disk, Some(&format!("eve-{nth}"))).await?;
                readers.push(spawn(read_much(eve, since.clone())));
            }
        }
        let begun = Instant::now();
        ada.ask("who", json!({ "room": "live" })).await?;
        replies.push(begun.elapsed());
        let text = format!("live {}", shown.len());
        let begun = Instant::now();
        ada.send("live", &text).await?;
        reader.message(PATIENCE, &text).await?;
        shown.push(begun.elapsed());
        tokio::time::sleep(ms(10)).await;
    }
    for (what, times) in [("replies", replies), ("messages", shown)] {
        let (median, ..) = told(what, times);
        assert!(median < ms(250), "{what} were held up: median {median:?}");
    }
    Ok(())
}

/// Resumes, and pages back to the beginning. What comes is not parsed, since the test has one thread
/// and is not what is measured.
async fn read_much(mut eve: Raw, since: Value) -> anyhow::Result<()> {
    let join = json!({ "id": 1, "join": { "room": "busy", "since": since } });
    let joined = answer(&mut eve, &join).await?;
    ensure!(joined.contains(r#""recovered":"#), "{joined:.100}");
    let mut before = Value::Null;
    let mut pages = 0;
    loop {
        let page =
            json!({ "id": 2, "history": { "room": "busy", "before": before, "limit": 200 } });
        let page = answer(&mut eve, &page).await?;
        pages += 1;
        let (_, first) = page
            .split_once(r#"[{"room":"busy","id":""#)
            .context("a page")?;
        before = Value::from(first.split('"').next());
        if page.ends_with(r#""more":false}}"#) {
            break;
        }
    }
    ensure!(pages >= SAID / 200, "{pages} pages");
    Ok(())
}

/// The reply to a request; pushes are passed over.
async fn answer(eve: &mut Raw, request: &Value) -> anyhow::Result<String> {
    eve.say(&request.to_string()).await?;
    let head = format!(r#"{{"id":{},"#, request["id"]);
    loop {
        let (_, payload) = eve.frame(PATIENCE).await?;
        let text = String::from_utf8(payload)?;
        ensure!(!text.contains(r#""error":{"#), "{text}");
        if let Some(reply) = text.lines().find(|line| line.starts_with(&head)) {
            return Ok(reply.to_owned());
        }
    }
}
