//! Being stopped: the signals, and the moment by which a process has ended whatever hangs.
//!
//! Signals are caught by a thread of their own, not by the program's: that may be in a call that
//! does not return, and is to end all the same.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Of the three seconds that a process has to end, whatever hangs, so much is for good order.
pub const STOP_ORDERLY: Duration = Duration::from_millis(2400);
/// When the process is ended if that was not enough; the rest is for the log.
const STOP_FORCED: Duration = Duration::from_millis(2700);

/// Catches SIGTERM, SIGINT and SIGHUP from this call on, and resolves at the first of them. From
/// then on the process has [`STOP_ORDERLY`] to end by itself; soon after that it is ended, with
/// exit code 1. SIGHUP is left alone where whoever started the process has it ignored (`nohup`); where
/// there is something to read again, it tells `reread` and stops nothing.
///
/// A write beyond the limit of a file's size fails from here on as one to a full disk does, and
/// does not end the process (SIGXFSZ).
///
/// # Errors
/// Signals cannot be caught, or no thread can be started. The process is to end: some may be lost by
/// then.
///
/// # Panics
/// If it is called in a tokio runtime.
pub fn stop_signal(
    reread: Option<Arc<Notify>>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let caught = Caught::new().context("signals cannot be caught")?;
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let thread = std::thread::Builder::new().name("signals".into());
    thread
        .spawn(move || caught.wait(&stop, reread.as_deref()))
        .context("no thread can be started that waits for signals")?;
    Ok(stopped)
}

/// The signals, and what tells of them.
struct Caught {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
    /// That it is caught is all its use.
    _too_large: Signal,
}

impl Caught {
    fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let too_large = rustix::process::Signal::XFSZ.as_raw();
        let caught = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::from_raw(too_large))?,
        );
        let hangup = if ignores(rustix::process::Signal::HUP) {
            None
        } else {
            Some(signal(SignalKind::hangup())?)
        };
        drop(entered);
        let (terminate, interrupt, too_large) = caught;
        Ok(Self {
            runtime,
            terminate,
            interrupt,
            hangup,
            _too_large: too_large,
        })
    }

    fn wait(mut self, stop: &CancellationToken, reread: Option<&Notify>) {
        let hangup = async {
            let Some(hangup) = &mut self.hangup else {
                return std::future::pending().await;
            };
            loop {
                hangup.recv().await;
                match reread {
                    Some(reread) => reread.notify_one(),
                    None => return,
                }
            }
        };
        self.runtime.block_on(async {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = hangup => "SIGHUP",
            };
            tracing::info!(signal = name, "stopping");
            stop.cancel();
            tokio::time::sleep(STOP_FORCED).await;
        });
        tracing::error!("not everything has ended in time; the process is ended as it is");
        super::settle_log();
        #[expect(
            clippy::disallowed_methods,
            reason = "the thread that would return an exit code hangs"
        )]
        std::process::exit(1);
    }
}

/// Whether this process was started with a signal ignored; if that cannot be known, it was not.
fn ignores(signal: rustix::process::Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_in(&status, signal.as_raw())
}

fn is_in(status: &str, signal: i32) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_known_by_its_bit() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t00\n";
        assert!(is_in(status, 1) && is_in(status, 13));
        assert!(!is_in(status, 2) && !is_in(status, 64));
        assert!(!is_in("", 1) && !is_in("SigIgn:\tx", 1));
    }
}
