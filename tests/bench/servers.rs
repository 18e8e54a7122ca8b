//! Servers to measure: each measurement gets fresh ones, on free ports, all on one core.

mod engines;
mod nats;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::clock::{SECOND, eventually};
use crate::{SERVER_CORE, say};

/// How long servers may take to start, to find each other and to be ready.
const STARTS_WITHIN: u64 = 60 * SECOND;

/// Servers that run until this is dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    children: Vec<Child>,
    /// One a node.
    pub(crate) urls: Vec<String>,
    /// All processes whose CPU time and memory count.
    pub(crate) pids: Vec<u32>,
    /// `--proto` of the clients.
    pub(crate) protocol: &'static str,
    registry: Option<String>,
    /// The file of the chatnodes' mesh secret, if they have one.
    pub(crate) secret: Option<PathBuf>,
    /// The URL of the broker where the chatnodes meet, if they do so at one.
    bus: Option<String>,
    /// Folders of brokers, which go with them.
    homes: Vec<TempDir>,
}

/// Where results, logs and what peers need are kept.
pub(crate) fn folder() -> PathBuf {
    workspace().join("target/bench")
}

/// The repository.
pub(crate) fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// A built program of this workspace, beside this one.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own
        .parent()
        .and_then(Path::parent)
        .context("no folder of programs")?;
    let path = folder.join(name);
    ensure!(
        path.exists(),
        "{} is not built: scripts/bench builds it",
        path.display()
    );
    Ok(path)
}

fn uws_python() -> PathBuf {
    folder().join("uws/bin/python")
}

/// Installs what a peer needs, once.
///
/// # Errors
/// It cannot be had; the text says what is missing.
pub(crate) fn prepare(peer: &str) -> Result<()> {
    match peer {
        "uws"
            if !uws_python().exists()
                || run(uws_python(), &["-c", "import socketify"]).is_err() =>
        {
            let venv = folder().join("uws");
            run("python3", &["-m", "venv", &venv.to_string_lossy()])
                .context("python3 with venv is needed")?;
            run(
                uws_python(),
                &["-m", "pip", "install", "--quiet", "socketify==0.0.31"],
            )?;
            let import = run(uws_python(), &["-c", "import socketify"]);
            import.context("socketify does not load (Debian: apt-get install libuv1)")
        }
        "nats" | "chatnode-nats" => needs("nats-server"),
        "nats-tls" => {
            needs("nats-server")?;
            needs("openssl")
        }
        "chatnode-redis" => needs("redis-server"),
        "chatnode-amqp" => engines::prepare_rabbitmq(),
        "chatnode-proxy" => engines::prepare_proxy(),
        "socketio" | "socketio-streams" => engines::prepare_socketio(),
        _ => Ok(()),
    }
}

fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Result<()> {
    let program = program.as_ref();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("{} is missing", program.display()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let last = told.lines().last().unwrap_or_default();
    ensure!(
        output.status.success(),
        "{} {}: {last}",
        program.display(),
        args.join(" ")
    );
    Ok(())
}

/// A Debian package's server; its service is not wanted.
fn needs(server: &str) -> Result<()> {
    if find(server).is_some() {
        return Ok(());
    }
    say(format_args!("installing {server} with apt-get"));
    let installed = run(
        "apt-get",
        &["install", "-y", "--no-install-recommends", server],
    );
    installed.with_context(|| format!("it needs {server} (Debian: apt-get install {server})"))
}

fn find(server: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];
    folders
        .iter()
        .map(|folder| Path::new(folder).join(server))
        .find(|path| path.exists())
}

impl Servers {
    fn none(protocol: &'static str) -> Self {
        Self {
            children: Vec::new(),
            urls: Vec::new(),
            pids: Vec::new(),
            protocol,
            registry: None,
            secret: None,
            bus: None,
            homes: Vec::new(),
        }
    }

    /// Starts a peer with so many nodes.
    pub(crate) fn start(peer: &str, nodes: usize) -> Result<Self> {
        crate::pin(SERVER_CORE)?;
        let mut servers = Self::none("plain");
        match peer {
            "chatnode" | "chat.v1" | "chatnode-tls" => {
                servers.chatnodes(peer, nodes, nodes > 1)?;
                if peer == "chat.v1" {
                    servers.protocol = "chat";
                }
            }
            "floor" | "floor-batch" => {
                let mut command = Command::new(std::env::current_exe()?);
                command
                    .arg("floor")
                    .args((peer == "floor-batch").then_some("--batch"));
                servers.launch(peer, &mut command)?;
            }
            "uws" => {
                let mut command = Command::new(uws_python());
                command
                    .arg(workspace().join("tests/bench/peers/uws.py"))
                    .arg(free_ports(1)?[0].to_string());
                servers.launch(peer, &mut command)?;
            }
            "nats" | "nats-tls" => drop(servers.nats(nodes, peer == "nats-tls")?),
            "socketio" | "socketio-streams" => servers.socketio(peer, nodes)?,
            "chatnode-redis" | "chatnode-nats" | "chatnode-amqp" | "chatnode-proxy" => {
                servers.bus = Some(servers.broker(peer)?);
                servers.chatnodes(peer, nodes, false)?;
            }
            other => bail!(
                "no peer {other}; there are {}",
                crate::scenarios::PEERS.join(", ")
            ),
        }
        Ok(servers)
    }

    /// Chatnodes that more may join, even if there is but one.
    pub(crate) fn mesh(peer: &str, nodes: usize) -> Result<Self> {
        crate::pin(SERVER_CORE)?;
        let mut servers = Self::none("plain");
        servers.chatnodes(peer, nodes, true)?;
        Ok(servers)
    }

