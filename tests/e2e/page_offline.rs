//! The page without a network, and several tabs of one person.

use crate::harness::browser::{Browser, CONNECTED};
use crate::harness::wire::Msg;
use crate::harness::{Client, Cluster, Duration, Node, Outcome, PATIENCE, eventually, secs};

/// Complaints of a browser that has no network.
const NO_NETWORK: &[&str] = &["WebSocket connection to", "net::ERR_INTERNET_DISCONNECTED"];
/// A page that was long without a network waits up to 30 s before it tries by itself; it is told
/// when the network is back and need not wait.
const BACK_WITHIN: Duration = secs(35);

/// The texts of this sender in the history of a node, until there are so many.
pub(crate) async fn history(node: &Node, name: &str, count: usize) -> anyhow::Result<Vec<String>> {
    eventually(PATIENCE, "the history has all", async || {
        let page = node.get_json("/api/rooms/lobby/messages?limit=200").await?;
        let page: Vec<Msg> = serde_json::from_value(page["messages"].clone())?;
        let texts: Vec<_> = page
            .into_iter()
            .filter(|message| message.from == name)
            .map(|message| message.text)
            .collect();
        anyhow::ensure!(texts.len() >= count, "{texts:?}");
        Ok(texts)
    })
    .await
}

async fn shown(browser: &Browser, name: &str) -> anyhow::Result<Vec<String>> {
    let shown = browser.transcript().await?.into_iter();
    let own = shown.filter(|shown| shown.from == name);
    Ok(own.map(|shown| shown.text).collect())
}

async fn lose_network(browser: &Browser) -> anyhow::Result<()> {
    browser.plugged(false).await?;
    let states = ["offline", "reconnecting", "connecting"];
    browser.status(&states, PATIENCE).await?;
    Ok(())
}

/// Goal: what is typed while offline survives a reload, and is sent once and in order when the
/// network is back. Method: no network by DevTools; type by keys; reload, which fails, for there
/// is no network; the network back, reload; the history of the other node, and the page.
#[tokio::test]
async fn what_was_typed_offline_survives_a_reload_and_is_sent_once_in_order() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let ada = Browser::start().await?;
    ada.tap().await?;
    ada.driver.goto(&cluster.nodes[0].http).await?;
    ada.status(CONNECTED, PATIENCE).await?;
    ada.take_name("ada").await?;
    let eve = Client::joined(&cluster.nodes[1], "eve", "lobby").await?;
    ada.say("before").await?;
    eve.message(PATIENCE, "before").await?;
    lose_network(&ada).await?;
    ada.element("compose").await?.click().await?;
    ada.keys("one\u{E007}two\u{E007}three\u{E007}").await?;
    ada.shows("three").await?;
    let waiting = ada.transcript().await?;
    assert!(
        waiting[1..].iter().all(|shown| shown.id.is_empty()),
        "sent without a network: {waiting:?}"
    );
    // There is no network, so this shows the browser's own page of errors.
    let _unreachable = ada.driver.refresh().await;
    ada.plugged(true).await?;
    ada.driver.goto(&cluster.nodes[0].http).await?;
    ada.status(CONNECTED, BACK_WITHIN).await?;
    eve.message(PATIENCE, "three").await?;
    let all = ["before", "one", "two", "three"];
    assert_eq!(history(&cluster.nodes[1], "ada", all.len()).await?, all);
    eve.send("lobby", "fence").await?;
    ada.shows("fence").await?;
    assert_eq!(shown(&ada, "ada").await?, all);
    ada.no_complaints(NO_NETWORK).await?;
    Ok(())
}

/// Goal: tabs of one person share what is unsent, and send it once.
/// Method: a tab without a network writes; two more tabs open, with a network, and find it; the
/// first gets its network back; the history of a node, and all three tabs.
#[tokio::test]
async fn several_tabs_with_one_outbox_send_each_message_once() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let url = &cluster.nodes[0].http;
    let ada = Browser::start().await?;
    ada.tap().await?;
    ada.driver.goto(url).await?;
    ada.status(CONNECTED, PATIENCE).await?;
    ada.take_name("ada").await?;
    ada.say("before").await?;
    let accepted = "document.querySelector('li.message:not([data-id=\"\"])') !== null";
    ada.holds(accepted).await?;
    lose_network(&ada).await?;
    for text in ["one", "two", "three"] {
        ada.say(text).await?;
    }
    let mut tabs = vec![ada.driver.window().await?];
    for _ in 0..2 {
        let tab = ada.driver.new_tab().await?;
        ada.driver.switch_to_window(tab.clone()).await?;
        ada.driver.goto(url).await?;
        tabs.push(tab);
    }
    ada.driver.switch_to_window(tabs[0].clone()).await?;
    ada.plugged(true).await?;
    let all = ["before", "one", "two", "three"];
    for tab in &tabs {
        ada.driver.switch_to_window(tab.clone()).await?;
        ada.status(CONNECTED, BACK_WITHIN).await?;
        ada.shows("three").await?;
    }
    let eve = Client::joined(&cluster.nodes[1], "eve", "lobby").await?;
    eve.send("lobby", "fence").await?;
    for tab in &tabs {
        ada.driver.switch_to_window(tab.clone()).await?;
        ada.shows("fence").await?;
        let settled = "!document.querySelector('li.message[data-id=\"\"]')";
        ada.holds(settled).await?;
        assert_eq!(shown(&ada, "ada").await?, all);
    }
    assert_eq!(history(&cluster.nodes[1], "ada", all.len()).await?, all);
    ada.no_complaints(NO_NETWORK).await?;
    Ok(())
}
