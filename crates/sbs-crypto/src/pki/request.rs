use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm,
};
use sbs_proto::Digest;
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, Oid,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::describe::parse;
use crate::verify::{MAX_RSA_BITS, MIN_RSA_BITS};
use crate::{armor, digest};

/// A server's request for a certificate (RFC 2986) whose signature is good: whoever made it has the
/// key. Who that is, it does not tell.
#[derive(Debug)]
pub struct ServerRequest {
    key: RequestKey,
    public_key_sha256: Digest,
}

/// The key that a request is for.
#[derive(Debug)]
pub(super) struct RequestKey {
    algorithm: &'static SignatureAlgorithm,
    raw: Vec<u8>,
}

impl ServerRequest {
    /// Parses one PEM block of at most 64 KiB: a key that is RSA of at least 2048 bits, P-256 or
    /// P-384.
    pub fn from_pem(pem: &str) -> Result<Self, ParseRequestError> {
        let der = [REQUEST_LABEL, OLD_REQUEST_LABEL]
            .into_iter()
            .find_map(|label| armor::decode_one(label, pem))
            .ok_or(ParseRequestError::NotPem)?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|_| ParseRequestError::Damaged)?;
        if !rest.is_empty() {
            return Err(ParseRequestError::Damaged);
        }
        let info = &request.certification_request_info.subject_pki;
        let key = RequestKey::of(info).ok_or(ParseRequestError::KeyNotSupported)?;
        request.verify_signature().map_err(|_| ParseRequestError::Signature)?;
        Ok(Self { key, public_key_sha256: digest(info.raw) })
    }

    /// Returns the digest of the key, a `SubjectPublicKeyInfo` in DER, for comparing.
    pub fn public_key_sha256(&self) -> &Digest {
        &self.public_key_sha256
    }

    pub(super) fn key(&self) -> &RequestKey {
        &self.key
    }
}

impl RequestKey {
    fn of(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let raw = info.subject_public_key.data.to_vec();
        let kind = &info.algorithm.algorithm;
        let algorithm = if *kind == OID_PKCS1_RSAENCRYPTION {
            let PublicKey::RSA(key) = info.parsed().ok()? else { return None };
            (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&key.key_size()).then_some(&PKCS_RSA_SHA256)?
        } else if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
            curve_algorithm(&curve)?
        } else {
            return None;
        };
        Some(Self { algorithm, raw })
    }
}

