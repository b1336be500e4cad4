//! The build engine: buildah, without a daemon, in a sandbox.
//!
//! A build has three walls around it. The Dockerfile is a [`ResolvedDockerfile`]: it names only
//! images that were imported here. Its steps run in containers, where the machine allows (`oci`).
//! And the engine itself runs in a root directory that has the system's programs, the build context
//! (read-only), the base images (read-only) and the build's own scratch, and nothing else: no data
//! of the server's, no devices, no credentials.
//!
//! A build's storage is its own and is thrown away, so nothing that a build leaves behind can reach
//! the next one.

mod cgroup;
mod error;
mod kind;
mod layout;
mod probe;
mod sandbox;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use sbs_proto::{Digest, EngineRecord, Recipe};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::cgroup::Cgroup;
use self::kind::Driver;
use self::sandbox::{Sandbox, Storage};
use crate::build::dockerfile::{ResolvedDockerfile, load_ignore_file, open_directory};
use crate::build::log::BuildLog;
use crate::tool::Network;

pub(crate) use self::error::{BuildError, BuildFault, ImportBaseError};
pub(crate) use self::kind::{Isolation, Runtime};
pub(crate) use self::probe::ProbeEngineError;

/// How builds are run.
#[derive(Clone, Debug)]
pub(crate) struct EngineSettings {
    /// How long a build may print nothing.
    pub(crate) idle_limit: Duration,
    /// The isolation to use; the best that works where absent.
    pub(crate) isolation: Option<Isolation>,
    /// Memory of all builds together in bytes, under `oci` isolation; no limit where absent.
    pub(crate) max_memory: Option<u64>,
    /// Processes and threads of all builds together, under `oci` isolation.
    pub(crate) max_processes: u32,
    /// What the steps of a Dockerfile can reach.
    pub(crate) network: Network,
    /// How long a build may take.
    pub(crate) time_limit: Duration,
}

/// The engine, as it was found to work on this machine.
#[derive(Debug)]
pub(crate) struct Buildah {
    root: PathBuf,
    settings: EngineSettings,
    version: String,
    driver: Driver,
    isolation: Isolation,
    cgroup: Cgroup,
    warnings: Vec<String>,
    /// The names of the base images in the store.
    bases: Mutex<HashSet<String>>,
    /// Held by whoever changes the store.
    importing: tokio::sync::Mutex<()>,
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BuildRequest<'a> {
    /// The Dockerfile, whose base images were imported.
    pub(crate) dockerfile: &'a ResolvedDockerfile,
    /// The time that everything in the image gets, in seconds since 1970.
    pub(crate) epoch: i64,
    /// An empty directory that becomes the image's OCI layout.
    pub(crate) output: &'a Path,
    /// The paths and build arguments.
    pub(crate) recipe: &'a Recipe,
    /// A directory of the build's own, on the file system of the engine's root. What the engine
    /// puts there is gone when the build returns.
    pub(crate) scratch: &'a Path,
    /// The source. It is not changed.
    pub(crate) work_tree: &'a Path,
}

/// An image that was built and checked.
///
/// Only [`Buildah::build`] makes one. It is plain data that can be sent between processes of the
/// server: whoever decodes one vouches for the peer that it came from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Built {
    /// The digest of the image manifest.
    pub(crate) digest: Digest,
    /// The OCI layout that holds it.
    pub(crate) layout: PathBuf,
    /// What built it, and how.
    pub(crate) record: EngineRecord,
    #[serde(skip)]
    made_by_engine: (),
}

#[cfg(test)]
impl Built {
    /// Takes an image that a test made.
    pub(crate) fn of_test(layout: &Path, digest: Digest) -> Self {
        let record = EngineRecord {
            arguments: std::collections::BTreeMap::new(),
            context: sbs_proto::RelativePath::default(),
            dockerfile: sbs_proto::RelativePath::default(),
            isolation: String::new(),
            name: String::new(),
            network: String::new(),
            storage_driver: String::new(),
            version: String::new(),
        };
        Self { digest, layout: layout.to_owned(), record, made_by_engine: () }
    }
}

impl Buildah {
    /// Finds out what works here: the version, the storage driver and the isolation, by building a
    /// tiny image. What an earlier server left behind is removed.
    ///
    /// `root` is the engine's directory; it persists and belongs to one server.
    pub(crate) async fn probe(
        root: &Path,
        settings: &EngineSettings,
    ) -> Result<Self, ProbeEngineError> {
        probe::probe(root, settings).await
    }

