//! The HTTP/1.1 accept loop of both programs, with the limits that a server on a network needs.
//!
//! It is hyper's plain HTTP/1 connection, not hyper-util's automatic one, so that a service may
//! take the connection over (`hyper::upgrade`) and get the very `TcpStream` back:
//! `upgraded.downcast::<TokioIo<TcpStream>>()`. `axum::serve` would set no timer and no bounds.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tower::{Service, ServiceExt as _};

use crate::process::Tasks;

/// Connections that the kernel holds until they are accepted; more are refused by it.
pub const BACKLOG: u32 = 4096;
/// Pause after a failed accept: without it, running out of files would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// That no connection can be accepted is said this often while it lasts.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// What a connection may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. When all are taken, new ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// Time for a request's head to be complete, from the accept or from the former response.
    /// This also closes idle connections, so clients should let theirs go a little earlier.
    pub head_timeout: Duration,
    /// Header lines in a request; more is answered by 431.
    pub headers_max: usize,
    /// Size of a request's head in bytes, at least 8192; more is answered by 431.
    pub head_bytes_max: usize,
    /// Time for the request in flight when the process stops.
    pub stop_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            head_timeout: Duration::from_secs(10),
            headers_max: 64,
            head_bytes_max: 16 * 1024,
            stop_grace: Duration::from_secs(3),
        }
    }
}

/// Where a request came in; an extension of every request.
///
/// A service that takes the connection over keeps this for as long as it holds the socket: the
/// connection then goes on counting against [`Limits::connections_max`].
#[derive(Debug, Clone)]
pub struct Connection {
    /// The other end.
    pub remote: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

impl Connection {
    /// A connection that does not count against any limit, for tests.
    pub fn new(remote: SocketAddr, local: SocketAddr) -> Self {
        Self {
            remote,
            local,
            _place: None,
        }
    }
}

/// Binds and listens. Accepted sockets inherit TCP_NODELAY, and keepalive and a user timeout, so
/// that a peer that vanished is noticed within half a minute. A port that was just given up can be
/// taken at once.
///
/// # Errors
/// When the address cannot be bound.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::sockopt;
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    sockopt::set_tcp_keepidle(&socket, Duration::from_secs(15))?;
    sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(5))?;
    sockopt::set_tcp_keepcnt(&socket, 3)?;
    sockopt::set_tcp_user_timeout(&socket, 30_000)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Serves until `tasks` stop: then it accepts no more, finishes requests in flight, and closes.
///
/// Each connection is a task of its own. `service` is cloned for each request; an axum `Router`
/// fits. Every request carries a [`Connection`].
///
/// # Errors
/// None today: a failed accept is logged and tried again.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    tasks: Tasks,
    limits: Limits,
) -> anyhow::Result<()>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let stopping = tasks.stopping();
    let (mut full, mut failing) = (Seldom::default(), Seldom::default());
    loop {
        if places.available_permits() == 0 && full.is_due() {
            tracing::warn!("all places for connections are taken; new ones wait");
        }
        // Both branches are cancel safe: a place or a connection that is not taken stays.
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(()),
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, connection)) => {
                tasks.spawn(converse(
                    stream,
                    connection,
                    service.clone(),
                    tasks.clone(),
                    limits,
                ));
            }
            Err(error) if is_the_peers_own(&error) => tracing::debug!("accept: {error}"),
            Err(error) => {
                if failing.is_due() {
                    tracing::warn!("no connection can be accepted for now: {error}");
                }
                tokio::select! {
                    () = stopping.cancelled() => return Ok(()),
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

/// Something to be said now and then while it lasts, and not each time that it is met.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.0.is_none_or(|said| now - said >= SAY_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Connection)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, remote) = listener.accept().await?;
    let local = stream
        .local_addr()
        .unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
    Ok((
        stream,
        Connection {
            remote,
            local,
            _place: Some(Arc::new(place)),
        },
    ))
}

/// One connection, from accept to close or upgrade.
async fn converse<S>(
    stream: TcpStream,
    connection: Connection,
    service: S,
    tasks: Tasks,
    limits: Limits,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let remote = connection.remote;
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        service.clone().oneshot(request)
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut conversation = std::pin::pin!(conversation);
    let stopping = tasks.stopping();
    let ended = tokio::select! {
        ended = conversation.as_mut() => ended,
        () = stopping.cancelled() => {
            conversation.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.stop_grace, conversation).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!(%remote, "cut at the stop"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%remote, "connection ended: {error}");
    }
}

/// Errors of accept that concern only the connection that was lost.
fn is_the_peers_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests;
