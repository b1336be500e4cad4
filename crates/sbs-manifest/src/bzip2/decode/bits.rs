//! Bits of a byte string, the most significant of each byte first.

/// Reads bits. Behind the last byte there are zeros without end, and [`Bits::is_past_end`] tells.
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    /// The byte that is loaded next; goes on behind the end.
    next: usize,
    /// Loaded bits, the first of them on top. What is below `count` bits has no meaning, but is
    /// what stands there in `bytes`.
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// Begins at bit `position` of `bytes`.
    pub(crate) fn new(bytes: &'a [u8], position: usize) -> Self {
        let mut bits = Self { bytes, next: position / 8, buffer: 0, count: 0 };
        bits.take_short((position % 8).to_le_bytes()[0].into());
        bits
    }

    /// Returns how many bits are before the next one.
    pub(crate) fn position(&self) -> usize {
        8 * self.next - self.count as usize
    }

    /// Tells whether more bits were taken than there are.
    pub(crate) fn is_past_end(&self) -> bool {
        self.position() > 8 * self.bytes.len()
    }

    /// Loads bits: at least 56 are there.
    #[inline]
    pub(crate) fn refill(&mut self) {
        let rest = self.bytes.get(self.next..).unwrap_or_default();
        let word = if let Some(word) = rest.first_chunk() {
            u64::from_be_bytes(*word)
        } else {
            let mut word = [0; 8];
            word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            u64::from_be_bytes(word)
        };
        self.buffer |= word >> self.count;
        let taken = (63 - self.count) / 8;
        self.next += taken as usize;
        self.count += 8 * taken;
    }

    /// Returns the loaded bits, the next one on top.
    #[inline]
    pub(crate) fn peek(&self) -> u64 {
        self.buffer
    }

    /// Drops `count` bits, which must be loaded.
    #[inline]
    pub(crate) fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.count -= count;
    }

    /// Returns the number of loaded bits.
    #[inline]
    pub(crate) fn loaded(&self) -> u32 {
        self.count
    }

    /// Takes up to 32 bits as a number.
    pub(crate) fn take(&mut self, count: u32) -> u32 {
        self.refill();
        self.take_loaded(count)
    }

    pub(crate) fn take_bit(&mut self) -> bool {
        self.take(1) == 1
    }

    fn take_short(&mut self, count: u32) {
        self.refill();
        self.skip(count);
    }

    #[expect(clippy::cast_possible_truncation, reason = "these are up to 32 bits")]
    fn take_loaded(&mut self, count: u32) -> u32 {
        // Two shifts, because one by 64 is none.
        let taken = (self.buffer >> 1 >> (63 - count)) as u32;
        self.skip(count);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_bits_that_stand_there() {
        let bytes: Vec<u8> = (0..40_u8).map(|at| at.wrapping_mul(0x9d) ^ 0x5a).collect();
        let expected: Vec<bool> =
            bytes.iter().flat_map(|byte| (0..8).map(move |at| byte >> (7 - at) & 1 == 1)).collect();
        for start in [0, 1, 7, 8, 63, 64, 65, 319, 320] {
            for width in [1, 3, 8, 13, 31, 32] {
                let mut bits = Bits::new(&bytes, start);
                let mut at = start;
                while at < expected.len() + 100 {
                    assert_eq!(bits.position(), at);
                    assert_eq!(bits.is_past_end(), at > expected.len());
                    let bit = |at| u32::from(expected.get(at).copied().unwrap_or(false));
                    let number = (0..width).fold(0, |number, i| number << 1 | bit(at + i));
                    assert_eq!(bits.take(u32::try_from(width).unwrap()), number);
                    at += width;
                }
            }
        }
    }
}
