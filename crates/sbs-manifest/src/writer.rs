use std::fmt;
use std::io::{self, Read, Write};

use sbs_crypto::HashingWriter;
use sbs_proto::{BuildRecord, Digest, ManifestName};

use crate::codec::Compressor;
use crate::compress::StreamWriter;
use crate::form::Form;
use crate::header::{EntryKind, archive_name, header_time};
use crate::layout::{COMMIT, FULL, LOG, RECORD, SOURCE, Strict, TREE};
use crate::limits::Limits;
use crate::pack::{Packer, WriteManifestError};
use crate::path::{EntryPath, ParseEntryPathError, shown};
use crate::signature::ManifestSignature;
use crate::source::SourceError;
use crate::thin::{FULL_BYTES, FullManifest, dockerfile_kind, part_of};
use crate::zstandard::FrameWriter;

/// What a manifest says of a build besides its source.
#[derive(Debug)]
pub struct Materials<'a, L> {
    /// The build record. Its commit time becomes the time of every entry.
    pub record: &'a BuildRecord,
    /// The commit object, as `git cat-file commit` prints it.
    pub commit: &'a [u8],
    /// What `git ls-tree -r -t -z --full-tree` prints for the commit.
    pub tree: &'a [u8],
    /// The build log.
    pub log: L,
    /// The size of the build log in bytes. A log that has other bytes to give is refused.
    pub log_size: u64,
}

/// A file or directory of the work tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceEntry {
    path: EntryPath,
    kind: SourceKind,
}

/// What a file of the work tree is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SourceKind {
    /// A directory.
    Directory,
    /// A regular file that its owner may execute, of that many bytes.
    Executable(u64),
    /// A regular file of that many bytes.
    File(u64),
    /// A symbolic link whose target has that many bytes. The target is stored as a file.
    Link(u64),
}

impl SourceEntry {
    /// Takes an entry by its path below the top of the work tree, without a final slash.
    pub fn new(path: &[u8], kind: SourceKind) -> Result<Self, ParseEntryPathError> {
        // Also the name in the archive must have a length that a reader takes.
        let full = EntryPath::parse(&[SOURCE, path].concat())?;
        EntryPath::parse(path)?;
        Ok(Self { path: full, kind })
    }

    /// Returns what entries are sorted by: the name in the archive, which for a directory ends in
    /// a slash.
    ///
    /// It is the order of git's trees, so `a.b` comes before what is in the directory `a`.
    pub fn sort_key(&self) -> Vec<u8> {
        archive_name(self.path.as_bytes(), self.entry_kind())
    }

    fn entry_kind(&self) -> EntryKind {
        match self.kind {
            SourceKind::Directory => EntryKind::Directory,
            SourceKind::Executable(_) => EntryKind::Executable,
            SourceKind::File(_) | SourceKind::Link(_) => EntryKind::File,
        }
    }

    fn size(&self) -> u64 {
        match self.kind {
            SourceKind::Directory => 0,
            SourceKind::Executable(size) | SourceKind::File(size) | SourceKind::Link(size) => size,
        }
    }
}

/// Writes the inner archive of a manifest, and hashes it on the way.
///
/// What is written depends on the entries alone: not on the time, the machine, the number of
/// threads or the size of the pieces in which it was written. The memory it takes does not grow
/// with the source: it is about 12 MiB for each of [`Limits::threads`].
///
/// Compression runs on threads of the writer's own, while the thread that calls it reads, hashes
/// and writes. They end with the writer, also where it is dropped or fails.
pub struct InnerWriter<W: Write> {
    entries: EntryWriter<StreamWriter<HashingWriter<W>>>,
}

impl<W: Write> InnerWriter<W> {
    /// Begins an archive with everything but the source.
    pub fn begin<L: Read>(
        out: W,
        materials: Materials<'_, L>,
        limits: &Limits,
    ) -> Result<Self, WriteManifestError> {
        let time = header_time(materials.record.source.commit_time);
        let out = StreamWriter::best(HashingWriter::new(out), limits);
        let mut entries = EntryWriter::new(out, Form::Full, time, limits);
        entries.materials(materials, limits)?;
        entries.directory("git")?;
        Ok(Self { entries })
    }

