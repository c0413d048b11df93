//! Columns of whole numbers, packed: the inside of a batch.
//!
//! Repeats, steady steps and small spreads cost almost nothing. Decoding is bounded by the caller's count
//! of values and never allocates more than that.

use super::WireError;

/// Writes bytes and bits.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// LEB128: seven bits a byte, the low ones first.
    pub(super) fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.bytes.push(n.to_le_bytes()[0] | 0x80);
            n >>= 7;
        }
        self.bytes.push(n.to_le_bytes()[0]);
    }

    pub(super) fn signed(&mut self, n: i64) {
        self.varint(zigzag(n));
    }

    fn packed(&mut self, values: impl Iterator<Item = u64>, width: u32) {
        let (mut pending, mut bits) = (0u128, 0u32);
        for value in values {
            pending |= u128::from(value) << bits;
            bits += width;
            while bits >= 8 {
                self.bytes.push(pending.to_le_bytes()[0]);
                pending >>= 8;
                bits -= 8;
            }
        }
        if bits > 0 {
            self.bytes.push(pending.to_le_bytes()[0]);
        }
    }

    /// A column in the shortest of its four forms. The reader must know how many values there are.
    pub(super) fn column(&mut self, values: &[u64]) {
        let Some((&first, rest)) = values.split_first() else { return };
        let min = values.iter().copied().min().unwrap_or(first);
        let width = values.iter().map(|v| bits(v - min)).max().unwrap_or(0);
        let deltas: Option<Vec<i64>> = values
            .windows(2)
            .map(|pair| i64::try_from(i128::from(pair[1]) - i128::from(pair[0])).ok())
            .collect();
        if width == 0 {
            self.byte(CONSTANT);
            self.varint(first);
            return;
        }
        if let Some(deltas) = deltas.filter(|deltas| !deltas.is_empty()) {
            let low = deltas.iter().copied().min().unwrap_or(0);
            let spread = |d: i64| (i128::from(d) - i128::from(low)).try_into().unwrap_or(u64::MAX);
            let delta_width = deltas.iter().map(|&d| bits(spread(d))).max().unwrap_or(0);
            if delta_width == 0 {
                self.byte(STEADY);
                self.varint(first);
                self.signed(low);
                return;
            }
            let plain = u64::from(width) * count(values) + varint_bits(min);
            let stepped = u64::from(delta_width) * count(rest)
                + varint_bits(first)
                + varint_bits(zigzag(low));
            if stepped < plain {
                self.byte(STEPS | u8_of(delta_width));
                self.varint(first);
                self.signed(low);
                self.packed(deltas.iter().map(|&d| spread(d)), delta_width);
                return;
            }
        }
        self.byte(PACKED | u8_of(width));
        self.varint(min);
        self.packed(values.iter().map(|v| v - min), width);
    }
}

/// All values alike: the value.
const CONSTANT: u8 = 0;
/// A constant step: the first value, the step.
const STEADY: u8 = 1;
/// Width 1–64 in the low seven bits: the least value, then each value less it.
const PACKED: u8 = 0x00;
/// Like [`PACKED`], of the steps between values: the first value, the least step, the steps less it.
const STEPS: u8 = 0x80;
/// Added to a width so that 1 is told from [`STEADY`].
const WIDTH_BASE: u8 = 1;

fn u8_of(width: u32) -> u8 {
    u8::try_from(width).unwrap_or(64) + WIDTH_BASE
}

fn count<T>(values: &[T]) -> u64 {
    u64::try_from(values.len()).unwrap_or(u64::MAX)
}

fn bits(n: u64) -> u32 {
    64 - n.leading_zeros()
}

fn varint_bits(n: u64) -> u64 {
    u64::from(bits(n).div_ceil(7).max(1)) * 8
}

fn zigzag(n: i64) -> u64 {
    (n.cast_unsigned() << 1) ^ (n >> 63).cast_unsigned()
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -((n & 1).cast_signed())
}

