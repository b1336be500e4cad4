//! Docker Content Trust: image trust data on a Notary v1 server, published and verified.
//!
//! A server keeps five documents for a repository, which is named by its registry and its path
//! ([`Gun`]): `root` names the keys of the others, `targets` and `targets/releases` say which digest
//! a tag has, `snapshot` says which versions of these belong together, and `timestamp` that this is
//! the present. The owner of the repository signs `root` and `targets`; the server, which is not
//! trusted with more than being up to date, signs `snapshot` and `timestamp`.
//!
//! Where to start: [`RegistryClient::for_notary`](crate::RegistryClient::for_notary), then
//! [`publish()`] or [`verify()`].
//!
//! Format: The Update Framework in the dialect of Notary 0.7, which differs from TUF 1.0 in the names
//! of things and in the encoding of hashes, keys and signatures.

mod canonical;
mod chain;
mod client;
mod error;
mod key;
mod keys;
mod metadata;
mod name;
mod publish;
mod root;
#[cfg(test)]
mod tests;
mod trust;
mod verify;

// The public interface:
pub use self::client::{NotarySession, shares_logins};
pub use self::error::{InvalidTrust, TrustDefect};
pub use self::key::KeyId;
pub use self::keys::{GenerateNotaryKeysError, NotaryKeys, ParseNotaryKeysError};
pub use self::metadata::TrustRole;
pub use self::name::Gun;
pub use self::publish::{Change, Publication, PublishError, Published, publish};
pub use self::trust::{ParseRememberedError, ParseRootPinError, Remembered, RootPin, Trust};
pub use self::verify::{Absence, SignedTarget, Verdict, verify, verify_digest};
