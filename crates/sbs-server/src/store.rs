//! The data directory: owner-only, locked, every file replaced whole.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};
use sbs_proto::DefinitionName;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::limits;

/// The data directory, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens the data directory, making it if it is not there, and locks it.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenStoreError> {
        let at = |source| OpenStoreError::Directory { path: root.to_owned(), source };
        make_directory(root).map_err(at)?;
        let root = root.canonicalize().map_err(at)?;
        let metadata = root.metadata().map_err(at)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(OpenStoreError::Owner { path: root });
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(at)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(root.join("lock"))
            .map_err(at)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenStoreError::Locked { path: root }),
            Err(TryLockError::Error(source)) => Err(at(source)),
        }
    }

    /// Returns the path of a directory in the data directory, making it if it is not there.
    pub(crate) fn directory(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let path = self.root.join(path);
        make_directory(&path)?;
        Ok(path)
    }

    /// Returns the directory of an image definition, making it if it is not there. An import puts
    /// another one in its place.
    pub(crate) fn definition_directory(&self, name: &DefinitionName) -> io::Result<PathBuf> {
        self.directory(Path::new(DEFINITIONS).join(name.as_str()))
    }

    /// Lists the names of all sealed records: their paths in the data directory without the ending,
    /// which is also what each is sealed to.
    ///
    /// Looks where they are kept, in the data directory and in each definition's, and nowhere
    /// below: what builds leave there is not to be trusted.
    pub(crate) fn sealed_records(&self) -> io::Result<Vec<String>> {
        let mut records = Vec::new();
        self.list_sealed(Path::new(""), &mut records)?;
        let definitions = match fs::read_dir(self.root.join(DEFINITIONS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            entries => entries?,
        };
        for entry in definitions {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.list_sealed(&Path::new(DEFINITIONS).join(entry.file_name()), &mut records)?;
            }
        }
        records.sort();
        Ok(records)
    }

    /// Returns the path of the file of a sealed record.
    pub(crate) fn sealed_file(&self, name: &str) -> PathBuf {
        Self::sealed_file_in(&self.root, name)
    }

    /// Returns the path of the file of a sealed record in the data directory `root`.
    pub(crate) fn sealed_file_in(root: &Path, name: &str) -> PathBuf {
        root.join(format!("{name}{SEALED}"))
    }

    fn list_sealed(&self, directory: &Path, records: &mut Vec<String>) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(directory))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            let name = path.to_str().and_then(|path| path.strip_suffix(SEALED));
            if let Some(name) = name.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file()))
            {
                records.push(name.to_owned());
            }
        }
        Ok(())
    }

    /// Returns the path of a file or directory in the data directory.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }
}

/// Why the data directory cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum OpenStoreError {
    /// The directory cannot be made, read or changed.
    #[error("cannot use the data directory `{}`", path.display())]
    Directory { path: PathBuf, source: io::Error },

    /// Another server uses the directory.
    #[error("another server uses the data directory `{}`; stop it or set another data-directory", path.display())]
    Locked { path: PathBuf },

    /// The directory belongs to somebody else.
    #[error("the data directory `{}` belongs to another user; give it to the server's own", path.display())]
    Owner { path: PathBuf },
}

/// Replaces a file whole: written beside it, synced, renamed, directory synced. Mode 0600.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_directory(directory)
}

