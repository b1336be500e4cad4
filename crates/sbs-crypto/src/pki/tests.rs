use std::sync::{Arc, LazyLock};

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::openssl::OpenSsl;
use crate::{armor, digest};

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00:00.5 +1);

// One set for all tests: making keys takes a good part of a second in a debug build.
static CA: LazyLock<CertificateAuthority> =
    LazyLock::new(|| CertificateAuthority::create(NOW).unwrap());
static CLIENT: LazyLock<Issued> = LazyLock::new(|| CA.issue_client(NOW).unwrap());
static SERVER: LazyLock<Issued> =
    LazyLock::new(|| CA.issue_server("sbs.example.com", NOW).unwrap());

// What the historical client makes, besides its key identifiers.
const HISTORICAL_CA: &str = "
    basicConstraints = CA:TRUE
    keyUsage = keyCertSign, cRLSign
    extendedKeyUsage = clientAuth, serverAuth
    subjectKeyIdentifier = DA:39:A3:EE:5E:6B:4B:0D:32:55:BF:EF:95:60:18:90:AF:D8:07:09";

fn text_of(certificate_pem: &str) -> String {
    let openssl = OpenSsl::new();
    openssl.write("certificate.pem", certificate_pem);
    openssl.run("x509 -in certificate.pem -noout -text").unwrap()
}

fn verify(
    authority: &CertificateAuthority,
    certificate_pem: &str,
    options: &str,
    at: OffsetDateTime,
) -> Result<String, String> {
    let openssl = OpenSsl::new();
    openssl.write("ca.pem", authority.certificate_pem());
    openssl.write("certificate.pem", certificate_pem);
    let at = at.unix_timestamp();
    openssl.run(&format!("verify -CAfile ca.pem -attime {at} {options} certificate.pem"))
}

/// Makes a certificate and key with OpenSSL, valid for 30 days from the present.
fn foreign(key_options: &str, name: &str, extensions: &str) -> (String, String, OpenSsl) {
    let openssl = OpenSsl::new();
    openssl.write(
        "request.conf",
        format!(
            "[req]\nprompt = no\nutf8 = yes\ndistinguished_name = name\nx509_extensions = extensions\n\
             [name]\n{name}\n[extensions]\n{extensions}\n"
        ),
    );
    openssl.run(&format!("genpkey -out key.pem {key_options}")).unwrap();
    openssl
        .run("req -x509 -config request.conf -key key.pem -out ca.pem -days 30 -sha256")
        .unwrap();
    (openssl.read_text("ca.pem"), openssl.read_text("key.pem"), openssl)
}

const RSA_2048: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
const P_256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
const P_384: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384";
const PLAIN_NAME: &str = "C = US\nO = Example\nOU = Department\nCN = Own CA";
const PLAIN_CA: &str = "basicConstraints = critical, CA:TRUE";

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

fn key_identifier(text: &str, extension: &str) -> String {
    let (_, rest) = text.split_once(extension).unwrap();
    rest.lines().nth(1).unwrap().trim().to_owned()
}

#[test]
fn authority_has_the_historical_profile_and_critical_constraints() {
    assert_contains(
        &text_of(CA.certificate_pem()),
        &[
            "Version: 3",
            "Signature Algorithm: sha256WithRSAEncryption",
            "Issuer: C = US, ST = NY, L = Armonk, O = IBM, OU = Digital Assets, CN = Client CA",
            "Subject: C = US, ST = NY, L = Armonk, O = IBM, OU = Digital Assets, CN = Client CA",
            "Not Before: Nov 21 10:55:00 2026 GMT",
            "Not After : Nov 20 11:00:00 2028 GMT",
            "Public-Key: (2048 bit)",
            "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
            "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n",
            "X509v3 Extended Key Usage: \n                \
             TLS Web Client Authentication, TLS Web Server Authentication\n",
        ],
    );
}

