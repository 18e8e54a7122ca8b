//! Who is in a room, who is typing, and how soon the dead are gone from it.

use serde_json::{Value, json};

use crate::harness::{
    Client, Cluster, Instant, NOISE, Node, Outcome, PATIENCE, eventually, say, secs,
};

/// A dead node's members leave within this time.
const LEAVE_WITHIN: std::time::Duration = secs(4);

async fn who(client: &Client, room: &str) -> anyhow::Result<(Vec<String>, u64)> {
    let reply = client.ask("who", json!({ "room": room })).await?;
    let mut names: Vec<String> = serde_json::from_value(reply["members"].clone())?;
    names.sort();
    let count = reply["count"].as_u64();
    Ok((names, count.unwrap_or_default()))
}

async fn members_are(client: &Client, room: &str, expected: &[&str]) -> anyhow::Result<()> {
    let what = format!("{} sees the members {expected:?}", client.name);
    eventually(PATIENCE, &what, async || {
        let (names, count) = who(client, room).await?;
        anyhow::ensure!(
            names == expected && count == expected.len() as u64,
            "{names:?} {count}"
        );
        Ok(())
    })
    .await
}

fn names(change: &Value, field: &str) -> Vec<String> {
    serde_json::from_value(change[field].clone()).unwrap_or_default()
}

/// Goal: members of all nodes are one list; who comes and goes is told; the same name twice
/// counts once. Method: three people on two nodes, one of them with two connections.
#[tokio::test]
async fn members_of_all_nodes_are_one_list_and_a_name_counts_once() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let [here, there] = cluster.each();
    let ada = Client::joined(here, "ada", "tea").await?;
    let bob = Client::joined(there, "bob", "tea").await?;
    ada.push(PATIENCE, "members", |change| {
        names(change, "joined") == ["bob"]
    })
    .await?;
    members_are(&ada, "tea", &["ada", "bob"]).await?;
    members_are(&bob, "tea", &["ada", "bob"]).await?;

    let eve = Client::hello(there, "eve").await?;
    let joined = eve.join("tea").await?;
    assert_eq!(joined.count, 3, "{joined:?}");
    let mut members = joined.members;
    members.sort();
    assert_eq!(members, ["ada", "bob", "eve"]);

    let eve_again = Client::joined(here, "eve", "tea").await?;
    members_are(&ada, "tea", &["ada", "bob", "eve"]).await?;
    members_are(&bob, "tea", &["ada", "bob", "eve"]).await?;
    eve.vanish();
    // The name stays as long as one connection of it does; a fence shows that the news passed.
    let fence = Client::joined(there, "fence", "tea").await?;
    members_are(&ada, "tea", &["ada", "bob", "eve", "fence"]).await?;
    assert!(
        !ada.pushed("members")
            .iter()
            .any(|change| !names(change, "left").is_empty())
    );
    eve_again.ask("leave", json!({ "room": "tea" })).await?;
    for client in [&ada, &bob] {
        let left = |change: &Value| names(change, "left") == ["eve"] && change["count"] == 3;
        client.push(PATIENCE, "members", left).await?;
        members_are(client, "tea", &["ada", "bob", "fence"]).await?;
    }
    drop(fence);
    members_are(&bob, "tea", &["ada", "bob"]).await?;
    Ok(())
}

/// Goal: typing is told to the others of the room on every node, and to no other room.
#[tokio::test]
async fn typing_is_told_to_the_others_of_the_room() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let ada = Client::joined(&cluster.nodes[0], "ada", "tea").await?;
    let eve = Client::joined(&cluster.nodes[0], "eve", "tea").await?;
    let bob = Client::joined(&cluster.nodes[1], "bob", "tea").await?;
    let zoe = Client::joined(&cluster.nodes[1], "zoe", "milk").await?;
    // Typing may be lost by contract, so it is said until it is heard.
    for other in [&eve, &bob] {
        eventually(PATIENCE, "typing is told", async || {
            ada.ask("typing", json!({ "room": "tea" })).await?;
            let is_ada = |body: &Value| body["name"] == "ada" && body["room"] == "tea";
            other
                .push(std::time::Duration::from_millis(500), "typing", is_ada)
                .await
        })
        .await?;
    }
    ada.send("tea", "fence").await?;
    ada.message(PATIENCE, "fence").await?;
    assert!(zoe.pushed("typing").is_empty(), "another room was told");
    Ok(())
}

/// Goal: a killed node's members leave within 4 s, and come back when it does.
/// Method: kill -9 the node of bob; measure on ada's connection until he has left.
#[tokio::test]
async fn members_of_a_killed_node_leave_within_4_s() -> Outcome {
    let mut cluster = Cluster::start(2).await?;
    let ada = Client::joined(&cluster.nodes[0], "ada", "tea").await?;
    let _bob = Client::joined(&cluster.nodes[1], "bob", "tea").await?;
    members_are(&ada, "tea", &["ada", "bob"]).await?;
    let killed = Instant::now();
    cluster.nodes[1].process.kill().await?;
    ada.push(PATIENCE, "members", |change| {
        names(change, "left") == ["bob"]
    })
    .await?;
    let took = killed.elapsed();
    say!("members of a killed node left after {took:?}");
    assert!(took <= LEAVE_WITHIN + NOISE, "bob left only after {took:?}");
    members_are(&ada, "tea", &["ada"]).await?;

    cluster.nodes[1].again().await?;
    cluster.linked(PATIENCE).await?;
    let _bob = Client::joined(&cluster.nodes[1], "bob", "tea").await?;
    members_are(&ada, "tea", &["ada", "bob"]).await?;
    Ok(())
}

/// Goal: a node that starts later knows the members of the others without anyone moving.
#[tokio::test]
async fn a_new_node_knows_the_members_of_the_others() -> Outcome {
    let mut cluster = Cluster::start(2).await?;
    let _ada = Client::joined(&cluster.nodes[0], "ada", "tea").await?;
    let _bob = Client::joined(&cluster.nodes[1], "bob", "tea").await?;
    cluster.add().await?;
    cluster.linked(PATIENCE).await?;
    let eve = Client::joined(&cluster.nodes[2], "eve", "tea").await?;
    members_are(&eve, "tea", &["ada", "bob", "eve"]).await?;
    Ok(())
}

/// Goal: a room of more than 500 gives the count and a sample. Method: 510 connections of
/// different names in one room of one node.
#[tokio::test]
async fn a_room_of_more_than_500_gives_count_and_a_sample() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let mut crowd = Vec::new();
    for count in 0..510 {
        crowd.push(Client::joined(&node, &format!("guest{count}"), "hall").await?);
    }
    let eve = Client::hello(&node, "eve").await?;
    let joined = eve.join("hall").await?;
    assert_eq!(joined.count, 511);
    assert!(
        !joined.members.is_empty() && joined.members.len() <= 500,
        "{}",
        joined.members.len()
    );
    Ok(())
}
