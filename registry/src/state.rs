//! The running registry: the list under a lock, the snapshot that all watchers share, and the two
//! tasks that keep them going.
//!
//! Whatever changes the list rings [`Inner::changed`]; the publisher then makes one version,
//! serialises it once, and lets 10 ms pass before the next. So a lone change is out at once, and
//! a burst costs one version each 10 ms. Watchers look at the newest snapshot when they wake: none
//! has a queue, and none can miss the last state.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::api::{Listing, Registration, WATCHERS_MAX};
use crate::directory::{Directory, Put, Refused, TICK};
use crate::metrics::{self, Gauges, Metrics};
use base::process::Tasks;

/// Shortest time between two versions: changes within it are one.
const VERSION_EVERY: Duration = Duration::from_millis(10);

/// One version of the list, as it goes out.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The list.
    pub(crate) listing: Listing,
    /// The list as JSON.
    pub(crate) body: Bytes,
    /// The list as a server-sent event.
    pub(crate) event: Bytes,
    /// The token in quotes.
    pub(crate) etag: HeaderValue,
    made: Instant,
}

/// A registry; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lease: Duration,
    epoch: String,
    directory: Mutex<Directory>,
    changed: Notify,
    published: watch::Sender<Arc<Snapshot>>,
    places: Arc<Semaphore>,
    metrics: Metrics,
    stopping: CancellationToken,
}

impl Snapshot {
    fn new(listing: Listing, made: Instant) -> Self {
        let body = serde_json::to_string(&listing).expect("a listing is strings and numbers");
        let event = format!("id: {}\nevent: nodes\ndata: {body}\n\n", listing.token);
        let etag = HeaderValue::try_from(format!("\"{}\"", listing.token))
            .expect("a token is letters, digits and a dot");
        Self {
            listing,
            body: body.into(),
            event: event.into(),
            etag,
            made,
        }
    }

    /// How long ago it was made, in whole seconds.
    pub(crate) fn age_seconds(&self) -> u64 {
        now().saturating_duration_since(self.made).as_secs()
    }
}

impl Registry {
    /// An empty registry, alive until `tasks` stop.
    pub(crate) fn start(lease: Duration, tasks: &Tasks) -> Self {
        let epoch = format!("{:016x}", rand::random::<u64>());
        let directory = Directory::new(epoch.clone(), lease, now());
        let first = Snapshot::new(directory.listing(now()), now());
        let registry = Self(Arc::new(Inner {
            lease,
            epoch,
            directory: Mutex::new(directory),
            changed: Notify::new(),
            published: watch::Sender::new(Arc::new(first)),
            places: Arc::new(Semaphore::new(WATCHERS_MAX)),
            metrics: Metrics::default(),
            stopping: tasks.stopping(),
        }));
        tasks.spawn_critical("publisher", registry.clone().publish_changes());
        tasks.spawn_critical("leases", registry.clone().end_leases());
        registry
    }

    /// Registers or renews. Returns when the list that everybody gets holds it, with its version.
    pub(crate) async fn put(&self, id: &str, said: Registration) -> Result<(Put, u64), Refused> {
        let (put, version) = {
            let mut directory = self.directory();
            let put = directory.put(id, said, now())?;
            (put, directory.version())
        };
        match &put {
            Put::Created { replaced } | Put::Changed { replaced } => {
                self.0
                    .metrics
                    .changed(matches!(put, Put::Created { .. }), replaced.len());
                tracing::info!(node = id, version, ?replaced, "registered");
                self.published(version).await;
            }
            Put::Renewed => self.0.metrics.renewed(),
        }
        Ok((put, version))
    }

    /// Takes a node out, and returns when the list that everybody gets lacks it.
    pub(crate) async fn leave(&self, id: &str) {
        let (was_there, version) = {
            let mut directory = self.directory();
            (directory.leave(id), directory.version())
        };
        if was_there {
            self.0.metrics.left();
            tracing::info!(node = id, version, "left");
            self.published(version).await;
        }
    }

    /// The newest snapshot and all that follow.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.published.subscribe()
    }

    /// A place among those who wait, or `None` when all are taken. It is free again on drop.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.places).try_acquire_owned().ok()
    }

    /// How many wait.
    pub(crate) fn watchers(&self) -> usize {
        WATCHERS_MAX - self.0.places.available_permits()
    }

    /// Which start this is.
    pub(crate) fn epoch(&self) -> &str {
        &self.0.epoch
    }

    /// How long a node stays listed without a renewal.
    pub(crate) fn lease(&self) -> Duration {
        self.0.lease
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The text for `/metrics`.
    pub(crate) fn metrics_text(&self) -> String {
        let snapshot = self.0.published.borrow().clone();
        let now = Gauges {
            epoch: self.epoch(),
            nodes: snapshot.listing.nodes.len(),
            watchers: self.watchers(),
            version: snapshot.listing.version,
            listing_bytes: snapshot.body.len(),
        };
        metrics::render(&self.0.metrics, &now)
    }

    /// Resolves when the registry is to stop.
    pub(crate) async fn stopping(&self) {
        self.0.stopping.cancelled().await;
    }

    /// Rings for the publisher and waits until it has published `version`, or the registry stops.
    async fn published(&self, version: u64) {
        self.0.changed.notify_one();
        let mut updates = self.watch();
        tokio::select! {
            biased;
            () = self.0.stopping.cancelled() => {}
            _ = updates.wait_for(|snapshot| snapshot.listing.version >= version) => {}
        }
    }

    async fn publish_changes(self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = self.0.stopping.cancelled() => return Ok(()),
                () = self.0.changed.notified() => {}
            }
            let made = now();
            let listing = self.directory().publish(made);
            if let Some(listing) = listing {
                self.0
                    .published
                    .send_replace(Arc::new(Snapshot::new(listing, made)));
            }
            tokio::select! {
                biased;
                () = self.0.stopping.cancelled() => return Ok(()),
                () = tokio::time::sleep(VERSION_EVERY) => {}
            }
        }
    }

    async fn end_leases(self) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.0.stopping.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let expired = self.directory().expire(now());
            if let Some(late) = expired.extended {
                self.0.metrics.late_tick();
                tracing::warn!(
                    late_ms = late.as_millis(),
                    "this process stood still; leases are extended"
                );
            }
            if !expired.ids.is_empty() {
                self.0.metrics.expired(expired.ids.len());
                tracing::info!(nodes = ?expired.ids, "leases have passed");
                self.0.changed.notify_one();
            }
        }
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.0
            .directory
            .lock()
            .expect("the list's code does not panic")
    }
}

/// Tokio's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
