//! The bytes of a block, read as if they went round.

use super::boxed_zeros;

/// A block after the first run-length coding.
///
/// Its end goes on with its beginning: reads a little before the first byte and after the last one
/// need no care.
pub(super) struct Text {
    /// The block from [`BEHIND`] on, and a bit of its other end on each side.
    bytes: Box<[u8; SIZE]>,
    len: usize,
}

impl Text {
    /// Positions are less than this, a power of two, so that a masked one needs no check. Blocks
    /// have at most 900,000 bytes.
    pub(super) const POSITIONS: usize = 1 << POSITION_BITS;

    /// The bits of a word that hold a position.
    pub(super) const POSITION_MASK: u32 = (1 << POSITION_BITS) - 1;

    pub(super) fn new() -> Self {
        Self { bytes: boxed_zeros(), len: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends bytes; the caller keeps to the size of a block.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let start = BEHIND + self.len;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[BEHIND..BEHIND + self.len]
    }

    /// Joins the ends. To be called when the block is full, before anything reads beyond them.
    pub(super) fn close(&mut self) {
        for at in 0..AHEAD {
            self.bytes[BEHIND + self.len + at] = self.bytes[BEHIND + at % self.len];
        }
        self.bytes[1] = self.bytes[BEHIND + self.len - 1];
        self.bytes[0] = self.bytes[BEHIND + (2 * self.len - 2) % self.len];
    }

    /// Returns the byte at a position, or a few behind the end.
    #[inline]
    pub(super) fn byte(&self, at: u32) -> u8 {
        self.bytes[(at as usize & MASK) + BEHIND]
    }

    /// Returns the byte before a position.
    #[inline]
    pub(super) fn before(&self, at: u32) -> u8 {
        self.bytes[(at as usize & MASK) + BEHIND - 1]
    }

    /// Returns the eight bytes from a position on, the first one highest.
    #[inline]
    pub(super) fn word(&self, at: u32) -> u64 {
        let at = (at as usize & MASK) + BEHIND;
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_be_bytes(word)
    }

    /// Returns the position that many bytes further round.
    #[inline]
    pub(super) fn ahead(&self, at: u32, by: u32) -> u32 {
        let len = self.len as u32;
        let sum = at + by;
        if sum < len { sum } else { sum % len }
    }

    /// Returns the position before.
    #[inline]
    pub(super) fn previous(&self, at: u32) -> u32 {
        if at == 0 { self.len as u32 - 1 } else { at - 1 }
    }
}

pub(super) const POSITION_BITS: u32 = 20;
const MASK: usize = Text::POSITIONS - 1;
const BEHIND: usize = 2;
const AHEAD: usize = 16;
const SIZE: usize = Text::POSITIONS + AHEAD;
