//! The mark that each message begins with, and the ledger of what arrived where.
//!
//! A mark is ten characters that JSON leaves alone: `~`, three that name the run, and six digits of
//! base 64: two for the sender, four for the number of its message. The ledger keeps, for each client
//! and sender, the number that comes next; what was left out stands in a set until it comes late. So
//! lost, doubled and reordered messages are told exactly, for four bytes a client and sender.

use std::collections::HashSet;

/// Length of a mark, and so of the shortest message.
pub(crate) const MARK: usize = 10;
/// Most senders that a mark can name.
pub(crate) const SENDERS_MAX: usize = 1 << 12;
/// Most messages of one sender.
pub(crate) const NUMBERS_MAX: u32 = 1 << 24;
/// Most messages that are remembered as left out; further ones are lost even if they come late.
const MISSING_MAX: usize = 2_000_000;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut values = [u8::MAX; 256];
    let mut digit = 0;
    while digit < DIGITS.len() {
        values[DIGITS[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
}

/// `~` and three characters: how marks of one run begin.
pub(crate) type Tag = [u8; 4];

/// A tag of this number.
pub(crate) fn tag(number: u32) -> Tag {
    let digit = |shift: u32| DIGITS[(number >> shift & 63) as usize];
    [b'~', digit(0), digit(6), digit(12)]
}

/// The mark of a sender's message.
pub(crate) fn mark(tag: Tag, sender: u32, number: u32) -> [u8; MARK] {
    let mut mark = [0; MARK];
    mark[..4].copy_from_slice(&tag);
    let value = u64::from(sender) << 24 | u64::from(number);
    for (place, digit) in mark[4..].iter_mut().enumerate() {
        *digit = DIGITS[(value >> (30 - 6 * place) & 63) as usize];
    }
    mark
}

/// Sender and number, if a mark of this run stands here.
#[inline]
pub(crate) fn read(tag: Tag, bytes: &[u8]) -> Option<(u32, u32)> {
    let bytes: &[u8; MARK] = bytes.get(..MARK)?.try_into().ok()?;
    if bytes[..4] != tag {
        return None;
    }
    let mut value = 0u64;
    let mut wrong = 0;
    for byte in &bytes[4..] {
        let digit = VALUES[usize::from(*byte)];
        wrong |= digit & 0xc0;
        value = value << 6 | u64::from(digit);
    }
    (wrong == 0).then_some(((value >> 24) as u32, (value & 0xff_ffff) as u32))
}

/// What became of every message at every client.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    senders: usize,
    /// For each client and sender, the number that comes next.
    next: Vec<u32>,
    /// Client, sender, number: left out so far.
    missing: HashSet<(u32, u32, u32)>,
    /// Left out beyond what `missing` holds.
    forgotten: u64,
    /// Arrived again.
    pub(crate) doubled: u64,
    /// Arrived after a later one of the same sender.
    pub(crate) reordered: u64,
    /// Arrived where it should not have.
    pub(crate) astray: u64,
}

impl Ledger {
    /// For so many clients and senders.
    pub(crate) fn new(clients: usize, senders: usize) -> Self {
        Self {
            senders,
            next: vec![0; clients * senders],
            ..Self::default()
        }
    }

    /// A message arrived at a client. False if it had arrived before.
    #[inline]
    pub(crate) fn take(&mut self, client: usize, sender: u32, number: u32) -> bool {
        let Some(next) = self.next.get_mut(client * self.senders + sender as usize) else {
            self.astray += 1;
            return false;
        };
        if *next == number {
            *next += 1;
            return true;
        }
        self.take_unexpected(client, sender, number)
    }

    #[cold]
    fn take_unexpected(&mut self, client: usize, sender: u32, number: u32) -> bool {
        let next = &mut self.next[client * self.senders + sender as usize];
        if number < *next {
            let late = self.missing.remove(&(client as u32, sender, number));
            self.reordered += u64::from(late);
            self.doubled += u64::from(!late);
            return late;
        }
        for left_out in *next..number {
            if self.missing.len() < MISSING_MAX {
                self.missing.insert((client as u32, sender, left_out));
            } else {
                self.forgotten += 1;
            }
        }
        *next = number + 1;
        true
    }

    /// Messages that clients should have got and did not, when each sender has sent so many and
    /// `expects` tells who is to get a sender's messages.
    pub(crate) fn lost(&self, sent: &[u32], expects: impl Fn(usize, usize) -> bool) -> u64 {
        let clients = self.next.len() / self.senders.max(1);
        let mut lost = self.missing.len() as u64 + self.forgotten;
        for client in 0..clients {
            for (sender, sent) in sent.iter().enumerate() {
                if expects(client, sender) {
                    lost += u64::from(sent - self.next[client * self.senders + sender]);
                }
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a mark is read as it was written. Method: extreme senders and numbers, and wrong text.
    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let run = tag(77_777);
        for (sender, number) in [(0, 0), (4095, NUMBERS_MAX - 1), (9, 1_234_567)] {
            assert_eq!(
                read(run, &mark(run, sender, number)),
                Some((sender, number))
            );
        }
        assert_eq!(read(run, &mark(tag(5), 1, 1)), None, "another run's");
        assert_eq!(read(run, &mark(run, 1, 1)[..9]), None, "cut short");
        let mut wrong = mark(run, 1, 1);
        wrong[9] = b'"';
        assert_eq!(read(run, &wrong), None, "no digit");
    }

    /// Goal: the ledger tells lost, doubled, reordered and astray messages apart, exactly.
    /// Method: two clients, two senders, one of each fault.
    #[test]
    fn the_ledger_tells_lost_doubled_and_reordered_apart() {
        let mut ledger = Ledger::new(2, 2);
        for number in 0..4 {
            assert!(ledger.take(0, 0, number));
        }
        assert!(!ledger.take(0, 0, 2), "came again");
        assert!(ledger.take(1, 0, 0));
        assert!(ledger.take(1, 0, 3), "1 and 2 are left out");
        assert!(ledger.take(1, 0, 2), "2 comes late");
        assert!(!ledger.take(1, 0, 2), "and again");
        assert!(!ledger.take(1, 3, 0), "no such sender: client 2's place");
        assert_eq!((ledger.doubled, ledger.reordered, ledger.astray), (2, 1, 1));
        // Of sender 0: client 1 lacks number 1. Of sender 1: nobody has got its one message.
        assert_eq!(ledger.lost(&[4, 1], |_, _| true), 1 + 2);
        assert_eq!(
            ledger.lost(&[4, 1], |client, sender| sender == 0 || client == 0),
            2
        );
    }
}
