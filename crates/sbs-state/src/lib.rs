//! The secrets that a Secure Build Server keeps, and the sealed form in which it keeps them.
//!
//! This crate makes and reads bytes. It does not know where they are stored, opens no file, and
//! has no clock.
//!
//! Where to start:
//!
//! - [`RootSecretProvider`]: where the one secret is that an operator gives to a server, such as a
//!   [`RootSecret`] in memory;
//! - [`KeyRing`]: that secret and those before it;
//! - [`AtRest`]: seals and opens records with keys from that ring;
//! - [`ClientShare`]: what a server keeps of the client's SECRET;
//! - [`DefinitionKeys`]: the signing keys of one build definition, and their record;
//! - [`seal`] and [`open`]: a whole state as one file, the state image, which opens only with the
//!   client's SECRET and a server's root secret together.
//!
//! ```
//! use sbs_state::{AtRest, DefinitionKeys, KeyRing, RootSecret};
//!
//! # let file_content: Vec<u8> = (0..32).collect();
//! let root = RootSecret::parse(&file_content)?;
//! let at_rest = AtRest::new(&KeyRing::new(Box::new(root), Vec::new())?)?;
//!
//! let now = time::OffsetDateTime::now_utc();
//! let keys = DefinitionKeys::generate(now)?;
//! let sealed = at_rest.seal("definition/app/keys", &keys.to_record())?;
//!
//! let record = at_rest.open("definition/app/keys", &sealed)?;
//! let same_keys = DefinitionKeys::from_record(&record, now)?.keys;
//! # assert_eq!(
//! #     same_keys.image().current.verifying_key().to_pem(),
//! #     keys.image().current.verifying_key().to_pem(),
//! # );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A state image, out of one server and into another with the same root secret:
//!
//! ```
//! use sbs_state::{CaBinding, ClientShare, Export, ImportPolicy, RecordName, RootSecret, ServerShare};
//! # use sbs_proto::{Digest, StateMeta, StateSecret};
//!
//! # let client_ca = Digest::from_bytes([7; 32]);
//! # let secret = StateSecret::from_bytes([2; 128]);
//! # let root = RootSecret::parse(&(0..32).collect::<Vec<u8>>())?;
//! let (server, client) = (ServerShare::of(&root), ClientShare::derive(&secret));
//! let meta = StateMeta { client_ca_sha256: Some(client_ca), ..StateMeta::default() };
//! let export = Export { epoch: 5, export_seq: 9, created_ms: 0, meta };
//! let records: [(RecordName, &[u8]); 3] = [
//!     (RecordName::Instance, b"{}"),
//!     (RecordName::Definition, b"{}"),
//!     (RecordName::Keys, b"{}"),
//! ];
//! let image = sbs_state::seal(export, &server, &client, &records, Vec::new())?;
//!
//! let policy = ImportPolicy {
//!     min_epoch: 5,
//!     own_epoch: 0,
//!     client_ca_sha256: client_ca,
//!     ca_binding: CaBinding::Enforced,
//! };
//! let accepted = sbs_state::open(&[server], &client, &image[..])?.accept(&policy)?;
//! assert_eq!(accepted.record(RecordName::Keys), Some(&b"{}"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The form of a state image is `docs/formats/state.md`. Nothing in it is compressed: sizes would
//! tell of the secrets in it.
//!
//! The crate has no features.
//!
//! Key schedule, with fixed ASCII labels: `prf(label) = HMAC-SHA-256(root secret, label)`
//! (RFC 2104); the key at rest is `prf("sbs.state/v1 at rest")`, used as
//! [`SealingKey`](sbs_crypto::SealingKey) describes, and the number of a secret the first 8 bytes
//! of `prf("sbs.state/v1 kid")`. A provider that does not hand out its secret, such as a hardware
//! token, can compute the same function.

mod at_rest;
mod client_share;
mod definition_keys;
mod error;
mod import;
mod key_ring;
mod provider;
mod read;
mod record;
mod root;
mod sealed;
mod server_share;
mod write;

// The public interface:
pub use crate::at_rest::{AtRest, OpenRecordError};
pub use crate::client_share::{ClientShare, ParseClientShareError};
pub use crate::definition_keys::{
    DefinitionKeys, GenerateKeysError, LoadedKeys, ParseRecordError, RotateKeyError, Rotation,
};
pub use crate::error::{ContentError, OpenStateError, SealStateError};
pub use crate::import::{AcceptedState, CaBinding, ImportPolicy, OpenedState, open};
pub use crate::key_ring::{KeyRing, MakeKeyRingError};
pub use crate::provider::{
    CounterError, KeyId, MonotonicCounter, Portability, PrfError, RootSecretProvider,
};
pub use crate::read::read_records;
pub use crate::record::{RecordManifest, RecordName};
pub use crate::root::{ParseRootSecretError, RootSecret};
pub use crate::sealed::{Export, OpenReader, SealWriter};
pub use crate::server_share::ServerShare;
pub use crate::write::{StateWriter, seal};
