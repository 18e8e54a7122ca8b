//! Peers that have the mesh secret and do not keep to the protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use tokio::task::JoinHandle;

use crate::harness::false_peer::{Entry, log_frame};
use crate::harness::process::Launch;
use crate::harness::proxy::Proxy;
use crate::harness::sealed::Over;
use crate::harness::sealed_peer::{
    BEAT, Dialled, FalseLink, FalseNode, HELLO, LOG, beat, head, hello, record,
};
use crate::harness::tools::free_port;
use crate::harness::{
    Cluster, Duration, Load, NOISE, Node, Outcome, PATIENCE, Recorder, eventually, linked, ms, say,
    secs, spawn,
};
use crate::strangers::link_to;

/// The longest record that a node takes: a batch of a mebibyte, one more entry, and the kind.
const RECORD_LEN_MAX: usize = (1 << 20) + (128 << 10) + 1;
/// What each false peer that talks without end has to say.
const FLOOD: usize = 64 << 20;
/// What the node's memory may grow by meanwhile: the longest record for each of a dozen peers, and what
/// any load fills.
const GROWTH_MAX: u64 = 24 << 20;
/// How soon a link ends that a node has dialled, and a reason is told: why it ended tells a link on which
/// nonsense came from one that was waited for, and a busy machine may be late.
const FOUND_WITHIN: Duration = secs(60);
/// How soon one that has dialled a node is hung up on when it says what no node says.
const AT_ONCE: Duration = secs(2).saturating_add(NOISE);
/// A peer that has dialled says hello within this time.
const HELLO_WITHIN: Duration = secs(5).saturating_add(NOISE);

/// Who is who, when a false peer speaks.
struct Who {
    own: String,
    node: String,
    honest: String,
}

/// What a false peer does when it has said what it has to say.
#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    /// A byte now and then, for ever.
    Trickle,
    /// All that is taken.
    Flood,
}

/// A kind of false peer: what it says, what it does then, and the reason that the node gives.
type Kind = (&'static str, fn(&Who) -> Vec<u8>, Then, &'static str);

