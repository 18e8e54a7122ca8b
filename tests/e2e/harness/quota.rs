//! A processor that programs must do without for most of the time: by a quota of a control group of
//! the test's own or, where the machine does not let it, by others who use it up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use tokio::time::Duration;

use super::tools::{installed, limited};
use super::{PATIENCE, eventually};

/// Programs that use up the one processor that the starved may use,
const BURNERS: usize = 8;
/// and how much nicer the starved are: each burner has some ten times the weight of each of them.
const NICE: &str = "10";

/// What keeps programs from running.
#[derive(Debug)]
pub(crate) struct Starvation {
    group: Option<Group>,
    burners: Vec<Child>,
}

/// A control group, removed when dropped, if its programs have ended.
#[derive(Debug)]
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        // After a failure: what still runs in it keeps it.
        let _there = fs::remove_dir(&self.0);
    }
}

impl Drop for Starvation {
    fn drop(&mut self) {
        for burner in &mut self.burners {
            let _gone = (burner.kill(), burner.wait());
        }
    }
}

impl Starvation {
    /// So much of a processor in each period, for all programs that are started with it together.
    pub(crate) fn new(quota: Duration, period: Duration) -> Result<Self> {
        let mut all = Self {
            group: None,
            burners: Vec::new(),
        };
        match group(quota, period) {
            Ok(group) => all.group = Some(group),
            Err(error) => {
                let instead = "a processor that others use up";
                limited("processor quotas", instead, &format!("{error:#}"))?;
                for _ in 0..BURNERS {
                    let burner = Command::new(installed("taskset")?)
                        .args(["-c", "0", "sh", "-c", "while :; do :; done"])
                        .stdin(Stdio::null())
                        .spawn()?;
                    all.burners.push(burner);
                }
            }
        }
        Ok(all)
    }

    /// The words before a command that is to be starved.
    pub(crate) fn prefix(&self) -> Vec<String> {
        match &self.group {
            Some(group) => {
                let enter = "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"";
                let folder = group.0.display().to_string();
                ["sh", "-c", enter, &folder].map(str::to_owned).to_vec()
            }
            None => ["taskset", "-c", "0", "nice", "-n", NICE]
                .map(str::to_owned)
                .to_vec(),
        }
    }

    /// Ends it, when the programs have ended.
    pub(crate) async fn end(self) -> Result<()> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        eventually(PATIENCE, "the control group is empty", async || {
            fs::remove_dir(&group.0)
        })
        .await
    }
}

fn group(quota: Duration, period: Duration) -> Result<Group> {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("chatmesh-{}-{count}", std::process::id());
    let (quota, period) = (quota.as_micros(), period.as_micros());
    // Version 1 has a tree for each resource, version 2 one tree for all.
    let old = Path::new("/sys/fs/cgroup/cpu");
    let (root, settings) = if old.is_dir() {
        let period = ("cpu.cfs_period_us", period.to_string());
        (old, vec![period, ("cpu.cfs_quota_us", quota.to_string())])
    } else {
        let root = Path::new("/sys/fs/cgroup");
        write(&root.join("cgroup.subtree_control"), "+cpu")?;
        (root, vec![("cpu.max", format!("{quota} {period}"))])
    };
    let folder = root.join(name);
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let group = Group(folder);
    for (setting, value) in settings {
        write(&group.0.join(setting), &value)?;
    }
    Ok(group)
}

fn write(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("{value} to {}", file.display()))
}
