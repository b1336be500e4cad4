//! Which entries an inner archive has, and in which order.
//!
//! Format: `docs/formats/manifest.md`, "Inner archive".

use std::collections::{BTreeSet, HashMap};

use sbs_proto::Digest;
use thiserror::Error;

use crate::form::Form;
use crate::header::{EntryKind, archive_name};
use crate::path::EntryPath;
use crate::unpack::{Compatibility, Head};
use crate::weakness::Weakness;

/// Judges the entries of an inner archive as they come.
#[derive(Debug)]
pub(crate) enum Layout {
    Original(Original),
    Strict(Strict),
}

impl Layout {
    pub(crate) fn new(compatibility: Compatibility, form: Form, max_entries: u64) -> Self {
        match compatibility {
            Compatibility::Original => Self::Original(Original::new(max_entries)),
            Compatibility::Strict => Self::Strict(Strict::new(form)),
        }
    }

    /// Takes the next entry.
    pub(crate) fn accept(&mut self, head: &Head) -> Result<(), LayoutError> {
        match self {
            Self::Original(layout) => layout.accept(&head.path, head.attributes.kind),
            Self::Strict(layout) => {
                layout.accept(&head.path, head.attributes.kind, head.attributes.time)
            }
        }
    }

    /// Tells whether everything that must be there was.
    pub(crate) fn finish(&self) -> Result<(), LayoutError> {
        match self {
            Self::Original(layout) => layout.finish(),
            Self::Strict(layout) => layout.finish(),
        }
    }

    /// Returns what was seen of the original's weaknesses.
    pub(crate) fn weaknesses(&self) -> BTreeSet<Weakness> {
        match self {
            Self::Original(layout) => layout.weaknesses.clone(),
            Self::Strict(_) => BTreeSet::new(),
        }
    }
}

/// The layout of this server's manifests: one order, directories before what is in them.
#[derive(Debug)]
pub(crate) struct Strict {
    /// The entries with which every manifest of this form begins.
    begin: &'static [&'static str],
    /// How many of the entries that every manifest has were seen.
    fixed: usize,
    time: Option<u64>,
    /// The last name under `git/`, with the final slash of a directory.
    last: Vec<u8>,
    /// The directories that the last name is in, itself included.
    open: Vec<Vec<u8>>,
    /// The files whose names the last name begins with.
    prefixes: Vec<Vec<u8>>,
}

impl Strict {
    pub(crate) fn new(form: Form) -> Self {
        let begin = match form {
            Form::Full => &FIXED[..],
            Form::Thin => &FIXED_THIN[..],
        };
        let (open, prefixes) = (Vec::new(), Vec::new());
        Self { begin, fixed: 0, time: None, last: Vec::new(), open, prefixes }
    }

    /// Takes the next entry.
    pub(crate) fn accept(
        &mut self,
        path: &EntryPath,
        kind: EntryKind,
        time: u64,
    ) -> Result<(), LayoutError> {
        if *self.time.get_or_insert(time) != time {
            return Err(LayoutError::Time(path.to_string()));
        }
        let name = archive_name(path.as_bytes(), kind);
        let Some(expected) = self.begin.get(self.fixed) else {
            return self.accept_source(path, name);
        };
        if name == expected.as_bytes() && kind != EntryKind::Executable {
            self.fixed += 1;
            return Ok(());
        }
        if self.begin.iter().take(self.fixed).any(|seen| name == seen.as_bytes()) {
            return Err(LayoutError::Duplicate(path.to_string()));
        }
        Err(LayoutError::Missing(expected))
    }

    /// Tells whether everything that must be there was.
    pub(crate) fn finish(&self) -> Result<(), LayoutError> {
        self.begin.get(self.fixed).map_or(Ok(()), |name| Err(LayoutError::Missing(name)))
    }

    fn accept_source(&mut self, path: &EntryPath, name: Vec<u8>) -> Result<(), LayoutError> {
        if self.begin.iter().any(|seen| name == seen.as_bytes()) || name == self.last {
            return Err(LayoutError::Duplicate(path.to_string()));
        }
        if !name.starts_with(SOURCE) {
            return Err(LayoutError::Unexpected(path.to_string()));
        }
        if name < self.last {
            return Err(LayoutError::Order(path.to_string()));
        }
        while self.open.last().is_some_and(|directory| !name.starts_with(directory)) {
            self.open.pop();
        }
        if parent(path.as_bytes()) != self.open.last().map_or(SOURCE, Vec::as_slice) {
            return Err(LayoutError::Parent(path.to_string()));
        }
        while self.prefixes.last().is_some_and(|file| !name.starts_with(file)) {
            self.prefixes.pop();
        }
        // A directory sorts behind names that sort behind a file of its name.
        if name.ends_with(b"/") {
            if self.prefixes.iter().any(|file| file == path.as_bytes()) {
                return Err(LayoutError::Duplicate(path.to_string()));
            }
            self.open.push(name.clone());
        } else {
            self.prefixes.push(name.clone());
        }
        self.last = name;
        Ok(())
    }
}