/// Moves a finished file or directory to its place and makes the move last.
pub(crate) fn move_into_place(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(to.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

/// Exchanges two directories at once and makes that last. After an error they are as before.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let swap = || rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
    swap()?;
    let synced = [one, other].iter().try_for_each(|path| {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        sync_directory(parent)
    });
    if synced.is_err() {
        // What may not last must not be told of, nor be used.
        swap()?;
    }
    synced
}

/// Reads a small file of the data directory; `None` if it is not there.
pub(crate) fn read_small_file(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    read_limited(file).map(Some)
}

/// Removes a directory with everything below it; it may be gone already.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Reads a file that holds a secret of the operator's: a regular file with one name, of the
/// server's own user, that nobody else can read, or exchange for another.
pub(crate) fn read_secret_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, ReadSecretFileError> {
    check_parents(path)?;
    let at = |source| ReadSecretFileError::Read { path: path.to_owned(), source };
    let refuse = |what| ReadSecretFileError::Unsafe { path: path.to_owned(), what };
    let no_follow = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(no_follow.bits()).unwrap_or(0))
        .open(path);
    let file = match file {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(refuse("is a symbolic link; name the file itself"));
        }
        file => file.map_err(at)?,
    };
    let metadata = file.metadata().map_err(at)?;
    if !metadata.is_file() {
        return Err(refuse("is not a regular file"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refuse("belongs to another user; give it to the server's own"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse("can be read by others; set its mode to 0600"));
    }
    if metadata.nlink() != 1 {
        return Err(refuse("has more than one name (hard link); remove the others"));
    }
    read_limited(file).map_err(at)
}

/// Reads such a file by a name that may be a symbolic link, as certbot makes them: nobody else can
/// exchange a link on the way either, and the file at the end is held to the same.
pub(crate) fn read_linked_secret_file(
    path: &Path,
) -> Result<Zeroizing<Vec<u8>>, ReadSecretFileError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let at = |source| ReadSecretFileError::Read { path: path.clone(), source };
        let metadata = path.symlink_metadata().map_err(at)?;
        if !metadata.is_symlink() {
            break;
        }
        check_parents(&path)?;
        if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
            let what = "is a symbolic link of another user";
            return Err(ReadSecretFileError::Unsafe { path, what });
        }
        let target = fs::read_link(&path).map_err(at)?;
        path = path.parent().map(|directory| directory.join(&target)).unwrap_or(target);
    }
    read_secret_file(&path)
}

/// Checks that nobody but root and the server's own user can put another file in the place of
/// this one: such a file could be there already.
///
/// A directory with the sticky bit, such as `/tmp`, lets others add files and not move ours.
pub(crate) fn check_parents(path: &Path) -> Result<(), ReadSecretFileError> {
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    let at = |path: &Path, source| ReadSecretFileError::Read { path: path.to_owned(), source };
    let directory = directory.canonicalize().map_err(|source| at(directory, source))?;
    for directory in directory.ancestors() {
        let metadata = directory.metadata().map_err(|source| at(directory, source))?;
        let refuse = |what| ReadSecretFileError::Unsafe { path: directory.to_owned(), what };
        if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
            return Err(refuse("belongs to another user, who can exchange the secret in it"));
        }
        if metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0 {
            return Err(refuse("can be written by others; set the mode of the directory to 0755"));
        }
    }
    Ok(())
}

/// Why a file that holds a secret was not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ReadSecretFileError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },

    /// The file is not kept as a secret must be.
    #[error("`{}` {what}", path.display())]
    Unsafe { path: PathBuf, what: &'static str },
}

