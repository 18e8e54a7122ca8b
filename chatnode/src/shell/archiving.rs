//! Taking in what a keeper holds: each message is given to the core, and acknowledged when it is on the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Handle, wall_us};
use crate::carriers::broker::keeper::{ArchiveStatus, Came, Delivery, Keeper, Name, Settled};
use crate::core::Input;
use crate::core::from_keeper::{Taken, Takes};
use crate::core::log::Span;
use crate::disk::Disk;
use crate::model::entry::Entry;
use crate::model::names::Origin;

/// What could not be taken in is tried again so often.
const AGAIN_EVERY: Duration = Duration::from_millis(100);
/// After so many messages the others have their turn, clients and the turn task.
const TOGETHER: usize = 4;
/// An archive that has much to take in rests as long as it has worked, each time that it has worked so long: who
/// chats goes first, also on a machine of few processors.
const WORKS_AT_MOST: Duration = Duration::from_millis(2);
/// Messages that are acknowledged together.
const SETTLED_TOGETHER: usize = 256;

/// A message that is not acknowledged yet.
#[derive(Debug)]
enum Unsettled {
    /// These of this origin's log.
    Entries(Name, Origin, Span, Vec<Arc<Entry>>),
    /// Something that is to be set aside, and why.
    Poison(Name, Bytes, String),
}

/// What takes in.
pub(crate) struct Archiving {
    /// What comes, and where it is told what was stored.
    pub(crate) deliveries: mpsc::Receiver<Delivery>,
    pub(crate) settled: mpsc::Sender<Settled>,
    pub(crate) keeper: Keeper,
    /// Where it is stored.
    pub(crate) disk: Disk,
}

impl Handle {
    /// Whether it takes in what a keeper holds.
    pub(crate) fn is_archive(&self) -> bool {
        self.look(|shell| shell.keeper.is_some() && shell.disk.is_some())
    }

    /// Takes in what a keeper holds until the process stops.
    pub(crate) async fn run_archive(self, mut archiving: Archiving) -> anyhow::Result<()> {
        let stopping = self.tasks().stopping();
        let mut unsettled = VecDeque::new();
        let mut connection = 0;
        let mut together = 0;
        let mut is_empty = false;
        let mut looked = Instant::now();
        let mut worked = Duration::ZERO;
        loop {
            // Each is cancel safe.
            let delivery = tokio::select! {
                biased;
                () = stopping.cancelled() => return Ok(()),
                Some(delivery) = archiving.deliveries.recv() => Some(delivery),
                () = self.stored().notified() => None,
                () = tokio::time::sleep(AGAIN_EVERY), if !unsettled.is_empty() => None,
            };
            match delivery {
                Some(Delivery::Anew(number)) => {
                    connection = number;
                    is_empty = false;
                    unsettled.clear();
                }
                Some(Delivery::Empty) => is_empty = true,
                Some(Delivery::Message(name, came)) => {
                    unsettled.push_back(match came {
                        Came::Entries(entries) => {
                            let (origin, first) = (entries[0].origin, entries[0].seq);
                            let span = Span {
                                after: first - 1,
                                through: first - 1 + entries.len() as u64,
                            };
                            let begun = Instant::now();
                            self.take_in(origin, &entries);
                            worked += begun.elapsed();
                            Unsettled::Entries(name, origin, span, entries)
                        }
                        Came::Poison(body, why) => Unsettled::Poison(name, body, why),
                    });
                    together += 1;
                    if together < TOGETHER {
                        continue;
                    }
                }
                None => {}
            }
            together = 0;
            let status = &archiving.keeper.status.archive;
            let looks = (&mut unsettled, looked.elapsed() >= AGAIN_EVERY);
            if looks.1 {
                looked = Instant::now();
            }
            let stored = self.stored_of(looks, &archiving.disk, status).await;
            show(status, &unsettled, stored.len());
            for some in stored.chunks(SETTLED_TOGETHER) {
                // An error means that the node ends.
                let told = archiving.settled.send(Settled {
                    connection,
                    names: some.to_vec(),
                });
                if stopping.run_until_cancelled(told).await.is_none() {
                    return Ok(());
                }
            }
            if is_empty && unsettled.is_empty() {
                is_empty = false;
                self.send(Input::KeeperEmpty);
            }
            tokio::task::yield_now().await;
            if worked >= WORKS_AT_MOST {
                let rest = tokio::time::sleep(std::mem::take(&mut worked));
                stopping.run_until_cancelled(rest).await;
            }
        }
    }

    /// Gives entries to the core, if it can take them.
    fn take_in(&self, origin: Origin, entries: &[Arc<Entry>]) {
        self.send(Input::FromKeeper(origin, entries.to_vec()));
    }

    /// Those that are on the disk, or were set aside; they are settled. All are looked at now and then, and what
    /// the core could not take in is given to it once more. Else it is enough to look at them as far as they
    /// are stored, since they are in the order in which they came.
    async fn stored_of(
        &self,
        (unsettled, looks_at_all): (&mut VecDeque<Unsettled>, bool),
        disk: &Disk,
        status: &ArchiveStatus,
    ) -> Vec<Name> {
        let mut stored = Vec::new();
        let mut rest = VecDeque::new();
        for it in std::mem::take(unsettled) {
            if !(looks_at_all || rest.is_empty()) {
                rest.push_back(it);
                continue;
            }
            match it {
                Unsettled::Entries(name, origin, span, entries) => {
                    let (taken, takes) = self.look(|it| {
                        let taken = it.core.taken(origin, span);
                        (taken, it.core.takes_from_keeper(origin))
                    });
                    match (taken, takes) {
                        (Taken::Stored, _) => {
                            stored.push(name);
                            continue;
                        }
                        (Taken::No, Takes::Never) => {
                            let why = "there are as many logs here as can be".to_owned();
                            let lines = entries.iter().map(|entry| &entry.json[..]);
                            let body = lines.collect::<Vec<_>>().join(&b'\n').into();
                            rest.push_back(Unsettled::Poison(name, body, why));
                            continue;
                        }
                        (Taken::No, Takes::Now) if looks_at_all => {
                            self.take_in(origin, &entries);
                            tokio::task::yield_now().await;
                        }
                        _ => {}
                    }
                    rest.push_back(Unsettled::Entries(name, origin, span, entries));
                }
                Unsettled::Poison(name, body, why) => {
                    match disk.set_aside(body.clone(), why.clone(), wall_us()).await {
                        Ok(()) => {
                            tracing::warn!(
                                "what the keeper held is no message, and set aside: {why}"
                            );
                            status.rejected.add(1);
                            stored.push(name);
                        }
                        // Its disk is full, say: once more, later.
                        Err(trouble) => {
                            tracing::debug!("not set aside: {trouble}");
                            rest.push_back(Unsettled::Poison(name, body, why));
                        }
                    }
                }
            }
        }
        *unsettled = rest;
        stored
    }
}

/// Shows how far it is.
fn show(status: &ArchiveStatus, unsettled: &VecDeque<Unsettled>, stored: usize) {
    let ts = |it: &Unsettled| match it {
        Unsettled::Entries(_, _, _, entries) => entries.first().map(|entry| entry.ts),
        Unsettled::Poison(..) => None,
    };
    status.oldest_us.set(unsettled.iter().find_map(ts));
    if stored > 0 {
        status.stored.add(stored as u64);
        status.committed_us.set(Some(wall_us()));
    }
}
