//! Errors as every HTTP client meets them: RFC 9457 `application/problem+json` with a stable
//! `code`. Both programs use it, so that an error looks alike wherever it comes from.
//!
//! ```json
//! {"type":"about:blank","title":"Not Found","status":404,"code":"not_found","detail":"…"}
//! ```

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// When a stream comes again for which nothing else was said.
const STREAM_RETRY: Duration = Duration::from_secs(2);

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    retry: Option<Duration>,
}

/// The `code` of a problem, as an extension of its response, for those that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemCode(pub &'static str);

/// The body of a problem, as a client reads it. Fields that are not there are empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemBody {
    /// Always `about:blank`: `code` tells which problem it is.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The status in words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// Which problem, in a word that does not change.
    #[serde(default)]
    pub code: String,
    /// What is wrong with this request, for a person.
    #[serde(default)]
    pub detail: String,
    /// When trying again makes sense, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

impl Problem {
    /// A problem of any kind. `code` is a stable word in snake case; `detail` is for a person.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry: None,
        }
    }

    /// 400 `bad_request`: the request cannot be understood.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// 403 `forbidden`.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404 `not_found`.
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 405 `method_not_allowed`. The `Allow` header is the router's to add.
    pub fn method_not_allowed() -> Self {
        let detail = "this address does not take this method; the Allow header lists what it takes";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    /// 408 `timeout`: the request's body did not come in time.
    pub fn timeout(limit: Duration) -> Self {
        let detail = format!("the body did not come within {} s", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail)
    }

    /// 413 `too_large`.
    pub fn too_large(bytes_max: usize) -> Self {
        let detail = format!("the body is larger than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// 415 `unsupported_media_type`: the body must be JSON and say so.
    pub fn unsupported_media_type() -> Self {
        let detail = "send the body as JSON, with the header Content-Type: application/json";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            detail,
        )
    }

    /// 429 with this code.
    pub fn too_many(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail)
    }

    /// 500 `internal`. Says nothing of the cause: log that where it is met.
    pub fn internal() -> Self {
        let detail = "something went wrong here; it has been logged";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// 503 with this code.
    pub fn unavailable(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }

    /// Says when trying again makes sense: `Retry-After` (whole seconds, rounded up) and
    /// `retry_ms`.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self {
            retry: Some(wait),
            ..self
        }
    }

    /// The answer to who asked for a stream of events. Browsers give a stream up for good that is
    /// answered by anything but 200; so one that says that it wants events, and for which there is
    /// no room (429), gets a stream that ends at once and tells when to come again. A 503 stays
    /// one: a load balancer that sees it asks the next server.
    pub fn of_stream(self, asked: &HeaderMap) -> Response {
        let mut accepted = asked.get_all(header::ACCEPT).iter();
        let wants = accepted.any(|line| {
            line.to_str()
                .is_ok_and(|line| line.contains("text/event-stream"))
        });
        if !wants || self.status != StatusCode::TOO_MANY_REQUESTS {
            return self.into_response();
        }
        let wait = self.retry.unwrap_or(STREAM_RETRY).as_millis();
        let body = format!(": {self}\nretry: {wait}\n\n");
        let kind = HeaderValue::from_static("text/event-stream");
        let mut response = ([(header::CONTENT_TYPE, kind)], body).into_response();
        crate::serve::set_stream_headers(response.headers_mut());
        response.extensions_mut().insert(ProblemCode(self.code));
        response
    }

    /// The body that a client gets.
    pub fn body(&self) -> ProblemBody {
        ProblemBody {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail.clone().into_owned(),
            retry_ms: self
                .retry
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(ProblemCode(self.code));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_is_json_with_a_stable_code() {
        let problem = Problem::unavailable("full", "4096 nodes are registered")
            .retry_after(Duration::from_millis(1500));
        let response = problem.clone().into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.extensions().get(), Some(&ProblemCode("full")));
        let bytes = axum::body::to_bytes(response.into_body(), 1000)
            .await
            .unwrap();
        insta::assert_snapshot!(
            str::from_utf8(&bytes).unwrap(),
            @r#"{"type":"about:blank","title":"Service Unavailable","status":503,"code":"full","detail":"4096 nodes are registered","retry_ms":1500}"#
        );
        assert_eq!(
            serde_json::from_slice::<ProblemBody>(&bytes).unwrap(),
            problem.body()
        );
    }
}
