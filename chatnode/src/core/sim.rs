//! A seeded simulator of a whole mesh: replicas, the network between them, clients, and faults.
//!
//! One seed decides everything: how many nodes, what the network does to each frame, who crashes,
//! freezes, is cut off, whose clock jumps, what clients say and where they move. Faults last some
//! seconds. Then the network is whole, and within [`phases::CONVERGE_MAX`] all nodes must hold and
//! show the same; then clients talk again, and all must go as quickly as if nothing had been; at
//! the end every promise is judged ([`check`]). What can be judged at once is judged at once: each
//! deed of a node ([`judge`]), each thing that a client sees ([`witness`]), and what holds at every
//! moment ([`watch`]).
//!
//! Each node is the program's core and its clients, as the shell has them ([`program`]). Clients write bytes
//! of `chat.v1` into pipes in memory ([`conns`]), and are judged by the bytes that they read ([`hears`]); some
//! read little, or nothing for a while. The simulator plays all the rest: it carries the outputs out, loses
//! frames where a PUB socket would, brings requests to peers, writes and reads disks. It is itself tested: it
//! must see each of the deliberate bugs of [`super::rules`] and of [`crate::clients::rules`] ([`bugs`]).
//!
//! `SEEDS=8000` runs so many, `FIRST=2000` begins there, `SEED=42` runs that one alone and tells
//! its story; `MUTANT=LaterShown` does any of these with that bug.

mod aged;
mod bugs;
mod bytes;
mod check;
mod clients;
mod conns;
mod disk;
mod effects;
mod exempt;
mod faults;
mod fetches;
mod giving_up;
mod halls;
mod hears;
mod judge;
mod ledger;
mod net;
mod nodes;
mod phases;
mod plan;
mod program;
mod questions;
mod registries;
mod retention;
mod stopped;
mod wants;
mod watch;
mod witness;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use self::world::World;

/// Seeds of a plain run, over all its parts.
const SEEDS: u64 = 2000;
/// A plain run has so many parts, each a test of its own, so that two cores have to do.
const PARTS: u64 = 4;
/// Seeds of worlds that are in two for a minute.
const SEEDS_DIVIDED: u64 = 3;
/// Seeds of worlds that last longer than a mid is remembered.
const SEEDS_AGED: u64 = 24;
/// Seeds of worlds in which a node is stopped in a burst.
const SEEDS_STOPPED: u64 = 40;

/// What must have happened somewhere in each part of a plain run: each fault, and each way back.
const SOMETIMES: &[&str] = &[
    "fault: frame lost",
    "fault: frame doubled",
    "fault: frame overtaken",
    "fault: frame dropped in a burst",
    "fault: partition",
    "fault: one-way cut",
    "fault: slow joiner",
    "fault: link reset",
    "fault: link silent",
    "fault: crash",
    "fault: restart",
    "fault: freeze",
    "fault: overload",
    "fault: clock skew",
    "fault: clock jump",
    "fault: registries silent",
    "fault: registries away",
    "fault: registries came back empty",
    "hello refused",
    "another node answered",
    "unlisted though alive",
    "fault: fetch failed",
    "fault: fetch timed out",
    "fault: fetch refused",
    "fault: fetch not answered",
    "fault: fetch answered slowly",
    "fault: fetch answered too late",
    "fault: foreign page",
    "fault: client lost its node",
    "fault: slow client",
    "client closed as slow",
    "fault: full disk",
    "fault: slow disk",
    "fault: disk broken",
    "disk full",
    "disk trimmed",
    "lost with the disk",
    "died with a batch written",
    "group commit",
    "read for a client",
    "restarted with its history",
    "restarted with holes",
    "restarted with trimmed logs",
    "gap found",
    "repaired from the origin",
    "repaired from another node",
    "dead origin's entry fetched",
    "hole passed",
    "hole passed that a failing peer may have",
    "hole filled",
    "tail loss noticed",
    "mid repeated here",
    "mid repeated elsewhere",
    "copies answered",
    "copies timed out",
    "resume with replay",
    "resume with ahead filter",
    "watch with replay",
    "others asked for what a client has seen",
    "mids wanted",
    "a stop noticed",
    "resume told recovered:false",
    "members snapshot",
    "ready with all",
    "ready after 5 s",
    "log trimmed",
    "joined behind a trimmed front",
];

/// How often things happened.
#[derive(Debug, Default)]
struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    fn note(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    fn add(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.0.entry(what).or_default() += times;
        }
    }
}

/// What is told of a run that broke no promise.
#[derive(Debug, Default)]
struct Outcome {
    counters: Counters,
    /// How long after the last fault everything had converged.
    converged: Duration,
    /// How long after a long partition what the other half had said was there.
    caught_up: Option<Duration>,
    /// The longest that an entry of the own half took meanwhile.
    live_latency: Duration,
    /// The most requests for entries that one node had under way.
    fetches_most: usize,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a person replays a seed without rebuilding"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    variable(name)?.parse().ok()
}

