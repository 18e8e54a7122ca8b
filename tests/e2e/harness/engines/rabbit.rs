//! RabbitMQ: the one broker of the run, which a test has for itself until it drops it, with a vhost
//! of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use e2e::rabbitmq::{COMPLETE, SERVER};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use super::amqp::Amqp;
use super::overheard::{Overheard, Overhears};
use super::rabbit_home::{Home, run};
use super::server::Server;
use super::{ANSWERS_WITHIN, Broker, here};
use crate::harness::eventually::eventually;
use crate::harness::tools::installed;

/// Debian's own command changes the user; this does not.
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
/// The mark of the memory alarm as the file has it.
const WATERMARK: [&str; 2] = ["absolute", "400MB"];
/// What it logs first.
const BEGINS: &str = "Starting RabbitMQ ";
/// There while the alarm rings that a test has set off.
const ALARM: &str = "alarm";

/// RabbitMQ, lent.
#[derive(Debug)]
pub(crate) struct Rabbit {
    server: Server,
    home: Home,
    /// This test's own.
    pub(crate) vhost: String,
}

/// A client as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connected {
    /// What [`Rabbit::disconnect`] takes.
    pub(crate) id: String,
    /// What it calls itself; who does not is not listed.
    pub(crate) name: String,
    /// `running`, or `blocking` or `blocked` in an alarm.
    pub(crate) state: String,
}

/// What somebody may configure, write and read: expressions that a name has to match.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rights<'a> {
    pub(crate) configure: &'a str,
    pub(crate) write: &'a str,
    pub(crate) read: &'a str,
}

impl Rabbit {
    /// The one of this run, as soon as no other test has it. It is as new, but that vhosts of other
    /// tests may still be there.
    pub(crate) async fn start() -> Result<Self> {
        let home = Home::of(run()?).await?;
        let server = Server::lent(SERVER, &home.variables(), home.folder());
        let vhost = format!("test-{:08x}", rand::random::<u32>());
        let mut rabbit = Self {
            server,
            home,
            vhost,
        };
        if rabbit.server.lives() {
            // The last test may have failed in the middle of anything.
            rabbit.resume()?;
            rabbit.is_ready().await?;
            if rabbit.home.folder().join(ALARM).exists() {
                rabbit.alarm(false).await?;
            }
            rabbit.gives_vhost().await?;
        } else {
            rabbit.again_empty().await?;
        }
        Ok(rabbit)
    }

    /// Starts it again on its port, without anything that it had kept but this test's vhost.
    pub(crate) async fn again_empty(&mut self) -> Result<()> {
        if self.home.state().exists() {
            fs::remove_dir_all(self.home.state())?;
        }
        self.again().await?;
        self.gives_vhost().await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        here(self.home.port)
    }

    /// The URL by which a node finds it in TLS, where it is called so.
    pub(crate) fn url_in_tls(&self, host: &str) -> String {
        let port = self.home.tls_port;
        format!("amqps://guest:guest@{host}:{port}/{}", self.vhost)
    }

    /// What signed the certificate that it shows there: `localhost` is its only name.
    pub(crate) fn authority(&self) -> PathBuf {
        self.home.authority()
    }

