//! `/mesh/`: what nodes ask of each other. Internal: its form may change with any version.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base::endpoint::{Endpoint, Host, Scheme};
use base::problem::Problem;
use base::serve::Connection;

use super::Doors;
use crate::core::log::Span;
use crate::core::news::News;
use crate::core::pace::LOG_PAGE_BYTES;
use crate::core::question::{Found, LogPart, Question};
use crate::model::names::Origin;
use crate::peers::Introduction;
use crate::shell::Handle;
use crate::wire::frame::{self, EntriesPage, MembersPage};

/// A body of this door is at most so long.
const BODY_BYTES_MAX: usize = 8 << 10;

pub(super) fn routes(node: Handle, doors: Arc<Doors>) -> Router {
    Router::new()
        .route("/mesh/hello", post(hello))
        .route("/mesh/log/{origin}", get(log))
        .route("/mesh/members", get(members))
        .route("/mesh/position", get(position))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&doors),
            only_nodes,
        ))
        .layer(Extension(doors))
        .with_state(node)
}

/// Only nodes may ask: who has shown a key of the mesh secret, whoever passes its requests on. Without a
/// secret that means: programs on this machine, and neither a browser nor somebody behind a proxy. Whoever
/// calls one of this machine's addresses from that same address is on it, as nodes are whose HTTP is told to
/// others by such an address.
async fn only_nodes(
    State(doors): State<Arc<Doors>>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    let foreign = if doors.is_sealed {
        connection.key.is_none()
    } else {
        headers.contains_key(header::ORIGIN)
            || headers.contains_key(header::FORWARDED)
            || headers.contains_key("x-forwarded-for")
            || !(doors.insecure_mesh || is_here(&connection))
    };
    if foreign {
        return Problem::new(
            StatusCode::FORBIDDEN,
            "nodes_only",
            "this is for nodes of the mesh",
        )
        .into_response();
    }
    next.run(request).await
}

/// Whoever asks may mean somebody else: an address that changed hands leads here too. What it then
/// says or wants is for the other.
fn check_meant(node: &Handle, to: Option<&str>, mesh: Option<&str>) -> Result<(), Problem> {
    let (me, mine) = (node.identity().origin, node.mesh());
    let (code, text) = if mesh.is_some_and(|mesh| mesh != mine.as_str()) {
        (
            "other_mesh",
            format!("this is node {me} of the mesh {mine}, which is another one"),
        )
    } else if to.is_some_and(|to| to != me.as_str()) {
        (
            "other_node",
            format!("this is node {me}, and another one is meant"),
        )
    } else {
        return Ok(());
    };
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, code, text))
}

/// The same for a request that says in its query whom it means.
fn check_query(node: &Handle, meant: Result<Query<Meant>, QueryRejection>) -> Result<(), Problem> {
    let Query(meant) = meant.map_err(|why| Problem::bad_request(why.body_text()))?;
    check_meant(node, meant.to.as_deref(), meant.mesh.as_deref())
}

fn is_here(connection: &Connection) -> bool {
    let remote = connection.remote.ip().to_canonical();
    remote.is_loopback() || remote == connection.local.ip().to_canonical()
}

