//! The talk with a gateway of the test's own, which says what etcd says at the wrong moment: answers as
//! etcd 3.4 gave them.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use base::process::Tasks;
use tokio::sync::mpsc;

use super::super::{Board, Entry, Registration, Seat, View};
use super::*;
use crate::discovery::url::DiscoverUrl;
use crate::model::mesh_name::MeshName;

const PATIENCE: Duration = Duration::from_secs(15);

/// What was asked: the door, and with what.
type Asked = (String, Value);

/// A gateway: what it is asked, and what its next watch says.
struct Gateway {
    asked: mpsc::UnboundedReceiver<Asked>,
    shared: Arc<Shared>,
    board: Arc<Board>,
    leaving: CancellationToken,
    tasks: Tasks,
}

struct Shared {
    asked: mpsc::UnboundedSender<Asked>,
    /// Lines of the watch; without any more it stays open and says nothing.
    watch: Mutex<Vec<String>>,
    keys: Mutex<Vec<(String, String)>>,
    lease_is_gone: AtomicBool,
    /// The next keys are not taken, so many times.
    refusals: Mutex<usize>,
    /// What who asks has to show, if anything.
    token: Mutex<Option<String>>,
}

async fn let_in(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    path: Path<String>,
    body: Bytes,
) -> Result<Body, (StatusCode, &'static str)> {
    let token = shared.token.lock().unwrap().clone();
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|it| it.to_str().ok());
    if token.is_some() && shown != token.as_deref() && !path.0.starts_with("auth/") {
        let said = r#"{"error":"etcdserver: invalid auth token","code":16}"#;
        return Err((StatusCode::UNAUTHORIZED, said));
    }
    if path.0 == "kv/put" {
        let mut refusals = shared.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return Err((
                StatusCode::SERVICE_UNAVAILABLE,
                "etcdserver: request timed out",
            ));
        }
    }
    Ok(answer(State(shared), path, body).await)
}

async fn answer(State(shared): State<Arc<Shared>>, Path(door): Path<String>, body: Bytes) -> Body {
    let said: Value = serde_json::from_slice(&body).unwrap();
    shared.asked.send((door.clone(), said)).unwrap();
    let header = json!({ "cluster_id": "1", "revision": "41", "raft_term": "2" });
    let one = |answer: Value| Body::from(answer.to_string());
    match door.as_str() {
        "auth/authenticate" => {
            let token = shared.token.lock().unwrap().clone();
            one(json!({ "header": header, "token": token }))
        }
        "lease/grant" => one(json!({ "header": header, "ID": "7587856790", "TTL": "6" })),
        "lease/keepalive" if shared.lease_is_gone.swap(false, Ordering::Relaxed) => {
            one(json!({ "result": { "header": header, "ID": "7587856790" } }))
        }
        "lease/keepalive" => {
            one(json!({ "result": { "header": header, "ID": "7587856790", "TTL": "6" } }))
        }
        "kv/range" => {
            let keys = shared.keys.lock().unwrap();
            let row = |(key, value): &(String, String)| {
                json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value),
                    "create_revision": "3", "mod_revision": "3", "version": "1", "lease": "9" })
            };
            let rows: Vec<Value> = keys.iter().map(row).collect();
            one(json!({ "header": header, "kvs": rows, "count": rows.len().to_string() }))
        }
        "watch" => {
            let created = json!({ "result": { "header": header, "created": true } }).to_string();
            let lines = std::mem::take(&mut *shared.watch.lock().unwrap());
            let lines: Vec<_> = std::iter::once(created).chain(lines).collect();
            // A line comes in pieces, or several in one.
            let text = lines.join("\n") + "\n";
            let (one, two) = text.split_at(text.len() / 2);
            let pieces = [one.to_owned(), two.to_owned()].map(Ok::<_, std::io::Error>);
            let pieces = futures::stream::iter(pieces);
            Body::from_stream(futures::StreamExt::chain(
                pieces,
                futures::stream::pending(),
            ))
        }
        _ => one(json!({ "header": header })),
    }
}

impl Gateway {
    async fn start() -> Self {
        Self::with("", None).await
    }

