//! What a broadcast costs, beside other servers: `scripts/bench` runs this.
//!
//! One program in several roles: it starts servers and runs scenarios on them (`report.rs` writes
//! what came out), is itself the load generator (`load`: `swarm.rs` has the clients), and a server
//! that does the least possible (`floor`).
#![allow(
    clippy::cast_possible_truncation,
    reason = "counts of a measurement of seconds fit; rates are f64 and rounded on purpose"
)]

mod about;
mod clock;
#[cfg(test)]
mod faulty;
mod floor;
mod growth;
mod hist;
mod links;
mod load;
mod marks;
mod options;
mod plot;
mod procs;
mod proto;
mod report;
mod runner;
mod scenarios;
mod servers;
mod swarm;
mod sweeps;
mod wire;

use std::fmt::Display;
use std::fs;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

use options::Options;
use runner::{Runner, results};
use servers::{folder, workspace};

/// All servers run on this core.
pub(crate) const SERVER_CORE: usize = 0;
/// The load generator runs on this one.
pub(crate) const LOAD_CORE: usize = 1;

const HELP: &str = "\
usage: scripts/bench [run|engines|mesh|links|growth|all|report] [OPTIONS]

  run      the scenarios, beside other servers, and what chatnode is held to (the default)
  engines  hop and fan-out of 3 nodes over Redis, NATS, RabbitMQ and a ZeroMQ proxy, beside what people
           use on the same: socket.io with its two adapters for Redis, NATS' own WebSocket
  mesh     messages a second across 2 to 20 nodes, and what one costs each node, in ZeroMQ and in TLS
  links    the same two: what a link costs to make and to keep, and a peer that is stopped
  growth   how cost, latency and memory grow with clients, rooms, nodes, size and history;
           how long joining and repair take; with plots
  all      all of it (an hour and a half)
  report   writes the report anew

  --reps N          repetitions, interleaved over the peers; 3, and 7 near a bar
  --growth-reps N   the same for each row of the mesh, its links and growth; 1
  --only A,B        only these scenarios and tables, of which kind ever
  --peers A,B       only these servers: chatnode, chat.v1, chatnode-tls, chatnode-redis, chatnode-nats,
                    chatnode-amqp, chatnode-proxy, floor, floor-batch, uws, nats, nats-tls, socketio,
                    socketio-streams
  --quick           one repetition, windows of 2 s, three points of each growth table: a smoke test
  --publish         the report goes to BENCHMARKS.md, too, and its plots to docs/bench/

Results: target/bench/report.md, *.svg, results.jsonl (a line a measurement), logs/ of the servers. The
report has the last measurement of each scenario, so that parts can be run at their times.
A server that cannot be installed is left out with a line that says why: uws needs python3 with
venv and pip, nats, openssl and redis come with apt-get, socketio needs npm, chatnode-amqp and
chatnode-proxy need what scripts/setup installs.

Parts, for use alone:
  bench floor [--batch]     the least server there can be; prints its URL
  bench load MODE --url URL [--url URL …] --pid PID [--pid PID …] [--core N] [OPTIONS]
      fanout                --rate R messages a second on a fixed schedule, --burst K at once
      saturate              --inflight W; who has its own message back says the next
      idle                  connections are opened and held for --hold S
      fill                  --count N messages are said by one client
    --proto plain|chat|nats|socketio  --clients N  --senders N  --sender-node N  --bytes N
    --rooms N  --rooms-each N  --copies N  --warmup S  --secs S  --settle S
  for example:
    target/release/chatnode --registry none --rate-limit 0 &
    target/release/examples/bench load saturate --url ws://127.0.0.1:PORT --pid $! --senders 8";

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
        _ if what == "help" || options.flag("help") => print(HELP)?,
        "run" | "engines" | "mesh" | "links" | "growth" | "all" | "report" => {
            measure(&what, &options)?
        }
        other => {
            bail!(
                "{other}: there is run, engines, mesh, links, growth, all, report, load, floor and help"
            )
        }
    }
    Ok(())
}

/// Runs what is wanted and writes the report.
fn measure(what: &str, options: &Options) -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(
        cores > LOAD_CORE,
        "two cores are needed, one for servers and one for the generator"
    );
    let mut runner = Runner::new(options)?;
    // What was chosen by name is run, wherever it belongs.
    let what = if runner.chooses() { "all" } else { what };
    // Of all, the report is written halfway too: what was measured is not lost with what comes last.
    if matches!(what, "run" | "engines" | "all") {
        runner.scenarios(what)?;
    }
    if what == "all" {
        write(&runner, options)?;
    }
    if matches!(what, "mesh" | "links" | "growth" | "all") {
        growth::measure(&mut runner, what)?;
    }
    write(&runner, options)
}

/// Writes the report of all that was measured last, and where it is published too if that is wanted.
fn write(runner: &Runner, options: &Options) -> Result<()> {
    let rows = results()?;
    let mut text = about::opening(runner, &rows);
    text.push_str(&report::verdicts(&rows));
    text.push_str(&report::scenarios(&rows));
    text.push_str(&growth::tables(&rows)?);
    let folder = folder();
    let path = folder.join("report.md");
    fs::write(&path, text.replace("(PLOTS/", "("))?;
    say(format_args!("written: {}", path.display()));
    if options.flag("publish") {
        let docs = workspace().join("docs/bench");
        fs::create_dir_all(&docs)?;
        for piece in text.split("(PLOTS/").skip(1) {
            let name = piece.split(')').next().unwrap_or_default();
            fs::copy(folder.join(name), docs.join(name))?;
        }
        fs::write(
            workspace().join("BENCHMARKS.md"),
            text.replace("(PLOTS/", "(docs/bench/"),
        )?;
        say("written: BENCHMARKS.md and docs/bench/");
    }
    Ok(())
}

/// Keeps this process, and those that it starts, on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    pin_to([core])
}

/// The same for several cores, of which those that exist are used.
pub(crate) fn pin_to(cores: impl IntoIterator<Item = usize>) -> Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).context("these cores cannot be had")
}

/// A line of result, on stdout.
pub(crate) fn print(line: impl Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "{line}").and_then(|()| out.flush())?)
}

/// A line for the person who waits, on stderr.
pub(crate) fn say(line: impl Display) {
    // Whoever does not listen is not told.
    let _unheard = writeln!(std::io::stderr(), "{line}");
}
