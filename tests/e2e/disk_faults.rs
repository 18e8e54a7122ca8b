//! Disks that are full, fail, or hang, under a node that serves.

use anyhow::ensure;
use serde_json::json;
use tempfile::tempdir;

use crate::harness::check::history;
use crate::harness::disks::{
    alone, flags, member, number, pour, reborn, storage, taken_again, written,
};
use crate::harness::inject::{Failing, that_fails_to_sync};
use crate::harness::load::spread;
use crate::harness::metrics::told;
use crate::harness::process::Launch;
use crate::harness::pump::{Pump, filled};
use crate::harness::rig::{Rig, Small};
use crate::harness::wire::Refused;
use crate::harness::{
    Client, Duration, Instant, NOISE, Node, Outcome, PATIENCE, Recorder, Registry, linked, ms,
    same, say, secs,
};

/// A full disk is tried again each second: when there is room, sends are taken so soon.
const TAKEN_AGAIN: Duration = secs(3);
/// After the oldest send has waited so long for the disk, new ones are refused.
const DISK_WAIT: Duration = secs(5);
/// Most that memory may grow by while the disk hangs and is sent to without pause.
const GROWTH_MAX: u64 = 150 << 20;

/// Sends texts of 4 KB until one is refused: how many were taken, and the code.
async fn until_refused(client: &Client) -> anyhow::Result<(usize, String)> {
    for nth in 0..8000 {
        if let Err(error) = client
            .send("tea", &filled(&format!("filling {nth}"), 4000))
            .await
        {
            return Ok((nth, error.downcast::<Refused>()?.code));
        }
    }
    anyhow::bail!("32 MB went onto a disk of 24 MB")
}

/// Goal: on a full disk sends are refused with `storage_full`, over WebSocket and HTTP, and
/// reading, search and what others say go on; when there is room, sends are taken again within
/// seconds. Nothing acknowledged is lost, nothing refused appears, and what others said meanwhile
/// gets onto the disk, and survives kill -9.
/// Method: a node on a disk of 24 MB that a ballast fills; a node in memory beside it.
#[tokio::test]
async fn a_full_disk_refuses_sends_and_nothing_else() -> Outcome {
    let Some(small) = Small::make("24m")? else {
        return Ok(());
    };
    let registry = Registry::start().await?;
    let mut node = member(&registry, Some(&small.data()), &[]).await?;
    let mut other = member(&registry, None, &[]).await?;
    linked(&[&node, &other], PATIENCE).await?;
    let recorder = Recorder::new();
    let ada = recorder.client(&node, "ada").await?;
    let bob = recorder.client(&other, "bob").await?;
    for client in [&ada, &bob] {
        client.join("tea").await?;
    }
    for nth in 0..100 {
        ada.send("tea", &format!("early {nth}")).await?;
    }
    written(&node).await?;
    let ballast = small.fill()?;
    let (taken, code) = until_refused(&ada).await?;
    assert_eq!(code, "storage_full");
    say!("ballast of {ballast} bytes; {taken} texts went before the disk was full");
    while_full(&node, &ada, &bob).await?;

    small.make_room()?;
    let took = taken_again(&ada).await?;
    say!("taken again {took:?} after there was room");
    assert!(took <= TAKEN_AGAIN + NOISE, "{took:?}");
    written(&node).await?;
    recorder.check(&[&node, &other], "tea").await?;
    let tea = history(&other, "tea").await?;

    node.process.kill().await?;
    reborn(&mut node).await?;
    assert_eq!(same(&[&node, &other], "tea", PATIENCE).await?, tea);
    // Alone: so much was on its disk, and not only with the other.
    other.process.kill().await?;
    node.process.kill().await?;
    reborn(&mut node).await?;
    assert_eq!(history(&node, "tea").await?, tea);
    Ok(())
}

