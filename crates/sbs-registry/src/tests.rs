use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sbs_proto::SecretText;

use super::testing::double::{Double, Reply, Seen};
use super::testing::real::{CuttingProxy, RealRegistry};
use super::testing::{
    Authority, PASSWORD, TestLog, USER, client, client_with, credentials, noise, quick, session,
};
use super::*;

fn repository() -> Repository {
    Repository::parse("team/app").unwrap()
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::of("application/octet-stream", bytes)
}

async fn push(session: &Session, bytes: &[u8]) -> Result<Descriptor, RegistryError> {
    let blob = descriptor(bytes);
    let source = BlobSource::Bytes(Bytes::copy_from_slice(bytes));
    session.push_blob(&repository(), blob.digest, blob.size, &source).await?;
    Ok(blob)
}

/// Pushes an image of one layer under a tag; returns its digest.
async fn push_image(session: &Session, layer: &[u8], tag: &str) -> Digest {
    let layer = push(session, layer).await.unwrap();
    let config = br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    let mut config = push(session, config).await.unwrap();
    config.media_type = media_type::OCI_CONFIG.to_owned();
    let manifest = ImageManifest::new(config, vec![layer]).to_json();
    let digest = sbs_crypto::digest(&manifest);
    let tag = ImageTag::parse(tag).unwrap();
    let target = Target::Tag(&tag);
    session
        .push_manifest(&repository(), target, media_type::OCI_IMAGE, manifest.into())
        .await
        .unwrap();
    digest
}

fn basic() -> String {
    use base64::Engine as _;
    let pair = format!("{USER}:{PASSWORD}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// Wraps a fault so that the registry wants the user name and password first.
fn with_login(
    fault: impl Fn(&Seen) -> Option<Reply> + Send + Sync,
) -> impl Fn(&Seen) -> Option<Reply> + Send + Sync {
    move |seen| {
        if seen.authorization() != Some(&basic()) {
            return Some(Reply::status(401).header("www-authenticate", "Basic realm=\"r\""));
        }
        fault(seen)
    }
}

#[tokio::test]
async fn what_is_pushed_is_pulled_again() {
    let registry = RealRegistry::start().await;
    let log = TestLog::new();
    let session = session(&registry.host(), &log);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blob");
    let large = noise(40 * 1024 * 1024);
    std::fs::write(&path, &large).unwrap();

    let blob = descriptor(&large);
    assert!(!session.has_blob(&repository(), blob.digest).await.unwrap());
    let source = BlobSource::File(&path);
    session.push_blob(&repository(), blob.digest, blob.size, &source).await.unwrap();
    assert!(session.has_blob(&repository(), blob.digest).await.unwrap());
    let mut back = Vec::new();
    session.blob_to(&repository(), &blob, &mut back).await.unwrap();
    assert!(back == large);

    let digest = push_image(&session, b"", "v1").await;
    let tag = ImageTag::parse("v1").unwrap();
    for target in [Target::Tag(&tag), Target::Digest(digest)] {
        let served = session.manifest(&repository(), target).await.unwrap();
        assert_eq!((served.digest, served.kind), (digest, DocumentKind::Image));
        assert_eq!(served.media_type, media_type::OCI_IMAGE);
    }
    assert_eq!(registry.skopeo_digest("team/app:v1"), digest.to_string());
    assert!(!log.text().contains("attempt"), "{}", log.text());
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let registry = RealRegistry::start().await;
    let log = TestLog::new();
    let host = RegistryHost::parse(&registry.host()).unwrap();
    let wrong = Credentials {
        password: SecretText::new("hunter2secret".to_owned()),
        user: USER.to_owned(),
    };
    for (credentials, expected) in
        [(Some(&wrong), "refused the user name or password"), (None, "refused access without")]
    {
        let session = client().for_registry(&host, credentials, &log).unwrap();
        let error = push(&session, b"x").await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
        let text = format!("{} {error:?} {session:?}", chain(&error));
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("hunter2secret"), "{text}");
    }
    assert!(!log.text().contains("hunter2secret"));
}

#[tokio::test]
async fn a_registry_that_is_down_is_asked_a_few_times() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let log = TestLog::new();
    let session = session(&format!("127.0.0.1:{port}"), &log);
    let error = push(&session, b"x").await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    assert_eq!(log.text().matches("trying again").count(), 5, "{}", log.text());
    assert!(log.text().contains("attempt 5 of 6: cannot reach registry"), "{}", log.text());
}

