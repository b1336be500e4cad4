//! What is open and what comes while certificates are replaced.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use sbs_crypto::pki::describe;
use sbs_tests::{Authority, BareServer, Leaf, TlsStream, client_config, connect_with, wait_until};
use serde_json::json;
use time::OffsetDateTime;

#[test]
fn no_client_sees_a_failed_handshake_while_the_certificate_is_replaced_200_times() -> Result<()> {
    let authority = Authority::new("Client CA")?;
    let given = authority.issue_loopback("Server")?;
    let bare = BareServer::start_with(authority, Some(&given), |_| String::new())?;
    let api = bare.api(&bare.authority.pem)?;
    let mut open = bare.connect()?;
    ask(&mut open)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| connect_until(&bare, &stop))).collect();
        let swapped = (0..SWAPS).try_for_each(|_| -> Result<()> {
            let request = bare.request(&api, "localhost")?;
            let certificate = bare.authority.sign(&request, |_| {})?;
            let body = json!({ "certificate": certificate }).to_string();
            let reply = api.send("POST", "/certificate", &body)?;
            ensure!(reply.status == 200, "{}", reply.text());
            // What a client sees next is the new one; what was open goes on.
            let shown = server_digest(&mut bare.connect()?)?;
            ensure!(shown == describe(&certificate)?.sha256, "the old certificate is shown");
            ask(&mut open)
        });
        stop.store(true, Ordering::Relaxed);
        let mut handshakes = 0;
        for client in clients {
            let Ok(result) = client.join() else { bail!("a client panicked") };
            handshakes += result?;
        }
        swapped?;
        // Each saw some: the claim is about those who come in the middle.
        ensure!(handshakes >= SWAPS, "only {handshakes} handshakes");
        Ok(())
    })
}

#[test]
fn t3_no_session_is_resumed_and_a_removed_authority_is_out_at_once() -> Result<()> {
    let (first, second) = (Authority::new("Client CA")?, Authority::new("Second CA")?);
    let third = Authority::new("Third CA")?;
    let given = first.issue_loopback("Server")?;
    let bare = BareServer::start_with(first, Some(&given), |path| {
        format!("[client]\nca-file = \"{}\"\n", path.join("ca.pem").display())
    });
    // A file that is named must be there.
    ensure!(bare.is_err(), "the server starts without the file");

    let (first, ca_file) = (Authority::new("Client CA")?, |second: &Authority| {
        let pem = second.pem.clone();
        move |path: &std::path::Path| {
            let file = path.join("ca.pem");
            fs::write(&file, pem).unwrap_or_default();
            format!("[client]\nca-file = \"{}\"\n", file.display())
        }
    });
    let given = first.issue_loopback("Server")?;
    let bare = BareServer::start_with(first, Some(&given), ca_file(&second))?;
    let port = bare.server.port();
    let client = leaf(&second)?;
    for (version, name) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        fs::write(bare.path("ca.pem"), &second.pem)?;
        reload(&bare)?;
        // One configuration holds what a client may resume: it offers it each time.
        let config = config(&bare, &client, version)?;
        let mut open = connect_with(port, config.clone())?;
        ask(&mut open)?;
        for _again in 0..3 {
            let mut stream = connect_with(port, config.clone())?;
            ask(&mut stream)?;
            assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full), "{name}");
        }
        // Those of the first authority never notice.
        let mut others = bare.connect()?;
        ask(&mut others)?;

        fs::write(bare.path("ca.pem"), &third.pem)?;
        reload(&bare)?;
        let mut stream = connect_with(port, config)?;
        let refused = ask(&mut stream).err().context("a removed authority is believed")?;
        assert!(format!("{refused:#}").contains("alert"), "{name}: {refused:#}");
        // What was open is closed, too.
        ask(&mut open).err().with_context(|| format!("{name}: an old connection goes on"))?;
        ask(&mut others)?;
        ask(&mut bare.connect()?)?;
        ask(&mut connect_with(port, self::config(&bare, &leaf(&third)?, version)?)?)?;
    }
    Ok(())
}

#[test]
fn t4_a_revoked_certificate_is_out_at_once_also_on_open_connections() -> Result<()> {
    let authority = Authority::new("Client CA")?;
    let given = authority.issue_loopback("Server")?;
    let none = authority.revoke(&[])?;
    let bare = BareServer::start_with(authority, Some(&given), |path| {
        let file = path.join("crl.pem");
        fs::write(&file, none).unwrap_or_default();
        format!("[client]\ncrl-file = \"{}\"\n", file.display())
    })?;
    let stolen = leaf(&bare.authority)?;
    let serial = stolen.serial()?;
    for version in [&TLS12, &TLS13] {
        fs::write(bare.path("crl.pem"), bare.authority.revoke(&[])?)?;
        reload(&bare)?;
        let config = config(&bare, &stolen, version)?;
        let mut open = connect_with(bare.server.port(), config.clone())?;
        ask(&mut open)?;
        let mut good = bare.connect()?;
        ask(&mut good)?;

        // A list that is damaged, or signed by others, changes nothing and lets nobody back in.
        fs::write(bare.path("crl.pem"), bare.authority.revoke(std::slice::from_ref(&serial))?)?;
        reload(&bare)?;
        let own = bare.authority.revoke(&[])?;
        let foreign = Authority::new("Client CA")?.revoke(&[])?;
        for bad in ["no list", &foreign, &format!("{own}{foreign}")] {
            fs::write(bare.path("crl.pem"), bad)?;
            reload_in_vain(&bare)?;
        }
        assert!(bare.server.log_text().contains("signed by no authority in CLIENT_CA"));
        let mut stream = connect_with(bare.server.port(), config)?;
        let refused = ask(&mut stream).err().context("a revoked certificate is believed")?;
        assert!(format!("{refused:#}").contains("alert"), "{refused:#}");
        ask(&mut open).err().context("a revoked certificate goes on")?;
        ask(&mut good)?;
    }

    // A list goes on to count when it is out of date, and the log says so.
    let past = OffsetDateTime::now_utc() - time::Duration::minutes(1);
    let old = bare.authority.revoke_until(std::slice::from_ref(&serial), past)?;
    fs::write(bare.path("crl.pem"), old)?;
    reload(&bare)?;
    let mut stream = connect_with(bare.server.port(), config(&bare, &stolen, &TLS13)?)?;
    ask(&mut stream).err().context("an old list does not count")?;
    ask(&mut bare.connect()?)?;
    wait_until("the warning", Duration::from_secs(30), || {
        Ok(bare.server.log_text().contains("a revocation list is out of date").then_some(()))
    })
}