/// Runs a world to its end.
fn run(mut world: World) -> Outcome {
    world.run();
    check::all(&mut world);
    world.count_passed();
    world.outcome
}

/// Runs one seed alone, if a person asks for that.
fn replayed(world: fn(u64, bool) -> World) -> bool {
    let Some(seed) = number("SEED") else {
        return false;
    };
    println!("{:#?}", run(world(seed, true)));
    true
}

/// Runs seeds, and says which failed.
fn campaign(name: &str, seeds: std::ops::Range<u64>, world: fn(u64, bool) -> World) -> Counters {
    let mut total = Counters::default();
    let mut converged = Vec::new();
    let mut failed = Vec::new();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(world(seed, false)))) {
            Ok(outcome) => {
                for (what, times) in outcome.counters.0 {
                    total.add(what, times);
                }
                converged.push(outcome.converged);
                if let Some(caught_up) = outcome.caught_up {
                    println!(
                        "SEED={seed}: caught up within {caught_up:?} by {} requests at a time, \
                         others' entries within {:?}",
                        outcome.fetches_most, outcome.live_latency
                    );
                }
            }
            Err(_) => {
                println!("failed: SEED={seed} cargo test -p chatnode --lib {name} -- --nocapture");
                failed.push(seed);
            }
        }
    }
    converged.sort();
    let at = |percent: usize| converged.get(converged.len() * percent / 100);
    println!("{count} seeds: {:#?}", total.0);
    println!(
        "converged within: half {:?}, 99 in 100 {:?}, all {:?}",
        at(50),
        at(99),
        converged.last()
    );
    assert!(
        failed.is_empty(),
        "{} of {count} seeds failed: {failed:?}",
        failed.len()
    );
    total
}

/// One of the parts of the campaign over the usual worlds.
fn part(index: u64) {
    bugs::choose_named(variable("MUTANT").as_deref());
    if number("SEED").is_some() {
        if index == 0 {
            replayed(World::usual);
        }
        return;
    }
    let each = number("SEEDS").unwrap_or(SEEDS).div_ceil(PARTS);
    let first = number("FIRST").unwrap_or(0) + index * each;
    let name = "promises_hold_under_every_schedule";
    let total = campaign(name, first..first + each, World::usual);
    if each >= SEEDS / PARTS {
        let never = SOMETIMES.iter().filter(|what| !total.0.contains_key(*what));
        let never: Vec<_> = never.collect();
        assert!(never.is_empty(), "never happened: {never:?}");
    }
}

/// Goal: the promises hold, whatever happens in whatever order. Method: many seeds, in four parts.
#[test]
fn promises_hold_under_every_schedule_1() {
    part(0);
}

/// Goal: after a minute in two halves, while much was said in both, repair is bounded and delays
/// nobody: few requests at a time, and what the own half says goes on being brought at once.
/// Method: worlds with that one fault; a node's thread and wire take their time in them.
#[test]
fn a_minute_in_two_halves_is_repaired_while_all_talk_on() {
    if replayed(World::divided) {
        return;
    }
    let first = number("FIRST").unwrap_or(0);
    let name = "a_minute_in_two_halves_is_repaired_while_all_talk_on";
    let total = campaign(name, first..first + SEEDS_DIVIDED, World::divided);
    assert!(total.0.contains_key("fault: long partition"));
}

/// Goal: what was said and shown elsewhere while a node was stopped is not said or shown by it again,
/// however much it was. Method: worlds with that one fault, and a burst of some hundred messages.
#[test]
fn a_node_that_was_stopped_in_a_burst_shows_nothing_twice() {
    bugs::choose_named(variable("MUTANT").as_deref());
    if replayed(World::stopped) {
        return;
    }
    let first = number("FIRST").unwrap_or(0);
    let name = "a_node_that_was_stopped_in_a_burst_shows_nothing_twice";
    let total = campaign(name, first..first + SEEDS_STOPPED, World::stopped);
    assert!(total.0.contains_key("fault: stopped in a burst"));
}

/// Goal: a retry is the same message for as long as the README says, and no longer. Method: worlds that
/// last for more than five minutes, nearly all of that idle, with retries shortly before the limit and
/// shortly after it, of what is kept and of what was trimmed.
#[test]
fn a_mid_is_remembered_as_long_as_is_promised() {
    bugs::choose_named(variable("MUTANT").as_deref());
    if replayed(World::aged) {
        return;
    }
    let first = number("FIRST").unwrap_or(0);
    let name = "a_mid_is_remembered_as_long_as_is_promised";
    let total = campaign(name, first..first + SEEDS_AGED, World::aged);
    for what in [
        "mid repeated shortly before it is forgotten",
        "mid repeated that is kept for longer",
        "mid said again as another message",
    ] {
        assert!(total.0.contains_key(what), "never happened: {what}");
    }
}

/// As the first part.
#[test]
fn promises_hold_under_every_schedule_2() {
    part(1);
}

/// As the first part.
#[test]
fn promises_hold_under_every_schedule_3() {
    part(2);
}

/// As the first part.
#[test]
fn promises_hold_under_every_schedule_4() {
    part(3);
}
