//! A peer that is none: it registers, beats as a node does, claims to hold what it likes, and
//! answers requests for repair with what it likes. Its bytes are made here, from PROTOCOL.md.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Duration;
use zeromq::{PubSocket, Socket as _, SocketSend as _, ZmqMessage};

use super::cluster::Listing;
use super::{Registry, ms, spawn};

/// Twice as often as a node: whoever listens need not wait for long.
const BEAT_EVERY: Duration = ms(500);
/// Version, origin and sum of a frame.
const HEADER_LEN: usize = 1 + 10 + 8;
/// What is said without end is said in pieces of this size.
const PIECE: usize = 64 << 10;

/// What the bytes are; not on the wire, but in the sum.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Log = 1,
    Beat = 2,
    Entries = 5,
}

/// FNV-1a over words of eight bytes, as the header has it.
fn sum(kind: Kind, named: &[u8], body: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0100_0000_01b3);
    let mut sum = step(0xcbf2_9ce4_8422_2325, kind as u64);
    for part in [named, body] {
        for word in part.chunks(8) {
            let mut eight = [0; 8];
            eight[..word.len()].copy_from_slice(word);
            sum = step(sum, u64::from_le_bytes(eight));
        }
        if part.len().is_multiple_of(8) {
            sum = step(sum, 0);
        }
        sum = step(sum, part.len() as u64);
    }
    sum
}

/// Version, origin, sum: the header of a frame or page.
pub(crate) fn header(kind: Kind, origin: &str, body: &[u8]) -> Vec<u8> {
    let mut header = vec![1];
    header.extend_from_slice(origin.as_bytes());
    let sum = sum(kind, &header, body);
    header.extend_from_slice(&sum.to_be_bytes());
    header
}

fn text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a short text");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn length(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a short list");
    out.extend_from_slice(&count.to_be_bytes());
}

/// An entry as a page has it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) ts: u64,
    pub(crate) room: String,
    pub(crate) mid: String,
    /// What clients get.
    pub(crate) json: String,
}

fn list(body: &mut Vec<u8>, entries: &[Entry]) {
    length(body, entries.len());
    for entry in entries {
        body.extend_from_slice(&entry.seq.to_be_bytes());
        body.extend_from_slice(&entry.ts.to_be_bytes());
        text(body, &entry.room);
        text(body, &entry.mid);
        length(body, entry.json.len());
        body.extend_from_slice(entry.json.as_bytes());
    }
}

/// A frame of a log, header and body, by which no acknowledgement is asked for.
pub(crate) fn log_frame(origin: &str, entries: &[Entry]) -> Vec<u8> {
    let mut body = vec![0];
    list(&mut body, entries);
    [header(Kind::Log, origin, &body), body].concat()
}

/// A page of entries, header and body.
pub(crate) fn page(origin: &str, entries: &[Entry]) -> Vec<u8> {
    // Nothing is trimmed: neither a number nor a stamp.
    let mut body = [0_u64.to_be_bytes(); 2].concat();
    list(&mut body, entries);
    [header(Kind::Entries, origin, &body), body].concat()
}

/// What a false peer says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Face {
    pub(crate) origin: String,
    pub(crate) url: String,
    pub(crate) publishes: String,
    pub(crate) claims: Vec<(String, u64)>,
}

impl Face {
    /// A beat, in the three parts of a message.
    fn message(&self, hears: &BTreeSet<String>) -> ZmqMessage {
        let mut header = self.beat(hears);
        let body = header.split_off(HEADER_LEN);
        let parts = vec![Bytes::from_static(b"m1.beat"), header.into(), body.into()];
        ZmqMessage::try_from(parts).expect("three parts are a message")
    }

    /// A beat, header and body. It hears whoever has said hello, so that nobody waits for it.
    pub(crate) fn beat(&self, hears: &BTreeSet<String>) -> Vec<u8> {
        let mut body = Vec::new();
        for line in [&self.origin[..4], &self.url, &self.publishes] {
            text(&mut body, line);
        }
        // Its clock stands still, its log is empty, it has no members.
        for number in [1_u64, 1, 0, 0] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.push(1);
        length(&mut body, self.claims.len());
        for (origin, seq) in &self.claims {
            body.extend_from_slice(origin.as_bytes());
            body.extend_from_slice(&seq.to_be_bytes());
        }
        length(&mut body, hears.len());
        for origin in hears {
            body.extend_from_slice(origin.as_bytes());
        }
        [header(Kind::Beat, &self.origin, &body), body].concat()
    }
}

