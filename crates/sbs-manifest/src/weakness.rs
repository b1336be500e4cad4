use std::fmt;

/// What a manifest does not prove, although its signature is good.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Weakness {
    /// The source may hold a `.git` directory, whose files are not part of any commit.
    GitDirectory,
    /// The source has links, whose targets were not looked at.
    Links,
    /// There is no commit object or tree listing: nothing ties the source to the commit.
    NoSourceProof,
    /// The key has fewer than 3,072 bits.
    ShortKey,
    /// It holds ssh material (`root_ssh/`).
    SshMaterial,
    /// `data/` has entries that this program does not know.
    UnknownData,
    /// Its entries are in no fixed order: the archive cannot be made again from the same source.
    Unsorted,
}

impl Weakness {
    /// Returns the weakness as a word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitDirectory => "git-directory",
            Self::Links => "links",
            Self::NoSourceProof => "no-source-proof",
            Self::ShortKey => "short-key",
            Self::SshMaterial => "ssh-material",
            Self::UnknownData => "unknown-data",
            Self::Unsorted => "unsorted",
        }
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GitDirectory => "the source has `.git` files, which belong to no commit",
            Self::Links => "the source has links, which were not followed",
            Self::NoSourceProof => "nothing ties the source to its commit",
            Self::ShortKey => "the manifest key has fewer than 3,072 bits",
            Self::SshMaterial => "the manifest has ssh material of the build server",
            Self::UnknownData => "the manifest has data that is not known here",
            Self::Unsorted => "the entries are in no fixed order",
        })
    }
}
