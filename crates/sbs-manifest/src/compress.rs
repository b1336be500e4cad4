//! bzip2 as the archives are written: many streams, one after the other.
//!
//! Format: `docs/formats/manifest.md`, "Compression".

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use crate::bzip2::encode::{Encoder, Level};
use crate::limits::Limits;
use crate::workers::{Ticket, Workers};

/// Compresses what is written to it, a fixed number of bytes to each stream, on several threads.
///
/// Streams are cut by the position in the input alone and leave in that order, so any number of
/// threads gives the same bytes. For each thread it keeps at most two streams, packed or not, the
/// one that is being packed, and an encoder of at most 13 MiB: 16 MiB for each thread.
pub(crate) struct StreamWriter<W> {
    out: W,
    level: Level,
    max: Limits,
    chunk: Vec<u8>,
    workers: Workers<Piece, Vec<u8>>,
    encoders: Arc<Encoders>,
    /// The streams that did not leave yet, with the bytes that went into each.
    pending: VecDeque<(u64, Ticket<Vec<u8>>)>,
    /// Bytes in and out of the streams that left.
    unpacked: u64,
    packed: u64,
}

impl<W: Write> StreamWriter<W> {
    /// Makes a writer for content that packs well: level 9.
    pub(crate) fn best(out: W, limits: &Limits) -> Self {
        Self::new(out, Level::BEST, limits)
    }

    /// Makes a writer for content that is compressed already: level 1, which is as small there
    /// and faster to read.
    pub(crate) fn fast(out: W, limits: &Limits) -> Self {
        Self::new(out, Level::FAST, limits)
    }

    fn new(out: W, level: Level, limits: &Limits) -> Self {
        Self {
            out,
            level,
            // Half, because a reader may look anywhere, and here only whole streams are counted.
            max: Limits { ratio: limits.ratio / 2, ..*limits },
            chunk: Vec::with_capacity(STREAM_BYTES),
            workers: Workers::new(limits.threads, compress),
            encoders: Arc::default(),
            pending: VecDeque::new(),
            unpacked: 0,
            packed: 0,
        }
    }

    /// Ends the last stream and waits for those before it.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if self.chunk.is_empty() {
            self.drain(0)?;
            return Ok(self.out);
        }
        // There is nothing to do here meanwhile, and a short archive needs no thread at all.
        let taken = self.chunk.len() as u64;
        let content = mem::take(&mut self.chunk);
        let last = compress(&self.piece(content));
        self.drain(0)?;
        self.write_stream(taken, &last)?;
        Ok(self.out)
    }

    fn end_stream(&mut self) -> io::Result<()> {
        let content = mem::replace(&mut self.chunk, Vec::with_capacity(STREAM_BYTES));
        let taken = content.len() as u64;
        let piece = self.piece(content);
        self.pending.push_back((taken, self.workers.submit(piece)));
        self.drain(self.workers.depth() - 1)
    }

    fn piece(&self, content: Vec<u8>) -> Piece {
        Piece { content, level: self.level, encoders: Arc::clone(&self.encoders) }
    }

    /// Writes streams, in order, until no more than `left` are pending.
    fn drain(&mut self, left: usize) -> io::Result<()> {
        while self.pending.len() > left
            && let Some((taken, ticket)) = self.pending.pop_front()
        {
            let stream = ticket.wait().ok_or_else(|| io::Error::other(PANICKED))?;
            self.write_stream(taken, &stream)?;
        }
        Ok(())
    }

    /// Writes a stream, and fails if the archive so far packs better than half of what a reader
    /// allows.
    fn write_stream(&mut self, taken: u64, stream: &[u8]) -> io::Result<()> {
        self.out.write_all(stream)?;
        self.unpacked += taken;
        self.packed += stream.len() as u64;
        if exceeds_ratio(self.unpacked, self.packed, &self.max) {
            return Err(io::Error::other(Excess::Ratio(self.max.ratio)));
        }
        Ok(())
    }
}

impl<W: Write> Write for StreamWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = STREAM_BYTES - self.chunk.len();
        let (taken, _) = bytes.split_at(room.min(bytes.len()));
        self.chunk.extend_from_slice(taken);
        if self.chunk.len() == STREAM_BYTES {
            self.end_stream()?;
        }
        Ok(taken.len())
    }

    /// Does nothing: a flush in the middle of a stream would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells whether an archive unpacks to more than the limits allow for its size.
pub(crate) fn exceeds_ratio(unpacked: u64, packed: u64, limits: &Limits) -> bool {
    unpacked > limits.ratio_from_bytes && unpacked > packed.saturating_mul(limits.ratio)
}

/// Which limit an archive as a whole is over. It travels inside an [`io::Error`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum Excess {
    #[error("archive is larger than {0} bytes")]
    Archive(u64),

    #[error("archive unpacks to more than {0} times its size")]
    Ratio(u64),

    #[error("archive unpacks to more than {0} bytes")]
    Unpacked(u64),
}

/// The content of one stream.
struct Piece {
    content: Vec<u8>,
    level: Level,
    encoders: Arc<Encoders>,
}

/// Encoders that nobody uses at the moment: each has memory that is worth keeping.
type Encoders = Mutex<Vec<Encoder>>;

fn compress(piece: &Piece) -> Vec<u8> {
    let kept = piece.encoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut encoder = kept.unwrap_or_else(Encoder::new);
    let stream = encoder.stream(&piece.content, piece.level);
    // Not after a panic: the encoder is gone then.
    piece.encoders.lock().unwrap_or_else(PoisonError::into_inner).push(encoder);
    stream
}

