use std::fmt;

use thiserror::Error;

use crate::manifest::ReadEntryError;
use crate::source::SourceError;
use crate::weakness::Weakness;

/// What a manifest proves, and what it does not.
#[derive(Debug)]
pub struct Report {
    checks: Vec<Check>,
    weaknesses: Vec<Weakness>,
    unproven: Vec<String>,
}

impl Report {
    pub(crate) fn new(weaknesses: Vec<Weakness>, unproven: Vec<String>) -> Self {
        Self { checks: Vec::new(), weaknesses, unproven }
    }

    pub(crate) fn add(&mut self, name: CheckName, outcome: Outcome) {
        self.checks.push(Check { name, outcome });
    }

    pub(crate) fn not_made(&mut self, names: &[CheckName]) {
        for name in names {
            self.add(*name, Outcome::NotMade);
        }
    }

    /// Returns every check, in the order in which they build on each other.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Returns what the manifest does not prove although no check failed.
    pub fn weaknesses(&self) -> &[Weakness] {
        &self.weaknesses
    }

    /// Returns the paths (escaped) of the submodules: their files are signed, but the commit
    /// covers only which commit of theirs was meant.
    pub fn unproven(&self) -> &[String] {
        &self.unproven
    }

    /// Tells whether every check was made and passed.
    pub fn all_passed(&self) -> bool {
        self.checks.iter().all(|check| matches!(check.outcome, Outcome::Passed))
    }

    /// Tells whether a check failed. A check that could not be made did not fail.
    pub fn any_failed(&self) -> bool {
        self.checks.iter().any(|check| matches!(check.outcome, Outcome::Failed(_)))
    }
}

/// One check and what came of it.
#[derive(Debug)]
pub struct Check {
    /// What was checked.
    pub name: CheckName,
    /// What came of it.
    pub outcome: Outcome,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CheckName {
    /// The outer archive has its two members and nothing else.
    Envelope,
    /// The key that was given signed the inner archive.
    Signature,
    /// The inner archive has the entries of a manifest, in order, and nothing else.
    Layout,
    /// The build record parses and has a schema that is known here.
    Record,
    /// The manifest has the name of the build that the record is of.
    BuildName,
    /// The image's tag in the record is that of the commit.
    ImageTag,
    /// The record names the key that was given.
    ManifestKey,
    /// The commit object has the recorded id.
    Commit,
    /// The commit object has the recorded time, and so have the entries.
    CommitTime,
    /// The commit object and the tree listing have the recorded tree.
    Tree,
    /// The files are those of the tree listing, no more and no fewer.
    Source,
}

impl CheckName {
    /// Returns the name as a word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Signature => "signature",
            Self::Layout => "layout",
            Self::Record => "record",
            Self::BuildName => "build-name",
            Self::ImageTag => "image-tag",
            Self::ManifestKey => "manifest-key",
            Self::Commit => "commit",
            Self::CommitTime => "commit-time",
            Self::Tree => "tree",
            Self::Source => "source",
        }
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came of a check.
#[derive(Debug)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not hold.
    Failed(CheckError),
    /// What it needs is not there, or a check that it builds on failed.
    NotMade,
}

/// Why a check failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckError {
    /// Two things that must agree do not.
    #[error("{what} is `{got}`, expected `{expected}`")]
    Differs {
        /// What does not agree.
        what: &'static str,
        /// What must be there.
        expected: String,
        /// What is there; escaped and cut.
        got: String,
    },

    /// The commit object does not parse.
    #[error("`data/commit` is not a commit object")]
    Commit,

    /// The key in the build record is not the one that was given.
    #[error("build record names another manifest key than the one that was given")]
    Key,

    /// The manifest cannot be read.
    #[error("manifest cannot be read to its end")]
    Read(#[source] ReadEntryError),

    /// The build record does not parse.
    #[error("`data/build.json` does not parse")]
    Record(#[source] serde_json::Error),

    /// The source is not that of the commit.
    #[error("source is not that of the commit")]
    Source(#[source] SourceError),
}
