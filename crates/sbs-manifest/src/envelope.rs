use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Seek, Write};

use sbs_crypto::{HashingWriter, ManifestVerifyingKey};
use sbs_proto::{Digest, ManifestName, ParseNameError};
use thiserror::Error;

use crate::codec::Decompressor;
use crate::form::Form;
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::path::shown;
use crate::signature::{MAX_DIGITS, ManifestSignature, ParseSignatureError};
use crate::unpack::{ArchiveTooLarge, Compatibility, Head, UnpackError, Unpacker};
use crate::weakness::Weakness;

/// A manifest that was read and is not verified yet: nothing that is in it can be reached.
pub struct UnverifiedManifest<S> {
    pub(crate) name: ManifestName,
    pub(crate) spool: S,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    pub(crate) signature: ManifestSignature,
    pub(crate) compatibility: Compatibility,
    pub(crate) form: Form,
    pub(crate) limits: Limits,
    pub(crate) weaknesses: BTreeSet<Weakness>,
}

impl<S: Read + Write + Seek> UnverifiedManifest<S> {
    /// Reads an outer archive (`<name>.sig.tbz` or `<name>.thin.sig.tar.zst`) to its end. Its first
    /// bytes tell which form it has; a thin one is always of this server, and read strictly.
    ///
    /// The inner archive goes to `spool`, from its start, and is hashed on the way. The spool must
    /// be one that nobody else writes to, such as a temporary file without a name: what is read
    /// from it later is not hashed again.
    pub fn read(
        archive: impl Read,
        mut spool: S,
        compatibility: Compatibility,
        limits: &Limits,
    ) -> Result<Self, ReadManifestError> {
        let (form, archive) = Form::detect(archive).map_err(UnpackError::from_io)?;
        let compatibility = strict_if_thin(form, compatibility);
        let archive = Decompressor::new(archive, form, limits).map_err(UnpackError::from_io)?;
        let mut members = Unpacker::new(archive, compatibility, limits);
        let mut inner: Option<(ManifestName, u64, Digest)> = None;
        let mut signature: Option<(ManifestName, ManifestSignature)> = None;
        while let Some(head) = members.next_head()? {
            let (stem, suffix) = split_member(&head, form)?;
            let name = ManifestName::parse(stem).map_err(ReadManifestError::Name)?;
            let is_archive = suffix == form.archive_suffix();
            if is_archive && inner.is_some() || !is_archive && signature.is_some() {
                return Err(unexpected(&head));
            }
            if is_archive {
                let (size, digest) = copy_to(&mut members, &mut spool)?;
                inner = Some((name, size, digest));
            } else if inner.is_none() && compatibility == Compatibility::Strict {
                return Err(ReadManifestError::Order);
            } else {
                signature = Some((name, read_signature(&head, &mut members)?));
            }
        }
        let (name, size, digest) =
            inner.ok_or_else(|| ReadManifestError::Missing(form.archive_suffix()))?;
        let missing = ReadManifestError::Missing(form.signature_suffix());
        let (other, signature) = signature.ok_or(missing)?;
        if name != other {
            return Err(ReadManifestError::NamesDiffer);
        }
        let weaknesses = members.weaknesses().clone();
        Ok(Self {
            name,
            spool,
            size,
            digest,
            signature,
            compatibility,
            form,
            limits: *limits,
            weaknesses,
        })
    }

    /// Reads an inner archive (`<name>.tbz` or `<name>.thin.tar.zst`) whose signature came in a file
    /// of its own, as the original's client leaves them.
    ///
    /// `name` is that of the files. Otherwise it is as [`UnverifiedManifest::read`].
    pub fn read_bare(
        archive: impl Read,
        signature: &[u8],
        name: ManifestName,
        mut spool: S,
        compatibility: Compatibility,
        limits: &Limits,
    ) -> Result<Self, ReadManifestError> {
        let signature = ManifestSignature::parse(signature)?;
        let (form, archive) = Form::detect(archive).map_err(UnpackError::from_io)?;
        let max = limits.archive_bytes;
        let (size, digest) = copy_to(&mut archive.take(max.saturating_add(1)), &mut spool)?;
        if size > max {
            return Err(UnpackError::TooLarge(ArchiveTooLarge::of_archive(max)).into());
        }
        Ok(Self {
            name,
            spool,
            size,
            digest,
            signature,
            compatibility: strict_if_thin(form, compatibility),
            form,
            limits: *limits,
            weaknesses: BTreeSet::new(),
        })
    }