/// Reads what [`Writer`] wrote.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.bytes.split_at_checked(n).ok_or(WireError::Truncated)?;
        self.bytes = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                break;
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                // One spelling of each number: a longer one would be a second spelling.
                return if byte == 0 && shift > 0 {
                    Err(WireError::Malformed("a number has superfluous bytes"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(WireError::Malformed("a number is longer than 64 bits"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, WireError> {
        self.varint().map(unzigzag)
    }

    /// A varint that may be at most `max`.
    pub(super) fn bounded(&mut self, max: usize, what: &'static str) -> Result<usize, WireError> {
        let n = self.varint()?;
        usize::try_from(n).ok().filter(|n| *n <= max).ok_or(WireError::TooMany { what, max })
    }

    fn packed(&mut self, n: usize, width: u32) -> Result<Vec<u64>, WireError> {
        let total = u64::try_from(n)
            .ok()
            .and_then(|n| n.checked_mul(u64::from(width)))
            .ok_or(WireError::Truncated)?;
        let bytes =
            self.take(usize::try_from(total.div_ceil(8)).map_err(|_| WireError::Truncated)?)?;
        let mask = if width >= 64 { u64::MAX } else { (1 << width) - 1 };
        let (mut pending, mut held, mut at) = (0u128, 0u32, 0usize);
        let mut values = Vec::with_capacity(n);
        for _ in 0..n {
            while held < width {
                pending |= u128::from(bytes[at]) << held;
                at += 1;
                held += 8;
            }
            values.push(u64::try_from(pending & u128::from(mask)).unwrap_or(u64::MAX));
            pending >>= width;
            held -= width;
        }
        Ok(values)
    }

    /// A column of `n` values.
    pub(super) fn column(&mut self, n: usize) -> Result<Vec<u64>, WireError> {
        if n == 0 {
            return Ok(Vec::new());
        }
        let overflow = WireError::Malformed("a column runs past 64 bits");
        let mode = self.byte()?;
        match mode {
            CONSTANT => {
                let value = self.varint()?;
                Ok(vec![value; n])
            }
            STEADY => {
                let (first, step) = (self.varint()?, self.signed()?);
                let mut values = Vec::with_capacity(n);
                let mut at = first;
                for left in (0..n).rev() {
                    values.push(at);
                    if left > 0 {
                        at = at.checked_add_signed(step).ok_or(overflow)?;
                    }
                }
                Ok(values)
            }
            _ => {
                let width = u32::from((mode & 0x7f).saturating_sub(WIDTH_BASE));
                if !(1..=64).contains(&width) {
                    return Err(WireError::Malformed("a column has an impossible width"));
                }
                if mode & STEPS == 0 {
                    let min = self.varint()?;
                    let spread = self.packed(n, width)?;
                    spread.into_iter().map(|v| v.checked_add(min).ok_or(overflow)).collect()
                } else {
                    let (first, low) = (self.varint()?, self.signed()?);
                    let steps = self.packed(n - 1, width)?;
                    let mut at = first;
                    let mut values = Vec::with_capacity(n);
                    values.push(first);
                    for step in steps {
                        let step = i128::from(low) + i128::from(step);
                        at = u64::try_from(i128::from(at) + step).map_err(|_| overflow)?;
                        values.push(at);
                    }
                    Ok(values)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn length(values: &[u64]) -> usize {
        let mut writer = Writer::default();
        writer.column(values);
        writer.bytes.len()
    }

    #[test]
    fn repeats_and_steps_cost_almost_nothing() {
        assert_eq!(length(&[0; 1000]), 2);
        assert_eq!(length(&(1..=1000).collect::<Vec<_>>()), 3);
        assert_eq!(length(&[1, 0].repeat(400)), 2 + 100);
    }

    proptest! {
        #[test]
        fn columns_read_back(
            values in prop_oneof![
                prop::collection::vec(any::<u64>(), 0..40),
                prop::collection::vec(0u64..40, 0..300),
                (any::<u64>(), 0u64..9, 0usize..50)
                    .prop_map(|(a, s, n)| (0..n as u64).map(|i| a.wrapping_add(i * s)).collect()),
            ],
        ) {
            let mut writer = Writer::default();
            writer.column(&values);
            let mut reader = Reader { bytes: &writer.bytes };
            prop_assert_eq!(reader.column(values.len()).unwrap(), values);
            prop_assert!(reader.bytes.is_empty());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), n in 0usize..200) {
            let mut reader = Reader { bytes: &bytes };
            let _ = reader.column(n);
        }
    }
}