#[tokio::test]
async fn a_registry_under_an_unknown_authority_is_not_trusted() {
    let registry = RealRegistry::start().await;
    let log = TestLog::new();
    let host = RegistryHost::parse(&registry.host()).unwrap();
    let client = RegistryClient::new(&RegistryTrust::default(), quick()).unwrap();
    let session = client.for_registry(&host, Some(&credentials()), &log).unwrap();
    let error = push(&session, b"x").await.unwrap_err();
    assert!(matches!(error, RegistryError::Untrusted { .. }), "{error:?}");
    assert!(error.to_string().contains("registry.ca-file"), "{error}");
    assert_eq!(log.text(), "", "there is nothing to try again");
}

#[tokio::test]
async fn a_certificate_for_another_host_is_not_trusted() {
    let double = Double::start("127.0.0.1", |_| Reply::status(404)).await;
    let log = TestLog::new();
    let session = session(&double.host().replace("127.0.0.1", "localhost"), &log);
    let error = push(&session, b"x").await.unwrap_err();
    assert!(matches!(error, RegistryError::Untrusted { .. }), "{error:?}");
    assert!(double.seen().is_empty());
}

#[test]
fn authorities_that_are_no_certificates_are_refused() {
    for bad in ["x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let trust = RegistryTrust { extra_ca_pem: bad.into(), token_hosts: Vec::new() };
        let result = RegistryClient::new(&trust, quick());
        assert!(result.is_err(), "{bad}");
    }
    let good = Authority::get().ca_pem.clone().into_bytes();
    let trust = RegistryTrust { extra_ca_pem: good, token_hosts: Vec::new() };
    RegistryClient::new(&trust, quick()).unwrap();
}

#[tokio::test]
async fn an_upload_that_is_cut_goes_on_where_it_was() {
    let double = Double::registry(|_| None).await;
    // Each connection begins with a handshake, which counts, too.
    let proxy = CuttingProxy::start(double.host().to_owned(), 64 * 1024, u64::MAX).await;
    let log = TestLog::new();
    let session = session(&proxy.host(), &log);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blob");
    let bytes = noise(5 * 1024 * 1024);
    std::fs::write(&path, &bytes).unwrap();
    let blob = descriptor(&bytes);
    let source = BlobSource::File(&path);
    let result = session.push_blob(&repository(), blob.digest, blob.size, &source).await;
    result.unwrap_or_else(|error| {
        panic!("{error:?}: {}", log.text());
    });

    assert!(proxy.connections() >= 80, "{}", proxy.connections());
    assert!(proxy.received() < blob.size * 12 / 10, "{} of {}", proxy.received(), blob.size);
    assert_eq!(double.count(&Method::POST, "/uploads/"), 1, "it never began anew");
    assert!(
        testing::session(double.host(), &log).has_blob(&repository(), blob.digest).await.unwrap()
    );
}

