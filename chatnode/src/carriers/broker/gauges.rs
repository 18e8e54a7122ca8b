//! What is counted of one broker's carrier, for operators.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::strangers::Strangers;
use crate::wire::frame::FRAME_LEN_MAX;

/// A number that one task changes and another looks at.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The same, of what may not be known.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Option<u64>>);

impl Known {
    pub(crate) fn set(&self, value: Option<u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    /// The number now, if it is known.
    pub(crate) fn get(&self) -> Option<u64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Totals since the start, but for those said to be of now.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Dials of the hall.
    pub(crate) dials: Gauge,
    /// Sessions that began: all who are wanted could be subscribed to.
    pub(crate) sessions: Gauge,
    /// Messages that the broker's connection has taken, and their bytes.
    pub(crate) published: Gauge,
    pub(crate) published_bytes: Gauge,
    /// Messages that came from it, and their bytes.
    pub(crate) received: Gauge,
    pub(crate) received_bytes: Gauge,
    /// Frames that were not sent: there was no connection,
    pub(crate) dropped_away: Gauge,
    /// too much waited already,
    pub(crate) dropped_full: Gauge,
    /// too much was sent of which nothing has come back,
    pub(crate) dropped_unproven: Gauge,
    /// or they were longer than the broker takes.
    pub(crate) dropped_long: Gauge,
    /// What came and is no frame of this mesh.
    pub(crate) refused: Gauge,
    /// Now: bytes that wait to be sent.
    pub(crate) queue_bytes: Gauge,
    /// Now: whether the broker takes nothing for the time being; 0 or 1.
    pub(crate) blocked: Gauge,
    /// Now: how many the broker said to have handed the last frame to.
    pub(crate) receivers: Known,
    /// Now: the longest frame that it takes, if it has said so.
    pub(super) len_max: Known,
    /// Now: others there that cannot be heard.
    pub(crate) strangers: Strangers,
}

impl Gauges {
    /// The longest frame that may be sent.
    pub(super) fn frame_len_max(&self) -> usize {
        match self.len_max.get() {
            None => FRAME_LEN_MAX,
            Some(len) => usize::try_from(len).unwrap_or(FRAME_LEN_MAX),
        }
    }
}
