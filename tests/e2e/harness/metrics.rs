//! What a node counts of itself, and what a test counts of its clients' times.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use tokio::time::Duration;

use super::cluster::get;
use super::load::spread;
use super::{NOISE, ms, say};

/// The numbers of `/metrics`, but for fractions.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(HashMap<String, u64>);

impl Metrics {
    /// Those of the node at this HTTP endpoint now.
    pub(crate) async fn at(http: &str) -> Result<Self> {
        let text = get(&format!("{http}/metrics")).await?.error_for_status()?;
        let text = String::from_utf8(text.bytes().await?.to_vec())?;
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        let mut numbers = HashMap::new();
        for row in rows {
            let (name, value) = row.rsplit_once(' ').context("a row is name and value")?;
            value.parse::<f64>().with_context(|| row.to_owned())?;
            if let Ok(whole) = value.parse() {
                numbers.insert(name.to_owned(), whole);
            }
        }
        Ok(Self(numbers))
    }

    /// One number: the name without `chatnode_`.
    pub(crate) fn get(&self, name: &str) -> Result<u64> {
        let full = format!("chatnode_{name}");
        let found = self.0.get(&full).copied();
        found.with_context(|| format!("/metrics has no {full}"))
    }
}

/// Longest that one in a hundred replies or deliveries may take while something is wrong elsewhere.
const P99_MAX: Duration = ms(500).saturating_add(NOISE);
/// Half of what is asked at once of a node takes no longer than this, whatever happens on the far
/// side of a wire. A hundred times what it is when nothing happens.
const UNDELAYED: Duration = ms(250);

/// Says these times, that they are many, that their median is small, and that the slowest are not
/// far from it.
pub(crate) fn undelayed(what: &str, times: Vec<Duration>) {
    let median = not_starved(what, times);
    assert!(median <= UNDELAYED, "{what}: half of them took {median:?}");
}

/// Says these times, that they are many, and that even the slowest came; their median.
pub(crate) fn not_starved(what: &str, times: Vec<Duration>) -> Duration {
    let count = times.len();
    let (median, p99, _) = told(what, times);
    assert!(count >= 50, "{what}: only {count} times");
    assert!(p99 <= P99_MAX, "{what}: p99 is {p99:?}");
    median
}

/// Says these times; the median, the 99th of a hundred and the longest.
pub(crate) fn told(what: &str, times: Vec<Duration>) -> (Duration, Duration, Duration) {
    let count = times.len();
    let (median, p99, worst) = spread(times);
    say!("{what}: {count} times, median {median:?}, p99 {p99:?}, worst {worst:?}");
    (median, p99, worst)
}
