//! First contact with a server whose certificate nobody can verify yet.

use sbs_client::{BootstrapClient, CallError, Client, UntrustedReason};
use sbs_proto::Digest;
use serde_json::{Value, json};

use crate::double::{Answer, Authority, Double, reply};

/// A server whose certificate is of a stranger and for another host.
fn stranger(json: &str) -> (Double, Vec<u8>) {
    use rustls::pki_types::pem::PemObject as _;
    let issued = Authority::new().issue(&["other.example"], |_| ());
    let der = rustls::pki_types::CertificateDer::from_pem_slice(issued.certificate.as_bytes());
    let answer = Answer::Bytes(reply("200 OK", json));
    (Double::start_as(Authority::new(), &issued, answer), der.unwrap().to_vec())
}

fn client(double: &Double, expected: Option<Digest>) -> BootstrapClient {
    Client::builder("localhost", double.port)
        .map(|builder| builder.danger_accept_any_server_certificate(expected))
        .and_then(|builder| builder.identity(double.client.both().as_bytes()))
        .and_then(sbs_client::ClientBuilder::build_bootstrap)
        .unwrap()
}

#[tokio::test]
async fn t1_the_certificate_of_an_unverified_server_is_told() {
    let (double, der) = stranger(r#"{"status":""}"#);
    let client = client(&double, None);
    assert_eq!(client.server_certificate(), None);
    client.status().await.unwrap();
    assert_eq!(client.server_certificate(), Some(&*der));
    assert!(double.request().starts_with("GET /image "));
}

#[tokio::test]
async fn t1_a_server_with_another_fingerprint_is_sent_nothing() {
    let (double, der) = stranger(r#"{"status":""}"#);
    client(&double, Some(sbs_crypto::digest(&der))).status().await.unwrap();
    let _asked = double.request();
    let error = client(&double, Some(sbs_crypto::digest(b"x"))).status().await.unwrap_err();
    let reason = UntrustedReason::OtherFingerprint;
    assert!(matches!(error, CallError::Untrusted { reason: r } if r == reason), "{error:?}");
    assert!(double.saw_nothing());
}

#[tokio::test]
async fn the_request_and_the_certificate_are_those_of_the_original() {
    let (double, _) = stranger(r#"{"csr":"PEM"}"#);
    assert_eq!(client(&double, None).server_request("192.0.2.1").await.unwrap(), "PEM");
    let request = double.request();
    assert!(request.starts_with("GET /csr/192.0.2.1 "), "{request}");
    assert!(request.ends_with("\r\n\r\n\"\""), "{request}");

    let (double, _) = stranger(r#"{"status":"OK"}"#);
    client(&double, None).install_certificate("PEM\n").await.unwrap();
    let request = double.request();
    assert!(request.starts_with("POST /certificate "), "{request}");
    let body: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body, json!({"certificate": "PEM\n"}));

    // A verified client makes the same calls.
    let double = Double::json(r#"{"csr":"PEM"}"#);
    assert_eq!(double.client().server_request("::1").await.unwrap(), "PEM");
    for wrong in [r#"{"csr":1}"#, r#"{"status":"OK"}"#, "[]", r#""PEM""#] {
        let error = Double::json(wrong).client().server_request("h").await.unwrap_err();
        assert!(matches!(error, CallError::UnexpectedReply { .. }), "{wrong}: {error:?}");
    }
    let refused = Double::json(r#"{"status":"no"}"#).client().install_certificate("x").await;
    assert!(matches!(refused, Err(CallError::Refused { .. })), "{refused:?}");
}
