//! The record step: the manifest is packed, signed, verified and put into its place.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use sbs_crypto::SignError;
use sbs_manifest::{
    Compatibility, Envelope, Form, FullManifest, InnerWriter, Limits, Materials, Outcome,
    ParseEntryPathError, ReadManifestError, SourceEntry, SourceKind, ThinMaterials,
    UnverifiedManifest, VerifyManifestError, WriteManifestError, sign, write_thin,
};
use sbs_proto::{BuildName, BuildRecord};
use sbs_state::DefinitionKeys;
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::build::dockerfile::{LoadFileError, open_file as open_beneath};
use crate::build::failure::{Failure, StepError};
use crate::build::fetch::Fetched;
use crate::build::sign::Tagged;
use crate::core::builds::BuildFiles;
use crate::store::{move_into_place, replace_file};

/// What a manifest is made of.
#[derive(Debug)]
pub(crate) struct PackRequest<'a> {
    pub(crate) build_name: &'a BuildName,
    pub(crate) fetched: &'a Fetched,
    pub(crate) files: &'a BuildFiles,
    pub(crate) keys: &'a DefinitionKeys,
    pub(crate) record: &'a BuildRecord,
}

/// Checks that the source can be put into a manifest, before anything is built from it.
pub(crate) fn check_source(fetched: &Fetched) -> Result<(), PackError> {
    for entry in fetched.tree_listing.split(|byte| *byte == 0) {
        let Some(tab) = entry.iter().position(|byte| *byte == b'\t') else { continue };
        let path = entry.get(tab + 1..).unwrap_or_default();
        SourceEntry::new(path, SourceKind::File(0))
            .map_err(|source| PackError::Name { name: shown(path), source })?;
    }
    Ok(())
}

/// Packs, signs and verifies the manifests of a build whose image is published, and puts them into
/// their places: first the thin one, so that there is one wherever there is a full one. It blocks,
/// for as long as packing takes.
pub(crate) fn pack(_tagged: &Tagged, request: &PackRequest<'_>) -> Result<(), PackError> {
    let at = |what| move |source| PackError::Io { what, source };
    let limits = Limits::default();
    let directory = request.files.directory();
    let spool = tempfile::tempfile_in(directory).map_err(at("a temporary file"))?;
    let log = LogAsOfNow::open(request.files)?;
    let inner = write_inner(spool, &log, request, &limits)?;
    let name = request.build_name.manifest_name();
    let full = FullManifest::new(&name, inner.digest, inner.size);
    let outer = seal(inner, Form::Full, request, &limits)?;

    let spool = tempfile::tempfile_in(directory).map_err(at("a temporary file"))?;
    let thin = write_thin_inner(spool, &log, &full, request, &limits)?;
    let thin = seal(thin, Form::Thin, request, &limits)?;

    let pem = request.keys.manifest().current.verifying_key().to_pem();
    replace_file(&request.files.public_key(), pem.as_bytes()).map_err(at("the public key"))?;
    put(thin, &request.files.thin_manifest(&name))?;
    put(outer, &request.files.manifest(&name))
}

/// An inner archive that is not signed yet.
struct Inner {
    spool: File,
    digest: sbs_proto::Digest,
    size: u64,
}

impl Inner {
    fn of(written: (BufWriter<File>, sbs_proto::Digest, u64)) -> Result<Self, PackError> {
        let at = |source| PackError::Io { what: "a temporary file", source };
        let (out, digest, size) = written;
        let mut spool = out.into_inner().map_err(|error| at(error.into_error()))?;
        spool.rewind().map_err(at)?;
        Ok(Self { spool, digest, size })
    }
}

/// The build log as it is now. It still grows; both manifests have the same of it.
struct LogAsOfNow {
    file: File,
    size: u64,
}

impl LogAsOfNow {
    fn open(files: &BuildFiles) -> Result<Self, PackError> {
        let at = |source| PackError::Io { what: "the build log", source };
        let file = File::open(files.log()).map_err(at)?;
        let size = file.metadata().map_err(at)?.len();
        Ok(Self { file, size })
    }