#[test]
fn client_has_the_historical_profile() {
    let text = text_of(&CLIENT.certificate_pem);
    assert_contains(
        &text,
        &[
            "Version: 3",
            "Signature Algorithm: sha256WithRSAEncryption",
            "Issuer: C = US, ST = NY, L = Armonk, O = IBM, OU = Digital Assets, CN = Client CA",
            "Subject: C = US, ST = NY, L = Armonk, O = IBM, OU = Digital Assets, CN = Client\n",
            "Not Before: Nov 21 10:55:00 2026 GMT",
            "Not After : Nov 21 11:00:00 2027 GMT",
            "Public-Key: (2048 bit)",
            "X509v3 Basic Constraints: critical\n                CA:FALSE",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "X509v3 Extended Key Usage: \n                \
             TLS Web Client Authentication, TLS Web Server Authentication\n",
        ],
    );
    assert!(!text.contains("Alternative Name"), "{text}");
}

#[test]
fn server_has_the_historical_profile() {
    let text = text_of(&SERVER.certificate_pem);
    assert_contains(
        &text,
        &[
            "Subject: C = US, ST = NY, L = Armonk, O = IBM, OU = Digital Assets, CN = Server\n",
            "Not Before: Nov 21 10:55:00 2026 GMT",
            "Not After : Nov 21 11:00:00 2027 GMT",
            "X509v3 Basic Constraints: critical\n                CA:FALSE",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "X509v3 Extended Key Usage: \n                TLS Web Server Authentication\n",
            "X509v3 Subject Alternative Name: \n                DNS:sbs.example.com\n",
        ],
    );
}

#[test]
fn server_at_an_address_has_an_address_name() {
    for (host, expected) in
        [("127.0.0.1", "IP Address:127.0.0.1\n"), ("::1", "IP Address:0:0:0:0:0:0:0:1\n")]
    {
        let server = CA.issue_server(host, NOW).unwrap();
        let text = text_of(&server.certificate_pem);
        let name = format!("X509v3 Subject Alternative Name: \n                {expected}");
        assert_contains(&text, &[&name]);
        let options = format!("-x509_strict -purpose sslserver -verify_ip {host}");
        verify(&CA, &server.certificate_pem, &options, NOW).unwrap();
        assert!(describe(&server.certificate_pem).unwrap().is_for_host(host), "{host}");
    }
}

#[test]
fn openssl_accepts_the_certificates_strictly() {
    for purpose in ["sslclient", "sslserver"] {
        let options = format!("-x509_strict -purpose {purpose}");
        verify(&CA, &CLIENT.certificate_pem, &options, NOW).unwrap();
    }
    let options = "-x509_strict -purpose sslserver -verify_hostname sbs.example.com";
    verify(&CA, &SERVER.certificate_pem, options, NOW).unwrap();
    // Five minutes for a peer whose clock is behind.
    verify(&CA, &SERVER.certificate_pem, options, NOW - Duration::minutes(5)).unwrap();
}

#[test]
fn openssl_refuses_them_for_another_use() {
    let other = CertificateAuthority::create(NOW).unwrap();
    let day = Duration::days(1);
    let pem = &SERVER.certificate_pem;
    for (what, verdict) in [
        ("purpose", verify(&CA, pem, "-purpose sslclient", NOW)),
        ("host", verify(&CA, pem, "-verify_hostname other.example.com", NOW)),
        ("address", verify(&CA, pem, "-verify_ip 127.0.0.1", NOW)),
        ("expired", verify(&CA, pem, "", NOW + 366 * day)),
        ("early", verify(&CA, pem, "", NOW - Duration::minutes(6))),
        ("authority", verify(&other, pem, "", NOW)),
    ] {
        assert!(verdict.is_err(), "{what}");
    }
}

