use std::sync::LazyLock;

use time::macros::datetime;

use super::*;
use crate::openssl::OpenSsl;
use crate::pki::{CertificateAuthority, Issued};

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

static KEY: LazyLock<ServerKey> = LazyLock::new(|| ServerKey::generate().unwrap());
static CA: LazyLock<CertificateAuthority> =
    LazyLock::new(|| CertificateAuthority::create(NOW).unwrap());
static ISSUED: LazyLock<Issued> =
    LazyLock::new(|| CA.issue_server("sbs.example.com", NOW).unwrap());

fn host(text: &str) -> ServerHost {
    ServerHost::parse(text).unwrap()
}

#[test]
fn openssl_reads_a_request_for_a_name_and_for_an_address() {
    for (text, expected) in [
        ("sbs.example.com", "DNS:sbs.example.com"),
        ("192.0.2.1", "IP Address:192.0.2.1"),
        ("2001:db8::7", "IP Address:2001:DB8:0:0:0:0:0:7"),
    ] {
        let openssl = OpenSsl::new();
        openssl.write("request.pem", KEY.request(&host(text), NOW).unwrap());
        let told = openssl.run("req -in request.pem -verify -noout -text").unwrap();
        for expected in [expected, "CN = Server", "Digital Signature", "TLS Web Server"] {
            assert!(told.contains(expected), "{expected}: {told}");
        }
        openssl.write("key.pem", KEY.pem());
        let public = |from: &str| openssl.run(&format!("{from} -pubout")).unwrap();
        let requested = openssl.run("req -in request.pem -noout -pubkey").unwrap();
        assert_eq!(requested, public("pkey -in key.pem"));
        let der = armor::decode_one("PUBLIC KEY", &requested).unwrap();
        assert_eq!(KEY.public_key_sha256(), digest(&der));
    }
}

#[test]
fn a_request_of_another_key_is_signed_into_a_certificate_of_that_key() {
    let openssl = OpenSsl::new();
    openssl.write("request.pem", KEY.request(&host("sbs.example.com"), NOW).unwrap());
    openssl.write("ca.pem", CA.certificate_pem());
    openssl.write("ca-key.pem", CA.key_pem());
    let certificate = openssl
        .run("x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -copy_extensions copy -days 9")
        .unwrap();
    let chain = ServerChain::parse(&certificate).unwrap();
    assert!(chain.is_of(&KEY));
    assert!(chain.describe().is_for_host("sbs.example.com"));
    let other = ServerChain::parse(&ISSUED.certificate_pem).unwrap();
    assert!(!other.is_of(&KEY));
    assert!(other.is_of(&ServerKey::from_pem(&ISSUED.key_pem).unwrap()));
}

#[test]
fn a_self_signed_certificate_is_one_of_a_server_and_of_no_authority() {
    let pem = KEY.self_signed(&host("localhost"), NOW).unwrap();
    let chain = ServerChain::parse(&pem).unwrap();
    assert!(chain.is_of(&KEY) && !chain.describe().is_ca);
    assert_eq!(chain.describe().not_after, NOW + time::Duration::days(365));
    let openssl = OpenSsl::new();
    openssl.write("certificate.pem", &pem);
    let at = NOW.unix_timestamp();
    let options = "-check_ss_sig -purpose sslserver -verify_hostname localhost";
    let command = format!("verify -attime {at} {options} -CAfile certificate.pem certificate.pem");
    assert!(openssl.run(&command).unwrap().contains("OK"));
}

#[test]
fn a_chain_is_certificates_in_order_and_nothing_else() {
    let (server, authority) = (ISSUED.certificate_pem.as_str(), CA.certificate_pem());
    let both = format!("some text\n{server}more\n{authority}");
    let chain = ServerChain::parse(&both).unwrap();
    assert_eq!(chain.der().count(), 2);
    assert_eq!(ServerChain::parse(&chain.to_pem()).unwrap(), chain);
    assert!(!chain.to_pem().contains("text"));
    let damaged = armor::encode(CERTIFICATE_LABEL, b"\x30\x03\x02\x01\x01").to_string();
    for (text, expected) in [
        (String::new(), ParseServerChainError::NotPem),
        (format!("{server}{}", *ISSUED.key_pem), ParseServerChainError::NotPem),
        (format!("{server}-----BEGIN CERTIFICATE-----\n"), ParseServerChainError::NotPem),
        (" ".repeat(armor::MAX_BYTES) + server, ParseServerChainError::NotPem),
        (damaged, ParseServerChainError::Damaged),
        (server.repeat(2), ParseServerChainError::NotAChain),
        (format!("{authority}{server}"), ParseServerChainError::NotAChain),
        (server.repeat(ServerChain::MAX_CHAIN + 1), ParseServerChainError::TooLong),
    ] {
        assert_eq!(ServerChain::parse(&text), Err(expected), "{text}");
    }
    // The authority signs itself: as many as are taken.
    let longest = format!("{server}{}", authority.repeat(ServerChain::MAX_CHAIN - 1));
    assert_eq!(ServerChain::parse(&longest).unwrap().der().count(), ServerChain::MAX_CHAIN);
}

#[test]
fn a_key_that_is_none_is_refused_without_its_content() {
    let encrypted = KEY.pem().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let openssl = OpenSsl::new();
    let weak = openssl.run("genrsa 1024").unwrap();
    for (text, expected) in [
        ("", ParseServerKeyError::NotPem),
        (ISSUED.certificate_pem.as_str(), ParseServerKeyError::NotPem),
        (&encrypted, ParseServerKeyError::Encrypted),
        (&weak, ParseServerKeyError::NotSupported),
    ] {
        assert_eq!(ServerKey::from_pem(text).err(), Some(expected), "{text}");
    }
    assert_eq!(format!("{:?}", *KEY), "ServerKey");
    assert_eq!(ServerHost::parse("a:443"), None);
}
