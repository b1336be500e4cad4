//! The bodies by which the server's certificate is replaced, of v1 and v2.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Digest, Members};

/// The reply of `GET /csr/{host}` and of its v2 route.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RequestReply {
    /// The certificate signing request (RFC 2986), PEM.
    pub csr: String,
}

/// Returns the certificate in the body of `POST /certificate` and of its v2 route: PEM, with those
/// between it and the authority behind it.
pub fn parse_certificate_body(members: &Members) -> Result<&str, ParseCertificateBodyError> {
    text(members, "certificate")
}

/// Returns the host in the body of `POST /v2/certificates/csr`.
pub fn parse_request_body(members: &Members) -> Result<&str, ParseCertificateBodyError> {
    text(members, "host")
}

/// What is told of one certificate.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CertificateFacts {
    /// The last second of its validity, RFC 3339, UTC.
    pub not_after: String,
    /// The first second of its validity, RFC 3339, UTC.
    pub not_before: String,
    /// The alternative names, such as `DNS:sbs.example` and `IP:192.0.2.1`.
    pub sans: Vec<String>,
    /// The digest of its DER form.
    pub sha256: Digest,
    /// The subject as one line.
    pub subject: String,
}

/// Where the server's certificate came from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateSource {
    /// The variables `SERVER_CRT` and `SERVER_KEY`.
    Environment,
    /// The files that the settings name.
    Files,
    /// It was made for a request of the server's own, and installed.
    Installed,
    /// The server made it, and no authority signed it.
    SelfSigned,
    /// A word that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The reply of `GET /v2/certificates`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Certificates {
    /// The authorities that clients' certificates may stand under.
    pub client_authorities: Vec<CertificateFacts>,
    /// The host of a request whose certificate has not come yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_host: Option<String>,
    /// The digest of that request's key, a `SubjectPublicKeyInfo` in DER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_key: Option<Digest>,
    /// The certificate that the server shows.
    pub server: CertificateFacts,
    /// Where that came from.
    pub source: CertificateSource,
}

/// Until when the certificates are good, as `GET /v2/info` tells it. RFC 3339, UTC.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CertificateDates {
    /// The end of the authority of clients that ends last.
    pub client_authority_not_after: String,
    /// The end of the server's certificate.
    pub server_not_after: String,
}

/// Why a body was refused; it does not repeat it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
#[error("`{key}` is missing, or not a text")]
pub struct ParseCertificateBodyError {
    key: &'static str,
}

fn text<'a>(members: &'a Members, key: &'static str) -> Result<&'a str, ParseCertificateBodyError> {
    let text = members.value(key).and_then(|value| value.as_str());
    text.ok_or(ParseCertificateBodyError { key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_certificates() {
        let facts = |letter: u8| CertificateFacts {
            not_after: "2027-01-02T03:04:05Z".to_owned(),
            not_before: "2026-01-02T03:04:05Z".to_owned(),
            sans: vec!["DNS:sbs.example".to_owned()],
            sha256: Digest::from_bytes([letter; 32]),
            subject: "CN=Server".to_owned(),
        };
        let told = Certificates {
            client_authorities: vec![facts(1)],
            pending_host: None,
            pending_key: None,
            server: facts(2),
            source: CertificateSource::SelfSigned,
        };
        let json = |letter: &str| {
            format!(
                r#"{{"not_after":"2027-01-02T03:04:05Z","not_before":"2026-01-02T03:04:05Z","sans":["DNS:sbs.example"],"sha256":"sha256:{}","subject":"CN=Server"}}"#,
                letter.repeat(32)
            )
        };
        let json = format!(
            r#"{{"client_authorities":[{}],"server":{},"source":"self-signed"}}"#,
            json("01"),
            json("02")
        );
        assert_eq!(serde_json::to_string(&told).unwrap(), json);
        assert_eq!(serde_json::from_str::<Certificates>(&json).unwrap(), told);
        let newer = json.replace("self-signed", "acme");
        let source = serde_json::from_str::<Certificates>(&newer).unwrap().source;
        assert_eq!(source, CertificateSource::Unknown);
    }

    #[test]
    fn golden_bodies() {
        let reply = RequestReply { csr: "p".to_owned() };
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"csr":"p"}"#);
        let members = Members::parse(br#"{"certificate":"p","host":"h","x":1}"#).unwrap();
        assert_eq!(parse_certificate_body(&members), Ok("p"));
        assert_eq!(parse_request_body(&members), Ok("h"));
        for body in ["{}", r#"{"certificate":"","host":""}"#, r#"{"certificate":1,"host":[]}"#] {
            let members = Members::parse(body.as_bytes()).unwrap();
            let error = parse_certificate_body(&members).unwrap_err();
            assert_eq!(error.to_string(), "`certificate` is missing, or not a text");
            parse_request_body(&members).unwrap_err();
        }
    }
}
