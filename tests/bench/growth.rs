//! How cost grows: with clients, rooms, nodes, the size of messages and history; what the mesh
//! costs; how long joining and repair take.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clock::{SECOND, eventually, now};
use crate::plot::{Line, Plot};
use crate::report::{cell, faults, put};
use crate::runner::{Row, Runner, forget};
use crate::scenarios::Metric;
use crate::servers::{Servers, folder};

/// Deliveries a second at which growth is measured: all peers can carry them.
const DELIVERIES: usize = 50_000;
/// How long a node may take to have what the other has.
const SAME_WITHIN: u64 = 120 * SECOND;

/// What is done at one point of a sweep.
#[derive(Debug)]
enum Point {
    /// Nodes, messages said before, arguments of the generator.
    Load(usize, usize, String),
    /// The same, the nodes on all cores.
    Spread(usize, String),
    /// A second node starts when the first holds so many messages.
    Join(usize),
    /// A node stands still while so many messages are said.
    Freeze(usize),
}

/// One quantity that grows.
#[derive(Debug)]
struct Sweep {
    name: &'static str,
    title: &'static str,
    about: &'static str,
    x: &'static str,
    points: &'static [usize],
    peers: &'static [&'static str],
    point: fn(usize) -> Point,
    columns: &'static [(&'static str, &'static str)],
    /// Which columns are plotted.
    plots: &'static [&'static str],
}

const COST: &[(&str, &str)] = &[
    ("CPU a delivery", "cpu_us_per_delivery"),
    ("p50", "p50_us"),
    ("p99", "p99_us"),
    ("memory a client", "rss_bytes_per_conn"),
    ("memory in all", "rss_bytes"),
    ("others", "others_cores"),
];
const PER_MESSAGE: &[(&str, &str)] = &[
    ("CPU a delivery", "cpu_us_per_delivery"),
    ("CPU a message", "cpu_us_per_message"),
    ("p50", "p50_us"),
    ("p99", "p99_us"),
    ("memory in all", "rss_bytes"),
    ("others", "others_cores"),
];
const COST_PLOTS: &[&str] = &["cpu_us_per_delivery", "p50_us", "p99_us", "rss_bytes"];

