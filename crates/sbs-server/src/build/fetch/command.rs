use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::diagnosis::{Ear, Verdict};
use super::{FetchFault, FetchLimits, FetchRequest};
use crate::build::log::BuildLog;
use crate::tool::{Network, RunToolError, Tool};

/// Runs git: the same environment, configuration and limits for every command of one fetch.
#[derive(Debug)]
pub(super) struct Git<'a> {
    cancel: &'a CancellationToken,
    deadline: Instant,
    home: PathBuf,
    limits: &'a FetchLimits,
    log: &'a BuildLog,
}

/// A repository whose administration is outside its work tree, so that no `.git` is ever part of
/// what is built and nothing in the work tree can be administration.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    pub(super) git_dir: PathBuf,
    pub(super) work_tree: PathBuf,
}

/// The hash function that a repository names its objects by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ObjectFormat {
    Sha1,
    Sha256,
}

/// How much of the history is transferred.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum History {
    Full,
    /// The commit alone.
    Shallow,
}

/// One transfer from a server.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    /// What the transport adds to the environment; may hold a secret.
    pub(super) environment: Vec<(&'static str, String)>,
    /// What the transport adds to the configuration; shows in the process list.
    pub(super) configuration: Vec<String>,
    pub(super) history: History,
    pub(super) protocol: &'static str,
    pub(super) refspecs: &'a [String],
    pub(super) url: &'a str,
}

/// A transfer failed: what the tool's error is and what the words before it tell.
#[derive(Debug)]
pub(super) struct TransferError {
    pub(super) error: FetchFault,
    pub(super) verdict: Verdict,
}

impl TransferError {
    /// Takes an error that no server had a part in.
    pub(super) fn plain(error: FetchFault) -> Self {
        Self { error, verdict: Verdict::Unknown }
    }
}

impl<'a> Git<'a> {
    /// Starts the clock and makes the empty home directory.
    pub(super) fn new(
        request: &FetchRequest<'a>,
        log: &'a BuildLog,
        cancel: &'a CancellationToken,
    ) -> Result<Self, FetchFault> {
        let home = request.directory.join("home");
        make_directory(&home)?;
        let limits = request.limits;
        Ok(Self { cancel, deadline: Instant::now() + limits.time, home, limits, log })
    }

