//! System calls of a node that fail, or are not done and said to be, by `strace`.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::{Child, Command};

use super::PATIENCE;
use super::eventually::eventually;
use super::process::Process;
use super::tools::{installed, limited};

/// Every way by which a program on Linux asks that a file's content be on the disk.
const SYNCS: &str = "fsync,fdatasync,sync_file_range,syncfs,sync,msync";

/// The words before a command whose calls that sync are not done and claim success: a program that
/// forgets to sync. `None` where programs cannot be traced.
pub(crate) fn that_never_syncs() -> Result<Option<Vec<String>>> {
    prefix(&format!("{SYNCS}:retval=0"))
}

/// The words before a command whose calls that sync fail with EIO from the `nth` on. `None` where
/// programs cannot be traced.
pub(crate) fn that_fails_to_sync(nth: u32) -> Result<Option<Vec<String>>> {
    prefix(&format!("{SYNCS}:error=EIO:when={nth}+"))
}

fn prefix(what: &str) -> Result<Option<Vec<String>>> {
    let strace = installed("strace")?;
    let shown = strace.to_str().context("its path is text")?.to_owned();
    let (trace, inject) = (format!("trace={SYNCS}"), format!("inject={what}"));
    // With -D the program, and not strace, is the child; with the filter nothing else is slower.
    let line = format!("{shown} -D -f --seccomp-bpf -qq -o /dev/null -e {trace} -e {inject}");
    let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
    let tried = std::process::Command::new(&words[0])
        .args(&words[1..])
        .arg("true")
        .stderr(Stdio::null())
        .status()?;
    if !tried.success() {
        cannot()?;
        return Ok(None);
    }
    Ok(Some(words))
}

fn cannot() -> Result<()> {
    limited(
        "tracing of programs",
        "the tests of the store",
        "strace is refused",
    )
}

/// A running node whose calls that sync fail, as long as this lives.
#[derive(Debug)]
pub(crate) struct Failing {
    _strace: Child,
}

impl Failing {
    /// From now on each call that syncs fails with EIO. `None` where programs cannot be traced.
    pub(crate) async fn syncs_of(process: &Process) -> Result<Option<Self>> {
        let pid = process.id();
        let mut strace = Command::new(installed("strace")?)
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()])
            .args(["-e", &format!("trace={SYNCS}")])
            .args(["-e", &format!("inject={SYNCS}:error=EIO")])
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let attached = eventually(PATIENCE, "every thread is traced", async || {
            let refused = strace.try_wait()?.is_some();
            if !refused {
                for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                    let status = fs::read_to_string(task?.path().join("status"))?;
                    ensure!(!status.contains("TracerPid:\t0\n"), "one is not traced");
                }
            }
            Ok::<_, anyhow::Error>(!refused)
        })
        .await?;
        if !attached {
            cannot()?;
            return Ok(None);
        }
        Ok(Some(Self { _strace: strace }))
    }
}
