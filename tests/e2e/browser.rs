//! The page in a real browser, as two people use it.

use serde_json::json;

use crate::harness::browser::{Browser, CONNECTED};
use crate::harness::{
    Client, Cluster, Instant, Node, Outcome, PATIENCE, Registry, linked, say, secs,
};

async fn once(browser: &Browser, texts: &[&str]) -> anyhow::Result<()> {
    let transcript = browser.transcript().await?;
    for text in texts {
        let count = transcript
            .iter()
            .filter(|shown| shown.text == *text)
            .count();
        anyhow::ensure!(
            count == 1,
            "{text:?} is shown {count} times: {transcript:?}"
        );
    }
    Ok(())
}

/// Goal: two people on the pages of two nodes chat; the node of one is killed; her page goes on
/// at the other node by itself, has everything once, and speaks again.
/// Method: two browsers; kill -9; say something in the moment of the loss; read both transcripts.
#[tokio::test]
async fn two_browsers_chat_and_one_that_loses_its_node_goes_on_at_another() -> Outcome {
    let mut cluster = Cluster::start(2).await?;
    let (ada, bob) = tokio::join!(
        Browser::person(&cluster.nodes[0], "ada"),
        Browser::person(&cluster.nodes[1], "bob")
    );
    let (ada, bob) = (ada?, bob?);
    ada.say("hello from ada").await?;
    bob.shows("hello from ada", PATIENCE).await?;
    bob.say("hello from bob").await?;
    let transcript = ada.shows("hello from bob", PATIENCE).await?;
    let from_bob = transcript
        .iter()
        .find(|shown| shown.text == "hello from bob");
    assert_eq!(from_bob.map(|shown| shown.from.as_str()), Some("bob"));
    assert!(
        transcript.iter().all(|shown| !shown.id.is_empty()),
        "{transcript:?}"
    );

    let killed = Instant::now();
    cluster.nodes[1].process.kill().await?;
    ada.say("said while bob was away").await?;
    bob.shows("said while bob was away", PATIENCE).await?;
    let took = killed.elapsed();
    bob.status(CONNECTED, PATIENCE).await?;
    bob.say("bob is back").await?;
    ada.shows("bob is back", PATIENCE).await?;
    let texts = [
        "hello from ada",
        "hello from bob",
        "said while bob was away",
        "bob is back",
    ];
    once(&ada, &texts).await?;
    once(&bob, &texts).await?;
    say(format_args!(
        "the page was on another node and up to date {took:?} after kill -9"
    ));
    Ok(())
}

/// Goal: every text is inert, and so is every name: markup shows as text and runs nothing.
/// Method: texts and a name with markup from another client; a script would set a variable.
#[tokio::test]
async fn markup_in_texts_and_names_is_shown_as_text() -> Outcome {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    let browser = Browser::person(node, "ada").await?;
    let attacker = Client::joined(node, "<img src=x onerror=hit=1>", "lobby").await?;
    let texts = [
        "<img src=x onerror=\"window.hit=1\">",
        "<script>window.hit=1</script>",
        "<svg/onload=window.hit=1>",
        "javascript:window.hit=1",
        "&lt;b&gt;",
    ];
    for text in texts {
        attacker.send("lobby", text).await?;
        browser.shows(text, PATIENCE).await?;
    }
    attacker
        .send("lobby", "a \u{202E}b\u{2066} c\u{0} \u{1B}[2J")
        .await?;
    attacker.send("lobby", "fence").await?;
    let transcript = browser.shows("fence", PATIENCE).await?;
    assert!(
        transcript.iter().all(|shown| shown.from == attacker.name),
        "{transcript:?}"
    );
    let hit = browser
        .script("return [typeof window.hit, document.images.length]")
        .await?;
    assert_eq!(hit, json!(["undefined", 0]));
    let links = browser
        .script("return document.querySelectorAll('#transcript a[href^=\"javascript\"]').length")
        .await?;
    assert_eq!(links, 0);
    Ok(())
}

/// Goal: what is typed while no node is there is kept, and delivered once after the return.
/// Method: one node, killed; type; start it again on its port.
#[tokio::test]
async fn what_is_typed_while_offline_is_delivered_once_after_the_return() -> Outcome {
    let registry = Registry::start().await?;
    let mut node = Node::start(["--registry", &registry.url]).await?;
    let ada = Browser::person(&node, "ada").await?;
    ada.say("before").await?;
    ada.shows("before", PATIENCE).await?;
    node.process.kill().await?;
    ada.status(&["reconnecting", "offline", "connecting"], PATIENCE)
        .await?;
    ada.say("typed while offline").await?;
    let transcript = ada.shows("typed while offline", PATIENCE).await?;
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
    let history = crate::harness::eventually(PATIENCE, "it is delivered", async || {
        let page = other.get_json("/api/rooms/lobby/messages").await?;
        let page: Vec<crate::harness::wire::Msg> =
            serde_json::from_value(page["messages"].clone())?;
        let count = page
            .iter()
            .filter(|msg| msg.text == "typed while offline")
            .count();
        anyhow::ensure!(count > 0, "{page:?}");
        Ok(count)
    })
    .await?;
    assert_eq!(history, 1);
    bob.send("lobby", "fence").await?;
    ada.shows("fence", PATIENCE).await?;
    once(&ada, &["typed while offline"]).await?;
    let shown = ada.transcript().await?;
    let sent = shown
        .iter()
        .find(|shown| shown.text == "typed while offline")
        .unwrap();
    assert!(["sent", "kept"].contains(&sent.state.as_str()), "{sent:?}");
    assert!(!sent.id.is_empty());
    assert_eq!(
        bob.messages()
            .iter()
            .filter(|(_, msg)| msg.text == "typed while offline")
            .count(),
        {
            // Bob may have joined before or after the page was back; never is it shown twice.
            usize::from(
                bob.messages()
                    .iter()
                    .any(|(_, msg)| msg.text == "typed while offline"),
            )
        }
    );
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
    browser
        .element("compose")
        .await?
        .send_keys("sent by key\u{E007}")
        .await?;
    bob.message(PATIENCE, "sent by key").await?;
    let role = browser.element("transcript").await?.attr("role").await?;
    assert_eq!(role.as_deref(), Some("log"));
    browser
        .element("room-input")
        .await?
        .send_keys("tea\u{E007}")
        .await?;
    shows("rooms", "tea").await?;
    bob.join("tea").await?;
    bob.send("tea", "in the other room").await?;
    browser.shows("in the other room", PATIENCE).await?;
    let transcript = browser.transcript().await?;
    assert!(
        transcript.iter().all(|shown| shown.text != "sent by key"),
        "rooms are mixed"
    );
    Ok(())
}
