//! The HTTP side of a node: health, metrics, rooms, messages, server-sent events.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::harness::tools::Events;
use crate::harness::{
    Client, Cluster, Node, Outcome, PATIENCE, Plain, check::history, eventually, secs,
};

/// Goal: every path of the node's HTTP answers in its form. Method: ask each, on a linked node.
#[tokio::test]
async fn every_path_answers_in_its_form() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let node = &cluster.nodes[0];
    let ada = Client::joined(node, "ada", "tea").await?;
    ada.send("tea", "one").await?;
    assert_eq!(node.get("/healthz").await?.status(), 200);
    assert_eq!(node.get("/readyz").await?.status(), 200);

    let metrics = node.get("/metrics").await?;
    assert!(
        metrics.headers()["content-type"]
            .to_str()?
            .starts_with("text/plain")
    );
    let metrics = metrics.text().await?;
    let samples: Vec<_> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert!(samples.len() > 5, "{metrics}");
    for sample in samples.iter().filter(|line| !line.is_empty()) {
        let value = sample.rsplit(' ').next().unwrap_or_default();
        assert!(
            value.parse::<f64>().is_ok(),
            "no Prometheus sample: {sample:?}"
        );
    }
    assert!(
        !metrics.contains("tea"),
        "room names must not become labels"
    );

    let rooms = node.get_json("/api/rooms").await?;
    assert!(rooms.to_string().contains("\"tea\""), "{rooms}");
    let mesh = node.get_json("/api/mesh").await?;
    for field in [
        "origin",
        "name",
        "ready",
        "registries",
        "links",
        "position",
        "clients",
        "rooms",
        "version",
        "uptime_ms",
        "counts",
    ] {
        assert!(!mesh[field].is_null(), "no {field} in {mesh}");
    }
    let link = &mesh["links"][0];
    for field in [
        "origin",
        "name",
        "pub",
        "http",
        "state",
        "beat_age_ms",
        "lag_ms",
        "received",
        "gaps",
        "repaired",
        "lost",
    ] {
        assert!(!link[field].is_null(), "no {field} in {link}");
    }
    assert_eq!(link["origin"], cluster.nodes[1].origin);
    assert_eq!(mesh["registries"][0]["url"], cluster.registry.url);
    assert_eq!(mesh["position"], json!([format!("{}.1", node.origin)]));
    assert_eq!(mesh["clients"], 1);
    Ok(())
}

