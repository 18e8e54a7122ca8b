//! The node's door for HTTP: who may come in, WebSocket upgrades, and the routes.
//!
//! Upgrades are taken before the router: the handshake's checks are here, and the connection then
//! leaves HTTP for good, its socket handed to the node.

pub(crate) mod api;
pub(crate) mod assets;
mod history;
pub(crate) mod hosts;
mod keeper;
pub(crate) mod mesh;
pub(crate) mod metrics;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::response::{IntoResponse as _, Response};
use base::problem::{Problem, ProblemCode};
use base::serve::{self, Connection};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tower::{Service, ServiceExt as _};

use self::hosts::WebOrigin;
use crate::clients::seats::Seat;
use crate::clients::slot::UNSENT_BYTES_MAX;
use crate::clients::streams::{Asked, Line};
use crate::model::names::RoomName;
use crate::shell::Handle;
use crate::wire::protocol::Refusal;

/// What is spoken at `/ws`.
const SUBPROTOCOL: &str = "chat.v1";
/// The room of a plain client that names none.
const ROOM_DEFAULT: &str = "lobby";
/// When to try again, if this node is going away: others take clients now, and it may come back.
const STOPPING_RETRY: Duration = Duration::from_secs(2);

/// What is asked by programs that watch.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What pages of other nodes may read here: the mesh view puts together what each node says.
const SHARED: &str = "/api/mesh";

/// A client takes the answer that a stream cannot be opened within this time.
const REFUSED_MAX: Duration = Duration::from_secs(2);
/// When to try again where there is no room.
const FULL_RETRY: Duration = Duration::from_secs(2);

/// Binds and listens. Accepted sockets inherit what [`serve::listen`] sets, and the bound of what the kernel
/// keeps for a client.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = serve::listen(addr)?;
    // Where the system has no such bound, sockets have their own.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(listener)
}

/// Who may come in.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    /// Where people are told that this node's HTTP is.
    pub(crate) advertised: String,
    /// Web origins that are allowed besides the mesh's own.
    pub(crate) allow_origins: Vec<String>,
    /// Whether there is a mesh secret: then nodes are those who have it, and nobody else.
    pub(crate) is_sealed: bool,
    /// Whether the mesh may be reached from beyond loopback without one.
    pub(crate) insecure_mesh: bool,
}

/// Serves all requests of a node.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    node: Handle,
    doors: Arc<Doors>,
    router: Router,
}

impl Front {
    /// With the routes of the API, the mesh, the metrics and the page.
    pub(crate) fn new(node: Handle, doors: Doors, page: Router) -> Self {
        let doors = Arc::new(doors);
        let router = api::routes(node.clone())
            .merge(mesh::routes(node.clone(), Arc::clone(&doors)))
            .merge(metrics::routes(node.clone()))
            .layer(axum::middleware::map_response(finish))
            .merge(page)
            .method_not_allowed_fallback(|| async { Problem::method_not_allowed() });
        Self {
            node,
            doors,
            router,
        }
    }

    async fn answer(self, request: axum::http::Request<Incoming>) -> Response {
        let Some(connection) = request.extensions().get::<Connection>().cloned() else {
            return Problem::internal().into_response();
        };
        if let Err(problem) = self.check_host(&request, connection.local) {
            return problem.into_response();
        }
        let path = request.uri().path();
        // RFC 9110 section 7.8: to HTTP/1.0 an upgrade means nothing.
        let upgrade = request.version() >= Version::HTTP_11 && wants_websocket(request.headers());
        if path == "/ws" || (path == "/" && upgrade) {
            return match self.handshake(&request, connection.local, upgrade) {
                Ok((response, plain, seat)) => {
                    connection.take_over(|stream, begun, admission| async move {
                        let node = self.node;
                        node.serve_websocket(stream, &begun, plain, seat, admission)
                            .await;
                    });
                    response
                }
                Err(response) => *response,
            };
        }
        if self.node.is_archive() && history::is_asked(&request) {
            return history::answer(&self.node, &request).await;
        }
        let method = request.method().clone();
        let shared = path == SHARED && assets::is_read(request.method());
        let reader = shared.then(|| self.page_that_asks(request.headers(), connection.local));
        // Boxed: it is large, and the many that become a WebSocket have no use for it.
        let mut response = match Box::pin(self.router.oneshot(request)).await {
            Ok(response) => as_problem(response),
            Err(never) => match never {},
        };
        if let Some(reader) = reader {
            share(&mut response, reader);
        }
        let stream = response.extensions_mut().remove::<api::Stream>();
        let asked = stream.and_then(|stream| stream.take());
        match asked.filter(|_| method == Method::GET) {
            Some(asked) => {
                let head = serve::head_of(&response);
                match tell(self.node, &connection, asked, head).await {}
            }
            None => response,
        }
    }

