//! The page when its node dies: it goes on elsewhere, and nothing is lost or doubled.

use crate::harness::browser::{Browser, CONNECTED, Screen};
use crate::harness::wire::Msg;
use crate::harness::{
    Client, Cluster, Duration, Instant, NOISE, Node, Outcome, PATIENCE, say, secs,
};

/// What the contract gives a page to be elsewhere with all that was said.
const MOVED_WITHIN: Duration = secs(2);
/// Messages of the first browser.
const COUNT: usize = 100;
/// Complaints of a browser whose node was killed.
const NODE_GONE: &[&str] = &["WebSocket connection to", "net::ERR_CONNECTION_REFUSED"];

fn numbered() -> Vec<String> {
    (1..=COUNT).map(|number| format!("n{number}")).collect()
}

/// The texts of this sender, in the order shown.
async fn said_by(browser: &Browser, name: &str) -> anyhow::Result<Vec<String>> {
    let shown = browser.transcript().await?.into_iter();
    Ok(shown
        .filter(|shown| shown.from == name)
        .map(|shown| shown.text)
        .collect())
}

/// Goal: two browsers on two of three nodes; the second's node is killed while its user types and
/// while the first sends 100 messages: within 2 s the second is on another node, has all 100 once
/// and in order, what was being typed is still there, and its own message, sent by Enter in the
/// middle of that, arrives once everywhere.
/// Method: real keys in both; kill -9; compare both transcripts and the history of the survivors.
#[tokio::test]
async fn a_page_whose_node_is_killed_while_its_user_types_loses_and_doubles_nothing() -> Outcome {
    let mut cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let (ada, bob) = tokio::join!(
        Browser::person(&cluster.nodes[0], "ada"),
        Browser::person(&cluster.nodes[1], "bob")
    );
    let (ada, bob) = (ada?, bob?);
    let witness = Client::joined(&cluster.nodes[2], "eve", "lobby").await?;
    bob.holds("document.querySelector('#members').textContent.includes('ada')")
        .await?;
    ada.element("compose").await?.click().await?;
    bob.element("compose").await?.click().await?;
    bob.keys("half a mess").await?;

    let lines: Vec<_> = numbered()
        .iter()
        .map(|text| format!("{text}\u{E007}"))
        .collect();
    let sending = async {
        let field = ada.element("compose").await?;
        for part in lines.chunks(10) {
            field.send_keys(part.concat()).await?;
        }
        anyhow::Ok(Instant::now())
    };
    let dying = async {
        bob.shows("n30").await?;
        cluster.nodes[1].process.kill().await?;
        let killed = Instant::now();
        let there = bob
            .script("return document.querySelector('#compose').value")
            .await?;
        anyhow::ensure!(there == "half a mess", "the field has {there}");
        bob.keys("age\u{E007}").await?;
        let said = killed.elapsed();
        // Resumed is what the page says of another node than the one before.
        bob.status(&["resumed"], PATIENCE).await?;
        let elsewhere = killed.elapsed();
        anyhow::Ok((killed, said, elsewhere))
    };
    let (sent, died) = tokio::join!(sending, dying);
    let (sent, (killed, said, elsewhere)) = (sent?, died?);
    bob.shows("n100").await?;
    let complete = killed.max(sent).elapsed();
    say!(
        "after kill -9: Enter pressed at {said:?}, on another node at {elsewhere:?}; the 100 were \
         typed {:?} after the kill, and all shown {complete:?} after both",
        sent.saturating_duration_since(killed)
    );
    assert!(
        elsewhere <= MOVED_WITHIN + NOISE,
        "moved after {elsewhere:?}"
    );
    assert!(
        complete <= MOVED_WITHIN + NOISE,
        "complete after {complete:?}"
    );

    once_everywhere(
        &[&ada, &bob],
        &witness,
        &[&cluster.nodes[0], &cluster.nodes[2]],
    )
    .await
}

/// All is shown once, in the one order, by both browsers, the witness and the nodes that live.
async fn once_everywhere(browsers: &[&Browser; 2], witness: &Client, nodes: &[&Node]) -> Outcome {
    let mut orders = Vec::new();
    witness.message(PATIENCE, "half a message").await?;
    witness.message(PATIENCE, "n100").await?;
    for browser in browsers {
        browser.shows("half a message").await?;
        let settled = "!document.querySelector('li.message[data-state=sending]')";
        browser.holds(settled).await?;
        assert_eq!(said_by(browser, "ada").await?, numbered());
        assert_eq!(said_by(browser, "bob").await?, ["half a message"]);
        let shown = browser.transcript().await?;
        orders.push(shown.into_iter().map(|shown| shown.id).collect::<Vec<_>>());
        browser.no_complaints(NODE_GONE).await?;
    }
    assert_eq!(orders[0], orders[1]);
    for node in nodes {
        let page = node.get_json("/api/rooms/lobby/messages?limit=200").await?;
        let page: Vec<Msg> = serde_json::from_value(page["messages"].clone())?;
        let ids: Vec<_> = page.into_iter().map(|message| message.id).collect();
        assert_eq!(ids, orders[0], "the history of {}", node.origin);
    }
    let told = witness.messages();
    let own = told.iter().filter(|(_, msg)| msg.text == "half a message");
    assert_eq!(own.count(), 1);
    Ok(())
}

