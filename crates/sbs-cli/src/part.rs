//! Files that take long to come: beside their place, under a name of their own, until they are
//! complete.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};
use sbs_client::Received;
use sbs_proto::v2::StoredFile;
use thiserror::Error;

use crate::file::sync_directory;

/// The beginning of a file, which another run of the program can go on with.
#[derive(Debug)]
pub(crate) struct Part {
    /// Open at its end.
    pub(crate) file: File,
    path: PathBuf,
}

impl Part {
    /// Opens what an earlier run left of this file, or begins. A part of another file has another
    /// name: the first digits of the digest stand in it.
    pub(crate) fn open(target: &Path, of: &StoredFile) -> Result<(Self, Received), PartError> {
        let digits: String = of.digest.to_hex().chars().take(DIGITS).collect();
        let path = PathBuf::from(format!("{}.{digits}.part", target.display()));
        let failed = |source| PartError::Io { path: path.clone(), source };
        let in_the_way = || PartError::InTheWay { path: path.clone() };
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o644)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
            .open(&path);
        let file = opened.map_err(|error| match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::LOOP) => in_the_way(),
            _ => failed(error),
        })?;
        let metadata = file.metadata().map_err(failed)?;
        // What somebody else owns or can name they could still change when it is complete.
        let ours = metadata.is_file()
            && metadata.nlink() == 1
            && metadata.uid() == rustix::process::geteuid().as_raw();
        if !ours {
            return Err(in_the_way());
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PartError::Busy { path }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Another run can have completed it before the lock was ours.
        let same = fs::symlink_metadata(&path).is_ok_and(|now| now.ino() == metadata.ino());
        if !same {
            return Err(PartError::Busy { path });
        }
        file.set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
        let mut received = Received::nothing();
        if metadata.len() <= of.size {
            received = Received::read(&file).map_err(failed)?;
        } else {
            file.set_len(0).map_err(failed)?;
        }
        Ok((Self { file, path }, received))
    }

    /// Gives the complete file its place; nothing there is overwritten.
    pub(crate) fn complete(self, target: &Path) -> Result<File, PartError> {
        let failed = |source| PartError::Io { path: target.to_owned(), source };
        self.file.sync_all().map_err(failed)?;
        rename_to_nothing(&self.path, target).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => PartError::InTheWay { path: target.to_owned() },
            _ => failed(error),
        })?;
        sync_directory(target).map_err(failed)?;
        Ok(self.file)
    }

    /// Removes what is of no use.
    pub(crate) fn discard(self) {
        // It is begun anew where it stays.
        let _left = fs::remove_file(&self.path);
    }
}

fn rename_to_nothing(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot: a second name fails just so where there is a file.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => Ok(result?),
    }
}

/// Why a part cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum PartError {
    #[error("another sbs downloads `{}`; wait for its end", path.display())]
    Busy { path: PathBuf },

    #[error("`{}` is in the way; move it away", path.display())]
    InTheWay { path: PathBuf },

    #[error("cannot write `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Of a digest's: enough to tell one file from another; the whole digest is checked in the end.
const DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn stored(content: &[u8]) -> StoredFile {
        StoredFile { digest: sbs_crypto::digest(content), size: content.len() as u64 }
    }

    fn part_path(target: &Path, of: &StoredFile) -> PathBuf {
        let digits: String = of.digest.to_hex().chars().take(12).collect();
        PathBuf::from(format!("{}.{digits}.part", target.display()))
    }

    #[test]
    fn a_part_is_gone_on_with_and_then_in_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("m");
        let of = stored(b"abcdef");
        for (there, more) in [(0, "abc"), (3, "def")] {
            let (mut part, received) = Part::open(&target, &of).unwrap();
            assert_eq!(received.length(), there);
            part.file.write_all(more.as_bytes()).unwrap();
        }
        let (part, received) = Part::open(&target, &of).unwrap();
        assert!(received.is(&of));
        // A part of another file is not taken for one of this.
        let (other, received) = Part::open(&target, &stored(b"abcdeF")).unwrap();
        assert_eq!(received.length(), 0);
        other.discard();
        part.complete(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"abcdef");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_part_that_is_too_long_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("m");
        let of = stored(b"abc");
        fs::write(part_path(&target, &of), "abcd").unwrap();
        let (_part, received) = Part::open(&target, &of).unwrap();
        assert_eq!(received.length(), 0);
        assert_eq!(fs::read(part_path(&target, &of)).unwrap(), b"");
    }

    #[test]
    fn c1_a_part_that_leads_elsewhere_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("m");
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let of = stored(b"a");
        let part = part_path(&target, &of);
        let open = || Part::open(&target, &of);
        symlink(&precious, &part).unwrap();
        assert!(matches!(open(), Err(PartError::InTheWay { .. })), "{:?}", open());
        fs::remove_file(&part).unwrap();
        fs::hard_link(&precious, &part).unwrap();
        assert!(matches!(open(), Err(PartError::InTheWay { .. })), "{:?}", open());
        fs::remove_file(&part).unwrap();
        rustix::fs::mknodat(CWD, &part, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        open().unwrap_err();
        fs::remove_file(&part).unwrap();
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        // Nor is a file in its place overwritten.
        let (part, _) = open().unwrap();
        fs::rename(&precious, &target).unwrap();
        assert!(matches!(part.complete(&target), Err(PartError::InTheWay { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"precious");
    }

    #[test]
    fn two_downloads_of_one_file_do_not_mix() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("m");
        let (first, _) = Part::open(&target, &stored(b"a")).unwrap();
        let second = Part::open(&target, &stored(b"a"));
        assert!(matches!(second, Err(PartError::Busy { .. })), "{second:?}");
        drop(first);
        Part::open(&target, &stored(b"a")).unwrap();
    }
}
