//! The proof that the files of a manifest are those of a commit.
//!
//! Format: `docs/formats/manifest.md`, "Source proof".

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io::{self, Read};

use sbs_crypto::git::{ObjectFormat, ObjectHasher, ObjectKind, object_id};
use sbs_proto::CommitId;
use thiserror::Error;

use crate::header::{EntryKind, archive_name};
use crate::path::shown;

/// The facts that stand in a commit object.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct CommitFacts {
    pub(crate) tree: CommitId,
    /// The committer's time, in seconds since 1970.
    pub(crate) time: i64,
}

impl CommitFacts {
    /// Parses a raw commit object: `tree <id>` first, then among others
    /// `committer <name> <mail> <seconds> <zone>`, up to the first empty line.
    pub(crate) fn parse(commit: &[u8]) -> Option<Self> {
        let mut lines = commit.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
        let tree = std::str::from_utf8(lines.next()?.strip_prefix(b"tree ")?).ok()?;
        let committer = lines.find_map(|line| line.strip_prefix(b"committer "))?;
        let mut words = committer.rsplit(|byte| *byte == b' ');
        let _zone = words.next()?;
        let time = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        Some(Self { tree: CommitId::parse(tree).ok()?, time })
    }
}

/// Which directories a listing goes into.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent<'a> {
    /// All of them.
    Whole,
    /// Those on the way to this file; the others stand there by their id alone.
    Towards(&'a [u8]),
}

impl Extent<'_> {
    /// Tells whether what is directly in a directory (empty for the top) is listed.
    pub(crate) fn opens(self, directory: &[u8]) -> bool {
        match self {
            Self::Whole => true,
            Self::Towards(file) => {
                let rest = file.strip_prefix(directory);
                directory.is_empty() || rest.is_some_and(|rest| rest.starts_with(b"/"))
            }
        }
    }
}

/// Computes the id of the tree that a listing describes, from the ids of the files alone.
///
/// Every listed directory's own id is computed too, and must be the one in the listing.
pub(crate) fn root_tree(
    listing: &[u8],
    extent: Extent<'_>,
    format: ObjectFormat,
) -> Result<CommitId, SourceError> {
    let mut stack = Vec::new();
    let mut open = OpenTree { prefix: Vec::new(), listed: None, object: Vec::new() };
    for item in items(listing) {
        let (item, _) = item?;
        while !item.path.starts_with(&open.prefix) {
            let parent = stack.pop().ok_or(SourceError::Listing)?;
            open.close(format)?;
            open = parent;
        }
        let name = item.path.strip_prefix(open.prefix.as_slice()).unwrap_or_default();
        if name.is_empty() || name.contains(&b'/') {
            return Err(match extent {
                Extent::Whole => SourceError::Listing,
                Extent::Towards(_) => SourceError::Beyond(shown(item.path)),
            });
        }
        open.add(&item, name)?;
        if item.kind == ItemKind::Tree && extent.opens(item.path) {
            let prefix = [item.path, b"/"].concat();
            let listed = Some(item.id.clone());
            stack.push(std::mem::replace(
                &mut open,
                OpenTree { prefix, listed, object: Vec::new() },
            ));
        }
    }
    while let Some(parent) = stack.pop() {
        open.close(format)?;
        open = parent;
    }
    Ok(object_id(ObjectKind::Tree, &open.object, format))
}

/// A directory of the listing while its entries come.
struct OpenTree {
    prefix: Vec<u8>,
    /// The id in the listing; none for the top, which has none there.
    listed: Option<CommitId>,
    object: Vec<u8>,
}

impl OpenTree {
    /// Adds an entry as it stands in a tree object: mode without leading zeros, name, NUL, raw id.
    fn add(&mut self, item: &Item<'_>, name: &[u8]) -> Result<(), SourceError> {
        let id = hex::decode(item.id.as_str()).map_err(|_| SourceError::Listing)?;
        self.object.extend_from_slice(item.mode.trim_start_matches('0').as_bytes());
        self.object.push(b' ');
        self.object.extend_from_slice(name);
        self.object.push(0);
        self.object.extend_from_slice(&id);
        Ok(())
    }

    fn close(&self, format: ObjectFormat) -> Result<(), SourceError> {
        let id = object_id(ObjectKind::Tree, &self.object, format);
        if self.listed == Some(id) {
            return Ok(());
        }
        Err(SourceError::Directory(shown(&self.prefix)))
    }
}

/// Compares the files of a manifest, as they come, with the listing of the commit's tree.
#[derive(Debug)]
pub(crate) struct SourceProof {
    listing: Vec<u8>,
    at: usize,
    format: ObjectFormat,
    submodules: BTreeSet<Vec<u8>>,
}