    /// Adds the next entry of the work tree, in the order of [`SourceEntry::sort_key`], each
    /// directory before what is in it.
    ///
    /// `content` is that of a file, the target of a link, and empty for a directory. Once an entry
    /// was refused, the archive cannot be finished.
    pub fn add_source(
        &mut self,
        entry: &SourceEntry,
        content: impl Read,
    ) -> Result<(), WriteManifestError> {
        self.entries.add(&entry.path, entry.entry_kind(), entry.size(), content)
    }

    /// Ends the archive; returns where it went, the digest to sign, and its size in bytes.
    pub fn finish(self) -> Result<(W, Digest, u64), WriteManifestError> {
        let mut hashing = self.entries.finish()?;
        hashing.flush().map_err(WriteManifestError::Output)?;
        Ok(hashing.finish())
    }
}

impl<W: Write> fmt::Debug for InnerWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InnerWriter").field("layout", &self.entries.layout).finish_non_exhaustive()
    }
}

/// What a thin manifest is made of.
#[derive(Debug)]
pub struct ThinMaterials<'a, L> {
    /// What the full manifest says of the build, with the whole tree listing.
    pub materials: Materials<'a, L>,
    /// Which full manifest it belongs to.
    pub full: &'a FullManifest,
    /// The content of the file that the record names as the Dockerfile.
    pub dockerfile: &'a [u8],
}

/// Writes the inner archive of a thin manifest; returns where it went, the digest to sign, and its
/// size in bytes.
///
/// What is written depends on the materials alone. It takes about 20 MiB, and grows with the log
/// and the entries of the directories on the way to the Dockerfile, not with the repository.
pub fn write_thin<W: Write, L: Read>(
    out: W,
    thin: ThinMaterials<'_, L>,
    limits: &Limits,
) -> Result<(W, Digest, u64), WriteManifestError> {
    let ThinMaterials { materials, full, dockerfile } = thin;
    let limits = limits.of_thin();
    let record = materials.record;
    let path = record.engine.dockerfile.as_str().as_bytes();
    let kind = dockerfile_kind(materials.tree, path).map_err(WriteManifestError::Dockerfile)?;
    let part = part_of(materials.tree, path).map_err(WriteManifestError::Dockerfile)?;
    let json = serde_json::to_vec(full).map_err(WriteManifestError::Record)?;

    let time = header_time(record.source.commit_time);
    let out = FrameWriter::best(HashingWriter::new(out), &limits);
    let out = out.map_err(WriteManifestError::Output)?;
    let mut entries = EntryWriter::new(out, Form::Thin, time, &limits);
    entries.materials(Materials { tree: &part, ..materials }, &limits)?;
    entries.data(FULL, json.len() as u64, FULL_BYTES, json.as_slice())?;
    entries.directory("git")?;
    let name = |end| path.get(..end).unwrap_or_default();
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let directory =
            SourceEntry::new(name(at), SourceKind::Directory).map_err(|_| unnamed(path))?;
        entries.add(&directory.path, EntryKind::Directory, 0, io::empty())?;
    }
    let size = dockerfile.len() as u64;
    let file = SourceEntry::new(path, SourceKind::File(size)).map_err(|_| unnamed(path))?;
    entries.add(&file.path, kind, size, dockerfile)?;
    let mut hashing = entries.finish()?;
    hashing.flush().map_err(WriteManifestError::Output)?;
    Ok(hashing.finish())
}

fn unnamed(path: &[u8]) -> WriteManifestError {
    WriteManifestError::Dockerfile(SourceError::Unlisted(shown(path)))
}

/// Writes entries in the order of their form.
struct EntryWriter<C> {
    packer: Packer<C>,
    layout: Strict,
    time: u64,
    spoiled: bool,
}

impl<C: Compressor> EntryWriter<C> {
    fn new(out: C, form: Form, time: u64, limits: &Limits) -> Self {
        let packer = Packer::new(out, time, limits);
        Self { packer, layout: Strict::new(form), time, spoiled: false }
    }

