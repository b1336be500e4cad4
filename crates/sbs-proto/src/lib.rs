//! The words that the client and the server of a Secure Build Server say to each other.
//!
//! This crate is for whoever speaks or stores these words: names, digests, image references,
//! secrets as types, the bodies of the routes and the build record. It is not for doing anything
//! with them: it has no I/O, no clock, no environment and no cryptography.
//!
//! | to | start at |
//! |---|---|
//! | read an `init` or `update` body | [`Definition::parse`] |
//! | read or write a status | [`BuildStatus`] |
//! | read a build record (`data/build.json`) | [`BuildRecord`] |
//! | handle an image reference | [`ImageReference`] |
//! | read the clear part of a state image | [`StateHeader::read`] |
//! | export or import a state image | [`state`] |
//! | tell who may have signed an image | [`TrustBundle`] |
//! | know the routes | [`route`], [`v2`] |
//!
//! ```
//! use sbs_proto::{ImageReference, Progress, StatusText};
//!
//! let image = ImageReference::parse("registry.example:5000/team/app:v1-0a1b2c3")?;
//! assert_eq!(image.registry().as_str(), "registry.example:5000");
//!
//! assert_eq!(StatusText::new("image built").progress(), Progress::Running);
//! # Ok::<(), sbs_proto::ParseImageReferenceError>(())
//! ```
//!
//! The wire follows `docs/formats/wire.md`, the state image `docs/formats/state.md`.

mod body;
mod certificate;
mod definition;
mod digest;
mod git;
mod image;
mod json;
mod name;
mod path;
mod record;
mod registration;
mod reply;
pub mod route;
mod secret;
mod signing;
pub mod state;
mod state_header;
mod status;
mod storage;
mod trust;
pub mod v2;

// The public interface:
pub use crate::body::{Members, ParseBodyError};
pub use crate::certificate::{
    CertificateDates, CertificateFacts, CertificateSource, Certificates, ParseCertificateBodyError,
    RequestReply, parse_certificate_body, parse_request_body,
};
pub use crate::definition::{
    BaseRegistry, Credentials, Definition, ParseDefinitionError, Recipe, RuntimeType, Source, key,
    parse_new_state_secret, parse_state_secret,
};
pub use crate::digest::{Digest, ParseDigestError};
pub use crate::git::{CommitId, GitReference, GitUrl, ParseGitError};
pub use crate::image::{ImageReference, ParseImageReferenceError, RegistryHost, Repository};
pub use crate::json::parse_json;
pub use crate::name::{
    BuildName, DefinitionName, ImageTag, LogName, ManifestName, ParseNameError, StateImageName,
    StateLabel, TagPrefix,
};
pub use crate::path::{ParsePathError, RelativePath};
pub use crate::record::{
    BaseImage, BaseSignature, BuildRecord, EngineRecord, ImageRecord, ManifestFiles, RECORD_SCHEMA,
    SignatureKind, SourceRecord,
};
pub use crate::registration::Registration;
pub use crate::reply::{
    BuildSelector, ErrorReply, LogReply, ManifestReply, PublicKeyReply, StatusReply,
};
pub use crate::secret::{ParseStateSecretError, SecretText, StateSecret};
pub use crate::signing::{
    BaseTrust, NotaryServer, NotaryTrust, OpenPgpTrust, ParseNotaryServerError,
};
pub use crate::state_header::{ReadStateHeaderError, StateHeader, StateMeta};
pub use crate::status::{BuildStatus, Progress, RESTARTED_CICD, RESTARTED_NGINX, StatusText, Step};
pub use crate::storage::{
    BucketName, ParseStorageError, StateStorage, StorageAccess, StorageCredentials,
    StorageEndpoint, StorageKeyError, StoragePurpose, StorageTarget, shared_storage_key,
};
pub use crate::trust::{
    KeyRole, NotaryRoot, OpenPgpPublicKey, PublicKey, TRUST_FILE, TRUST_SCHEMA, TrustBundle,
    TrustFile,
};
