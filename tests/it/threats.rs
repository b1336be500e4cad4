//! The attacks T1 to T10 on TLS and the API, and C1 to C5 on the client: somebody in the middle,
//! floods of HTTP/2, and certificates that come all at once. The other tests of these rows stand
//! elsewhere; [`ROWS`] names them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::SanType;
use sbs_crypto::pki::describe;
use sbs_tests::{Authority, BareServer, Leaf, ManInTheMiddle, Sbs, TlsStream};
use serde_json::{Value, json};

use crate::conformance::Client;

#[test]
fn t1_somebody_in_the_middle_reads_not_one_request() -> Result<()> {
    let (directory, sbs, bare) = server_and_client()?;
    let python = Client::new(&sbs, directory.path())?;
    let own =
        Authority::from_pem(&bare.authority.pem, &sbs.certificate_file("client-ca-key.pem")?)?;
    let same_name = Authority::new("Client CA")?;
    let elsewhere = vec![SanType::DnsName("elsewhere.example".try_into()?)];
    let other_host = own.issue_with("Server", |it| it.subject_alt_names = elsewhere)?;
    for (what, leaf) in [
        ("another authority of the same name", same_name.issue_loopback("localhost")?),
        ("a certificate of our authority for another host", other_host),
        ("a certificate of our authority for clients", bare.client.clone()),
    ] {
        let middle = ManInTheMiddle::with_certificate(&leaf)?;
        sbs.set("CICD_PORT", middle.port().to_string())?;
        for command in COMMANDS {
            let told = sbs.run(command)?;
            assert_eq!(told.code, 3, "{what}: {command:?}: {}", told.text());
        }
        let refused = python.refuses(middle.port())?;
        let seen = middle.seen();
        assert!(seen.connections >= COMMANDS.len() + refused, "{what}: {}", seen.connections);
        // Not a byte came out of TLS, of either client.
        let text = String::from_utf8_lossy(&seen.bytes).into_owned();
        assert_eq!(text, "", "{what}");
    }

    // What reads along: with the server's own certificate it would read requests.
    let middle = ManInTheMiddle::with_certificate(&own.issue_loopback("Server")?)?;
    sbs.set("CICD_PORT", middle.port().to_string())?;
    sbs.ok(&["init"])?;
    let text = String::from_utf8_lossy(&middle.seen().bytes).into_owned();
    assert!(text.starts_with("POST /image HTTP/1.1") && text.contains(PASSWORD), "{text}");
    Ok(())
}

#[test]
fn t1_who_passes_the_connection_on_reads_nothing_of_it() -> Result<()> {
    let (_directory, sbs, bare) = server_and_client()?;
    let middle = ManInTheMiddle::relaying_to(bare.server.port())?;
    sbs.set("CICD_PORT", middle.port().to_string())?;
    sbs.ok(&["init"])?;
    let secret = sbs.config()?["SECRET"].as_str().context("SECRET")?.to_owned();
    let seen = middle.seen();
    ensure!(seen.connections > 0 && seen.bytes.len() > 1000, "nothing went this way");
    let text = String::from_utf8_lossy(&seen.bytes).into_owned();
    for word in [PASSWORD, secret.as_str(), "/image", "HTTP/1.1", "DOCKER_PASSWORD"] {
        assert!(!text.contains(word), "{word}");
    }
    Ok(())
}

