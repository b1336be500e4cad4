use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use sbs_state::{AtRest, KeyId, OpenRecordError};

use super::*;
use crate::build::failure::chain;

/// A provider with everything behind it, to be put to the same questions as all others.
pub(super) struct Subject {
    pub(super) settings: RootSecretSettings,
    pub(super) credentials: Option<PathBuf>,
    /// What is removed to lose the secret, and what the error must then name.
    pub(super) store: PathBuf,
    pub(super) portability: Portability,
}

impl Subject {
    fn open(&self) -> Result<KeyRing, OpenRootSecretError> {
        open(&self.settings, self.credentials.as_deref())
    }
}

/// The questions that every provider must answer alike. `known` holds the secret 00 01 .. 1f,
/// `other` another one.
pub(super) fn conforms(known: &Subject, other: &Subject) {
    let name = known.settings.provider.name();
    let content: Vec<u8> = (0..32).collect();
    let expected = RootSecret::parse(&content).unwrap();

    // The function is that of the secret, in each run of the server.
    let (first, again) = (known.open().unwrap(), known.open().unwrap());
    assert_eq!(first.current().name(), name);
    assert_eq!(first.current().portability(), known.portability);
    let development = known.settings.provider == Provider::File;
    assert_eq!(is_for_development(first.current()), development, "{name}");
    for label in ["a", "b", "sbs.state/v1 at rest"] {
        assert_eq!(first.current().prf(label).unwrap(), expected.prf(label), "{name}");
        assert_eq!(again.current().prf(label).unwrap(), expected.prf(label), "{name}");
    }
    assert_ne!(first.current().prf("a").unwrap(), first.current().prf("b").unwrap());
    assert_eq!(first.current_kid(), KeyId::of(&expected).unwrap());
    assert_eq!(again.current_kid(), first.current_kid());

    // Another secret opens nothing, and says which it would need.
    let sealed = AtRest::new(&first).unwrap().seal("name", b"a record").unwrap();
    let elsewhere = other.open().unwrap();
    assert_ne!(elsewhere.current_kid(), first.current_kid());
    assert_eq!(
        AtRest::new(&elsewhere).unwrap().open("name", &sealed),
        Err(OpenRecordError::UnknownSecret { kid: first.current_kid() })
    );

    // Nothing that is printed or logged has the secret.
    let (log, shown) = logged(|| show(&known.settings, known.credentials.as_deref()).unwrap());
    assert!(shown.contains(&first.current_kid().to_string()), "{shown}");
    for text in [log, shown, format!("{first:?}")] {
        assert!(!text.contains("0001020304050607"), "{name}: {text}");
        assert!(!text.contains("0, 1, 2, 3, 4, 5, 6"), "{name}: {text}");
    }

    // Nothing that exists is overwritten.
    let error = init(&known.settings, None, None).unwrap_err();
    let error = chain(&error);
    assert!(error.contains("it exists") || error.contains("systemd-creds"), "{name}: {error}");
    assert_eq!(known.open().unwrap().current_kid(), first.current_kid());

    // Without what is behind it, it says what is missing.
    fs::remove_file(&known.store).unwrap();
    let error = chain(&known.open().unwrap_err());
    assert!(error.contains(&*known.store.to_string_lossy()), "{name}: {error}");
}

/// Runs something, and returns all that it logged with what it returned.
fn logged<T>(act: impl FnOnce() -> T) -> (String, T) {
    #[derive(Clone)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log(Arc::default());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let result = tracing::subscriber::with_default(subscriber, act);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (text, result)
}

/// Writes a secret file of 32 bytes that count from `first`.
pub(super) fn secret_file(path: PathBuf, first: u8) -> PathBuf {
    let content: Vec<u8> = (first..first + 32).collect();
    fs::write(&path, content).unwrap();
    set_mode(&path, 0o600);
    path
}

pub(super) fn run(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "a program of the tests, not of the server")]
    let mut command = Command::new(name);
    let output = command.args(arguments).envs(environment.iter().copied()).output();
    output.unwrap_or_else(|error| panic!("cannot run `{name}`: {error}"))
}

