//! Those who wait for a change: long polls and event streams.
//!
//! A waiting request holds a place and a handle on the newest snapshot, and nothing else. When it
//! wakes it sends what is newest then: however slow a reader is, it has no queue here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::text;
use crate::api::WAIT_MAX;
use crate::state::{Registry, Snapshot};
use base::problem::Problem;

/// Pause after which an event stream without news gets a comment, so that dead ends are noticed.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// What an event stream begins with: browsers reconnect after this many milliseconds.
const RETRY: &[u8] = b"retry: 1000\n\n";

/// The query of a list.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    since: Option<String>,
    wait: Option<String>,
}

/// `GET /v1/nodes`
pub(super) async fn list(
    State(registry): State<Registry>,
    query: Result<Query<ListQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let preferred = preferred_wait(&headers);
    let wait = match query.wait.as_deref().or(preferred) {
        Some(text) => parse_wait(text)?,
        None => Duration::ZERO,
    };
    let mut updates = registry.watch();
    let known = Arc::clone(&updates.borrow_and_update());
    let is_known = match &query.since {
        Some(since) => *since == known.listing.token,
        None => names_etag(&headers, &known.etag),
    };
    let mut response = if !is_known {
        whole(&known)
    } else if wait.is_zero() {
        unchanged(&known)
    } else {
        let _place = registry.place().ok_or_else(too_many)?;
        // Waits that began together do not end together.
        let wait = wait.mul_f64(rand::random_range(0.9..=1.0));
        let change = tokio::time::timeout(wait, updates.changed());
        tokio::select! {
            biased;
            () = registry.stopping() => unchanged(&known),
            change = change => match change {
                Ok(Ok(())) => whole(&updates.borrow()),
                _ => unchanged(&known),
            },
        }
    };
    if query.wait.is_none() && preferred.is_some() {
        let applied = HeaderValue::try_from(format!("wait={}", wait.as_secs_f64()));
        let name = HeaderName::from_static("preference-applied");
        response
            .headers_mut()
            .extend(applied.map(|value| (name, value)));
    }
    Ok(response)
}

/// `GET /v1/events`
pub(super) async fn events(State(registry): State<Registry>, headers: HeaderMap) -> Response {
    let Some(place) = registry.place() else {
        return too_many().of_stream(&headers);
    };
    let mut updates = registry.watch();
    let known = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok());
    if known != Some(&updates.borrow().listing.token) {
        updates.mark_changed();
    }
    let stream = EventStream {
        registry,
        updates,
        place,
        begun: false,
    };
    let body = Body::from_stream(futures::stream::unfold(stream, EventStream::next));
    let mut response = text("text/event-stream", body);
    base::serve::set_stream_headers(response.headers_mut());
    response
}

struct EventStream {
    registry: Registry,
    updates: tokio::sync::watch::Receiver<Arc<Snapshot>>,
    place: OwnedSemaphorePermit,
    begun: bool,
}

impl EventStream {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if !self.begun {
            self.begun = true;
            return Some((Ok(Bytes::from_static(RETRY)), self));
        }
        let change = tokio::time::timeout(COMMENT_EVERY, self.updates.changed());
        let bytes = tokio::select! {
            biased;
            () = self.registry.stopping() => None,
            change = change => match change {
                Ok(Ok(())) => Some(self.updates.borrow_and_update().event.clone()),
                Ok(Err(_)) => None,
                Err(_) => Some(Bytes::from_static(b": still here\n\n")),
            },
        };
        bytes.map(|bytes| (Ok(bytes), self))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        tracing::trace!(places = self.place.num_permits(), "an event stream ended");
    }
}

fn whole(snapshot: &Snapshot) -> Response {
    let mut response = text("application/json", snapshot.body.clone());
    let headers = response.headers_mut();
    headers.insert(header::ETAG, snapshot.etag.clone());
    headers.insert(header::AGE, HeaderValue::from(snapshot.age_seconds()));
    response
}

fn unchanged(snapshot: &Snapshot) -> Response {
    let etag = [(header::ETAG, snapshot.etag.clone())];
    (StatusCode::NOT_MODIFIED, etag).into_response()
}

fn too_many() -> Problem {
    Problem::too_many(
        "too_many_watchers",
        "as many wait for changes as can; ask without wait",
    )
    .retry_after(Duration::from_secs(1))
}

/// Seconds, with or without a fraction; more than the longest wait is the longest wait.
fn parse_wait(text: &str) -> Result<Duration, Problem> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => {
            Ok(Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64())))
        }
        _ => Err(Problem::bad_request(
            "wait is a number of seconds, 0 or more",
        )),
    }
}

/// The wait in a `Prefer` header, such as `Prefer: wait=30`.
fn preferred_wait(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .filter_map(|preference| preference.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .map(|(_, seconds)| seconds.trim().trim_matches('"'))
}

/// Whether an `If-None-Match` header names this tag, weak or strong, alone or in a list.
fn names_etag(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let tag = etag.as_bytes();
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        value.as_bytes().split(|b| *b == b',').any(|one| {
            let one = one.trim_ascii();
            one.strip_prefix(b"W/").unwrap_or(one) == tag
        })
    })
}
