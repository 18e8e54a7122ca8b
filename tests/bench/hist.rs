//! A histogram of times whose buckets are 3 % wide.

/// Buckets of each power of two.
const PARTS: u64 = 32;
const PARTS_LOG: u32 = PARTS.trailing_zeros();
/// Times are counted in units of 2^8 ns.
const UNIT_LOG: u32 = 8;

/// Times in nanoseconds.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    /// How many.
    pub(crate) count: u64,
    /// The longest, in nanoseconds.
    pub(crate) longest: u64,
}

impl Histogram {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; 64 * PARTS as usize],
            count: 0,
            longest: 0,
        }
    }

    /// Adds a time in nanoseconds.
    #[inline]
    pub(crate) fn add(&mut self, nanos: u64) {
        let value = nanos >> UNIT_LOG;
        let power = (value | (PARTS - 1)).ilog2() - (PARTS_LOG - 1);
        let shift = power.saturating_sub(1);
        let place = u64::from(power) * PARTS + (value >> shift) % PARTS;
        self.counts[place as usize] += 1;
        self.count += 1;
        self.longest = self.longest.max(nanos);
    }

    /// The time in nanoseconds that this share of all (0 to 1) does not pass, to 3 %.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut passed = 0;
        for (place, count) in self.counts.iter().enumerate() {
            passed += count;
            if passed >= wanted {
                let (power, part) = (place as u64 / PARTS, place as u64 % PARTS);
                let value = if power == 0 {
                    part
                } else {
                    (PARTS + part) << (power - 1)
                };
                return (value << UNIT_LOG).min(self.longest);
            }
        }
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: quantiles are right to 4 %. Method: times from 1 µs to 1 s, evenly dealt.
    #[test]
    fn quantiles_are_right_to_four_percent() {
        let mut histogram = Histogram::new();
        for micros in 1..=1_000_000 {
            histogram.add(micros * 1000);
        }
        for share in [0.001, 0.1, 0.5, 0.99, 0.9999] {
            let found = histogram.quantile(share) as f64 / 1e9;
            assert!((found / share - 1.0).abs() < 0.04, "{share}: {found}");
        }
        assert_eq!(histogram.longest, 1_000_000_000);
    }
}
