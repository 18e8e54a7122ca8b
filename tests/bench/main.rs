//! What a broadcast costs, beside other servers: `scripts/bench` runs this.
//!
//! One program in several roles: it starts servers and runs scenarios on them (`report.rs` writes
//! what came out), is itself the load generator (`load`: `swarm.rs` has the clients), and a server
//! that does the least possible (`floor`).
#![allow(
    clippy::cast_possible_truncation,
    reason = "counts of a measurement of seconds fit; rates are f64 and rounded on purpose"
)]

mod clock;
mod floor;
mod hist;
mod load;
mod marks;
mod options;
mod procs;
mod proto;
mod swarm;
mod wire;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

use options::Options;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut options = Options::of(std::env::args().skip(1))?;
    let what = options.free("run").unwrap_or_else(|_| "run".to_owned());
    match what.as_str() {
        "load" => print(load::run(options)?)?,
        "floor" => floor::run(&options)?,
        _ => {}
    }
    Ok(())
}

/// Keeps this process, and those that it starts, on one core.
///
/// # Errors
/// There is no such core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("core {core}"))
}

/// A line of result, on stdout.
///
/// # Errors
/// Nobody reads.
pub(crate) fn print(line: impl Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "{line}").and_then(|()| out.flush())?)
}

/// A line for the person who waits, on stderr.
pub(crate) fn say(line: impl Display) {
    // Whoever does not listen is not told.
    let _unheard = writeln!(std::io::stderr(), "{line}");
}