    pub(super) fn log(&self) -> &'a BuildLog {
        self.log
    }

    /// Makes the administration of an empty repository.
    pub(super) async fn init(
        &self,
        repository: &Repository,
        format: ObjectFormat,
    ) -> Result<(), FetchFault> {
        make_directory(&repository.git_dir)?;
        let format = match format {
            ObjectFormat::Sha1 => "--object-format=sha1",
            ObjectFormat::Sha256 => "--object-format=sha256",
        };
        // The template of the machine may hold hooks.
        self.run(repository, &["init", "--quiet", "--template=", "--initial-branch=main", format])
            .await?;
        let info = repository.git_dir.join("info");
        fs::create_dir_all(&info)?;
        // This file stands above every .gitattributes: what is checked out is what was committed.
        fs::write(info.join("attributes"), ATTRIBUTES)?;
        Ok(())
    }

    /// Runs a command that needs no network.
    pub(super) async fn run(
        &self,
        repository: &Repository,
        arguments: &[&str],
    ) -> Result<(), FetchFault> {
        let tool = self.local(repository)?.args(arguments);
        let result = tool.run(self.cancel, |_, line| self.log.output(line)).await;
        result.map_err(|error| self.fault(error))
    }

    /// Runs a command that needs no network and returns what it prints, `max_bytes` at most.
    pub(super) async fn output(
        &self,
        repository: &Repository,
        arguments: &[&str],
        max_bytes: usize,
    ) -> Result<Vec<u8>, FetchFault> {
        let tool = self.local(repository)?.args(arguments);
        let result = tool.output(self.cancel, max_bytes, |line| self.log.output(line)).await;
        result.map_err(|error| self.fault(error))
    }

    /// Transfers objects from a server and returns what was heard of it.
    pub(super) async fn transfer(
        &self,
        repository: &Repository,
        transfer: &Transfer<'_>,
    ) -> Result<Ear<'a>, TransferError> {
        let mut ear = Ear::new(self.log);
        let result = match self.transfer_tool(repository, transfer) {
            Ok(tool) => tool
                .run(self.cancel, |_, line| ear.hear(line))
                .await
                .map_err(|error| self.fault(error)),
            Err(fault) => Err(fault),
        };
        match result {
            Ok(()) => Ok(ear),
            Err(error) => Err(TransferError { error, verdict: ear.verdict() }),
        }
    }

    /// Returns the error for what is larger than a file may be, or needs more memory than there is.
    pub(super) fn too_large(&self) -> FetchFault {
        FetchFault::OverLimit { limit: self.limits.max_file_bytes, unit: "bytes in a transfer" }
    }

    /// Runs another tool without network and returns whether it ended well, with what it
    /// complained about. Nothing of it goes to the log.
    pub(super) async fn ask(&self, tool: Tool) -> Result<Result<(), String>, FetchFault> {
        let left = self.left()?;
        let tool = tool.network(Network::None).env("HOME", &self.home).limits(left, left);
        let mut complaint = String::new();
        let hear = |line: &[u8]| {
            if complaint.len() < MAX_COMPLAINT_BYTES {
                complaint.push_str(&String::from_utf8_lossy(line));
            }
        };
        match tool.output(self.cancel, MAX_COMPLAINT_BYTES, hear).await {
            Ok(_) => Ok(Ok(())),
            Err(RunToolError::Failed { .. }) => Ok(Err(complaint)),
            Err(error) => Err(self.fault(error)),
        }
    }

    fn transfer_tool(
        &self,
        repository: &Repository,
        transfer: &Transfer<'_>,
    ) -> Result<Tool, FetchFault> {
        let mut tool = self
            .tool(repository)
            .network(Network::Host)
            .limits(self.left()?, self.limits.idle)
            .env("GIT_ALLOW_PROTOCOL", transfer.protocol);
        for (name, value) in &transfer.environment {
            tool = tool.env(name, value);
        }
        for setting in &transfer.configuration {
            tool = tool.args(["-c", setting]);
        }
        // The speed below which an https transfer is given up: 100 bytes per second.
        tool = tool.args(["-c", "http.lowSpeedLimit=100", "-c"]);
        tool = tool.arg(format!("http.lowSpeedTime={}", self.limits.idle.as_secs().max(1)));
        tool = tool.args(FETCH);
        if transfer.history == History::Shallow {
            tool = tool.arg("--depth=1");
        }
        Ok(tool.args(["--end-of-options", transfer.url]).args(transfer.refspecs))
    }

    fn local(&self, repository: &Repository) -> Result<Tool, FetchFault> {
        let left = self.left()?;
        Ok(self.tool(repository).network(Network::None).limits(left, left))
    }

    /// Returns a git without any configuration, and any protocol, but ours.
    fn tool(&self, repository: &Repository) -> Tool {
        // A pack can ask for any amount of memory (deltas) and of disk.
        let mut tool = Tool::new("prlimit")
            .arg(format!("--fsize={}", self.limits.max_file_bytes))
            .arg(format!("--data={MAX_MEMORY_BYTES}"))
            .args(["--core=0", "--"])
            // A write over the limit fails with a reason instead of ending git without a word.
            .args(["env", "--ignore-signal=XFSZ", "git"]);
        for setting in CONFIGURATION {
            tool = tool.args(["-c", setting]);
        }
        for (name, value) in ENVIRONMENT {
            tool = tool.env(name, value);
        }
        tool.directory(&repository.work_tree)
            .env("HOME", &self.home)
            .env("GIT_DIR", &repository.git_dir)
            .env("GIT_WORK_TREE", &repository.work_tree)
    }

    /// Returns the time that is left.
    fn left(&self) -> Result<Duration, FetchFault> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(self.too_slow()),
            left => Ok(left),
        }
    }

    fn fault(&self, error: RunToolError) -> FetchFault {
        match error {
            RunToolError::TimeLimit { .. } => self.too_slow(),
            other => other.into(),
        }
    }

    fn too_slow(&self) -> FetchFault {
        FetchFault::TimeLimit { seconds: self.limits.time.as_secs() }
    }
}

/// Makes a directory with the mode that a checked-out one has, whatever the server's umask.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

const ENVIRONMENT: [(&str, &str); 9] = [
    ("GIT_ADVICE", "0"),
    ("GIT_ALLOW_PROTOCOL", "none"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_LFS_SKIP_SMUDGE", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
];

// What stands here holds above the repository's own file, which only `git init` writes.
const CONFIGURATION: [&str; 36] = [
    "advice.detachedHead=false",
    "core.attributesFile=/dev/null",
    "core.autocrlf=false",
    "core.bigFileThreshold=32m",
    "core.deltaBaseCacheLimit=64m",
    "core.excludesFile=/dev/null",
    "core.fileMode=true",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.ignoreCase=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.quotePath=true",
    "core.safecrlf=false",
    "core.sparseCheckout=false",
    "core.symlinks=true",
    "core.untrackedCache=false",
    "credential.helper=",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    "gc.auto=0",
    "http.followRedirects=false",
    "http.sslVerify=true",
    "maintenance.auto=false",
    "pack.windowMemory=64m",
    "protocol.allow=never",
    "protocol.ext.allow=never",
    "protocol.file.allow=never",
    "protocol.version=2",
    "submodule.recurse=false",
    "transfer.bundleURI=false",
    "transfer.fsckObjects=true",
    // Every pack stays one file, so that the limit on a file is a limit on the transfer.
    "fetch.unpackLimit=1",
    "transfer.unpackLimit=1",
    "receive.unpackLimit=1",
];

const FETCH: [&str; 7] = [
    "fetch",
    "--force",
    "--no-auto-maintenance",
    "--no-recurse-submodules",
    "--no-tags",
    "--no-write-fetch-head",
    // Without it the transfer of a large pack would look idle.
    "--progress",
];

const ATTRIBUTES: &str =
    "* -text -eol -crlf -ident -filter -working-tree-encoding -diff -merge -whitespace\n";
const MAX_COMPLAINT_BYTES: usize = 64 * 1024;
const MAX_MEMORY_BYTES: u64 = 2 << 30;
