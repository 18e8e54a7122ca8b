//! Keepers and archives when something is wrong: poison, an alarm, no room, what does not last, strangers.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::harness::disks::member;
use crate::harness::engines::Broker;
use crate::harness::engines::amqp::Amqp;
use crate::harness::engines::nats::{Lines, Nats};
use crate::harness::engines::rabbit::Rabbit;
use crate::harness::engines::redis::{KEEPS, Redis};
use crate::harness::sealed::Seal;
use crate::harness::tools::Foreign;
use crate::harness::{Client, Node, Outcome, PATIENCE, Registry, eventually, secs};
use crate::keepers::{JETSTREAM, archive, is_drained, is_up, keeper, kept, say_kept, texts};

/// What no node says.
const POISON: &str = "{\"text\":\"poison\"}";

/// Waits until an archive has set one message aside; what its file says.
async fn set_aside(node: &Node, folder: &Path, count: usize) -> Result<Vec<String>> {
    eventually(PATIENCE, "what is no message is set aside", async || {
        let keeper = keeper(node).await?;
        let (rejected, lag) = (&keeper["archive"]["rejected"], &keeper["archive"]["lag"]);
        ensure!(*rejected == count && *lag == 0, "{keeper}");
        Ok(())
    })
    .await?;
    let mut files = Vec::new();
    for file in std::fs::read_dir(folder.join("rejected"))? {
        files.push(String::from_utf8_lossy(&std::fs::read(file?.path())?).into_owned());
    }
    Ok(files)
}

/// Goal: what is no message is set aside and counted, and stops nothing. Method: at each engine somebody else
/// publishes where nodes keep, between what a node says; the archive has the rest, and the file has the bytes. At
/// RabbitMQ a classic queue is there already.
#[tokio::test]
async fn poison_is_set_aside_and_stops_nothing() -> Outcome {
    let registry = Registry::start().await?;
    let redis = Redis::with(&KEEPS).await?;
    let nats = Nats::with(JETSTREAM, &[]).await?;
    let rabbit = Rabbit::start().await?;
    let mut operator = Amqp::open(rabbit.address(), &rabbit.vhost, "operator").await?;
    operator.declares("chatmesh.main.archive").await?;
    for url in [redis.url(), nats.url(), rabbit.url()] {
        let folder = tempfile::tempdir()?;
        let archive = archive(&registry, &url, folder.path()).await?;
        let mut nodes = kept(&registry, &url, 1).await?;
        let client = Client::hello(&nodes[0], "c").await?;
        say_kept(&client, "before", 20, 20).await?;
        let mut foreign = None;
        if url.starts_with("redis") {
            let add = ["XADD", "chatmesh:{main}:kept", "*", "m", POISON];
            redis.command(&add).await?;
        } else if url.starts_with("nats") {
            let mut lines = Lines::connect(nats.address()).await?;
            lines.tell("CONNECT {}").await?;
            let published = format!("PUB chatmesh.main.kept {}\r\n{POISON}", POISON.len());
            lines.tell(&published).await?;
        } else {
            let at = foreign.insert(Foreign::at(&url, "chatmesh.main.kept").await?);
            at.say("poison").await?;
        }
        let files = set_aside(&archive, folder.path(), 1).await?;
        // It is bound there too, and what nodes say is nothing that it could take.
        drop(foreign);
        say_kept(&client, "after", 20, 20).await?;
        is_drained(&archive).await?;
        assert_eq!(files.len(), 1);
        assert!(
            files[0].starts_with("{\"at_us\":") && files[0].contains("poison"),
            "{files:?}"
        );
        nodes[0].process.kill().await?;
        assert_eq!(texts(&archive, "tea").await?.len(), 40);
        archive.takes_clients(PATIENCE).await?;
    }
    Ok(())
}