#[test]
fn a_certificate_in_files_is_noticed_and_a_bad_one_is_not_used() -> Result<()> {
    let authority = Authority::new("Client CA")?;
    let (one, two) = (authority.issue_loopback("One")?, authority.issue_loopback("Two")?);
    let bare = BareServer::start_with(authority, None, |path| {
        // Both by links, as certbot makes them.
        let (certificate, key) = (path.join("live.pem"), path.join("live-key.pem"));
        write_pair(path, &one).unwrap_or_default();
        symlink("server.pem", &certificate).unwrap_or_default();
        symlink("server-key.pem", &key).unwrap_or_default();
        let (certificate, key) = (certificate.display(), key.display());
        format!("[tls]\ncertificate-file = \"{certificate}\"\nkey-file = \"{key}\"\n")
    })?;
    let digest = |leaf: &Leaf| describe(&leaf.certificate).map(|info| info.sha256);
    assert_eq!(bare.shown_digest()?, digest(&one)?);

    // The certificate comes first, and for a moment the key is not its own.
    let directory = bare.path("");
    fs::write(bare.path("server.pem"), &two.certificate)?;
    reload_in_vain(&bare)?;
    assert_eq!(bare.shown_digest()?, digest(&one)?);
    // Nobody says anything: the files are looked at.
    write_pair(&directory, &two)?;
    let noticed = || Ok((bare.shown_digest()? == digest(&two)?).then_some(()));
    wait_until("the new certificate", Duration::from_mins(1), noticed)?;
    let api = bare.api(&bare.authority.pem)?;
    assert_eq!(api.status()?.status.as_str(), "restarted nginx");
    assert_eq!(api.call("GET", "/v2/certificates")?.json()?["source"], "files");

    // A key that others can read is not taken.
    write_pair(&directory, &one)?;
    set_mode(&bare.path("server-key.pem"), 0o644)?;
    bare.hang_up()?;
    wait_until("the refusal", Duration::from_secs(30), || {
        Ok(bare.server.log_text().contains("read by others").then_some(()))
    })?;
    assert_eq!(bare.shown_digest()?, digest(&two)?);
    Ok(())
}

/// Connects and asks, again and again; returns how often.
fn connect_until(bare: &BareServer, stop: &AtomicBool) -> Result<usize> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        ask(&mut bare.connect()?).with_context(|| format!("handshake {count}"))?;
        count += 1;
    }
    Ok(count)
}

/// Asks for the status, which the server must answer with 200 on this connection.
fn ask(stream: &mut TlsStream) -> Result<()> {
    stream.sock.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.write_all(b"GET /image HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "the connection was closed");
        answer.extend(piece.iter().take(read));
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

fn server_digest(stream: &mut TlsStream) -> Result<sbs_proto::Digest> {
    stream.conn.complete_io(&mut stream.sock)?;
    let chain = stream.conn.peer_certificates().context("certificates")?;
    Ok(sbs_crypto::digest(chain.first().context("a certificate")?))
}

fn config(
    bare: &BareServer,
    client: &Leaf,
    version: &'static SupportedProtocolVersion,
) -> Result<std::sync::Arc<rustls::ClientConfig>> {
    client_config(&bare.authority.pem, &client.bundle(), &[version])
}

fn leaf(authority: &Authority) -> Result<Leaf> {
    let day = time::Duration::days(1);
    authority.issue_client(OffsetDateTime::now_utc() - day, day * 2, &[ClientAuth])
}

/// Has the server load its files, and waits until it has.
fn reload(bare: &BareServer) -> Result<()> {
    hang_up_until(bare, "certificate of the server")
}

/// Has the server load its files, and waits until it has refused them.
fn reload_in_vain(bare: &BareServer) -> Result<()> {
    hang_up_until(bare, "certificates of before")
}

fn hang_up_until(bare: &BareServer, told: &str) -> Result<()> {
    let loaded = || bare.server.log_text().matches(told).count();
    let before = loaded();
    bare.hang_up()?;
    wait_until("the reload", Duration::from_secs(30), || Ok((loaded() > before).then_some(())))
}

fn write_pair(directory: &std::path::Path, pair: &Leaf) -> Result<()> {
    let key = directory.join("server-key.pem");
    fs::write(&key, &pair.key)?;
    set_mode(&key, 0o600)?;
    Ok(fs::write(directory.join("server.pem"), &pair.certificate)?)
}

fn set_mode(path: &std::path::Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

const SWAPS: usize = 200;
