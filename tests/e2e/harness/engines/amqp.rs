//! As much of AMQP 0-9-1 as it takes to be a client of RabbitMQ who keeps silent, or overhears all.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::PATIENCE;

/// Kinds of frames, and what stands at the end of each.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const END: u8 = 0xce;
/// Ends of what is declared: a table with nothing in it.
const NO_TABLE: [u8; 4] = [0; 4];
/// The class of most methods here, `connection`, and they.
const CONNECTION: u16 = 10;
const START: u16 = 10;
const START_OK: u16 = 11;
const TUNE: u16 = 30;
const TUNE_OK: u16 = 31;
const OPEN: u16 = 40;
const OPEN_OK: u16 = 41;
const CLOSE: u16 = 50;
const CLOSE_OK: u16 = 51;

/// A connection to RabbitMQ.
#[derive(Debug)]
pub(crate) struct Amqp(TcpStream);

impl Amqp {
    /// A connection that RabbitMQ has greeted.
    pub(crate) async fn greeted(address: SocketAddr) -> Result<Self> {
        let mut amqp = Self(TcpStream::connect(address).await?);
        amqp.0.write_all(b"AMQP\0\0\x09\x01").await?;
        amqp.expect(START).await?;
        Ok(amqp)
    }

    /// An open connection to a vhost; the operator sees it under this name.
    ///
    /// # Errors
    /// It is refused; the text is what RabbitMQ says.
    pub(crate) async fn open(address: SocketAddr, vhost: &str, name: &str) -> Result<Self> {
        let mut amqp = Self::greeted(address).await?;
        let mut table = short("connection_name");
        table.push(b'S');
        table.extend(long(name.as_bytes()));
        let who = [long(&table), short("PLAIN"), long(b"\0guest\0guest")];
        let who = [who.concat(), short("en_US")].concat();
        amqp.tell(START_OK, &who).await?;
        let mut tuned = amqp.expect(TUNE).await?;
        // Its limits, and no heartbeats.
        let at = tuned.len().saturating_sub(2);
        tuned[at..].fill(0);
        amqp.tell(TUNE_OK, &tuned).await?;
        let place = [short(vhost), vec![0, 0]].concat();
        amqp.tell(OPEN, &place).await?;
        amqp.expect(OPEN_OK).await?;
        Ok(amqp)
    }

    /// Makes a durable queue of the classic kind.
    pub(crate) async fn declares(&mut self, queue: &str) -> Result<()> {
        self.ask((20, 10), &short("")).await?;
        let durable = [&[0, 0][..], &short(queue), &[2], &NO_TABLE].concat();
        self.ask((50, 10), &durable).await.map(drop)
    }

    /// Hears all that is published on a topic exchange from now on, which is made if it is not there.
    pub(crate) async fn overhears(&mut self, exchange: &str) -> Result<()> {
        let exchange = short(exchange);
        self.ask((20, 10), &short("")).await?;
        let durable_topic = [&[0, 0][..], &exchange, &short("topic"), &[2], &NO_TABLE].concat();
        self.ask((40, 10), &durable_topic).await?;
        let exclusive = [&[0, 0][..], &short(""), &[4], &NO_TABLE].concat();
        let queue = self.ask((50, 10), &exclusive).await?;
        // Its name with its length; what else is said of it stands behind that.
        let queue = &queue[..=usize::from(queue[0])];
        let all = [&[0, 0][..], queue, &exchange, &short("#"), &[0], &NO_TABLE].concat();
        self.ask((50, 20), &all).await?;
        let unconfirmed = [&[0, 0][..], queue, &short(""), &[2], &NO_TABLE].concat();
        self.ask((60, 20), &unconfirmed).await?;
        Ok(())
    }

