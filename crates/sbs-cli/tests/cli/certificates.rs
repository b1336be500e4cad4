//! The certificates that are made, judged by OpenSSL.

use std::fs;

use serde_json::Value;

use crate::place::Place;

const DIRECTORY: &str = ".container-u-1.d";

#[test]
fn a_client_set_has_the_originals_names_and_private_modes() {
    let place = Place::with_config(1);
    let run = place.good(&["create-client-cert"]);
    assert_eq!(run.stdout, ".container-u-1\n");
    assert_eq!(place.mode(DIRECTORY), 0o700);
    for (name, mode) in [
        ("client-ca.pem", 0o644),
        ("client-ca-key.pem", 0o600),
        ("client-csr.pem", 0o644),
        ("client-cert.pem", 0o644),
        ("client-cert-key.pem", 0o600),
        ("client-cert-bundle.pem", 0o644),
    ] {
        assert_eq!(place.mode(&format!("{DIRECTORY}/{name}")), mode, "{name}");
    }
    assert_eq!(place.mode(".container-u-1"), 0o600);
    assert_eq!(fs::read_dir(place.path(DIRECTORY)).unwrap().count(), 6);
    let read = |name: &str| place.read(&format!("{DIRECTORY}/{name}"));
    let both = format!("{}{}", read("client-cert.pem"), read("client-cert-key.pem"));
    assert_eq!(place.read(".container-u-1"), both);
    let bundle = format!("{}{}", read("client-cert.pem"), read("client-ca.pem"));
    assert_eq!(read("client-cert-bundle.pem"), bundle);
}

#[test]
fn openssl_accepts_the_chain() {
    let place = Place::with_certificates(1);
    let authority = format!("{DIRECTORY}/client-ca.pem");
    for (name, purpose) in [("client-cert", "sslclient"), ("server-cert", "sslserver")] {
        let file = format!("{DIRECTORY}/{name}.pem");
        let verified = place.openssl(&[
            "verify",
            "-x509_strict",
            "-CAfile",
            &authority,
            "-purpose",
            purpose,
            &file,
        ]);
        assert_eq!(verified, format!("{file}: OK\n"));
    }
    let server = format!("{DIRECTORY}/server-cert.pem");
    let san = place.openssl(&["x509", "-in", &server, "-noout", "-ext", "subjectAltName"]);
    assert!(san.contains("DNS:localhost"), "{san}");
    assert_eq!(place.mode(&format!("{DIRECTORY}/server-cert-key.pem")), 0o600);
    place.openssl(&["req", "-in", &format!("{DIRECTORY}/server-csr.pem"), "-noout", "-verify"]);
}

#[test]
fn an_existing_set_is_left_as_it_is() {
    let place = Place::with_certificates(1);
    let before = place.read(".container-u-1");
    let server = place.read(&format!("{DIRECTORY}/server-cert.pem"));
    let run = place.good(&["create-client-cert"]);
    assert!(run.stderr.contains("using supplied pem files"), "{run:?}");
    assert_eq!(place.read(".container-u-1"), before);
    let run = place.good(&["create-server-cert"]);
    assert!(run.stderr.contains("using supplied pem files"), "{run:?}");
    assert_eq!(place.read(&format!("{DIRECTORY}/server-cert.pem")), server);
}

#[test]
fn the_end_of_a_certificate_is_told_before_it_comes() {
    let place = Place::with_certificates(1);
    for name in ["client", "server"] {
        let [request, certificate, key] =
            ["csr", "cert", "cert-key"].map(|part| format!("{DIRECTORY}/{name}-{part}.pem"));
        let (authority, authority_key) =
            (format!("{DIRECTORY}/client-ca.pem"), format!("{DIRECTORY}/client-ca-key.pem"));
        place.write("extensions", "subjectAltName=DNS:localhost\n");
        let renew = |days: &str| {
            place.openssl(&[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &authority,
                "-CAkey",
                &authority_key,
                "-days",
                days,
                "-set_serial",
                "7",
                "-extfile",
                "extensions",
                "-out",
                &certificate,
            ]);
            let both = format!("{}{}", place.read(&certificate), place.read(&key));
            if name == "client" {
                place.write(".container-u-1", &both);
            }
            place.good(&[&format!("create-{name}-cert")]).stderr
        };
        let (soon, later) = (renew("29"), renew("31"));
        let warning = format!("warning: the {name} certificate is valid until ");
        let hint = format!("sbs create-{name}-cert --renew");
        assert!(soon.contains(&warning) && soon.contains(&hint), "{soon}");
        assert!(!later.contains("warning:"), "{later}");
    }
}