fn file_subject(path: PathBuf) -> Subject {
    let settings = RootSecretSettings { file: path.clone(), ..RootSecretSettings::default() };
    Subject { settings, credentials: None, store: path, portability: Portability::Anywhere }
}

/// A directory as systemd makes it for a service.
fn credentials() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o700);
    directory
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn systemd_subject(directory: PathBuf) -> Subject {
    let settings =
        RootSecretSettings { provider: Provider::Systemd, ..RootSecretSettings::default() };
    let store = directory.join("sbs-root");
    Subject { settings, credentials: Some(directory), store, portability: Portability::ThisHost }
}

#[test]
fn a_file_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let subject = |name: &str, first| file_subject(secret_file(directory.path().join(name), first));
    conforms(&subject("known", 0), &subject("other", 1));
}

#[test]
fn a_credential_of_systemd_conforms() {
    let [known, other] = [0, 1].map(|first| {
        let directory = credentials();
        secret_file(directory.path().join("sbs-root"), first);
        directory
    });
    conforms(&systemd_subject(known.path().to_owned()), &systemd_subject(other.path().to_owned()));
}

#[test]
fn k1_credentials_that_others_can_reach_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let subject = systemd_subject(directory.path().to_owned());
    let secret = secret_file(subject.store.clone(), 0);
    // As systemd makes them.
    set_mode(&secret, 0o400);
    set_mode(directory.path(), 0o500);
    subject.open().unwrap();
    for mode in [0o750, 0o705] {
        set_mode(directory.path(), mode);
        let error = chain(&subject.open().unwrap_err());
        assert!(error.contains("is open to others"), "{error}");
    }
    set_mode(directory.path(), 0o700);
    std::os::unix::fs::chown(directory.path(), Some(65534), None).unwrap();
    let error = chain(&subject.open().unwrap_err());
    assert!(error.contains("belongs to another user; run"), "{error}");
    std::os::unix::fs::chown(directory.path(), Some(0), None).unwrap();
    set_mode(&secret, 0o440);
    let error = chain(&subject.open().unwrap_err());
    assert!(error.contains("can be read by others"), "{error}");

    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    let error = chain(&systemd_subject(link).open().unwrap_err());
    assert!(error.contains("is not a directory"), "{error}");
}

#[test]
fn a_credential_is_named_and_comes_from_systemd() {
    let mut settings = systemd_subject(PathBuf::new()).settings;
    let error = chain(&open(&settings, None).unwrap_err());
    assert!(error.contains("LoadCredentialEncrypted=sbs-root"), "{error}");
    for name in ["", ".", "..", "a/b", "/etc/passwd"] {
        name.clone_into(&mut settings.credential);
        let error = open(&settings, Some(Path::new("/"))).unwrap_err();
        assert!(matches!(error, OpenRootSecretError::CredentialName { .. }), "{name}: {error}");
    }
}

