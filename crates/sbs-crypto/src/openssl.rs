//! The OpenSSL command line, an independent judge in tests.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A private directory in which OpenSSL runs.
pub(crate) struct OpenSsl(TempDir);

impl OpenSsl {
    /// Makes an empty directory.
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Writes a file into the directory.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    /// Reads a file of the directory.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    /// Reads a text file of the directory.
    pub(crate) fn read_text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// Runs `openssl` with these words, and returns its output or its complaint.
    pub(crate) fn run(&self, arguments: &str) -> Result<String, String> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test of a crate below the server's tool runner, with fixed arguments"
        )]
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.path())
            .env("OPENSSL_CONF", "/dev/null")
            .output()
            .expect("the tests need the `openssl` command, Debian package openssl");
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("openssl {arguments}: {}", text(&output.stderr)))
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}
