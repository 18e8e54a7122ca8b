//! Hostile input on an open WebSocket.

use serde_json::{Value, json};
use tokio::time::Duration;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, RSV1, Raw, TEXT, frame, head};
use crate::harness::{Client, Instant, NOISE, Node, Outcome, PATIENCE, say, secs};
use crate::hostile::still_chats;

/// The contract: no hello within this time is 4001.
const HELLO_WITHIN: Duration = secs(10);
/// The contract: this long without a word is 4002.
const SILENCE: Duration = secs(35);

async fn alone() -> anyhow::Result<Node> {
    Node::start(["--registry", "none"]).await
}

/// Goal: each break of the WebSocket protocol is closed with its code, at once, at both doors'
/// shared reader. Method: raw frames on a connection that has said hello.
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
    // Side by side: a node may linger on a closed connection for as long as TCP is polite.
    let closed = cases.iter().map(async |(what, bytes, code)| {
        let closed = break_off(&node, bytes).await;
        let closed = closed.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        // 2^63 is both too big and against the protocol's own rule for lengths.
        let right = closed.0 == *code || *what == "claims 2^63" && closed.0 == 1009;
        assert!(right, "{what}: closed with {closed:?}, not {code}");
    });
    futures::future::join_all(closed).await;
    still_chats(&mut node).await?;
    Ok(())
}

/// Sends the bytes on a connection that has said hello; how the node closes it.
async fn break_off(node: &Node, bytes: &[u8]) -> anyhow::Result<(u16, String)> {
    let mut raw = Raw::websocket(node, Some("eve")).await?;
    // A node that closes early resets what it has not read.
    let _cut_short = raw.send(bytes).await;
    let closed = raw.close_code(PATIENCE).await?;
    raw.until_closed(PATIENCE).await?;
    Ok(closed)
}

/// Goal: no hello within 10 s is 4001. Method: pings do not count as a word.
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

/// Goal: a quiet connection is pinged after 25 s; who never answers is closed with 4002 after 35 s;
/// fragments without end do not count for ever. Method: three connections side by side: one
/// answers, one does not, one dribbles fragments.
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
    let dribbled = tokio::time::timeout_at(start + secs(62), dribbler).await;
    let dribbled = dribbled.map_err(|_| "fragments without end are taken for ever")??;
    say!("fragments without end were taken for {dribbled:?}");
    assert!(
        lively.is_closed().is_none(),
        "an answering client was closed"
    );
    lively.send("tea", "lively").await?;
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal: a flood of pings is closed with 4004; sends over the rate are refused, and a flood of them
/// closed. Method: as fast as the socket takes them.
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
        say!("a flood of {what}: closed with {closed:?}");
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

/// Goal: text that is not the JSON of a request is `bad_request`, with the id where one can be
/// read, and the connection goes on. Method: a table of frames.
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
