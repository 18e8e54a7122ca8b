//! What the tests stand on: processes, clusters of them, clients, faults and the checks of the
//! promises. Nothing here knows the programs' code; it sees what a user, a client or a peer sees.
//! A helper's error says what did not happen, or not in time; `?` ends the test with it.

pub(crate) mod apart;
pub(crate) mod balancer;
pub(crate) mod bots;
pub(crate) mod browser;
pub(crate) mod buses;
pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod client_hello;
pub(crate) mod clocks;
pub(crate) mod cluster;
pub(crate) mod disks;
pub(crate) mod engines;
pub(crate) mod eventually;
pub(crate) mod false_peer;
pub(crate) mod inject;
pub(crate) mod judge;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod netns;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod pump;
pub(crate) mod quota;
pub(crate) mod raw;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod recorder;
pub(crate) mod rig;
pub(crate) mod roamer;
pub(crate) mod sealed;
pub(crate) mod sealed_peer;
pub(crate) mod sluice;
pub(crate) mod socket;
pub(crate) mod sources;
pub(crate) mod stranger;
pub(crate) mod tools;
pub(crate) mod wire;

use std::fmt::Display;

use tokio::task::JoinHandle;

pub(crate) use check::{converged, histories, same};
pub(crate) use client::{Client, Plain};
pub(crate) use cluster::{Cluster, Node, Registry, linked};
pub(crate) use eventually::eventually;
pub(crate) use load::Load;
pub(crate) use record::Attempt;
pub(crate) use recorder::{Expect, Recorder};
pub(crate) use roamer::{Habits, Pace, Roamer};
pub(crate) use tokio::time::{Duration, Instant};

/// What a test gives back. `?` on any error panics where it stands, so that the report names the
/// line and every process prints its log while the test unwinds.
pub(crate) type Outcome = Result<(), Failure>;

/// Never made: turning an error into one panics.
#[derive(Debug)]
pub(crate) enum Failure {}

impl<E: Display> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        panic!("{error:#}")
    }
}

/// What a busy machine of two cores may add to a single time that is asserted: seen here, processes
/// that were not run for more than a second while a compiler was. Nothing may fail because a
/// machine was slow, so what the contract demands of a time is asserted of the median where a test
/// measures several, and of one alone with this added; all are printed.
pub(crate) const NOISE: Duration = Duration::from_secs(2);

/// How long something may take that has no number in the contract. Long enough that only a
/// thing that never happens fails it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Shorthand for tests full of times.
pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Shorthand for tests full of times.
pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Starts a task of the test. What it panics with reaches the test through its handle.
#[expect(
    clippy::disallowed_methods,
    reason = "the programs' rule; a test has no Tasks to stop"
)]
pub(crate) fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(task)
}

/// A variable of the environment that a person sets to choose among runs.
#[expect(
    clippy::disallowed_methods,
    reason = "the programs' rule; tests have no command line"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Prints a line for the person who reads the run: measured numbers, what was left out and why.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::harness::spoken(format_args!($($words)*))
    };
}
pub(crate) use say;

/// Prints a line; see [`say!`].
#[expect(clippy::print_stderr, reason = "the one place where the tests speak")]
pub(crate) fn spoken(line: impl Display) {
    eprintln!("{line}");
}

/// Raises the limit of open files of this process to what it may be, for thousands of clients.
pub(crate) fn many_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// The seed of what a test does at random: `SEED`, or any. Printed, so that it can be had again.
pub(crate) fn seed() -> u64 {
    let seed = variable("SEED").and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    say!("SEED={seed}");
    seed
}

/// Whether the long forms of the tests were asked for (`CHATMESH_LONG=1`).
pub(crate) fn long() -> bool {
    variable("CHATMESH_LONG").is_some_and(|value| value == "1")
}
