//! SIGTERM under load: clients are told, nothing acknowledged is lost, exit 0.

use serde_json::Value;

use crate::harness::{
    Client, Cluster, Instant, Load, NOISE, Outcome, PATIENCE, Plain, Reader, check_chain,
    check_histories, histories, say, secs,
};

/// Goal: SIGTERM drains: clients get `goaway` with the other nodes, then close 1001 or 1012; the
/// node ends with 0 within 5 s; all that it acknowledged is in the history of the others; a
/// client goes on at a node that was named, recovered.
/// Method: senders and readers on the node that is stopped; it is the only one with senders.
#[tokio::test]
async fn sigterm_under_load_loses_nothing_and_tells_the_clients_where_to_go() -> Outcome {
    let mut cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let mut going = cluster.nodes.remove(1);
    let mut moved = Reader::start(&going, "moved", "tea").await?;
    let mut stayed = Reader::start(&cluster.nodes[0], "stayed", "tea").await?;
    let plain = Plain::connect(&going, "?room=tea").await?;
    let senders = [
        Client::hello(&going, "ada").await?,
        Client::hello(&going, "bob").await?,
    ];
    let load = Load::start(senders, "tea", 200);
    crate::harness::eventually(PATIENCE, "the load flows", async || {
        let count = stayed.stream().len();
        anyhow::ensure!(count >= 200, "shown {count}");
        Ok(())
    })
    .await?;
    going.process.signal(rustix::process::Signal::TERM)?;
    let start = Instant::now();
    let goaway = moved.client().push(PATIENCE, "goaway", |_| true).await?;
    let named: Vec<String> = serde_json::from_value(goaway["nodes"].clone())?;
    assert!(
        !named.is_empty() && !named.contains(&going.http),
        "{goaway}"
    );
    assert!(goaway["after_ms"].is_u64(), "{goaway}");
    let closed = moved.client().closed(PATIENCE).await?;
    assert!([1001, 1012].contains(&closed.code), "{closed:?}");
    let closed = plain.closed(PATIENCE).await?;
    assert!([1001, 1012].contains(&closed.code), "{closed:?}");
    let (code, lines) = going.process.wait(secs(5) + NOISE).await?;
    let took = start.elapsed();
    assert_eq!(
        (code, lines),
        (0, 0),
        "exit code, lines on stdout after the ready line"
    );

    let target = cluster.nodes.iter().find(|node| node.http == named[0]);
    moved
        .resume(target.expect("goaway names a live node"))
        .await?;
    let attempts = load.stop().await?;
    let history = histories(&cluster.nodes.iter().collect::<Vec<_>>(), "tea", PATIENCE).await?;
    check_histories(&history, &attempts, |_| true)?;
    check_chain(&mut moved, &history, PATIENCE).await?;
    check_chain(&mut stayed, &history, PATIENCE).await?;
    let acknowledged = attempts
        .iter()
        .filter(|attempt| attempt.id().is_some())
        .count();
    say(format_args!(
        "drained in {took:?}; {acknowledged} acknowledged messages, all kept"
    ));
    Ok(())
}

/// Goal: a rolling restart loses nothing for a client that follows. Method: SIGTERM each of three
/// nodes in turn under load from the next; the reader goes where it is sent.
#[tokio::test]
async fn a_rolling_restart_loses_nothing_for_one_who_follows() -> Outcome {
    let mut cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let mut reader = Reader::start(&cluster.nodes[0], "reader", "tea").await?;
    let mut all = Vec::new();
    for place in 0..3 {
        let sender = Client::hello(&cluster.nodes[(place + 1) % 3], "ada").await?;
        let load = Load::start([sender], "tea", 100);
        cluster.nodes[place].process.stop(secs(5) + NOISE).await?;
        if let Some(goaway) = reader.client().pushed("goaway").first() {
            let named = |url: &Value| cluster.nodes.iter().find(|node| *url == node.http);
            let target = goaway["nodes"]
                .as_array()
                .and_then(|urls| urls.iter().find_map(named));
            reader
                .resume(target.expect("goaway names a live node"))
                .await?;
        }
        cluster.nodes[place].again().await?;
        cluster.linked(PATIENCE).await?;
        cluster.nodes[place].takes_clients(PATIENCE).await?;
        all.extend(load.stop().await?);
    }
    let history = histories(&cluster.nodes.iter().collect::<Vec<_>>(), "tea", PATIENCE).await?;
    check_histories(&history, &all, |_| true)?;
    check_chain(&mut reader, &history, PATIENCE).await?;
    assert!(
        !reader.recoveries.is_empty(),
        "the reader was never sent away"
    );
    Ok(())
}
