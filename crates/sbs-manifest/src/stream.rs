//! The streams of a bzip2 archive, block by block.

use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::ahead::{Ahead, Decoded, Pending};
use crate::bzip2::decode::{Bits, Block, DecodeError, Decoder, MAX_CONTENT};
use crate::split::{BLOCK_MAGIC, MAGIC_BITS};
use crate::workers::Ticket;

/// Reads an archive: streams, each a header, blocks, and a checksum over all of them.
///
/// Blocks are decoded on several threads, a few ahead of what was read. Where they begin is a guess
/// at first: a block counts only if the one before it counted and ends exactly there. If that is
/// ever not so, everything behind it is decoded in order, so that a wrong guess costs at most what
/// was under way, and never changes what is read.
pub(crate) struct Streams<R> {
    ahead: Ahead<R>,
    /// A part of the archive, and the next bit of it.
    window: Window,
    state: State,
    /// The block that is given out.
    block: Option<Block>,
    /// Decodes what was not decoded ahead.
    decoder: Option<Box<Decoder>>,
}

/// A part of an archive that is in memory.
#[derive(Default)]
pub(crate) struct Window {
    pub(crate) bytes: Arc<Vec<u8>>,
    /// The next bit to read.
    pub(crate) position: usize,
    /// Bytes of the archive before the window.
    before: u64,
}

enum State {
    /// Before a stream; another one must have been there, or there is no archive.
    Between { is_first: bool },
    /// In a stream.
    Inside { level: usize, crc: u32 },
    /// Something was refused, and everything behind it is.
    Failed,
}

impl<R: Read> Streams<R> {
    pub(crate) fn new(archive: R, threads: NonZeroUsize) -> Self {
        Self {
            ahead: Ahead::new(archive, threads),
            window: Window::default(),
            state: State::Between { is_first: true },
            block: None,
            decoder: None,
        }
    }

    /// Returns how many bytes of the archive are needed for what was given out.
    pub(crate) fn packed_bytes(&self) -> u64 {
        // The end of a stream belongs to what is before it, whether or not it was read yet.
        let read = (self.window.position + END_BITS).div_ceil(8);
        self.window.before + read.min(self.window.bytes.len()) as u64
    }

    /// Returns what comes next, some or no bytes of it; none at the end of the archive.
    pub(crate) fn next_content(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.advance().inspect_err(|_| self.state = State::Failed)
    }

