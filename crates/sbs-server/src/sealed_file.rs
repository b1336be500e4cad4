//! One sealed record of the data directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sbs_state::AtRest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::core::error::KeepError;
use crate::store::{Store, read_small_file, replace_file};

/// A record in the data directory, sealed under the root secret and bound to its name.
#[derive(Clone, Debug)]
pub(crate) struct SealedFile {
    at_rest: Arc<AtRest>,
    name: &'static str,
    path: PathBuf,
    what: &'static str,
}

impl SealedFile {
    /// Names a record; `what` is for errors.
    pub(crate) fn new(
        store: &Store,
        at_rest: &Arc<AtRest>,
        name: &'static str,
        what: &'static str,
    ) -> Self {
        Self { at_rest: Arc::clone(at_rest), name, path: store.sealed_file(name), what }
    }

    /// Names a record in a data directory that another process may be using, to be read only.
    pub(crate) fn beside(
        root: &Path,
        at_rest: &Arc<AtRest>,
        name: &'static str,
        what: &'static str,
    ) -> Self {
        let path = Store::sealed_file_in(root, name);
        Self { at_rest: Arc::clone(at_rest), name, path, what }
    }

    /// Opens the record, if it is there.
    pub(crate) fn load(&self) -> Result<Option<Zeroizing<Vec<u8>>>, KeepError> {
        let sealed = read_small_file(&self.path).map_err(KeepError::io(self.what))?;
        let Some(sealed) = sealed else { return Ok(None) };
        self.at_rest.open(self.name, &sealed).map(Some).map_err(KeepError::damaged(self.what))
    }

    /// Opens the record and parses its JSON text.
    pub(crate) fn load_json<T: DeserializeOwned>(&self) -> Result<Option<T>, KeepError> {
        let Some(text) = self.load()? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(KeepError::damaged(self.what))
    }

    /// Replaces the record whole.
    pub(crate) fn save(&self, content: &[u8]) -> Result<(), KeepError> {
        let sealed =
            self.at_rest.seal(self.name, content).map_err(KeepError::damaged(self.what))?;
        replace_file(&self.path, &sealed).map_err(KeepError::io(self.what))
    }

    /// Replaces the record whole by a JSON text.
    pub(crate) fn save_json(&self, content: &impl Serialize) -> Result<(), KeepError> {
        let text = serde_json::to_vec(content).map_err(KeepError::damaged(self.what))?;
        self.save(&Zeroizing::new(text))
    }

    /// Removes the record; it may be gone already.
    pub(crate) fn remove(&self) -> Result<(), KeepError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(KeepError::io(self.what)),
        }
    }
}
