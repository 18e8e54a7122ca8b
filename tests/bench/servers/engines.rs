//! Brokers where chatnodes meet, each fresh, and socket.io, which uses Redis.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{SYSTEM_PYTHON, ZMQ_PROXY, rabbitmq};

use super::{STARTS_WITHIN, Servers, find, folder, free_ports, needs, run, workspace};
use crate::clock::eventually;
use crate::procs::descendants;

/// What the forwarder of ZeroMQ needs.
pub(super) fn prepare_proxy() -> Result<()> {
    let import = run(SYSTEM_PYTHON, &["-c", "import zmq"]);
    import.context("ZeroMQ for Python is needed: scripts/setup installs it")
}

/// RabbitMQ, whose package would start its service: that is left to who can prevent it.
pub(super) fn prepare_rabbitmq() -> Result<()> {
    let there = Path::new(rabbitmq::SERVER).exists() && find("epmd").is_some();
    ensure!(there, "RabbitMQ is needed: scripts/setup installs it");
    Ok(())
}

/// What socket.io needs, from npm.
pub(super) fn prepare_socketio() -> Result<()> {
    needs("redis-server")?;
    let target = folder().join("socketio");
    fs::create_dir_all(&target)?;
    // What was installed for another list is installed anew.
    let listed = |folder: &Path| fs::read(folder.join("package.json")).unwrap_or_default();
    let source = workspace().join("tests/bench/peers/socketio");
    let is_there =
        target.join("node_modules/socket.io").exists() && listed(&source) == listed(&target);
    for file in ["package.json", "server.js"] {
        fs::copy(source.join(file), target.join(file))?;
    }
    let prefix = target.to_string_lossy().into_owned();
    let quietly = ["install", "--no-audit", "--no-fund", "--silent", "--prefix"];
    if is_there {
        Ok(())
    } else {
        run("npm", &[&quietly[..], &[&prefix]].concat())
    }
}

impl Servers {
    /// Starts the broker of a chatnode of this kind; its URL.
    pub(super) fn broker(&mut self, peer: &str) -> Result<String> {
        Ok(match peer {
            "chatnode-redis" => format!("redis://127.0.0.1:{}", self.redis()?),
            "chatnode-amqp" => format!("amqp://127.0.0.1:{}", self.rabbitmq()?),
            "chatnode-proxy" => {
                let ports = free_ports(2)?;
                let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
                let mut command = Command::new(SYSTEM_PYTHON);
                command.args(["-c", ZMQ_PROXY]).args(&ports);
                self.spawn("zmq-proxy", command.stdout(Stdio::null()))?;
                format!("zmq+proxy://127.0.0.1:{}", ports.join(","))
            }
            _ => {
                let port = self.nats(1, false)?;
                // Its clients are those of the chatnodes.
                self.urls.clear();
                self.protocol = "plain";
                format!("nats://127.0.0.1:{port}")
            }
        })
    }

    /// Starts socket.io, its nodes joined by Redis: by publish and subscribe, or by a stream.
    pub(super) fn socketio(&mut self, peer: &str, nodes: usize) -> Result<()> {
        let redis = self.redis()?.to_string();
        for node in 0..nodes {
            let mut command = Command::new("node");
            command.arg(folder().join("socketio/server.js"));
            command.args([&redis, peer]);
            self.launch(&format!("{peer}-{node}"), &mut command)?;
        }
        self.protocol = "socketio";
        Ok(())
    }

    /// Starts a Redis that keeps nothing; its port.
    fn redis(&mut self) -> Result<u16> {
        let port = free_ports(1)?[0];
        let binary = find("redis-server").context("redis-server is missing")?;
        let mut command = Command::new(binary);
        let args = format!("--port {port} --bind 127.0.0.1 --save");
        command.args(args.split(' ')).arg("");
        self.spawn("redis", command.stdout(Stdio::null()))?;
        listens(port).context("redis-server does not listen")?;
        Ok(port)
    }

    /// Starts a RabbitMQ, of which all processes count, and waits until its start is complete; its port.
    fn rabbitmq(&mut self) -> Result<u16> {
        let [port, epmd, nodes] = free_ports(3)?[..] else {
            bail!("three ports")
        };
        let home = tempfile::Builder::new()
            .prefix("chatmesh-rabbitmq-")
            .tempdir()?;
        let listeners = format!("listeners.tcp.1 = 127.0.0.1:{port}\n");
        rabbitmq::write_files(home.path(), &listeners)?;
        // Erlang's book of names: without one Erlang starts one that nobody ends.
        let mut command = Command::new(find("epmd").context("epmd is missing")?);
        command.args(["-port", &epmd.to_string(), "-address", "127.0.0.1"]);
        self.spawn("epmd", command.stdout(Stdio::null()))?;
        listens(epmd).context("epmd does not listen")?;
        let log = home.path().join("log");
        let mut command = Command::new(rabbitmq::SERVER);
        command
            .envs(rabbitmq::variables(home.path(), epmd, nodes))
            .env("RABBITMQ_LOGS", &log)
            .current_dir(home.path())
            .stdout(Stdio::null());
        let server = self.spawn("rabbitmq", &mut command)?.id();
        self.homes.push(home);
        let complete = eventually(STARTS_WITHIN, || {
            let log = fs::read_to_string(&log).ok()?;
            log.contains(rabbitmq::COMPLETE).then_some(())
        });
        complete.context("RabbitMQ does not start: see logs/rabbitmq.log")?;
        let others = descendants(server);
        ensure!(!others.is_empty(), "RabbitMQ's other processes are missing");
        self.pids.extend(others);
        Ok(port)
    }
}

/// Waits until somebody listens at a port of 127.0.0.1.
fn listens(port: u16) -> Option<TcpStream> {
    eventually(STARTS_WITHIN, || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    })
}
