//! The key of the server's certificate, encrypted to the server alone.

use std::fs;

use anyhow::{Context as _, Result};
use sbs_tests::{Authority, BareServer, Outcome, built, outcome, output, program, variable};

#[test]
fn a_key_that_gnupg_encrypts_to_the_identity_is_the_servers() -> Result<()> {
    let authority = Authority::new("Client CA")?;
    let given = authority.issue_loopback("Server")?;
    let mut bare = BareServer::start_with(authority, Some(&given), |_| String::new())?;
    let config = bare.path("server.toml").display().to_string();
    // While the server runs nothing is changed.
    let locked = run(&["identity", "init", "--config", &config])?;
    assert_eq!(locked.code, 1);
    assert!(locked.stderr.contains("stop the server first"), "{}", locked.stderr);
    bare.server.terminate()?;
    let none = run(&["identity", "export", "--config", &config])?;
    assert!(none.stderr.contains("identity init"), "{}", none.stderr);

    let made = run(&["identity", "init", "--config", &config])?;
    assert_eq!(made.code, 0, "{}", made.text());
    let again = run(&["identity", "init", "--config", &config])?;
    assert!(again.code == 1 && again.stderr.contains("has an identity"), "{}", again.text());
    let exported = run(&["identity", "export", "--config", &config])?;
    assert!(exported.stdout.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----"), "{exported:?}");

    let gpg = Gpg::new(&bare)?;
    let told = gpg.import(&exported.stdout)?;
    let fingerprint = made.stdout.trim().to_uppercase();
    assert!(told.contains(&fingerprint), "{told}");
    let message = gpg.encrypt(&fingerprint, &given.key)?;
    bare.server.set_variable(variable("SERVER_KEY", &message));
    bare.server.start_again()?;
    assert_eq!(bare.api(&bare.authority.pem)?.call("GET", "/image")?.status, 200);
    // Also while the server runs, and the server's own log has no secret.
    let running = run(&["identity", "export", "--config", &config])?;
    assert_eq!(running.stdout, exported.stdout);
    let line = given.key.lines().nth(1).context("a line of the key")?;
    assert!(!bare.server.log_text().contains(line));
    let sealed = fs::read(bare.server.data_directory().join("identity.sealed"))?;
    assert!(!sealed.windows(8).any(|window| window == b"Secure B"));

    // To another key, which is named; and with the identity gone.
    bare.server.terminate()?;
    let other = gpg.generate("somebody else")?;
    let message = gpg.encrypt(&other, &given.key)?;
    bare.server.set_variable(variable("SERVER_KEY", &message));
    let error = format!("{:#}", bare.server.start_again().err().context("another key")?);
    assert!(error.contains("is encrypted to the key"), "{error}");
    assert!(error.to_uppercase().contains(&fingerprint), "{error}");
    fs::remove_file(bare.server.data_directory().join("identity.sealed"))?;
    let error = format!("{:#}", bare.server.start_again().err().context("no identity")?);
    assert!(error.contains("identity init"), "{error}");
    Ok(())
}

fn run(arguments: &[&str]) -> Result<Outcome> {
    outcome(program(built("sbs-server")?).args(arguments))
}

/// A `gpg` with a home of its own.
struct Gpg(std::path::PathBuf);

impl Gpg {
    fn new(bare: &BareServer) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let home = bare.path("gpg");
        fs::create_dir(&home)?;
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700))?;
        Ok(Self(home))
    }

    fn command(&self) -> std::process::Command {
        let mut gpg = program("gpg");
        gpg.env("GNUPGHOME", &self.0).args(["--batch", "--no-tty", "--trust-model", "always"]);
        gpg
    }

    fn import(&self, certificate: &str) -> Result<String> {
        let file = self.0.join("import.asc");
        fs::write(&file, certificate)?;
        output(self.command().arg("--import").arg(&file))?;
        output(self.command().args(["--with-colons", "--list-keys"]))
    }

    fn generate(&self, user: &str) -> Result<String> {
        let mut gpg = self.command();
        gpg.args(["--passphrase", "", "--quick-generate-key", user, "rsa2048", "encrypt,sign"]);
        output(gpg.arg("never"))?;
        Ok(user.to_owned())
    }

    fn encrypt(&self, recipient: &str, text: &str) -> Result<String> {
        let file = self.0.join("plain");
        fs::write(&file, text)?;
        output(
            self.command()
                .args(["--armor", "--encrypt", "--recipient", recipient, "--output", "-"])
                .arg(&file),
        )
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let mut end = program("gpgconf");
        let _ended = outcome(end.env("GNUPGHOME", &self.0).args(["--kill", "all"]));
    }
}
