use std::io;

use thiserror::Error;

use super::layout::CheckLayoutError;
use crate::build::dockerfile::LoadFileError;
use crate::build::failure::{Failure, StepError};
use crate::tool::RunToolError;

/// Why a base image was not imported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ImportBaseError {
    /// The engine did not take it.
    #[error("cannot import base image `{name}`")]
    Engine { name: String, source: RunToolError },

    /// A directory or file could not be made.
    #[error("cannot prepare the import of a base image")]
    Prepare { source: io::Error },
}

impl StepError for ImportBaseError {
    fn failure(&self) -> Failure {
        let (code, return_code) = match self {
            Self::Engine { source: RunToolError::Cancelled, .. } => ("cancelled", 137),
            Self::Engine { source, .. } => ("base_import", source.return_code()),
            Self::Prepare { .. } => ("internal", 1),
        };
        Failure { code, command: "buildah pull".to_owned(), return_code }
    }
}

/// An image was not built.
#[derive(Debug, Error)]
#[error("`{command}` did not build an image")]
pub(crate) struct BuildError {
    command: String,
    #[source]
    fault: BuildFault,
}

impl BuildError {
    /// Tells what did not build an image, without a path of this machine, and why.
    pub(super) fn new(command: String, fault: BuildFault) -> Self {
        Self { command, fault }
    }
}

impl StepError for BuildError {
    fn failure(&self) -> Failure {
        let (code, return_code) = match &self.fault {
            BuildFault::Context { .. } => ("bad_context", 125),
            BuildFault::Engine { source } => match source {
                RunToolError::Cancelled => ("cancelled", source.return_code()),
                RunToolError::Idle { .. } | RunToolError::TimeLimit { .. } => {
                    ("time_limit", source.return_code())
                }
                _ => ("internal", source.return_code()),
            },
            BuildFault::Failed { return_code } => ("build_failed", *return_code),
            BuildFault::Internal(_) | BuildFault::Prepare { .. } => ("internal", 1),
            BuildFault::Layout { .. } => ("bad_image", 1),
            BuildFault::Mounts | BuildFault::RemoteAdd { .. } => ("bad_dockerfile", 125),
        };
        Failure { code, command: self.command.clone(), return_code }
    }
}

/// Why an image was not built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum BuildFault {
    /// The context or its ignore file cannot be used.
    #[error("the build path cannot be used")]
    Context { source: LoadFileError },

    /// The engine did not run to its end.
    #[error("the engine did not run to its end")]
    Engine { source: RunToolError },

    /// A step of the Dockerfile failed; the lines before say why.
    #[error("the engine ended with return code {return_code}; the lines above say why")]
    Failed { return_code: i32 },

    /// A fault of ours.
    #[error("internal fault: {0}")]
    Internal(&'static str),

    /// What the engine wrote is not an image.
    #[error("the engine's output is refused")]
    Layout { source: CheckLayoutError },

    /// A step mounts something, which is safe in containers alone.
    #[error("`RUN --mount` needs a server that can run containers; use COPY")]
    Mounts,

    /// A directory or file could not be made or removed.
    #[error("cannot prepare the build's directory")]
    Prepare { source: io::Error },

    /// `ADD` of a URL where builds have no network.
    #[error("`ADD {url}`: builds on this server have no network; put the file into the repository")]
    RemoteAdd { url: String },
}

impl BuildFault {
    pub(super) fn of_tool(source: RunToolError) -> Self {
        match source {
            RunToolError::Failed { return_code, .. } => Self::Failed { return_code },
            source => Self::Engine { source },
        }
    }
}