/// What goes on while the disk of `node` is full.
async fn while_full(node: &Node, ada: &Client, bob: &Client) -> anyhow::Result<()> {
    let body = json!({ "from": "ada", "text": filled("by HTTP", 4000) });
    let (status, answer) = node.post("/api/rooms/tea/messages", &body).await?;
    ensure!(
        status == 507 && answer["code"] == "storage_full",
        "{status} {answer}"
    );
    let body = json!({ "room": "tea", "text": filled("by ws", 4000) });
    let refused = ada.refusal("send", body).await?;
    ensure!(
        refused.code == "storage_full" && refused.retry_ms.is_some(),
        "{refused:?}"
    );
    let state = storage(node).await?;
    ensure!(state["state"] == "full", "{state}");
    ensure!(number(node, "storage_ok").await? == 0, "/metrics");
    let mut delays = Vec::new();
    for nth in 0..300 {
        let text = filled(&format!("meanwhile {nth}"), 1000);
        let begun = Instant::now();
        bob.send("tea", &text).await?;
        if nth % 10 == 9 {
            ada.message(PATIENCE, &text).await?;
            delays.push(begun.elapsed());
        }
    }
    let (median, ..) = told("shown on the node with the full disk", delays);
    ensure!(median < ms(250), "live traffic is held up: {median:?}");
    let page = node.get_json("/api/rooms/tea/messages?limit=200").await?;
    let newest = page["messages"][199]["text"].as_str().unwrap_or_default();
    ensure!(newest.starts_with("meanwhile 299"), "{newest:?}");
    let found = node.get_json("/api/rooms/tea/search?q=early+7").await?;
    ensure!(found["messages"][0]["text"] == "early 7", "{found}");
    let ready = node.get("/readyz").await?.status();
    ensure!(ready == 200, "it takes clients still: {ready}");
    Ok(())
}

/// Goal: after the disk has failed to sync nothing is acknowledged, clients are sent elsewhere,
/// the process ends with 1 and says why in one line, and the next start has all that was
/// acknowledged before. Method: three times, under load up to the moment: hold the load, let each
/// sync of the running node fail with EIO, and send over WebSocket and HTTP.
#[tokio::test]
async fn a_node_whose_disk_fails_stops_and_its_next_start_has_all() -> Outcome {
    let folder = tempdir()?;
    let mut node = alone(&folder.path().join("data"), &[]).await?;
    let pump = Pump::start(4, &node, "tea", 300);
    for round in 0..3 {
        pump.accepts(100).await?;
        pump.hold(true);
        pump.is_idle().await?;
        let mut clients = Vec::new();
        for name in ["ada", "bob", "eve"] {
            clients.push(Client::hello(&node, name).await?);
        }
        let Some(failing) = Failing::syncs_of(&node.process).await? else {
            return Ok(());
        };
        nothing_is_acknowledged(&node, &clients).await?;
        let (code, lines) = node.process.wait(PATIENCE).await?;
        assert_eq!((code, lines), (1, 0), "exit code, and lines on stdout");
        drop(failing);
        let log = node.process.log_text();
        let said: Vec<_> = log
            .lines()
            .filter(|line| line.contains(" ERROR ") && line.contains("the disk failed"))
            .collect();
        assert_eq!(said.len(), 1, "{log}");
        assert!(!log.contains("panicked"), "{log}");
        if round == 0 {
            say!("{}", said[0]);
        }
        pump.has_no_node();
        reborn(&mut node).await?;
        pump.go_on_at(&node);
        pump.hold(false);
    }
    pump.accepts(20).await?;
    let ledger = pump.stop().await?;
    ledger.check(&history(&node, "tea").await?)?;
    assert_eq!(ledger.refused(), 0);
    say!("{} accepted, none lost", ledger.accepted());
    Ok(())
}

/// Each of these is refused, or the node goes without a reply.
async fn nothing_is_acknowledged(node: &Node, clients: &[Client]) -> anyhow::Result<()> {
    let say_it = |client: &Client| {
        let body = json!({ "room": "never", "mid": client.new_mid(), "text": "never said" });
        client.start("send", body)
    };
    let replies: Vec<_> = clients.iter().map(say_it).collect();
    let body = json!({ "from": "kim", "text": "never said" });
    if let Ok((status, answer)) = node.post("/api/rooms/never/messages", &body).await {
        ensure!(status == 503, "{status} {answer}");
    }
    for (client, reply) in clients.iter().zip(replies) {
        match client.reply("send", reply).await {
            Ok(reply) => anyhow::bail!("acknowledged without a sync: {reply}"),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(refused) => ensure!(refused.code == "storage_broken", "{refused:?}"),
                None => ensure!(client.is_closed().is_some(), "{error:#}"),
            },
        }
    }
    if let Ok(answer) = node.get("/readyz").await {
        ensure!(answer.status() == 503, "/readyz is {}", answer.status());
    }
    Ok(())
}

