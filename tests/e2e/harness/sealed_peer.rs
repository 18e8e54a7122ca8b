//! Programs that have the mesh secret and say what they like: one that dials a node, and one that a
//! node dials. Their bytes are made here, from PROTOCOL.md.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use base::tls::{ALPN_BUS, ALPN_HTTP, KeyRing};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::false_peer::Face;

/// Kinds of records.
pub(crate) const HELLO: u8 = 0;
pub(crate) const LOG: u8 = 1;
pub(crate) const BEAT: u8 = 2;
/// The name that whoever dials gives; nobody looks at it.
const NAME: &str = "chatmesh.invalid";

/// A record: length, kind, body.
pub(crate) fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&head(kind, body.len())[..], body].concat()
}

/// What stands before a body of this length.
pub(crate) fn head(kind: u8, body_len: usize) -> Vec<u8> {
    let len = u32::try_from(body_len + 1).expect("a length of four bytes");
    [&len.to_be_bytes()[..], &[kind]].concat()
}

/// The hello of this origin.
pub(crate) fn hello(origin: &str) -> Vec<u8> {
    let said = json!({ "protocol": 1, "origin": origin, "mesh": "main" });
    record(HELLO, said.to_string().as_bytes())
}

/// A beat of this origin, which hears these.
pub(crate) fn beat(origin: &str, hears: &[&str]) -> Vec<u8> {
    let face = Face {
        origin: origin.to_owned(),
        url: "http://127.0.0.1:9".to_owned(),
        publishes: "tls://127.0.0.1:9".to_owned(),
        claims: Vec::new(),
    };
    let hears: BTreeSet<String> = hears.iter().map(|&it| it.to_owned()).collect();
    record(BEAT, &face.beat(&hears))
}

/// Shakes hands with who listens there, as a client of this configuration.
///
/// # Errors
/// What TLS says.
pub(crate) async fn shake_hands(
    address: &str,
    config: ClientConfig,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME)?;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}

/// A link with a node; of either side.
#[derive(Debug)]
pub(crate) struct FalseLink<S> {
    stream: S,
    came: Vec<u8>,
}

impl FalseLink<tokio_rustls::client::TlsStream<TcpStream>> {
    /// Dials the node as one that has its keys; the handshake is over, nothing was said.
    pub(crate) async fn dial(address: &str, keys: &KeyRing) -> Result<Self> {
        let stream = shake_hands(address, keys.client(ALPN_BUS)).await?;
        Ok(Self {
            stream,
            came: Vec::new(),
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> FalseLink<S> {
    /// Says something.
    pub(crate) async fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next record.
    pub(crate) async fn record(&mut self, within: Duration) -> Result<(u8, Vec<u8>)> {
        loop {
            if let [a, b, c, d, kind, ..] = self.came[..] {
                let end = 4 + usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
                if self.came.len() >= end {
                    let body = self.came[5..end].to_vec();
                    self.came.drain(..end);
                    return Ok((kind, body));
                }
            }
            let read = timeout(within, self.stream.read_buf(&mut self.came)).await;
            let count = read.context("no record in time")??;
            ensure!(count > 0, "the link ended");
        }
    }

    /// The hello of the other side.
    pub(crate) async fn hello(&mut self, within: Duration) -> Result<Value> {
        let (kind, body) = self.record(within).await?;
        ensure!(kind == HELLO, "a record of kind {kind} and no hello");
        Ok(serde_json::from_slice(&body)?)
    }

    /// Reads on until the other side ends the link. How many bytes it said before.
    ///
    /// # Errors
    /// It does not, in this time.
    pub(crate) async fn ended(&mut self, within: Duration) -> Result<usize> {
        let mut count = self.came.len();
        let mut piece = vec![0; 64 << 10];
        let ended = timeout(within, async {
            loop {
                match self.stream.read(&mut piece).await {
                    Ok(0) => return Ok(()),
                    Ok(more) => count += more,
                    // An end without a word, or one in the middle of what was said.
                    Err(why) if is_end(&why) => return Ok(()),
                    Err(why) => bail!("ended by something else: {why}"),
                }
            }
        });
        ended
            .await
            .with_context(|| format!("the link still stands after {within:?}"))??;
        Ok(count)
    }
}

/// Whether the other side has ended the connection.
fn is_end(why: &std::io::Error) -> bool {
    let kinds = [
        ErrorKind::UnexpectedEof,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
    ];
    kinds.contains(&why.kind())
}

/// One that nodes dial; it takes links one after another.
#[derive(Debug)]
pub(crate) struct FalseNode {
    listener: TcpListener,
    config: Arc<ServerConfig>,
    /// `tls://127.0.0.1:PORT`.
    pub(crate) publishes: String,
}

/// A link that a node has dialled.
pub(crate) type Dialled = FalseLink<tokio_rustls::server::TlsStream<TcpStream>>;

impl FalseNode {
    /// One with these keys.
    pub(crate) async fn new(keys: &KeyRing) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Ok(Self {
            publishes: format!("tls://{}", listener.local_addr()?),
            listener,
            config: keys.server(&[ALPN_BUS, ALPN_HTTP]),
        })
    }

    /// The next link, and who says hello on it. Requests in HTTP are not answered.
    pub(crate) async fn link(&self, within: Duration) -> Result<(Dialled, String)> {
        let linked = timeout(within, async {
            loop {
                let (stream, _) = self.listener.accept().await?;
                let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                if stream.get_ref().1.alpn_protocol() != Some(ALPN_BUS) {
                    continue;
                }
                let mut link = FalseLink {
                    stream,
                    came: Vec::new(),
                };
                let hello = link.hello(within).await?;
                let origin = hello["origin"]
                    .as_str()
                    .context("a hello names an origin")?;
                return anyhow::Ok((link, origin.to_owned()));
            }
        });
        linked.await.context("no node dials")?
    }
}
