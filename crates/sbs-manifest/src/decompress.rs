//! bzip2 as archives are read: many streams, one after the other, whoever wrote them.

use std::io::{self, Cursor, Read};

use crate::compress::{Excess, exceeds_ratio};
use crate::counted::Counted;
use crate::limits::Limits;
use crate::stream::Streams;

/// Decompresses an archive and fails once it costs more than the limits allow.
pub(crate) struct Unpacked<R> {
    streams: Box<Streams<Counted<R>>>,
    limits: Limits,
    current: Cursor<Vec<u8>>,
    bytes: u64,
}

impl<R: Read> Unpacked<R> {
    pub(crate) fn new(archive: R, limits: &Limits) -> Self {
        let counted = Counted::new(archive, limits.archive_bytes);
        Self {
            streams: Box::new(Streams::new(counted, limits.threads)),
            limits: *limits,
            current: Cursor::default(),
            bytes: 0,
        }
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.current.read(buffer)?;
        while count == 0 && !buffer.is_empty() {
            let Some(content) = self.streams.next_content()? else { break };
            self.current = Cursor::new(content);
            count = self.current.read(buffer)?;
        }
        self.bytes += count as u64;
        if self.bytes > self.limits.unpacked_bytes {
            return Err(io::Error::other(Excess::Unpacked(self.limits.unpacked_bytes)));
        }
        if exceeds_ratio(self.bytes, self.streams.packed_bytes(), &self.limits) {
            return Err(io::Error::other(Excess::Ratio(self.limits.ratio)));
        }
        Ok(count)
    }
}

