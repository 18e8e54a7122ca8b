//! Whom joining waits for, before it is known and while it changes.

use std::collections::BTreeSet;

use crate::model::names::Origin;

/// Whom joining waits for.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// Endpoints given by hand.
    pub(super) by_hand: Vec<String>,
    /// The other nodes that the registries list.
    pub(super) listed: BTreeSet<Origin>,
    /// Whether every registry has been heard of.
    pub(super) is_settled: bool,
    /// Listed nodes to which there is no way: joining does not wait for them.
    pub(super) absent: BTreeSet<Origin>,
}