/// A false peer that nodes dial, again and again.
#[derive(Debug)]
struct Liar {
    kind: &'static str,
    reason: &'static str,
    publishes: String,
    /// Links that were ended,
    ended: Arc<AtomicUsize>,
    /// and those that stood for too long.
    stood: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Liar {
    fn start(place: usize, kind: Kind, node: FalseNode, honest: &str) -> Self {
        let (name, says, then, reason) = kind;
        let letter = char::from(b'a' + u8::try_from(place).expect("a few liars"));
        let (own, honest) = (format!("liar{letter}aaaaa"), honest.to_owned());
        let publishes = node.publishes.clone();
        let (ended, stood): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let counts = (Arc::clone(&ended), Arc::clone(&stood));
        let task = spawn(async move {
            loop {
                let Ok((link, dialled_by)) = node.link(secs(600)).await else {
                    return;
                };
                let (own, honest) = (own.clone(), honest.clone());
                let who = Who {
                    own,
                    node: dialled_by,
                    honest,
                };
                let count = match lie(link, &says(&who), then).await {
                    Ok(()) => &counts.0,
                    Err(_) => &counts.1,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            kind: name,
            reason,
            publishes,
            ended,
            stood,
            task,
        }
    }
}

/// Says it, and goes on until the node ends the link.
async fn lie(mut link: Dialled, says: &[u8], then: Then) -> anyhow::Result<()> {
    // What it says may be too much already.
    let _ended = link.say(says).await;
    match then {
        Then::Nothing => link.ended(FOUND_WITHIN).await.map(drop),
        Then::Trickle => {
            let trickling = async {
                while link.say(b"x").await.is_ok() {
                    tokio::time::sleep(ms(50)).await;
                }
            };
            Ok(tokio::time::timeout(FOUND_WITHIN, trickling).await?)
        }
        Then::Flood => {
            let piece = vec![b'x'; 64 << 10];
            let flooding = async {
                for _ in 0..FLOOD / piece.len() {
                    if link.say(&piece).await.is_err() {
                        return Ok(());
                    }
                }
                anyhow::bail!("all of it was taken")
            };
            tokio::time::timeout(FOUND_WITHIN, flooding).await?
        }
    }
}

/// Hello and a beat, so that the link is up, and then this.
fn linked_and(who: &Who, then: &[u8]) -> Vec<u8> {
    [&hello(&who.own)[..], &beat(&who.own, &[&who.node]), then].concat()
}

/// A frame of the log of this origin, as if it had just begun.
fn said_by(origin: &str) -> Vec<u8> {
    let json = format!(
        "{{\"room\":\"tea\",\"id\":\"{origin}.1\",\"from\":\"eve\",\"ts\":1,\"text\":\"forged\"}}"
    );
    let entry = Entry {
        seq: 1,
        ts: 1,
        room: "tea".to_owned(),
        mid: String::new(),
        json,
    };
    record(LOG, &log_frame(origin, &[entry]))
}

fn hello_of(protocol: u32, origin: &str, mesh: &str) -> Vec<u8> {
    let said = serde_json::json!({ "protocol": protocol, "origin": origin, "mesh": mesh });
    record(HELLO, said.to_string().as_bytes())
}

const DIALLED: [Kind; 14] = [
    (
        "a record that is too long",
        |who| linked_and(who, &head(LOG, RECORD_LEN_MAX)),
        Then::Nothing,
        "ended",
    ),
    (
        "a record of four gigabytes",
        |who| linked_and(who, &[0xff, 0xff, 0xff, 0xff, LOG]),
        Then::Flood,
        "ended",
    ),
    (
        "a hello of a megabyte",
        |_| head(HELLO, 1 << 20),
        Then::Flood,
        "ended",
    ),
    (
        "a record of nothing",
        |who| linked_and(who, &[0; 5]),
        Then::Nothing,
        "ended",
    ),
    (
        "a record of no known kind",
        |who| linked_and(who, &record(9, b"what is this")),
        Then::Nothing,
        "ended",
    ),
    (
        "a record that never ends",
        |who| linked_and(who, &head(LOG, 1 << 20)),
        Then::Trickle,
        "silent",
    ),
    (
        "a hello that never ends",
        |_| head(HELLO, 1000),
        Then::Trickle,
        "timed_out",
    ),
    (
        "frames and no hello",
        |who| beat(&who.own, &[]),
        Then::Nothing,
        "ended",
    ),
    (
        "hello twice",
        |who| linked_and(who, &hello(&who.own)),
        Then::Nothing,
        "ended",
    ),
    (
        "another version",
        |who| hello_of(2, &who.own, "main"),
        Then::Nothing,
        "ended",
    ),
    (
        "another mesh",
        |who| hello_of(1, &who.own, "blue"),
        Then::Nothing,
        "other_mesh",
    ),
    (
        "the node itself",
        |who| hello(&who.node),
        Then::Nothing,
        "other_node",
    ),
    (
        "beats of another than said hello",
        |who| [hello(&who.own), beat("elsewhereb", &[&who.node])].concat(),
        Then::Nothing,
        "other_node",
    ),
    (
        "entries of a third node",
        |who| linked_and(who, &said_by(&who.honest)),
        Then::Nothing,
        "other_node",
    ),
];

/// Goal: a peer that has the secret and does not keep to the protocol loses its link and nothing more:
/// the node says why, does not grow, believes nothing that was said for others, and goes on with honest
/// peers. Method: a false peer of each kind that is dialled by hand, and a way that leads the node to
/// itself, beside an honest peer under load; each links again as often as it is dialled.
#[tokio::test]
async fn false_peers_with_the_secret_lose_their_links_and_nothing_more() -> Outcome {
    let cluster = Cluster::over(Over::Tls, 1, &["--rate-limit", "0"]).await?;
    let honest = &cluster.nodes[0];
    let registry = &cluster.registry;
    let seal = registry.seal.as_ref().ok_or("a sealed registry")?;
    let port = free_port()?;
    let mirror = Proxy::to(([127, 0, 0, 1], port).into()).await?;
    let mirror_at = format!("tls://{}", mirror.address);
    let mut args = registry.flags();
    let http = format!("127.0.0.1:{port}");
    args.extend(["--rate-limit", "0", "--http", &http, "--peer", &mirror_at].map(str::to_owned));
    let mut liars = Vec::new();
    for (place, kind) in DIALLED.into_iter().enumerate() {
        let node = FalseNode::new(seal.keys_of_nodes()).await?;
        args.extend(["--peer".to_owned(), node.publishes.clone()]);
        liars.push(Liar::start(place, kind, node, &honest.origin));
    }
    let node = Node::launch(Launch::new("chatnode", args)).await?;
    linked(&[&node, honest], PATIENCE).await?;
    node.takes_clients(PATIENCE).await?;
    let recorder = Recorder::new();
    let _reader = recorder.reader(&node, "reader", "tea").await?;
    let _there = recorder.reader(honest, "there", "tea").await?;
    let before = node.process.usage()?.rss;
    let senders = recorder.clients([(&node, "ada"), (honest, "bob")]).await?;
    let load = Load::start(senders, "tea", 50);
    let mut most = before;
    let mut told = std::collections::HashSet::new();
    eventually(
        FOUND_WITHIN,
        "each lost its link for its reason",
        async || {
            most = most.max(node.process.usage()?.rss);
            for liar in &liars {
                let link = link_to(&node, &liar.publishes).await?;
                if link["reason"] == liar.reason {
                    told.insert(liar.kind);
                }
                let (ended, is_told) =
                    (liar.ended.load(Ordering::Relaxed), told.contains(liar.kind));
                ensure!(ended > 0 && is_told, "{}: {ended} times, {link}", liar.kind);
            }
            let mirrored = link_to(&node, &mirror_at).await?;
            ensure!(mirrored["reason"] == "other_node", "{mirrored}");
            Ok(())
        },
    )
    .await?;
    for liar in &liars {
        let stood = liar.stood.load(Ordering::Relaxed);
        assert_eq!(stood, 0, "{}: links that were not ended", liar.kind);
    }
    load.stop().await?;
    let checked = recorder.check(&[&node, honest], "tea").await?;
    assert_eq!(checked.verdict.shown, 2 * checked.history.len());
    let forged = checked.history.iter().find(|it| it.text == "forged");
    assert_eq!(forged, None);
    let growth = most - before;
    say!("memory grew by {} KiB; {checked}", growth >> 10);
    assert!(growth <= GROWTH_MAX, "memory grew by {growth} bytes");
    let link = link_to(&node, &honest.origin).await?;
    assert_eq!((&link["state"], &link["lost"]), (&"up".into(), &0.into()));
    Ok(())
}

/// What one says that has dialled a node, given the node's origin; whether the node says hello to it,
/// and how soon it ends the link.
type Opening = (&'static str, fn(&str) -> Vec<u8>, bool, Duration);

const DIALLING: [Opening; 11] = [
    (
        "a hello of four gigabytes",
        |_| vec![0xff, 0xff, 0xff, 0xff, HELLO],
        false,
        AT_ONCE,
    ),
    (
        "a hello that is too long",
        |_| record(HELLO, &[b' '; 1025]),
        false,
        AT_ONCE,
    ),
    (
        "a hello that is none",
        |_| record(HELLO, b"{}"),
        false,
        AT_ONCE,
    ),
    (
        "a frame and no hello",
        |_| beat("dialleraaa", &[]),
        false,
        AT_ONCE,
    ),
    (
        "HTTP",
        |_| b"GET /mesh/position HTTP/1.1\r\n\r\n".to_vec(),
        false,
        AT_ONCE,
    ),
    ("nothing", |_| Vec::new(), false, HELLO_WITHIN),
    (
        "half of a hello",
        |_| hello("dialleraaa")[..20].to_vec(),
        false,
        HELLO_WITHIN,
    ),
    ("the node's own hello", |node| hello(node), true, AT_ONCE),
    (
        "another version",
        |_| hello_of(2, "dialleraaa", "main"),
        true,
        AT_ONCE,
    ),
    (
        "another mesh",
        |_| hello_of(1, "dialleraaa", "blue"),
        true,
        AT_ONCE,
    ),
    (
        "hello twice",
        |_| [hello("dialleraaa"), hello("dialleraaa")].concat(),
        true,
        AT_ONCE,
    ),
];

/// Goal: who has the secret and dials, and does not keep to the protocol, is hung up on, is told no
/// more than the node's hello, and hears nothing; who does keep to it hears the node. Method: a line
/// for each kind, all at once, beside an honest peer; then one that is honest.
#[tokio::test]
async fn who_dials_with_the_secret_and_does_not_keep_to_the_protocol_is_hung_up_on() -> Outcome {
    let cluster = Cluster::over(Over::Tls, 2, &[]).await?;
    let [node, honest] = cluster.each();
    let seal = cluster.registry.seal.as_ref().ok_or("a sealed registry")?;
    // How often it dialled, but for links that a busy machine made silent.
    let dials = async || {
        let metrics = node.metrics().await?;
        let (dials, silent) = (
            metrics.get("dials_total")?,
            metrics.get("silent_links_total")?,
        );
        anyhow::Ok(dials.saturating_sub(silent))
    };
    let before = dials().await?;
    let dial = || FalseLink::dial(node.address(), seal.keys_of_nodes());
    let tried = DIALLING.map(async |(kind, says, is_answered, within)| {
        let mut link = dial().await?;
        link.say(&says(&node.origin)).await?;
        if is_answered {
            let hello = link.hello(within).await?;
            ensure!(hello["origin"] == node.origin.as_str(), "{kind}: {hello}");
        }
        // Behind its hello it may have said a beat before it knew; nothing before one.
        let more = link.ended(within).await;
        let more = more.map_err(|why| why.context(kind))?;
        ensure!(is_answered || more == 0, "{kind}: it was told {more} bytes");
        anyhow::Ok(())
    });
    futures::future::try_join_all(tried).await?;
    let mut link = dial().await?;
    link.say(&hello("dialleraaa")).await?;
    let said = link.hello(PATIENCE).await?;
    assert_eq!(said["origin"], node.origin.as_str());
    let (kind, _) = link.record(PATIENCE).await?;
    assert_eq!(kind, BEAT, "who keeps to it hears the node");
    linked(&[node, honest], PATIENCE).await?;
    for (one, other) in [(node, honest), (honest, node)] {
        let mesh = one.mesh().await?;
        assert!(
            mesh.hears(&other.origin) && mesh.links.len() == 1,
            "{mesh:?}"
        );
    }
    assert_eq!(dials().await?, before, "the honest link was made anew");
    Ok(())
}
