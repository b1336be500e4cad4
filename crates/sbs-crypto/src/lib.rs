//! Hashing, signing, sealing, key derivation and certificates for a Secure Build Server.
//!
//! This crate knows nothing about builds, and does no I/O: bytes go in, bytes come out, and the
//! time is an argument. It is not a general cryptographic library; each type has one use here and
//! one algorithm.
//!
//! Where to start:
//!
//! - to hash: [`digest`], [`Sha256`], [`HashingReader`], [`HashingWriter`];
//! - to sign and verify build manifests: [`ManifestSigningKey`], [`ManifestVerifyingKey`];
//! - to sign and verify images: [`ImageSigningKey`], [`ImageVerifyingKey`];
//! - to sign and verify image trust data: [`TrustSigningKey`], [`TrustVerifyingKey`];
//! - to sign and verify what has a type: [`dsse`];
//! - to compute the ids of git objects: [`git`];
//! - to keep a small secret at rest: [`SealingKey`];
//! - to seal a stream: [`ChunkedKey`];
//! - to derive keys: [`hkdf_sha256`], [`hkdf_expand_sha256`], [`hmac_sha256`];
//! - to make and read the certificates of mutual TLS, and those of image trust data: [`pki`];
//! - to sign, verify, encrypt and decrypt OpenPGP messages: `openpgp`.
//!
//! ```
//! use sbs_crypto::{ImageSigningKey, ImageVerifyingKey};
//!
//! let key = ImageSigningKey::generate()?;
//! let signature = key.sign(b"a message")?;
//!
//! let public = ImageVerifyingKey::from_pem(&key.verifying_key().to_pem())?;
//! let _proof = public.verify(b"a message", &signature)?;
//! assert!(public.verify(b"another message", &signature).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The feature `openpgp` adds the module of that name, and with it libssl and the licence
//! LGPL-2.0-or-later; whoever writes and verifies manifests does without.
//!
//! Standards: SHA-256 (FIPS 180-4), RSASSA-PKCS1-v1_5 and RSASSA-PSS (RFC 8017), ECDSA (FIPS
//! 186-5), Ed25519 (RFC 8032), AES-GCM (SP 800-38D), HKDF (RFC 5869), HMAC (RFC 2104), PKCS#8
//! (RFC 5958), PEM (RFC 7468), X.509 (RFC 5280), OpenPGP (RFC 9580).

mod armor;
mod chunked;
mod digest;
mod kdf;
#[cfg(test)]
mod openssl;
mod random;
mod seal;
mod sign;
mod trust;
mod verify;

// The public interface:
pub mod dsse;
pub mod git;
#[cfg(feature = "openpgp")]
pub mod openpgp;
pub mod pki;
pub use crate::chunked::{ChunkReader, ChunkWriter, ChunkedKey, OpenChunksError};
pub use crate::digest::{HashingReader, HashingWriter, Sha256, digest};
pub use crate::kdf::{hkdf_expand_sha256, hkdf_sha256, hmac_sha256};
pub use crate::random::{fill_random, random_bytes};
pub use crate::seal::{OpenError, SealError, SealingKey};
pub use crate::sign::{GenerateKeyError, ImageSigningKey, ManifestSigningKey, SignError};
pub use crate::trust::{TrustSigningKey, TrustVerifyingKey};
pub use crate::verify::{
    ImageVerifyingKey, ManifestVerifyingKey, ParseKeyError, SignatureInvalid, SignatureValid,
};
