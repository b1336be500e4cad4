//! The server's own certificate: asked for, installed, and replaced while it runs.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use rcgen::{BasicConstraints, CertificateParams, IsCa, SanType};
use sbs_crypto::pki::describe;
use sbs_tests::{
    Api, Authority, BareServer, Reply, Sbs, ServerSetup, TestServer, output, program, variable,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

#[test]
fn a_server_without_a_certificate_asks_for_one_and_is_then_verified() -> Result<()> {
    let mut bare = BareServer::start()?;
    let first = bare.shown()?;
    // Nobody can verify it yet; a client that has compared its fingerprint trusts it alone.
    bare.api(&bare.authority.pem)?.call("GET", "/image").unwrap_err();
    let api = bare.api(&first)?;
    assert_eq!(told(&api)?["source"], "self-signed");
    for host in ["-x", "a..b", "a:443", "*.example", "1.2.3", "a%00b", "%2e%2e%2fx"] {
        is_error(&api.call("GET", &format!("/csr/{host}"))?, 400, "invalid_request")?;
    }
    is_error(&post(&api, &first)?, 409, "no_request")?;

    let request = bare.request(&api, "localhost")?;
    assert_eq!(openssl_names(&bare, &request)?, "DNS:localhost");
    assert_eq!(told(&api)?["pending_host"], "localhost");
    // Whoever asks again, also for another host, does not void what was asked for before.
    let other = bare.request(&api, "192.0.2.7")?;
    assert_eq!(openssl_names(&bare, &other)?, "IP Address:192.0.2.7");
    assert_eq!(openssl_names(&bare, &bare.request(&api, "::1")?)?, "IP Address:0:0:0:0:0:0:0:1");
    assert_eq!(bare.request(&api, "localhost")?, request);
    bare.server.kill();
    bare.server.start_again()?;
    assert_eq!(bare.shown()?, first);
    let api = bare.api(&first)?;
    assert_eq!(bare.request(&api, "localhost")?, request);

    let certificate = bare.authority.sign(&request, |_| {})?;
    let reply = post(&api, &certificate)?;
    assert_eq!((reply.status, &*reply.text()), (200, r#"{"status":"OK"}"#));
    assert_eq!(api.status()?.status.as_str(), "restarted nginx");
    let api = bare.api(&bare.authority.pem)?;
    assert_eq!(api.status()?.status.as_str(), "restarted nginx");
    openssl_verifies(&bare)?;
    // A client that did not get the answer asks again.
    assert_eq!(post(&api, &certificate)?.status, 200);
    let told = told(&api)?;
    assert_eq!(told["source"], "installed");
    assert_eq!(told["server"]["sha256"], describe(&certificate)?.sha256.to_string());
    assert_eq!(told["server"]["sans"], json!(["DNS:localhost"]));
    assert_eq!(told["pending_host"], Value::Null);
    let info = api.call("GET", "/v2/info")?.json()?;
    assert_eq!(info["certificates"]["server_not_after"], told["server"]["not_after"]);

    bare.server.kill();
    bare.server.start_again()?;
    assert_eq!(bare.api(&bare.authority.pem)?.call("GET", "/image")?.status, 200);
    Ok(())
}

#[test]
fn t1_the_first_certificate_is_known_by_the_fingerprint_in_the_log() -> Result<()> {
    let bare = BareServer::start()?;
    let shown = bare.shown_digest()?;
    assert!(bare.server.log_text().contains(&format!("sha256={shown}")), "{shown}");
    // Another server, such as one in the middle, has another.
    let other = BareServer::start()?;
    assert_ne!(other.shown_digest()?, shown);
    Ok(())
}

#[test]
fn t1_the_command_line_brings_a_server_to_its_certificate() -> Result<()> {
    let place = tempfile::tempdir()?;
    let config = json!({ "HOSTNAME": "localhost" });
    let sbs = Sbs::new(&place.path().join("client"), config.as_object().context("no object")?)?;
    sbs.ok(&["create-client-cert"])?;
    let directory = place.path().join("server");
    fs::create_dir(&directory)?;
    let environment = vec![variable("CLIENT_CA", &sbs.certificate_file("client-ca.pem")?)];
    let setup = ServerSetup { directory, environment, settings: String::new() };
    let server = TestServer::start(setup)?;
    sbs.set("CICD_PORT", server.port())?;
    assert_eq!(sbs.run(&["status"])?.code, 3);

    // Whose request it is has to be compared, unless the fingerprint was.
    let unknown = sbs.run(&["get-server-csr", "--noverify"])?;
    assert_eq!(unknown.code, 0, "{}", unknown.text());
    let warning = "warning: nothing proves that the request is the server's";
    assert!(unknown.stderr.contains(warning), "{}", unknown.stderr);
    let log = server.log_text();
    let shown = log.split("sha256=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let fingerprint = shown.context("no fingerprint in the log")?;
    let known = sbs.run(&["get-server-csr", "--fingerprint", fingerprint])?;
    assert_eq!(known.code, 0, "{}", known.text());
    assert!(!known.stderr.contains("warning"), "{}", known.stderr);

    sbs.ok(&["sign-csr"])?;
    let other = sbs.run(&["post-server-cert", "--fingerprint", &"00".repeat(32)])?;
    assert_eq!(other.code, 3, "{}", other.text());
    sbs.ok(&["post-server-cert", "--fingerprint", fingerprint])?;
    assert!(sbs.ok(&["status"])?.contains("status: restarted nginx\n"));
    Ok(())
}

#[test]
fn t9_what_clients_would_not_accept_is_refused_and_the_old_certificate_stays() -> Result<()> {
    let bare = BareServer::start()?;
    let first = bare.shown()?;
    let api = bare.api(&first)?;
    let request = bare.request(&api, "localhost")?;
    let sign = |change: fn(&mut CertificateParams)| bare.authority.sign(&request, change);
    let good = sign(|_| {})?;
    let other_authority = Authority::new("Client CA")?;
    let intermediate = other_authority.intermediate("Intermediate")?;
    let weak = weak_authority(&bare)?;
    let now = OffsetDateTime::now_utc();
    let loopback = bare.authority.issue_loopback("Server")?;
    let key_block = &bare.client.key;
    for (what, certificate, code, word) in [
        ("another key", loopback.certificate.clone(), 422, "not of the key"),
        ("another authority", other_authority.sign(&request, |_| {})?, 422, "not signed by"),
        (
            "another chain",
            intermediate.sign(&request, |_| {})? + &intermediate.pem + &other_authority.pem,
            422,
            "not signed by",
        ),
        ("a weak authority", weak.sign(&request)?, 422, ""),
        (
            "expired",
            sign(|p| p.not_after = OffsetDateTime::now_utc() - Duration::HOUR)?,
            422,
            "now",
        ),
        ("early", sign(|p| p.not_before = OffsetDateTime::now_utc() + Duration::HOUR)?, 422, "now"),
        ("no name", sign(|p| p.subject_alt_names.clear())?, 422, "`localhost`"),
        (
            "another name",
            sign(|p| p.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())])?,
            422,
            "`localhost`",
        ),
        ("for clients", sign(|p| p.extended_key_usages = vec![ClientAuth])?, 422, "serverAuth"),
        (
            "an authority",
            sign(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))?,
            422,
            "not accept",
        ),
        ("no chain", good.clone() + &Authority::new("Other")?.pem, 400, "no chain"),
        ("too long a chain", good.repeat(7), 400, "more than 6"),
        ("a key beside it", good.clone() + key_block, 400, "alone"),
        ("damaged", good.replace("MII", "MIJ"), 400, ""),
        ("cut", good.replace("-----END CERTIFICATE-----", ""), 400, "alone"),
        ("nothing", "x".to_owned(), 400, "alone"),
        ("much", "x".repeat(100_000), 400, "at most 64 KiB"),
    ] {
        let reply = post(&api, &certificate)?;
        assert_eq!(reply.status, code, "{what}: {}", reply.text());
        let told = reply.json()?["status"].as_str().unwrap_or_default().to_owned();
        assert!(told.contains(word), "{what}: {told}");
        assert!(!told.contains("PRIVATE"), "{what}: {told}");
        assert_eq!(bare.shown()?, first, "{what}");
    }
    for body in ["{}", r#"{"certificate":""}"#, r#"{"certificate":1}"#, "[]", "\"\""] {
        is_error(&api.send("POST", "/certificate", body)?, 400, "invalid_request")?;
    }
    assert!(describe(&good)?.not_after > now);
    assert_eq!(post(&api, &good)?.status, 200);
    openssl_verifies(&bare)
}

#[test]
fn a_certificate_of_an_intermediate_is_shown_with_its_chain() -> Result<()> {
    let bare = BareServer::start()?;
    let api = bare.api(&bare.shown()?)?;
    let request = bare.request(&api, "localhost")?;
    let intermediate = bare.authority.intermediate("Intermediate")?;
    let certificate = intermediate.sign(&request, |_| {})?;
    is_error(&post(&api, &certificate)?, 422, "bad_certificate")?;
    assert_eq!(post(&api, &(certificate + &intermediate.pem))?.status, 200);
    openssl_verifies(&bare)
}

#[test]
fn v2_tells_of_the_certificates_and_replaces_that_of_the_server() -> Result<()> {
    let authority = Authority::new("Client CA")?;
    let given = authority.issue_loopback("Server")?;
    let mut bare = BareServer::start_with(authority, Some(&given), |_| String::new())?;
    let api = bare.api(&bare.authority.pem)?;
    assert_eq!(told(&api)?["source"], "environment");
    let authorities = told(&api)?["client_authorities"].clone();
    assert_eq!(authorities[0]["sha256"], describe(&bare.authority.pem)?.sha256.to_string());

    is_error(&api.send("POST", "/v2/certificates/csr", "{}")?, 400, "invalid_request")?;
    let host = json!({ "host": "localhost" }).to_string();
    let reply = api.send("POST", "/v2/certificates/csr", &host)?.json()?;
    let request = reply["csr"].as_str().context("csr")?;
    let certificate = bare.authority.sign(request, |_| {})?;
    let body = json!({ "certificate": certificate }).to_string();
    let reply = api.send("PUT", "/v2/certificates/server", &body)?;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()?["source"], "installed");
    assert_eq!(bare.shown_digest()?, describe(&certificate)?.sha256);

    // What was given last is shown: the variables of before do not come back.
    bare.server.terminate()?;
    bare.server.start_again()?;
    assert_eq!(bare.shown_digest()?, describe(&certificate)?.sha256);
    Ok(())
}

