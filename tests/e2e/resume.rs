//! A reader that loses its node again and again, and goes on at another.

use futures::future::join_all;

use crate::harness::{
    Client, Cluster, Habits, Load, Outcome, PATIENCE, Pace, Recorder, Roamer, histories, say,
};

/// Goal: a client that changes its node all the time, for no reason of the nodes', is brought
/// what each node has beyond its position, be it ahead of that node or behind it: nothing missed,
/// nothing twice. Method: six people who talk and read, shoved from node to node under load.
#[tokio::test]
async fn people_who_change_their_node_all_the_time_miss_nothing() -> Outcome {
    let cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    let mut people = Vec::new();
    for count in 0..6 {
        let habits = Habits::new("tea", Pace::Steady(40), 0);
        let name = format!("person{count}");
        people.push(Roamer::start(&recorder, &nodes, &name, habits).await?);
    }
    for _ in 0..10 {
        let from: Vec<_> = people.iter().map(Roamer::at).collect();
        join_all(people.iter().map(Roamer::shove)).await;
        for (person, from) in people.iter_mut().zip(from) {
            let from = from.expect("it has come back from its last move");
            person.is_away_from(&from, PATIENCE).await?;
            person.has_said(person.answered() + 5, PATIENCE).await?;
        }
    }
    // Once more at the last moment: who is judged has come to rest also then.
    join_all(people.iter().map(Roamer::shove)).await;
    Roamer::rest(&mut people, &recorder, &nodes[0].http, "tea", PATIENCE).await?;
    let checked = recorder.check(&nodes, "tea").await?;
    say!("{checked}");
    assert_eq!((checked.verdict.to_the_end, checked.verdict.moves), (6, 66));
    Ok(())
}

/// Goal: a short gap of the client's own network is bridged on the same node, with what was said
/// meanwhile, once. Method: vanish, let others speak, resume with the position.
#[tokio::test]
async fn a_client_that_was_away_is_shown_what_was_said_meanwhile() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let recorder = Recorder::new();
    let mut reader = recorder.reader(&cluster.nodes[0], "reader", "tea").await?;
    let ada = recorder.client(&cluster.nodes[0], "ada").await?;
    let bob = recorder.client(&cluster.nodes[1], "bob").await?;
    for round in 0..5 {
        ada.send("tea", &format!("ada {round}")).await?;
        bob.send("tea", &format!("bob {round}")).await?;
        if round == 2 {
            reader.client().message(PATIENCE, "bob 2").await?;
            reader.client().message(PATIENCE, "ada 2").await?;
            reader.client().vanish();
        }
    }
    let history = histories(&cluster.nodes, "tea", PATIENCE).await?;
    let joined = reader.resume(&cluster.nodes[1]).await?;
    assert_eq!(
        joined.messages,
        history[6..],
        "only what was missed, in the one order"
    );
    let again = reader.resume(&cluster.nodes[0]).await?;
    assert!(
        again.messages.is_empty(),
        "nothing was missed this time: {:?}",
        again.messages
    );
    let checked = recorder.check(&cluster.nodes, "tea").await?;
    assert_eq!(checked.verdict.shown, 10);
    Ok(())
}

/// Goal: a client may go on at a node in the very moment of its ready line, when it holds
/// nothing yet: nothing missed, nothing twice. Method: a reader stops in the middle of a flow; then
/// a node starts, and the reader goes on there at once; three times, each at a newer node, the
/// last with a dead node in the registry's list, for which a joining node would wait.
#[tokio::test]
async fn a_reader_may_go_on_at_a_node_that_has_just_started() -> Outcome {
    let mut cluster = Cluster::with(2, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let mut reader = recorder.reader(&cluster.nodes[1], "reader", "tea").await?;
    let senders = recorder
        .clients([(&cluster.nodes[0], "ada"), (&cluster.nodes[0], "bob")])
        .await?;
    let load = Load::start(senders, "tea", 200);
    let mut times = Vec::new();
    for round in 0..3 {
        let shown = reader.stream().len();
        reader.shown(shown + 200, PATIENCE).await?;
        reader.client().vanish();
        if round == 2 {
            recorder.kill(&mut cluster.nodes.remove(1)).await?;
        }
        let node = cluster.add().await?;
        reader.resume(node).await?;
        times.push(node.process.ready_at.elapsed());
    }
    cluster.linked(PATIENCE).await?;
    load.stop().await?;
    let checked = recorder.check(&cluster.nodes, "tea").await?;
    assert_eq!(checked.verdict.shown, checked.history.len());
    say!("{checked}; from the ready line to recovered there: {times:?}");
    Ok(())
}

/// Goal: what cannot be replayed is said: `recovered:false` with the newest page.
/// Method: a node that keeps 1000 messages; a position from before the trimmed ones, a position of
/// an origin that nobody knows, a position ahead of everything.
#[tokio::test]
async fn what_cannot_be_replayed_is_said_and_the_newest_page_comes() -> Outcome {
    let cluster = Cluster::with(1, &["--rate-limit", "0", "--retain-messages", "1000"]).await?;
    let node = &cluster.nodes[0];
    let ada = Client::hello(node, "ada").await?;
    let early = ada.send("tea", "0").await?.id;
    for count in 1..1500 {
        ada.send("tea", &count.to_string()).await?;
    }
    let stale = [
        early,
        "aaaaaaaaaa.7".to_owned(),
        format!("{}.18446744073709551615", node.origin),
    ];
    for since in stale {
        let client = Client::hello(node, "bob").await?;
        let body = serde_json::json!({ "room": "tea", "since": [since], "history": 20 });
        let joined = client.join_with(body).await?;
        assert_eq!(joined.recovered, Some(false), "since {since}");
        let texts: Vec<_> = joined
            .messages
            .iter()
            .map(|msg| msg.text.as_str())
            .collect();
        assert_eq!(
            texts,
            (1480..1500)
                .map(|count| count.to_string())
                .collect::<Vec<_>>()
        );
        let head = format!("{}.1500", node.origin);
        assert!(joined.at.contains(&head), "{:?} lacks {head}", joined.at);
    }
    Ok(())
}
