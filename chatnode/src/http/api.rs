//! `/api/`: rooms, messages and the mesh, for back ends, bots and operators.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use base::problem::Problem;
use base::serve::Connection;
use serde::Serialize;
use serde_json::json;

use super::rates::Rates;
use super::{FULL_RETRY, problem_of, stopping};
use crate::core::journal::Health;
use crate::core::links::{LinkState, LinkStatus};
use crate::model::names::{EntryId, Mid, RoomName, UserName};
use crate::shell::events::{Asked, Since};
use crate::shell::pages::{HistoryPage, id_unknown, limit, parse_since, search_of};
use crate::shell::{Hub, Node};
use crate::wire::protocol::{FRAME_BYTES_MAX, Refusal, check_text};

/// Logs of which not all is here yet that `/api/mesh` names at the most.
const LACKING_MAX: usize = 256;

pub(super) fn routes(hub: Hub) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/api/rooms", get(rooms))
        .route("/api/rooms/{room}/messages", get(messages).post(publish))
        .route("/api/rooms/{room}/events", get(events))
        .route("/api/rooms/{room}/search", get(search))
        .route("/api/mesh", get(mesh))
        .layer(Extension(Arc::<Mutex<Rates>>::default()))
        .with_state(hub)
}

async fn readyz(State(hub): State<Hub>) -> Response {
    let (ready, going, lacking) =
        hub.with(|node, now| (node.core.is_ready(), node.stopping, node.lacking(now)));
    if going {
        return stopping().into_response();
    }
    if let Some(Health::Broken) = hub.look(|node| node.core.disk_health()) {
        let detail = "this node's disk failed, and the node stops";
        return Problem::unavailable("storage_broken", detail).into_response();
    }
    let lacking = match &lacking[..] {
        [] => String::new(),
        lacking => format!("; not linked: {}", lacking.join("; ")),
    };
    if ready {
        let behind = match hub.look(|node| node.lacking_messages()) {
            0 => String::new(),
            count => format!("; still fetches {count} messages of before"),
        };
        return format!("ready{lacking}{behind}\n").into_response();
    }
    let detail = format!("this node still fetches history from its peers{lacking}");
    Problem::unavailable("not_ready", detail)
        .retry_after(Duration::from_secs(1))
        .into_response()
}

async fn rooms(State(hub): State<Hub>) -> Result<Json<serde_json::Value>, Problem> {
    hub.ready().await;
    let archived = hub.rooms_on_disk().await.map_err(problem_of)?;
    let rooms = hub.look(|node| {
        let members = node.core.members();
        let mut rooms = std::collections::BTreeMap::new();
        // The disk has all but what is on its way there, memory the newest of all.
        for room in node.core.rooms().into_iter().chain(archived) {
            let messages = rooms.entry(room.room).or_default();
            *messages = room.messages.max(*messages);
        }
        for room in members.rooms() {
            rooms.entry(room.clone()).or_default();
        }
        let row = |(room, messages): (RoomName, usize)| {
            let count = members.count(&room);
            json!({ "room": room, "messages": messages, "members": count })
        };
        rooms.into_iter().map(row).collect::<Vec<_>>()
    });
    Ok(Json(json!({ "rooms": rooms })))
}

#[derive(serde::Deserialize)]
struct PageQuery {
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    limit: Option<u64>,
}

async fn messages(
    State(hub): State<Hub>,
    room: Result<Path<String>, PathRejection>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let room = room_name(room)?;
    let Query(query) = query.map_err(|why| Problem::bad_request(why.body_text()))?;
    let before: Option<EntryId> = query
        .before
        .map(|id| id.parse())
        .transpose()
        .map_err(refused)?;
    hub.ready().await;
    let limit = limit(query.limit);
    let page = hub.with_archive(&room, |node, _, archive| {
        node.core.page_with(&room, before, limit, archive)
    });
    let page = page.await.map_err(problem_of)?;
    let page = page.ok_or_else(|| problem_of(id_unknown()))?;
    Ok(json_response(StatusCode::OK, &HistoryPage::of(&page)))
}

#[derive(serde::Deserialize)]
struct SearchQuery {
    q: String,
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    limit: Option<u64>,
}

