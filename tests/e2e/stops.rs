//! SIGTERM while something hangs, and what hangs while nobody stops: a process ends within three
//! seconds always, and what hangs holds nothing else up.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::{TempDir, tempdir};
use tokio::net::UdpSocket;

use crate::harness::cluster::Listing;
use crate::harness::disks::{alone, flags, taken_again};
use crate::harness::process::{Launch, Process};
use crate::harness::raw::{CLOSE, FIN, Raw, frame};
use crate::harness::tools::{installed, limited, run};
use crate::harness::{
    Client, Duration, Instant, NOISE, Node, Outcome, PATIENCE, Registry, eventually, ms, say, secs,
};

/// The promise.
const STOPPED: Duration = secs(3);
/// A node with nothing to hand over, whose clients close at once, has ended before the time is over
/// that it has for tasks that do not end.
const QUICK: Duration = ms(1900);
/// Threads of a node beside those of lookups: its own, the log's, the signals', those for files.
const THREADS_BESIDE: usize = 24;
/// README: lookups at once.
const LOOKUPS_MAX: usize = 32;

/// A name server that takes questions and never answers, and the way to make a program ask it.
struct DeadNames {
    _socket: UdpSocket,
    folder: TempDir,
}

impl DeadNames {
    /// `None` where the machine does not let it.
    async fn start() -> Result<Option<Self>> {
        let cannot = |why: &str| {
            limited("a name server that hangs", "the tests of the resolver", why).map(|()| None)
        };
        if !rustix::process::geteuid().is_root() {
            return cannot("not root");
        }
        installed("unshare")?;
        // Any of these; another test may have the first.
        let mut socket = None;
        for last in 1..=200 {
            socket = UdpSocket::bind((Ipv4Addr::new(127, 53, 53, last), 53))
                .await
                .ok();
            if socket.is_some() {
                break;
            }
        }
        let Some(socket) = socket else {
            return cannot("no port 53");
        };
        let folder = tempdir()?;
        let server = socket.local_addr()?.ip();
        let text = format!("nameserver {server}\noptions timeout:30 attempts:2\n");
        fs::write(folder.path().join("resolv.conf"), text)?;
        Ok(Some(Self {
            _socket: socket,
            folder,
        }))
    }

    /// A program that asks this server, and no file.
    fn given(&self, launch: Launch) -> Launch {
        let file = self.folder.path().join("resolv.conf");
        let script = format!(
            "mount --bind {} /etc/resolv.conf && exec \"$@\"",
            file.display()
        );
        launch.by([
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ])
    }
}

/// The names of a process's threads.
fn threads(pid: i32) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // It may end while one looks.
        let name = fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
        names.push(name.trim().to_owned());
    }
    Ok(names)
}

async fn looks_up(pid: i32) -> Result<()> {
    eventually(PATIENCE, "a name is looked up", async || {
        let names = threads(pid)?;
        ensure!(names.iter().any(|name| name == "lookup"), "{names:?}");
        Ok(())
    })
    .await
}

