//! The door, over real HTTP on a free port: what is promised, and in `hostile` what strangers try.

mod hostile;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::{Listing, NODES_MAX, WATCHERS_MAX};
use crate::state::Registry;
use base::process::Tasks;
use base::serve::{Limits, listen, serve};

const PATIENCE: Duration = Duration::from_secs(10);

struct Fixture {
    registry: Registry,
    tasks: Tasks,
    addr: SocketAddr,
    http: reqwest::Client,
}

impl Fixture {
    fn new() -> Self {
        let tasks = Tasks::new();
        let registry = Registry::start(Duration::from_secs(6), &tasks);
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = serve(
            listener,
            super::router(registry.clone(), false),
            tasks.clone(),
            Limits::default(),
            None,
        );
        tasks.spawn_critical("http", serving);
        let http = base::tls::http_client(None)
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self {
            registry,
            tasks,
            addr,
            http,
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.addr))
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn put(&self, id: &str, body: &Value) -> reqwest::Response {
        self.request(Method::PUT, &format!("/v1/nodes/{id}"))
            .json(body)
            .send()
            .await
            .unwrap()
    }

    async fn listing(&self) -> Listing {
        self.get("/v1/nodes").await.json().await.unwrap()
    }

    async fn refused(&self, response: reqwest::Response, status: u16, code: &str) {
        let got = response.status().as_u16();
        let kind = response.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (got, kind.as_str()),
            (status, "application/problem+json"),
            "{body}"
        );
        assert_eq!(
            (&body["code"], &body["status"]),
            (&json!(code), &json!(status)),
            "{body}"
        );
        assert!(
            body["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
        let healthy = self.get("/healthz").await;
        assert_eq!(healthy.status(), StatusCode::OK);
    }
}

fn node(port: u16) -> Value {
    json!({"name": "ada", "endpoints": {"pub": format!("tcp://127.0.0.1:{port}"),
           "http": format!("http://127.0.0.1:{}", port + 1)}, "meta": {"zone.1": "a"}})
}

#[tokio::test]
async fn put_registers_then_renews_and_delete_is_always_204() {
    let f = Fixture::new();
    let created = f.put("a", &node(1000)).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    let created: Value = created.json().await.unwrap();
    let epoch = f.registry.epoch();
    assert_eq!(
        created,
        json!({"epoch": epoch, "version": 2, "lease_ms": 6000, "renew_ms": 2000, "observed": "127.0.0.1"})
    );
    assert_eq!(f.put("a", &node(1000)).await.status(), StatusCode::OK);
    let listing = f.get("/v1/nodes").await;
    assert_eq!(listing.headers()["etag"], format!("\"{epoch}.2\""));
    assert_eq!(listing.headers()["cache-control"], "no-store");
    assert_eq!(
        listing.headers()["age"],
        "0",
        "age_ms is of this many seconds ago"
    );
    let mut listing: Value = listing.json().await.unwrap();
    let age = listing["nodes"][0]["age_ms"].take();
    assert!(age.as_u64().is_some(), "{age}");
    let mut listed = node(1000);
    listed["id"] = json!("a");
    listed["age_ms"] = Value::Null;
    assert_eq!(
        listing,
        json!({"epoch": epoch, "version": 2, "token": format!("{epoch}.2"), "nodes": [listed]})
    );
    for _ in 0..2 {
        let left = f
            .request(Method::DELETE, "/v1/nodes/a")
            .send()
            .await
            .unwrap();
        assert_eq!(left.status(), StatusCode::NO_CONTENT);
    }
    assert!(f.listing().await.nodes.is_empty());
}

#[tokio::test]
async fn every_token_but_the_present_one_is_answered_at_once() {
    let f = Fixture::new();
    f.put("a", &node(1000)).await;
    let epoch = f.registry.epoch();
    let tokens = [
        "",
        "1",
        "garbled",
        "%00",
        "%F0%9F%A6%80",
        ".",
        "0.0",
        "0000000000000000.2",
        &format!("{epoch}.1"),
        &format!("{epoch}.3"),
        &format!("{epoch}.02"),
        &format!("{epoch}.18446744073709551616"),
        &"x".repeat(2000),
    ]
    .map(str::to_owned);
    for token in tokens {
        let answer = f.get(&format!("/v1/nodes?since={token}&wait=55")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{token}");
        let answer: Listing = answer.json().await.unwrap();
        assert_eq!(answer.nodes.len(), 1);
    }
    let plain = f.get("/v1/nodes?wait=55").await;
    assert_eq!(
        plain.status(),
        StatusCode::OK,
        "without since there is nothing to wait for"
    );
}

#[tokio::test]
async fn the_present_token_is_304_at_once_or_after_the_wait() {
    let f = Fixture::new();
    let token = f.listing().await.token;
    let begun = tokio::time::Instant::now();
    for wait in ["", "&wait=0", "&wait=0.3"] {
        let answer = f.get(&format!("/v1/nodes?since={token}{wait}")).await;
        assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(answer.headers()["etag"], format!("\"{token}\""));
        assert!(answer.bytes().await.unwrap().is_empty());
    }
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_millis(270) && waited < PATIENCE,
        "{waited:?}"
    );
    assert_eq!(f.registry.watchers(), 0);
}

#[tokio::test]
async fn etags_and_prefer_work_as_since_and_wait() {
    let f = Fixture::new();
    let token = f.listing().await.token;
    for tag in [
        format!("\"{token}\""),
        format!("W/\"{token}\""),
        format!("\"x\", \"{token}\""),
    ] {
        let request = f
            .request(Method::GET, "/v1/nodes")
            .header("if-none-match", &tag);
        assert_eq!(
            request.send().await.unwrap().status(),
            StatusCode::NOT_MODIFIED,
            "{tag}"
        );
    }
    let other = f
        .request(Method::GET, "/v1/nodes")
        .header("if-none-match", "\"x\"");
    assert_eq!(
        other
            .header("prefer", "wait=50")
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
    let waiting = f
        .request(Method::GET, "/v1/nodes")
        .header("if-none-match", format!("\"{token}\""))
        .header("prefer", "respond-async, wait=50");
    let said = node(1000);
    let (answer, _) = tokio::join!(waiting.send(), f.put("a", &said));
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let since_wins = f.request(Method::GET, &format!("/v1/nodes?since={token}"));
    let answer = since_wins
        .header("if-none-match", answer.headers()["etag"].clone())
        .send()
        .await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn one_body_is_serialised_once_for_all_watchers() {
    let f = Fixture::new();
    let token = f.listing().await.token;
    let path = format!("/v1/nodes?since={token}&wait=50");
    let watchers: Vec<_> = (0..20).map(|_| f.get(&path)).collect();
    let answers = async {
        let mut bodies = Vec::new();
        for answer in futures::future::join_all(watchers).await {
            bodies.push(answer.bytes().await.unwrap());
        }
        bodies
    };
    let change = async {
        while f.registry.watchers() < 20 {
            tokio::task::yield_now().await;
        }
        f.put("a", &node(1000)).await
    };
    let (bodies, _) = tokio::join!(answers, change);
    let snapshot = Arc::clone(&f.registry.watch().borrow());
    assert_eq!(bodies, vec![snapshot.body.clone(); 20]);
}

#[tokio::test]
async fn many_changes_at_once_are_few_versions() {
    let f = Fixture::new();
    let ids: Vec<String> = (0..30).map(|i| format!("n{i}")).collect();
    let bodies: Vec<Value> = (0..30).map(|i| node(1000 + i * 2)).collect();
    let begun = tokio::time::Instant::now();
    let puts = ids.iter().zip(&bodies).map(|(id, body)| f.put(id, body));
    futures::future::join_all(puts).await;
    let most = 2 + begun.elapsed().as_millis() / 10;
    let listing = f.listing().await;
    assert_eq!(listing.nodes.len(), 30);
    assert!(
        u128::from(listing.version - 1) <= most,
        "{} versions, at most {most}",
        listing.version - 1
    );
}

/// Reads an event stream until it has said this.
async fn read_until(events: &mut reqwest::Response, text: &mut String, wanted: &str) {
    while !text.contains(wanted) {
        let chunk = events.chunk().await.unwrap().expect("the stream ended");
        text.push_str(str::from_utf8(&chunk).unwrap());
    }
}

#[tokio::test]
async fn events_are_the_same_list_with_its_token_as_id() {
    let f = Fixture::new();
    let mut events = f.get("/v1/events").await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let (mut text, epoch) = (String::new(), f.registry.epoch());
    read_until(&mut events, &mut text, "}\n\n").await;
    assert!(
        text.contains(&format!("id: {epoch}.1\nevent: nodes\ndata: {{")),
        "{text}"
    );
    f.put("a", &node(1000)).await;
    let body = f.get("/v1/nodes").await.text().await.unwrap();
    read_until(
        &mut events,
        &mut text,
        &format!("id: {epoch}.2\nevent: nodes\ndata: {body}\n\n"),
    )
    .await;
    // Whoever is up to date gets nothing until there is news.
    let resumed = f
        .request(Method::GET, "/v1/events")
        .header("last-event-id", format!("{epoch}.2"));
    let mut resumed = resumed.send().await.unwrap();
    let mut text = String::new();
    f.put("b", &node(2000)).await;
    read_until(&mut resumed, &mut text, "}\n\n").await;
    assert!(
        text.contains(&format!("id: {epoch}.3")) && !text.contains(&format!("id: {epoch}.2")),
        "{text}"
    );
}

#[tokio::test]
async fn a_stop_wakes_all_who_wait() {
    let f = Fixture::new();
    let token = f.listing().await.token;
    let path = format!("/v1/nodes?since={token}&wait=55");
    let mut events = f.get("/v1/events").await;
    let polls = futures::future::join_all((0..10).map(|_| f.get(&path)));
    let stop = async {
        while f.registry.watchers() < 11 {
            tokio::task::yield_now().await;
        }
        f.tasks.drain(Duration::from_secs(2)).await
    };
    let (polls, left) = tokio::join!(polls, stop);
    assert_eq!(left, 0);
    assert!(
        polls
            .iter()
            .all(|poll| poll.status() == StatusCode::NOT_MODIFIED)
    );
    while events.chunk().await.unwrap().is_some() {}
}

#[tokio::test]
async fn metrics_and_targets_are_for_prometheus() {
    let f = Fixture::new();
    f.put("a", &node(1000)).await;
    f.put("a", &node(1000)).await;
    f.put("b", &node(1000)).await;
    f.put(
        "c",
        &json!({"name": "no http", "endpoints": {"pub": "tcp://10.0.0.1:1"}}),
    )
    .await;
    let metrics = f.get("/metrics").await.text().await.unwrap();
    for line in [
        "registry_nodes 2",
        "registry_watchers 0",
        "registry_version 4",
        "registry_puts_total{result=\"created\"} 3",
        "registry_puts_total{result=\"renewed\"} 1",
        "registry_expirations_total 0",
        "registry_replacements_total 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in\n{metrics}");
    }
    let targets: Value = f.get("/v1/sd/prometheus").await.json().await.unwrap();
    assert_eq!(
        targets,
        json!([{"targets": ["127.0.0.1:1001"], "labels": {
        "__meta_registry_id": "b", "__meta_registry_name": "ada", "__meta_registry_meta_zone_1": "a"}}])
    );
}

#[tokio::test]
async fn the_page_loads_only_itself() {
    let f = Fixture::new();
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
    ] {
        let response = f.get(path).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(
            response.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with(kind)
        );
        assert!(
            response.headers()["content-security-policy"]
                .to_str()
                .unwrap()
                .contains("default-src 'none'")
        );
        assert!(!response.text().await.unwrap().contains("innerHTML"));
    }
}
