//! Whom the client speaks to, and as whom.

use std::net::TcpListener;

use rcgen::CertificateParams;
use sbs_client::{BuildClientError, CallError, Client, UntrustedReason};
use sbs_proto::Members;

use crate::double::{Answer, Authority, Double, reply};

fn ok() -> Answer {
    Answer::Bytes(reply("200 OK", r#"{"status":"OK"}"#))
}

/// Calls a server whose certificate was made in some odd way; nothing must have been sent.
async fn refused(names: &[&str], change: impl Fn(&mut CertificateParams)) -> UntrustedReason {
    let authority = Authority::new();
    let server = authority.issue(names, change);
    let double = Double::start_as(authority, &server, ok());
    let secret = Members::parse(br#"{"SECRET":"canary"}"#).unwrap();
    let error = double.client().init(&secret).await.unwrap_err();
    assert!(double.saw_nothing());
    match error {
        CallError::Untrusted { reason } => reason,
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn t2_a_server_of_another_authority_is_not_trusted() {
    let double = Double::start(ok());
    let other = Authority::new();
    let client = double.client_as(&other.pem, &double.client.both());
    let error = client.status().await.unwrap_err();
    let reason = UntrustedReason::UnknownIssuer;
    assert!(matches!(error, CallError::Untrusted { reason: r } if r == reason), "{error:?}");
    assert!(double.saw_nothing());
}

#[tokio::test]
async fn t2_a_server_with_another_name_or_time_is_not_trusted() {
    assert_eq!(refused(&["other.example"], |_| ()).await, UntrustedReason::WrongName);
    assert_eq!(refused(&[], |_| ()).await, UntrustedReason::WrongName);
    let past = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    };
    assert_eq!(refused(&["localhost"], past).await, UntrustedReason::Expired);
    let future = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(4000, 1, 1);
    };
    assert_eq!(refused(&["localhost"], future).await, UntrustedReason::NotYetValid);
}

#[tokio::test]
async fn a_client_certificate_of_another_authority_is_refused() {
    let double = Double::start(ok());
    let stranger = Authority::new().issue(&[], |_| ());
    let client = double.client_as(&double.authority.pem, &stranger.both());
    let error = client.status().await.unwrap_err();
    // Under TLS 1.3 the alert can be overtaken by the end of the connection.
    let refused = matches!(error, CallError::ClientCertificateRefused { .. });
    assert!(refused || matches!(error, CallError::Lost { .. }), "{error:?}");
    assert!(double.saw_nothing());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let double = Double::start(ok());
    for (host, port) in [("localhost", port), ("name.invalid", 443)] {
        let client = Client::builder(host, port)
            .and_then(|b| b.trust(double.authority.pem.as_bytes()))
            .and_then(|b| b.identity(double.client.both().as_bytes()))
            .and_then(sbs_client::ClientBuilder::build)
            .unwrap();
        let error = client.status().await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{host}: {error:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_not_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::Write as _;
        for stream in listener.incoming() {
            let _gone = stream.unwrap().write_all(&reply("200 OK", r#"{"status":"success"}"#));
        }
    });
    let double = Double::start(ok());
    let client = Client::builder("localhost", port)
        .and_then(|b| b.trust(double.authority.pem.as_bytes()))
        .and_then(|b| b.identity(double.client.both().as_bytes()))
        .and_then(sbs_client::ClientBuilder::build)
        .unwrap();
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
}

#[test]
fn a_certificate_without_its_key_is_no_identity() {
    let authority = Authority::new();
    let client = authority.issue(&[], |_| ());
    for pem in [client.certificate.as_str(), client.key.as_str(), "", "x"] {
        let identity = Client::builder("localhost", 1)
            .and_then(|b| b.trust(authority.pem.as_bytes()))
            .and_then(|b| b.identity(pem.as_bytes()));
        assert!(matches!(identity, Err(BuildClientError::Identity)), "{pem}");
    }
}
