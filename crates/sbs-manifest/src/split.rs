//! Guesses where the blocks of a bzip2 archive begin.

use std::io::{self, Read};

/// Cuts an archive before everything that looks like the start of a block.
///
/// It is a guess: compressed data may look like a start, too. Whoever decodes a piece must see
/// that what comes before it ends exactly where the piece begins.
pub(crate) struct Splitter<R> {
    archive: R,
    buffer: Vec<u8>,
    /// The byte of `buffer` that the next piece begins in, and the bit of that byte.
    start: usize,
    bit: usize,
    is_block: bool,
    /// The first bit of `buffer` that was not searched.
    unsearched: usize,
    state: State,
}

/// Bytes of an archive, without a cut in it.
pub(crate) struct Piece {
    /// Its first byte is the last one of the piece before, unless `bit` is 0.
    pub(crate) bytes: Vec<u8>,
    /// The bit of the first byte at which the piece begins, 0 to 7.
    pub(crate) bit: usize,
    /// Whether it begins as a block does; otherwise it goes on with what came before.
    pub(crate) is_block: bool,
}

enum State {
    Reading,
    /// What the archive said when it was read.
    Failed(io::Error),
    /// All was read.
    Ended,
}

impl<R: Read> Splitter<R> {
    pub(crate) fn new(archive: R) -> Self {
        Self {
            archive,
            buffer: Vec::new(),
            start: 0,
            bit: 0,
            is_block: false,
            // No archive begins with a block.
            unsearched: 1,
            state: State::Reading,
        }
    }

    /// Returns the next piece; none at the end, or where the archive cannot be read.
    pub(crate) fn next_piece(&mut self) -> Option<Piece> {
        loop {
            if let Some(found) = find_block(&self.buffer, self.unsearched) {
                return Some(self.cut(found, true));
            }
            let size = 8 * self.buffer.len();
            self.unsearched = self.unsearched.max((size + 1).saturating_sub(MAGIC_BITS));
            if self.buffer.len() - self.start > MAX_PIECE {
                return Some(self.cut(8 * (self.unsearched / 8), false));
            }
            match self.state {
                State::Reading => self.read_more(),
                State::Ended | State::Failed(_) => {
                    return (self.start < self.buffer.len()).then(|| self.cut(size, false));
                }
            }
        }
    }

    /// Returns why nothing more can be read, if there is a reason. It is given out once.
    pub(crate) fn failure(&mut self) -> Option<io::Error> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Failed(error) => Some(error),
            state => {
                self.state = state;
                None
            }
        }
    }

    /// Gives out what is before bit `end` of the buffer.
    fn cut(&mut self, end: usize, is_block: bool) -> Piece {
        let bytes = self.buffer.get(self.start..end.div_ceil(8)).unwrap_or_default().to_vec();
        let piece = Piece { bytes, bit: self.bit, is_block: self.is_block };
        (self.start, self.bit, self.is_block) = (end / 8, end % 8, is_block);
        self.unsearched = self.unsearched.max(end + usize::from(is_block));
        piece
    }

    fn read_more(&mut self) {
        self.buffer.drain(..self.start);
        self.unsearched -= 8 * self.start;
        self.start = 0;
        // An error may come behind bytes; those are in the buffer, and come before it.
        match (&mut self.archive).take(READ_BYTES).read_to_end(&mut self.buffer) {
            Ok(0) => self.state = State::Ended,
            Ok(_) => {}
            Err(error) => self.state = State::Failed(error),
        }
    }
}

/// Returns the first bit, not before `from`, at which the magic number of a block begins.
///
/// Of the seven bytes that it is part of, five are nothing else. So of all pairs of bytes it is
/// enough to look at every fourth, and to look closer where that could be a part of the number.
fn find_block(bytes: &[u8], from: usize) -> Option<usize> {
    let first = (from / 8).next_multiple_of(STEP);
    let pairs = bytes.get(first..).unwrap_or_default().chunks(STEP);
    (first..)
        .step_by(STEP)
        .zip(pairs)
        .filter(|(_, pair)| matches!(pair, [one, two, ..] if may_be_part(*one, *two)))
        .find_map(|(at, _)| {
            let earliest = (8 * at).saturating_sub(MAGIC_BITS - 16).max(from);
            (earliest..=8 * at).find(|bit| is_block(bytes, *bit))
        })
}

/// Tells whether the magic number of a block begins at a bit.
fn is_block(bytes: &[u8], bit: usize) -> bool {
    let mut word = [0; 8];
    let rest = bytes.get(bit / 8..).unwrap_or_default();
    word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    // What is missing reads as zeros, and the magic number ends in a one.
    u64::from_be_bytes(word) << (bit % 8) >> (64 - MAGIC_BITS) == BLOCK_MAGIC
}

