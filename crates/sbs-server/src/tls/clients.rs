//! Which client certificates are accepted: authorities, their revocation lists, and one that is
//! pinned.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sbs_crypto::pki::RevocationList;
use sbs_proto::Digest;
use time::OffsetDateTime;

use crate::tls::{MakeTlsError, provider, roots, unix_time};

/// Which client certificates are accepted.
#[derive(Clone, Debug)]
pub(crate) struct Clients(Arc<Verifier>);

impl Clients {
    /// Accepts the certificates under these authorities that no list of theirs revokes; where one is
    /// pinned, that alone.
    pub(crate) fn new(
        authorities: &[CertificateDer<'static>],
        lists: &[RevocationList],
        pinned: Option<Digest>,
    ) -> Result<Self, MakeTlsError> {
        // A list that is never looked at revokes nothing, and would seem to.
        let foreign = |list: &&RevocationList| {
            !authorities.iter().any(|authority| list.is_signed_by(authority))
        };
        if let Some(list) = lists.iter().find(foreign) {
            return Err(MakeTlsError::ForeignList { issuer: list.issuer().to_owned() });
        }
        let mut verifiers = Vec::new();
        for authority in authorities {
            let mut own = lists.iter().filter(|list| list.is_signed_by(authority)).peekable();
            if own.peek().is_none() {
                verifiers.push(webpki(authority, None)?);
            }
            for list in own {
                verifiers.push(webpki(authority, Some(list))?);
            }
        }
        let subjects = verifiers.iter().flat_map(|verifier| verifier.root_hint_subjects());
        let mut subjects: Vec<_> = subjects.cloned().collect();
        subjects.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
        subjects.dedup_by(|one, other| one.as_ref() == other.as_ref());
        let algorithms = provider().signature_verification_algorithms;
        Ok(Self(Arc::new(Verifier { algorithms, pinned, subjects, verifiers })))
    }

    /// Tells whether the chain that a client has shown is accepted.
    pub(crate) fn accept(&self, chain: &[CertificateDer<'_>], now: OffsetDateTime) -> bool {
        let Some((first, others)) = chain.split_first() else { return false };
        self.0.verify_client_cert(first, others, unix_time(now)).is_ok()
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::<Verifier>::clone(&self.0)
    }
}

/// Makes a verifier of what stands under one authority, with one of its lists.
///
/// Of more lists webpki looks at the first that has the authority's name: not at those of another
/// authority with the same name, nor at a second one of the same.
fn webpki(
    authority: &CertificateDer<'static>,
    list: Option<&RevocationList>,
) -> Result<Arc<dyn ClientCertVerifier>, MakeTlsError> {
    let roots = roots(std::slice::from_ref(authority))?;
    let list = list.map(|list| CertificateRevocationListDer::from(list.der().to_vec()));
    // An authority need not have a list.
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .with_crls(list)
        .allow_unknown_revocation_status()
        .build()
        .map_err(|source| MakeTlsError::Verifier { source })
}

/// Accepts a certificate that one of the verifiers accepts and none has found revoked.
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    /// The digest of the one certificate that is accepted at all.
    pinned: Option<Digest>,
    subjects: Vec<DistinguishedName>,
    verifiers: Vec<Arc<dyn ClientCertVerifier>>,
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let mut result = Err(CertificateError::UnknownIssuer.into());
        for verifier in &self.verifiers {
            match verifier.verify_client_cert(end_entity, intermediates, now) {
                // It stands under another one; who knows it says more.
                Err(Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                )) => {}
                // There may be another way to an authority, and it does not count.
                Err(
                    error @ (Error::InvalidCertificate(CertificateError::Revoked)
                    | Error::InvalidCertRevocationList(_)),
                ) => return Err(error),
                Err(error) if result.is_err() => result = Err(error),
                Err(_) => {}
                Ok(verified) => result = Ok(verified),
            }
        }
        let verified = result?;
        match self.pinned {
            Some(pinned) if sbs_crypto::digest(end_entity) != pinned => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(verified),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