#[test]
fn renewed_certificates_are_of_the_same_authority_and_the_dates_are_told() {
    let place = Place::with_certificates(1);
    let read = |name: &str| place.read(&format!("{DIRECTORY}/{name}"));
    let authority = read("client-ca.pem");
    for (command, name) in [("create-client-cert", "client"), ("create-server-cert", "server")] {
        let parts = ["cert", "cert-key", "csr"].map(|part| format!("{name}-{part}.pem"));
        let before = parts.each_ref().map(|part| read(part));
        let run = place.good(&["--format", "json", command, "--renew"]);
        assert!(run.stderr.contains(&format!("made a new {name} certificate")), "{run:?}");
        let json = run.json();
        let end = json["not_after"].as_str().unwrap();
        let day = end.split('T').next().unwrap();
        assert!(
            run.stderr.contains(&format!("valid until {day}, its authority until ")),
            "{run:?}"
        );
        assert!(json["authority_not_after"].as_str().unwrap() > end, "{json}");
        for (part, before) in parts.iter().zip(&before) {
            assert_ne!(&read(part), before, "{part}");
        }
        let certificate = format!("{DIRECTORY}/{name}-cert.pem");
        place.openssl(&["verify", "-CAfile", &format!("{DIRECTORY}/client-ca.pem"), &certificate]);
        assert_eq!(place.mode(&format!("{DIRECTORY}/{name}-cert-key.pem")), 0o600);
    }
    assert_eq!(read("client-ca.pem"), authority);
    let both = format!("{}{}", read("client-cert.pem"), read("client-cert-key.pem"));
    assert_eq!(place.read(".container-u-1"), both);
    assert_eq!(read("client-cert-bundle.pem"), format!("{}{authority}", read("client-cert.pem")));
    // Without the flag, nothing changes.
    place.good(&["create-client-cert"]);
    assert_eq!(place.read(".container-u-1"), both);
}

#[test]
fn a_certificate_of_ones_own_is_not_renewed_here() {
    let made = Place::with_certificates(1);
    let place = Place::with_config(1);
    for (name, key) in [
        (".container-u-1", "CLIENT_CRT_KEY"),
        (".container-u-1.d/client-ca.pem", "CAPATH"),
        (".container-u-1.d/client-ca-key.pem", "CAKEYPATH"),
    ] {
        place.write(key, &made.read(name));
        place.set(key, key);
    }
    let before = place.read("CLIENT_CRT_KEY");
    let run = place.sbs(&["create-client-cert", "--renew"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("`CLIENT_CRT_KEY` was not made here"), "{run:?}");
    assert_eq!(place.read("CLIENT_CRT_KEY"), before);
}

#[test]
fn what_was_made_is_deleted_and_what_was_supplied_stays() {
    let place = Place::with_certificates(1);
    let run = place.good(&["--format", "json", "delete-certificates"]);
    assert_eq!(run.json()["removed"].as_array().unwrap().len(), 11);
    assert_eq!(place.names(), ["env.json"]);
    let run = place.good(&["delete-certificates"]);
    assert!(run.stderr.contains("there is nothing to remove"), "{run:?}");

    let place = Place::with_certificates(1);
    place.set("CAPATH", place.path(&format!("{DIRECTORY}/client-ca.pem")).to_str().unwrap());
    place.set("CAKEYPATH", "ca-key.pem");
    place.write("ca-key.pem", "mine");
    place.write(&format!("{DIRECTORY}/notes"), "mine");
    place.write(&format!("{DIRECTORY}/vendor-key.pgp"), "mine");
    let run = place.good(&["delete-certificates"]);
    assert!(run.stderr.contains("warning: left as it is: "), "{run:?}");
    let mut left: Vec<_> = fs::read_dir(place.path(DIRECTORY))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["client-ca.pem", "notes", "vendor-key.pgp"]);
    assert_eq!(place.read("ca-key.pem"), "mine");
    assert!(!place.path(".container-u-1").exists());
}

#[test]
fn a_client_key_that_others_can_read_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::with_certificates(1);
    let warning = "`.container-u-1` holds secrets and others can read it (mode 0644)";
    for (mode, expected) in [(0o600, false), (0o644, true)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(place.path(".container-u-1"), mode).unwrap();
        let run = place.sbs(&["status"]);
        assert_eq!((run.code, run.stderr.contains(warning)), (3, expected), "{run:?}");
    }
}

