//! How fast something may come: a token bucket in one number.

use std::time::Duration;

/// How fast something may come.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    per_second: f32,
    at_once: f32,
}

impl Rate {
    /// So many a second over time, and so many at once.
    pub const fn new(per_second: f32, at_once: f32) -> Self {
        Self {
            per_second,
            at_once,
        }
    }

    /// That of messages: twice those of a second may come at once.
    #[expect(clippy::cast_precision_loss, reason = "rates that matter are small")]
    pub const fn messages(rate_limit: u32) -> Self {
        Self::new(rate_limit as f32, 2.0 * rate_limit as f32)
    }

    /// Twice as fast.
    #[must_use]
    pub const fn twice(self) -> Self {
        Self::new(2.0 * self.per_second, 2.0 * self.at_once)
    }

    /// As fast as the faster of the two.
    #[must_use]
    pub const fn or_faster(self, other: Self) -> Self {
        Self::new(
            self.per_second.max(other.per_second),
            self.at_once.max(other.at_once),
        )
    }
}

/// A token bucket, kept as the one number that it needs: when it would be full again (the generic
/// cell rate algorithm, ITU-T I.371).
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// In nanoseconds.
    full_at: u64,
}

impl Bucket {
    /// Takes so many tokens, all of them or none, or says how long until there are as many. More
    /// than the bucket holds are taken when it is full.
    ///
    /// # Errors
    /// The time to wait: after it they are there, if nobody takes any meanwhile.
    pub fn take(&mut self, count: usize, rate: Rate, now: Duration) -> Result<(), Duration> {
        let before = *self;
        let wait = self.spend(count, rate, now);
        if wait.is_zero() {
            return Ok(());
        }
        *self = before;
        Err(wait)
    }

    /// Takes a token that may not be there yet; how long until the debt is paid.
    pub fn borrow(&mut self, rate: Rate, now: Duration) -> Duration {
        self.spend(1, rate, now)
    }

    fn spend(&mut self, count: usize, rate: Rate, now: Duration) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number of nanoseconds, at most days"
        )]
        let nanos = |seconds: f64| (seconds * 1e9) as u64;
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let each = 1.0 / f64::from(rate.per_second);
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let count = count as f64;
        self.full_at = self.full_at.max(now) + nanos(each * count);
        let owed = self.full_at - now;
        let held = count.max(f64::from(rate.at_once));
        Duration::from_nanos(owed.saturating_sub(nanos(each * held)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn who_waits_as_long_as_it_is_told_is_let_in(
            per_second in 1_u32..5000,
            asked in proptest::collection::vec((0_usize..400, 0_u64..50), 1..40),
        ) {
            let (mut bucket, mut now) = (Bucket::default(), Duration::ZERO);
            let rate = Rate::messages(per_second);
            for (count, pause) in asked {
                now += Duration::from_millis(pause);
                if let Err(wait) = bucket.take(count, rate, now) {
                    proptest::prop_assert!(wait > Duration::ZERO);
                    now += wait;
                    proptest::prop_assert!(bucket.take(count, rate, now).is_ok());
                }
            }
        }
    }
}
