//! Nobody without a good client certificate gets as far as HTTP.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rcgen::{BasicConstraints, IsCa};
use sbs_tests::{Api, Authority, BareServer, Http, Leaf, World, outcome, program};
use serde_json::json;
use time::{Duration, OffsetDateTime};

#[test]
fn t2_only_a_certificate_under_the_authority_is_let_in() -> Result<()> {
    let world = World::start()?;
    let trusted = world.sbs.certificate_file("client-ca.pem")?;
    let key = world.sbs.certificate_file("client-ca-key.pem")?;
    let authority = Authority::from_pem(&trusted, &key)?;
    let other = Authority::new("Client CA")?;
    let now = OffsetDateTime::now_utc();
    let day = Duration::days(1);

    // What the tests issue themselves is let in when nothing is wrong with it.
    let good = authority.issue_client(now - day, day * 2, &[ClientAuth])?;
    let client = |by: &Authority| {
        by.issue_with("Client", |parameters| parameters.extended_key_usages = vec![ClientAuth])
    };
    let with_chain =
        |leaf: &Leaf, by: &Authority| format!("{}{}{}", leaf.certificate, by.pem, leaf.key);
    // One of the authority's own may stand between.
    let between = authority.intermediate("Intermediate")?;
    let below = with_chain(&client(&between)?, &between);
    for identity in [good.bundle(), below, world.sbs.identity()?] {
        let api = Api::new(world.server.port(), &trusted, Some(&identity))?;
        assert_eq!(api.call("GET", "/image")?.status, 200);
    }

    let same_name = other.issue_client(now - day, day * 2, &[ClientAuth])?;
    let expired = authority.issue_client(now - day * 2, day, &[ClientAuth])?;
    let early = authority.issue_client(now + day, day, &[ClientAuth])?;
    let for_servers = authority.issue_client(now - day, day * 2, &[ServerAuth])?;
    let self_signed = Authority::self_signed_client()?;
    let an_authority = authority.issue_with("Client", |parameters| {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.extended_key_usages = vec![ClientAuth];
    })?;
    // An authority that may only speak for another name than the client's.
    let constrained = authority.constrained("Constrained", "elsewhere.example")?;
    let beyond = with_chain(&client(&constrained)?, &constrained);
    let server = format!(
        "{}{}",
        world.sbs.certificate_file("server-cert.pem")?,
        world.sbs.certificate_file("server-cert-key.pem")?
    );
    for (what, identity) in [
        ("no certificate", None),
        ("another authority of the same name", Some(same_name.bundle())),
        ("a self-signed certificate", Some(self_signed.bundle())),
        ("an expired certificate", Some(expired.bundle())),
        ("a certificate that is not valid yet", Some(early.bundle())),
        ("a certificate for servers only", Some(for_servers.bundle())),
        ("the server's own certificate", Some(server)),
        ("a certificate of an authority", Some(an_authority.bundle())),
        ("a certificate beyond the names of its authority", Some(beyond)),
    ] {
        let api = Api::new(world.server.port(), &trusted, identity.as_deref())?;
        for (method, path) in ROUTES {
            // In TLS 1.3 a client sends before it knows that it was refused, and may find the
            // connection closed before it reads why: it asks again.
            let mut told = String::new();
            for _attempt in 0..20 {
                told = match api.call(method, path) {
                    Ok(reply) => anyhow::bail!("{what} got a reply to {path}: {}", reply.status),
                    Err(error) => error.to_string(),
                };
                if told.contains("fatal alert") {
                    break;
                }
            }
            assert!(told.contains("fatal alert"), "{what}, {path}: {told}");
        }
    }
    Ok(())
}

#[test]
fn the_server_is_not_believed_under_another_name_or_authority() -> Result<()> {
    let world = World::start()?;
    let trusted = world.sbs.certificate_file("client-ca.pem")?;
    let identity = world.sbs.identity()?;
    let http = Http::new(&trusted, Some(&identity))?;
    let url = format!("https://127.0.0.1:{}/image", world.server.port());
    let error = http.send("GET", &url, &[], None).err().context("another name is believed")?;
    assert!(error.to_string().contains("not valid for name"), "{error}");

    let other = Authority::new("Client CA")?;
    let api = Api::new(world.server.port(), &other.pem, Some(&identity))?;
    let error = api.call("GET", "/image").err().context("another authority is believed")?;
    assert!(error.to_string().contains("certificate"), "{error}");

    // The command line says so by its exit code, and nothing is sent.
    let told = world.sbs.set("HOSTNAME", "127.0.0.1")?.run(&["status"])?;
    assert_eq!(told.code, 3, "{}", told.text());
    Ok(())
}