    /// One that is told this login, and wants this token then.
    async fn with(login: &str, token: Option<&str>) -> Self {
        let (sender, asked) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            asked: sender,
            watch: Mutex::default(),
            keys: Mutex::default(),
            lease_is_gone: AtomicBool::new(false),
            refusals: Mutex::new(0),
            token: Mutex::new(token.map(str::to_owned)),
        });
        let router = Router::new().route("/v3/{*door}", post(let_in));
        let router = router.with_state(Arc::clone(&shared));
        let listener = base::serve::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("etcd://{login}{}/chat", listener.local_addr().unwrap());
        let tasks = Tasks::new();
        let limits = base::serve::Limits::default();
        tasks.spawn(async move {
            let served = base::serve::serve(listener, router, Tasks::new(), limits, None);
            served.await.unwrap();
        });
        let DiscoverUrl::Etcd(keys) = url.parse().unwrap() else {
            panic!("etcd")
        };
        let entry = Entry {
            url: "etcd".to_owned(),
            knows_who_lives: true,
        };
        let board = Arc::new(Board::new(vec![entry]));
        let me = Me {
            origin: "aaaaaaaaaa".parse().unwrap(),
            mesh: MeshName::default(),
            said: registration(1),
        };
        let seat = Seat::new(Arc::clone(&board), 0);
        let mut etcd = Etcd::new(keys, me, seat);
        etcd.silence_max = Duration::from_millis(700);
        let leaving = CancellationToken::new();
        tasks.spawn(etcd.run(leaving.clone()));
        Self {
            asked,
            shared,
            board,
            leaving,
            tasks,
        }
    }

    /// The next request to this door.
    async fn is_asked(&mut self, door: &str) -> Value {
        let asked = async {
            loop {
                let (at, said) = self.asked.recv().await.unwrap();
                if at == door {
                    return said;
                }
            }
        };
        let asked = timeout(PATIENCE, asked).await;
        asked.unwrap_or_else(|_| panic!("nobody asks for {door}"))
    }

    async fn shows(&self, what: &str, is_so: impl Fn(&View) -> bool) {
        let mut views = self.board.view.subscribe();
        let shown = timeout(PATIENCE, views.wait_for(|view| is_so(view))).await;
        assert!(
            shown.is_ok(),
            "never {what}: {:?}",
            self.board.view.borrow()
        );
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.leaving.cancel();
        self.tasks.stop();
    }
}

fn registration(number: u16) -> Registration {
    serde_json::from_value(json!({
        "name": "n",
        "endpoints": {
            "http": format!("http://127.0.0.1:{}", 20_000 + number),
            "pub": format!("tcp://127.0.0.1:{}", 30_000 + number),
        },
        "meta": { "mesh": "main" },
    }))
    .unwrap()
}

fn put(id: &str, number: u16) -> String {
    let key = STANDARD.encode(format!("chat/main/{id}"));
    let value = STANDARD.encode(serde_json::to_string(&registration(number)).unwrap());
    let kv = json!({ "key": key, "value": value, "create_revision": "42", "mod_revision": "42" });
    json!({ "result": { "header": { "revision": "42" }, "events": [{ "kv": kv }] } }).to_string()
}

fn deleted(id: &str) -> String {
    let kv = json!({ "key": STANDARD.encode(format!("chat/main/{id}")), "mod_revision": "43" });
    let event = json!({ "type": "DELETE", "kv": kv });
    json!({ "result": { "header": { "revision": "43" }, "events": [event] } }).to_string()
}

fn has(view: &View, ids: &[&str]) -> bool {
    view.members
        .keys()
        .map(|origin| origin.as_str())
        .eq(ids.iter().copied())
}

/// Goal: what a watch tells is followed from behind what was read, whatever pieces it comes in; one that
/// etcd ends since it has forgotten changes, and one that says nothing, are left, and all is read again.
#[tokio::test]
async fn a_watch_that_is_over_or_silent_makes_all_be_read_again() {
    let mut gateway = Gateway::start().await;
    let compacted = json!({ "result": {
        "header": { "revision": "50" }, "canceled": true, "compact_revision": "49",
    } });
    *gateway.shared.watch.lock().unwrap() = vec![
        put("bbbbbbbbbb", 2),
        put("cccccccccc", 3),
        deleted("bbbbbbbbbb"),
    ];
    let watched = gateway.is_asked("watch").await;
    let create = &watched["create_request"];
    assert_eq!(
        (&create["start_revision"], &create["progress_notify"]),
        (&json!("42"), &json!(true))
    );
    let text = |name: &str| STANDARD.decode(create[name].as_str().unwrap()).unwrap();
    assert_eq!(
        (text("key"), text("range_end")),
        (b"chat/main/".to_vec(), b"chat/main0".to_vec())
    );
    gateway
        .shows("the one that was put and stayed", |view| {
            has(view, &["cccccccccc"])
        })
        .await;
    // It says nothing more: read again, where nobody is listed by now.
    *gateway.shared.watch.lock().unwrap() = vec![compacted.to_string()];
    gateway.is_asked("kv/range").await;
    gateway.shows("nobody", |view| has(view, &[])).await;
    gateway.is_asked("watch").await;
    // That one was ended: read again, and no trouble is told.
    gateway.is_asked("kv/range").await;
    let up = |view: &View| view.sources[0].state == "up" && view.sources[0].error.is_empty();
    gateway.shows("well", up).await;
}

