//! The load balancers of `docs/proxies/`: real HAProxy and real nginx with the very files that the
//! project gives to people, in which only ports, folders and times are put in.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::cluster::{Node, get};
use super::eventually::{eventually, holds};
use super::process::workspace;
use super::tools::{free_port, installed};
use super::{PATIENCE, say};

/// How long both files let a connection be silent.
pub(crate) const SILENCE: &str = "60s";
/// The servers that both files name.
const SERVERS: [&str; 3] = ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"];

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    HaProxy,
    Nginx,
}

impl Make {
    /// The file as people read it.
    pub(crate) fn file(self) -> Result<String> {
        let name = match self {
            Self::HaProxy => "haproxy.cfg",
            Self::Nginx => "nginx.conf",
        };
        let path = workspace().join("docs/proxies").join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}

/// A running one, stopped when dropped. While a test fails, its log is printed.
#[derive(Debug)]
pub(crate) struct Balancer {
    make: Make,
    master: Child,
    folder: TempDir,
    /// `http://127.0.0.1:PORT`.
    pub(crate) http: String,
}

impl Balancer {
    /// Before these nodes (if there are fewer than three, some stand for two), on a free port.
    pub(crate) async fn start(make: Make, nodes: &[Node]) -> Result<Self> {
        Self::with(make, nodes, free_port()?, SILENCE).await
    }

    /// Like that on this port, and a connection may be silent for so long.
    pub(crate) async fn with(make: Make, nodes: &[Node], port: u16, silence: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("chatmesh-proxy-")
            .tempdir()?;
        // Workers of nginx are other users if the test is root.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let mut text = make.file()?;
        let mut put = |from: &str, to: &str| {
            ensure!(text.contains(from), "no {from:?} in the file of {make:?}");
            text = text.replace(from, to);
            Ok(())
        };
        for (server, node) in SERVERS.iter().zip(nodes.iter().cycle()) {
            put(server, node.http.trim_start_matches("http://"))?;
        }
        put(SILENCE, silence)?;
        let here = format!("127.0.0.1:{port};");
        match make {
            Make::HaProxy => put(
                "bind :8000",
                &format!("bind {}", here.trim_end_matches(';')),
            )?,
            Make::Nginx => {
                put("listen 8000;", &format!("listen {here}"))?;
                let folder = folder.path().display();
                let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|what| format!("    {what}_temp_path {folder}/{what};\n"));
                let places = places.concat();
                put(
                    "http {\n",
                    &format!("http {{\n    access_log off;\n{places}"),
                )?;
            }
        }
        fs::write(folder.path().join("conf"), text)?;
        let balancer = Self {
            make,
            master: launch(make, &folder)?,
            folder,
            http: format!("http://127.0.0.1:{port}"),
        };
        let ready = balancer.lets_through().await;
        ready.with_context(|| balancer.log())?;
        Ok(balancer)
    }

    /// Waits until a node answers through it.
    pub(crate) async fn lets_through(&self) -> Result<()> {
        eventually(PATIENCE, "a node answers through it", async || {
            let answer = get(&format!("{}/readyz", self.http)).await?;
            ensure!(answer.status() == 200, "/readyz is {}", answer.status());
            Ok(())
        })
        .await
    }

    /// Has it read its file again, as `systemctl reload` does: new processes take what comes, the
    /// old ones keep the connections that they have.
    pub(crate) async fn reload(&self) -> Result<()> {
        let before = self.workers()?;
        self.signal(match self.make {
            Make::HaProxy => Signal::USR2,
            Make::Nginx => Signal::HUP,
        })?;
        eventually(PATIENCE, "there are new workers", async || {
            let now = self.workers()?;
            let new = now.iter().any(|worker| !before.contains(worker));
            holds(new, format_args!("{before:?}, {now:?}")).map_err(anyhow::Error::msg)
        })
        .await?;
        self.lets_through().await
    }

    /// Stops it at once, with all its connections.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let ended = timeout(PATIENCE, self.master.wait()).await;
        ended.with_context(|| format!("{:?} does not end", self.make))??;
        Ok(())
    }

    /// Starts it again on its port.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        self.master = launch(self.make, &self.folder)?;
        self.lets_through().await
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        format!("--- {:?}:\n{log}---", self.make)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.master.id();
        let pid = pid.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(kill_process(pid.context("it has ended")?, signal)?)
    }

    /// The processes whose parent is the one that was started.
    fn workers(&self) -> Result<Vec<u32>> {
        let master = self.master.id().context("it has ended")?.to_string();
        let mut workers = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry.file_name().to_str().and_then(|it| it.parse().ok());
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The name may hold spaces; the parent is the second word behind it.
            let parent = stat
                .rsplit_once(')')
                .map(|(_, rest)| rest.split_whitespace());
            if let (Some(pid), Some(mut words)) = (pid, parent)
                && words.nth(1) == Some(&master)
            {
                workers.push(pid);
            }
        }
        Ok(workers)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say!("{}", self.log());
        }
        // Not killed: its workers would stay.
        let _gone = self.signal(Signal::TERM);
    }
}

fn launch(make: Make, folder: &TempDir) -> Result<Child> {
    let place = |name: &str| folder.path().join(name);
    let shown = |path: PathBuf| path.display().to_string();
    let (program, args) = match make {
        Make::HaProxy => ("haproxy", vec!["-W".to_owned(), "-db".to_owned()]),
        Make::Nginx => {
            let globals = format!("daemon off; pid {};", shown(place("pid")));
            let args = ["-e", "stderr", "-g", &globals];
            ("nginx", args.map(str::to_owned).to_vec())
        }
    };
    let file = match make {
        Make::HaProxy => "-f",
        Make::Nginx => "-c",
    };
    let log = File::options()
        .create(true)
        .append(true)
        .open(place("log"))?;
    Command::new(installed(program)?)
        .args(args)
        .args([file, &shown(place("conf"))])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}
