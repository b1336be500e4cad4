use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sbs_proto::Digest;
use sbs_state::{AtRest, CaBinding, KeyRing, PrfError};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{AdminSocket, AskError, Request, SOCKET, ask};
use crate::args::{CertificateCommand, NotaryRootCommand};
use crate::build::environment::{Environment, PrepareError};
use crate::certificates::error::LoadCertificatesError;
use crate::certificates::{Certificates, Kept, Sources};
use crate::clock::Clock;
use crate::config::{
    Identity, LoadIdentityError, LoadSettingsError, ServerKeyText, Settings, credentials_directory,
};
use crate::core::Core;
use crate::core::error::KeepError;
use crate::core::state::Sealing;
use crate::core::upload::{UploadPauses, Uploader};
use crate::env_file::{self, ReadEnvFileError};
use crate::http;
use crate::identity::{OpenServerKeyError, open_server_key};
use crate::listener;
use crate::reseal::{ResealError, reseal_all};
use crate::root_secret::{self, InitRootSecretError, OpenRootSecretError};
use crate::storage::{MakeStorageClientError, OpenStorage, StorageClient, StorageLimits};
use crate::store::{OpenStoreError, Store, read_small_file, replace_file};
use crate::tls::{self, MakeTlsError, Pair};

/// Runs the server until it is told to stop. With `init` it first makes what a new machine lacks.
pub(crate) fn run(
    config: Option<&Path>,
    env_file: Option<&Path>,
    init: bool,
) -> Result<(), RunError> {
    let settings = load_settings(config)?;
    let identity = match env_file {
        Some(path) => env_file::read(path)?,
        None => Identity::from_environment()?,
    };
    if init {
        init_root_secret(&settings)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(serve(settings, identity))
}

async fn serve(settings: Settings, identity: Identity) -> Result<(), RunError> {
    let ring = root_secret::open(&settings.root_secret, credentials_directory().as_deref())?;
    tell_of(&ring);
    let store = Store::open(&settings.data_directory)?;
    let ca_binding = if settings.state.accept_other_client_ca {
        tracing::warn!(
            "state images of other client authorities are accepted; remove `accept-other-client-ca` \
             when the import is done"
        );
        CaBinding::DangerIgnored
    } else {
        CaBinding::Enforced
    };
    let sealing = Sealing::new(&ring, client_ca_sha256(&identity)?, ca_binding)?;
    let at_rest = Arc::new(AtRest::new(&ring)?);
    drop(ring);
    let resealed = reseal_all(&store, &sealing.at_rest)?;
    if resealed.changed > 0 {
        tracing::info!(files = resealed.changed, "sealed again under the current root secret");
    }
    let kept_certificates = Kept::new(&store, &at_rest);
    let sources = sources(identity, &settings, &store, &at_rest)?;
    let listen = settings.listen;
    let (clock, keep_builds) = (Clock::system(), settings.build.keep_builds);
    let receive_limit = settings.state.receive_limit();
    let storages = StorageClient::from_settings(&settings.storage, StorageLimits::default())?;
    let storages: Arc<dyn OpenStorage> = Arc::new(storages);
    let environment = Environment::prepare(settings, &store, clock).await?;
    let address_file = store.path("address");
    let admin = AdminSocket::bind(&store.path(SOCKET)).map_err(RunError::AdminSocket)?;
    let core = Core::load(store, sealing, clock, Arc::new(environment), keep_builds)?;

    let told = core.clone();
    let certificates =
        Certificates::open(sources, kept_certificates, clock, move || told.certificate_replaced())?;

    let at = |source| RunError::Listen { address: listen.to_string(), source };
    let socket = TcpListener::bind(listen).await.map_err(at)?;
    let address = socket.local_addr().map_err(at)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    replace_file(&address_file, format!("{address}\n").as_bytes()).map_err(RunError::Address)?;
    tracing::info!(%address, "ready");

    let stop = CancellationToken::new();
    let pauses = UploadPauses::default();
    let uploader = Uploader::new(core.clone(), Arc::clone(&storages), pauses, stop.clone());
    let uploads = tokio::spawn(uploader.run());
    let admin = tokio::spawn(admin.serve(certificates.clone(), core.clone(), stop.clone()));
    let watch = tokio::spawn(certificates.clone().watch(hangup, stop.clone()));
    let router = http::router(core.clone(), certificates.clone(), storages, receive_limit);
    let server = tokio::spawn(listener::serve(socket, certificates.live(), router, stop.clone()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
    core.stop().await;
    let _ended = server.await;
    let _stopped = uploads.await;
    let _watched = watch.await;
    let _asked = admin.await;
    Ok(())
}

/// Makes a root secret if there is none and nothing is kept that another one could be missing for.
fn init_root_secret(settings: &Settings) -> Result<(), RunError> {
    if !root_secret::is_missing(&settings.root_secret) {
        return Ok(());
    }
    let kept = match std::fs::read_dir(&settings.data_directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        entries => entries.map_err(RunError::DataDirectory)?.next().is_some(),
    };
    if kept {
        return Err(RunError::RootSecretLost { data_directory: settings.data_directory.clone() });
    }
    let told = root_secret::init(&settings.root_secret, None, None)?;
    tracing::info!("made a root secret: {}", told.trim_end());
    Ok(())
}

/// Loads the settings; without a file every setting has its default.
pub(crate) fn load_settings(config: Option<&Path>) -> Result<Settings, LoadSettingsError> {
    Ok(config.map(Settings::load).transpose()?.unwrap_or_default())
}

/// Seals everything that is kept again, while no server runs. Returns what to tell.
pub(crate) fn reseal(config: Option<&Path>) -> Result<String, RunError> {
    let settings = load_settings(config)?;
    let ring = root_secret::open(&settings.root_secret, credentials_directory().as_deref())?;
    let store = Store::open(&settings.data_directory)?;
    let resealed = reseal_all(&store, &AtRest::new(&ring)?)?;
    Ok(format!(
        "{} files sealed again under root secret {}, {} were already\n",
        resealed.changed,
        ring.current_kid(),
        resealed.unchanged
    ))
}

/// Returns where certificates come from. What stands in the files is looked at later.
fn sources(
    identity: Identity,
    settings: &Settings,
    store: &Store,
    at_rest: &Arc<AtRest>,
) -> Result<Sources, OpenServerKeyError> {
    let Identity { client_ca, client_certificate, server } = identity;
    let server = match server {
        None => None,
        Some((certificate, ServerKeyText::Pem(key))) => Some(Pair { certificate, key }),
        Some((certificate, ServerKeyText::OpenPgp(message))) => {
            let now = Clock::system().now();
            Some(Pair { certificate, key: open_server_key(&message, store, at_rest, now)? })
        }
    };
    let (client, tls) = (settings.client.clone(), settings.tls.clone());
    Ok(Sources { client_ca, client_certificate, server, client, tls })
}

/// Returns the digest of the authority of clients that state images are bound to: of the first in
/// `CLIENT_CA`.
fn client_ca_sha256(identity: &Identity) -> Result<Digest, MakeTlsError> {
    tls::fingerprint(&identity.client_ca, "CLIENT_CA")
}

/// Asks the server that runs for its certificates. Returns what to tell.
pub(crate) fn certificate(command: CertificateCommand) -> Result<String, AskServerError> {
    let (config, request) = match command {
        CertificateCommand::Csr { host, config } => (config, Request::Csr { host }),
        CertificateCommand::Install { certificate: path, config } => {
            let at = |source| AskError::File { path: path.clone(), source };
            let pem = read_small_file(&path).map_err(at)?;
            let pem = pem.ok_or_else(|| at(io::ErrorKind::NotFound.into()))?;
            // What is no text is no PEM; the server says so.
            let certificate = String::from_utf8_lossy(&pem).into_owned();
            (config, Request::Install { certificate })
        }
        CertificateCommand::Show { config } => (config, Request::Show),
    };
    ask_server(config.as_deref(), &request)
}

/// Has the server that runs forget what a notary has said. Returns what to tell.
pub(crate) fn notary_root(command: NotaryRootCommand) -> Result<String, AskServerError> {
    let NotaryRootCommand::Forget { server, repository, config } = command;
    ask_server(config.as_deref(), &Request::ForgetNotaryRoot { server, repository })
}

fn ask_server(config: Option<&Path>, request: &Request) -> Result<String, AskServerError> {
    Ok(ask(&load_settings(config)?.data_directory, request)?)
}

/// Why the server that runs was not asked, or said no.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum AskServerError {
    #[error(transparent)]
    Ask(#[from] AskError),

    #[error("the settings cannot be used")]
    Settings(#[from] LoadSettingsError),
}

fn tell_of(ring: &KeyRing) {
    let current = ring.current();
    let (kid, provider, portability) = (ring.current_kid(), current.name(), current.portability());
    tracing::info!(%kid, provider, %portability, "root secret");
    if root_secret::is_for_development(current) {
        tracing::warn!(
            "the root secret is a file, which is for development: whoever reads it and the data \
             directory has the keys"
        );
    }
}

/// Why the server did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum RunError {
    /// The address file cannot be written.
    #[error("cannot write the file `address` in the data directory")]
    Address(#[source] io::Error),

    /// The admin socket cannot be made.
    #[error("cannot make the socket `admin.sock` in the data directory")]
    AdminSocket(#[source] io::Error),

    /// The certificates cannot be used.
    #[error("the certificates cannot be used")]
    Certificates(#[from] LoadCertificatesError),

    /// It cannot be told whether something is kept.
    #[error("cannot read the data directory")]
    DataDirectory(#[source] io::Error),

    /// The file with the variables cannot be used.
    #[error(transparent)]
    EnvFile(#[from] ReadEnvFileError),

    /// No root secret can be made.
    #[error("cannot make a root secret")]
    InitRootSecret(#[from] InitRootSecretError),

    /// The certificates cannot be loaded.
    #[error("the certificates in the environment cannot be used")]
    Identity(#[from] LoadIdentityError),

    /// What was kept cannot be loaded.
    #[error("what the data directory keeps cannot be loaded")]
    Keep(#[from] KeepError),

    /// The address is taken or not allowed.
    #[error("cannot listen on {address}; set `listen` to another address")]
    Listen { address: String, source: io::Error },

    /// The build environment cannot be prepared.
    #[error("builds cannot run here")]
    Prepare(#[from] PrepareError),

    /// The root secret does not compute.
    #[error("the root secret cannot be used")]
    Prf(#[from] PrfError),

    /// The key of the server cannot be had.
    #[error(transparent)]
    ServerKey(#[from] OpenServerKeyError),

    /// What is kept cannot be sealed under the current root secret.
    #[error("what the data directory keeps cannot be sealed again")]
    Reseal(#[from] ResealError),

    /// The root secret cannot be had.
    #[error("there is no root secret to open what is kept with")]
    RootSecret(#[from] OpenRootSecretError),

    /// Another root secret would not open what is kept.
    #[error(
        "there is no root secret, but `{}` is not empty: what is kept there opens under the one that \
         was; bring that back (`sbs-server root-secret init --from BACKUP`), or remove the directory \
         if nothing in it is needed",
        data_directory.display()
    )]
    RootSecretLost { data_directory: PathBuf },

    /// The runtime cannot start.
    #[error("cannot start threads")]
    Runtime(#[source] io::Error),

    /// The settings cannot be loaded.
    #[error("the settings cannot be used")]
    Settings(#[from] LoadSettingsError),

    /// Signals cannot be handled.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),

    /// The client of object storages cannot be set up.
    #[error("object storages cannot be used")]
    Storage(#[from] MakeStorageClientError),

    /// The data directory cannot be used.
    #[error("the server cannot keep its data")]
    Store(#[from] OpenStoreError),

    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] MakeTlsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_secret_is_made_only_where_nothing_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.root_secret.file = directory.path().join("etc/root-secret");
        settings.data_directory = directory.path().join("data");
        init_root_secret(&settings).unwrap();
        let secret = std::fs::read(&settings.root_secret.file).unwrap();
        // Again, with data: what is there stays.
        std::fs::create_dir(&settings.data_directory).unwrap();
        std::fs::write(settings.data_directory.join("file"), "kept").unwrap();
        init_root_secret(&settings).unwrap();
        assert_eq!(std::fs::read(&settings.root_secret.file).unwrap(), secret);
        // What is kept opens under no new one.
        std::fs::remove_file(&settings.root_secret.file).unwrap();
        let result = init_root_secret(&settings);
        assert!(matches!(result, Err(RunError::RootSecretLost { .. })), "{result:?}");
        assert!(!settings.root_secret.file.exists());
    }
}
