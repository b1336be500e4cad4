//! The order of the LMS rotations (see [`super::bwt`]).
//!
//! They are sorted by their first bytes, some more at a time, until each is alone or the others
//! that are still the same agree up to the next LMS position at least. From there on the order of
//! what follows is used: a group that agrees up to an LMS position is sorted by the rank of the
//! rotations at that position, which makes the part that is known to agree at least twice as long
//! in every round (Larsson and Sadakane, "Faster suffix sorting", 1999). Rounds go through the
//! block from its end, so that a long part that comes twice is mostly sorted in one of them.

use std::cmp::Reverse;
use std::mem;

use super::bwt::Rotations;
use super::text::{POSITION_BITS, Text};

/// Sorts LMS rotations; keeps its memory for the next block.
pub(super) struct LmsSorter {
    /// Positions in order, as far as it is known. Groups that are not told apart yet are next to
    /// one another; the last member has the bit [`LAST`].
    order: Vec<u32>,
    /// Positions, and above them what they are sorted by.
    keys: Vec<u64>,
    /// Groups to sort by bytes: start, end, and how many bytes agree.
    by_bytes: Vec<(u32, u32, u32)>,
    /// Groups to sort by ranks: the last position in the group, and the start.
    by_ranks: Vec<(u32, u32)>,
    /// Where the positions with the same first two bytes start.
    starts: Box<[u32; 1 << 16]>,
}

impl LmsSorter {
    pub(super) fn new() -> Self {
        Self {
            order: Vec::new(),
            keys: Vec::new(),
            by_bytes: Vec::new(),
            by_ranks: Vec::new(),
            starts: super::boxed_zeros(),
        }
    }

    /// Returns the LMS positions of a text that is not all one byte, in the order of the rotations
    /// that begin there. `scratch` is memory that is free for now.
    pub(super) fn sort(&mut self, text: &Text, scratch: &mut Rotations) -> &[u32] {
        self.sort_by_two_bytes(text, scratch);
        let (ranks, agreed) = scratch.split_at_mut(Text::POSITIONS / 2);
        self.sort_by_bytes(text, agreed);
        self.sort_by_ranks(text, ranks, agreed);
        for at in &mut self.order {
            *at &= Text::POSITION_MASK;
        }
        &self.order
    }

    fn sort_by_two_bytes(&mut self, text: &Text, scratch: &mut Rotations) {
        let found = find(text, scratch);
        self.starts.fill(0);
        for &at in found {
            self.starts[first_two(text, at)] += 1;
        }
        let mut next = 0;
        self.by_bytes.clear();
        for start in self.starts.iter_mut() {
            let size = *start;
            *start = next;
            next += size;
            if size > 1 {
                self.by_bytes.push((next - size, next, 2));
            }
        }
        self.order.clear();
        self.order.resize(found.len(), 0);
        for &at in found {
            let start = &mut self.starts[first_two(text, at)];
            // What is alone keeps this bit; what is not is written anew.
            self.order[*start as usize] = at | LAST;
            *start += 1;
        }
    }

    /// Sorts by bytes until what is left can be sorted by ranks; says in `agreed`, at the first
    /// place of each group, how far ahead there is an LMS position up to which the group agrees.
    fn sort_by_bytes(&mut self, text: &Text, agreed: &mut [u32]) {
        while let Some((start, end, depth)) = self.by_bytes.pop() {
            let group = &mut self.order[start as usize..end as usize];
            self.keys.clear();
            self.keys.extend(group.iter().map(|&at| {
                let at = at & Text::POSITION_MASK;
                let word = text.word(text.ahead(at, depth));
                word >> (64 - 8 * STEP) << POSITION_BITS | u64::from(at)
            }));
            self.keys.sort_unstable();
            let depth = depth + STEP;
            let mut first = start;
            for same in self.keys.chunk_by(|a, b| a >> POSITION_BITS == b >> POSITION_BITS) {
                let next = first + same.len() as u32;
                write_group(&mut self.order[first as usize..next as usize], same);
                if let [key, _, ..] = *same {
                    let lms =
                        if depth < DEEP { None } else { last_lms(text, position(key), depth) };
                    match lms {
                        Some(ahead) => agreed[first as usize] = ahead,
                        None => self.by_bytes.push((first, next, depth)),
                    }
                }
                first = next;
            }
        }
    }

    /// Sorts what is left by the rank of what follows the part that agrees.
    fn sort_by_ranks(&mut self, text: &Text, ranks: &mut [u32], agreed: &mut [u32]) {
        let ranks = &mut ranks[..=text.len() / 2];
        let mut first = 0;
        self.by_ranks.clear();
        for (place, &entry) in (0..).zip(&self.order) {
            ranks[slot(entry & Text::POSITION_MASK)] = first;
            if entry & LAST != 0 {
                if first != place {
                    self.by_ranks.push((entry & Text::POSITION_MASK, first));
                }
                first = place + 1;
            }
        }
        // Backwards: what follows a group is sorted before it, wherever it can be.
        self.by_ranks.sort_unstable_by_key(|&group| Reverse(group));
        while !self.by_ranks.is_empty() {
            for (_, start) in mem::take(&mut self.by_ranks) {
                self.sort_group(text, ranks, agreed, start);
            }
        }
    }

