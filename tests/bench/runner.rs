//! Runs measurements: fresh servers, one load generator, one line of `results.jsonl` each.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{SECOND, now};
use crate::options::Options;
use crate::scenarios::{ENGINES, Metric, PEERS, Scenario, scenarios};
use crate::servers::{Servers, folder, prepare};
use crate::{LOAD_CORE, say};

/// File descriptors that a server wants beside its clients' (chatnode keeps 384 for others).
const FILES_BESIDE: usize = 400;

/// Repetitions of what comes near to its bar.
const REPS_CLOSE: usize = 7;

/// The most clients of any measurement.
const CLIENTS_MAX: usize = 20_000;

/// One measurement, which is a line of the results.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) peer: String,
    pub(crate) rep: usize,
    /// Shortened by `--quick`.
    #[serde(default)]
    pub(crate) quick: bool,
    /// The last change of the programs that were measured.
    #[serde(default)]
    pub(crate) commit: String,
    pub(crate) figures: Value,
}

impl Row {
    /// A figure of it.
    pub(crate) fn figure(&self, field: &str) -> Option<f64> {
        self.figures[field].as_f64()
    }
}

/// What a person asked for, and what is there to do it with.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) reps: usize,
    /// Repetitions of each point of a growth table.
    pub(crate) growth_reps: usize,
    pub(crate) quick: bool,
    commit: String,
    only: Option<Vec<String>>,
    peers: Option<Vec<String>>,
    /// Whether a peer can be had, once it was tried.
    there: BTreeMap<String, bool>,
    /// What was left out, and why.
    pub(crate) skipped: Vec<String>,
    /// Highest number of clients that the limit of open files allows.
    pub(crate) clients_max: usize,
}

