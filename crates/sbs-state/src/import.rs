use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use sbs_proto::{Digest, StateHeader};
use zeroize::Zeroizing;

use crate::read::collect;
use crate::record::MAX_CONTENT_BYTES;
use crate::{
    ClientShare, ContentError, OpenReader, OpenStateError, RecordManifest, RecordName, ServerShare,
    read_records,
};

/// Opens a state image: whole, genuine, and a state; but perhaps not one for this server.
///
/// `servers` are the shares that this server has, the current one and those of earlier root
/// secrets. At most 10 MiB are kept in memory.
pub fn open(
    servers: &[ServerShare],
    client: &ClientShare,
    input: impl Read,
) -> Result<OpenedState, OpenStateError> {
    let mut sealed = OpenReader::new(servers, client, MAX_CONTENT_BYTES, input)?;
    let mut records = BTreeMap::new();
    let manifest = read_records(&mut sealed, |name, length, body| {
        records.insert(name, collect(length, body)?);
        Ok(())
    })?;
    let header = sealed.header().clone();
    if (manifest.epoch(), manifest.export_seq()) != (header.epoch, header.export_seq) {
        return Err(ContentError::Epoch.into());
    }
    Ok(OpenedState { header, manifest, records })
}

/// A genuine state, of which nothing can be used before it is accepted.
pub struct OpenedState {
    header: StateHeader,
    manifest: RecordManifest,
    records: BTreeMap<RecordName, Zeroizing<Vec<u8>>>,
}

impl OpenedState {
    /// Returns the header, which is genuine.
    pub fn header(&self) -> &StateHeader {
        &self.header
    }

    /// Accepts the state, if it is for this server and not older than one that is known.
    pub fn accept(self, policy: &ImportPolicy) -> Result<AcceptedState, OpenStateError> {
        policy.check(&self.header)?;
        let Self { header, manifest, records } = self;
        Ok(AcceptedState { header, manifest, records })
    }
}

impl fmt::Debug for OpenedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedState").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Which genuine states a server accepts.
///
/// That a server with keys of its own imports none is for the server to see to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImportPolicy {
    /// The lowest epoch that the client accepts: what it noted at its last export.
    pub min_epoch: u64,
    /// The epoch of the server, or of its counter; 0 for a fresh server without one.
    pub own_epoch: u64,
    /// The authority of the server's clients: SHA-256 of its certificate, DER.
    pub client_ca_sha256: Digest,
    /// Whether the image must be of a server with the same authority.
    pub ca_binding: CaBinding,
}

impl ImportPolicy {
    /// Tells whether a state with this header, which must be genuine, is accepted.
    pub fn check(&self, header: &StateHeader) -> Result<(), OpenStateError> {
        let floor = self.min_epoch.max(self.own_epoch);
        if header.epoch < floor {
            return Err(OpenStateError::Rollback { floor, got: header.epoch });
        }
        // An image that names no authority is of none.
        let same = header.meta.client_ca_sha256 == Some(self.client_ca_sha256);
        if self.ca_binding == CaBinding::Enforced && !same {
            return Err(OpenStateError::CaMismatch);
        }
        Ok(())
    }
}

/// Whether a state image belongs to one authority of clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CaBinding {
    /// Another authority is accepted, because the old one was lost. Whoever has an old file and its
    /// SECRET can then use the keys in it on a server of their own.
    DangerIgnored,
    /// The authority must be the same.
    Enforced,
}

/// A state that a server may make its own: only [`OpenedState::accept`] makes one.
pub struct AcceptedState {
    header: StateHeader,
    manifest: RecordManifest,
    records: BTreeMap<RecordName, Zeroizing<Vec<u8>>>,
}

impl AcceptedState {
    /// Returns the header.
    pub fn header(&self) -> &StateHeader {
        &self.header
    }

    /// Returns a record, which is secret.
    pub fn record(&self, name: RecordName) -> Option<&[u8]> {
        self.records.get(&name).map(|bytes| bytes.as_slice())
    }

    /// Returns the schema of a record, if there is that record.
    pub fn schema(&self, name: RecordName) -> Option<u32> {
        self.manifest.schema(name)
    }
}

impl fmt::Debug for AcceptedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptedState").field("header", &self.header).finish_non_exhaustive()
    }
}
