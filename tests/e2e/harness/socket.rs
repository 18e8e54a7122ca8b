//! One WebSocket, read into a record by a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::client::REPLY_WITHIN;
use super::record::{Closed, Inbox, Record, SharedInbox};
use super::spawn;

/// A node need not answer pings that come faster: two ends that answer answers would never stop.
const PINGED_EVERY: Duration = Duration::from_millis(150);

/// Bytes of a socket's buffer for reading.
const READ_BUFFER: usize = 8 << 10;

#[derive(Debug)]
pub(super) enum Order {
    Say(Message),
    Drop,
}

/// A socket whose frames are read into a record, and which can stop reading.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) inbox: SharedInbox,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) reads: watch::Sender<bool>,
}

impl Socket {
    pub(super) async fn open(request: Request<()>) -> Result<Self> {
        let (stream, _) = upgrade(request).await?;
        let (mut sink, mut source) = stream.split();
        let inbox = Arc::new(Inbox::new());
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
                        for _ in 0..inbox.frame(message) {
                            let _gone = answers.send(Order::Say(Message::text("{}")));
                        }
                    }
                    Some(Err(_)) | None => break,
                }
            }
            let torn = Closed {
                code: 1006,
                reason: "no close frame".to_owned(),
            };
            inbox.change(|record| record.ended(torn));
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

    /// Sends `{}`, after these lines in the same frame, and waits for the answer.
    pub(super) async fn ping(&self, lines: &str, within: Duration) -> Result<()> {
        let last = self.inbox.record().pinged_at;
        sleep_until(last.map_or_else(Instant::now, |at| at + PINGED_EVERY)).await;
        let before = {
            let mut record = self.inbox.record();
            record.pings_out += 1;
            record.pinged_at = Some(Instant::now());
            record.pongs
        };
        self.say(Message::text(format!("{lines}{{}}")));
        let answered = |record: &Record| (record.pongs > before).then_some(());
        self.inbox
            .until(within, "a ping is answered", answered)
            .await
    }
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
    // The default is 128 KiB, filled at once: too much for thousands of them.
    let small = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    let opening = client_async_with_config(request, stream, Some(small));
    Ok(timeout(REPLY_WITHIN, opening).await??)
}

/// The request that opens a WebSocket at a path of a node's HTTP endpoint.
pub(crate) fn request(http: &str, path: &str) -> Result<Request<()>> {
    let address = http.trim_start_matches("http://");
    Ok(format!("ws://{address}{path}").into_client_request()?)
}