/// Decompresses an archive alone: for the bench, and for fuzzing against another decoder.
#[doc(hidden)]
pub fn decompressed<R: Read>(archive: R, limits: &Limits) -> impl Read + use<R> {
    Unpacked::new(archive, limits)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::num::NonZeroUsize;

    use bzip2::Compression;
    use bzip2::write::BzEncoder;

    use super::*;

    fn stream(content: &[u8]) -> Vec<u8> {
        let mut encoder = BzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Makes bytes that do not pack.
    fn noise(size: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56).to_le_bytes()[0]
        };
        (0..size).map(|_| next()).collect()
    }

    fn limits(threads: usize) -> Limits {
        Limits { threads: NonZeroUsize::new(threads).unwrap(), ..Limits::default() }
    }

    fn unpacked(archive: &[u8], limits: &Limits) -> (Vec<u8>, io::Result<usize>) {
        let mut bytes = Vec::new();
        let result = Unpacked::new(archive, limits).read_to_end(&mut bytes);
        (bytes, result)
    }

    /// Holds several threads against one: the same bytes, and the same refusal behind them.
    fn check(archive: &[u8], one: &Limits) -> (Vec<u8>, Option<String>) {
        let expected = unpacked(archive, &Limits { threads: NonZeroUsize::MIN, ..*one });
        for count in [2, 3, 7] {
            let threads = NonZeroUsize::new(count).unwrap();
            let found = unpacked(archive, &Limits { threads, ..*one });
            assert!(found.0 == expected.0, "{} and {}", found.0.len(), expected.0.len());
            assert_eq!(format!("{:?}", found.1), format!("{:?}", expected.1));
        }
        (expected.0, expected.1.err().map(|error| error.to_string()))
    }

    #[test]
    fn threads_read_what_one_reads() {
        let contents: Vec<_> =
            (0..9_u8).map(|at| noise(20_000 * usize::from(at), at.into())).collect();
        let streams: Vec<_> = contents.iter().map(|content| stream(content)).collect();
        assert_eq!(check(&streams.concat(), &limits(1)), (contents.concat(), None));
        assert_eq!(check(&streams[3], &limits(1)), (contents[3].clone(), None));
        assert!(check(b"", &limits(1)).1.is_some());
    }

    #[test]
    fn large_streams_are_read_in_order() {
        let parts = [noise(50_000, 1), noise(3_000_000, 2), vec![7; 3_000_000], noise(9, 3)];
        let archive: Vec<_> = parts.iter().flat_map(|part| stream(part)).collect();
        assert_eq!(check(&archive, &limits(1)), (parts.concat(), None));
    }

    #[test]
    fn s16_what_only_looks_like_a_start_changes_nothing() {
        let good = [stream(&noise(30_000, 1)), stream(&noise(30_000, 2))];
        let starts = [&b"BZh9\x31\x41\x59\x26\x53\x59"[..], b"BZh1\x17\x72\x45\x38\x50\x90"];
        for start in starts {
            for at in [0, 1, 14, 5_000] {
                // Inside of the second stream, and between streams.
                let mut inside = good[1].clone();
                inside[at..at + 10].copy_from_slice(start);
                let (bytes, _) = check(&[&good[0], &*inside, &good[0]].concat(), &limits(1));
                assert!(bytes.starts_with(&noise(30_000, 1)));
            }
            let (_, error) = check(&[&good[0], start, &good[1]].concat(), &limits(1));
            assert!(error.is_some());
        }
    }

    #[test]
    fn damage_is_noticed_as_in_order() {
        let streams: Vec<_> = (0..6).map(|at| stream(&noise(30_000, at))).collect();
        let archive = streams.concat();
        for at in (0..archive.len()).step_by(archive.len() / 20) {
            let mut damaged = archive.clone();
            damaged[at] ^= 0x10;
            assert!(check(&damaged, &limits(1)).1.is_some(), "{at}");
            // All streams are of about one size, so no cut is where one ends.
            assert!(check(&archive[..=at], &limits(1)).1.is_some(), "{at}");
        }
        for garbage in [&b"\0"[..], b"B", b"BZh9", b"garbage after the end"] {
            assert!(check(&[&archive, garbage].concat(), &limits(1)).1.is_some());
        }
    }

    #[test]
    fn s16_limits_hold_in_order_for_any_number_of_threads() {
        let archive: Vec<_> = (0..8).flat_map(|at| stream(&noise(30_000, at))).collect();
        let size = archive.len() as u64;
        let fits = Limits { archive_bytes: size, unpacked_bytes: 240_000, ..limits(1) };
        assert_eq!(check(&archive, &fits).1, None);
        for count in [1, 2, 7] {
            let threads = NonZeroUsize::new(count).unwrap();
            for max in [size - 1, 70_000] {
                let tight = Limits { threads, archive_bytes: max, ..fits };
                let (bytes, result) = unpacked(&archive, &tight);
                assert_eq!(result.unwrap_err().to_string(), Excess::Archive(max).to_string());
                assert!(bytes.len() < 240_000);
            }
            let tight = Limits { threads, unpacked_bytes: 100_000, ..fits };
            let (bytes, result) = unpacked(&archive, &tight);
            assert_eq!(result.unwrap_err().to_string(), Excess::Unpacked(100_000).to_string());
            assert!(bytes.len() <= 100_000);

            let bomb: Vec<_> = (0..50).flat_map(|_| stream(&vec![0; 900_000])).collect();
            let tight = Limits { threads, ratio: 100, ratio_from_bytes: 1_000_000, ..fits };
            let tight = Limits { unpacked_bytes: u64::MAX, archive_bytes: u64::MAX, ..tight };
            let (bytes, result) = unpacked(&bomb, &tight);
            assert_eq!(result.unwrap_err().to_string(), Excess::Ratio(100).to_string());
            assert!(bytes.len() <= 2_000_000, "{}", bytes.len());
        }
    }

    #[test]
    fn an_archive_that_is_dropped_early_is_not_read_to_its_end() {
        struct Watched<'a>(&'a [u8], &'a mut usize);
        impl Read for Watched<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.0.read(buffer)?;
                *self.1 += count;
                Ok(count)
            }
        }
        let archive: Vec<_> = (0..40).flat_map(|at| stream(&noise(50_000, at))).collect();
        let mut read = 0;
        let mut reader = Unpacked::new(Watched(&archive, &mut read), &limits(4));
        reader.read_exact(&mut [0; 100]).unwrap();
        drop(reader);
        assert!(read < 300_000, "{read}");
    }
}
