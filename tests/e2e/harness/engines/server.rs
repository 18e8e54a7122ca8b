//! The process of a broker, with its folder and its log.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::eventually::{eventually, holds};
use crate::harness::tools::installed;
use crate::harness::{PATIENCE, say};

/// Lines of a log that a failing test prints.
const LOG_TAIL_LINES: usize = 40;
/// Where the number of a lent process stands, for the next test.
const PID_FILE: &str = "pid";

/// A server of the system. Killed when dropped, unless it serves other tests too.
#[derive(Debug)]
pub(crate) struct Server {
    program: &'static str,
    args: Vec<String>,
    variables: Vec<(&'static str, String)>,
    folder: PathBuf,
    pid: Option<Pid>,
    keeping: Keeping,
}

/// Who ends the process.
#[derive(Debug)]
enum Keeping {
    /// This test, or the kernel when the test is killed; the folder goes too.
    Own(
        Option<Child>,
        #[expect(dead_code, reason = "removed when dropped")] TempDir,
    ),
    /// Somebody else: the test may not even be its parent.
    Lent,
}

impl Server {
    /// A server of this test that runs in this folder; not started yet.
    pub(super) fn own(program: &'static str, args: &[String], folder: TempDir) -> Self {
        Self {
            program,
            args: args.to_vec(),
            variables: Vec::new(),
            folder: folder.path().to_owned(),
            pid: None,
            keeping: Keeping::Own(None, folder),
        }
    }

    /// A server that outlives this test, in this folder; another test may have started it there.
    pub(super) fn lent(
        program: &'static str,
        variables: &[(&'static str, String)],
        folder: &Path,
    ) -> Self {
        let pid = fs::read_to_string(folder.join(PID_FILE));
        Self {
            program,
            args: Vec::new(),
            variables: variables.to_vec(),
            folder: folder.to_owned(),
            pid: pid.ok().and_then(|pid| Pid::from_raw(pid.parse().ok()?)),
            keeping: Keeping::Lent,
        }
    }

    /// Starts it. What it writes is appended to its log.
    pub(super) fn launch(&mut self) -> Result<()> {
        ensure!(!self.lives(), "{} runs already", self.program);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))?;
        let program = installed(self.program)?;
        let mut command = match self.keeping {
            Keeping::Lent => {
                let mut command = Command::new(program);
                // What ends a test by a signal to its group does not reach it.
                command.process_group(0);
                command
            }
            Keeping::Own(..) => {
                // A test that is killed drops nothing: the kernel ends the server then.
                let mut command = Command::new(installed("setpriv")?);
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
        };
        let child = command
            .args(&self.args)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program))?;
        self.pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        match &mut self.keeping {
            Keeping::Own(kept, _) => *kept = Some(child),
            Keeping::Lent => fs::write(self.folder.join(PID_FILE), child.id().to_string())?,
        }
        Ok(())
    }

    /// Whether it runs.
    pub(super) fn lives(&mut self) -> bool {
        if let Keeping::Own(Some(child), _) = &mut self.keeping {
            return matches!(child.try_wait(), Ok(None));
        }
        self.pid.is_some_and(|pid| runs_in(pid, &self.folder))
    }

    /// Its number among the processes of this machine.
    pub(crate) fn id(&self) -> Result<i32> {
        Ok(self.running()?.as_raw_nonzero().get())
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn running(&self) -> Result<Pid> {
        let pid = self.pid;
        pid.with_context(|| format!("{} was not started", self.program))
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.running()?, signal)
            .with_context(|| format!("{} does not take {signal:?}", self.program))
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        if !self.lives() {
            return Err(self.ended());
        }
        self.signal(Signal::KILL)?;
        self.is_gone().await
    }

    /// Waits until it has ended.
    pub(super) async fn is_gone(&mut self) -> Result<()> {
        eventually(PATIENCE, "the server ends", async || {
            holds(!self.lives(), "it runs")
        })
        .await
    }

    /// Returns when each thread of it has stopped.
    pub(super) async fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let threads = format!("/proc/{}/task", self.id()?);
        eventually(PATIENCE, "each thread stops", async || {
            for thread in fs::read_dir(&threads)? {
                let stat = fs::read_to_string(thread?.path().join("stat"))?;
                // The program's name may hold spaces; the state is the first word behind it.
                let stops = stat
                    .rsplit_once(") ")
                    .is_some_and(|it| it.1.starts_with('T'));
                ensure!(stops, "{stat}");
            }
            Ok(())
        })
        .await
    }

    pub(super) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// All that it has logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!(
            "--- {}, last lines:\n{}\n---",
            self.program,
            tail.join("\n")
        )
    }

    /// The error that it has ended by itself.
    pub(super) fn ended(&self) -> anyhow::Error {
        anyhow!("{} has ended\n{}", self.program, self.log_tail())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say!("{}", self.log_tail());
        }
        if let Keeping::Own(Some(child), _) = &mut self.keeping {
            // Waited for, so that its port is free and its folder can go.
            let _gone = (child.kill(), child.wait());
        }
    }
}

/// Whether this process runs in this folder. Who has taken over its number does not.
pub(crate) fn runs_in(pid: Pid, folder: &Path) -> bool {
    let process = format!("/proc/{}", pid.as_raw_nonzero());
    let stat = fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
    // The program's name may hold spaces; the state is the first word behind it.
    let words = stat.rsplit_once(") ").map(|(_, rest)| rest);
    let words: Vec<_> = words.unwrap_or_default().split(' ').collect();
    if words[0] == "Z" {
        // Nobody may wait for it, and it may be a zombie for ever. Its other threads hold its ports
        // until they have ended too; how many there are is the eighteenth word.
        let threads = words.get(17).and_then(|threads| threads.parse().ok());
        return threads.is_some_and(|threads: u32| threads > 1);
    }
    fs::read_link(format!("{process}/cwd")).is_ok_and(|found| found == folder)
}

/// A folder for the server of this name.
pub(super) fn folder(name: &str) -> Result<TempDir> {
    let prefix = format!("chatmesh-{name}-");
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir()?)
}
