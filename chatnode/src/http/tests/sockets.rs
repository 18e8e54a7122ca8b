//! WebSockets byte by byte: how they begin, what they may ask, and how they end.

use std::ops::RangeInclusive;

use super::*;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
const HELLO: &str = r#"{"id":1,"hello":{"name":"ada"}}"#;
const FIN_TEXT: u8 = 0x81;
const FIN_CLOSE: u8 = 0x88;

/// A frame of a client, its mask all zeros.
fn frame(first: u8, payload: &str) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload.as_bytes());
    frame
}

fn text(payload: &str) -> Vec<u8> {
    frame(FIN_TEXT, payload)
}

/// The frames of a node: first byte and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, String)> {
    let mut frames = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (start, length) = match length {
            126 => (2, usize::from(u16::from_be_bytes([rest[0], rest[1]]))),
            127 => panic!("no frame here is so long"),
            length => (0, usize::from(*length)),
        };
        let payload = String::from_utf8_lossy(&rest[start..start + length]);
        frames.push((*first, payload.into_owned()));
        bytes = &rest[start + length..];
    }
    frames
}

impl Fixture {
    /// Asks for a WebSocket, with these bytes right behind.
    async fn socket(&self, path: &str, behind: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\n{UPGRADE}Host: {}\r\n\r\n",
            self.addr
        );
        let begin = [head.as_bytes(), behind].concat();
        stream.write_all(&begin).await.unwrap();
        stream
    }
}

/// Reads until the node ends its side; the frames behind the answer to the handshake.
async fn to_end(mut stream: TcpStream) -> Vec<(u8, String)> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    read.expect("the node ends its side").unwrap();
    let head = all.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    assert!(all.starts_with(b"HTTP/1.1 101 "), "{}", all.escape_ascii());
    frames(&all[head + 4..])
}

/// How often what a chance decides is tried.
const TRIES: RangeInclusive<u32> = 1..=20;

