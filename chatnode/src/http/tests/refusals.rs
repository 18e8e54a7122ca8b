//! Every route with what it does not take: problem+json with a code that does not change.

use super::*;

const ROOM: &str = "/api/rooms/tea/messages";

/// What a path does not take, and what it says in `Allow`.
const METHODS: &[(&str, &str, &str)] = &[
    ("POST", "/mesh", "GET, HEAD"),
    ("POST", "/", "GET, HEAD"),
    ("DELETE", "/main.js", "GET, HEAD"),
    ("PUT", "/ws", "GET"),
    ("HEAD", "/ws", "GET"),
    ("POST", "/healthz", "GET,HEAD"),
    ("POST", "/readyz", "GET,HEAD"),
    ("POST", "/metrics", "GET,HEAD"),
    ("POST", "/api/rooms", "GET,HEAD"),
    ("POST", "/api/mesh", "GET,HEAD"),
    ("PUT", ROOM, "GET,HEAD,POST"),
    ("OPTIONS", ROOM, "GET,HEAD,POST"),
    ("POST", "/api/rooms/tea/events", "GET,HEAD"),
    ("GET", "/mesh/hello", "POST"),
    ("POST", "/mesh/members", "GET,HEAD"),
    ("POST", "/mesh/log/abcdefghij", "GET,HEAD"),
];

/// What is refused of what a path takes.
const REQUESTS: &[(&str, &str, u16, &str)] = &[
    ("GET", "/nope", 404, "not_found"),
    ("POST", "/nope", 404, "not_found"),
    ("DELETE", "/api", 404, "not_found"),
    ("PUT", "/api/rooms/tea", 404, "not_found"),
    ("GET", "/mesh/nope", 404, "not_found"),
    ("GET", "/ws", 426, "upgrade_required"),
    ("GET", "/api/rooms/a%2Fb/messages", 400, "room_invalid"),
    ("GET", "/api/rooms/..%2F/messages", 400, "room_invalid"),
    ("GET", "/api/rooms/%FF/messages", 400, "bad_request"),
    ("GET", "/api/rooms/%FF/events", 400, "bad_request"),
    ("POST", "/api/rooms/%FF/messages", 400, "bad_request"),
    ("POST", "/api/rooms/a%2Fb/messages", 400, "room_invalid"),
    ("POST", ROOM, 415, "unsupported_media_type"),
    ("GET", "/api/rooms/a%2Fb/events", 400, "room_invalid"),
    ("POST", "/mesh/hello", 415, "unsupported_media_type"),
    ("GET", "/mesh/log/abcdefghij", 400, "bad_request"),
];

/// The same of what stands behind the `?` of a path.
const QUERIES: &[(&str, &str, u16, &str)] = &[
    (ROOM, "limit=-1", 400, "bad_request"),
    (ROOM, "limit=x", 400, "bad_request"),
    (ROOM, "limit=1&limit=2", 400, "bad_request"),
    (ROOM, "before=x", 400, "id_invalid"),
    (ROOM, "before=abcdefghij.1", 404, "id_unknown"),
    (LOG, "after=2&through=1", 400, "bad_request"),
    (LOG, "after=-1&through=3", 400, "bad_request"),
    ("/mesh/log/x", "after=0&through=1", 400, "origin_invalid"),
    ("/mesh/log/%FF", "after=0&through=1", 400, "bad_request"),
];
const LOG: &str = "/mesh/log/abcdefghij";

async fn check_methods(f: &Fixture, methods: &[(&str, &str, &str)]) {
    for (method, path, allow) in methods {
        let what = format!("{method} {path}");
        let response = f.request(method.parse().unwrap(), path).send().await;
        let response = response.unwrap();
        assert_eq!(response.headers()["allow"], *allow, "{what}");
        if *method == "HEAD" {
            assert_eq!(response.status(), 405, "{what}");
        } else {
            assert_problem(&what, response, 405, "method_not_allowed").await;
        }
    }
}

