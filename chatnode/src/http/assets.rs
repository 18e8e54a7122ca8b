//! The page: embedded in the binary, or a folder of one's own.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use tower::ServiceExt as _;
use tower_http::services::ServeDir;

use super::{method_not_allowed, nothing_here};

/// The embedded page.
#[derive(Debug, rust_embed::RustEmbed)]
#[folder = "../www"]
struct Page;

/// What the embedded page may do: run its own scripts and style, and talk to any node of the mesh,
/// which are other origins, some to come.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
     style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// What takes files.
const READS: &str = "GET, HEAD";

/// Serves the embedded page.
pub fn embedded() -> Router {
    Router::new().fallback(|method: Method, uri: Uri| async move {
        match file(uri.path()) {
            None => nothing_here().into_response(),
            Some(file) if is_read(&method) => file,
            Some(_) => method_not_allowed(READS),
        }
    })
}

/// Serves a folder.
pub fn folder(dir: &Path) -> Router {
    let files = ServeDir::new(dir);
    Router::new().fallback(|request: Request| async move {
        let reads = is_read(request.method());
        let request = if reads {
            request
        } else {
            // Is there anything that could be read?
            let mut look = Request::new(Body::empty());
            *look.method_mut() = Method::HEAD;
            *look.uri_mut() = request.uri().clone();
            look
        };
        match files.oneshot(request).await {
            Ok(found) if reads || found.status() == StatusCode::NOT_FOUND => found.into_response(),
            Ok(_) => method_not_allowed(READS),
            Err(never) => match never {},
        }
    })
}

fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

fn file(path: &str) -> Option<Response> {
    let path = match path.trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let file = Page::get(path)?;
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
    Some(response)
}
