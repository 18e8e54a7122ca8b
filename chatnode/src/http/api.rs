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
use base::bucket::Rate;
use base::problem::Problem;
use base::rates::Rates;
use base::serve::Connection;
use serde::Serialize;
use serde_json::json;

use super::{FULL_RETRY, problem_of, stopping};
use crate::carriers::broker::bridge::Bridge;
use crate::clients::request::{limit, parse_since, search_of};
use crate::clients::slot::Heard;
use crate::clients::streams::{Asked, Since};
use crate::core::journal::Health;
use crate::core::links::LinkState;
use crate::core::log::Span;
use crate::core::question::{Found, Question, Room};
use crate::discovery::SourceStatus;
use crate::model::names::{EntryId, Mid, Origin, RoomName, UserName};
use crate::shell::status::BusStatus;
use crate::shell::status::{Link, Status, Storage};
use crate::shell::{Handle, Post};
use crate::wire::protocol::{FRAME_BYTES_MAX, HistoryPage, Refusal, check_text};
use crate::wire::refusals::id_unknown;

pub(super) fn routes(node: Handle) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/api/rooms", get(rooms))
        .route("/api/rooms/{room}/messages", get(messages).post(publish))
        .route("/api/rooms/{room}/events", get(events))
        .route("/api/events", get(events_of))
        .route("/api/rooms/{room}/search", get(search))
        .route("/api/mesh", get(mesh))
        .layer(Extension(Arc::<Mutex<Rates>>::default()))
        .with_state(node)
}

