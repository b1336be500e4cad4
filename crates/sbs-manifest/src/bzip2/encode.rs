//! Content to bzip2 streams.
//!
//! The format is that of bzip2 1.0: each block is run-length coded, its rotations are sorted
//! (Burrows and Wheeler), the last bytes of the rotations are moved to the front, runs of zeros are
//! counted, and the rest is Huffman coded with up to six tables.

#![expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a block has less than 2^20 bytes; places are within it, or masked so that the compiler \
              knows, and a slip would end in a panic that `Workers` catch, not in wrong bytes"
)]

mod bits;
mod bwt;
mod huffman;
mod lms;
mod mtf;
mod runs;
mod tables;
mod text;

use std::fmt::Debug;

use self::bits::BitWriter;
use self::bwt::Transformer;
use self::mtf::Symbols;
use self::tables::Tables;
use self::text::Text;
use crate::bzip2::crc::Crc;

/// Compresses streams; keeps its memory for the next one.
pub(crate) struct Encoder {
    text: Text,
    transformer: Transformer,
    symbols: Symbols,
}

/// The size of blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level(u8);

impl Level {
    /// Blocks of 900,000 bytes.
    pub(crate) const BEST: Self = Self(9);
    /// Blocks of 100,000 bytes.
    pub(crate) const FAST: Self = Self(1);
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { text: Text::new(), transformer: Transformer::new(), symbols: Symbols::new() }
    }

    /// Compresses content to one stream.
    ///
    /// The bytes depend on content and level alone.
    pub(crate) fn stream(&mut self, content: &[u8], level: Level) -> Vec<u8> {
        let Level(level) = level;
        let mut out = Vec::with_capacity(content.len() / 2);
        out.extend([b'B', b'Z', b'h', b'0' + level]);
        let mut out = BitWriter::new(out);
        let max = usize::from(level) * 100_000 - SPARE;
        let mut checksum = 0_u32;
        let mut left = content;
        while !left.is_empty() {
            self.text.clear();
            let taken = runs::fill(&mut self.text, left, max);
            let (block, rest) = left.split_at(taken);
            left = rest;
            let crc = Crc::of(block);
            checksum = checksum.rotate_left(1) ^ crc;
            self.block(crc, &mut out);
        }
        out.write_magic(END_MAGIC);
        out.write(32, checksum);
        out.finish()
    }

    fn block(&mut self, crc: u32, out: &mut BitWriter) {
        self.text.close();
        let used = used_bytes(self.text.bytes());
        let transformed = self.transformer.transform(&self.text);
        self.symbols.fill(transformed.bytes(), &used);
        let tables = Tables::choose(&self.symbols);

        out.write_magic(BLOCK_MAGIC);
        out.write(32, crc);
        out.write_bit(false); // not randomised
        out.write(24, transformed.origin);
        write_used(&used, out);
        write_tables(&tables, self.symbols.counts().len(), out);
        write_symbols(self.symbols.all(), &tables, out);
    }
}

fn used_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut used = [false; 256];
    for &byte in bytes {
        used[usize::from(byte)] = true;
    }
    (0..=u8::MAX).filter(|&byte| used[usize::from(byte)]).collect()
}

/// Writes which bytes occur: a bit for each range of 16, and 16 for each of these that has any.
fn write_used(used: &[u8], out: &mut BitWriter) {
    let mut ranges = [0; 16];
    for &byte in used {
        ranges[usize::from(byte / 16)] |= 0x8000 >> (byte % 16);
    }
    for range in ranges {
        out.write_bit(range != 0);
    }
    for range in ranges.into_iter().filter(|&range| range != 0) {
        out.write(16, range);
    }
}

fn write_tables(tables: &Tables, kinds: usize, out: &mut BitWriter) {
    out.write(3, tables.lengths.len() as u32);
    out.write(15, tables.selectors.len() as u32);
    // Selectors are moved to the front, and written as that many ones and a zero.
    let mut list = [0, 1, 2, 3, 4, 5];
    for &selector in &tables.selectors {
        let place = list.iter().position(|&table| table == selector).unwrap_or(0);
        list[..=place].rotate_right(1);
        out.write(place as u32 + 1, (1 << (place + 1)) - 2);
    }
    for lengths in &tables.lengths {
        let mut current = lengths[0];
        out.write(5, u32::from(current));
        for &length in &lengths[..kinds] {
            while current < length {
                out.write(2, 0b10);
                current += 1;
            }
            while current > length {
                out.write(2, 0b11);
                current -= 1;
            }
            out.write_bit(false);
        }
    }
}

fn write_symbols(symbols: &[u16], tables: &Tables, out: &mut BitWriter) {
    let codes: Vec<_> = tables.lengths.iter().map(|lengths| huffman::codes(lengths)).collect();
    for (group, &selector) in symbols.chunks(tables::GROUP).zip(&tables.selectors) {
        let selector = usize::from(selector);
        let (codes, lengths) = (&codes[selector], &tables.lengths[selector]);
        for &symbol in group {
            let symbol = usize::from(symbol);
            out.write(u32::from(lengths[symbol]), codes[symbol]);
        }
    }
}

/// Makes an array in place: these are too large for the stack.
fn boxed_zeros<T: Copy + Debug + Default, const N: usize>() -> Box<[T; N]> {
    let zeros = vec![T::default(); N].into_boxed_slice();
    zeros.try_into().expect("the length is N")
}

/// Bytes of a block that bzip2 keeps free.
const SPARE: usize = 19;
const BLOCK_MAGIC: u64 = 0x3141_5926_5359;
const END_MAGIC: u64 = 0x1772_4538_5090;

#[cfg(test)]
mod tests;
