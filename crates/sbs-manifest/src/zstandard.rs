//! Zstandard (RFC 8878), as thin manifests are compressed: one frame and nothing behind it.
//!
//! Format: `docs/formats/manifest.md`, "Thin form".

use std::io::{self, BufRead as _, BufReader, Read, Write};

use zstd::stream::{read, write};

use crate::compress::{Excess, exceeds_ratio};
use crate::counted::Counted;
use crate::limits::Limits;

/// Compresses what is written to it to one frame, on the thread that writes. It takes about 20 MiB
/// at the better level.
pub(crate) struct FrameWriter<W: Write> {
    encoder: write::Encoder<'static, Counted<W>>,
    max: Limits,
    bytes: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Makes a writer for content that packs well.
    pub(crate) fn best(out: W, limits: &Limits) -> io::Result<Self> {
        Self::new(out, BEST_LEVEL, limits)
    }

    /// Makes a writer for content that is compressed already.
    pub(crate) fn fast(out: W, limits: &Limits) -> io::Result<Self> {
        Self::new(out, FAST_LEVEL, limits)
    }

    fn new(out: W, level: i32, limits: &Limits) -> io::Result<Self> {
        let out = Counted::new(out, limits.archive_bytes);
        // Half, as where bzip2 is written: a reader looks before the end, too.
        let max = Limits { ratio: limits.ratio / 2, ..*limits };
        Ok(Self { encoder: write::Encoder::new(out, level)?, max, bytes: 0 })
    }

    /// Ends the frame.
    pub(crate) fn finish(self) -> io::Result<W> {
        let counted = self.encoder.finish()?;
        if exceeds_ratio(self.bytes, counted.bytes(), &self.max) {
            return Err(io::Error::other(Excess::Ratio(self.max.ratio)));
        }
        Ok(counted.into_inner())
    }
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.encoder.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    /// Does nothing: to end a block early would make the result depend on when that was.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decompresses one frame and fails once it costs more than the limits allow, or where something
/// follows the frame. It takes at most 9 MiB.
pub(crate) struct FrameReader<R> {
    decoder: read::Decoder<'static, BufReader<Counted<R>>>,
    limits: Limits,
    bytes: u64,
}

impl<R: Read> FrameReader<R> {
    pub(crate) fn new(archive: R, limits: &Limits) -> io::Result<Self> {
        let counted = Counted::new(archive, limits.archive_bytes);
        let mut decoder = read::Decoder::new(counted)?.single_frame();
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Ok(Self { decoder, limits: *limits, bytes: 0 })
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        if count == 0 && !buffer.is_empty() && !self.decoder.get_mut().fill_buf()?.is_empty() {
            let text = "there is something behind the compressed data";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.bytes += count as u64;
        if self.bytes > self.limits.unpacked_bytes {
            return Err(io::Error::other(Excess::Unpacked(self.limits.unpacked_bytes)));
        }
        let packed = self.decoder.get_ref().get_ref().bytes();
        if exceeds_ratio(self.bytes, packed, &self.limits) {
            return Err(io::Error::other(Excess::Ratio(self.limits.ratio)));
        }
        Ok(count)
    }
}

/// Small and quick: for a log of 64 MiB, level 19 takes over 25 times the time and five times the
/// memory, and saves a few percent.
const BEST_LEVEL: i32 = 9;
const FAST_LEVEL: i32 = 1;
/// 8 MiB, which RFC 8878 (3.1.1.1.2) asks every reader for. The better level needs half of it.
const MAX_WINDOW_LOG: u32 = 23;

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(content: &[u8], piece: usize, limits: &Limits) -> io::Result<Vec<u8>> {
        let mut writer = FrameWriter::best(Vec::new(), limits)?;
        for piece in content.chunks(piece) {
            writer.write_all(piece)?;
            writer.flush()?;
        }
        writer.finish()
    }

    fn unpacked(archive: &[u8], limits: &Limits) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        FrameReader::new(archive, limits)?.read_to_end(&mut content)?;
        Ok(content)
    }

    fn excess(result: io::Result<Vec<u8>>) -> Excess {
        *result.unwrap_err().get_ref().unwrap().downcast_ref().unwrap()
    }

    fn content() -> Vec<u8> {
        (0..60_000_u32).flat_map(|i| format!("{} line {i}\n", i * i % 977).into_bytes()).collect()
    }

    #[test]
    fn pieces_of_any_size_make_the_same_frame() {
        let content = content();
        let one = packed(&content, content.len(), &Limits::default()).unwrap();
        assert_eq!(unpacked(&one, &Limits::default()).unwrap(), content);
        for size in [1_000, 4_096, 131_071, 131_072, 131_073, 500_000] {
            assert!(packed(&content, size, &Limits::default()).unwrap() == one, "{size}");
        }
    }

    #[test]
    fn only_one_frame_is_read() {
        let frame = packed(b"content", 7, &Limits::default()).unwrap();
        for behind in [&frame[..], b"x", b"\x50\x2a\x4d\x18\x00\x00\x00\x00"] {
            let error = unpacked(&[&frame, behind].concat(), &Limits::default()).unwrap_err();
            assert!(error.to_string().contains("behind the compressed data"), "{error}");
        }
        for end in 1..frame.len() {
            let error = unpacked(&frame[..end], &Limits::default()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end}: {error}");
        }
    }

    #[test]
    fn reading_and_writing_stop_at_the_limits() {
        let content = content();
        let frame = packed(&content, 4096, &Limits::default()).unwrap();
        let (size, packed_size) = (content.len() as u64, frame.len() as u64);
        let fits = Limits { archive_bytes: packed_size, unpacked_bytes: size, ..Limits::default() };
        unpacked(&frame, &fits).unwrap();
        packed(&content, 4096, &fits).unwrap();
        let tight = Limits { archive_bytes: packed_size - 1, ..fits };
        assert_eq!(excess(unpacked(&frame, &tight)), Excess::Archive(packed_size - 1));
        assert_eq!(excess(packed(&content, 4096, &tight)), Excess::Archive(packed_size - 1));
        let tight = Limits { unpacked_bytes: size - 1, ..fits };
        assert_eq!(excess(unpacked(&frame, &tight)), Excess::Unpacked(size - 1));
        let tight = Limits { ratio: 2, ratio_from_bytes: 1_000, ..fits };
        assert_eq!(excess(unpacked(&frame, &tight)), Excess::Ratio(2));
        assert_eq!(excess(packed(&content, 4096, &tight)), Excess::Ratio(1));
    }

    /// A frame whose header asks for a window of 16 MiB, with one raw block of a byte.
    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let frame = |window_log: u8| {
            let header = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3];
            [&header[..], &[0x09, 0x00, 0x00, b'x']].concat()
        };
        assert_eq!(unpacked(&frame(23), &Limits::default()).unwrap(), b"x");
        let error = unpacked(&frame(24), &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }
}
