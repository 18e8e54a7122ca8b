//! The HTTP/1.1 accept loop of both programs, with the limits that a server on a network needs.
//!
//! It is hyper's plain HTTP/1 connection, not hyper-util's automatic one, so that a service may
//! take the connection over ([`Connection::take_over`]) and get the very `TcpStream` back, without
//! the task and the channel of `hyper::upgrade`. `axum::serve` would set no timer and no bounds. With a
//! mesh secret the same port takes TLS too: [`door`].

pub mod door;

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tower::{Service, ServiceExt as _};

use self::door::{Came, Door};
use crate::process::Tasks;
use crate::tls::KeyId;

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
            stop_grace: Duration::from_secs(2),
        }
    }
}

/// Where a request came in; an extension of every request.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The other end.
    pub remote: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// The key of the mesh that the other end has shown. Without one it speaks plain HTTP, and may be
    /// anybody.
    pub key: Option<KeyId>,
    admission: Admission,
    handover: Arc<Handover>,
}

/// The addresses of a connection.
#[derive(Debug, Clone, Copy)]
struct Ends {
    remote: SocketAddr,
    local: SocketAddr,
}

/// What goes on with a connection that leaves HTTP, and whether it does so before an answer.
#[derive(Debug, Default)]
struct Handover {
    taker: Mutex<Option<Taker>>,
    now: Notify,
}

/// A connection's place among [`Limits::connections_max`]: taken until the last clone is dropped.
/// The default counts against no limit.
#[derive(Debug, Clone, Default)]
pub struct Admission(
    #[expect(dead_code, reason = "dropping it is its use")] Option<Arc<OwnedSemaphorePermit>>,
);

/// What goes on with a connection that leaves HTTP.
struct Taker(Box<dyn FnOnce(TcpStream, Bytes) -> TakenOver + Send>);

type TakenOver = Pin<Box<dyn Future<Output = ()> + Send>>;

impl fmt::Debug for Taker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taker")
    }
}

impl Connection {
    fn new(ends: Ends, key: Option<KeyId>, place: OwnedSemaphorePermit) -> Self {
        Self {
            remote: ends.remote,
            local: ends.local,
            key,
            admission: Admission(Some(Arc::new(place))),
            handover: Arc::default(),
        }
    }

    /// Takes a plain connection over, for a service that is about to answer 101: once the answer has
    /// been written, `taker` gets the socket, what came behind the request, and the place that the
    /// connection has, to be kept for as long as the socket is open.
    pub fn take_over<F>(
        &self,
        taker: impl FnOnce(TcpStream, Bytes, Admission) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let admission = self.admission.clone();
        let taker: Box<dyn FnOnce(TcpStream, Bytes) -> TakenOver + Send> =
            Box::new(move |stream, begun| Box::pin(taker(stream, begun, admission)));
        *self.taker() = Some(Taker(taker));
    }

    /// Takes the connection over before it is answered: `taker` gets what [`Connection::take_over`]
    /// gives, and writes the answer itself. A service awaits this, which never returns. What answers
    /// to requests before it are not written yet is lost: only a client that sends requests on one
    /// connection without waiting for answers, and does not read these, could notice.
    pub async fn leave<F>(
        &self,
        taker: impl FnOnce(TcpStream, Bytes, Admission) -> F + Send + 'static,
    ) -> Infallible
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.take_over(taker);
        self.handover.now.notify_one();
        std::future::pending().await
    }

    fn taker(&self) -> MutexGuard<'_, Option<Taker>> {
        self.handover
            .taker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
