//! NATS: what it must not be, and its cluster.

use crate::harness::buses::{bus_is, bus_says, flags};
use crate::harness::engines::Broker;
use crate::harness::engines::nats::Nats;
use crate::harness::{Node, Outcome, PATIENCE, Registry, linked, secs};

/// A node at this broker.
async fn node(url: &str) -> anyhow::Result<Node> {
    Node::start(flags(&[url], None)).await
}

/// Goal: whatever is wrong with a NATS or its address is said in one line. Method: a node for each: a wrong
/// password, a token instead of one, a server that takes only short messages, one that forbids a channel, one
/// of several that is in no cluster, one without TLS, and HTTP.
#[tokio::test]
async fn what_is_no_nats_to_meet_at_is_named_in_one_line() -> Outcome {
    let closed = Nats::with("", &["ann"]).await?;
    let narrow = Nats::with("max_payload: 4096", &[]).await?;
    let forbids = "authorization { users: [ { user: ann, password: \"of-ann\", permissions: { \
                   subscribe: \"other.>\" } } ] }";
    let forbidden = Nats::with(forbids, &[]).await?;
    let (open, other) = (Nats::start().await?, Nats::start().await?);
    let registry = Registry::start().await?;
    let at = |broker: &Nats| broker.address().to_string();
    let http = registry.url.trim_start_matches("http://");
    for (url, reason, words) in [
        (
            format!("nats://ann:wrong@{}", at(&closed)),
            "not_let_in",
            "the broker refuses: Authorization Violation",
        ),
        (
            format!("nats://of-ann@{}", at(&closed)),
            "not_let_in",
            "Authorization Violation",
        ),
        (narrow.url(), "no_broker", "its max_payload is 4096"),
        (
            forbidden.url_as("ann"),
            "not_let_in",
            "Permissions Violation for Subscription to \"chatmesh.main.beat\"",
        ),
        (
            format!("nats://{},{}", at(&open), at(&other)),
            "no_broker",
            "it is in no cluster",
        ),
        (
            format!("tls+nats://{}", at(&open)),
            "not_sealed",
            "the broker has no TLS there",
        ),
        (
            format!("nats://{http}"),
            "no_broker",
            "it says \"HTTP/1.1 400",
        ),
    ] {
        let node = node(&url).await?;
        bus_says(&node, reason, words).await?;
        node.takes_clients(PATIENCE).await?;
    }
    bus_is(&node(&closed.url_as("ann")).await?, "up", PATIENCE).await?;
    Ok(())
}

/// Goal: a broker that is put right is met without a restart of the node, and what it takes at the most is
/// heard of anew. Method: a limit that is too low, and is raised in its file.
#[tokio::test]
async fn a_nats_that_is_put_right_is_met() -> Outcome {
    let mut nats = Nats::with("max_payload: 4096", &[]).await?;
    let node = node(&nats.url()).await?;
    bus_says(&node, "no_broker", "its max_payload is 4096").await?;
    nats.reload("max_payload: 100000").await?;
    bus_is(&node, "up", PATIENCE).await?;
    Ok(())
}

/// Goal: of a cluster's servers any will do, nodes at two of them meet, and one that is about to end is left
/// at once. Method: two servers; lame duck at the one.
#[tokio::test]
async fn nodes_meet_across_a_cluster_of_nats_and_leave_a_lame_duck() -> Outcome {
    let mut both = Nats::cluster().await?;
    let mut nodes = Vec::new();
    for url in [both[0].url(), both[1].url(), Nats::url_of(&both)] {
        nodes.push(node(&url).await?);
    }
    linked(&nodes, PATIENCE).await?;
    both[0].is_lame().await?;
    bus_says(&nodes[0], "refused", "nobody listens there").await?;
    linked(&nodes[1..], secs(5)).await?;
    Ok(())
}
