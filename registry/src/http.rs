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
use serde::Serialize;

use crate::api::{self, BODY_BYTES_MAX, InvalidRegistration, Registered, Registration};
use crate::directory::{Put, Refused, millis};
use crate::state::Registry;
use base::problem::{Problem, ProblemCode};
use base::serve::Connection;

/// All routes of a registry. If it is sealed, `/v1/` is for programs that have its secret.
pub(crate) fn router(registry: Registry, is_sealed: bool) -> Router {
    let mut list = Router::new()
        .route("/v1/nodes", get(watching::list))
        .route("/v1/nodes/{id}", put(put_node).delete(delete_node))
        .route("/v1/events", get(watching::events))
        .route("/v1/sd/prometheus", get(discovery::prometheus));
    if is_sealed {
        list = list.layer(axum::middleware::from_fn(only_with_secret));
    }
    list.route("/healthz", get(healthz))
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

async fn only_with_secret(request: Request, next: axum::middleware::Next) -> Response {
    let connection = request.extensions().get::<Connection>();
    if connection.is_some_and(|connection| connection.key.is_some()) {
        return next.run(request).await;
    }
    let detail =
        "this registry has a mesh secret: it is asked over tls://, by programs that have it too";
    Problem::new(StatusCode::FORBIDDEN, api::SECRET_NEEDED, detail).into_response()
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
    let said: Registration = base::body::json(&headers, body, BODY_BYTES_MAX).await?;
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
        registry.metrics_text(),
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
