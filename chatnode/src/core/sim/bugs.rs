//! The simulator is tested in its turn: it must see each deliberate bug.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::world::World;
use super::{number, run};
use crate::core::rules::{Mutant, choose};

/// Seeds that a bug may hide from, one after the other.
const SEEDS_MAX: u64 = 600;

/// Switches on the bug of this name, if there is a name.
pub(super) fn choose_named(name: Option<&str>) {
    let Some(name) = name else { return };
    let named = |mutant: &&Mutant| format!("{mutant:?}") == name;
    let mutant = Mutant::ALL.iter().find(named);
    choose(Some(*mutant.expect("there is such a bug")));
}

/// What the panic said, in one line.
fn reason(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let line = text.unwrap_or("?").lines().next().unwrap_or_default();
    line.chars().take(160).collect()
}

/// Goal: a green simulator means something. Method: each deliberate bug is switched on alone, and
/// seeds are run until one fails.
#[test]
fn each_deliberate_bug_is_caught() {
    let first = number("FIRST").unwrap_or(0);
    let mut survived = Vec::new();
    for &mutant in Mutant::ALL {
        choose(Some(mutant));
        let world = match mutant {
            Mutant::StopNotNoticed | Mutant::OthersNotAsked => World::stopped,
            Mutant::MidForgottenEarly | Mutant::MidKeptForEver => World::aged,
            // In most worlds nothing is trimmed.
            Mutant::TrimmedNotTold | Mutant::SpentOriginExcused => World::trimming,
            _ => World::usual,
        };
        let caught = (first..first + SEEDS_MAX).find_map(|seed| {
            let end = catch_unwind(AssertUnwindSafe(|| run(world(seed, false))));
            end.err().map(|panic| reason(&*panic))
        });
        choose(None);
        match caught {
            Some(reason) => println!("{mutant:?}: {reason}"),
            None => survived.push(mutant),
        }
    }
    assert!(survived.is_empty(), "not seen: {survived:?}");
}