    fn read(&self) -> Result<impl io::Read, PackError> {
        let mut file = &self.file;
        file.rewind().map_err(|source| PackError::Io { what: "the build log", source })?;
        Ok(file.take(self.size))
    }
}

/// Signs an inner archive, wraps it into a new file beside where it goes, and verifies that.
fn seal(
    inner: Inner,
    form: Form,
    request: &PackRequest<'_>,
    limits: &Limits,
) -> Result<NamedTempFile, PackError> {
    let at = |source| PackError::Io { what: "the manifest", source };
    let directory = request.files.directory();
    let signature =
        sign(&inner.digest, &request.keys.manifest().current).map_err(PackError::Sign)?;
    let name = request.build_name.manifest_name();
    let envelope = Envelope {
        name: &name,
        signature: &signature,
        inner_size: inner.size,
        commit_time: request.record.source.commit_time,
    };
    let outer = tempfile::Builder::new().prefix(".new-").tempfile_in(directory).map_err(at)?;
    let (spool, out) = (BufReader::new(inner.spool), BufWriter::new(outer.as_file()));
    match form {
        Form::Full => drop(envelope.write(spool, out, limits)?),
        Form::Thin => drop(envelope.write_thin(spool, out, limits)?),
    }
    outer.as_file().sync_all().map_err(at)?;
    verify(outer.path(), directory, request, limits)?;
    Ok(outer)
}

fn put(file: NamedTempFile, path: &Path) -> Result<(), PackError> {
    let at = |source| PackError::Io { what: "the manifest", source };
    let kept = file.into_temp_path().keep().map_err(|error| at(error.error))?;
    move_into_place(&kept, path).map_err(at)
}

fn write_thin_inner(
    spool: File,
    log: &LogAsOfNow,
    full: &FullManifest,
    request: &PackRequest<'_>,
    limits: &Limits,
) -> Result<Inner, PackError> {
    let path = request.record.engine.dockerfile.as_str();
    let mut dockerfile = Vec::new();
    open_beneath(&request.fetched.work_tree, path)
        .map_err(PackError::Dockerfile)?
        .read_to_end(&mut dockerfile)
        .map_err(|source| PackError::Io { what: "the Dockerfile", source })?;
    let materials = materials(request, log)?;
    let thin = ThinMaterials { materials, full, dockerfile: &dockerfile };
    Inner::of(write_thin(BufWriter::new(spool), thin, limits)?)
}

fn materials<'a>(
    request: &PackRequest<'a>,
    log: &LogAsOfNow,
) -> Result<Materials<'a, impl io::Read>, PackError> {
    Ok(Materials {
        record: request.record,
        commit: &request.fetched.commit_object,
        tree: &request.fetched.tree_listing,
        log: log.read()?,
        log_size: log.size,
    })
}

fn write_inner(
    spool: File,
    log: &LogAsOfNow,
    request: &PackRequest<'_>,
    limits: &Limits,
) -> Result<Inner, PackError> {
    let mut writer = InnerWriter::begin(BufWriter::new(spool), materials(request, log)?, limits)?;
    add_directory(&mut writer, &request.fetched.work_tree, &[])?;
    Inner::of(writer.finish()?)
}

