//! How long a change takes to reach everyone: `cargo run --release -p registry --example wakeups`.
//!
//! Starts a registry of its own on loopback, and N watchers with a connection and a long poll
//! each. Then it registers and removes a node, round after round, at random moments; a round's
//! figure for a watcher is the time from sending the change until that watcher has read the whole
//! new list. Rounds are more than 10 ms apart: a change that follows another sooner waits for the
//! next version, by design. Registry
//! and watchers run on a thread each, so two cores are enough. Watchers are bare sockets: what is
//! measured is the registry, not an HTTP client. Prints a table, and exits 1 if a target is missed.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use base::process::{Tasks, raise_open_files_limit};
use registry::api::Registration;
use registry::client::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Watchers, and the most that p99 may be.
const TARGETS: [(usize, Duration); 3] = [
    (16, Duration::from_millis(10)),
    (100, Duration::from_millis(20)),
    (1000, Duration::from_millis(150)),
];
/// Changes measured.
const ROUNDS: usize = 200;
/// Nodes listed all along, so that the body has a size as in life.
const NODES: u16 = 100;

fn main() -> anyhow::Result<ExitCode> {
    raise_open_files_limit();
    let (tell, told) = std::sync::mpsc::channel();
    let tasks = Tasks::new();
    let server = {
        let tasks = tasks.clone();
        std::thread::spawn(move || serve(&tasks, &tell))
    };
    let addr = told.recv().context("the registry did not start")?;
    let rows = runtime()?.block_on(async {
        let client = Client::new(&format!("http://{addr}"))?;
        let mut rows = Vec::new();
        for (watchers, target) in TARGETS {
            rows.push((watchers, target, measure(addr, &client, watchers).await?));
        }
        anyhow::Ok(rows)
    })?;
    tasks.stop();
    server
        .join()
        .map_err(|_| anyhow::anyhow!("the registry panicked"))??;

    let mut out = std::io::stdout().lock();
    writeln!(out, "{NODES} nodes listed, {ROUNDS} changes, times in ms")?;
    writeln!(
        out,
        "{:>8} {:>8} {:>8} {:>8}   target",
        "watchers", "p50", "p99", "max"
    )?;
    let mut kept = true;
    for (watchers, target, mut times) in rows {
        times.sort_unstable();
        let ms = |per_cent: usize| times[(times.len() - 1) * per_cent / 100].as_secs_f64() * 1000.0;
        let good = ms(99) <= target.as_secs_f64() * 1000.0;
        kept &= good;
        writeln!(
            out,
            "{watchers:>8} {:>8.2} {:>8.2} {:>8.2}   p99 <= {} {}",
            ms(50),
            ms(99),
            ms(100),
            target.as_millis(),
            if good { "kept" } else { "MISSED" }
        )?;
    }
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

fn serve(tasks: &Tasks, tell: &std::sync::mpsc::Sender<SocketAddr>) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let listener = base::serve::listen("127.0.0.1:0".parse()?)?;
        let addr = listener.local_addr()?;
        registry::run(Duration::from_secs(60), listener, None, tasks);
        tell.send(addr)?;
        tasks.stopping().cancelled().await;
        tasks.drain(Duration::from_secs(5)).await;
        Ok(())
    })
}

fn node(port: u16) -> Registration {
    Registration {
        name: format!("node-{port}"),
        endpoints: [
            ("pub".to_owned(), format!("tcp://10.0.0.1:{port}")),
            ("http".to_owned(), format!("http://10.0.0.2:{port}")),
        ]
        .into(),
        meta: [("zone".to_owned(), "a".to_owned())].into(),
    }
}

/// Times of all watchers over all rounds.
async fn measure(
    addr: SocketAddr,
    client: &Client,
    watchers: usize,
) -> anyhow::Result<Vec<Duration>> {
    for port in 1..=NODES {
        client.put(&format!("n{port}"), &node(port)).await?;
    }
    let tasks = Tasks::new();
    let (woken, mut wakes) = mpsc::channel(watchers);
    for _ in 0..watchers {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (woken, stopping) = (woken.clone(), tasks.stopping());
        tasks.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                _ = watch(stream, woken) => {}
            }
        });
    }
    drop(woken);
    let mut times = Vec::with_capacity(watchers * ROUNDS);
    // Everyone has the first list, then polls for the next.
    for _ in 0..watchers {
        wakes.recv().await.context("a watcher ended")?;
    }
    for round in 0..ROUNDS {
        parked(client, watchers).await?;
        tokio::time::sleep(Duration::from_micros(rand::random_range(12_000..32_000))).await;
        let begun = Instant::now();
        if round % 2 == 0 {
            client.put("newcomer", &node(60_000)).await?;
        } else {
            client.delete("newcomer").await?;
        }
        for _ in 0..watchers {
            let woken: Instant = wakes.recv().await.context("a watcher ended")?;
            times.push(woken - begun);
        }
    }
    tasks.drain(Duration::from_secs(5)).await;
    Ok(times)
}

/// Waits until the registry says that all watchers wait.
async fn parked(client: &Client, watchers: usize) -> anyhow::Result<()> {
    let wanted = format!("registry_watchers {watchers}");
    loop {
        let url = format!("{}/metrics", client.url());
        let metrics = base::tls::http_client(None)
            .build()?
            .get(url)
            .send()
            .await?
            .text()
            .await?;
        if metrics.lines().any(|line| line == wanted) {
            return Ok(());
        }
    }
}

/// Polls for ever, and tells when it has each new list.
async fn watch(mut stream: TcpStream, woken: mpsc::Sender<Instant>) -> anyhow::Result<()> {
    let mut token = String::new();
    let mut answer = Vec::new();
    loop {
        let request =
            format!("GET /v1/nodes?since={token}&wait=55 HTTP/1.1\r\nHost: registry\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        token = loop {
            anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "closed");
            if let Some(token) = whole(&answer)? {
                break token;
            }
        };
        woken.send(Instant::now()).await?;
    }
}

/// The token of an answer that has come whole.
fn whole(answer: &[u8]) -> anyhow::Result<Option<String>> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = str::from_utf8(&answer[..end])?;
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim_matches([' ', '"']))
    };
    let length: usize = field("content-length:").context("no length")?.parse()?;
    let token = field("etag:").context("no etag")?;
    Ok((answer.len() >= end + 4 + length).then(|| token.to_owned()))
}
