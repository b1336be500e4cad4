use std::collections::HashSet;
use std::fs;
use std::io;

use sbs_proto::CommitId;

use super::command::{Git, Repository};
use super::{FetchFault, FetchLimits};
use crate::tool::RunToolError;

/// What may still be checked out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget<'a> {
    bytes: u64,
    files: u64,
    limits: &'a FetchLimits,
}

/// What a commit's tree holds, as far as the fetch is concerned.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Tree {
    /// The total size of the files.
    pub(super) bytes: u64,
    /// The number of files, links and directories.
    pub(super) files: u64,
    /// The submodules: the path and the commit that belongs there.
    pub(super) gitlinks: Vec<(Vec<u8>, CommitId)>,
    /// The size of the largest file.
    pub(super) largest: u64,
    /// The size of `.gitmodules`, if it is a regular file.
    pub(super) modules_bytes: Option<u64>,
    /// Whether a path stands for two things: of those a work tree can hold only one.
    repeats: bool,
}

/// What the header of a commit object says.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct CommitHeader {
    /// The committer's time, in seconds since 1970.
    pub(super) time: i64,
    pub(super) tree: CommitId,
}

/// Checks a commit out into the repository's empty work tree and verifies the result against the
/// commit.
///
/// What a submodule goes into is left as an empty directory.
pub(super) async fn check_out(
    git: &Git<'_>,
    repository: &Repository,
    commit: &CommitId,
    budget: &mut Budget<'_>,
) -> Result<Tree, FetchFault> {
    let arguments = ["ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit.as_str()];
    let sizes = print_tree(git, repository, &arguments).await?;
    let tree = Tree::parse(&sizes).ok_or(FetchFault::Internal("git ls-tree has another form"))?;
    if tree.repeats {
        return Err(FetchFault::Unsound);
    }
    budget.take(&tree)?;
    write(git, repository, commit).await.map_err(|fault| match fault {
        // A path that no work tree may have, such as `..` or `.git`; git says which.
        FetchFault::Git { .. } => FetchFault::Unsound,
        other => other,
    })?;
    verify(git, repository, commit).await?;
    git.log().info(&format!(
        "checked out and verified; commit={commit}; files={}; bytes={}",
        tree.files, tree.bytes
    ));
    Ok(tree)
}

/// Returns the commit object: what git computes the commit id from, without git's own header.
pub(super) async fn commit_object(
    git: &Git<'_>,
    repository: &Repository,
    commit: &CommitId,
) -> Result<Vec<u8>, FetchFault> {
    let arguments = ["cat-file", "commit", commit.as_str()];
    git.output(repository, &arguments, MAX_COMMIT_BYTES).await.map_err(|fault| match fault {
        FetchFault::Tool(RunToolError::TooMuchOutput { .. }) => {
            FetchFault::OverLimit { limit: MAX_COMMIT_BYTES as u64, unit: "bytes in a commit" }
        }
        other => other,
    })
}

/// Returns the listing of the commit's tree.
pub(super) async fn listing(
    git: &Git<'_>,
    repository: &Repository,
    commit: &CommitId,
) -> Result<Vec<u8>, FetchFault> {
    let arguments = ["ls-tree", "-r", "-t", "-z", "--full-tree", commit.as_str()];
    print_tree(git, repository, &arguments).await
}

impl<'a> Budget<'a> {
    pub(super) fn new(limits: &'a FetchLimits) -> Self {
        Self { bytes: limits.max_bytes, files: limits.max_files, limits }
    }

    /// Takes what a tree needs.
    fn take(&mut self, tree: &Tree) -> Result<(), FetchFault> {
        let over = |limit, unit| move || FetchFault::OverLimit { limit, unit };
        let largest = self.limits.max_file_bytes;
        if tree.largest > largest {
            return Err(FetchFault::OverLimit { limit: largest, unit: "bytes in one file" });
        }
        let files = self.files.checked_sub(tree.files);
        self.files = files.ok_or_else(over(self.limits.max_files, "files and directories"))?;
        let bytes = self.bytes.checked_sub(tree.bytes);
        self.bytes = bytes.ok_or_else(over(self.limits.max_bytes, "bytes in files"))?;
        Ok(())
    }
}

impl Tree {
    /// Parses the output of `git ls-tree -r -t -l -z`.
    fn parse(listing: &[u8]) -> Option<Self> {
        let mut tree = Self::default();
        let mut paths = HashSet::new();
        for line in listing.split(|&byte| byte == 0).filter(|line| !line.is_empty()) {
            let tab = line.iter().position(|&byte| byte == b'\t')?;
            let (head, path) = line.split_at(tab);
            let path = path.strip_prefix(b"\t")?;
            let mut words = std::str::from_utf8(head).ok()?.split_ascii_whitespace();
            let (mode, kind, id, size) =
                (words.next()?, words.next()?, words.next()?, words.next()?);
            let size = if kind == "blob" { size.parse().ok()? } else { 0 };
            tree.files += 1;
            tree.repeats |= !paths.insert(path);
            tree.bytes = tree.bytes.checked_add(size)?;
            tree.largest = tree.largest.max(size);
            if kind == "commit" {
                tree.gitlinks.push((path.to_owned(), CommitId::parse(id).ok()?));
            }
            if path == b".gitmodules" && mode.starts_with("100") {
                tree.modules_bytes = Some(size);
            }
        }
        Some(tree)
    }
}

impl CommitHeader {
    /// Parses a commit object, which git has checked already.
    pub(super) fn parse(object: &[u8]) -> Result<Self, FetchFault> {
        let parse = || {
            let header = object.split(|&byte| byte == b'\n').take_while(|line| !line.is_empty());
            let (mut tree, mut time) = (None, None);
            for line in header {
                // Names and addresses need not be UTF-8.
                let line = String::from_utf8_lossy(line);
                if let Some(id) = line.strip_prefix("tree ").filter(|_| tree.is_none()) {
                    tree = Some(CommitId::parse(id).ok()?);
                }
                if let Some(person) = line.strip_prefix("committer ").filter(|_| time.is_none()) {
                    time = Some(person.rsplit(' ').nth(1)?.parse().ok()?);
                }
            }
            Some(Self { time: time?, tree: tree? })
        };
        parse().ok_or(FetchFault::Internal("git accepted a commit without tree or time"))
    }
}

async fn print_tree(
    git: &Git<'_>,
    repository: &Repository,
    arguments: &[&str],
) -> Result<Vec<u8>, FetchFault> {
    git.output(repository, arguments, MAX_LISTING_BYTES).await.map_err(|fault| match fault {
        FetchFault::Tool(RunToolError::TooMuchOutput { .. }) => {
            FetchFault::OverLimit { limit: MAX_LISTING_BYTES as u64, unit: "bytes of file names" }
        }
        other => other,
    })
}

/// Writes the files. No hook and no filter has a part in it: it is `read-tree`, not `checkout`.
async fn write(
    git: &Git<'_>,
    repository: &Repository,
    commit: &CommitId,
) -> Result<(), FetchFault> {
    let arguments = ["read-tree", "--reset", "-u", "--no-recurse-submodules", commit.as_str()];
    git.run(repository, &arguments).await
}

/// Compares every byte and mode on the disk with the commit.
pub(super) async fn verify(
    git: &Git<'_>,
    repository: &Repository,
    commit: &CommitId,
) -> Result<(), FetchFault> {
    let differs = |fault| match fault {
        FetchFault::Git { .. } | FetchFault::Tool(RunToolError::TooMuchOutput { .. }) => {
            FetchFault::WorkTree
        }
        other => other,
    };
    // An index that knows nothing of the files makes git read all of them.
    match fs::remove_file(repository.git_dir.join("index")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    git.run(repository, &["read-tree", commit.as_str()]).await?;
    git.run(repository, &["update-index", "--really-refresh"]).await.map_err(differs)?;
    let others = ["ls-files", "-z", "--others"];
    if git.output(repository, &others, MAX_NAMES_BYTES).await.map_err(differs)?.is_empty() {
        Ok(())
    } else {
        Err(FetchFault::WorkTree)
    }
}

const MAX_COMMIT_BYTES: usize = 1 << 20;
const MAX_LISTING_BYTES: usize = 64 << 20;
const MAX_NAMES_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn counts_what_a_tree_holds() {
        let listing = format!(
            "100644 blob {ID}      12\t.gitmodules\0040000 tree {ID}       -\ta\n\0\
             120000 blob {ID}       3\ta\n/l\tx\0160000 commit {ID}       -\tm\0"
        );
        let id = CommitId::parse(ID).unwrap();
        let expected = Tree {
            bytes: 15,
            files: 4,
            gitlinks: vec![(b"m".to_vec(), id)],
            largest: 12,
            modules_bytes: Some(12),
            repeats: false,
        };
        assert_eq!(Tree::parse(listing.as_bytes()), Some(expected));
        let link = format!("120000 blob {ID} 12\t.gitmodules\0");
        assert_eq!(Tree::parse(link.as_bytes()).unwrap().modules_bytes, None);
        let twice = format!("120000 blob {ID} 1\tA\0040000 tree {ID} -\tA\0");
        assert!(Tree::parse(twice.as_bytes()).unwrap().repeats);
        for bad in ["x\0", "100644 blob\t\0", &format!("100644 blob {ID} -\ta\0")] {
            assert_eq!(Tree::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn g10_the_budget_ends_at_its_limit() {
        let limits = FetchLimits { max_bytes: 10, max_files: 2, ..FetchLimits::default() };
        let tree = |bytes, files| Tree { bytes, files, ..Tree::default() };
        let mut budget = Budget::new(&limits);
        budget.take(&tree(4, 1)).unwrap();
        assert!(budget.take(&tree(7, 1)).is_err());
        let mut budget = Budget::new(&limits);
        budget.take(&tree(10, 2)).unwrap();
        assert!(budget.take(&tree(0, 1)).is_err());
        let limits = FetchLimits { max_file_bytes: 3, ..FetchLimits::default() };
        let tree = |largest| Tree { largest, ..Tree::default() };
        Budget::new(&limits).take(&tree(3)).unwrap();
        assert!(Budget::new(&limits).take(&tree(4)).is_err());
    }

    #[test]
    fn reads_tree_and_time_of_a_commit() {
        let object = format!(
            "tree {ID}\nparent x\nauthor A <a> 5 +0000\ncommitter \u{fffd} <c> 1700000000 -0230\n\n\
             tree x\ncommitter y\n"
        );
        let header = CommitHeader::parse(object.as_bytes()).unwrap();
        assert_eq!((header.time, header.tree.as_str()), (1_700_000_000, ID));
        for bad in ["", "tree x\n", "committer A <a> 1 +0\n", &format!("tree {ID}\ncommitter x\n")]
        {
            assert!(matches!(CommitHeader::parse(bad.as_bytes()), Err(FetchFault::Internal(_))));
        }
    }
}
