//! bzip2 as the archives use it: many streams, one after the other.
//!
//! Format: `docs/formats/manifest.md`, "Compression".

use std::io::{self, BufReader, Read, Write};

use bzip2::Compression;
use bzip2::bufread::MultiBzDecoder;
use bzip2::write::BzEncoder;
use thiserror::Error;

use crate::limits::Limits;

/// Compresses what is written to it, a fixed number of bytes to each stream.
///
/// Streams are cut by the position in the input alone, so they can be made in any order, by any
/// number of threads, and give the same bytes.
pub(crate) struct StreamWriter<W> {
    out: W,
    level: Compression,
    chunk: Vec<u8>,
    /// Bytes in and out of the streams that ended.
    unpacked: u64,
    packed: u64,
}

impl<W: Write> StreamWriter<W> {
    /// Makes a writer for content that packs well: level 9.
    pub(crate) fn best(out: W) -> Self {
        Self::new(out, Compression::best())
    }

    /// Makes a writer for content that is compressed already: level 1, which is as small there
    /// and faster to read.
    pub(crate) fn fast(out: W) -> Self {
        Self::new(out, Compression::fast())
    }

    fn new(out: W, level: Compression) -> Self {
        Self { out, level, chunk: Vec::with_capacity(STREAM_BYTES), unpacked: 0, packed: 0 }
    }

    /// Ends the last stream.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if !self.chunk.is_empty() {
            self.end_stream()?;
        }
        Ok(self.out)
    }

    /// Tells whether the archive so far packs better than half of what a reader allows.
    ///
    /// Half, because a reader may look anywhere, and here only whole streams are counted.
    pub(crate) fn packs_too_well(&self, limits: &Limits) -> bool {
        let half = Limits { ratio: limits.ratio / 2, ..*limits };
        exceeds_ratio(self.unpacked, self.packed, &half)
    }

    fn end_stream(&mut self) -> io::Result<()> {
        let stream = compress(&self.chunk, self.level)?;
        self.out.write_all(&stream)?;
        self.unpacked += self.chunk.len() as u64;
        self.packed += stream.len() as u64;
        self.chunk.clear();
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

/// Decompresses an archive and fails once it costs more than the limits allow.
pub(crate) struct Unpacked<R> {
    decoder: MultiBzDecoder<BufReader<Counted<R>>>,
    limits: Limits,
    bytes: u64,
}

impl<R: Read> Unpacked<R> {
    pub(crate) fn new(archive: R, limits: &Limits) -> Self {
        let counted = Counted { input: archive, bytes: 0, max: limits.archive_bytes };
        let buffered = BufReader::with_capacity(READ_BYTES, counted);
        Self { decoder: MultiBzDecoder::new(buffered), limits: *limits, bytes: 0 }
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.bytes += count as u64;
        if self.bytes > self.limits.unpacked_bytes {
            return Err(io::Error::other(Excess::Unpacked(self.limits.unpacked_bytes)));
        }
        let packed = self.decoder.get_ref().get_ref().bytes;
        if exceeds_ratio(self.bytes, packed, &self.limits) {
            return Err(io::Error::other(Excess::Ratio(self.limits.ratio)));
        }
        Ok(count)
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

struct Counted<R> {
    input: R,
    bytes: u64,
    max: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.bytes += count as u64;
        if self.bytes > self.max {
            return Err(io::Error::other(Excess::Archive(self.max)));
        }
        Ok(count)
    }
}

fn compress(chunk: &[u8], level: Compression) -> io::Result<Vec<u8>> {
    let mut encoder = BzEncoder::new(Vec::with_capacity(chunk.len() / 2), level);
    encoder.write_all(chunk)?;
    encoder.finish()
}

/// Bytes of input to a stream: a little less than one block of level 9 (899,981 bytes), so that
/// runs, which bzip2 may lengthen before it sorts, rarely spill into a second block; and nine
/// blocks of level 1.
const STREAM_BYTES: usize = 896_000;
const READ_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(content: &[u8], step: usize) -> Vec<u8> {
        let mut writer = StreamWriter::best(Vec::new());
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
