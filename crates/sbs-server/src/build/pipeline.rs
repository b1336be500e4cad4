//! The steps of a build, in their order. Each step takes what only the step before can make.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use sbs_proto::{BuildName, BuildStatus, Credentials, Definition, ImageTag, StatusText, Step};
use sbs_state::DefinitionKeys;
use thiserror::Error;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::build::bases::{ResolvedBase, resolve_bases};
use crate::build::dockerfile;
use crate::build::engine::{BuildRequest, Buildah, Built, EngineSettings, ProbeEngineError};
use crate::build::failure::{Failure, StepError, chain};
use crate::build::fetch::{self, FetchLimits, FetchRequest, Fetched, GitTrust, HostKeys};
use crate::build::log::{BuildLog, Masks};
use crate::build::publish::publish;
use crate::build::record::{self, Packed};
use crate::build::sign::{self, Tagged};
use crate::clock::Clock;
use crate::config::{NetworkSetting, Settings};
use crate::core::builds::BuildFiles;
use crate::registry::{RegistryClient, RegistryTrust};
use crate::store::{Store, remove_directory};
use crate::tool::Network;

/// What every build needs and no build changes.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    bases: PathBuf,
    engine: Buildah,
    git: GitTrust,
    registry: RegistryClient,
}

/// One build: plain data, a snapshot of its definition, and the token that ends it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) cancel: CancellationToken,
    pub(crate) definition: Definition,
    pub(crate) files: BuildFiles,
    pub(crate) keys: Arc<DefinitionKeys>,
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

    /// The server died while the build ran; `after` is the last step that was done.
    pub(crate) fn interrupted(after: &str) -> Self {
        let command = format!("the server stopped during the build, after `{after}`; build again");
        Self { code: "interrupted", command, return_code: 137 }
    }
}

impl<E: StepError> From<E> for Stopped {
    fn from(error: E) -> Self {
        let Failure { code, command, return_code } = error.failure();
        Self { code, command, return_code }
    }
}

impl Environment {
    /// Prepares what builds need: looks at the engine, reads the settings' files.
    pub(crate) async fn prepare(
        settings: Settings,
        store: &Store,
        clock: Clock,
    ) -> Result<Self, PrepareError> {
        let at = |what| move |source| PrepareError::Directory { what, source };
        // Whatever an earlier server left behind is of no build that can go on.
        remove_directory(&store.path("work")).map_err(at("work"))?;
        let bases = store.directory("bases").map_err(at("bases"))?;
        let engine = store.directory("engine").map_err(at("engine"))?;
        let git = store.directory("git").map_err(at("git"))?;
        let engine = Buildah::probe(&engine, engine_settings(&settings)).await?;
        tracing::info!(engine = engine.describe(), "build engine");
        engine.recover().await?;
        let known_hosts = match &settings.git.known_hosts {
            Some(file) => HostKeys::Pinned(file.clone()),
            None => HostKeys::FirstUse(git.join("known_hosts")),
        };
        let git = GitTrust { known_hosts, ca_file: settings.git.ca_file.clone() };
        let registry = RegistryClient::new(registry_trust(&settings)?)?;
        Ok(Self { clock, settings, bases, engine, git, registry })
    }
}

fn engine_settings(settings: &Settings) -> EngineSettings {
    let build = &settings.build;
    EngineSettings {
        idle_limit: build.idle_limit(),
        isolation: build.isolation,
        network: match build.network {
            NetworkSetting::Host => Network::Host,
            NetworkSetting::None => Network::None,
        },
        time_limit: build.time_limit(),
    }
}

/// Runs a build. `report` is told of every step that is done.
pub(crate) async fn run(
    environment: &Environment,
    job: &Job,
    report: &(dyn Fn(StatusText) + Sync),
) -> Result<Recorded, Stopped> {
    let log = open_log(environment, job)?;
    log.info("starting a build");
    for key in &job.definition.ignored_keys {
        log.warning(&format!("{key} has no effect on this server"));
    }
    let result = steps(environment, job, &log, report).await;
    match &result {
        Ok(_) => log.info("completed a build"),
        Err(_) if job.cancel.is_cancelled() => log.warning("the build was ended by request"),
        Err(_) => {}
    }
    if let Err(error) = log.sync() {
        tracing::warn!(%error, "the build log may not last");
    }
    result
}
