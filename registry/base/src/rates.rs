//! How fast something may come from each address, where who comes is whoever has an address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::bucket::{Bucket, Rate};

/// Addresses that are remembered at the most; beyond, the one that was quiet longest is forgotten.
const ADDRESSES_MAX: usize = 4096;
/// A bucket that nobody took from for so long is full again: forgetting it changes nothing.
const FULL_AFTER: Duration = Duration::from_secs(2);

/// A bucket for each address.
#[derive(Debug, Default)]
pub struct Rates {
    buckets: HashMap<IpAddr, (Bucket, Duration)>,
}

impl Rates {
    /// Counts one that comes.
    ///
    /// # Errors
    /// The time until the next is allowed, if this one is not.
    pub fn count(&mut self, from: IpAddr, rate: Rate, now: Duration) -> Result<(), Duration> {
        let from = network(from);
        if !self.buckets.contains_key(&from) && self.buckets.len() >= ADDRESSES_MAX {
            self.forget(now);
        }
        let fresh = || (Bucket::default(), now);
        let (bucket, last) = self.buckets.entry(from).or_insert_with(fresh);
        *last = now;
        bucket.take(1, rate, now)
    }

    fn forget(&mut self, now: Duration) {
        self.buckets.retain(|_, (_, last)| now < *last + FULL_AFTER);
        if self.buckets.len() >= ADDRESSES_MAX {
            let oldest = self.buckets.iter().min_by_key(|(_, (_, last))| *last);
            if let Some(oldest) = oldest.map(|(from, _)| *from) {
                self.buckets.remove(&oldest);
            }
        }
    }
}

/// Whose an address is: in IPv6 one host has a network of them.
pub fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        IpAddr::V4(ip) => ip.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(rates: &mut Rates, from: &str, now: Duration) -> usize {
        let from = from.parse().unwrap();
        let taken = (0..100).take_while(|_| rates.count(from, Rate::messages(20), now).is_ok());
        taken.count()
    }

    #[test]
    fn each_address_has_a_rate_of_its_own() {
        let mut rates = Rates::default();
        assert_eq!(burst(&mut rates, "10.0.0.1", Duration::ZERO), 40);
        assert_eq!(burst(&mut rates, "::ffff:10.0.0.1", Duration::ZERO), 0);
        assert_eq!(burst(&mut rates, "10.0.0.2", Duration::ZERO), 40);
        assert_eq!(burst(&mut rates, "2001:db8::1", Duration::ZERO), 40);
        assert_eq!(burst(&mut rates, "2001:db8::2", Duration::ZERO), 0);
        assert_eq!(burst(&mut rates, "2001:db8:0:1::1", Duration::ZERO), 40);
        assert_eq!(burst(&mut rates, "10.0.0.1", Duration::from_secs(1)), 20);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let mut rates = Rates::default();
        for count in 0..10_000_u32 {
            let from = IpAddr::from(count.to_be_bytes());
            assert!(
                rates
                    .count(from, Rate::messages(1), Duration::from_micros(count.into()))
                    .is_ok()
            );
        }
        assert_eq!(rates.buckets.len(), ADDRESSES_MAX);
        assert!(rates.buckets.contains_key(&9_999_u32.to_be_bytes().into()));
        assert!(!rates.buckets.contains_key(&0_u32.to_be_bytes().into()));
        let later = Duration::from_secs(3);
        assert!(
            rates
                .count("10.9.9.9".parse().unwrap(), Rate::messages(1), later)
                .is_ok()
        );
        assert_eq!(rates.buckets.len(), 1, "full buckets are not remembered");
    }
}