/// Goal: with a mesh secret nobody at the broker reads what is kept, or has something archived. Method: what lies
/// in the stream is looked at, and said once more by somebody else with a byte changed.
#[tokio::test]
async fn what_is_kept_is_sealed_with_a_mesh_secret() -> Outcome {
    let redis = Redis::with(&KEEPS).await?;
    let url = redis.url();
    let seal = Seal::new().await?;
    let secret = ["--mesh-secret".to_owned(), seal.file()];
    let flags = ["--registry", "none", "--keep", &url].map(str::to_owned);
    let flags = [&flags[..], &secret].concat();
    let mut node = Node::start(flags.clone()).await?;
    is_up(&node).await?;
    let client = Client::hello(&node, "c").await?;
    say_kept(&client, "very secret", 1, 1).await?;
    let stream = "chatmesh:{main}:kept";
    let lies = redis.command(&["XRANGE", stream, "-", "+"]).await?;
    let lies = format!("{lies:?}");
    assert!(lies.contains("Bulk") || lies.len() > 100, "{lies}");
    assert!(!lies.contains("secret"), "{lies}");
    node.process.kill().await?;
    let plain = ["XADD", stream, "*", "m", POISON];
    redis.command(&plain).await?;
    let folder = tempfile::tempdir()?;
    let data = ["--data".to_owned(), folder.path().display().to_string()];
    let archive = Node::start([flags, data.to_vec()].concat()).await?;
    archive.takes_clients(PATIENCE).await?;
    let files = set_aside(&archive, folder.path(), 1).await?;
    assert!(files[0].contains("not sealed"), "{files:?}");
    assert_eq!(texts(&archive, "tea").await?.len(), 1);
    Ok(())
}

/// Goal: two archives each have all, and what one has acknowledged the other still gets. Method: at each engine
/// two, one of them away while a node says something and is killed.
#[tokio::test]
async fn each_of_two_archives_has_all() -> Outcome {
    let registry = Registry::start().await?;
    let redis = Redis::with(&KEEPS).await?;
    let nats = Nats::with(JETSTREAM, &[]).await?;
    let rabbit = Rabbit::start().await?;
    for url in [redis.url(), nats.url(), rabbit.url()] {
        let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
        let second = format!("{url}?archive=second");
        let mut one = archive(&registry, &url, folders[0].path()).await?;
        let mut two = archive(&registry, &second, folders[1].path()).await?;
        two.process.kill().await?;
        let mut nodes = kept(&registry, &url, 1).await?;
        let client = Client::hello(&nodes[0], "c").await?;
        say_kept(&client, "while one is away", 50, 50).await?;
        is_drained(&one).await?;
        nodes[0].process.kill().await?;
        one.process.kill().await?;
        two.again().await?;
        two.takes_clients(PATIENCE).await?;
        is_drained(&two).await?;
        assert_eq!(texts(&two, "tea").await?.len(), 50, "{url}");
    }
    Ok(())
}

/// Goal: while RabbitMQ takes nothing that is shown, and no reply lies; afterwards what was said is kept.
/// Method: the memory alarm, as an operator would set it off, and a disk alarm is the same to a client.
#[tokio::test]
async fn an_alarm_of_the_keeper_is_shown_and_outlived() -> Outcome {
    let registry = Registry::start().await?;
    let rabbit = Rabbit::start().await?;
    let nodes = kept(&registry, &rabbit.url(), 1).await?;
    let client = Client::hello(&nodes[0], "c").await?;
    rabbit.alarm(true).await?;
    let reply = client
        .ask(
            "send",
            json!({ "room": "tea", "text": "blocked", "copies": 1 }),
        )
        .await?;
    assert!(reply["keeper"] == false && reply["copies"] == 0, "{reply}");
    let blocked = keeper(&nodes[0]).await?;
    assert!(
        blocked["blocked"] == true && blocked["behind"] == 1,
        "{blocked}"
    );
    // Longer than a keeper has for its answer, that does not say why there is none.
    tokio::time::sleep(secs(6)).await;
    let dials = nodes[0].get("/metrics").await?.text().await?;
    let dialled_once = dials
        .lines()
        .any(|line| line.starts_with("chatnode_keeper_dials_total") && line.ends_with(" 1"));
    assert!(dialled_once, "it waits, and does not dial again");
    rabbit.alarm(false).await?;
    eventually(PATIENCE, "what was said is kept", async || {
        let keeper = keeper(&nodes[0]).await?;
        ensure!(
            keeper["behind"] == 0 && keeper["blocked"] == false,
            "{keeper}"
        );
        Ok(())
    })
    .await?;
    say_kept(&client, "after", 10, 10).await?;
    Ok(())
}

