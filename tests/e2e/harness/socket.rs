//! One WebSocket, read into a record by a task of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::client::REPLY_WITHIN;
use super::cluster::Node;
use super::spawn;

/// One thing that the node said without being asked.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    pub(crate) at: Instant,
    /// The object; for the bare-text client a string.
    pub(crate) value: Value,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The code of the close frame; 1006 if there was none.
    pub(crate) code: u16,
    pub(crate) reason: String,
}

#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) pushes: Vec<Push>,
    pub(super) waiting: HashMap<u64, oneshot::Sender<Value>>,
    pub(super) closed: Option<Closed>,
    /// `{}` sent and not yet answered.
    pub(super) pings_out: usize,
    /// Answers to pings of this client.
    pub(super) pongs: usize,
    /// Pings of the node.
    pub(super) pings: usize,
}

#[derive(Debug)]
pub(super) struct Inbox {
    record: Mutex<Record>,
    news: watch::Sender<u64>,
}

impl Inbox {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            record: Mutex::default(),
            news: watch::Sender::new(0),
        })
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record());
        self.news.send_modify(|count| *count += 1);
    }

    pub(super) async fn until<T>(
        &self,
        within: Duration,
        what: &str,
        mut look: impl FnMut(&Record) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        let mut news = self.news.subscribe();
        loop {
            news.mark_unchanged();
            if let Some(found) = look(&self.record()) {
                return Ok(found);
            }
            if timeout_at(deadline, news.changed()).await.is_err() {
                let record = self.record();
                let last = record.pushes.last().map(|push| push.value.to_string());
                bail!(
                    "after {within:?} not: {what}; {} pushes came, the last {last:?}, closed: {:?}",
                    record.pushes.len(),
                    record.closed
                );
            }
        }
    }
}

#[derive(Debug)]
pub(super) enum Order {
    Say(Message),
    Drop,
}

/// A socket whose frames are read into a record, and which can stop reading.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) inbox: Arc<Inbox>,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) reads: watch::Sender<bool>,
}

impl Socket {
    pub(super) async fn open(request: Request<()>) -> Result<Self> {
        let (stream, _) = upgrade(request).await?;
        let (mut sink, mut source) = stream.split();
        let inbox = Inbox::new();
        let (orders, mut ordered) = mpsc::unbounded_channel();
        let reads = watch::Sender::new(true);
        let socket = Self {
            inbox: Arc::clone(&inbox),
            orders,
            reads,
        };
        let mut may_read = socket.reads.subscribe();
        let answers = socket.orders.clone();
        let reader = spawn(async move {
            loop {
                // While frozen nothing is taken from the socket, so that TCP pushes back.
                if may_read.wait_for(|&reads| reads).await.is_err() {
                    break;
                }
                match source.next().await {
                    Some(Ok(message)) => {
                        if note(&inbox, message) {
                            let _gone = answers.send(Order::Say(Message::text("{}")));
                        }
                    }
                    Some(Err(_)) | None => break,
                }
            }
            inbox.change(|record| {
                let torn = Closed {
                    code: 1006,
                    reason: "no close frame".to_owned(),
                };
                record.closed.get_or_insert(torn);
                record.waiting.clear();
            });
        });
        spawn(async move {
            while let Some(Order::Say(message)) = ordered.recv().await {
                if sink.send(message).await.is_err() {
                    // The reader sees the end as well, after what came before it.
                    return;
                }
            }
            // Dropped by the test: both halves must go for the TCP connection to close.
            reader.abort();
        });
        Ok(socket)
    }

    pub(super) fn say(&self, message: Message) {
        // A closed connection shows in the record.
        let _gone = self.orders.send(Order::Say(message));
    }
}

/// Takes a frame into the record; whether it was a ping that wants an answer.
fn note(inbox: &Inbox, message: Message) -> bool {
    let at = Instant::now();
    let mut pinged = false;
    match message {
        Message::Text(text) => inbox.change(|record| {
            for line in text.as_str().lines() {
                match serde_json::from_str::<Value>(line) {
                    Ok(Value::Object(object)) if object.is_empty() => {
                        if record.pings_out > 0 {
                            record.pings_out -= 1;
                            record.pongs += 1;
                        } else {
                            record.pings += 1;
                            pinged = true;
                        }
                    }
                    Ok(value) if value.is_object() => {
                        let id = value["id"].as_u64();
                        match id.and_then(|id| record.waiting.remove(&id)) {
                            // The asker may have given up.
                            Some(asker) => drop(asker.send(value)),
                            None => record.pushes.push(Push { at, value }),
                        }
                    }
                    _ => record.pushes.push(Push {
                        at,
                        value: Value::from(line),
                    }),
                }
            }
        }),
        Message::Close(frame) => inbox.change(|record| {
            let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                (frame.code.into(), frame.reason.to_string())
            });
            record.closed.get_or_insert(Closed { code, reason });
        }),
        Message::Pong(_) | Message::Binary(_) | Message::Ping(_) | Message::Frame(_) => {}
    }
    pinged
}

/// Opens a WebSocket to a node of this machine.
///
/// # Errors
/// The node refuses; a refusal by HTTP is a [`tungstenite::Error::Http`] in the chain.
pub(crate) async fn upgrade(
    request: Request<()>,
) -> Result<(
    WebSocketStream<TcpStream>,
    tungstenite::http::Response<Option<Vec<u8>>>,
)> {
    let authority = request
        .uri()
        .authority()
        .context("the URL has a host")?
        .as_str()
        .to_owned();
    let address: SocketAddr = authority.parse()?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(timeout(REPLY_WITHIN, client_async(request, stream)).await??)
}

/// The request that opens a WebSocket at a path of a node.
///
/// # Errors
/// The path is no path.
pub(crate) fn request(node: &Node, path: &str) -> Result<Request<()>> {
    Ok(format!("ws://{}{path}", node.address()).into_client_request()?)
}
