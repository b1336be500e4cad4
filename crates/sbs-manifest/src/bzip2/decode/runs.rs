//! The run lengths that bzip2 writes before it sorts, undone.

use crate::bzip2::crc::Crc;

/// Gives out the text of a block, in which four equal bytes are followed by how many more there are.
pub(crate) struct Runs {
    text: Vec<u8>,
    at: usize,
    /// Up to here the text is given out as it is; the number of repeats follows, if anything.
    plain: usize,
    /// Whether four equal bytes end there, so that a number must follow.
    is_run: bool,
    /// A byte, and how many times it is to be given out next.
    repeats: (u8, usize),
    crc: Crc,
}

impl Runs {
    pub(crate) fn new(text: Vec<u8>) -> Self {
        let (plain, is_run) = end_of_run(&text, 0);
        Self { text, at: 0, plain, is_run, repeats: (0, 0), crc: Crc::new() }
    }

    /// Tells whether all was given out.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.text.len() && self.repeats.1 == 0
    }

    /// Tells whether the text ends with four equal bytes and without the number of their repeats,
    /// which libbz2 takes for damage.
    pub(crate) fn lacks_repeats(&self) -> bool {
        self.is_run && self.plain == self.text.len()
    }

    /// Returns the checksum of what was given out.
    pub(crate) fn crc(&self) -> u32 {
        self.crc.finish()
    }

    /// Returns what comes next: `max` bytes, or all that is left.
    pub(crate) fn next(&mut self, max: usize) -> Vec<u8> {
        let left = self.text.len() - self.at + self.repeats.1;
        let mut out = Vec::with_capacity(max.min(left + left / 8));
        while out.len() < max && !self.is_at_end() {
            let room = max - out.len();
            let (byte, repeats) = &mut self.repeats;
            if *repeats > 0 {
                let count = room.min(*repeats);
                out.resize(out.len() + count, *byte);
                *repeats -= count;
            } else if self.at < self.plain {
                let end = self.plain.min(self.at.saturating_add(room));
                out.extend_from_slice(self.text.get(self.at..end).unwrap_or_default());
                self.at = end;
            } else {
                let around = self.text.get(self.at - 1..=self.at).unwrap_or_default();
                if let [byte, count] = *around {
                    self.repeats = (byte, count.into());
                }
                self.at += 1;
                (self.plain, self.is_run) = end_of_run(&self.text, self.at);
            }
        }
        self.crc.update(&out);
        out
    }
}

/// Returns where the first four equal bytes at or behind `from` end, and true; or the end of the text.
fn end_of_run(text: &[u8], from: usize) -> (usize, bool) {
    let mut at = from;
    while let Some(bytes) = text.get(at..).and_then(|rest| rest.first_chunk::<11>()) {
        let [one, two, three, four] = [0, 1, 2, 3].map(|skip| word(bytes, skip));
        let differ = (one ^ two) | (two ^ three) | (three ^ four);
        // The lowest top bit that is set here belongs to the first byte of zero.
        let zero = differ.wrapping_sub(LOW_BITS) & !differ & (LOW_BITS << 7);
        if zero != 0 {
            return (at + zero.trailing_zeros() as usize / 8 + RUN, true);
        }
        at += 8;
    }
    let rest = text.get(at..).unwrap_or_default();
    let run = rest.windows(RUN).position(|four| four.iter().all(|byte| Some(byte) == four.first()));
    run.map_or((text.len(), false), |run| (at + run + RUN, true))
}

fn word(bytes: &[u8; 11], skip: usize) -> u64 {
    bytes
        .get(skip..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u64::from_le_bytes(*word))
}

/// Equal bytes that a number of repeats follows.
const RUN: usize = 4;
const LOW_BITS: u64 = u64::from_ne_bytes([1; 8]);

#[cfg(test)]
mod tests {
    use super::*;

    /// Undoes the runs byte by byte.
    fn slowly(text: &[u8]) -> Vec<u8> {
        let (mut out, mut equal) = (Vec::new(), 0);
        for byte in text {
            let last = out.last().copied();
            if equal == RUN {
                out.extend(vec![last.unwrap(); usize::from(*byte)]);
                equal = 0;
            } else {
                equal = if equal > 0 && last == Some(*byte) { equal + 1 } else { 1 };
                out.push(*byte);
            }
        }
        out
    }

    #[test]
    fn all_short_texts_are_undone_as_byte_by_byte() {
        // Three different bytes, one of which is a number of repeats that can be told from it.
        for length in 0..12_u32 {
            for number in 0..3_usize.pow(length) {
                let digit = |at| [0_u8, 1, 2][number / 3_usize.pow(at) % 3];
                let text: Vec<u8> = (0..length).map(digit).collect();
                let expected = slowly(&text);
                assert_eq!(Runs::new(text.clone()).next(usize::MAX), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn any_steps_give_the_same_and_the_same_checksum() {
        let text = [&b"abcabc"[..], &[7; 4], &[255], &[7; 9], &[0; 30], &[3; 4], b"x"].concat();
        let expected = slowly(&text);
        let mut crc = Crc::new();
        crc.update(&expected);
        for step in 1..expected.len() + 2 {
            let mut runs = Runs::new(text.clone());
            let mut out = Vec::new();
            while !runs.is_at_end() {
                let part = runs.next(step);
                assert!(part.len() == step || runs.is_at_end());
                out.extend(part);
            }
            assert_eq!((&out, runs.crc()), (&expected, crc.finish()));
        }
    }
}
