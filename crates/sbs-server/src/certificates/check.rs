//! Whether clients will accept a certificate: it is held against what they look at.

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error};
use sbs_crypto::pki::{ServerChain, ServerHost};
use time::OffsetDateTime;

use crate::certificates::error::CheckCertificateError;
use crate::tls::{provider, roots, unix_time};

/// Checks that a chain leads from a certificate for servers at this host to one of these
/// authorities, and that all of it is valid now.
pub(super) fn check(
    chain: &ServerChain,
    host: &ServerHost,
    authorities: &[CertificateDer<'static>],
    now: OffsetDateTime,
) -> Result<(), CheckCertificateError> {
    check_chain(chain, authorities, now)?;
    let other_host = || CheckCertificateError::OtherHost { host: host.as_str().to_owned() };
    let name = ServerName::try_from(host.as_str()).map_err(|_| other_host())?;
    let first = chain.der().next().map(CertificateDer::from).ok_or_else(other_host)?;
    let first = ParsedCertificate::try_from(&first)
        .map_err(|source| CheckCertificateError::Rejected { source })?;
    verify_server_name(&first, &name).map_err(|_| other_host())
}

/// Checks the same but for the host: of a certificate that was checked before, and now comes with
/// another chain.
pub(super) fn check_chain(
    chain: &ServerChain,
    authorities: &[CertificateDer<'static>],
    now: OffsetDateTime,
) -> Result<(), CheckCertificateError> {
    let described = chain.describe();
    let roots = roots(authorities).map_err(|_| CheckCertificateError::Authorities)?;
    let chain: Vec<_> = chain.der().map(CertificateDer::from).collect();
    let (first, others) = chain.split_first().ok_or(CheckCertificateError::Authorities)?;
    let algorithms = provider().signature_verification_algorithms.all;
    let verified = ParsedCertificate::try_from(first).and_then(|first| {
        let at = unix_time(now);
        verify_server_cert_signed_by_trust_anchor(&first, &roots, others, at, algorithms)
    });
    let Err(error) = verified else { return Ok(()) };
    Err(match error {
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => CheckCertificateError::NotValidNow {
            not_before: described.not_before,
            not_after: described.not_after,
        },
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => CheckCertificateError::OtherPurpose,
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => CheckCertificateError::OtherAuthority,
        source => CheckCertificateError::Rejected { source },
    })
}
