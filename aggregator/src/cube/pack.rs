//! Whole numbers packed by the bit: how a month lies in `derived.db`.
//!
//! Numbers stand in frames of 64, each with its least number and the width of what is above it: reports of
//! neighbours on the map are alike, and a wide number costs its own frame only. Reading never allocates more
//! than the caller's count and never trusts a length.

/// Numbers in a frame: so many of any width fill whole bytes.
const FRAME: usize = 64;

/// What is read is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packed month does not read")]
pub struct Damaged;

/// Writes numbers.
#[derive(Default)]
pub(super) struct Packer {
    pub(super) bytes: Vec<u8>,
}

impl Packer {
    /// Seven bits a byte, the low ones first.
    pub(super) fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.bytes.push(n.to_le_bytes()[0] | 0x80);
            n >>= 7;
        }
        self.bytes.push(n.to_le_bytes()[0]);
    }

    pub(super) fn signed(&mut self, n: i64) {
        self.number((n.cast_unsigned() << 1) ^ (n >> 63).cast_unsigned());
    }

    pub(super) fn count(&mut self, n: usize) {
        self.number(n as u64);
    }

    /// Bytes with their length.
    pub(super) fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// A column. The reader must know how many numbers there are.
    pub(super) fn column(&mut self, numbers: &[u32]) {
        for frame in numbers.chunks(FRAME) {
            let least = frame.iter().copied().min().unwrap_or(0);
            let most = frame.iter().copied().max().unwrap_or(0);
            let width = 32 - (most - least).leading_zeros();
            self.bytes.push(width.to_le_bytes()[0]);
            self.number(u64::from(least));
            let (mut pending, mut bits) = (0u64, 0u32);
            for n in frame {
                pending |= u64::from(n - least) << bits;
                bits += width;
                if bits >= 32 {
                    self.bytes.extend_from_slice(&pending.to_le_bytes()[..4]);
                    pending >>= 32;
                    bits -= 32;
                }
            }
            self.bytes.extend_from_slice(&pending.to_le_bytes()[..bits.div_ceil(8) as usize]);
        }
    }
}

/// Reads what a [`Packer`] wrote.
pub(super) struct Unpacker<'a> {
    bytes: &'a [u8],
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Unpacker<'a> {
        Unpacker { bytes }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(Damaged)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn number(&mut self) -> Result<u64, Damaged> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)?.first_chunk::<1>().ok_or(Damaged)?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(Damaged)
    }

    pub(super) fn signed(&mut self) -> Result<i64, Damaged> {
        let n = self.number()?;
        Ok((n >> 1).cast_signed() ^ -((n & 1).cast_signed()))
    }

    /// A count of things that take at least one byte for every [`FRAME`] of them.
    pub(super) fn count(&mut self) -> Result<usize, Damaged> {
        let n = usize::try_from(self.number()?).map_err(|_| Damaged)?;
        if n / FRAME > self.bytes.len() { Err(Damaged) } else { Ok(n) }
    }

    pub(super) fn blob(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.count()?;
        self.take(length)
    }

    /// A column of `count` numbers, in a vector of exactly that size.
    pub(super) fn column(&mut self, count: usize) -> Result<Vec<u32>, Damaged> {
        if count / FRAME > self.bytes.len() {
            return Err(Damaged);
        }
        let mut numbers = Vec::with_capacity(count);
        while numbers.len() < count {
            let some = (count - numbers.len()).min(FRAME);
            let width = usize::from(*self.take(1)?.first().ok_or(Damaged)?);
            if width > 32 {
                return Err(Damaged);
            }
            let least = u32::try_from(self.number()?).map_err(|_| Damaged)?;
            let packed = self.take((some * width).div_ceil(8))?;
            if width == 0 {
                numbers.resize(numbers.len() + some, least);
                continue;
            }
            // Eight bytes can be read from wherever a number begins.
            let mut frame = [0u8; FRAME * 4 + 8];
            frame[..packed.len()].copy_from_slice(packed);
            let mask = (1u64 << width) - 1;
            numbers.extend((0..some).map(|at| {
                let bit = at * width;
                let word =
                    frame[bit / 8..].first_chunk::<8>().map_or(0, |w| u64::from_le_bytes(*w));
                // At most 32 bits are left.
                least.wrapping_add(((word >> (bit % 8)) & mask) as u32)
            }));
        }
        Ok(numbers)
    }

    pub(super) fn end(&self) -> Result<(), Damaged> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

/// A difference of either sign as a small number.
pub(super) fn fold(n: u32) -> u32 {
    (n << 1) ^ (n.cast_signed() >> 31).cast_unsigned()
}

/// Undoes [`fold`].
pub(super) fn unfold(n: u32) -> u32 {
    (n >> 1) ^ (n & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_column_is_read_as_it_was_written(
            numbers in prop::collection::vec(prop_oneof![0u32..9, any::<u32>()], 0..300),
            signed in any::<i64>(), n in any::<u64>(),
        ) {
            let mut packer = Packer::default();
            packer.column(&numbers);
            packer.signed(signed);
            packer.number(n);
            packer.blob(b"bytes");
            let mut read = Unpacker::new(&packer.bytes);
            prop_assert_eq!(read.column(numbers.len()).unwrap(), numbers);
            prop_assert_eq!(read.signed().unwrap(), signed);
            prop_assert_eq!(read.number().unwrap(), n);
            prop_assert_eq!(read.blob().unwrap(), b"bytes");
            prop_assert!(read.end().is_ok());
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..200), count in any::<usize>(),
        ) {
            let _ = Unpacker::new(&bytes).column(count);
            let _ = Unpacker::new(&bytes).blob();
            let _ = Unpacker::new(&bytes).signed();
        }

        #[test]
        fn a_difference_folds_and_unfolds(n in any::<u32>()) {
            prop_assert_eq!(unfold(fold(n)), n);
        }
    }
}
