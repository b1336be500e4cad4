//! Certificates and keys of the user's own, and what is never done to them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::place::Place;

const DIRECTORY: &str = ".container-u-1.d";

/// A place with a directory `own` of the user's, open to the group.
fn with_own_directory() -> Place {
    let place = Place::with_config(1);
    fs::create_dir(place.path("own")).unwrap();
    fs::set_permissions(place.path("own"), fs::Permissions::from_mode(0o750)).unwrap();
    place
}

/// The names in a directory, sorted.
fn names(place: &Place, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(place.path(directory)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn where_client_crt_key_is_given_nothing_is_deleted() {
    let place = with_own_directory();
    place.set("CLIENT_CRT_KEY", "own/client.pem");
    place.good(&["create-client-cert"]);
    place.good(&["create-server-cert"]);
    let before = names(&place, "own/client.pem.d");
    assert!(before.contains(&"client-ca-key.pem".to_owned()), "{before:?}");
    let run = place.good(&["--format", "json", "delete-certificates"]);
    assert!(run.stderr.contains("warning: nothing is removed: CLIENT_CRT_KEY"), "{run:?}");
    assert_eq!(run.json()["removed"].as_array().map(Vec::len), Some(0));
    assert_eq!(names(&place, "own/client.pem.d"), before);
    assert!(place.path("own/client.pem").exists());

    // The flag is as good as the key.
    let place = Place::with_certificates(1);
    let flag = ["--client-crt-key", ".container-u-1", "delete-certificates"];
    assert!(place.good(&flag).stderr.contains("nothing is removed"));
    assert!(place.path(&format!("{DIRECTORY}/client-ca-key.pem")).exists());
    place.good(&["delete-certificates"]);
    assert!(!place.path(DIRECTORY).exists());
}

#[test]
fn the_directory_of_certpath_stands_for_the_default_one() {
    let made = Place::with_certificates(1);
    let place = with_own_directory();
    // As the original's client leaves them with CERTPATH and no CAPATH.
    place.write(".container-u-1", &made.read(".container-u-1"));
    for name in ["client-ca.pem", "client-ca-key.pem"] {
        place.write(&format!("own/{name}"), &made.read(&format!("{DIRECTORY}/{name}")));
    }
    place.set("CERTPATH", "own/server-cert.pem");
    let run = place.good(&["create-client-cert"]);
    assert!(run.stderr.contains("using supplied pem files"), "{run:?}");
    place.good(&["create-server-cert"]);
    place.openssl(&["verify", "-CAfile", "own/client-ca.pem", "own/server-cert.pem"]);
    place.good(&["instance-env"]);
    // The server does not answer, but what it is told is kept.
    assert_eq!(place.sbs(&["init"]).code, 3);
    assert_eq!(place.read("own/sbsRuntime_Type"), "vpc");
    place.set("RUNTIME_TYPE", "on-prem");
    let run = place.sbs(&["update"]);
    assert_eq!(run.code, 2);
    assert!(
        run.stderr.contains("RUNTIME_TYPE is not the one that init was called with"),
        "{run:?}"
    );
    assert!(!place.path(DIRECTORY).exists());
    assert_eq!(place.mode("own"), 0o750);

    // What is in a directory of the user's own is not deleted either.
    let before = names(&place, "own");
    assert!(place.good(&["delete-certificates"]).stdout.starts_with(".container-u-1"));
    assert_eq!(names(&place, "own"), before);
}

#[test]
fn a_set_is_made_in_the_directory_of_certpath() {
    for (certpath, directory) in [
        ("own/server-cert.pem", "own"),
        ("own/", "own"),
        ("~/own/any.pem", "own"),
        ("new/server-cert.pem", "new"),
        ("server-cert.pem", "."),
    ] {
        let place = with_own_directory();
        let before = place.mode(".");
        place.set("CERTPATH", certpath);
        place.good(&["create-client-cert"]);
        place.good(&["create-server-cert"]);
        for name in ["client-ca.pem", "client-cert-bundle.pem", "server-cert.pem"] {
            assert!(place.path(directory).join(name).exists(), "{certpath}: {name}");
        }
        assert!(!place.path(DIRECTORY).exists(), "{certpath}");
        assert_eq!(place.mode(&format!("{directory}/client-ca-key.pem")), 0o600);
        // Directories that were there keep their modes, new ones are private.
        assert_eq!((place.mode("."), place.mode("own")), (before, 0o750), "{certpath}");
        if directory == "new" {
            assert_eq!(place.mode("new"), 0o700);
        }
    }
}

#[test]
fn three_files_are_a_complete_set_as_in_the_original() {
    let place = Place::with_certificates(1);
    for name in
        ["client-csr.pem", "client-cert.pem", "client-cert-key.pem", "client-cert-bundle.pem"]
    {
        fs::remove_file(place.path(&format!("{DIRECTORY}/{name}"))).unwrap();
    }
    let before = place.read(".container-u-1");
    let run = place.good(&["create-client-cert"]);
    assert!(run.stderr.contains("using supplied pem files"), "{run:?}");
    assert_eq!(place.read(".container-u-1"), before);
    // Its key is in no file of ours: it is not for us to make another.
    let run = place.sbs(&["create-client-cert", "--renew"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("`.container-u-1` was not made here"), "{run:?}");
    assert_eq!(place.read(".container-u-1"), before);
}
