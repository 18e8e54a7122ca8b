//! Peers that claim to hold what they do not, and answer requests for repair with nonsense.

use tokio::net::TcpListener;

use crate::harness::check::history;
use crate::harness::false_peer::{Answer, Entry, FalsePeer, page};
use crate::harness::metrics::undelayed;
use crate::harness::reader::Reader;
use crate::harness::wire::{Msg, Position};
use crate::harness::{
    Attempt, Client, Cluster, Duration, Expect, Instant, Load, NOISE, Node, Outcome, PATIENCE,
    Recorder, eventually, say, secs,
};

/// What the dead node said,
const SAID: usize = 300;
/// and what it never said, though false peers claim to hold it.
const CLAIMED: u64 = 400;
/// The true entries are found among the false answers within this time: the slowest of those
/// takes 5 s, and each false peer rests after it has failed.
const FOUND_WITHIN: Duration = secs(60);
/// Each false peer that fails has been asked so often at the end; one that answers well and has not
/// what is wanted, once.
const ASKED_MIN: u64 = 3;
const WITH_HOLES: &str = "every other entry";
/// The node serves its clients among false peers for so long at least.
const LASTS_MIN: Duration = secs(4);
/// What the node's memory may grow by: a page from each of those that it asks at once, and what
/// any load fills. The answers without end are hundreds of megabytes.
const GROWTH_MAX: u64 = 24 << 20;

/// Goal: repair among peers that answer with errors, halves, other origins,
/// disorder, holes, redirects, or without end: the node goes on to one who answers well, stores
/// nothing foreign, follows no redirect, does not grow, serves its clients meanwhile; and what
/// nobody has is announced when those who claimed it are gone. Method: the log of a dead node is
/// held by one true node and claimed by eleven false ones; a node joins and must have it all.
#[tokio::test]
async fn false_answers_to_repair_are_refused_and_the_true_ones_found() -> Outcome {
    let mut cluster = Cluster::with(2, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let dead = die_speaking(&mut cluster, &recorder).await?;
    let trap = TcpListener::bind("127.0.0.1:0").await?;
    let mut liars = Vec::new();
    let texts = history(&cluster.nodes[0], "tea").await?;
    let answers = nonsense(&dead, &texts, &trap.local_addr()?.to_string())?;
    for (place, (kind, answer)) in answers.into_iter().enumerate() {
        let origin = format!("false{}aaaa", char::from(b'a' + u8::try_from(place)?));
        let claims = [(dead.clone(), CLAIMED)];
        let liar = FalsePeer::start(&cluster.registry, &origin, &claims, answer).await?;
        liars.push((kind, liar));
    }
    cluster.add().await?;
    let [holder, node] = cluster.each();
    node.takes_clients(secs(5) + NOISE).await?;
    let before = node.process.usage()?.rss;
    let started = Instant::now();
    let load = Load::start([recorder.client(node, "ada").await?], "tea", 50);
    let reader = recorder.reader(node, "reader", "tea").await?;
    found(node, &dead).await?;
    say!(
        "the true entries were there {:?} after the start",
        node.process.ready_at.elapsed()
    );
    eventually(FOUND_WITHIN, "each false peer was asked", async || {
        for (kind, liar) in &liars {
            let asked = liar.asked();
            let enough = if *kind == WITH_HOLES { 1 } else { ASKED_MIN };
            anyhow::ensure!(asked >= enough, "{kind}: {asked} times");
        }
        let lasted = started.elapsed();
        anyhow::ensure!(lasted >= LASTS_MIN, "only {lasted:?}");
        Ok(())
    })
    .await?;
    for (kind, liar) in &liars {
        say!("{kind}: asked {} times", liar.asked());
        assert!(
            node.mesh().await?.hears(&liar.origin),
            "{kind} is not heard"
        );
    }
    let growth = node.process.usage()?.rss.saturating_sub(before);
    let counts = node.metrics().await?;
    say!(
        "{} repair requests, {} failed; memory grew by {} KiB",
        counts.get("fetches_total")?,
        counts.get("fetches_failed_total")?,
        growth >> 10
    );
    assert!(growth <= GROWTH_MAX, "memory grew by {growth} bytes");
    assert!(
        tokio::time::timeout(Duration::ZERO, trap.accept())
            .await
            .is_err(),
        "a redirect was followed"
    );

    liars.clear();
    announced(&reader, &dead).await?;
    let attempts = load.stop().await?;
    undelayed(
        "replies beside false peers",
        attempts.iter().map(Attempt::delay).collect(),
    );
    let expect = Expect {
        holes: true,
        ..Expect::default()
    };
    let checked = recorder.check_with(&[holder, node], "tea", expect).await?;
    say!("{checked}");
    assert_eq!(checked.verdict.to_the_end, 1, "the reader reads to the end");
    assert_eq!(checked.verdict.excused, 0, "what the dead one said is held");
    for node in [holder, node] {
        let lost = node.metrics().await?.get("lost_total")?;
        assert_eq!(lost, CLAIMED - SAID as u64, "{}", node.origin);
    }
    Ok(())
}

/// The second node says what it has to say, the first holds it, and the second dies: its origin.
/// The record is not told of the kill: nothing of what was said may be lost.
async fn die_speaking(cluster: &mut Cluster, recorder: &Recorder) -> anyhow::Result<String> {
    let sender = recorder.client(&cluster.nodes[1], "bob").await?;
    let origin = cluster.nodes[1].origin.clone();
    for number in 0..SAID {
        sender.send("tea", &format!("text of {number}")).await?;
    }
    found(&cluster.nodes[0], &origin).await?;
    cluster.nodes.remove(1).process.kill().await?;
    Ok(origin)
}

/// Each kind of nonsense, as an answer to a request for a dead node's entries.
fn nonsense(
    dead: &str,
    texts: &[String],
    trap: &str,
) -> anyhow::Result<Vec<(&'static str, Answer)>> {
    let mut entries = Vec::new();
    for json in texts {
        let message: Msg = serde_json::from_str(json)?;
        entries.push(Entry {
            seq: message.seq(),
            ts: message.ts,
            room: message.room,
            mid: message.mid.unwrap_or_default(),
            json: json.clone(),
        });
    }
    let good = page(dead, &entries);
    let reversed: Vec<_> = entries.iter().rev().cloned().collect();
    let doubled: Vec<_> = entries
        .iter()
        .flat_map(|it| [it.clone(), it.clone()])
        .collect();
    let with_holes: Vec<_> = entries.iter().skip(1).step_by(2).cloned().collect();
    let foreign: Vec<_> = entries
        .iter()
        .map(|entry| Entry {
            json: entry.json.replace("text of", "foreign text of"),
            ..entry.clone()
        })
        .collect();
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let ok = |body: &[u8]| Answer::response("200 OK", body);
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://{trap}/mesh/log\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    Ok(vec![
        ("nothing after the head", Answer::Never),
        ("500", Answer::response("500 Internal Server Error", b"")),
        ("half a page", ok(&good[..good.len() / 2])),
        ("a damaged page", ok(&damaged)),
        (
            "a page of another origin",
            ok(&page("foreignaaa", &foreign)),
        ),
        ("a page in reverse", ok(&page(dead, &reversed))),
        ("each entry twice", ok(&page(dead, &doubled))),
        (WITH_HOLES, ok(&page(dead, &with_holes))),
        (
            "ten gigabytes",
            Answer::Endless("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n"),
        ),
        (
            "chunks without end",
            Answer::Endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        ("a redirect", Answer::Bytes(redirect.into_bytes())),
    ])
}