    /// What is published next.
    pub(crate) async fn published(&mut self) -> Result<Vec<u8>> {
        let (mut size, mut body) = (None, Vec::new());
        while size.is_none_or(|size| body.len() < size) {
            match self.frame().await? {
                (HEADER, payload) => {
                    let bytes = payload.get(4..12).context("a short header")?;
                    size = Some(usize::try_from(u64::from_be_bytes(bytes.try_into()?))?);
                }
                (BODY, payload) => body.extend(payload),
                _ => {}
            }
        }
        Ok(body)
    }

    /// Asks for something on the one channel, by class and method; what stands in the answer, which is the
    /// next method of the class.
    async fn ask(&mut self, (class, method): (u16, u16), rest: &[u8]) -> Result<Vec<u8>> {
        let name = [class.to_be_bytes(), method.to_be_bytes()].concat();
        self.say(1, &[&name, rest].concat()).await?;
        let answer = [class.to_be_bytes(), (method + 1).to_be_bytes()].concat();
        let (kind, said) = timeout(PATIENCE, self.frame()).await??;
        let rest = said
            .strip_prefix(&answer[..])
            .filter(|_| kind == METHOD)
            .with_context(|| format!("RabbitMQ answers {}", said.escape_ascii()))?;
        Ok(rest.to_vec())
    }

    /// Waits until RabbitMQ closes it; what it says.
    pub(crate) async fn closed(mut self) -> Result<String> {
        let why = closing(&self.expect(CLOSE).await?);
        // Until it has this it holds the connection for half open.
        self.tell(CLOSE_OK, &[]).await?;
        Ok(why)
    }

    async fn tell(&mut self, method: u16, rest: &[u8]) -> Result<()> {
        let class = CONNECTION.to_be_bytes();
        let payload = [&class[..], &method.to_be_bytes(), rest].concat();
        self.say(0, &payload).await
    }

    async fn say(&mut self, channel: u8, payload: &[u8]) -> Result<()> {
        let frame = [&[METHOD, 0, channel][..], &long(payload), &[END]].concat();
        Ok(self.0.write_all(&frame).await?)
    }

    /// What stands in the next method, if it is this one.
    async fn expect(&mut self, wanted: u16) -> Result<Vec<u8>> {
        let next = timeout(PATIENCE, self.read()).await;
        let (method, rest) = next.context("RabbitMQ says nothing")??;
        if method == CLOSE && wanted != CLOSE {
            bail!("RabbitMQ closes the connection: {}", closing(&rest));
        }
        ensure!(method == wanted, "method {method} instead of {wanted}");
        Ok(rest)
    }

    async fn read(&mut self) -> Result<(u16, Vec<u8>)> {
        let (_, payload) = self.frame().await?;
        let [_, class, high, low, rest @ ..] = &payload[..] else {
            bail!("a short frame");
        };
        ensure!(u16::from(*class) == CONNECTION, "class {class}");
        Ok((u16::from_be_bytes([*high, *low]), rest.to_vec()))
    }

    /// The next frame that is no sign of life: its kind, and what is in it.
    async fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            let kind = self.0.read_u8().await?;
            let _channel = self.0.read_u16().await?;
            let length = self.0.read_u32().await?;
            let mut payload = vec![0; usize::try_from(length)?];
            self.0.read_exact(&mut payload).await?;
            let end = self.0.read_u8().await?;
            ensure!(end == END, "a frame ends by {end}");
            if kind != HEARTBEAT {
                return Ok((kind, payload));
            }
        }
    }
}

/// Code and text of a `close`.
fn closing(rest: &[u8]) -> String {
    let [high, low, length, text @ ..] = rest else {
        return String::new();
    };
    let code = u16::from_be_bytes([*high, *low]);
    let text = &text[..text.len().min(usize::from(*length))];
    format!("{code} {}", String::from_utf8_lossy(text))
}

/// Text with its length in one byte.
fn short(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("the texts here are short");
    [&[length], text.as_bytes()].concat()
}

/// Bytes with their length in four.
fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("the texts here are short");
    [&length.to_be_bytes(), bytes].concat()
}
