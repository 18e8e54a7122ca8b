//! The door over real HTTP on a free port, with a node behind it and no carrier: errors in `refusals`,
//! server-sent events in `events`, WebSockets in `sockets`, who may come in in `admission`, who goes before
//! the answer in `given_up`.

mod admission;
mod events;
mod given_up;
mod refusals;
mod sockets;

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Method;
use base::process::Tasks;
use base::serve::{self, Limits};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Doors, Front, assets};
use crate::core::input::Listed;
use crate::core::journal::Loaded;
use crate::core::links::fault::{Fault, Why};
use crate::core::links::{Target, Via};
use crate::core::memory::{MemoryStore, Retention};
use crate::core::{Core, CoreOptions, Identity, Input, Now};
use crate::disk::Disk;
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::peers::Asker;
use crate::shell::{Handle, Parts, Post, Settings};
use crate::wire::frame::decode_entries;

const PATIENCE: Duration = Duration::from_secs(10);

/// What of a node matters here.
struct Options {
    listen: &'static str,
    rate_limit: u32,
    messages: usize,
    www: Option<&'static str>,
    ready: bool,
    clients_max: usize,
}

const PLAIN: Options = Options {
    listen: "127.0.0.1:0",
    rate_limit: 0,
    messages: 1000,
    www: None,
    ready: true,
    clients_max: 1100,
};

struct Fixture {
    node: Handle,
    origin: Origin,
    addr: SocketAddr,
    http: base::tls::Http,
}

impl Fixture {
    fn new(options: &Options) -> Self {
        Self::with_disk(options, None)
    }

    /// The same with a disk, if there is one: what becomes of batches nobody tells the node.
    fn with_disk(options: &Options, kept: Option<(Disk, Loaded)>) -> Self {
        let tasks = Tasks::new();
        let mut rng = StdRng::seed_from_u64(7);
        let origin = Origin::generate(&mut rng);
        let listener = super::listen(options.listen.parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = Identity {
            origin,
            name: "test".to_owned(),
            http: format!("http://127.0.0.1:{port}"),
            publisher: "tcp://127.0.0.1:1".to_owned(),
        };
        let store = MemoryStore::new(Retention {
            messages: options.messages,
            bytes: 64 << 20,
        });
        let start = Now {
            mono: Duration::ZERO,
            wall_us: 0,
        };
        let http = base::tls::Http::new(None, |http| http.no_proxy()).unwrap();
        let rng = StdRng::seed_from_u64(8);
        let mut core = Core::new(CoreOptions::of(me), store, rng, start);
        let disk = kept.map(|(disk, loaded)| {
            core.restore(start, loaded);
            disk
        });
        let parts = Parts {
            bridges: Vec::new(),
            keeper: None,
            disk,
            buses: Vec::new(),
            settings: Settings {
                rate_limit: options.rate_limit,
                mesh: MeshName::default(),
                clients_max: options.clients_max,
            },
            core,
            asker: Asker::new(http.clone(), MeshName::default(), false),
        };
        // Nobody carries the commands out: frames are dropped, as by a carrier without subscribers.
        let (node, sockets, _) = Handle::new(parts, tasks.clone()).unwrap();
        tasks.spawn_critical("clients", node.clone().run_clients(sockets));
        tasks.spawn_critical("turns", node.clone().run_turns());
        if options.ready {
            node.send(Input::Listed(settled()));
        }
        let doors = Doors {
            advertised: format!("http://chat.example:{port}"),
            allow_origins: vec!["https://allowed.example".to_owned()],
            is_sealed: false,
            insecure_mesh: false,
        };
        let page = match options.www {
            Some(dir) => assets::folder(dir.as_ref()),
            None => assets::embedded(),
        };
        let front = Front::new(node.clone(), doors, page);
        let serving = serve::serve(listener, front, tasks.clone(), Limits::default(), None);
        tasks.spawn_critical("http", serving);
        Self {
            node,
            origin,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            http,
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.addr);
        self.http.client().request(method, url).timeout(PATIENCE)
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn post(&self, room: &str, text: &str) -> reqwest::Response {
        let body = json!({ "from": "bot", "text": text });
        self.request(Method::POST, &format!("/api/rooms/{room}/messages"))
            .json(&body)
            .send()
            .await
            .unwrap()
    }

    /// Messages said without HTTP.
    async fn say(&self, room: &str, texts: impl IntoIterator<Item = String>) {
        let (room, from) = (room.parse().unwrap(), "ada".parse().unwrap());
        for text in texts {
            let post = Post {
                room: &room,
                from: &from,
                mid: None,
                text: &text,
                copies: 0,
            };
            self.node.post(post).await.unwrap();
        }
    }

    /// Sends a head as it is and reads the answer's.
    async fn raw(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let head = format!("{head}Host: {}\r\n\r\n", self.addr);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        String::from_utf8(answer).unwrap()
    }

    /// Asks for a WebSocket with these header lines.
    async fn upgrade(&self, path: &str, lines: &str) -> String {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{lines}"
        ))
        .await
    }
}

