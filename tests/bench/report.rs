//! The report: what the figures mean, the machine, tables, verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use crate::runner::{Row, Runner};
use crate::scenarios::{Bar, SCENARIOS, Scenario};
use crate::servers::{program, workspace};
use crate::sweeps::sweeps;

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
mutual TLS between its servers. `socketio`: socket.io with the Redis adapter. `chatnode` has clients of \
plain text and speaks ZeroMQ between nodes, `chat.v1` is chatnode with clients of that protocol, \
`chatnode-tls` chatnode with a mesh secret: clients as `chatnode`'s, all between nodes in TLS.
";

/// Median, least and most.
pub(crate) fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let (least, most) = (*sorted.first()?, *sorted.last()?);
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    Some((median, least, most))
}

/// A number of three digits or so.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size >= 1e6 => format!("{} M", digits(value / 1e6)),
        _ if size >= 1e4 => format!("{} k", digits(value / 1e3)),
        _ => digits(value),
    }
}

fn digits(value: f64) -> String {
    let size = value.abs();
    let places = match size {
        _ if size >= 100.0 || size == 0.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A figure with its unit.
pub(crate) fn shown(field: &str, value: f64) -> String {
    let unit = match field {
        "p50_us" | "p99_us" | "max_us" => return format!("{} ms", short(value / 1e3)),
        _ if field.ends_with("rss_bytes") => {
            return format!("{} MiB", short(value / 1_048_576.0));
        }
        _ if field.contains("_us_") || field.ends_with("_us") => " µs",
        _ if field.contains("_ns_") => " ns",
        _ if field.contains("bytes") => " B",
        _ if field.ends_with("_ms") => " ms",
        _ => "",
    };
    format!("{}{unit}", short(value))
}

/// A cell: median and range of a figure.
pub(crate) fn cell(rows: &[&Row], field: &str) -> String {
    let values: Vec<f64> = rows.iter().filter_map(|row| row.figure(field)).collect();
    match spread(&values) {
        None => "–".to_owned(),
        Some((median, least, most)) if values.len() > 1 => {
            let range = |value| {
                shown(field, value)
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            };
            let alike = shown(field, least).ends_with(|end: char| !end.is_ascii_digit());
            let least = if alike && unit(field, least) == unit(field, median) {
                range(least)
            } else {
                shown(field, least)
            };
            format!("{} ({least}–{})", shown(field, median), shown(field, most))
        }
        Some((median, ..)) => shown(field, median),
    }
}

fn unit(field: &str, value: f64) -> String {
    shown(field, value)
        .split_once(' ')
        .map_or_else(String::new, |(_, unit)| unit.to_owned())
}

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
    let peers = [
        ("uws", "socketify 0.0.31".to_owned()),
        ("nats", first_line("nats-server", &["--version"])),
    ];
    for (peer, version) in peers {
        if rows.iter().any(|row| row.peer.starts_with(peer)) {
            text += &format!("| {peer} | {version} |\n");
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
        let is_scenario = |name: &str| SCENARIOS.iter().any(|scenario| scenario.name == name);
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

/// What chatnode is held to, as far as it was measured.
pub(crate) fn verdicts(rows: &[Row]) -> String {
    let of_scenarios = SCENARIOS.iter().flat_map(|scenario| {
        let bars = scenario.bars.iter();
        bars.map(|bar| (scenario.name.to_owned(), bar))
    });
    let of_sweeps = sweeps().flat_map(|sweep| {
        let bars = sweep.bars.iter();
        bars.map(|(point, bar)| (format!("{} {point}", sweep.name), bar))
    });
    let mut text = String::new();
    for (name, bar) in of_scenarios.chain(of_sweeps) {
        let of: Vec<&Row> = rows.iter().filter(|row| row.scenario == name).collect();
        verdict(&mut text, &name, bar, &of);
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\n## What chatnode is held to\n\n| scenario | figure | measured | bar | aim | |\n\
         | --- | --- | --- | --- | --- | --- |\n{text}"
    )
}

/// Tables of all scenarios that were run.
pub(crate) fn scenarios(rows: &[Row]) -> String {
    let mut text = String::new();
    for scenario in SCENARIOS {
        let of: Vec<&Row> = rows
            .iter()
            .filter(|row| row.scenario == scenario.name)
            .collect();
        if !of.is_empty() {
            table(&mut text, scenario, &of);
        }
    }
    text
}

/// Nearer than this to its bar, something is measured more often.
const CLOSE: f64 = 0.2;

/// What a bar is about, once for each repetition.
fn judged(bar: &Bar, rows: &[&Row]) -> Vec<f64> {
    let field = bar.metric.0;
    let own = rows.iter().filter(|row| row.peer == bar.whose);
    own.filter_map(|row| {
        let value = row.figure(field)?;
        let Some(against) = bar.against else {
            return Some(value);
        };
        let other = rows
            .iter()
            .find(|other| other.peer == against && other.rep == row.rep)?;
        Some(value / other.figure(field)?)
    })
    .collect()
}

/// Whether something measured is so near to its bar, on either side, that noise may decide.
pub(crate) fn is_close(scenario: &Scenario, rows: &[Row]) -> bool {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.scenario == scenario.name)
        .collect();
    scenario.bars.iter().any(|bar| {
        let median = spread(&judged(bar, &rows)).map(|(median, ..)| median);
        let limit = bar.bar.zip(median);
        limit.is_some_and(|(bar, median)| (median / bar - 1.0).abs() <= CLOSE)
    })
}

fn verdict(text: &mut String, scenario: &str, bar: &Bar, rows: &[&Row]) {
    let field = bar.metric.0;
    let values = judged(bar, rows);
    let Some((median, least, most)) = spread(&values) else {
        return;
    };
    let say = |value: f64| {
        if bar.against.is_some() {
            format!("{value:.2}")
        } else {
            shown(field, value)
        }
    };
    let sign = if bar.at_least { '≥' } else { '≤' };
    let limit = |limit: Option<f64>| {
        limit.map_or("–".to_owned(), |limit| format!("{sign} {}", say(limit)))
    };
    let passes = |limit: Option<f64>| {
        limit.is_none_or(|limit| median == limit || (median > limit) == bar.at_least)
    };
    let judged = match (passes(bar.bar), passes(bar.aim)) {
        _ if bar.bar.or(bar.aim).is_none() => "",
        (true, true) => "reached",
        (true, false) if bar.bar.is_some() => "within the bar",
        (true, false) => "not reached",
        (false, _) if bar.at_least => "**below the bar**",
        (false, _) => "**over the bar**",
    };
    let range = if values.len() > 1 {
        format!(" ({}–{})", say(least), say(most))
    } else {
        String::new()
    };
    let against = bar
        .against
        .map_or(String::new(), |against| format!(" ÷ {against}"));
    *text += &format!(
        "| {scenario} | {}, {}{against} | {}{range} | {} | {} | {judged} |\n",
        bar.metric.1,
        bar.whose,
        say(median),
        limit(bar.bar),
        limit(bar.aim)
    );
}

const TALK: &[(&str, &str)] = &[
    ("CPU a delivery", "cpu_us_per_delivery"),
    ("a byte", "cpu_ns_per_byte"),
    ("deliveries a second", "deliveries_per_s"),
    ("p50", "p50_us"),
    ("p99", "p99_us"),
    ("longest", "max_us"),
    ("generator", "own_cores"),
    ("others", "others_cores"),
];
const IDLE: &[(&str, &str)] = &[
    ("memory a connection", "rss_bytes_per_conn"),
    ("CPU an accept", "cpu_us_per_accept"),
    ("accepts a second", "accepts_per_s"),
    ("cores while idle", "idle_cores"),
    ("generator", "own_cores"),
    ("others", "others_cores"),
];

fn table(text: &mut String, scenario: &Scenario, rows: &[&Row]) {
    let idle = scenario.load.starts_with("idle");
    let columns = if idle { IDLE } else { TALK };
    *text += &format!(
        "\n## {}\n\n{}.\n`bench load {}`\n\n| peer |",
        scenario.name, scenario.about, scenario.load
    );
    for (name, _) in columns {
        *text += &format!(" {name} |");
    }
    text.push_str(if idle {
        "\n| --- |"
    } else {
        " faults |\n| --- | --- |"
    });
    text.push_str(&" --- |".repeat(columns.len()));
    for peer in scenario.peers {
        let of: Vec<&Row> = rows
            .iter()
            .copied()
            .filter(|row| row.peer == *peer)
            .collect();
        if of.is_empty() {
            continue;
        }
        *text += &format!("\n| {peer} |");
        for (_, field) in columns {
            *text += &format!(" {} |", cell(&of, field));
        }
        if !idle {
            *text += &format!(" {} |", faults(&of));
        }
    }
    text.push('\n');
}

/// Messages that did not arrive once and in order.
pub(crate) fn faults(rows: &[&Row]) -> String {
    let mut told = Vec::new();
    for fault in ["lost", "doubled", "reordered", "astray"] {
        let count: f64 = rows.iter().filter_map(|row| row.figure(fault)).sum();
        if count > 0.0 {
            told.push(format!("{count} {fault}"));
        }
    }
    if told.is_empty() {
        "none".to_owned()
    } else {
        told.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Goal: a ratio is one of the same repetition. Method: two repetitions on a machine that is
    /// ten times slower in the second; the ratio is 2 in both.
    #[test]
    fn a_ratio_is_taken_within_a_repetition() {
        let row = |peer: &str, rep, value: f64| Row {
            scenario: "fanout-1".to_owned(),
            peer: peer.to_owned(),
            rep,
            quick: false,
            commit: String::new(),
            figures: json!({ "cpu_us_per_delivery": value }),
        };
        let rows = [
            row("chatnode", 1, 2.0),
            row("floor", 1, 1.0),
            row("chatnode", 2, 20.0),
            row("floor", 2, 10.0),
        ];
        let text = verdicts(&rows);
        assert!(
            text.contains("÷ floor | 2.00 (2.00–2.00) | ≤ 1.15 | ≤ 1.05 | **over the bar** |"),
            "{text}"
        );
    }

    /// Goal: where more is better, less is below the bar. Method: a throughput on either side of it.
    #[test]
    fn a_bar_may_be_the_least() {
        for (value, told) in [(80.0, "**below the bar**"), (95.0, "reached")] {
            let row = |peer: &str, value: f64| Row {
                scenario: "mesh 3".to_owned(),
                peer: peer.to_owned(),
                rep: 1,
                quick: false,
                commit: String::new(),
                figures: json!({ "messages_per_s": value }),
            };
            let text = verdicts(&[row("chatnode", 100.0), row("chatnode-tls", value)]);
            assert!(text.contains("| ≥ 0.90 | – |"), "{text}");
            assert!(text.contains(told), "{text}");
        }
    }

    /// Goal: numbers are short and keep what counts. Method: some of each size.
    #[test]
    fn numbers_are_short() {
        let all: Vec<_> = [
            0.0,
            0.0123,
            0.5,
            3.14999,
            42.0,
            1234.0,
            50_000.0,
            3_723_570.0,
        ]
        .map(short)
        .to_vec();
        assert_eq!(
            all,
            ["0", "0.0123", "0.5", "3.15", "42", "1234", "50 k", "3.72 M"]
        );
    }
}
