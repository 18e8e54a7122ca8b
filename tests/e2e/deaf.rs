//! Clients that read nothing, many of them: what they miss is kept once, within one bound.

use anyhow::ensure;
use serde_json::json;

use crate::harness::metrics::told;
use crate::harness::record::Record;
use crate::harness::{
    Client, Instant, NOISE, Node, Outcome, PATIENCE, Recorder, eventually, ms, say, secs,
};

/// What a node's memory may grow by, however many read nothing.
const GROWTH_MAX: u64 = 48 << 20;
/// `SPOOL_BYTES_MAX` of the node, as README tells it, and a turn more.
const KEPT_MAX: u64 = (32 << 20) + (1 << 20);

async fn node() -> anyhow::Result<Node> {
    let bounds = ["--retain-bytes", "1048576", "--rate-limit", "0"];
    Node::start([&["--registry", "none"][..], &bounds].concat()).await
}

/// A message of 4 KB.
fn body(room: &str, number: usize) -> serde_json::Value {
    json!({ "room": room, "mid": format!("{room}-{number}"), "text": "x".repeat(4000) })
}

/// Waits until somebody was shown so many messages of a room: all of them, in order, once.
async fn shows_all(reader: &Client, room: &str, count: usize) -> anyhow::Result<()> {
    let all = |record: &Record| {
        let mids = record
            .messages
            .iter()
            .map(|(_, message)| message.mid.clone());
        (record.messages.len() >= count).then(|| mids.collect::<Vec<_>>())
    };
    let mids = reader.until(PATIENCE, "is shown all", all).await?;
    let said: Vec<_> = (0..count)
        .map(|number| Some(format!("{room}-{number}")))
        .collect();
    ensure!(mids == said, "not all, or not in order");
    Ok(())
}

/// Goal: what two hundred clients do not read costs what one costs, all are closed with 4000, and
/// who reads beside them is shown all at once. Method: all are in one room with a heavy flow.
#[tokio::test]
async fn what_many_do_not_read_is_kept_once() -> Outcome {
    let node = node().await?;
    let recorder = Recorder::new();
    let reader = recorder.client(&node, "reader").await?;
    reader.join("tea").await?;
    let sender = recorder.client(&node, "ada").await?;
    let mut deaf = Vec::new();
    for count in 0..200 {
        deaf.push(Client::joined(&node, &format!("deaf{count}"), "tea").await?);
    }
    deaf.iter().for_each(Client::freeze);
    let before = node.process.usage()?.rss;
    let (mut most, mut kept) = (before, 0);
    let (begun, mut said) = (Instant::now(), 0);
    while node.metrics().await?.get("slow_total")? < 200 {
        assert!(begun.elapsed() < secs(60), "not all are closed as slow");
        for _ in 0..20 {
            sender.send_with(body("tea", said)).await?;
            said += 1;
        }
        most = most.max(node.process.usage()?.rss);
        kept = kept.max(node.metrics().await?.get("spool_bytes")?);
    }
    say!(
        "200 that read nothing: {} KiB were kept for them at most, memory grew by {} KiB",
        kept >> 10,
        (most - before) >> 10
    );
    assert!(kept > 0 && kept <= KEPT_MAX, "{kept} bytes were kept");
    assert!(most - before <= GROWTH_MAX, "{} bytes", most - before);
    assert_eq!(node.metrics().await?.get("spool_bytes")?, 0);
    shows_all(&reader, "tea", said).await?;
    let times = recorder.deliveries("reader", |_| true);
    let (median, p99, _) = told("deliveries", times);
    assert!(median <= ms(50) && p99 <= ms(50) + NOISE);
    deaf.iter().for_each(Client::thaw);
    for client in &deaf {
        assert_eq!(client.closed(PATIENCE).await?.code, 4000);
    }
    Ok(())
}

/// Goal: what waits for all clients together has a bound of its own. When it is reached those
/// furthest behind are closed, and nobody else notices. Method: sixty rooms, in each a client that
/// reads nothing and has less to read than makes it slow; somebody who reads is in one of them.
#[tokio::test]
async fn when_too_much_waits_for_all_those_furthest_behind_are_closed() -> Outcome {
    let node = node().await?;
    let reader = Client::joined(&node, "reader", "room0").await?;
    let sender = Client::hello(&node, "ada").await?;
    let mut deaf = Vec::new();
    for count in 0..60 {
        let room = format!("room{count}");
        deaf.push(Client::joined(&node, &format!("deaf{count}"), &room).await?);
    }
    deaf.iter().for_each(Client::freeze);
    let (mut kept, mut times) = (0, Vec::new());
    // A mebibyte to each at the most, beside what the kernel takes: none is slow for itself.
    for round in 0..13 {
        for count in 0..60 {
            let room = format!("room{count}");
            let bodies = (0..16).map(|number| body(&room, round * 16 + number));
            let begun = Instant::now();
            for reply in sender.start_all("send", bodies) {
                sender.reply("send", reply).await?;
            }
            times.push(begun.elapsed());
        }
        kept = kept.max(node.metrics().await?.get("spool_bytes")?);
    }
    let closed = node.metrics().await?.get("slow_total")?;
    let (median, _, worst) = told("16 sends", times);
    say!(
        "{} KiB were kept at most, {closed} of 60 were closed",
        kept >> 10
    );
    assert!(kept <= KEPT_MAX, "{kept} bytes were kept");
    assert!((1..60).contains(&closed), "{closed} of 60 were closed");
    assert!(median <= ms(100) && worst <= ms(500) + NOISE);
    shows_all(&reader, "room0", 13 * 16).await?;
    drop(deaf);
    eventually(PATIENCE, "nothing is kept", async || {
        let left = node.metrics().await?.get("spool_bytes")?;
        ensure!(left == 0, "{left} bytes");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}
