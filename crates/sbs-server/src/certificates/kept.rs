//! What is kept of the server's certificates: the one in use, and the key of one that is awaited.

use std::sync::Arc;

use sbs_crypto::pki::{ServerHost, ServerKey};
use sbs_proto::{CertificateSource, Digest};
use sbs_state::AtRest;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::core::error::KeepError;
use crate::sealed_file::SealedFile;
use crate::store::Store;
use crate::tls::Pair;

/// The two sealed records.
#[derive(Debug)]
pub(crate) struct Kept {
    certificate: SealedFile,
    request: SealedFile,
}

/// A certificate that the server has made or was given over the wire, with its key.
#[derive(Debug)]
pub(super) struct KeptCertificate {
    pub(super) pair: Pair,
    /// The digest of the certificate from environment or files that it was installed over: the same
    /// one does not come back at the next start.
    pub(super) replaced: Option<Digest>,
    pub(super) source: CertificateSource,
}

/// A key that a certificate was asked for.
#[derive(Debug)]
pub(super) struct Pending {
    /// The host of the last request.
    pub(super) host: ServerHost,
    pub(super) key: ServerKey,
}

impl Kept {
    pub(crate) fn new(store: &Store, at_rest: &Arc<AtRest>) -> Self {
        let file = |name, what| SealedFile::new(store, at_rest, name, what);
        Self {
            certificate: file("server-certificate", CERTIFICATE),
            request: file("certificate-request", REQUEST),
        }
    }

    pub(super) fn certificate(&self) -> Result<Option<KeptCertificate>, KeepError> {
        let Some(record) = self.certificate.load_json::<CertificateRecord>()? else {
            return Ok(None);
        };
        supported(CERTIFICATE, record.schema)?;
        let CertificateRecord { certificate, key, replaced, source, .. } = record;
        Ok(Some(KeptCertificate { pair: Pair { certificate, key }, replaced, source }))
    }

    /// Keeps certificate and key together, in one file that is replaced whole.
    pub(super) fn set_certificate(&self, kept: &KeptCertificate) -> Result<(), KeepError> {
        self.certificate.save_json(&CertificateRecord {
            certificate: kept.pair.certificate.clone(),
            key: kept.pair.key.clone(),
            replaced: kept.replaced,
            schema: SCHEMA,
            source: kept.source,
        })
    }

    pub(super) fn pending(&self) -> Result<Option<Pending>, KeepError> {
        let Some(record) = self.request.load_json::<RequestRecord>()? else { return Ok(None) };
        supported(REQUEST, record.schema)?;
        let damaged = || KeepError::Damaged { what: REQUEST, source: None };
        let host = ServerHost::parse(&record.host).ok_or_else(damaged)?;
        let key = ServerKey::from_pem(&record.key).map_err(KeepError::damaged(REQUEST))?;
        Ok(Some(Pending { host, key }))
    }

    pub(super) fn set_pending(&self, pending: &Pending) -> Result<(), KeepError> {
        self.request.save_json(&RequestRecord {
            host: pending.host.as_str().to_owned(),
            key: Zeroizing::new(pending.key.pem().to_owned()),
            schema: SCHEMA,
        })
    }

    pub(super) fn remove_pending(&self) -> Result<(), KeepError> {
        self.request.remove()
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct CertificateRecord {
    certificate: String,
    key: Zeroizing<String>,
    replaced: Option<Digest>,
    schema: u32,
    source: CertificateSource,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RequestRecord {
    host: String,
    key: Zeroizing<String>,
    schema: u32,
}

fn supported(what: &'static str, schema: u32) -> Result<(), KeepError> {
    if schema == SCHEMA { Ok(()) } else { Err(KeepError::Newer { what, schema }) }
}

const SCHEMA: u32 = 1;
const CERTIFICATE: &str = "the server's certificate";
const REQUEST: &str = "the key of the requested certificate";