    /// Returns how builds are kept apart, such as `oci (runc)`.
    pub(crate) fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Returns the engine's version.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Returns what the operator should know.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Tells whether a base image was imported under this name.
    pub(crate) fn has_base(&self, name: &str) -> bool {
        self.bases.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Imports a base image, if it is not there: the one named `reference` in the OCI layout
    /// `layout`, or its only one where that is empty, gets the local name `name`,
    /// `registry/repository:sha256-<hex>`.
    ///
    /// The layout's bytes must have been checked: the name is taken on trust from then on, and it
    /// ends in the annotations and the history of what is built on it.
    pub(crate) async fn import_base(
        &self,
        layout: &Path,
        reference: &str,
        name: &str,
        log: &BuildLog,
        cancel: &CancellationToken,
    ) -> Result<(), ImportBaseError> {
        let _importing = self.importing.lock().await;
        if self.has_base(name) {
            return Ok(());
        }
        let prepare = |source| ImportBaseError::Prepare { source };
        let scratch = tempfile::tempdir_in(self.root.join(TEMPORARY)).map_err(prepare)?;
        let mut sandbox =
            Sandbox::prepare(scratch.path(), &self.store(), self.driver, Storage::Import)
                .map_err(prepare)?;
        sandbox.bind("ro", layout, "/sbs/layout");
        // One start of a sandbox for both: the starts are what takes the time.
        let script = "id=$(buildah pull --quiet --signature-policy /sbs/run/policy.json \"$1\") \
            && exec buildah tag \"$id\" \"$2\"";
        // A layout of one Docker image is found without a name only.
        let separator = if reference.is_empty() { "" } else { ":" };
        let from = format!("oci:/sbs/layout{separator}{reference}");
        let words = ["sh", "-c", script, "sh", &from, name].map(OsString::from);
        sandbox
            .tool(words)
            .limits(self.settings.time_limit, self.settings.idle_limit)
            .run(cancel, |_, line| log.output(line))
            .await
            .map_err(|source| ImportBaseError::Engine { name: name.to_owned(), source })?;
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.insert(name.to_owned());
        Ok(())
    }

    /// Builds an image into an OCI layout, and checks what came out.
    ///
    /// The same request gives the same digest, on every machine with the same engine, as long as the
    /// steps of the Dockerfile do the same.
    pub(crate) async fn build(
        &self,
        request: &BuildRequest<'_>,
        log: &BuildLog,
        cancel: &CancellationToken,
    ) -> Result<Built, BuildError> {
        let command = command(request.recipe);
        log.info(&format!("cmd={command}"));
        if self.isolation == Isolation::Chroot {
            log.warning(CHROOT_WARNING);
        }
        let digest = self
            .run_build(request, cancel, |line| log.output(line))
            .await
            .map_err(|fault| BuildError::new(command, fault))?;
        let record = EngineRecord {
            arguments: request.recipe.arguments.clone(),
            context: request.recipe.context.clone(),
            dockerfile: request.recipe.dockerfile.clone(),
            isolation: self.isolation.to_string(),
            name: "buildah".to_owned(),
            network: network_name(self.settings.network).to_owned(),
            storage_driver: self.driver.to_string(),
            version: self.version.clone(),
        };
        Ok(Built { digest, layout: request.output.to_owned(), record, made_by_engine: () })
    }

    /// Builds; whatever happens, no process, storage or control group of the build is left.
    async fn run_build(
        &self,
        request: &BuildRequest<'_>,
        cancel: &CancellationToken,
        mut on_line: impl FnMut(&[u8]) + Send,
    ) -> Result<Digest, BuildFault> {
        let sandbox = self.prepare_build(request)?;
        let result = sandbox
            .tool(self.arguments(request))
            .limits(self.settings.time_limit, self.settings.idle_limit)
            .run(cancel, |_, line| on_line(line))
            .await;
        let (cgroup, scratch) = (self.cgroup.clone(), request.scratch.to_owned());
        let output = request.output.to_owned();
        let rest = tokio::task::spawn_blocking(move || {
            cgroup.remove_build(&scratch);
            // Storage that stays is in the way of the next build with this scratch.
            let removed = Sandbox::remove(&scratch);
            result.map_err(BuildFault::of_tool)?;
            removed.map_err(|source| BuildFault::Prepare { source })?;
            layout::check(&output).map_err(|source| BuildFault::Layout { source })
        });
        rest.await.map_err(|_| BuildFault::Internal("the check of a built image panicked"))?
    }

    fn prepare_build(&self, request: &BuildRequest<'_>) -> Result<Sandbox, BuildFault> {
        let prepare = |source| BuildFault::Prepare { source };
        let context = |source| BuildFault::Context { source };
        if request.dockerfile.has_mounts() && self.isolation == Isolation::Chroot {
            // The engine would follow a link in the image to where it mounts.
            return Err(BuildFault::Mounts);
        }
        if let (Some(url), Network::None) =
            (request.dockerfile.remote_adds().first(), self.settings.network)
        {
            return Err(BuildFault::RemoteAdd { url: url.chars().take(MAX_SHOWN).collect() });
        }
        drop(open_directory(request.work_tree, &request.recipe.context).map_err(context)?);
        let ignore = load_ignore_file(request.work_tree, request.recipe).map_err(context)?;
        let mut sandbox =
            Sandbox::prepare(request.scratch, &self.store(), self.driver, Storage::Build)
                .map_err(prepare)?
                .runs(self.isolation, self.settings.network);
        sandbox.write("Dockerfile", request.dockerfile.text()).map_err(prepare)?;
        sandbox.write("ignore", &ignore).map_err(prepare)?;
        let context = request.work_tree.join(request.recipe.context.as_str());
        sandbox.bind("ro", &context, "/sbs/context");
        sandbox.bind("rw", request.output, "/sbs/output");
        Ok(sandbox)
    }

    /// Returns the engine's command line. It shows in the process list: build arguments are public.
    fn arguments(&self, request: &BuildRequest<'_>) -> Vec<OsString> {
        let cgroup = self.cgroup.of_build(request.scratch);
        let mut words: Vec<String> = BUILD.iter().map(ToString::to_string).collect();
        match self.isolation {
            Isolation::Chroot => {
                // With these a process can leave a chroot or open the machine's disks.
                words.extend(["--isolation=chroot", "--cap-drop=CAP_MKNOD"].map(String::from));
                words.push("--cap-drop=CAP_SYS_CHROOT".to_owned());
            }
            Isolation::Oci(runtime) => {
                words.extend(["--isolation=oci".to_owned(), format!("--runtime={runtime}")]);
                words.push("--runtime-flag=root=/sbs/run/runtime".to_owned());
                words.push(format!("--cgroup-parent={cgroup}"));
                // The engine shows a step its control groups, writable: a step that freezes itself
                // could not be killed (version 1), and one could make groups too deep to remove.
                words.push("--volume=/sbs/run/nothing:/sys/fs/cgroup:ro".to_owned());
            }
        }
        words.push(format!("--timestamp={}", request.epoch));
        // Without layers buildah 1.28 loses the image of a stage whose base is in a store that it
        // may not change. With them every step is committed, which takes longer.
        words.push(format!("--layers={}", request.dockerfile.has_stage_on_stage()));
        // Steps must not see what limits the machine happens to have.
        let files = getrlimit(Resource::Nofile).maximum.unwrap_or(MAX_FILES).min(MAX_FILES);
        let processes = getrlimit(Resource::Nproc).maximum.unwrap_or(MAX_NPROC).min(MAX_NPROC);
        words.push(format!("--ulimit=nofile={}:{files}", files.min(1024)));
        words.push(format!("--ulimit=nproc={processes}:{processes}"));
        let given = &request.recipe.arguments;
        let implied = request.dockerfile.arguments();
        for (name, value) in implied.iter().filter(|(name, _)| !given.contains_key(*name)) {
            words.push(format!("--build-arg={name}={value}"));
        }
        words.extend(given.iter().map(|(name, value)| format!("--build-arg={name}={value}")));
        words.extend(["--tag=oci:/sbs/output:latest", "/sbs/context"].map(String::from));
        words.into_iter().map(OsString::from).collect()
    }

    /// Returns where base images are kept. Drivers cannot read each other's.
    fn store(&self) -> PathBuf {
        self.root.join(format!("store-{}", self.driver))
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        self.cgroup.remove_all();
    }
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            idle_limit: Duration::from_mins(30),
            isolation: None,
            max_memory: None,
            max_processes: 16 * 1024,
            network: Network::Host,
            time_limit: Duration::from_hours(2),
        }
    }
}

