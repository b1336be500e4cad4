use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use sbs_crypto::pki::{CertificateAuthority, Issued};
use sbs_state::{AtRest, KeyRing, RootSecret};
use time::Duration;
use time::macros::datetime;

use super::*;
use crate::config::{ClientSettings, TlsSettings};
use crate::store::{Store, replace_file};

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

static CA: LazyLock<CertificateAuthority> =
    LazyLock::new(|| CertificateAuthority::create(NOW).unwrap());

/// How often another certificate was told of.
type Count = Arc<AtomicUsize>;

fn open(
    directory: &Path,
    server: Option<&Issued>,
    now: OffsetDateTime,
) -> (Certificates, Count, Store) {
    open_with(directory, sources(server), now)
}

fn sources(server: Option<&Issued>) -> Sources {
    Sources {
        client_ca: CA.certificate_pem().to_owned(),
        client_certificate: None,
        server: server.map(pair),
        client: ClientSettings::default(),
        tls: TlsSettings::default(),
    }
}

fn open_with(
    directory: &Path,
    sources: Sources,
    now: OffsetDateTime,
) -> (Certificates, Count, Store) {
    let secret = RootSecret::parse(&(0..32).collect::<Vec<u8>>()).unwrap();
    let ring = KeyRing::new(Box::new(secret), Vec::new()).unwrap();
    let store = Store::open(directory).unwrap();
    let kept = Kept::new(&store, &Arc::new(AtRest::new(&ring).unwrap()));
    let count = Count::default();
    let counted = Arc::clone(&count);
    let replaced = move || {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let clock = Clock::fixed(now.unix_timestamp());
    let certificates = Certificates::open(sources, kept, clock, replaced).unwrap();
    (certificates, count, store)
}

fn pair(issued: &Issued) -> Pair {
    Pair { certificate: issued.certificate_pem.clone(), key: issued.key_pem.clone() }
}

fn issue() -> Issued {
    CA.issue_server("sbs.example", NOW).unwrap()
}

/// Has the key of this certificate be the one that is awaited.
fn await_certificate(certificates: &Certificates, issued: &Issued) {
    let host = ServerHost::parse("sbs.example").unwrap();
    let key = ServerKey::from_pem(&issued.key_pem).unwrap();
    certificates.0.kept.set_pending(&Pending { host, key }).unwrap();
}

fn shown(certificates: &Certificates) -> (Digest, CertificateSource) {
    let told = certificates.told();
    (told.server.sha256, told.source)
}

fn of(issued: &Issued, source: CertificateSource) -> (Digest, CertificateSource) {
    (describe(&issued.certificate_pem).unwrap().sha256, source)
}

#[tokio::test]
async fn what_was_given_last_is_shown_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second, installed] = [issue(), issue(), issue()];
    let (certificates, count, store) = open(directory.path(), Some(&first), NOW);
    assert_eq!(shown(&certificates), of(&first, CertificateSource::Environment));
    await_certificate(&certificates, &installed);
    certificates.install(&installed.certificate_pem).await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 1);
    // Nothing changes, and nothing is told.
    certificates.install(&installed.certificate_pem).await.unwrap();
    certificates.reload().await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 1);
    drop((certificates, store));
    for (given, expected) in [
        (Some(&first), of(&installed, CertificateSource::Installed)),
        (None, of(&installed, CertificateSource::Installed)),
        (Some(&second), of(&second, CertificateSource::Environment)),
    ] {
        let (certificates, _, _store) = open(directory.path(), given, NOW);
        assert_eq!(shown(&certificates), expected);
    }
}

#[tokio::test]
async fn a_self_made_certificate_is_kept_until_it_ends_or_a_better_one_comes() {
    let directory = tempfile::tempdir().unwrap();
    let (certificates, _, store) = open(directory.path(), None, NOW);
    let first = shown(&certificates);
    assert_eq!(first.1, CertificateSource::SelfSigned);
    drop((certificates, store));
    let (certificates, _, store) = open(directory.path(), None, NOW + Duration::days(364));
    assert_eq!(shown(&certificates), first);
    drop((certificates, store));
    let (certificates, _, store) = open(directory.path(), None, NOW + Duration::days(366));
    assert_ne!(shown(&certificates), first);
    assert_eq!(shown(&certificates).1, CertificateSource::SelfSigned);
    drop((certificates, store));
    let given = issue();
    let (certificates, _, _store) = open(directory.path(), Some(&given), NOW);
    assert_eq!(shown(&certificates), of(&given, CertificateSource::Environment));
}