/// What `systemd-creds encrypt` made, systemd gives to the service as a file; here
/// `systemd-creds decrypt` writes that file.
#[test]
fn a_secret_survives_the_encryption_of_systemd() {
    let directory = tempfile::tempdir().unwrap();
    let secret = secret_file(directory.path().join("secret"), 0);
    let (secret, encrypted) =
        (secret.to_str().unwrap(), directory.path().join("sbs-root.encrypted"));
    let encrypted = encrypted.to_str().unwrap();
    let key = "--with-key=host";
    let made = run("systemd-creds", &["encrypt", key, "--name=sbs-root", secret, encrypted], &[]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(
        !fs::read(encrypted)
            .unwrap()
            .windows(8)
            .any(|bytes| *bytes == *b"\0\x01\x02\x03\x04\x05\x06\x07")
    );

    let subject = systemd_subject(directory.path().join("credentials"));
    fs::create_dir(subject.credentials.as_ref().unwrap()).unwrap();
    set_mode(subject.credentials.as_ref().unwrap(), 0o700);
    let store = subject.store.to_str().unwrap();
    // Under another name it does not decrypt: one service's credential is not another's.
    let foreign = run("systemd-creds", &["decrypt", "--name=other", encrypted, store], &[]);
    assert!(!foreign.status.success());
    let back = run("systemd-creds", &["decrypt", "--name=sbs-root", encrypted, store], &[]);
    assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
    set_mode(&subject.store, 0o400);
    let content: Vec<u8> = (0..32).collect();
    let expected = KeyId::of(&RootSecret::parse(&content).unwrap()).unwrap();
    assert_eq!(subject.open().unwrap().current_kid(), expected);
}

#[test]
fn a_new_secret_file_is_closed_to_others_and_its_backup_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let subject = file_subject(directory.path().join("root-secret"));
    let backup = directory.path().join("backup");
    let told = init(&subject.settings, None, Some(&backup)).unwrap();
    let kid = subject.open().unwrap().current_kid();
    assert!(told.contains(&kid.to_string()) && told.contains("off this machine"), "{told}");
    for path in [&subject.store, &backup] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(!told.contains(fs::read_to_string(path).unwrap().trim()));
    }
    assert_eq!(fs::read(&subject.store).unwrap(), fs::read(&backup).unwrap());

    // From the backup it is the same again.
    let again = file_subject(directory.path().join("again"));
    init(&again.settings, Some(&backup), None).unwrap();
    assert_eq!(again.open().unwrap().current_kid(), kid);
}

#[test]
fn a_backup_of_a_secret_that_was_not_made_is_not_left() {
    let directory = tempfile::tempdir().unwrap();
    let subject = file_subject(secret_file(directory.path().join("root-secret"), 0));
    let backup = directory.path().join("backup");
    init(&subject.settings, None, Some(&backup)).unwrap_err();
    assert!(!backup.exists());
    // And a link that waits in the secret's place is not followed.
    let link = file_subject(directory.path().join("link"));
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), &link.store).unwrap();
    init(&link.settings, None, None).unwrap_err();
    assert!(!directory.path().join("elsewhere").exists());
}

#[test]
fn k1_files_that_hold_no_secret_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for content in [&[][..], &[7; 31], &[0; 32], &[0xff; 32]] {
        let subject = file_subject(secret_file(directory.path().join("secret"), 0));
        fs::write(&subject.store, content).unwrap();
        let error = subject.open().unwrap_err();
        assert!(matches!(error, OpenRootSecretError::Parse { .. }), "{error}");
    }
}

#[test]
fn previous_secrets_can_be_of_any_provider_and_have_none_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = credentials();
    secret_file(credentials.path().join("sbs-root"), 1);
    let mut subject = file_subject(secret_file(directory.path().join("now"), 0));
    let before = systemd_subject(credentials.path().to_owned());
    subject.credentials.clone_from(&before.credentials);
    subject.settings.previous = vec![before.settings.clone()];
    let sealed = AtRest::new(&before.open().unwrap()).unwrap().seal("name", b"a record").unwrap();
    let at_rest = AtRest::new(&subject.open().unwrap()).unwrap();
    assert_eq!(*at_rest.open("name", &sealed).unwrap(), b"a record");
    let shown = show(&subject.settings, subject.credentials.as_deref()).unwrap();
    assert_eq!(shown.lines().count(), 2);
    assert!(shown.contains("\nprevious kid="), "{shown}");

    subject.settings.previous[0].previous = vec![before.settings];
    let error = subject.open().unwrap_err();
    assert!(matches!(error, OpenRootSecretError::NestedPrevious), "{error}");
}

#[test]
fn k8_a_secret_in_a_file_is_called_one_for_development() {
    let directory = tempfile::tempdir().unwrap();
    let subject = file_subject(secret_file(directory.path().join("secret"), 0));
    assert!(show(&subject.settings, None).unwrap().contains("for=development"));
}

#[cfg(not(feature = "tpm2"))]
#[test]
fn a_server_without_the_feature_says_so() {
    let settings = RootSecretSettings { provider: Provider::Tpm2, ..RootSecretSettings::default() };
    for error in [
        open(&settings, None).unwrap_err().to_string(),
        init(&settings, None, None).unwrap_err().to_string(),
    ] {
        assert!(error.contains("--features tpm2"), "{error}");
    }
}
