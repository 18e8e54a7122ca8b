//! A double of a Consul agent, after what its documents say of the requests that nodes make: services with
//! a check of the kind TTL, blocking queries and their index. Consul itself cannot be installed here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::{Duration, Instant, timeout};

use crate::harness::tools::free_port;

/// A check that was not passed for so long fails. It is what nodes ask for.
const TTL: Duration = Duration::from_secs(6);
/// How often it looks whether one has.
const LOOKS_EVERY: Duration = Duration::from_millis(200);

/// An agent. Its connections end with it.
#[derive(Debug)]
pub(crate) struct Consul {
    port: u16,
    inner: Arc<Inner>,
    ends: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

#[derive(Debug)]
struct Inner {
    /// Who wants anything has to show it.
    token: Option<String>,
    services: Mutex<BTreeMap<String, Service>>,
    index: watch::Sender<u64>,
    /// Queries that were answered.
    queries: Mutex<Vec<(u64, Instant)>>,
}

#[derive(Debug)]
struct Service {
    said: Value,
    created: u64,
    /// When its check was passed last; one without a check is always well.
    passed: Option<Instant>,
    is_passing: bool,
}

#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default)]
    index: u64,
    wait: Option<String>,
}

impl Consul {
    /// One that knows nothing, and lets in who shows this token, or anybody.
    pub(crate) async fn start(token: Option<&str>) -> Result<Self> {
        let mut consul = Self {
            port: free_port()?,
            inner: Arc::new(Inner {
                token: token.map(str::to_owned),
                services: Mutex::default(),
                index: watch::Sender::new(100),
                queries: Mutex::default(),
            }),
            ends: None,
        };
        consul.again()?;
        Ok(consul)
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again, after it was killed, with what it knew.
    pub(crate) fn again(&mut self) -> Result<()> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", self.port))?;
        listener.set_nonblocking(true)?;
        let (ends, ended) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Connections are tasks of their own, and end with the runtime.
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("it listens");
                let serve = axum::serve(listener, routes(Arc::clone(&inner)));
                tokio::select! {
                    _ = ended => {}
                    _ = serve.into_future() => {}
                    () = expire(&inner) => {}
                }
            });
        });
        self.ends = Some((ends, thread));
        Ok(())
    }

    /// Ends it, and all its connections.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let (ends, thread) = self.ends.take().context("it does not run")?;
        drop(ends);
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the double has panicked"))
    }

    /// Starts it again without anything: another data folder, and an index that begins anew.
    pub(crate) fn again_empty(&mut self) -> Result<()> {
        self.inner.services().clear();
        self.inner.index.send_replace(1);
        self.again()
    }

    /// The ids of the instances whose checks pass.
    pub(crate) fn passing(&self) -> Vec<String> {
        let services = self.inner.services();
        let passing = services.iter().filter(|(_, service)| service.is_passing);
        passing.map(|(id, _)| id.clone()).collect()
    }

    /// What an instance has said of itself.
    pub(crate) fn said(&self, id: &str) -> Option<Value> {
        let services = self.inner.services();
        services.get(id).map(|service| service.said.clone())
    }

    /// Forgets an instance and its check, as an operator can make it.
    pub(crate) fn forget(&self, id: &str) {
        self.inner.services().remove(id);
        self.inner.changed();
    }

    /// Lists something that is not said by a node.
    pub(crate) fn list(&self, said: Value) {
        let id = said["ID"].as_str().unwrap_or_default().to_owned();
        let service = Service {
            said,
            created: *self.inner.index.borrow(),
            passed: None,
            is_passing: true,
        };
        self.inner.services().insert(id, service);
        self.inner.changed();
    }

    /// How many queries were answered since then.
    pub(crate) fn queries_since(&self, then: Instant) -> usize {
        let queries = self
            .inner
            .queries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        queries.iter().filter(|(_, at)| *at >= then).count()
    }

    /// Wakes all queries, as Consul does for things that are no change.
    pub(crate) fn touch(&self) {
        self.inner.changed();
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        if self.ends.is_some() {
            // The thread ends by itself.
            let _ended = self.kill();
        }
    }
}

impl Inner {
    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.index.send_modify(|index| *index += 1);
    }
}

type Shared = State<Arc<Inner>>;

