//! Hostile input on an open WebSocket.

use serde_json::{Value, json};
use tokio::time::Duration;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, RSV1, Raw, TEXT, frame, head};
use crate::harness::{
    Client, Instant, NOISE, Node, Outcome, PATIENCE, Plain, eventually, say, secs,
};
use crate::hostile::still_chats;

/// The contract: no hello within this time is 4001.
const HELLO_WITHIN: Duration = secs(10);
/// The contract: this long without a word is 4002.
const SILENCE: Duration = secs(35);
/// What hostile input may make a node's memory grow by.
const GROWTH_MAX: u64 = 32 << 20;

async fn alone() -> anyhow::Result<Node> {
    Node::start(["--registry", "none"]).await
}

/// Goal (W13 to W18): each break of the WebSocket protocol is closed with its code, at once, at
/// both doors' shared reader. Method: raw frames on a connection that has said hello.
#[tokio::test]
async fn each_break_of_the_protocol_is_closed_with_its_code() -> Outcome {
    let mut node = alone().await?;
    let unmasked = {
        let mut bytes = head(FIN | TEXT, 2, false);
        bytes.extend_from_slice(b"{}");
        bytes
    };
    let fragments = {
        let mut bytes = frame(TEXT, &[b'x'; 2048]);
        for _ in 0..40 {
            bytes.extend(frame(CONTINUATION, &[b'x'; 2048]));
        }
        bytes
    };
    let two_starts = [frame(TEXT, b"{"), frame(FIN | TEXT, b"{}")].concat();
    let long_close = [&[0x03, 0xe8][..], &[b'x'; 200]].concat();
    let half_character = [frame(TEXT, b"\xe2\x82"), frame(FIN | CONTINUATION, b"(")].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("invalid UTF-8", frame(FIN | TEXT, b"\xff\xfe"), 1007),
        ("half a character", half_character, 1007),
        ("unmasked", unmasked, 1002),
        ("reserved opcode", frame(FIN | 0x3, b"x"), 1002),
        ("reserved control opcode", frame(FIN | 0xb, b"x"), 1002),
        ("RSV1", frame(FIN | RSV1 | TEXT, b"{}"), 1002),
        ("fragmented ping", frame(PING, b"x"), 1002),
        ("ping over 125", frame(FIN | PING, &[0; 126]), 1002),
        ("stray continuation", frame(FIN | CONTINUATION, b"x"), 1002),
        ("a message within a message", two_starts, 1002),
        ("70 KiB", frame(FIN | TEXT, &[b'x'; 70 * 1024]), 1009),
        ("claims 2^62", head(FIN | TEXT, 1 << 62, true), 1009),
        ("claims 2^63", head(FIN | TEXT, 1 << 63, true), 1002),
        ("82 KiB in fragments", fragments, 1009),
        ("binary", frame(FIN | BINARY, b"x"), 1003),
        (
            "close code 999",
            frame(FIN | CLOSE, &999_u16.to_be_bytes()),
            1002,
        ),
        (
            "close code 1005",
            frame(FIN | CLOSE, &1005_u16.to_be_bytes()),
            1002,
        ),
        ("close of 1 byte", frame(FIN | CLOSE, b"x"), 1002),
        ("close reason of 200", frame(FIN | CLOSE, &long_close), 1002),
        (
            "close reason not UTF-8",
            frame(FIN | CLOSE, &[0x03, 0xe8, 0xff]),
            1007,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut raw = Raw::websocket(&node, Some("eve")).await?;
        // A node that closes early resets what it has not read.
        let _cut_short = raw.send(&bytes).await;
        let closed = raw.close_code(PATIENCE).await;
        let closed = closed.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        // 2^63 is both too big and against the protocol's own rule for lengths.
        let right = closed.0 == code || what == "claims 2^63" && closed.0 == 1009;
        assert!(right, "{what}: closed with {closed:?}, not {code}");
        raw.until_closed(PATIENCE).await?;
    }
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal (W11): no hello within 10 s is 4001. Method: pings do not count as a word.
#[tokio::test]
async fn no_hello_within_10_s_is_4001() -> Outcome {
    let mut node = alone().await?;
    let start = Instant::now();
    let mut raw = Raw::websocket(&node, None).await?;
    let closed = raw.close_code(HELLO_WITHIN + NOISE * 4).await?;
    let took = start.elapsed();
    assert_eq!(closed.0, 4001, "{closed:?}");
    assert!(
        took >= HELLO_WITHIN - NOISE,
        "closed after {took:?} already"
    );
    let client = Client::silent(&node).await?;
    let refused = client.refusal("join", json!({ "room": "tea" })).await?;
    assert_eq!(refused.code, "hello_required");
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal (W16 and the contract's keep-alive): a quiet connection is pinged after 25 s; who never
/// answers is closed with 4002 after 35 s; fragments without end do not count for ever.
/// Method: three connections side by side: one answers, one does not, one dribbles fragments.
#[tokio::test]
async fn silence_is_4002_and_an_answered_ping_keeps_the_connection() -> Outcome {
    let mut node = alone().await?;
    let lively = Client::joined(&node, "lively", "tea").await?;
    let mut silent = Raw::websocket(&node, Some("silent")).await?;
    let mut dribbling = Raw::websocket(&node, Some("dribbling")).await?;
    let start = Instant::now();
    dribbling.send(&frame(TEXT, b"{")).await?;
    let dribbler = crate::harness::spawn(async move {
        let mut beat = tokio::time::interval(secs(2));
        loop {
            beat.tick().await;
            if dribbling.send(&frame(CONTINUATION, b" ")).await.is_err() {
                return start.elapsed();
            }
        }
    });
    lively.pinged(secs(25) + secs(5), 1).await?;
    let pinged = start.elapsed();
    assert!(pinged >= secs(24), "pinged after {pinged:?} already");
    let closed = silent.close_code(SILENCE).await?;
    let took = start.elapsed();
    assert_eq!(closed.0, 4002, "{closed:?}");
    assert!(
        (SILENCE - secs(2)..SILENCE + secs(3)).contains(&took),
        "closed after {took:?}"
    );
    let dribbled = tokio::time::timeout(secs(65), dribbler).await??;
    assert!(
        dribbled <= secs(62),
        "fragments without end were taken for {dribbled:?}"
    );
    assert!(
        lively.is_closed().is_none(),
        "an answering client was closed"
    );
    lively.send("tea", "lively").await?;
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal (W19, W32): a flood of pings is closed with 4004; sends over the rate are refused, and a
/// flood of them closed. Method: as fast as the socket takes them.
#[tokio::test]
async fn floods_are_closed_with_4004() -> Outcome {
    let mut node = alone().await?;
    let ping = frame(FIN | PING, b"x").repeat(100);
    let text = frame(FIN | TEXT, br#"{"id":2,"send":{"room":"tea","text":"x"}}"#).repeat(100);
    let joins = (0..100)
        .flat_map(|count| {
            let room = format!(r#"{{"id":2,"join":{{"room":"r{count}"}}}}"#);
            frame(FIN | TEXT, room.as_bytes())
        })
        .collect::<Vec<u8>>();
    let bad = frame(FIN | TEXT, b"[]").repeat(100);
    for (what, bytes) in [
        ("pings", ping),
        ("sends", text),
        ("joins", joins),
        ("nonsense", bad),
    ] {
        let raw = Raw::websocket(&node, Some("eve")).await?;
        let closed = flood(raw, &bytes).await;
        let closed = closed.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        say(format_args!("a flood of {what}: closed with {closed:?}"));
        assert_eq!(closed.0, 4004, "{what}: {closed:?}");
    }
    still_chats(&mut node).await?;
    Ok(())
}

/// Sends the bytes over and over, reading what comes, until the node closes.
async fn flood(mut raw: Raw, bytes: &[u8]) -> anyhow::Result<(u16, String)> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let _cut_short = raw.send(bytes).await;
        if let Ok(closed) = raw.close_code(Duration::from_millis(5)).await {
            return Ok(closed);
        }
    }
    anyhow::bail!("not closed in {PATIENCE:?}")
}

/// Goal (W20, W21, W22, W34): text that is not the JSON of a request is `bad_request`, with the id
/// where one can be read, and the connection goes on. Method: a table of frames.
#[tokio::test]
async fn nonsense_is_a_bad_request_and_the_connection_goes_on() -> Outcome {
    let mut node = alone().await?;
    let deep = format!(
        "{{\"id\":9,\"send\":{}{}}}",
        "[".repeat(30_000),
        "]".repeat(30_000)
    );
    let frames = [
        "{",
        "[]",
        "null",
        "\"x\"",
        "7",
        "1e400",
        "{\"id\":9}",
        "{\"id\":9,\"send\":1e400}",
        "{\"id\":-1,\"send\":{}}",
        "{\"id\":\"x\",\"send\":{}}",
        "{\"id\":9,\"a\":{},\"b\":{}}",
        "{\"id\":9,\"send\":{\"room\":\"tea\",\"text\":\"\\ud800\"}}",
        "{\"id\":9,\"send\":{\"room\":\"tea\",\"text\":\"a\",\"text\":\"b\"}}",
        "{\"id\":9,\"send\":{\"room\":\"tea\",\"text\":\"x\",\"mid\":[]}}",
        &deep,
        "{}}",
        "nonsense",
    ];
    for text in frames {
        let shown: String = text.chars().take(60).collect();
        let client = Client::joined(&node, "eve", "tea").await?;
        client.say(Message::text(text));
        let known = |error: &Value| {
            ["bad_request", "unknown_verb"]
                .iter()
                .any(|code| error["code"] == *code)
        };
        let error = client.push(PATIENCE, "error", known).await;
        assert!(error.is_ok(), "{shown:?}: {:#}", error.unwrap_err());
        client.send("tea", "still here").await?;
        client.message(PATIENCE, "still here").await?;
    }
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal (W23, W24, W25): texts at and over the limit, blank ones, markup and control signs.
/// Method: what is accepted arrives as it was sent; what is refused has its code.
#[tokio::test]
async fn texts_arrive_as_they_were_sent_or_are_refused() -> Outcome {
    let node = Node::start(["--registry", "none", "--rate-limit", "0"]).await?;
    let client = Client::joined(&node, "eve", "tea").await?;
    let marks = format!("a{}", "\u{301}".repeat(500));
    let verbatim = [
        "x".repeat(4096),
        "ä".repeat(2048),
        "<img src=x onerror=alert(1)>".to_owned(),
        "[x](javascript:alert(1))".to_owned(),
        "a\nb".to_owned(),
        "\u{202E}abc".to_owned(),
        "a\u{2028}b\u{2029}c".to_owned(),
        "\"\\/\u{7f}".to_owned(),
        marks,
        "%s%n{}${id}".to_owned(),
        "👩‍👩‍👧‍👦".to_owned(),
        "{\"msg\":{}}".to_owned(),
    ];
    for text in &verbatim {
        client.send("tea", text).await?;
        client.message(PATIENCE, text).await?;
    }
    let refused = [
        ("x".repeat(4097), "text_too_long"),
        ("ä".repeat(2049), "text_too_long"),
        (String::new(), "text_empty"),
        ("  \n\t ".to_owned(), "text_empty"),
    ];
    for (text, code) in refused {
        let error = client
            .refusal("send", json!({ "room": "tea", "text": text }))
            .await?;
        assert_eq!(error.code, code, "{}", error.message);
    }
    // Control signs may be refused or cleaned, but never be passed on to a terminal.
    for text in ["a\0b", "a\u{1b}[2Jb"] {
        let _either = client
            .send_with(json!({ "room": "tea", "text": text }))
            .await;
    }
    client.send("tea", "fence").await?;
    client.message(PATIENCE, "fence").await?;
    let bad = |text: &str| text.contains(['\0', '\u{1b}']);
    assert!(
        client.messages().iter().all(|(_, msg)| !bad(&msg.text)),
        "control signs passed"
    );
    Ok(())
}

/// Goal (W29, W30): room names that are words of paths or of JavaScript do no harm; ten thousand
/// new rooms leave the memory flat. Method: join, chat, leave; then 10 000 joins and leaves.
#[tokio::test]
async fn odd_rooms_do_no_harm_and_empty_rooms_cost_nothing() -> Outcome {
    let mut node = Node::start(["--registry", "none", "--rate-limit", "0"]).await?;
    let client = Client::hello(&node, "eve").await?;
    for room in [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "a\0",
        "\u{200B}",
        "a\nb",
        &"x".repeat(65),
    ] {
        assert_eq!(
            client.refusal("join", json!({ "room": room })).await?.code,
            "room_invalid"
        );
    }
    for room in [
        "__proto__",
        "constructor",
        "日本語",
        "a..b",
        "-",
        &"ß".repeat(64),
    ] {
        client.join(room).await?;
        client.send(room, "hello").await?;
        client
            .push(PATIENCE, "msg", |msg| msg["room"] == room)
            .await?;
        client.ask("leave", json!({ "room": room })).await?;
    }
    let before = node.process.usage()?.rss;
    let mut refused = 0;
    for count in 0..10_000 {
        let room = format!("room{count}");
        let join = client.ask("join", json!({ "room": room })).await;
        match join {
            Ok(_) => drop(client.ask("leave", json!({ "room": room })).await?),
            Err(error) => {
                error.downcast::<crate::harness::wire::Refused>()?;
                refused += 1;
            }
        }
    }
    let growth = node.process.usage()?.rss.saturating_sub(before);
    say(format_args!(
        "10000 rooms: {refused} refused, memory grew by {} KiB",
        growth >> 10
    ));
    assert!(growth <= GROWTH_MAX / 4, "memory grew by {growth} bytes");
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal (W31): a send without join is allowed and is seen by those in the room; history and who
/// of a room that nobody knows are empty. Method: one in the room, one outside.
#[tokio::test]
async fn a_send_without_join_reaches_the_room() -> Outcome {
    let node = alone().await?;
    let outside = Client::hello(&node, "outside").await?;
    let inside = Client::joined(&node, "inside", "tea").await?;
    outside.send("tea", "from outside").await?;
    inside.message(PATIENCE, "from outside").await?;
    assert!(
        outside.messages().is_empty(),
        "who has not joined is shown nothing"
    );
    let history = outside.ask("history", json!({ "room": "nowhere" })).await?;
    assert_eq!(history["messages"], json!([]));
    let who = outside.ask("who", json!({ "room": "nowhere" })).await?;
    assert_eq!(who["count"], 0);
    Ok(())
}

/// Goal (W35): forged positions are an error or `recovered:false`; never a crash, and never
/// messages of another room. Method: a table of `since`.
#[tokio::test]
async fn forged_positions_are_refused_or_not_recovered() -> Outcome {
    let mut node = alone().await?;
    let origin = node.origin.clone();
    let client = Client::hello(&node, "eve").await?;
    client.send("secret", "of another room").await?;
    client.send("tea", "here").await?;
    let many: Vec<_> = (0..5000)
        .map(|count| format!("aaaaaaaaaa.{count}"))
        .collect();
    let invalid = [
        json!(["x"]),
        json!([7]),
        json!("x"),
        json!([format!("{origin}.-1")]),
        json!([format!("{origin}.18446744073709551616")]),
        json!([format!("{origin}.1e3")]),
        json!(["AAAAAAAAAA.1"]),
        json!({}),
    ];
    for since in invalid {
        let error = client
            .refusal("join", json!({ "room": "tea", "since": since }))
            .await?;
        assert!(
            ["id_invalid", "bad_request"].contains(&&*error.code),
            "{since}: {error}"
        );
    }
    let unknown = [
        json!([format!("{origin}.18446744073709551615")]),
        json!([format!("{origin}.999")]),
        json!(["aaaaaaaaaa.1"]),
    ];
    for since in unknown {
        let body = json!({ "room": "tea", "since": since, "history": 10 });
        let joined = client.join_with(body).await?;
        assert_eq!(joined.recovered, Some(false), "{since}");
        assert!(
            joined.messages.iter().all(|msg| msg.room == "tea"),
            "{joined:?}"
        );
        client.ask("leave", json!({ "room": "tea" })).await?;
    }
    let answered = client
        .ask("join", json!({ "room": "tea", "since": many }))
        .await;
    if let Err(error) = answered {
        error.downcast::<crate::harness::wire::Refused>()?;
    }
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal (W36): a history limit that is no page size is clamped to 200 or refused.
#[tokio::test]
async fn odd_history_limits_are_clamped_or_refused() -> Outcome {
    let mut node = Node::start(["--registry", "none", "--rate-limit", "0"]).await?;
    let client = Client::joined(&node, "eve", "tea").await?;
    for count in 0..250 {
        client.send("tea", &count.to_string()).await?;
    }
    for limit in [
        json!(1e9),
        json!(1_000_000_000),
        json!(-1),
        json!("10"),
        json!(0),
        json!(201),
    ] {
        match client
            .ask("history", json!({ "room": "tea", "limit": limit }))
            .await
        {
            Ok(reply) => assert!(
                reply["messages"].as_array().unwrap().len() <= 200,
                "{limit}"
            ),
            Err(error) => {
                let refused = error.downcast::<crate::harness::wire::Refused>()?;
                assert_eq!(refused.code, "bad_request", "{limit}");
            }
        }
    }
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal (W38): what a client says of origin, id, time and sender is ignored.
#[tokio::test]
async fn the_node_decides_origin_number_time_and_sender() -> Outcome {
    let node = alone().await?;
    let client = Client::joined(&node, "eve", "tea").await?;
    let body = json!({
        "room": "tea", "text": "forged", "id": "aaaaaaaaaa.7", "origin": "aaaaaaaaaa",
        "seq": 99, "ts": 1, "from": "ada", "user": "ada",
    });
    let sent = client.send_with(body).await?;
    let message = client.message(PATIENCE, "forged").await?;
    assert_eq!((message.from.as_str(), &message.id), ("eve", &sent.id));
    assert_eq!((message.origin(), message.seq()), (node.origin.as_str(), 1));
    assert!(message.ts > 1_700_000_000_000_000, "{message:?}");
    Ok(())
}

/// Goal (W28): names of one script's letters that look like another's are names; blank ones are
/// not. DESIGN lets look-alikes be, since a name is no proof of a person.
#[tokio::test]
async fn look_alike_names_are_taken_and_blank_ones_are_not() -> Outcome {
    let node = alone().await?;
    for name in [
        "admin",
        "аdmin",
        "ADMIN",
        "ａｄｍｉｎ",
        "אבג abc",
        "e\u{301}",
    ] {
        Client::hello(&node, name).await?;
    }
    let client = Client::silent(&node).await?;
    for name in ["\u{2800}", "\u{115F}", "\u{2066}x\u{2069}", "x\u{1}"] {
        assert_eq!(
            client.refusal("hello", json!({ "name": name })).await?.code,
            "name_invalid"
        );
    }
    Ok(())
}

/// Goal: the bare-text door holds the same limits. Method: a text that is too long, a binary frame, an
/// empty text, a bad room: the rest of the room is not disturbed.
#[tokio::test]
async fn the_bare_text_door_holds_the_same_limits() -> Outcome {
    let mut node = alone().await?;
    let witness = Plain::connect(&node, "").await?;
    assert!(
        Plain::connect(&node, "?room=a%2Fb").await.is_err(),
        "a bad room was let in"
    );
    let rude = Plain::connect(&node, "").await?;
    rude.say(&"x".repeat(4097));
    rude.say("");
    let closed = {
        let huge = Plain::connect(&node, "").await?;
        huge.say(&"x".repeat(70 * 1024));
        huge.closed(PATIENCE).await?
    };
    assert_eq!(closed.code, 1009);
    let late = Plain::connect(&node, "").await?;
    late.say("fence");
    witness.line(PATIENCE, "fence").await?;
    assert_eq!(witness.lines(), ["fence"]);
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal: half-made connections and connections that vanish leave nothing behind. Method: 300 times
/// open, hello, join, vanish; members, files and clients are as before.
#[tokio::test]
async fn connections_that_vanish_leave_nothing_behind() -> Outcome {
    let mut node = alone().await?;
    let watcher = Client::joined(&node, "watcher", "tea").await?;
    let before = node.process.usage()?.files;
    for count in 0..300 {
        let client = Client::joined(&node, &format!("ghost{count}"), "tea").await?;
        client.vanish();
    }
    eventually(PATIENCE, "the ghosts are gone", async || {
        let who = watcher.ask("who", json!({ "room": "tea" })).await?;
        let files = node.process.usage()?.files;
        let clients = node.mesh().await?.clients;
        // The look itself holds a connection or two.
        anyhow::ensure!(
            who["count"] == 1 && clients == 1 && files <= before + 3,
            "{who}, {clients} clients, {files} files, {before} before"
        );
        Ok(())
    })
    .await?;
    still_chats(&mut node).await?;
    Ok(())
}
