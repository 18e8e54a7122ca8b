//! RabbitMQ: what it must not be, its alarm, and what a stranger may publish there.

use anyhow::{Result, ensure};

use crate::harness::buses::{bus_is, bus_of, bus_says, flags, nodes_at};
use crate::harness::engines::rabbit::Rabbit;
use crate::harness::{
    Client, Node, Outcome, PATIENCE, Registry, eventually, histories, linked, secs,
};

/// A node at this broker.
async fn node(url: &str) -> Result<Node> {
    Node::start(flags(&[url], None)).await
}

/// Goal: whatever is wrong with a RabbitMQ or its address is said in one line. Method: a node for each: a wrong
/// password, a vhost that is not there, and HTTP.
#[tokio::test]
async fn what_is_no_rabbitmq_to_meet_at_is_named_in_one_line() -> Outcome {
    let rabbit = Rabbit::start().await?;
    let at = rabbit.address();
    let registry = Registry::start().await?;
    let http = registry.url.trim_start_matches("http://");
    for (url, reason, words) in [
        (
            format!("amqp://guest:wrong@{at}/{}", rabbit.vhost),
            "not_let_in",
            "403 ACCESS_REFUSED",
        ),
        (
            format!("amqp://{at}/nowhere"),
            "not_let_in",
            "530 NOT_ALLOWED - vhost nowhere not found",
        ),
        (
            format!("amqp://{http}"),
            "no_broker",
            "no RabbitMQ; it says \"HTTP/1.1 400",
        ),
    ] {
        let node = node(&url).await?;
        bus_says(&node, reason, words).await?;
        node.takes_clients(PATIENCE).await?;
    }
    Ok(())
}

/// Goal: an alarm of the broker's is shown; each node serves its own clients meanwhile, and when it is over all
/// is as before, and nothing is lost. Method: the memory alarm, as an operator would set it off.
#[tokio::test]
async fn an_alarm_of_rabbitmq_is_shown_and_outlived() -> Outcome {
    let rabbit = Rabbit::start().await?;
    let nodes = nodes_at(&rabbit, None, 2).await?;
    let ada = Client::joined(&nodes[0], "ada", "tea").await?;
    let bob = Client::joined(&nodes[1], "bob", "tea").await?;
    rabbit.alarm(true).await?;
    let is_shown = async || {
        let bus = nodes[0].get_json("/api/mesh").await?["buses"][0].clone();
        ensure!(bus["blocked"] == true && bus["state"] != "up", "{bus}");
        Ok(())
    };
    eventually(PATIENCE, "the alarm is shown", is_shown).await?;
    for turn in 0..5 {
        ada.send("tea", &format!("ada alone {turn}")).await?;
        bob.send("tea", &format!("bob alone {turn}")).await?;
    }
    rabbit.alarm(false).await?;
    linked(&nodes, PATIENCE).await?;
    assert_eq!(histories(&nodes, "tea", PATIENCE).await?.len(), 10);
    for node in &nodes {
        bus_is(node, "up", PATIENCE).await?;
        let bus = node.get_json("/api/mesh").await?["buses"][0].clone();
        assert_eq!(bus["blocked"], false, "{bus}");
    }
    Ok(())
}

/// Goal: an operator sees each node's two connections by its name, and may close either: the node is back at
/// once. Method: each in turn.
#[tokio::test]
async fn a_connection_that_an_operator_closes_is_made_anew() -> Outcome {
    let rabbit = Rabbit::start().await?;
    let nodes = nodes_at(&rabbit, None, 2).await?;
    for nth in 0..2 {
        let own = async || {
            let all = rabbit.connections().await?;
            let own = all
                .into_iter()
                .filter(|it| it.name.ends_with(&nodes[0].origin));
            let own: Vec<_> = own.collect();
            ensure!(own.len() == 2, "{own:?}");
            Ok(own)
        };
        let own = eventually(PATIENCE, "two connections", own).await?;
        let dials = bus_of(&nodes[0]).await?.dials;
        rabbit.disconnect(&own[nth].id).await?;
        let again = async || {
            let bus = bus_of(&nodes[0]).await?;
            ensure!(bus.dials > dials && bus.state == "up", "{bus:?}");
            Ok(())
        };
        eventually(secs(5), "it is back", again).await?;
        linked(&nodes, PATIENCE).await?;
    }
    Ok(())
}
