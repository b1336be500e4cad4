use std::fmt;
use std::io::{self, Read, Write};

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::kdf::hkdf_expand_sha256;

/// The secret key that seals and opens streams of any length, in chunks of 16 KiB.
///
/// C2SP "chunked-encryption" (<https://c2sp.org/chunked-encryption>) with AES-256-GCM (SP 800-38D)
/// and HKDF-SHA-256 (RFC 5869):
///
/// ```text
/// offset size  field
/// 0      24    salt
/// 24     32    commitment
/// 56     ...   chunks of 16384 bytes and a tag of 16; the last one is shorter, perhaps empty
///
/// okm     = HKDF-Expand(key, LABEL || salt || context, 76)
/// AES key = okm[0..32], base nonce = okm[32..44], commitment = okm[44..76]
/// nonce   = base nonce XOR number of the chunk, big-endian; AAD empty
/// ```
///
/// The commitment makes a stream open under one key and one context only, which AES-GCM alone
/// does not.
pub struct ChunkedKey(Zeroizing<[u8; 32]>);

impl ChunkedKey {
    /// Number of bytes of the salt.
    pub const SALT_BYTES: usize = 24;

    /// Takes 32 bytes that are random, or derived from random bytes.
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// Begins a stream: writes salt and commitment to `output`.
    ///
    /// `context` says what the stream is and where it belongs; it is not stored. The salt is
    /// random: two streams with one salt and one context would share key and nonces, which gives
    /// both away.
    pub fn seal<W: Write>(
        &self,
        salt: &[u8; Self::SALT_BYTES],
        context: &[u8],
        mut output: W,
    ) -> io::Result<ChunkWriter<W>> {
        let (cipher, commitment) = self.cipher(salt, context);
        output.write_all(salt)?;
        output.write_all(commitment.as_slice())?;
        Ok(ChunkWriter { output, cipher, buffer: buffer(), filled: 0, failed: false })
    }

    /// Begins to open a stream: reads salt and commitment, and compares the latter in constant
    /// time.
    pub fn open<R: Read>(
        &self,
        context: &[u8],
        mut input: R,
    ) -> Result<ChunkReader<R>, OpenChunksError> {
        let mut salt = [0; Self::SALT_BYTES];
        let mut claimed = [0; COMMITMENT_BYTES];
        for field in [&mut salt[..], &mut claimed] {
            let count = read_full(&mut input, field).map_err(OpenChunksError::Read)?;
            if count < field.len() {
                return Err(OpenChunksError::Truncated);
            }
        }
        let (cipher, commitment) = self.cipher(&salt, context);
        verify_slices_are_equal(&claimed, commitment.as_slice())
            .map_err(|_| OpenChunksError::Commitment)?;
        let buffer = buffer();
        Ok(ChunkReader { input, cipher, buffer, given: 0, end: 0, state: State::Open })
    }

    fn cipher(
        &self,
        salt: &[u8; Self::SALT_BYTES],
        context: &[u8],
    ) -> (ChunkCipher, Zeroizing<[u8; COMMITMENT_BYTES]>) {
        let okm = hkdf_expand_sha256::<OKM_BYTES>(&self.0, &[LABEL, salt, context]);
        let (key, rest) = okm.split_at(KEY_BYTES);
        let (nonce, commitment) = rest.split_at(NONCE_BYTES);
        let mut base_nonce = Zeroizing::new([0; NONCE_BYTES]);
        base_nonce.copy_from_slice(nonce);
        let mut committed = Zeroizing::new([0; COMMITMENT_BYTES]);
        committed.copy_from_slice(commitment);
        let aes = Aes256Gcm::new_from_slice(key).expect("the key has 32 bytes");
        (ChunkCipher { aes, base_nonce, next: 0 }, committed)
    }
}

impl fmt::Debug for ChunkedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkedKey")
    }
}

