//! Clients that ask, and end their side of the connection before they are answered.

use anyhow::ensure;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::harness::disks::{alone, pour};
use crate::harness::raw::{CLOSE, FIN, Raw, TEXT, frame};
use crate::harness::{
    Client, Cluster, Duration, Instant, Node, Outcome, PATIENCE, eventually, ms, say, secs,
};

/// The contract: a reply waits for copies so long at the most.
const COPIES_WITHIN: Duration = secs(2);
/// How often it is tried: what was dropped was dropped by chance.
const TRIES: usize = 30;

fn hello() -> String {
    json!({ "id": 1, "hello": { "name": "ada" } }).to_string()
}

fn send(copies: usize) -> String {
    json!({ "id": 2, "send": { "room": "tea", "text": "my last words", "copies": copies } })
        .to_string()
}

/// Says these lines, a frame each, ends this side, and reads to the end: the texts that came, of
/// which the last is the reason of the close frame.
async fn last_words(node: &Node, path: &str, lines: &[String]) -> anyhow::Result<Vec<String>> {
    let mut raw = Raw::upgrade(node, path).await?;
    let frames = lines
        .iter()
        .flat_map(|line| frame(FIN | TEXT, line.as_bytes()));
    raw.send(&frames.collect::<Vec<_>>()).await?;
    raw.end().await?;
    let mut texts = Vec::new();
    loop {
        let (first, payload) = raw.frame(PATIENCE).await?;
        if first == FIN | CLOSE {
            ensure!(payload.starts_with(&1000_u16.to_be_bytes()), "{payload:?}");
            break;
        }
        texts.push(String::from_utf8(payload)?);
    }
    // And the node ends its side as well.
    let rest = raw.until_closed(PATIENCE).await?;
    ensure!(rest.is_empty(), "{} behind the close", rest.escape_ascii());
    Ok(texts)
}

/// Waits until nobody is left: neither a place is kept, nor a name in the room.
async fn nobody_is_left(node: &Node) -> anyhow::Result<()> {
    eventually(PATIENCE, "nobody is left", async || {
        let clients = node.mesh().await?.clients;
        ensure!(clients == 0, "{clients} clients");
        Ok(())
    })
    .await
}

/// Goal: what a client asked before it ended its side is answered, and then the connection is
/// closed: a message, a page, a search, the plain form. Method: on a node with a disk and on one
/// without, many times, since it was by chance.
#[tokio::test]
async fn what_was_asked_before_the_end_is_answered() -> Outcome {
    let folder = tempdir()?;
    let nodes = [
        Node::start(["--registry", "none", "--rate-limit", "0"]).await?,
        // So little in memory that the oldest page is read from the disk.
        alone(&folder.path().join("data"), &["--retain-messages", "1000"]).await?,
    ];
    for node in &nodes {
        let eve = Client::hello(node, "eve").await?;
        let said = (0..1200).map(|nth| format!("eve says {nth}"));
        let said = pour(&eve, "tea", said).await?;
        drop(eve);
        nobody_is_left(node).await?;
        for _ in 0..TRIES {
            let got = last_words(node, "/ws", &[hello(), send(0)]).await?;
            let reply: Value = serde_json::from_str(&got[1])?;
            assert!(reply["send"]["id"].is_string(), "{got:?}");
            let oldest = json!({ "room": "tea", "before": said[50].id, "limit": 50 });
            let page = json!({ "id": 3, "history": oldest });
            let got = last_words(node, "/ws", &[hello(), page.to_string()]).await?;
            let reply: Value = serde_json::from_str(&got[1])?;
            let count = reply["history"]["messages"].as_array().map(Vec::len);
            assert!(count == Some(50), "{got:?}");
            let search = json!({ "id": 4, "search": { "room": "tea", "q": "words" } });
            let got = last_words(node, "/ws", &[hello(), search.to_string()]).await?;
            assert!(got[1].contains("my last words"), "{got:?}");
            let got = last_words(node, "/?room=tea", &["plain words".to_owned()]).await?;
            assert!(got == ["plain words"], "{got:?}");
        }
        nobody_is_left(node).await?;
    }
    Ok(())
}

/// Goal: a reply that waits for copies comes as it would to a client that stays: as soon as they
/// are there, or after two seconds with what there is; and the place is free then.
/// Method: two nodes; one copy can be had, two cannot.
#[tokio::test]
async fn a_reply_that_waits_for_copies_is_waited_for() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let node = &cluster.nodes[0];
    for _ in 0..TRIES {
        let got = last_words(node, "/ws", &[hello(), send(1)]).await?;
        let reply: Value = serde_json::from_str(&got[1])?;
        assert!(reply["send"]["copies"] == 1, "{got:?}");
    }
    let start = Instant::now();
    let got = last_words(node, "/ws", &[hello(), send(2)]).await?;
    let took = start.elapsed();
    let reply: Value = serde_json::from_str(&got[1])?;
    assert!(reply["send"]["copies"] == 1, "{got:?}");
    assert!(took > COPIES_WITHIN - ms(200), "answered after {took:?}");
    say!("what cannot be had was waited for {took:?}");
    nobody_is_left(node).await?;
    Ok(())
}
