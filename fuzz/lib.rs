//! What the fuzz targets have in common.

use std::io::Write as _;

use bzip2::Compression;
use bzip2::write::BzEncoder;
use sbs_manifest::Limits;

/// Limits that an input of some kilobytes can exceed, so that what is behind them is reached too.
pub const LIMITS: Limits = Limits {
    archive_bytes: 64 << 10,
    commit_bytes: 4 << 10,
    entries: 64,
    entry_bytes: 256 << 10,
    listing_bytes: 16 << 10,
    log_bytes: 16 << 10,
    ratio: 100,
    ratio_from_bytes: 64 << 10,
    record_bytes: 16 << 10,
    threads: std::num::NonZeroUsize::MIN,
    unpacked_bytes: 1 << 20,
};

/// Compresses, quickly.
pub fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes every byte");
    encoder.finish().expect("memory takes every byte")
}

/// Returns a tar archive with the right checksum in every header that can be found.
///
/// A mutation almost never hits the checksum, and what is behind a wrong one is not read.
pub fn with_checksums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<BLOCK>()) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        header[CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[CHECKSUM].copy_from_slice(format!("{sum:07o}\0").as_bytes());
        let digits = std::str::from_utf8(&header[SIZE]).unwrap_or_default();
        let size = usize::from_str_radix(digits, 8).unwrap_or(0);
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
    tar
}

const BLOCK: usize = 512;
/// Where a header has its fields (POSIX.1-2001, pax, "ustar Interchange Format").
const CHECKSUM: std::ops::Range<usize> = 148..156;
const SIZE: std::ops::Range<usize> = 124..135;
