//! Clients that keep silent behind a load balancer.

use serde_json::json;

use crate::harness::balancer::{Balancer, Make, SILENCE};
use crate::harness::tools::{Events, free_port};
use crate::harness::{
    Client, Cluster, Duration, Instant, NOISE, Node, Outcome, PATIENCE, Plain, long, say, secs,
};

/// How soon an event is passed on: no buffer has to fill first.
const PROMPT: Duration = secs(1);
/// The node speaks to who is silent after this, and calls dead who is silent for longer.
const NODE_PINGS: Duration = secs(25);
const NODE_WAITS: Duration = secs(35);

/// Goal: silence of more than a minute ends nothing behind HAProxy. Method: `is_silent`.
#[tokio::test]
async fn silence_behind_haproxy_ends_no_connection() -> Outcome {
    is_silent(Make::HaProxy).await
}

/// Goal: silence of more than a minute ends nothing behind nginx. Method: `is_silent`.
#[tokio::test]
async fn silence_behind_nginx_ends_no_connection() -> Outcome {
    is_silent(Make::Nginx).await
}

/// A client that says nothing and hears nothing, one of bare text and one of events keep their
/// connections for longer than the balancer's time for silence, since the node breaks the silence
/// before. That time is shortened, to a little more than the node's; with `CHATMESH_LONG=1` it is
/// as in the file. The same three lose theirs where it is shorter than the node's: so it is this
/// time that counts. And events are passed on promptly.
async fn is_silent(make: Make) -> Outcome {
    let given: u64 = SILENCE.trim_end_matches('s').parse()?;
    assert!(NODE_PINGS < NODE_WAITS && NODE_WAITS < secs(given));
    let (silence, waits) = if long() {
        (SILENCE, secs(70))
    } else {
        ("27s", secs(31))
    };
    let cluster = Cluster::start(1).await?;
    let balancer = Balancer::with(make, &cluster.nodes, free_port()?, silence).await?;
    let hasty = Balancer::with(make, &cluster.nodes, free_port()?, "2s").await?;
    let mut kept = Quiet::start(&balancer.http).await?;
    let until = Instant::now() + waits;
    Quiet::start(&hasty.http).await?.ends_cut().await?;
    // Silence is what is tested.
    tokio::time::sleep_until(until).await;
    kept.hears(&cluster.nodes[0]).await
}

/// Three that keep silent in a room.
struct Quiet {
    chat: Client,
    plain: Plain,
    events: Events,
}

impl Quiet {
    async fn start(url: &str) -> anyhow::Result<Self> {
        let chat = Client::hello_at(url, "quiet").await?;
        chat.join("tea").await?;
        Ok(Self {
            chat,
            plain: Plain::connect_at(url, "?room=tea").await?,
            events: Events::open_at(url, "/api/rooms/tea/events", None).await?,
        })
    }

    async fn ends_cut(mut self) -> Outcome {
        self.chat.closed(PATIENCE).await?;
        self.plain.closed(PATIENCE).await?;
        let ended = self
            .events
            .next(PATIENCE)
            .await
            .map_err(|it| it.to_string());
        assert!(
            ended
                .as_ref()
                .is_err_and(|why| !why.starts_with("no event")),
            "{ended:?}"
        );
        Ok(())
    }

    async fn hears(&mut self, node: &Node) -> Outcome {
        assert_eq!(self.chat.is_closed(), None);
        let begun = Instant::now();
        let body = json!({ "from": "bot", "text": "at last" });
        let (status, answer) = node.post("/api/rooms/tea/messages", &body).await?;
        assert_eq!(status, 201, "{answer}");
        let event = self.events.next(PATIENCE).await?;
        let prompt = begun.elapsed();
        assert!(event.data.contains("at last"), "{event:?}");
        self.chat.message(PATIENCE, "at last").await?;
        self.plain.line(PATIENCE, "at last").await?;
        say!("an event was passed on after {prompt:?}");
        assert!(prompt <= PROMPT + NOISE);
        Ok(())
    }
}
