//! The commands `root-secret` and `reseal`, as an operator runs them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sbs_state::{AtRest, KeyId, KeyRing, RootSecret, RootSecretProvider};

/// A server that does not run: settings, and a data directory.
struct Server {
    directory: tempfile::TempDir,
}

impl Server {
    /// Writes settings with the secret file `secret` and, of before, `previous`.
    fn new() -> Self {
        let server = Self { directory: tempfile::tempdir().unwrap() };
        server.set("one", &[]);
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn set(&self, secret: &str, previous: &[&str]) {
        let file = |name: &str| format!("file = \"{}\"", self.path(name).display());
        let previous: Vec<String> =
            previous.iter().map(|name| format!("{{ {} }}", file(name))).collect();
        let settings = format!(
            "data-directory = \"{}\"\n[root-secret]\n{}\nprevious = [{}]\n",
            self.path("data").display(),
            file(secret),
            previous.join(", ")
        );
        fs::write(self.path("server.toml"), settings).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the program that is tested")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_sbs-server"));
        command.args(words).arg("--config").arg(self.path("server.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn good(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn error(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(!output.status.success());
        assert_eq!(output.stdout, b"");
        String::from_utf8(output.stderr).unwrap()
    }

    fn secret(&self, name: &str) -> Box<dyn RootSecretProvider> {
        Box::new(RootSecret::parse(&fs::read(self.path(name)).unwrap()).unwrap())
    }

    fn at_rest(&self, secret: &str, previous: &[&str]) -> AtRest {
        let previous = previous.iter().map(|name| self.secret(name)).collect();
        AtRest::new(&KeyRing::new(self.secret(secret), previous).unwrap()).unwrap()
    }
}

#[test]
fn a_root_secret_is_made_once_and_shown_by_its_number() {
    let server = Server::new();
    let told = server.good(&["root-secret", "init"]);
    let mode = server.path("one").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let digits = fs::read_to_string(server.path("one")).unwrap();
    let kid = KeyId::of(&*server.secret("one")).unwrap().to_string();
    let shown = server.good(&["root-secret", "show"]);
    for text in [&told, &shown] {
        assert!(text.contains(&kid) && !text.contains(digits.trim()), "{text}");
    }
    assert!(shown.starts_with("current kid=") && shown.contains("portability=anywhere"), "{shown}");

    let error = server.error(&["root-secret", "init"]);
    assert!(error.contains("it exists"), "{error}");
    assert_eq!(fs::read_to_string(server.path("one")).unwrap(), digits);
}

#[test]
fn k1_a_server_with_a_bad_secret_file_says_why() {
    let server = Server::new();
    let error = server.error(&["root-secret", "show"]);
    assert!(error.contains("`sbs-server root-secret init`"), "{error}");
    fs::write(server.path("one"), [7; 31]).unwrap();
    for (mode, expected) in [(0o644, "can be read by others"), (0o600, "has 31 bytes")] {
        fs::set_permissions(server.path("one"), fs::Permissions::from_mode(mode)).unwrap();
        let error = server.error(&["root-secret", "show"]);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn sealing_again_waits_for_no_server_that_runs() {
    let server = Server::new();
    server.good(&["root-secret", "init"]);
    assert!(server.good(&["reseal"]).starts_with("0 files sealed again"));
    let lock = File::open(server.path("data/lock")).unwrap();
    lock.lock().unwrap();
    let error = server.error(&["reseal"]);
    assert!(error.contains("another server uses the data directory"), "{error}");
}

#[test]
fn k7_a_change_of_secrets_survives_being_killed() {
    let server = Server::new();
    server.good(&["root-secret", "init"]);
    let before = server.at_rest("one", &[]);
    let names: Vec<String> = (0..200).map(|at| format!("definitions/d{at:03}/keys")).collect();
    let file = |name: &str| server.path(&format!("data/{name}.sealed"));
    for name in &names {
        fs::create_dir_all(file(name).parent().unwrap()).unwrap();
        fs::write(file(name), before.seal(name, name.as_bytes()).unwrap()).unwrap();
    }
    server.set("two", &["one"]);
    server.good(&["root-secret", "init"]);
    let both = server.at_rest("two", &["one"]);
    let check = |at_rest: &AtRest| {
        let current = names.iter().filter(|name| {
            let sealed = fs::read(file(name)).unwrap();
            assert_eq!(*at_rest.open(name, &sealed).unwrap(), name.as_bytes(), "{name}");
            at_rest.is_current(&sealed)
        });
        current.count()
    };
    assert_eq!(check(&both), 0);

    let mut running = server.command(&["reseal"]).spawn().unwrap();
    let begun = |path: &Path| both.is_current(&fs::read(path).unwrap());
    while !begun(&file(&names[0])) {
        assert_eq!(running.try_wait().unwrap(), None, "it ended and did nothing");
    }
    running.kill().unwrap();
    running.wait().unwrap();
    // However far it was: all open.
    let done = check(&both);
    assert!(done >= 1);

    let told = server.good(&["reseal"]);
    assert!(told.starts_with(&format!("{} files sealed again", names.len() - done)), "{told}");
    // The old secret can go.
    fs::remove_file(server.path("one")).unwrap();
    server.set("two", &[]);
    assert_eq!(check(&server.at_rest("two", &[])), names.len());
    assert!(server.good(&["reseal"]).contains("200 were already"));
}
