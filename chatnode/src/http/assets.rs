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

/// What an embedded page may do: run its own scripts and style, and talk to any node of the mesh,
/// which are other origins, some to come, in the one way that it needs.
macro_rules! policy {
    ($nodes:literal) => {
        concat!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; ",
            "connect-src 'self' ",
            $nodes,
            "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; ",
            "require-trusted-types-for 'script'"
        )
    };
}

/// The chat opens WebSockets.
const CHAT_POLICY: &str = policy!("ws: wss:");
/// The mesh view reads `/api/mesh`.
const MESH_POLICY: &str = policy!("http: https:");

/// The mesh view has a name without an ending; its parts lie in the folder beside it.
const MESH_VIEW: &str = "/mesh";
const MESH_FILE: &str = "/mesh.html";

/// What takes files.
const READS: &str = "GET, HEAD";

/// Serves the embedded page.
pub(crate) fn embedded() -> Router {
    Router::new().fallback(|method: Method, uri: Uri| async move {
        match file(uri.path()) {
            None => nothing_here().into_response(),
            Some(file) if is_read(&method) => file,
            Some(_) => method_not_allowed(READS),
        }
    })
}

/// Serves a folder.
pub(crate) fn folder(dir: &Path) -> Router {
    let files = ServeDir::new(dir);
    Router::new().fallback(|mut request: Request| async move {
        if request.uri().path() == MESH_VIEW {
            *request.uri_mut() = Uri::from_static(MESH_FILE);
        }
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

pub(super) fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

fn file(path: &str) -> Option<Response> {
    let path = match path {
        "/" => "/index.html",
        MESH_VIEW => MESH_FILE,
        path => path,
    };
    let file = Page::get(path.trim_start_matches('/'))?;
    let policy = match path {
        MESH_FILE => MESH_POLICY,
        _ => CHAT_POLICY,
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
        (header::CONTENT_SECURITY_POLICY, policy),
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
