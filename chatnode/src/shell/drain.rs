//! Going away: clients are told and closed, and others get to hold what was said here.

use std::time::Duration;

use super::{Hub, Node};
use crate::clients::session::GOING_AWAY;
use crate::core::{Input, Now};
use crate::wire::protocol;

/// How often a stopping node looks whether it may go.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Hub {
    /// Tells clients that this node goes, and where else they may go. No longer ready.
    pub(crate) fn go_away(&self, after: Duration) {
        self.with(|node, _| {
            node.stopping = true;
            let others = node.refuges();
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            let goaway = serde_json::json!({ "nodes": others, "after_ms": after_ms });
            node.push_to_all(&protocol::push("goaway", &goaway));
        });
    }

    /// Closes all clients.
    pub(crate) fn close_clients(&self) {
        self.with(|node, now| {
            node.closing.cancel();
            for id in node.clients.share(0, 1) {
                node.close(id, &GOING_AWAY, now);
            }
        });
    }

    /// Waits until what clients have said is on the disk, `most` at the most.
    pub(crate) async fn written(&self, most: Duration) {
        let done = async {
            while self.look(|node| node.core.disk_waiting()) != (0, 0) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(most, done).await.is_err() {
            tracing::warn!("the disk did not take all that was said here");
        }
    }

    /// Waits until every peer that is heard holds all that was said here, `most` at the most.
    pub(crate) async fn handed_over(&self, most: Duration) {
        let done = async {
            // Polling is for the few milliseconds between an entry and its acknowledgement.
            while !self.with(Node::is_handed_over) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(most, done).await.is_err() {
            tracing::warn!("some peers do not hold all that was said here");
        }
    }
}

impl Node {
    /// Where clients may go: nodes that take clients, or, if none is known to, any that is heard.
    fn refuges(&self) -> Vec<String> {
        let ready = &self.core.nodes()[1..];
        if !ready.is_empty() {
            return ready.to_vec();
        }
        let heard = self.core.peers().heard().map(|(_, peer)| peer.http.clone());
        heard.filter(|http| !http.is_empty()).collect()
    }

    fn is_handed_over(&mut self, now: Now) -> bool {
        let me = self.core.identity().origin;
        let head = self.core.log(me).map_or(0, crate::core::log::Log::held);
        let holds = |held: Option<&u64>| held.is_some_and(|held| *held >= head);
        let behind = self
            .core
            .peers()
            .heard()
            .any(|(_, peer)| !holds(peer.position.get(&me)));
        if head == 0 || !behind {
            return true;
        }
        // The beat's head lets a peer notice what it lacks; its answer is its next beat or an
        // acknowledgement, which this asks for.
        self.core.handle(Input::AskAcks, now);
        false
    }
}