#[test]
fn t6_floods_of_http_2_cost_little_and_stop_nobody() -> Result<()> {
    let (_directory, _sbs, bare) = server_and_client()?;
    let api = bare.api(&bare.authority.pem)?;
    assert_eq!(api.call("GET", "/image")?.status, 200);
    let before = bare.server.memory("VmHWM")?;
    let floods: [(&str, bool, Frames); 5] = [
        // CVE-2023-44487 and CVE-2024-27316: the connection is closed.
        ("rapid reset", true, rapid_resets),
        ("continuation", true, continuations),
        // CVE-2019-9512, -9515 and -9518.
        ("pings", false, |_| frame(PING, 0, 0, &[0; 8])),
        ("settings", false, |_| frame(SETTINGS, 0, 0, &[])),
        ("empty data", false, empty_data),
    ];
    for (what, closes, frames) in floods {
        let patience = Duration::from_secs(if closes { 10 } else { 1 });
        let (ends, served) = std::thread::scope(|scope| {
            let start = || scope.spawn(|| flood(bare.connect()?, frames, patience));
            let floods = [start(), start(), start()];
            let served: Result<Vec<u16>> =
                (0..10).map(|_| Ok(api.call("GET", "/image")?.status)).collect();
            (floods.map(|flood| flood.join().expect("no panic")), served)
        });
        assert_eq!(served?, [200; 10], "{what}");
        for end in ends {
            let end = end?;
            assert!(!closes || end == End::Closed, "{what}: the connection goes on: {end:?}");
        }
        assert_eq!(api.call("GET", "/image")?.status, 200, "{what}");
    }
    let after = bare.server.memory("VmHWM")?;
    assert!(after - before < MEMORY, "from {before} to {after} bytes");
    Ok(())
}

#[test]
fn t8_of_many_certificates_at_once_one_is_installed_with_its_key() -> Result<()> {
    let mut bare = BareServer::start()?;
    let mut winners = BTreeSet::new();
    for _ in 0..2 {
        let trusted = bare.shown()? + &bare.authority.pem;
        let request = bare.request(&bare.api(&trusted)?, "localhost")?;
        let certificates: Vec<_> =
            (0..8).map(|_| bare.authority.sign(&request, |_| {})).collect::<Result<_>>()?;
        let codes: Vec<u16> = std::thread::scope(|scope| {
            let posts = certificates.iter().enumerate().map(|(number, certificate)| {
                let (bare, trusted) = (&bare, &trusted);
                scope.spawn(move || -> Result<u16> {
                    let api = bare.api(trusted)?;
                    if number % 4 == 3 {
                        // Who asks for a new key meanwhile takes nobody's away.
                        return Ok(api.call("GET", "/csr/localhost")?.status);
                    }
                    let body = json!({ "certificate": certificate }).to_string();
                    Ok(api.send("POST", "/certificate", &body)?.status)
                })
            });
            let posts: Vec<_> = posts.collect();
            posts.into_iter().map(|post| post.join().expect("no panic")).collect::<Result<_>>()
        })?;
        let posted = |wanted: &[u16]| {
            let posts = codes.iter().enumerate().filter(|(number, _)| number % 4 != 3);
            posts.filter(|(_, code)| wanted.contains(code)).count()
        };
        // The others come too late: there is no request any more, or one for another key.
        assert_eq!((posted(&[200]), posted(&[200, 409, 422])), (1, 6), "{codes:?}");
        let winner = codes.iter().zip(0..).find(|(code, number)| **code == 200 && number % 4 != 3);
        let winner = certificates.get(winner.context("one")?.1).context("its certificate")?;
        let digest = describe(winner)?.sha256;
        // The handshake shows that the key is its own.
        let api = bare.api(&bare.authority.pem)?;
        let told = api.call("GET", "/v2/certificates")?.json()?;
        assert_eq!(told["server"]["sha256"], digest.to_string());
        assert_eq!(bare.shown_digest()?, digest);
        bare.server.kill();
        bare.server.start_again()?;
        assert_eq!(bare.shown_digest()?, digest);
        assert_eq!(bare.api(&bare.authority.pem)?.call("GET", "/image")?.status, 200);
        winners.insert(digest.to_string());
    }
    assert_eq!(winners.len(), 2);
    Ok(())
}

#[test]
fn every_row_of_attacks_has_tests_that_exist() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    for directory in ["crates", "tests"] {
        collect_sources(&root.join(directory), &mut sources)?;
    }
    let text: String = sources.iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
    for (row, tests) in ROWS {
        ensure!(!tests.is_empty(), "{row}");
        for test in tests {
            ensure!(text.contains(&format!("fn {test}(")), "{row}: there is no {test}");
        }
    }
    Ok(())
}