    /// A page of another site may make a browser believe that its name is this node (DNS
    /// rebinding). On loopback, where that is the danger, the name must be one that cannot be
    /// rebound or that is known.
    fn check_host<B>(
        &self,
        request: &axum::http::Request<B>,
        local: SocketAddr,
    ) -> Result<(), Problem> {
        if !local.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let unclear = || Problem::bad_request("Host is one name, and perhaps a port");
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (None, _) => request.uri().host().unwrap_or_default(),
            (Some(host), None) => host.to_str().map_err(|_| unclear())?,
            (Some(_), Some(_)) => return Err(unclear()),
        };
        if host.is_empty() {
            // A browser always names one. Who does not is a plain program, say the check of a load
            // balancer. From HTTP/1.1 on a request must name one (RFC 9112 section 3.2); some
            // checks do not, and a node is not to be taken for dead because of that.
            let probes = PROBES.contains(&request.uri().path());
            if probes || request.version() < Version::HTTP_11 {
                return Ok(());
            }
            return Err(Problem::bad_request("a request names its host"));
        }
        let name = hosts::host_name(host);
        let doors = &self.doors;
        let mut told = doors.allow_origins.iter().chain([&doors.advertised]);
        let known = hosts::is_fixed(name) || told.any(|url| hosts::is_at(url, name));
        if known {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown_host",
            "this node does not know itself by that name; --advertise or --allow-origin tells it",
        ))
    }

    /// The checks of RFC 6455 section 4.2.1, and whose page asks.
    fn handshake(
        &self,
        request: &axum::http::Request<Incoming>,
        local: SocketAddr,
        upgrade: bool,
    ) -> Result<(Response, Option<RoomName>, Seat), Box<Response>> {
        let refuse = |problem: Problem| Box::new(problem.into_response());
        let headers = request.headers();
        self.check_origin(headers, local).map_err(refuse)?;
        if request.method() != Method::GET {
            return Err(Box::new(method_not_allowed("GET")));
        }
        let version = headers
            .get(header::SEC_WEBSOCKET_VERSION)
            .map(HeaderValue::as_bytes);
        if !upgrade || version != Some(b"13") {
            let problem = Problem::new(
                StatusCode::UPGRADE_REQUIRED,
                "upgrade_required",
                "this is a WebSocket endpoint, version 13",
            );
            let mut response = problem.into_response();
            let headers = response.headers_mut();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static("13"),
            );
            return Err(Box::new(response));
        }
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .map(HeaderValue::as_bytes);
        let Some(key) = key.filter(|key| is_key(key)) else {
            return Err(refuse(Problem::bad_request(
                "Sec-WebSocket-Key is sixteen bytes in base64",
            )));
        };
        let plain = match request.uri().path() {
            "/" => Some(room_of(request.uri()).map_err(|why| refuse(problem_of(why)))?),
            _ => None,
        };
        if self.node.is_stopping() {
            return Err(refuse(stopping()));
        }
        let Some(seat) = self.node.seat() else {
            return Err(refuse(full()));
        };
        let accept = tungstenite::handshake::derive_accept_key(key);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let chosen = plain.is_none() && offers_chat(request.headers());
        let headers = response.headers_mut();
        if chosen {
            let name = HeaderValue::from_static(SUBPROTOCOL);
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::from_str(&accept) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        Ok((response, plain, seat))
    }

    /// A browser says whose page asks. It must be this node's, that of a node
    /// which was seen alive (a page outlives the node that served it), or an allowed one;
    /// what says nothing is no browser.
    fn check_origin(&self, headers: &HeaderMap, local: SocketAddr) -> Result<(), Problem> {
        let is_browser = headers.contains_key(header::ORIGIN);
        if !is_browser || self.page_that_asks(headers, local).is_some() {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "origin_not_allowed",
            "pages of that origin may not use this node; --allow-origin allows them",
        ))
    }

    /// The origin of the page that asks, if pages of that origin may use this node.
    fn page_that_asks(&self, headers: &HeaderMap, local: SocketAddr) -> Option<HeaderValue> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = origins.next()?;
        let known = origins.next().is_none()
            && origin
                .to_str()
                .is_ok_and(|origin| self.is_known_origin(origin, local));
        known.then(|| origin.clone())
    }

    fn is_known_origin(&self, origin: &str, local: SocketAddr) -> bool {
        let Some(origin) = WebOrigin::parse(origin) else {
            return false;
        };
        let doors = &self.doors;
        let mut told = doors.allow_origins.iter().chain([&doors.advertised]);
        told.any(|url| origin.is(url))
            || hosts::own_origins(local).iter().any(|url| origin.is(url))
            || self.node.has_seen_node(|url| origin.is(url))
    }
}

