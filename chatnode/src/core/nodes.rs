//! Where other nodes are for clients: those that take clients now, and all that were ever seen.

use std::collections::VecDeque;

/// Nodes whose pages are remembered at the most; the oldest is forgotten first.
const NODES_SEEN_MAX: usize = 1024;

/// HTTP endpoints of nodes.
#[derive(Debug)]
pub(super) struct Nodes {
    live: Vec<String>,
    seen: VecDeque<String>,
}

impl Nodes {
    /// Only this node is known.
    pub(super) fn new(me: &str) -> Self {
        Self {
            live: vec![me.to_owned()],
            seen: VecDeque::from([me.to_owned()]),
        }
    }

    /// Those that take clients, this one first.
    pub(super) fn live(&self) -> &[String] {
        &self.live
    }

    /// Those that were ever seen alive.
    pub(super) fn seen(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().map(String::as_str)
    }

    /// These take clients now, besides this one. Whether that is new.
    pub(super) fn update(&mut self, mut others: Vec<String>) -> bool {
        others.sort();
        others.dedup();
        if self.live[1..] == others {
            return false;
        }
        self.live.truncate(1);
        self.live.extend(others);
        for node in self.live.clone() {
            self.remember(&node);
        }
        true
    }

    /// Notes where a node is: a page that it has served goes on at another when it is dead.
    pub(super) fn remember(&mut self, node: &str) {
        if !self.seen.iter().any(|seen| seen == node) {
            if self.seen.len() >= NODES_SEEN_MAX {
                self.seen.pop_front();
            }
            self.seen.push_back(node.to_owned());
        }
    }
}
