use std::fs;
use std::path::Path;

use sbs_crypto::digest;

use super::testing::*;
use super::*;
use crate::build::failure::chain;
use sbs_registry::testing::noise;

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

/// Puts bytes under the name `a`.
async fn put(storage: &dyn Storage, bytes: &[u8]) -> Result<(), StorageError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, bytes).unwrap();
    storage.put_file(&name("a"), &file, &CancellationToken::new()).await
}

/// Fetches the object `a`.
async fn fetch(
    storage: &dyn Storage,
    directory: &Path,
    max_bytes: u64,
) -> Result<Vec<u8>, StorageError> {
    let to = directory.join("fetched");
    let fetched = storage.fetch(&name("a"), &to, max_bytes).await?;
    let bytes = fs::read(&to).unwrap();
    assert_eq!((fetched.bytes, fetched.digest), (bytes.len() as u64, digest(&bytes)));
    Ok(bytes)
}

fn opened(storage: &TestStorage) -> Box<dyn Storage> {
    open(&client(quick(), Plaintext::Refused), &storage.keys()).unwrap()
}

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn what_is_put_can_be_fetched_over_http_and_tls() {
    for security in [Security::Http, Security::Tls] {
        let server = TestStorage::start(security, well()).await;
        let client = client(quick(), Plaintext::Allowed);
        let storage = open(&client, &server.keys()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        // Nothing, a little, one whole part, and parts.
        for size in [0, 5, 8 * MIB, 13 * MIB] {
            let bytes = noise(size);
            put(&*storage, &bytes).await.unwrap();
            assert_eq!(fs::read(server.object("a")).unwrap(), bytes);
            assert_eq!(
                fetch(&*storage, directory.path(), bytes.len() as u64).await.unwrap(),
                bytes
            );
        }
        assert_eq!(server.count("partNumber="), 2, "only the largest goes in parts");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }
}

#[tokio::test]
async fn l1_http_is_refused_unless_the_settings_allow_it() {
    let server = TestStorage::start(Security::Http, well()).await;
    let error = open(&client(quick(), Plaintext::Refused), &server.keys()).unwrap_err();
    assert!(error.to_string().contains("MANIFEST_COS_ENDPOINT: must begin with"), "{error}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn each_refusal_says_who_is_at_fault() {
    let server = TestStorage::start(Security::Tls, well()).await;
    let client = client(quick(), Plaintext::Refused);
    let with = |key: &str, value: &str| {
        let mut keys = server.keys();
        for (_, old) in keys.iter_mut().filter(|(name, _)| *name == key) {
            value.clone_into(old);
        }
        open(&client, &keys).unwrap()
    };
    let no_port = "https://127.0.0.1:1";
    for (key, value, expected) in [
        ("MANIFEST_COS_ACCESS_KEY_ID", "AKIDOTHER", "does not accept the credentials"),
        ("MANIFEST_COS_SECRET_ACCESS_KEY", "canary-wrong", "does not accept the credentials"),
        ("MANIFEST_COS_ENDPOINT", no_port, "cannot reach `127.0.0.1`: Connection refused"),
    ] {
        let error = put(&*with(key, value), b"x").await.unwrap_err();
        let (text, debug) = (chain(&error), format!("{error:?}"));
        assert!(text.contains(expected), "{key}: {text} {debug}");
        for secret in [SECRET, "canary"] {
            assert!(!text.contains(secret) && !debug.contains(secret), "{text} {debug}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let error = fetch(&*opened(&server), directory.path(), 10).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no `a` in bucket `manifests`");
    assert!(server.everything().is_empty());
    // s3s makes a bucket that is not there; others say this.
    for (status, code, expected) in [
        (404, "NoSuchBucket", "has no bucket `manifests`"),
        (403, "AccessDenied", "does not permit this in bucket `manifests` (AccessDenied)"),
        (403, "RequestTimeTooSkewed", "refused the time of this machine; set its clock"),
        (307, "TemporaryRedirect", "refused the request (status 307, TemporaryRedirect)"),
    ] {
        let script = move |_: &http::request::Parts, _: usize| Act::Refuse(status, code);
        let server = TestStorage::start(Security::Tls, Box::new(script)).await;
        let error = put(&*opened(&server), b"x").await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(server.seen().len(), 1, "it is not tried again");
    }
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused() {
    let server = TestStorage::start(Security::Tls, well()).await;
    let stranger = StorageClient::new(b"", quick(), Plaintext::Refused).unwrap();
    let error = put(&*open(&stranger, &server.keys()).unwrap(), b"x").await.unwrap_err();
    assert!(matches!(error, StorageError::Untrusted { .. }), "{error:?}");
    assert!(server.seen().is_empty(), "nothing was asked of a stranger");
}

#[tokio::test]
async fn a_storage_that_fails_for_a_moment_is_asked_again() {
    for (status, code) in [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")] {
        // The second part of an upload, twice.
        let script = move |parts: &http::request::Parts, before: usize| {
            let second = parts.uri.query().is_some_and(|query| query.contains("partNumber=2"));
            if second && before < 4 { Act::Refuse(status, code) } else { Act::Pass }
        };
        let server = TestStorage::start(Security::Tls, Box::new(script)).await;
        let bytes = noise(13 * MIB);
        let put = put(&*opened(&server), &bytes).await;
        assert!(put.is_ok(), "{put:?} {:?}", server.seen());
        assert_eq!(fs::read(server.object("a")).unwrap(), bytes);
        assert_eq!(server.count("partNumber=2"), 3, "{:?}", server.seen());
    }
}

#[tokio::test]
async fn a_storage_that_goes_on_failing_is_left_alone_and_nothing_stays_there() {
    let script = |parts: &http::request::Parts, _| {
        let second = parts.uri.query().is_some_and(|query| query.contains("partNumber=2"));
        if second { Act::Refuse(503, "SlowDown") } else { Act::Pass }
    };
    let server = TestStorage::start(Security::Tls, Box::new(script)).await;
    let error = put(&*opened(&server), &noise(13 * MIB)).await.unwrap_err();
    assert!(matches!(error, StorageError::Failing { status: 503, .. }), "{error:?}");
    assert_eq!(server.count("partNumber=2"), quick().attempts);
    assert_eq!(server.count("DELETE"), 1);
    assert_eq!(server.everything(), Vec::<String>::new());
}

#[tokio::test]
async fn a_slow_storage_has_a_time_limit_and_nothing_stays_there() {
    let script = |parts: &http::request::Parts, _| {
        let second = parts.uri.query().is_some_and(|query| query.contains("partNumber=2"));
        if second { Act::Hang } else { Act::Pass }
    };
    let server = TestStorage::start(Security::Tls, Box::new(script)).await;
    let limits = StorageLimits { transfer: Duration::from_secs(2), ..quick() };
    let storage = open(&client(limits, Plaintext::Refused), &server.keys()).unwrap();
    let error = put(&*storage, &noise(13 * MIB)).await.unwrap_err();
    assert!(matches!(error, StorageError::TimeLimit { seconds: 2, .. }), "{error:?}");
    assert_eq!(server.everything(), Vec::<String>::new());
    // One that says nothing for a while is asked again before that.
    let limits = StorageLimits { idle: Duration::from_millis(500), ..quick() };
    let server = TestStorage::start(Security::Http, Box::new(|_, _| Act::Hang)).await;
    let storage = open(&client(limits, Plaintext::Allowed), &server.keys()).unwrap();
    let error = put(&*storage, b"x").await.unwrap_err();
    assert_eq!(chain(&error), "cannot reach `127.0.0.1`: it does not answer in time");
    assert_eq!(server.count("PUT"), quick().attempts);
}

#[tokio::test]
async fn an_upload_that_is_cancelled_leaves_nothing() {
    let cancel = CancellationToken::new();
    let when = cancel.clone();
    let script = move |parts: &http::request::Parts, _| {
        let second = parts.uri.query().is_some_and(|query| query.contains("partNumber=2"));
        if second {
            when.cancel();
        }
        if second { Act::Hang } else { Act::Pass }
    };
    let server = TestStorage::start(Security::Tls, Box::new(script)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, noise(13 * MIB)).unwrap();
    let put = opened(&server).put_file(&name("a"), &file, &cancel).await;
    assert!(matches!(put, Err(StorageError::Cancelled)), "{put:?}");
    assert_eq!(server.everything(), Vec::<String>::new());
}

#[tokio::test]
async fn bytes_that_change_on_the_way_are_refused_by_the_storage() {
    let server = TestStorage::start(
        Security::Tls,
        Box::new(|parts, _| if parts.method == "PUT" { Act::Flip } else { Act::Pass }),
    )
    .await;
    // s3s says that it is its own fault; what counts is that it does not keep them.
    put(&*opened(&server), &noise(1000)).await.unwrap_err();
    assert!(!server.object("a").exists());
}

#[tokio::test]
async fn a_fetch_that_is_cut_goes_on_where_it_was() {
    let script = |_: &http::request::Parts, before| match before {
        0 => Act::Cut(300_000),
        1 => Act::Cut(1),
        _ => Act::Pass,
    };
    let server = TestStorage::start(Security::Tls, Box::new(script)).await;
    let bytes = noise(1_000_000);
    fs::write(server.object("a"), &bytes).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let fetched = fetch(&*opened(&server), directory.path(), 1_000_000).await.unwrap();
    assert_eq!(fetched, bytes);
    let expected = ["", "bytes=300000-999999", "bytes=300001-999999"];
    assert_eq!(server.seen(), expected.map(|range| format!("GET /manifests/a {range}")));
}

#[tokio::test]
async fn a_fetch_that_is_always_cut_leaves_no_file() {
    let script = |parts: &http::request::Parts, _| {
        if parts.method == "GET" { Act::Cut(1) } else { Act::Pass }
    };
    let server = TestStorage::start(Security::Tls, Box::new(script)).await;
    fs::write(server.object("a"), noise(1000)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let error = fetch(&*opened(&server), directory.path(), 1000).await.unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn r6_an_object_that_is_exchanged_while_it_is_read_is_refused() {
    let at = Arc::new(std::sync::OnceLock::<PathBuf>::new());
    let object = Arc::clone(&at);
    let script = move |_: &http::request::Parts, before| {
        if before == 1 {
            // The same size, other bytes, just before the rest is asked for.
            fs::write(object.get().unwrap(), vec![7; 1_000_000]).unwrap();
        }
        if before == 0 { Act::Cut(300_000) } else { Act::Pass }
    };
    let server = TestStorage::start(Security::Tls, Box::new(script)).await;
    at.set(server.object("a")).unwrap();
    fs::write(server.object("a"), noise(1_000_000)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let fetched = fetch(&*opened(&server), directory.path(), 1_000_000).await.map(|_| "taken");
    let error = fetched.unwrap_err();
    assert!(matches!(error, StorageError::Changed { .. }), "{error:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_object_over_the_limit_is_not_fetched() {
    let server = TestStorage::start(Security::Tls, well()).await;
    fs::write(server.object("a"), noise(1000)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let storage = opened(&server);
    let error = fetch(&*storage, directory.path(), 999).await.unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { max_bytes: 999, .. }), "{error:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    fetch(&*storage, directory.path(), 1000).await.unwrap();
}

#[test]
fn names_are_no_paths() {
    for good in ["a", "manifest.r_5000.app.v1-0a1b2c3.2026-01-02_03-04-05.000006.sig.tbz"] {
        ObjectName::parse(good).unwrap();
    }
    for bad in ["", ".", "..", ".a", "a/b", "../a", "/a", "a\\b", "a b", "a\n", "a%2f", "ä", "a?b"]
    {
        assert_eq!(ObjectName::parse(bad), Err(ParseObjectNameError), "{bad}");
    }
    assert_eq!(ObjectName::parse(&"a".repeat(1025)), Err(ParseObjectNameError));
}

#[test]
fn authorities_must_be_certificates() {
    let made = |pem: &[u8]| StorageClient::new(pem, quick(), Plaintext::Refused).map(drop);
    made(b" \n").unwrap();
    assert!(matches!(made(b"no certificate"), Err(MakeStorageClientError::Authorities)));
}

mod ibm {
    use super::*;

    async fn start(tokens: &Arc<Tokens>) -> (TestStorage, Box<dyn Storage>) {
        let server = TestStorage::start_ibm(Arc::clone(tokens), well()).await;
        let storage = open(&client(quick(), Plaintext::Refused), &server.ibm_keys()).unwrap();
        (server, storage)
    }

    #[tokio::test]
    async fn one_token_serves_many_requests() {
        let tokens = Arc::<Tokens>::default();
        let (server, storage) = start(&tokens).await;
        let bytes = noise(13 * MIB);
        put(&*storage, &bytes).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(fetch(&*storage, directory.path(), u64::MAX).await.unwrap(), bytes);
        assert_eq!((tokens.granted(), server.count("/oidc/token")), (1, 1));
    }

    #[tokio::test]
    async fn a_token_that_ends_early_is_renewed_once() {
        let tokens = Arc::<Tokens>::default();
        let (server, storage) = start(&tokens).await;
        put(&*storage, b"one").await.unwrap();
        *tokens.ended.lock().unwrap() = 1;
        put(&*storage, b"two").await.unwrap();
        assert_eq!(fs::read(server.object("a")).unwrap(), b"two");
        assert_eq!(tokens.granted(), 2);
        // A storage that takes no token at all is not asked forever.
        *tokens.ended.lock().unwrap() = usize::MAX;
        let error = put(&*storage, b"three").await.unwrap_err();
        assert!(matches!(error, StorageError::Credentials { .. }), "{error:?}");
        assert_eq!(tokens.granted(), 3);
    }

    #[tokio::test]
    async fn a_token_is_renewed_when_its_time_is_over() {
        let tokens = Arc::<Tokens>::default();
        *tokens.lifetime.lock().unwrap() = Some(0);
        let (_server, storage) = start(&tokens).await;
        put(&*storage, b"one").await.unwrap();
        put(&*storage, b"two").await.unwrap();
        assert_eq!(tokens.granted(), 2);
    }

    #[tokio::test]
    async fn l1_a_wrong_api_key_is_told_without_it() {
        let server = TestStorage::start_ibm(Arc::default(), well()).await;
        let mut keys = server.ibm_keys();
        keys[2].1 = "canary-wrong".to_owned();
        let storage = open(&client(quick(), Plaintext::Refused), &keys).unwrap();
        let error = put(&*storage, b"x").await.unwrap_err();
        let shown = format!("{} {error:?} {storage:?}", chain(&error));
        assert!(matches!(error, StorageError::Credentials { .. }), "{shown}");
        assert!(shown.contains("BXNIM0415E") && !shown.contains("canary"), "{shown}");
        assert_eq!(server.count("/oidc/token"), 1, "it is not tried again");
    }

    #[tokio::test]
    async fn a_token_service_that_fails_for_a_moment_is_asked_again() {
        let script = |_: &http::request::Parts, before| {
            if before == 0 { Act::Refuse(503, "Busy") } else { Act::Pass }
        };
        let server = TestStorage::start_ibm(Arc::default(), Box::new(script)).await;
        let storage = open(&client(quick(), Plaintext::Refused), &server.ibm_keys()).unwrap();
        put(&*storage, b"x").await.unwrap();
        assert_eq!(server.count("/oidc/token"), 2);
    }

    #[tokio::test]
    async fn a_service_instance_is_sent_where_one_is_named() {
        let server = TestStorage::start_ibm(Arc::default(), well()).await;
        let mut keys = server.ibm_keys();
        keys[3].1 = "crn:v1:other".to_owned();
        let storage = open(&client(quick(), Plaintext::Refused), &keys).unwrap();
        let error = put(&*storage, b"x").await.unwrap_err();
        assert!(error.to_string().contains("WrongServiceInstance"), "{error}");
        keys[3].1.clear();
        let storage = open(&client(quick(), Plaintext::Refused), &keys).unwrap();
        put(&*storage, b"x").await.unwrap();
    }

    #[tokio::test]
    async fn bytes_that_change_on_the_way_are_refused_without_a_signature_too() {
        let flip = |parts: &http::request::Parts, _: usize| {
            if parts.method == "PUT" { Act::Flip } else { Act::Pass }
        };
        let server = TestStorage::start_ibm(Arc::default(), Box::new(flip)).await;
        let storage = open(&client(quick(), Plaintext::Refused), &server.ibm_keys()).unwrap();
        let error = put(&*storage, &noise(1000)).await.unwrap_err();
        assert!(
            error.to_string().ends_with("refused the request (status 400, BadDigest)"),
            "{error}"
        );
    }
}