/// fits. Every request carries a [`Connection`]. Without a door the port speaks plain HTTP only.
///
/// # Errors
/// None today: a failed accept is logged and tried again.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    tasks: Tasks,
    limits: Limits,
    door: Option<Door>,
) -> anyhow::Result<()>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + Sync + Unpin + 'static,
    S::Future: Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections_max));
    // All connections have it, unless the listener takes those to any address.
    let local = listener.local_addr().ok();
    let local = local.filter(|local| !local.ip().to_canonical().is_unspecified());
    let stopping = tasks.stopping();
    let (mut full, mut failing) = (Seldom::default(), Seldom::default());
    loop {
        if places.available_permits() == 0 && full.is_due() {
            tracing::warn!("all places for connections are taken; new ones wait");
        }
        // All branches are cancel safe: a place or a connection that is not taken stays.
        let accepted = tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(()),
            accepted = accept(&listener, local, door.is_none().then_some(&places)) => accepted,
        };
        let (tasks_of_it, service) = (tasks.clone(), service.clone());
        match (accepted, &door) {
            (Ok((stream, ends, Some(place))), _) => {
                let connection = Connection::new(ends, None, place);
                tasks.spawn(converse(stream, connection, service, tasks_of_it, limits));
            }
            (Ok((stream, ends, None)), Some(door)) => {
                let arrival = door.arrive(ends.remote.ip());
                let (door, places) = (door.clone(), Arc::clone(&places));
                let stopping = tasks.stopping();
                tasks.spawn(async move {
                    let came = door.let_in(stream, ends.remote, arrival);
                    let Some(came) = stopping.run_until_cancelled(came).await else {
                        return;
                    };
                    come_in(&door, came, ends, &places, service, tasks_of_it, limits).await;
                });
            }
            (Ok((_, _, None)), None) => unreachable!("without a door each has a place"),
            (Err(error), _) if is_the_peers_own(&error) => tracing::debug!("accept: {error}"),
            (Err(error), _) => {
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

/// The next connection, once there is a place for it, if it is to have one.
async fn accept(
    listener: &TcpListener,
    local: Option<SocketAddr>,
    places: Option<&Arc<Semaphore>>,
) -> io::Result<(TcpStream, Ends, Option<OwnedSemaphorePermit>)> {
    let place = match places {
        Some(places) => Some(Arc::clone(places).acquire_owned().await),
        None => None,
    };
    let place = place.transpose().map_err(io::Error::other)?;
    let (stream, remote) = listener.accept().await?;
    let unknown = (Ipv4Addr::UNSPECIFIED, 0).into();
    let local = local.unwrap_or_else(|| stream.local_addr().unwrap_or(unknown));
    Ok((stream, Ends { remote, local }, place))
}

/// Behind the door. A client for which there is no place waits before it.
async fn come_in<S>(
    door: &Door,
    came: Came,
    ends: Ends,
    places: &Arc<Semaphore>,
    service: S,
    tasks: Tasks,
    limits: Limits,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + Unpin + 'static,
    S::Future: Send + 'static,
{
    match came {
        Came::Plain(stream, arrival) => {
            let place = Arc::clone(places).acquire_owned();
            let place = arrival.shown_out.run_until_cancelled(place).await;
            if let Some(Ok(place)) = place {
                drop(arrival);
                let connection = Connection::new(ends, None, place);
                converse(stream, connection, service, tasks, limits).await;
            }
        }
        Came::Call(stream, key, place) => {
            let connection = Connection::new(ends, Some(key), place);
            let talk = async {
                let left = talk(*stream, &connection, service, tasks, limits).await;
                if let Some((mut stream, _)) = left {
                    // So that the other side knows that nothing was cut off.
                    let _ = tokio::time::timeout(limits.stop_grace, stream.shutdown()).await;
                }
            };
            // A connection survives its key: whoever asks on and on would stay.
            tokio::select! {
                biased;
                () = door.removed(key) => {}
                () = talk => {}
            }
        }
        Came::Nobody => {}
    }
}

/// One plain connection, from accept to close or upgrade.
async fn converse<S>(
    stream: TcpStream,
    connection: Connection,
    service: S,
    tasks: Tasks,
    limits: Limits,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + Unpin + 'static,
    S::Future: Send + 'static,
{
    let left = talk(stream, &connection, service, tasks, limits).await;
    let taker = connection.taker().take();
    if let (Some((stream, begun)), Some(Taker(taker))) = (left, taker) {
        taker(stream, begun).await;
    }
}

/// Speaks HTTP until the connection ends, or leaves HTTP: then it comes back, with what came behind the
/// last request.
async fn talk<I, S>(
    stream: I,
    connection: &Connection,
    service: S,
    tasks: Tasks,
    limits: Limits,
) -> Option<(I, Bytes)>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + Unpin + 'static,
    S::Future: Send + 'static,
{
    let remote = connection.remote;
    let said = connection.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(said.clone());
        Box::pin(service.clone().oneshot(request))
    });
    let mut conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max)
        .serve_connection(TokioIo::new(stream), service);
    let stopping = tasks.stopping();
    let ended = tokio::select! {
        biased;
        ended = poll_fn(|cx| conversation.poll_without_shutdown(cx)) => Some(ended),
        () = connection.handover.now.notified() => Some(Ok(())),
        () = stopping.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut conversation).graceful_shutdown();
            let rest = poll_fn(|cx| conversation.poll_without_shutdown(cx));
            match tokio::time::timeout(limits.stop_grace, rest).await {
                Ok(ended) => ended,
                Err(_) => {
                    tracing::debug!(%remote, "cut at the stop");
                    return None;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%remote, "connection ended: {error}");
        return None;
    }
    let parts = conversation.into_parts();
    Some((parts.io.into_inner(), parts.read_buf))
}

/// What a stream of events carries so that each event goes on at once, through whatever stands
/// between: nginx is not to gather them, nobody to pack or to keep them.
pub fn set_stream_headers(headers: &mut HeaderMap) {
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    let fresh = HeaderValue::from_static("no-cache, no-store, no-transform");
    headers.insert(header::CACHE_CONTROL, fresh);
}

/// The head of an answer that goes on until the connection ends, as it stands on the wire.
pub fn head_of<B>(response: &axum::http::Response<B>) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    // Its length is not known.
    let headers = response.headers().iter();
    for (name, value) in headers.filter(|(name, _)| *name != header::CONTENT_LENGTH) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    #[expect(clippy::disallowed_methods, reason = "only for people, as HTTP asks")]
    let now = httpdate::fmt_http_date(std::time::SystemTime::now());
    head.extend_from_slice(format!("date: {now}\r\nconnection: close\r\n\r\n").as_bytes());
    head
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