impl PublicKeyData for RequestKey {
    fn der_bytes(&self) -> &[u8] {
        &self.raw
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// Returns the digest of a certificate's key, a `SubjectPublicKeyInfo` in DER, for comparing with
/// [`ServerRequest::public_key_sha256`]; `None` if `der` is no certificate.
pub fn public_key_digest(der: &[u8]) -> Option<Digest> {
    Some(digest(parse(der)?.public_key().raw))
}

/// Why a request for a certificate was refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseRequestError {
    /// The block does not hold a request.
    #[error("the PEM block `{REQUEST_LABEL}` does not hold a request for a certificate")]
    Damaged,

    /// The key is too short, or of another kind.
    #[error("the key of the request is not RSA of 2048 to 8192 bits, P-256 or P-384")]
    KeyNotSupported,

    /// The text is not one PEM block.
    #[error("not one PEM block `{REQUEST_LABEL}` of at most {} KiB", armor::MAX_BYTES / 1024)]
    NotPem,

    /// Whoever made it does not have the key, or it was changed.
    #[error("the signature of the request for a certificate is not good")]
    Signature,
}

fn curve_algorithm(curve: &Oid<'_>) -> Option<&'static SignatureAlgorithm> {
    if *curve == OID_EC_P256 {
        Some(&PKCS_ECDSA_P256_SHA256)
    } else if *curve == OID_NIST_EC_P384 {
        Some(&PKCS_ECDSA_P384_SHA384)
    } else {
        None
    }
}

const REQUEST_LABEL: &str = "CERTIFICATE REQUEST";
// What OpenSSL wrote before, and Microsoft's tools still write (RFC 7468, 7).
const OLD_REQUEST_LABEL: &str = "NEW CERTIFICATE REQUEST";

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::openssl::OpenSsl;
    use crate::pki::{CertificateAuthority, IssueError, describe};

    const NOW: time::OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
    const HOST: &str = "sbs.example.com";

    /// Has OpenSSL make a key and a request that asks for more than it should get.
    fn request(key: &str) -> (String, OpenSsl) {
        let openssl = OpenSsl::new();
        let config = "[req]\nprompt = no\ndistinguished_name = n\nreq_extensions = e\n\
            [n]\nCN = evil.example\n[e]\nbasicConstraints = critical, CA:TRUE\n\
            subjectAltName = DNS:evil.example\nsubjectKeyIdentifier = hash\n";
        openssl.write("request.conf", config);
        openssl.run(&format!("genpkey -out key.pem {key}")).unwrap();
        openssl.run("req -new -config request.conf -key key.pem -out request.pem").unwrap();
        (openssl.read_text("request.pem"), openssl)
    }

    #[test]
    fn t2_of_a_request_only_the_key_is_taken() {
        let authority = CertificateAuthority::create(NOW).unwrap();
        for key in [
            "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
        ] {
            let (pem, openssl) = request(key);
            let request = ServerRequest::from_pem(&pem).unwrap();
            let certificate = authority.sign_server_request(&request, HOST, NOW).unwrap();
            let info = describe(&certificate).unwrap();
            assert_eq!((info.sans, info.is_ca), (vec![format!("DNS:{HOST}")], false));
            assert!(!info.subject.contains("evil"), "{}", info.subject);
            openssl.write("ca.pem", authority.certificate_pem());
            openssl.write("certificate.pem", &certificate);
            let at = NOW.unix_timestamp();
            let words = format!("-x509_strict -purpose sslserver -attime {at} -CAfile ca.pem");
            openssl.run(&format!("verify {words} certificate.pem")).unwrap();
            let ours = openssl.run("x509 -in certificate.pem -noout -pubkey").unwrap();
            assert_eq!(ours, openssl.run("pkey -in key.pem -pubout").unwrap(), "{key}");
            let der = armor::decode_one("CERTIFICATE", &certificate).unwrap();
            assert_eq!(public_key_digest(&der).as_ref(), Some(request.public_key_sha256()));
        }
        assert_eq!(public_key_digest(b"x"), None);
    }

    #[test]
    fn t2_a_request_whose_maker_has_not_the_key_is_refused() {
        let (pem, _) = request("-algorithm EC -pkeyopt ec_paramgen_curve:P-256");
        let der = armor::decode_one(REQUEST_LABEL, &pem).unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(&der).unwrap();
        let signed = parsed.certification_request_info.raw.len();
        // Behind the tag and the length of the whole, which are not signed.
        let head =
            der.windows(signed).position(|part| part == parsed.certification_request_info.raw);
        let head = head.unwrap();
        for index in head..head + signed {
            let mut changed = der.to_vec();
            changed[index] ^= 1;
            let parsed = ServerRequest::from_pem(&armor::encode(REQUEST_LABEL, &changed));
            assert!(parsed.is_err(), "byte {index}");
        }
    }

    #[test]
    fn what_is_no_request_or_has_a_weak_key_is_refused() {
        use ParseRequestError as E;
        let (good, _) = request("-algorithm EC -pkeyopt ec_paramgen_curve:P-256");
        let (weak, _) = request("-algorithm RSA -pkeyopt rsa_keygen_bits:1024");
        let (curve, _) = request("-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1");
        let (other, _) = request("-algorithm ED25519");
        let mut longer = armor::decode_one(REQUEST_LABEL, &good).unwrap();
        longer.push(0);
        for (pem, expected) in [
            (weak.as_str(), E::KeyNotSupported),
            (&curve, E::KeyNotSupported),
            (&other, E::KeyNotSupported),
            ("x", E::NotPem),
            (&format!("{good}{good}"), E::NotPem),
            (&armor::encode("CERTIFICATE", b"x"), E::NotPem),
            (&armor::encode(REQUEST_LABEL, b"x"), E::Damaged),
            (&armor::encode(REQUEST_LABEL, &longer), E::Damaged),
        ] {
            assert_eq!(ServerRequest::from_pem(pem).unwrap_err(), expected, "{pem}");
        }
        let renamed = good.replace(REQUEST_LABEL, OLD_REQUEST_LABEL);
        let request = ServerRequest::from_pem(&renamed).unwrap();
        let authority = CertificateAuthority::create(NOW).unwrap();
        let later = datetime!(2030-01-01 0:00 UTC);
        for (host, now) in [("a b", NOW), (HOST, later)] {
            let error = authority.sign_server_request(&request, host, now).unwrap_err();
            let expected = matches!(error, IssueError::NotAHost) == (host != HOST);
            assert!(expected, "{error}");
        }
    }
}
