mod bucket;
mod export;
mod import;
mod records;
mod rotation;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sbs_crypto::digest;
use sbs_proto::{BuildSelector, Digest, Progress, StateHeader, StateSecret};
use sbs_state::{CaBinding, KeyRing, OpenStateError, RootSecretProvider, ServerShare};

use super::Sealing;
use super::error::{ExportStateError, ImportStateError};
use crate::core::Core;
use crate::core::state::import::ImportedState;
use crate::core::tests::{Act, CANARY, at, body, ended, name, open, open_with, root_secret};

/// A server and its data.
struct Server {
    core: Core,
    directory: tempfile::TempDir,
}

impl Server {
    fn fresh() -> Self {
        Self::with(&ring(1, &[]), 7)
    }

    fn with(ring: &KeyRing, client_ca: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let core = open_with(directory.path(), Act::Succeed, sealed_for(ring, client_ca)).unwrap();
        Self { core, directory }
    }

    /// One that has built once.
    async fn built() -> Self {
        Self::fresh().build().await
    }

    async fn build(self) -> Self {
        if self.core.slot(&name()).unwrap().now().known.is_none() {
            self.core.initialise(&name(), body(1)).await.unwrap();
        }
        self.core.start_build(&name()).await.unwrap();
        assert_eq!(ended(&self.core).await.progress(), Progress::Succeeded);
        self
    }

    fn restarted(self) -> Self {
        let Self { core, directory } = self;
        drop(core);
        let core = open(directory.path(), Act::Succeed);
        Self { core, directory }
    }

    async fn export(&self) -> Vec<u8> {
        let opened = self.core.export_state(&name()).await.unwrap().into_opened().unwrap();
        let mut bytes = Vec::new();
        let mut file = opened.file.take(u64::MAX);
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.len() as u64, Some(digest(&bytes))), (opened.length, opened.digest));
        bytes
    }

    async fn import(&self, file: &[u8]) -> Result<ImportedState, ImportStateError> {
        self.import_with(file, 1, 0).await
    }

    async fn import_with(
        &self,
        file: &[u8],
        secret: u8,
        min_epoch: u64,
    ) -> Result<ImportedState, ImportStateError> {
        let secret = StateSecret::from_bytes([secret; 128]);
        self.core.import_state(&name(), &secret, min_epoch, Cursor::new(file.to_vec())).await
    }

    /// Imports, which must be refused with this word and change nothing on the disk.
    async fn refuses(&self, file: &[u8], code: &str) {
        let before = tree(self.directory.path());
        match self.import(file).await.unwrap_err() {
            ImportStateError::Open(error) => assert_eq!(error.code(), code, "{error}"),
            ImportStateError::Content { .. } => assert_eq!(code, "bad_content"),
            error => panic!("{error:?}"),
        }
        assert_eq!(tree(self.directory.path()), before);
    }

    fn image_key(&self) -> String {
        let now = self.core.slot(&name()).unwrap().now();
        now.keys.as_ref().unwrap().image().current.verifying_key().to_pem()
    }

    fn epoch(&self) -> u64 {
        self.core.slot(&name()).unwrap().now().known.as_ref().unwrap().epoch
    }
}

fn ring(current: u8, previous: &[u8]) -> KeyRing {
    let previous =
        previous.iter().map(|first| Box::new(root_secret(*first)) as Box<dyn RootSecretProvider>);
    KeyRing::new(Box::new(root_secret(current)), previous.collect()).unwrap()
}

fn sealed_for(ring: &KeyRing, client_ca: u8) -> Sealing {
    Sealing::new(ring, Digest::from_bytes([client_ca; 32]), CaBinding::Enforced).unwrap()
}

fn header(file: &[u8]) -> StateHeader {
    StateHeader::read(&mut &file[..]).unwrap()
}

/// Returns mode and content of everything below a directory.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let mode = path.metadata().unwrap().permissions().mode();
            let content = if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            if path.is_dir() {
                waiting.push(path.clone());
            }
            found.insert(path, (mode, content));
        }
    }
    found
}

/// What a notary has said of a repository.
const ROOTS: &str = r#"{"repositories":{"https://notary.example registry.example/app":{"gun":"registry.example/app","root":"{}","versions":{"targets":3}}}}"#;
