//! The simulator is tested in its turn: it must see each deliberate bug.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::world::World;
use super::{number, run};
use crate::clients::rules as clients;
use crate::core::rules::{self as core, Mutant};

/// Seeds that a bug may hide from, one after the other.
const SEEDS_MAX: u64 = 300;

/// Those for which there are no worlds here, but others: see `core/tests/keeping.rs`.
const SEEN_ELSEWHERE: [Mutant; 2] = [Mutant::KeptUnconfirmed, Mutant::AcknowledgedBeforeStored];

/// A bug of one of the rooms that a node is made of.
#[derive(Clone, Copy)]
enum Bug {
    Core(Mutant),
    Clients(clients::Mutant),
}

impl Bug {
    fn all() -> Vec<Self> {
        let core = Mutant::ALL.iter().copied();
        let core = core
            .filter(|it| !SEEN_ELSEWHERE.contains(it))
            .map(Self::Core);
        let clients = clients::Mutant::ALL.iter().copied().map(Self::Clients);
        core.chain(clients).collect()
    }

    /// Worlds in which it shows soon: in most nothing is trimmed, say.
    fn world(self) -> fn(u64, bool) -> World {
        use clients::Mutant as Clients;
        match self {
            Self::Core(Mutant::StopNotNoticed | Mutant::OthersNotAsked) => World::stopped,
            Self::Core(Mutant::MidForgottenEarly | Mutant::MidKeptForEver) => World::aged,
            Self::Core(
                Mutant::TrimmedNotTold
                | Mutant::SpentOriginExcused
                | Mutant::FrontSkippedInSilence
                | Mutant::UnwrittenLetGo
                | Mutant::StartedBehindLate
                | Mutant::NoneShownInstead
                | Mutant::MidTrimmed,
            ) => World::trimming,
            Self::Core(
                Mutant::DeadOriginNotFetched
                | Mutant::OthersNotAwaited
                | Mutant::PeerNotSpared
                | Mutant::ForeignPageTaken,
            ) => World::failing,
            Self::Core(Mutant::AnyBeatProvesHall) => World::meeting,
            Self::Clients(
                Clients::SeenLineForgotten
                | Clients::LaterPatternHasNoRooms
                | Clients::OverlapHeardTwice
                | Clients::JoinedHeardTwice,
            ) => World::usual,
            Self::Clients(_) => World::slow,
            Self::Core(_) => World::usual,
        }
    }
}

impl std::fmt::Debug for Bug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Core(mutant) => mutant.fmt(f),
            Self::Clients(mutant) => mutant.fmt(f),
        }
    }
}

/// Switches a bug on, or all off, for this thread.
fn choose(bug: Option<Bug>) {
    core::choose(None);
    clients::choose(None);
    match bug {
        Some(Bug::Core(mutant)) => core::choose(Some(mutant)),
        Some(Bug::Clients(mutant)) => clients::choose(Some(mutant)),
        None => {}
    }
}

/// Switches on the bug of this name, if there is a name.
pub(super) fn choose_named(name: Option<&str>) {
    let Some(name) = name else { return };
    let mut bugs = Bug::all().into_iter();
    let bug = bugs.find(|bug| format!("{bug:?}") == name);
    choose(Some(bug.expect("there is such a bug")));
}

/// What the panic said, in one line.
fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let line = text.unwrap_or("?").lines().next().unwrap_or_default();
    line.chars().take(160).collect()
}

/// Goal: a green simulator means something. Method: each deliberate bug is switched on alone, and
/// seeds are run until one fails; without the bug that one does not.
#[test]
fn each_deliberate_bug_is_caught() {
    let first = number("FIRST").unwrap_or(0);
    let mut survived = Vec::new();
    for bug in Bug::all() {
        choose(Some(bug));
        let fails = |seed: u64| {
            let world = bug.world();
            let end = catch_unwind(AssertUnwindSafe(|| run(world(seed, false))));
            let reason = end.err().map(|panic| reason(&*panic))?;
            Some((seed, reason))
        };
        let caught = (first..first + SEEDS_MAX).find_map(fails);
        choose(None);
        match caught {
            Some((seed, reason)) if fails(seed).is_none() => {
                println!("{bug:?}: by {}: {reason}", seed - first + 1);
            }
            _ => survived.push(bug),
        }
    }
    assert!(survived.is_empty(), "not seen: {survived:?}");
}
