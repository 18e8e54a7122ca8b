//! The built programs as processes: started, watched, signalled, measured.
//!
//! The programs are built by `scripts/test` (or `cargo build --workspace --bins`) before the
//! tests run; here it is only checked that they are there and not older than their sources, since
//! a test that runs yesterday's program proves nothing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Duration, Instant, timeout};

use super::say;

/// How long a program may take to print its ready line. The contract has no number for it.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Lines of a log that a failing test prints; the whole log stays in its file.
const LOG_TAIL_LINES: usize = 60;
/// Clock ticks a second in `/proc`: 100 on every Linux that Rust's std runs on.
const TICKS_PER_SECOND: u64 = 100;

/// How to start a program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    /// `registry` or `chatnode`.
    pub(crate) program: &'static str,
    /// A command to run it by, e.g. `ip netns exec NAME`.
    pub(crate) prefix: Vec<String>,
    /// Its flags.
    pub(crate) args: Vec<String>,
    /// Variables that it gets besides those of the test.
    pub(crate) variables: Vec<(String, String)>,
    /// The folder that it runs in; the test's own if absent.
    pub(crate) folder: Option<PathBuf>,
}

impl Launch {
    /// A program with flags.
    pub(crate) fn new<S: Into<String>>(
        program: &'static str,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self {
            program,
            args,
            ..Self::default()
        }
    }

    /// With a variable too.
    pub(crate) fn with(mut self, variable: &str, value: impl Into<String>) -> Self {
        self.variables.push((variable.to_owned(), value.into()));
        self
    }

    /// By a command, whose words these are.
    pub(crate) fn by<S: Into<String>>(mut self, prefix: impl IntoIterator<Item = S>) -> Self {
        self.prefix = prefix.into_iter().map(Into::into).collect();
        self
    }

    /// What runs it, killed when dropped.
    pub(crate) fn command(&self) -> Result<Command> {
        let binary = binary(self.program)?;
        let mut command = match self.prefix.split_first() {
            None => Command::new(binary),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary);
                command
            }
        };
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        Ok(command)
    }

    /// Runs the program until it ends by itself.
    pub(crate) async fn to_end(&self, within: Duration) -> Result<Ended> {
        let output = timeout(within, self.command()?.output())
            .await
            .with_context(|| format!("{self:?} did not end within {within:?}"))?
            .with_context(|| format!("cannot start {self:?}"))?;
        Ok(Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        })
    }
}

/// What a program left that ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running program, killed when dropped. While a test fails, its log is printed. Its log is then
/// removed, unless `KEEP_LOGS` is set.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    pid: Pid,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
    /// The object of the ready line.
    pub(crate) ready: Value,
    /// When the ready line was read.
    pub(crate) ready_at: Instant,
}

/// What a process uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Memory that is resident, in bytes.
    pub(crate) rss: u64,
    /// Time of processors since its start.
    pub(crate) cpu: Duration,
    /// Open files and sockets.
    pub(crate) files: usize,
}

