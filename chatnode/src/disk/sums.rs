//! The checksum of a row: CRC-64 (the polynomial of ECMA-182, reflected, as in xz).
//!
//! It is there for disks that rot, not against people: any flipped bit, and any burst of up to 64,
//! is noticed for certain, anything else but for one in 2^64. Sixteen bytes at a time, since the
//! whole file is checked at each start.

use crc::{CRC_64_XZ, Crc, Digest, Table};

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// A sum under way.
pub(super) struct Sum(Digest<'static, u64, Table<16>>);

impl Sum {
    /// Of nothing.
    pub(super) fn new() -> Self {
        Self(CRC.digest())
    }

    /// Goes on with these bytes.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// Goes on with bytes of which the length is part of the sum, so that what ends one field
    /// cannot begin the next.
    pub(super) fn field(self, bytes: &[u8]) -> Self {
        self.number(bytes.len() as u64).bytes(bytes)
    }

    /// Goes on with a number.
    pub(super) fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// The sum, as SQLite keeps it.
    pub(super) fn end(self) -> i64 {
        self.0.finalize().cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the sum is the one that is published. Method: the check value of CRC-64/XZ, whole and
    /// in pieces of every length, so that both ways through the table are taken.
    #[test]
    fn the_sum_is_crc_64_of_xz() {
        let text = b"123456789";
        for cut in 0..=text.len() {
            let sum = Sum::new().bytes(&text[..cut]).bytes(&text[cut..]);
            assert_eq!(sum.end().cast_unsigned(), 0x995D_C9BB_DF19_39FA);
        }
    }
}
