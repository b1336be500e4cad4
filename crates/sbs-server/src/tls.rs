//! The TLS side of the server: who may connect, and our own accept loop.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::map_request;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use sbs_proto::Digest;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::Identity;
use crate::limits;

/// The other end of a connection whose certificate was checked in the handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct AuthenticatedPeer {
    address: SocketAddr,
    certificate: Digest,
}

impl AuthenticatedPeer {
    /// Returns the address that the peer connected from.
    pub(crate) fn address(self) -> SocketAddr {
        self.address
    }

    /// Returns the SHA-256 digest of the peer's certificate.
    pub(crate) fn certificate(self) -> Digest {
        self.certificate
    }
}

/// Which client certificates are accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pinning {
    /// Every valid one under `CLIENT_CA`.
    Authority,
    /// Only that of `CLIENT_CRT`.
    Certificate,
}

/// What the listener needs.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Makes the TLS side of a server from its certificates.
    pub(crate) fn new(identity: &Identity, pinning: Pinning) -> Result<Self, MakeTlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&identity.client_ca, "CLIENT_CA")? {
            roots.add(certificate).map_err(|source| MakeTlsError::ClientCa { source })?;
        }
        let verifier: Arc<dyn ClientCertVerifier> =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|source| MakeTlsError::Verifier { source })?;
        let verifier = match pinning {
            Pinning::Authority => verifier,
            Pinning::Certificate => {
                let pem = identity.client_certificate.as_deref();
                let pem = pem.ok_or(MakeTlsError::NothingToPin)?;
                let chain = certificates(pem, "CLIENT_CRT")?;
                let first = chain.first().ok_or(MakeTlsError::Pem { name: "CLIENT_CRT" })?;
                Arc::new(PinnedVerifier { pinned: sbs_crypto::digest(first), verifier })
            }
        };
        let chain = certificates(&identity.server_certificate, "SERVER_CRT")?;
        let key = PrivateKeyDer::from_pem_slice(identity.server_key.as_bytes())
            .map_err(|_| MakeTlsError::Pem { name: "SERVER_KEY" })?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| MakeTlsError::ServerCertificate { source })?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|source| MakeTlsError::ServerCertificate { source })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session brings back a client certificate without checking it again: one that
        // is no longer trusted could come back that way.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }
}

/// Accepts one client certificate alone, if it also stands under the authority.
#[derive(Debug)]
struct PinnedVerifier {
    pinned: Digest,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for PinnedVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        if sbs_crypto::digest(end_entity) == self.pinned {
            return Ok(verified);
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Why the TLS side cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum MakeTlsError {
    /// `CLIENT_CA` is no certificate authority.
    #[error("CLIENT_CA cannot be used")]
    ClientCa { source: rustls::Error },

    /// A client certificate is to be pinned, and there is none.
    #[error("pin-certificate is set, and CLIENT_CRT is not")]
    NothingToPin,

    /// A text is not PEM of the right kind.
    #[error("{name} holds no PEM of the right kind")]
    Pem { name: &'static str },

    /// The certificate and the key do not fit.
    #[error("SERVER_CRT and SERVER_KEY cannot be used")]
    ServerCertificate { source: rustls::Error },

    /// The client certificates cannot be checked.
    #[error("client certificates cannot be checked with CLIENT_CA")]
    Verifier { source: rustls::server::VerifierBuilderError },
}

/// Accepts connections until `stop`, then lets those that run end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Tls,
    router: Router,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async { (place.await, listener.accept().await) } => accepted,
        };
        let (stream, address) = match accepted.1 {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others must end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, router) = (tls.clone(), router.clone());
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let _place = accepted.0;
            let Some((stream, peer)) = handshake(stream, address, &tls).await else { return };
            let asked = CancellationToken::new();
            let service = TowerToHyperService::new(note_request(router, asked.clone(), peer));
            let builder = builder();
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = watcher.watch(connection) => if let Err(error) = ended {
                    tracing::debug!(%address, error, "connection ended");
                },
                () = nothing_asked(asked) => {
                    tracing::info!(%address, "connection closed: it asked nothing");
                }
            }
        });
    }
    drop(listener);
    let ended = tokio::time::timeout(limits::SHUTDOWN_TIME, graceful.shutdown()).await;
    if ended.is_err() {
        tracing::warn!("some connections were cut");
    }
}

/// Adds what is known of the peer to its requests, and notes when the first one comes.
fn note_request(router: Router, asked: CancellationToken, peer: AuthenticatedPeer) -> Router {
    router.layer(Extension(peer)).layer(map_request(move |request: Request| {
        asked.cancel();
        std::future::ready(request)
    }))
}

/// Ends when no request has come in time. Until the first one has, hyper has no limit of its own:
/// it waits for the bytes that tell which version of HTTP the peer speaks.
async fn nothing_asked(asked: CancellationToken) {
    if tokio::time::timeout(limits::HEADER_TIME, asked.cancelled()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Makes the TLS handshake, with a time limit; a connection that fails it is dropped.
async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    tls: &Tls,
) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, AuthenticatedPeer)> {
    let _no_delay = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.0));
    let stream = match tokio::time::timeout(limits::HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%address, %error, "handshake refused");
            return None;
        }
        Err(_elapsed) => {
            tracing::info!(%address, "handshake took too long");
            return None;
        }
    };
    // The verifier lets nobody through without a certificate; a peer without one cannot be here.
    let certificate = sbs_crypto::digest(stream.get_ref().1.peer_certificates()?.first()?);
    Some((stream, AuthenticatedPeer { address, certificate }))
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIME)
        .max_buf_size(limits::HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(limits::HEADER_TIME))
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(u32::try_from(limits::HEADER_BYTES).unwrap_or(u32::MAX));
    builder
}

/// Returns the SHA-256 of the authority of clients, DER; of the first, where there are several.
pub(crate) fn client_ca_sha256(identity: &Identity) -> Result<Digest, MakeTlsError> {
    let name = "CLIENT_CA";
    let chain = certificates(&identity.client_ca, name)?;
    Ok(sbs_crypto::digest(chain.first().ok_or(MakeTlsError::Pem { name })?))
}

fn certificates(
    pem: &str,
    name: &'static str,
) -> Result<Vec<CertificateDer<'static>>, MakeTlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(MakeTlsError::Pem { name })
}
