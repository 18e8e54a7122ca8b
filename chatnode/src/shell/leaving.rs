//! A node that is going away: clients are told, and others get to hold what was said here.

use std::time::Duration;

use super::{Handle, Shell};
use crate::core::log::Log;
use crate::core::{Input, Now};
use crate::wire::protocol;

/// How often a stopping node looks whether it may go.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Handle {
    /// Tells clients that this node goes, and where else they may go. No longer ready.
    pub(crate) fn go_away(&self, after: Duration) {
        self.with(|shell, _| {
            shell.stopping = true;
            let others = shell.refuges();
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            let goaway = serde_json::json!({ "nodes": others, "after_ms": after_ms });
            shell
                .clients
                .push_to_all(&protocol::push("goaway", &goaway));
        });
    }

    /// Closes all clients, those too that wait until they are taken: turns end only after that, or a
    /// close frame would stay here. Waits for them for `most` at the most.
    pub(crate) async fn close_clients(&self, most: Duration) {
        self.shared.closing.cancel();
        self.with(|shell, now| shell.clients.close_all(&mut shell.core, now));
        self.shared.coming.close();
        if tokio::time::timeout(most, self.shared.coming.wait())
            .await
            .is_err()
        {
            tracing::warn!("some clients that waited were not told");
        }
    }

    /// Waits until what clients have said is on the disk, `most` at the most.
    pub(crate) async fn written(&self, most: Duration) {
        let done = async {
            while self.look(|shell| shell.core.disk_waiting()) != (0, 0) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(most, done).await.is_err() {
            tracing::warn!("the disk did not take all that was said here");
        }
    }

    /// Waits until every peer that is heard holds all that was said here, and a keeper that is there,
    /// `most` at the most.
    pub(crate) async fn handed_over(&self, most: Duration) {
        let done = async {
            // Polling is for the few milliseconds between an entry and its acknowledgement.
            while !self.with(Shell::is_handed_over) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(most, done).await.is_err() {
            tracing::warn!("some peers, or the keeper, do not hold all that was said here");
        }
    }
}

impl Shell {
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
        let head = self.core.log(me).map_or(0, Log::held);
        let holds = |held: Option<&u64>| held.is_some_and(|held| *held >= head);
        let behind = self
            .core
            .peers()
            .heard()
            .any(|(_, peer)| !holds(peer.position.get(&me)));
        if self.core.keeper_lacks() {
            return false;
        }
        if head == 0 || !behind {
            return true;
        }
        // The beat's head lets a peer notice what it lacks; its answer is its next beat or an
        // acknowledgement, which this asks for.
        self.core.handle(Input::AskAcks, now);
        false
    }
}
