//! Rooms by pattern: over WebSocket and as server-sent events, with the promises of a join.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::disks::{pour, written};
use crate::harness::tools::Events;
use crate::harness::wire::{Joined, Msg, Position};
use crate::harness::{
    Client, Cluster, Habits, Node, Outcome, PATIENCE, Pace, Plain, Recorder, Roamer, converged,
    eventually, say,
};

/// Goal: whoever watches is shown all that is said in the rooms of the pattern, once and in order,
/// whatever happens to its node, as whoever joins is. Method: some join, some watch, and all talk, in rooms
/// that appear meanwhile; nodes are killed, drained and started again; one record of all is judged for
/// each room.
#[tokio::test]
async fn people_who_watch_while_nodes_die_miss_nothing() -> Outcome {
    let mut cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let mut people = Vec::new();
    for (name, room, watches) in [
        ("joins", "chat.a", None),
        ("watches", "chat.b", Some("chat.*")),
        ("archive", "chat.c", Some("*")),
        ("one", "chat.a", Some("chat.a")),
    ] {
        let habits = Habits {
            watches: watches.map(str::to_owned),
            ..Habits::new(room, Pace::Steady(50), 1)
        };
        people.push(Roamer::start(&recorder, &cluster.nodes, name, habits).await?);
    }
    let spoken = async |people: &mut Vec<Roamer>| -> anyhow::Result<()> {
        for person in people.iter_mut() {
            person.has_said(person.answered() + 20, PATIENCE).await?;
        }
        Ok(())
    };
    for round in 0..4 {
        spoken(&mut people).await?;
        let mut node = cluster.nodes.remove(0);
        if round % 2 == 0 {
            recorder.kill(&mut node).await?;
        } else {
            node.process.signal(rustix::process::Signal::TERM)?;
            node.process.wait(PATIENCE).await?;
        }
        for person in &mut people {
            person.is_away_from(&node.origin, PATIENCE).await?;
        }
        spoken(&mut people).await?;
        node.again().await?;
        cluster.nodes.push(node);
    }
    Roamer::rest(
        &mut people,
        &recorder,
        &cluster.nodes[0].http,
        "chat.a",
        PATIENCE,
    )
    .await?;
    for (room, readers) in [("chat.a", 4), ("chat.b", 2), ("chat.c", 2)] {
        let checked = recorder.check(&cluster.nodes, room).await?;
        say!("{room}: {checked}");
        let verdict = &checked.verdict;
        assert_eq!((verdict.readers, verdict.to_the_end), (readers, readers));
        assert!(verdict.messages > 100 && verdict.moves > 0, "{checked}");
    }
    Ok(())
}

/// All at once, as a client does that comes back: joins first, then watches, or the other way round.
async fn enters(
    client: &Client,
    wants: &[(&str, Value)],
    since: Option<&[String]>,
) -> anyhow::Result<Vec<Joined>> {
    let mut replies = Vec::new();
    for (verb, body) in wants {
        let mut body = body.clone();
        if let Some(since) = since {
            body["since"] = json!(since);
        }
        replies.push((verb, client.start(verb, body)));
    }
    let mut entered = Vec::new();
    for (verb, reply) in replies {
        let reply = client.reply(verb, reply).await?;
        entered.push(serde_json::from_value(reply)?);
    }
    Ok(entered)
}

/// Goal: whoever has joined a room, watches it, and watches it by two patterns, is shown each message once,
/// live and when it comes back, to another node too, in whichever order it asks; only of the room it is told
/// who is there. Method: such a client, moved from node to node; what it is shown is counted.
#[tokio::test]
async fn each_message_is_shown_once_whatever_else_is_heard() -> Outcome {
    let cluster = Cluster::with(2, &["--rate-limit", "0"]).await?;
    let bob = Client::hello(&cluster.nodes[1], "bob").await?;
    let mut wants = vec![
        ("join", json!({ "room": "chat.a", "history": 0 })),
        ("watch", json!({ "rooms": "chat.*" })),
        ("watch", json!({ "rooms": "*" })),
        ("watch", json!({ "rooms": "chat.b" })),
    ];
    let (mut position, mut said) = (Position::default(), 0);
    for round in 0..4 {
        let node = &cluster.nodes[round % 2];
        let ada = Client::hello(node, "ada").await?;
        let ids = position.ids();
        let since = (round > 0).then_some(&ids[..]);
        let entered = enters(&ada, &wants, since).await?;
        let replayed: Vec<&Msg> = entered.iter().flat_map(|it| &it.messages).collect();
        // What was said while it was away, which is half of all, by one of what it asked for each.
        let texts: BTreeSet<_> = replayed.iter().map(|message| &message.text).collect();
        let missed = if round > 0 { said / 2 } else { 0 };
        assert_eq!(
            (texts.len(), replayed.len()),
            (missed.min(8), missed.min(8))
        );
        for entered in &entered {
            assert_eq!(entered.recovered, Some(round > 0));
            position.merge(&Position::parse(&entered.at)?);
        }
        for room in [
            "chat.a", "chat.b", "other", "chat.a", "chat.c", "chat.b", "new", "chat.a",
        ] {
            said += 1;
            bob.send(room, &format!("{said}")).await?;
        }
        ada.message(PATIENCE, &format!("{said}")).await?;
        let shown: Vec<String> = ada.messages().into_iter().map(|(_, it)| it.text).collect();
        let live: Vec<_> = (said - 7..=said).map(|number| number.to_string()).collect();
        assert_eq!(shown, live, "in order");
        ada.ping("", PATIENCE).await?;
        assert_eq!(ada.messages().len(), 8, "and once");
        for (_, message) in ada.messages() {
            position.advance(&message);
        }
        let cat = Client::joined(node, "cat", "chat.a").await?;
        let names = |told: &Value| told["joined"] == json!(["cat"]);
        assert_eq!(
            ada.push(PATIENCE, "members", names).await?["room"],
            "chat.a"
        );
        let who = ada.ask("who", json!({ "room": "chat.b" })).await?;
        assert_eq!(who["count"], 0, "who watches is no member");
        ada.vanish();
        cat.vanish();
        for room in [
            "chat.a", "chat.b", "other", "chat.c", "chat.a", "chat.b", "later", "chat.a",
        ] {
            said += 1;
            bob.send(room, &format!("{said}")).await?;
        }
        converged(&cluster.nodes, PATIENCE).await?;
        wants.rotate_left(1);
    }
    Ok(())
}

