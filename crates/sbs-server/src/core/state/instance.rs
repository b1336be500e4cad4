//! What this server is, apart from what it holds, and how often it has exported.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use sbs_crypto::random_bytes;
use sbs_state::AtRest;
use serde::{Deserialize, Serialize};

use crate::core::error::KeepError;
use crate::store::{Store, read_small_file, replace_file};

/// The sealed file `instance` of the data directory.
#[derive(Debug)]
pub(in crate::core) struct Instance {
    path: PathBuf,
    record: Mutex<Record>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The number of the last export that was begun.
    export_seq: u64,
    /// Random, made once: tells two servers with the same keys apart.
    instance_id: String,
    schema: u32,
}

impl Instance {
    /// Loads the file, or makes it.
    pub(in crate::core) fn load(store: &Store, at_rest: &AtRest) -> Result<Self, KeepError> {
        let path = store.sealed_file(NAME);
        if let Some(sealed) = read_small_file(&path).map_err(KeepError::io(WHAT))? {
            let text = at_rest.open(NAME, &sealed).map_err(KeepError::damaged(WHAT))?;
            let record: Record = serde_json::from_slice(&text).map_err(KeepError::damaged(WHAT))?;
            if record.schema != SCHEMA {
                return Err(KeepError::Newer { what: WHAT, schema: record.schema });
            }
            return Ok(Self { path, record: Mutex::new(record) });
        }
        let instance_id = hex::encode(random_bytes::<16>());
        let record = Record { export_seq: 0, instance_id, schema: SCHEMA };
        let instance = Self { path, record: Mutex::new(record.clone()) };
        instance.save(at_rest, record)?;
        Ok(instance)
    }

    pub(super) fn id(&self) -> String {
        self.record().instance_id
    }

    /// Returns the number of the next export, which is kept before this returns: a server that
    /// dies now does not give it again.
    pub(super) fn begin_export(&self, at_rest: &AtRest) -> Result<u64, KeepError> {
        let mut record = self.record();
        record.export_seq = record.export_seq.saturating_add(1);
        let number = record.export_seq;
        self.save(at_rest, record)?;
        Ok(number)
    }

    /// Sees to it that the next export has a number above this one.
    pub(super) fn exported_before(&self, at_rest: &AtRest, number: u64) -> Result<(), KeepError> {
        let mut record = self.record();
        if number <= record.export_seq {
            return Ok(());
        }
        record.export_seq = number;
        self.save(at_rest, record)
    }

    fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn save(&self, at_rest: &AtRest, record: Record) -> Result<(), KeepError> {
        let text = serde_json::to_vec(&record).map_err(KeepError::damaged(WHAT))?;
        let sealed = at_rest.seal(NAME, &text).map_err(KeepError::damaged(WHAT))?;
        replace_file(&self.path, &sealed).map_err(KeepError::io(WHAT))?;
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
        Ok(())
    }
}

const NAME: &str = "instance";
const SCHEMA: u32 = 1;
const WHAT: &str = "the record of this server";

#[cfg(test)]
mod tests {
    use sbs_state::{KeyRing, RootSecret};

    use super::*;

    #[test]
    fn numbers_of_exports_grow_across_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let root = RootSecret::parse(&(0..32).collect::<Vec<u8>>()).unwrap();
        let at_rest = AtRest::new(&KeyRing::new(Box::new(root), Vec::new()).unwrap()).unwrap();
        let first = Instance::load(&store, &at_rest).unwrap();
        assert_eq!(first.begin_export(&at_rest).unwrap(), 1);
        let second = Instance::load(&store, &at_rest).unwrap();
        assert_eq!(second.id(), first.id());
        assert_eq!(second.begin_export(&at_rest).unwrap(), 2);
        second.exported_before(&at_rest, 7).unwrap();
        second.exported_before(&at_rest, 3).unwrap();
        assert_eq!(Instance::load(&store, &at_rest).unwrap().begin_export(&at_rest).unwrap(), 8);
        assert_eq!(store.sealed_records().unwrap(), ["instance"]);
    }
}
