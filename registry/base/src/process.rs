//! What both programs need to be good processes: one-line errors, a log that holds nobody up,
//! signals, supervised tasks, the ready line, and the limit of open files.
//!
//! A `main` is [`run`]: it reads the configuration, calls the program, and turns what comes back
//! into an exit code: 0 done, 1 it broke while running, 2 it was asked for something impossible.

mod listen;
mod log;
mod stop;
mod usage;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

pub use self::listen::ListenAddr;
pub use self::log::LOG_BYTES_MAX;
use self::log::Log;
pub use self::stop::{STOP_ORDERLY, stop_signal};

/// The log of this process, once [`run`] has started it.
static LOG: OnceLock<Log> = OnceLock::new();
/// How long a process that ends waits for its log to be written.
const LOG_GRACE: Duration = Duration::from_millis(200);

/// How logs look on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line, for machines.
    Json,
}

/// What is logged without `RUST_LOG`: the libraries beneath say more than people want to read.
const LOG_DEFAULT: &str = "info,zeromq=error";

/// Starts logging to stderr. `RUST_LOG` chooses what; the default is `info`. A second call in one
/// process changes nothing, and without [`run`] there is no log.
///
/// # Errors
/// `Config` when `RUST_LOG` cannot be read.
pub fn init_logging(format: LogFormat) -> Result<(), Failure> {
    let Some(log) = LOG.get() else { return Ok(()) };
    log.set_format(format);
    // Of a variable that is not set this makes no error; the next line does.
    if let Err(why) = EnvFilter::builder().from_env() {
        return Err(Failure::Config(format!(
            "variable RUST_LOG: {why}; it is a level (error, warn, info, debug, trace) or a list \
             such as info,chatnode=debug"
        )));
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was already on");
    }
    Ok(())
}

/// Lines of the log that were dropped since the start, because nothing took them.
pub fn log_dropped() -> u64 {
    LOG.get().map_or(0, Log::dropped)
}

/// Waits until the log is written, a moment at the most.
fn settle_log() {
    if let Some(log) = LOG.get() {
        log.settle(LOG_GRACE);
    }
}

/// What a panic says goes where all lines go: stderr may take nothing, and a panic may be the end.
fn log_panics(log: Log) {
    std::panic::set_hook(Box::new(move |panic| {
        let trace = Backtrace::capture();
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        let mut text = format!("thread '{name}' {panic}");
        if trace.status() == BacktraceStatus::Captured {
            text = format!("{text}\n{trace}");
        }
        log.say("ERROR", &text);
        log.settle(LOG_GRACE);
    }));
}

/// Why a program did not end as asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was asked for something impossible: exit code 2. The text is one line that says what,
    /// where, and how to mend it.
    #[error("{0}")]
    Config(String),
    /// It broke while running: exit code 1.
    #[error(transparent)]
    Runtime(#[from] anyhow::Error),
}

/// The whole of a `main`: reads the configuration from flags and variables, runs the program, and
/// says in one line on stderr what was wrong, if anything was.
pub fn run<C: clap::Parser>(program: impl FnOnce(&C) -> Result<(), Failure>) -> ExitCode {
    let name = C::command().get_name().to_owned();
    let log = match Log::start(std::io::stderr()) {
        Ok(log) => LOG.get_or_init(|| log).clone(),
        Err(why) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr(), "{name}: no thread can be started: {why}");
            return ExitCode::FAILURE;
        }
    };
    log_panics(log.clone());
    let outcome = match C::try_parse() {
        Ok(config) => program(&config),
        Err(help) if !help.use_stderr() => {
            // Nor when stdout is.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
        Err(usage) => Err(Failure::Config(usage::one_line::<C>(&usage))),
    };
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(why)) => {
            let why = usage::with_variable::<C>(&why);
            log.push(format!("{name}: {why}\n").as_bytes());
            ExitCode::from(2)
        }
        Err(Failure::Runtime(error)) => {
            if tracing::dispatcher::has_been_set() {
                tracing::error!("{error:#}");
            } else {
                log.push(format!("{name}: {error:#}\n").as_bytes());
            }
            ExitCode::FAILURE
        }
    };
    settle_log();
    code
}

/// Threads of the runtime for what would hold up its one thread: reading files, which may lie on a
/// disk that hangs. What finds none free waits for one.
const BLOCKING_MAX: usize = 16;

/// The runtime of a program: one thread. End it by `shutdown_background`, so that a call that hangs
/// in another thread is not waited for.
///
/// # Errors
/// The system gives no descriptors for it.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_MAX)
        .build()
        .context("cannot start the runtime")
}

/// All tasks of a process. Clones are the same set.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    failed: Arc<AtomicBool>,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that a stop waits for. Whoever writes it lets it end on [`Self::stopping`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tracker.spawn(task).abort_handle()
    }

    /// For libraries that start tasks of their own: a stop waits for what it tracks.
    pub fn tracker(&self) -> TaskTracker {
        self.tracker.clone()
    }

    /// Starts a task without which the process is of no use: if it ends before the stop, fails or
    /// panics, that is logged, all is stopped, and the process is to exit with 1.
    pub fn spawn_critical(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let watch = Watch {
            name,
            tasks: self.clone(),
            ended_well: false,
        };
        self.tracker.spawn(async move {
            let mut watch = watch;
            match task.await {
                Ok(()) if watch.tasks.stopping.is_cancelled() => watch.ended_well = true,
                Ok(()) => tracing::error!(task = name, "a critical task ended early"),
                Err(error) => tracing::error!(task = name, "a critical task failed: {error:#}"),
            }
        });
    }

    /// Cancelled when the process is to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Asks all tasks to end.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Asks all tasks to end, waits for them, `grace` at the most, and says how many were left.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.stop();
        self.tracker.close();
        match tokio::time::timeout(grace, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tracker.len(),
        }
    }

    /// Whether a critical task failed.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Sees a critical task end, in whichever way.
struct Watch {
    name: &'static str,
    tasks: Tasks,
    ended_well: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "a critical task panicked");
        }
        if !self.ended_well {
            self.tasks.failed.store(true, Ordering::Relaxed);
            self.tasks.stop();
        }
    }
}

/// Writes the ready line, the one thing on stdout, and flushes it; in a thread of its own, since
/// stdout may be a pipe that nobody reads.
pub fn announce(line: &impl Serialize) {
    let text = match serde_json::to_string(line) {
        Ok(text) => text + "\n",
        Err(error) => return unwritten(&error),
    };
    let write = move || {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(text.as_bytes());
        if let Err(error) = written.and_then(|()| stdout.flush()) {
            unwritten(&error);
        }
    };
    let thread = std::thread::Builder::new().name("ready line".into());
    if let Err(error) = thread.spawn(write) {
        unwritten(&error);
    }
}

fn unwritten(why: &dyn std::error::Error) {
    tracing::warn!("the ready line could not be written: {why}");
}

/// Raises the soft limit of open files to the hard one and returns what holds now.
pub fn raise_open_files_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
