//! Decodes the blocks of a bzip2 archive ahead of whoever reads it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::bzip2::decode::{Block, DecodeError, Decoder};
use crate::split::{MAGIC_BITS, Piece, Splitter};
use crate::stream::Window;
use crate::workers::{Ticket, Workers};

/// The pieces of an archive, some of them under way.
///
/// For each thread it keeps two pieces of at most 1 MiB, packed and unpacked, and what a decoder
/// takes: 12 MiB.
pub(crate) struct Ahead<R> {
    splitter: Splitter<R>,
    workers: Workers<Job, Decoded>,
    pending: VecDeque<Pending>,
    /// How many pieces may be pending.
    depth: usize,
    /// Whether to decode what only looks like a block so far.
    guesses: bool,
}

/// A piece of the archive.
pub(crate) struct Pending {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) bit: usize,
    is_block: bool,
    /// None for what is decoded only when its turn comes.
    pub(crate) decoded: Option<Ticket<Decoded>>,
}

pub(crate) type Decoded = Result<Block, DecodeError>;

/// Bytes, and the bit that the content of a block begins at.
type Job = (Arc<Vec<u8>>, usize);

impl<R: Read> Ahead<R> {
    pub(crate) fn new(archive: R, threads: NonZeroUsize) -> Self {
        Self {
            splitter: Splitter::new(archive),
            workers: Workers::new(threads, decode),
            pending: VecDeque::new(),
            depth: FIRST_DEPTH,
            guesses: threads.get() > 1,
        }
    }

    /// Takes the next piece, if a block begins with it and the window ends there.
    pub(crate) fn take_block_at(&mut self, window: &Window) -> Option<Pending> {
        self.fill();
        self.pending.pop_front_if(|piece| {
            let shared = if piece.bit == 0 { 0 } else { 8 - piece.bit };
            piece.is_block && window.position + shared == 8 * window.bytes.len()
        })
    }

    /// Takes the next piece, whatever it is, to go on with the piece before.
    ///
    /// If it had looked like a block, it was a wrong guess, or damage, and there are no more
    /// guesses: somebody may have put many of them into one block.
    pub(crate) fn take(&mut self) -> Option<Pending> {
        self.fill();
        let piece = self.pending.pop_front()?;
        self.guesses &= !piece.is_block;
        Some(piece)
    }

    /// Returns why there are no more pieces, if it is not that the archive ended.
    pub(crate) fn failure(&mut self) -> Option<io::Error> {
        self.splitter.failure()
    }

    /// Tells whether no guess was wrong so far.
    #[cfg(test)]
    pub(crate) fn guesses(&self) -> bool {
        self.guesses
    }

    /// Looks for pieces, few at first: whoever wants the build record alone reads no further.
    fn fill(&mut self) {
        while self.pending.len() < self.depth
            && let Some(Piece { bytes, bit, is_block }) = self.splitter.next_piece()
        {
            let bytes = Arc::new(bytes);
            self.pending.push_back(Pending { bytes, bit, is_block, decoded: None });
        }
        // One alone is as well decoded by whoever waits for it, and a small one is sooner.
        let large = |piece: &&mut Pending| piece.is_block && piece.bytes.len() >= SMALL_PIECE;
        if self.guesses && self.pending.iter_mut().filter(large).count() > 1 {
            for piece in self.pending.iter_mut().filter(large) {
                if piece.decoded.is_none() {
                    let job = (Arc::clone(&piece.bytes), piece.bit + MAGIC_BITS);
                    piece.decoded = Some(self.workers.submit(job));
                }
            }
        }
        self.depth = self.workers.depth().min(self.depth + 1);
    }
}

fn decode((bytes, position): &Job) -> Decoded {
    thread_local! {
        /// A thread of the pool decodes many blocks.
        static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new());
    }
    DECODER.with_borrow_mut(|decoder| decoder.decode(bytes, *position))
}

/// Pieces under way before the first one was read.
const FIRST_DEPTH: usize = 2;
/// Bytes of a packed piece for which it is not worth while to wake a thread.
const SMALL_PIECE: usize = 1 << 10;
