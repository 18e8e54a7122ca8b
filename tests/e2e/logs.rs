//! Logs that nothing takes: the programs go on, lose lines, and say how many.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::disks::{flags, number, storage, taken_again};
use crate::harness::process::{Launch, Process, binary};
use crate::harness::rig::Small;
use crate::harness::tools::{free_port, run};
use crate::harness::{
    Client, Duration, Instant, NOISE, Node, Outcome, PATIENCE, eventually, ms, say, secs,
};

/// A process has ended so long after the signal.
const STOPPED: Duration = secs(3);
/// An answer of a node that has nothing else to do.
const AT_ONCE: Duration = ms(500);

/// A program whose outputs a shell leads elsewhere first.
fn led(launch: Launch, redirection: &str) -> Launch {
    let script = format!("exec \"$@\" {redirection}");
    launch.by(["sh", "-c", &script, "sh"])
}

/// A node that knows no other and logs all there is.
fn talkative(launch: Launch) -> Launch {
    launch.with("RUST_LOG", "trace,hyper=off,mio=off")
}

fn alone() -> Launch {
    Launch::new(
        "chatnode",
        ["--registry", "none", "--rate-limit", "0", "--http", "0"],
    )
}

/// What a node does all day: a client comes, says something, and goes.
async fn serves(node: &Node, name: &str) -> anyhow::Result<()> {
    let client = Client::joined(node, name, "tea").await?;
    client.send("tea", &format!("{name} was here")).await?;
    Ok(())
}

/// Goal: a log on a full device costs its lines and nothing else, for both programs.
/// Method: stderr is /dev/full; clients, refusals and a panic-free day; the metric; a stop.
#[tokio::test]
async fn a_log_on_a_full_device_ends_nothing() -> Outcome {
    let mut node = Node::launch(led(talkative(alone()), "2>/dev/full")).await?;
    node.takes_clients(PATIENCE).await?;
    for nth in 0..20 {
        serves(&node, &format!("guest{nth}")).await?;
        let (status, _) = node
            .post("/api/rooms/tea/messages", &serde_json::json!(1))
            .await?;
        assert_eq!(status, 400);
    }
    assert!(number(&node, "log_dropped_total").await? > 0);
    node.process.stop(STOPPED + NOISE).await?;

    let registry = Launch::new("registry", ["--http", "0"]);
    let mut registry = Process::start(&led(talkative(registry), "2>/dev/full")).await?;
    let url = registry.ready_text("http")?;
    let metrics = crate::harness::cluster::get(&format!("{url}/metrics"))
        .await?
        .text()
        .await?;
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix("registry_log_dropped_total "))
        .context("the registry counts them too")?;
    assert!(dropped.parse::<u64>()? > 0);
    registry.stop(STOPPED + NOISE).await?;
    Ok(())
}

/// Goal: a log on the same disk as the history: when it is full, sends are refused and the node
/// lives; when there is room, the log says how many lines are missing.
/// Method: a small disk with both, filled while the node logs all there is, then made room on.
#[tokio::test]
async fn a_log_beside_the_history_on_a_full_disk_ends_nothing() -> Outcome {
    let Some(small) = Small::make("24m")? else {
        return Ok(());
    };
    let data = small.data();
    let log = data.parent().context("it has a parent")?.join("log");
    let launch = Launch::new("chatnode", flags(&data, &[]));
    let mut node = Node::launch(led(talkative(launch), &format!("2>{}", log.display()))).await?;
    node.takes_clients(PATIENCE).await?;
    let ada = Client::joined(&node, "ada", "tea").await?;
    small.fill()?;
    let filling = "f".repeat(4000);
    eventually(PATIENCE, "sends are refused", async || {
        let refused = ada.send("tea", &filling).await.is_err();
        ensure!(refused, "{}", storage(&node).await?);
        Ok(())
    })
    .await?;
    eventually(PATIENCE, "lines are dropped", async || {
        let _refused = ada.send("tea", &filling).await;
        ensure!(number(&node, "log_dropped_total").await? > 0, "none");
        Ok(())
    })
    .await?;
    small.make_room()?;
    taken_again(&ada).await?;
    told_of_dropped(|| std::fs::read_to_string(&log).map_err(Into::into)).await?;
    node.process.stop(STOPPED + NOISE).await?;
    Ok(())
}

async fn told_of_dropped(read: impl Fn() -> anyhow::Result<String>) -> anyhow::Result<()> {
    eventually(
        PATIENCE,
        "the log says how many lines are missing",
        async || {
            let text = read()?;
            ensure!(text.contains("lines of the log were dropped"), "not yet");
            Ok(())
        },
    )
    .await
}