/// Goal: where a keeper's word means nothing, or it has no room, that is said, and no reply counts it. Method: a
/// Redis that does not sync; one whose memory is full; a RabbitMQ queue that is there and does not last; NATS
/// without JetStream.
#[tokio::test]
async fn a_keeper_whose_word_means_nothing_is_not_counted() -> Outcome {
    let registry = Registry::start().await?;
    let weak = Redis::start().await?;
    let full = Redis::with(&[&KEEPS[..], &["--maxmemory", "1100kb"]].concat()).await?;
    let plain = Nats::start().await?;
    let rabbit = Rabbit::start().await?;
    for (url, state, words) in [
        (weak.url(), "up", "set yes and always"),
        (plain.url(), "away", "without JetStream"),
        (
            format!("{}-not-there", rabbit.url()),
            "away",
            "530 NOT_ALLOWED",
        ),
    ] {
        let node = member(&registry, None, &["--keep", &url]).await?;
        eventually(PATIENCE, words, async || {
            let keeper = keeper(&node).await?;
            let says = keeper["error"].as_str().unwrap_or_default();
            ensure!(keeper["state"] == state && says.contains(words), "{keeper}");
            ensure!(keeper["counts"] == false, "{keeper}");
            Ok(())
        })
        .await?;
        let ready = node.get("/readyz").await?.text().await?;
        assert!(
            ready.starts_with("ready; not ") && ready.contains(words),
            "{ready}"
        );
        let client = Client::hello(&node, "c").await?;
        let body = json!({ "room": "tea", "text": "x", "copies": 1 });
        let reply = client.ask("send", body).await?;
        assert!(reply["keeper"] == false && reply["copies"] == 0, "{reply}");
    }
    let small = "jetstream { store_dir: \"js\", max_file_store: 1MB }";
    let small = Nats::with(small, &[]).await?;
    for (url, words) in [(full.url(), "OOM"), (small.url(), "JetStream refuses")] {
        fills_up(&registry, &url, words).await?;
    }
    Ok(())
}

/// A keeper that is given more than it has room for says so, and replies do.
async fn fills_up(registry: &Registry, url: &str, words: &str) -> Result<()> {
    let node = member(registry, None, &["--keep", url]).await?;
    is_up(&node).await?;
    let client = Client::hello(&node, "c").await?;
    let text = "x".repeat(4000);
    let mut replies = Vec::new();
    for _ in 0..30 {
        let bodies = (0..10).map(|_| json!({ "room": "tea", "text": text, "copies": 1 }));
        for reply in client.start_all("send", bodies) {
            replies.push(client.reply("send", reply).await?["keeper"] == true);
        }
        if replies.last() == Some(&false) {
            break;
        }
    }
    ensure!(
        replies[0] && replies.iter().any(|it| !it),
        "it has room for some of it"
    );
    eventually(PATIENCE, words, async || {
        let says = keeper(&node).await?["error"].to_string();
        ensure!(says.contains(words), "{says}");
        Ok(())
    })
    .await
}

/// Goal: who ends in order leaves nothing behind that the keeper does not have. Method: a node alone, which is
/// asked to end while it is told much without waiting for anything.
#[tokio::test]
async fn a_node_that_ends_in_order_gives_all_to_the_keeper() -> Outcome {
    let registry = Registry::start().await?;
    let nats = Nats::with(JETSTREAM, &[]).await?;
    let mut nodes = kept(&registry, &nats.url(), 1).await?;
    let client = Client::hello(&nodes[0], "c").await?;
    let body = |nth: usize| json!({ "room": "tea", "text": format!("text {nth}") });
    let mut replies = Vec::new();
    for begin in (0..2000).step_by(100) {
        replies.extend(client.start_all("send", (begin..begin + 100).map(body)));
    }
    for reply in replies {
        client.reply("send", reply).await?;
    }
    nodes[0].process.stop(secs(4)).await?;
    let folder = tempfile::tempdir()?;
    let archive = archive(&registry, &nats.url(), folder.path()).await?;
    is_drained(&archive).await?;
    assert_eq!(texts(&archive, "tea").await?.len(), 2000);
    Ok(())
}
