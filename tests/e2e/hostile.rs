//! Hostile input before the upgrade: HTTP at a node, the registry, the command line, the logs.

use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use crate::harness::process::{Launch, Process};
use crate::harness::raw::Raw;
use crate::harness::socket::{request, upgrade};
use crate::harness::tools::Events;
use crate::harness::{Client, Cluster, NOISE, Node, Outcome, PATIENCE, cluster::http, secs, spawn};

/// A stranger who sends nothing, or too slowly, is put out within this time.
const PUT_OUT_WITHIN: Duration = secs(10);

/// The node still chats, and has not panicked.
pub(crate) async fn still_chats(node: &mut Node) -> anyhow::Result<()> {
    anyhow::ensure!(node.process.lives()?, "the node is dead");
    let log = node.process.log_text();
    anyhow::ensure!(!log.contains("panicked"), "a panic in the log:\n{log}");
    let client = Client::joined(node, "check", "after-the-attack").await?;
    let text = format!("still here {}", rand::random::<u32>());
    client.send("after-the-attack", &text).await?;
    client.message(PATIENCE, &text).await?;
    Ok(())
}

async fn with_origins(node: &Node, origins: &[&str]) -> anyhow::Result<u16> {
    let mut request = request(&node.http, "/ws")?;
    for origin in origins {
        request.headers_mut().append("Origin", origin.parse()?);
    }
    match upgrade(request).await {
        Ok((_, response)) => Ok(response.status().as_u16()),
        Err(error) => match error.downcast::<tokio_tungstenite::tungstenite::Error>()? {
            tokio_tungstenite::tungstenite::Error::Http(response) => Ok(response.status().as_u16()),
            other => Err(other.into()),
        },
    }
}

/// Goal: a browser's `Origin` must be this node's, a live node's, or one given by flag: otherwise
/// 403 before the upgrade, at both doors. Method: a table of origins.
#[tokio::test]
async fn a_foreign_origin_gets_403_before_the_upgrade() -> Outcome {
    let mut cluster = Cluster::with(2, &["--allow-origin", "https://chat.example"]).await?;
    let outsider = Node::start(["--registry", "none"]).await?;
    let [node, other] = cluster.each();
    let lookalike = format!("{}.evil.example", node.http);
    let longer = format!("{}0", node.http);
    let https = node.http.replace("http:", "https:");
    for (origins, status) in [
        (&[][..], 101),
        (&[&*node.http][..], 101),
        (&[&*other.http], 101),
        (&["https://chat.example"], 101),
        (&["https://evil.example"], 403),
        (&["null"], 403),
        (&[""], 403),
        (&[&*lookalike], 403),
        (&[&*longer], 403),
        (&[&*https], 403),
        (&[&*outsider.http], 403),
        (&["https://chat.example.evil.example"], 403),
        (&["http://chat.example"], 403),
        (&[&*node.http, "https://evil.example"], 403),
        (&["https://evil.example", &*node.http], 403),
    ] {
        assert_eq!(
            with_origins(node, origins).await?,
            status,
            "origins {origins:?}"
        );
    }
    let mut plain = request(&node.http, "/")?;
    plain
        .headers_mut()
        .append("Origin", "https://evil.example".parse()?);
    assert!(
        upgrade(plain).await.is_err(),
        "the bare-text door let a foreign page in"
    );
    // A page of another site may not post either: not as a simple request, which needs no consent.
    let posted = http()?
        .post(format!("{}/api/rooms/tea/messages", node.http))
        .header("Origin", "https://evil.example")
        .header("Content-Type", "text/plain")
        .body(r#"{"from":"evil","text":"posted"}"#)
        .send()
        .await?;
    assert!(posted.status().is_client_error(), "{}", posted.status());
    still_chats(&mut cluster.nodes[0]).await?;
    Ok(())
}

/// Goal: foreign hosts, oversized heads, wrong upgrades and paths that climb get their status.
/// Method: raw bytes, one connection each.
#[tokio::test]
async fn malformed_requests_get_their_status() -> Outcome {
    let mut node = Node::start(["--registry", "none"]).await?;
    let many: String = (0..200).map(|count| format!("X-{count}: y\r\n")).collect();
    let large = format!("X: {}\r\n", "y".repeat(500_000));
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let get =
        |path: &str, rest: &str| format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{rest}\r\n");
    let cases: Vec<(String, &[u16])> = vec![
        (get("/", &many), &[431]),
        (get("/", &large), &[431]),
        (get("/ws", ""), &[400, 426]),
        (
            get(
                "/ws",
                &format!("{upgrade}{key}Sec-WebSocket-Version: 12\r\n"),
            ),
            &[400, 426],
        ),
        (
            get("/ws", &format!("{upgrade}Sec-WebSocket-Version: 13\r\n")),
            &[400],
        ),
        (
            get(
                "/ws",
                &format!("{upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n"),
            ),
            &[400],
        ),
        (get("/../../etc/passwd", ""), &[400, 404]),
        (get("/%2e%2e/%2e%2e/etc/passwd", ""), &[400, 404]),
        (get("/..%2f..%2f..%2fetc/passwd", ""), &[400, 404]),
        (get("/index.html%00.js", ""), &[400, 404]),
        (get("/\0", ""), &[400]),
        (
            "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
            &[421],
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), &[400, 421]),
        ("NONSENSE\r\n\r\n".to_owned(), &[400]),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), &[400, 505]),
    ];
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("index.html"), "own")?;
    let www = folder.path().to_str().unwrap().to_owned();
    let mut own = Node::start(["--registry", "none", "--www", &www]).await?;
    for node in [&node, &own] {
        for (bytes, statuses) in &cases {
            let shown: String = bytes.chars().take(60).collect();
            let answer = Raw::ask(node.address(), bytes.as_bytes(), PATIENCE).await;
            let answer = answer.unwrap_or_else(|error| panic!("{shown:?}: {error:#}"));
            assert!(statuses.contains(&answer.status), "{shown:?}: {answer:?}");
            assert!(!answer.text.contains("root:"), "{shown:?}: {answer:?}");
        }
    }
    still_chats(&mut node).await?;
    still_chats(&mut own).await?;
    Ok(())
}