    /// Chatnodes on all cores.
    pub(crate) fn spread(peer: &str, nodes: usize) -> Result<Self> {
        crate::pin_to(0..rustix::thread::CpuSet::MAX_CPU)?;
        let mut servers = Self::none("plain");
        servers.chatnodes(peer, nodes, true)?;
        Ok(servers)
    }

    /// The first nodes alone, for a load that only they get. Their processes stay with `self`.
    pub(crate) fn first(&self, nodes: usize) -> Self {
        let urls = self.urls.iter().take(nodes).cloned().collect();
        let mut first = Self::none(self.protocol);
        first.urls = urls;
        first
    }

    fn chatnodes(&mut self, peer: &str, nodes: usize, registry: bool) -> Result<()> {
        if peer == "chatnode-tls" {
            self.secret = Some(new_secret()?);
        }
        if registry {
            let mut command = Command::new(program("registry")?);
            command.args(["--http", "127.0.0.1:0"]);
            self.registry = Some(self.launch("registry", self.with_secret(&mut command))?);
            self.urls.clear();
        }
        for _ in 0..nodes {
            self.add_chatnode()?;
        }
        self.await_links()
    }

    fn with_secret<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        match &self.secret {
            Some(secret) => command.arg("--mesh-secret").arg(secret),
            None => command,
        }
    }

    /// Starts one more chatnode, and returns when it has printed its ready line.
    pub(crate) fn add_chatnode(&mut self) -> Result<()> {
        let registry = self.registry.clone().unwrap_or_else(|| "none".to_owned());
        let mut command = Command::new(program("chatnode")?);
        command.args(["--registry", &registry, "--rate-limit", "0"]);
        if let Some(bus) = &self.bus {
            command.args(["--bus", bus]);
        }
        let name = format!("chatnode-{}", self.urls.len() + 1);
        self.launch(&name, self.with_secret(&mut command)).map(drop)
    }

    /// Waits until all chatnodes hear each other.
    pub(crate) fn await_links(&self) -> Result<()> {
        let nodes = self.urls.len();
        for url in &self.urls {
            let linked = eventually(STARTS_WITHIN, || {
                let mesh = get(url, "/api/mesh").ok()?;
                let links = mesh["links"].as_array()?;
                let up = links
                    .iter()
                    .filter(|link| link["state"] == "up" && link["hears_us"] == true);
                (mesh["ready"] == true && up.count() == nodes - 1).then_some(())
            });
            linked.with_context(|| format!("{url} is not linked with all others"))?;
        }
        Ok(())
    }

    /// All origins and how far a chatnode has them, sorted; none if it does not answer.
    pub(crate) fn position(&self, node: usize) -> Option<Vec<String>> {
        let mesh = get(&self.urls[node], "/api/mesh").ok()?;
        let position = mesh["position"].as_array()?.iter();
        let mut ids: Vec<String> = position
            .filter_map(|id| Some(id.as_str()?.to_owned()))
            .collect();
        ids.sort();
        Some(ids)
    }

    /// Starts a program whose stderr goes to a log.
    fn spawn(&mut self, name: &str, command: &mut Command) -> Result<&mut Child> {
        let logs = folder().join("logs");
        fs::create_dir_all(&logs)?;
        let log = File::create(logs.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        self.pids.push(child.id());
        self.children.push(child);
        self.children.last_mut().context("just pushed")
    }

    /// Starts a program that prints a ready line with its URL.
    fn launch(&mut self, name: &str, command: &mut Command) -> Result<String> {
        let child = self.spawn(name, command.stdout(Stdio::piped()))?;
        let mut line = String::new();
        let out = child.stdout.take().context("stdout is piped")?;
        BufReader::new(out).read_line(&mut line)?;
        let log = folder().join("logs").join(name);
        let ready: Value = serde_json::from_str(&line)
            .with_context(|| format!("{name} printed no ready line: see {}.log", log.display()))?;
        let url = ready["http"]
            .as_str()
            .context("no URL in the ready line")?
            .to_owned();
        self.urls.push(url.clone());
        Ok(url)
    }

    /// The process of a chatnode, numbered from 0; the registry's stands before theirs.
    pub(crate) fn node_pid(&self, node: usize) -> u32 {
        self.pids[self.pids.len() - self.urls.len() + node]
    }

    /// Sends a signal to the last process that was started.
    pub(crate) fn signal_last(&self, signal: Signal) -> Result<()> {
        let child = self.children.last().context("no process")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _gone = child.kill();
        }
        for child in &mut self.children {
            let _gone = child.wait();
        }
    }
}

/// A file with a mesh secret of its own, which nobody else may read.
fn new_secret() -> Result<PathBuf> {
    let made = Command::new(program("chatnode")?).arg("secret").output()?;
    ensure!(made.status.success(), "chatnode secret makes none");
    let path = folder().join("mesh.secret");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&path)?.write_all(&made.stdout)?;
    Ok(path)
}

/// Ports that nobody has, each another.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    // All are held until the last is found, so that none is found twice.
    let held = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<Vec<_>, _>>()?;
    let ports = held.iter().map(|held| Ok(held.local_addr()?.port()));
    ports.collect()
}

/// The JSON at a path of a server.
pub(crate) fn get(url: &str, path: &str) -> Result<Value> {
    let host = crate::wire::host(url);
    let mut socket = TcpStream::connect(host)?;
    write!(socket, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let head = crate::wire::head_end(&answer).context("no HTTP")?;
    Ok(serde_json::from_slice(&answer[head..])?)
}