async fn readyz(State(node): State<Handle>) -> Response {
    let status = node.status();
    if status.stopping {
        return stopping().into_response();
    }
    if let Some(Health::Broken) = status.storage.health {
        let detail = "this node's disk failed, and the node stops";
        return Problem::unavailable("storage_broken", detail).into_response();
    }
    let mut lacking = match &status.not_linked[..] {
        [] => String::new(),
        lacking => format!("; not linked: {}", lacking.join("; ")),
    };
    let is_told = |it: &&SourceStatus| it.has_other_secret || it.is_down();
    for source in status.sources.iter().filter(is_told) {
        let (url, error) = (&source.url, &source.error);
        lacking.push_str(&format!("; {url}: {error}"));
    }
    if let Some(trouble) = status.keeper.as_ref().and_then(super::keeper::trouble) {
        lacking.push_str(&format!("; {trouble}"));
    }
    if status.ready {
        let behind = match status.lacking_messages {
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

async fn rooms(State(node): State<Handle>) -> Result<Json<serde_json::Value>, Problem> {
    let found = node.ask(Question::Rooms).await.map_err(problem_of)?;
    let Found::Rooms(rooms) = found else {
        return Err(Problem::internal());
    };
    let row = |room: Room| json!({ "room": room.room, "messages": room.messages, "members": room.members });
    let rooms: Vec<_> = rooms.into_iter().map(row).collect();
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
    State(node): State<Handle>,
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
    let page = Question::Page {
        room,
        before,
        limit: limit(query.limit),
    };
    page_of(node.ask(page).await)
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
    State(node): State<Handle>,
    room: Result<Path<String>, PathRejection>,
    query: Result<Query<SearchQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let room = room_name(room)?;
    let Query(query) = query.map_err(|why| Problem::bad_request(why.body_text()))?;
    let before = query.before.as_deref();
    let search = search_of(room.as_str(), &query.q, before, query.limit).map_err(problem_of)?;
    page_of(node.ask(Question::Search(search)).await)
}

/// A page that was found.
fn page_of(found: Result<Found, Refusal>) -> Result<Response, Problem> {
    match found.map_err(problem_of)? {
        Found::Page(page) => Ok(json_response(StatusCode::OK, &HistoryPage::of(&page))),
        _ => Err(problem_of(id_unknown())),
    }
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
    State(node): State<Handle>,
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
    node.ready().await;
    if node.is_stopping() {
        return Err(stopping());
    }
    let (rate_limit, now) = (node.rate_limit(), node.now());
    // 0 is no limit.
    if rate_limit != 0 {
        rates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count(connection.remote.ip(), Rate::messages(rate_limit), now)
            .map_err(|wait| too_fast(rate_limit, wait))?;
    }
    let post = Post {
        room: &room,
        from: &from,
        mid: mid.as_ref(),
        text: &message.text,
        copies: message.copies as usize,
    };
    let said = node.post(post).await.map_err(problem_of)?;
    let copies = said.held.copies;
    let mut body = json!({ "id": said.id.to_string(), "ts": said.ts, "copies": copies });
    if let Some(keeper) = said.held.keeper {
        body["keeper"] = keeper.into();
    }
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

/// A stream of a room.
async fn events(
    State(node): State<Handle>,
    room: Result<Path<String>, PathRejection>,
    query: Fields,
    headers: HeaderMap,
) -> Response {
    stream(&node, room_name(room).map(Heard::Room), &query, &headers)
}

/// A stream of the rooms of a pattern.
async fn events_of(State(node): State<Handle>, query: Fields, headers: HeaderMap) -> Response {
    stream(&node, pattern(&query), &query, &headers)
}

/// The pattern that a query names.
fn pattern(query: &Fields) -> Result<Heard, Problem> {
    let Ok(Query(fields)) = query else {
        return Err(Problem::bad_request("the query cannot be read"));
    };
    let mut named = fields.iter().filter(|(name, _)| name == "rooms");
    let (Some((_, rooms)), None) = (named.next(), named.next()) else {
        return Err(Problem::bad_request("rooms names one pattern"));
    };
    rooms.parse().map(Heard::Pattern).map_err(refused)
}

/// The head of a stream. What follows it is not HTTP's: see [`super::Front`].
fn stream(
    node: &Handle,
    heard: Result<Heard, Problem>,
    query: &Fields,
    headers: &HeaderMap,
) -> Response {
    let since = since_of(headers, query);
    let asked = heard.and_then(|heard| {
        let seat = node.stream_seat();
        let detail = "this node has no room for more streams";
        let full = || Problem::too_many("too_many_streams", detail).retry_after(FULL_RETRY);
        let seat = seat.ok_or_else(full)?;
        Ok(Asked { heard, since, seat })
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
        Err(problem) => problem.of_stream(headers),
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

async fn mesh(State(node): State<Handle>) -> Json<serde_json::Value> {
    let (status, logs) = (node.status(), node.logs());
    let me = node.identity();
    let rows = status.links.iter();
    let links: Vec<_> = rows.map(|row| link_row(row, &status)).collect();
    let buses: Vec<_> = status.buses.iter().map(bus_row).collect();
    let bridges: Vec<_> = status.bridges.iter().map(bridge_row).collect();
    let registries: Vec<_> = status
        .sources
        .iter()
        .map(|source| json!({ "url": source.url, "state": source.state, "error": source.error }))
        .collect();
    let position: Vec<String> = logs.position.iter().map(EntryId::to_string).collect();
    Json(json!({
        "origin": me.origin.as_str(),
        "name": me.name,
        "mesh": node.mesh().as_str(),
        "http": me.http,
        "pub": Some(&me.publisher).filter(|it| !it.is_empty()),
        "ready": status.ready,
        "registries": registries,
        "buses": buses,
        "bridges": bridges,
        "keeper": status.keeper.as_ref().map(super::keeper::row),
        "links": links,
        "position": position,
        "lost": spans(&logs.lost),
        "lacking": spans(&logs.lacking),
        "storage": storage_row(&status.storage),
        "clients": status.clients.all,
        "rooms": status.rooms,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": u64::try_from(status.uptime.as_millis()).unwrap_or(u64::MAX),
        "counts": counts_row(&status),
    }))
}

/// Parts of logs.
fn spans(spans: &[(Origin, Span)]) -> Vec<serde_json::Value> {
    let row = |(origin, span): &(Origin, Span)| json!({ "origin": origin.as_str(), "after": span.after, "through": span.through });
    spans.iter().map(row).collect()
}

/// What happened since the start, so that two reads make a rate.
fn counts_row(status: &Status) -> serde_json::Value {
    json!({
        "said": status.totals.said,
        "deliveries": status.clients.totals.deliveries,
        "gaps": status.counts.gaps,
        "repaired": status.counts.repaired,
        "lost": status.counts.lost,
    })
}

/// Where history is kept, and how that is.
fn storage_row(storage: &Storage) -> serde_json::Value {
    let state = match storage.health {
        None => "memory",
        Some(Health::Fine) => "ok",
        Some(Health::Full(_)) => "full",
        Some(Health::Broken) => "broken",
    };
    json!({ "state": state, "messages": storage.messages, "bytes": storage.bytes })
}

fn word(state: LinkState) -> &'static str {
    match state {
        LinkState::Dialing => "dialing",
        LinkState::Up => "up",
        LinkState::Silent => "silent",
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A bridge to foreign programs.
fn bridge_row(bridge: &Bridge) -> serde_json::Value {
    let (state, why) = bridge.status.now();
    json!({
        "url": bridge.url,
        "state": state,
        "why": why,
        "in": bridge.status.taken.get(),
        "out": bridge.status.published.get(),
        "refused": bridge.status.refused.get(),
        "dropped": bridge.status.dropped.get(),
    })
}

/// A broker by which nodes meet.
fn bus_row(row: &BusStatus) -> serde_json::Value {
    let (bus, gauges) = (&row.bus, &row.bus.gauges);
    let hall = row.hall.as_ref();
    let state = hall.map_or(LinkState::Dialing, |hall| hall.state);
    let fault = hall.and_then(|hall| hall.fault.as_ref());
    // While it carries well, there may still be others whom it brings in vain.
    let fault = match state {
        LinkState::Up => gauges.strangers.now(),
        LinkState::Dialing | LinkState::Silent => fault.cloned(),
    };
    json!({
        "url": bus.url,
        "carrier": bus.carrier,
        "state": word(state),
        "echo_ms": hall.and_then(|hall| hall.echo).map(|echo| echo.as_secs_f64() * 1000.0),
        "beat_age_ms": hall.and_then(|hall| hall.beat_age).map(ms),
        "queue_bytes": gauges.queue_bytes.get(),
        "blocked": gauges.blocked.get() > 0,
        "receivers": gauges.receivers.get(),
        "dials": gauges.dials.get(),
        "published": gauges.published.get(),
        "received": gauges.received.get(),
        "dropped": {
            "away": gauges.dropped_away.get(),
            "full": gauges.dropped_full.get(),
            "unproven": gauges.dropped_unproven.get(),
            "too_long": gauges.dropped_long.get(),
        },
        "refused": gauges.refused.get(),
        "reason": fault.as_ref().map_or("", |fault| fault.why.as_str()),
        "error": fault.as_ref().map_or("", |fault| fault.text.as_str()),
    })
}

fn link_row(row: &Link, status: &Status) -> serde_json::Value {
    let (link, counts) = (&row.link, row.counts);
    let state = word(link.state);
    let well = link.state == LinkState::Up && row.hears_us;
    let fault = link.fault.as_ref().filter(|_| !well);
    json!({
        "origin": link.origin.map(|origin| origin.to_string()),
        "name": link.name,
        "pub": link.publisher,
        "http": link.http,
        "carrier": status.carrier_of(link),
        "state": state,
        "beat_age_ms": link.beat_age.map(ms),
        "lag_ms": row.lag_us.map(|lag| lag / 1000),
        "hears_us": row.hears_us,
        "key": row.key.map(|key| key.to_string()),
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

pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    let body = crate::wire::protocol::json(body);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