/// Sends a certificate as the original's client does.
fn post(api: &Api, certificate: &str) -> Result<Reply> {
    api.send("POST", "/certificate", &json!({ "certificate": certificate }).to_string())
}

fn told(api: &Api) -> Result<Value> {
    let reply = api.call("GET", "/v2/certificates")?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    reply.json()
}

fn is_error(reply: &Reply, code: u16, word: &str) -> Result<()> {
    assert_eq!(reply.status, code, "{}", reply.text());
    let told = reply.json()?;
    assert_eq!(told.get("code").and_then(Value::as_str), Some(word), "{told}");
    Ok(())
}

/// Has openssl check the signature of a request, and tell the names that it asks for.
fn openssl_names(bare: &BareServer, request: &str) -> Result<String> {
    let file = bare.path("request.pem");
    fs::write(&file, request)?;
    let mut openssl = program("openssl");
    openssl.args(["req", "-verify", "-noout", "-text", "-in"]).arg(file);
    let text = output(&mut openssl)?;
    for expected in ["CN = Server", "2048 bit", "TLS Web Server Authentication", "sha256With"] {
        ensure!(text.contains(expected), "{expected}: {text}");
    }
    let mut lines = text.lines().skip_while(|line| !line.contains("Alternative Name"));
    Ok(lines.nth(1).context("no names")?.trim().to_owned())
}

