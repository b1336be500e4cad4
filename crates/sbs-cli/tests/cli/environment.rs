//! What `instance-env` prints.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::place::{Place, Run};

const NAMES: [&str; 4] = ["CLIENT_CRT", "CLIENT_CA", "SERVER_CRT", "SERVER_KEY"];

pub(crate) fn gpg(place: &Place, arguments: &[&str]) -> String {
    let words = ["--homedir", "gnupg", "--batch", "--quiet", "--pinentry-mode", "loopback"];
    let output = place.command("gpg").args(words).args(arguments).output().unwrap();
    let run = Run::of(&output);
    assert_eq!(run.code, 0, "{arguments:?}: {run:?}");
    run.stdout
}

/// A place with a recipient's certificate in `server.asc`.
fn with_recipient() -> Place {
    let place = Place::with_certificates(1);
    make_recipient(&place);
    place
}

/// Makes a recipient whose certificate is in `server.asc`.
pub(crate) fn make_recipient(place: &Place) {
    fs::create_dir(place.path("gnupg")).unwrap();
    fs::set_permissions(place.path("gnupg"), fs::Permissions::from_mode(0o700)).unwrap();
    let made = ["--passphrase", "", "--quick-generate-key", "server", "default", "default", "1y"];
    gpg(place, &made);
    place.write("server.asc", &gpg(place, &["--armor", "--export", "server"]));
}

fn decoded(place: &Place, text: &str) -> String {
    place.write("b64", text);
    place.openssl(&["base64", "-d", "-A", "-in", "b64"])
}

#[test]
fn a_servers_key_is_encrypted_to_the_recipient_as_gnupg_reads_it() {
    let place = with_recipient();
    let key = place.read(".container-u-1.d/server-cert-key.pem");
    let opened = |run: &Run| {
        let message = decoded(&place, run.json()["SERVER_KEY"].as_str().unwrap());
        assert!(message.starts_with("-----BEGIN PGP MESSAGE-----"), "{message}");
        place.write("message.asc", &message);
        gpg(&place, &["--decrypt", "message.asc"])
    };
    let words = ["--format", "json", "instance-env"];
    let run = place.good(&[&words[..], &["--recipient", "server.asc"]].concat());
    assert_eq!(opened(&run), key);
    assert!(run.stderr.contains("SERVER_KEY is encrypted to"), "{run:?}");
    // The same by the configuration; the flag goes before it.
    place.set("SERVER_KEY_RECIPIENT_FILE", "server.asc");
    let run = place.good(&words);
    assert_eq!(opened(&run), key);
    let body: String = key.lines().nth(1).unwrap().to_owned();
    assert!(!run.stdout.contains(&body) && !run.stderr.contains(&body));
    place.set("SERVER_KEY_RECIPIENT_FILE", "missing.asc");
    assert_eq!(place.sbs(&words).code, 2);
    place.good(&[&words[..], &["--recipient", "server.asc"]].concat());
}

#[test]
fn a_recipient_that_expired_is_refused_by_name_and_date() {
    let place = Place::with_certificates(1);
    place.write("isv.asc", include_str!("../data/isv-user.asc"));
    let run = place.sbs(&["instance-env", "--recipient", "isv.asc"]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
    assert!(run.stderr.contains("`isv_user` cannot be used: it expired on 2026-11-15"), "{run:?}");
    assert!(run.stderr.contains("hint: `isv.asc` must be"), "{run:?}");
}

#[test]
fn a_recipient_that_does_not_encrypt_is_refused() {
    let place = with_recipient();
    let sign = ["--passphrase", "", "--quick-generate-key", "signer", "rsa2048", "sign", "1y"];
    gpg(&place, &sign);
    place.write("signer.asc", &gpg(&place, &["--armor", "--export", "signer"]));
    let secret = ["--passphrase", "", "--armor", "--export-secret-keys", "server"];
    place.write("secret.asc", &gpg(&place, &secret));
    place.write("none.asc", "x");
    for (file, reason) in [
        ("signer.asc", "it has no key that may encrypt"),
        ("secret.asc", "there is a secret key"),
        ("none.asc", "not OpenPGP certificates"),
    ] {
        let run = place.sbs(&["instance-env", "--recipient", file]);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{file}: {run:?}");
        assert!(run.stderr.contains(reason), "{file}: {run:?}");
    }
}

#[test]
fn every_layout_has_the_same_values() {
    let place = Place::with_certificates(1);
    let json = place.good(&["--format", "json", "instance-env"]).json();
    let value = |name: &str| json[name].as_str().unwrap().to_owned();
    // A shell reads both files of variables as docker, podman and systemd do.
    for layout in ["env", "systemd"] {
        let run = place.good(&["instance-env", "--format", layout]);
        place.write("variables", &run.stdout);
        let script = "set -e; . ./variables; for n in CLIENT_CRT CLIENT_CA SERVER_CRT SERVER_KEY; \
                      do eval echo \\$$n; done";
        let output = place.command("sh").args(["-c", script]).output().unwrap();
        let lines = Run::of(&output).stdout;
        assert_eq!(lines.lines().map(str::to_owned).collect::<Vec<_>>(), NAMES.map(value));
        let quoted = run.stdout.starts_with("CLIENT_CRT=\"");
        assert_eq!(quoted, layout == "systemd", "{layout}");
    }
    let contract = place.good(&["instance-env"]).stdout;
    // The original prints the lines with an empty one behind the last.
    let lines = NAMES.map(|name| format!("{name}: \"{}\"\n", value(name)));
    let expected = lines.concat() + "\n";
    assert_eq!(contract, expected);
    let classic = NAMES.map(|name| format!("-e {name}={}", value(name))).join(" ") + "\n";
    place.set("RUNTIME_TYPE", "classic");
    assert_eq!(place.good(&["instance-env"]).stdout, classic);
    for contract_again in [&["--layout", "contract"][..], &["--format=contract"]] {
        let run = place.good(&[&["instance-env"], contract_again].concat());
        assert_eq!(run.stdout, contract);
    }
    place.write("root.pub", "ssh-ed25519 AAAA\n");
    place.set("ROOT_SSH_KEY_FILE", "root.pub");
    for layout in ["classic", "contract", "env", "systemd"] {
        let run = place.good(&["instance-env", "--layout", layout]);
        let line = run.stdout.trim_start_matches("-e ");
        assert!(line.starts_with("ROOT_SSH_KEY"), "{layout}");
    }
    assert_eq!(place.sbs(&["instance-env", "--format", "yaml"]).code, 2);
}