/// Goal: a message that the dying node passed on, but whose reply it did not get out, is sent again
/// elsewhere and shown once. Method: the page hears nothing; its message reaches the other node;
/// kill -9; a second message behind it; both texts at the witness, in the history and on the page.
#[tokio::test]
async fn a_message_whose_reply_is_lost_with_its_node_is_shown_once() -> Outcome {
    let mut cluster = Cluster::start(2).await?;
    let bob = Browser::start().await?;
    bob.tap().await?;
    bob.driver.goto(&cluster.nodes[1].http).await?;
    bob.status(CONNECTED, PATIENCE).await?;
    let witness = Client::joined(&cluster.nodes[0], "eve", "lobby").await?;
    bob.deafen().await?;
    bob.say("passed on").await?;
    witness.message(PATIENCE, "passed on").await?;
    let shown = bob.transcript().await?;
    assert_eq!(shown[0].state, "sending", "{shown:?}");
    cluster.nodes[1].process.kill().await?;
    bob.status(&["resumed"], PATIENCE).await?;
    bob.say("behind it").await?;
    witness.message(PATIENCE, "behind it").await?;
    let settled = "!document.querySelector('li.message[data-id=\"\"]')";
    bob.holds(settled).await?;
    let all = ["passed on", "behind it"];
    let page = cluster.nodes[0]
        .get_json("/api/rooms/lobby/messages")
        .await?;
    let page: Vec<Msg> = serde_json::from_value(page["messages"].clone())?;
    let history: Vec<_> = page.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(history, all);
    let told = witness.messages();
    let told: Vec<_> = told
        .iter()
        .map(|(_, message)| message.text.as_str())
        .collect();
    assert_eq!(told, all);
    let shown = bob.transcript().await?;
    let shown: Vec<_> = shown.iter().map(|shown| shown.text.as_str()).collect();
    assert_eq!(shown, all);
    bob.no_complaints(NODE_GONE).await?;
    Ok(())
}

/// Goal: the page asks nothing of anybody but nodes of the mesh, whatever is said in it, also
/// while it moves. Method: addresses and markup of other hosts in texts; the node is killed; every
/// request and socket that the browser made, as DevTools tells of them.
#[tokio::test]
async fn the_page_asks_only_nodes_of_the_mesh() -> Outcome {
    let mut cluster = Cluster::start(2).await?;
    let browser = Browser::start().await?;
    browser.on(Screen::of(1280, 900)).await?;
    // The browser's own first page asks the browser itself for its pictures: not of interest here.
    browser.asked().await?;
    browser.driver.goto(&cluster.nodes[0].http).await?;
    browser.status(CONNECTED, PATIENCE).await?;
    let other = Client::joined(&cluster.nodes[1], "eve", "lobby").await?;
    for text in [
        "https://example.com/picture.png",
        "![picture](https://example.com/picture.png) <img src=//example.com/x.png>",
        "<link rel=prefetch href=https://example.com/> @import url(https://example.com/a.css)",
    ] {
        other.send("lobby", text).await?;
    }
    other.send("lobby", "fence").await?;
    browser.shows("fence").await?;
    let hosts: Vec<_> = cluster
        .nodes
        .iter()
        .flat_map(|node| [node.http.clone(), node.http.replacen("http", "ws", 1)])
        .collect();
    cluster.nodes[0].process.kill().await?;
    browser.status(&["resumed"], PATIENCE).await?;
    let asked = browser.asked().await?;
    say!("asked of {asked:?}");
    assert!(
        asked.contains(&hosts[0]),
        "the page itself is not in {asked:?}"
    );
    assert!(asked.contains(&hosts[3]), "the move is not in {asked:?}");
    let strange: Vec<_> = asked.iter().filter(|host| !hosts.contains(host)).collect();
    assert!(strange.is_empty(), "asked of {strange:?}");
    browser.no_complaints(NODE_GONE).await?;
    Ok(())
}

/// Goal: a node that says that it goes away is left before it closes: the person at the page sees
/// no loss. Method: SIGTERM; every state that the page showed meanwhile; a message sent after it.
#[tokio::test]
async fn a_node_that_goes_away_is_left_before_it_closes() -> Outcome {
    let mut cluster = Cluster::start(2).await?;
    let browser = Browser::person(&cluster.nodes[0], "ada").await?;
    browser.type_in("compose", "half a mess").await?;
    let witness = Client::joined(&cluster.nodes[1], "eve", "lobby").await?;
    browser.status(CONNECTED, PATIENCE).await?;
    browser
        .script(
            "window.states = []; const status = document.querySelector('#status'); \
             new MutationObserver(() => window.states.push(status.dataset.state)).observe(status, \
             { attributes: true, attributeFilter: ['data-state'] })",
        )
        .await?;
    cluster.nodes[0].process.stop(PATIENCE).await?;
    browser.status(&["resumed"], PATIENCE).await?;
    let states = browser.script("return [...new Set(window.states)]").await?;
    say!("the page showed {states}");
    for loss in ["reconnecting", "offline", "stopped"] {
        assert!(!states.to_string().contains(loss), "it showed {states}");
    }
    browser.keys("age\u{E007}").await?;
    witness.message(PATIENCE, "half a message").await?;
    browser.no_complaints(&[]).await?;
    Ok(())
}
