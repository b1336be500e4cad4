//! The ids of git objects.
//!
//! Format: gitformat-pack(5), gitobject: the hash of `<kind> <size in decimal>`, a NUL, and the
//! content.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use sbs_proto::CommitId;

/// The kind of a git object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ObjectKind {
    /// The content of a file, or the target of a symbolic link.
    Blob,
    /// A commit.
    Commit,
    /// A directory.
    Tree,
}

impl ObjectKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Commit => "commit",
            Self::Tree => "tree",
        }
    }
}

/// The hash that a repository names its objects by.
///
/// An id is as strong as that hash. SHA-1 is for ids only: it is what most repositories have, and
/// whoever can make collisions of it can make two sources with one id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ObjectFormat {
    /// SHA-1, ids of 40 digits.
    Sha1,
    /// SHA-256, ids of 64 digits.
    Sha256,
}

impl ObjectFormat {
    /// Returns the format of the repository that `id` is from.
    pub fn of(id: &CommitId) -> Self {
        if id.as_str().len() == SHA1_DIGITS { Self::Sha1 } else { Self::Sha256 }
    }
}

/// Computes the id of an object whose content comes in pieces.
pub struct ObjectHasher(Context);

impl ObjectHasher {
    /// Begins an object of `size` bytes. The id is wrong if another number of bytes follows.
    pub fn new(kind: ObjectKind, size: u64, format: ObjectFormat) -> Self {
        let mut context = Context::new(match format {
            ObjectFormat::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            ObjectFormat::Sha256 => &SHA256,
        });
        context.update(format!("{} {size}\0", kind.as_str()).as_bytes());
        Self(context)
    }

    /// Takes the next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the id.
    pub fn finish(self) -> CommitId {
        let digits = hex::encode(self.0.finish().as_ref());
        CommitId::parse(&digits).expect("a hash in lower-case hex has the form of an id")
    }
}

impl fmt::Debug for ObjectHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectHasher").finish_non_exhaustive()
    }
}

/// Returns the id of an object.
pub fn object_id(kind: ObjectKind, content: &[u8], format: ObjectFormat) -> CommitId {
    let mut hasher = ObjectHasher::new(kind, content.len() as u64, format);
    hasher.update(content);
    hasher.finish()
}

const SHA1_DIGITS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by `git hash-object -t <kind> --stdin` (git 2.47), with `--object-format=sha256`
    /// repositories for the long ones.
    #[test]
    fn agrees_with_git() {
        use ObjectFormat::{Sha1, Sha256};
        for (kind, content, format, expected) in [
            (ObjectKind::Blob, &b""[..], Sha1, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
            (ObjectKind::Blob, b"hello\n", Sha1, "ce013625030ba8dba906f756967f9e9ca394464a"),
            (ObjectKind::Tree, b"", Sha1, "4b825dc642cb6eb9a060e54bf8d69288fbee4904"),
            (
                ObjectKind::Tree,
                b"",
                Sha256,
                "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
            ),
            (
                ObjectKind::Blob,
                b"",
                Sha256,
                "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
            ),
        ] {
            let id = object_id(kind, content, format);
            assert_eq!(id.as_str(), expected);
            assert_eq!(ObjectFormat::of(&id), format);
        }
    }

    #[test]
    fn pieces_make_the_same_id_as_the_whole() {
        let mut hasher = ObjectHasher::new(ObjectKind::Commit, 6, ObjectFormat::Sha1);
        hasher.update(b"hel");
        hasher.update(b"lo\n");
        let whole = object_id(ObjectKind::Commit, b"hello\n", ObjectFormat::Sha1);
        assert_eq!(hasher.finish(), whole);
        assert_ne!(whole, object_id(ObjectKind::Blob, b"hello\n", ObjectFormat::Sha1));
    }
}
