use std::fmt;

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{digest, hkdf_sha256, random_bytes};

/// The secret key that seals and opens small objects with AES-256-GCM (SP 800-38D).
///
/// Each object has its own key, derived with HKDF from this key, a random salt and the context:
///
/// ```text
/// offset size  field
/// 0      8     magic 93 53 42 53 45 0d 0a 1a
/// 8      1     version = 1
/// 9      32    salt, random
/// 41     n     ciphertext
/// 41+n   16    tag
///
/// key   = HKDF-SHA-256(salt, ikm = sealing key, info = "sbs.seal/v1 " || SHA-256(context))
/// nonce = 12 zero bytes
/// AAD   = bytes 0 to 41
/// ```
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl SealingKey {
    /// Takes 32 bytes that are random, or derived from random bytes.
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// Seals `plaintext`, at most 16 MiB, so that it opens only with this key and this context.
    ///
    /// `context` says what the object is and where it belongs. It is not stored.
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        self.seal_with_salt(&random_bytes(), context, plaintext)
    }

    /// Opens what [`seal`](Self::seal) made with the same key and context.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if sealed.len() > MAX_PLAINTEXT_BYTES + OVERHEAD_BYTES {
            return Err(OpenError);
        }
        let (header, ciphertext) = sealed.split_at_checked(HEADER_BYTES).ok_or(OpenError)?;
        let salt = header.strip_prefix(MAGIC_AND_VERSION).ok_or(OpenError)?;
        // A failed decryption leaves the buffer as ciphertext or zero; it is wiped in any case.
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        self.cipher(salt, context)
            .decrypt_in_place(&NONCE, header, &mut *buffer)
            .map_err(|_| OpenError)?;
        Ok(buffer)
    }

    fn seal_with_salt(
        &self,
        salt: &[u8; SALT_BYTES],
        context: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        if plaintext.len() > MAX_PLAINTEXT_BYTES {
            return Err(SealError::TooLarge);
        }
        let mut header = [0; HEADER_BYTES];
        let (start, rest) = header.split_at_mut(MAGIC_AND_VERSION.len());
        start.copy_from_slice(MAGIC_AND_VERSION);
        rest.copy_from_slice(salt);

        let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
        sealed.extend_from_slice(&header);
        sealed.extend_from_slice(plaintext);
        let (_, body) = sealed.split_at_mut(HEADER_BYTES);
        let tag = self
            .cipher(salt, context)
            .encrypt_inout_detached(&NONCE, &header, body.into())
            .map_err(|_| SealError::TooLarge)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    fn cipher(&self, salt: &[u8], context: &[u8]) -> Aes256Gcm {
        // The digest makes the context's length fixed, so nothing can be moved between the parts.
        let info = [LABEL, digest(context).as_bytes()].concat();
        let key = hkdf_sha256(salt, self.0.as_slice(), &info);
        Aes256Gcm::new((&*key).into())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey")
    }
}

/// Why an object was not sealed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SealError {
    /// The object is over the limit.
    #[error("object is larger than {} MiB", MAX_PLAINTEXT_BYTES / (1024 * 1024))]
    TooLarge,
}

/// The object does not open: another key or context, damaged, cut, too large, or never sealed.
///
/// There is one such error, so that a prober learns nothing from it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("sealed object cannot be opened with this key")]
pub struct OpenError;

// Begins with a non-ASCII byte and holds CR LF and the DOS end of file, so that a transfer that
// rewrites text is noticed. The last byte is the version.
const MAGIC_AND_VERSION: &[u8; 9] = b"\x93SBSE\r\n\x1a\x01";
const LABEL: &[u8] = b"sbs.seal/v1 ";
const SALT_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC_AND_VERSION.len() + SALT_BYTES;
const TAG_BYTES: usize = 16;
const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

// What is sealed are records of a few KiB. The limit bounds memory, and is far under the 64 GiB
// of one AES-GCM message.
const MAX_PLAINTEXT_BYTES: usize = 16 * 1024 * 1024;

// Fixed because each key seals one object: two objects share a key only if they share a 256-bit
// random salt.
const NONCE: Nonce<aes_gcm::aead::consts::U12> = aes_gcm::aead::array::Array([0; 12]);

#[cfg(test)]
mod tests;