#[test]
fn only_the_pinned_certificate_is_let_in_where_one_is_pinned() -> Result<()> {
    let parts = sbs_tests::Parts::start()?;
    let settings = World::settings(&parts, "network = \"none\"\n")?;
    let world = World::start_on(parts, settings + "[client]\npin-certificate = true\n")?;
    let trusted = world.sbs.certificate_file("client-ca.pem")?;
    let key = world.sbs.certificate_file("client-ca-key.pem")?;
    let now = OffsetDateTime::now_utc();
    let day = Duration::days(1);
    let second = Authority::from_pem(&trusted, &key)?.issue_client(now, day, &[ClientAuth])?;
    assert_eq!(world.api()?.call("GET", "/image")?.status, 200);
    let api = Api::new(world.server.port(), &trusted, Some(&second.bundle()))?;
    for (method, path) in ROUTES {
        // The certificate is good for TLS; the connection is closed before any HTTP.
        let error = api.call(method, path).err().context("another certificate is let in")?;
        assert!(error.to_string().contains("connection"), "{error}");
    }
    Ok(())
}

#[test]
fn a_slow_handshake_stops_nobody() -> Result<()> {
    let world = World::start()?;
    let address = ("127.0.0.1", world.server.port());
    let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
    assert_eq!(world.api()?.call("GET", "/image")?.status, 200);
    drop(silent);
    Ok(())
}

