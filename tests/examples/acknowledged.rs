//! What an acknowledged message costs with a disk and without: 64 senders, each with one message
//! under way, on one node.
//!
//!     cargo build --release --workspace --bins
//!     cargo run --release -p e2e --example acknowledged [-- SECONDS [SENDERS [FOLDER]]]
//!
//! Runs without and with `--data`, three times in turn, and prints each and the medians. FOLDER is
//! where the history goes; by default the folder for temporary files, which may be in memory.

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

fn start(data: Option<&std::path::Path>) -> Result<Node> {
    let example = std::env::current_exe()?;
    let folder = example.parent().and_then(|it| it.parent());
    let program = folder
        .context("examples lie in target/*/examples")?
        .join("chatnode");
    let mut command = Command::new(&program);
    command.args(["--registry", "none", "--rate-limit", "0"]);
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
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
async fn measure(url: &str, senders: usize, time: Duration) -> Result<(f64, [Duration; 2])> {
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
                    "{{\"id\":{id},\"send\":{{\"room\":\"bench\",\"mid\":\"{sender}-{id}\",\"text\":\"{text}\"}}}}"
                );
                let sent = Instant::now();
                socket.send(Message::text(send)).await?;
                let reply = socket.next().await.context("closed")??;
                anyhow::ensure!(reply.to_text()?.contains("\"send\""), "refused: {reply}");
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
    let mut rates = [Vec::new(), Vec::new()];
    for run in 1..=RUNS {
        for (kind, name) in ["memory", "--data"].into_iter().enumerate() {
            let folder = tempfile::tempdir_in(&base)?;
            let node = start((kind == 1).then(|| folder.path()))?;
            let (rate, [median, p99]) = runtime.block_on(measure(&node.url, senders, time))?;
            println!("run {run} {name:>6}: {rate:>8.0} messages/s, p50 {median:?}, p99 {p99:?}");
            rates[kind].push(rate);
        }
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let [memory, disk] = &mut rates;
    let (memory, disk) = (median(memory), median(disk));
    println!(
        "medians: {memory:.0} in memory, {disk:.0} on disk: {:.2} of it",
        disk / memory
    );
    Ok(())
}