fn routes(inner: Arc<Inner>) -> Router {
    let guard = axum::middleware::from_fn_with_state(Arc::clone(&inner), let_in);
    Router::new()
        .route("/v1/agent/service/register", put(register))
        .route("/v1/agent/service/deregister/{id}", put(deregister))
        .route("/v1/agent/check/pass/{check}", put(pass))
        .route("/v1/health/service/{name}", get(health))
        .layer(guard)
        .with_state(inner)
}

async fn let_in(
    State(inner): Shared,
    headers: HeaderMap,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let shown = headers
        .get("x-consul-token")
        .and_then(|it| it.to_str().ok());
    if inner.token.is_some() && shown != inner.token.as_deref() {
        return (
            StatusCode::FORBIDDEN,
            "Permission denied: token with AccessorID lacks permission",
        )
            .into_response();
    }
    next.run(request).await
}

async fn register(State(inner): Shared, body: Bytes) -> Response {
    let Ok(said) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, "Request decode failed").into_response();
    };
    let check = &said["Check"];
    let is_well = check["TTL"] == "6s"
        && check["DeregisterCriticalServiceAfter"] == "1m"
        && said["Name"].is_string()
        && said["Port"].is_u64();
    let Some(id) = said["ID"].as_str().filter(|_| is_well).map(str::to_owned) else {
        return (StatusCode::BAD_REQUEST, "Invalid check").into_response();
    };
    let is_passing = check["Status"] == "passing";
    let created = *inner.index.borrow();
    let passed = Some(Instant::now());
    let service = Service {
        said,
        created,
        passed,
        is_passing,
    };
    inner.services().insert(id, service);
    inner.changed();
    StatusCode::OK.into_response()
}

async fn deregister(State(inner): Shared, Path(id): Path<String>) -> Response {
    match inner.services().remove(&id) {
        Some(_) => inner.changed(),
        None => {
            return (StatusCode::NOT_FOUND, format!("Unknown service ID {id:?}")).into_response();
        }
    }
    StatusCode::OK.into_response()
}

async fn pass(State(inner): Shared, Path(check): Path<String>) -> Response {
    let mut services = inner.services();
    let id = check.strip_prefix("service:").unwrap_or_default();
    let Some(service) = services.get_mut(id) else {
        let text = format!("Unknown check ID {check:?}. Ensure that the check ID is passed.");
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    service.passed = Some(Instant::now());
    let was_passing = std::mem::replace(&mut service.is_passing, true);
    drop(services);
    if !was_passing {
        inner.changed();
    }
    StatusCode::OK.into_response()
}

async fn health(
    State(inner): Shared,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let mut index = inner.index.subscribe();
    if wanted.index > 0 {
        let wait = wanted.wait.unwrap_or_default();
        let wait = wait.trim_end_matches('s').parse().unwrap_or(300);
        // A greater index is answered at once too, with the one that there is.
        let moved = index.wait_for(|index| *index != wanted.index);
        let _moved = timeout(Duration::from_secs(wait), moved).await;
    }
    let now = *inner.index.borrow();
    let services = inner.services();
    let of_name = services
        .iter()
        .filter(|(_, it)| it.said["Name"] == *name && it.is_passing);
    let rows: Vec<Value> = of_name
        .map(|(id, service)| {
            let said = &service.said;
            json!({
                "Node": { "Node": "n", "Address": "127.0.0.1" },
                "Service": {
                    "ID": id, "Service": name, "Meta": said["Meta"], "Address": said["Address"],
                    "Port": said["Port"], "CreateIndex": service.created, "ModifyIndex": now,
                },
                "Checks": [],
            })
        })
        .collect();
    drop(services);
    let mut queries = inner.queries.lock().unwrap_or_else(PoisonError::into_inner);
    queries.push((wanted.index, Instant::now()));
    ([("x-consul-index", now.to_string())], Json(rows)).into_response()
}

/// Lets checks fail that were not passed.
async fn expire(inner: &Inner) {
    loop {
        tokio::time::sleep(LOOKS_EVERY).await;
        let mut changed = false;
        for service in inner.services().values_mut() {
            let is_late = service.passed.is_some_and(|at| at.elapsed() > TTL);
            changed |= is_late && service.is_passing;
            service.is_passing &= !is_late;
        }
        if changed {
            inner.changed();
        }
    }
}
