use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Take, Write};

use sbs_crypto::{ManifestVerifyingKey, SignatureValid};
use sbs_proto::{BuildRecord, BuildStatus, Digest, ManifestName};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::codec::Decompressor;
use crate::envelope::UnverifiedManifest;
use crate::form::Form;
use crate::header::EntryKind;
use crate::layout::{FULL, LOG, Layout, LayoutError, RECORD};
use crate::limits::Limits;
use crate::path::EntryPath;
use crate::report::CheckError;
use crate::thin::{FULL_BYTES, FullManifest};
use crate::unpack::{Compatibility, Head, UnpackError, Unpacker};
use crate::weakness::Weakness;

/// A manifest whose signature is good.
///
/// That says who made it, not that what it says is consistent: [`Manifest::check`] does.
pub struct Manifest<S> {
    name: ManifestName,
    spool: S,
    size: u64,
    digest: Digest,
    key_pem: String,
    compatibility: Compatibility,
    form: Form,
    limits: Limits,
    weaknesses: BTreeSet<Weakness>,
    _proof: SignatureValid,
}

impl<S: Read + Seek> Manifest<S> {
    pub(crate) fn new(
        unverified: UnverifiedManifest<S>,
        key: &ManifestVerifyingKey,
        proof: SignatureValid,
    ) -> Self {
        let mut weaknesses = unverified.weaknesses;
        // An RSA signature is as long as the key's modulus (RFC 8017, 8.2.1).
        if unverified.signature.as_bytes().len() < STRONG_KEY_BYTES {
            weaknesses.insert(Weakness::ShortKey);
        }
        Self {
            name: unverified.name,
            spool: unverified.spool,
            size: unverified.size,
            digest: unverified.digest,
            key_pem: key.to_pem(),
            compatibility: unverified.compatibility,
            form: unverified.form,
            limits: unverified.limits,
            weaknesses,
            _proof: proof,
        }
    }

    /// Reads the build record.
    ///
    /// Fails with [`ReadEntryError::Record`] where the original wrote the manifest: it has a
    /// status instead, which [`Manifest::status`] reads from both.
    pub fn record(&mut self) -> Result<BuildRecord, ReadEntryError> {
        self.json()
    }

    /// Reads the status object that the build record begins with.
    pub fn status(&mut self) -> Result<BuildStatus, ReadEntryError> {
        self.json()
    }

    /// Reads which full manifest this thin one belongs to; fails where this is no thin one.
    pub fn full(&mut self) -> Result<FullManifest, ReadEntryError> {
        let mut entries = self.entries()?;
        let json = entries.find(FULL, FULL_BYTES)?.bytes(FULL_BYTES)?;
        FullManifest::parse(&json).map_err(|error| ReadEntryError::Full(Box::new(error)))
    }

    /// Tells whether this thin manifest belongs to that full one: whether they have one name, and
    /// the digest and size of the full one are those that the thin one was signed with.
    pub fn matches<T: Read + Seek>(&mut self, full: &Manifest<T>) -> Result<bool, ReadEntryError> {
        let expected = FullManifest::new(&full.name, full.digest, full.size);
        Ok(full.form == Form::Full && self.full()? == expected)
    }

    /// Copies the build log; returns its size in bytes. It is as the build printed it, with
    /// whatever would move a terminal's cursor.
    pub fn write_log(&mut self, mut out: impl Write) -> Result<u64, ReadEntryError> {
        let max = self.limits.log_bytes;
        let mut entries = self.entries()?;
        let entry = entries.find(LOG, max)?;
        entry.copy_to(&mut out)
    }

    /// Reads the entries of the inner archive, one after the other.
    pub fn entries(&mut self) -> Result<Entries<'_, S>, ReadEntryError> {
        self.spool.seek(SeekFrom::Start(0)).map_err(ReadEntryError::Spool)?;
        let archive = (&mut self.spool).take(self.size);
        let archive = Decompressor::new(archive, self.form, &self.limits);
        let archive = archive.map_err(UnpackError::from_io)?;
        Ok(Entries {
            unpacker: Unpacker::new(archive, self.compatibility, &self.limits),
            layout: Layout::new(self.compatibility, self.form, self.limits.entries),
            refused: false,
        })
    }

    /// Returns the name under which the manifest was found. It is not signed.
    pub fn name(&self) -> &ManifestName {
        &self.name
    }

    /// Returns the digest of the inner archive: what is signed.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns how much of the build it holds.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns whose manifests were asked for.
    pub fn compatibility(&self) -> Compatibility {
        self.compatibility
    }

    pub(crate) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn weaknesses(&self) -> &BTreeSet<Weakness> {
        &self.weaknesses
    }

    fn json<T: DeserializeOwned>(&mut self) -> Result<T, ReadEntryError> {
        let max = self.limits.record_bytes;
        let mut entries = self.entries()?;
        let bytes = entries.find(RECORD, max)?.bytes(max)?;
        sbs_proto::parse_json(&bytes).map_err(ReadEntryError::Record)
    }
}