    /// Sorts the group that starts at a place, and notes for the next round what is still the same.
    fn sort_group(&mut self, text: &Text, ranks: &mut [u32], agreed: &mut [u32], start: u32) {
        let ahead = agreed[start as usize];
        if let [first, second, ..] = &mut self.order[start as usize..]
            && *second & LAST != 0
        {
            // Most groups are pairs, and most pairs differ here.
            let (a, b) = (*first, *second & Text::POSITION_MASK);
            let rank_of = |at| ranks[slot(text.ahead(at, ahead))];
            let (rank_a, rank_b) = (rank_of(a), rank_of(b));
            if rank_a != rank_b {
                let (low, high) = if rank_a < rank_b { (a, b) } else { (b, a) };
                (*first, *second) = (low | LAST, high | LAST);
                ranks[slot(low)] = start;
                ranks[slot(high)] = start + 1;
                return;
            }
        }
        self.keys.clear();
        for &entry in &self.order[start as usize..] {
            let at = entry & Text::POSITION_MASK;
            let rank = ranks[slot(text.ahead(at, ahead))];
            self.keys.push(u64::from(rank) << POSITION_BITS | u64::from(at));
            if entry & LAST != 0 {
                break;
            }
        }
        self.keys.sort_unstable();
        let mut first = start;
        for same in self.keys.chunk_by(|a, b| a >> POSITION_BITS == b >> POSITION_BITS) {
            let group = &mut self.order[first as usize..first as usize + same.len()];
            write_group(group, same);
            let rank = (same[0] >> POSITION_BITS) as u32;
            // These agree from there on as far as those of that rank do.
            let agree = ahead + if rank == start { ahead } else { agreed[rank as usize] };
            if same.len() == 1 || agree >= text.len() as u32 {
                // Those that are the same all the way round may have any order.
                for (rank, entry) in (first..).zip(group) {
                    ranks[slot(*entry & Text::POSITION_MASK)] = rank;
                    *entry |= LAST;
                }
            } else {
                for entry in group.iter() {
                    ranks[slot(entry & Text::POSITION_MASK)] = first;
                }
                agreed[first as usize] = agree;
                self.by_ranks.push((position(same[same.len() - 1]), first));
            }
            first += same.len() as u32;
        }
    }
}

/// Writes the LMS positions of a text, from its end to its start, and returns them.
#[expect(clippy::needless_bitwise_bool, reason = "a jump here could not be predicted")]
fn find<'a>(text: &Text, out: &'a mut Rotations) -> &'a [u32] {
    let bytes = text.bytes();
    let (mut count, last) = (0_usize, bytes[bytes.len() - 1]);
    let last_is_s = bytes.iter().find(|&&byte| byte != last).is_some_and(|&byte| byte > last);
    let mut next_is_s = last_is_s;
    for (at, pair) in bytes.array_windows().enumerate().rev() {
        let [byte, next] = *pair;
        let is_s = (byte < next) | ((byte == next) & next_is_s);
        out[count & (Text::POSITIONS - 1)] = at as u32 + 1;
        count += usize::from(next_is_s & !is_s);
        next_is_s = is_s;
    }
    if next_is_s && !last_is_s {
        out[count] = 0;
        count += 1;
    }
    &out[..count]
}

/// Returns how far ahead the last LMS position is that the next `depth` bytes alone tell of.
fn last_lms(text: &Text, at: u32, depth: u32) -> Option<u32> {
    let byte = |ahead| text.byte(text.ahead(at, ahead));
    (1..depth).rev().find(|&ahead| {
        let here = byte(ahead);
        byte(ahead - 1) > here
            && (ahead + 1..depth).map(byte).find(|&byte| byte != here) > Some(here)
    })
}

fn write_group(group: &mut [u32], keys: &[u64]) {
    for (entry, &key) in group.iter_mut().zip(keys) {
        *entry = position(key);
    }
    if let Some(entry) = group.last_mut() {
        *entry |= LAST;
    }
}

fn position(key: u64) -> u32 {
    key as u32 & Text::POSITION_MASK
}

fn first_two(text: &Text, at: u32) -> usize {
    usize::from(text.byte(at)) << 8 | usize::from(text.byte(at + 1))
}

/// Where the rank of an LMS position is kept: no two of them are next to one another.
fn slot(at: u32) -> usize {
    at as usize / 2
}

/// Bytes that a key holds.
const STEP: u32 = 5;
/// Bytes to sort by before ranks are.
const DEEP: u32 = 17;
/// The end of a group in the order.
const LAST: u32 = 1 << 31;
