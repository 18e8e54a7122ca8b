//! What the registry counts, in the Prometheus text format.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use base::metrics::MetricsText;

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    created: AtomicU64,
    changed: AtomicU64,
    renewed: AtomicU64,
    replaced: AtomicU64,
    left: AtomicU64,
    expired: AtomicU64,
    late_ticks: AtomicU64,
    rejected: Mutex<BTreeMap<&'static str, u64>>,
}

impl Metrics {
    /// A registration that changed the list.
    pub(crate) fn changed(&self, new: bool, replaced: usize) {
        add(if new { &self.created } else { &self.changed }, 1);
        add(&self.replaced, replaced);
    }

    /// A registration that only renewed.
    pub(crate) fn renewed(&self) {
        add(&self.renewed, 1);
    }

    /// A node that left.
    pub(crate) fn left(&self) {
        add(&self.left, 1);
    }

    /// Nodes whose leases passed.
    pub(crate) fn expired(&self, count: usize) {
        add(&self.expired, count);
    }

    /// A tick that came late.
    pub(crate) fn late_tick(&self) {
        add(&self.late_ticks, 1);
    }

    /// A request answered by a problem.
    pub(crate) fn rejected(&self, code: &'static str) {
        if let Ok(mut rejected) = self.rejected.lock() {
            *rejected.entry(code).or_default() += 1;
        }
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What is so now, beside what was counted.
#[derive(Debug)]
pub(crate) struct Gauges<'a> {
    /// Which start this is.
    pub(crate) epoch: &'a str,
    /// Nodes listed.
    pub(crate) nodes: usize,
    /// Long polls and event streams held.
    pub(crate) watchers: usize,
    /// Version of the list.
    pub(crate) version: u64,
    /// Bytes of the list as JSON.
    pub(crate) listing_bytes: usize,
}

/// The text for `/metrics`.
pub(crate) fn render(metrics: &Metrics, now: &Gauges<'_>) -> String {
    let mut text = MetricsText::default();
    text.family("registry_info", "gauge", "Which start this is.");
    text.labelled("registry_info", &[("epoch", now.epoch)], 1);
    text.gauge("registry_nodes", "Nodes listed.", now.nodes);
    let watchers = "Long polls and event streams held.";
    text.gauge("registry_watchers", watchers, now.watchers);
    text.gauge("registry_version", "Version of the list.", now.version);
    let bytes = "Size of the list as JSON.";
    text.gauge("registry_listing_bytes", bytes, now.listing_bytes);
    let puts = "registry_puts_total";
    text.family(puts, "counter", "Registrations accepted.");
    text.labelled(puts, &[("result", "created")], get(&metrics.created));
    text.labelled(puts, &[("result", "changed")], get(&metrics.changed));
    text.labelled(puts, &[("result", "renewed")], get(&metrics.renewed));
    let left = "Nodes that left.";
    text.counter("registry_leaves_total", left, get(&metrics.left));
    let expired = "Leases that passed.";
    text.counter("registry_expirations_total", expired, get(&metrics.expired));
    let replaced = "Nodes replaced by a newer holder of their endpoint.";
    text.counter(
        "registry_replacements_total",
        replaced,
        get(&metrics.replaced),
    );
    let late = "Times that this process stood still and extended all leases.";
    text.counter("registry_late_ticks_total", late, get(&metrics.late_ticks));
    let dropped = "Lines of the log that nothing took.";
    text.counter(
        "registry_log_dropped_total",
        dropped,
        base::process::log_dropped(),
    );
    let rejected = "registry_rejected_total";
    text.family(rejected, "counter", "Requests answered by a problem.");
    if let Ok(counts) = metrics.rejected.lock() {
        for (code, count) in counts.iter() {
            text.labelled(rejected, &[("code", code)], *count);
        }
    }
    text.end()
}
