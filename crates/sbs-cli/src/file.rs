//! Files that are read with a limit and written whole: the new file or the old one, never a part.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sbs_crypto::HashingReader;
use sbs_proto::Digest;
use tempfile::NamedTempFile;
use thiserror::Error;

/// Who may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    /// Its owner alone: mode 0600.
    Owner,
    /// Everyone: mode 0644.
    Everyone,
}

/// What to do if there is such a file already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Existing {
    /// Fail, unless it has the same content.
    Keep,
    /// Put the new one in its place.
    Replace,
}

/// Opens a regular file for reading.
pub(crate) fn open(path: &Path) -> Result<File, ReadFileError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ReadFileError::Missing { path: path.to_owned() },
        _ => ReadFileError::Io { path: path.to_owned(), source },
    };
    // A directory opens, and a pipe might never end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(ReadFileError::NotAFile { path: path.to_owned() });
    }
    File::open(path).map_err(failed)
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadFileError> {
    let failed = |source| ReadFileError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(ReadFileError::TooLarge { limit, path: path.to_owned() });
    }
    Ok(bytes)
}

/// Reads a text file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, ReadFileError> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| ReadFileError::NotText { path: path.to_owned() })
}

/// Writes a file whole.
pub(crate) fn write(
    path: &Path,
    bytes: &[u8],
    access: Access,
    existing: Existing,
) -> Result<(), WriteFileError> {
    let failed = |source| WriteFileError::Io { path: path.to_owned(), source };
    let file = spool(path, bytes, access).map_err(failed)?;
    match existing {
        Existing::Keep => match file.persist_noclobber(path) {
            Ok(_) => sync_directory(path).map_err(failed),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => same(path, bytes),
            Err(error) => Err(failed(error.error)),
        },
        Existing::Replace => {
            file.persist(path).map_err(|error| failed(error.error))?;
            sync_directory(path).map_err(failed)
        }
    }
}

/// Writes a file whole that everyone may read, in the place of an old one.
pub(crate) fn write_from(path: &Path, from: impl Read) -> Result<(), WriteFileError> {
    let failed = |source| WriteFileError::Io { path: path.to_owned(), source };
    let file = spool(path, from, Access::Everyone).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_directory(path).map_err(failed)
}

/// Begins a file in a directory under a name of its own.
pub(crate) fn begin(directory: &Path) -> io::Result<NamedTempFile> {
    NamedTempFile::new_in(directory)
}

/// Gives a finished file its place; returns the file that is there.
pub(crate) fn keep(
    file: NamedTempFile,
    path: &Path,
    access: Access,
    existing: Existing,
) -> Result<File, WriteFileError> {
    let failed = |source| WriteFileError::Io { path: path.to_owned(), source };
    finish(&file, access).map_err(failed)?;
    if existing == Existing::Replace {
        let file = file.persist(path).map_err(|error| failed(error.error))?;
        sync_directory(path).map_err(failed)?;
        return Ok(file);
    }
    match file.persist_noclobber(path) {
        Ok(file) => {
            sync_directory(path).map_err(failed)?;
            Ok(file)
        }
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            let exists = || WriteFileError::Exists { path: path.to_owned() };
            let there = open(path).map_err(|_| exists())?;
            let equal = content(&there).map_err(failed)?
                == content(&error.file.reopen().map_err(failed)?).map_err(failed)?;
            if equal { Ok(there) } else { Err(exists()) }
        }
        Err(error) => Err(failed(error.error)),
    }
}

/// Returns digest and length of a file.
fn content(file: &File) -> io::Result<(Digest, u64)> {
    let mut reader = HashingReader::new(BufReader::new(file));
    io::copy(&mut reader, &mut io::sink())?;
    let (_, digest, length) = reader.finish();
    Ok((digest, length))
}

/// Makes a directory that its owner alone may enter, if it is not there.
pub(crate) fn make_directory(path: &Path) -> Result<(), WriteFileError> {
    let failed = |source| WriteFileError::Io { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

/// Closes a directory that is there to all but its owner.
pub(crate) fn close_directory(path: &Path) -> Result<(), WriteFileError> {
    let failed = |source| WriteFileError::Io { path: path.to_owned(), source };
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)
}

/// Writes what will become the file `path` to a temporary file beside it.
fn spool(path: &Path, mut from: impl Read, access: Access) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(directory_of(path))?;
    io::copy(&mut from, &mut file)?;
    finish(&file, access)?;
    Ok(file)
}

fn finish(file: &NamedTempFile, access: Access) -> io::Result<()> {
    let mode = match access {
        Access::Owner => 0o600,
        Access::Everyone => 0o644,
    };
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()
}

/// Makes the new name of a file survive a loss of power.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Returns the directory that a file is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn same(path: &Path, bytes: &[u8]) -> Result<(), WriteFileError> {
    match read(path, bytes.len() as u64) {
        Ok(old) if old == bytes => Ok(()),
        _ => Err(WriteFileError::Exists { path: path.to_owned() }),
    }
}

/// Why a file was not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ReadFileError {
    #[error("cannot read `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("file `{}` is not there", path.display())]
    Missing { path: PathBuf },

    #[error("`{}` is not a regular file", path.display())]
    NotAFile { path: PathBuf },

    #[error("file `{}` is not UTF-8 text", path.display())]
    NotText { path: PathBuf },

    #[error("file `{}` is larger than {limit} bytes", path.display())]
    TooLarge { limit: u64, path: PathBuf },
}

/// Why a file was not written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum WriteFileError {
    #[error("file `{}` is there already with another content; move it away", path.display())]
    Exists { path: PathBuf },

    #[error("cannot write `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn modes_are_set_whatever_was_there_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        for (access, expected) in [(Access::Owner, 0o600), (Access::Everyone, 0o644)] {
            write(&path, b"new", access, Existing::Replace).unwrap();
            assert_eq!(mode(&path), expected);
        }
        let inner = directory.path().join("a/b");
        make_directory(&inner).unwrap();
        assert_eq!(mode(&inner), 0o700);
        fs::set_permissions(&inner, Permissions::from_mode(0o755)).unwrap();
        make_directory(&inner).unwrap();
        assert_eq!(mode(&inner), 0o755);
        close_directory(&inner).unwrap();
        assert_eq!(mode(&inner), 0o700);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "a temporary file is left");
    }

    #[test]
    fn c1_a_file_with_another_content_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for (bytes, good) in [(&b"one"[..], true), (b"one", true), (b"two", false), (b"on", false)]
        {
            let written = write(&path, bytes, Access::Everyone, Existing::Keep);
            assert_eq!(written.is_ok(), good, "{bytes:?}");
            assert_eq!(fs::read(&path).unwrap(), b"one");
        }
        // Neither is what a link points to.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(write(&link, b"two", Access::Everyone, Existing::Keep).is_err());
        write(&link, b"two", Access::Everyone, Existing::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn reading_ends_at_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(matches!(read(&path, 4), Err(ReadFileError::TooLarge { limit: 4, .. })));
        assert!(matches!(read(directory.path(), 4), Err(ReadFileError::NotAFile { .. })));
        let missing = read(&directory.path().join("g"), 4);
        assert!(matches!(missing, Err(ReadFileError::Missing { .. })));
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(read_text(&path, 5), Err(ReadFileError::NotText { .. })));
    }
}
