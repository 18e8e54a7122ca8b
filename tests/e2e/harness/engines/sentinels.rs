//! Two Redis servers, one of which is the master, and three sentinels who choose another when it
//! is gone.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Duration;

use super::overheard::Overheard;
use super::redis::{Redis, Resp};
use super::server::{Server, folder};
use super::{ANSWERS_WITHIN, Broker, here};
use crate::harness::eventually::{eventually, holds};
use crate::harness::tools::free_port;

/// The name under which the sentinels know the master.
const MASTER: &str = "mymaster";
/// How many there are, of whom two must agree.
const SENTINELS: usize = 3;
/// A master that is silent for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(1);
/// A failover that has not ended after this is tried again.
const FAILOVER_WITHIN: Duration = Duration::from_secs(5);

/// How often sentinels look and tell each other, in milliseconds: not each ten seconds and two,
/// since a failover waits for that.
const SOON: [&str; 4] = ["info-period", "200", "publish-period", "200"];

/// Two servers and their sentinels.
#[derive(Debug)]
pub(crate) struct Sentinels {
    pub(crate) redis: [Redis; 2],
    pub(crate) sentinels: Vec<Sentinel>,
}

/// One of the three.
#[derive(Debug)]
pub(crate) struct Sentinel {
    server: Server,
    port: u16,
}

impl Sentinels {
    /// The first server is the master, the second one follows it, all three sentinels know that.
    pub(crate) async fn start() -> Result<Self> {
        // Otherwise a replica waits five seconds for others.
        let soon = ["--repl-diskless-sync-delay", "0"];
        let master = Redis::with(&soon).await?;
        let port = master.address().port();
        let follows = format!("127.0.0.1 {port}");
        let replica = Redis::with(&[&soon[..], &["--replicaof", &follows]].concat()).await?;
        let mut all = Self {
            redis: [master, replica],
            sentinels: Vec::new(),
        };
        all.follows(1).await?;
        for _ in 0..SENTINELS {
            all.sentinels.push(Sentinel::start(port).await?);
        }
        all.could_switch().await?;
        Ok(all)
    }

    /// The URL by which a node finds the master.
    pub(crate) fn url(&self) -> String {
        let addresses = self
            .sentinels
            .iter()
            .map(|it| it.addresses()[0].to_string());
        let more: Vec<_> = addresses.collect();
        format!(
            "redis+sentinel://{}?sentinel_master_name={MASTER}&addr={}",
            more[0],
            more[1..].join("&addr=")
        )
    }

    /// Which server the sentinels hold for the master: all of them, or this is an error.
    pub(crate) async fn master(&self) -> Result<usize> {
        let mut found = Vec::new();
        for sentinel in &self.sentinels {
            let mut resp = Resp::connect(here(sentinel.port)).await?;
            let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
            let said = resp.ask(&asked).await?;
            let port: u16 = said.texts().get(1).context("no master")?.parse()?;
            let at = |redis: &Redis| redis.address().port() == port;
            found.push(self.redis.iter().position(at).context("a strange master")?);
        }
        ensure!(found.iter().all(|it| *it == found[0]), "they say {found:?}");
        Ok(found[0])
    }

    /// Waits until all sentinels hold this server for the master, and it does so too.
    pub(crate) async fn switched_to(&self, place: usize) -> Result<()> {
        eventually(ANSWERS_WITHIN, "there is another master", async || {
            let master = self.master().await?;
            ensure!(master == place, "it is {master}");
            let role = self.role(place).await?;
            ensure!(role == "master", "it is a {role}");
            Ok(())
        })
        .await
    }

    /// Waits until this server is a replica that has all.
    pub(crate) async fn follows(&self, place: usize) -> Result<()> {
        eventually(ANSWERS_WITHIN, "the replica follows", async || {
            let said = self.redis[place].command(&["ROLE"]).await?;
            let follows =
                said.texts().starts_with(&["slave"]) && said.texts().contains(&"connected");
            ensure!(follows, "{said:?}");
            Ok(())
        })
        .await
    }

    /// What this server holds itself for: `master` or `slave`.
    pub(crate) async fn role(&self, place: usize) -> Result<String> {
        let said = self.redis[place].command(&["ROLE"]).await?;
        Ok((*said.texts().first().context("no role")?).to_owned())
    }

    /// Makes the other one the master, while both live, as an operator does. Asks again while the
    /// sentinels know of no replica that could take over, as some time after one has come back.
    pub(crate) async fn failover(&self) -> Result<()> {
        eventually(ANSWERS_WITHIN, "a failover begins", async || {
            let mut resp = Resp::connect(here(self.sentinels[0].port)).await?;
            resp.ask(&["SENTINEL", "FAILOVER", MASTER]).await.map(drop)
        })
        .await
    }

    /// Waits until each sentinel knows the others and a replica that could take over.
    pub(crate) async fn could_switch(&self) -> Result<()> {
        for sentinel in &self.sentinels {
            eventually(ANSWERS_WITHIN, "a sentinel knows all", async || {
                let mut resp = Resp::connect(here(sentinel.port)).await?;
                let quorum = resp.ask(&["SENTINEL", "CKQUORUM", MASTER]).await?;
                let quorum = quorum.text()?;
                let all = format!("OK {SENTINELS} usable");
                ensure!(quorum.starts_with(&all), "{quorum}");
                let said = resp.ask(&["SENTINEL", "REPLICAS", MASTER]).await?;
                let texts = said.texts();
                let has = |pair: [&str; 2]| texts.windows(2).any(|it| it == pair);
                let could = has(["flags", "slave"]) && has(["master-link-status", "ok"]);
                holds(could, format_args!("{texts:?}")).map_err(anyhow::Error::msg)
            })
            .await?;
        }
        Ok(())
    }
}

impl Sentinel {
    async fn start(master: u16) -> Result<Self> {
        let port = free_port()?;
        let folder = folder("sentinel")?;
        let (gone, failover) = (GONE_AFTER.as_millis(), FAILOVER_WITHIN.as_millis());
        let conf = folder.path().join("conf");
        fs::write(
            &conf,
            format!(
                "port {port}\nbind 127.0.0.1\ndir {}\n\
                 sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds {MASTER} {gone}\n\
                 sentinel failover-timeout {MASTER} {failover}\n",
                folder.path().display()
            ),
        )?;
        let args = [conf.display().to_string()];
        let server = Server::own("redis-sentinel", &args, folder);
        let mut sentinel = Self { server, port };
        sentinel.again().await?;
        Ok(sentinel)
    }
}

impl Broker for Sentinel {
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![here(self.port)]
    }

    fn url_at(&self, addresses: &[SocketAddr]) -> String {
        format!(
            "redis+sentinel://{}?sentinel_master_name={MASTER}",
            addresses[0]
        )
    }

    async fn overheard(&self) -> Result<Overheard> {
        anyhow::bail!("nothing is published at a sentinel")
    }

    async fn answers(&self) -> Result<()> {
        let mut resp = Resp::connect(here(self.port)).await?;
        let soon = [&["SENTINEL", "DEBUG"], &SOON[..]].concat();
        resp.ask(&soon).await.map(drop)
    }
}
