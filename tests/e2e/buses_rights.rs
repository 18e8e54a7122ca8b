//! The rights that a node needs at a broker: those that docs/brokers.md names are enough, and what is missing
//! is told.

use anyhow::{Context as _, Result, ensure};

use crate::harness::buses::{bus_is, bus_of, bus_says, flags, nodes_with};
use crate::harness::engines::nats::Nats;
use crate::harness::engines::rabbit::{Rabbit, Rights};
use crate::harness::engines::redis::Redis;
use crate::harness::process::workspace;
use crate::harness::{Client, Node, Outcome, PATIENCE, eventually};

/// What stands in docs/brokers.md between these words.
fn in_docs(before: &str, after: &str) -> Result<String> {
    let text = std::fs::read_to_string(workspace().join("docs/brokers.md"))?;
    let (_, rest) = text.split_once(before).context("docs say it otherwise")?;
    let (words, _) = rest.split_once(after).context("docs say it otherwise")?;
    Ok(words.to_owned())
}

/// Two nodes meet there, and what is said on one is read on the other.
async fn nodes_meet_at(url: &str) -> Result<Vec<Node>> {
    let nodes = nodes_with(&flags(&[url], None), 2).await?;
    let ada = Client::joined(&nodes[0], "ada", "tea").await?;
    let bob = Client::joined(&nodes[1], "bob", "tea").await?;
    ada.send("tea", "from ada").await?;
    bob.message(PATIENCE, "from ada").await?;
    bob.send("tea", "from bob").await?;
    ada.message(PATIENCE, "from bob").await?;
    Ok(nodes)
}

/// Of these URLs none is of somebody who may do enough: each node says so in the broker's words.
async fn are_refused(all: &[(String, &str)]) -> Result<()> {
    let mut nodes = Vec::new();
    for (url, _) in all {
        nodes.push(Node::start(flags(&[url], None)).await?);
    }
    for (node, (_, words)) in nodes.iter().zip(all) {
        bus_says(node, "not_let_in", words).await?;
    }
    Ok(())
}

/// Goal: the rule of docs/brokers.md for Redis is enough, and of what it allows all that carries is needed.
/// Method: it is read there; then one right is taken away, for each of them.
#[tokio::test]
async fn the_rights_that_redis_is_told_to_give_are_enough() -> Outcome {
    let redis = Redis::start().await?;
    let rule = in_docs("    ACL SETUSER chat ", "\n\nOn NATS")?;
    let rule = rule.replace("PASSWORD", "right").replace('\\', "");
    let rule: Vec<_> = rule.split_whitespace().collect();
    let mut refused = Vec::new();
    for (user, less, words) in [
        ("chat", "", ""),
        ("mute", "-publish", "'publish' command"),
        ("deaf", "-subscribe", "'subscribe' command"),
        ("still", "-ping", "'ping' command"),
        ("lost", "resetchannels", "NOPERM"),
        ("nameless", "-client|setname", ""),
    ] {
        let words_of = [&["ACL", "SETUSER", user][..], &rule].concat();
        redis.command(&words_of).await?;
        if !less.is_empty() {
            redis.command(&["ACL", "SETUSER", user, less]).await?;
        }
        if !words.is_empty() {
            refused.push((redis.url_as(user, "right"), words));
        }
    }
    are_refused(&refused).await?;
    let mut nodes = nodes_meet_at(&redis.url_as("chat", "right")).await?;
    // The name is for people.
    let nameless = redis.url_as("nameless", "right");
    let nameless = Node::start(flags(&[&nameless], None)).await?;
    bus_is(&nameless, "up", PATIENCE).await?;
    // Who has ended is unsubscribed from.
    nodes[1].process.stop(PATIENCE).await?;
    eventually(PATIENCE, "the other leaves it", async || {
        let mesh = nodes[0].mesh().await?;
        ensure!(!mesh.hears(&nodes[1].origin), "{mesh:?}");
        Ok(())
    })
    .await?;
    let bus = bus_of(&nodes[0]).await?;
    assert!(bus.state == "up" && bus.dials == 1, "{bus:?}");
    Ok(())
}

/// Goal: so are those for NATS. Method: as at Redis.
#[tokio::test]
async fn the_rights_that_nats_is_told_to_give_are_enough() -> Outcome {
    let own = in_docs("On NATS: publish and subscribe to `", "`")?;
    let user = |name: &str, publish: &str, subscribe: &str| {
        format!(
            "{{ user: {name}, password: of-{name}, permissions: {{ publish: \"{publish}\", \
             subscribe: \"{subscribe}\" }} }}"
        )
    };
    let users = [
        user("chat", &own, &own),
        user("mute", "other.>", &own),
        user("deaf", &own, "other.>"),
    ];
    let users = format!("authorization {{ users: [ {} ] }}", users.join(", "));
    let nats = Nats::with(&users, &[]).await?;
    are_refused(&[
        (nats.url_as("mute"), "Permissions Violation for Publish to"),
        (
            nats.url_as("deaf"),
            "Permissions Violation for Subscription to",
        ),
    ])
    .await?;
    nodes_meet_at(&nats.url_as("chat")).await?;
    Ok(())
}

/// Goal: so are those for RabbitMQ. Method: as at Redis.
#[tokio::test]
async fn the_rights_that_rabbitmq_is_told_to_give_are_enough() -> Outcome {
    let own = in_docs("configure, write and read\n`", "`")?;
    let rabbit = Rabbit::start().await?;
    let (own, none) = (own.as_str(), "^$");
    let rights = |configure, write, read| Rights {
        configure,
        write,
        read,
    };
    let [chat, makes_nothing, mute, deaf] = rabbit
        .users([
            rights(own, own, own),
            rights(none, own, own),
            rights(own, none, own),
            rights(own, own, none),
        ])
        .await?;
    let exchange = "403 ACCESS_REFUSED - access to exchange 'chatmesh.main' in vhost";
    are_refused(&[
        (makes_nothing, exchange),
        (mute, "403 ACCESS_REFUSED - access to "),
        (deaf, "403 ACCESS_REFUSED - access to "),
    ])
    .await?;
    nodes_meet_at(&chat).await?;
    Ok(())
}
