//! The registry's HTTP: routes, and the handlers that read and answer. Waiting is [`watching`]'s.

mod discovery;
mod page;
mod watching;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::Serialize;

use crate::api::{self, BODY_BYTES_MAX, InvalidRegistration, Registered, Registration};
use crate::directory::{Put, Refused, millis};
use crate::metrics;
use crate::problem::{Problem, ProblemCode};
use crate::serve::Connection;
use crate::state::Registry;

/// Time for a request's body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read away, so that its sender gets to read the answer.
const DISCARD_BYTES_MAX: usize = 16 << 20;

/// All routes of a registry.
pub(crate) fn router(registry: Registry) -> Router {
    Router::new()
        .route("/v1/nodes", get(watching::list))
        .route("/v1/nodes/{id}", put(put_node).delete(delete_node))
        .route("/v1/events", get(watching::events))
        .route("/v1/sd/prometheus", get(discovery::prometheus))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics_text))
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::js))
        .fallback(|| async {
            Problem::not_found("there is nothing here; GET /v1/nodes lists the nodes")
        })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(axum::middleware::from_fn_with_state(
            registry.clone(),
            finish,
        ))
        .with_state(registry)
}

/// Counts problems, and sets what every answer carries.
async fn finish(
    State(registry): State<Registry>,
    request: Request,
    next: axum::middleware::Next,
) -> Response {
    let mut response = next.run(request).await;
    if let Some(ProblemCode(code)) = response.extensions().get() {
        registry.metrics().rejected(code);
    }
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

async fn put_node(
    State(registry): State<Registry>,
    connection: Option<Extension<Connection>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = check_id(id)?;
    refuse_browsers(&headers)?;
    if !is_json(&headers) {
        return Err(Problem::unsupported_media_type());
    }
    let body = read_body(&headers, body).await?;
    let said: Registration = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body is no registration: {error}")))?;
    let (put, version) = registry.put(&id, said).await?;
    let status = match put {
        Put::Created { .. } => StatusCode::CREATED,
        Put::Changed { .. } | Put::Renewed => StatusCode::OK,
    };
    let registered = Registered {
        epoch: registry.epoch().to_owned(),
        version,
        lease_ms: millis(registry.lease()),
        renew_ms: millis(registry.lease() / 3),
        observed: connection
            .map(|c| c.remote.ip().to_canonical().to_string())
            .unwrap_or_default(),
    };
    Ok((status, json(&registered)).into_response())
}

async fn delete_node(
    State(registry): State<Registry>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let id = check_id(id)?;
    refuse_browsers(&headers)?;
    registry.leave(&id).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn healthz() -> Response {
    text("text/plain; charset=utf-8", "ok\n")
}

async fn metrics_text(State(registry): State<Registry>) -> Response {
    text(
        "text/plain; version=0.0.4; charset=utf-8",
        metrics::render(&registry),
    )
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Invalid(InvalidRegistration::Endpoint { .. }) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_endpoint", detail)
            }
            Refused::Invalid(InvalidRegistration::Field(_)) => Self::bad_request(detail),
            Refused::Full => Self::unavailable("full", detail).retry_after(Duration::from_secs(2)),
        }
    }
}

fn check_id(id: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    match id {
        Ok(Path(id)) if api::is_id(&id) => Ok(id),
        _ => Err(Problem::bad_request(
            "an id is 1 to 64 letters, digits, '.', '_' or '-'",
        )),
    }
}

/// Browsers put `Origin` on every PUT and DELETE, nodes never do: no web page shall register or
/// remove nodes, not even one that tricked the name of this host into resolving here.
fn refuse_browsers(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(_) => Err(Problem::forbidden(
            "web pages may watch the list, not change it",
        )),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

async fn read_body(headers: &HeaderMap, mut body: Body) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok())
        .unwrap_or(0);
    let read = async {
        let mut kept = BytesMut::new();
        let mut too_large = announced > BODY_BYTES_MAX as u64;
        let mut count = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::bad_request("the body ended early"))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            count += data.len();
            too_large |= count > BODY_BYTES_MAX;
            if count > DISCARD_BYTES_MAX {
                break;
            }
            if !too_large {
                kept.extend_from_slice(&data);
            }
        }
        if too_large {
            Err(Problem::too_large(BODY_BYTES_MAX))
        } else {
            Ok(kept.freeze())
        }
    };
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Problem::timeout(BODY_TIMEOUT)),
    }
}

fn json(value: &impl Serialize) -> Response {
    text(
        "application/json",
        serde_json::to_vec(value).unwrap_or_default(),
    )
}

fn text(kind: &'static str, body: impl Into<Body>) -> Response {
    (
        [(header::CONTENT_TYPE, HeaderValue::from_static(kind))],
        body.into(),
    )
        .into_response()
}

#[cfg(test)]
mod tests;
