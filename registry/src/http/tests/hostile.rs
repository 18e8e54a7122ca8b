//! What strangers try at the door: each gets its status and code, and changes nothing.

use super::*;

/// Puts these bytes, as JSON in a way that not everybody writes it.
async fn put_raw(f: &Fixture, body: impl Into<reqwest::Body>) -> reqwest::Response {
    let put = f
        .request(Method::PUT, "/v1/nodes/a")
        .header("content-type", "Application/JSON; charset=utf-8");
    put.body(body).send().await.unwrap()
}

#[tokio::test]
async fn hostile_endpoints_are_422_and_name_the_rule() {
    let f = Fixture::new();
    f.put("live", &node(1000)).await;
    let long = format!("tcp://{}:1", "a".repeat(250));
    for endpoint in [
        "ipc:///etc/x",
        "tcp://169.254.169.254:80",
        "tcp://0.0.0.0:1",
        "tcp://[::]:1",
        "tcp://[ff02::1]:1",
        "tcp://[::ffff:127.0.0.1]:22",
        "tcp://",
        "http://",
        "http://127.0.0.1:1",
        "tcp://a",
        "tcp://a:0",
        "tcp://a:99999",
        "tcp://user@127.0.0.1:1",
        "tcp://127.0.0.1:1/path",
        "tcp://224.0.0.1:5",
        "javascript:alert(1)",
        "x",
        "",
        &long,
    ] {
        let body = json!({"name": "a", "endpoints": {"pub": endpoint}});
        f.refused(f.put("a", &body).await, 422, "invalid_endpoint")
            .await;
    }
    let mut no_http = node(1000);
    no_http["endpoints"]["http"] = json!("ftp://127.0.0.1:1");
    f.refused(f.put("a", &no_http).await, 422, "invalid_endpoint")
        .await;
    let ids: Vec<_> = f
        .listing()
        .await
        .nodes
        .into_iter()
        .map(|node| node.id)
        .collect();
    assert_eq!(ids, ["live"]);
}

#[tokio::test]
async fn bodies_that_are_no_registration_are_refused_and_change_nothing() {
    let f = Fixture::new();
    let deep = "[".repeat(4000);
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "1e400",
        "{}",
        &deep,
        "\u{FEFF}{}",
        r#"{"name":1,"endpoints":{"pub":"tcp://a:1"}}"#,
        r#"{"name":"a","endpoints":["tcp://a:1"]}"#,
        r#"{"name":"a","endpoints":{}}"#,
        r#"{"name":"","endpoints":{"pub":"tcp://a:1"}}"#,
        r#"{"name":"a\u0000","endpoints":{"pub":"tcp://a:1"}}"#,
        r#"{"name":"\ud800","endpoints":{"pub":"tcp://a:1"}}"#,
        r#"{"name":"a","endpoints":{"pub":"tcp://a:1"},"meta":{"k":1}}"#,
        r#"{"name":"a","endpoints":{"pub":"tcp://a:1"}} trailing"#,
    ] {
        let response = put_raw(&f, body.to_owned()).await;
        f.refused(response, 400, "bad_request").await;
    }
    let response = put_raw(&f, vec![0xff, 0xfe]).await;
    f.refused(response, 400, "bad_request").await;
    assert!(f.listing().await.nodes.is_empty());
}