/// Seals what is written to it; a stream is complete only after [`finish`](Self::finish).
///
/// Holds one chunk. After an error it stays failed: the output may end anywhere.
pub struct ChunkWriter<W> {
    output: W,
    cipher: ChunkCipher,
    // The first bytes are plaintext that waits for more.
    buffer: Buffer,
    filled: usize,
    failed: bool,
}

impl<W: Write> ChunkWriter<W> {
    /// Writes the last chunk and returns the output, which is not flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.check()?;
        // Cannot be a whole chunk: `write` sends those off at once.
        self.emit()?;
        Ok(self.output)
    }

    fn emit(&mut self) -> io::Result<()> {
        self.failed = true;
        let (plaintext, rest) = self.buffer.split_at_mut(self.filled);
        let tag = self.cipher.seal(plaintext.into())?;
        rest.get_mut(..TAG_BYTES).expect("a chunk leaves room for the tag").copy_from_slice(&tag);
        let sealed = self.buffer.get(..self.filled + TAG_BYTES).expect("it was just filled");
        self.output.write_all(sealed)?;
        self.filled = 0;
        self.failed = false;
        Ok(())
    }

    fn emit_from(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.failed = true;
        let (body, tag_place) = self.buffer.split_at_mut(CHUNK_BYTES);
        let both = InOutBuf::new(chunk, body).expect("both are of the size of a chunk");
        let tag = self.cipher.seal(both)?;
        tag_place.copy_from_slice(&tag);
        self.output.write_all(&self.buffer)?;
        self.failed = false;
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.failed { Err(io::Error::other("an earlier write failed")) } else { Ok(()) }
    }
}

impl<W: Write> Write for ChunkWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        if self.filled == 0 {
            // The common case of a large input: encrypted from there, without a copy.
            if let Some(chunk) = bytes.get(..CHUNK_BYTES) {
                self.emit_from(chunk)?;
                return Ok(CHUNK_BYTES);
            }
        }
        let count = bytes.len().min(CHUNK_BYTES - self.filled);
        let (taken, _) = bytes.split_at(count);
        let (_, free) = self.buffer.split_at_mut(self.filled);
        free.split_at_mut(count).0.copy_from_slice(taken);
        self.filled += count;
        if self.filled == CHUNK_BYTES {
            self.emit()?;
        }
        Ok(count)
    }

    /// Flushes the output. Bytes that do not fill a chunk stay here.
    fn flush(&mut self) -> io::Result<()> {
        self.check()?;
        self.output.flush()
    }
}

impl<W> fmt::Debug for ChunkWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkWriter")
    }
}

/// Opens a stream chunk by chunk; nothing is given before its chunk is verified.
///
/// Holds one chunk. After an error it stays failed.
pub struct ChunkReader<R> {
    input: R,
    cipher: ChunkCipher,
    // Plaintext that was not yet consumed stands between `given` and `end`.
    buffer: Buffer,
    given: usize,
    end: usize,
    state: State,
}

impl<R: Read> ChunkReader<R> {
    /// Returns verified bytes that were not consumed yet; nothing once the stream is complete.
    ///
    /// A stream is complete after its last chunk and the end of the input, never before.
    pub fn bytes(&mut self) -> Result<&[u8], OpenChunksError> {
        // A chunk can be the last and empty, so that one look is enough.
        if self.given == self.end && self.state == State::Open {
            self.next_chunk()?;
        }
        if self.state == State::Failed {
            return Err(OpenChunksError::Failed);
        }
        Ok(self.buffer.get(self.given..self.end).unwrap_or_default())
    }

    /// Takes `count` of the bytes that [`bytes`](Self::bytes) gave, or all of them if there are
    /// not so many.
    pub fn consume(&mut self, count: usize) {
        self.given = self.end.min(self.given.saturating_add(count));
    }

    fn next_chunk(&mut self) -> Result<(), OpenChunksError> {
        let opened = self.open_next();
        if opened.is_err() {
            self.state = State::Failed;
            (self.given, self.end) = (0, 0);
            self.buffer.zeroize();
        }
        opened
    }

