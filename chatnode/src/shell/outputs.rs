//! Carries out what the core wants of others than clients.

use super::Shell;
use super::errands::Errand;
use crate::carriers::Command;
use crate::core::keeper::KeeperBatch;
use crate::core::log::Span;
use crate::core::output::Notice;
use crate::core::question::{LogPart, Read};
use crate::core::{Now, ORIGINS_MAX, Output};
use crate::peers::At;

impl Shell {
    /// Carries out one output.
    pub(super) fn carry_out(&mut self, output: Output, now: Now) {
        match output {
            Output::Append { entry, ack_wanted } => {
                self.totals.said += 1;
                if self.outbox.append(entry, ack_wanted) {
                    self.publish_log(now);
                }
            }
            Output::PublishPlain(text) => self.carrier(Command::PublishPlain(text)),
            Output::Publish(news) => self.publish(&news, now),
            Output::Dial {
                link,
                endpoint,
                speech,
            } => self.carrier(Command::Dial(link, endpoint, speech)),
            Output::HangUp(link) => {
                self.link_keys.remove(&link);
                self.carrier(Command::HangUp(link));
            }
            Output::Hello { to, url } => self.errands.push(Errand::Hello(At { origin: to, url })),
            Output::Fetch { fetch, url, bytes } => {
                self.totals.fetches += 1;
                let part = LogPart {
                    origin: fetch.origin,
                    span: fetch.span,
                    whole: self.core.is_durable(),
                    bytes,
                };
                let at = At {
                    origin: fetch.from,
                    url,
                };
                self.errands.push(Errand::Fetch(fetch.id, at, part));
            }
            Output::FetchMembers { from, url } => {
                self.errands
                    .push(Errand::FetchMembers(At { origin: from, url }));
            }
            Output::AskPosition { from, url } => {
                self.errands
                    .push(Errand::AskPosition(At { origin: from, url }));
            }
            Output::Read(ticket, read) => match *read {
                Read::Scan(entries, query, limit) => {
                    self.errands
                        .push(Errand::Scan(ticket, entries, query, limit));
                }
                read => {
                    if let Some(disk) = self.disk.clone() {
                        let gone = self.clients.gone(ticket).unwrap_or_default();
                        self.errands.push(Errand::Disk(disk, ticket, read, gone));
                    }
                }
            },
            Output::Write(batch) => {
                if let Some(disk) = &self.disk {
                    self.totals.batches += 1;
                    disk.write(batch);
                }
            }
            Output::Keep(batch) => self.keep(batch),
            Output::Ready { unlinked, lacking } => {
                self.now_ready(now, unlinked.len(), lacking.len());
            }
            Output::Whole => tracing::info!("all is here now that others held"),
            Output::CatchingUp => drop(self.ready.send_replace(false)),
            Output::CaughtUp => {
                tracing::info!("caught up with the others: takes what clients say again");
                self.ready.send_replace(self.core.takes_clients());
            }
            Output::Notice(notice) => tell(notice),
            // What clients are told is carried out where they are.
            Output::Deliver(entry, _) => self.show_bridges(&entry, now),
            Output::Said { .. }
            | Output::NotSaid { .. }
            | Output::Answer(..)
            | Output::Gap(..)
            | Output::Members(..)
            | Output::Typing(..)
            | Output::NodesChanged => {}
        }
    }

    fn keep(&self, batch: KeeperBatch) {
        if let Some(keeper) = &self.keeper {
            keeper.give(batch);
        }
    }

    fn now_ready(&mut self, now: Now, awaited: usize, logs: usize) {
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
            tracing::warn!(
                peers,
                awaited,
                "ready: takes clients, but lacks these peers"
            );
        }
        self.ready.send_replace(self.core.takes_clients());
    }

    /// Messages that others held when this node joined, and that are not here yet.
    pub(super) fn lacking_messages(&self) -> u64 {
        let count = |span: Span| span.through.saturating_sub(span.after);
        let lacking = self.core.lacking();
        lacking.fold(0, |sum, (_, span)| count(span).saturating_add(sum))
    }
}

/// Tells who runs this node.
fn tell(notice: Notice) {
    match notice {
        Notice::LinkUp(peer) => tracing::info!(%peer, "link up"),
        Notice::LinkDown(peer) => tracing::info!(%peer, "link down"),
        Notice::HallUp(broker) => tracing::info!(broker, "broker heard"),
        Notice::HallDown(broker) => tracing::warn!(broker, "broker not heard"),
        Notice::NotLinked {
            origin,
            endpoint,
            fault,
        } => {
            let peer = origin.map(|origin| origin.to_string()).unwrap_or_default();
            let reason = fault.why.as_str();
            tracing::warn!(peer, endpoint, reason, "not linked: {}", fault.text);
        }
        Notice::Silent { link, origin } => {
            let peer = origin.map(|origin| origin.to_string()).unwrap_or_default();
            tracing::warn!(
                link = link.0,
                peer,
                "no beat for 3 s: the link is torn down"
            );
        }
        Notice::ClockWrong { wrong_s } => tracing::warn!(
            wrong_s,
            "this node's clock is more than a minute from the others': it goes by theirs"
        ),
        Notice::PeerSkewed {
            peer,
            apart,
            is_ahead,
        } => {
            let (peer, apart_s) = (peer.as_str(), apart.as_secs());
            let way = if is_ahead { "ahead" } else { "behind" };
            tracing::warn!(
                peer,
                apart_s,
                "the peer's clock is {way} by more than a minute"
            );
        }
        Notice::DiskFull(why) => tracing::error!(
            "the disk is full ({why}): messages are refused until there is room; reading goes on"
        ),
        Notice::DiskHasRoom => tracing::info!("the disk has room again: messages are taken"),
        Notice::FullOfLogs => tracing::warn!(
            "history of {ORIGINS_MAX} starts of nodes is kept here, as many as can be: what \
             others hold of dead ones is not fetched until retention lets some go"
        ),
    }
}