const SWEEPS: &[Sweep] = &[
    Sweep {
        name: "growth-clients",
        title: "Clients of a node",
        about: "10 senders; the rate is such that there are 50 000 deliveries a second",
        x: "clients",
        points: &[100, 300, 1000, 3000, 10_000, 20_000],
        peers: &["chatnode", "chat.v1", "floor", "uws"],
        point: |clients| {
            let rate = DELIVERIES as f64 / clients as f64;
            Point::Load(
                1,
                0,
                format!(
                    "fanout --clients {clients} --senders 10 --rate {rate} --secs 6 --warmup 2"
                ),
            )
        },
        columns: COST,
        plots: COST_PLOTS,
    },
    Sweep {
        name: "growth-rooms",
        title: "Rooms",
        about: "1000 clients in 1 room each, from 1000 rooms on in 10 and 50 each, and 100 senders; \
                1000, 100, 10, 10 and 5 clients hear a message; 50 000 deliveries a second in all",
        x: "rooms",
        points: &[1, 10, 100, 1000, 10_000],
        peers: &["chat.v1"],
        point: |rooms| {
            let each = [(10_000, 50), (1000, 10)]
                .into_iter()
                .find(|(from, _)| rooms >= *from);
            let each = each.map_or(1, |(_, each)| each);
            let rate = DELIVERIES * rooms / (1000 * each);
            let load = format!(
                "fanout --clients 1000 --senders 100 --rooms {rooms} --rooms-each {each} --rate {rate} --secs 6 --warmup 2"
            );
            Point::Load(1, 0, load)
        },
        columns: PER_MESSAGE,
        plots: COST_PLOTS,
    },
    Sweep {
        name: "growth-nodes",
        title: "Nodes",
        about: "600 clients, dealt over the nodes; 10 senders on the first, 50 messages a second",
        x: "nodes",
        points: &[1, 2, 3, 5, 10, 20],
        peers: &["chatnode", "nats"],
        point: |nodes| {
            let load =
                "fanout --clients 600 --senders 10 --sender-node 1 --rate 50 --secs 6 --warmup 2";
            Point::Load(nodes, 0, load.to_owned())
        },
        columns: PER_MESSAGE,
        plots: COST_PLOTS,
    },
    Sweep {
        name: "growth-size",
        title: "Size of a message",
        about: "1000 clients, 10 senders, 50 messages a second",
        x: "bytes of text",
        points: &[10, 100, 1000, 4000],
        peers: &["chatnode", "chat.v1", "floor", "uws"],
        point: |bytes| {
            let load = "fanout --clients 1000 --senders 10 --rate 50 --secs 6 --warmup 2 --bytes";
            Point::Load(1, 0, format!("{load} {bytes}"))
        },
        columns: COST,
        plots: COST_PLOTS,
    },
    Sweep {
        name: "growth-history",
        title: "History that is held",
        about: "messages of 100 bytes said before; then 1000 clients, 10 senders, 50 messages a second",
        x: "messages held",
        points: &[0, 1000, 10_000, 100_000],
        peers: &["chatnode", "chat.v1"],
        point: |held| {
            let load = "fanout --clients 1000 --senders 10 --rate 50 --secs 6 --warmup 2";
            Point::Load(1, held, load.to_owned())
        },
        columns: COST,
        plots: COST_PLOTS,
    },
    Sweep {
        name: "growth-joining",
        title: "Joining",
        about: "from the start of a second node to its ready line, and until it has all that the first has",
        x: "messages held",
        points: &[0, 1000, 10_000, 100_000],
        peers: &["chatnode"],
        point: Point::Join,
        columns: &[
            ("until the ready line", "ready_ms"),
            ("until it has all", "same_ms"),
        ],
        plots: &["ready_ms", "same_ms"],
    },
    Sweep {
        name: "growth-repair",
        title: "Repair",
        about: "a node of two is stopped (SIGSTOP) while the other takes messages, and then goes on: from \
                there until it has all",
        x: "messages missed",
        points: &[100, 1000, 10_000, 50_000],
        peers: &["chatnode"],
        point: Point::Freeze,
        columns: &[
            ("until it has all", "same_ms"),
            ("it stood for", "stood_ms"),
        ],
        plots: &["same_ms"],
    },
];

const MESH: Sweep = Sweep {
    name: "mesh",
    title: "Messages across the mesh",
    about: "one sender on the first node with 2000 messages in flight, one client a node, plain, copies 0; \
            all nodes share one core",
    x: "nodes",
    points: &[2, 3, 5, 10, 20],
    peers: &["chatnode"],
    point: |nodes| {
        let load = format!(
            "saturate --clients {nodes} --senders 1 --sender-node 1 --inflight 2000 --secs 5 --warmup 2"
        );
        Point::Load(nodes, 0, load)
    },
    columns: &[
        ("messages a second", "messages_per_s"),
        ("CPU a message and node", "cpu_us_per_message_node"),
        ("CPU a message", "cpu_us_per_message"),
        ("server cores", "server_cores"),
        ("p50", "p50_us"),
        ("p99", "p99_us"),
        ("others", "others_cores"),
    ],
    plots: &["messages_per_s", "cpu_us_per_message_node", "p99_us"],
};

const MESH_SPREAD: Sweep = Sweep {
    name: "mesh-spread",
    title: "Messages across the mesh, on all cores",
    about: "the same, the nodes on all cores, which they share with the generator",
    points: &[2, 3, 5],
    point: |nodes| {
        let load = format!(
            "saturate --clients {nodes} --senders 1 --sender-node 1 --inflight 2000 --secs 5 --warmup 2"
        );
        Point::Spread(nodes, load)
    },
    plots: &[],
    ..MESH
};

/// The names of all of these, for `--only`.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    SWEEPS
        .iter()
        .chain([&MESH, &MESH_SPREAD])
        .map(|sweep| sweep.name)
}

fn sweeps() -> impl Iterator<Item = &'static Sweep> {
    [&MESH, &MESH_SPREAD].into_iter().chain(SWEEPS)
}

