//! The page: embedded in the binary, or a folder of one's own.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use registry::problem::Problem;
use tower_http::services::ServeDir;

/// The embedded page.
#[derive(Debug, rust_embed::RustEmbed)]
#[folder = "../www"]
struct Page;

/// What the embedded page may do: run its own scripts and style, and talk to any node of the mesh,
/// which are other origins, some to come.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
     style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Serves the embedded page.
pub fn embedded() -> Router {
    Router::new().fallback(get(|uri: Uri| async move { file(uri.path()) }))
}

/// Serves a folder.
pub fn folder(dir: &Path) -> Router {
    Router::new().fallback_service(ServeDir::new(dir))
}

fn file(path: &str) -> Response {
    let path = match path.trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let Some(file) = Page::get(path) else {
        return Problem::not_found("nothing is here").into_response();
    };
    let kind = match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    };
    let mut response = Response::new(Body::from(file.data));
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