/// Returns the command as the v1 status and the log tell it, without a path of this machine.
fn command(recipe: &Recipe) -> String {
    format!("buildah build -f {} {}", recipe.dockerfile, recipe.context)
}

fn network_name(network: Network) -> &'static str {
    match network {
        Network::Host => "host",
        Network::None => "none",
    }
}

/// Every option that the image's digest depends on is given, whatever the engine's defaults are.
const BUILD: [&str; 17] = [
    "buildah",
    "build",
    "--file=/sbs/run/Dockerfile",
    "--ignorefile=/sbs/run/ignore",
    "--signature-policy=/sbs/run/policy.json",
    "--pull=never",
    "--no-cache",
    "--force-rm",
    "--format=oci",
    "--disable-compression=false",
    "--identity-label=false",
    "--http-proxy=false",
    // The namespaces are ours, with a fixed host name; the engine's own would need a bridge.
    "--network=host",
    "--uts=host",
    "--ulimit=core=0:0",
    "--jobs=1",
    "--quiet=false",
];
const CHROOT_WARNING: &str = "this machine cannot run containers: the steps of the Dockerfile run \
    in a chroot, which keeps them apart less well; the build record says so";
/// The directory in the engine's root for what does not outlive a call.
const TEMPORARY: &str = "tmp";
const MAX_FILES: u64 = 65_536;
const MAX_NPROC: u64 = 32_768;
const MAX_SHOWN: usize = 120;

#[cfg(test)]
mod tests;