#[test]
fn a_leaf_cannot_act_as_authority() {
    let openssl = OpenSsl::new();
    let fake = CertificateAuthority::from_pem(&CLIENT.certificate_pem, &CLIENT.key_pem);
    assert_eq!(fake.unwrap_err(), LoadError::NotAnAuthority);

    // Whoever does not ask: a chain through a leaf is refused by the verifier.
    openssl.write("ca.pem", CA.certificate_pem());
    openssl.write("leaf.pem", &CLIENT.certificate_pem);
    openssl.write("leaf-key.pem", CLIENT.key_pem.as_str());
    openssl.write("request.pem", &SERVER.request_pem);
    openssl
        .run("x509 -req -in request.pem -CA leaf.pem -CAkey leaf-key.pem -out fake.pem -days 9999")
        .unwrap();
    let at = NOW.unix_timestamp();
    let command = format!("verify -CAfile ca.pem -untrusted leaf.pem -attime {at} fake.pem");
    let complaint = openssl.run(&command).unwrap_err();
    assert_contains(&complaint, &["invalid CA certificate"]);
}

#[test]
fn key_identifiers_are_of_the_keys() {
    let authority = text_of(CA.certificate_pem());
    let own = key_identifier(&authority, "Subject Key Identifier");
    assert_eq!(key_identifier(&authority, "Authority Key Identifier"), own);
    let mut seen = vec![own.clone()];
    for leaf in [&CLIENT.certificate_pem, &SERVER.certificate_pem] {
        let text = text_of(leaf);
        assert_eq!(key_identifier(&text, "Authority Key Identifier"), own);
        seen.push(key_identifier(&text, "Subject Key Identifier"));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "each key has its own");
    // The SHA-1 of nothing, which the historical client writes.
    assert!(!seen.iter().any(|id| id.starts_with("DA:39:A3:EE")));
}

#[test]
fn serial_numbers_are_long_and_differ() {
    let mut serials: Vec<Vec<u8>> = [
        CA.certificate_pem(),
        &CLIENT.certificate_pem,
        &SERVER.certificate_pem,
        &CA.issue_client(NOW).unwrap().certificate_pem,
    ]
    .map(|pem| {
        let der = armor::decode_one("CERTIFICATE", pem).unwrap();
        describe::parse(&der).unwrap().serial.to_bytes_be()
    })
    .into();
    // Six leading zero bytes have a chance of 2^-48.
    assert!(serials.iter().all(|serial| (10..=16).contains(&serial.len())));
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 4);
}

#[test]
fn requests_are_well_formed_and_of_the_same_key() {
    let openssl = OpenSsl::new();
    for (issued, subject, extra) in
        [(&*CLIENT, "CN = Client\n", "Digital Signature"), (&*SERVER, "CN = Server\n", "DNS:sbs")]
    {
        openssl.write("request.pem", &issued.request_pem);
        openssl.write("certificate.pem", &issued.certificate_pem);
        let text = openssl.run("req -in request.pem -verify -noout -text").unwrap();
        assert_contains(&text, &[subject, extra]);
        assert_eq!(
            openssl.run("req -in request.pem -noout -pubkey"),
            openssl.run("x509 -in certificate.pem -noout -pubkey")
        );
    }
}

#[test]
fn keys_are_pkcs8_and_belong_to_the_certificates() {
    let openssl = OpenSsl::new();
    for (certificate, key) in [
        (CA.certificate_pem(), CA.key_pem()),
        (&CLIENT.certificate_pem, &CLIENT.key_pem),
        (&SERVER.certificate_pem, &SERVER.key_pem),
    ] {
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        openssl.write("key.pem", key);
        openssl.write("certificate.pem", certificate);
        openssl.run("pkey -in key.pem -check -noout").unwrap();
        assert_eq!(
            openssl.run("pkey -in key.pem -pubout"),
            openssl.run("x509 -in certificate.pem -noout -pubkey")
        );
    }
}

#[test]
fn rustls_accepts_both_sides() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CA.certificate_pem().as_bytes()).unwrap()).unwrap();
    let roots = Arc::new(roots);
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        NOW.unix_timestamp().try_into().unwrap(),
    ));
    let der = |issued: &Issued| {
        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()
    };

    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .unwrap();
    clients.verify_client_cert(&der(&CLIENT), &[], now).unwrap();
    clients.verify_client_cert(&der(&SERVER), &[], now).unwrap_err();

    let servers =
        WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().unwrap();
    let verify = |issued: &Issued, host: &'static str| {
        servers.verify_server_cert(
            &der(issued),
            &[],
            &ServerName::try_from(host).unwrap(),
            &[],
            now,
        )
    };
    verify(&SERVER, "sbs.example.com").unwrap();
    verify(&SERVER, "other.example.com").unwrap_err();
    verify(&CLIENT, "sbs.example.com").unwrap_err();
    let local = CA.issue_server("127.0.0.1", NOW).unwrap();
    verify(&local, "127.0.0.1").unwrap();
    verify(&local, "127.0.0.2").unwrap_err();

    // The key loads, and is checked against the certificate.
    let key = PrivateKeyDer::from_pem_slice(SERVER.key_pem.as_bytes()).unwrap();
    CertifiedKey::from_der(vec![der(&SERVER)], key, &provider).unwrap();
}

