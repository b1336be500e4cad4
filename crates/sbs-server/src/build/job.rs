//! What a build takes and what comes of it: the seam between the core and the pipeline.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use sbs_proto::v2::BuildId;
use sbs_proto::{BuildName, BuildStatus, Definition, ParseDefinitionError, StatusText};
use sbs_state::DefinitionKeys;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::core::builds::BuildFiles;

/// What runs builds.
pub(crate) trait Builder: Debug + Send + Sync {
    /// Refuses a definition that the settings of this server do not allow.
    fn check(&self, definition: &Definition) -> Result<(), ParseDefinitionError>;

    /// Returns where the OpenPGP signatures of built images are served, if not by their registry.
    fn lookaside(&self) -> Option<&str>;

    /// Runs a build to its end, on the thread of the caller; `report` is told of every step that is
    /// done. When it returns, no process of the build is left.
    fn build(&self, job: &Job, report: &(dyn Fn(StatusText) + Sync)) -> Result<Recorded, Stopped>;
}

/// One build: plain data, a snapshot of its definition, and the token that ends it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) cancel: CancellationToken,
    pub(crate) definition: Definition,
    pub(crate) files: BuildFiles,
    pub(crate) id: BuildId,
    pub(crate) keys: Arc<DefinitionKeys>,
    /// The file with what notaries have said before.
    pub(crate) notary_roots: PathBuf,
    pub(crate) started: OffsetDateTime,
    /// Where the build works; not there yet, removed afterwards.
    pub(crate) work: PathBuf,
}

/// A build that went to its end: everything is published and kept.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) build_name: BuildName,
    /// `registry/repository@sha256:…`.
    pub(crate) image: String,
    pub(crate) status: BuildStatus,
}

/// Why a build did not go to its end.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) code: &'static str,
    pub(crate) command: String,
    pub(crate) return_code: i32,
}

impl Stopped {
    /// The pipeline panicked: a fault of ours.
    pub(crate) fn panicked() -> Self {
        let command = "a fault of the server ended the build; its log has the reason".to_owned();
        Self { code: "internal", command, return_code: 70 }
    }

    /// The end of the build could not be written down.
    pub(crate) fn not_kept() -> Self {
        let command = "the build ended, but the server cannot write to its data directory; make \
            room there and build again";
        Self { code: "storage", command: command.to_owned(), return_code: 1 }
    }

    /// The server died while the build ran; `after` is the last step that was done.
    pub(crate) fn interrupted(after: &str) -> Self {
        let command = format!("the server stopped during the build, after `{after}`; build again");
        Self { code: "interrupted", command, return_code: 137 }
    }
}