async fn search(
    State(hub): State<Hub>,
    room: Result<Path<String>, PathRejection>,
    query: Result<Query<SearchQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let room = room_name(room)?;
    let Query(query) = query.map_err(|why| Problem::bad_request(why.body_text()))?;
    let before = query.before.as_deref();
    let search = search_of(room.as_str(), &query.q, before, query.limit).map_err(problem_of)?;
    hub.ready().await;
    let found = hub.search(&search).await.map_err(problem_of)?;
    Ok(json_response(StatusCode::OK, &found))
}

/// A message from a back end or a bot.
#[derive(serde::Deserialize)]
struct Message {
    from: String,
    text: String,
    #[serde(default)]
    mid: Option<String>,
    #[serde(default)]
    copies: u32,
}

async fn publish(
    State(hub): State<Hub>,
    Extension(connection): Extension<Connection>,
    Extension(rates): Extension<Arc<Mutex<Rates>>>,
    room: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let room = room_name(room)?;
    let message: Message = base::body::json(&headers, body, FRAME_BYTES_MAX).await?;
    let from: UserName = message.from.parse().map_err(refused)?;
    let mid: Option<Mid> = message
        .mid
        .map(|mid| mid.parse())
        .transpose()
        .map_err(refused)?;
    check_text(&message.text).map_err(problem_of)?;
    hub.ready().await;
    let (going, rate_limit, now) =
        hub.with(|node, now| (node.stopping, node.settings.rate_limit, now.mono));
    if going {
        return Err(stopping());
    }
    rates
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .count(connection.remote.ip(), rate_limit, now)
        .map_err(|wait| too_fast(rate_limit, wait))?;
    let copies = message.copies as usize;
    let said = hub
        .publish(&room, &from, mid.as_ref(), &message.text, copies)
        .await;
    let said = said.map_err(problem_of)?;
    let body = json!({ "id": said.id.to_string(), "ts": said.ts, "copies": said.copies });
    Ok(json_response(StatusCode::CREATED, &body))
}

fn too_fast(rate_limit: u32, wait: Duration) -> Problem {
    let detail = format!("at most {rate_limit} messages a second from one address");
    // Rounded up: a client that waits just so long finds the door open.
    let wait = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) + 1);
    Problem::too_many("rate_limited", detail).retry_after(wait)
}

/// The fields of a query, whatever they are.
type Fields = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// A stream that was asked for, on its way from the route to where its connection is.
#[derive(Debug, Clone)]
pub(super) struct Stream(Arc<Mutex<Option<Asked>>>);

impl Stream {
    /// It, once.
    pub(super) fn take(&self) -> Option<Asked> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.take()
    }
}

/// The head of a stream. What follows it is not HTTP's: see [`super::Front`].
async fn events(
    State(hub): State<Hub>,
    room: Result<Path<String>, PathRejection>,
    query: Fields,
    headers: HeaderMap,
) -> Response {
    let since = since_of(&headers, &query);
    let asked = room_name(room).and_then(|room| {
        let seat = hub.look(|node| node.seats.take_stream());
        let detail = "this node has no room for more streams";
        let full = || Problem::too_many("too_many_streams", detail).retry_after(FULL_RETRY);
        let seat = seat.ok_or_else(full)?;
        Ok(Asked { room, since, seat })
    });
    match asked {
        Ok(asked) => {
            let mut response = Response::new(Body::empty());
            let headers = response.headers_mut();
            let kind = HeaderValue::from_static("text/event-stream");
            headers.insert(header::CONTENT_TYPE, kind);
            base::serve::set_stream_headers(headers);
            let stream = Stream(Arc::new(Mutex::new(Some(asked))));
            response.extensions_mut().insert(stream);
            response
        }
        Err(problem) => problem.of_stream(&headers),
    }
}

/// Where a client says that it is. Browsers give a stream up for good that is answered by anything
/// but 200, so what cannot be read is no error: the client is told to begin anew.
fn since_of(headers: &HeaderMap, query: &Fields) -> Since {
    let last = match (headers.get("last-event-id"), query) {
        (Some(id), _) => id.to_str().ok(),
        (None, Ok(Query(fields))) => {
            let mut named = fields.iter().filter(|(name, _)| name == "last_event_id");
            match (named.next(), named.next()) {
                (None, _) => Some(""),
                (Some((_, id)), None) => Some(&id[..]),
                (Some(_), Some(_)) => None,
            }
        }
        (None, Err(_)) => None,
    };
    match last {
        Some("") => Since::Now,
        Some(ids) => {
            parse_since(&ids.split(',').collect::<Vec<_>>()).map_or(Since::Unreadable, Since::At)
        }
        None => Since::Unreadable,
    }
}

