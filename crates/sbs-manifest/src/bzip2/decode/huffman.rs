//! The prefix codes of a block.

use super::bits::Bits;

/// A code for up to [`MAX_SYMBOLS`] symbols with lengths of 1 to [`MAX_LENGTH`] bits.
///
/// bzip2 never asks that the lengths make a complete code. Where there are too few, some bit
/// patterns mean nothing; where there are too many, the symbols at the end have no pattern.
pub(crate) struct Code {
    /// For the next [`WIDTH`] bits: symbol and length; 0 where `long` has to be asked.
    short: [Entry; 1 << WIDTH],
    /// For each length, where its codes end, as the top bits of a number of 32 bits, and what has
    /// to be subtracted from a code to get its place in `symbols`.
    long: [(u64, u32); LENGTHS],
    /// The symbols in the order of their codes.
    symbols: [u16; MAX_SYMBOLS],
}

/// A symbol, 32 times, plus the length of its code.
type Entry = u16;

impl Code {
    pub(crate) fn new() -> Self {
        Self { short: [0; 1 << WIDTH], long: [(0, 0); LENGTHS], symbols: [0; MAX_SYMBOLS] }
    }

    /// Makes the code in which each symbol has the given length, of [`MAX_LENGTH`] at most.
    ///
    /// Codes are numbers that count up: first all of one bit, in the order of their symbols, then
    /// all of two, and so on.
    pub(crate) fn set(&mut self, lengths: &[u8]) {
        let mut sorted = self.symbols.as_mut_slice();
        let mut short = self.short.as_mut_slice();
        let (mut next, mut places) = (0_u64, 0_u32);
        for (length, long) in (0_u16..).zip(&mut self.long).skip(1) {
            let step = END >> length;
            *long = (next, low(next / step).wrapping_sub(places));
            for (symbol, _) in (0_u16..).zip(lengths).filter(|(_, has)| u16::from(**has) == length)
            {
                if let Some(place) = sorted.split_off_first_mut() {
                    *place = symbol;
                    places += 1;
                }
                // A pattern of that length covers all entries that begin with it.
                let covers = (1_usize << WIDTH) >> length;
                if covers > 0
                    && next < END
                    && let Some(entries) = short.split_off_mut(..covers)
                {
                    entries.fill(symbol << 5 | length);
                }
                next = END.min(next + step);
            }
            long.0 = next;
        }
        short.fill(0);
    }

    /// Takes the next symbol; at least [`MAX_LENGTH`] bits must be loaded.
    #[inline]
    pub(crate) fn take(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let top = bits.peek() >> (64 - WIDTH);
        let entry = self.short.get(top as usize).copied().unwrap_or_default();
        if entry != 0 {
            bits.skip(u32::from(entry & 31));
            return Some(entry >> 5);
        }
        self.take_long(bits)
    }

    #[cold]
    fn take_long(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let top = bits.peek() >> 32;
        let (length, (_, offset)) =
            (0_u32..).zip(self.long).skip(1).find(|(_, (end, _))| top < *end)?;
        bits.skip(length);
        let place = low(top >> (32 - length)).wrapping_sub(offset);
        self.symbols.get(place as usize).copied()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "callers have made it fit")]
fn low(number: u64) -> u32 {
    number as u32
}

/// Every byte but one as a distance, two symbols for runs, one for the end.
pub(crate) const MAX_SYMBOLS: usize = 258;
/// Bits of the longest code.
pub(crate) const MAX_LENGTH: u32 = 20;
const LENGTHS: usize = MAX_LENGTH as usize + 1;
/// Bits that one look decodes: few codes are longer, and six tables fit the first-level cache.
const WIDTH: u32 = 10;
/// Behind the last code.
const END: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes a symbol bit by bit: libbz2's "limit" and "base", in the words of its manual.
    fn slowly(lengths: &[u8], bits: &mut Bits<'_>) -> Option<u16> {
        let (mut pattern, mut first) = (0_u64, 0_u64);
        for length in 1..=20 {
            pattern = pattern << 1 | u64::from(bits.take(1));
            first <<= 1;
            let symbols = (0_u16..).zip(lengths).filter(|(_, has)| **has == length);
            let found = symbols.map(|(symbol, _)| symbol).collect::<Vec<_>>();
            if pattern < first + found.len() as u64 {
                return found.get(usize::try_from(pattern - first).unwrap()).copied();
            }
            first += found.len() as u64;
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Most of these have too few codes or too many.
        #[test]
        fn any_lengths_are_taken_as_bit_by_bit(
            lengths in prop_oneof![
                prop::collection::vec(1..=20_u8, 3..=258),
                prop::collection::vec(6..=10_u8, 3..=258),
                prop::collection::vec(10..=13_u8, 3..=258),
                prop::collection::vec(15..=20_u8, 3..=20),
            ],
            bytes in prop::collection::vec(any::<u8>(), 60),
        ) {
            let mut code = Code::new();
            // What another block has left must not matter.
            code.set(&[1; MAX_SYMBOLS]);
            code.set(&lengths);
            let (mut ours, mut slow) = (Bits::new(&bytes, 0), Bits::new(&bytes, 0));
            for _ in 0..20 {
                ours.refill();
                let symbol = code.take(&mut ours);
                prop_assert_eq!(symbol, slowly(&lengths, &mut slow));
                if symbol.is_none() {
                    break;
                }
                prop_assert_eq!(ours.position(), slow.position());
            }
        }
    }
}