#[tokio::test]
async fn a_registry_that_cannot_go_on_with_an_upload_gets_it_anew() {
    // Distribution 2.8 keeps what came of a cut upload, and then finds that it is too much.
    let registry = RealRegistry::start().await;
    let proxy = CuttingProxy::start(registry.host(), 1024 * 1024, 2).await;
    let log = TestLog::new();
    let session = session(&proxy.host(), &log);
    let bytes = noise(4 * 1024 * 1024);
    let blob = push(&session, &bytes).await.unwrap();
    assert_eq!(log.text().matches("the connection ended early").count(), 2, "{}", log.text());
    assert!(proxy.received() < blob.size + 3 * 1024 * 1024, "{}", proxy.received());
    let direct = testing::session(&registry.host(), &log);
    assert!(direct.blob(&repository(), &blob, blob.size).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_was() {
    let bytes = noise(1024 * 1024);
    let blob = descriptor(&bytes);
    for honours_ranges in [true, false] {
        let served = bytes.clone();
        let double = Double::registry(move |seen| {
            let range = seen.headers.get("range").filter(|_| honours_ranges)?;
            let start: usize =
                range.to_str().unwrap().strip_prefix("bytes=")?.strip_suffix('-')?.parse().unwrap();
            let range = format!("bytes {start}-{}/{}", served.len() - 1, served.len());
            Some(Reply::status(206).header("content-range", range).body(&served[start..]))
        })
        .await;
        let log = TestLog::new();
        push(&session(double.host(), &log), &bytes).await.unwrap();
        let before = double.seen().len();
        // Down, each connection carries 300 KiB; the one without ranges gets through at last.
        let cuts = if honours_ranges { u64::MAX } else { 2 };
        let proxy = CuttingProxy::start_down(double.host().to_owned(), 300 * 1024, cuts).await;
        let session = session(&proxy.host(), &log);
        let back = session.blob(&repository(), &blob, 1 << 20).await;
        let back = back.unwrap_or_else(|error| panic!("{error:?}: {}", log.text()));
        assert!(back == bytes);
        let asked = double.seen().len() - before;
        assert_eq!(asked, if honours_ranges { 4 } else { 3 }, "{}", log.text());
    }
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says() {
    let asked = AtomicUsize::new(0);
    let double = Double::registry(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Some(Reply::status(429).header("retry-after", "1")),
        1 => Some(Reply::status(503).header("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")),
        2 => Some(Reply::status(502)),
        3 => Some(Reply::status(504).header("retry-after", "0")),
        _ => None,
    })
    .await;
    let log = TestLog::new();
    let session = session(double.host(), &log);
    let started = Instant::now();
    assert!(!session.has_blob(&repository(), descriptor(b"x").digest).await.unwrap());
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(double.seen().len(), 5);
    let text = log.text();
    assert!(text.contains("attempt 1 of 6") && text.contains("answered with status 429"), "{text}");
    assert!(text.contains("trying again in 1.0 seconds"), "{text}");
}

#[tokio::test]
async fn a_registry_that_stays_busy_ends_the_attempts() {
    let double =
        Double::registry(|_| Some(Reply::status(503).header("retry-after", "99999"))).await;
    let log = TestLog::new();
    let limits = Limits { longest_pause: Duration::from_millis(10), ..quick() };
    let host = RegistryHost::parse(double.host()).unwrap();
    let session = client_with(&[], limits).for_registry(&host, None, &log).unwrap();
    let error = push(&session, b"x").await.unwrap_err();
    assert!(matches!(error, RegistryError::Rejected { status: 503, .. }), "{error:?}");
    assert_eq!(double.seen().len(), 6);
}

#[tokio::test]
async fn a_manifest_push_that_meets_a_busy_registry_is_repeated() {
    let asked = AtomicUsize::new(0);
    let double = Double::registry(move |seen| {
        let busy =
            seen.is(&Method::PUT, "/manifests/") && asked.fetch_add(1, Ordering::Relaxed) < 2;
        busy.then(|| Reply::status(429))
    })
    .await;
    let log = TestLog::new();
    push_image(&session(double.host(), &log), b"layer", "v1").await;
    assert_eq!(double.count(&Method::PUT, "/manifests/"), 3);
}

#[tokio::test]
async fn an_upload_that_the_registry_forgot_begins_anew() {
    let asked = AtomicUsize::new(0);
    let double = Double::registry(move |seen| {
        let lost = seen.is(&Method::PUT, "/uploads/") && asked.fetch_add(1, Ordering::Relaxed) == 0;
        lost.then(|| Reply::status(404))
    })
    .await;
    let log = TestLog::new();
    let blob = push(&session(double.host(), &log), &noise(1000)).await.unwrap();
    assert_eq!(double.count(&Method::POST, "/uploads/"), 2);
    let session = session(double.host(), &log);
    assert!(session.has_blob(&repository(), blob.digest).await.unwrap());
}

#[tokio::test]
async fn a_registry_that_wants_a_blob_again_and_again_does_not_get_it() {
    let double =
        Double::registry(|seen| seen.is(&Method::PUT, "/uploads/").then(|| Reply::status(404)))
            .await;
    let log = TestLog::new();
    let result = push(&session(double.host(), &log), &noise(1000)).await;
    assert!(matches!(result, Err(RegistryError::NotFound { .. })), "{result:?}");
    assert_eq!(double.count(&Method::POST, "/uploads/"), 6);
}

#[tokio::test]
async fn a_registry_that_stands_still_is_given_up() {
    let limits = Limits { idle: Duration::from_millis(100), attempts: 2, ..quick() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let silent = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            open.push(listener.accept().await.unwrap());
        }
    });
    let log = TestLog::new();
    let host = RegistryHost::parse(&host).unwrap();
    let session = client_with(&[], limits).for_registry(&host, None, &log).unwrap();
    let error = push(&session, b"x").await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    silent.abort();
}

