//! Whom joining waits for, and for what.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::names::Origin;

/// Whom joining waits for, and for what.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// Whether a keeper holds something that this archive has not taken in yet.
    pub(super) keeper: bool,
    /// Endpoints given by hand.
    pub(super) by_hand: Vec<String>,
    /// The other nodes that the registries list, or have listed since this one began to join, and where
    /// each is.
    pub(super) listed: BTreeMap<Origin, String>,
    /// Whether every registry has been heard of.
    pub(super) is_settled: bool,
    /// Listed nodes to which there is no way: joining does not wait for them.
    pub(super) absent: BTreeSet<Origin>,
    /// Those that are to be linked, once that is known.
    pub(super) expected: Option<BTreeSet<Origin>>,
    /// What others held when all were linked; of that, when clients are taken, what is not here yet.
    pub(super) position: Option<BTreeMap<Origin, u64>>,
}