async fn mesh(State(hub): State<Hub>) -> Json<serde_json::Value> {
    Json(hub.with(|node, now| {
        let me = node.core.identity();
        let links: Vec<_> = node
            .core
            .links()
            .status(now.mono)
            .iter()
            .map(|link| link_row(node, link))
            .collect();
        let registries: Vec<_> = node
            .view
            .registries
            .iter()
            .map(|registry| json!({ "url": registry.url, "state": registry.state, "error": registry.error }))
            .collect();
        let position: Vec<String> = node
            .core
            .position()
            .iter()
            .map(EntryId::to_string)
            .collect();
        let lost: Vec<_> = node
            .core
            .holes()
            .map(|(origin, hole)| {
                json!({ "origin": origin.as_str(), "after": hole.after, "through": hole.through })
            })
            .collect();
        let lacking: Vec<_> = node
            .core
            .lacking()
            .take(LACKING_MAX)
            .map(|(origin, span)| {
                json!({ "origin": origin.as_str(), "after": span.after, "through": span.through })
            })
            .collect();
        json!({
            "origin": me.origin.as_str(),
            "name": me.name,
            "mesh": node.settings.mesh.as_str(),
            "http": me.http,
            "pub": me.publisher,
            "ready": node.core.is_ready(),
            "registries": registries,
            "links": links,
            "position": position,
            "lost": lost,
            "lacking": lacking,
            "storage": storage_row(node),
            "clients": node.clients.len(),
            "rooms": node.core.members().rooms().count(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": u64::try_from(now.mono.as_millis()).unwrap_or(u64::MAX),
            "counts": counts_row(node),
        })
    }))
}

/// What happened since the start, so that two reads make a rate.
fn counts_row(node: &Node) -> serde_json::Value {
    let counts = node.core.counts();
    json!({
        "said": node.counters.said,
        "deliveries": node.clients.deliveries,
        "gaps": counts.gaps,
        "repaired": counts.repaired,
        "lost": counts.lost,
    })
}

/// Where history is kept, and how that is.
fn storage_row(node: &Node) -> serde_json::Value {
    let state = match node.core.disk_health() {
        None => "memory",
        Some(Health::Fine) => "ok",
        Some(Health::Full(_)) => "full",
        Some(Health::Broken) => "broken",
    };
    let (messages, bytes) = match &node.disk {
        Some(disk) => disk.size(),
        None => {
            let (messages, bytes) = node.core.kept();
            (messages as u64, bytes as u64)
        }
    };
    json!({ "state": state, "messages": messages, "bytes": bytes })
}

fn link_row(node: &Node, link: &LinkStatus) -> serde_json::Value {
    let state = match link.state {
        LinkState::Dialing => "dialing",
        LinkState::Up => "up",
        LinkState::Silent => "silent",
    };
    let log = link.origin.and_then(|origin| node.core.log(origin));
    let counts = log.map(|log| log.counts).unwrap_or_default();
    let peer = link.origin.and_then(|origin| node.core.peers().get(origin));
    let hears_us = node.core.hears_us(link);
    let well = link.state == LinkState::Up && hears_us;
    let fault = link.fault.as_ref().filter(|_| !well);
    json!({
        "origin": link.origin.map(|origin| origin.to_string()),
        "name": link.name,
        "pub": link.publisher,
        "http": link.http,
        "state": state,
        "beat_age_ms": link.beat_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        "lag_ms": peer.map(|peer| peer.lag_us / 1000),
        "hears_us": hears_us,
        "received": counts.received,
        "gaps": counts.gaps,
        "repaired": counts.repaired,
        "lost": counts.lost,
        "reason": fault.map_or("", |fault| fault.why.as_str()),
        "error": fault.map_or("", |fault| fault.text.as_str()),
    })
}

fn room_name(room: Result<Path<String>, PathRejection>) -> Result<RoomName, Problem> {
    let Path(room) = room.map_err(|why| Problem::bad_request(why.body_text()))?;
    room.parse().map_err(refused)
}

fn refused(why: crate::model::names::InvalidName) -> Problem {
    problem_of(Refusal::from(why))
}

fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    let body = crate::wire::protocol::json(body);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
