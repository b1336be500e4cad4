//! What every build needs and no build changes: made once, when the server starts.

use std::io;
use std::path::{Path, PathBuf};

use sbs_proto::DefinitionName;
use thiserror::Error;

use crate::build::bases::{Lookasides, PARTIAL};
use crate::build::engine::{Buildah, EngineSettings, Isolation, ProbeEngineError, Runtime};
use crate::build::fetch::{GitTrust, HostKeys};
use crate::clock::Clock;
use crate::config::{IsolationSetting, NetworkSetting, Settings};
use crate::store::{KNOWN_HOSTS, Store, move_into_place, remove_directory};
use crate::tool::Network;
use sbs_registry::simple_signing::{Lookaside, LookasideError, SignatureTree};
use sbs_registry::{Limits, MakeRegistryClientError, RegistryClient, RegistryTrust};

/// What every build needs and no build changes.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(super) clock: Clock,
    pub(super) settings: Settings,
    pub(super) bases: PathBuf,
    pub(super) engine: Buildah,
    pub(super) lookasides: Lookasides,
    pub(super) git: GitTrust,
    pub(super) registry: RegistryClient,
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
        remove_directory(&bases.join(PARTIAL)).map_err(at("bases"))?;
        let engine = store.directory("engine").map_err(at("engine"))?;
        let engine = probe_engine(&engine, &settings).await?;
        let isolation = engine.isolation();
        tracing::info!(version = engine.version(), %isolation, "buildah");
        if settings.build.network == NetworkSetting::Host {
            tracing::warn!(
                "the steps of a build can reach what this server can reach; `network = \"none\"` \
                 in [build] closes that"
            );
        }
        for warning in engine.warnings() {
            tracing::warn!("{warning}");
        }
        let known_hosts = match &settings.git.known_hosts {
            Some(file) => HostKeys::Pinned(file.clone()),
            None => HostKeys::FirstUse(first_use_file(store).map_err(at("definitions"))?),
        };
        let git = GitTrust { known_hosts, ca_file: settings.git.ca_file.clone() };
        let registry = RegistryClient::new(&registry_trust(&settings)?, Limits::default())?;
        let lookasides = lookasides(&settings)?;
        Ok(Self { clock, settings, bases, engine, lookasides, git, registry })
    }
}

impl Environment {
    /// Checks what the settings say of registries, without a build engine.
    pub(crate) fn check(settings: &Settings) -> Result<(), PrepareError> {
        RegistryClient::new(&registry_trust(settings)?, Limits::default())?;
        lookasides(settings)?;
        Ok(())
    }
}

/// Tries what the build engine can do here. `root` is where it keeps what it works with.
pub(crate) async fn probe_engine(
    root: &Path,
    settings: &Settings,
) -> Result<Buildah, ProbeEngineError> {
    Buildah::probe(root, &engine_settings(settings)).await
}

/// Returns the file of the host keys of first use. It is a part of what is kept of the image
/// definition; servers of before had it elsewhere.
fn first_use_file(store: &Store) -> io::Result<PathBuf> {
    let directory = store.definition_directory(&DefinitionName::default_name())?;
    let file = directory.join(KNOWN_HOSTS);
    let before = store.path("git").join(KNOWN_HOSTS);
    if before.exists() && !file.exists() {
        move_into_place(&before, &file)?;
    }
    Ok(file)
}

fn engine_settings(settings: &Settings) -> EngineSettings {
    let build = &settings.build;
    EngineSettings {
        idle_limit: build.idle_limit(),
        isolation: build.isolation.map(|isolation| match isolation {
            IsolationSetting::Chroot => Isolation::Chroot,
            IsolationSetting::OciCrun => Isolation::Oci(Runtime::Crun),
            IsolationSetting::OciRunc => Isolation::Oci(Runtime::Runc),
        }),
        max_memory: build.memory_limit_mib.map(|mib| mib.saturating_mul(1024 * 1024)),
        max_processes: build.max_processes,
        network: match build.network {
            NetworkSetting::Host => Network::Host,
            NetworkSetting::None => Network::None,
        },
        time_limit: build.time_limit(),
    }
}

/// Why builds cannot run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum PrepareError {
    /// A directory cannot be made.
    #[error("the directory `{what}` in the data directory cannot be used")]
    Directory { what: &'static str, source: io::Error },

    /// The build engine does not work.
    #[error("the build engine does not work")]
    Engine(#[from] ProbeEngineError),

    /// A lookaside is neither a directory nor a URL.
    #[error("the lookaside of registry `{registry}` is neither a URL nor an absolute path")]
    Lookaside { registry: String, source: Box<LookasideError> },

    /// Relying parties would be told of a lookaside that is none.
    #[error("`lookaside-url` in [signing] cannot be used")]
    LookasideUrl(#[source] Box<LookasideError>),

    /// The authorities for registries cannot be used.
    #[error("the registry client cannot be set up")]
    Registry(#[from] MakeRegistryClientError),

    /// The file of the authorities cannot be read.
    #[error("cannot read `{}`", path.display())]
    RegistryAuthorities { path: PathBuf, source: io::Error },
}

fn lookasides(settings: &Settings) -> Result<Lookasides, PrepareError> {
    let place = |(registry, place): (&String, &String)| {
        let lookaside = if place.starts_with('/') {
            Lookaside::Directory(SignatureTree::new(place.into()))
        } else {
            Lookaside::at(place).map_err(|source| PrepareError::Lookaside {
                registry: registry.clone(),
                source: Box::new(source),
            })?
        };
        Ok((registry.clone(), lookaside))
    };
    if let Some(url) = &settings.signing.lookaside_url {
        // What relying parties are told must be an address that they go to.
        Lookaside::at(url).map_err(|source| PrepareError::LookasideUrl(Box::new(source)))?;
    }
    settings.registry.lookaside.iter().map(place).collect()
}

fn registry_trust(settings: &Settings) -> Result<RegistryTrust, PrepareError> {
    let extra_ca_pem = match &settings.registry.ca_file {
        None => Vec::new(),
        Some(path) => std::fs::read(path)
            .map_err(|source| PrepareError::RegistryAuthorities { path: path.clone(), source })?,
    };
    Ok(RegistryTrust { extra_ca_pem, token_hosts: settings.registry.token_hosts.clone() })
}