#[test]
fn a_reloaded_authority_issues_as_before() {
    let reloaded = CertificateAuthority::from_pem(CA.certificate_pem(), CA.key_pem()).unwrap();
    assert_eq!(reloaded.certificate_pem(), CA.certificate_pem());
    assert_eq!(reloaded.key_pem(), CA.key_pem());
    let client = reloaded.issue_client(NOW).unwrap();
    verify(&CA, &client.certificate_pem, "-x509_strict -purpose sslclient", NOW).unwrap();
}

#[test]
fn issues_under_an_authority_made_elsewhere() {
    type Form<'a> = &'a dyn Fn(&OpenSsl) -> String;
    let pkcs1 = |openssl: &OpenSsl| openssl.run("rsa -in key.pem -traditional").unwrap();
    let sec1 = |openssl: &OpenSsl| {
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        parameters.to_owned() + &openssl.run("ec -in key.pem").unwrap()
    };
    let as_is = |openssl: &OpenSsl| openssl.read_text("key.pem");
    let cases: [(&str, &str, Form<'_>); 6] = [
        (RSA_2048, PLAIN_CA, &as_is),
        (RSA_2048, PLAIN_CA, &pkcs1),
        (RSA_2048, HISTORICAL_CA, &as_is),
        (P_256, PLAIN_CA, &as_is),
        (P_256, PLAIN_CA, &sec1),
        (P_384, PLAIN_CA, &as_is),
    ];
    for (number, (kind, extensions, form)) in cases.into_iter().enumerate() {
        let (certificate, _, openssl) = foreign(kind, PLAIN_NAME, extensions);
        let key = form(&openssl);
        let authority = CertificateAuthority::from_pem(&certificate, &key).unwrap();
        // The key is written back as it came: a PKCS#1 key stays one.
        assert_eq!(authority.key_pem(), key, "case {number}");
        let now = authority_start(&certificate);
        let server = authority.issue_server("sbs.example.com", now).unwrap();
        let options = "-purpose sslserver -verify_hostname sbs.example.com";
        verify(&authority, &server.certificate_pem, options, now).unwrap();
    }
}

fn authority_start(certificate_pem: &str) -> OffsetDateTime {
    describe(certificate_pem).unwrap().not_before + Duration::hours(1)
}

#[test]
fn leaves_do_not_outlive_their_authority() {
    let last = NOW + Duration::days(700);
    let leaf = describe(&CA.issue_client(last).unwrap().certificate_pem).unwrap();
    let authority = describe(CA.certificate_pem()).unwrap();
    assert_eq!(leaf.not_after, authority.not_after);
    let first = describe(&CA.issue_client(authority.not_before).unwrap().certificate_pem).unwrap();
    assert_eq!(first.not_before, authority.not_before);
}

#[test]
fn an_authority_issues_only_while_it_is_valid() {
    for at in [NOW - Duration::minutes(6), NOW + Duration::days(730), NOW + Duration::days(9999)] {
        let error = CA.issue_client(at).unwrap_err();
        assert!(matches!(error, IssueError::AuthorityNotValid { .. }), "{at}: {error}");
    }
}

#[test]
fn refuses_times_that_have_no_date() {
    for at in [
        datetime!(0001-01-01 00:00 UTC),
        datetime!(1949-12-31 23:59 UTC),
        datetime!(9999-12-31 23:59 UTC),
    ] {
        let error = CertificateAuthority::create(at).unwrap_err();
        assert!(matches!(error, IssueError::TimeOutOfRange), "{at}: {error}");
    }
}

#[test]
fn refuses_hosts_that_are_none() {
    for host in ["", "*.example.com", "sbs.example.com:443", "a b", "x\ny"] {
        let error = CA.issue_server(host, NOW).unwrap_err();
        assert!(matches!(error, IssueError::NotAHost), "{host}: {error}");
    }
}

#[test]
fn refuses_an_authority_whose_name_it_cannot_copy() {
    let name = "C = US\n0.OU = First\n1.OU = Second\nCN = Own CA";
    let (certificate, key, _) = foreign(P_256, name, PLAIN_CA);
    let authority = CertificateAuthority::from_pem(&certificate, &key).unwrap();
    let error = authority.issue_client(authority_start(&certificate)).unwrap_err();
    assert!(matches!(error, IssueError::AuthorityNameNotSupported), "{error}");
}

#[test]
fn refuses_certificates_that_may_not_sign() {
    for extensions in [
        "basicConstraints = critical, CA:FALSE",
        "subjectAltName = DNS:a.example",
        "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, digitalSignature",
    ] {
        let (certificate, key, _) = foreign(P_256, PLAIN_NAME, extensions);
        let error = CertificateAuthority::from_pem(&certificate, &key).unwrap_err();
        assert_eq!(error, LoadError::NotAnAuthority, "{extensions}");
    }
}

#[test]
fn refuses_the_key_of_another_certificate() {
    let error = CertificateAuthority::from_pem(CA.certificate_pem(), &CLIENT.key_pem);
    assert_eq!(error.unwrap_err(), LoadError::KeyMismatch);
}

#[test]
fn refuses_encrypted_keys_by_name() {
    let openssl = OpenSsl::new();
    openssl.write("key.pem", CA.key_pem());
    for command in [
        "pkey -in key.pem -aes-256-cbc -passout pass:secret",
        "rsa -in key.pem -traditional -aes-256-cbc -passout pass:secret",
    ] {
        let key = openssl.run(command).unwrap();
        let error = CertificateAuthority::from_pem(CA.certificate_pem(), &key).unwrap_err();
        assert_eq!(error, LoadError::KeyEncrypted, "{command}");
    }
}

#[test]
fn refuses_weak_and_unknown_keys() {
    for kind in [
        "-algorithm RSA -pkeyopt rsa_keygen_bits:1024",
        "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
    ] {
        let (certificate, key, _) = foreign(kind, PLAIN_NAME, PLAIN_CA);
        let error = CertificateAuthority::from_pem(&certificate, &key).unwrap_err();
        assert_eq!(error, LoadError::KeyNotSupported, "{kind}");
    }
}

#[test]
fn refuses_damaged_texts() {
    let (certificate, key) = (CA.certificate_pem(), CA.key_pem());
    let broken = armor::encode("CERTIFICATE", b"\x30\x03\x02\x01\x01");
    let whole = armor::decode_one("CERTIFICATE", certificate).unwrap();
    let longer = armor::encode("CERTIFICATE", &[&whole[..], b"\0"].concat());
    let padded = " ".repeat(armor::MAX_BYTES) + certificate;
    let padded_key = " ".repeat(armor::MAX_BYTES) + key;
    let (twice, two_keys) = (certificate.repeat(2), key.repeat(2));
    let broken_key = armor::encode("PRIVATE KEY", b"\x30\x03\x02\x01\x01");
    for (certificate, key, expected) in [
        ("", key, LoadError::CertificateNotPem),
        (key, key, LoadError::CertificateNotPem),
        (&*twice, key, LoadError::CertificateNotPem),
        (&*padded, key, LoadError::CertificateNotPem),
        (&**broken, key, LoadError::CertificateDamaged),
        (&**longer, key, LoadError::CertificateDamaged),
        (certificate, "", LoadError::KeyNotPem),
        (certificate, certificate, LoadError::KeyNotPem),
        (certificate, &*two_keys, LoadError::KeyNotPem),
        (certificate, &*padded_key, LoadError::KeyNotPem),
        (certificate, &**broken_key, LoadError::KeyNotSupported),
    ] {
        assert_eq!(CertificateAuthority::from_pem(certificate, key).unwrap_err(), expected);
    }
}

#[test]
fn describes_what_it_made() {
    let server = describe(&SERVER.certificate_pem).unwrap();
    assert_eq!(server.not_before, datetime!(2026-11-21 10:55:00 UTC));
    assert_eq!(server.not_after, datetime!(2027-11-21 11:00:00 UTC));
    assert_eq!(server.subject, "C=US, ST=NY, L=Armonk, O=IBM, OU=Digital Assets, CN=Server");
    assert_eq!(server.sans, ["DNS:sbs.example.com"]);
    assert!(!server.is_ca);
    let der = armor::decode_one("CERTIFICATE", &SERVER.certificate_pem).unwrap();
    assert_eq!(server.sha256, digest(&der));

    assert!(describe(CA.certificate_pem()).unwrap().is_ca);
    assert_eq!(describe(&CLIENT.certificate_pem).unwrap().sans, [""; 0]);
}

#[test]
fn describes_the_first_certificate_of_a_bundle() {
    let bundle = SERVER.certificate_pem.clone() + CA.certificate_pem();
    assert_eq!(describe(&bundle).unwrap(), describe(&SERVER.certificate_pem).unwrap());
}

#[test]
fn tells_whether_a_certificate_is_for_a_host() {
    let server = describe(&SERVER.certificate_pem).unwrap();
    assert!(server.is_for_host("sbs.example.com"));
    assert!(server.is_for_host("SBS.example.COM"));
    for host in ["", "example.com", "a.sbs.example.com", "127.0.0.1", "sbs.example.com."] {
        assert!(!server.is_for_host(host), "{host}");
    }
    // The historical client writes an address as a DNS name, which no TLS client accepts.
    let (certificate, ..) = foreign(P_256, PLAIN_NAME, "subjectAltName = DNS:127.0.0.1");
    let historical = describe(&certificate).unwrap();
    assert_eq!(historical.sans, ["DNS:127.0.0.1"]);
    assert!(!historical.is_for_host("127.0.0.1"));
}

#[test]
fn describes_every_kind_of_name_without_control_characters() {
    let names = "subjectAltName = DNS:a.example, IP:10.0.0.1, IP:2001:db8::1, email:a@b.example, \
                 URI:https://a.example, RID:1.2.3";
    let name = "O = \"\u{1b}[31mred\"\nCN = x";
    let (certificate, ..) = foreign(P_256, name, names);
    let info = describe(&certificate).unwrap();
    assert_eq!(
        info.sans,
        [
            "DNS:a.example",
            "IP:10.0.0.1",
            "IP:2001:db8::1",
            "other:e-mail",
            "other:URI",
            "other:unknown"
        ]
    );
    assert!(!info.subject.contains(char::is_control), "{:?}", info.subject);
    assert!(info.subject.contains("[31mred"), "{:?}", info.subject);
}

#[test]
fn describes_only_certificates() {
    assert_eq!(describe("").unwrap_err(), DescribeError::NotPem);
    assert_eq!(describe(&CLIENT.request_pem).unwrap_err(), DescribeError::NotPem);
    let padded = " ".repeat(armor::MAX_BYTES) + CA.certificate_pem();
    assert_eq!(describe(&padded).unwrap_err(), DescribeError::NotPem);
    let broken = armor::encode("CERTIFICATE", b"\x30\x00");
    assert_eq!(describe(&broken).unwrap_err(), DescribeError::NotACertificate);
    let der = armor::decode_one("CERTIFICATE", CA.certificate_pem()).unwrap();
    for length in (0..der.len()).step_by(7) {
        let cut = armor::encode("CERTIFICATE", &der[..length]);
        assert!(describe(&cut).is_err(), "{length}");
    }
}

#[test]
fn debug_and_errors_show_no_key() {
    assert_eq!(format!("{:?} {:?}", *CA, *CLIENT), "CertificateAuthority Issued");
}
