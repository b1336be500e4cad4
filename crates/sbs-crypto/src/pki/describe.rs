use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sbs_proto::Digest;
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::{armor, digest};

/// What a person or a program wants to know about a certificate. Nothing of it is verified.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The first second of its validity.
    pub not_before: OffsetDateTime,
    /// The last second of its validity.
    pub not_after: OffsetDateTime,
    /// The subject as one line without control characters, such as `C=US, ST=NY, CN=Server`.
    pub subject: String,
    /// The alternative names: `DNS:host`, `IP:address`, or `other:` and the kind of name.
    pub sans: Vec<String>,
    /// The digest of the DER form.
    pub sha256: Digest,
    /// Whether it may sign other certificates.
    pub is_ca: bool,
}

impl CertificateInfo {
    /// Tells whether a TLS client that connects to `host` finds it among the alternative names.
    ///
    /// An address counts only as `IP:`, a name only as `DNS:`, as rustls and OpenSSL have it.
    /// Wildcards are not expanded.
    pub fn is_for_host(&self, host: &str) -> bool {
        let wanted = match host.parse::<IpAddr>() {
            Ok(address) => format!("IP:{address}"),
            Err(_) => format!("DNS:{host}"),
        };
        self.sans.iter().any(|name| name.eq_ignore_ascii_case(&wanted))
    }
}

/// Reads the first certificate of a PEM text of at most 64 KiB.
pub fn describe(certificate_pem: &str) -> Result<CertificateInfo, DescribeError> {
    let blocks = armor::decode(certificate_pem).ok_or(DescribeError::NotPem)?;
    let block = blocks
        .into_iter()
        .find(|block| block.label == CERTIFICATE_LABEL)
        .ok_or(DescribeError::NotPem)?;
    info(&block.der).ok_or(DescribeError::NotACertificate)
}

/// Reads a certificate in DER form.
pub fn describe_der(der: &[u8]) -> Result<CertificateInfo, DescribeError> {
    info(der).ok_or(DescribeError::NotACertificate)
}

/// Reads every certificate of a PEM text of at most 64 KiB, which holds one at least.
pub fn describe_all(certificates_pem: &str) -> Result<Vec<CertificateInfo>, DescribeError> {
    let blocks = armor::decode(certificates_pem).ok_or(DescribeError::NotPem)?;
    let certificates = blocks.iter().filter(|block| block.label == CERTIFICATE_LABEL);
    let all: Option<Vec<_>> = certificates.map(|block| info(&block.der)).collect();
    match all.ok_or(DescribeError::NotACertificate)? {
        none if none.is_empty() => Err(DescribeError::NotPem),
        all => Ok(all),
    }
}

/// Why a certificate could not be described.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum DescribeError {
    /// A block is there, but its bytes are no X.509 certificate.
    #[error("the PEM block `CERTIFICATE` does not hold a certificate")]
    NotACertificate,

    /// There is no such block, or the text is too long.
    #[error("no PEM block `CERTIFICATE`, or more than {} KiB", armor::MAX_BYTES / 1024)]
    NotPem,
}

/// Reads a certificate that fills `der` to its end.
pub(super) fn info(der: &[u8]) -> Option<CertificateInfo> {
    let certificate = parse(der)?;
    let names = certificate
        .subject_alternative_name()
        .ok()?
        .map_or(&[][..], |extension| &extension.value.general_names);
    let validity = certificate.validity();
    Some(CertificateInfo {
        not_before: validity.not_before.to_datetime(),
        not_after: validity.not_after.to_datetime(),
        subject: printable(&certificate.subject().to_string()),
        sans: names.iter().map(name_text).collect(),
        sha256: digest(der),
        is_ca: certificate.is_ca(),
    })
}

/// Parses a certificate that fills `der` to its end.
pub(super) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(certificate)
}

pub(super) const CERTIFICATE_LABEL: &str = "CERTIFICATE";

fn name_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("DNS:{}", printable(name)),
        GeneralName::IPAddress(bytes) => match address(bytes) {
            Some(address) => format!("IP:{address}"),
            None => "other:damaged IP address".to_owned(),
        },
        GeneralName::RFC822Name(_) => "other:e-mail".to_owned(),
        GeneralName::URI(_) => "other:URI".to_owned(),
        _ => "other:unknown".to_owned(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}

// The text is shown on a terminal, and anyone can write a certificate.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