    fn open_next(&mut self) -> Result<(), OpenChunksError> {
        let count = read_full(&mut self.input, &mut self.buffer).map_err(OpenChunksError::Read)?;
        let end = count.checked_sub(TAG_BYTES).ok_or(OpenChunksError::Truncated)?;
        let (body, rest) = self.buffer.split_at_mut(end);
        let tag: &Tag = rest
            .get(..TAG_BYTES)
            .and_then(|tag| tag.try_into().ok())
            .ok_or(OpenChunksError::Truncated)?;
        self.cipher.open(body, tag)?;
        (self.given, self.end) = (0, end);
        // Short because the input ended: nothing can stand behind the last chunk.
        if end < CHUNK_BYTES {
            self.state = State::Complete;
        }
        Ok(())
    }
}

impl<R> fmt::Debug for ChunkReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkReader").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Why a stream was not opened, or not to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenChunksError {
    /// The key or the context is another one, or salt or commitment were changed.
    #[error("sealed stream is not of this key and context")]
    Commitment,

    /// A chunk was changed, moved, cut, or is of another stream.
    #[error("sealed stream is damaged")]
    Damaged,

    /// The stream failed before, and gives nothing more.
    #[error("sealed stream failed before")]
    Failed,

    /// The input cannot be read.
    #[error("sealed stream cannot be read")]
    Read(#[source] io::Error),

    /// There are more chunks than nonces.
    #[error("sealed stream has more than 2^32 chunks")]
    TooLarge,

    /// The input ends before the last chunk.
    #[error("sealed stream ends too early")]
    Truncated,
}

/// AES-256-GCM with the nonces of one stream.
struct ChunkCipher {
    aes: Aes256Gcm,
    base_nonce: Zeroizing<[u8; NONCE_BYTES]>,
    next: u64,
}

impl ChunkCipher {
    fn seal(&mut self, chunk: InOutBuf<'_, '_, u8>) -> io::Result<Tag> {
        let nonce = self.next_nonce().ok_or(io::ErrorKind::FileTooLarge)?;
        let tag = self.aes.encrypt_inout_detached(&nonce, b"", chunk);
        Ok(tag.expect("a chunk is far below the limit of AES-GCM"))
    }

    fn open(&mut self, chunk: &mut [u8], tag: &Tag) -> Result<(), OpenChunksError> {
        let nonce = self.next_nonce().ok_or(OpenChunksError::TooLarge)?;
        self.aes
            .decrypt_inout_detached(&nonce, b"", chunk.into(), tag)
            .map_err(|_| OpenChunksError::Damaged)
    }

    /// Returns the nonce of the next chunk, once.
    fn next_nonce(&mut self) -> Option<Nonce<aes_gcm::aead::consts::U12>> {
        let number = u32::try_from(self.next).ok()?;
        self.next += 1;
        let mut nonce = *self.base_nonce;
        for (byte, number) in nonce.iter_mut().rev().zip(number.to_be_bytes().iter().rev()) {
            *byte ^= number;
        }
        Some(nonce.into())
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Complete,
    Failed,
    Open,
}

/// Fills `bytes` as far as the input goes, and returns how many it gave.
fn read_full(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        let (_, free) = bytes.split_at_mut(filled);
        match input.read(free) {
            Ok(0) => break,
            // A reader that claims more than the buffer holds breaks the contract of `Read`.
            Ok(count) if count > free.len() => return Err(io::ErrorKind::InvalidData.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn buffer() -> Buffer {
    Zeroizing::new(vec![0; CHUNK_BYTES + TAG_BYTES].into_boxed_slice())
}

// Of a fixed size: a vector that grows leaves copies of the plaintext behind.
type Buffer = Zeroizing<Box<[u8]>>;

const LABEL: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
const CHUNK_BYTES: usize = 16 * 1024;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const COMMITMENT_BYTES: usize = 32;
const OKM_BYTES: usize = KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES;

#[cfg(test)]
mod tests;