/// Bytes of input to a stream: a little less than one block of level 9 (899,981 bytes), so that
/// runs, which bzip2 may lengthen before it sorts, rarely spill into a second block; and nine
/// blocks of level 1.
const STREAM_BYTES: usize = 896_000;
const PANICKED: &str = "a thread that compresses has panicked";

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::num::NonZeroUsize;

    use super::*;
    use crate::decompress::Unpacked;

    fn threads(count: usize) -> Limits {
        Limits { threads: NonZeroUsize::new(count).unwrap(), ..Limits::default() }
    }

    fn packed(content: &[u8], step: usize) -> Vec<u8> {
        packed_by(&threads(2), content, step)
    }

    fn packed_by(limits: &Limits, content: &[u8], step: usize) -> Vec<u8> {
        let mut writer = StreamWriter::best(Vec::new(), limits);
        for part in content.chunks(step) {
            writer.write_all(part).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap()
    }

    fn unpacked(archive: &[u8], limits: &Limits) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Unpacked::new(archive, limits).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn excess(result: io::Result<Vec<u8>>) -> Excess {
        *result.unwrap_err().get_ref().unwrap().downcast_ref().unwrap()
    }

    #[test]
    fn bytes_do_not_depend_on_how_they_were_written() {
        let content: Vec<u8> =
            (0..STREAM_BYTES * 2).map(|i| (i * i / 7 % 251).to_le_bytes()[0]).collect();
        let archive = packed(&content, content.len());
        assert_eq!(archive, packed(&content, 1000));
        assert_eq!(unpacked(&archive, &Limits::default()).unwrap(), content);
    }

    #[test]
    fn bytes_do_not_depend_on_the_number_of_threads() {
        // Streams of very different cost, so that they end in another order than they began.
        let mut content = Vec::new();
        for at in 0..5 {
            content.resize(content.len() + STREAM_BYTES, at);
            content.extend((0..STREAM_BYTES / 4).map(|i| (i * i / 7 % 251).to_le_bytes()[0]));
        }
        let archive = packed_by(&threads(1), &content, content.len());
        for count in [2, 3, 8] {
            assert!(packed_by(&threads(count), &content, 70_000) == archive, "{count} threads");
        }
        assert!(unpacked(&archive, &Limits::default()).unwrap() == content);
    }

    /// Takes some bytes and fails from then on.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(self.0);
            self.0 -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_sink_ends_the_writer() {
        let content = vec![7; STREAM_BYTES];
        for count in [1, 2, 4] {
            for room in [0, 50] {
                let mut writer = StreamWriter::best(Full(room), &threads(count));
                let failed = (0..20).find_map(|_| writer.write_all(&content).err());
                // Early, not at the end: what is pending is bounded.
                assert_eq!(failed.unwrap().kind(), io::ErrorKind::StorageFull);
                assert!(writer.pending.len() <= 2 * count);
            }
            let mut writer = StreamWriter::best(Full(0), &threads(count));
            writer.write_all(b"short").unwrap();
            assert_eq!(writer.finish().err().unwrap().kind(), io::ErrorKind::StorageFull);
        }
    }

    #[test]
    fn a_writer_that_is_dropped_early_writes_no_more() {
        let mut out = Vec::new();
        let mut writer = StreamWriter::best(&mut out, &threads(3));
        writer.write_all(&vec![7; 2 * STREAM_BYTES + 1]).unwrap();
        assert_eq!(writer.pending.len(), 2);
        drop(writer);
        assert!(out.is_empty());
    }

    #[test]
    fn packing_too_well_is_noticed_for_any_number_of_threads() {
        for count in [1, 2, 4] {
            let limits = Limits { ratio: 1_000, ratio_from_bytes: 0, ..threads(count) };
            let mut writer = StreamWriter::best(Vec::new(), &limits);
            let written = writer.write_all(&vec![0; 2 * STREAM_BYTES]);
            assert_eq!(excess(written.and_then(|()| writer.finish())), Excess::Ratio(500));
        }
    }

    #[test]
    fn fails_one_byte_past_each_limit() {
        let archive = packed(&[0; 10_000], 10_000);
        let size = archive.len() as u64;
        let ratio = 10_000 / size;
        let fits = Limits {
            archive_bytes: size,
            unpacked_bytes: 10_000,
            ratio: ratio + 1,
            ratio_from_bytes: 0,
            ..Limits::default()
        };
        assert_eq!(unpacked(&archive, &fits).unwrap().len(), 10_000);
        for (limits, expected) in [
            (Limits { archive_bytes: size - 1, ..fits }, Excess::Archive(size - 1)),
            (Limits { unpacked_bytes: 9_999, ..fits }, Excess::Unpacked(9_999)),
            (Limits { ratio, ..fits }, Excess::Ratio(ratio)),
        ] {
            assert_eq!(excess(unpacked(&archive, &limits)), expected);
        }
        let below = Limits { ratio, ratio_from_bytes: 10_000, ..fits };
        assert_eq!(unpacked(&archive, &below).unwrap().len(), 10_000);
    }

    #[test]
    fn bytes_after_the_last_stream_are_no_end() {
        let archive = packed(b"content", 7);
        for garbage in [&b"\0"[..], b"B", b"garbage after the end"] {
            unpacked(&[&archive, garbage].concat(), &Limits::default()).unwrap_err();
        }
        let cut = archive.len() - 1;
        assert_eq!(
            unpacked(&archive[..cut], &Limits::default()).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