/// Measures the tables that are wanted: those of the mesh, of growth, or all.
///
/// # Errors
/// The results cannot be written.
pub(crate) fn measure(runner: &mut Runner, what: &str) -> Result<()> {
    let of_it = |sweep: &&Sweep| what == "all" || sweep.name.starts_with(what);
    sweeps()
        .filter(of_it)
        .try_for_each(|sweep| sweep.run(runner))
}

/// All tables for which there are measurements, as Markdown; the plots are written beside.
///
/// # Errors
/// The plots cannot be written.
pub(crate) fn tables(rows: &[Row]) -> Result<String> {
    let mut text = String::new();
    for sweep in sweeps() {
        let name = format!("{} ", sweep.name);
        let of = |row: &&Row| row.scenario.starts_with(&name);
        let rows: Vec<Row> = rows.iter().filter(of).cloned().collect();
        let x = |row: &Row| row.figure("x").map(|x| x as usize);
        let points: BTreeSet<usize> = rows.iter().filter_map(x).collect();
        let points: Vec<usize> = points.into_iter().collect();
        if !points.is_empty() {
            sweep.draw(&rows, &points)?;
            text.push_str(&sweep.table(&rows, &points));
        }
    }
    Ok(text)
}

impl Sweep {
    fn run(&self, runner: &mut Runner) -> Result<()> {
        if !runner.wants(self.name) {
            return Ok(());
        }
        say_about(self);
        forget(self.name)?;
        let mut points: Vec<usize> = self.points.to_vec();
        if self.x == "clients" {
            points
                .iter_mut()
                .for_each(|point| *point = (*point).min(runner.clients_max));
            points.dedup();
        }
        if runner.quick {
            points.truncate(3);
        }
        let (field, name) = (self.columns[0].1, self.columns[0].0);
        for rep in 1..=runner.growth_reps {
            for x in &points {
                for peer in self.peers {
                    if runner.has(peer) {
                        let measured = point(runner, peer, (self.point)(*x), *x);
                        let scenario = format!("{} {x}", self.name);
                        let metric = Metric { field, name };
                        runner.keep(&scenario, peer, rep, measured, metric)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn table(&self, rows: &[Row], points: &[usize]) -> String {
        let mut text = format!(
            "\n## {}\n\n{}.\n\n| {} | peer |",
            self.title, self.about, self.x
        );
        let talks = self.columns.iter().any(|(_, field)| *field == "p50_us");
        for (name, _) in self.columns {
            put(&mut text, format_args!(" {name} |"));
        }
        text.push_str(if talks {
            " faults |\n| --- | --- | --- |"
        } else {
            "\n| --- | --- |"
        });
        text.push_str(&" --- |".repeat(self.columns.len()));
        for x in points {
            for peer in self.peers {
                let of = at(rows, peer, *x);
                if of.is_empty() {
                    continue;
                }
                put(&mut text, format_args!("\n| {x} | {peer} |"));
                for (_, field) in self.columns {
                    put(&mut text, format_args!(" {} |", cell(&of, field)));
                }
                if talks {
                    put(&mut text, format_args!(" {} |", faults(&of)));
                }
            }
        }
        text.push_str("\n\n");
        for field in self.plots {
            let file = self.file(field);
            put(
                &mut text,
                format_args!("![{}: {}](PLOTS/{file})\n", self.title, self.label(field)),
            );
        }
        text
    }

    fn file(&self, field: &str) -> String {
        format!("{}-{}.svg", self.name, field.replace('_', "-"))
    }

    fn label(&self, field: &str) -> String {
        let name = self
            .columns
            .iter()
            .find(|(_, of)| *of == field)
            .map_or(field, |(name, _)| name);
        let unit = match field {
            "rss_bytes" => ", MiB",
            "p50_us" | "p99_us" => ", ms",
            _ if field.ends_with("_ms") => ", ms",
            _ if field.contains("_us_") => ", µs",
            _ => "",
        };
        format!("{name}{unit}")
    }

    fn draw(&self, rows: &[Row], points: &[usize]) -> Result<()> {
        for field in self.plots {
            let scale = match *field {
                "rss_bytes" => 1_048_576.0,
                "p50_us" | "p99_us" => 1e3,
                _ => 1.0,
            };
            let line = |peer: &&str| Line {
                name: (*peer).to_owned(),
                points: points
                    .iter()
                    .filter_map(|x| {
                        let values: Vec<_> = at(rows, peer, *x)
                            .iter()
                            .filter_map(|row| row.figure(field))
                            .collect();
                        // A logarithmic axis has no 0: what began with nothing stands at 1.
                        Some((
                            (*x).max(1) as f64,
                            crate::report::spread(&values)?.0 / scale,
                        ))
                    })
                    .collect(),
            };
            let lines: Vec<Line> = self
                .peers
                .iter()
                .map(line)
                .filter(|line| !line.points.is_empty())
                .collect();
            let (title, y) = (
                format!("{}: {}", self.title, self.label(field)),
                self.label(field),
            );
            let plot = Plot {
                title: &title,
                x: self.x,
                y: &y,
                lines: &lines,
            };
            fs::write(folder().join(self.file(field)), plot.svg())?;
        }
        Ok(())
    }
}

fn say_about(sweep: &Sweep) {
    crate::say(format_args!("{}: {}", sweep.name, sweep.about));
}

fn at<'a>(rows: &'a [Row], peer: &str, x: usize) -> Vec<&'a Row> {
    let of = rows
        .iter()
        .filter(|row| row.peer == peer && row.figure("x") == Some(x as f64));
    of.collect()
}

fn point(runner: &Runner, peer: &str, point: Point, x: usize) -> Result<Value> {
    let mut figures = match point {
        Point::Load(nodes, fill, load) => {
            let servers = Servers::start(peer, nodes)?;
            said(runner, &servers, fill)?;
            loaded(runner, &servers, nodes, &load)?
        }
        Point::Spread(nodes, load) => loaded(runner, &Servers::spread(nodes)?, nodes, &load)?,
        Point::Join(held) => {
            let mut servers = Servers::mesh(1)?;
            said(runner, &servers, held)?;
            let begun = now();
            servers.add_chatnode()?;
            let ready = now() - begun;
            let same = await_same(&servers)? - begun;
            json!({ "ready_ms": ready as f64 / 1e6, "same_ms": same as f64 / 1e6 })
        }
        Point::Freeze(missed) => {
            let servers = Servers::mesh(2)?;
            await_same(&servers)?;
            let stopped = now();
            servers.signal_last(Signal::STOP)?;
            said(runner, &servers, missed)?;
            let begun = now();
            servers.signal_last(Signal::CONT)?;
            let same = await_same(&servers)? - begun;
            json!({ "same_ms": same as f64 / 1e6, "stood_ms": (begun - stopped) as f64 / 1e6 })
        }
    };
    figures["x"] = json!(x);
    Ok(figures)
}

fn loaded(runner: &Runner, servers: &Servers, nodes: usize, load: &str) -> Result<Value> {
    let args: Vec<String> = load.split(' ').map(str::to_owned).collect();
    let mut figures = runner.load(servers, &args)?;
    if let Some(micros) = figures["cpu_us_per_message"].as_f64() {
        figures["cpu_us_per_message_node"] = json!(micros / nodes as f64);
    }
    Ok(figures)
}

/// Has so many messages said on the first node.
fn said(runner: &Runner, servers: &Servers, count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    // In the room in which the clients of the protocol will be.
    let args = [
        "fill",
        "--clients",
        "1",
        "--senders",
        "1",
        "--count",
        &count.to_string(),
    ]
    .map(str::to_owned);
    let first = servers.first();
    let figures = runner.load(&first, &args)?;
    ensure!(
        figures["lost"] == 0,
        "of {count} messages {} were lost",
        figures["lost"]
    );
    Ok(())
}

/// Waits until both nodes have the same; when that was seen.
fn await_same(servers: &Servers) -> Result<u64> {
    let same = eventually(SAME_WITHIN, || {
        let first = servers.position(0)?;
        (servers.position(1)? == first).then(now)
    });
    same.context("two nodes did not come to have the same within two minutes")
}