/// What a client asked for, and then ended its side, is answered, whether all came at once or one
/// by one, and then it is closed.
#[tokio::test]
async fn what_was_asked_before_the_end_is_answered() {
    let f = Fixture::new(&PLAIN);
    let joins = (0..50).map(|room| format!(r#"{{"id":{room},"join":{{"room":"{room}"}}}}"#));
    let joins: Vec<String> = [HELLO.to_owned()].into_iter().chain(joins).collect();
    let send = r#"{"id":2,"send":{"room":"tea","text":"hi"}}"#;
    let search = r#"{"id":3,"search":{"room":"tea","q":"hi"}}"#;
    let cases: [(&str, &str, Vec<&str>, &str); 5] = [
        ("send", "/ws", vec![HELLO, send], r#"{"id":2,"send""#),
        (
            "search",
            "/ws",
            vec![HELLO, send, search],
            r#"{"id":3,"search""#,
        ),
        ("ping", "/ws", vec![HELLO, "{}"], "{}"),
        (
            "many",
            "/ws",
            joins.iter().map(String::as_str).collect(),
            r#"{"id":49,"join""#,
        ),
        ("plain", "/?room=tea", vec!["hi there"], "hi there"),
    ];
    for (what, path, said, due) in cases {
        for at_once in TRIES.map(|nth| nth % 2 == 0) {
            let said: Vec<u8> = said.iter().flat_map(|line| text(line)).collect();
            let behind = if at_once { &said[..] } else { &[] };
            let mut stream = f.socket(path, behind).await;
            if !at_once {
                stream.write_all(&said).await.unwrap();
            }
            stream.shutdown().await.unwrap();
            let got = to_end(stream).await;
            let (_, last) = &got[got.len() - 2];
            assert!(last.starts_with(due), "{what}, at once {at_once}: {got:?}");
            let (first, close) = &got[got.len() - 1];
            assert_eq!(*first, FIN_CLOSE, "{what}: {got:?}");
            assert!(
                close.ends_with("ended: the client has said all"),
                "{what}: {close}"
            );
        }
    }
    f.empties().await;
}

/// A client that says goodbye properly, and ends its side with that, gets all that it asked for
/// before, and its own code back.
#[tokio::test]
async fn a_close_frame_in_one_breath_with_the_end_is_answered() {
    let f = Fixture::new(&PLAIN);
    for _ in TRIES {
        let send = text(r#"{"id":2,"send":{"room":"tea","text":"hi"}}"#);
        let close = [&[FIN_CLOSE, 0x82, 0, 0, 0, 0], &1001_u16.to_be_bytes()[..]].concat();
        let mut stream = f.socket("/ws", &[text(HELLO), send, close].concat()).await;
        stream.shutdown().await.unwrap();
        let got = to_end(stream).await;
        assert!(got[1].1.starts_with(r#"{"id":2,"send""#), "{got:?}");
        assert_eq!(got[2], (FIN_CLOSE, "\u{3}\u{fffd}".to_owned()));
    }
    f.empties().await;
}

impl Fixture {
    /// Waits until no client has a place any more.
    async fn empties(&self) {
        let empty = async {
            while self.node.status().clients.all > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let emptied = tokio::time::timeout(PATIENCE, empty).await;
        emptied.expect("every slot is free again");
    }
}

const LIMITED: Options = Options {
    rate_limit: 20,
    ..PLAIN
};

/// Whatever a client sends is counted once, an empty frame and an empty line as well.
#[tokio::test]
async fn every_frame_and_every_line_counts() {
    let f = Fixture::new(&LIMITED);
    let many = |frame: Vec<u8>, count| frame.repeat(count);
    let lines = "\n".repeat(700);
    let leave = r#"{"leave":{"room":"tea"}}"#;
    let cases: [(&str, &str, Vec<u8>); 9] = [
        ("empty texts", "/ws", many(text(""), 1400)),
        ("blank texts", "/ws", many(text(" "), 1400)),
        ("empty lines", "/ws", many(text(&lines), 2)),
        ("pings by text", "/ws", many(text("{}"), 1400)),
        ("leaves", "/ws", many(text(leave), 1400)),
        ("pings", "/ws", many(frame(0x89, ""), 1400)),
        ("pongs", "/ws", many(frame(0x8A, ""), 1400)),
        (
            "fragments",
            "/ws",
            [frame(1, ""), many(frame(0, ""), 1400)].concat(),
        ),
        ("plain pings", "/", many(frame(0x89, ""), 1400)),
    ];
    for (what, path, flood) in cases {
        let mut stream = f.socket(path, &text(HELLO)).await;
        stream.write_all(&flood).await.unwrap();
        let got = to_end(stream).await;
        let (first, close) = &got[got.len() - 1];
        assert_eq!(*first, FIN_CLOSE, "{what}: {got:?}");
        assert!(
            close.ends_with("flooding: too many requests"),
            "{what}: {close}"
        );
    }
    f.empties().await;
}

/// A frame is counted once: as many as may come at once come through.
#[tokio::test]
async fn as_many_frames_and_lines_as_may_come_at_once_come_through() {
    let f = Fixture::new(&LIMITED);
    let lines = "\n".repeat(248) + "\n{}";
    for (what, frames) in [
        ("empty texts", text("").repeat(998)),
        ("lines", text(&lines).repeat(3)),
        (
            "fragments",
            [frame(1, ""), frame(0, "").repeat(996), frame(0x80, "")].concat(),
        ),
    ] {
        let said = [text(HELLO), frames, text("{}")].concat();
        let mut stream = f.socket("/ws", &said).await;
        stream.shutdown().await.unwrap();
        let got = to_end(stream).await;
        let (_, close) = &got[got.len() - 1];
        assert!(close.ends_with("has said all"), "{what}: {got:?}");
        assert_eq!(got[got.len() - 2].1, "{}", "{what}");
    }
}

/// A client that waits exactly as long as it is told changes its name in all its rooms at once.
#[tokio::test]
async fn a_change_of_name_in_many_rooms_succeeds_after_the_wait_that_is_told() {
    let f = Fixture::new(&LIMITED);
    let mut stream = f.socket("/ws", &text(HELLO)).await;
    for room in 0..50 {
        let join = format!(r#"{{"join":{{"room":"{room}"}}}}"#);
        stream.write_all(&text(&join)).await.unwrap();
    }
    for _ in 0..140 {
        stream
            .write_all(&text(r#"{"who":{"room":"1"}}"#))
            .await
            .unwrap();
    }
    let mut told = Vec::new();
    for id in 100..105 {
        let hello = format!(r#"{{"id":{id},"hello":{{"name":"bob"}}}}"#);
        stream.write_all(&text(&hello)).await.unwrap();
        let reply = reply_to(&mut stream, id).await;
        let Some(wait) = reply["error"]["retry_ms"].as_u64() else {
            assert_eq!(reply["hello"]["name"], "bob", "{reply}");
            assert_eq!(told.len(), 1, "it waits once: {told:?}");
            let rooms: Value = f.get("/api/rooms").await.json().await.unwrap();
            let rooms = rooms["rooms"].as_array().unwrap();
            assert!(rooms.len() == 50 && rooms.iter().all(|room| room["members"] == 1));
            return;
        };
        told.push(wait);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    panic!("told to wait, again and again: {told:?}");
}

/// Reads until the reply to this request.
async fn reply_to(stream: &mut TcpStream, id: u64) -> Value {
    let mut got = Vec::new();
    let begin = format!("{{\"id\":{id},");
    loop {
        let text = String::from_utf8_lossy(&got);
        if let Some(at) = text.find(&begin) {
            let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter();
            if let Some(Ok(reply)) = values.next() {
                return reply;
            }
        }
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut got)).await;
        assert_ne!(read.expect("a reply").unwrap(), 0, "{}", got.escape_ascii());
    }
}

/// A browser that offered a subprotocol fails the connection unless one of those is chosen.
#[tokio::test]
async fn the_subprotocol_is_chosen_if_it_is_offered() {
    let f = Fixture::new(&PLAIN);
    for (path, lines, chosen) in [
        ("/ws", "", false),
        ("/ws", "Sec-WebSocket-Protocol: chat.v1\r\n", true),
        ("/ws", "Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n", true),
        (
            "/ws",
            "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Protocol: chat.v1\r\n",
            true,
        ),
        ("/ws", "Sec-WebSocket-Protocol: mqtt\r\n", false),
        ("/ws", "Sec-WebSocket-Protocol: Chat.V1\r\n", false),
        ("/", "Sec-WebSocket-Protocol: chat.v1\r\n", false),
    ] {
        let answer = f.upgrade(path, lines).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{lines}{answer}");
        let answer = answer.to_lowercase();
        let named = answer
            .matches("sec-websocket-protocol: chat.v1\r\n")
            .count();
        assert_eq!(named, usize::from(chosen), "{path} {lines}{answer}");
        assert_eq!(answer.matches("sec-websocket-protocol").count(), named);
    }
}

/// HTTP/1.0 knows no upgrade.
#[tokio::test]
async fn an_upgrade_over_http_1_0_is_none() {
    let f = Fixture::new(&PLAIN);
    for (path, status) in [("/ws", 426), ("/", 200)] {
        let answer = f.raw(&format!("GET {path} HTTP/1.0\r\n{UPGRADE}")).await;
        let begin = format!("HTTP/1.0 {status} ");
        assert!(answer.starts_with(&begin), "{path}: {answer}");
    }
}