fn pipe(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let pipe = folder.join("pipe");
    run("mkfifo", &[&pipe.display().to_string()])?;
    Ok(pipe)
}

/// Goal: a pipe that nobody reads holds the node up for no moment; once it is read, the log goes
/// on and says what is missing; a stop is as quick as ever.
/// Method: stderr is such a pipe, and so much is logged that pipe and queue are full; then it is
/// read, and filled once more before SIGTERM.
#[tokio::test]
async fn a_pipe_that_nobody_reads_holds_nobody_up() -> Outcome {
    let folder = tempdir()?;
    let pipe = pipe(folder.path())?;
    // Opened both ways, it has a reader that never reads.
    let redirection = format!("2<>{}", pipe.display());
    let mut node = Node::launch(led(talkative(alone()), &redirection)).await?;
    node.takes_clients(PATIENCE).await?;
    let dropped = async |more: u64| {
        let mut slowest = Duration::ZERO;
        let mut nth = 0;
        while number(&node, "log_dropped_total").await? < more {
            let begun = Instant::now();
            serves(&node, &format!("guest{nth}")).await?;
            slowest = slowest.max(begun.elapsed());
            nth += 1;
            ensure!(nth < 100_000, "it logs too little");
        }
        say!("{nth} guests, the slowest took {slowest:?}");
        ensure!(slowest < AT_ONCE + NOISE, "{slowest:?}");
        anyhow::Ok(())
    };
    dropped(10).await?;
    let mut reader = Command::new("cat")
        .arg(&pipe)
        .stdout(std::fs::File::create(folder.path().join("read"))?)
        .kill_on_drop(true)
        .spawn()?;
    let read = folder.path().join("read");
    told_of_dropped(|| Ok(String::from_utf8_lossy(&std::fs::read(&read)?).into_owned())).await?;
    reader.kill().await?;
    dropped(number(&node, "log_dropped_total").await? + 10).await?;
    node.process.stop(STOPPED + NOISE).await?;
    Ok(())
}

/// Goal: programs whose outputs are closed, full, or never read serve, and stop; one that is
/// configured badly ends with 2 all the same.
/// Method: each of these for stdout and stderr, for both programs.
#[tokio::test]
async fn a_program_whose_outputs_are_gone_serves_and_stops() -> Outcome {
    let folder = tempdir()?;
    let pipe = pipe(folder.path())?;
    let full = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)?;
    fill(&full)?;
    let unread = format!("1<>{0} 2<>{0}", pipe.display());
    for redirection in [">&- 2>&-", ">/dev/full 2>/dev/full", &unread, "| true"] {
        for program in ["chatnode", "registry"] {
            let port = free_port()?.to_string();
            let mut launch = Launch::new(program, ["--http", &port]);
            if program == "chatnode" {
                launch
                    .args
                    .extend(["--registry", "none"].map(ToOwned::to_owned));
            }
            let mut child = spawn(&launch, redirection)?;
            let url = format!("http://127.0.0.1:{port}/healthz");
            eventually(PATIENCE, "it serves", async || {
                ensure!(crate::harness::cluster::get(&url).await?.status() == 200);
                Ok(())
            })
            .await?;
            let id = child.id().context("it runs")?;
            let pid = Pid::from_raw(i32::try_from(id)?).context("it runs")?;
            kill_process(pid, Signal::TERM)?;
            let status = timeout(STOPPED + NOISE, child.wait()).await;
            let status = status.with_context(|| format!("{program} {redirection}"))??;
            assert_eq!(status.code(), Some(0), "{program} {redirection}");

            let mut child = spawn(&Launch::new(program, ["--http", "nonsense"]), redirection)?;
            let status = timeout(STOPPED, child.wait()).await??;
            assert_eq!(status.code(), Some(2), "{program} {redirection}");
        }
    }
    Ok(())
}

/// Starts a program; what its shell leads away is not the test's.
fn spawn(launch: &Launch, redirection: &str) -> anyhow::Result<tokio::process::Child> {
    let script = match redirection.strip_prefix('|') {
        // The shell would be the child, were the program led into a pipe by it.
        Some(reader) => format!("exec \"$@\" > >(exec{reader}) 2>&1"),
        None => format!("exec \"$@\" {redirection}"),
    };
    let child = Command::new("bash")
        .args(["-c", &script, "bash"])
        .arg(binary(launch.program)?)
        .args(&launch.args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

/// Fills a pipe.
fn fill(pipe: &std::fs::File) -> anyhow::Result<()> {
    use std::io::Write as _;
    let flags = rustix::fs::fcntl_getfl(pipe)?;
    rustix::fs::fcntl_setfl(pipe, flags | rustix::fs::OFlags::NONBLOCK)?;
    while (&*pipe).write(&[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(pipe, flags)?;
    Ok(())
}
