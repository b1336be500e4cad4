use sbs_proto::Digest;
use time::OffsetDateTime;
use x509_parser::oid_registry::OID_PKCS1_SHA1WITHRSA;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::describe::{parse, printable};
use crate::digest;

/// A certificate revocation list (RFC 5280, 5).
///
/// Its form is checked; who signed it, [`is_signed_by`](Self::is_signed_by) tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RevocationList {
    der: Vec<u8>,
    issuer: String,
    next_update: Option<OffsetDateTime>,
}

impl RevocationList {
    /// Parses a list that fills `der` to its end; `None` if it is none.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let list = parse_list(der)?;
        Some(Self {
            der: der.to_vec(),
            issuer: printable(&list.issuer().to_string()),
            next_update: list.next_update().map(|time| time.to_datetime()),
        })
    }

    /// Returns the list as it was parsed.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns in whose name it is, as one line without control characters.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns when the next list should be there, if this one says so.
    pub fn next_update(&self) -> Option<OffsetDateTime> {
        self.next_update
    }

    /// Returns the digest of the DER form.
    pub fn sha256(&self) -> Digest {
        digest(&self.der)
    }

    /// Tells whether the list is in the name of this authority, a certificate in DER, and signed by
    /// its key, with a stronger digest than SHA-1.
    pub fn is_signed_by(&self, authority: &[u8]) -> bool {
        let (Some(authority), Some(list)) = (parse(authority), parse_list(&self.der)) else {
            return false;
        };
        list.issuer().as_raw() == authority.subject().as_raw()
            && list.signature_algorithm.algorithm != OID_PKCS1_SHA1WITHRSA
            && list.verify_signature(authority.public_key()).is_ok()
    }
}

fn parse_list(der: &[u8]) -> Option<CertificateRevocationList<'_>> {
    let (rest, list) = CertificateRevocationList::from_der(der).ok()?;
    rest.is_empty().then_some(list)
}