/// Waits until the node holds all that the dead one said.
async fn found(node: &Node, dead: &str) -> anyhow::Result<()> {
    eventually(FOUND_WITHIN, "the true entries are found", async || {
        let held = Position::parse(&node.mesh().await?.position)?.of(dead);
        anyhow::ensure!(held >= SAID as u64, "held through {held}");
        Ok(())
    })
    .await
}

/// The reader is told of what nobody has.
async fn announced(reader: &Reader, dead: &str) -> anyhow::Result<()> {
    let hole = |gap: &serde_json::Value| {
        gap["origin"] == dead && gap["after"] == SAID && gap["through"] == CLAIMED
    };
    let start = Instant::now();
    reader.client().push(FOUND_WITHIN, "gap", hole).await?;
    say!(
        "what nobody has was announced {:?} after those who claimed it were gone",
        start.elapsed()
    );
    Ok(())
}

/// Goal: a hole of a dead origin that nobody can fill is announced and passed, and what
/// is behind it is shown, though a peer that claims the missing numbers lives on and never answers
/// well. Method: two false peers beat on; one gives the dead origin's entries but for four, the
/// other claims all and answers 500.
#[tokio::test]
async fn a_hole_is_passed_though_a_peer_claims_to_hold_it() -> Outcome {
    const DEAD: &str = "deadaaaaaa";
    let cluster = Cluster::with(1, &["--rate-limit", "0"]).await?;
    let node = &cluster.nodes[0];
    let reader = Client::joined(node, "reader", "tea").await?;
    let entry = |seq: u64| Entry {
        seq,
        ts: 1_000_000 + seq,
        room: "tea".to_owned(),
        mid: String::new(),
        json: format!(
            "{{\"room\":\"tea\",\"id\":\"{DEAD}.{seq}\",\"from\":\"bob\",\"ts\":{},\"text\":\"{seq}\"}}",
            1_000_000 + seq
        ),
    };
    let held: Vec<_> = (1..=10).chain(15..=20).map(entry).collect();
    let claims = [(DEAD.to_owned(), 20)];
    let answers = [
        ("holesaaaaa", Answer::response("200 OK", &page(DEAD, &held))),
        (
            "failsaaaaa",
            Answer::response("500 Internal Server Error", b""),
        ),
    ];
    let mut peers = Vec::new();
    for (origin, answer) in answers {
        peers.push(FalsePeer::start(&cluster.registry, origin, &claims, answer).await?);
    }
    let start = Instant::now();
    reader.message(FOUND_WITHIN, "10").await?;
    let hole = |gap: &serde_json::Value| {
        gap["origin"] == DEAD && gap["after"] == 10 && gap["through"] == 14
    };
    reader.push(FOUND_WITHIN, "gap", hole).await?;
    reader.message(PATIENCE, "20").await?;
    say!(
        "the hole was passed {:?} after the start, the peer that claimed it was asked {} times",
        start.elapsed(),
        peers[1].asked()
    );
    assert!(node.mesh().await?.hears("failsaaaaa"), "it lives on");
    Ok(())
}
