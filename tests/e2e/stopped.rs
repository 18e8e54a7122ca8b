//! What waits in the sockets of a node that was stopped was said, and shown, elsewhere meanwhile.

use std::collections::HashSet;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::harness::load::text_of;
use crate::harness::wire::Sent;
use crate::harness::{
    Cluster, Duration, Instant, Node, Outcome, PATIENCE, Recorder, eventually, secs,
};

/// More than any list of mids that a client would name of itself.
const SAID: usize = 2_000;
/// How long the node is stopped at the least: after a stop of less than two seconds it does not catch up.
const STOPPED: Duration = secs(3);
/// How long after it goes on the stopped node has answered all that waited.
const ANSWERED_WITHIN: Duration = secs(20);

/// Goal: nothing is shown twice, however much was said at another node while this one was stopped,
/// though that other is dead when this one goes on. Method: node A is stopped; 2 000 sends with mids,
/// and on another socket the join of a reader, wait in its sockets; the same is said at B, where the
/// reader is shown it; B is killed; A goes on, and gives each send the id that B gave it.
async fn what_was_said_while_a_node_was_stopped(nodes: usize) -> Outcome {
    let mut cluster = Cluster::with(nodes, &["--rate-limit", "0"]).await?;
    cluster.linked(PATIENCE).await?;
    let recorder = Recorder::new();
    let [a, b, ..] = &cluster.nodes[..] else {
        unreachable!("two nodes at the least")
    };
    let mut reader = recorder.reader(b, "reader", "tea").await?;
    let at_b = recorder.client(b, "ada").await?;
    let at_a = recorder.client(a, "ada").await?;
    let comes_back = recorder.client(a, "reader").await?;
    let stopped = Instant::now();
    a.process.freeze()?;
    let bodies: Vec<Value> = (0..SAID)
        .map(|number| {
            let mid = format!("mid-{number}");
            json!({ "room": "tea", "text": text_of(&mid, 0), "mid": mid })
        })
        .collect();
    let mut waiting = Vec::new();
    for some in bodies.chunks(100) {
        waiting.extend(at_a.start_all("send", some.iter().cloned()));
    }
    let mut said = Vec::new();
    for some in bodies.chunks(100) {
        for reply in at_b.start_all("send", some.iter().cloned()) {
            let sent: Sent = serde_json::from_value(at_b.reply("send", reply).await?)?;
            said.push(sent.id);
        }
    }
    reader.shown(SAID, PATIENCE).await?;
    let since: Vec<String> = reader.position().ids();
    let join = json!({ "room": "tea", "since": since, "named": [], "history": 50 });
    let joining = comes_back.start("join", join);
    let mut dead = cluster.nodes.remove(1);
    has_nothing_to_do(&dead).await?;
    recorder.kill(&mut dead).await?;
    tokio::time::sleep_until(stopped + STOPPED).await;
    cluster.nodes[0].process.thaw()?;

    let joined = comes_back.reply("join", joining).await?;
    assert_eq!(joined["recovered"], true, "{joined}");
    assert_eq!(joined["messages"], json!([]), "shown already, at the other");
    for (reply, id) in waiting.into_iter().zip(&said) {
        let sent: Sent = serde_json::from_value(at_a.reply("send", reply).await?)?;
        assert_eq!(
            sent.id, *id,
            "what was said at the other is the same message"
        );
    }
    // All that may still come has come when this has.
    at_a.send("tea", "fence").await?;
    comes_back.message(ANSWERED_WITHIN, "fence").await?;
    let again: Vec<String> = comes_back
        .messages()
        .into_iter()
        .map(|(_, message)| message.text)
        .collect();
    assert_eq!(again, ["fence"], "shown twice");
    is_in_the_history_once(&cluster.nodes[0]).await
}

/// Waits until a node sleeps, again and again: then what it has to say is with the kernel, which goes on with that
/// when the node is dead. What it had not handed on nobody else would have.
async fn has_nothing_to_do(node: &Node) -> anyhow::Result<()> {
    const LOOKS: u32 = 20;
    let tasks = format!("/proc/{}/task", node.process.id());
    eventually(PATIENCE, "it has nothing to do", async || {
        for _ in 0..LOOKS {
            for task in std::fs::read_dir(&tasks)? {
                let stat = std::fs::read_to_string(task?.path().join("stat"))?;
                // The name may hold anything; the state stands behind it.
                let state = stat
                    .rsplit(") ")
                    .next()
                    .and_then(|rest| rest.chars().next());
                ensure!(state == Some('S'), "a thread is {state:?}");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::Ok(())
    })
    .await
}

async fn is_in_the_history_once(node: &Node) -> Outcome {
    eventually(
        PATIENCE,
        "each message is in the history once",
        async || {
            let mut mids = HashSet::new();
            let mut count = 0;
            let mut before = String::new();
            loop {
                let path = format!("/api/rooms/tea/messages?limit=200{before}");
                let page: Value = node.get(&path).await?.json().await?;
                let messages = page["messages"].as_array().cloned().unwrap_or_default();
                count += messages.len();
                mids.extend(messages.iter().map(|m| m["text"].to_string()));
                match messages.first().filter(|_| page["more"] == true) {
                    Some(first) => {
                        before = format!("&before={}", first["id"].as_str().unwrap_or(""))
                    }
                    None => break,
                }
            }
            ensure!(
                count == SAID + 1 && mids.len() == count,
                "{count} messages, {} different",
                mids.len()
            );
            Ok(())
        },
    )
    .await?;
    Ok(())
}

/// As above: nobody else is there, so what B said last is in what A has not read yet.
#[tokio::test]
async fn of_two_nodes_one_that_was_stopped_says_and_shows_nothing_twice() -> Outcome {
    what_was_said_while_a_node_was_stopped(2).await
}

/// As above: a third node has it too.
#[tokio::test]
async fn of_three_nodes_one_that_was_stopped_says_and_shows_nothing_twice() -> Outcome {
    what_was_said_while_a_node_was_stopped(3).await
}
