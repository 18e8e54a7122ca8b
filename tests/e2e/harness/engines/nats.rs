//! NATS: one server or a cluster of two, and a client that speaks its lines.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::overheard::{Overheard, Overhears};
use super::server::{Server, folder};
use super::{ANSWERS_WITHIN, Broker, here};
use crate::harness::PATIENCE;
use crate::harness::cluster::get;
use crate::harness::eventually::{eventually, holds};
use crate::harness::tools::free_port;

/// A NATS server.
#[derive(Debug)]
pub(crate) struct Nats {
    server: Server,
    port: u16,
    monitor: u16,
    /// What its file says besides.
    lines: String,
    users: Vec<String>,
}

impl Nats {
    /// Anybody may come.
    pub(crate) async fn start() -> Result<Self> {
        Self::with("", &[]).await
    }

    /// With these lines in its file too, e.g. `max_payload: 4096`, and for these users only, if
    /// there are any; see [`Nats::url_as`].
    pub(crate) async fn with(lines: &str, users: &[&str]) -> Result<Self> {
        let folder = folder("nats")?;
        let conf = folder.path().join("conf").display().to_string();
        let mut nats = Self {
            server: Server::own("nats-server", &["-c".to_owned(), conf], folder),
            port: free_port()?,
            monitor: free_port()?,
            lines: lines.to_owned(),
            users: users.iter().map(|&user| user.to_owned()).collect(),
        };
        nats.write(None)?;
        nats.again().await?;
        Ok(nats)
    }

    /// Two that are one to their clients: what one is told, those at the other hear too. They tell
    /// clients of each other.
    pub(crate) async fn cluster() -> Result<[Self; 2]> {
        let routes = [free_port()?, free_port()?];
        let lines = |own: usize| {
            let (own, other) = (routes[own], routes[1 - own]);
            format!(
                "lame_duck_grace_period: \"100ms\"\n\
                 cluster {{ name: two, listen: \"127.0.0.1:{own}\", \
                 routes: [\"nats-route://127.0.0.1:{other}\"] }}"
            )
        };
        let both = [
            Self::with(&lines(0), &[]).await?,
            Self::with(&lines(1), &[]).await?,
        ];
        for nats in &both {
            nats.is_linked().await?;
        }
        Ok(both)
    }

    /// Waits until it has a route to another.
    pub(crate) async fn is_linked(&self) -> Result<()> {
        eventually(ANSWERS_WITHIN, "the servers find each other", async || {
            let seen = self.monitored("routez").await?;
            ensure!(seen["num_routes"] != 0, "{seen}");
            Ok(())
        })
        .await
    }

    /// The URL by which a node finds both.
    pub(crate) fn url_of(both: &[Self; 2]) -> String {
        let [one, other] = both.each_ref().map(|it| here(it.port));
        format!("nats://{one},{other}")
    }

