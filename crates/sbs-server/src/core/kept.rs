//! An image definition on disk, with its keys: sealed under the root secret.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sbs_proto::{Definition, DefinitionName, Members, ParseDefinitionError, key};
use sbs_state::{ClientShare, DefinitionKeys, LoadedKeys};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::core::error::KeepError;
use crate::core::state::Sealing;
use crate::store::{read_small_file, replace_file};

/// An image definition as it was set, with what proves the client's secret.
pub(crate) struct Kept {
    members: Members,
    client_share: ClientShare,
    epoch: u64,
}

impl Kept {
    /// Takes the members of a body and what was made of its secret; secrets of no use here are
    /// dropped.
    pub(crate) fn new(mut members: Members, client_share: ClientShare, epoch: u64) -> Self {
        for dropped in [key::SECRET, key::NEW_SECRET, key::ISV_SECRET] {
            members.remove(dropped);
        }
        Self { members, client_share, epoch }
    }

    /// Returns the same of another epoch.
    pub(crate) fn with_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// Returns how often keys or secret of the definition have changed hands: it grows with new
    /// keys, a new secret and an import.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the members as JSON, with the credentials in them.
    pub(crate) fn expose_members(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.members.expose_json().as_bytes().to_vec())
    }

    /// Parses the definition.
    pub(crate) fn definition(&self) -> Result<Definition, ParseDefinitionError> {
        Definition::parse(&self.members)
    }

    /// Returns what was made of the client's secret.
    pub(crate) fn client_share(&self) -> &ClientShare {
        &self.client_share
    }

    /// Returns what was made of the client's secret.
    pub(crate) fn into_client_share(self) -> ClientShare {
        self.client_share
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

/// Where an image definition and its keys are kept.
#[derive(Debug)]
pub(crate) struct Keep {
    sealing: Arc<Sealing>,
    name: DefinitionName,
    directory: PathBuf,
}

impl Keep {
    pub(crate) fn new(sealing: Arc<Sealing>, name: &DefinitionName, directory: &Path) -> Self {
        Self { sealing, name: name.clone(), directory: directory.to_owned() }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn load_definition(&self) -> Result<Option<Kept>, KeepError> {
        let Some(text) = self.load("definition")? else { return Ok(None) };
        let record: Record =
            serde_json::from_slice(&text).map_err(KeepError::damaged(DEFINITION))?;
        if record.schema > SCHEMA {
            return Err(KeepError::Newer { what: DEFINITION, schema: record.schema });
        }
        let members =
            Members::parse(record.members.as_bytes()).map_err(KeepError::damaged(DEFINITION))?;
        let share =
            ClientShare::parse_hex(&record.client_share).map_err(KeepError::damaged(DEFINITION))?;
        Ok(Some(Kept { members, client_share: share, epoch: record.epoch }))
    }

    pub(crate) fn save_definition(&self, kept: &Kept) -> Result<(), KeepError> {
        let record = Record {
            client_share: kept.client_share.expose_hex(),
            epoch: kept.epoch,
            members: kept.members.expose_json(),
            schema: SCHEMA,
        };
        let text = serde_json::to_vec(&record).map_err(KeepError::damaged(DEFINITION))?;
        self.save("definition", &Zeroizing::new(text))
    }

    /// Loads the keys; those that a record of an older server lacks are made now.
    pub(crate) fn load_keys(&self, now: OffsetDateTime) -> Result<Option<LoadedKeys>, KeepError> {
        let Some(record) = self.load("keys")? else { return Ok(None) };
        DefinitionKeys::from_record(&record, now).map(Some).map_err(KeepError::damaged(KEYS))
    }

    pub(crate) fn save_keys(&self, keys: &DefinitionKeys) -> Result<(), KeepError> {
        self.save("keys", &keys.to_record())
    }

    fn load(&self, what: &'static str) -> Result<Option<Zeroizing<Vec<u8>>>, KeepError> {
        let sealed = read_small_file(&self.file(what)).map_err(KeepError::io(what))?;
        let Some(sealed) = sealed else { return Ok(None) };
        let opened = self.sealing.at_rest.open(&self.label(what), &sealed);
        opened.map(Some).map_err(KeepError::damaged(what))
    }

    fn save(&self, what: &'static str, plaintext: &[u8]) -> Result<(), KeepError> {
        let sealed = self.sealing.at_rest.seal(&self.label(what), plaintext);
        let sealed = sealed.map_err(KeepError::damaged(what))?;
        replace_file(&self.file(what), &sealed).map_err(KeepError::io(what))
    }

    fn file(&self, what: &str) -> PathBuf {
        self.directory.join(format!("{what}.sealed"))
    }

    /// Names the definition and the record, so that sealed files cannot be exchanged.
    fn label(&self, what: &str) -> String {
        format!("definitions/{}/{what}", self.name)
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    client_share: Zeroizing<String>,
    /// In one file with the share, so that a new secret and its epoch are written at once. It was
    /// not in schema 1.
    #[serde(default)]
    epoch: u64,
    members: Zeroizing<String>,
    schema: u32,
}

const SCHEMA: u32 = 2;
const DEFINITION: &str = "the image definition";
const KEYS: &str = "the keys";
