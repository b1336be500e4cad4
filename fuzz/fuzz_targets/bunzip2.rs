//! bzip2, held against the crate of that name, by one thread and by two.

#![no_main]

use std::io::Read;
use std::num::NonZeroUsize;

use bzip2::read::MultiBzDecoder;
use libfuzzer_sys::fuzz_target;
use sbs_fuzz::LIMITS;
use sbs_manifest::{Limits, decompressed};

fuzz_target!(|bytes: &[u8]| {
    let archive = without_randomised(bytes);
    let expected = read(MultiBzDecoder::new(&*archive)).filter(|_| !archive.is_empty());
    for threads in [1, 2] {
        let threads = NonZeroUsize::new(threads).expect("one and two are not zero");
        // The crate has no limits; those of this reader are what `outer` is for.
        let limits =
            Limits { threads, archive_bytes: MAX, unpacked_bytes: MAX, ratio: MAX, ..LIMITS };
        let found = read(decompressed(&*archive, &limits));
        assert!(found == expected, "{threads} threads");
    }
});

/// Reads all, if it can be read; what is very large is not read to its end, and is not compared.
fn read(content: impl Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    content.take(MAX_COMPARED).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Clears the bit that says that a block is "randomised": the crate takes such blocks, and the
/// reader refuses them.
fn without_randomised(bytes: &[u8]) -> Vec<u8> {
    let mut archive = bytes.to_vec();
    let bit = |bytes: &[u8], at: usize| {
        bytes.get(at / 8).map_or(0, |byte| u64::from(byte >> (7 - at % 8) & 1))
    };
    let mut last = 0_u64;
    for at in 0..8 * bytes.len() {
        last = (last << 1 | bit(&archive, at)) & 0xffff_ffff_ffff;
        // The checksum, 32 bits, is between the magic number and the bit.
        if last == BLOCK_MAGIC
            && let Some(byte) = archive.get_mut((at + 33) / 8)
        {
            *byte &= !(0x80 >> ((at + 33) % 8));
        }
    }
    archive
}

const BLOCK_MAGIC: u64 = 0x3141_5926_5359;
const MAX: u64 = u64::MAX;
const MAX_COMPARED: u64 = 64 << 20;
