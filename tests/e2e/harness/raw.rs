//! Bytes as no decent client sends them.

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, timeout};

use super::cluster::Node;

/// Frame header bits and codes of RFC 6455.
pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;

/// A WebSocket handshake that is right.
const UPGRADE: &str = "GET PATH HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A bare TCP connection to an HTTP port.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// The head of an HTTP response, and what came of its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Raw {
    /// Connects.
    pub(crate) async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            unread: Vec::new(),
        })
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Ends this side: nothing more is said, and what comes is still read.
    pub(crate) async fn end(&mut self) -> Result<()> {
        Ok(self.stream.shutdown().await?)
    }

    /// Reads until the other side closes; whatever it said.
    pub(crate) async fn until_closed(&mut self, within: Duration) -> Result<Vec<u8>> {
        let mut all = std::mem::take(&mut self.unread);
        let read = timeout(within, self.stream.read_to_end(&mut all)).await;
        // A reset is an end as well.
        drop(read.with_context(|| {
            format!(
                "still open after {within:?}, said so far: {}",
                all.escape_ascii()
            )
        })?);
        Ok(all)
    }

    /// Reads one HTTP response: its head, and the body if it has a length.
    pub(crate) async fn answer(&mut self, within: Duration) -> Result<Answer> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
                let status = status.with_context(|| format!("no HTTP response: {head:?}"))?;
                let length = head
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .and_then(|(_, value)| value.trim().parse::<usize>().ok());
                let all = end + 4 + length.unwrap_or(0);
                if self.unread.len() >= all {
                    let text = String::from_utf8_lossy(&self.unread[..all]).into_owned();
                    self.unread.drain(..all);
                    return Ok(Answer { status, text });
                }
            }
            self.more(deadline).await?;
        }
    }

    async fn more(&mut self, deadline: Instant) -> Result<()> {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout_at(deadline, self.stream.read(&mut buffer)).await;
        let count = read.with_context(|| {
            format!("nothing more came, so far: {}", self.unread.escape_ascii())
        })??;
        ensure!(count > 0, "closed after {}", self.unread.escape_ascii());
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(())
    }

    /// One request, one answer.
    pub(crate) async fn ask(address: &str, request: &[u8], within: Duration) -> Result<Answer> {
        let mut raw = Self::connect(address).await?;
        // A server may answer and close before it has read all.
        let _cut_short = raw.send(request).await;
        raw.answer(within).await
    }

    /// Opens a WebSocket at this path.
    pub(crate) async fn upgrade(node: &Node, path: &str) -> Result<Self> {
        let mut raw = Self::connect(node.address()).await?;
        let head = UPGRADE.replace("HOST", node.address());
        raw.send(head.replace("PATH", path).as_bytes()).await?;
        let answer = raw.answer(super::PATIENCE).await?;
        ensure!(answer.status == 101, "no upgrade: {answer:?}");
        Ok(raw)
    }

    /// Opens a WebSocket at `/ws`, and says hello if a name is given.
    pub(crate) async fn websocket(node: &Node, name: Option<&str>) -> Result<Self> {
        let mut raw = Self::upgrade(node, "/ws").await?;
        if let Some(name) = name {
            raw.say(&format!(r#"{{"id":1,"hello":{{"name":"{name}"}}}}"#))
                .await?;
            let (_, reply) = raw.frame(super::PATIENCE).await?;
            let reply = String::from_utf8_lossy(&reply).into_owned();
            ensure!(reply.contains("origin"), "no reply to hello: {reply}");
        }
        Ok(raw)
    }

    /// Sends one text frame.
    pub(crate) async fn say(&mut self, text: &str) -> Result<()> {
        self.send(&frame(FIN | TEXT, text.as_bytes())).await
    }

    /// The next frame of the node: first byte and payload.
    pub(crate) async fn frame(&mut self, within: Duration) -> Result<(u8, Vec<u8>)> {
        let deadline = Instant::now() + within;
        loop {
            if let Some((first, payload, length)) = parse(&self.unread)? {
                self.unread.drain(..length);
                return Ok((first, payload));
            }
            self.more(deadline).await?;
        }
    }

    /// Reads frames until the close frame; its code and reason.
    pub(crate) async fn close_code(&mut self, within: Duration) -> Result<(u16, String)> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (first, payload) = self
                .frame(left)
                .await
                .context("waiting for a close frame")?;
            if first == FIN | CLOSE {
                let Some((code, reason)) = payload.split_first_chunk::<2>() else {
                    bail!("a close frame without a code");
                };
                let reason = String::from_utf8(reason.to_vec())?;
                return Ok((u16::from_be_bytes(*code), reason));
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A masked frame, the mask being zeros, with any first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, payload.len() as u64, true);
    frame.extend_from_slice(payload);
    frame
}

/// The head of a frame that claims this length.
pub(crate) fn head(first: u8, length: u64, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut head = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => head.push(mask | short),
        (_, Ok(middle)) => {
            head.push(mask | 126);
            head.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            head.push(mask | 127);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    if masked {
        head.extend_from_slice(&[0; 4]);
    }
    head
}

/// The first whole frame of a node: first byte, payload, length of all.
fn parse(bytes: &[u8]) -> Result<Option<(u8, Vec<u8>, usize)>> {
    let [first, second, ..] = *bytes else {
        return Ok(None);
    };
    ensure!(second & 0x80 == 0, "a node must not mask");
    let (start, length) = match second {
        126 => match bytes.get(2..4) {
            Some(field) => (4, u64::from(u16::from_be_bytes(field.try_into()?))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(field) => (10, u64::from_be_bytes(field.try_into()?)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    let end = start + usize::try_from(length)?;
    Ok(bytes
        .get(start..end)
        .map(|payload| (first, payload.to_vec(), end)))
}