    fn materials<L: Read>(
        &mut self,
        materials: Materials<'_, L>,
        limits: &Limits,
    ) -> Result<(), WriteManifestError> {
        let Materials { record, commit, tree, log, log_size } = materials;
        let mut json = serde_json::to_vec_pretty(record).map_err(WriteManifestError::Record)?;
        json.push(b'\n');
        self.directory("data")?;
        self.data(RECORD, json.len() as u64, limits.record_bytes, json.as_slice())?;
        self.data(LOG, log_size, limits.log_bytes, log)?;
        self.data(COMMIT, commit.len() as u64, limits.commit_bytes, commit)?;
        self.data(TREE, tree.len() as u64, limits.listing_bytes, tree)
    }

    fn finish(self) -> Result<C::Out, WriteManifestError> {
        if self.spoiled {
            return Err(WriteManifestError::Spoiled);
        }
        self.layout.finish()?;
        self.packer.finish()
    }

    fn directory(&mut self, name: &'static str) -> Result<(), WriteManifestError> {
        self.add(&fixed(name.as_bytes()), EntryKind::Directory, 0, io::empty())
    }

    fn data(
        &mut self,
        name: &'static str,
        size: u64,
        max: u64,
        content: impl Read,
    ) -> Result<(), WriteManifestError> {
        if size > max {
            return Err(WriteManifestError::TooLarge { name: name.to_owned(), max });
        }
        self.add(&fixed(name.as_bytes()), EntryKind::File, size, content)
    }

    fn add(
        &mut self,
        path: &EntryPath,
        kind: EntryKind,
        size: u64,
        content: impl Read,
    ) -> Result<(), WriteManifestError> {
        if self.spoiled {
            return Err(WriteManifestError::Spoiled);
        }
        self.spoiled = true;
        self.layout.accept(path, kind, self.time)?;
        self.packer.entry(path, kind, size, content)?;
        self.spoiled = false;
        Ok(())
    }
}

/// The outer archive of a manifest: the inner archive and its signature.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The name of the manifest.
    pub name: &'a ManifestName,
    /// The signature of the inner archive.
    pub signature: &'a ManifestSignature,
    /// The size of the inner archive in bytes.
    pub inner_size: u64,
    /// The time of both members: the commit's, in seconds since 1970.
    pub commit_time: i64,
}

impl Envelope<'_> {
    /// Writes the outer archive (`<name>.sig.tbz`) around the inner one.
    pub fn write<W: Write>(
        &self,
        inner: impl Read,
        out: W,
        limits: &Limits,
    ) -> Result<W, WriteManifestError> {
        let out = StreamWriter::fast(out, limits);
        self.wrap(inner, out, Form::Full, limits)
    }

    /// Writes the outer archive of a thin manifest (`<name>.thin.sig.tar.zst`) around the inner one.
    pub fn write_thin<W: Write>(
        &self,
        inner: impl Read,
        out: W,
        limits: &Limits,
    ) -> Result<W, WriteManifestError> {
        let limits = limits.of_thin();
        let out = FrameWriter::fast(out, &limits).map_err(WriteManifestError::Output)?;
        self.wrap(inner, out, Form::Thin, &limits)
    }

    fn wrap<C: Compressor>(
        &self,
        inner: impl Read,
        out: C,
        form: Form,
        limits: &Limits,
    ) -> Result<C::Out, WriteManifestError> {
        let mut packer = Packer::new(out, header_time(self.commit_time), limits);
        let member = |suffix| fixed(format!("{}{suffix}", self.name).as_bytes());
        packer.entry(&member(form.archive_suffix()), EntryKind::File, self.inner_size, inner)?;
        let signature = self.signature.to_string();
        let (path, size) = (member(form.signature_suffix()), signature.len() as u64);
        packer.entry(&path, EntryKind::File, size, signature.as_bytes())?;
        let mut out = packer.finish()?;
        out.flush().map_err(WriteManifestError::Output)?;
        Ok(out)
    }
}

fn fixed(name: &[u8]) -> EntryPath {
    EntryPath::parse(name).expect("names of our own are valid entry names")
}
