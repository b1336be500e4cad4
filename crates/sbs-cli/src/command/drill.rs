//! The restore drill: a state image is imported into a server that is started for that and removed.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use sbs_client::{CallError, Client, Shown, StateImport};
use sbs_crypto::pki::CertificateAuthority;
use sbs_proto::StateHeader;
use serde_json::json;
use tempfile::TempDir;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::command::Context;
use crate::error::{CommandError, Kind};
use crate::file::{self, Access, Existing, ReadFileError};
use crate::limits::{DRILL_END, DRILL_START, PEM_BYTES};
use crate::state_file::StateFile;

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drill<'a> {
    pub(crate) file: &'a Path,
    pub(crate) root_secret: &'a Path,
    pub(crate) program: Option<&'a Path>,
}

/// Restores a state image, and removes what it was restored to.
pub(crate) async fn run(context: &Context<'_>, drill: &Drill<'_>) -> Result<(), CommandError> {
    let mut file = StateFile::open(drill.file)?;
    let header = file.header().map_err(|error| CommandError::new(Kind::Unverified, error))?;
    let program = find(drill.program)?;
    let mut directory = tempfile::Builder::new();
    directory.prefix("sbs-drill-").permissions(Permissions::from_mode(0o700));
    let directory = directory.tempdir().map_err(local)?;
    let result = tokio::select! {
        result = restore(context, drill, file, &header, &program, &directory) => result,
        _ = tokio::signal::ctrl_c() => {
            Err(CommandError::new(Kind::Refused, "interrupted; the server of the drill is ended"))
        }
    };
    let path = directory.path().to_owned();
    if let Err(error) = directory.close() {
        context.ui.warning(format_args!("`{}` is not removed: {error}", path.display()));
    }
    let (definition, epoch) = result?;
    if let Some(pinned) = context.config.min_epoch()?.filter(|pinned| *pinned > header.epoch) {
        context.ui.warning(format_args!(
            "a newer state image was saved: this one has epoch {}, STATE_MIN_EPOCH is {pinned}",
            header.epoch
        ));
    }
    context.ui.result(
        "verify=OK: the state image was restored, and the server of the drill is removed",
        json!({"verified": true, "definition": definition, "epoch": epoch}),
    )
}

/// Starts a server, imports the state image and looks at what came of it. The server ends with this.
async fn restore(
    context: &Context<'_>,
    drill: &Drill<'_>,
    file: StateFile,
    header: &StateHeader,
    program: &Path,
    directory: &TempDir,
) -> Result<(Option<bool>, u64), CommandError> {
    let identity = TrialIdentity::new(context)?;
    let mut server = Server::start(program, drill.root_secret, directory.path(), &identity)?;
    context.ui.note("the server of the drill starts");
    let port = server.wait().await?;
    let client = identity.client(context, port)?;
    let import = StateImport { min_epoch: None, secret: context.config.secret()? };
    let bytes = tokio::fs::File::from_std(file.bytes);
    let imported = client.import_state(import, file.size, bytes).await.map_err(refused)?;
    // What was imported is only there if it can be exported again.
    let mut again = Vec::new();
    client.export_state(&mut again).await?;
    let again = StateHeader::read(&mut again.as_slice())
        .map_err(|error| CommandError::new(Kind::Unverified, error))?;
    match imported.epoch {
        Some(epoch) if epoch > header.epoch && again.epoch == epoch => {
            Ok((imported.definition, epoch))
        }
        _ => Err(CommandError::new(
            Kind::Unverified,
            "the server of the drill does not have the epoch that it should have",
        )),
    }
}

/// Makes of a refusal what it means here: this state image cannot be restored with these secrets.
fn refused(error: CallError) -> CommandError {
    // A server that is too old has no such route: that says nothing of the state image.
    let refused =
        matches!(error, CallError::Refused { status, .. } if status != 404 && status < 500);
    let error = CommandError::from(error);
    if refused { error.of_kind(Kind::Unverified) } else { error }
}

/// Who the server of the drill is, and who may speak to it: it has the real authority of clients, to
/// which a state image is bound, and a certificate that is made up for the drill.
struct TrialIdentity {
    authority: CertificateAuthority,
    client: Zeroizing<Vec<u8>>,
    environment: Vec<(&'static str, Zeroizing<String>)>,
}

impl TrialIdentity {
    fn new(context: &Context<'_>) -> Result<Self, CommandError> {
        let internal = |error| CommandError::new(Kind::Internal, error);
        let certificates = &context.certificates;
        let now = OffsetDateTime::now_utc();
        let authority = CertificateAuthority::create(now).map_err(internal)?;
        let issued = authority.issue_server(HOST, now).map_err(internal)?;
        let encode = |pem: &str| Zeroizing::new(STANDARD.encode(pem));
        let environment = vec![
            ("CLIENT_CRT", encode(&certificates.client_certificate()?)),
            ("CLIENT_CA", encode(&certificates.authority_certificate()?)),
            ("SERVER_CRT", encode(&issued.certificate_pem)),
            ("SERVER_KEY", encode(&issued.key_pem)),
        ];
        let client = Zeroizing::new(file::read(&certificates.client, PEM_BYTES)?);
        Ok(Self { authority, client, environment })
    }