impl SourceProof {
    pub(crate) fn new(listing: Vec<u8>, format: ObjectFormat) -> Self {
        Self { listing, at: 0, format, submodules: BTreeSet::new() }
    }

    /// Finds what the next file or directory must be; `path` is that below the top of the work
    /// tree. Returns the id that its content must have, if the listing has one for it.
    ///
    /// Both the archive and the listing are in the order of git's trees, so one walk over both is
    /// enough; where they are not, something is missing on one side.
    pub(crate) fn expect(
        &mut self,
        path: &[u8],
        kind: EntryKind,
    ) -> Result<Option<CommitId>, SourceError> {
        let name = archive_name(path, kind);
        self.advance(Some(&name))?;
        let listed = self.peek()?.filter(|(item, _)| item.order(&name) == Ordering::Equal);
        let Some((item, length)) = listed else {
            return self.in_submodule(path).map(|()| None);
        };
        let fits = match item.kind {
            ItemKind::Executable => kind == EntryKind::Executable,
            ItemKind::File | ItemKind::Link => kind == EntryKind::File,
            ItemKind::Submodule => false,
            ItemKind::Tree => kind == EntryKind::Directory,
        };
        if !fits {
            return Err(SourceError::Mode(shown(path)));
        }
        let id = if item.kind == ItemKind::Tree { None } else { Some(item.id.clone()) };
        self.at += length;
        Ok(id)
    }

    pub(crate) fn format(&self) -> ObjectFormat {
        self.format
    }

    /// Ends the comparison; returns the submodules, whose files no listing of this commit covers.
    pub(crate) fn finish(mut self) -> Result<BTreeSet<Vec<u8>>, SourceError> {
        self.advance(None)?;
        Ok(self.submodules)
    }

    /// Goes over the items before `name` (over all, without one): no file may be among them.
    fn advance(&mut self, name: Option<&[u8]>) -> Result<(), SourceError> {
        while let Some((item, length)) = self.peek()? {
            if name.is_some_and(|name| item.order(name) != Ordering::Less) {
                return Ok(());
            }
            match item.kind {
                // An empty tree is not checked out; the files of another one will be missing.
                ItemKind::Tree => {}
                ItemKind::Submodule => {
                    let path = item.path.to_vec();
                    self.submodules.insert(path);
                }
                ItemKind::Executable | ItemKind::File | ItemKind::Link => {
                    return Err(SourceError::Missing(shown(item.path)));
                }
            }
            self.at += length;
        }
        Ok(())
    }

    /// Tells that what the listing has not is the work tree of a submodule.
    fn in_submodule(&self, path: &[u8]) -> Result<(), SourceError> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let found = ends
            .chain([path.len()])
            .filter_map(|end| path.get(..end))
            .any(|ancestor| self.submodules.contains(ancestor));
        if found { Ok(()) } else { Err(SourceError::Unlisted(shown(path))) }
    }

    /// Returns the next item of the listing, and how many bytes it takes there.
    fn peek(&self) -> Result<Option<(Item<'_>, usize)>, SourceError> {
        let rest = self.listing.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let (item, after) = Item::parse(rest).ok_or(SourceError::Listing)?;
        Ok(Some((item, rest.len() - after.len())))
    }
}

/// Computes the id of a file's content.
pub(crate) fn blob_id(
    size: u64,
    mut content: impl Read,
    format: ObjectFormat,
) -> io::Result<CommitId> {
    let mut hasher = ObjectHasher::new(ObjectKind::Blob, size, format);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        let (bytes, _) = buffer.split_at(count);
        hasher.update(bytes);
    }
}

/// Why the source is not that of the commit.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SourceError {
    /// A thin manifest has more than the Dockerfile, the directories on the way to it and what is
    /// listed directly in them.
    #[error("`{0}` is neither the Dockerfile nor on the way to it")]
    Beyond(String),

    /// A file has another content than in the commit.
    #[error("`{0}` has another content than in the commit")]
    Content(String),

    /// A directory of the listing has not the id that its entries make.
    #[error("tree listing gives directory `{0}` an id that is not its own")]
    Directory(String),

    /// The listing is not one that git prints.
    #[error("`data/tree` is not what `git ls-tree -r -t -z --full-tree` prints")]
    Listing,

    /// A file of the commit is not in the manifest.
    #[error("`{0}` of the commit is not in the manifest")]
    Missing(String),

    /// A file is of another kind than in the commit.
    #[error("`{0}` is of another kind than in the commit")]
    Mode(String),

    /// A file of the manifest is not in the commit.
    #[error("`{0}` is not in the commit")]
    Unlisted(String),
}

