use std::fmt;

use rcgen::string::PrintableString;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use thiserror::Error;
use time::{Duration, OffsetDateTime, UtcOffset};
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use super::describe::{CERTIFICATE_LABEL, parse};
use super::host;
use super::key::CertificateKey;
use super::request::ServerRequest;
use crate::sign::GenerateKeyError;
use crate::{armor, random_bytes};

/// The authority that both sides of mutual TLS trust, with its secret key.
pub struct CertificateAuthority {
    certificate_pem: String,
    key_pem: Zeroizing<String>,
    subject: Vec<u8>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, CertificateKey>,
}

impl CertificateAuthority {
    /// Makes a fresh authority: RSA of 2048 bits, valid for 730 days.
    ///
    /// Takes a good part of a second: not for an async task.
    pub fn create(now: OffsetDateTime) -> Result<Self, IssueError> {
        let (key, key_pem) = CertificateKey::generate()?;
        let mut params = params(Profile::Authority, now)?;
        params.serial_number = Some(random_serial());
        params.use_authority_key_identifier_extension = true;
        let certificate = params.self_signed(&key)?;
        let parsed = parse(certificate.der()).expect("a written certificate can be read");
        Ok(Self::new(&parsed, Issuer::new(params, key), certificate.pem(), key_pem))
    }

    /// Loads an authority from the PEM texts of its certificate and its key, which are kept as
    /// they are.
    ///
    /// The key is unencrypted PKCS#8, PKCS#1 or SEC 1; RSA of at least 2048 bits, P-256 or P-384.
    /// Dates are not looked at: issuing does.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, LoadError> {
        let der = armor::decode_one(CERTIFICATE_LABEL, certificate_pem)
            .ok_or(LoadError::CertificateNotPem)?;
        let certificate = parse(&der).ok_or(LoadError::CertificateDamaged)?;
        check_may_sign(&certificate)?;
        let key = CertificateKey::from_pem(key_pem)?;
        if *certificate.public_key().subject_public_key.data != *key.der_bytes() {
            return Err(LoadError::KeyMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&der.as_slice().into(), key)
            .map_err(|_| LoadError::CertificateDamaged)?;
        let key_pem = Zeroizing::new(key_pem.to_owned());
        Ok(Self::new(&certificate, issuer, certificate_pem.to_owned(), key_pem))
    }

    /// Returns the certificate. Public.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Returns the key. Secret.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Makes a key and a certificate for a client, valid for 365 days.
    pub fn issue_client(&self, now: OffsetDateTime) -> Result<Issued, IssueError> {
        self.issue(params(Profile::Client, now)?, now)
    }

    /// Makes a key and a certificate for the server at `host`, valid for 365 days.
    ///
    /// `host` is a DNS name or an IP address, as clients name it, without port or brackets.
    pub fn issue_server(&self, host: &str, now: OffsetDateTime) -> Result<Issued, IssueError> {
        let name = host::parse(host).ok_or(IssueError::NotAHost)?;
        self.issue(params(Profile::Server(name), now)?, now)
    }

    /// Makes a certificate for the server at `host` (see [`issue_server`](Self::issue_server)) whose
    /// key stays where the request was made; returns it as PEM.
    ///
    /// Of the request only the key counts: names and usages are the authority's to decide.
    pub fn sign_server_request(
        &self,
        request: &ServerRequest,
        host: &str,
        now: OffsetDateTime,
    ) -> Result<String, IssueError> {
        let name = host::parse(host).ok_or(IssueError::NotAHost)?;
        let certificate = self.certify(params(Profile::Server(name), now)?, request.key(), now)?;
        Ok(certificate.pem())
    }

    fn new(
        certificate: &X509Certificate<'_>,
        issuer: Issuer<'static, CertificateKey>,
        certificate_pem: String,
        key_pem: Zeroizing<String>,
    ) -> Self {
        Self {
            certificate_pem,
            key_pem,
            subject: certificate.subject().as_raw().to_vec(),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            issuer,
        }
    }

    fn issue(&self, params: CertificateParams, now: OffsetDateTime) -> Result<Issued, IssueError> {
        self.check_time(now)?;
        let (key, key_pem) = CertificateKey::generate()?;
        // The request first: it must not carry what only an authority decides.
        let request_pem = params.serialize_request(&key)?.pem()?;
        let certificate = self.certify(params, &key, now)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem, request_pem })
    }

    /// Makes a certificate for a key, which does not outlive the authority's own.
    fn certify(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        now: OffsetDateTime,
    ) -> Result<Certificate, IssueError> {
        self.check_time(now)?;
        params.not_before = params.not_before.max(self.not_before);
        params.not_after = params.not_after.min(self.not_after);
        params.serial_number = Some(random_serial());
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?;
        self.check_issuer(certificate.der())?;
        Ok(certificate)
    }

    fn check_time(&self, now: OffsetDateTime) -> Result<(), IssueError> {
        let (not_before, not_after) = (self.not_before, self.not_after);
        if (not_before..not_after).contains(&now) {
            return Ok(());
        }
        Err(IssueError::AuthorityNotValid { not_before, not_after })
    }

    // The library keeps each kind of attribute once, so that a loaded name with two
    // organisational units comes back with one. Nobody could build a path to such an issuer.
    fn check_issuer(&self, der: &[u8]) -> Result<(), IssueError> {
        let certificate = parse(der).expect("a written certificate can be read");
        if certificate.issuer().as_raw() != self.subject {
            return Err(IssueError::AuthorityNameNotSupported);
        }
        Ok(())
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateAuthority")
    }
}