fn page() -> Result<TempDir> {
    let www = tempdir()?;
    fs::write(www.path().join("index.html"), "<p>hello</p>")?;
    Ok(www)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Goal: forty nodes that are named by names whose server hangs hold a bounded number of threads,
/// the page is served as ever, and SIGTERM ends the node in time.
/// Method: forty peers, a folder for `--www`; files are read while all lookups hang.
#[tokio::test]
async fn names_whose_server_hangs_hold_up_neither_files_nor_a_stop() -> Outcome {
    let Some(names) = DeadNames::start().await? else {
        return Ok(());
    };
    let www = page()?;
    let mut args = vec!["--http".to_owned(), "0".to_owned()];
    args.extend(["--www".to_owned(), text(www.path())]);
    args.extend(["--registry", "http://registry.example:7171"].map(ToOwned::to_owned));
    // Otherwise it would not start before it knows whether those names lead to other machines.
    args.push("--insecure-mesh".to_owned());
    for nth in 0..40 {
        args.extend(["--peer".to_owned(), format!("tcp://dead{nth}.example:5555")]);
    }
    let mut node = Node::launch(names.given(Launch::new("chatnode", args))).await?;
    let pid = node.process.id();
    let (mut most, mut slowest) = (0, Duration::ZERO);
    let begun = Instant::now();
    while begun.elapsed() < secs(6) {
        let asked = Instant::now();
        let page = node.get("/").await?;
        assert!(page.status() == 200, "{}", page.status());
        slowest = slowest.max(asked.elapsed());
        most = most.max(threads(pid)?.len());
    }
    looks_up(pid).await?;
    say!("{most} threads at the most, the slowest page took {slowest:?}");
    assert!(most <= LOOKUPS_MAX + THREADS_BESIDE, "{most}");
    assert!(slowest < ms(300) + NOISE, "{slowest:?}");
    let told = Instant::now();
    node.process.stop(STOPPED + NOISE).await?;
    say!("ended {:?} after SIGTERM", told.elapsed());
    Ok(())
}

/// Goal: SIGTERM before a node is ready ends it as well, with 0.
/// Method: one that looks for its own address by a name whose server hangs; one whose history
/// hangs when it is opened (a pipe in its place).
#[tokio::test]
async fn a_node_that_hangs_while_it_starts_stops_in_time() -> Outcome {
    let folder = tempdir()?;
    let data = folder.path().join("data");
    fs::create_dir(&data)?;
    let fifo = data.join("history.db");
    run("mkfifo", &[&text(&fifo)])?;
    let locked = data.join("history.lock");
    ends_in_time(&Launch::new("chatnode", flags(&data, &[])), async |_| {
        eventually(PATIENCE, "the history is opened", async || {
            ensure!(locked.is_file());
            Ok(())
        })
        .await
    })
    .await?;
    let Some(names) = DeadNames::start().await? else {
        return Ok(());
    };
    let registry = "http://registry.example:7171";
    let launch = Launch::new("chatnode", ["--http", "0.0.0.0:0", "--registry", registry]);
    ends_in_time(&names.given(launch), looks_up).await?;
    Ok(())
}

/// Starts a program, waits, and tells it to stop.
async fn ends_in_time(launch: &Launch, waits: impl AsyncFnOnce(i32) -> Result<()>) -> Result<()> {
    let mut child = launch.command()?.spawn()?;
    let id = i32::try_from(child.id().context("it runs")?)?;
    waits(id).await?;
    let told = Instant::now();
    kill_process(Pid::from_raw(id).context("it runs")?, Signal::TERM)?;
    let status = tokio::time::timeout(STOPPED + NOISE, child.wait()).await;
    let status = status.with_context(|| format!("{launch:?} did not end"))??;
    say!("ended {:?} after SIGTERM: {status}", told.elapsed());
    ensure!(status.code() == Some(0), "{launch:?}: {status}");
    Ok(())
}

/// Goal: a client whose close and end come in one piece does not hold up a stop.
/// Method: clients that answer the node's close so, with a ping before.
#[tokio::test]
async fn clients_that_close_and_end_at_once_hold_up_no_stop() -> Outcome {
    let mut node = Node::start(["--registry", "none", "--http", "0"]).await?;
    node.takes_clients(PATIENCE).await?;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(Raw::websocket(&node, None).await?);
    }
    let clients = clients.into_iter().map(|mut raw| async move {
        let (code, _) = raw.close_code(PATIENCE).await?;
        raw.send(&frame(FIN | CLOSE, &code.to_be_bytes())).await?;
        raw.end().await
    });
    let told = Instant::now();
    node.process.signal(Signal::TERM)?;
    let all = futures::future::join_all(clients);
    let (ended, code) = tokio::join!(all, node.process.wait(STOPPED + NOISE));
    for one in ended {
        one?;
    }
    let took = told.elapsed();
    say!("ended {took:?} after SIGTERM");
    assert_eq!(code?.0, 0);
    assert!(took < QUICK, "{took:?}");
    Ok(())
}

/// Goal: a client that came before the node had joined, and waits, is told of a stop as others are, and does
/// not hold it up.
/// Method: a node that waits for a `--peer` that takes connections and says nothing; a WebSocket.
#[tokio::test]
async fn a_client_that_waits_for_joining_is_told_of_a_stop() -> Outcome {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let peer = format!("tcp://{}", mute.local_addr()?);
    let mut node = Node::start(["--registry", "none", "--peer", &peer]).await?;
    let mut raw = Raw::websocket(&node, None).await?;
    let told = Instant::now();
    node.process.signal(Signal::TERM)?;
    let client = async {
        let (code, _) = raw.close_code(PATIENCE).await?;
        raw.send(&frame(FIN | CLOSE, &code.to_be_bytes())).await?;
        raw.end().await?;
        anyhow::Ok(code)
    };
    let (code, ended) = tokio::join!(client, node.process.wait(STOPPED + NOISE));
    let took = told.elapsed();
    say!("ended {took:?} after SIGTERM");
    assert_eq!((code?, ended?.0), (1012, 0));
    assert!(took < QUICK, "{took:?}");
    Ok(())
}

