//! What processes and cores have used, from `/proc`.

use std::fs;

/// On-CPU time of all threads of these processes so far, in nanoseconds.
pub(crate) fn cpu(pids: &[u32]) -> u64 {
    let mut nanos = 0;
    for pid in pids {
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            nanos += text
                .split(' ')
                .next()
                .and_then(|first| first.parse().ok())
                .unwrap_or(0);
        }
    }
    nanos
}

/// Resident memory of these processes, in bytes.
pub(crate) fn resident(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| memory(*pid, "VmRSS:")).sum()
}

/// The most resident memory that a process has had so far, in bytes.
pub(crate) fn peak(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kilobytes.unwrap_or(0u64) << 10
}

/// Whether all of these processes are there and no zombies.
pub(crate) fn alive(pids: &[u32]) -> bool {
    pids.iter().all(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        text.rsplit(") ")
            .next()
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    })
}

/// The processes that this one has started, and those that they have, as far as they live.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    for thread in threads.into_iter().flatten().flatten() {
        let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in text
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
        {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

/// What all cores have done so far, in clock ticks of 10 ms.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cores {
    /// Not idle, without what was stolen.
    pub(crate) busy: u64,
    /// Taken by the host.
    pub(crate) stolen: u64,
}

/// Nanoseconds of a tick.
pub(crate) const TICK_NANOS: u64 = 10_000_000;

/// As of now.
pub(crate) fn cores() -> Cores {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let at = |place: usize| ticks.get(place).copied().unwrap_or(0);
    // user, nice, system, idle, iowait, irq, softirq, steal
    Cores {
        busy: at(0) + at(1) + at(2) + at(5) + at(6),
        stolen: at(7),
    }
}