/// A certificate with its key and the request it could have been made from.
pub struct Issued {
    /// The certificate. Public.
    pub certificate_pem: String,
    /// The unencrypted PKCS#8 key. Secret.
    pub key_pem: Zeroizing<String>,
    /// The certificate signing request (RFC 2986). Public.
    pub request_pem: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued")
    }
}

/// Why a certificate was not made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The name of the authority has a form that cannot be copied into a certificate.
    #[error(
        "the authority's name repeats an attribute or nests some; use an authority with a plain \
         name"
    )]
    AuthorityNameNotSupported,

    /// The authority is expired or not valid yet.
    #[error(
        "the authority is valid from {not_before} to {not_after}, which does not include the \
         present; make a new one, or correct the clock"
    )]
    AuthorityNotValid {
        /// The first second of its validity.
        not_before: OffsetDateTime,
        /// The last second of its validity.
        not_after: OffsetDateTime,
    },

    /// The certificate could not be written.
    #[error("cannot write the certificate")]
    Encode(#[from] rcgen::Error),

    /// The key could not be made.
    #[error("cannot make the key of the certificate")]
    GenerateKey(#[from] GenerateKeyError),

    /// The host is neither a DNS name nor an IP address.
    #[error("the host is neither a DNS name nor an IP address; give it without port or brackets")]
    NotAHost,

    /// The time is so far off that a date cannot be written.
    #[error("the present time is out of range; correct the clock")]
    TimeOutOfRange,
}

/// Why an authority was not loaded.
///
/// Says nothing about the content of the key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum LoadError {
    /// The block does not hold a certificate.
    #[error("the authority's certificate is damaged")]
    CertificateDamaged,

    /// The text is not one PEM block.
    #[error(
        "the authority's certificate is not one PEM block `CERTIFICATE` of at most {} KiB",
        armor::MAX_BYTES / 1024
    )]
    CertificateNotPem,

    /// The key is under a passphrase.
    #[error("the authority's key is encrypted; `openssl pkey` writes it without a passphrase")]
    KeyEncrypted,

    /// The key and the certificate are of different pairs.
    #[error("the authority's key does not belong to its certificate")]
    KeyMismatch,

    /// The text does not hold one key.
    #[error(
        "the authority's key is not one PEM block `PRIVATE KEY` of at most {} KiB",
        armor::MAX_BYTES / 1024
    )]
    KeyNotPem,

    /// The key is damaged, too short, or of another kind.
    #[error("the authority's key is not RSA of 2048 to 8192 bits, P-256 or P-384, or is damaged")]
    KeyNotSupported,

    /// The certificate is not one of an authority.
    #[error("the certificate is not one of an authority, which may sign others")]
    NotAnAuthority,
}

fn check_may_sign(certificate: &X509Certificate<'_>) -> Result<(), LoadError> {
    let usage = certificate.key_usage().map_err(|_| LoadError::CertificateDamaged)?;
    if !certificate.is_ca() || usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(LoadError::NotAnAuthority);
    }
    Ok(())
}

pub(super) enum Profile {
    Authority,
    Client,
    Server(SanType),
}

// Everything is set: the defaults of the library are valid from 1975 to 4096.
pub(super) fn params(
    profile: Profile,
    now: OffsetDateTime,
) -> Result<CertificateParams, IssueError> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let mut params = CertificateParams::default();
    let (name, lifetime) = match profile {
        Profile::Authority => {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.extended_key_usages = vec![ClientAuth, ServerAuth];
            ("Client CA", AUTHORITY_LIFETIME)
        }
        Profile::Client => {
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ClientAuth, ServerAuth];
            ("Client", LEAF_LIFETIME)
        }
        Profile::Server(host) => {
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ServerAuth];
            params.subject_alt_names = vec![host];
            ("Server", LEAF_LIFETIME)
        }
    };
    params.distinguished_name = distinguished_name(name);
    (params.not_before, params.not_after) = validity(now, lifetime)?;
    Ok(params)
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // RFC 5280, appendix A: the country is a printable string, which the library does not know.
    let country = PrintableString::try_from("US").expect("letters are printable");
    name.push(DnType::CountryName, rcgen::DnValue::PrintableString(country));
    name.push(DnType::StateOrProvinceName, "NY");
    name.push(DnType::LocalityName, "Armonk");
    name.push(DnType::OrganizationName, "IBM");
    name.push(DnType::OrganizationalUnitName, "Digital Assets");
    name.push(DnType::CommonName, common_name);
    name
}

pub(super) fn validity(
    now: OffsetDateTime,
    lifetime: Duration,
) -> Result<(OffsetDateTime, OffsetDateTime), IssueError> {
    // Certificates have whole seconds and years of four digits.
    let now = now.to_offset(UtcOffset::UTC).truncate_to_second();
    let not_before = now.checked_sub(CLOCK_SKEW).ok_or(IssueError::TimeOutOfRange)?;
    let not_after = now.checked_add(lifetime).ok_or(IssueError::TimeOutOfRange)?;
    if not_before.year() < FIRST_YEAR || not_after.year() > LAST_YEAR {
        return Err(IssueError::TimeOutOfRange);
    }
    Ok((not_before, not_after))
}

pub(super) fn random_serial() -> SerialNumber {
    SerialNumber::from_slice(&random_bytes::<16>())
}

const AUTHORITY_LIFETIME: Duration = Duration::days(730);
const LEAF_LIFETIME: Duration = Duration::days(365);
const CLOCK_SKEW: Duration = Duration::minutes(5);

// RFC 5280, 4.1.2.5: the two forms of time together reach from 1950 to 9999.
const FIRST_YEAR: i32 = 1950;
const LAST_YEAR: i32 = 9999;
