//! Decodes blocks of bzip2.
//!
//! There is no standard for the format. What is taken is what libbz2 1.0.8 takes, but for blocks
//! with the "randomised" bit, which no version since 0.9.5 (1999) has written: they are refused.

mod bits;
mod bwt;
mod huffman;
mod recent;
mod runs;

use thiserror::Error;

pub(crate) use self::bits::Bits;
use self::bwt::Inverse;
pub(crate) use self::bwt::MAX_BLOCK;
use self::huffman::{Code, MAX_LENGTH, MAX_SYMBOLS};
use self::recent::Recent;
use self::runs::Runs;

/// Decodes blocks, one after the other. Takes at most 7 MiB, and less for small blocks.
pub(crate) struct Decoder {
    codes: [Code; MAX_CODES],
    /// The bytes of a block as they were sorted, and room for a short run behind them.
    sorted: Box<[u8]>,
    inverse: Inverse,
}

/// A block that was decoded.
pub(crate) struct Block {
    /// The bit behind the last one of the block.
    pub(crate) end: usize,
    /// The checksum that the block says it has.
    pub(crate) crc: u32,
    /// Bytes that were sorted: a hundred thousand for each level, at most.
    pub(crate) sorted: usize,
    /// The first [`MAX_CONTENT`] bytes, or all, and what follows them.
    pub(crate) content: Vec<u8>,
    pub(crate) text: Runs,
}

/// Why a block cannot be decoded.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum DecodeError {
    #[error("bzip2 data is damaged")]
    Damaged,

    /// More bytes may help.
    #[error("bzip2 data ends too early")]
    Truncated,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        let sorted = vec![0; MAX_BLOCK + FILL].into_boxed_slice();
        Self { codes: std::array::from_fn(|_| Code::new()), sorted, inverse: Inverse::new() }
    }

    /// Decodes the block whose magic number ends before bit `position`.
    pub(crate) fn decode(&mut self, bytes: &[u8], position: usize) -> Result<Block, DecodeError> {
        let mut bits = Bits::new(bytes, position);
        let decoded = self.block(&mut bits);
        // What stands behind the end is zeros that are not there, and a failure says nothing.
        if bits.is_past_end() {
            Err(DecodeError::Truncated)
        } else {
            decoded.ok_or(DecodeError::Damaged)
        }
    }

    fn block(&mut self, bits: &mut Bits<'_>) -> Option<Block> {
        let crc = bits.take(32);
        let is_randomised = bits.take_bit();
        let origin = bits.take(24) as usize;
        if is_randomised {
            return None;
        }
        let used = used_bytes(bits);
        if used.is_empty() {
            return None;
        }
        let selectors = self.codes(bits, used.len())?;
        let size = self.symbols(bits, &used, &selectors)?;
        let sorted = self.sorted.get(..size)?;
        if origin >= size || bits.is_past_end() {
            return None;
        }
        let mut text = Runs::new(self.inverse.undo(sorted, origin));
        let content = text.next(MAX_CONTENT);
        Some(Block { end: bits.position(), crc, sorted: size, content, text })
    }

    /// Reads the codes; returns which of them is for which group of symbols.
    fn codes(&mut self, bits: &mut Bits<'_>, used: usize) -> Option<Vec<u8>> {
        let count = bits.take(3) as usize;
        let codes = self.codes.get_mut(..count).filter(|codes| codes.len() >= MIN_CODES)?;
        let selectors = selectors(bits, count)?;
        for code in codes {
            let mut lengths = [0; MAX_SYMBOLS];
            let lengths = lengths.get_mut(..used + 2)?;
            read_lengths(bits, lengths)?;
            code.set(lengths);
        }
        Some(selectors)
    }

    /// Decodes the symbols, up to that for the end, to the bytes that were sorted; returns how many.
    fn symbols(&mut self, bits: &mut Bits<'_>, used: &[u8], selectors: &[u8]) -> Option<usize> {
        let sorted = &mut *self.sorted;
        let mut recent = Recent::new(used);
        let end = used.len() + 1;
        let (mut size, mut run, mut weight) = (0, 0, 1);
        for selector in selectors {
            let code = self.codes.get(usize::from(*selector))?;
            for _ in 0..GROUP {
                if bits.loaded() < MAX_LENGTH {
                    bits.refill();
                }
                let symbol = usize::from(code.take(bits)?);
                if symbol < 2 {
                    run += weight << symbol;
                    weight *= 2;
                    if run > MAX_BLOCK {
                        return None;
                    }
                    continue;
                }
                if run > MAX_BLOCK - size {
                    return None;
                }
                size = fill(sorted, size, run, recent.first());
                (run, weight) = (0, 1);
                if symbol == end {
                    return Some(size);
                }
                if size == MAX_BLOCK {
                    return None;
                }
                *sorted.get_mut(size)? = recent.take(symbol - 1);
                size += 1;
            }
        }
        None
    }
}

/// Writes `count` times `byte` at `at`, and whatever behind it; returns where that is.
#[inline]
fn fill(text: &mut [u8], at: usize, count: usize, byte: u8) -> usize {
    // Nearly all runs are short, and one store of a fixed size is the fastest for all of them.
    if let Some(short) = text.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<FILL>()) {
        *short = [byte; FILL];
    }
    if count > FILL
        && let Some(long) = text.get_mut(at..at + count)
    {
        long.fill(byte);
    }
    at + count
}

/// Reads which bytes the block has: which of sixteen ranges, then which of each range.
fn used_bytes(bits: &mut Bits<'_>) -> Vec<u8> {
    let ranges = bits.take(16);
    let mut used = Vec::with_capacity(256);
    for range in (0..16_u8).filter(|range| ranges << range & 0x8000 != 0) {
        let bytes = bits.take(16);
        used.extend(
            (0..16).filter(|byte| bytes << byte & 0x8000 != 0).map(|byte| 16 * range + byte),
        );
    }
    used
}

fn selectors(bits: &mut Bits<'_>, codes: usize) -> Option<Vec<u8>> {
    let count = bits.take(15) as usize;
    let mut order = [0, 1, 2, 3, 4, 5];
    let mut selectors = Vec::with_capacity(count);
    for _ in 0..count {
        let mut place = 0;
        while bits.take_bit() {
            place += 1;
            if place >= codes {
                return None;
            }
        }
        order.get_mut(..=place)?.rotate_right(1);
        selectors.push(order[0]);
    }
    // Some writers round up. libbz2 reads what is too much, and uses none of it.
    selectors.truncate(MAX_SELECTORS);
    (count > 0).then_some(selectors)
}

/// Reads the length of each symbol's code, as what it differs by from the one before.
fn read_lengths(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Option<()> {
    let mut length = bits.take(5);
    for place in lengths {
        loop {
            if !(1..=MAX_LENGTH).contains(&length) {
                return None;
            }
            if !bits.take_bit() {
                break;
            }
            if bits.take_bit() {
                length -= 1;
            } else {
                length += 1;
            }
        }
        *place = u8::try_from(length).ok()?;
    }
    Some(())
}

/// Bytes of a block that are unpacked at once: all, unless it has long runs.
pub(crate) const MAX_CONTENT: usize = 1 << 20;
const MIN_CODES: usize = 2;
const MAX_CODES: usize = 6;
/// Symbols that have one code.
const GROUP: usize = 50;
/// Groups in the largest block, its end included.
const MAX_SELECTORS: usize = MAX_BLOCK / GROUP + 2;
/// Bytes that a short run is written with.
const FILL: usize = 16;