/// A node with a disk and a short memory, in which much was said in rooms of two patterns.
struct Kept {
    cluster: Cluster,
    disk: Node,
    flags: Vec<String>,
    _folder: TempDir,
    /// Where a client was that had seen nothing.
    begin: Vec<String>,
    /// The ids of the first events of streams of either pattern.
    bots: String,
    chat: String,
    /// What was said in the rooms of the second, but for the first.
    texts: Vec<String>,
}

impl Kept {
    async fn start() -> anyhow::Result<Self> {
        let (cluster, folder) = (Cluster::start(1).await?, tempfile::tempdir()?);
        let data = folder.path().join("data").display().to_string();
        let flags = [
            "--retain-messages",
            "1000",
            "--rate-limit",
            "0",
            "--data",
            &data,
        ];
        let flags: Vec<String> = flags.map(str::to_owned).into();
        let flags = [flags, cluster.registry.flags()].concat();
        let disk = Node::start(flags.clone()).await?;
        let begin = Client::hello(&disk, "eve")
            .await?
            .watch("*", None)
            .await?
            .at;
        let here = &cluster.nodes[0];
        let mut bots = Events::open(here, "/api/events?rooms=bots.*", None).await?;
        let mut chat = Events::open(here, "/api/events?rooms=chat.*", None).await?;
        let ada = Client::hello(&disk, "ada").await?;
        let mut texts = Vec::new();
        for part in 0..6 {
            let hushed = (0..1).map(|_| format!("bot {part}"));
            pour(&ada, "bots.x", hushed).await?;
            let said: Vec<String> = (0..400).map(|nth| format!("{part}: {nth}")).collect();
            pour(&ada, &format!("chat.{}", part % 5), said.clone()).await?;
            texts.extend(said);
        }
        let (bots, chat) = (bots.next(PATIENCE).await?, chat.next(PATIENCE).await?);
        ensure!(
            text(&bots.data)? == "bot 0" && text(&chat.data)? == texts.remove(0),
            "{bots:?}"
        );
        written(&disk).await?;
        Ok(Self {
            cluster,
            disk,
            flags,
            _folder: folder,
            begin,
            bots: bots.id,
            chat: chat.id,
            texts,
        })
    }
}

fn text(data: &str) -> anyhow::Result<String> {
    Ok(serde_json::from_str::<Msg>(data)?.text)
}

