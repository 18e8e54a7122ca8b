//! How cost grows: with clients, rooms, nodes, the size of messages and history; what the mesh and
//! its links cost; how long joining and repair take.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clock::{SECOND, eventually, now};
use crate::links;
use crate::plot::{Line, Plot};
use crate::report::{cell, faults};
use crate::runner::{Row, Runner, forget};
use crate::scenarios::Metric;
use crate::servers::{Servers, folder};
use crate::sweeps::{Point, Sweep, sweeps};

/// How long a node may take to have what the other has.
const SAME_WITHIN: u64 = 120 * SECOND;

/// The names of all of these, for `--only`.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    sweeps().map(|sweep| sweep.name)
}

/// Measures the tables that are wanted: those of the mesh, of its links, of growth, or all.
pub(crate) fn measure(runner: &mut Runner, what: &str) -> Result<()> {
    let of_it = |sweep: &&Sweep| what == "all" || sweep.name.starts_with(what);
    sweeps()
        .filter(of_it)
        .try_for_each(|sweep| sweep.run(runner))
}

/// All tables for which there are measurements, as Markdown; the plots are written beside.
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
        let (name, field) = self.columns[0];
        for rep in 1..=runner.growth_reps {
            for x in &points {
                for peer in self.peers {
                    if runner.has(peer) {
                        let measured = point(runner, peer, (self.point)(*x), *x);
                        let scenario = format!("{} {x}", self.name);
                        runner.keep(&scenario, peer, rep, measured, Metric(field, name))?;
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
            text += &format!(" {name} |");
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
                text += &format!("\n| {x} | {peer} |");
                for (_, field) in self.columns {
                    text += &format!(" {} |", cell(&of, field));
                }
                if talks {
                    text += &format!(" {} |", faults(&of));
                }
            }
        }
        text += &format!("\n\n{}\n\n", self.why);
        for field in self.plots {
            let file = self.file(field);
            text += &format!("![{}: {}](PLOTS/{file})\n", self.title, self.label(field));
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
        Point::Spread(nodes, load) => loaded(runner, &Servers::spread(peer, nodes)?, nodes, &load)?,
        Point::Join(held) => {
            let mut servers = Servers::mesh(peer, 1)?;
            said(runner, &servers, held)?;
            let begun = now();
            servers.add_chatnode()?;
            let ready = now() - begun;
            let same = await_same(&servers)? - begun;
            json!({ "ready_ms": ready as f64 / 1e6, "same_ms": same as f64 / 1e6 })
        }
        Point::Links(count) => links::held(peer, count)?,
        Point::Peers(count) => links::joined(peer, count)?,
        Point::Stopped(seconds) => links::stopped(runner, peer, seconds)?,
        Point::Freeze(missed) => {
            let servers = Servers::mesh(peer, 2)?;
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
    let first = servers.first(1);
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
