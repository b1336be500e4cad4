//! Nobody without a good client certificate gets as far as HTTP.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use sbs_tests::{Api, Authority, Http, World};
use serde_json::json;
use time::{Duration, OffsetDateTime};

#[test]
fn only_a_certificate_under_the_authority_is_let_in() -> Result<()> {
    let world = World::start()?;
    let trusted = world.sbs.certificate_file("client-ca.pem")?;
    let key = world.sbs.certificate_file("client-ca-key.pem")?;
    let authority = Authority::from_pem(&trusted, &key)?;
    let other = Authority::new("Client CA")?;
    let now = OffsetDateTime::now_utc();
    let day = Duration::days(1);

    // What the tests issue themselves is let in when nothing is wrong with it.
    let good = authority.issue_client(now - day, day * 2, &[ClientAuth])?;
    for identity in [good.bundle(), world.sbs.identity()?] {
        let api = Api::new(world.server.port(), &trusted, Some(&identity))?;
        assert_eq!(api.call("GET", "/image")?.status, 200);
    }

    let same_name = other.issue_client(now - day, day * 2, &[ClientAuth])?;
    let expired = authority.issue_client(now - day * 2, day, &[ClientAuth])?;
    let early = authority.issue_client(now + day, day, &[ClientAuth])?;
    let for_servers = authority.issue_client(now - day, day * 2, &[ServerAuth])?;
    let self_signed = Authority::self_signed_client()?;
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

const ROUTES: [(&str, &str); 8] = [
    ("GET", "/image"),
    ("PUT", "/image"),
    ("DELETE", "/image"),
    ("GET", "/log/build"),
    ("GET", "/manifest"),
    ("GET", "/publickey"),
    ("GET", "/imagedigest"),
    ("GET", "/no/such/route"),
];
