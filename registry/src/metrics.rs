//! What the registry counts, in the Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

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
    let mut text = Text::default();
    text.family("info", "gauge", "Which start this is.");
    text.labelled("info", "epoch", now.epoch, 1);
    text.gauge("nodes", "Nodes listed.", now.nodes as u64);
    text.gauge(
        "watchers",
        "Long polls and event streams held.",
        now.watchers as u64,
    );
    text.gauge("version", "Version of the list.", now.version);
    text.gauge(
        "listing_bytes",
        "Size of the list as JSON.",
        now.listing_bytes as u64,
    );
    text.family("puts_total", "counter", "Registrations accepted.");
    for (result, counter) in [
        ("created", &metrics.created),
        ("changed", &metrics.changed),
        ("renewed", &metrics.renewed),
    ] {
        text.labelled(
            "puts_total",
            "result",
            result,
            counter.load(Ordering::Relaxed),
        );
    }
    text.counter("leaves_total", "Nodes that left.", &metrics.left);
    text.counter("expirations_total", "Leases that passed.", &metrics.expired);
    let replaced = "Nodes replaced by a newer holder of their endpoint.";
    text.counter("replacements_total", replaced, &metrics.replaced);
    let late = "Times that this process stood still and extended all leases.";
    text.counter("late_ticks_total", late, &metrics.late_ticks);
    let dropped = AtomicU64::new(base::process::log_dropped());
    let help = "Lines of the log that nothing took.";
    text.counter("log_dropped_total", help, &dropped);
    text.family(
        "rejected_total",
        "counter",
        "Requests answered by a problem.",
    );
    if let Ok(rejected) = metrics.rejected.lock() {
        for (code, count) in rejected.iter() {
            text.labelled("rejected_total", "code", code, *count);
        }
    }
    text.0
}

/// Lines of the text format. Writing to a `String` cannot fail.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.0,
            "# HELP registry_{name} {help}\n# TYPE registry_{name} {kind}"
        );
    }

    fn labelled(&mut self, name: &str, label: &str, value: &str, count: u64) {
        let _ = writeln!(self.0, "registry_{name}{{{label}=\"{value}\"}} {count}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        let _ = writeln!(self.0, "registry_{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, counter: &AtomicU64) {
        self.family(name, "counter", help);
        let _ = writeln!(
            self.0,
            "registry_{name} {}",
            counter.load(Ordering::Relaxed)
        );
    }
}
