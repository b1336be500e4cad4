//! The secrets that a Secure Build Server keeps, and the sealed form in which it keeps them.
//!
//! This crate makes and reads bytes. It does not know where they are stored, opens no file, and
//! has no clock.
//!
//! Where to start:
//!
//! - [`RootSecret`]: the one secret that an operator gives to a server;
//! - [`AtRest`]: seals and opens records with a key from that secret;
//! - [`ClientShare`]: what a server keeps of the client's SECRET;
//! - [`DefinitionKeys`]: the signing keys of one build definition, and their record.
//!
//! ```
//! use sbs_state::{AtRest, DefinitionKeys, RootSecret};
//!
//! # let file_content: Vec<u8> = (0..32).collect();
//! let root = RootSecret::parse(&file_content)?;
//! let at_rest = AtRest::new(&root);
//!
//! let keys = DefinitionKeys::generate()?;
//! let sealed = at_rest.seal("definition/app/keys", &keys.to_record())?;
//!
//! let record = at_rest.open("definition/app/keys", &sealed)?;
//! let same_keys = DefinitionKeys::from_record(&record)?;
//! # assert_eq!(
//! #     same_keys.image().verifying_key().to_pem(),
//! #     keys.image().verifying_key().to_pem(),
//! # );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate has no features.
//!
//! Key schedule, with fixed ASCII labels: `prf(label) = HMAC-SHA-256(root secret, label)`
//! (RFC 2104); the key at rest is `prf("sbs.state/v1 at rest")`, used as
//! [`SealingKey`](sbs_crypto::SealingKey) describes. A provider that does not hand out its secret,
//! such as a hardware token, can compute the same function.

mod at_rest;
mod client_share;
mod definition_keys;
mod root;

// The public interface:
pub use crate::at_rest::AtRest;
pub use crate::client_share::{ClientShare, ParseClientShareError};
pub use crate::definition_keys::{DefinitionKeys, ParseRecordError};
pub use crate::root::{ParseRootSecretError, RootSecret};
