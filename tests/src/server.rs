use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sbs_crypto::random_bytes;

use crate::process::wait_until;
use crate::{Daemon, program};

/// A real `sbs-server`, on loopback, with a data directory of its own.
#[derive(Debug)]
pub struct TestServer {
    address: SocketAddr,
    daemon: Option<Daemon>,
    log_level: &'static str,
    setup: ServerSetup,
}

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerSetup {
    /// Where the settings, the root secret and the data are kept; it must exist.
    pub directory: PathBuf,
    /// The variables of the environment, as `sbs instance-env` prints them.
    pub environment: Vec<(String, String)>,
    /// The tables of the settings file; what stands above the first table, and the root secret,
    /// is written by the harness.
    pub settings: String,
}

impl TestServer {
    /// Writes the settings and a new root secret, and starts the server.
    pub fn start(setup: ServerSetup) -> Result<Self> {
        let directory = &setup.directory;
        let secret = directory.join("root-secret");
        fs::write(&secret, random_bytes::<32>())?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let settings = format!(
            "listen = \"127.0.0.1:0\"\ndata-directory = \"{}\"\n[root-secret]\nfile = \"{}\"\n{}",
            directory.join("data").display(),
            secret.display(),
            setup.settings
        );
        fs::write(directory.join("server.toml"), settings)?;
        let mut server =
            Self { address: ([127, 0, 0, 1], 0).into(), daemon: None, log_level: "info", setup };
        server.start_again()?;
        Ok(server)
    }

    /// Starts the server after [`kill`](Self::kill) or [`terminate`](Self::terminate), with the
    /// data that it left, and on another port.
    pub fn start_again(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            bail!("the server runs");
        }
        let address = self.data_directory().join("address");
        if address.exists() {
            fs::remove_file(&address)?;
        }
        let mut command = program(built("sbs-server")?);
        command.args(["run", "--config"]).arg(self.setup.directory.join("server.toml"));
        command.args(["--log-level", self.log_level]);
        command.envs(self.setup.environment.iter().map(|(name, value)| (name, value)));
        let log = self.setup.directory.join("server.log");
        let mut daemon = Daemon::spawn("sbs-server", &mut command, &log)?;
        self.address = wait_until("the server's address", Duration::from_mins(1), || {
            daemon.ensure_running()?;
            let text = fs::read_to_string(&address).unwrap_or_default();
            let address = text.trim().parse().ok();
            Ok(address.filter(|address| TcpStream::connect(address).is_ok()))
        })
        .with_context(|| format!("sbs-server does not start; {}", daemon.log_text()))?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Sets what the server logs from its next start on: `info` unless this was called.
    pub fn log_at(&mut self, level: &'static str) {
        self.log_level = level;
    }

    /// Sets a variable of the environment that the server has from its next start on.
    pub fn set_variable(&mut self, (name, value): (String, String)) {
        self.setup.environment.retain(|(other, _)| *other != name);
        self.setup.environment.push((name, value));
    }

    /// Kills the server at once, as a crash or a power cut would.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Ends the server and starts one in its place that has its root secret and its certificates,
    /// and nothing else of it.
    pub fn start_anew(&mut self) -> Result<()> {
        self.terminate()?;
        fs::remove_dir_all(self.data_directory())?;
        self.start_again()
    }

    /// Returns the root secret.
    pub fn root_secret(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.root_secret_file())?)
    }

    /// Returns the path of the file with the root secret.
    pub fn root_secret_file(&self) -> PathBuf {
        self.setup.directory.join("root-secret")
    }

    /// Asks the server to end, and waits until it has. Its exit must be a good one.
    pub fn terminate(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("the server does not run")?;
        let status = daemon.terminate()?;
        if !status.success() {
            bail!("the server ended with {status}:\n{}", daemon.log_text());
        }
        Ok(())
    }

    /// Returns the port that the server listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the directory with the server's data.
    pub fn data_directory(&self) -> PathBuf {
        self.setup.directory.join("data")
    }

    /// Returns what the server has written to its outputs since its last start.
    pub fn log_text(&self) -> String {
        let log = fs::read(self.setup.directory.join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Returns a number of bytes that `/proc` tells of the server's process: `VmRSS` is the memory that
    /// it holds, `VmHWM` the most that it ever held.
    pub fn memory(&self, field: &str) -> Result<u64> {
        let id = self.process_id().context("the server does not run")?;
        // The program runs under setpriv, which becomes it.
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let mut lines = status.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(name, _)| *name == field).context("no such field")?;
        let kib = value.split_whitespace().next().context("an empty field")?;
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// Returns the number of the server's process.
    pub fn process_id(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::id)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // A server that ends by itself leaves no process and no mount in the directory that is
        // removed next; one that does not is killed by its handle.
        if let Some(mut daemon) = self.daemon.take() {
            let _ended = daemon.terminate();
        }
    }
}

/// Returns the path of a program of this workspace: it stands beside the one that runs, or in the
/// folder above, where the one that runs is a test.
pub fn built(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).take(2);
    let mut paths = folders.map(|folder: &Path| folder.join(name));
    paths.find(|path| path.exists()).with_context(|| {
        format!("`{name}` is not built: run the tests by `cargo xtask test`, or build it first")
    })
}