/// Goal: a lease that is gone is taken anew, and the key put under it; at the end it is given back.
#[tokio::test]
async fn a_lease_that_is_gone_is_taken_anew() {
    let mut gateway = Gateway::start().await;
    for _ in 0..2 {
        let granted = gateway.is_asked("lease/grant").await;
        assert_eq!(granted["TTL"], "6");
        let put = gateway.is_asked("kv/put").await;
        assert_eq!(put["lease"], "7587856790");
        let key = STANDARD.decode(put["key"].as_str().unwrap()).unwrap();
        assert_eq!(key, b"chat/main/aaaaaaaaaa");
        gateway.shared.lease_is_gone.store(true, Ordering::Relaxed);
    }
    gateway.leaving.cancel();
    assert_eq!(gateway.is_asked("lease/revoke").await["ID"], "7587856790");
}

/// Goal: a key that is missing is put again until etcd takes it, though its lease lives. Method: the gateway
/// lists nobody, and refuses the key twice.
#[tokio::test]
async fn a_key_is_put_until_it_is_taken() {
    let mut gateway = Gateway::start().await;
    gateway.is_asked("kv/put").await;
    *gateway.shared.refusals.lock().unwrap() = 2;
    let refused = |view: &View| view.sources[0].error.contains("request timed out");
    gateway.shows("refused", refused).await;
    gateway.is_asked("kv/put").await;
    assert_eq!(*gateway.shared.refusals.lock().unwrap(), 0);
    let well = |view: &View| view.sources[0].error.is_empty();
    gateway.shows("well", well).await;
}

/// Goal: a token that has ended is taken anew at once, and nobody is told of trouble. Method: the gateway wants
/// another one after the first renewal.
#[tokio::test]
async fn a_token_that_has_ended_is_taken_anew() {
    let mut gateway = Gateway::with("chat:s3cret@", Some("one")).await;
    let login = gateway.is_asked("auth/authenticate").await;
    assert_eq!(login, json!({ "name": "chat", "password": "s3cret" }));
    let up = |view: &View| view.sources[0].state == "up" && view.sources[0].error.is_empty();
    gateway.shows("well", up).await;
    gateway.is_asked("kv/put").await;
    let mut views = gateway.board.view.subscribe();
    views.mark_unchanged();
    *gateway.shared.token.lock().unwrap() = Some("two".to_owned());
    gateway.is_asked("lease/keepalive").await;
    gateway.is_asked("kv/range").await;
    assert!(!views.has_changed().unwrap(), "{:?}", views.borrow());
}

/// Goal: of two that tell one endpoint the newer is listed. Method: keys with one port of HTTP.
#[test]
fn an_endpoint_belongs_to_the_newest_that_tells_it() {
    let me = Me {
        origin: "aaaaaaaaaa".parse().unwrap(),
        mesh: MeshName::default(),
        said: registration(1),
    };
    let candidate = |id: &str, number, since| Candidate {
        id: id.to_owned(),
        said: registration(number),
        since,
    };
    let all = vec![
        candidate("bbbbbbbbbb", 2, 5),
        candidate("cccccccccc", 2, 9),
        candidate("dddddddddd", 3, 1),
        candidate("aaaaaaaaaa", 1, 8),
        candidate("eeeeeeeeee", 1, 2),
    ];
    let found = peers_of(all, &me);
    let found: Vec<_> = found.keys().map(ToString::to_string).collect();
    assert_eq!(found, ["cccccccccc", "dddddddddd"]);
}

#[test]
fn what_a_gateway_says_wrong_is_an_error_and_no_panic() {
    for text in [
        "",
        "{}",
        "[]",
        r#"{"error":{"grpc_code":9,"message":"no leader"}}"#,
        r#"{"error":"x"}"#,
        r#"{"result":{"events":[{"kv":{}}]}}"#,
        r#"{"result":{"compact_revision":-1}}"#,
    ] {
        let told = serde_json::from_str::<Told<Happened>>(text);
        assert!(
            told.is_err() || told.unwrap().of_stream().is_err(),
            "{text}"
        );
    }
}