/// Goal: who connects and says nothing, or one byte in five seconds, is put out within 10 s, by the
/// node and by the registry. Method: four connections, side by side.
#[tokio::test]
async fn who_says_nothing_or_too_slowly_is_put_out_within_10_s() -> Outcome {
    let mut cluster = Cluster::start(1).await?;
    let addresses = [
        cluster.nodes[0].address().to_owned(),
        cluster.registry.address().to_owned(),
    ];
    let mut strangers = Vec::new();
    for address in &addresses {
        let (silent, slow) = (address.clone(), address.clone());
        strangers.push(spawn(async move {
            let mut raw = Raw::connect(&silent).await?;
            raw.until_closed(PUT_OUT_WITHIN + NOISE).await.map(drop)
        }));
        strangers.push(spawn(async move {
            let mut raw = Raw::connect(&slow).await?;
            for byte in b"GET" {
                if raw.send(&[*byte]).await.is_err() {
                    return Ok(());
                }
                sleep(secs(4)).await;
            }
            raw.until_closed(NOISE).await.map(drop)
        }));
    }
    for stranger in strangers {
        stranger.await??;
    }
    still_chats(&mut cluster.nodes[0]).await?;
    Ok(())
}

/// Goal: a body that never ends is not waited for without bound, nor taken without bound. Method:
/// claim a large length; send chunks for ever.
#[tokio::test]
async fn a_body_without_end_is_refused() -> Outcome {
    let mut node = Node::start(["--registry", "none"]).await?;
    let head = "POST /api/rooms/tea/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n";
    let claimed = format!("{head}Content-Length: 100000000000\r\n\r\n{{");
    let answer = Raw::ask(node.address(), claimed.as_bytes(), PATIENCE).await?;
    assert!([408, 413].contains(&answer.status), "{answer:?}");
    let mut raw = Raw::connect(node.address()).await?;
    raw.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
        .await?;
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    // Until the node has had enough; a node that buffers all would take these 256 MiB.
    for _ in 0..65_536 {
        if raw.send(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let said = raw.until_closed(PUT_OUT_WITHIN + NOISE).await?;
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 413"),
        "{said}"
    );
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal: the door that nodes use among themselves takes no nonsense. Method: a table of requests;
/// then hellos of a thousand strangers.
#[tokio::test]
async fn the_door_of_the_nodes_takes_no_nonsense() -> Outcome {
    let mut cluster = Cluster::start(2).await?;
    let node = &cluster.nodes[0];
    let (http, url) = (http()?, |path: &str| format!("{}/mesh/{path}", node.http));
    let hello = |origin: &str, publishes: &str| {
        let mut body = json!({ "origin": origin, "pub": publishes, "http": "http://127.0.0.1:9" });
        body["to"] = node.origin.as_str().into();
        body["mesh"] = "main".into();
        http.post(url("hello")).json(&body)
    };
    let large = json!({ "x": "y".repeat(100_000) });
    let log = |origin: &str, through: u64| {
        http.get(url(&format!("log/{origin}?after=0&through={through}")))
    };
    let cases = [
        (http.post(url("hello")).json(&json!([])), &[400][..]),
        (
            http.post(url("hello")).json(&json!({ "origin": "x" })),
            &[400],
        ),
        (http.post(url("hello")).json(&large), &[413]),
        (hello("UPPERCASE1", "tcp://127.0.0.1:9"), &[400]),
        (hello("strangeraa", "ipc:///etc/x"), &[422]),
        (hello("strangeraa", "tcp://10.0.0.1:9"), &[422]),
        (hello("strangeraa", "tcp://127.0.0.1:0"), &[422]),
        (hello(&node.origin, &node.publishes), &[200, 400, 409, 422]),
        (log(&node.origin, u64::MAX), &[200]),
        (log("strangeraa", 1), &[200, 404]),
    ];
    for (request, statuses) in cases {
        let request = request.build()?;
        let what = format!(
            "{} {} {:?}",
            request.method(),
            request.url(),
            request.headers()
        );
        let status = http.execute(request).await?.status().as_u16();
        assert!(statuses.contains(&status), "{what}: {status}");
    }
    for count in 0..1000 {
        let origin = format!("xxxx{}", to_letters(count));
        hello(&origin, &format!("tcp://127.0.0.1:{}", 1 + count))
            .send()
            .await?;
    }
    let usage = node.process.usage()?;
    assert!(usage.files < 600, "strangers cost {} files", usage.files);
    cluster.linked(PATIENCE).await?;
    for node in &mut cluster.nodes {
        still_chats(node).await?;
    }
    Ok(())
}

/// Six letters for a number.
fn to_letters(mut count: usize) -> String {
    let letter = |_| {
        let letter = char::from(b'a' + u8::try_from(count % 26).unwrap_or_default());
        count /= 26;
        letter
    };
    (0..6).map(letter).collect()
}

/// Goal: event streams are limited in number; those beyond get 429, and the node serves on.
/// Method: open 1100.
#[tokio::test]
async fn event_streams_beyond_the_limit_get_429() -> Outcome {
    const STREAMS_MAX: usize = 1024;
    let mut node = Node::start(["--registry", "none"]).await?;
    let client = base::tls::http_client(None).no_proxy().build()?;
    let mut held = Vec::new();
    for count in 0..STREAMS_MAX + 10 {
        let url = format!("{}/api/rooms/tea/events", node.http);
        let response = client.get(url).send().await?;
        let expected = if count < STREAMS_MAX { 200 } else { 429 };
        assert_eq!(response.status(), expected, "stream {count}");
        held.push(response);
    }
    still_chats(&mut node).await?;
    drop(held);
    crate::harness::eventually(PATIENCE, "streams are taken again", async || {
        let path = "/api/rooms/tea/events";
        Events::open(&node, path, None).await.map(drop)
    })
    .await?;
    Ok(())
}

/// Goal: what a stranger writes cannot forge a line of the log. Method: names, rooms and paths with
/// line breaks and format signs; with `--log json` every line is one JSON object.
#[tokio::test]
async fn no_input_forges_a_line_of_the_log() -> Outcome {
    for format in ["text", "json"] {
        let launch = Launch::new("chatnode", ["--registry", "none", "--log", format]);
        let node = Node::launch(launch.with("RUST_LOG", "debug")).await?;
        let forged = "{}%s$(id)\r\nINFO fake \u{1b}[31m";
        let client = Client::silent(&node).await?;
        let refused = client.refusal("hello", json!({ "name": forged })).await?;
        assert_eq!(refused.code, "name_invalid");
        client.ask("hello", json!({ "name": "{}%s$(id)" })).await?;
        let refused = client.refusal("join", json!({ "room": forged })).await?;
        assert_eq!(refused.code, "room_invalid");
        client.join("tea").await?;
        client.send("tea", forged).await?;
        let body = json!({ "from": forged, "text": "x" });
        assert_eq!(node.post("/api/rooms/tea/messages", &body).await?.0, 400);
        node.get("/%0d%0aINFO%20fake").await?;
        let log = node.process.log_text();
        assert!(
            !log.lines()
                .any(|line| line.trim_start().starts_with("INFO fake")),
            "{log}"
        );
        assert!(
            !log.contains("$(id)\\r\\n"),
            "message texts do not belong into a log: {log}"
        );
        if format == "json" {
            for line in log.lines() {
                assert!(
                    serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()),
                    "{line}"
                );
            }
        }
    }
    Ok(())
}

/// Goal: garbage at the registry's port does not end it. Method: random bytes, many times.
#[tokio::test]
async fn random_bytes_end_neither_program() -> Outcome {
    let mut cluster = Cluster::start(1).await?;
    let addresses = [
        cluster.nodes[0].address().to_owned(),
        cluster.registry.address().to_owned(),
    ];
    for address in &addresses {
        for _ in 0..200 {
            let bytes: Vec<u8> = (0..300).map(|_| rand::random()).collect();
            let mut raw = Raw::connect(address).await?;
            let _cut_short = raw.send(&bytes).await;
        }
    }
    still_chats(&mut cluster.nodes[0]).await?;
    let registry: &mut Process = &mut cluster.registry.process;
    assert!(registry.lives()? && !registry.log_text().contains("panicked"));
    assert_eq!(cluster.registry.listed().await?.len(), 1);
    Ok(())
}
