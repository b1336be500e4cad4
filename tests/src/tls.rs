use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, NameConstraints, RevokedCertParams, SerialNumber,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use time::{Duration, OffsetDateTime};

use crate::{output, program};

/// A certificate authority of the tests' own.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate, PEM.
    pub pem: String,
}

/// A certificate with its key, both PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

impl Leaf {
    /// Returns the certificate followed by the key, as clients keep them.
    pub fn bundle(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }

    /// Returns the serial number of the certificate, as openssl reads it.
    pub fn serial(&self) -> Result<SerialNumber> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), &self.certificate)?;
        let mut openssl = program("openssl");
        let told = output(openssl.args(["x509", "-noout", "-serial", "-in"]).arg(file.path()))?;
        let digits = told.trim().strip_prefix("serial=").context("a serial number")?;
        Ok(SerialNumber::from(hex::decode(digits)?))
    }
}

impl Authority {
    /// Makes an authority with a new key.
    pub fn new(name: &str) -> Result<Self> {
        let mut parameters = named(name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = parameters.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(parameters, key), pem })
    }

    /// Takes an authority that exists: to issue what its owner would not.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key).context("the authority's key")?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).context("the authority")?;
        Ok(Self { issuer, pem: certificate.to_owned() })
    }

    /// Issues a certificate for servers on loopback.
    pub fn issue_loopback(&self, name: &str) -> Result<Leaf> {
        self.issue_with(name, |_| {})
    }

    /// Issues a certificate for servers on loopback; `change` alters it.
    pub fn issue_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Leaf> {
        let mut parameters = CertificateParams::new(["127.0.0.1".into(), "localhost".into()])?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut parameters);
        self.issue(&parameters)
    }

    /// Issues a certificate for clients that is valid for `lifetime` from `start`, and only for
    /// `purposes`.
    pub fn issue_client(
        &self,
        start: OffsetDateTime,
        lifetime: Duration,
        purposes: &[ExtendedKeyUsagePurpose],
    ) -> Result<Leaf> {
        let mut parameters = named("Client");
        parameters.not_before = start;
        parameters.not_after = start + lifetime;
        parameters.extended_key_usages = purposes.to_vec();
        self.issue(&parameters)
    }

    /// Signs a request (PEM); `change` alters what it asks for. Valid for two days from yesterday.
    pub fn sign(
        &self,
        request: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<String> {
        let mut request = CertificateSigningRequestParams::from_pem(request)?;
        let now = OffsetDateTime::now_utc();
        request.params.not_before = now - Duration::days(1);
        request.params.not_after = now + Duration::days(1);
        request.params.use_authority_key_identifier_extension = true;
        change(&mut request.params);
        Ok(request.signed_by(&self.issuer)?.pem())
    }

    /// Makes a list (PEM, RFC 5280, 5) that revokes the certificates with these serial numbers.
    pub fn revoke(&self, serials: &[SerialNumber]) -> Result<String> {
        self.revoke_until(serials, OffsetDateTime::now_utc() + Duration::days(1))
    }

    /// Makes such a list whose next one should be there at `next_update`.
    pub fn revoke_until(
        &self,
        serials: &[SerialNumber],
        next_update: OffsetDateTime,
    ) -> Result<String> {
        let now = OffsetDateTime::now_utc();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: serial.clone(),
            revocation_time: now - Duration::hours(1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// Makes an authority that stands under this one.
    pub fn intermediate(&self, name: &str) -> Result<Self> {
        self.below(named(name))
    }

    /// Makes an authority under this one that may speak for hosts in this domain alone.
    pub fn constrained(&self, name: &str, domain: &str) -> Result<Self> {
        let mut parameters = named(name);
        parameters.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_owned())],
            excluded_subtrees: Vec::new(),
        });
        self.below(parameters)
    }

    fn below(&self, mut parameters: CertificateParams) -> Result<Self> {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let pem = parameters.signed_by(&key, &self.issuer)?.pem();
        Ok(Self { issuer: Issuer::new(parameters, key), pem })
    }

    /// Makes a client certificate that is signed by its own key.
    pub fn self_signed_client() -> Result<Leaf> {
        let mut parameters = named("Client");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Leaf { certificate, key: key.serialize_pem() })
    }

    fn issue(&self, parameters: &CertificateParams) -> Result<Leaf> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?.pem();
        Ok(Leaf { certificate, key: key.serialize_pem() })
    }
}

/// A connection that a test writes to and reads from itself.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Connects to a server at this port of loopback; `authority` and `identity` are PEM.
pub(crate) fn connect(port: u16, authority: &str, identity: &str) -> Result<TlsStream> {
    connect_with(port, client_config(authority, identity, rustls::DEFAULT_VERSIONS)?)
}

/// Connects to a server at this port of loopback; whoever keeps the configuration can resume
/// sessions.
pub fn connect_with(port: u16, config: Arc<ClientConfig>) -> Result<TlsStream> {
    let connection = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
    Ok(StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port))?))
}

/// Makes the configuration of a client that speaks these versions; `authority` and `identity` are
/// PEM.
pub fn client_config(
    authority: &str,
    identity: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let chain = CertificateDer::pem_slice_iter(identity.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.as_bytes())?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?;
    Ok(Arc::new(config))
}

fn named(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}