/// The layout of the original's manifests: any order, but still one meaning.
#[derive(Debug)]
pub(crate) struct Original {
    /// What is known of each name, by its digest: names may be long, and there may be many.
    nodes: HashMap<Digest, Node>,
    max_nodes: u64,
    found: BTreeSet<&'static str>,
    last: Vec<u8>,
    weaknesses: BTreeSet<Weakness>,
}

#[derive(Debug)]
struct Node {
    listed: bool,
    directory: bool,
}

impl Original {
    fn new(max_entries: u64) -> Self {
        Self {
            nodes: HashMap::new(),
            // Directories need not be entries of their own.
            max_nodes: max_entries.saturating_mul(2),
            found: BTreeSet::new(),
            last: Vec::new(),
            weaknesses: BTreeSet::from([Weakness::NoSourceProof]),
        }
    }

    fn accept(&mut self, path: &EntryPath, kind: EntryKind) -> Result<(), LayoutError> {
        let name = path.as_bytes();
        let top = name.split(|byte| *byte == b'/').next().unwrap_or(name);
        match (top, kind) {
            (b"git", EntryKind::Directory) => _ = self.found.insert("git/"),
            (b"git", _) if name != top => _ = self.found.insert("git/"),
            (b"root_ssh", EntryKind::Directory) => {}
            (b"root_ssh", _) if name != top => _ = self.weaknesses.insert(Weakness::SshMaterial),
            (b"data", EntryKind::Directory) if name == top => {}
            (b"data", EntryKind::File | EntryKind::Executable) if name != top => self.data(name),
            _ => return Err(LayoutError::Unexpected(path.to_string())),
        }
        if top == b"git" && path.leads_into_git() {
            self.weaknesses.insert(Weakness::GitDirectory);
        }
        let name = archive_name(name, kind);
        if name < self.last {
            self.weaknesses.insert(Weakness::Unsorted);
        }
        self.last = name;
        self.place(path, kind)
    }

    fn data(&mut self, name: &[u8]) {
        match REQUIRED.into_iter().find(|required| required.as_bytes() == name) {
            Some(required) => _ = self.found.insert(required),
            None => _ = self.weaknesses.insert(Weakness::UnknownData),
        }
    }

    /// Refuses a name that comes twice, or that leads through a file or a link.
    fn place(&mut self, path: &EntryPath, kind: EntryKind) -> Result<(), LayoutError> {
        let name = path.as_bytes();
        let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for ancestor in slashes.filter_map(|(at, _)| name.get(..at)) {
            let node = self.node(ancestor, Node { listed: false, directory: true })?;
            if !node.directory {
                return Err(LayoutError::Parent(path.to_string()));
            }
        }
        let directory = kind == EntryKind::Directory;
        let node = self.node(name, Node { listed: false, directory })?;
        if node.listed || node.directory != directory {
            return Err(LayoutError::Duplicate(path.to_string()));
        }
        node.listed = true;
        Ok(())
    }

    fn node(&mut self, name: &[u8], new: Node) -> Result<&mut Node, LayoutError> {
        if self.nodes.len() as u64 > self.max_nodes {
            return Err(LayoutError::TooManyNames(self.max_nodes));
        }
        Ok(self.nodes.entry(sbs_crypto::digest(name)).or_insert(new))
    }

    fn finish(&self) -> Result<(), LayoutError> {
        let missing = REQUIRED.into_iter().find(|name| !self.found.contains(name));
        missing.map_or(Ok(()), |name| Err(LayoutError::Missing(name)))
    }
}

/// Why the entries of an archive are not those of a manifest.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum LayoutError {
    /// An entry is there twice, or as a file and as a directory.
    #[error("manifest entry `{0}` appears twice")]
    Duplicate(String),

    /// An entry that must be there is not, or not in its place.
    #[error("manifest has no `{0}` in its place")]
    Missing(&'static str),

    /// An entry is behind one that sorts after it.
    #[error("manifest entry `{0}` is out of order")]
    Order(String),

    /// An entry is in a directory that has no entry before it, or below what is none.
    #[error("manifest entry `{0}` is not in a directory of the manifest")]
    Parent(String),

    /// An entry has another time than the entries before it.
    #[error("manifest entry `{0}` has another time than the others")]
    Time(String),

    /// There are too many names.
    #[error("manifest has more than {0} names")]
    TooManyNames(u64),

    /// An entry is not one of a manifest.
    #[error("manifest has an entry `{0}` that does not belong there")]
    Unexpected(String),
}

/// Returns the directory that a name is in, with its final slash.
fn parent(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    name.get(..end).unwrap_or_default()
}

pub(crate) const RECORD: &str = "data/build.json";
pub(crate) const LOG: &str = "data/build.log";
pub(crate) const COMMIT: &str = "data/commit";
pub(crate) const TREE: &str = "data/tree";
/// What the names of the source begin with.
pub(crate) const SOURCE: &[u8] = b"git/";
/// Which full manifest a thin one belongs to.
pub(crate) const FULL: &str = "data/full.json";
/// The entries with which every manifest of this server begins.
const FIXED: [&str; 6] = ["data/", RECORD, LOG, COMMIT, TREE, "git/"];
const FIXED_THIN: [&str; 7] = ["data/", RECORD, LOG, COMMIT, TREE, FULL, "git/"];
/// What a manifest of the original must have.
const REQUIRED: [&str; 3] = [RECORD, LOG, "git/"];
