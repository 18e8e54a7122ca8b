//! Hostile input at the registry, and what a lying registry does to nodes.

use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use crate::harness::cluster::http;
use crate::harness::process::{Launch, Process};
use crate::harness::{Client, Cluster, NOISE, Outcome, PATIENCE, Registry, secs, spawn};
use crate::hostile::still_chats;

async fn put(registry: &Registry, id: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let url = format!("{}/v1/nodes/{id}", registry.url);
    let response = http()?.put(url).json(body).send().await?;
    Ok((
        response.status().as_u16(),
        response.json().await.unwrap_or_default(),
    ))
}

fn record(publishes: &str) -> Value {
    let endpoints = json!({ "pub": publishes, "http": "http://127.0.0.1:9" });
    json!({ "name": "x", "endpoints": endpoints, "meta": {} })
}

/// Goal: endpoints that nobody may be sent to are refused with 422 and the rule. Method: a table;
/// nothing of it is listed, and live nodes stay.
#[tokio::test]
async fn the_registry_refuses_endpoints_that_nobody_may_dial() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let registry = &cluster.registry;
    let long = format!("tcp://{}:1", "a".repeat(255));
    let huge = format!("tcp://{}:1", "a".repeat(1_000_000));
    let bad = [
        "ipc:///etc/x",
        "tcp://0.0.0.0:1",
        "tcp://[::]:1",
        "tcp://224.0.0.1:1",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1",
        "http://127.0.0.1:1",
        "tcp://",
        "",
        "x",
        "tcp://[ff02::1]:1",
        "tcp://user@127.0.0.1:1",
        "tcp://127.0.0.1:1/path",
        &long,
    ];
    for endpoint in bad {
        let (status, problem) = put(registry, "aaaaaaaaaa", &record(endpoint)).await?;
        assert_eq!(
            (status, &problem["code"]),
            (422, &"invalid_endpoint".into()),
            "{endpoint}"
        );
    }
    assert_eq!(put(registry, "aaaaaaaaaa", &record(&huge)).await?.0, 413);
    let mut no_http = record("tcp://127.0.0.1:1");
    no_http["endpoints"]["http"] = json!("ftp://127.0.0.1:1");
    assert_eq!(put(registry, "aaaaaaaaaa", &no_http).await?.0, 422);
    assert_eq!(registry.listed().await?.len(), 2);
    cluster.linked(PATIENCE).await?;
    Ok(())
}

/// Goal: malformed requests to the registry get a problem with a stable code, and it lives. Method:
/// a table of requests.
#[tokio::test]
async fn malformed_requests_to_the_registry_are_problems_with_a_code() -> Outcome {
    let cluster = Cluster::start(1).await?;
    let registry = &cluster.registry;
    let http = http()?;
    let url = |path: &str| format!("{}{path}", registry.url);
    let node = url("/v1/nodes/aaaaaaaaaa");
    let json = |body: Vec<u8>| {
        http.put(&node)
            .header("content-type", "application/json")
            .body(body)
    };
    let cases = [
        (json(b"{".to_vec()), 400, "bad_request"),
        (json(b"[]".to_vec()), 400, "bad_request"),
        (json(b"{\"name\":7}".to_vec()), 400, "bad_request"),
        (json(vec![b'['; 8000]), 400, "bad_request"),
        (json(vec![b'x'; 9000]), 413, "too_large"),
        (json(vec![b'x'; 5_000_000]), 413, "too_large"),
        (http.put(&node).body("x"), 415, "unsupported_media_type"),
        (
            http.put(url("/v1/nodes/%00"))
                .json(&record("tcp://127.0.0.1:1")),
            400,
            "bad_request",
        ),
        (
            http.put(url(&format!("/v1/nodes/{}", "a".repeat(1000))))
                .json(&record("tcp://127.0.0.1:1")),
            400,
            "bad_request",
        ),
        (http.get(url("/v1/nowhere")), 404, "not_found"),
        (http.post(url("/v1/nodes")), 405, "method_not_allowed"),
        (http.get(url("/v1/nodes?wait=soon")), 400, "bad_request"),
        (http.get(url("/v1/nodes?wait=-1")), 400, "bad_request"),
    ];
    for (request, status, code) in cases {
        let request = request.build()?;
        let what = format!("{} {}", request.method(), request.url());
        let response = http.execute(request).await?;
        assert_eq!(response.status().as_u16(), status, "{what}");
        let problem: Value = response.json().await?;
        assert_eq!(problem["code"], code, "{what}: {problem}");
    }
    for token in [
        "garbage",
        "",
        "0.0",
        "%00",
        "18446744073709551616.1",
        &"9".repeat(5000),
    ] {
        let path = url(&format!("/v1/nodes?since={token}&wait=30"));
        let response = http.get(path).send().await?;
        assert_eq!(
            response.status(),
            200,
            "since={token} is answered at once with the list"
        );
    }
    assert_eq!(registry.listed().await?, [cluster.nodes[0].origin.clone()]);
    Ok(())
}