    fn client(&self, context: &Context<'_>, port: u16) -> Result<Client, CommandError> {
        let ui = context.ui.clone();
        let client = Client::builder(HOST, port)?
            .trust(self.authority.certificate_pem().as_bytes())?
            .identity(&self.client)?
            .with_observer(move |event| ui.observe(event))
            .build()?;
        Ok(client)
    }
}

/// The server of the drill. It is ended when this is dropped.
struct Server {
    address: PathBuf,
    child: Child,
    log: PathBuf,
}

impl Server {
    #[expect(
        clippy::disallowed_methods,
        reason = "the rule is the server's; the environment is empty"
    )]
    fn start(
        program: &Path,
        root_secret: &Path,
        directory: &Path,
        identity: &TrialIdentity,
    ) -> Result<Self, CommandError> {
        let failed = |source| ReadFileError::Io { path: root_secret.to_owned(), source };
        let root_secret = fs::canonicalize(root_secret).map_err(failed)?;
        let (data, settings, log) =
            (directory.join("data"), directory.join("server.toml"), directory.join("log"));
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata-directory = {}\n[root-secret]\nprovider = \"file\"\n\
             file = {}\n",
            quoted(&data)?,
            quoted(&root_secret)?
        );
        file::write(&settings, text.as_bytes(), Access::Owner, Existing::Keep)?;
        let out = File::create_new(&log).map_err(local)?;
        // It ends with this program, too, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program);
        command.args(["run", "--config"]).arg(&settings).env_clear().env("PATH", PATH);
        for (name, value) in &identity.environment {
            command.env(name, value.as_str());
        }
        command.stdin(Stdio::null()).stdout(out.try_clone().map_err(local)?).stderr(out);
        let child = command.spawn().map_err(|error| {
            CommandError::new(Kind::Config, error).hint("the drill needs setpriv, of util-linux")
        })?;
        Ok(Self { address: data.join("address"), child, log })
    }

    /// Waits until the server listens; returns its port.
    async fn wait(&mut self) -> Result<u16, CommandError> {
        let started = Instant::now();
        loop {
            let address = fs::read_to_string(&self.address).unwrap_or_default();
            if let Some((_, port)) = address.trim_end().rsplit_once(':')
                && let Ok(port) = port.parse()
            {
                return Ok(port);
            }
            let ended = self.child.try_wait().map_err(local)?;
            let text = match ended {
                Some(status) => {
                    format!("the server of the drill ended ({status}): {}", self.told())
                }
                None if started.elapsed() > DRILL_START => {
                    format!("the server of the drill does not start: {}", self.told())
                }
                None => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            return Err(CommandError::new(Kind::Config, text).hint(
                "the drill runs a server on this machine: as root, with buildah, and with the \
                 root secret in a file as a server wants it",
            ));
        }
    }

    /// Returns what the server has said last.
    fn told(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
        Shown::short(last, TOLD_CHARACTERS).to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It unmounts what it mounted, unless it has to be killed.
        let told = id.is_some_and(|id| kill_process(id, Signal::TERM).is_ok());
        let started = Instant::now();
        while told && started.elapsed() < DRILL_END {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        // Both fail only if it has ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Finds the server's program.
fn find(given: Option<&Path>) -> Result<PathBuf, CommandError> {
    let candidates: Vec<PathBuf> = if let Some(path) = given {
        vec![path.to_owned()]
    } else {
        let beside = std::env::current_exe().ok().map(|path| path.with_file_name(PROGRAM));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&path).map(|directory| directory.join(PROGRAM));
        beside.into_iter().chain(in_path).collect()
    };
    let found = candidates.iter().find(|path| path.is_file());
    let found = found.and_then(|path| fs::canonicalize(path).ok());
    found.ok_or_else(|| {
        let text = match given {
            Some(path) => format!("there is no program `{}`", path.display()),
            None => format!("there is no {PROGRAM} beside this program or in PATH"),
        };
        CommandError::new(Kind::Usage, text)
            .hint("name the server's program: --server-program PATH")
    })
}

/// Returns a path as a TOML string, whose escapes are those of JSON.
fn quoted(path: &Path) -> Result<String, CommandError> {
    let text = path.to_str().filter(|text| !text.contains('\u{7f}'));
    text.map(|text| json!(text).to_string()).ok_or_else(|| {
        let text = format!("the path `{}` is not plain text", path.display());
        CommandError::new(Kind::Usage, text)
    })
}

fn local(error: io::Error) -> CommandError {
    CommandError::new(Kind::Config, error)
}

const HOST: &str = "localhost";
const LOOK: Duration = Duration::from_millis(50);
/// Where the server finds its tools.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PROGRAM: &str = "sbs-server";
const TOLD_CHARACTERS: usize = 300;