#[tokio::test]
async fn a_crash_behind_an_installation_leaves_no_key_to_be_used_twice() {
    let directory = tempfile::tempdir().unwrap();
    let installed = issue();
    let (certificates, _, store) = open(directory.path(), None, NOW);
    await_certificate(&certificates, &installed);
    certificates.install(&installed.certificate_pem).await.unwrap();
    // The server died before it removed the request.
    await_certificate(&certificates, &installed);
    drop((certificates, store));
    let (certificates, _, _store) = open(directory.path(), None, NOW);
    let request = certificates.request("sbs.example").await.unwrap();
    let pending = certificates.0.kept.pending().unwrap().unwrap();
    assert_ne!(pending.key.pem(), installed.key_pem.as_str());
    assert_eq!(certificates.request("sbs.example").await.unwrap(), request);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_kept_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let [given, installed] = [issue(), issue()];
    let data = directory.path().join("data");
    let (certificates, count, _store) = open(&data, Some(&given), NOW);
    await_certificate(&certificates, &installed);
    let request = data.join("certificate-request.sealed");
    let sealed = std::fs::read(&request).unwrap();
    // A directory in the place of the file cannot be replaced by one.
    std::fs::create_dir_all(data.join("server-certificate.sealed/x")).unwrap();
    let error = certificates.install(&installed.certificate_pem).await.unwrap_err();
    assert!(matches!(error, InstallCertificateError::Keep(_)), "{error}");
    assert_eq!(shown(&certificates), of(&given, CertificateSource::Environment));
    assert_eq!(count.load(Ordering::Relaxed), 0);
    assert_eq!(std::fs::read(request).unwrap(), sealed);
    std::fs::remove_dir_all(data.join("server-certificate.sealed")).unwrap();
    certificates.install(&installed.certificate_pem).await.unwrap();
    assert_eq!(shown(&certificates), of(&installed, CertificateSource::Installed));
}

#[tokio::test]
async fn the_same_certificate_with_another_chain_is_shown_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let installed = issue();
    let (certificates, count, store) = open(directory.path(), None, NOW);
    await_certificate(&certificates, &installed);
    certificates.install(&installed.certificate_pem).await.unwrap();
    // A request of later waits on, with another key.
    certificates.request("sbs.example").await.unwrap();
    let awaited = certificates.told().pending_key;
    assert!(awaited.is_some());
    let longer = format!("{}{}", installed.certificate_pem, CA.certificate_pem());
    for _again in 0..2 {
        certificates.install(&longer).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 2);
        let pair = certificates.0.now().pair.clone();
        assert_eq!(
            (pair.certificate, pair.key.as_str()),
            (longer.clone(), installed.key_pem.as_str())
        );
        assert_eq!(certificates.told().pending_key, awaited);
    }
    // A chain that leads nowhere, or that clients would refuse by now, is not taken.
    drop((certificates, store));
    let (certificates, count, _store) = open(directory.path(), None, NOW + Duration::days(3650));
    assert_eq!(certificates.0.now().pair.certificate, longer);
    let error = certificates.install(&installed.certificate_pem).await.unwrap_err();
    assert!(matches!(error, InstallCertificateError::Check(_)), "{error}");
    assert_eq!(certificates.0.now().pair.certificate, longer);
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_chain_in_files_that_changes_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (files, issued) = (directory.path().join("files"), issue());
    std::fs::create_dir(&files).unwrap();
    let (certificate_file, key_file) = (files.join("server.pem"), files.join("server-key.pem"));
    replace_file(&certificate_file, issued.certificate_pem.as_bytes()).unwrap();
    replace_file(&key_file, issued.key_pem.as_bytes()).unwrap();
    let tls =
        TlsSettings { certificate_file: Some(certificate_file.clone()), key_file: Some(key_file) };
    let sources = Sources { tls, ..sources(None) };
    let (certificates, count, _store) = open_with(directory.path(), sources, NOW);
    let longer = format!("{}{}", issued.certificate_pem, CA.certificate_pem());
    replace_file(&certificate_file, longer.as_bytes()).unwrap();
    certificates.reload().await.unwrap();
    assert_eq!(certificates.0.now().pair.certificate, longer);
    assert_eq!(count.load(Ordering::Relaxed), 0, "the certificate is the same");
}

#[test]
fn a_file_whose_mode_alone_changes_has_another_version() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key.pem");
    replace_file(&file, b"a key").unwrap();
    let tls = TlsSettings { key_file: Some(file.clone()), ..TlsSettings::default() };
    let sources = Sources { tls, ..sources(None) };
    let mut before = sources.version();
    assert_eq!(sources.version(), before);
    let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
    for mode in [0o644, 0o600] {
        // The kernel's clock goes on in ticks.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_ne!(sources.version(), before, "{mode:o}");
        before = sources.version();
    }
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), modified);
}

#[tokio::test]
async fn keys_on_the_disk_are_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let (certificates, _, _store) = open(directory.path(), None, NOW);
    certificates.request("sbs.example").await.unwrap();
    for name in ["server-certificate.sealed", "certificate-request.sealed"] {
        let sealed = std::fs::read(directory.path().join(name)).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"PRIVATE"), "{name}");
    }
}
