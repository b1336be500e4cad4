//! Guesses where the streams of a bzip2 archive begin.

use std::io::{self, Chain, Cursor, Read};

/// Cuts an archive before everything that looks like the start of a stream.
///
/// It is a guess: compressed data may look like a start, too. Whoever decompresses a piece must
/// see that a stream ends exactly where the piece does.
pub(crate) struct Splitter<R> {
    archive: R,
    /// What was read and not given out, and how much of it has no start behind its first byte.
    buffer: Vec<u8>,
    searched: usize,
    state: State,
}

enum State {
    Reading,
    /// What the archive said when it was read.
    Failed(io::Error),
    /// All was read, or the next piece would be too large to be one of ours.
    Ended,
}

impl<R: Read> Splitter<R> {
    pub(crate) fn new(archive: R) -> Self {
        Self { archive, buffer: Vec::new(), searched: 0, state: State::Reading }
    }

    /// Returns the next piece; none where the rest has to be read as it is.
    pub(crate) fn next_piece(&mut self) -> Option<Vec<u8>> {
        while let State::Reading = self.state {
            if let Some(start) = self.next_start() {
                self.searched = 0;
                let rest = self.buffer.split_off(start);
                return Some(std::mem::replace(&mut self.buffer, rest));
            }
            if self.buffer.len() > MAX_PIECE {
                self.state = State::Ended;
                return None;
            }
            match self.read_more() {
                Ok(0) => {
                    self.state = State::Ended;
                    let last = std::mem::take(&mut self.buffer);
                    return (!last.is_empty()).then_some(last);
                }
                Ok(_) => {}
                Err(error) => self.state = State::Failed(error),
            }
        }
        None
    }

    /// Tells whether all was read and given out.
    pub(crate) fn is_at_end(&self) -> bool {
        matches!(self.state, State::Ended) && self.buffer.is_empty()
    }

    /// Returns what follows the pieces that were given out; `before` is put in front of it.
    pub(crate) fn into_rest(self, mut before: Vec<u8>) -> Rest<R> {
        before.extend(self.buffer);
        let error = match self.state {
            State::Failed(error) => Some(error),
            State::Reading | State::Ended => None,
        };
        Cursor::new(before).chain(Failing { archive: self.archive, error })
    }

    fn next_start(&mut self) -> Option<usize> {
        // The first byte is the start that the last piece ended at.
        let from = self.searched.max(1);
        let unsearched = self.buffer.get(from..)?;
        let found = unsearched.windows(START_BYTES).position(is_start);
        self.searched = (self.buffer.len() + 1).saturating_sub(START_BYTES).max(from);
        Some(from + found?)
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let before = self.buffer.len();
        let count = (&mut self.archive).take(READ_BYTES).read_to_end(&mut self.buffer);
        // An error may come behind bytes; those are in the buffer, and come before it.
        count.map(|_| self.buffer.len() - before)
    }
}

/// The rest of an archive, behind what was taken from it.
pub(crate) type Rest<R> = Chain<Cursor<Vec<u8>>, Failing<R>>;

/// An archive that fails again as it did before.
pub(crate) struct Failing<R> {
    archive: R,
    error: Option<io::Error>,
}

impl<R> Failing<R> {
    pub(crate) fn get_ref(&self) -> &R {
        &self.archive
    }
}

impl<R: Read> Read for Failing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.archive.read(buffer),
        }
    }
}

/// Tells whether bytes begin as a stream does: with its header, and that of a block or its end.
fn is_start(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90]
    )
}

const START_BYTES: usize = 10;
/// Bytes of a piece: a stream of ours cannot be larger, even if its content does not pack.
const MAX_PIECE: usize = 1 << 20;
const READ_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] = b"BZh1\x31\x41\x59\x26\x53\x59";
    const END: &[u8] = b"BZh9\x17\x72\x45\x38\x50\x90";

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

    fn pieces(archive: &[u8], step: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut splitter = Splitter::new(Slow(archive, step, None));
        let mut pieces = Vec::new();
        while let Some(piece) = splitter.next_piece() {
            pieces.push(piece);
        }
        let mut rest = Vec::new();
        splitter.into_rest(Vec::new()).read_to_end(&mut rest).unwrap();
        (pieces, rest)
    }

    #[test]
    fn cuts_before_every_start_and_nowhere_else() {
        let long = [BLOCK, &vec![b'B'; 200_000]].concat();
        let parts: [&[u8]; 5] = [b"no start: BZh1 1AY&SY", BLOCK, END, &long, END];
        for step in [1, 9, 10, 11, 70_000] {
            assert_eq!(pieces(&parts.concat(), step), (parts.map(<[u8]>::to_vec).into(), vec![]));
        }
        assert_eq!(pieces(b"", 1), (vec![], vec![]));
    }

    #[test]
    fn what_is_too_large_for_a_piece_is_left() {
        let large = vec![b'x'; MAX_PIECE + 200_000];
        let archive = [BLOCK, END, &large, BLOCK].concat();
        let (pieces, rest) = pieces(&archive, 100_000);
        assert_eq!(pieces, [BLOCK]);
        assert_eq!([BLOCK, &rest].concat(), archive);
    }

    #[test]
    fn a_failure_comes_behind_everything_that_was_read() {
        let archive = [BLOCK, END, b"rest"].concat();
        let failure = Some(io::ErrorKind::TimedOut.into());
        let mut splitter = Splitter::new(Slow(&archive, 3, failure));
        assert!(splitter.next_piece().is_none());
        assert!(!splitter.is_at_end());
        let mut rest = Vec::new();
        let error = splitter.into_rest(b"before".to_vec()).read_to_end(&mut rest).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(rest, [b"before", &*archive].concat());
    }
}