/// Goal: a stream of a pattern goes on from its last id on another node, and says what it cannot bring; what
/// memory has let go comes from the disk, of the rooms of the pattern alone. Method: a node with a short
/// memory and a disk, and one without; streams and watches from far back, after a kill too; then a disk that
/// keeps little.
#[tokio::test]
async fn what_was_missed_comes_from_the_disk_of_any_node_or_is_told() -> Outcome {
    let mut kept = Kept::start().await?;
    for restarted in [false, true] {
        if restarted {
            kept.disk.process.kill().await?;
            kept.disk.again().await?;
            kept.disk.takes_clients(PATIENCE).await?;
        }
        let bots = "/api/events?rooms=bots.*";
        let mut events = Events::open(&kept.disk, bots, Some(&kept.bots)).await?;
        for part in 1..6 {
            let event = events.next(PATIENCE).await?;
            assert_eq!(text(&event.data)?, format!("bot {part}"));
        }
        for node in [&kept.disk, &kept.cluster.nodes[0]] {
            let chat = "/api/events?rooms=chat.*";
            let mut events = Events::open(node, chat, Some(&kept.chat)).await?;
            for due in &kept.texts {
                assert_eq!(&text(&events.next(PATIENCE).await?.data)?, due);
            }
        }
        let client = Client::hello(&kept.disk, "cat").await?;
        let watched = client.watch("chat.3", Some(&kept.begin)).await?;
        let texts: Vec<_> = watched.messages.iter().map(|it| it.text.clone()).collect();
        let wanted: Vec<_> = (0..400).map(|nth| format!("3: {nth}")).collect();
        assert_eq!((watched.recovered, texts), (Some(true), wanted));
    }
    // Alone, so that nobody else brings what its disk removes.
    kept.disk.process.kill().await?;
    kept.cluster.nodes[0].process.kill().await?;
    kept.flags
        .extend(["--data-messages", "1000"].map(str::to_owned));
    let disk = Node::start(kept.flags).await?;
    eventually(PATIENCE, "the disk keeps little", async || {
        let mesh = disk.get_json("/api/mesh").await?;
        let kept = mesh["storage"]["messages"].as_u64();
        ensure!(kept.is_some_and(|kept| kept <= 1000), "{kept:?}");
        Ok(())
    })
    .await?;
    let client = Client::hello(&disk, "dan").await?;
    let watched = client.watch("chat.*", Some(&kept.begin)).await?;
    assert_eq!(
        (watched.recovered, watched.messages.len()),
        (Some(false), 0)
    );
    let chat = "/api/events?rooms=chat.*";
    let mut events = Events::open(&disk, chat, Some(&kept.chat)).await?;
    assert_eq!(events.next(PATIENCE).await?.kind, "reset");
    client.send("chat.new", "and live").await?;
    client.message(PATIENCE, "and live").await?;
    assert_eq!(text(&events.next(PATIENCE).await?.data)?, "and live");
    Ok(())
}

/// Goal: what is no pattern is refused, and a client has so many and no more; what a node takes on it gives
/// back. Method: a table of requests on one connection, and of paths; the gauge of patterns.
#[tokio::test]
async fn what_is_no_pattern_is_refused_and_patterns_are_bounded() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let client = Client::hello(&node, "ada").await?;
    let long = format!("{}*", "x".repeat(65));
    for rooms in [
        "",
        "a*b",
        "**",
        "*a",
        "a b*",
        "..",
        "a/*",
        "\u{200b}*",
        "[a]*",
        &long,
    ] {
        for verb in ["watch", "unwatch"] {
            let refused = client.refusal(verb, json!({ "rooms": rooms })).await?;
            assert_eq!(refused.code, "pattern_invalid", "{verb} {rooms:?}");
        }
    }
    for (verb, body, code) in [
        ("watch", json!({}), "bad_request"),
        ("watch", json!({ "rooms": ["a*"] }), "bad_request"),
        (
            "watch",
            json!({ "rooms": "a*", "since": ["x"] }),
            "id_invalid",
        ),
        ("unwatch", json!({ "rooms": "a*" }), "not_watched"),
        (
            "seen",
            json!({ "room": "a", "rooms": "*a", "mids": [] }),
            "pattern_invalid",
        ),
    ] {
        assert_eq!(client.refusal(verb, body).await?.code, code);
    }
    let patterns = async |count: u64| {
        eventually(PATIENCE, "so many patterns are watched", async || {
            let found = node.metrics().await?.get("patterns")?;
            ensure!(found == count, "{found}");
            Ok(())
        })
        .await
    };
    for number in 0..20 {
        client.watch(&format!("a{number:02}*"), None).await?;
    }
    client.watch("a07*", None).await?;
    let refused = client.refusal("watch", json!({ "rooms": "b*" })).await?;
    assert_eq!(refused.code, "pattern_limit");
    patterns(20).await?;
    client.ask("unwatch", json!({ "rooms": "a07*" })).await?;
    patterns(19).await?;
    client.watch("b*", None).await?;
    // Hundreds more are refused, for one reason or the other, and the connection goes on.
    let hundreds = (0..700).map(|number| json!({ "rooms": format!("c{number}*") }));
    for reply in client.start_all("watch", hundreds) {
        let reply = reply.await?;
        let code = reply["error"]["code"].as_str();
        assert!(
            matches!(code, Some("pattern_limit" | "rate_limited")),
            "{reply}"
        );
    }
    client.send("b1", "hello").await?;
    client.message(PATIENCE, "hello").await?;
    let plain = Plain::connect(&node, "?room=b2").await?;
    plain.say("bare text");
    assert_eq!(client.message(PATIENCE, "bare text").await?.room, "b2");
    let stream = Events::open(&node, "/api/events?rooms=s*", None).await?;
    patterns(21).await?;
    drop(stream);
    client.vanish();
    node.post(
        "/api/rooms/s1/messages",
        &json!({ "from": "bot", "text": "to nobody" }),
    )
    .await?;
    patterns(0).await?;
    for (path, code) in [
        ("/api/events", "bad_request"),
        ("/api/events?rooms=a*&rooms=b*", "bad_request"),
        ("/api/events?rooms=", "pattern_invalid"),
        ("/api/events?rooms=a*b", "pattern_invalid"),
    ] {
        let answer = node.get(path).await?;
        assert_eq!(answer.status(), 400, "{path}");
        let problem: Value = answer.json().await?;
        assert_eq!(problem["code"], code, "{path}");
    }
    Ok(())
}
