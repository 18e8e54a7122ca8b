//! How the report begins: what the figures mean, who is measured, the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use e2e::SYSTEM_PYTHON;

use crate::runner::{Row, Runner};
use crate::scenarios::scenarios;
use crate::servers::{program, workspace};

const MEANING: &str = "\
**What is measured.** CPU time, not wall time, since machines are shared: the on-CPU time of all threads \
of all processes of a server (brokers and registry too), from `/proc/PID/task/*/schedstat`, over the \
measured window, divided by the deliveries that clients saw in it. On loopback the receiving half of \
TCP runs inside the sender's `write` and is in the figure. All servers share core 0; the load \
generator, one thread with all clients, has core 1. Each measurement has fresh servers. Repetitions are \
interleaved over the peers; a cell is the median (least – most), a ratio is taken within each repetition \
and the median of these is told. \
A latency runs from the moment at which the message was *due* to the read that brought it, over all \
deliveries, so a late sender or a backlog counts; up to 0.1 ms of it is the generator's pace. *Faults* \
are messages lost, doubled or reordered, told exactly by client and sender. *Others* is what other \
processes took of the cores: where it is large, trust CPU time, and latency and deliveries a second less. \
*Generator* is its own use of a core: above 0.9 it was the limit of the deliveries a second, while the CPU \
a delivery holds. Memory is the server's resident memory over what it had before the first client.

**Peers.** `floor`: one `write` for each client and message and nothing else; `floor-batch`: reads all \
that is ready, then one write a client (both of this project, to compare with). `uws`: uWebSockets \
(topic publish in C++). `nats`: NATS, WebSocket port, a full-mesh cluster; `nats-tls`: the same with \
mutual TLS between its servers. `socketio`: socket.io with the Redis adapter; `socketio-streams`: the \
same with the adapter for Redis streams. `chatnode` has clients of \
plain text and speaks ZeroMQ between nodes, `chat.v1` is chatnode with clients of that protocol, \
`chatnode-tls` chatnode with a mesh secret: clients as `chatnode`'s, all between nodes in TLS. \
`chatnode-redis`, `chatnode-nats`, `chatnode-amqp` and `chatnode-proxy` have the same clients, and \
their nodes meet at one Redis, NATS server, RabbitMQ (one scheduler thread) or ZeroMQ forwarder in \
Python, without a registry.
";

/// What tells the version of something, for which peers it is told, and under which name.
type Version = (
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static [&'static str],
);
const VERSIONS: &[Version] = &[
    (&["uws"], "uws", "echo", &["socketify 0.0.31"]),
    (
        &["nats", "nats-tls", "chatnode-nats"],
        "nats",
        "nats-server",
        &["--version"],
    ),
    (
        &["socketio", "socketio-streams", "chatnode-redis"],
        "redis",
        "redis-server",
        &["--version"],
    ),
    (
        &["socketio", "socketio-streams"],
        "socket.io",
        "sed",
        &[
            "-n",
            r#"s/.*"socket.io": "\(.*\)"/\1/p"#,
            "tests/bench/peers/socketio/package.json",
        ],
    ),
    (
        &["chatnode-amqp"],
        "rabbitmq",
        // Its own program starts Erlang's book of names, which nobody ends.
        "dpkg-query",
        &["-W", "-f=${Version}", "rabbitmq-server"],
    ),
    (
        &["chatnode-proxy"],
        "libzmq",
        SYSTEM_PYTHON,
        &["-c", "import zmq; print(zmq.zmq_version())"],
    ),
];

fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(workspace())
        .output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.lines().next().unwrap_or("?").to_owned()
}

fn field_of(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':'))
        .map_or("?".to_owned(), |(_, value)| value.trim().to_owned())
}

/// How the report begins.
pub(crate) fn opening(runner: &Runner, rows: &[Row]) -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = processors
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory: f64 = field_of("/proc/meminfo", "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or(0.0);
    let mut text = format!(
        "# What a broadcast costs\n\n{MEANING}\n\
         | | |\n| --- | --- |\n| date | {} |\n| machine | {}, {cores} cores, {:.0} GiB |\n| kernel | {} |\n\
         | chatmesh | {} ({}) |\n| compiler | {} |\n| repetitions | {}{} |\n",
        first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        field_of("/proc/cpuinfo", "model name"),
        memory / 1_048_576.0,
        first_line("uname", &["-sr"]),
        program("chatnode").map_or("?".to_owned(), |path| first_line(
            &path.to_string_lossy(),
            &["--version"]
        )),
        commits(rows),
        first_line("rustc", &["--version"]),
        repetitions(rows),
        if rows.iter().any(|row| row.quick) {
            "; some shortened by `--quick`"
        } else {
            ""
        },
    );
    for (peers, name, program, args) in VERSIONS {
        let measured = |row: &Row| peers.contains(&row.peer.as_str());
        if rows.iter().any(measured) {
            text += &format!("| {name} | {} |\n", first_line(program, args));
        }
    }
    text.push_str(
        "\nAgain: `scripts/bench all`, or parts of it by name (`scripts/bench help`). All measurements, a \
             line each: `target/bench/results.jsonl`.\n",
    );
    for what in &runner.skipped {
        text += &format!("\n- {what}\n");
    }
    text
}

/// The last change of the programs as they are built here.
pub(crate) fn commit() -> String {
    const PROGRAMS: [&str; 4] = ["--", "chatnode", "registry", "Cargo.toml"];
    let of_programs = |args: &[&'static str]| first_line("git", &[args, &PROGRAMS].concat());
    let changed = of_programs(&["status", "--porcelain", "--untracked-files=no"]);
    let dirty = !changed.replace('?', "").is_empty();
    let with_changes = if dirty { " with changes" } else { "" };
    of_programs(&["log", "-1", "--format=%h"]) + with_changes
}

/// The commits that were measured, for there may be several.
fn commits(rows: &[Row]) -> String {
    let known = rows.iter().map(|row| row.commit.as_str());
    let commits: BTreeSet<&str> = known.filter(|commit| !commit.is_empty()).collect();
    commits.into_iter().collect::<Vec<_>>().join(", ")
}

/// How often each thing was measured.
fn repetitions(rows: &[Row]) -> String {
    let mut times: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for row in rows {
        *times.entry((&row.scenario, &row.peer)).or_default() += 1;
    }
    let of_scenarios = |of_them: bool| {
        let is_scenario = |name: &str| scenarios().any(|scenario| scenario.name == name);
        let counts = times
            .iter()
            .filter(|((name, _), _)| is_scenario(name) == of_them);
        let counts: BTreeSet<String> = counts.map(|(_, count)| count.to_string()).collect();
        counts.into_iter().collect::<Vec<_>>().join(" or ")
    };
    match (of_scenarios(true), of_scenarios(false)) {
        (scenarios, growth) if growth.is_empty() => scenarios,
        (scenarios, growth) if scenarios.is_empty() => growth,
        (scenarios, growth) => format!("{scenarios}; of the mesh and of growth {growth}"),
    }
}