    /// Runs `rabbitmqctl`; what it prints.
    pub(crate) async fn ctl(&self, args: &[&str]) -> Result<String> {
        let running = Command::new(installed(CONTROL)?)
            .arg("--quiet")
            .args(args)
            .envs(self.home.variables())
            .current_dir(self.home.folder())
            .kill_on_drop(true)
            .output();
        let output = timeout(ANSWERS_WITHIN, running).await;
        let output = output.with_context(|| format!("rabbitmqctl {args:?} does not end"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "rabbitmqctl {args:?}: {}{}",
            text(&output.stderr),
            text(&output.stdout)
        );
        Ok(text(&output.stdout))
    }

    /// Sets the memory alarm off, or ends it: while it rings, who publishes is blocked.
    pub(crate) async fn alarm(&self, rings: bool) -> Result<()> {
        let mark = self.home.folder().join(ALARM);
        let set = "set_vm_memory_high_watermark";
        if rings {
            fs::write(&mark, "")?;
            self.ctl(&[set, "0"]).await?;
        } else {
            self.ctl(&[&[set][..], &WATERMARK].concat()).await?;
            fs::remove_file(&mark)?;
        }
        eventually(ANSWERS_WITHIN, "the alarm is so", async || {
            let status = self.ctl(&["status", "--formatter", "json"]).await?;
            let status: Value = serde_json::from_str(&status)?;
            let alarms = status["alarms"].as_array().context("no alarms")?;
            ensure!(alarms.is_empty() != rings, "{alarms:?}");
            Ok(())
        })
        .await
    }

    /// Who is connected to this test's vhost.
    pub(crate) async fn connections(&self) -> Result<Vec<Connected>> {
        let list = ["list_connections", "--no-table-headers"];
        let fields = ["vhost", "pid", "state", "client_properties"];
        let listed = self.ctl(&[&list[..], &fields].concat()).await?;
        let own = listed.lines().filter_map(|line| {
            let [vhost, id, state, rest] = line.split('\t').collect::<Vec<_>>()[..] else {
                return None;
            };
            // As Erlang writes it.
            let (_, name) = rest.split_once("{\"connection_name\",\"")?;
            let (name, _) = name.split_once('"')?;
            let [id, name, state] = [id, name, state].map(str::to_owned);
            // A closed one is shown until its client has said that it knows.
            let own = vhost == self.vhost && state != "closed";
            own.then_some(Connected { id, name, state })
        });
        Ok(own.collect())
    }

    /// Closes a connection as an operator does.
    pub(crate) async fn disconnect(&self, id: &str) -> Result<()> {
        let close = ["close_connection", id, "by the operator"];
        self.ctl(&close).await.map(drop)
    }

    /// Makes users who may do this, in this test's vhost alone; their URLs.
    pub(crate) async fn users<const N: usize>(&self, all: [Rights<'_>; N]) -> Result<[String; N]> {
        let name = |nth: usize| format!("{}-{nth}", self.vhost);
        let users = (0..N).map(|nth| json!({ "name": name(nth), "password": "pw", "tags": "" }));
        let permissions = all.iter().zip(0..);
        let permissions = permissions.map(|(rights, nth)| self.permission(&name(nth), rights));
        self.define(json!({
            "users": users.collect::<Vec<_>>(),
            "permissions": permissions.collect::<Vec<_>>(),
        }))
        .await?;
        let (at, vhost) = (self.address(), &self.vhost);
        Ok(std::array::from_fn(|nth| {
            format!("amqp://{}:pw@{at}/{vhost}", name(nth))
        }))
    }

    fn permission(&self, user: &str, rights: &Rights<'_>) -> Value {
        json!({
            "user": user, "vhost": self.vhost,
            "configure": rights.configure, "write": rights.write, "read": rights.read,
        })
    }

    /// Makes this test's vhost, and lets the guest do all there.
    async fn gives_vhost(&self) -> Result<()> {
        let all = Rights {
            configure: ".*",
            write: ".*",
            read: ".*",
        };
        let guest = self.permission("guest", &all);
        self.define(json!({ "vhosts": [{ "name": self.vhost }], "permissions": [guest] }))
            .await
    }

    async fn define(&self, definitions: Value) -> Result<()> {
        let file = self.home.folder().join("definitions.json");
        fs::write(&file, definitions.to_string())?;
        let file = file.display().to_string();
        self.ctl(&["import_definitions", &file]).await.map(drop)
    }
}

impl Overhears for Amqp {
    async fn next(&mut self) -> Result<Vec<u8>> {
        self.published().await
    }
}

impl Broker for Rabbit {
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address()]
    }

    fn url_at(&self, addresses: &[SocketAddr]) -> String {
        format!("amqp://guest:guest@{}/{}", addresses[0], self.vhost)
    }

    async fn overheard(&self) -> Result<Overheard> {
        let mut amqp = Amqp::open(self.address(), &self.vhost, "stranger").await?;
        amqp.overhears("chatmesh.main").await?;
        Ok(Overheard::by(amqp))
    }

    async fn answers(&self) -> Result<()> {
        Amqp::greeted(self.address()).await?;
        // Clients are let in before `rabbitmqctl` is.
        let log = self.server.log();
        let (_, last) = log.rsplit_once(BEGINS).context("no start in its log")?;
        ensure!(last.contains(COMPLETE), "its start is not complete");
        Ok(())
    }
}
