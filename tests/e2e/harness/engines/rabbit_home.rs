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
use e2e::rabbitmq;
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
            rabbitmq::write_files(&folder, &own)?;
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
        rabbitmq::variables(&self.folder, self.epmd, self.nodes)
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
