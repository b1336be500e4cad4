//! What is told of builds, whichever way is asked.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sbs_proto::v2::{FileKind, RootSecret, Selector, StoredFile};
use sbs_proto::{DefinitionName, Digest, ManifestName};

use crate::core::Core;
use crate::core::builds::{BuildFiles, Journal, Phase, describe_file};
use crate::core::error::{KeepError, ReadError};

/// A file of a build, open: it stays readable when the build is removed.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    /// The digest of the whole file, unless it may still grow.
    pub(crate) digest: Option<Digest>,
    pub(crate) file: File,
    /// The file's bytes now.
    pub(crate) length: u64,
    /// A safe file name.
    pub(crate) name: String,
    /// What changes whenever the bytes do, and not at a restart: letters, digits and `-`.
    pub(crate) version: String,
}

impl Core {
    /// Returns what is told of the root secret.
    pub(crate) fn root_secret(&self) -> RootSecret {
        self.0.sealing.root_secret()
    }

    /// Returns the builds of an image definition, newest first.
    pub(crate) fn builds(
        &self,
        name: &DefinitionName,
    ) -> Result<Vec<(Journal, BuildFiles)>, ReadError> {
        let slot = self.slot(name).ok_or(ReadError::NoSuchDefinition)?;
        Ok(slot.builds.newest_first()?)
    }

    /// Returns one build.
    pub(crate) fn build(
        &self,
        name: &DefinitionName,
        selector: &Selector,
    ) -> Result<(Journal, BuildFiles), ReadError> {
        let selected = |journal: &Journal| match selector {
            Selector::Id(id) => journal.id.parse() == Ok(id.number()),
            Selector::Latest => journal.phase == Phase::Succeeded,
            Selector::Named(build) => journal.build_name.as_ref() == Some(build),
        };
        let found = self.builds(name)?.into_iter().find(|(journal, _)| selected(journal));
        found.ok_or(match selector {
            Selector::Latest => ReadError::NothingBuilt,
            Selector::Id(_) | Selector::Named(_) => ReadError::NoSuchBuild,
        })
    }

    /// Opens a file of a build.
    pub(crate) fn open_file(
        &self,
        name: &DefinitionName,
        selector: &Selector,
        kind: FileKind,
    ) -> Result<OpenedFile, ReadError> {
        let (journal, files) = self.build(name, selector)?;
        match kind {
            FileKind::Key => open_key(&journal, &files),
            FileKind::Log => open_log(&journal, &files),
            FileKind::Manifest => {
                let what = "manifest";
                let path = |name: &ManifestName| files.manifest(name);
                open_stored(&journal, journal.manifests.manifest, path, what)
            }
            FileKind::ThinManifest => {
                let what = "thin manifest";
                let path = |name: &ManifestName| files.thin_manifest(name);
                open_stored(&journal, journal.manifests.thin_manifest, path, what)
            }
        }
    }
}

/// Opens a file that the journal describes.
fn open_stored(
    journal: &Journal,
    stored: Option<StoredFile>,
    path: impl Fn(&ManifestName) -> PathBuf,
    what: &'static str,
) -> Result<OpenedFile, ReadError> {
    let none = ReadError::NoSuchFile { what };
    let (Some(stored), Some(build)) = (stored, &journal.build_name) else { return Err(none) };
    let path = path(&build.manifest_name());
    let file = open(&path, what)?;
    let length = file.metadata().map_err(KeepError::io(what))?.len();
    if length != stored.size {
        // What is told of the file, its digest first, is not true of this one.
        return Err(KeepError::Damaged { what, source: None }.into());
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let StoredFile { digest, .. } = stored;
    Ok(OpenedFile { digest: Some(digest), file, length, name, version: digest.to_hex() })
}

fn open_key(journal: &Journal, files: &BuildFiles) -> Result<OpenedFile, ReadError> {
    let what = "public key";
    let none = ReadError::NoSuchFile { what };
    // Before the end of the build the key may be there, and nothing that it verifies.
    let Some(build) = &journal.build_name else { return Err(none) };
    let mut file = open(&files.public_key(), what)?;
    let StoredFile { digest, size } = describe_file(&file).map_err(KeepError::io(what))?;
    file.rewind().map_err(KeepError::io(what))?;
    let (name, version) = (build.public_key_file(), digest.to_hex());
    Ok(OpenedFile { digest: Some(digest), file, length: size, name, version })
}

fn open_log(journal: &Journal, files: &BuildFiles) -> Result<OpenedFile, ReadError> {
    let what = "log";
    let file = open(&files.log(), what)?;
    let metadata = file.metadata().map_err(KeepError::io(what))?;
    let id = &journal.id;
    // Lines are only ever added. The time tells builds apart whose id was given again after a
    // clean.
    let (length, time) = (metadata.len(), metadata.mtime());
    let version = format!("{id}-{length:x}-{time:x}-{:x}", metadata.mtime_nsec());
    Ok(OpenedFile { digest: None, file, length, name: format!("build-{id}.log"), version })
}

fn open(path: &Path, what: &'static str) -> Result<File, ReadError> {
    File::open(path).map_err(|source| match source.kind() {
        // Removed, perhaps after the journal was read.
        io::ErrorKind::NotFound => ReadError::NoSuchFile { what },
        _ => KeepError::Io { what, source }.into(),
    })
}
