//! Small things that several subjects need: free ports, foreign programs, server-sent events,
//! and the honest note about what this machine could not do.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Duration, timeout};

use super::cluster::Node;
use super::process::{target, workspace};
use super::{PATIENCE, say};

/// Ports below the range from which systems take ports for outgoing connections, so that nothing
/// takes one between the look and the use.
const FREE_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port of 127.0.0.1 on which nobody listens.
pub(crate) fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = rand::random_range(FREE_PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port among {FREE_PORTS:?}")
}

/// Says, and counts for `scripts/test`, that this machine cannot do something.
pub(crate) fn limited(what: &str, instead: &str, why: &str) -> Result<()> {
    say!("LIMITED: {what} not possible here ({why}); used instead: {instead}");
    let folder = target()?.join("../e2e-limits");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(
        folder.join(what.replace(' ', "-")),
        format!("{what}: {instead} ({why})\n"),
    )?;
    Ok(())
}

/// Where a program of the system lies.
///
/// # Errors
/// It is not installed; the text says how to mend it.
pub(crate) fn installed(program: &str) -> Result<PathBuf> {
    let path = super::variable("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .with_context(|| format!("{program} is not installed: run scripts/setup"))
}

/// Runs a program of the system to its end; what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = std::process::Command::new(installed(program)?)
        .args(args)
        .output();
    let output = output.with_context(|| format!("running {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A foreign program, under Node.js: it says what it is told, and tells what it hears.
#[derive(Debug)]
pub(crate) struct Foreign {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Foreign {
    /// By libzmq: publishes on this port, hears these.
    pub(crate) async fn start(publishes: u16, hears: &[u16]) -> Result<Self> {
        Self::on_ports("chat.js", publishes, hears).await
    }

    /// The same in two parts, as the textbook's fourth edition has it.
    pub(crate) async fn in_two_parts(publishes: u16, hears: &[u16]) -> Result<Self> {
        Self::on_ports("chat4.js", publishes, hears).await
    }

    async fn on_ports(program: &str, publishes: u16, hears: &[u16]) -> Result<Self> {
        let ports: Vec<String> = [publishes]
            .iter()
            .chain(hears)
            .map(u16::to_string)
            .collect();
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        Self::run(program, "zeromq", &ports).await
    }

    /// One at a broker: publishes and hears there, on this channel or exchange.
    pub(crate) async fn at(broker: &str, channel: &str) -> Result<Self> {
        match broker.starts_with("amqp:") {
            true => Self::run("amqp.js", "amqplib", &[broker, channel]).await,
            false => Self::run("redis.js", "redis", &[broker, channel]).await,
        }
    }

    async fn run(program: &str, package: &str, args: &[&str]) -> Result<Self> {
        let folder = workspace().join("tests/foreign");
        ensure!(
            folder.join("node_modules").join(package).is_dir(),
            "the foreign programs are not installed: run scripts/setup"
        );
        let mut child = Command::new(installed("node")?)
            .arg(program)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("the input is a pipe")?;
        let output = child.stdout.take().context("the output is a pipe")?;
        let mut foreign = Self {
            _child: child,
            input,
            output: BufReader::new(output).lines(),
        };
        foreign.hears("ready").await?;
        Ok(foreign)
    }

    /// Publishes a text.
    pub(crate) async fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.input.write_all(format!("{text}\n").as_bytes()).await?)
    }

    /// The next text that it heard.
    pub(crate) async fn next(&mut self, within: Duration) -> Result<String> {
        let line = timeout(within, self.output.next_line())
            .await
            .context("nothing was heard")?;
        line?.context("the foreign program ended")
    }

    /// Skips to this text; what came before it.
    pub(crate) async fn hears(&mut self, text: &str) -> Result<Vec<String>> {
        let mut before = Vec::new();
        loop {
            let next = self.next(PATIENCE).await;
            let next = next.with_context(|| format!("waiting for {text:?} after {before:?}"))?;
            if next == text {
                return Ok(before);
            }
            before.push(next);
        }
    }
}

/// One server-sent event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// A stream of server-sent events.
pub(crate) struct Events {
    body: futures::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    text: String,
    /// Where a client that comes back goes on: the last id, also of an event without data.
    pub(crate) last_id: String,
}

impl Events {
    /// Opens the stream at a path, with this `Last-Event-ID`.
    pub(crate) async fn open(node: &Node, path: &str, last: Option<&str>) -> Result<Self> {
        Self::open_at(&node.http, path, last).await
    }

    /// Like [`Events::open`], at an HTTP endpoint.
    pub(crate) async fn open_at(http: &str, path: &str, last: Option<&str>) -> Result<Self> {
        // Without a limit of time: the stream lasts as long as the test listens.
        let client = base::tls::http_client(None).no_proxy().build()?;
        let mut request = client.get(format!("{http}{path}"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = timeout(PATIENCE, request.send())
            .await??
            .error_for_status()?;
        let kind = response
            .headers()
            .get("content-type")
            .context("no content type")?;
        ensure!(
            kind.to_str()?.starts_with("text/event-stream"),
            "content type {kind:?}"
        );
        let body = response
            .bytes_stream()
            .map(|piece| piece.map(|bytes| bytes.to_vec()))
            .boxed();
        Ok(Self {
            body,
            text: String::new(),
            last_id: last.unwrap_or_default().to_owned(),
        })
    }

    /// The next event that has data.
    pub(crate) async fn next(&mut self, within: Duration) -> Result<Event> {
        timeout(within, self.read())
            .await
            .with_context(|| format!("no event in {within:?}"))?
    }

    async fn read(&mut self) -> Result<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = parse_event(block);
                self.text = rest.to_owned();
                if !event.id.is_empty() {
                    self.last_id.clone_from(&event.id);
                }
                if !event.data.is_empty() {
                    return Ok(event);
                }
            }
            let piece = self
                .body
                .next()
                .await
                .context("the stream of events ended")??;
            self.text
                .push_str(&String::from_utf8(piece)?.replace("\r\n", "\n"));
        }
    }
}

fn parse_event(block: &str) -> Event {
    let mut event = Event::default();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut event.id),
            "event" => value.clone_into(&mut event.kind),
            "data" => {
                if !event.data.is_empty() {
                    event.data.push('\n');
                }
                event.data.push_str(value);
            }
            _ => {}
        }
    }
    event
}
