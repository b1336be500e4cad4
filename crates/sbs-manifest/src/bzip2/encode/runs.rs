//! The first run-length coding: a run of 4 to 255 bytes becomes four of them and a count.

use super::text::Text;

/// Fills a block of at most `max` bytes with the start of what is left; tells how much of it.
pub(super) fn fill(text: &mut Text, content: &[u8], max: usize) -> usize {
    let mut left = content;
    loop {
        let plain = left.array_windows().position(|[a, b, c, d]| a == b && a == c && a == d);
        let room = max - text.len();
        let (plain, rest) = left.split_at(plain.unwrap_or(left.len()).min(room));
        text.extend(plain);
        left = rest;
        let Some(&byte) = left.first() else { break };
        if max - text.len() < RUN_MAX {
            break;
        }
        let count = left.iter().take(255).take_while(|&&next| next == byte).count();
        // A run that the room cut short is looked at again, in the next block.
        text.extend(&[byte, byte, byte, byte, (count - 4) as u8]);
        left = &left[count..];
    }
    content.len() - left.len()
}

/// The coded bytes of the longest run.
const RUN_MAX: usize = 5;