/// Goal: a disk that fails at the start is no surprise either: one line, exit code 2, and the
/// folder is as good as before. Method: a node each of whose syncs fails from the first on.
#[tokio::test]
async fn a_disk_that_fails_at_the_start_is_a_line_and_an_exit_code() -> Outcome {
    let Some(prefix) = that_fails_to_sync(1)? else {
        return Ok(());
    };
    let folder = tempdir()?;
    let data = folder.path().join("data");
    let launch = Launch::new("chatnode", flags(&data, &[])).by(prefix);
    let ended = launch.to_end(PATIENCE).await?;
    say!("{}", ended.stderr.trim());
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&data.display().to_string()));
    let node = alone(&data, &[]).await?;
    let ada = Client::hello(&node, "ada").await?;
    ada.send("tea", "now it works").await?;
    Ok(())
}

/// Goal: a disk that hangs holds up nobody but those who wait for it: what others say is shown,
/// memory is read, sends get `overloaded` after 5 s at the latest, and those that waited are neither
/// lost nor doubled when it goes on. Memory stays bounded.
/// Method: the file system under the node is frozen for 8 s while it is sent to without pause.
#[tokio::test]
async fn a_disk_that_hangs_holds_up_nobody_else() -> Outcome {
    let Some(mut rig) = Rig::make()? else {
        return Ok(());
    };
    let registry = Registry::start().await?;
    let node = member(&registry, Some(&rig.data()), &[]).await?;
    let other = member(&registry, None, &[]).await?;
    linked(&[&node, &other], PATIENCE).await?;
    let recorder = Recorder::new();
    let ada = recorder.client(&node, "ada").await?;
    let bob = recorder.client(&other, "bob").await?;
    for client in [&ada, &bob] {
        client.join("tea").await?;
    }
    pour(&ada, "tea", (0..200).map(|nth| format!("before {nth}"))).await?;
    written(&node).await?;
    let rss = node.process.usage()?.rss;
    rig.freeze()?;
    let frozen = Instant::now();
    let mut waiting = Vec::new();
    let (mut first_refusal, mut delays) = (None, Vec::new());
    while frozen.elapsed() < DISK_WAIT + secs(3) {
        for _ in 0..20 {
            let (mid, text) = (ada.new_mid(), filled("during", 2000));
            let body = json!({ "room": "tea", "mid": mid, "text": text });
            waiting.push(ada.start("send", body));
        }
        let text = format!("from elsewhere {:?}", frozen.elapsed());
        let begun = Instant::now();
        bob.send("tea", &text).await?;
        ada.message(PATIENCE, &text).await?;
        delays.push(begun.elapsed());
        let page = node.get_json("/api/rooms/tea/messages?limit=1").await?;
        assert_eq!(page["messages"][0]["text"], text);
        if frozen.elapsed() > DISK_WAIT + secs(1) && first_refusal.is_none() {
            let body = json!({ "room": "tea", "text": "refused" });
            let why = ada.refusal("send", body).await?;
            assert_eq!(why.code, "overloaded");
            first_refusal = Some(frozen.elapsed());
        }
        tokio::time::sleep(ms(20)).await;
    }
    let grown = node.process.usage()?.rss.saturating_sub(rss);
    rig.thaw()?;
    let (mut taken, mut refused) = (0, 0);
    for reply in waiting {
        match ada.reply("send", reply).await {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(error.downcast::<Refused>()?.code, "overloaded");
                refused += 1;
            }
        }
    }
    written(&node).await?;
    let checked = recorder.check(&[&node, &other], "tea").await?;
    assert!(
        checked
            .history
            .iter()
            .all(|message| message.text != "refused")
    );
    let (median, _, worst) = spread(delays);
    say!(
        "hung for {:?}: live traffic median {median:?}, worst {worst:?}; {taken} taken, {refused} \
         refused, the first {first_refusal:?}; memory grew by {} KiB",
        DISK_WAIT + secs(3),
        grown / 1024
    );
    assert!(median < ms(250), "live traffic was held up: {median:?}");
    assert!(taken > 0 && refused > 0);
    assert!(grown <= GROWTH_MAX, "memory grew by {grown}");
    Ok(())
}
