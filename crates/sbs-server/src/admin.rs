//! What the operator asks of a server that runs, through a socket in the data directory: its
//! certificates, for when no client believes the server any more, and what notaries have said, which no
//! client may have it forget.
//!
//! One request and one answer, each a line of JSON.

use std::fs::Permissions;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sbs_proto::{
    CertificateFacts, Certificates as Told, DefinitionName, ImageReference, NotaryServer,
};
use sbs_registry::notary::Gun;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::build::failure::chain;
use crate::certificates::Certificates;
use crate::core::Core;
use crate::core::error::ForgetNotaryRootError;
use crate::store::{ReadSecretFileError, check_parents};

/// What is asked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) enum Request {
    Csr { host: String },
    ForgetNotaryRoot { server: String, repository: String },
    Install { certificate: String },
    Show,
}

/// What is answered.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum Answer {
    Csr(String),
    Done(String),
    Refused(String),
    Told(Told),
}

/// The socket, which only the server's own user can open.
#[derive(Debug)]
pub(crate) struct AdminSocket(UnixListener);

impl AdminSocket {
    /// Makes the socket; one that a server left behind is replaced.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody else can enter the directory meanwhile.
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self(listener))
    }

    /// Answers one request after the other until `stop`.
    pub(crate) async fn serve(
        self,
        certificates: Certificates,
        core: Core,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.0.accept() => accepted,
            };
            let answered = match accepted {
                Ok((stream, _)) => {
                    let answered = answer(stream, &certificates, &core);
                    tokio::time::timeout(REQUEST_TIME, answered).await.unwrap_or_else(|_elapsed| {
                        Err(io::Error::new(io::ErrorKind::TimedOut, "the request took too long"))
                    })
                }
                Err(error) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Err(error)
                }
            };
            if let Err(error) = answered {
                tracing::warn!(%error, "a request at the admin socket was not answered");
            }
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    certificates: &Certificates,
    core: &Core,
) -> io::Result<()> {
    // Beside the mode of the socket: root may come in, and nobody else but the server's user.
    let peer = stream.peer_cred()?.uid();
    if ![0, rustix::process::geteuid().as_raw()].contains(&peer) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user"));
    }
    let mut line = String::new();
    let limited = tokio::io::BufReader::new((&mut stream).take(REQUEST_BYTES));
    { limited }.read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => carry_out(request, certificates, core).await,
        Err(error) => Answer::Refused(chain(&error)),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    stream.write_all(&text).await
}

async fn carry_out(request: Request, certificates: &Certificates, core: &Core) -> Answer {
    match request {
        Request::Csr { host } => match certificates.request(&host).await {
            Ok(csr) => Answer::Csr(csr),
            Err(error) => Answer::Refused(chain(&error)),
        },
        Request::ForgetNotaryRoot { server, repository } => {
            match forget_notary_root(core, &server, &repository).await {
                Ok(done) => Answer::Done(done),
                Err(error) => Answer::Refused(chain(&error)),
            }
        }
        Request::Install { certificate } => match certificates.install(&certificate).await {
            Ok(()) => Answer::Told(certificates.told()),
            Err(error) => Answer::Refused(chain(&error)),
        },
        Request::Show => Answer::Told(certificates.told()),
    }
}

async fn forget_notary_root(
    core: &Core,
    server: &str,
    repository: &str,
) -> Result<String, ForgetNotaryRootError> {
    let server = NotaryServer::parse(server)?;
    let named = ImageReference::parse(repository).ok();
    let named = named.filter(|named| named.tag().is_none() && named.digest().is_none());
    let named = named.ok_or(ForgetNotaryRootError::NotARepository)?;
    let gun = Gun::new(named.registry(), named.repository());
    core.forget_notary_root(&DefinitionName::default_name(), &server, &gun).await?;
    Ok(format!("what {server} has said of {gun} is forgotten\n"))
}

/// Asks the server that uses this data directory; returns what to tell.
pub(crate) fn ask(data_directory: &Path, request: &Request) -> Result<String, AskError> {
    match exchange(data_directory, request)? {
        Answer::Csr(text) | Answer::Done(text) => Ok(text),
        Answer::Told(told) => Ok(text_of(&told)),
        Answer::Refused(reason) => Err(AskError::Refused { reason }),
    }
}

/// Asks the server that uses this data directory for its certificates.
pub(crate) fn told(data_directory: &Path) -> Result<Told, AskError> {
    match exchange(data_directory, &Request::Show)? {
        Answer::Told(told) => Ok(told),
        Answer::Refused(reason) | Answer::Csr(reason) | Answer::Done(reason) => {
            Err(AskError::Refused { reason })
        }
    }
}

fn exchange(data_directory: &Path, request: &Request) -> Result<Answer, AskError> {
    let path = data_directory.join(SOCKET);
    let at = |source| AskError::Unreachable { path: path.clone(), source };
    check_parents(&path)?;
    let mut stream = std::os::unix::net::UnixStream::connect(&path).map_err(at)?;
    let limit = Some(REQUEST_TIME * 2);
    stream.set_read_timeout(limit).and_then(|()| stream.set_write_timeout(limit)).map_err(at)?;
    let mut text = serde_json::to_vec(request).map_err(AskError::Answer)?;
    text.push(b'\n');
    stream.write_all(&text).map_err(at)?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES)).read_line(&mut line).map_err(at)?;
    serde_json::from_str(&line).map_err(AskError::Answer)
}

fn text_of(told: &Told) -> String {
    let source = serde_json::to_value(told.source).unwrap_or_default();
    let source = source.as_str().unwrap_or_default();
    let mut text = format!("server ({source}):\n{}", text_of_one(&told.server));
    for authority in &told.client_authorities {
        text.push_str("authority of clients:\n");
        text.push_str(&text_of_one(authority));
    }
    if let Some(host) = &told.pending_host {
        let key = told.pending_key.map(|key| format!(", for the key {key}")).unwrap_or_default();
        text.extend(["a certificate for ", host, " is awaited", &key, "\n"]);
    }
    text
}

fn text_of_one(facts: &CertificateFacts) -> String {
    let CertificateFacts { not_after, not_before, sans, sha256, subject } = facts;
    let sans = sans.join(", ");
    format!("  {subject}\n  {sha256}\n  from {not_before} to {not_after}\n  for {sans}\n")
}

/// Why the server was not asked, or said no.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum AskError {
    /// It did not answer as it should.
    #[error("the server at the socket gave no answer that this program knows")]
    Answer(#[source] serde_json::Error),

    /// The certificate cannot be read.
    #[error("cannot read `{}`", path.display())]
    File { path: PathBuf, source: io::Error },

    /// It said no.
    #[error("{reason}")]
    Refused { reason: String },

    /// No server listens there.
    #[error("no server answers at `{}`; is it running, and are you its user?", path.display())]
    Unreachable { path: PathBuf, source: io::Error },

    /// Somebody else could have put the socket there.
    #[error("the socket of the server is not to be trusted")]
    Unsafe(#[from] ReadSecretFileError),
}

/// The name of the socket in the data directory.
pub(crate) const SOCKET: &str = "admin.sock";

// A chain in JSON, whose line ends take two bytes each.
const REQUEST_BYTES: u64 = 128 * 1024;
// The key of a request is made meanwhile.
const REQUEST_TIME: Duration = Duration::from_secs(10);