/// Returns the items of a listing, each with its bytes; an error ends them.
pub(crate) fn items(
    mut listing: &[u8],
) -> impl Iterator<Item = Result<(Item<'_>, &[u8]), SourceError>> {
    std::iter::from_fn(move || {
        if listing.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut listing);
        Some(Item::parse(whole).ok_or(SourceError::Listing).map(|(item, rest)| {
            listing = rest;
            (item, whole.get(..whole.len() - rest.len()).unwrap_or_default())
        }))
    })
}

/// Returns what kind of entry a regular file is in a manifest; none for what is no regular file.
pub(crate) fn blob_kind(kind: ItemKind) -> Option<EntryKind> {
    match kind {
        ItemKind::Executable => Some(EntryKind::Executable),
        ItemKind::File => Some(EntryKind::File),
        ItemKind::Link | ItemKind::Submodule | ItemKind::Tree => None,
    }
}

/// One line of a listing: `<mode> <type> <id>`, a tab, the path, a NUL.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    pub(crate) kind: ItemKind,
    mode: &'a str,
    pub(crate) id: CommitId,
    pub(crate) path: &'a [u8],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ItemKind {
    Executable,
    File,
    Link,
    Submodule,
    Tree,
}

impl<'a> Item<'a> {
    /// Parses the first item; returns it with what follows.
    fn parse(listing: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let end = listing.iter().position(|byte| *byte == 0)?;
        let (line, rest) = (listing.get(..end)?, listing.get(end + 1..)?);
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let facts = std::str::from_utf8(line.get(..tab)?).ok()?;
        let mut words = facts.split(' ');
        let (mode, kind, id) = (words.next()?, words.next()?, words.next()?);
        let kind = match (mode, kind) {
            ("100755", "blob") => ItemKind::Executable,
            // Old versions of git made the second of these; both are checked out alike.
            ("100644" | "100664", "blob") => ItemKind::File,
            ("120000", "blob") => ItemKind::Link,
            ("160000", "commit") => ItemKind::Submodule,
            ("040000", "tree") => ItemKind::Tree,
            _ => return None,
        };
        let id = CommitId::parse(id).ok()?;
        let path = line.get(tab + 1..)?;
        let whole = words.next().is_none() && !path.is_empty();
        whole.then_some((Self { kind, mode, id, path }, rest))
    }

    /// Compares with the name of an archive's entry, which for a directory ends in a slash.
    fn order(&self, name: &[u8]) -> Ordering {
        let slash: &[u8] = if self.kind == ItemKind::Tree { b"/" } else { b"" };
        self.path.iter().chain(slash).cmp(name)
    }
}

const COPY_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

    #[test]
    fn reads_tree_and_time_of_a_commit() {
        let commit = format!(
            "tree {TREE}\nparent {TREE}\nauthor committer <c> 1 +0000\n\
             committer A > 7 U <a@b> 1700000000 -0130\ngpgsig x\n committer y 2 +0000\n\nmessage\n"
        );
        let facts = CommitFacts::parse(commit.as_bytes()).unwrap();
        assert_eq!((facts.tree.as_str(), facts.time), (TREE, 1_700_000_000));
        let before_1970 = format!("tree {TREE}\ncommitter A <a> -5 +0000\n\n");
        assert_eq!(CommitFacts::parse(before_1970.as_bytes()).unwrap().time, -5);
    }

    #[test]
    fn what_is_no_commit_has_no_facts() {
        for commit in [
            String::new(),
            "\n".to_owned(),
            format!("tree {TREE}\n"),
            format!("tree {TREE}\n\ncommitter A <a> 1 +0000\n"),
            format!("\ntree {TREE}\ncommitter A <a> 1 +0000\n"),
            format!("tree {}\ncommitter A <a> 1 +0000\n", "x".repeat(40)),
            format!("tree {TREE}\ncommitter A <a> now +0000\n"),
            format!("committer A <a> 1 +0000\ntree {TREE}\n"),
        ] {
            assert_eq!(CommitFacts::parse(commit.as_bytes()), None, "{commit:?}");
        }
    }

    #[test]
    fn an_empty_listing_is_the_empty_tree() {
        assert_eq!(root_tree(b"", Extent::Whole, ObjectFormat::Sha1).unwrap().as_str(), TREE);
    }

    #[test]
    fn an_empty_tree_needs_no_directory() {
        let listing = format!("040000 tree {TREE}\tempty\0").into_bytes();
        let proof = SourceProof::new(listing, ObjectFormat::Sha1);
        assert!(proof.finish().unwrap().is_empty());
    }
}
