use std::io;

use thiserror::Error;

use super::diagnosis::PeerFault;
use super::ssh::KeyError;
use super::submodule::SubmoduleError;
use crate::build::failure::{Failure, StepError};
use crate::tool::RunToolError;

/// The source could not be fetched.
#[derive(Debug, Error)]
#[error("cannot fetch `{url}`")]
pub(crate) struct FetchError {
    /// The repository, without credentials.
    pub(crate) url: String,
    /// Why.
    #[source]
    pub(crate) fault: FetchFault,
}

impl StepError for FetchError {
    fn failure(&self) -> Failure {
        Failure {
            code: self.fault.code(),
            command: format!("git clone {}", self.url),
            return_code: self.fault.return_code(),
        }
    }
}

/// Why a source could not be fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum FetchFault {
    /// Somebody asked for the end of the build.
    #[error("cancelled")]
    Cancelled,

    /// A file or directory of the job could not be made or read.
    #[error("cannot write below the job's directory")]
    Directory(#[from] io::Error),

    /// git failed in a way that has no variant of its own.
    #[error("`git` ended with return code {return_code}; its own words stand in the log")]
    Git { return_code: i32 },

    /// The server sent nothing for too long.
    #[error("the server sent nothing for {seconds} seconds")]
    Idle { seconds: u64 },

    /// A fault of ours.
    #[error("internal fault: {0}")]
    Internal(&'static str),

    /// The private key cannot be used.
    #[error("the key of GITHUB_KEY_FILE cannot be used")]
    Key(#[from] KeyError),

    /// The repository's HEAD names no branch that exists.
    #[error("the repository has no default branch; name one in GITHUB_BRANCH")]
    NoDefaultBranch,

    /// The reference is neither branch nor tag nor a commit of one.
    #[error("the repository has no branch, tag or commit `{reference}`")]
    NoSuchReference { reference: String },

    /// The repository is larger than the server takes.
    #[error("the repository is over this server's limit of {limit} {unit}")]
    OverLimit { limit: u64, unit: &'static str },

    /// The git server refused, or is not what it should be.
    #[error("git server `{host}`")]
    Peer { host: String, source: PeerFault },

    /// A submodule could not be fetched; `path` is where it is, or `.gitmodules`.
    #[error("submodule `{path}`")]
    Submodule { path: String, source: SubmoduleError },

    /// Everything together took too long.
    #[error("the fetch took more than {seconds} seconds and was ended")]
    TimeLimit { seconds: u64 },

    /// A tool could not be run.
    #[error("a tool could not be run to its end")]
    Tool(#[source] RunToolError),

    /// git's check of the received objects found a malformed or hostile one.
    #[error(
        "git refused an object of the repository as malformed or hostile; `git fsck --strict` \
         names it"
    )]
    Unsound,

    /// The files on the disk are not those of the commit.
    #[error("the files that were checked out are not those of the commit")]
    WorkTree,
}

impl FetchFault {
    /// Returns the stable word of the failure.
    fn code(&self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Directory(_) | Self::Internal(_) | Self::Tool(_) => "internal",
            Self::Git { .. } => "git_failed",
            Self::Idle { .. } | Self::TimeLimit { .. } => "git_timeout",
            Self::Key(_) => "git_key",
            Self::NoDefaultBranch | Self::NoSuchReference { .. } => "git_reference",
            Self::OverLimit { .. } => "quota",
            Self::Peer { source, .. } => source.code(),
            Self::Submodule { source: SubmoduleError::Fetch(fault), .. } => fault.code(),
            Self::Submodule { .. } => "git_submodule",
            Self::Unsound | Self::WorkTree => "git_unsound",
        }
    }

    fn return_code(&self) -> i32 {
        match self {
            Self::Cancelled => 137,
            Self::Directory(_) | Self::Internal(_) => 1,
            Self::Git { return_code } => *return_code,
            Self::Idle { .. } | Self::TimeLimit { .. } => 124,
            Self::Submodule { source: SubmoduleError::Fetch(fault), .. } => fault.return_code(),
            Self::Tool(error) => error.return_code(),
            Self::Key(_)
            | Self::NoDefaultBranch
            | Self::NoSuchReference { .. }
            | Self::OverLimit { .. }
            | Self::Peer { .. }
            | Self::Submodule { .. }
            | Self::Unsound
            | Self::WorkTree => GIT_FATAL,
        }
    }
}

impl From<RunToolError> for FetchFault {
    fn from(error: RunToolError) -> Self {
        match error {
            RunToolError::Cancelled => Self::Cancelled,
            RunToolError::Failed { return_code, .. } => Self::Git { return_code },
            RunToolError::Idle { seconds, .. } => Self::Idle { seconds },
            other => Self::Tool(other),
        }
    }
}

/// Returns a text of the repository at a length that a message can hold.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// git's return code for what it calls fatal.
const GIT_FATAL: i32 = 128;
const MAX_SHOWN_CHARS: usize = 120;