fn read_limited(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    file.take(limits::SMALL_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limits::SMALL_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 4 MiB"));
    }
    Ok(content)
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the names in a directory last.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The file in the directory of an image definition that ssh notes host keys in at first use.
pub(crate) const KNOWN_HOSTS: &str = "known_hosts";
/// The file of an image definition with what notaries have said of repositories.
pub(crate) const NOTARY_ROOTS: &str = "notary_roots.json";

/// As many links are followed to a secret file, one behind the other.
const MAX_LINKS: usize = 8;

const DEFINITIONS: &str = "definitions";

const SEALED: &str = ".sealed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_on_the_same_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = Store::open(directory.path()).unwrap();
        assert!(matches!(Store::open(directory.path()), Err(OpenStoreError::Locked { .. })));
        drop(first);
        Store::open(directory.path()).unwrap();
    }

    #[test]
    fn the_data_directory_is_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let store = Store::open(&path).unwrap();
        for path in [path, store.directory("a/b").unwrap()] {
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for content in [&b"one"[..], b"two"] {
            replace_file(&path, content).unwrap();
            assert_eq!(**read_small_file(&path).unwrap().unwrap(), *content);
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert!(read_small_file(&directory.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn k1_a_secret_that_others_can_reach_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let secret = |name: &str| {
            fs::write(path(name), [7; 32]).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o600)).unwrap();
            path(name)
        };
        let good = secret("good");
        assert_eq!(**read_secret_file(&good).unwrap(), [7; 32]);

        // Whoever can write the directory can put another file there.
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for (mode, refused) in [(0o770, true), (0o702, true), (0o755, false), (0o1777, false)] {
            set_mode(directory.path(), mode);
            let result = read_secret_file(&good);
            assert_eq!(result.is_err(), refused, "{mode:o}");
            if let Err(error) = result {
                assert!(error.to_string().contains("written by others"), "{error}");
            }
        }
        set_mode(directory.path(), 0o700);
        let theirs = path("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::rename(&good, theirs.join("good")).unwrap();
        std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
        let error = read_secret_file(&theirs.join("good")).unwrap_err();
        assert!(error.to_string().contains("belongs to another user, who"), "{error}");

        let mode = secret("mode");
        fs::set_permissions(&mode, fs::Permissions::from_mode(0o640)).unwrap();
        let link = path("link");
        std::os::unix::fs::symlink(secret("target"), &link).unwrap();
        let named_twice = secret("twice");
        fs::hard_link(&named_twice, path("other-name")).unwrap();
        let owned_by_other = secret("other");
        std::os::unix::fs::chown(&owned_by_other, Some(65534), None).unwrap();
        let fifo = path("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        for (path, expected) in [
            (mode, "read by others"),
            (link, "symbolic link"),
            (named_twice, "more than one name"),
            (owned_by_other, "belongs to another user; give"),
            (fifo, "not a regular file"),
            (directory.path().to_owned(), "not a regular file"),
        ] {
            let error = read_secret_file(&path).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(matches!(read_secret_file(&path("none")), Err(ReadSecretFileError::Read { .. })));
    }

    #[test]
    fn k1_a_link_to_a_secret_is_followed_where_nobody_else_can_exchange_it() {
        use std::os::unix::fs::{chown, lchown, symlink};
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        // As certbot has it: live/host/privkey.pem -> ../../archive/host/privkey1.pem
        for name in ["live/host", "archive/host", "open"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        let (link, target) = (path("live/host/key.pem"), path("archive/host/key1.pem"));
        fs::write(&target, [7; 32]).unwrap();
        set_mode(&target, 0o600);
        symlink("../../archive/host/key1.pem", &link).unwrap();
        for path in [&link, &target] {
            assert_eq!(**read_linked_secret_file(path).unwrap(), [7; 32]);
        }
        let refused = |path: &Path, expected: &str| {
            let error = read_linked_secret_file(path).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        // What is at the end is held to the same as without a link.
        set_mode(&target, 0o640);
        refused(&link, "read by others");
        set_mode(&target, 0o600);
        chown(&target, Some(65534), None).unwrap();
        refused(&link, "belongs to another user; give");
        chown(&target, Some(0), None).unwrap();
        // So is every directory on the way, and the links themselves.
        for directory in ["live/host", "archive"] {
            set_mode(&path(directory), 0o777);
            refused(&link, "written by others");
            set_mode(&path(directory), 0o755);
        }
        let through = path("live/host/through.pem");
        symlink(path("open/link.pem"), &through).unwrap();
        symlink(&target, path("open/link.pem")).unwrap();
        read_linked_secret_file(&through).unwrap();
        set_mode(&path("open"), 0o777);
        refused(&through, "written by others");
        set_mode(&path("open"), 0o1777);
        read_linked_secret_file(&through).unwrap();
        lchown(path("open/link.pem"), Some(65534), None).unwrap();
        refused(&through, "symbolic link of another user");
        symlink("round.pem", path("round.pem")).unwrap();
        refused(&path("round.pem"), "is a symbolic link");
        assert!(matches!(
            read_linked_secret_file(&path("none")),
            Err(ReadSecretFileError::Read { .. })
        ));
    }
}
