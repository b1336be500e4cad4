use std::fmt;
use std::io::{self, Read, Write};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use sbs_proto::Digest;

/// Returns the SHA-256 digest (FIPS 180-4) of `bytes`.
pub fn digest(bytes: &[u8]) -> Digest {
    into_digest(&aws_lc_rs::digest::digest(&SHA256, bytes))
}

/// A SHA-256 computation that takes its input in pieces.
#[derive(Clone)]
pub struct Sha256(Context);

impl Sha256 {
    /// Starts with no input.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Appends `bytes` to the input.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of all input.
    pub fn finish(self) -> Digest {
        into_digest(&self.0.finish())
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

/// A reader that hashes and counts what is read through it.
pub struct HashingReader<R> {
    inner: R,
    state: Sha256,
    length: u64,
}

impl<R> HashingReader<R> {
    /// Wraps `inner`; bytes read from it before are not part of the digest.
    pub fn new(inner: R) -> Self {
        Self { inner, state: Sha256::new(), length: 0 }
    }

    /// Returns the inner reader, and the digest and number of the bytes read through it.
    pub fn finish(self) -> (R, Digest, u64) {
        (self.inner, self.state.finish(), self.length)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        // A reader that claims more than the buffer holds breaks the contract of `Read`.
        let bytes = buffer.get(..count).ok_or(io::ErrorKind::InvalidData)?;
        self.state.update(bytes);
        self.length += count as u64;
        Ok(count)
    }
}

impl<R> fmt::Debug for HashingReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashingReader").field("length", &self.length).finish_non_exhaustive()
    }
}

/// A writer that hashes and counts what the inner writer accepted.
pub struct HashingWriter<W> {
    inner: W,
    state: Sha256,
    length: u64,
}

impl<W> HashingWriter<W> {
    /// Wraps `inner`; bytes written to it before are not part of the digest.
    pub fn new(inner: W) -> Self {
        Self { inner, state: Sha256::new(), length: 0 }
    }

    /// Returns the inner writer, and the digest and number of the bytes written through it.
    ///
    /// Nothing is flushed: that stays with the owner of the inner writer, who can handle an error.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.state.finish(), self.length)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Only what was accepted counts: after a short write the caller offers the rest again.
        let count = self.inner.write(bytes)?;
        let accepted = bytes.get(..count).ok_or(io::ErrorKind::InvalidData)?;
        self.state.update(accepted);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W> fmt::Debug for HashingWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashingWriter").field("length", &self.length).finish_non_exhaustive()
    }
}

fn into_digest(output: &aws_lc_rs::digest::Digest) -> Digest {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(output.as_ref());
    Digest::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-4 examples (NIST, "SHA256.pdf") and the empty message.
    const VECTORS: [(&[u8], &str); 3] = [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
    ];

    #[test]
    fn matches_the_published_digests() {
        for (message, expected) in VECTORS {
            assert_eq!(digest(message).to_hex(), expected, "{}", message.escape_ascii());
        }
    }

    #[test]
    fn pieces_hash_as_the_whole() {
        for (message, expected) in VECTORS {
            let mut state = Sha256::new();
            for piece in message.chunks(7) {
                state.update(piece);
            }
            assert_eq!(state.finish().to_hex(), expected, "{}", message.escape_ascii());
        }
    }

    #[test]
    fn reader_hashes_what_was_read_and_nothing_else() {
        let mut reader = HashingReader::new(&b"abcdef"[..]);
        let mut buffer = [0; 3];
        reader.read_exact(&mut buffer).unwrap();
        let (rest, found, length) = reader.finish();
        assert_eq!((found, length, rest), (digest(b"abc"), 3, &b"def"[..]));
    }

    #[test]
    fn writer_hashes_what_was_accepted_and_nothing_else() {
        let mut room = [0; 4];
        let mut writer = HashingWriter::new(&mut room[..]);
        assert_eq!(writer.write(b"abcdef").unwrap(), 4);
        let (_, found, length) = writer.finish();
        assert_eq!((found, length), (digest(b"abcd"), 4));
        assert_eq!(&room, b"abcd");
    }

    #[test]
    fn refuses_a_reader_that_claims_more_than_it_was_asked_for() {
        struct Liar;
        impl Read for Liar {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                Ok(buffer.len() + 1)
            }
        }
        let error = HashingReader::new(Liar).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
