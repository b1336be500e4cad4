//! Every command against a server that answers as the original does, or as nobody should.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::place::Place;
use crate::server::{BREAK, Served};

const BUILD: &str = "docker.io.ns.app.v1-0a1b2c3.2026-01-02_03-04-05.000006";
const OTHER: &str = "docker.io.ns.app.v1-0a1b2c3.2026-01-02_03-04-05.000007";

/// Every command that asks the server one thing, with what the original answers and what is then
/// printed. Line breaks of the output are `|`.
const COMMANDS: [(&str, &str, &str); 17] = [
    ("status", "GET /image", "build_image_tag: 1.3.0.20|"),
    ("init", "POST /image", "OK|"),
    ("update", "PATCH /image", "OK|"),
    ("build", "PUT /image", "OK: async build started|"),
    ("clean", "DELETE /image", "OK|"),
    ("log --log build", "GET /log/build", "2026-01-02 03:00:00,000  root       INFO    starting|"),
    ("get-config-json", "GET /config-json", "repo.enc|"),
    ("get-config-python", "GET /config-python", "repo.py|"),
    ("get-manifest", "GET /manifest", "manifest.BUILD.sig.tbz|"),
    ("get-publickey", "GET /publickey", "manifest.BUILD-public.pem|"),
    ("get-signed-image-publickey", "GET /config-json", "docker.io-ns-app-public.key|"),
    ("get-dct-publickey", "GET /config-json", "docker.io-ns-app-dct-public.key|"),
    ("get-digest", "GET /imagedigest", "docker.io/ns/app@sha256:0a|"),
    ("get-state-image", "GET /state-image", "BUILD|"),
    ("post-state-image --state-image state", "POST /state-image", "OK|"),
    ("get-server-csr", "GET /csr/localhost", ".container-u-1.d/server-csr.pem|"),
    ("post-server-cert", "POST /certificate", "OK|"),
];

/// What the original answers (docs/formats/wire.md), with the status that it uses where it is known.
fn answer(line: &str, key: &str, csr: &str) -> (u16, String) {
    let status = json!({
        "build_image_tag": "1.3.0.20", "build_name": BUILD, "image_tag": "v1-0a1b2c3",
        "manifest_key_gen": "soft_crypto", "status": "success",
        "manifest_public_key": format!("manifest.{BUILD}-public.pem"),
    });
    let registration = json!({
        "repository_name": "docker.io/ns/app", "docker_username": "ro", "docker_password": "p",
        "public_key_id": "ab", "public_key": "UEVN", "envs_whitelist": ["A"],
    });
    let log = "2026-01-02 03:00:00,000  root       INFO    starting\n";
    let digest = format!("docker.io/ns/app@sha256:{}", "0a".repeat(32));
    let manifest = STANDARD.encode(b"BZh91");
    let json = match line {
        "GET /image" => status,
        "PUT /image" => json!({"status": "OK: async build started"}),
        "GET /log/build" => json!({ "log": log }),
        "GET /config-json" => return (201, registration.to_string()),
        "GET /config-python" => return (201, "definition = {}\n".to_owned()),
        "GET /manifest" => {
            json!({"manifest_name": format!("manifest.{BUILD}"), "encoded_manifest": manifest})
        }
        "GET /publickey" => json!({"build_name": BUILD, "public_key_pem": key}),
        "GET /imagedigest" => return (201, json!(digest).to_string()),
        "GET /state-image" => json!({"name": BUILD, "export_tag": "?", "state": "AAAA"}),
        "GET /csr/localhost" => json!({ "csr": csr }),
        "POST /image" | "PATCH /image" | "DELETE /image" | "POST /state-image"
        | "POST /certificate" => json!({"status": "OK"}),
        _ => return (404, json!({"status": "no such route"}).to_string()),
    };
    (200, json.to_string())
}

/// A server whose answer to all that is asked is told it, else that of the original, and a place in
/// which every command may be run.
fn served(wrong: Arc<Mutex<Option<(u16, String)>>>) -> Served {
    let made = Place::new();
    made.openssl(&["genpkey", "-algorithm", "RSA", "-out", "key.pem"]);
    made.openssl(&["req", "-new", "-key", "key.pem", "-subj", "/CN=s", "-out", "csr.pem"]);
    let key = made.openssl(&["pkey", "-in", "key.pem", "-pubout"]);
    let csr = made.read("csr.pem");
    let served = Served::start(move |line, _| {
        wrong.lock().unwrap().clone().unwrap_or_else(|| answer(line, &key, &csr))
    });
    let place = &served.place;
    place.set("RUNTIME_TYPE", "classic");
    place.set("REPO_ID", "repo");
    place.write("state", &json!({"name": BUILD, "export_tag": "?", "state": "AAAA"}).to_string());
    served
}

fn words(command: &str) -> Vec<&str> {
    command.split(' ').collect()
}

#[test]
fn every_command_takes_the_answers_of_the_original() {
    let served = served(Arc::default());
    let place = &served.place;
    for (command, line, expected) in COMMANDS {
        if command == "get-server-csr" {
            // The server makes its own key in that case.
            std::fs::remove_file(place.path(".container-u-1.d/server-cert-key.pem")).unwrap();
            std::fs::remove_file(place.path(".container-u-1.d/server-csr.pem")).unwrap();
        }
        let run = place.good(&words(command));
        let expected =
            expected.replace("BUILD", BUILD).replace("0a|", &format!("{}|", "0a".repeat(32)));
        let stdout = run.stdout.replace('\n', "|");
        assert!(stdout.starts_with(&expected), "{command}: {run:?}");
        assert_eq!(served.asked().last().map(String::as_str), Some(line), "{command}");
    }
}

