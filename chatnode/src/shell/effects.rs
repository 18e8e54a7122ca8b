//! Carries out what the core decided.

use super::Shell;
use super::errands::Errand;
use crate::carriers::Command;
use crate::core::log::Span;
use crate::core::news::News;
use crate::core::question::Read;
use crate::core::{Effect, Now, ORIGINS_MAX, Source};
use crate::model::names::Origin;
use crate::peers::{At, Part};

/// Nodes whose pages are remembered at the most; the oldest is forgotten first.
const NODES_SEEN_MAX: usize = 1024;

/// The room that the plain form speaks of.
pub(crate) const PLAIN_ROOM: &str = "lobby";

impl Shell {
    /// Carries out what the core wants of others than clients.
    pub(super) fn effect(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Append {
                entry,
                ack_wanted,
                source,
            } => {
                self.totals.said += 1;
                if self.settings.publish_plain
                    && source == Source::Client
                    && entry.room.as_str() == PLAIN_ROOM
                    && let Some(text) = entry.text()
                {
                    let text = text.into_owned();
                    self.carrier(Command::PublishPlain(text));
                }
                if self.outbox.append(entry, ack_wanted) {
                    self.publish_log(now);
                }
            }
            Effect::Publish(news) => {
                if matches!(news, News::Beat(_)) {
                    self.tell_full_of_logs();
                }
                self.publish(&news, now);
            }
            Effect::Fetch(fetch) => match self.at(fetch.from) {
                Some(at) => {
                    self.totals.fetches += 1;
                    let part = Part {
                        origin: fetch.origin,
                        span: fetch.span,
                        whole: self.core.is_durable(),
                        bytes: self.page_bytes(fetch.from),
                    };
                    self.errands.push(Errand::Fetch(fetch, at, part));
                }
                None => self.core.fetched(now, fetch.id, None),
            },
            Effect::FetchMembers(origin) => match self.at(origin) {
                Some(at) => self.errands.push(Errand::FetchMembers(at)),
                None => self.core.members_fetched(origin, None),
            },
            Effect::AskPosition(origin) => match self.at(origin) {
                Some(at) => self.errands.push(Errand::AskPosition(at)),
                None => self.core.position_told(now, origin, None),
            },
            Effect::Read(ticket, Read::Scan(entries, query, limit)) => {
                self.errands
                    .push(Errand::Scan(ticket, entries, query, limit));
            }
            Effect::Read(ticket, read) => {
                if let Some(disk) = self.disk.clone() {
                    self.errands.push(Errand::Disk(disk, ticket, read));
                }
            }
            Effect::CaughtUp => {
                tracing::info!("caught up with the others: takes what clients say again");
                self.ready.send_replace(self.core.takes_clients());
            }
            Effect::Ready { lacking, .. } => self.now_ready(now, lacking.len()),
            Effect::Whole => tracing::info!("all is here now that others held"),
            // What clients are told is carried out where they are.
            Effect::RollOver(_)
            | Effect::Deliver(..)
            | Effect::Said { .. }
            | Effect::NotSaid { .. }
            | Effect::Answer(..)
            | Effect::Gap(..)
            | Effect::Members(..)
            | Effect::Typing(..) => {}
        }
    }

    /// Says once that what dead nodes said is not fetched any more.
    fn tell_full_of_logs(&mut self) {
        let full = self.core.is_full_of_logs();
        if full && !std::mem::replace(&mut self.full_of_logs, full) {
            tracing::warn!(
                "history of {ORIGINS_MAX} starts of nodes is kept here, as many as can be: what \
                 others hold of dead ones is not fetched until retention lets some go"
            );
        }
        self.full_of_logs = full;
    }

    fn now_ready(&mut self, now: Now, logs: usize) {
        if logs > 0 {
            let count = self.lacking_messages();
            tracing::warn!(
                logs,
                count,
                "ready: takes clients, but lacks messages that others hold, and goes on fetching them"
            );
        }
        let lacking = self.lacking(now);
        if lacking.is_empty() {
            tracing::info!(
                count = self.core.peers().heard().count(),
                "ready: takes clients"
            );
        } else {
            let peers = lacking.join("; ");
            tracing::warn!(peers, "ready: takes clients, but lacks these peers");
        }
        self.ready.send_replace(self.core.takes_clients());
        self.update_nodes();
    }

    /// Messages that others held when this node joined, and that are not here yet.
    pub(crate) fn lacking_messages(&self) -> u64 {
        let count = |span: Span| span.through.saturating_sub(span.after);
        let lacking = self.core.lacking();
        lacking.fold(0, |sum, (_, span)| count(span).saturating_add(sum))
    }

    /// Tells clients which nodes there are, if that changed.
    pub(crate) fn update_nodes(&mut self) {
        let me = self.core.identity().http.clone();
        let others = self.core.peers().heard().filter(|(_, peer)| peer.ready);
        let mut nodes: Vec<String> = others
            .map(|(_, peer)| peer.http.clone())
            .filter(|http| !http.is_empty())
            .collect();
        nodes.sort();
        nodes.dedup();
        nodes.insert(0, me);
        if nodes != self.clients.nodes() {
            self.remember(nodes.iter().cloned());
            self.clients.tell_nodes(nodes);
        }
    }

    /// Notes where nodes are: a page that one has served goes on at another when that one is dead.
    pub(crate) fn remember(&mut self, nodes: impl IntoIterator<Item = String>) {
        for node in nodes {
            if !self.nodes_seen.contains(&node) {
                if self.nodes_seen.len() >= NODES_SEEN_MAX {
                    self.nodes_seen.pop_front();
                }
                self.nodes_seen.push_back(node);
            }
        }
    }

    fn at(&self, origin: Origin) -> Option<At> {
        let url = self.http_of(origin)?;
        Some(At { origin, url })
    }

    pub(super) fn http_of(&self, origin: Origin) -> Option<String> {
        let http = &self.core.peers().get(origin)?.http;
        (!http.is_empty()).then(|| http.clone())
    }
}
