//! Registration definitions of the classic runtime, read by `GnuPG`.

use serde_json::{Value, json};

use crate::environment::{gpg, make_recipient};
use crate::place::Place;
use crate::server::Served;

fn served() -> Served {
    let registration = json!({
        "repository_name": "docker.io/ns/app", "docker_username": "ro", "docker_password": "p",
        "public_key_id": "ab", "public_key": "UEVN", "envs_whitelist": ["A", "REGION"],
    });
    Served::fixed(&[("GET /config-json", 201, registration)])
}

fn classic(place: &Place) {
    place.set("RUNTIME_TYPE", "classic");
    place.set("REPO_ID", "my-app");
}

/// Decrypts a definition; its signature must be good.
fn decrypted(place: &Place) -> Value {
    let key = ".container-u-1.d/vendor-key.pgp";
    gpg(place, &["--import", key]);
    let words = ["--status-file", "status", "--output", "definition.json", "--yes", "--decrypt"];
    gpg(place, &[&words[..], &["my-app.enc"]].concat());
    // It shows the salt of the signature, too, which is no text.
    let status = std::fs::read(place.path("status")).unwrap();
    assert!(String::from_utf8_lossy(&status).contains("GOODSIG"));
    serde_json::from_str(&place.read("definition.json")).unwrap()
}

#[test]
fn a_definition_is_encrypted_signed_and_completed_as_the_original_does() {
    let served = served();
    let place = &served.place;
    classic(place);
    make_recipient(place);
    let words = ["get-config-json", "--recipient", "server.asc"];
    // A key of the configuration stands for a flag that is not given.
    place.set("KEY_ID", "nobody");
    place.set("EMAIL", "me@example.com");
    let run = place.good(&[&words[..], &["--key-id", "me"]].concat());
    assert_eq!(run.stdout, "my-app.enc\n");
    let definition = decrypted(place);
    assert_eq!(definition["cap_add"], json!(["ALL"]));
    let names: Vec<_> = definition["envs_whitelist"].as_array().unwrap().clone();
    // One of the eleven that the runtime itself sets was there already.
    assert_eq!((names.len(), &names[0]), (12, &json!("A")));
    assert_eq!(names.iter().filter(|name| **name == "REGION").count(), 1);
    let vendor = definition["vendor_key"].as_str().unwrap();
    assert!(vendor.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----"), "{vendor}");
    assert!(definition.get("secrets").is_none());
    assert!(gpg(place, &["--list-keys", "--with-colons"]).contains("me <me@example.com>"));
    assert_eq!(place.mode(".container-u-1.d/vendor-key.pgp"), 0o600);

    place.set("ISV_SECRET", json!({"KEY": "canary"}));
    let run = place.good(&[&words[..], &["--isv-secrets"]].concat());
    let secrets = &decrypted(place)["secrets"];
    assert_eq!(
        *secrets,
        json!({"mount_path": "/isv_secrets/secrets.json", "secrets_list": {"KEY": "canary"}})
    );
    assert!(!run.stdout.contains("canary") && !run.stderr.contains("canary"));
    assert!(!place.read("my-app.enc").contains("canary"));
}

#[test]
fn the_vendors_name_is_in_a_flag_or_in_the_configuration() {
    let served = served();
    let place = &served.place;
    classic(place);
    make_recipient(place);
    place.set("KEY_ID", "vendor");
    place.set("EMAIL", "nobody@example.com");
    let words = ["get-config-json", "--recipient", "server.asc", "--email", "v@example.com"];
    place.good(&words);
    decrypted(place);
    assert!(gpg(place, &["--list-keys", "--with-colons"]).contains("vendor <v@example.com>"));
}

#[test]
fn what_has_no_definition_or_no_secrets_is_refused_before_anything_is_asked() {
    let served = served();
    let place = &served.place;
    for command in ["get-config-json", "get-config-python"] {
        let run = place.sbs(&[command]);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
        assert!(run.stderr.contains("there is no registration definition for vpc"), "{run:?}");
    }
    classic(place);
    for wrong in [Value::Null, json!({}), json!("x"), json!({"A": ""}), json!({"": "a"})] {
        place.set("ISV_SECRET", wrong.clone());
        let run = place.sbs(&["get-config-json", "--isv-secrets"]);
        assert_eq!(run.code, 2, "{wrong}: {run:?}");
    }
    place.set("ISV_SECRET", Value::Null);
    place.set("REPO_ID", "../x");
    let before = place.names();
    let run = place.sbs(&["get-config-json"]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
    assert_eq!(place.names(), before);
}
