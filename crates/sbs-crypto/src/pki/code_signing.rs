use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use super::IssueError;
use super::authority::{random_serial, validity};
use super::describe::{CERTIFICATE_LABEL, parse};
use super::key::CertificateKey;
use crate::sign::GenerateKeyError;
use crate::{TrustSigningKey, armor};

/// A certificate that binds a key to a name, as image trust data has it for root keys.
///
/// Nobody vouches for it but its own key: what counts is which certificate it is.
#[derive(Clone, Eq, PartialEq)]
pub struct CodeSigningCertificate {
    der: Vec<u8>,
    common_name: String,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    spki: Vec<u8>,
}

impl CodeSigningCertificate {
    /// Makes the PEM text of a certificate for code signing, signed by `key` itself and valid for
    /// ten years, whose subject is the common name alone.
    pub fn self_sign(
        key: &TrustSigningKey,
        common_name: &str,
        now: OffsetDateTime,
    ) -> Result<String, IssueError> {
        // The signature in a certificate is DER, and a key of this library makes one form only.
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.to_pkcs8_der())
            .map_err(|_| GenerateKeyError)?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, common_name);
        params.distinguished_name = name;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        params.serial_number = Some(random_serial());
        (params.not_before, params.not_after) = validity(now, LIFETIME)?;
        let certificate = params.self_signed(&CertificateKey::P256(pair))?;
        Ok(armor::encode(CERTIFICATE_LABEL, certificate.der()).to_string())
    }

    /// Parses the PEM text of one certificate, at most 64 KiB. Its signature is not looked at.
    pub fn from_pem(text: &str) -> Result<Self, ParseCodeSigningError> {
        let der =
            armor::decode_one(CERTIFICATE_LABEL, text).ok_or(ParseCodeSigningError::NotPem)?;
        let certificate = parse(&der).ok_or(ParseCodeSigningError::Damaged)?;
        let mut names = certificate.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(ParseCodeSigningError::CommonName);
        };
        let name = name.as_str().map_err(|_| ParseCodeSigningError::CommonName)?;
        Ok(Self {
            common_name: name.to_owned(),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            spki: certificate.public_key().raw.to_vec(),
            der: der.to_vec(),
        })
    }

    /// Returns the certificate itself.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the one common name of the subject.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// Returns the last second of its validity.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Tells whether the certificate is valid at this time.
    pub fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Returns the public key as a DER `SubjectPublicKeyInfo`.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }
}

impl fmt::Debug for CodeSigningCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CodeSigningCertificate").field(&self.common_name).finish()
    }
}

/// Why a text is no such certificate.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseCodeSigningError {
    /// The subject has no common name, more than one, or one that is no text.
    #[error("the certificate does not have one common name")]
    CommonName,

    /// The block does not hold a certificate.
    #[error("the certificate is damaged")]
    Damaged,

    /// The text is not one PEM block.
    #[error("not one PEM block `CERTIFICATE` of at most {} KiB", armor::MAX_BYTES / 1024)]
    NotPem,
}

// As the certificates of docker's own client.
const LIFETIME: Duration = Duration::days(3650);

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::openssl::OpenSsl;

    const NAME: &str =
        "registry.example.com:5000/team/a-repository-with-a-name-of-more-than-64-bytes";

    #[test]
    fn openssl_finds_what_docker_clients_ask_for() {
        let key = TrustSigningKey::generate().unwrap();
        let now = datetime!(2026-11-21 12:00 UTC);
        let pem = CodeSigningCertificate::self_sign(&key, NAME, now).unwrap();
        let openssl = OpenSsl::new();
        openssl.write("certificate.pem", &pem);
        let text = openssl.run("x509 -in certificate.pem -noout -text").unwrap();
        // Versions of OpenSSL write ` = ` or `=`.
        let text = text.replace(" = ", "=");
        for part in [
            &format!("Subject: CN={NAME}"),
            "Code Signing",
            "CA:FALSE",
            "Digital Signature",
            "prime256v1",
            "Not After : Nov 18 12:00:00 2036 GMT",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        openssl
            .run("verify -CAfile certificate.pem -partial_chain -purpose any certificate.pem")
            .unwrap();

        let read = CodeSigningCertificate::from_pem(&pem).unwrap();
        assert_eq!(read.common_name(), NAME);
        assert_eq!(read.spki_der(), key.verifying_key().as_spki_der());
        assert!(read.is_valid_at(now) && !read.is_valid_at(now + LIFETIME + Duration::days(1)));
        assert!(!read.is_valid_at(now - Duration::hours(1)));
    }

    #[test]
    fn a_certificate_has_one_common_name() {
        let openssl = OpenSsl::new();
        for (subject, expected) in [
            ("/CN=a", Ok("a".to_owned())),
            ("/CN=a/CN=b", Err(ParseCodeSigningError::CommonName)),
            ("/O=a", Err(ParseCodeSigningError::CommonName)),
        ] {
            let arguments = format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out c \
                 -subj {subject} -multivalue-rdn"
            );
            openssl.run(&arguments).unwrap();
            let read = CodeSigningCertificate::from_pem(&openssl.read_text("c"));
            assert_eq!(read.map(|read| read.common_name), expected, "{subject}");
        }
        let pem = openssl.read_text("c");
        let twice = CodeSigningCertificate::from_pem(&format!("{pem}{pem}"));
        assert_eq!(twice.unwrap_err(), ParseCodeSigningError::NotPem);
        let other = CodeSigningCertificate::from_pem(&armor::encode(CERTIFICATE_LABEL, b"x"));
        assert_eq!(other.unwrap_err(), ParseCodeSigningError::Damaged);
    }
}