#[tokio::test]
async fn large_bodies_are_413_however_they_come() {
    let f = Fixture::new();
    for size in [8 * 1024 + 1, 5 << 20] {
        let response = put_raw(&f, vec![b' '; size]).await;
        f.refused(response, 413, "too_large").await;
        let chunks = futures::stream::iter(
            std::iter::repeat_n(vec![b' '; 1024], size / 1024 + 1).map(Ok::<_, std::io::Error>),
        );
        let response = put_raw(&f, reqwest::Body::wrap_stream(chunks)).await;
        f.refused(response, 413, "too_large").await;
    }
    let padded = format!("{:8192}", node(1000).to_string());
    assert_eq!(put_raw(&f, padded).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn wrong_types_paths_methods_ids_and_queries_have_their_codes() {
    let f = Fixture::new();
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonp"),
    ] {
        let mut put = f
            .request(Method::PUT, "/v1/nodes/a")
            .body(node(1000).to_string());
        if let Some(kind) = kind {
            put = put.header("content-type", kind);
        }
        f.refused(put.send().await.unwrap(), 415, "unsupported_media_type")
            .await;
    }
    for path in [
        "/v2/nodes",
        "/v1/nodes/a/b",
        "/v1/nodes/",
        "/etc/passwd",
        "/%2e%2e/x",
        "/index.html",
    ] {
        f.refused(f.get(path).await, 404, "not_found").await;
    }
    for (method, path, allow) in [
        (Method::POST, "/v1/nodes", "GET"),
        (Method::GET, "/v1/nodes/a", "PUT"),
        (Method::PATCH, "/v1/nodes/a", "DELETE"),
        (Method::DELETE, "/v1/nodes", "GET"),
        (Method::PUT, "/", "GET"),
        (Method::TRACE, "/metrics", "GET"),
    ] {
        let response = f.request(method.clone(), path).send().await.unwrap();
        let allowed = response
            .headers()
            .get("allow")
            .map(|v| v.to_str().unwrap().to_owned());
        assert!(
            allowed.as_deref().is_some_and(|a| a.contains(allow)),
            "{method} {path}: {allowed:?}"
        );
        f.refused(response, 405, "method_not_allowed").await;
    }
    assert!(f.listing().await.nodes.is_empty());
    let metrics = f.get("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("registry_rejected_total{code=\"not_found\"} 6"),
        "{metrics}"
    );
}

#[tokio::test]
async fn wrong_ids_queries_and_web_pages_have_their_codes() {
    let f = Fixture::new();
    for id in [
        "a%20b",
        "%ff",
        "%00",
        "a%2fb",
        "%7Ba%7D",
        "a%0d%0aINFO",
        &"x".repeat(65),
    ] {
        f.refused(f.put(id, &node(1000)).await, 400, "bad_request")
            .await;
    }
    for wait in ["-1", "x", "NaN", "", "1s", "-inf"] {
        f.refused(
            f.get(&format!("/v1/nodes?wait={wait}")).await,
            400,
            "bad_request",
        )
        .await;
    }
    f.refused(f.get("/v1/nodes?since=a&since=b").await, 400, "bad_request")
        .await;
    let page = f
        .request(Method::PUT, "/v1/nodes/a")
        .header("origin", "http://evil.example");
    f.refused(
        page.json(&node(1000)).send().await.unwrap(),
        403,
        "forbidden",
    )
    .await;
    assert!(f.listing().await.nodes.is_empty());
}

#[tokio::test]
async fn a_full_registry_is_503_and_still_renews_and_wakes_hundreds() {
    let f = Fixture::new();
    let token = f.listing().await.token;
    let path = format!("/v1/nodes?since={token}&wait=55");
    let puts = (0..NODES_MAX).map(|i| {
        let said = serde_json::from_value(json!({"name": "a",
            "endpoints": {"pub": format!("tcp://10.0.0.1:{}", i + 1)}}))
        .unwrap();
        let registry = f.registry.clone();
        async move { registry.put(&format!("n{i}"), said).await.unwrap() }
    });
    let filled = async {
        while f.registry.watchers() < 300 {
            tokio::task::yield_now().await;
        }
        futures::future::join_all(puts).await
    };
    let polls = futures::future::join_all((0..300).map(|_| f.get(&path)));
    let (polls, _) = tokio::join!(polls, filled);
    assert!(polls.iter().all(|poll| poll.status() == StatusCode::OK));
    let response = f.put("more", &node(60000)).await;
    assert_eq!(response.headers()["retry-after"], "2");
    f.refused(response, 503, "full").await;
    let renewal = json!({"name": "a", "endpoints": {"pub": "tcp://10.0.0.1:8"}});
    assert_eq!(f.put("n7", &renewal).await.status(), StatusCode::OK);
    assert_eq!(f.listing().await.nodes.len(), NODES_MAX);
}

#[tokio::test]
async fn watchers_beyond_the_bound_are_429_and_plain_polls_still_work() {
    let f = Fixture::new();
    let token = f.listing().await.token;
    let places: Vec<_> = (0..WATCHERS_MAX)
        .map(|_| f.registry.place().unwrap())
        .collect();
    let response = f.get(&format!("/v1/nodes?since={token}&wait=1")).await;
    assert_eq!(response.headers()["retry-after"], "1");
    f.refused(response, 429, "too_many_watchers").await;
    f.refused(f.get("/v1/events").await, 429, "too_many_watchers")
        .await;
    let plain = f.get(&format!("/v1/nodes?since={token}")).await;
    assert_eq!(plain.status(), StatusCode::NOT_MODIFIED);
    drop(places);
    let events = f.get("/v1/events").await;
    assert_eq!(events.status(), StatusCode::OK);
    assert_eq!(f.registry.watchers(), 1);
    drop(events);
    tokio::time::timeout(PATIENCE, async {
        while f.registry.watchers() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a closed stream gives its place back");
}

/// Plain checks of load balancers name no host, as HTTP/1.0 has none.
#[tokio::test]
async fn a_probe_that_names_no_host_is_answered() {
    let f = Fixture::new();
    for request in [
        "GET /healthz HTTP/1.0\r\n\r\n",
        "HEAD /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(f.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.split(' ').nth(1), Some("200"), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_body_that_never_comes_does_not_hold_the_registry_up() {
    let f = Fixture::new();
    let mut stream = TcpStream::connect(f.addr).await.unwrap();
    let head = "PUT /v1/nodes/a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(f.put("b", &node(1000)).await.status(), StatusCode::CREATED);
    // A client that gives up half way has registered nothing.
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("a close");
    assert_eq!(f.listing().await.nodes.len(), 1);
}