fn may_be_part(one: u8, two: u8) -> bool {
    let pair = usize::from(u16::from_be_bytes([one, two]));
    PARTS.get(pair / 64).is_some_and(|parts| parts >> (pair % 64) & 1 == 1)
}

/// Has a one for each pair of bytes that is a part of the magic number, anywhere in it.
#[expect(clippy::indexing_slicing, reason = "a wrong index here would not compile")]
static PARTS: [u64; 1024] = {
    let mut parts = [0; 1024];
    let mut behind = 0;
    while behind <= MAGIC_BITS - 16 {
        let pair = (BLOCK_MAGIC >> behind & 0xffff) as usize;
        parts[pair / 64] |= 1 << (pair % 64);
        behind += 1;
    }
    parts
};

/// What a block begins with.
pub(crate) const BLOCK_MAGIC: u64 = 0x3141_5926_5359;
pub(crate) const MAGIC_BITS: usize = 48;
const STEP: usize = 4;
/// Bytes of a piece: no block of ours is larger, even if its content does not pack.
const MAX_PIECE: usize = 1 << 20;
const READ_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, and fails at the end if it is told to.
    struct Slow<'a>(&'a [u8], usize, Option<io::Error>);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (given, rest) = self.0.split_at(self.0.len().min(self.1).min(buffer.len()));
            buffer[..given.len()].copy_from_slice(given);
            self.0 = rest;
            match self.2.take() {
                Some(error) if given.is_empty() => Err(error),
                error => {
                    self.2 = error;
                    Ok(given.len())
                }
            }
        }
    }

    /// Returns zeros with the magic number of a block at some bits.
    fn archive(size: usize, magics: &[usize]) -> Vec<u8> {
        let mut bytes = vec![0; size];
        for start in magics {
            for at in (0..MAGIC_BITS).filter(|at| BLOCK_MAGIC >> (MAGIC_BITS - 1 - at) & 1 == 1) {
                bytes[(start + at) / 8] |= 0x80 >> ((start + at) % 8);
            }
        }
        bytes
    }

    /// Returns where pieces begin, and which of them as a block does; and that nothing is missing.
    fn starts(archive: &[u8], step: usize) -> Vec<(usize, bool)> {
        let mut splitter = Splitter::new(Slow(archive, step, None));
        let (mut starts, mut whole) = (Vec::new(), Vec::new());
        while let Some(piece) = splitter.next_piece() {
            let shared = usize::from(piece.bit > 0);
            assert!(shared == 0 || whole.last() == piece.bytes.first());
            starts.push((8 * (whole.len() - shared) + piece.bit, piece.is_block));
            whole.extend_from_slice(&piece.bytes[shared..]);
        }
        assert!(splitter.failure().is_none());
        assert!(whole == archive, "{} of {} bytes", whole.len(), archive.len());
        starts
    }

    #[test]
    fn cuts_at_every_bit_that_a_block_begins_at_and_nowhere_else() {
        for start in 1..200 {
            let blocks = [start, start + 48, start + 50 + 96, 8_000 - 48];
            let expected: Vec<_> =
                [(0, false)].into_iter().chain(blocks.map(|at| (at, true))).collect();
            for step in [1, 7, 1_000] {
                assert_eq!(starts(&archive(1_000, &blocks), step), expected, "{start}");
            }
        }
        assert_eq!(starts(b"", 1), []);
        assert_eq!(starts(&archive(6, &[])[..5], 1), [(0, false)]);
    }

    #[test]
    fn what_is_too_large_is_cut_but_not_in_a_magic_number() {
        let reads = (MAX_PIECE + 1).next_multiple_of(64 << 10);
        for start in (8 * reads - 60..8 * reads + 20).step_by(3) {
            let found = starts(&archive(3 * MAX_PIECE, &[start]), 1 << 20);
            assert!(found.contains(&(start, true)), "{found:?}");
            assert!(found.windows(2).all(|two| two[1].0 - two[0].0 < 8 * (MAX_PIECE + 70_000)));
        }
    }

    #[test]
    fn a_failure_comes_behind_everything_that_was_read() {
        let bytes = archive(100, &[48]);
        let failure = Some(io::ErrorKind::TimedOut.into());
        let mut splitter = Splitter::new(Slow(&bytes, 3, failure));
        assert_eq!(splitter.next_piece().unwrap().bytes, bytes[..6]);
        assert_eq!(splitter.next_piece().unwrap().bytes, bytes[6..]);
        assert!(splitter.next_piece().is_none());
        assert_eq!(splitter.failure().unwrap().kind(), io::ErrorKind::TimedOut);
    }
}
