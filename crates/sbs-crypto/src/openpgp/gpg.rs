//! `GnuPG`, an independent judge in tests.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A home directory of `GnuPG`, which believes that it is noon on 1 June 2026.
pub(crate) struct Gpg(TempDir);

impl Gpg {
    /// Makes an empty home.
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Makes a key without passphrase; returns its certificate, binary.
    pub(crate) fn generate(&self, user_id: &str, kind: &str, options: &str) -> Vec<u8> {
        self.run(&format!("{options} --quick-generate-key {user_id} {kind}"), b"").unwrap();
        self.run(&format!("--export {user_id}"), b"").unwrap().0
    }

    /// Runs `gpg` with these words on this input; returns its output and what it says, or only the
    /// latter if it fails.
    pub(crate) fn run(&self, arguments: &str, input: &[u8]) -> Result<(Vec<u8>, String), String> {
        let mut child = self
            .command("gpg")
            .args(["--batch", "--no-tty", "--pinentry-mode=loopback", "--passphrase="])
            .args(["--trust-model=always", "--faked-system-time=20260601T120000!"])
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tests need the `gpg` command, Debian package gnupg");
        // Short enough for a pipe, or gpg reads before it writes.
        let mut stdin = child.stdin.take().unwrap();
        let _closed_early = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok((output.stdout, says))
        } else {
            Err(format!("gpg {arguments}: {says}"))
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, program: &str) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test of a crate below the server's tool runner, with fixed arguments"
        )]
        let mut command = Command::new(program);
        command.env("GNUPGHOME", self.path()).env("LC_ALL", "C");
        command
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ended = self.command("gpgconf").args(["--kill", "gpg-agent"]).status();
    }
}
