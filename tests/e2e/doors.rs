//! The doors as well-meaning programs meet them: plain checks, floods of nothing, waits that were told.

use anyhow::ensure;
use serde_json::json;

use crate::harness::raw::{CONTINUATION, FIN, PING, Raw, TEXT, frame};
use crate::harness::{Client, Cluster, Node, Outcome, PATIENCE, ms};

/// Goal: the plain check of a load balancer, which names no host, finds both programs alive; a page
/// that another name led here does not find the node. Method: bytes as HAProxy sends them.
#[tokio::test]
async fn plain_checks_of_load_balancers_are_answered() -> Outcome {
    let cluster = Cluster::start(1).await?;
    let node = cluster.nodes[0].address();
    for address in [node, cluster.registry.address()] {
        for request in [
            "GET /healthz HTTP/1.0\r\n\r\n",
            "HEAD /healthz HTTP/1.0\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
            "GET /metrics HTTP/1.0\r\n\r\n",
        ] {
            let mut raw = Raw::connect(address).await?;
            raw.send(request.as_bytes()).await?;
            let answer = raw.until_closed(PATIENCE).await?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert_eq!(
                answer.split(' ').nth(1),
                Some("200"),
                "{address} {request}: {answer}"
            );
        }
    }
    let rebound = b"GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n";
    let answer = Raw::ask(node, rebound, PATIENCE).await?;
    assert_eq!(answer.status, 421, "{answer:?}");
    Ok(())
}

/// Goal: whatever a client sends counts, an empty frame or line as well: a flood is closed with
/// 4004. Method: frames that say nothing, as fast as the socket takes them.
#[tokio::test]
async fn floods_of_nothing_are_closed_with_4004() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let fragments = [frame(TEXT, b""), frame(FIN | CONTINUATION, b"")].concat();
    for (what, flood) in [
        ("empty texts", frame(FIN | TEXT, b"")),
        ("empty lines", frame(FIN | TEXT, &[b'\n'; 100])),
        ("fragments of nothing", fragments),
        ("empty pings", frame(FIN | PING, b"")),
        ("leaves", frame(FIN | TEXT, br#"{"leave":{"room":"tea"}}"#)),
    ] {
        let mut raw = Raw::websocket(&node, Some("eve")).await?;
        let _cut_short = raw.send(&flood.repeat(3000)).await;
        let closed = raw.close_code(PATIENCE).await?;
        assert_eq!(closed.0, 4004, "{what}: {closed:?}");
    }
    Ok(())
}

/// Goal: who waits exactly as long as it is told succeeds, also where a request costs as many as
/// there are rooms: a budget is taken whole or not at all.
/// Method: fifty rooms, the budget all but used up, a change of name; once more after the wait.
#[tokio::test]
async fn a_change_of_name_in_fifty_rooms_succeeds_after_the_wait_that_was_told() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let client = Client::hello(&node, "ada").await?;
    for room in 0..50 {
        client
            .ask("join", json!({ "room": format!("r{room}") }))
            .await?;
    }
    let lists = (0..200).map(|_| client.start("who", json!({ "room": "r1" })));
    for list in lists.collect::<Vec<_>>() {
        // The last of them are one too many.
        drop(client.reply("who", list).await);
    }
    let refused = client.refusal("hello", json!({ "name": "bob" })).await?;
    assert_eq!(refused.code, "rate_limited");
    let wait = refused.retry_ms.unwrap_or_default();
    assert!(wait > 100, "for fifty and one at fifty a second: {wait} ms");
    tokio::time::sleep(ms(wait)).await;
    client.ask("hello", json!({ "name": "bob" })).await?;
    let rooms = node.get_json("/api/rooms").await?;
    ensure_members(&rooms)?;
    Ok(())
}

/// Each room has one member: the one that changed its name.
fn ensure_members(rooms: &serde_json::Value) -> anyhow::Result<()> {
    for room in rooms["rooms"].as_array().into_iter().flatten() {
        ensure!(room["members"] == 1, "{room}");
    }
    Ok(())
}
