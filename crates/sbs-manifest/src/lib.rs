//! Writes, signs, reads and verifies build manifests: the signed archives that say what an image
//! was built from, and prove it.
//!
//! | to | start at |
//! |---|---|
//! | verify what somebody else wrote | [`UnverifiedManifest::read`], [`UnverifiedManifest::verify`] |
//! | know what it proves, and what not | [`Manifest::check`], which gives a [`Report`] |
//! | look into it | [`Manifest::record`], [`Manifest::write_log`], [`Manifest::entries`] |
//! | write the inner archive of a build | [`InnerWriter::begin`], [`write_thin`] |
//! | sign it and wrap it | [`sign`], [`Envelope::write`] |
//!
//! # What a manifest is
//!
//! A build server makes one for each build. In it are the files of the repository as they were built,
//! git's commit object and the listing of its tree, the build log, and the build record: which image
//! came out, on which base images, when, and by which engine. All of that is one archive, and a key
//! that was born inside the server has signed it. Years later, whoever has the file and the public
//! key can tell that this image came from this commit, and that this server says so. Neither the
//! server nor the repository nor a network is needed.
//!
//! There are two forms, and a build has both:
//!
//! | [`Form`] | file | holds |
//! |---|---|---|
//! | [`Full`](Form::Full) | `<name>.sig.tbz` | everything; as large as the packed source |
//! | [`Thin`](Form::Thin) | `<name>.thin.sig.tar.zst` | everything but the source; of that, the Dockerfile and the proof that the commit has it |
//!
//! The full form is that of IBM's Hyper Protect Secure Build, whose own manifests can be read, too.
//!
//! # Verify one
//!
//! ```
//! use std::fs::{self, File};
//! use std::io::Cursor;
//!
//! use sbs_crypto::{ManifestSigningKey, ManifestVerifyingKey};
//! use sbs_manifest::{Compatibility, Limits, UnverifiedManifest};
//!
//! # std::env::set_current_dir("../../tests/data/manifests")?;
//! let read = || {
//!     let (archive, spool) = (File::open("good.sig.tbz")?, Cursor::new(Vec::new()));
//!     let limits = Limits::default();
//!     Ok::<_, Box<dyn std::error::Error>>(UnverifiedManifest::read(
//!         archive,
//!         spool,
//!         Compatibility::Strict,
//!         &limits,
//!     )?)
//! };
//!
//! let key = ManifestVerifyingKey::from_pem(&fs::read_to_string("public.pem")?)?;
//! let mut manifest = read()?.verify(&key)?;
//! assert!(manifest.check().all_passed());
//!
//! let record = manifest.record()?;
//! println!("{} comes from commit {}", record.image.reference, record.source.commit);
//!
//! // The key of somebody else opens nothing.
//! let stranger = ManifestSigningKey::generate()?.verifying_key();
//! assert!(read()?.verify(&stranger).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The types keep the order. An [`UnverifiedManifest`] has no record, no log and no entries; a
//! [`Manifest`] has, and only [`verify`](UnverifiedManifest::verify) makes one. A good signature says
//! who made the archive and not that it makes sense: that is what [`check`](Manifest::check) is for.
//!
//! # What is proved, and what not
//!
//! [`CheckName`] lists the checks; [`CheckName::meaning`] has a sentence for each. Together they mean
//! that the record is of this build, that the commit object has the recorded id, that the listing is
//! that of the commit's tree, and that every file is the one in the listing, no more and no fewer.
//!
//! A [`Report`] also says what is *not* proved, because a list of passed checks reads as if it were
//! everything:
//!
//! - **Whose key it is.** Only you know where you have it from; [`KeyOrigin`] is how you say so.
//! - **That the server was honest.** A signature is a statement. What makes it worth something is the
//!   isolation of the machine that holds the key.
//! - **The files of submodules**: the commit names a commit of theirs, not their files.
//! - **The source, in a thin manifest**, but for the Dockerfile. It holds the digest of the full one:
//!   [`Report::hold_against`] compares the two.
//! - **What old manifests have nothing for**, which is most of it: see [`Compatibility::Original`] and
//!   [`Weakness`].
//!
//! # Files from strangers
//!
//! A reader takes one canonical form and refuses the rest: regular files and directories with
//! relative, unique names in order, one way to write each number, nothing between and nothing behind.
//! Nothing is skipped, because what a reader skips, another may read. Whatever is read has a limit in
//! [`Limits`], and memory does not grow with the archive. Links are stored as files that hold their
//! target. Nothing is ever written to a disk here: entries are listed and read.
//!
//! The bytes of a manifest depend on the build alone, not on the number of threads that packed it.
//!
//! # What is where
//!
//! This crate is for bytes that come and go through [`Read`](std::io::Read) and
//! [`Write`](std::io::Write). It walks no directory, extracts nothing, and knows no clock, no network
//! and no async runtime. The feature `cli` adds the program `sbs-manifest`, which verifies, lists,
//! shows and extracts, and what it needs; the library is the same with it and without.
//!
//! Format: `docs/formats/manifest.md`, on top of POSIX.1-2001 tar, the GNU long name extension,
//! bzip2, Zstandard (RFC 8878), and RSASSA-PKCS1-v1_5 (RFC 8017).

mod ahead;
mod bzip2;
mod check;
mod codec;
mod compress;
mod counted;
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