#[tokio::test]
async fn r1_credentials_go_to_no_realm_that_is_not_trusted() {
    // `localhost` is another host than `127.0.0.1`, where the registry is.
    let elsewhere =
        Double::start("localhost", |_| Reply::status(200).body(r#"{"token":"t"}"#)).await;
    let (name, port) = elsewhere.host().split_once(':').unwrap();
    for realm in [
        format!("https://{name}:{port}/token"),
        format!("http://{name}:{port}/token"),
        "http://127.0.0.1/token".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://auth.docker.io/token".to_owned(),
        "file:///etc/passwd".to_owned(),
        format!("https://user:pw@127.0.0.1:{port}/token"),
        format!("https://127.0.0.1@localhost:{port}/token"),
        "no URL".to_owned(),
    ] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        let double = Double::registry(move |_| {
            Some(Reply::status(401).header("www-authenticate", challenge.clone()))
        })
        .await;
        let log = TestLog::new();
        let error = push(&session(double.host(), &log), b"x").await.unwrap_err();
        assert!(matches!(error, RegistryError::RealmNotAllowed { .. }), "{realm}: {error:?}");
        assert_eq!(double.seen().len(), 1, "{realm}");
        assert_eq!(double.seen()[0].authorization(), None, "{realm}");
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_token_is_got_from_the_registry_or_a_host_in_the_settings() {
    let tokens = Double::start("localhost", |seen| {
        assert_eq!(seen.authorization(), Some(basic().as_str()));
        Reply::status(200).body(r#"{"access_token":"t1","expires_in":300}"#)
    })
    .await;
    let challenge = format!("Bearer realm=\"https://{}/token?a=b\",service=\"s s\"", tokens.host());
    let double = Double::registry(move |seen| {
        let known = seen.authorization() == Some("Bearer t1");
        (!known).then(|| Reply::status(401).header("www-authenticate", challenge.clone()))
    })
    .await;
    let log = TestLog::new();
    let host = RegistryHost::parse(double.host()).unwrap();
    let client = client_with(&[tokens.host()], quick());
    let session = client.for_registry(&host, Some(&credentials()), &log).unwrap();
    push_image(&session, b"layer", "v1").await;
    let tag = ImageTag::parse("v1").unwrap();
    session.manifest(&repository(), Target::Tag(&tag)).await.unwrap();

    let asked: Vec<_> = tokens.seen().into_iter().map(|seen| seen.path).collect();
    let scope =
        |actions| format!("/token?a=b&service=s+s&scope=repository%3Ateam%2Fapp%3A{actions}");
    assert_eq!(asked, [scope("pull%2Cpush"), scope("pull")], "one token for each kind of access");
}

#[tokio::test]
async fn a_token_that_has_run_out_is_got_again() {
    let count = AtomicUsize::new(0);
    let tokens = Double::start("localhost", move |_| {
        let token = count.fetch_add(1, Ordering::Relaxed);
        Reply::status(200).body(format!(r#"{{"token":"t{token}"}}"#))
    })
    .await;
    let challenge = format!("Bearer realm=\"https://{}/\"", tokens.host());
    let uses = Mutex::new(std::collections::HashMap::<String, usize>::new());
    let double = Double::registry(move |seen| {
        let refused = || Some(Reply::status(401).header("www-authenticate", challenge.clone()));
        let Some(token) = seen.authorization() else { return refused() };
        let mut uses = uses.lock().unwrap();
        let used = uses.entry(token.to_owned()).or_default();
        *used += 1;
        if *used > 2 { refused() } else { None }
    })
    .await;
    let log = TestLog::new();
    let host = RegistryHost::parse(double.host()).unwrap();
    let client = client_with(&["localhost"], quick());
    let session = client.for_registry(&host, Some(&credentials()), &log).unwrap();
    push_image(&session, &noise(1000), "v1").await;
    assert!(tokens.seen().len() >= 4, "{}", tokens.seen().len());
}

#[tokio::test]
async fn r2_a_redirect_takes_no_credential_along() {
    let bytes = noise(5000);
    let blob = descriptor(&bytes);
    let stored = bytes.clone();
    let storage =
        Double::start("localhost", move |_| Reply::status(200).body(stored.clone())).await;
    let target = format!("https://{}/object?signature=s", storage.host());
    let double = Double::registry(with_login(move |seen| {
        let get = seen.is(&Method::GET, "/blobs/");
        get.then(|| Reply::status(307).header("location", target.clone()))
    }))
    .await;
    let log = TestLog::new();
    let host = RegistryHost::parse(double.host()).unwrap();
    let client = client_with(&["localhost"], quick());
    let session = client.for_registry(&host, Some(&credentials()), &log).unwrap();
    assert!(session.blob(&repository(), &blob, 1 << 20).await.unwrap() == bytes);
    assert_eq!(double.seen().last().unwrap().authorization(), Some(basic().as_str()));
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].authorization(), None);
}

#[tokio::test]
async fn r2_another_port_of_the_same_host_gets_no_credential() {
    let storage = Double::start("127.0.0.1", |_| {
        Reply::status(401).header("www-authenticate", "Basic realm=\"give it to me\"")
    })
    .await;
    let target = format!("https://{}/object", storage.host());
    let double = Double::registry(with_login(move |_| {
        Some(Reply::status(302).header("location", target.clone()))
    }))
    .await;
    let log = TestLog::new();
    let session = session(double.host(), &log);
    let error = session.blob(&repository(), &descriptor(b"x"), 10).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].authorization(), None);
}

#[tokio::test]
async fn r2_a_challenge_from_where_we_were_sent_is_not_answered() {
    // Its realm is one that the registry itself could name.
    let tokens = Double::start("127.0.0.1", |_| Reply::status(200).body(r#"{"token":"t"}"#)).await;
    let challenge = format!("Bearer realm=\"https://{}/\"", tokens.host());
    let storage = Double::start("127.0.0.1", move |_| {
        Reply::status(401).header("www-authenticate", challenge.clone())
    })
    .await;
    let target = format!("https://{}/object", storage.host());
    let double =
        Double::registry(move |_| Some(Reply::status(302).header("location", target.clone())))
            .await;
    let log = TestLog::new();
    let session = session(double.host(), &log);
    let error = session.blob(&repository(), &descriptor(b"x"), 10).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    assert!(tokens.seen().is_empty());
    assert_eq!((double.seen().len(), storage.seen().len()), (1, 1));
}

#[tokio::test]
async fn r2_redirects_to_private_hosts_and_without_tls_are_refused() {
    let private = Double::start("localhost", |_| Reply::status(200)).await;
    let port = private.host().rsplit(':').next().unwrap().to_owned();
    for target in [
        format!("https://localhost:{port}/object"),
        format!("https://[::1]:{port}/object"),
        format!("https://127.0.0.2:{port}/object"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://10.0.0.1/".to_owned(),
        format!("http://127.0.0.1:{port}/object"),
        format!("https://user:password@127.0.0.1:{port}/object"),
        "ftp://127.0.0.1/".to_owned(),
    ] {
        let location = target.clone();
        let double = Double::registry(move |seen| {
            let status = if seen.method == Method::POST { 202 } else { 307 };
            let get = matches!(seen.method, Method::GET | Method::POST);
            get.then(|| Reply::status(status).header("location", location.clone()))
        })
        .await;
        let log = TestLog::new();
        let session = session(double.host(), &log);
        let pulled = session.blob(&repository(), &descriptor(b"x"), 10).await.unwrap_err();
        let pushed = push(&session, b"x").await.unwrap_err();
        for error in [pulled, pushed] {
            let refused = matches!(error, RegistryError::RedirectNotAllowed { .. });
            assert!(refused, "{target}: {error:?}");
        }
    }
    assert!(private.seen().is_empty());
}

#[tokio::test]
async fn r2_endless_redirects_end() {
    let double = Double::registry(|seen| {
        let next = format!("{}x", seen.path);
        Some(Reply::status(307).header("location", next))
    })
    .await;
    let log = TestLog::new();
    let session = session(double.host(), &log);
    let error = session.blob(&repository(), &descriptor(b"x"), 10).await.unwrap_err();
    assert!(matches!(error, RegistryError::RedirectNotAllowed { .. }), "{error:?}");
    assert_eq!(double.seen().len(), 6);
}

#[tokio::test]
async fn r2_an_upload_is_not_redirected() {
    let double = Double::registry(|seen| {
        let patch = seen.method == Method::PATCH;
        patch.then(|| Reply::status(307).header("location", "https://example.com/"))
    })
    .await;
    let log = TestLog::new();
    let error = push(&session(double.host(), &log), b"x").await.unwrap_err();
    assert!(matches!(error, RegistryError::Rejected { status: 307, .. }), "{error:?}");
}

#[tokio::test]
async fn r3_a_blob_of_another_digest_or_size_is_refused() {
    let double = Double::registry(|seen| {
        (seen.method == Method::GET).then(|| Reply::status(200).body("12345"))
    })
    .await;
    let log = TestLog::new();
    let session = session(double.host(), &log);
    let fetch = async |bytes: &[u8]| session.blob(&repository(), &descriptor(bytes), 10).await;
    assert_eq!(fetch(b"12345").await.unwrap(), b"12345");
    for (wanted, same_size) in [(&b"54321"[..], true), (b"1234", false), (b"123456", false)] {
        let error = fetch(wanted).await.unwrap_err();
        let expected = if same_size {
            matches!(error, RegistryError::DigestMismatch { .. })
        } else {
            matches!(error, RegistryError::SizeMismatch { .. })
        };
        assert!(expected, "{error:?}");
    }
    let error = fetch(b"12345678901").await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
    assert_eq!(double.seen().len(), 4, "nothing of this is asked for twice");
}

type Judge = fn(&RegistryError) -> bool;

#[tokio::test]
async fn r3_a_manifest_that_is_large_or_of_another_kind_is_refused() {
    let cases: [(Reply, Judge); 6] = [
        (
            Reply::status(200)
                .header("content-type", media_type::OCI_IMAGE)
                .body(format!("{{\"a\":\"{}\"}}", "x".repeat(4 * 1024 * 1024))),
            |error| matches!(error, RegistryError::TooLarge { .. }),
        ),
        (
            Reply::status(200)
                .header("content-type", "application/vnd.docker.distribution.manifest.v1+json")
                .body("{}"),
            |error| matches!(error, RegistryError::Malformed { .. }),
        ),
        (
            Reply::status(200)
                .header("content-type", media_type::OCI_IMAGE)
                .body(format!("{{\"mediaType\":\"{}\"}}", media_type::OCI_INDEX)),
            |error| matches!(error, RegistryError::Malformed { .. }),
        ),
        (Reply::status(200).body("{}"), |error| matches!(error, RegistryError::Malformed { .. })),
        (
            Reply::status(200).header("content-type", media_type::OCI_IMAGE).body("<html>"),
            |error| matches!(error, RegistryError::Malformed { .. }),
        ),
        (
            Reply::status(500).body(format!(
                "{{\"errors\":[{{\"code\":\"\\u001b[2K{}\",\"message\":\"m\"}}]}}",
                "x".repeat(1000)
            )),
            |error| {
                let text = error.to_string();
                matches!(error, RegistryError::Rejected { status: 500, .. }) && text.len() < 200
            },
        ),
    ];
    for (reply, expected) in cases {
        let shown = String::from_utf8_lossy(&reply.body[..reply.body.len().min(60)]).into_owned();
        let double = Double::registry(move |_| Some(reply.clone())).await;
        let log = TestLog::new();
        let session = session(double.host(), &log);
        let tag = ImageTag::parse("v1").unwrap();
        let error = session.manifest(&repository(), Target::Tag(&tag)).await.unwrap_err();
        assert!(expected(&error), "{shown}: {error:?}");
    }
}

#[tokio::test]
async fn r3_a_manifest_of_another_digest_is_refused() {
    let double = Double::registry(|seen| {
        let get = seen.is(&Method::GET, "/manifests/");
        get.then(|| {
            let lie = sbs_crypto::digest(b"{}").to_string();
            let reply = Reply::status(200).header("content-type", media_type::OCI_IMAGE);
            reply.header("docker-content-digest", lie).body("{ }")
        })
    })
    .await;
    let log = TestLog::new();
    let session = session(double.host(), &log);
    let target = Target::Digest(sbs_crypto::digest(b"{}"));
    let error = session.manifest(&repository(), target).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn a_registry_that_stores_something_else_is_caught() {
    for part in ["/manifests/", "/uploads/"] {
        let double = Double::registry(move |seen| {
            let other = sbs_crypto::digest(b"other").to_string();
            let put = seen.is(&Method::PUT, part);
            put.then(|| Reply::status(201).header("docker-content-digest", other))
        })
        .await;
        let log = TestLog::new();
        let session = session(double.host(), &log);
        let result = if part == "/uploads/" {
            push(&session, b"x").await.map(drop)
        } else {
            let (tag, bytes) = (ImageTag::parse("v1").unwrap(), Bytes::from_static(b"{}"));
            let target = Target::Tag(&tag);
            session.push_manifest(&repository(), target, media_type::OCI_IMAGE, bytes).await
        };
        assert!(matches!(result, Err(RegistryError::DigestMismatch { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn what_a_registry_says_cannot_repeat_the_password() {
    let double = Double::registry(with_login(|_| {
        let body = format!(
            r#"{{"errors":[{{"code":"DENIED","message":"no, {PASSWORD} is not enough"}}]}}"#
        );
        Some(Reply::status(403).body(body))
    }))
    .await;
    let log = TestLog::new();
    let session = session(double.host(), &log);
    let tag = ImageTag::parse("v1").unwrap();
    let error = session.manifest(&repository(), Target::Tag(&tag)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    let text = format!("{error} {error:?} {}", log.text());
    assert!(text.contains("DENIED") && !text.contains(PASSWORD), "{text}");
}