    fn advance(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(block) = self.block.take() {
                return self.content(block).map(Some);
            }
            match self.state {
                State::Between { is_first } => {
                    if !self.has(1)? && !is_first {
                        return Ok(None);
                    }
                    self.begin()?;
                }
                State::Inside { level, crc } => self.next_block(level, crc)?,
                State::Failed => return Err(DecodeError::Damaged.into()),
            }
        }
    }

    /// Reads the header of a stream.
    fn begin(&mut self) -> io::Result<()> {
        for expected in *b"BZh" {
            if self.take(8)? != u32::from(expected) {
                return Err(DecodeError::Damaged.into());
            }
        }
        let level = self.take(8)?.wrapping_sub(b'0'.into());
        if !(1..=9).contains(&level) {
            return Err(DecodeError::Damaged.into());
        }
        self.state = State::Inside { level: level as usize, crc: 0 };
        Ok(())
    }

    /// Goes to the next block, or behind the stream if it has no more.
    fn next_block(&mut self, level: usize, crc: u32) -> io::Result<()> {
        let Some(block) = self.block_of_piece()? else {
            self.end(crc)?;
            return Ok(());
        };
        if block.sorted > level * LEVEL_BYTES {
            return Err(DecodeError::Damaged.into());
        }
        self.window.position = block.end;
        self.state = State::Inside { level, crc: crc.rotate_left(1) ^ block.crc };
        self.block = Some(block);
        Ok(())
    }

    /// Gives out what comes next of a block. What belongs to the checksum is all out before the
    /// last part is.
    fn content(&mut self, mut block: Block) -> io::Result<Vec<u8>> {
        if block.text.is_at_end() {
            if block.text.crc() != block.crc || block.text.lacks_repeats() {
                return Err(DecodeError::Damaged.into());
            }
            return Ok(block.content);
        }
        let next = block.text.next(MAX_CONTENT);
        let content = std::mem::replace(&mut block.content, next);
        self.block = Some(block);
        Ok(content)
    }

    /// Returns the block that comes next; none if the stream ends here.
    fn block_of_piece(&mut self) -> io::Result<Option<Block>> {
        if let Some(piece) = self.ahead.take_block_at(&self.window) {
            let decoded = self.window.enter(piece).and_then(Ticket::wait);
            self.window.position += MAGIC_BITS;
            return match decoded {
                Some(Ok(block)) => Ok(Some(block)),
                _ => self.decode().map(Some),
            };
        }
        let magic = u64::from(self.take(16)?) << 32 | u64::from(self.take(32)?);
        match magic {
            BLOCK_MAGIC => self.decode().map(Some),
            END_MAGIC => Ok(None),
            _ => Err(DecodeError::Damaged.into()),
        }
    }

    fn end(&mut self, crc: u32) -> io::Result<()> {
        if self.take(32)? != crc {
            return Err(DecodeError::Damaged.into());
        }
        self.window.position = self.window.position.next_multiple_of(8);
        self.state = State::Between { is_first: false };
        Ok(())
    }

    /// Decodes the block that begins here, whether or not it ends where it was guessed to.
    fn decode(&mut self) -> io::Result<Block> {
        loop {
            let decoder = self.decoder.get_or_insert_with(|| Box::new(Decoder::new()));
            match decoder.decode(&self.window.bytes, self.window.position) {
                Err(DecodeError::Truncated) => {}
                result => return Ok(result?),
            }
            // Twice as much each time, so that all attempts together are no more than two.
            let left = self.window.left();
            self.has(2 * left + MORE_BITS)?;
            if self.window.left() == left {
                return Err(DecodeError::Truncated.into());
            }
        }
    }

    fn take(&mut self, count: u32) -> io::Result<u32> {
        if !self.has(count as usize)? {
            return Err(DecodeError::Truncated.into());
        }
        let bits = Bits::new(&self.window.bytes, self.window.position).take(count);
        self.window.position += count as usize;
        Ok(bits)
    }

    /// Tells whether so many bits are left; the window has them then.
    fn has(&mut self, bits: usize) -> io::Result<bool> {
        while self.window.left() < bits {
            let Some(piece) = self.ahead.take() else {
                return self.ahead.failure().map_or(Ok(false), Err);
            };
            self.window.append(&piece);
        }
        Ok(true)
    }
}

impl Window {
    /// Returns how many bits are left.
    fn left(&self) -> usize {
        8 * self.bytes.len() - self.position
    }

    /// Goes on to the piece that begins here; returns what was decoded of it ahead.
    fn enter(&mut self, piece: Pending) -> Option<Ticket<Decoded>> {
        self.before += (self.position / 8) as u64;
        self.bytes = piece.bytes;
        self.position = piece.bit;
        piece.decoded
    }

    /// Adds the piece behind the window to it, and drops what was read if that is the most.
    fn append(&mut self, piece: &Pending) {
        let bytes = Arc::make_mut(&mut self.bytes);
        let read = self.position / 8;
        if read > bytes.len() / 2 {
            bytes.drain(..read);
            self.position -= 8 * read;
            self.before += read as u64;
        }
        bytes.extend(piece.bytes.iter().skip(usize::from(piece.bit > 0)));
    }
}

impl From<DecodeError> for io::Error {
    fn from(error: DecodeError) -> Self {
        let kind = match error {
            DecodeError::Damaged => io::ErrorKind::InvalidData,
            DecodeError::Truncated => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}

/// What the last block of a stream is followed by.
const END_MAGIC: u64 = 0x1772_4538_5090;
/// The magic number of the end, and the checksum.
const END_BITS: usize = MAGIC_BITS + 32;
/// Bytes that a block has for each level, sorted and not unpacked further.
const LEVEL_BYTES: usize = 100_000;
/// Bits that are worth while to read more for.
const MORE_BITS: usize = 64 << 13;

#[cfg(test)]
mod tests;