/// Adds everything in a directory of the work tree; `path` is its path below the top.
fn add_directory<W: io::Write>(
    writer: &mut InnerWriter<W>,
    top: &Path,
    path: &[u8],
) -> Result<(), PackError> {
    let at = |source| PackError::Io { what: "the work tree", source };
    let directory = top.join(OsStr::from_bytes(path));
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(at)? {
        let entry = entry.map_err(at)?;
        let mut name = path.to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(&entry.file_name().into_vec());
        let metadata = entry.metadata().map_err(at)?;
        let kind = if metadata.is_dir() {
            SourceKind::Directory
        } else if metadata.is_symlink() {
            let target = fs::read_link(entry.path()).map_err(at)?;
            SourceKind::Link(target.as_os_str().len() as u64)
        } else if metadata.is_file() && metadata.permissions().mode() & 0o100 != 0 {
            SourceKind::Executable(metadata.len())
        } else if metadata.is_file() {
            SourceKind::File(metadata.len())
        } else {
            return Err(PackError::Kind { name: shown(&name) });
        };
        let source_entry = SourceEntry::new(&name, kind)
            .map_err(|source| PackError::Name { name: shown(&name), source })?;
        entries.push((source_entry, kind, name, entry.path()));
    }
    entries.sort_by_cached_key(|(entry, ..)| entry.sort_key());
    for (entry, kind, name, on_disk) in entries {
        match kind {
            SourceKind::Directory => {
                writer.add_source(&entry, io::empty())?;
                add_directory(writer, top, &name)?;
            }
            SourceKind::Link(_) => {
                let target = fs::read_link(on_disk).map_err(at)?.into_os_string().into_vec();
                writer.add_source(&entry, target.as_slice())?;
            }
            SourceKind::Executable(_) | SourceKind::File(_) => {
                writer.add_source(&entry, open_file(&on_disk).map_err(at)?)?;
            }
        }
    }
    Ok(())
}

/// Opens a file of the work tree; a link that took its place is not followed.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Reads the manifest again, the way an auditor does.
fn verify(
    path: &Path,
    directory: &Path,
    request: &PackRequest<'_>,
    limits: &Limits,
) -> Result<(), PackError> {
    let at = |what| move |source| PackError::Io { what, source };
    let archive = File::open(path).map_err(at("the manifest"))?;
    let spool = tempfile::tempfile_in(directory).map_err(at("a temporary file"))?;
    let key = request.keys.manifest().current.verifying_key();
    let archive = BufReader::new(archive);
    let unverified = UnverifiedManifest::read(archive, spool, Compatibility::Strict, limits)?;
    let report = unverified.verify(&key)?.check();
    if !report.all_passed() {
        let failed = report.checks().iter().find(|check| !matches!(check.outcome, Outcome::Passed));
        let name = failed.map_or("a check", |check| check.name.as_str());
        return Err(PackError::Check { name });
    }
    Ok(())
}

fn shown(name: &[u8]) -> String {
    name.escape_ascii().to_string().chars().take(120).collect()
}

/// Why a manifest was not written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum PackError {
    /// The manifest does not pass its own checks.
    #[error("the manifest that was written does not pass the check `{name}`")]
    Check { name: &'static str },

    /// The Dockerfile cannot be opened again.
    #[error("the Dockerfile cannot be put into the manifest")]
    Dockerfile(#[source] LoadFileError),

    /// A file cannot be read or written.
    #[error("{what} cannot be read or written")]
    Io { what: &'static str, source: io::Error },

    /// The work tree has a device or a socket.
    #[error("`{name}` in the work tree is neither a file, a directory nor a link")]
    Kind { name: String },

    /// A name of the source cannot stand in a manifest.
    #[error("`{name}` in the repository has a name that a manifest cannot hold; rename it")]
    Name { name: String, source: ParseEntryPathError },

    /// The manifest cannot be read again.
    #[error("the manifest that was written cannot be read")]
    Read(#[from] ReadManifestError),

    /// The manifest cannot be signed.
    #[error("the manifest cannot be signed")]
    Sign(#[source] SignError),

    /// The signature that was made is not valid.
    #[error("the manifest that was written is not verified by its own key")]
    Verify(#[from] VerifyManifestError),

    /// The archive cannot be written.
    #[error("the manifest cannot be written")]
    Write(#[from] WriteManifestError),
}

impl StepError for PackError {
    fn failure(&self) -> Failure {
        let code = match self {
            Self::Name { .. } => "source_name",
            _ => "manifest",
        };
        Failure { code, command: "create manifest".to_owned(), return_code: 1 }
    }
}
