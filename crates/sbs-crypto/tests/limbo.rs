//! x509-limbo (<https://x509-limbo.com>, Apache-2.0), a suite of certificate chains with the verdict that
//! the standards demand, against the checks that both sides of our mutual TLS make: a client asks
//! rustls' verifier of servers, with one authority and no others; a server asks that of clients.
//!
//! `tests/data/x509-limbo/differences.txt` has every case where the verdict is another one, under the
//! reason for it. A difference that is not there fails, and so does one that is there and is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;

#[derive(Deserialize)]
struct Suite {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    validation_kind: Kind,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    peer_certificate_key: Option<String>,
    validation_time: Option<String>,
    expected_result: Expected,
    expected_peer_name: Option<PeerName>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
enum Expected {
    Failure,
    Success,
}

#[derive(Deserialize)]
struct PeerName {
    value: String,
}

fn suite() -> Suite {
    let compressed = include_bytes!("data/x509-limbo/limbo.json.zst");
    let json = zstd::decode_all(&compressed[..]).expect("the file is whole");
    serde_json::from_slice(&json).expect("the file has the form of the suite")
}

#[test]
fn t2_certificates_are_judged_as_the_standards_demand_or_the_difference_is_explained() {
    let suite = suite();
    assert_eq!(suite.testcases.len(), 208);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut found = BTreeMap::new();
    let mut agreed = 0;
    for case in &suite.testcases {
        let verdict = case.judge(&provider);
        match (&verdict, case.expected_result) {
            (Ok(()), Expected::Success) | (Err(_), Expected::Failure) => agreed += 1,
            (Ok(()), Expected::Failure) => {
                found.insert(case.id.as_str(), "accepted".to_owned());
            }
            (Err(error), Expected::Success) => {
                found.insert(case.id.as_str(), format!("refused: {error}"));
            }
        }
    }
    let explained = explained();
    let unexplained: Vec<_> = found
        .iter()
        .filter(|(id, verdict)| !explained.get(*id).is_some_and(|said| verdict.starts_with(said)))
        .collect();
    let stale: Vec<_> = explained.keys().filter(|id| !found.contains_key(*id)).collect();
    assert!(unexplained.is_empty(), "differences without a reason: {unexplained:#?}");
    assert!(stale.is_empty(), "reasons without a difference: {stale:#?}");
    assert_eq!(agreed + found.len(), suite.testcases.len());
}

/// The keys of the suite sign as OpenSSL lets them, and what the handshake verifies with refuses all
/// but the strong one.
#[test]
fn t2_no_algorithm_of_the_handshake_takes_a_weak_key() {
    let suite = suite();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let openssl = |arguments: &[&str]| {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test of a crate below the server's tool runner, with fixed arguments"
        )]
        let mut command = std::process::Command::new("openssl");
        let output = command.args(arguments).current_dir(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::write(path("message"), b"a handshake").unwrap();
    let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
    for (id, options, good) in [
        ("webpki::forbidden-weak-rsa-in-leaf", &pss[..], false),
        ("webpki::forbidden-dsa-leaf", &[], false),
        ("webpki::forbidden-p192-leaf", &[], false),
        // So that the refusals above are not those of everything.
        ("webpki::forbidden-rsa-key-not-divisible-by-8-in-leaf", &pss[..], true),
    ] {
        let case = suite.testcases.iter().find(|case| case.id == id).unwrap();
        std::fs::write(path("key.pem"), case.peer_certificate_key.as_ref().unwrap()).unwrap();
        std::fs::write(path("peer.pem"), &case.peer_certificate).unwrap();
        let sign = ["dgst", "-sha256", "-sign", "key.pem", "-out", "signature"];
        openssl(&[&sign[..], options, &["message"]].concat());
        let peer = certificate(&case.peer_certificate).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&peer).unwrap();
        let key = &parsed.public_key().subject_public_key.data;
        let signature = std::fs::read(path("signature")).unwrap();
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        let mut verified = algorithms
            .all
            .iter()
            .map(|algorithm| algorithm.verify_signature(key, b"a handshake", &signature).is_ok());
        assert_eq!(verified.any(|verified| verified), good, "{id}");
    }
}

impl Case {
    fn judge(&self, provider: &Arc<CryptoProvider>) -> Result<(), rustls::Error> {
        let peer = certificate(&self.peer_certificate)?;
        let mut roots = RootCertStore::empty();
        for trusted in &self.trusted_certs {
            roots.add(certificate(trusted)?)?;
        }
        let intermediates: Result<Vec<_>, _> =
            self.untrusted_intermediates.iter().map(|pem| certificate(pem)).collect();
        let (intermediates, roots, provider) = (intermediates?, Arc::new(roots), provider.clone());
        let refused = |error: &dyn std::fmt::Display| rustls::Error::General(error.to_string());
        match self.validation_kind {
            Kind::Server => {
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
                let verifier = verifier.map_err(|error| refused(&error))?;
                let name =
                    self.expected_peer_name.as_ref().map_or("example.com", |name| &name.value);
                let name = ServerName::try_from(name).map_err(|error| refused(&error))?;
                let judged =
                    verifier.verify_server_cert(&peer, &intermediates, &name, &[], time_of(self));
                judged.map(|_| ())
            }
            Kind::Client => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let verifier = verifier.map_err(|error| refused(&error))?;
                verifier.verify_client_cert(&peer, &intermediates, time_of(self)).map(|_| ())
            }
        }
    }
}

/// The time that a case is about; where it is about none, one at which its certificates are valid.
fn time_of(case: &Case) -> UnixTime {
    let time = match &case.validation_time {
        Some(text) => OffsetDateTime::parse(text, &Rfc3339).expect("the suite has times"),
        None => datetime!(2026-01-01 0:00 UTC),
    };
    let seconds = u64::try_from(time.unix_timestamp()).expect("the time is after 1970");
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, rustls::Error> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Reads which cases are explained, and with which verdict: lines `accepted <id>` and
/// `refused <id>` below the lines `# <reason>` that they are for.
fn explained() -> BTreeMap<&'static str, &'static str> {
    let mut explained = BTreeMap::new();
    let mut reason = 0;
    for line in include_str!("data/x509-limbo/differences.txt").lines() {
        if let Some(text) = line.strip_prefix("# ") {
            reason += text.len();
        } else if line.is_empty() {
            reason = 0;
        } else {
            let (verdict, id) = line.split_once(' ').expect("a verdict and a case");
            assert!(["accepted", "refused"].contains(&verdict), "{line}");
            assert!(reason > 20, "no reason stands above `{line}`");
            assert_eq!(explained.insert(id, verdict), None, "{id} stands there twice");
        }
    }
    explained
}
