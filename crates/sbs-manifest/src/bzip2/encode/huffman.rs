//! Huffman codes of limited length.

use super::mtf::MAX_SYMBOLS;

/// Returns the length of each symbol's code, 1 to [`MAX_LENGTH`], for how often each occurs.
///
/// Symbols that do not occur have codes, too: the format asks for it. There are at least two.
pub(super) fn lengths(counts: &[u32]) -> [u8; MAX_SYMBOLS] {
    let mut leaves: Vec<(u32, usize)> = counts.iter().map(|&count| count.max(1)).zip(0..).collect();
    leaves.sort_unstable();
    loop {
        let lengths = unlimited(&leaves);
        if lengths.iter().all(|&length| length <= MAX_LENGTH) {
            return lengths;
        }
        // A little worse, and rare: the counts come closer to one another and stay in order.
        for (count, _) in &mut leaves {
            *count = *count / 2 + 1;
        }
    }
}

/// Returns the lengths for leaves in ascending order of their counts.
fn unlimited(leaves: &[(u32, usize)]) -> [u8; MAX_SYMBOLS] {
    // Nodes come in ascending order, too, so that the two least are at the head of two queues.
    let mut parents = [0; 2 * MAX_SYMBOLS];
    let mut nodes = [0; MAX_SYMBOLS];
    let (mut leaf, mut node) = (0, 0);
    for next in 0..leaves.len() - 1 {
        for _ in 0..2 {
            let count = leaves.get(leaf).map(|&(count, _)| count);
            if count.is_some_and(|count| node == next || count <= nodes[node]) {
                nodes[next] += count.unwrap_or_default();
                parents[leaf] = next;
                leaf += 1;
            } else {
                nodes[next] += nodes[node];
                parents[MAX_SYMBOLS + node] = next;
                node += 1;
            }
        }
    }
    let mut depths = [0; MAX_SYMBOLS];
    for node in (0..leaves.len() - 2).rev() {
        depths[node] = depths[parents[MAX_SYMBOLS + node]] + 1;
    }
    let mut lengths = [0; MAX_SYMBOLS];
    for (&(_, symbol), parent) in leaves.iter().zip(parents) {
        lengths[symbol] = depths[parent] + 1;
    }
    lengths
}

/// Returns the codes for lengths: the shorter first, those of one length in order.
pub(super) fn codes(lengths: &[u8]) -> [u32; MAX_SYMBOLS] {
    let mut codes = [0; MAX_SYMBOLS];
    let mut next = 0;
    for length in 1..=MAX_LENGTH {
        for (code, _) in codes.iter_mut().zip(lengths).filter(|&(_, &of)| of == length) {
            *code = next;
            next += 1;
        }
        next <<= 1;
    }
    codes
}

/// What bzip2 writes. Readers take 20.
pub(super) const MAX_LENGTH: u8 = 17;
