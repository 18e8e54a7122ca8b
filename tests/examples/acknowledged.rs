//! What an acknowledged message costs with a disk, with a keeper, and without: 64 senders, each with one
//! message under way, on one node.
//!
//!     cargo build --release --workspace --bins
//!     cargo run --release -p e2e --example acknowledged [-- SECONDS [SENDERS [FOLDER [KEEPER]]]]
//!
//! Runs without and with `--data`, three times in turn, and prints each and the medians. FOLDER is
//! where the history goes; by default the folder for temporary files, which may be in memory. With
//! KEEPER, what `--keep` takes, also with that and `copies: 1`; an archive empties it afterwards.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program for people, not one of the programs"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

/// Runs of each kind.
const RUNS: usize = 3;
/// Where what is acknowledged is: in memory, on the disk, with a keeper.
const KINDS: [&str; 3] = ["memory", "--data", "--keep"];

struct Node {
    child: Child,
    url: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn start(flags: &[String]) -> Result<Node> {
    let example = std::env::current_exe()?;
    let folder = example.parent().and_then(|it| it.parent());
    let program = folder
        .context("examples lie in target/*/examples")?
        .join("chatnode");
    let mut command = Command::new(&program);
    command.args(["--registry", "none", "--rate-limit", "0"]);
    command.args(flags);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command
        .spawn()
        .with_context(|| format!("{}: build the programs first", program.display()))?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
    let ready: serde_json::Value = serde_json::from_str(&line)?;
    let http = ready["http"]
        .as_str()
        .context("no http in the ready line")?;
    let url = http.replace("http://", "ws://");
    Ok(Node { child, url })
}

/// Messages acknowledged in this time, and the middle and the 99th of a hundred of their times.
async fn measure(
    url: &str,
    senders: usize,
    time: Duration,
    is_kept: bool,
) -> Result<(f64, [Duration; 2])> {
    let copies = if is_kept { ",\"copies\":1" } else { "" };
    let wanted = if is_kept {
        "\"keeper\":true"
    } else {
        "\"send\""
    };
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for sender in 0..senders {
        let (mut socket, _) = tokio_tungstenite::connect_async(format!("{url}/ws")).await?;
        let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
        tasks.push(tokio::spawn(async move {
            let hello = format!("{{\"id\":0,\"hello\":{{\"name\":\"sender{sender}\"}}}}");
            socket.send(Message::text(hello)).await?;
            socket.next().await.context("no hello")??;
            let mut times = Vec::new();
            let text = "x".repeat(100);
            for id in 1u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let send = format!(
                    "{{\"id\":{id},\"send\":{{\"room\":\"bench\",\"mid\":\"{sender}-{id}\",\"text\":\"{text}\"{copies}}}}}"
                );
                let sent = Instant::now();
                socket.send(Message::text(send)).await?;
                let reply = socket.next().await.context("closed")??;
                let reply = reply.to_text()?;
                // Within the first seconds a new keeper may not count yet.
                anyhow::ensure!(reply.contains(wanted) || id == 1, "refused: {reply}");
                times.push(sent.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(times)
        }));
    }
    // The first second is for caches and the file to grow.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (begun, before) = (Instant::now(), count.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let (took, after) = (begun.elapsed(), count.load(Ordering::Relaxed));
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100];
    #[expect(clippy::cast_precision_loss, reason = "counts of some seconds")]
    let rate = (after - before) as f64 / took.as_secs_f64();
    Ok((rate, [at(50), at(99)]))
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| match args.get(at) {
        Some(text) => text
            .parse()
            .with_context(|| format!("not a number: {text}")),
        None => Ok(default),
    };
    let time = Duration::from_secs(number(0, 5)? as u64);
    let senders = number(1, 64)?;
    let base = args.get(2).map_or_else(std::env::temp_dir, Into::into);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let keeper = args.get(3);
    let kinds = if keeper.is_some() {
        &KINDS[..]
    } else {
        &KINDS[..2]
    };
    let mut rates = vec![Vec::new(); kinds.len()];
    for run in 1..=RUNS {
        for (name, rates) in kinds.iter().zip(&mut rates) {
            let folder = tempfile::tempdir_in(&base)?;
            let data = folder.path().display().to_string();
            let flags = match (*name, keeper) {
                ("--data", _) => vec!["--data".to_owned(), data],
                ("--keep", Some(url)) => vec!["--keep".to_owned(), url.clone()],
                _ => Vec::new(),
            };
            let node = start(&flags)?;
            let measuring = measure(&node.url, senders, time, *name == "--keep");
            let (rate, [median, p99]) = runtime.block_on(measuring)?;
            println!("run {run} {name:>6}: {rate:>8.0} messages/s, p50 {median:?}, p99 {p99:?}");
            rates.push(rate);
        }
    }
    for (name, rates) in kinds.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        println!(
            "median {name:>6}: {:>8.0} messages/s",
            rates[rates.len() / 2]
        );
    }
    Ok(())
}
