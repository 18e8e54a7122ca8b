//! Where the RabbitMQ lies that all tests of a run use, one after the other, since a start costs
//! seconds of a processor. The run is cargo-nextest's, which gives each test a process of its own,
//! or that of a test binary.
//!
//! No test can end it, since none knows whether it is the last one. A little script does when the
//! run is gone, however it ended.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, getpid, getppid};
use tokio::net::TcpStream;
use tokio::time::Duration;

use super::certificates::Certificates;
use super::here;
use crate::harness::eventually::eventually;
use crate::harness::tools::{free_port, installed};
use crate::harness::{PATIENCE, variable};

/// How long a test waits for the one that has the broker. `.config/nextest.toml` gives a test
/// twice that.
const MINE_WITHIN: Duration = Duration::from_secs(120);

/// Waits for the end of the run, then ends what runs in the folder, and removes it.
const SWEEPER: &str = r#"
tail --pid="$1" -s 0.2 -f /dev/null
for it in /proc/[0-9]*; do
  [ "$(readlink "$it/cwd" 2>/dev/null)" != "$2" ] || kill -9 "${it#/proc/}" 2>/dev/null
done
rm -rf "$2"
"#;

/// What RabbitMQ is told. The alarm's mark is far above what it needs to start: a lower one rings
/// at once.
const CONF: &str = "\
vm_memory_high_watermark.absolute = 400MB
disk_free_limit.absolute = 1MB
heartbeat = 10
";

/// The folder, for this test alone until it is dropped.
#[derive(Debug)]
pub(crate) struct Home {
    folder: PathBuf,
    #[expect(dead_code, reason = "holds the lock")]
    lock: File,
    /// Where clients come, and where they do in TLS.
    pub(super) port: u16,
    pub(super) tls_port: u16,
    epmd: u16,
    nodes: u16,
}

/// The run that this test belongs to.
pub(super) fn run() -> Result<Pid> {
    if variable("NEXTEST").is_some() {
        getppid().context("cargo-nextest lives")
    } else {
        Ok(getpid())
    }
}

impl Home {
    /// That of this run, as soon as no other test has it.
    pub(crate) async fn of(run: Pid) -> Result<Self> {
        let folder = place(run)?;
        if fs::create_dir(&folder).is_ok() {
            sweep_after(run, &folder)?;
        }
        let lock = File::options()
            .create(true)
            .append(true)
            .open(folder.join("lock"))?;
        eventually(MINE_WITHIN, "no other test has the broker", async || {
            lock.try_lock()
        })
        .await?;
        let ports = folder.join("ports");
        if !ports.exists() {
            let free = [free_port()?, free_port()?, free_port()?, free_port()?];
            let certificates = Certificates::new(&folder)?;
            let own = format!(
                "listeners.tcp.1 = 127.0.0.1:{}\nlisteners.ssl.1 = 127.0.0.1:{}\n\
                 ssl_options.certfile = {}\nssl_options.keyfile = {}\n",
                free[0],
                free[1],
                certificates.certificate.display(),
                certificates.key.display(),
            );
            fs::write(folder.join("rabbitmq.conf"), own + CONF)?;
            // No plugins.
            fs::write(folder.join("plugins"), "[].\n")?;
            fs::write(&ports, free.map(|port| port.to_string()).join(" "))?;
        }
        let ports = fs::read_to_string(ports)?;
        let mut ports = ports.split(' ').map(str::parse);
        let mut port = || ports.next().context("four ports")?.context("a port");
        let home = Self {
            port: port()?,
            tls_port: port()?,
            epmd: port()?,
            nodes: port()?,
            lock,
            folder,
        };
        home.has_epmd().await?;
        Ok(home)
    }

    /// Where Erlang's book of names is open.
    pub(crate) fn names(&self) -> SocketAddr {
        here(self.epmd)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What signed the certificate that it shows.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join(Certificates::AUTHORITY)
    }

    /// Where it writes down what it must not forget.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.join("mnesia")
    }

    /// What the server and its tools read from their environment.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let within = |name: &str| self.folder.join(name).display().to_string();
        // The server replaces its script, so that there is one process to signal.
        let in_the_front = "1".to_owned();
        // Its own nodes only from here; and one thread, which does not wait by turning.
        let erlang = "+S 1:1 +sbwt none -noinput -kernel inet_dist_use_interface {127,0,0,1}";
        vec![
            ("HOME", within("")),
            ("ERL_EPMD_PORT", self.epmd.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODENAME", "chatmesh@localhost".to_owned()),
            ("RABBITMQ_DIST_PORT", self.nodes.to_string()),
            ("RABBITMQ_MNESIA_BASE", within("mnesia")),
            ("RABBITMQ_LOG_BASE", within("logs")),
            ("RABBITMQ_LOGS", "-".to_owned()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", within("plugins")),
            ("RABBITMQ_PLUGINS_EXPAND_DIR", within("expand")),
            ("RABBITMQ_PID_FILE", within("rabbitmq.pid")),
            ("RABBITMQ_CONFIG_FILE", within("rabbitmq.conf")),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
            ("RABBITMQ_FEATURE_FLAGS_FILE", within("feature_flags")),
            ("RABBITMQ_ALLOW_INPUT", in_the_front),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erlang.to_owned()),
        ]
    }

    /// Starts the book of names that Erlang needs, if there is none: otherwise Erlang starts one
    /// that nobody ends.
    async fn has_epmd(&self) -> Result<()> {
        let there = async || TcpStream::connect(self.names()).await.map(drop);
        if there().await.is_ok() {
            return Ok(());
        }
        let mut epmd = Command::new(installed("epmd")?);
        epmd.args(["-port", &self.epmd.to_string(), "-address", "127.0.0.1"]);
        outlives_the_test(&mut epmd, &self.folder)?;
        eventually(PATIENCE, "Erlang's book of names is open", there).await
    }
}

/// A name that no other run has had.
fn place(run: Pid) -> Result<PathBuf> {
    let run = run.as_raw_nonzero();
    let stat = fs::read_to_string(format!("/proc/{run}/stat"))?;
    // The program's name may hold spaces; when it was started is the twentieth word behind it.
    let (_, words) = stat.rsplit_once(')').context("no name in /proc stat")?;
    let started = words.split_whitespace().nth(19).context("no time there")?;
    Ok(std::env::temp_dir().join(format!("chatmesh-rabbit-{run}-{started}")))
}

fn sweep_after(run: Pid, folder: &Path) -> Result<()> {
    let run = run.as_raw_nonzero().to_string();
    let mut sweeper = Command::new(installed("sh")?);
    sweeper.args(["-c", SWEEPER, "sweeper", &run]).arg(folder);
    outlives_the_test(&mut sweeper, Path::new("/"))
}

fn outlives_the_test(command: &mut Command, folder: &Path) -> Result<()> {
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    Ok(())
}
