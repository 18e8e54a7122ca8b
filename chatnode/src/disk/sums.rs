//! The checksum of a row: CRC-64 (the polynomial of ECMA-182, reflected, as in xz).
//!
//! It is there for disks that rot, not against people: any flipped bit, and any burst of up to 64,
//! is noticed for certain, anything else but for one in 2^64. Eight bytes at a time, since the whole
//! file is checked at each start.

const POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;

/// `TABLES[n][b]`: what byte `b` does to the sum when `n` bytes follow it.
const TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                (sum >> 1) ^ POLYNOMIAL
            } else {
                sum >> 1
            };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut after = 1;
    while after < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[after - 1][byte];
            tables[after][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        after += 1;
    }
    tables
}

/// A sum under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum(u64);

impl Sum {
    /// Of nothing.
    pub(super) fn new() -> Self {
        Self(u64::MAX)
    }

    /// Goes on with these bytes.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let x = (sum ^ u64::from_le_bytes(*eight)).to_le_bytes();
            sum = (0..8).fold(0, |sum, n| sum ^ TABLES[7 - n][usize::from(x[n])]);
        }
        for &byte in rest {
            let [low, ..] = sum.to_le_bytes();
            sum = (sum >> 8) ^ TABLES[0][usize::from(low ^ byte)];
        }
        Self(sum)
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
        (!self.0).cast_signed()
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