async fn check_refused(f: &Fixture, method: &str, path: &str, status: u16, code: &str) {
    let response = f.request(method.parse().unwrap(), path).send().await;
    let response = response.unwrap();
    assert!(!response.headers().contains_key("allow"), "{method} {path}");
    assert_problem(&format!("{method} {path}"), response, status, code).await;
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_a_code() {
    let f = Fixture::new(&PLAIN);
    check_methods(&f, METHODS).await;
    for (method, path, status, code) in REQUESTS {
        check_refused(&f, method, path, *status, code).await;
    }
    for (path, query, status, code) in QUERIES {
        check_refused(&f, "GET", &format!("{path}?{query}"), *status, code).await;
    }
    for (body, status, code) in [
        ("", 400, "bad_request"),
        ("[]", 400, "bad_request"),
        (r#"{"from":"a"}"#, 400, "bad_request"),
        (r#"{"from":"","text":"x"}"#, 400, "name_invalid"),
        (r#"{"from":"a","text":" "}"#, 400, "text_empty"),
        (r#"{"from":"a","text":"x","mid":""}"#, 400, "mid_invalid"),
        (r#"{"from":"a","text":"x","copies":-1}"#, 400, "bad_request"),
    ] {
        let post = f.request(Method::POST, ROOM).body(body);
        let post = post.header("content-type", "application/json");
        assert_problem(body, post.send().await.unwrap(), status, code).await;
    }
    let long = f.post("tea", &"x".repeat(4097)).await;
    assert_problem("long", long, 413, "text_too_long").await;
    let large = f.post("tea", &"x".repeat(100_000)).await;
    assert_problem("large", large, 413, "too_large").await;
}

#[tokio::test]
async fn a_folder_of_ones_own_is_refused_in_the_same_form() {
    let f = Fixture::new(&Options {
        www: Some("src/http"),
        ..PLAIN
    });
    assert_eq!(f.get("/api.rs").await.status(), 200);
    for (method, path) in [
        ("GET", "/nope"),
        ("POST", "/nope"),
        ("GET", "/..%2Fhttp.rs"),
    ] {
        check_refused(&f, method, path, 404, "not_found").await;
    }
    let methods = [
        ("POST", "/api.rs", "GET, HEAD"),
        ("POST", "/tests", "GET, HEAD"),
        ("PUT", ROOM, "GET,HEAD,POST"),
    ];
    check_methods(&f, &methods).await;
    let part = f
        .request(Method::GET, "/api.rs")
        .header("range", "bytes=9000000-");
    let answer = part.send().await.unwrap();
    assert!(answer.headers().contains_key("content-range"));
    assert_problem("range", answer, 416, "range_not_satisfiable").await;
    let old = f.request(Method::GET, "/api.rs");
    let old = old.header("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT");
    let answer = old.send().await.unwrap();
    assert_problem("old", answer, 412, "precondition_failed").await;
}

#[tokio::test]
async fn who_may_not_come_in_is_told_so() {
    let f = Fixture::new(&PLAIN);
    let host = |name: &'static str| f.request(Method::GET, "/api/rooms").header("host", name);
    for name in [
        "localhost",
        "127.0.0.1",
        "[::1]:1",
        "chat.example:9",
        "Chat.Example",
    ] {
        assert_eq!(host(name).send().await.unwrap().status(), 200, "{name}");
    }
    let rebound = host("evil.example").send().await.unwrap();
    assert_problem("host", rebound, 421, "unknown_host").await;
    let page = f
        .request(Method::GET, "/ws")
        .header("origin", "http://evil.example");
    let page = page.send().await.unwrap();
    assert_problem("origin", page, 403, "origin_not_allowed").await;
    for header in ["origin", "forwarded", "x-forwarded-for"] {
        let asked = f.request(Method::GET, "/mesh/members").header(header, "x");
        let asked = asked.send().await.unwrap();
        assert_problem(header, asked, 403, "nodes_only").await;
    }
}

/// What an answer lets pages of other origins do with it.
fn shared(answer: &reqwest::Response) -> (Option<&str>, Option<&str>) {
    let header = |name| {
        answer
            .headers()
            .get(name)
            .map(|text| text.to_str().unwrap())
    };
    (header("access-control-allow-origin"), header("vary"))
}

#[tokio::test]
async fn what_the_mesh_is_like_is_read_by_pages_that_may_come_in_and_by_no_other() {
    let f = Fixture::new(&PLAIN);
    f.node
        .with_core(|core, _| core.remember("http://127.0.0.1:9"));
    let own = format!("http://{}", f.addr);
    for (origin, may) in [
        (&*own, true),
        ("http://127.0.0.1:9", true),
        ("http://localhost:9", true),
        ("https://allowed.example", true),
        ("http://127.0.0.1:10", false),
        ("http://allowed.example", false),
        ("https://allowed.example.evil.example", false),
        ("http://evil.example", false),
        ("null", false),
        ("*", false),
        ("", false),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let asked = f.request(method, "/api/mesh").header("origin", origin);
            let answer = asked.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{origin}");
            let expected = (may.then_some(origin), Some("Origin"));
            assert_eq!(shared(&answer), expected, "{origin}");
            let secrets = "access-control-allow-credentials";
            assert!(!answer.headers().contains_key(secrets), "{origin}");
        }
    }
    assert_eq!(
        shared(&f.get("/api/mesh").await),
        (None, Some("Origin")),
        "nobody's page"
    );
    let two = f.request(Method::GET, "/api/mesh").header("origin", &own);
    let two = two.header("origin", &own).send().await.unwrap();
    assert_eq!(shared(&two).0, None, "two origins are none");
    for (method, path) in [
        (Method::POST, "/api/mesh"),
        (Method::OPTIONS, "/api/mesh"),
        (Method::GET, "/api/rooms"),
        (Method::GET, ROOM),
        (Method::GET, "/mesh/members"),
        (Method::GET, "/metrics"),
        (Method::GET, "/mesh"),
        (Method::GET, "/"),
    ] {
        let what = format!("{method} {path}");
        let asked = f.request(method, path).header("origin", &own);
        assert_eq!(shared(&asked.send().await.unwrap()).0, None, "{what}");
    }
}

#[tokio::test]
async fn each_page_may_speak_to_other_nodes_in_the_one_way_that_it_needs() {
    let f = Fixture::new(&PLAIN);
    for (path, kind, nodes) in [
        ("/", "text/html", "ws: wss:"),
        ("/index.html", "text/html", "ws: wss:"),
        ("/mesh", "text/html", "http: https:"),
        ("/mesh.html", "text/html", "http: https:"),
        ("/mesh.css", "text/css", "ws: wss:"),
        ("/mesh/main.js", "text/javascript", "ws: wss:"),
    ] {
        let answer = f.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let header = |name| answer.headers()[name].to_str().unwrap();
        assert!(header("content-type").starts_with(kind), "{path}");
        let policy = header("content-security-policy");
        let connect = format!("; connect-src 'self' {nodes}; ");
        assert!(policy.contains(&connect), "{path}: {policy}");
        for rule in [
            "default-src 'none'; script-src 'self'; style-src 'self'; ",
            "frame-ancestors 'none'; require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
    }
    let own = Fixture::new(&Options {
        www: Some("../www"),
        ..PLAIN
    });
    for path in ["/mesh", "/mesh/main.js"] {
        assert_eq!(own.get(path).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_peer_on_this_machine_may_be_told_by_a_name_for_clients() {
    let f = Fixture::new(&PLAIN);
    let hello = |publisher: &str, http: &str| {
        let mut body = json!({ "origin": "abcdefghij", "pub": publisher, "http": http });
        body["to"] = f.origin.as_str().into();
        body["mesh"] = "main".into();
        f.request(Method::POST, "/mesh/hello").json(&body).send()
    };
    let here = "tcp://127.0.0.1:9";
    let answer = hello(here, "http://chat.example:8080").await.unwrap();
    assert_eq!(answer.status(), 200);
    for (publisher, http) in [
        ("tcp://10.0.0.7:9", "http://127.0.0.1:8080"),
        ("tcp://chat.example:9", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:9", "http://127.0.0.1:8080"),
        (here, "tcp://127.0.0.1:8080"),
        (here, "http://0.0.0.0:8080"),
        (here, ""),
    ] {
        let answer = hello(publisher, http).await.unwrap();
        assert_problem(publisher, answer, 422, "invalid_endpoint").await;
    }
}

/// What is meant for another node, or for another mesh, is refused at every door of the nodes, and a
/// hello so refused introduces nobody.
#[tokio::test]
async fn whoever_means_another_node_or_mesh_is_refused() {
    let f = Fixture::new(&PLAIN);
    let me = f.origin.as_str();
    let log = format!("/mesh/log/{me}?after=0&through=1&");
    for (to, mesh, refusal) in [
        (me, "main", None),
        ("zzzzzzzzzz", "main", Some("other_node")),
        (me, "blue", Some("other_mesh")),
        ("zzzzzzzzzz", "blue", Some("other_mesh")),
    ] {
        let query = format!("to={to}&mesh={mesh}");
        for path in [format!("{log}{query}"), format!("/mesh/members?{query}")] {
            let answer = f.get(&path).await;
            match refusal {
                None => assert_eq!(answer.status(), 200, "{path}"),
                Some(code) => drop(assert_problem(&path, answer, 421, code).await),
            }
        }
        let body = json!({
            "origin": "abcdefghij", "pub": "tcp://127.0.0.1:9", "http": "http://127.0.0.1:9",
            "to": to, "mesh": mesh,
        });
        let hello = f.request(Method::POST, "/mesh/hello").json(&body);
        let known = || !f.node.status().links.is_empty();
        if let Some(code) = refusal {
            assert_problem(&query, hello.send().await.unwrap(), 421, code).await;
            continue;
        }
        let without = |lacks: &str| {
            let mut body = body.clone();
            body.as_object_mut().unwrap().remove(lacks);
            f.request(Method::POST, "/mesh/hello").json(&body).send()
        };
        let answer = without("mesh").await.unwrap();
        assert_problem("mesh", answer, 400, "bad_request").await;
        assert!(!known(), "it was introduced by a hello that was refused");
        // Whoever asks who is here is told, and introduces nobody.
        let told = without("to").await.unwrap().json::<Value>().await.unwrap();
        let identity = f.node.identity();
        let wanted = json!({
            "origin": me, "name": identity.name, "pub": identity.publisher, "http": identity.http,
            "mesh": "main",
        });
        assert_eq!(told, wanted);
        assert!(!known(), "it was introduced by a hello to whoever is here");
        let answer = hello.send().await.unwrap().json::<Value>().await.unwrap();
        assert_eq!(answer, wanted);
        assert!(known());
    }
}
