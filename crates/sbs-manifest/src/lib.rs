//! Writes, signs, reads and verifies build manifests: the signed archives that say what an image
//! was built from, and prove it.
//!
//! This crate is for bytes that come and go through [`Read`](std::io::Read) and
//! [`Write`](std::io::Write). It is not for files: it walks no directory, extracts nothing, and
//! knows no clock and no network.
//!
//! | to | start at |
//! |---|---|
//! | write the inner archive of a build | [`InnerWriter::begin`] |
//! | sign it and wrap it | [`sign`], [`Envelope::write`] |
//! | read what somebody else wrote | [`UnverifiedManifest::read`] |
//! | verify a signature | [`UnverifiedManifest::verify`], which gives a [`Manifest`] |
//! | know what a manifest proves | [`Manifest::check`], which gives a [`Report`] |
//! | read an old manifest | [`Compatibility::Original`] |
//!
//! ```no_run
//! use std::fs::File;
//! use std::io::Cursor;
//!
//! use sbs_crypto::ManifestVerifyingKey;
//! use sbs_manifest::{Compatibility, Limits, UnverifiedManifest};
//!
//! let archive = File::open("manifest.r.example.app.v1-0a1b2c3.2026-01-02.sig.tbz")?;
//! let key = ManifestVerifyingKey::from_pem(&std::fs::read_to_string("public.pem")?)?;
//!
//! let spool = Cursor::new(Vec::new());
//! let unverified =
//!     UnverifiedManifest::read(archive, spool, Compatibility::Strict, &Limits::default())?;
//! let mut manifest = unverified.verify(&key)?;
//! assert!(manifest.check().all_passed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate has no features.
//!
//! Format: `docs/formats/manifest.md`, on top of POSIX.1-2001 tar, the GNU long name extension,
//! bzip2, and RSASSA-PKCS1-v1_5 (RFC 8017).

mod ahead;
mod bzip2;
mod check;
mod codec;
mod compress;
mod decompress;
mod envelope;
mod explain;
mod form;
mod header;
mod layout;
mod limits;
mod manifest;
mod pack;
mod path;
mod pax;
mod report;
mod signature;
mod source;
mod split;
mod stream;
mod thin;
mod unpack;
mod weakness;
mod workers;
mod writer;
mod zstandard;

// The public interface:
#[doc(hidden)]
pub use crate::decompress::decompressed;
pub use crate::envelope::{ReadManifestError, UnverifiedManifest, VerifyManifestError};
pub use crate::explain::{CheckView, Detail, KeyOrigin, ReportView, escaped};
pub use crate::form::{Form, ManifestFile};
pub use crate::header::EntryKind;
pub use crate::layout::LayoutError;
pub use crate::limits::Limits;
pub use crate::manifest::{Entries, Entry, Manifest, ReadEntryError};
pub use crate::pack::WriteManifestError;
pub use crate::path::{EntryPath, ParseEntryPathError};
pub use crate::report::{Check, CheckError, CheckName, NotMade, Outcome, Report};
pub use crate::signature::{ManifestSignature, ParseSignatureError, sign};
pub use crate::source::SourceError;
pub use crate::thin::FullManifest;
pub use crate::unpack::{ArchiveTooLarge, Compatibility, UnpackError};
pub use crate::weakness::Weakness;
pub use crate::writer::{
    Envelope, InnerWriter, Materials, SourceEntry, SourceKind, ThinMaterials, write_thin,
};