    /// Returns the name that the members of the archive have.
    ///
    /// It is not signed. [`Manifest::check`] holds it against the build record.
    pub fn name(&self) -> &ManifestName {
        &self.name
    }

    /// Returns how much of the build it holds.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns where the inner archive is kept, as somebody else's bytes: nothing in it is verified.
    pub fn spool(&self) -> &S {
        &self.spool
    }

    /// Returns the signature as it stands in the archive.
    pub fn signature(&self) -> &ManifestSignature {
        &self.signature
    }

    /// Verifies the signature. Only this opens what is in the manifest.
    pub fn verify(self, key: &ManifestVerifyingKey) -> Result<Manifest<S>, VerifyManifestError> {
        // The digest is the message, and is hashed once more: docs/formats/manifest.md,
        // "Signature".
        let valid = key
            .verify(self.digest.as_bytes(), self.signature.as_bytes())
            .map_err(|_| VerifyManifestError::Rejected)?;
        Ok(Manifest::new(self, key, valid))
    }
}

impl<S> fmt::Debug for UnverifiedManifest<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedManifest")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// Why an outer archive is not that of a manifest.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadManifestError {
    /// The archive was refused.
    #[error("outer archive of the manifest is refused")]
    Archive(#[from] UnpackError),

    /// A member is not there.
    #[error("manifest has no member that ends in `{0}`")]
    Missing(&'static str),

    /// The name of a member is not that of a manifest.
    #[error("member's name is not that of a manifest")]
    Name(#[source] ParseNameError),

    /// The members have different names.
    #[error("signature is that of a manifest of another name")]
    NamesDiffer,

    /// The signature stands before the inner archive.
    #[error("signature stands before what it signs")]
    Order,

    /// The signature has not the form of one.
    #[error("signature has not the form of one")]
    Signature(#[from] ParseSignatureError),

    /// The place for the inner archive cannot be written to.
    #[error("inner archive cannot be kept; is there room for temporary files?")]
    Spool(#[source] io::Error),

    /// There is a member too many, or one that is no file.
    #[error("manifest has a member `{0}` that does not belong there")]
    Unexpected(String),
}

/// Why a manifest is not verified.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum VerifyManifestError {
    /// The signature is not that of this key over this archive.
    #[error("manifest was not signed, as it is, with the key that belongs to this public key")]
    Rejected,
}

/// No original wrote a thin manifest.
fn strict_if_thin(form: Form, compatibility: Compatibility) -> Compatibility {
    match form {
        Form::Full => compatibility,
        Form::Thin => Compatibility::Strict,
    }
}

/// Splits the name of a member into the manifest's name and the suffix.
fn split_member(head: &Head, form: Form) -> Result<(&str, &'static str), ReadManifestError> {
    let name = std::str::from_utf8(head.path.as_bytes()).map_err(|_| unexpected(head))?;
    if !head.attributes.kind.is_file() || name.contains('/') {
        return Err(unexpected(head));
    }
    [form.archive_suffix(), form.signature_suffix()]
        .into_iter()
        .find_map(|suffix| Some((name.strip_suffix(suffix)?, suffix)))
        .ok_or_else(|| unexpected(head))
}

fn unexpected(head: &Head) -> ReadManifestError {
    ReadManifestError::Unexpected(shown(head.path.as_bytes()))
}

fn copy_to<S: Write + Seek>(
    content: &mut impl Read,
    spool: &mut S,
) -> Result<(u64, Digest), ReadManifestError> {
    spool.rewind().map_err(ReadManifestError::Spool)?;
    let mut hashing = HashingWriter::new(spool);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = content.read(&mut buffer).map_err(UnpackError::from_io)?;
        if count == 0 {
            break;
        }
        let (bytes, _) = buffer.split_at(count);
        hashing.write_all(bytes).map_err(ReadManifestError::Spool)?;
    }
    hashing.flush().map_err(ReadManifestError::Spool)?;
    let (_, digest, size) = hashing.finish();
    Ok((size, digest))
}

fn read_signature(
    head: &Head,
    content: &mut impl Read,
) -> Result<ManifestSignature, ReadManifestError> {
    if head.attributes.size > MAX_DIGITS as u64 {
        return Err(ParseSignatureError::TooLong.into());
    }
    let mut text = Vec::new();
    content.read_to_end(&mut text).map_err(UnpackError::from_io)?;
    Ok(ManifestSignature::parse(&text)?)
}

const COPY_BYTES: usize = 64 << 10;