impl Runner {
    /// By the command line.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let quick = options.flag("quick");
        let only = options.list("only");
        for name in only.iter().flatten() {
            let names = || {
                scenarios()
                    .map(|scenario| scenario.name)
                    .chain(crate::growth::names())
            };
            ensure!(
                names().any(|known| known == name),
                "--only {name}: there are {}",
                names().collect::<Vec<_>>().join(", ")
            );
        }
        let peers = options.list("peers");
        for name in peers.iter().flatten() {
            ensure!(
                PEERS.contains(&name.as_str()),
                "--peers {name}: there are {}",
                PEERS.join(", ")
            );
        }
        fs::create_dir_all(folder())?;
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let files = files.map_or(usize::MAX, |files| {
            usize::try_from(files).unwrap_or(usize::MAX)
        });
        let clients_max = files.saturating_sub(FILES_BESIDE);
        let mut skipped = Vec::new();
        if clients_max < CLIENTS_MAX {
            skipped.push(format!("`ulimit -n` is {files}: at most {clients_max} clients, where {CLIENTS_MAX} are wanted"));
        }
        skipped.iter().for_each(say);
        Ok(Self {
            reps: options
                .number("reps")?
                .unwrap_or(if quick { 1 } else { 3 })
                .max(1),
            growth_reps: options.number("growth-reps")?.unwrap_or(1).max(1),
            quick,
            commit: crate::about::commit(),
            only,
            peers,
            there: BTreeMap::new(),
            skipped,
            clients_max,
        })
    }

    /// Whether a choice was made with `--only`.
    pub(crate) fn chooses(&self) -> bool {
        self.only.is_some()
    }

    /// Whether this scenario or growth table is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.iter().any(|wanted| wanted == name))
    }

    /// Whether this peer is wanted and can be had; says once if it cannot.
    pub(crate) fn has(&mut self, peer: &str) -> bool {
        if self
            .peers
            .as_ref()
            .is_some_and(|peers| !peers.iter().any(|wanted| wanted == peer))
        {
            return false;
        }
        if let Some(there) = self.there.get(peer) {
            return *there;
        }
        let prepared = prepare(peer);
        if let Err(error) = &prepared {
            self.skip(format!("{peer} is left out: {error:#}"));
        }
        self.there.insert(peer.to_owned(), prepared.is_ok());
        prepared.is_ok()
    }

    /// Says that something is left out, now and in the report.
    pub(crate) fn skip(&mut self, what: String) {
        say(&what);
        self.skipped.push(what);
    }

    /// Measures the scenarios that are wanted: those beside other servers, those with engines, or all.
    /// Repetitions are interleaved over the peers.
    pub(crate) fn scenarios(&mut self, what: &str) -> Result<()> {
        for scenario in scenarios() {
            let with_engine = ENGINES.iter().any(|it| it.name == scenario.name);
            let of_it = what == "all" || with_engine == (what == "engines");
            if !of_it || !self.wants(scenario.name) {
                continue;
            }
            forget(scenario.name)?;
            let mut rows = Vec::new();
            say(format_args!("{}: {}", scenario.name, scenario.about));
            for rep in 1..=self.reps.max(REPS_CLOSE) {
                let enough = self.quick || !crate::report::is_close(scenario, &rows);
                if rep > self.reps && enough {
                    break;
                }
                for peer in scenario.peers {
                    if self.has(peer) {
                        rows.extend(self.one(scenario, peer, rep)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, scenario: &Scenario, peer: &str, rep: usize) -> Result<Option<Row>> {
        let one_node = peer.starts_with("floor") || peer == "uws";
        let nodes = if one_node { 1 } else { scenario.nodes };
        let args: Vec<String> = scenario.load.split(' ').map(str::to_owned).collect();
        let measured = Servers::start(peer, nodes).and_then(|servers| self.load(&servers, &args));
        self.keep(scenario.name, peer, rep, measured, scenario.metric)
    }

    /// Writes a measurement down and tells it; one that failed is left out, and that is told too.
    pub(crate) fn keep(
        &mut self,
        scenario: &str,
        peer: &str,
        rep: usize,
        measured: Result<Value>,
        metric: Metric,
    ) -> Result<Option<Row>> {
        let figures = match measured {
            Ok(figures) => figures,
            Err(error) => {
                self.skip(format!("{scenario} rep {rep} {peer} failed: {error:#}"));
                return Ok(None);
            }
        };
        let row = Row {
            scenario: scenario.to_owned(),
            peer: peer.to_owned(),
            rep,
            quick: self.quick,
            commit: self.commit.clone(),
            figures,
        };
        let mut file = OpenOptions::new().create(true).append(true).open(file())?;
        writeln!(file, "{}", serde_json::to_string(&row)?)?;
        let value = row.figure(metric.0).unwrap_or(f64::NAN);
        let mut notes = match crate::report::faults(&[&row]) {
            none if none == "none" => String::new(),
            some => format!(", {some}"),
        };
        if row.figures["saturated"] == true {
            notes += ", the generator was at its limit";
        }
        if let Some(others) = row.figure("others_cores") {
            notes += &format!(" (others took {others:.2} cores)");
        }
        say(format_args!(
            "  {scenario} #{rep} {peer}: {} {}{notes}",
            metric.1,
            crate::report::shown(metric.0, value),
        ));
        Ok(Some(row))
    }

    /// Runs the load generator on these servers.
    pub(crate) fn load(&self, servers: &Servers, args: &[String]) -> Result<Value> {
        let mut args = args.to_vec();
        if self.quick {
            shorten(&mut args);
        }
        limit(&mut args, self.clients_max);
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("load")
            .args(&args)
            .args(["--core", &LOAD_CORE.to_string()]);
        command.args(["--proto", servers.protocol]);
        for url in &servers.urls {
            command.args(["--url", url]);
        }
        for pid in &servers.pids {
            command.args(["--pid", &pid.to_string()]);
        }
        let begun = now();
        let output = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        let lasted = (now() - begun) / SECOND;
        ensure!(
            output.status.success(),
            "after {lasted} s: {}",
            told.trim().trim_start_matches("bench: ")
        );
        let figures = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&figures).with_context(|| format!("the generator printed {figures}"))
    }
}

/// Where each measurement is a line.
fn file() -> PathBuf {
    folder().join("results.jsonl")
}

/// All measurements that were kept.
pub(crate) fn results() -> Result<Vec<Row>> {
    let text = fs::read_to_string(file()).unwrap_or_default();
    let rows = text.lines().map(serde_json::from_str);
    let rows = rows.collect::<Result<_, _>>();
    rows.with_context(|| format!("{} holds something else", file().display()))
}

/// Forgets what was measured of a scenario, or of all points of a growth table, before.
pub(crate) fn forget(name: &str) -> Result<()> {
    let text = fs::read_to_string(file()).unwrap_or_default();
    let (exactly, point) = (
        format!("\"scenario\":\"{name}\""),
        format!("\"scenario\":\"{name} "),
    );
    let others = text
        .lines()
        .filter(|line| !line.contains(&exactly) && !line.contains(&point));
    let text: String = others.flat_map(|line| [line, "\n"]).collect();
    Ok(fs::write(file(), text)?)
}

/// Fewer clients if the limit of open files asks for it.
fn limit(args: &mut [String], most: usize) {
    if let Some(place) = args.iter().position(|arg| arg == "--clients") {
        let asked: usize = args[place + 1].parse().unwrap_or(0);
        if asked > most {
            say(format_args!(
                "  ulimit -n allows {most} clients, not {asked}"
            ));
            args[place + 1] = most.to_string();
        }
    }
}

/// For `--quick`: 2 s after 1 s.
fn shorten(args: &mut [String]) {
    for (name, most) in [("--secs", "2"), ("--warmup", "1"), ("--hold", "1")] {
        if let Some(place) = args.iter().position(|arg| arg == name) {
            most.clone_into(&mut args[place + 1]);
        }
    }
}
