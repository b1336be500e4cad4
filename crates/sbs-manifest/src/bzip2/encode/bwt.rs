//! The Burrows-Wheeler transform: the rotations of a block in order, and the byte before each.
//!
//! A rotation is of type S if it is less than the one a byte further on, and of type L if it is
//! greater. The S rotations behind an L rotation (LMS) are sorted by comparing, in [`super::lms`];
//! the order of the others follows from theirs in two passes: Ko and Aluru, "Space efficient linear
//! time construction of suffix arrays" (2005); Nong, Zhang and Chan, "Linear suffix array
//! construction by almost pure induced-sorting" (2009). They sort the suffixes of a text. bzip2
//! sorts rotations, which is simpler: the types go all the way round, and there is no end.

use super::boxed_zeros;
use super::lms::LmsSorter;
use super::text::{POSITION_BITS, Text};

/// Sorts the rotations of blocks; keeps its memory, about 8 MiB, for the next block.
pub(super) struct Transformer {
    lms: LmsSorter,
    rotations: Box<Rotations>,
}

/// The rotations in order: of each, the position where it begins in the low [`POSITION_BITS`], and
/// above them the byte before, so that neither pass nor the reader has to look it up.
pub(super) type Rotations = [u32; Text::POSITIONS];

/// What the transform gives.
#[derive(Clone, Copy)]
pub(super) struct Transformed<'a> {
    rotations: &'a [u32],
    /// The place of the block itself among its rotations.
    pub(super) origin: u32,
}

impl Transformer {
    pub(super) fn new() -> Self {
        Self { lms: LmsSorter::new(), rotations: boxed_zeros() }
    }

    /// Transforms a block that is closed and not empty.
    pub(super) fn transform(&mut self, text: &Text) -> Transformed<'_> {
        let buckets = Buckets::of(text);
        if buckets.sizes.contains(&(text.len() as u32)) {
            // All rotations are the same, and none is of a type.
            self.rotations[..text.len()].fill(u32::from(text.byte(0)) << POSITION_BITS);
        } else {
            let lms = self.lms.sort(text, &mut self.rotations);
            let ends = place_l(text, &buckets, lms, &mut self.rotations);
            place_s(text, &buckets, &ends, &mut self.rotations);
        }
        let rotations = &self.rotations[..text.len()];
        let origin = rotations.iter().position(|&entry| entry & Text::POSITION_MASK == 0);
        Transformed { rotations, origin: origin.unwrap_or(0) as u32 }
    }
}

impl<'a> Transformed<'a> {
    /// Returns the last byte of each rotation, in order.
    pub(super) fn bytes(self) -> impl Iterator<Item = u8> + 'a {
        self.rotations.iter().map(|&entry| byte_before(entry))
    }
}

/// Where the rotations that begin with each byte are.
struct Buckets {
    sizes: [u32; 256],
    starts: [u32; 256],
}

impl Buckets {
    fn of(text: &Text) -> Self {
        let sizes = histogram(text.bytes());
        let mut next = 0;
        let starts = sizes.map(|size| {
            let start = next;
            next += size;
            start
        });
        Self { sizes, starts }
    }
}

/// Puts the L rotations in order at the start of their buckets, from the LMS rotations in order.
/// Returns where they end.
fn place_l(text: &Text, buckets: &Buckets, mut lms: &[u32], out: &mut Rotations) -> [u32; 256] {
    let mut ends = buckets.starts;
    for byte in 0..=u8::MAX {
        let mut at = buckets.starts[usize::from(byte)];
        // More come to the end of the bucket that is being read.
        while at < ends[usize::from(byte)] {
            let entry = out[at as usize & INDEX_MASK];
            let before = byte_before(entry);
            let end = &mut ends[usize::from(before)];
            let is_l = before >= byte;
            // No jump depends on the data: it could not be predicted.
            let to = if is_l { *end } else { NOWHERE };
            *end += u32::from(is_l);
            out[to as usize & INDEX_MASK] = entry_before(text, entry);
            at += 1;
        }
        let here = lms.iter().take_while(|&&at| text.byte(at) == byte).count();
        let (here, rest) = lms.split_at(here);
        for &at in here {
            // What is before an LMS rotation is of type L.
            let end = &mut ends[usize::from(text.before(at))];
            out[*end as usize & INDEX_MASK] = entry_before(text, at);
            *end += 1;
        }
        lms = rest;
    }
    ends
}

/// Puts the S rotations in order at the end of their buckets, from the L rotations in order.
fn place_s(text: &Text, buckets: &Buckets, l_ends: &[u32; 256], out: &mut Rotations) {
    let mut starts = buckets.starts;
    for (start, size) in starts.iter_mut().zip(buckets.sizes) {
        *start += size;
    }
    for byte in (0..=u8::MAX).rev() {
        let bucket = usize::from(byte);
        let mut at = buckets.starts[bucket] + buckets.sizes[bucket];
        // First S rotations; more come to the start of the bucket that is being read.
        while at > starts[bucket] {
            at -= 1;
            place_s_before(text, out, &mut starts, at, |before| before <= byte);
        }
        // Then L rotations; if the byte before is the same, that rotation is L, too.
        for at in (buckets.starts[bucket]..l_ends[bucket]).rev() {
            place_s_before(text, out, &mut starts, at, |before| before < byte);
        }
    }
}

#[inline]
fn place_s_before(
    text: &Text,
    out: &mut Rotations,
    starts: &mut [u32; 256],
    at: u32,
    is_s: impl Fn(u8) -> bool,
) {
    let entry = out[at as usize & INDEX_MASK];
    let before = byte_before(entry);
    let start = &mut starts[usize::from(before)];
    let is_s = is_s(before);
    *start -= u32::from(is_s);
    let to = if is_s { *start } else { NOWHERE };
    out[to as usize & INDEX_MASK] = entry_before(text, entry);
}

#[inline]
fn byte_before(entry: u32) -> u8 {
    (entry >> POSITION_BITS) as u8
}

/// Returns the entry of the rotation that begins a byte earlier.
#[inline]
fn entry_before(text: &Text, entry: u32) -> u32 {
    let at = text.previous(entry & Text::POSITION_MASK);
    u32::from(text.before(at)) << POSITION_BITS | at
}

fn histogram(bytes: &[u8]) -> [u32; 256] {
    let mut counts = [[0_u32; 256]; 4];
    // In turns, so that a byte that comes twice need not wait for the first to be counted.
    let (chunks, rest) = bytes.as_chunks::<4>();
    for chunk in chunks {
        for (counts, &byte) in counts.iter_mut().zip(chunk) {
            counts[usize::from(byte)] += 1;
        }
    }
    let [mut sum, others @ ..] = counts;
    for &byte in rest {
        sum[usize::from(byte)] += 1;
    }
    for counts in others {
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    sum
}

const INDEX_MASK: usize = Text::POSITIONS - 1;
/// A place in [`Rotations`] that no rotation has: blocks are smaller.
const NOWHERE: u32 = Text::POSITION_MASK;