impl<S> fmt::Debug for Manifest<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// The entries of a manifest. They are listed and read, never written to a disk.
pub struct Entries<'a, S> {
    unpacker: Unpacker<Decompressor<Take<&'a mut S>>>,
    layout: Layout,
    refused: bool,
}

impl<'a, S: Read> Entries<'a, S> {
    /// Goes to the next entry.
    ///
    /// Once it returned `None`, every entry was there, in its place, and nothing followed. Once it
    /// failed, it fails: a caller cannot go on behind what was refused.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_, 'a, S>>, ReadEntryError> {
        let head = self.next_head()?;
        Ok(head.map(|head| Entry { head, content: &mut self.unpacker }))
    }

    /// Returns what was seen so far that the manifest does not prove.
    pub(crate) fn weaknesses(&self) -> BTreeSet<Weakness> {
        self.layout.weaknesses().union(self.unpacker.weaknesses()).copied().collect()
    }

    fn find(&mut self, name: &'static str, max: u64) -> Result<Entry<'_, 'a, S>, ReadEntryError> {
        loop {
            let head = self.next_head()?.ok_or(LayoutError::Missing(name))?;
            if head.path.as_bytes() == name.as_bytes() {
                let entry = Entry { head, content: &mut self.unpacker };
                entry.within(max)?;
                return Ok(entry);
            }
        }
    }

    fn next_head(&mut self) -> Result<Option<Head>, ReadEntryError> {
        if self.refused {
            return Err(ReadEntryError::Refused);
        }
        self.refused = true;
        let head = self.unpacker.next_head()?;
        match &head {
            Some(head) => self.layout.accept(head)?,
            None => self.layout.finish()?,
        }
        self.refused = false;
        Ok(head)
    }
}

impl<S> fmt::Debug for Entries<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").finish_non_exhaustive()
    }
}

/// An entry of a manifest; as [`Read`], its content.
pub struct Entry<'e, 'a, S> {
    head: Head,
    content: &'e mut Unpacker<Decompressor<Take<&'a mut S>>>,
}

impl<S: Read> Entry<'_, '_, S> {
    /// Returns the whole name, such as `git/src/main.rs`.
    pub fn path(&self) -> &EntryPath {
        &self.head.path
    }

    /// Returns what the entry is.
    pub fn kind(&self) -> EntryKind {
        self.head.attributes.kind
    }

    /// Returns the size of the content in bytes.
    pub fn size(&self) -> u64 {
        self.head.attributes.size
    }

    pub(crate) fn time(&self) -> u64 {
        self.head.attributes.time
    }

    /// Reads the content whole, if it is not larger than `max` bytes.
    pub(crate) fn bytes(self, max: u64) -> Result<Vec<u8>, ReadEntryError> {
        self.within(max)?;
        let mut bytes = Vec::new();
        self.content.read_to_end(&mut bytes).map_err(UnpackError::from_io)?;
        Ok(bytes)
    }

    pub(crate) fn within(&self, max: u64) -> Result<(), ReadEntryError> {
        if self.size() <= max {
            return Ok(());
        }
        Err(UnpackError::EntryTooLarge { name: self.head.path.to_string(), max }.into())
    }

    fn copy_to(self, out: &mut impl Write) -> Result<u64, ReadEntryError> {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = self.content.read(&mut buffer).map_err(UnpackError::from_io)?;
            if count == 0 {
                return Ok(self.size());
            }
            let (bytes, _) = buffer.split_at(count);
            out.write_all(bytes).map_err(ReadEntryError::Output)?;
        }
    }
}

impl<S: Read> Read for Entry<'_, '_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.read(buffer)
    }
}

impl<S> fmt::Debug for Entry<'_, '_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Why an entry of a manifest could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadEntryError {
    /// The inner archive was refused.
    #[error("inner archive of the manifest is refused")]
    Archive(#[from] UnpackError),

    /// `data/full.json` is not what it should be.
    #[error("thin manifest does not say which full one it belongs to")]
    Full(#[source] Box<CheckError>),

    /// The entries are not those of a manifest.
    #[error("inner archive has not the entries of a manifest")]
    Layout(#[from] LayoutError),

    /// The entry cannot be written to where it goes.
    #[error("entry cannot be written to where it goes")]
    Output(#[source] io::Error),

    /// The build record does not parse.
    #[error("`data/build.json` does not parse")]
    Record(#[source] serde_json::Error),

    /// An entry before was refused, and everything behind it is.
    #[error("inner archive was refused before")]
    Refused,

    /// The place where the inner archive was kept cannot be read.
    #[error("inner archive cannot be read from where it was kept")]
    Spool(#[source] io::Error),
}

/// Bytes in the modulus of an RSA key of 3,072 bits.
const STRONG_KEY_BYTES: usize = 384;
const COPY_BYTES: usize = 64 << 10;
