//! The page in a real browser, as two people use it.

use serde_json::json;

use crate::harness::browser::{Browser, CONNECTED};
use crate::harness::{Client, Cluster, Node, Outcome, PATIENCE, Registry, linked, secs};
use crate::page_offline::history;

/// Goal: what is typed while no node is there is kept, and delivered once after the return.
/// Method: one node, killed; type; start it again on its port.
#[tokio::test]
async fn what_is_typed_while_offline_is_delivered_once_after_the_return() -> Outcome {
    let registry = Registry::start().await?;
    let mut node = Node::start(["--registry", &registry.url]).await?;
    let ada = Browser::person(&node, "ada").await?;
    ada.say("before").await?;
    ada.shows("before").await?;
    node.process.kill().await?;
    ada.status(&["reconnecting", "offline", "connecting"], PATIENCE)
        .await?;
    ada.say("typed while offline").await?;
    let transcript = ada.shows("typed while offline").await?;
    let waiting = transcript
        .iter()
        .find(|shown| shown.text == "typed while offline");
    let state = waiting.map(|shown| shown.state.clone()).unwrap_or_default();
    assert!(
        ["sending", "failed"].contains(&state.as_str()),
        "shown as {state:?} while offline"
    );
    node.again_on_its_ports().await?;
    let other = Node::start(["--registry", &registry.url]).await?;
    linked(&[&node, &other], PATIENCE).await?;
    let bob = Client::joined(&other, "bob", "lobby").await?;
    ada.status(CONNECTED, secs(35)).await?;
    let kept = history(&other, "ada", 1).await?;
    assert_eq!(kept, ["typed while offline"]);
    bob.send("lobby", "fence").await?;
    ada.shows("fence").await?;
    let shown = ada.transcript().await?.into_iter();
    let shown: Vec<_> = shown
        .filter(|it| it.text == "typed while offline")
        .collect();
    let [sent] = &shown[..] else {
        panic!("not shown once: {shown:?}")
    };
    assert!(["sent", "kept"].contains(&sent.state.as_str()), "{sent:?}");
    assert!(!sent.id.is_empty());
    let told = bob.messages().into_iter().map(|(_, msg)| msg.text);
    let told = told.filter(|text| text == "typed while offline").count();
    // Bob may have joined before or after the page was back; never is it shown twice.
    assert!(told <= 1, "{told} times");
    Ok(())
}

/// Goal: the page of node A may speak to node B of the same mesh, by its origin; a page of another
/// site may not. Method: open WebSockets by script from the page of A, and from a page that a
/// server outside the mesh serves.
#[tokio::test]
async fn a_page_may_speak_to_every_node_of_its_mesh_and_a_foreign_page_to_none() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let outsider = Node::start(["--registry", "none"]).await?;
    let browser = Browser::open(&cluster.nodes[0].http).await?;
    let url = format!("ws://{}/ws", cluster.nodes[1].address());
    let script = format!(
        "return new Promise(done => {{ const ws = new WebSocket('{url}'); \
         ws.onopen = () => done('open'); ws.onerror = () => done('refused'); }})"
    );
    assert_eq!(browser.script(&script).await?, "open");
    browser
        .driver
        .goto(&format!("{}/healthz", outsider.http))
        .await?;
    assert_eq!(browser.script(&script).await?, "refused");
    Ok(())
}

/// Goal: rooms, members and typing of the page work across nodes, by keyboard too.
/// Method: one browser, one client on another node.
#[tokio::test]
async fn the_page_shows_rooms_members_and_who_is_typing() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let browser = Browser::person(&cluster.nodes[0], "ada").await?;
    let bob = Client::joined(&cluster.nodes[1], "bob", "lobby").await?;
    let shows = async |id: &str, text: &str| {
        crate::harness::eventually(PATIENCE, &format!("#{id} shows {text:?}"), async || {
            let seen = browser.element(id).await?.text().await?;
            anyhow::ensure!(seen.contains(text), "{seen:?}");
            Ok(())
        })
        .await
    };
    shows("members", "bob").await?;
    shows("members", "ada").await?;
    shows("members-count", "2").await?;
    crate::harness::eventually(PATIENCE, "typing is shown", async || {
        bob.ask("typing", json!({ "room": "lobby" })).await?;
        let seen = browser.element("typing").await?.text().await?;
        anyhow::ensure!(seen.contains("bob"), "{seen:?}");
        Ok(())
    })
    .await?;
    browser.type_in("compose", "sent by key\u{E007}").await?;
    bob.message(PATIENCE, "sent by key").await?;
    let role = browser.element("transcript").await?.attr("role").await?;
    assert_eq!(role.as_deref(), Some("log"));
    browser.type_in("room-input", "tea\u{E007}").await?;
    shows("rooms", "tea").await?;
    bob.join("tea").await?;
    bob.send("tea", "in the other room").await?;
    browser.shows("in the other room").await?;
    let transcript = browser.transcript().await?;
    assert!(
        transcript.iter().all(|shown| shown.text != "sent by key"),
        "rooms are mixed"
    );
    Ok(())
}
