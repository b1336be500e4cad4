//! Removing what the commands for certificates made.

use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

use super::Certificates;

/// What was removed, and what stayed.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// What is in the directory and was not made by these commands, or is named in the
    /// configuration.
    pub(crate) kept: Vec<PathBuf>,
    pub(crate) removed: Vec<PathBuf>,
}

/// A file was not removed.
#[derive(Debug, Error)]
#[error("cannot remove `{}`", path.display())]
pub(crate) struct RemoveError {
    path: PathBuf,
    source: io::Error,
}

impl Certificates {
    /// Removes the certificates and keys in their default places. What the configuration names stays,
    /// and so does everything that is not known here; `None`: the configuration names the client's
    /// certificate, and so nothing is in its default place.
    pub(crate) fn delete(&self) -> Result<Option<Removed>, RemoveError> {
        if self.supplied_client {
            return Ok(None);
        }
        let directory = &self.default_directory;
        let mut outcome = Removed::default();
        // Keys first: what is left after a failure is worth less.
        let files = FILES.map(|name| directory.join(name));
        for path in [self.client.clone()].into_iter().chain(files) {
            if !path.exists() {
                continue;
            }
            if self.supplied_paths.iter().any(|supplied| same(supplied, &path)) {
                continue;
            }
            fs::remove_file(&path).map_err(|source| failed(&path, source))?;
            outcome.removed.push(path);
        }
        if directory.exists() {
            let entries = fs::read_dir(directory);
            for entry in entries.map_err(|source| failed(directory, source))? {
                outcome.kept.push(entry.map_err(|source| failed(directory, source))?.path());
            }
            outcome.kept.sort();
            if outcome.kept.is_empty() {
                fs::remove_dir(directory).map_err(|source| failed(directory, source))?;
                outcome.removed.push(directory.clone());
            }
        }
        Ok(Some(outcome))
    }
}

fn failed(path: &Path, source: io::Error) -> RemoveError {
    RemoveError { path: path.to_owned(), source }
}

/// Tells whether two paths are of one file, through links too.
fn same(one: &Path, other: &Path) -> bool {
    one == other || fs::canonicalize(one).ok() == fs::canonicalize(other).ok()
}

/// What this client and the original's put into the directory; the vendor's key is not among them,
/// because relying parties know it.
const FILES: [&str; 10] = [
    "client-ca-key.pem",
    "client-cert-key.pem",
    "server-cert-key.pem",
    "client-ca.pem",
    "client-cert.pem",
    "client-cert-bundle.pem",
    "client-csr.pem",
    "server-cert.pem",
    "server-csr.pem",
    "sbsRuntime_Type",
];