async fn hello(
    State(node): State<Handle>,
    Extension(doors): Extension<Arc<Doors>>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Introduction>, Problem> {
    let who: Introduction = base::body::json(&headers, body, BODY_BYTES_MAX).await?;
    let origin: Origin = who
        .origin
        .parse()
        .map_err(|why| super::problem_of(crate::wire::protocol::Refusal::from(why)))?;
    // PUB tells whether a node is on this machine; its HTTP may be told by a name for clients.
    let here = |host: &Host| match host {
        Host::Ip(ip) => ip.is_loopback(),
        Host::Name(name) => name == "localhost",
    };
    let publisher = who.publisher.parse::<Endpoint>().ok();
    let (scheme, is_open) = match doors.is_sealed {
        true => (Scheme::Tls, true),
        false => (Scheme::Tcp, doors.insecure_mesh),
    };
    let publisher = publisher.filter(|endpoint| endpoint.scheme == scheme);
    let loops = publisher.as_ref().is_some_and(|it| here(&it.host));
    // Who is heard by brokers only has none, and is not dialled.
    let reachable = who.publisher.is_empty() || publisher.is_some_and(|_| is_open || loops);
    let http = who.http.parse::<Endpoint>().ok();
    if !reachable || http.is_none_or(|endpoint| endpoint.scheme != Scheme::Http) {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_endpoint",
            "pub is tls://HOST:PORT with a mesh secret, else tcp://HOST:PORT, on loopback unless the \
             node runs with --insecure-mesh, and http is http://HOST:PORT",
        ));
    }
    if loops && !is_here(&connection) {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_endpoint",
            "pub is on loopback, where each machine finds itself, and you are on another one",
        ));
    }
    let Introduction { to, mesh, .. } = &who;
    if mesh.is_none() {
        return Err(Problem::bad_request("a hello names its `mesh`"));
    }
    check_meant(&node, to.as_deref(), mesh.as_deref())?;
    // A hello to whoever is here may have been meant for anybody. It is answered, and changes nothing.
    if to.is_some() {
        node.introduced(origin, who.publisher, who.http);
    }
    Ok(Json(Introduction::of(node.identity(), node.mesh(), None)))
}

/// Who is asked.
#[derive(serde::Deserialize)]
struct Meant {
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    mesh: Option<String>,
}

#[derive(serde::Deserialize)]
struct Wanted {
    after: u64,
    through: u64,
    /// Whether a node that holds nothing yet wants all that is kept, not what is in memory.
    #[serde(default)]
    whole: bool,
    /// How long the page may be; more than a node would give is as if it was not said.
    #[serde(default = "whole_page")]
    bytes: usize,
}

fn whole_page() -> usize {
    LOG_PAGE_BYTES
}

async fn log(
    State(node): State<Handle>,
    origin: Result<Path<String>, PathRejection>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    meant: Result<Query<Meant>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path(origin) = origin.map_err(|why| Problem::bad_request(why.body_text()))?;
    let Query(wanted) = wanted.map_err(|why| Problem::bad_request(why.body_text()))?;
    let origin: Origin = origin
        .parse()
        .map_err(|why| super::problem_of(crate::wire::protocol::Refusal::from(why)))?;
    check_query(&node, meant)?;
    if wanted.after >= wanted.through {
        return Err(Problem::bad_request("after is less than through"));
    }
    let span = Span {
        after: wanted.after,
        through: wanted.through,
    };
    let bytes = wanted.bytes.min(LOG_PAGE_BYTES);
    let part = LogPart {
        origin,
        span,
        whole: wanted.whole,
        bytes,
    };
    let found = node.ask(Question::Log(part)).await;
    let Found::Log(page) = found.map_err(super::problem_of)? else {
        return Err(Problem::internal());
    };
    let page = EntriesPage {
        origin,
        floor: page.floor,
        floor_ts: page.floor_ts,
        entries: page.entries,
    };
    Ok(binary(frame::encode_entries(&page)))
}

async fn members(
    State(node): State<Handle>,
    meant: Result<Query<Meant>, QueryRejection>,
) -> Result<Response, Problem> {
    check_query(&node, meant)?;
    let members = node.members();
    let page = MembersPage {
        origin: node.identity().origin,
        version: members.version,
        rooms: members.rooms,
    };
    Ok(binary(frame::encode_members(&page)))
}

/// How far this node is: its beat, made now.
async fn position(
    State(node): State<Handle>,
    meant: Result<Query<Meant>, QueryRejection>,
) -> Result<Response, Problem> {
    check_query(&node, meant)?;
    Ok(binary(frame::encode(&News::Beat(node.position()))))
}

fn binary(body: bytes::Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}
