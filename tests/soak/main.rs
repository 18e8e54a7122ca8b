//! The long soak: a registry, some nodes, if wanted a broker that they meet at, people who talk and read without end, and faults of
//! all kinds that need no root, at random, for as many minutes as one likes. `scripts/soak` runs it.
//!
//! It goes in rounds of half a minute. Each has a room and people of its own; at its end the faults
//! and the people pause, and all promises are checked on all that was sent and shown in it. What it
//! does at random follows from a seed, which it prints: `SEED=` does the same faults again, in the
//! same order, on the same nodes.

#[path = "../e2e/harness/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the harness of the end-to-end tests: the soak needs most of it, and not all"
)]
mod harness;

mod brokers;
mod deck;
mod faults;
mod fleet;
mod options;
mod report;
mod slopes;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Duration, Instant, interval};

use deck::Plan;
use faults::Lanes;
use fleet::Fleet;
use harness::process::target;
use harness::roamer::{Habits, Pace, Roamer, Ways};
use harness::{Attempt, Expect, Recorder, say, secs, seed};
use options::Options;
use report::Report;

/// How long a round sends before it is checked: a room of it must fit into what nodes retain.
const ROUND: Duration = secs(30);
/// How often a line tells how it goes.
const TELL_EVERY: Duration = secs(10);
/// How often memory and descriptors are read.
const SAMPLE_EVERY: Duration = secs(5);
/// After the faults of a round everybody has an answer within this time, whatever they met.
const ANSWERED_WITHIN: Duration = secs(60);
/// And all nodes keep the same.
const SAME_WITHIN: Duration = secs(30);
/// People in a round who talk, and who only read.
const TALKERS: u32 = 6;
const READERS: u32 = 2;

fn main() -> ExitCode {
    let options = match Options::of(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            say!("{}", why);
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let report = match runtime {
        Ok(runtime) => runtime.block_on(soak(&options)),
        Err(error) => Err(error.into()),
    };
    match report {
        Ok(report) if report.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say!("the soak itself failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(options: &Options) -> Result<Report> {
    let seed = seed();
    let logs = target()?.join(format!("e2e-logs/{}-", std::process::id()));
    let mut rng = StdRng::seed_from_u64(seed);
    let fleet = Fleet::start(options).await?;
    let mut plan = Plan::new(seed);
    let report = Report::new(options.nodes);
    let ends = Instant::now() + options.lasts;
    while Instant::now() < ends && report.is_good() {
        let any = rng.random_range(200..=1000);
        let rate = options.rate.unwrap_or(any);
        let until = ends.min(Instant::now() + ROUND);
        let round = Box::pin(round(&fleet, &mut plan, &report, rate, until));
        if let Err(error) = round.await {
            report.broken(format!("{error:#}"));
        }
    }
    drop(fleet);
    report.print();
    if report.is_good() {
        forget(&logs)?;
    } else {
        say!("SEED={seed} does the same again; logs: {}*", logs.display());
    }
    Ok(report)
}

/// Removes the logs of a soak of which nothing is to be asked.
fn forget(logs: &std::path::Path) -> Result<()> {
    let (folder, start) = (logs.parent(), logs.file_name());
    let folder = folder.context("logs lie in a folder")?;
    let start = start.context("logs have names")?.to_string_lossy();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&*start) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// One round: people in a new room, faults until it is time, and the check.
async fn round(
    fleet: &Fleet,
    plan: &mut Plan,
    report: &Report,
    rate: u32,
    until: Instant,
) -> Result<()> {
    let recorder = Recorder::new();
    let room = format!("round{}", report.rounds());
    let mut people = Vec::new();
    for count in 0..TALKERS + READERS {
        let habits = Habits {
            watches: None,
            room: room.clone(),
            pace: if count < TALKERS {
                Pace::Steady((rate / TALKERS).max(1))
            } else {
                Pace::Silent
            },
            // Every other one asks that what it says is kept whatever happens.
            copies: count % 2,
            bytes: 100,
        };
        let name = format!("person{count}");
        people.push(
            Roamer::start_at(&recorder, Ways::Nodes(fleet.endpoints()), &name, habits).await?,
        );
    }
    say!("{room}: {rate} messages a second");
    let lanes = Lanes {
        fleet,
        recorder: &recorder,
        room: &room,
        people: &people,
        report,
        until,
    };
    tokio::select! {
        done = lanes.run(plan) => done?,
        () = tell(fleet, &people, report) => {}
    }
    let nodes = fleet.take_all()?;
    let here = &nodes.first().context("a fleet has nodes")?.http;
    Roamer::rest(&mut people, &recorder, here, &room, ANSWERED_WITHIN).await?;
    people
        .iter()
        .for_each(|person| report.moved(&person.moves()));
    let expect = Expect {
        within: SAME_WITHIN,
        trimmed: true,
        ..Expect::default()
    };
    let checked = recorder.judge(&nodes, &room, expect).await?;
    fleet.put_all(nodes);
    let attempts = recorder.attempts(&room);
    // Those of a burst wait for each other.
    let accepted = attempts
        .iter()
        .filter(|attempt| attempt.sent().is_some() && attempt.from.starts_with("person"));
    report.checked(&checked, accepted.map(Attempt::delay));
    let readers = checked.verdict.to_the_end;
    ensure!(readers == people.len(), "{readers} people read to the end");
    Ok(())
}

/// Tells how it goes, and takes samples, without end.
async fn tell(fleet: &Fleet, people: &[Roamer], report: &Report) {
    let mut lines = interval(TELL_EVERY);
    let mut samples = interval(SAMPLE_EVERY);
    lines.tick().await;
    loop {
        tokio::select! {
            _ = lines.tick() => {
                let answered: usize = people.iter().map(Roamer::answered).sum();
                report.tell(answered, fleet);
            }
            _ = samples.tick() => report.sample(fleet).await,
        }
    }
}
