//! First contact with a server that has no certificate of the client's authority yet.

use std::sync::{Arc, OnceLock};

use reqwest::Method;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use sbs_proto::{BuildStatus, Digest, StatusReply, route};
use serde::Deserialize;
use serde_json::json;

use crate::builder::{self, BuildClientError, ClientBuilder, WantsTrust};
use crate::client::{NOTHING, accepted};
use crate::{CallError, Client, body};

/// A client of a server whose certificate nobody has verified.
///
/// It makes the three calls that bring the server to a certificate, none of which sends a secret.
/// What it receives may come from anybody, unless the caller gave the fingerprint of the server's
/// certificate or compares [`server_certificate`](Self::server_certificate) with it.
#[derive(Clone, Debug)]
pub struct BootstrapClient {
    client: Client,
    seen: Arc<OnceLock<Vec<u8>>>,
}

/// The stage of a builder that takes the server as it comes and has no client certificate yet.
#[derive(Debug)]
pub struct Unverified {
    expected: Option<Digest>,
}

/// The stage of a builder of a [`BootstrapClient`] that has all it needs.
pub struct UnverifiedReady {
    expected: Option<Digest>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ClientBuilder<WantsTrust> {
    /// Accepts any certificate of the server or, with the SHA-256 digest of one in DER, only that
    /// one, whoever issued it. Host name and dates do not count.
    #[must_use]
    pub fn danger_accept_any_server_certificate(
        self,
        expected: Option<Digest>,
    ) -> ClientBuilder<Unverified> {
        let Self { base, settings, stage: WantsTrust(()) } = self;
        ClientBuilder { base, settings, stage: Unverified { expected } }
    }
}

impl ClientBuilder<Unverified> {
    /// Presents the client certificate in `pem`, which holds the private key too.
    pub fn identity(self, pem: &[u8]) -> Result<ClientBuilder<UnverifiedReady>, BuildClientError> {
        let Self { base, settings, stage: Unverified { expected } } = self;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.map_err(|_| BuildClientError::Identity)?;
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| BuildClientError::Identity)?;
        if chain.is_empty() {
            return Err(BuildClientError::Identity);
        }
        let stage = UnverifiedReady { expected, chain, key };
        Ok(ClientBuilder { base, settings, stage })
    }
}

impl ClientBuilder<UnverifiedReady> {
    /// Makes the client; nothing is sent yet.
    pub fn build_bootstrap(self) -> Result<BootstrapClient, BuildClientError> {
        let Self { base, settings, stage: UnverifiedReady { expected, chain, key } } = self;
        let seen = Arc::new(OnceLock::new());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = FirstContact { expected, provider: provider.clone(), seen: seen.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| BuildClientError::Identity)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key)
            .map_err(|_| BuildClientError::Identity)?;
        let http = builder::http(settings.timeout).tls_backend_preconfigured(config).build();
        let http = http.map_err(|source| BuildClientError::Tls { source })?;
        let client = Client::new(http.clone(), http, base, settings);
        Ok(BootstrapClient { client, seen })
    }
}

impl BootstrapClient {
    /// Asks how far the build is.
    pub async fn status(&self) -> Result<BuildStatus, CallError> {
        self.client.status().await
    }

    /// See [`Client::server_request`].
    pub async fn server_request(&self, host: &str) -> Result<String, CallError> {
        self.client.server_request(host).await
    }

    /// See [`Client::install_certificate`].
    pub async fn install_certificate(&self, pem: &str) -> Result<StatusReply, CallError> {
        self.client.install_certificate(pem).await
    }

    /// Returns the certificate that the server showed, DER; `None` before the first call. The
    /// server has its key. All calls of a client are made to a server with this certificate.
    pub fn server_certificate(&self) -> Option<&[u8]> {
        self.seen.get().map(Vec::as_slice)
    }
}

impl Client {
    /// Asks for the server's request for a certificate (RFC 2986, PEM), whose key it keeps; `host`
    /// is the name or address that clients use. Nothing of the text is checked.
    pub async fn server_request(&self, host: &str) -> Result<String, CallError> {
        #[derive(Deserialize)]
        struct Reply {
            csr: String,
        }
        // The server may make a key first.
        let reply = self.late(Method::GET, &route::csr(host), NOTHING.to_owned()).await?;
        Ok(body::parse_object::<Reply>(&reply)?.csr)
    }

    /// Gives the server the certificate for its request, PEM. Public.
    pub async fn install_certificate(&self, pem: &str) -> Result<StatusReply, CallError> {
        let body = json!({ "certificate": pem }).to_string();
        accepted(&self.late(Method::POST, route::CERTIFICATE, body).await?)
    }
}

impl std::fmt::Debug for UnverifiedReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnverifiedReady")
    }
}

/// Accepts the first certificate that comes, and none but that one from then on. That the server has
/// its key is checked as ever.
#[derive(Debug)]
struct FirstContact {
    expected: Option<Digest>,
    provider: Arc<CryptoProvider>,
    seen: Arc<OnceLock<Vec<u8>>>,
}

impl ServerCertVerifier for FirstContact {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let other = CertificateError::ApplicationVerificationFailure;
        let digest = sbs_crypto::digest(end_entity);
        if self.expected.as_ref().is_some_and(|expected| *expected != digest) {
            return Err(other.into());
        }
        if self.seen.get_or_init(|| end_entity.to_vec()) != end_entity.as_ref() {
            return Err(other.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
