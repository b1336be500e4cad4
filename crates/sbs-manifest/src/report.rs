use std::fmt;
use std::io::{Read, Seek};

use sbs_proto::{BuildRecord, Digest, ManifestName};
use thiserror::Error;

use crate::form::Form;
use crate::manifest::{Manifest, ReadEntryError};
use crate::source::SourceError;
use crate::thin::FullManifest;
use crate::unpack::Compatibility;
use crate::weakness::Weakness;

/// What a manifest proves, and what it does not.
///
/// For people it is text, [`Report::to_text`]; for machines an object of serde's,
/// [`Report::view`].
#[derive(Debug)]
pub struct Report {
    pub(crate) subject: Subject,
    checks: Vec<Check>,
    weaknesses: Vec<Weakness>,
    unproven: Vec<String>,
}

impl Report {
    pub(crate) fn new(subject: Subject, weaknesses: Vec<Weakness>, unproven: Vec<String>) -> Self {
        Self { subject, checks: Vec::new(), weaknesses, unproven }
    }

    /// Adds a check that passed with what was compared, or failed.
    pub(crate) fn add(&mut self, name: CheckName, result: Result<String, CheckError>) {
        let (compared, outcome) = match result {
            Ok(compared) => (compared, Outcome::Passed),
            Err(error) => (String::new(), Outcome::Failed(error)),
        };
        self.checks.push(Check { name, outcome, compared });
    }

    pub(crate) fn not_made(&mut self, names: &[CheckName], why: NotMade) {
        for name in names {
            let outcome = Outcome::NotMade(why);
            self.checks.push(Check { name: *name, outcome, compared: String::new() });
        }
    }

    /// Holds a thin manifest against the full one that it should belong to, in one more check of
    /// this report, which is that of the thin one.
    pub fn hold_against<T: Read + Seek, F: Read + Seek>(
        &mut self,
        thin: &mut Manifest<T>,
        full: &Manifest<F>,
    ) {
        let result = match thin.matches(full) {
            Ok(true) => Ok(format!("{} in both", full.digest())),
            Ok(false) => Err(CheckError::Match),
            Err(error) => Err(CheckError::Read(error)),
        };
        self.add(CheckName::Match, result);
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

    /// Tells whether the manifest holds: every check passed that a manifest of its kind has
    /// anything for. A manifest of the original has nothing for most; [`Report::weaknesses`] says
    /// so.
    pub fn verified(&self) -> bool {
        self.checks.iter().all(|check| {
            matches!(check.outcome, Outcome::Passed | Outcome::NotMade(NotMade::NothingFor))
        })
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
    /// What was compared, for people; escaped. Empty where it did not pass.
    pub compared: String,
}

/// What a report is of.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: ManifestName,
    pub(crate) form: Form,
    pub(crate) compatibility: Compatibility,
    /// The digest of the inner archive.
    pub(crate) digest: Digest,
    pub(crate) record: Option<Box<BuildRecord>>,
    pub(crate) full: Option<FullManifest>,
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
    /// The Dockerfile of a thin manifest is that of the tree listing, and is the only file.
    Dockerfile,
    /// A thin manifest says which full one it belongs to.
    Full,
    /// A thin and a full manifest belong together. Made only where both are given.
    Match,
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
            Self::Dockerfile => "dockerfile",
            Self::Full => "full",
            Self::Match => "match",
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
    /// It was not made, which is no success.
    NotMade(NotMade),
}

/// Why a check was not made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotMade {
    /// A check that it builds on did not pass.
    After(CheckName),
    /// The manifests of the original have nothing for it.
    NothingFor,
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

    /// What says which full manifest a thin one belongs to does not parse.
    #[error("`data/full.json` does not parse")]
    Full(#[source] serde_json::Error),

    /// A thin and a full manifest do not belong together.
    #[error("thin manifest belongs to a full one of another name, digest or size")]
    Match,

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
