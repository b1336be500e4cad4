//! The fetch step: the source, exactly as one commit has it.
//!
//! Everything that comes from the repository or its server is hostile. git runs without any
//! configuration but ours, keeps its administration outside the work tree, runs no hook, filter or
//! credential helper, and gets its network only for the transfer itself. Submodules are fetched by
//! this module, one by one in the same way, never by `git submodule`.

mod checkout;
mod command;
mod diagnosis;
mod download;
mod error;
mod ssh;
mod submodule;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sbs_proto::{Source, SourceRecord};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::checkout::{Budget, CommitHeader};
use self::command::{Git, Repository};
pub(crate) use self::download::percent_decode;
use self::download::{Remotes, Wanted};
pub(crate) use self::error::{FetchError, FetchFault};
use self::submodule::{Parent, Submodules};
use super::log::BuildLog;

/// What is fetched, and where it is put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchRequest<'a> {
    /// The repository, the reference and the key.
    pub(crate) source: &'a Source,
    /// An empty directory that belongs to the job, with mode 0700; everything is made below it.
    pub(crate) directory: &'a Path,
    /// Which servers are believed.
    pub(crate) trust: &'a GitTrust,
    /// When the fetch is given up.
    pub(crate) limits: &'a FetchLimits,
}

/// Which git servers are believed.
#[derive(Clone, Debug)]
pub(crate) struct GitTrust {
    /// The ssh host keys.
    pub(crate) known_hosts: HostKeys,
    /// The file (PEM) of the authorities that https servers are checked against; the system's
    /// where absent.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Which ssh host keys are believed; both name a file of the `known_hosts` format of sshd(8).
#[derive(Clone, Debug)]
pub(crate) enum HostKeys {
    /// The first key that a host shows is believed and added to the file; another one never is.
    FirstUse(PathBuf),
    /// Those of the file alone.
    Pinned(PathBuf),
}

/// When a fetch is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchLimits {
    /// The longest time that the server may send nothing.
    pub(crate) idle: Duration,
    /// The largest number of bytes in the files of the work tree, submodules included.
    pub(crate) max_bytes: u64,
    /// The largest number of files and directories in the work tree, submodules included.
    pub(crate) max_files: u64,
    /// The largest file that git may write: the pack that it receives, or a file of the work tree.
    pub(crate) max_file_bytes: u64,
    /// The longest time that everything may take.
    pub(crate) time: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(2),
            max_bytes: 4 << 30,
            max_files: 500_000,
            max_file_bytes: 2 << 30,
            time: Duration::from_mins(30),
        }
    }
}

/// A source that was fetched and verified.
///
/// Only [`fetch`] makes one. It is plain data that can be sent between processes of the server:
/// whoever decodes one vouches for the peer that it came from.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Fetched {
    /// The directory that holds the files of the commit and nothing else.
    pub(crate) work_tree: PathBuf,
    /// What was fetched, for the build record.
    pub(crate) record: SourceRecord,
    /// The commit object: its git id is the record's `commit`.
    pub(crate) commit_object: Vec<u8>,
    /// Every file and directory of the commit with its git id, as printed by
    /// `git ls-tree -r -t -z --full-tree`.
    pub(crate) tree_listing: Vec<u8>,
    #[serde(skip)]
    #[expect(dead_code, reason = "keeps others from making one field by field")]
    made_by_fetch: (),
}

/// Fetches the source: resolves the reference once, checks that commit out and verifies the result.
///
/// However it ends, no process that it started and no copy of the key is left; the other files
/// below the request's directory are the caller's to remove.
pub(crate) async fn fetch(
    request: &FetchRequest<'_>,
    log: &BuildLog,
    cancel: &CancellationToken,
) -> Result<Fetched, FetchError> {
    log.info(&format!("cloning a github repo; github_host={}", request.source.url.host()));
    run(request, log, cancel)
        .await
        .map_err(|fault| FetchError { url: request.source.url.as_str().to_owned(), fault })
}

async fn run(
    request: &FetchRequest<'_>,
    log: &BuildLog,
    cancel: &CancellationToken,
) -> Result<Fetched, FetchFault> {
    let source = request.source;
    let git = Git::new(request, log, cancel)?;
    let remotes = Remotes::open(&git, request).await?;
    let repository = Repository {
        git_dir: request.directory.join("git"),
        work_tree: request.directory.join("tree"),
    };
    command::make_directory(&repository.work_tree)?;
    let wanted = Wanted::new(source.reference.as_ref());
    let downloaded = remotes.download(&git, &repository, &source.url, &wanted).await?;
    let commit = downloaded.commit;
    let mut budget = Budget::new(request.limits);
    let tree = checkout::check_out(&git, &repository, &commit, &mut budget).await?;
    let commit_object = checkout::commit_object(&git, &repository, &commit).await?;
    let header = CommitHeader::parse(&commit_object)?;
    let tree_listing = checkout::listing(&git, &repository, &commit).await?;
    let work_tree = repository.work_tree.clone();
    let submodules = if source.recurse_submodules {
        let top = Parent::top(repository, commit.clone(), tree, &source.url);
        Submodules::new(&git, &remotes, budget, request.directory).fetch_all(top).await?
    } else {
        BTreeMap::new()
    };
    let record = SourceRecord {
        commit,
        commit_time: header.time,
        host_key: downloaded.host_key,
        reference: source.reference.as_ref().map(ToString::to_string),
        submodules,
        tree: header.tree,
        url: source.url.as_str().to_owned(),
    };
    Ok(Fetched { work_tree, record, commit_object, tree_listing, made_by_fetch: () })
}
