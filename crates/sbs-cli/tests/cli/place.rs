//! A directory in which the binary runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Place {
    directory: PathBuf,
    /// Removes the directory at the end.
    _own: Option<TempDir>,
}

/// What a run of the binary came to.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stderr: String,
    pub(crate) stdout: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory: directory.path().to_owned(), _own: Some(directory) }
    }

    /// A place that is there already, and stays when this is dropped.
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self { directory, _own: None }
    }

    /// A directory with a configuration for a server at this port of `localhost`.
    pub(crate) fn with_config(port: u16) -> Self {
        let place = Self::new();
        place.write_config(&json!({
            "HOSTNAME": "localhost", "CICD_PORT": port, "UUID": "u-1", "RUNTIME_TYPE": "vpc",
            "GITHUB_URL": "git@git.example:u/r.git", "DOCKER_REPO": "ns/app",
            "DOCKER_USER": "u", "DOCKER_PASSWORD": "canary-password", "SECRET": SECRET,
        }));
        place
    }

    /// The same, with all certificates.
    pub(crate) fn with_certificates(port: u16) -> Self {
        let place = Self::with_config(port);
        place.good(&["create-client-cert"]);
        place.good(&["create-server-cert"]);
        place
    }

    pub(crate) fn write_config(&self, config: &Value) {
        self.write("env.json", &config.to_string());
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path("env.json"), private).unwrap();
    }

    /// Sets a key of the configuration.
    pub(crate) fn set(&self, key: &str, value: impl Into<Value>) {
        let mut config: Value = serde_json::from_str(&self.read("env.json")).unwrap();
        config[key] = value.into();
        self.write_config(&config);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
    }

    /// The names in the directory, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs the binary with `--env env.json`.
    pub(crate) fn sbs(&self, arguments: &[&str]) -> Run {
        self.run(&[&["--env", "env.json"], arguments].concat())
    }

    /// Runs the binary with `--env env.json`; it must succeed.
    pub(crate) fn good(&self, arguments: &[&str]) -> Run {
        let run = self.sbs(arguments);
        assert_eq!(run.code, 0, "{arguments:?}: {run:?}");
        run
    }

    /// Runs the binary.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&self.command(env!("CARGO_BIN_EXE_sbs")).args(arguments).output().unwrap())
    }

    /// Runs OpenSSL; it must succeed.
    pub(crate) fn openssl(&self, arguments: &[&str]) -> String {
        let run = Run::of(&self.command("openssl").args(arguments).output().unwrap());
        assert_eq!(run.code, 0, "{arguments:?}: {run:?}");
        run.stdout
    }

    #[expect(clippy::disallowed_methods, reason = "the tested binary is a child process")]
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.directory)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.directory)
            .stdin(Stdio::null());
        command
    }
}

impl Run {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code().unwrap(),
            stderr: text(&output.stderr),
            stdout: text(&output.stdout),
        }
    }

    /// The result, printed with `--format json`.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// The base64 of 128 bytes that are zero.
pub(crate) const SECRET: &str = concat!(
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
);