async fn assert_problem(what: &str, response: reqwest::Response, status: u16, code: &str) -> Value {
    let got = response.status().as_u16();
    let kind = response.headers().get("content-type").cloned();
    let text = response.text().await.unwrap();
    assert_eq!(got, status, "{what}: {text}");
    let kind = kind.unwrap_or_else(|| panic!("{what}: no content type"));
    assert_eq!(kind, "application/problem+json", "{what}: {text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["code"], code, "{what}: {text}");
    assert_eq!(body["status"], status, "{what}: {text}");
    assert_ne!(body["detail"], "", "{what}");
    body
}

/// Registries that have answered, and list nobody.
fn settled() -> Listed {
    Listed {
        is_settled: true,
        ..Listed::default()
    }
}

/// Sockets of clients are not asked one by one.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn what_the_kernel_keeps_for_a_client_is_bounded() {
    let listener = super::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let _client = TcpStream::connect(addr).await.unwrap();
    let (served, _) = listener.accept().await.unwrap();
    let bound = socket2::SockRef::from(&served).tcp_notsent_lowat().unwrap();
    assert_eq!(bound, super::UNSENT_BYTES_MAX);
}

#[tokio::test]
async fn readyz_names_the_peers_that_are_not_linked() {
    let f = Fixture::new(&Options {
        ready: false,
        ..PLAIN
    });
    let peer: Origin = "abcdefghij".parse().unwrap();
    let target = Target {
        origin: Some(peer),
        endpoint: "tcp://127.0.0.1:9".to_owned(),
        http: String::new(),
        speech: crate::core::links::Speech::Mesh,
        via: Via::Nodes,
    };
    let listed = Listed {
        members: vec![target],
        ..settled()
    };
    f.node.send(Input::Listed(listed));
    let answer = f.get("/readyz").await;
    assert_eq!(answer.headers()["retry-after"], "1");
    let body = assert_problem("joining", answer, 503, "not_ready").await;
    assert!(
        body["detail"].as_str().unwrap().contains("abcdefghij"),
        "{body}"
    );
    // Whom no way leads to is not waited for.
    let no_way = Fault::new(Why::Unreachable, "no way there");
    f.node.send(Input::Greeted(peer, Some(no_way)));
    let answer = f.get("/readyz").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.text().await.unwrap(),
        "ready; not linked: abcdefghij at tcp://127.0.0.1:9 (no way there)\n"
    );
}