/// A server whose certificate the command line made, and the command line.
fn server_and_client() -> Result<(tempfile::TempDir, Sbs, BareServer)> {
    let directory = tempfile::tempdir()?;
    let Value::Object(config) = json!({
        "HOSTNAME": "localhost", "GITHUB_URL": "https://git.example/app.git",
        "IMAGE_TAG": "1.0.0", "DOCKER_REPO": "r.example/app", "DOCKER_USER": "u",
        "DOCKER_PASSWORD": PASSWORD, "GITHUB_KEY_FILE": "git-key",
    }) else {
        anyhow::bail!("no object");
    };
    let sbs = Sbs::new(&directory.path().join("client"), &config)?;
    let key = sbs.directory().join("git-key");
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----\n")?;
    sbs.set("GITHUB_KEY_FILE", key.display().to_string())?;
    sbs.make_certificates()?;
    let authority = Authority::from_pem(
        &sbs.certificate_file("client-ca.pem")?,
        &sbs.certificate_file("client-ca-key.pem")?,
    )?;
    let leaf = Leaf {
        certificate: sbs.certificate_file("server-cert.pem")?,
        key: sbs.certificate_file("server-cert-key.pem")?,
    };
    let bare = BareServer::start_with(authority, Some(&leaf), |_| String::new())?;
    sbs.set("CICD_PORT", bare.server.port().to_string())?;
    Ok((directory, sbs, bare))
}

/// Makes the frames that are sent on a stream of this number.
type Frames = fn(u32) -> Vec<u8>;

/// How a connection that sends without end ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The server closed it.
    Closed,
    /// The server read no more of it for a while.
    Stalled,
    /// The server took it all.
    Taken,
}

/// Sends `frames` of each stream until the server ends it, and reads nothing meanwhile.
fn flood(mut stream: TlsStream, frames: Frames, patience: Duration) -> Result<End> {
    // Shorter than the time after which the server closes a connection that answers no ping.
    stream.sock.set_write_timeout(Some(patience))?;
    stream.sock.set_read_timeout(Some(patience))?;
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&hello)?;
    let streams: Vec<u32> = (0..STREAMS).map(|number| 2 * number + 1).collect();
    let mut sent = Ok(());
    for batch in streams.chunks(200) {
        let bytes: Vec<u8> = batch.iter().flat_map(|stream| frames(*stream)).collect();
        sent = stream.write_all(&bytes).and_then(|()| stream.flush());
        if sent.is_err() {
            break;
        }
    }
    match sent {
        Err(error) if is_late(error.kind()) => return Ok(End::Stalled),
        Err(_closed) => return Ok(End::Closed),
        Ok(()) => {}
    }
    // What is closed for reading is told by the frame GOAWAY first.
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(End::Closed),
            Ok(_) => {}
            Err(error) if is_late(error.kind()) => return Ok(End::Taken),
            Err(_closed) => return Ok(End::Closed),
        }
    }
}

