//! One mid, several attempts: one message.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::load::text_of;
use crate::harness::wire::Sent;
use crate::harness::{
    Client, Cluster, Duration, Habits, Node, Outcome, PATIENCE, Pace, Recorder, Roamer, histories,
    say,
};

/// Rounds of each test.
const ROUNDS: usize = 30;
/// More messages than a client would name for nothing.
const MORE: usize = 600;
/// Messages of a round that are sent twice.
const TWICE: usize = 10;

/// A message that may be sent more than once.
fn body(client: &Client) -> Value {
    let mid = client.new_mid();
    json!({ "room": "tea", "text": text_of(&mid, 0), "mid": mid, "copies": 1 })
}

/// Goal: the same mid through two nodes in the same instant is one message in every history and
/// on every connection, whichever copy arrives first; afterwards every node answers it with the id
/// of the one that is kept.
/// Method: thirty times ten messages from both ends of a mesh of three at once, before either node
/// can know of the other's; readers on all three; then each mid once more at each node.
#[tokio::test]
async fn a_mid_through_two_nodes_at_once_is_one_message() -> Outcome {
    let cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let mut readers = Vec::new();
    let mut clients = Vec::new();
    for (place, node) in cluster.nodes.iter().enumerate() {
        let name = format!("reader{place}");
        readers.push(recorder.reader(node, &name, "tea").await?);
        // One person on three connections.
        clients.push(recorder.client(node, "ada").await?);
    }
    let mut bodies = Vec::new();
    let mut two_entries = 0;
    for round in 0..ROUNDS {
        let (one, other) = (&clients[round % 3], &clients[(round + 1) % 3]);
        let fresh: Vec<_> = (0..TWICE).map(|_| body(one)).collect();
        let firsts = one.start_all("send", fresh.clone());
        let seconds = other.start_all("send", fresh.clone());
        for (first, second) in firsts.into_iter().zip(seconds) {
            let first: Sent = serde_json::from_value(one.reply("send", first).await?)?;
            let second: Sent = serde_json::from_value(other.reply("send", second).await?)?;
            two_entries += usize::from(first.id != second.id);
        }
        bodies.extend(fresh);
    }
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    let checked = recorder.check(&nodes, "tea").await?;
    assert_eq!(checked.history.len(), ROUNDS * TWICE);
    assert_eq!(checked.verdict.shown, 3 * ROUNDS * TWICE);
    assert!(two_entries > 0, "the two nodes were never asked at once");
    say!(
        "of {} messages {two_entries} became two entries; {checked}",
        bodies.len()
    );
    answered_as_kept(&recorder, &nodes, &bodies, &clients).await
}

/// Each mid once more at each node: no second message, and the id of the one that is kept.
async fn answered_as_kept(
    recorder: &Recorder,
    nodes: &[&Node],
    bodies: &[Value],
    clients: &[Client],
) -> Outcome {
    let kept = histories(nodes, "tea", PATIENCE).await?;
    for client in clients {
        for body in bodies {
            let sent = client.send_with(body.clone()).await?;
            let is_it = kept
                .iter()
                .find(|message| message.mid.as_deref() == body["mid"].as_str());
            let kept = is_it.map(|message| (&message.id, message.ts));
            assert_eq!(
                kept,
                Some((&sent.id, sent.ts)),
                "{body} at {}",
                client.origin()
            );
        }
    }
    let checked = recorder.check(nodes, "tea").await?;
    assert_eq!(checked.history, kept);
    Ok(())
}

/// Goal: what a client says again elsewhere, because its node was killed before it
/// answered, is one message in every history and on every connection, whether the dead node's entry
/// survives it or not; afterwards every node answers the mid with the id of the one that is kept.
/// Method: thirty times ten messages to a node that is killed some moments after, in every other
/// round stopped before it can read the last five; then at once the same to both survivors; the
/// killed one comes back.
#[tokio::test]
async fn a_mid_said_again_after_a_kill_is_one_message() -> Outcome {
    let mut cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let habits = Habits::new("tea", Pace::Silent, 0);
    let mut readers = Vec::new();
    for name in ["one", "two", "three"] {
        readers.push(Roamer::start(&recorder, &cluster.nodes, name, habits.clone()).await?);
    }
    let mut bodies = Vec::new();
    // Which node was given each first, and killed.
    let mut firsts = HashSet::new();
    for round in 0..ROUNDS {
        let mut clients = Vec::new();
        for node in &cluster.nodes {
            clients.push(recorder.client(node, "ada").await?);
        }
        let fresh: Vec<_> = (0..TWICE).map(|_| body(&clients[0])).collect();
        let place = round % 3;
        let halves = fresh.split_at(if round % 2 == 0 { TWICE } else { TWICE / 2 });
        let mut unanswered = clients[place].start_all("send", halves.0.to_vec());
        tokio::time::sleep(Duration::from_micros(200).mul_f64(round as f64)).await;
        if !halves.1.is_empty() {
            // These it cannot read any more: they die with it.
            cluster.nodes[place].process.freeze()?;
            unanswered.extend(clients[place].start_all("send", halves.1.to_vec()));
        }
        let killed = &mut cluster.nodes[place];
        let origin = killed.origin.clone();
        recorder.kill(killed).await?;
        drop(unanswered);
        for other in [(place + 1) % 3, (place + 2) % 3] {
            for reply in clients[other].start_all("send", fresh.clone()) {
                clients[other].reply("send", reply).await?;
            }
        }
        killed.again().await?;
        killed.takes_clients(PATIENCE).await?;
        cluster.linked(PATIENCE).await?;
        for reader in &mut readers {
            reader.is_away_from(&origin, PATIENCE).await?;
        }
        firsts.extend(
            fresh
                .iter()
                .map(|body| (body["mid"].clone(), origin.clone())),
        );
        bodies.extend(fresh);
    }
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    let checked = recorder.check(&nodes, "tea").await?;
    let kept = checked
        .history
        .iter()
        .filter(|message| firsts.contains(&(json!(message.mid), message.origin().to_owned())));
    let survived = kept.count();
    say!("{survived} are kept as the dead node numbered them; {checked}");
    assert!(survived > 0 && survived < ROUNDS * TWICE);
    assert_eq!(checked.history.len(), ROUNDS * TWICE);
    assert_eq!(checked.verdict.to_the_end, 3);
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(recorder.client(node, "ada").await?);
    }
    answered_as_kept(&recorder, &nodes, &bodies, &clients).await
}