#[test]
fn no_wrong_answer_does_more_than_to_fail() {
    let wrong: Arc<Mutex<Option<(u16, String)>>> = Arc::default();
    let served = served(wrong.clone());
    let place = &served.place;
    for name in ["server-cert-key.pem", "server-csr.pem"] {
        std::fs::remove_file(place.path(&format!(".container-u-1.d/{name}"))).unwrap();
    }
    // The vendor's key takes its time: it is made once.
    place.good(&["get-config-json"]);
    std::fs::remove_file(place.path("repo.enc")).unwrap();
    let before = place.names();
    for (status, body) in [
        (200, ""),
        (200, "no JSON \u{1b}[31m"),
        (200, "[]"),
        (200, "null"),
        (200, "\"text\""),
        (200, "{}"),
        (200, r#"{"status":1,"log":2,"name":3,"manifest_name":4,"csr":5,"public_key":6}"#),
        (201, "{}"),
        (204, ""),
        (302, ""),
        (400, "<html>"),
        (404, r#"{"status":"no \u001b[31msuch"}"#),
        (409, r#"{"code":"busy","status":"a build runs"}"#),
        (500, "\u{0}\u{7f}"),
        (BREAK, ""),
    ] {
        *wrong.lock().unwrap() = Some((status, body.to_owned()));
        for (command, ..) in COMMANDS {
            if takes_all(command, status, body) {
                continue;
            }
            let run = place.sbs(&words(command));
            let expected = if status == BREAK { 3 } else { 1 };
            assert_eq!(
                (run.code, run.stdout.as_str()),
                (expected, ""),
                "{command} {body}: {run:?}"
            );
            assert!(run.stderr.contains("error: "), "{command} {body}: {run:?}");
            assert!(!run.stderr.contains(['\u{1b}', '\0', '\u{7f}']), "{command} {body}: {run:?}");
            assert!(!run.stderr.contains("panicked"), "{command} {body}: {run:?}");
            assert_eq!(place.names(), before, "{command} {body}");
        }
    }
}

/// Tells whether an answer is none that is wrong, because nothing is known of what is right.
fn takes_all(command: &str, status: u16, body: &str) -> bool {
    let json = serde_json::from_str::<Value>(body).is_ok();
    match (command, status) {
        ("clean", 200 | 201) => json,
        ("get-config-python", 200 | 201) => true,
        // A fresh server has next to nothing to say.
        ("status", 200 | 201) => body == "{}",
        _ => false,
    }
}

#[test]
fn flags_stand_where_the_original_takes_them() {
    let served = served(Arc::default());
    let place = &served.place;
    for (arguments, line) in [
        (&["--log", "build", "log"][..], "GET /log/build"),
        (&["--cloud", "--rd-path", "x", "--loglevel", "DEBUG", "status"], "GET /image"),
        (&["--build-n", BUILD, "get-manifest"], "GET /manifest"),
        (&["get-publickey", "--build-name", BUILD], "GET /publickey"),
        (&["--client-crt-key", ".container-u-1", "build"], "PUT /image"),
        (&["--capath=.container-u-1.d/client-ca.pem", "clean"], "DELETE /image"),
    ] {
        place.good(arguments);
        assert_eq!(served.asked().last().map(String::as_str), Some(line), "{arguments:?}");
    }
    let verbose = |level: &str| place.good(&["--loglevel", level, "status"]).stderr;
    assert!(verbose("debug").contains("GET /image: 200"));
    assert!(!verbose("INFO").contains("GET /image"));
    assert_eq!(place.sbs(&["--loglevel", "LOUD", "status"]).code, 2);
    // A flag stands for a key in this run alone.
    let before = place.read("env.json");
    let run = place.sbs(&["--capath", "missing.pem", "status"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("`missing.pem` is not there"), "{run:?}");
    let run = place.sbs(&["--container-name", "other", "status"]);
    assert!(run.stderr.contains(".other-u-1"), "{run:?}");
    place.write("git-key", "canary");
    let run = place.sbs(&["init", "--github-key-file", "git-key"]);
    assert!(run.stderr.contains("`git-key` is not a private key"), "{run:?}");
    assert_eq!(place.read("env.json"), before);
}

#[test]
fn a_key_of_the_configuration_stands_for_a_flag_that_is_not_given() {
    let served = served(Arc::default());
    let place = &served.place;
    place.set("BUILD_NAME", BUILD);
    for command in ["get-manifest", "get-publickey"] {
        place.good(&[command]);
        let (line, body) = served.requests().pop().unwrap();
        assert_eq!(body, json!({ "BUILD_NAME": BUILD }).to_string(), "{line}");
    }
    place.set("BUILD_NAME", OTHER);
    let run = place.sbs(&["get-publickey"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("the server sent the key of another build"), "{run:?}");
    // What is given counts more.
    place.good(&["get-publickey", "--build-name", BUILD]);
    place.set("BUILD_NAME", "../x");
    let before = served.asked();
    let run = place.sbs(&["get-publickey"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("BUILD_NAME cannot be used"), "{run:?}");
    assert_eq!(served.asked(), before);
}

#[test]
fn l1_a_secret_on_the_command_line_is_refused_before_anything_else() {
    let place = Place::with_config(1);
    for arguments in [
        &["--secret", "canary", "init"][..],
        &["init", "--secret=canary"],
        &["nonsense", "--sec=canary"],
    ] {
        let run = place.sbs(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
        assert!(run.stderr.starts_with("error: --secret would show the secret"), "{run:?}");
        assert!(!run.stderr.contains("canary"), "{run:?}");
    }
}
