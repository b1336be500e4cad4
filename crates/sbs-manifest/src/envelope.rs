use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Seek, Write};

use sbs_crypto::{HashingWriter, ManifestVerifyingKey};
use sbs_proto::{Digest, ManifestName, ParseNameError};
use thiserror::Error;

use crate::decompress::Unpacked;
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::path::shown;
use crate::signature::{MAX_DIGITS, ManifestSignature, ParseSignatureError};
use crate::unpack::{Compatibility, Head, UnpackError, Unpacker};
use crate::weakness::Weakness;

/// A manifest that was read and is not verified yet: nothing that is in it can be reached.
pub struct UnverifiedManifest<S> {
    pub(crate) name: ManifestName,
    pub(crate) spool: S,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    pub(crate) signature: ManifestSignature,
    pub(crate) compatibility: Compatibility,
    pub(crate) limits: Limits,
    pub(crate) weaknesses: BTreeSet<Weakness>,
}

impl<S: Read + Write + Seek> UnverifiedManifest<S> {
    /// Reads an outer archive (`<name>.sig.tbz`) to its end.
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
        let mut members = Unpacker::new(Unpacked::new(archive, limits), compatibility, limits);
        let mut inner: Option<(ManifestName, u64, Digest)> = None;
        let mut signature: Option<(ManifestName, ManifestSignature)> = None;
        while let Some(head) = members.next_head()? {
            let (stem, suffix) = split_member(&head)?;
            let name = ManifestName::parse(stem).map_err(ReadManifestError::Name)?;
            match suffix {
                INNER_SUFFIX if inner.is_some() => return Err(unexpected(&head)),
                SIGNATURE_SUFFIX if signature.is_some() => return Err(unexpected(&head)),
                INNER_SUFFIX => {
                    let (size, digest) = copy_to(&mut members, &mut spool)?;
                    inner = Some((name, size, digest));
                }
                _ if inner.is_none() && compatibility == Compatibility::Strict => {
                    return Err(ReadManifestError::Order);
                }
                _ => signature = Some((name, read_signature(&head, &mut members)?)),
            }
        }
        let (name, size, digest) = inner.ok_or(ReadManifestError::Missing(INNER_SUFFIX))?;
        let (other, signature) = signature.ok_or(ReadManifestError::Missing(SIGNATURE_SUFFIX))?;
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
            limits: *limits,
            weaknesses,
        })
    }

    /// Returns the name that the members of the archive have.
    ///
    /// It is not signed. [`Manifest::check`] holds it against the build record.
    pub fn name(&self) -> &ManifestName {
        &self.name
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

/// Splits the name of a member into the manifest's name and the suffix.
fn split_member(head: &Head) -> Result<(&str, &'static str), ReadManifestError> {
    let name = std::str::from_utf8(head.path.as_bytes()).map_err(|_| unexpected(head))?;
    if !head.attributes.kind.is_file() || name.contains('/') {
        return Err(unexpected(head));
    }
    [INNER_SUFFIX, SIGNATURE_SUFFIX]
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

const INNER_SUFFIX: &str = ".tbz";
const SIGNATURE_SUFFIX: &str = ".sig";
const COPY_BYTES: usize = 64 << 10;
