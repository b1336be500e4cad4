//! Whether clients will accept a certificate: it is held against what they look at.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName};
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
    let described = chain.describe();
    let name = ServerName::try_from(host.as_str())
        .map_err(|_| CheckCertificateError::OtherHost { host: host.as_str().to_owned() })?;
    let roots = roots(authorities).map_err(|_| CheckCertificateError::Authorities)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    let verifier = verifier.map_err(|_| CheckCertificateError::Authorities)?;
    let chain: Vec<_> = chain.der().map(CertificateDer::from).collect();
    let (first, others) = chain.split_first().ok_or(CheckCertificateError::Authorities)?;
    let verified = verifier.verify_server_cert(first, others, &name, &[], unix_time(now));
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
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => CheckCertificateError::OtherHost { host: host.as_str().to_owned() },
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => CheckCertificateError::OtherPurpose,
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => CheckCertificateError::OtherAuthority,
        source => CheckCertificateError::Rejected { source },
    })
}
