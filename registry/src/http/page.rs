//! The page for people: embedded, under a policy that lets it load and talk to itself only.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

use super::text;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`
pub(super) async fn html() -> Response {
    page(
        "text/html; charset=utf-8",
        include_str!("../page/index.html"),
    )
}

/// `GET /page.css`
pub(super) async fn css() -> Response {
    page("text/css; charset=utf-8", include_str!("../page/page.css"))
}

/// `GET /page.js`
pub(super) async fn js() -> Response {
    page(
        "text/javascript; charset=utf-8",
        include_str!("../page/page.js"),
    )
}

fn page(kind: &'static str, body: &'static str) -> Response {
    let mut response = text(kind, body);
    let headers: [(HeaderName, &'static str); 2] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