impl Process {
    /// Starts the program and waits for its ready line.
    pub(crate) async fn start(launch: &Launch) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{count}", launch.program);
        let folder = target()?.join("e2e-logs");
        std::fs::create_dir_all(&folder)?;
        let log = folder.join(format!("{}-{name}.log", std::process::id()));
        let mut child = launch
            .command()?
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {launch:?}"))?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.context("a child that has just started has a pid")?;
        let stdout = child.stdout.take().context("the output is a pipe")?;
        let stdout = BufReader::new(stdout).lines();
        let ready_at = Instant::now();
        let mut process = Self {
            name,
            pid,
            child,
            stdout,
            log,
            ready: Value::Null,
            ready_at,
        };
        let line = timeout(READY_WITHIN, process.stdout.next_line()).await;
        process.ready_at = Instant::now();
        process.ready = match line {
            Ok(Ok(Some(line))) => serde_json::from_str(&line)
                .with_context(|| format!("the ready line is not JSON: {line:?}"))?,
            Ok(Ok(None)) => {
                let status = timeout(READY_WITHIN, process.child.wait()).await??;
                bail!(
                    "{launch:?} ended before it was ready: {status}\n{}",
                    process.log_tail()
                )
            }
            Ok(Err(error)) => return Err(error).context("reading the ready line"),
            Err(_) => bail!(
                "{launch:?} was not ready in {READY_WITHIN:?}\n{}",
                process.log_tail()
            ),
        };
        ensure!(
            process.ready["ready"] == launch.program,
            "the ready line names another program: {}",
            process.ready
        );
        Ok(process)
    }

    /// A text of the ready line.
    pub(crate) fn ready_text(&self, field: &str) -> Result<String> {
        let text = self.ready[field].as_str();
        let text =
            text.with_context(|| format!("no {field:?} in the ready line {}", self.ready))?;
        Ok(text.to_owned())
    }

    /// Its number among the processes of this machine.
    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal)
            .with_context(|| format!("{} does not take {signal:?}", self.name))
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        ensure!(
            self.lives()?,
            "{} ended before it was killed\n{}",
            self.name,
            self.log_tail()
        );
        self.child.start_kill()?;
        self.child.wait().await?;
        Ok(())
    }

    /// Stops the process as it stands: it keeps its sockets and answers nothing.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a stopped process go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits for the end; gives the exit code, and how many lines stood on stdout after the
    /// ready line (the contract says none).
    ///
    /// # Errors
    /// It does not end in time, or a signal ended it.
    pub(crate) async fn wait(&mut self, within: Duration) -> Result<(i32, usize)> {
        let status = timeout(within, self.child.wait()).await.with_context(|| {
            format!(
                "{} did not end within {within:?}\n{}",
                self.name,
                self.log_tail()
            )
        })??;
        let mut lines = 0;
        while self.stdout.next_line().await?.is_some() {
            lines += 1;
        }
        let code = status
            .code()
            .with_context(|| format!("{} ended by {status}", self.name))?;
        Ok((code, lines))
    }

    /// SIGTERM, and a clean end within the time.
    pub(crate) async fn stop(&mut self, within: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        let (code, _) = self.wait(within).await?;
        ensure!(
            code == 0,
            "{} ended with {code} after SIGTERM\n{}",
            self.name,
            self.log_tail()
        );
        Ok(())
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What it uses now.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.pid.as_raw_nonzero()));
        let status = std::fs::read_to_string(folder.join("status"))?;
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .context("no VmRSS in /proc")?
            * 1024;
        let stat = std::fs::read_to_string(folder.join("stat"))?;
        // The second field is the program's name in parentheses, which may hold spaces.
        let (_, rest) = stat.rsplit_once(')').context("no name in /proc stat")?;
        let ticks: u64 = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        let files = std::fs::read_dir(folder.join("fd"))?.count();
        Ok(Usage {
            rss,
            cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
            files,
        })
    }

    /// For how long since its start it has run, all its threads together.
    pub(crate) fn ran(&self) -> Result<Duration> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid.as_raw_nonzero()))?;
        let times = tasks.map(|task| schedstat(&task?.path(), 0));
        times.sum()
    }

    /// For how long since its start it could have run and was not let.
    pub(crate) fn waited(&self) -> Result<Duration> {
        let folder = format!("/proc/{}", self.pid.as_raw_nonzero());
        schedstat(Path::new(&folder), 1)
    }

    /// All that it has logged.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<_> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!(
            "--- {} ({}), last lines:\n{}\n---",
            self.name,
            self.log.display(),
            tail.join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say!("{}", self.log_tail());
        } else if super::variable("KEEP_LOGS").is_none() {
            let _gone = std::fs::remove_file(&self.log);
        }
    }
}

/// The folder of this build's artifacts, e.g. `target/debug`.
pub(crate) fn target() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test
        .parent()
        .and_then(Path::parent)
        .context("tests lie in target/*/deps")?;
    Ok(folder.to_owned())
}

/// The top folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .map_or_else(|| tests.to_owned(), Path::to_owned)
}

/// The built program, not older than any file that it was built from.
///
/// # Errors
/// It is missing or stale; the text says how to mend it.
pub(crate) fn binary(program: &str) -> Result<PathBuf> {
    let mend = "run `cargo build --workspace --bins` (scripts/test does)";
    let binary = target()?.join(program);
    let built = std::fs::metadata(&binary).and_then(|data| data.modified());
    let built = built.with_context(|| format!("{} is missing: {mend}", binary.display()))?;
    let sources = std::fs::read_to_string(binary.with_extension("d")).unwrap_or_default();
    for source in sources.split_whitespace().skip(1) {
        let changed = std::fs::metadata(source).and_then(|data| data.modified());
        if changed.is_ok_and(|changed| changed > built) {
            bail!("{} is older than {source}: {mend}", binary.display());
        }
    }
    Ok(binary)
}

/// A time of a process or a thread: how long it has run, then how long it was not let.
fn schedstat(folder: &Path, place: usize) -> Result<Duration> {
    let text = std::fs::read_to_string(folder.join("schedstat"))?;
    let nanoseconds = text.split_whitespace().nth(place);
    let nanoseconds = nanoseconds.context("too few times in /proc schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