/// Goal: a mid is known for five minutes on every node, also when retention has trimmed its
/// message long since. Method: nodes that keep a thousand messages; one, and more than that after it;
/// then its mid again at each node: the first id, and nobody is shown anything.
#[tokio::test]
async fn a_mid_outlives_its_message_on_every_node() -> Outcome {
    let args = ["--rate-limit", "0", "--retain-messages", "1000"];
    let cluster = Cluster::with(3, &args).await?;
    let mut clients = Vec::new();
    for node in &cluster.nodes {
        clients.push(Client::joined(node, "ada", "tea").await?);
    }
    let first = json!({ "room": "tea", "mid": "the first", "text": "said once" });
    let sent = clients[0].send_with(first.clone()).await?;
    for count in 0..1200 {
        clients[0].send("tea", &count.to_string()).await?;
    }
    clients[0].send("tea", "the last").await?;
    for client in &clients {
        client.message(PATIENCE, "the last").await?;
    }
    for node in &cluster.nodes {
        let path = format!("/api/rooms/tea/messages?before={}", sent.id);
        let status = node.get(&path).await?.status();
        assert_eq!(status, 404, "the first message was not trimmed");
    }
    for client in &clients {
        let again = client.send_with(first.clone()).await?;
        assert_eq!((&again.id, again.ts), (&sent.id, sent.ts));
    }
    clients[0].send("tea", "fence").await?;
    for client in &clients {
        client.message(PATIENCE, "fence").await?;
        let messages = client.messages();
        let shown = messages
            .iter()
            .filter(|(_, message)| message.text == "said once");
        assert_eq!(shown.count(), 1, "shown again by a retry");
    }
    Ok(())
}

/// Goal: who saw a message at a node that took it with it when it was killed is not shown it
/// again when its sender says it again elsewhere, be that before or after the reader comes. Method:
/// a node that nobody hears shows two messages and is killed; the reader is asked for their mids,
/// at each move, however much it was shown meanwhile.
#[tokio::test]
async fn a_retry_of_what_died_with_its_node_is_not_shown_again() -> Outcome {
    let mut lone = Cluster::with(1, &[]).await?;
    let cluster = Cluster::with(1, &["--rate-limit", "0"]).await?;
    let node = &cluster.nodes[0];
    let recorder = Recorder::new();
    let said: Vec<Value> = ["before", "after"]
        .map(|text| json!({ "room": "tea", "mid": format!("mid {text}"), "text": text }))
        .into();
    let mut reader = recorder.reader(&lone.nodes[0], "reader", "tea").await?;
    let mut forgetful = recorder.reader(&lone.nodes[0], "forgetful", "tea").await?;
    let sender = Client::joined(&lone.nodes[0], "ada", "tea").await?;
    for body in &said {
        sender.send_with(body.clone()).await?;
    }
    reader.shown(2, PATIENCE).await?;
    forgetful.shown(2, PATIENCE).await?;
    recorder.kill(&mut lone.nodes.remove(0)).await?;

    let sender = Client::joined(node, "ada", "tea").await?;
    sender.send_with(said[0].clone()).await?;
    let joined = reader.resume(node).await?;
    assert_eq!((joined.recovered, joined.messages.len()), (Some(true), 0));
    let since = forgetful.resume_without_mids(node).await?;
    assert_eq!(since.messages.len(), 1, "it did not say what it had seen");

    // It sees much more, and moves once more.
    for number in 0..MORE {
        sender.send("tea", &number.to_string()).await?;
    }
    reader.shown(2 + MORE, PATIENCE).await?;
    let joined = reader.resume(node).await?;
    assert_eq!((joined.recovered, joined.messages.len()), (Some(true), 0));
    sender.send_with(said[1].clone()).await?;
    sender.send("tea", "fence").await?;
    reader.shown(3 + MORE, PATIENCE).await?;
    forgetful.shown(5 + MORE, PATIENCE).await?;
    let texts: HashSet<_> = reader.stream().iter().map(|m| m.text.clone()).collect();
    assert_eq!(texts.len(), 3 + MORE);
    assert_eq!(reader.stream().len(), 3 + MORE);
    Ok(())
}
