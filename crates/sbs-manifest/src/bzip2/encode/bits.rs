//! Bits to bytes, the highest bit first.

/// Appends bits to bytes.
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// The bits that are no full 32 yet are its lowest.
    bits: u64,
    count: u32,
}

impl BitWriter {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, bits: 0, count: 0 }
    }

    /// Writes the lowest `count` bits of a value that has no others; at most 32.
    #[inline]
    pub(super) fn write(&mut self, count: u32, value: u32) {
        self.bits = self.bits << count | u64::from(value);
        self.count += count;
        if self.count >= 32 {
            self.count -= 32;
            let word = (self.bits >> self.count) as u32;
            self.bytes.extend_from_slice(&word.to_be_bytes());
        }
    }

    pub(super) fn write_bit(&mut self, bit: bool) {
        self.write(1, u32::from(bit));
    }

    /// Writes a number of 48 bits.
    pub(super) fn write_magic(&mut self, magic: u64) {
        self.write(24, (magic >> 24) as u32);
        self.write(24, magic as u32 & 0xff_ffff);
    }

    /// Fills the last byte with zeros and returns all of them.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let used = self.count.div_ceil(8) as usize;
        let last = (self.bits << (32 - self.count)) as u32;
        self.bytes.extend(last.to_be_bytes().into_iter().take(used));
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_go_from_the_highest_to_the_lowest() {
        let mut writer = BitWriter::new(b"x".to_vec());
        writer.write_bit(true);
        writer.write(7, 0x25);
        writer.write_magic(0x0123_4567_89ab);
        writer.write(32, 0xdead_beef);
        writer.write(3, 0b101);
        assert_eq!(writer.finish(), b"x\xa5\x01\x23\x45\x67\x89\xab\xde\xad\xbe\xef\xa0");
        assert_eq!(BitWriter::new(Vec::new()).finish(), b"");
    }
}