fn is_late(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A request that is taken back at once.
fn rapid_resets(stream: u32) -> Vec<u8> {
    let cancel = 8_u32.to_be_bytes();
    let request = frame(HEADERS, END_STREAM | END_HEADERS, stream, REQUEST);
    [request, frame(RST_STREAM, 0, stream, &cancel)].concat()
}

/// The head of one request, which never ends.
fn continuations(stream: u32) -> Vec<u8> {
    if stream == 1 { frame(HEADERS, 0, 1, REQUEST) } else { frame(CONTINUATION, 0, 1, HEADER) }
}

/// Pieces of one body with nothing in them.
fn empty_data(stream: u32) -> Vec<u8> {
    if stream == 1 { frame(HEADERS, END_HEADERS, 1, REQUEST) } else { frame(DATA, 0, 1, &[]) }
}

/// Makes a frame (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let mut frame: Vec<u8> = length.into_iter().skip(1).chain([kind, flags]).collect();
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn collect_sources(directory: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_sources(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

const PASSWORD: &str = "canary-of-the-registry";

/// What sends secrets, or asks for what is secret.
const COMMANDS: [&[&str]; 4] = [&["init"], &["update"], &["get-state-image"], &["status"]];

/// A GET of `/image` on `localhost` (RFC 7541: three of the static table, two literals).
const REQUEST: &[u8] = b"\x82\x87\x04\x06/image\x01\x09localhost";
/// A header `x: y`.
const HEADER: &[u8] = b"\x00\x01x\x01y";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Frames, or pairs of them, of one flood.
const STREAMS: u32 = 50_000;
const MEMORY: u64 = 32 * 1024 * 1024;

/// The rows of attacks, and tests that fail where the defence does.
const ROWS: [(&str, &[&str]); 15] = [
    (
        "T1: somebody in the middle at first contact",
        &[
            "t1_somebody_in_the_middle_reads_not_one_request",
            "t1_who_passes_the_connection_on_reads_nothing_of_it",
            "t1_the_first_certificate_is_known_by_the_fingerprint_in_the_log",
            "t1_a_server_with_another_fingerprint_is_exit_3_and_asked_nothing",
            "t2_a_request_for_another_key_is_told",
        ],
    ),
    (
        "T2: clients without a good certificate",
        &["t2_only_a_certificate_under_the_authority_is_let_in"],
    ),
    (
        "T3: sessions of a removed authority",
        &["t3_no_session_is_resumed_and_a_removed_authority_is_out_at_once"],
    ),
    (
        "T4: a revoked certificate",
        &["t4_a_revoked_certificate_is_out_at_once_also_on_open_connections"],
    ),
    (
        "T5: old versions and weak suites",
        &["t5_old_versions_weak_suites_and_early_data_are_refused"],
    ),
    (
        "T6: slow, ambiguous and endless requests",
        &[
            "t6_ambiguous_and_oversized_requests_are_refused_and_others_are_served",
            "t6_a_connection_that_asks_nothing_is_closed",
            "t6_floods_of_http_2_cost_little_and_stop_nobody",
            "a_slow_handshake_stops_nobody",
        ],
    ),
    (
        "T7: odd JSON",
        &[
            "t7_odd_json_is_refused_without_repeating_it",
            "t7_odd_json_is_refused_on_the_routes_of_certificates",
        ],
    ),
    (
        "T8: many changes at once",
        &[
            "t8_of_fifty_builds_at_once_one_starts",
            "t8_of_many_imports_and_builds_at_once_one_makes_the_keys",
            "t8_of_many_certificates_at_once_one_is_installed_with_its_key",
        ],
    ),
    (
        "T9: a bad certificate for the server",
        &["t9_what_clients_would_not_accept_is_refused_and_the_old_certificate_stays"],
    ),
    (
        "T10: the operator's calls by a client",
        &["t10_what_is_the_operators_is_closed_to_clients_and_to_other_users"],
    ),
    (
        "C1: names that a server chose",
        &[
            "c1_names_that_the_server_chose_stay_in_the_directory",
            "c1_a_name_that_is_no_safe_file_name_is_refused",
        ],
    ),
    (
        "C2: replies without end, and what controls a terminal",
        &[
            "c2_an_endless_reply_is_given_up",
            "c2_no_character_of_the_server_reaches_the_terminal_as_a_control",
            "c2_a_server_puts_no_word_of_its_own_into_a_shell_a_terminal_or_a_file",
        ],
    ),
    (
        "C3: a configuration that others can read, secrets in arguments",
        &[
            "c3_a_configuration_that_others_can_read_is_warned_of",
            "l1_a_secret_on_the_command_line_is_refused_before_anything_else",
        ],
    ),
    (
        "C4: --noverify that was left",
        &[
            "t1_what_sends_secrets_is_refused_with_noverify",
            "t1_noverify_is_for_the_calls_that_send_no_secret",
        ],
    ),
    (
        "C5: a client that ends while SECRET changes",
        &[
            "s19_a_killed_run_locks_nobody_out",
            "s19_what_a_run_left_at_each_step_is_gone_on_with",
            "s19_at_every_step_both_secrets_are_on_the_disk",
        ],
    ),
];
