//! The textbook's history service, as an archive answers it: `GET /?lt=ID`, the last ten messages before one.
//!
//! Its chat server asks at `http://localhost:8090`, without a path, so the address is that of the page. A
//! browser says that it wants HTML, and gets the page.

use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base::problem::Problem;
use serde::Serialize;
use url::form_urlencoded;

use super::api::json_response;
use super::problem_of;
use crate::core::question::{Found, Question};
use crate::core::saying::PLAIN_ROOM;
use crate::model::entry::Entry;
use crate::model::names::EntryId;
use crate::shell::Handle;
use crate::wire::protocol::Refusal;
use crate::wire::refusals::id_unknown;

/// Messages of an answer.
const LIMIT: usize = 10;
/// Before which message it ends.
const BEFORE: &str = "lt";

/// A message, as the textbook's programs know one.
#[derive(Debug, Serialize)]
struct Message<'a> {
    id: String,
    text: std::borrow::Cow<'a, str>,
    /// Milliseconds since 1970.
    timestamp: u64,
}

/// Whether this asks the history service, and not for the page.
pub(super) fn is_asked<B>(request: &Request<B>) -> bool {
    let accepts = request.headers().get_all(header::ACCEPT).iter();
    let mut accepts = accepts.filter_map(|it| it.to_str().ok());
    let wants_page = accepts.any(|it| it.contains("text/html"));
    let is_here = request.uri().path() == "/" && request.method() == Method::GET;
    is_here && (before(request).is_some() || !wants_page)
}

fn before<B>(request: &Request<B>) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (_, before) = pairs.find(|(name, _)| name == BEFORE)?;
    Some(before.into_owned())
}

/// The last messages of the plain form's room, oldest first.
pub(super) async fn answer<B>(node: &Handle, request: &Request<B>) -> Response {
    let before = before(request).filter(|before| !before.is_empty());
    match page(node, before).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn page(node: &Handle, before: Option<String>) -> Result<Response, Problem> {
    let before: Option<EntryId> = before
        .map(|id| id.parse())
        .transpose()
        .map_err(|why| problem_of(Refusal::from(why)))?;
    let question = Question::Page {
        room: PLAIN_ROOM.parse().expect("a valid room name"),
        before,
        limit: LIMIT,
    };
    let Found::Page(page) = node.ask(question).await.map_err(problem_of)? else {
        return Err(problem_of(id_unknown()));
    };
    let message = |entry: &Entry| {
        Some(Message {
            id: entry.id().to_string(),
            text: entry.text()?.into_owned().into(),
            timestamp: entry.ts / 1000,
        })
    };
    let messages = page.entries.iter().filter_map(|entry| message(entry));
    let messages: Vec<Message<'_>> = messages.collect();
    let mut response = json_response(StatusCode::OK, &messages);
    // At this address others get the page.
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
