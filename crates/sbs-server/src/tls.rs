//! The TLS side of the server: what it shows, who may connect, and how both change while it runs.

mod clients;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{RootCertStore, ServerConfig};
use sbs_crypto::pki::RevocationList;
use sbs_proto::Digest;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::watch;
use zeroize::Zeroizing;

pub(crate) use crate::tls::clients::Clients;

/// The configuration that connections are accepted with now. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Live(watch::Sender<Configuration>);

/// What a connection is accepted with. It is replaced as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    server: Arc<ServerConfig>,
    clients: Clients,
}

/// A certificate with those between it and its authority, and its key. PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: Zeroizing<String>,
}

impl Live {
    pub(crate) fn new(configuration: Configuration) -> Self {
        Self(watch::Sender::new(configuration))
    }

    /// Has connections that come from now on accepted with another configuration. Those that are
    /// open go on, unless their client certificate is no longer accepted.
    pub(crate) fn set(&self, configuration: Configuration) {
        self.0.send_replace(configuration);
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.borrow().server)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Configuration> {
        self.0.subscribe()
    }
}

impl Configuration {
    /// Makes a configuration; the key must be that of the certificate.
    pub(crate) fn new(pair: &Pair, clients: &Clients) -> Result<Self, MakeTlsError> {
        let chain = certificates(&pair.certificate, "the server's certificate")?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
            .map_err(|_| MakeTlsError::Pem { name: "the server's key" })?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| MakeTlsError::ServerCertificate { source })?
            .with_client_cert_verifier(clients.verifier())
            .with_single_cert(chain, key)
            .map_err(|source| MakeTlsError::ServerCertificate { source })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session brings back a client certificate without checking it again: one that
        // is no longer trusted could come back that way.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { server: Arc::new(config), clients: clients.clone() })
    }

    pub(crate) fn clients(&self) -> Clients {
        self.clients.clone()
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair")
    }
}

/// Why the TLS side cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum MakeTlsError {
    /// What should be an authority of clients is none.
    #[error("a certificate in CLIENT_CA or `client.ca-file` is that of no authority")]
    ClientCa { source: rustls::Error },

    /// Nobody who is known signed a revocation list.
    #[error(
        "a revocation list of `{issuer}` in `client.crl-file` is signed by no authority in CLIENT_CA \
         or `client.ca-file`; remove the list, or add the certificate of whoever signed it"
    )]
    ForeignList { issuer: String },

    /// A client certificate is to be pinned, and there is none.
    #[error("pin-certificate is set, and CLIENT_CRT is not")]
    NothingToPin,

    /// A text is not PEM of the right kind.
    #[error("{name} holds no PEM of the right kind")]
    Pem { name: &'static str },

    /// The certificate and the key do not fit.
    #[error("the server's certificate and its key cannot be used together")]
    ServerCertificate { source: rustls::Error },

    /// The client certificates cannot be checked.
    #[error("client certificates cannot be checked with CLIENT_CA")]
    Verifier { source: rustls::server::VerifierBuilderError },
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

pub(crate) fn roots(
    authorities: &[CertificateDer<'static>],
) -> Result<Arc<RootCertStore>, MakeTlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|source| MakeTlsError::ClientCa { source })?;
    }
    Ok(Arc::new(roots))
}

pub(crate) fn unix_time(time: OffsetDateTime) -> UnixTime {
    let seconds = u64::try_from(time.unix_timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

/// Reads the certificates in a PEM text, of which there must be one.
pub(crate) fn certificates(
    pem: &str,
    name: &'static str,
) -> Result<Vec<CertificateDer<'static>>, MakeTlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(MakeTlsError::Pem { name })
}

/// Returns the digest of the first certificate of a PEM text.
pub(crate) fn fingerprint(pem: &str, name: &'static str) -> Result<Digest, MakeTlsError> {
    let chain = certificates(pem, name)?;
    Ok(sbs_crypto::digest(chain.first().ok_or(MakeTlsError::Pem { name })?))
}

/// Reads the revocation lists in a PEM text, of which there must be one.
pub(crate) fn revocation_lists(
    pem: &str,
    name: &'static str,
) -> Result<Vec<RevocationList>, MakeTlsError> {
    let lists = CertificateRevocationListDer::pem_slice_iter(pem.as_bytes());
    let lists: Option<Vec<_>> = lists.map(|list| RevocationList::parse(&list.ok()?)).collect();
    lists.filter(|lists| !lists.is_empty()).ok_or(MakeTlsError::Pem { name })
}