    /// The URL for a user, whose password is `of-USER`.
    pub(crate) fn url_as(&self, user: &str) -> String {
        format!("nats://{user}:of-{user}@127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        here(self.port)
    }

    /// What its monitor says, e.g. of `connz` or `varz`.
    pub(crate) async fn monitored(&self, what: &str) -> Result<Value> {
        let url = format!("http://127.0.0.1:{}/{what}", self.monitor);
        Ok(get(&url).await?.json().await?)
    }

    /// Sends its clients away, slowly, takes no others and ends; waits until it does not take any.
    pub(crate) async fn is_lame(&mut self) -> Result<()> {
        self.server.signal(Signal::USR2)?;
        eventually(PATIENCE, "it takes no clients", async || {
            let taken = TcpStream::connect(self.address()).await.is_ok();
            holds(!taken, "it takes one")
        })
        .await
    }

    /// Waits until it has ended, as a lame one does.
    pub(crate) async fn is_gone(&mut self) -> Result<()> {
        self.server.is_gone().await
    }

    /// Has these lines in its file from now on instead of those before, without a restart.
    pub(crate) async fn reload(&mut self, lines: &str) -> Result<()> {
        lines.clone_into(&mut self.lines);
        self.write(None)?;
        self.reads_again().await
    }

    /// Closes the connections of this user, who may come back at once. This version has no command
    /// for it, but holds no connection whose password has changed.
    pub(crate) async fn disconnect(&mut self, user: &str) -> Result<()> {
        self.write(Some(user))?;
        self.reads_again().await?;
        self.write(None)?;
        self.reads_again().await
    }

    /// Writes its file; this user has another password there.
    fn write(&self, banned: Option<&str>) -> Result<()> {
        let user = |user: &String| {
            let of = if banned == Some(user) { "not-of" } else { "of" };
            format!("{{ user: {user}, password: {of}-{user} }}")
        };
        let users: Vec<_> = self.users.iter().map(user).collect();
        let users = if users.is_empty() {
            String::new()
        } else {
            format!("authorization {{ users: [{}] }}\n", users.join(", "))
        };
        let conf = format!(
            "listen: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\n{users}{}\n",
            self.port, self.monitor, self.lines
        );
        Ok(fs::write(self.server.folder().join("conf"), conf)?)
    }

    async fn reads_again(&self) -> Result<()> {
        let reloads = || self.server.log().matches("Reloaded server config").count();
        let before = reloads();
        self.server.signal(Signal::HUP)?;
        eventually(PATIENCE, "it reads its file again", async || {
            holds(reloads() > before, "it has not")
        })
        .await
    }
}

impl Overhears for Lines {
    async fn next(&mut self) -> Result<Vec<u8>> {
        let line = Lines::next(self).await?;
        let length = line.rsplit_once(' ').context("no message")?.1.parse()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        // The end of the line.
        self.stream.read_u16().await?;
        Ok(body)
    }
}

impl Broker for Nats {
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address()]
    }

    fn url_at(&self, addresses: &[SocketAddr]) -> String {
        format!("nats://{}", addresses[0])
    }

    async fn overheard(&self) -> Result<Overheard> {
        let mut lines = Lines::of(self.address(), "stranger").await?;
        lines.tell("SUB > 1").await?;
        lines.pong().await?;
        Ok(Overheard::by(lines))
    }

    async fn answers(&self) -> Result<()> {
        Lines::connect(self.address()).await.map(drop)
    }
}

/// A connection to NATS that speaks its lines.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: BufReader<TcpStream>,
    /// What the server said of itself.
    pub(crate) info: Value,
}

impl Lines {
    /// A connection to whom the server has spoken, and who has not told who it is.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = BufReader::new(TcpStream::connect(address).await?);
        let info = Value::Null;
        let mut lines = Self { stream, info };
        let said = lines.next().await?;
        let info = said.strip_prefix("INFO ").context("not NATS")?;
        lines.info = serde_json::from_str(info)?;
        Ok(lines)
    }

    /// A connection that the server has accepted, as this user.
    pub(crate) async fn of(address: SocketAddr, user: &str) -> Result<Self> {
        let mut lines = Self::connect(address).await?;
        let who = json!({ "user": user, "pass": format!("of-{user}"), "verbose": false });
        lines.tell(&format!("CONNECT {who}")).await?;
        lines.pong().await?;
        Ok(lines)
    }

    /// Asks for a sign of life, and has it.
    pub(crate) async fn pong(&mut self) -> Result<()> {
        self.tell("PING").await?;
        let said = self.next().await?;
        ensure!(said == "PONG", "it says {said}");
        Ok(())
    }

    /// Says a line.
    pub(crate) async fn tell(&mut self, line: &str) -> Result<()> {
        Ok(self
            .stream
            .write_all(format!("{line}\r\n").as_bytes())
            .await?)
    }

    /// What is said next; an error when the connection has ended.
    pub(crate) async fn next(&mut self) -> Result<String> {
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await;
            read.context("NATS says nothing")??;
            match line.trim_end() {
                "" => bail!("NATS has closed the connection"),
                // It wants to know whether we live.
                "PING" => self.tell("PONG").await?,
                line => return Ok(line.to_owned()),
            }
        }
    }
}
