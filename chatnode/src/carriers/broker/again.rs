//! Dialling again, whatever ended a connection: after pauses that double, with one line for each new reason.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use crate::core::links::fault::Fault;

/// The pause after the first failure, and the longest; it doubles.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// Dials of one place, one after the other.
#[derive(Debug)]
pub(super) struct Again {
    pause: Duration,
    dialled: Instant,
    told: Option<String>,
}

/// What follows the end of a connection.
#[derive(Debug)]
pub(super) struct Pause {
    /// How long to wait, a quarter of it by chance.
    pub(super) wait: Duration,
    /// Whether the reason is another one than the last.
    pub(super) is_news: bool,
}

impl Again {
    /// Nothing was dialled yet.
    pub(super) fn new() -> Self {
        Self {
            pause: AGAIN_MIN,
            dialled: Instant::now(),
            told: None,
        }
    }

    /// Dials now.
    pub(super) fn dials(&mut self) {
        self.dialled = Instant::now();
    }

    /// What was dialled has ended, or could not be. One that stood for longer than the longest pause has
    /// proved itself.
    pub(super) fn ended(&mut self, fault: &Fault) -> Pause {
        if self.dialled.elapsed() > AGAIN_MAX {
            self.pause = AGAIN_MIN;
        }
        let wait = self.pause.mul_f64(rand::rng().random_range(0.75..=1.0));
        self.pause = AGAIN_MAX.min(self.pause * 2);
        let is_news = self.told.as_ref() != Some(&fault.text);
        self.told = Some(fault.text.clone());
        Pause { wait, is_news }
    }
}