/// Goal: the registry takes 4096 nodes and no more; renewals still work; parked polls by the
/// hundred do not hurt. Method: 300 long polls; fill it from 16 sides at once; ask for one more;
/// renew one. With a lease of 60 s, so that none expires while a slow machine fills it.
#[tokio::test]
async fn a_full_registry_refuses_the_next_and_renews_the_known() -> Outcome {
    const NODES_MAX: usize = 4096;
    const SIDES: usize = 16;
    let launch = Launch::new("registry", ["--http", "0", "--lease", "60"]);
    let mut process = Process::start(&launch).await?;
    let url = process.ready_text("http")?;
    let list: Value = http()?
        .get(format!("{url}/v1/nodes"))
        .send()
        .await?
        .json()
        .await?;
    let token = list["token"].as_str().unwrap().to_owned();
    let mut polls = Vec::new();
    for _ in 0..300 {
        let poll = http()?
            .get(format!("{url}/v1/nodes?since={token}&wait=30"))
            .send();
        polls.push(spawn(poll));
    }
    let register = move |client: reqwest::Client, count: usize| {
        let host = format!("10.9.{}.{}", count / 256, count % 256);
        let mut body = record(&format!("tcp://{host}:7000"));
        body["endpoints"]["http"] = json!(format!("http://{host}:80"));
        client
            .put(format!("{url}/v1/nodes/node{count:06}"))
            .json(&body)
            .send()
    };
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut sides = Vec::new();
    for side in 0..SIDES {
        let (register, client) = (register.clone(), client.clone());
        sides.push(spawn(async move {
            for count in (side..NODES_MAX).step_by(SIDES) {
                let status = register(client.clone(), count).await?.status();
                anyhow::ensure!(status == 201, "{status} for node {count} of {NODES_MAX}");
            }
            Ok(())
        }));
    }
    for side in sides {
        side.await??;
    }
    let refused = register(client.clone(), NODES_MAX).await?;
    assert_eq!(refused.status(), 503, "one more than {NODES_MAX}");
    assert_eq!(refused.json::<Value>().await?["code"], "full");
    assert_eq!(
        register(client, 7).await?.status(),
        200,
        "a renewal when full"
    );
    for poll in polls {
        assert_eq!(
            poll.await??.status(),
            200,
            "a parked poll ends with the changed list"
        );
    }
    assert!(process.lives()? && !process.log_text().contains("panicked"));
    Ok(())
}

/// Goal: a registry that lists nonsense (dead endpoints, a node's own, one that is no publisher)
/// hurts no live link. Method: put such records beside two live nodes; they chat on.
#[tokio::test]
async fn records_of_nobody_hurt_no_live_link() -> Outcome {
    let mut cluster = Cluster::start(2).await?;
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let http_port = cluster.nodes[1].address().to_owned();
    let records = [
        ("deadaaaaaa", "tcp://127.0.0.1:1".to_owned()),
        ("silentaaaa", format!("tcp://{}", silent.local_addr()?)),
        ("httpaaaaaa", format!("tcp://{http_port}")),
    ];
    let lies: Vec<_> = records
        .into_iter()
        .map(|(id, publishes)| (id, record(&publishes)))
        .collect();
    let until = crate::harness::Instant::now() + secs(5);
    let ada = Client::joined(&cluster.nodes[0], "ada", "tea").await?;
    let bob = Client::joined(&cluster.nodes[1], "bob", "tea").await?;
    let mut count = 0;
    while crate::harness::Instant::now() < until {
        for (id, body) in &lies {
            assert!([200, 201].contains(&put(&cluster.registry, id, body).await?.0));
        }
        count += 1;
        ada.send("tea", &count.to_string()).await?;
        bob.message(secs(1) + NOISE, &count.to_string()).await?;
        sleep(Duration::from_millis(300)).await;
    }
    for node in &mut cluster.nodes {
        still_chats(node).await?;
    }
    cluster.linked(PATIENCE).await?;
    Ok(())
}