impl Service<axum::http::Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<Incoming>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move { Ok(front.answer(request).await) })
    }
}

/// An event stream leaves HTTP: its head, and all that follows, is written by the node.
async fn tell(node: Handle, line: &Connection, asked: Asked, head: Vec<u8>) -> Infallible {
    line.leave(|stream, _, admission| async move {
        let line = Line {
            stream,
            admission,
            head,
        };
        if let Err((refusal, mut stream)) = node.serve_stream(asked, line).await {
            let response = finish(problem_of(refusal).into_response()).await;
            let (head, body) = response.into_parts();
            let head = Response::from_parts(head, ());
            let body = axum::body::to_bytes(body, usize::MAX).await;
            let answer = [&serve::head_of(&head)[..], &body.unwrap_or_default()].concat();
            // Whoever does not take it has gone.
            let _ = tokio::time::timeout(REFUSED_MAX, stream.write_all(&answer)).await;
        }
    })
    .await
}

/// How a refusal looks over HTTP: the one mapping.
pub(crate) fn problem_of(refusal: Refusal) -> Problem {
    let status = match refusal.code {
        "text_too_long" => StatusCode::PAYLOAD_TOO_LARGE,
        "id_unknown" => StatusCode::NOT_FOUND,
        "rate_limited" => StatusCode::TOO_MANY_REQUESTS,
        "overloaded" | "stopping" | "search_slow" | "storage_broken" => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        "storage_full" => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::BAD_REQUEST,
    };
    let problem = Problem::new(status, refusal.code, refusal.message);
    match refusal.retry_ms {
        Some(wait) => problem.retry_after(Duration::from_millis(wait)),
        None => problem,
    }
}

/// What a node that is going away answers to who wants to stay or to be heard.
fn stopping() -> Problem {
    Problem::unavailable("stopping", "this node is going away").retry_after(STOPPING_RETRY)
}

/// What a node answers to one client too many.
fn full() -> Problem {
    Problem::unavailable("overloaded", "this node has no room for more clients")
        .retry_after(FULL_RETRY)
}

/// Lets the page that asks read the answer, and keeps caches from giving it to another.
fn share(response: &mut Response, reader: Option<HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(reader) = reader {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, reader);
    }
}

fn method_not_allowed(allow: &'static str) -> Response {
    let mut response = Problem::method_not_allowed().into_response();
    let allow = HeaderValue::from_static(allow);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

fn nothing_here() -> Problem {
    Problem::not_found("nothing is here")
}

/// What every answer carries but those of the page.
async fn finish(mut response: Response) -> Response {
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

/// Gives errors of the libraries the form that all errors have.
fn as_problem(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.extensions().get::<ProblemCode>().is_some() {
        return response;
    }
    let problem = match status {
        StatusCode::NOT_FOUND => nothing_here(),
        StatusCode::METHOD_NOT_ALLOWED => Problem::method_not_allowed(),
        StatusCode::PRECONDITION_FAILED => {
            Problem::new(status, "precondition_failed", "the file is another by now")
        }
        StatusCode::RANGE_NOT_SATISFIABLE => Problem::new(
            status,
            "range_not_satisfiable",
            "the file has no such part; Content-Range has its size",
        ),
        status if status.is_client_error() => {
            Problem::new(status, "bad_request", "the request cannot be served")
        }
        status => {
            tracing::error!(status = status.as_u16(), "a request failed");
            Problem::internal()
        }
    };
    let mut instead = problem.into_response();
    for name in [header::ALLOW, header::CONTENT_RANGE] {
        if let Some(value) = response.headers().get(&name) {
            instead.headers_mut().insert(name, value.clone());
        }
    }
    instead
}

/// The words of a header that is a list, over all its lines.
fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    let has = |name, due: &str| words(headers, name).any(|word| word.eq_ignore_ascii_case(due));
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket")
}

/// Whether a client offers the one subprotocol that is spoken at `/ws`. A client that offers it is
/// told that it was chosen; one that offers others only is told of none, and then goes.
fn offers_chat(headers: &HeaderMap) -> bool {
    words(headers, header::SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == SUBPROTOCOL)
}

/// Sixteen bytes in base64: 22 characters and two signs of padding.
fn is_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// The room of `?room=`.
fn room_of(uri: &Uri) -> Result<RoomName, Refusal> {
    #[derive(serde::Deserialize)]
    struct Query {
        #[serde(default)]
        room: Option<String>,
    }
    let query = axum::extract::Query::<Query>::try_from_uri(uri);
    let query = query.map_err(|why| Refusal::bad_request(why.to_string()))?;
    Ok(query.0.room.as_deref().unwrap_or(ROOM_DEFAULT).parse()?)
}