#[tokio::test]
async fn a_node_that_goes_refuses_who_wants_to_stay_and_lets_others_read() {
    let f = Fixture::new(&PLAIN);
    assert_eq!(f.post("tea", "before").await.status(), 201);
    f.node.go_away(Duration::from_millis(300));
    let answer = f.post("tea", "after").await;
    assert_eq!(answer.headers()["retry-after"], "2");
    assert_problem("POST", answer, 503, "stopping").await;
    for path in ["/ws", "/"] {
        let answer = f.upgrade(path, "").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.to_lowercase().contains("\r\nretry-after: 2\r\n"),
            "{answer}"
        );
    }
    assert_problem("readyz", f.get("/readyz").await, 503, "stopping").await;
    for path in ["/", "/healthz", "/metrics", "/api/rooms", "/api/mesh"] {
        assert_eq!(f.get(path).await.status(), 200, "{path}");
    }
    let page: Value = f.get("/api/rooms/tea/messages").await.json().await.unwrap();
    assert_eq!(page["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_full_of_clients_refuses_the_next_and_answers_all_others() {
    let f = Fixture::new(&Options {
        clients_max: 1,
        ..PLAIN
    });
    let stream = f.get("/api/rooms/tea/events").await;
    assert_eq!(stream.status(), 200);
    for path in ["/ws", "/"] {
        let answer = f.upgrade(path, "").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let answer = answer.to_lowercase();
        assert!(answer.contains("\r\nretry-after: 2\r\n"), "{answer}");
    }
    let next = f.get("/api/rooms/tea/events").await;
    assert_problem("a stream", next, 429, "too_many_streams").await;
    let page = format!("/mesh/log/{}?after=0&through=1", f.origin);
    for path in ["/healthz", "/metrics", "/api/mesh", &page] {
        assert_eq!(f.get(path).await.status(), 200, "{path}");
    }
    assert_eq!(f.post("tea", "said").await.status(), 201);
}

#[tokio::test]
async fn a_page_of_the_log_is_no_longer_than_was_asked() {
    let f = Fixture::new(&PLAIN);
    f.say("tea", (0..100).map(|number| number.to_string()))
        .await;
    let mut lengths = Vec::new();
    for bytes in ["&bytes=0", "&bytes=8192", "&bytes=99999999", ""] {
        let path = format!("/mesh/log/{}?after=0&through=100{bytes}", f.origin);
        let body = f.get(&path).await.bytes().await.unwrap();
        lengths.push(decode_entries(&body).unwrap().entries.len());
    }
    assert_eq!(
        lengths[0], 1,
        "one entry at least, or repair would stand still"
    );
    assert!((2..99).contains(&lengths[1]), "{lengths:?}");
    assert_eq!(lengths[2..], [100, 100]);
}

#[tokio::test]
async fn messages_over_http_come_at_the_rate_limit_of_their_address() {
    let f = Fixture::new(&Options {
        rate_limit: 2,
        ..PLAIN
    });
    for text in ["1", "2", "3", "4"] {
        // What is refused for another reason costs nothing.
        assert_problem("empty", f.post("tea", "").await, 400, "text_empty").await;
        assert_eq!(f.post("tea", text).await.status(), 201);
    }
    let answer = f.post("tea", "5").await;
    assert_eq!(answer.headers()["retry-after"], "1");
    let body = assert_problem("5", answer, 429, "rate_limited").await;
    let wait = body["retry_ms"].as_u64().unwrap();
    assert!((1..=501).contains(&wait), "{wait} ms");
    tokio::time::sleep(Duration::from_millis(wait)).await;
    assert_eq!(f.post("tea", "6").await.status(), 201, "after {wait} ms");
}

#[tokio::test]
async fn a_page_of_this_node_may_come_in_whatever_socket_serves_it() {
    // A socket for both families sees IPv4 addresses in the clothes of IPv6.
    let f = Fixture::new(&Options {
        listen: "[::]:0",
        ..PLAIN
    });
    let port = f.addr.port();
    for (origin, status) in [
        (format!("http://127.0.0.1:{port}"), 101),
        (format!("http://localhost:{port}"), 101),
        (format!("http://LOCALHOST:{port}"), 101),
        (format!("http://chat.example:{port}"), 101),
        ("https://allowed.example".to_owned(), 101),
        ("https://allowed.example:443".to_owned(), 101),
        ("http://chat.example".to_owned(), 403),
        ("http://allowed.example".to_owned(), 403),
        (format!("https://127.0.0.1:{port}"), 403),
        ("null".to_owned(), 403),
        ("http://evil.example".to_owned(), 403),
    ] {
        let answer = f.upgrade("/ws", &format!("Origin: {origin}\r\n")).await;
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&begin), "{origin}: {answer}");
    }
}