/// Goal: a mid already seen makes no second message, whatever text comes with it, on any node, by
/// either door: the first reply comes again. Method: post it twice here and once at the other node,
/// say it at both; read the history of both and what clients are shown.
#[tokio::test]
async fn a_mid_seen_before_gives_the_first_reply_again() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let [here, there] = cluster.each();
    let ada = Client::joined(there, "ada", "tea").await?;
    let bob = Client::joined(here, "bob", "tea").await?;
    let body = json!({ "from": "bot", "text": "posted", "mid": "m-1" });
    let (status, first) = here.post("/api/rooms/tea/messages", &body).await?;
    assert_eq!(status, 201, "{first}");
    for field in ["id", "ts", "copies"] {
        assert!(!first[field].is_null(), "no {field} in {first}");
    }
    let (status, second) = here.post("/api/rooms/tea/messages", &body).await?;
    assert!([200, 201].contains(&status), "{status} {second}");
    assert_eq!((&first["id"], &first["ts"]), (&second["id"], &second["ts"]));
    ada.message(PATIENCE, "posted").await?;
    let body = json!({ "from": "bot", "text": "other text", "mid": "m-1" });
    let (status, third) = there.post("/api/rooms/tea/messages", &body).await?;
    assert!([200, 201].contains(&status), "{status} {third}");
    assert_eq!(first["id"], third["id"], "the mid is known mesh-wide");
    for client in [&ada, &bob] {
        let said = json!({ "room": "tea", "text": "third text", "mid": "m-1" });
        let again = client.ask("send", said).await?;
        assert_eq!((&again["id"], &again["ts"]), (&first["id"], &first["ts"]));
    }
    ada.send("tea", "after").await?;
    for client in [&ada, &bob] {
        client.message(PATIENCE, "after").await?;
        let shown = client.messages().into_iter().map(|(_, msg)| msg.text);
        assert_eq!(shown.collect::<Vec<_>>(), ["posted", "after"]);
    }
    for node in &cluster.nodes {
        eventually(PATIENCE, "both messages are there", async || {
            let texts = history(node, "tea").await?;
            anyhow::ensure!(texts.len() == 2, "{texts:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Goal: server-sent events bring each message once, and `Last-Event-ID` goes on from there, on
/// another node as well. Method: listen, post, break off, post more, listen again elsewhere.
#[tokio::test]
async fn events_go_on_from_the_last_id_on_any_node() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let [here, there] = cluster.each();
    let post = async |node: &Node, text: &str| {
        let body = json!({ "from": "bot", "text": text });
        let (status, answer) = node.post("/api/rooms/tea/messages", &body).await?;
        anyhow::ensure!(status == 201, "{status} {answer}");
        Ok(())
    };
    let mut events = Events::open(here, "/api/rooms/tea/events", None).await?;
    for (node, text) in [(here, "1"), (there, "2"), (here, "3")] {
        post(node, text).await?;
        let event = events.next(PATIENCE).await?;
        let message: Value = serde_json::from_str(&event.data)?;
        assert_eq!(
            (&message["text"], &message["room"]),
            (&text.into(), &"tea".into())
        );
        assert!(!event.id.is_empty(), "{event:?}");
    }
    post(there, "4").await?;
    let last = events.next(PATIENCE).await?;
    drop(events);
    for (node, text) in [(here, "5"), (there, "6"), (here, "7")] {
        post(node, text).await?;
    }
    for node in [here, there] {
        crate::harness::converged(&[here, there], PATIENCE).await?;
        let mut events = Events::open(node, "/api/rooms/tea/events", Some(&last.id)).await?;
        let mut texts = HashSet::new();
        for _ in 5..=7 {
            let message: Value = serde_json::from_str(&events.next(PATIENCE).await?.data)?;
            texts.insert(message["text"].as_str().unwrap().to_owned());
        }
        assert_eq!(texts, ["5", "6", "7"].map(str::to_owned).into());
        assert!(
            events.next(secs(1)).await.is_err(),
            "more than what was missed"
        );
    }
    Ok(())
}

/// Goal: two spellings of a room are one room at every door, and two of a name one member; a `mid` is
/// bytes. Rooms of any language are rooms. Method: `é` as one character at one node and as two at the
/// other, through each verb and path.
#[tokio::test]
async fn two_spellings_of_a_room_are_one_room_at_every_door() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let [here, there] = cluster.each();
    let (one, two) = ("caf\u{E9}", "cafe\u{301}");
    let path = |what: &str| format!("/api/rooms/cafe%CC%81/{what}");
    let ada = Client::joined(here, "Zo\u{EB}", one).await?;
    let plain = Plain::connect(there, "?room=cafe%CC%81").await?;
    let mut events = Events::open(there, &path("events"), None).await?;
    let eve = Client::hello(there, "eve").await?;
    let hello = eve.ask("hello", json!({ "name": "Zoe\u{308}" })).await?;
    assert_eq!(hello["name"], "Zo\u{EB}");
    for (verb, body) in [
        ("join", json!({ "room": two })),
        ("search", json!({ "room": two, "q": "x" })),
        ("typing", json!({ "room": two })),
    ] {
        assert_eq!(eve.ask(verb, body).await?["room"], one, "{verb}");
    }
    let body = json!({ "from": "bot", "text": "posted" });
    assert_eq!(there.post(&path("messages"), &body).await?.0, 201);
    let page = eve.ask("history", json!({ "room": two })).await?;
    assert_eq!(page["messages"][0]["text"], "posted");
    let mids = ["e\u{301}", "\u{E9}"];
    for mid in mids {
        let body = json!({ "room": two, "text": format!("sent as {mid}"), "mid": mid });
        eve.ask("send", body).await?;
    }
    plain.say("bare");
    for text in ["posted", "sent as e\u{301}", "sent as \u{E9}", "bare"] {
        assert_eq!(ada.message(PATIENCE, text).await?.room, one);
        plain.line(PATIENCE, text).await?;
        let event: Value = serde_json::from_str(&events.next(PATIENCE).await?.data)?;
        assert_eq!(event["room"], one);
    }
    for node in [here, there] {
        assert_eq!(history(node, one).await?.len(), 4);
        let found = node.get_json(&path("search?q=SENT")).await?;
        assert_eq!(found["messages"].as_array().map(Vec::len), Some(2));
        let rooms = node.get_json("/api/rooms").await?;
        let named = rooms["rooms"].as_array().map(|rooms| rooms.len());
        assert_eq!((named, &rooms["rooms"][0]["room"]), (Some(1), &one.into()));
    }
    let who = eve.ask("who", json!({ "room": two })).await?;
    let members = who["members"].as_array().cloned().unwrap_or_default();
    let same = members.iter().filter(|name| **name == "Zo\u{EB}").count();
    assert_eq!(same, 1, "{who}");
    eve.ask("leave", json!({ "room": two })).await?;
    let left = eve.refusal("typing", json!({ "room": one })).await?;
    assert_eq!(left.code, "not_joined");
    for room in ["हिन्दी", "می\u{200C}خواهم", "ห้องนั่งเล่น"]
    {
        assert_eq!(
            eve.ask("join", json!({ "room": room })).await?["room"],
            room
        );
    }
    Ok(())
}