#[test]
fn t5_old_versions_weak_suites_and_early_data_are_refused() -> Result<()> {
    let bare = with_certificate()?;
    let client = bare.path("client.pem");
    std::fs::write(&client, bare.client.bundle())?;
    let connect = format!("localhost:{}", bare.server.port());
    let openssl = |options: &[&str]| {
        let mut openssl = program("openssl");
        openssl.args(["s_client", "-connect", &connect, "-cert"]).arg(&client).arg("-key");
        // Else openssl itself refuses what is old.
        outcome(openssl.arg(&client).args(["-cipher", "ALL:@SECLEVEL=0"]).args(options))
    };
    for good in [["-tls1_2"], ["-tls1_3"]] {
        let told = openssl(&good)?;
        assert_eq!(told.code, 0, "{good:?}: {}", told.text());
    }
    for bad in [
        vec!["-tls1"],
        vec!["-tls1_1"],
        vec!["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"],
        vec!["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
        vec!["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
        vec!["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"],
        vec!["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"],
    ] {
        let told = openssl(&bad)?;
        assert_ne!(told.code, 0, "{bad:?}: {}", told.text());
        // It was the server that refused.
        assert!(told.text().contains("alert"), "{bad:?}: {}", told.text());
    }
    let told = openssl(&["-tls1_3"])?.stdout;
    assert!(told.contains("Early data was not sent") && !told.contains("New Session Ticket"));
    Ok(())
}

#[test]
fn t6_ambiguous_and_oversized_requests_are_refused_and_others_are_served() -> Result<()> {
    let bare = with_certificate()?;
    let large = "x".repeat(200_000);
    let start = "POST /image HTTP/1.1\r\nHost: localhost\r\n";
    for (what, request) in [
        ("two lengths", format!("{start}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}x")),
        ("a signed length", format!("{start}Content-Length: +2\r\n\r\n{{}}")),
        ("a length of words", format!("{start}Content-Length: two\r\n\r\n{{}}")),
        ("an unknown coding", format!("{start}Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n")),
        ("a bad chunk", format!("{start}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n")),
        ("a space in a name", format!("{start}Content-Length : 2\r\n\r\n{{}}")),
        ("a large header", format!("{start}X: {large}\r\n\r\n")),
        ("many headers", format!("{start}{}\r\n", "X: 1\r\n".repeat(5000))),
        ("a large path", format!("GET /{large} HTTP/1.1\r\nHost: localhost\r\n\r\n")),
        ("no HTTP", "\0\x01\x02\r\n\r\n".to_owned()),
    ] {
        let mut stream = bare.connect()?;
        stream.sock.set_read_timeout(Some(std::time::Duration::from_mins(1)))?;
        // The server may close before all is sent.
        let _cut = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            answer.extend(piece.iter().take(read));
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.strip_prefix("HTTP/1.1 ").unwrap_or("4 and closed");
        assert!(status.starts_with('4'), "{what}: {answer}");
        // One request, one answer: nothing of the body was taken for another request.
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
    }
    assert_eq!(bare.api(&bare.authority.pem)?.call("GET", "/image")?.status, 200);
    Ok(())
}

#[test]
fn t7_odd_json_is_refused_on_the_routes_of_certificates() -> Result<()> {
    let bare = with_certificate()?;
    let api = bare.api(&bare.authority.pem)?;
    let deep = "[".repeat(100_000);
    for body in [
        r#"{"certificate":"a","certificate":"b"}"#,
        r#"{"certificate":NaN}"#,
        r#"{"certificate":1e999}"#,
        r#"{"certificate":"\ud800"}"#,
        r#"{"host":"a","host":"b"}"#,
        &format!("{{\"certificate\":{deep}"),
        &format!("{{\"host\":{deep}"),
        "\u{feff}{}",
    ] {
        for (method, path) in [
            ("POST", "/certificate"),
            ("PUT", "/v2/certificates/server"),
            ("POST", "/v2/certificates/csr"),
        ] {
            let reply = api.send(method, path, body)?;
            assert_eq!(reply.status, 400, "{path}: {}", reply.text());
            assert!(reply.json()?["status"].is_string());
        }
    }
    assert_eq!(api.call("GET", "/image")?.status, 200);
    Ok(())
}

fn with_certificate() -> Result<BareServer> {
    let authority = Authority::new("Client CA")?;
    let given = authority.issue_loopback("Server")?;
    BareServer::start_with(authority, Some(&given), |_| String::new())
}

#[test]
fn t6_a_connection_that_asks_nothing_is_closed() -> Result<()> {
    let world = World::start()?;
    let mut open = Vec::new();
    // From the second on these could be the beginning of either version of HTTP.
    for begin in ["", "P", "PRI * HTTP/2.0", "GET /image HTTP/1.1\r\nHost:"] {
        let mut stream = world.connect()?;
        stream.sock.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
        stream.conn.complete_io(&mut stream.sock)?;
        stream.write_all(begin.as_bytes())?;
        open.push((begin, stream));
    }
    for (begin, mut stream) in open {
        if let Err(error) = stream.read(&mut [0; 256]) {
            let waits = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!waits, "still open after `{begin}`");
        }
    }
    assert_eq!(world.api()?.call("GET", "/image")?.status, 200);
    Ok(())
}

#[test]
fn the_private_files_are_the_owners_alone() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::start()?;
    let config = world.sbs.config()?;
    let uuid = config.get("UUID").context("UUID")?;
    assert_ne!(*uuid, json!(""));
    let stem = format!(".container-{}", uuid.as_str().context("UUID")?);
    let directory = world.sbs.directory();
    for name in ["client-ca-key.pem", "client-cert-key.pem", "server-cert-key.pem"] {
        let path = directory.join(format!("{stem}.d")).join(name);
        assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(directory.join(&stem).metadata()?.permissions().mode() & 0o777, 0o600);
    let data = world.server.data_directory().metadata()?.permissions().mode();
    assert_eq!(data & 0o077, 0, "others can enter the data directory: {data:o}");
    Ok(())
}

const ROUTES: [(&str, &str); 12] = [
    ("GET", "/image"),
    ("PUT", "/image"),
    ("DELETE", "/image"),
    ("GET", "/log/build"),
    ("GET", "/manifest"),
    ("GET", "/publickey"),
    ("GET", "/imagedigest"),
    ("GET", "/csr/localhost"),
    ("POST", "/certificate"),
    ("GET", "/v2/certificates"),
    ("PUT", "/v2/certificates/server"),
    ("GET", "/no/such/route"),
];