#[test]
fn a_part_of_a_set_is_refused_and_what_is_missing_is_named() {
    let place = Place::with_certificates(1);
    fs::remove_file(place.path(&format!("{DIRECTORY}/client-csr.pem"))).unwrap();
    fs::remove_file(place.path(".container-u-1")).unwrap();
    let before = place.read(&format!("{DIRECTORY}/client-ca-key.pem"));
    let run = place.sbs(&["create-client-cert"]);
    assert_eq!(run.code, 2);
    let missing = format!("missing {DIRECTORY}/client-csr.pem, .container-u-1; found ");
    assert!(run.stderr.contains(&missing), "{run:?}");
    assert_eq!(place.read(&format!("{DIRECTORY}/client-ca-key.pem")), before);

    fs::remove_file(place.path(&format!("{DIRECTORY}/server-cert-key.pem"))).unwrap();
    let run = place.sbs(&["create-server-cert"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains(&format!("missing {DIRECTORY}/server-cert-key.pem;")), "{run:?}");
}

#[test]
fn another_host_name_makes_another_server_certificate() {
    let place = Place::with_certificates(1);
    place.set("HOSTNAME", "other.example");
    let run = place.good(&["create-server-cert"]);
    assert!(run.stderr.contains("warning: replaced the server certificate"), "{run:?}");
    assert!(run.stderr.contains("DNS:localhost"), "{run:?}");
    let server = format!("{DIRECTORY}/server-cert.pem");
    let san = place.openssl(&["x509", "-in", &server, "-noout", "-ext", "subjectAltName"]);
    assert!(san.contains("DNS:other.example") && !san.contains("localhost"), "{san}");
}

#[test]
fn a_server_certificate_needs_the_authority_first() {
    let run = Place::with_config(1).sbs(&["create-server-cert"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("client-ca.pem` is not there"), "{run:?}");
    assert!(run.stderr.contains("hint: make the certificates first"), "{run:?}");
}

#[test]
fn paths_of_ones_own_are_relative_absolute_or_at_home() {
    let made = Place::with_certificates(1);
    let place = Place::with_config(1);
    fs::create_dir(place.path("own")).unwrap();
    for (from, to) in [
        (".container-u-1", "own/client.pem"),
        (".container-u-1.d/client-ca.pem", "own/ca.pem"),
        (".container-u-1.d/client-ca-key.pem", "own/ca-key.pem"),
    ] {
        place.write(to, &made.read(from));
    }
    place.set("CLIENT_CRT_KEY", "~/own/client.pem");
    place.set("CAPATH", place.path("own/ca.pem").to_str().unwrap());
    place.set("CAKEYPATH", "own/ca-key.pem");
    place.set("CERTPATH", "own/server-cert.pem");
    let run = place.good(&["create-client-cert"]);
    assert!(run.stderr.contains("using supplied pem files"), "{run:?}");
    place.good(&["create-server-cert"]);
    place.openssl(&["verify", "-CAfile", "own/ca.pem", "own/server-cert.pem"]);
    place.good(&["instance-env"]);
}

#[test]
fn the_servers_environment_is_base64_of_pem_in_the_originals_form() {
    let place = Place::with_certificates(1);
    let decoded = |text: &str| {
        place.write("b64", text);
        place.openssl(&["base64", "-d", "-A", "-in", "b64"])
    };
    let expected = [
        ("CLIENT_CRT", place.read(&format!("{DIRECTORY}/client-cert.pem"))),
        ("CLIENT_CA", place.read(&format!("{DIRECTORY}/client-ca.pem"))),
        ("SERVER_CRT", place.read(&format!("{DIRECTORY}/server-cert.pem"))),
        ("SERVER_KEY", place.read(&format!("{DIRECTORY}/server-cert-key.pem"))),
    ];
    let run = place.good(&["instance-env"]);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!((lines.len(), lines[4]), (5, ""), "{}", run.stdout);
    for ((name, pem), line) in expected.iter().zip(&lines) {
        let value = line.strip_prefix(&format!("{name}: \"")).unwrap().strip_suffix('"').unwrap();
        assert_eq!(decoded(value), *pem, "{name}");
    }

    let json = place.good(&["--format", "json", "instance-env"]).json();
    assert_eq!(json["version"], 1);
    for (name, pem) in &expected {
        assert_eq!(json[name].as_str().map(decoded).as_ref(), Some(pem), "{name}");
    }

    place.set("RUNTIME_TYPE", "classic");
    let run = place.good(&["instance-env"]);
    let words: Vec<&str> = run.stdout.trim_end().split(' ').collect();
    assert_eq!(words.len(), 8, "{}", run.stdout);
    for ((name, pem), pair) in expected.iter().zip(words.chunks(2)) {
        assert_eq!(pair[0], "-e");
        let value = pair[1].strip_prefix(&format!("{name}=")).unwrap();
        assert_eq!(decoded(value), *pem, "{name}");
    }

    place.write("root.pub", "ssh-ed25519 AAAA\n");
    place.set("ROOT_SSH_KEY_FILE", "root.pub");
    let run = place.good(&["instance-env"]);
    assert!(run.stdout.starts_with("-e ROOT_SSH_KEY=c3NoLWVkMjU1MTkgQUFBQQo= "), "{}", run.stdout);
}

#[test]
fn a_certificate_file_that_is_none_is_a_configuration_error() {
    let place = Place::with_certificates(1);
    for (name, text) in [(".container-u-1.d/client-ca.pem", "x"), (".container-u-1", "x")] {
        let before = place.read(name);
        place.write(name, text);
        let run = place.sbs(&["status"]);
        assert_eq!(run.code, 2, "{run:?}");
        place.write(name, &before);
    }
    let config: Value = serde_json::from_str(&place.read("env.json")).unwrap();
    assert_eq!(config["UUID"], "u-1");
}