/// Has openssl connect as a client that looks at everything.
fn openssl_verifies(bare: &BareServer) -> Result<()> {
    let (trusted, client) = (bare.path("trusted.pem"), bare.path("client.pem"));
    fs::write(&trusted, &bare.authority.pem)?;
    fs::write(&client, bare.client.bundle())?;
    let connect = format!("localhost:{}", bare.server.port());
    let mut openssl = program("openssl");
    openssl.args(["s_client", "-connect", &connect, "-verify_hostname", "localhost"]);
    openssl.args(["-verify_return_error", "-x509_strict", "-purpose", "sslserver"]);
    openssl.arg("-CAfile").arg(trusted).arg("-cert").arg(&client).arg("-key").arg(&client);
    let told = output(&mut openssl)?;
    ensure!(told.contains("Verify return code: 0 (ok)"), "{told}");
    Ok(())
}

/// An authority of the same name with an RSA key of 1024 bits, as openssl makes it.
struct WeakAuthority(std::path::PathBuf);

fn weak_authority(bare: &BareServer) -> Result<WeakAuthority> {
    let directory = bare.path("weak");
    fs::create_dir(&directory)?;
    let mut openssl = program("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=Client CA"]);
    openssl.args(["-keyout", "key.pem", "-out", "ca.pem", "-days", "2"]);
    output(openssl.current_dir(&directory))?;
    Ok(WeakAuthority(directory))
}

impl WeakAuthority {
    fn sign(&self, request: &str) -> Result<String> {
        fs::write(self.0.join("request.pem"), request)?;
        let mut openssl = program("openssl");
        openssl.args(["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "key.pem"]);
        openssl.args(["-copy_extensions", "copy", "-days", "1"]);
        output(openssl.current_dir(&self.0))
    }
}
