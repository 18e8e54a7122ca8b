//! What a seed decides at the start: the size of the mesh and its temper.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::store::memory::Retention;

/// After the last fault, so long is left for everything to converge.
pub(super) const SETTLE: Duration = Duration::from_secs(15);

/// The temper of one run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Nodes that live at the same time.
    pub(super) slots: usize,
    /// Clients.
    pub(super) clients: usize,
    /// Rooms.
    pub(super) rooms: usize,
    /// When faults end.
    pub(super) faults_end: Duration,
    /// Time between two faults, on average.
    pub(super) fault_every: Duration,
    /// Time between two doings of one client, on average.
    pub(super) act_every: Duration,
    /// Whether frames of one link may overtake each other. TCP would not; the core must not care.
    pub(super) reorder: bool,
    /// Share of frames lost while the network is ill.
    pub(super) loss: f64,
    /// Share of frames doubled while the network is ill.
    pub(super) doubled: f64,
    /// Share of fetches that fail while the network is ill.
    pub(super) fetch_failure: f64,
    /// Longest usual delay of a frame.
    pub(super) delay_max: Duration,
    /// How much history a node keeps.
    pub(super) retention: Retention,
    /// Whether that is so little that it matters here.
    pub(super) trims: bool,
    /// Whether nodes crash.
    pub(super) crashes: bool,
    /// How wrong wall clocks are at the most, in microseconds.
    pub(super) clock_skew_max_us: i64,
}

impl Plan {
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let slots = rng.random_range(2..=7);
        let trims = rng.random_bool(0.15);
        let lossy = rng.random_bool(0.6);
        let mut retention = Retention::default();
        if trims {
            retention.messages = rng.random_range(20..150);
        }
        Self {
            slots,
            clients: rng.random_range(2..=2 * slots),
            rooms: rng.random_range(1..=3),
            faults_end: Duration::from_millis(rng.random_range(5_000..16_000)),
            fault_every: Duration::from_millis(rng.random_range(100..1_500)),
            act_every: Duration::from_millis(rng.random_range(40..400)),
            reorder: rng.random_bool(0.2),
            loss: if lossy {
                rng.random_range(0.0..0.3)
            } else {
                0.0
            },
            doubled: if lossy {
                rng.random_range(0.0..0.2)
            } else {
                0.0
            },
            fetch_failure: if lossy {
                rng.random_range(0.0..0.4)
            } else {
                0.0
            },
            delay_max: Duration::from_micros(rng.random_range(300..200_000)),
            retention,
            trims,
            crashes: rng.random_bool(0.8),
            clock_skew_max_us: if rng.random_bool(0.3) {
                100_000_000
            } else {
                50_000
            },
        }
    }
}
