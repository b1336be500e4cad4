//! The checksum of bzip2: CRC-32 with the polynomial of Ethernet, the highest bit first.

#![expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "the tables have an entry for each byte, and a wrong index of theirs would not compile"
)]

/// A checksum of the bytes so far.
#[derive(Clone, Copy)]
pub(super) struct Crc(u32);

impl Crc {
    pub(super) fn new() -> Self {
        Self(u32::MAX)
    }

    /// Returns the checksum of these bytes alone.
    pub(super) fn of(bytes: &[u8]) -> u32 {
        let mut crc = Self::new();
        crc.update(bytes);
        crc.finish()
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<SLICES>();
        let crc = chunks.iter().fold(self.0, |crc, chunk| {
            let mut chunk = *chunk;
            for (byte, crc) in chunk.iter_mut().zip(crc.to_be_bytes()) {
                *byte ^= crc;
            }
            let terms = chunk.iter().zip(TABLES.iter().rev());
            terms.fold(0, |sum, (&byte, table)| sum ^ table[usize::from(byte)])
        });
        self.0 = rest.iter().fold(crc, |crc, &byte| {
            let [top, ..] = crc.to_be_bytes();
            crc << 8 ^ TABLES[0][usize::from(top ^ byte)]
        });
    }

    pub(super) fn finish(self) -> u32 {
        !self.0
    }
}

/// Bytes that are looked up at once.
const SLICES: usize = 16;

/// What a byte adds to the checksum if that many bytes follow it.
static TABLES: [[u32; 256]; SLICES] = tables();

const fn tables() -> [[u32; 256]; SLICES] {
    let mut tables = [[0; 256]; SLICES];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = crc << 1 ^ if crc >> 31 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut slice = 1;
    while slice < SLICES {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[slice - 1][byte];
            tables[slice][byte] = crc << 8 ^ tables[0][(crc >> 24) as usize];
            byte += 1;
        }
        slice += 1;
    }
    tables
}

const POLYNOMIAL: u32 = 0x04c1_1db7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_published_values() {
        // The check value of CRC-32/BZIP2 in the catalogue of Greg Cook, and no bytes at all.
        assert_eq!(Crc::of(b"123456789"), 0xfc89_1918);
        assert_eq!(Crc::of(b""), 0);
    }

    #[test]
    fn any_length_agrees_with_the_definition() {
        let bytes: Vec<u8> = (0..100_u8).map(|at| at.wrapping_mul(77) ^ 0x5a).collect();
        for len in 0..bytes.len() {
            let expected = bytes[..len].iter().fold(u32::MAX, |crc, &byte| {
                (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
                    crc << 1 ^ if crc >> 31 == 1 { POLYNOMIAL } else { 0 }
                })
            });
            assert_eq!(Crc::of(&bytes[..len]), !expected, "{len}");
        }
    }

    #[test]
    fn pieces_have_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..100).collect();
        for at in 0..bytes.len() {
            let (head, tail) = bytes.split_at(at);
            let mut crc = Crc::new();
            crc.update(head);
            crc.update(tail);
            assert_eq!(crc.finish(), Crc::of(&bytes), "{at}");
        }
    }
}