/// Goal: a peer that hangs while it is asked something holds up no stop.
/// Method: a node that a registry lists takes connections and says nothing; it is being greeted.
#[tokio::test]
async fn a_peer_that_hangs_holds_up_no_stop() -> Outcome {
    let registry = Registry::start().await?;
    let publishes = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let serves = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let at = format!("tcp://{}", publishes.local_addr()?);
    let url = format!("http://{}", serves.local_addr()?);
    let _listed = Listing::of("aaaaaaaaaa", &at, &url, &registry).await?;
    let mut node = Node::start(["--registry", &registry.url, "--http", "0"]).await?;
    let greeted = tokio::time::timeout(PATIENCE, serves.accept()).await;
    let _asked = greeted.context("it is never greeted")??;
    let told = Instant::now();
    node.process.stop(STOPPED + NOISE).await?;
    let took = told.elapsed();
    say!("ended {took:?} after SIGTERM");
    assert!(took < QUICK, "{took:?}");
    Ok(())
}

/// Goal: whatever closes, a terminal's hangup stops a node as SIGTERM does, unless whoever started
/// it has that ignored.
/// Method: SIGHUP to one that is started plainly, and to one that `nohup` starts.
#[tokio::test]
async fn a_hangup_stops_a_node_in_good_order_unless_it_is_ignored() -> Outcome {
    let mut node = Node::start(["--registry", "none", "--http", "0"]).await?;
    node.process.signal(Signal::HUP)?;
    let (code, _) = node.process.wait(STOPPED + NOISE).await?;
    assert_eq!(code, 0);
    let launch = Launch::new("chatnode", ["--registry", "none", "--http", "0"]);
    let mut node = Node::launch(launch.by(["nohup"])).await?;
    node.process.signal(Signal::HUP)?;
    node.takes_clients(PATIENCE).await?;
    node.process.stop(STOPPED + NOISE).await?;
    Ok(())
}

/// Goal: at the limit of a file's size (`ulimit -f`) sends are refused as on a full disk, the log
/// loses lines, and both programs live; when the limit is lifted, sends are taken again.
/// Method: a node whose files may have 4 MiB, its log among them.
#[tokio::test]
async fn the_limit_of_a_files_size_is_a_full_disk() -> Outcome {
    let folder = tempdir()?;
    let data = folder.path().join("data");
    let log: PathBuf = folder.path().join("log");
    let script = format!("ulimit -S -f 4096; exec \"$@\" 2>{}", log.display());
    let launch = Launch::new("chatnode", flags(&data, &[])).with("RUST_LOG", "trace");
    let mut node = Node::launch(launch.by(["bash", "-c", &script, "bash"])).await?;
    node.takes_clients(PATIENCE).await?;
    let ada = Client::joined(&node, "ada", "tea").await?;
    let filling = "f".repeat(4000);
    let mut said = 0;
    let refused = loop {
        match ada.send("tea", &filling).await {
            Ok(_) => said += 1,
            Err(error) => break error.to_string(),
        }
        assert!(said < 4000, "16 MB went into files of 4");
    };
    say!("{said} went in, then: {refused}");
    assert!(refused.contains("storage_full"), "{refused}");
    assert!(node.get("/healthz").await?.status() == 200);
    let pid = node.process.id().to_string();
    run("prlimit", &["--pid", &pid, "--fsize=unlimited"])?;
    taken_again(&ada).await?;
    node.process.stop(STOPPED + NOISE).await?;
    let node = alone(&data, &[]).await?;
    let kept = crate::harness::disks::storage(&node).await?;
    assert!(
        kept["messages"].as_u64() > Some(said),
        "{kept}, {said} said"
    );

    let script = format!(
        "ulimit -f 0; exec \"$@\" 2>{}",
        log.with_extension("2").display()
    );
    let launch = Launch::new("registry", ["--http", "0"]).by(["bash", "-c", &script, "bash"]);
    let mut registry = Process::start(&launch).await?;
    let url = registry.ready_text("http")?;
    assert!(
        crate::harness::cluster::get(&format!("{url}/healthz"))
            .await?
            .status()
            == 200
    );
    registry.stop(STOPPED + NOISE).await?;
    Ok(())
}
