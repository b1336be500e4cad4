//! Bytes to the symbols that are Huffman coded: moves to the front, and runs of zeros.

use super::boxed_zeros;
use super::text::Text;

/// The symbols of a block; keeps its memory for the next.
pub(super) struct Symbols {
    coded: Box<[u16; Text::POSITIONS]>,
    len: usize,
    counts: [u32; MAX_SYMBOLS],
    /// How many different symbols there can be in this block.
    kinds: usize,
}

impl Symbols {
    pub(super) fn new() -> Self {
        Self { coded: boxed_zeros(), len: 0, counts: [0; MAX_SYMBOLS], kinds: 0 }
    }

    /// Takes the bytes of a block, of which only those in `used` occur, in that order.
    pub(super) fn fill(&mut self, bytes: impl Iterator<Item = u8>, used: &[u8]) {
        self.len = 0;
        self.counts = [0; MAX_SYMBOLS];
        self.kinds = used.len() + 2;
        let mut list = MoveToFront::new(used);
        let mut run = 0;
        for byte in bytes {
            if byte == list.front() {
                run += 1;
            } else {
                self.push_run(run);
                run = 0;
                self.push(list.place(byte) + 1);
            }
        }
        self.push_run(run);
        self.push(used.len() as u16 + 1);
    }

    pub(super) fn all(&self) -> &[u16] {
        &self.coded[..self.len]
    }

    /// Returns how often each symbol occurs.
    pub(super) fn counts(&self) -> &[u32] {
        &self.counts[..self.kinds]
    }

    /// Writes a run of zeros as its length, in digits of 1 (symbol 0) and 2, the lowest first.
    fn push_run(&mut self, mut run: u32) {
        while run > 0 {
            run -= 1;
            self.push((run & 1) as u16);
            run >>= 1;
        }
    }

    #[inline]
    fn push(&mut self, symbol: u16) {
        self.coded[self.len & (Text::POSITIONS - 1)] = symbol;
        self.len += 1;
        self.counts[usize::from(symbol)] += 1;
    }
}

/// The bytes, those first that came last.
struct MoveToFront {
    list: [u8; 256],
}

impl MoveToFront {
    fn new(used: &[u8]) -> Self {
        let mut list = [0; 256];
        list[..used.len()].copy_from_slice(used);
        Self { list }
    }

    #[inline]
    fn front(&self) -> u8 {
        self.list[0]
    }

    /// Moves a byte to the front and returns the place where it was.
    #[inline]
    fn place(&mut self, byte: u8) -> u16 {
        let Some((head, _)) = self.list.split_first_chunk_mut::<8>() else { return 0 };
        let word = u64::from_le_bytes(*head);
        let differs = word ^ (ONES * u64::from(byte));
        // The lowest byte of `differs` that is zero has the lowest of these bits.
        let zeros = differs.wrapping_sub(ONES) & !differs & (ONES << 7);
        if zeros != 0 {
            // All bits up to that one: the bytes that move, and the place.
            let moved = zeros ^ (zeros - 1);
            *head = (word & !moved | (word << 8 | u64::from(byte)) & moved).to_le_bytes();
            return (zeros.trailing_zeros() / 8) as u16;
        }
        let place = memchr::memchr(byte, &self.list).unwrap_or(0);
        self.list.copy_within(..place, 1);
        self.list[0] = byte;
        place as u16
    }
}

/// Two for runs, one for each place but the first, one for the end.
pub(super) const MAX_SYMBOLS: usize = 258;
const ONES: u64 = 0x0101_0101_0101_0101;
