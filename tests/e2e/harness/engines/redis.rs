//! Redis: one server, and what it says.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::overheard::{Overheard, Overhears};
use super::server::{Server, folder};
use super::{Broker, here};
use crate::harness::PATIENCE;
use crate::harness::tools::free_port;

/// With these flags it keeps what it knows through `kill -9`.
pub(crate) const KEEPS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A Redis server.
#[derive(Debug)]
pub(crate) struct Redis {
    server: Server,
    port: u16,
}

impl Redis {
    /// Keeps nothing.
    pub(crate) async fn start() -> Result<Self> {
        Self::with(&[]).await
    }

    /// With these flags too.
    pub(crate) async fn with(flags: &[&str]) -> Result<Self> {
        let port = free_port()?;
        let folder = folder("redis")?;
        let line = format!("--port {port} --bind 127.0.0.1");
        let mut args: Vec<_> = line.split(' ').map(str::to_owned).collect();
        // An empty word: no snapshots.
        args.extend(["--save", ""].map(str::to_owned));
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        let server = Server::own("redis-server", &args, folder);
        let mut redis = Self { server, port };
        redis.again().await?;
        Ok(redis)
    }

    /// Starts it again on its port, without anything that it had kept.
    pub(crate) async fn again_empty(&mut self) -> Result<()> {
        let kept = self.server.folder().join("appendonlydir");
        if kept.exists() {
            fs::remove_dir_all(kept)?;
        }
        self.again().await
    }

    /// The URL for a user with a password.
    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        here(self.port)
    }

    /// Runs a command.
    ///
    /// # Errors
    /// It says an error, or nothing in time.
    pub(crate) async fn command(&self, words: &[impl AsRef<[u8]>]) -> Result<Reply> {
        Resp::connect(self.address()).await?.ask(words).await
    }
}

impl Overhears for Resp {
    async fn next(&mut self) -> Result<Vec<u8>> {
        match self.read().await? {
            Reply::Many(mut parts) => match parts.pop() {
                Some(Reply::Bytes(body)) => Ok(body),
                Some(Reply::Text(body)) => Ok(body.into_bytes()),
                other => bail!("no message: {other:?}"),
            },
            other => bail!("no message: {other:?}"),
        }
    }
}

impl Broker for Redis {
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address()]
    }

    fn url_at(&self, addresses: &[SocketAddr]) -> String {
        format!("redis://{}", addresses[0])
    }

    async fn overheard(&self) -> Result<Overheard> {
        let mut resp = Resp::connect(self.address()).await?;
        resp.ask(&["PSUBSCRIBE", "*"]).await?;
        Ok(Overheard::by(resp))
    }

    async fn answers(&self) -> Result<()> {
        self.command(&["PING"]).await.map(drop)
    }
}

/// What Redis says, errors apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Nothing,
    Text(String),
    /// What is no text.
    Bytes(Vec<u8>),
    Number(i64),
    Many(Vec<Reply>),
}

impl Reply {
    /// The text that it is.
    pub(crate) fn text(&self) -> Result<&str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Nothing | Self::Bytes(_) | Self::Number(_) | Self::Many(_) => {
                bail!("no text: {self:?}")
            }
        }
    }

    /// All texts in it.
    pub(crate) fn texts(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => vec![text],
            Self::Many(parts) => parts.iter().flat_map(Self::texts).collect(),
            Self::Nothing | Self::Bytes(_) | Self::Number(_) => Vec::new(),
        }
    }
}

/// A connection to Redis or a sentinel.
#[derive(Debug)]
pub(crate) struct Resp(BufReader<TcpStream>);

impl Resp {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(address).await?)))
    }

    /// Sends a command; what is said next.
    pub(crate) async fn ask(&mut self, words: &[impl AsRef<[u8]>]) -> Result<Reply> {
        let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in &words {
            command.extend(format!("${}\r\n", word.len()).bytes());
            command.extend(word.iter().chain(b"\r\n"));
        }
        self.0.write_all(&command).await?;
        let said = self.next().await;
        said.with_context(|| words.join(&b' ').escape_ascii().to_string())
    }

    /// What is said next.
    pub(crate) async fn next(&mut self) -> Result<Reply> {
        let reply = timeout(PATIENCE, self.read()).await;
        reply.context("Redis says nothing")?
    }

    async fn read(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        let line = line.strip_suffix("\r\n");
        let line = line.context("Redis has closed the connection")?;
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().context("a number");
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            ":" => Reply::Number(number()?),
            "-" => bail!("{rest}"),
            "$" => match usize::try_from(number()?) {
                Err(_) => Reply::Nothing,
                Ok(length) => {
                    let mut text = vec![0; length + 2];
                    self.0.read_exact(&mut text).await?;
                    text.truncate(length);
                    match String::from_utf8(text) {
                        Ok(text) => Reply::Text(text),
                        Err(why) => Reply::Bytes(why.into_bytes()),
                    }
                }
            },
            "*" => {
                let mut parts = Vec::new();
                for _ in 0..number()? {
                    parts.push(Box::pin(self.read()).await?);
                }
                Reply::Many(parts)
            }
            _ => bail!("not Redis: {line:?}"),
        })
    }
}
