//! Giving to a keeper: dial, give what there is, say what became of it; dial again, whatever ends it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Batches, Connected, Keep, KeepUrl, KeeperEvent, Status, channel_of, lock};
use crate::carriers::broker::again::Again;
use crate::carriers::broker::channels::to_message;
use crate::carriers::broker::url::Engine;
use crate::carriers::broker::{Me, amqp, nats, redis};
use crate::carriers::dial::DIAL_TIMEOUT;
use crate::core::links::fault::{Fault, Why};
use crate::core::news::{Entries, News};
use crate::model::entry::Entry;
use crate::wire::frame::{self, Topic, entry_len};

/// A keeper that has not confirmed a batch in this time, and has not said that it takes nothing, is left.
const CONFIRM_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether it has said so.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of entries in a message, about; the entry that passes this is in it.
const MESSAGE_BYTES: usize = 64 << 10;

/// Gives to one keeper.
pub(crate) struct Session {
    pub(crate) url: KeepUrl,
    pub(crate) me: Me,
    pub(crate) status: Arc<Status>,
    pub(crate) batches: Batches,
    pub(crate) events: mpsc::Sender<KeeperEvent>,
    pub(crate) stop: CancellationToken,
}

impl Session {
    /// Gives until it is stopped.
    pub(crate) async fn run(mut self) {
        let mut again = Again::new();
        let stop = self.stop.clone();
        loop {
            again.dials();
            self.status.dials.add(1);
            let Some(fault) = stop.run_until_cancelled(self.dial()).await else {
                return;
            };
            *lock(&self.status.trouble) = Some(fault.text.clone());
            let pause = again.ended(&fault);
            if pause.is_news {
                tracing::warn!(keeper = self.url.shown(), "not kept: {}", fault.text);
            }
            if self.events.send(KeeperEvent::Down).await.is_err() {
                return;
            }
            if stop.run_until_cancelled(sleep(pause.wait)).await.is_none() {
                return;
            }
        }
    }

    async fn dial(&mut self) -> Fault {
        let (url, me) = (self.url.clone(), self.me.clone());
        let gauges = Arc::clone(&self.status.gauges);
        match url.broker().engine() {
            Engine::Redis => {
                let connecting = redis::keep(&url, &me);
                self.connect(connecting).await
            }
            Engine::Nats => {
                let connecting = nats::keep(&url, &me);
                self.connect(connecting).await
            }
            _ => {
                let connecting = amqp::keep(&url, &me, &gauges);
                self.connect(connecting).await
            }
        }
    }

    async fn connect<K: Keep>(
        &mut self,
        connecting: impl Future<Output = Result<Connected<K>, Fault>>,
    ) -> Fault {
        match Box::pin(timeout(DIAL_TIMEOUT, connecting)).await {
            Ok(Ok(connected)) => match self.give(connected).await {
                Ok(never) => match never {},
                Err(fault) => fault,
            },
            Ok(Err(fault)) => fault,
            Err(_) => Fault::new(Why::TimedOut, "timed out: no answer from there"),
        }
    }

    async fn give<K: Keep>(
        &mut self,
        connected: Connected<K>,
    ) -> Result<std::convert::Infallible, Fault> {
        let Connected {
            mut keeper,
            mut driver,
            counts,
            rests,
        } = connected;
        let shown = self.url.shown();
        tokio::select! {
            fault = &mut driver => return Err(fault),
            () = sleep(rests) => {}
        }
        match &counts {
            Ok(()) => tracing::info!(keeper = shown, "kept"),
            Err(why) => tracing::warn!(keeper = shown, "given, but not counted as a copy: {why}"),
        }
        *lock(&self.status.trouble) = counts.as_ref().err().cloned();
        self.tell(KeeperEvent::Up(counts.is_ok())).await?;
        loop {
            tokio::select! {
                fault = &mut driver => return Err(fault),
                // An error means that the node ends.
                changed = self.batches.changed() => changed.map_err(|_| Fault::ended())?,
            };
            let batch = self.batches.borrow_and_update().clone();
            let begun = Instant::now();
            let messages = self.messages(&batch.entries);
            let mut keeping = std::pin::pin!(keeper.keep(messages));
            let mut looks = interval(LOOK_EVERY);
            let mut waited_since = begun;
            loop {
                tokio::select! {
                    fault = &mut driver => return Err(fault),
                    kept = &mut keeping => {
                        kept?;
                        break;
                    }
                    _ = looks.tick() => {}
                }
                if self.status.gauges.blocked.get() > 0 {
                    // It said that it takes nothing for now, and will say when it does.
                    waited_since = Instant::now();
                }
                if waited_since.elapsed() > CONFIRM_MAX {
                    let text = "timed out: it does not confirm what it was given";
                    return Err(Fault::new(Why::TimedOut, text));
                }
            }
            let took = begun.elapsed().as_micros();
            self.status.confirm_us.set(u64::try_from(took).ok());
            self.status.kept.add(batch.entries.len() as u64);
            self.tell(KeeperEvent::Kept(batch.number)).await?;
        }
    }

    async fn tell(&self, event: KeeperEvent) -> Result<(), Fault> {
        // An error means that the node ends.
        self.events.send(event).await.map_err(|_| Fault::ended())
    }

    /// The batch as messages: each has consecutive entries of one origin.
    fn messages(&self, batch: &[Arc<Entry>]) -> Vec<Bytes> {
        let mut messages = Vec::new();
        let mut rest = batch;
        while let Some(first) = rest.first() {
            let mut bytes = 0;
            let mut count = 0;
            for (entry, seq) in rest.iter().zip(first.seq..) {
                if entry.origin != first.origin || entry.seq != seq || bytes > MESSAGE_BYTES {
                    break;
                }
                bytes += entry_len(entry);
                count += 1;
            }
            let (some, others) = rest.split_at(count);
            rest = others;
            messages.push(self.message(some));
        }
        messages
    }

    fn message(&self, entries: &[Arc<Entry>]) -> Bytes {
        let news = News::Entries(Entries {
            origin: entries[0].origin,
            ack_wanted: false,
            entries: entries.to_vec(),
        });
        let message = to_message(Topic::Log, &frame::encode(&news));
        match &self.me.seals {
            Some(seals) => seals.seal(&channel_of(&self.me), &message),
            None => message,
        }
    }
}