/// How requests for repair are answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A response as it stands, head and body; then the connection is closed.
    Bytes(Vec<u8>),
    /// A head that promises a page, and never the page.
    Never,
    /// A head, and then zeros for as long as anybody takes them.
    Endless(&'static str),
}

impl Answer {
    /// A response with this status line and body.
    pub(crate) fn response(status: &str, body: &[u8]) -> Self {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        Self::Bytes([head.as_bytes(), body].concat())
    }
}

/// Who has said hello, and how often it was asked.
#[derive(Debug, Default)]
struct Record {
    greeted: BTreeSet<String>,
    asked: u64,
}

/// A false peer; it is silent, and its lease ends, when dropped.
#[derive(Debug)]
pub(crate) struct FalsePeer {
    pub(crate) origin: String,
    record: Arc<Mutex<Record>>,
    tasks: Vec<JoinHandle<()>>,
    _listing: Listing,
}

impl Drop for FalsePeer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl FalsePeer {
    /// Registers and beats under this origin, claims these positions, and answers like this.
    pub(crate) async fn start(
        registry: &Registry,
        origin: &str,
        claims: &[(String, u64)],
        answer: Answer,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        // The test's runtime has one thread, as this socket needs it.
        let mut publisher = PubSocket::new();
        let publishes = publisher.bind("tcp://127.0.0.1:0").await?.to_string();
        let face = Face {
            origin: origin.to_owned(),
            url: url.clone(),
            publishes: publishes.clone(),
            claims: claims.to_vec(),
        };
        let record: Arc<Mutex<Record>> = Arc::default();
        let heard = Arc::clone(&record);
        let beating = spawn(async move {
            let mut beat = tokio::time::interval(BEAT_EVERY);
            loop {
                beat.tick().await;
                let message = face.message(&locked(&heard).greeted);
                // It neither waits nor fails.
                drop(publisher.send(message).await);
            }
        });
        let asked = Arc::clone(&record);
        let answering = spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn(converse(stream, Arc::clone(&asked), answer.clone()));
            }
        });
        let listing = Listing::of(origin, &publishes, &url, registry).await?;
        Ok(Self {
            origin: origin.to_owned(),
            record,
            tasks: vec![beating, answering],
            _listing: listing,
        })
    }

    /// How often it was asked for entries.
    pub(crate) fn asked(&self) -> u64 {
        locked(&self.record).asked
    }
}

fn locked(record: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request; whoever asks sees what it is worth.
async fn converse(mut stream: TcpStream, record: Arc<Mutex<Record>>, answer: Answer) {
    // The other side may go at any time.
    let _gone = answered(&mut stream, &record, answer).await;
}

async fn answered(stream: &mut TcpStream, record: &Mutex<Record>, answer: Answer) -> Result<()> {
    let request = request(stream).await?;
    let (head, body) = request.split_once("\r\n\r\n").context("a request")?;
    if head.starts_with("POST /mesh/hello") {
        let who: serde_json::Value = serde_json::from_str(body)?;
        let origin = who["origin"].as_str().context("a hello names its origin")?;
        locked(record).greeted.insert(origin.to_owned());
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            .await?;
        return Ok(());
    }
    if head.starts_with("GET /mesh/log/") {
        locked(record).asked += 1;
    }
    match answer {
        Answer::Bytes(bytes) => stream.write_all(&bytes).await?,
        Answer::Never => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
            stream.write_all(head).await?;
            // Until the other side has had enough.
            stream.read_to_end(&mut Vec::new()).await?;
        }
        Answer::Endless(head) => {
            stream.write_all(head.as_bytes()).await?;
            let piece = vec![0; PIECE];
            loop {
                if head.contains("chunked") {
                    stream
                        .write_all(format!("{PIECE:x}\r\n").as_bytes())
                        .await?;
                }
                stream.write_all(&piece).await?;
                if head.contains("chunked") {
                    stream.write_all(b"\r\n").await?;
                }
            }
        }
    }
    Ok(())
}

/// Head and body of one request.
async fn request(stream: &mut TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let is_length = name.eq_ignore_ascii_case("content-length");
                is_length.then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok(text);
            }
        }
        let count = stream.read_buf(&mut bytes).await?;
        anyhow::ensure!(count > 0, "closed within a request");
    }
}
