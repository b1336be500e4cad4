use std::fmt;
use std::io::Write;

use sbs_crypto::{ChunkedKey, digest, random_bytes};

use crate::record::{MAX_CONTENT_BYTES, RecordEntry, RecordManifest, padded};
use crate::{ClientShare, Export, RecordName, SealStateError, SealWriter, ServerShare};

/// Seals a state: its records, in the order of [`RecordName`].
///
/// `manifest.json` is made here. See [`StateWriter`] for records that are not at hand all at once.
pub fn seal<W: Write>(
    export: Export,
    server: &ServerShare,
    client: &ClientShare,
    records: &[(RecordName, &[u8])],
    output: W,
) -> Result<W, SealStateError> {
    let mut state = StateWriter::new(export, server, client, output)?;
    for (name, bytes) in records {
        state.record(*name, bytes)?;
    }
    state.finish()
}

/// Writes the records of a state into a sealed file, one after the other.
pub struct StateWriter<W> {
    sealed: SealWriter<W>,
    manifest: RecordManifest,
    written: u64,
}

impl<W: Write> StateWriter<W> {
    /// Begins a state image.
    pub fn new(
        export: Export,
        server: &ServerShare,
        client: &ClientShare,
        output: W,
    ) -> Result<Self, SealStateError> {
        Self::danger_with_salt(&random_bytes(), export, server, client, output)
    }

    /// The same with a salt that the caller chose: see [`SealWriter::danger_with_salt`].
    pub fn danger_with_salt(
        salt: &[u8; ChunkedKey::SALT_BYTES],
        export: Export,
        server: &ServerShare,
        client: &ClientShare,
        output: W,
    ) -> Result<Self, SealStateError> {
        let manifest = RecordManifest {
            epoch: export.epoch,
            export_seq: export.export_seq,
            records: Vec::new(),
            schema: RecordName::Manifest.schema(),
        };
        let sealed = SealWriter::danger_with_salt(salt, export, server, client, output)?;
        Ok(Self { sealed, manifest, written: 0 })
    }

    /// Writes a record. Records come in the order of [`RecordName`], each at most once.
    pub fn record(&mut self, name: RecordName, bytes: &[u8]) -> Result<(), SealStateError> {
        let last = self.manifest.records.last().map(|entry| entry.name);
        if name == RecordName::Manifest || last.is_some_and(|last| last >= name) {
            return Err(SealStateError::Order { name });
        }
        self.write(name, bytes)?;
        self.manifest.records.push(RecordEntry {
            bytes: bytes.len() as u64,
            name,
            schema: name.schema(),
            sha256: digest(bytes),
        });
        Ok(())
    }

    /// Writes `manifest.json`, the padding and the end; returns the output, which is not flushed.
    pub fn finish(mut self) -> Result<W, SealStateError> {
        for name in RecordName::REQUIRED {
            if self.manifest.schema(name).is_none() {
                return Err(SealStateError::Missing { name });
            }
        }
        let manifest = self.manifest.to_bytes();
        self.write(RecordName::Manifest, &manifest)?;
        let padding = padded(self.written) - self.written;
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), padding), &mut self.sealed)?;
        Ok(self.sealed.finish()?)
    }

    fn write(&mut self, name: RecordName, bytes: &[u8]) -> Result<(), SealStateError> {
        let text = name.as_str().as_bytes();
        let length = bytes.len() as u64;
        self.written += 2 + text.len() as u64 + 8 + length;
        if length > name.max_bytes() || self.written > MAX_CONTENT_BYTES {
            return Err(SealStateError::TooLarge { name });
        }
        let name_length = u16::try_from(text.len()).expect("names are short");
        self.sealed.write_all(&name_length.to_be_bytes())?;
        self.sealed.write_all(text)?;
        self.sealed.write_all(&length.to_be_bytes())?;
        self.sealed.write_all(bytes)?;
        Ok(())
    }
}

impl<W> fmt::Debug for StateWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateWriter").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}
