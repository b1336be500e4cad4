//! First contact with a server that makes its own key, and the certificate for it.

use std::fs;

use serde_json::{Value, json};

use crate::place::{Place, Run};
use crate::server::Served;

const DIRECTORY: &str = ".container-u-1.d";

/// A server that answers as the original does before and after it has its certificate; the request
/// is made with `key`.
fn bootstrapping(key: &'static str) -> Served {
    let mut status = "";
    Served::stranger(move |place, line, body| {
        let json = match line {
            "GET /image" => json!({ "status": status }),
            "GET /csr/localhost" => json!({ "csr": request(place, key) }),
            "POST /certificate" => {
                let body: Value = serde_json::from_str(body).unwrap();
                place.write("posted.pem", body["certificate"].as_str().unwrap());
                status = "restarted nginx";
                json!({"status": "OK"})
            }
            _ => return (404, json!({"status": "no such route"}).to_string()),
        };
        (200, json.to_string())
    })
}

fn request(place: &Place, key: &str) -> String {
    if !place.path(key).exists() {
        place.openssl(&["genpkey", "-algorithm", "RSA", "-out", key]);
    }
    place.openssl(&["req", "-new", "-key", key, "-subj", "/CN=evil.example", "-out", "made.csr"]);
    place.read("made.csr")
}

/// The fingerprint of the server's certificate, as OpenSSL prints it.
fn fingerprint(place: &Place) -> String {
    let text = place.openssl(&["x509", "-in", "stranger.pem", "-noout", "-fingerprint", "-sha256"]);
    text.trim().split_once('=').unwrap().1.to_owned()
}

#[test]
fn t1_noverify_shows_the_fingerprint_that_openssl_shows() {
    let served = bootstrapping("stranger-key.pem");
    let place = &served.place;
    assert_eq!(place.sbs(&["status"]).code, 3);
    let run = place.good(&["status", "--noverify"]);
    assert_eq!(run.stdout, "status: \n");
    assert!(
        run.stderr.starts_with("warning: the server's certificate was not verified"),
        "{run:?}"
    );
    assert!(run.stderr.contains(&fingerprint(place)), "{run:?}");
    // With the fingerprint nothing has to be said.
    let run = place.good(&["status", "--fingerprint", &fingerprint(place)]);
    assert_eq!(run.stderr, "");
    let bare = fingerprint(place).replace(':', "").to_lowercase();
    place.good(&["status", "--fingerprint", &format!("sha256:{bare}")]);
}

#[test]
fn t1_a_server_with_another_fingerprint_is_exit_3_and_asked_nothing() {
    let served = bootstrapping("stranger-key.pem");
    let place = &served.place;
    place.write("server.pem", &place.read("stranger.pem"));
    let other = "00".repeat(32);
    for command in ["status", "get-server-csr"] {
        let run = place.sbs(&[command, "--noverify", "--fingerprint", &other]);
        assert_eq!((run.code, run.stdout.as_str()), (3, ""), "{run:?}");
        assert!(run.stderr.contains("SHA-256 fingerprint is another one than expected"), "{run:?}");
    }
    assert_eq!(served.asked(), [""; 0]);
    for wrong in ["", "00", "zz", &"00".repeat(33)] {
        assert_eq!(place.sbs(&["status", "--fingerprint", wrong]).code, 2, "{wrong}");
    }
}

#[test]
fn t1_what_sends_secrets_is_refused_with_noverify() {
    let served = bootstrapping("stranger-key.pem");
    for arguments in [
        &["init", "--noverify"][..],
        &["--noverify", "update"],
        &["update", "--nov", "--new-secret"],
        &["post-state-image", "--noverify"],
        &["get-state-image", "--noverify"],
        &["build", "--noverify"],
    ] {
        let run = served.place.sbs(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{arguments:?}");
        let text = "error: --noverify is for status, get-server-csr, post-server-cert alone";
        assert!(run.stderr.starts_with(text), "{run:?}");
    }
    assert_eq!(served.asked(), [""; 0]);
}

#[test]
fn a_server_that_makes_its_own_key_gets_its_certificate() {
    let served = bootstrapping("stranger-key.pem");
    let place = &served.place;
    let run = place.good(&["get-server-csr", "--noverify"]);
    assert_eq!(run.stdout, format!("{DIRECTORY}/server-csr.pem\n"));
    assert!(
        run.stderr.contains("for the key of the certificate that the server showed"),
        "{run:?}"
    );
    assert_eq!(place.read(&format!("{DIRECTORY}/server-csr.pem")), place.read("made.csr"));

    let certificate = format!("{DIRECTORY}/server-cert.pem");
    let run = place.good(&["--format", "json", "sign-csr"]);
    assert_eq!(run.json()["file"], certificate);
    assert!(run.json()["not_after"].as_str().unwrap().ends_with('Z'), "{run:?}");
    let authority = format!("{DIRECTORY}/client-ca.pem");
    let words = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"];
    place.openssl(&[&words[..], &[authority.as_str(), &certificate]].concat());
    let text = place.openssl(&["x509", "-in", &certificate, "-noout", "-text"]);
    assert!(text.contains("DNS:localhost") && !text.contains("evil"), "{text}");
    let key = |arguments: &[&str]| place.openssl(arguments);
    assert_eq!(
        key(&["x509", "-in", &certificate, "-noout", "-pubkey"]),
        key(&["pkey", "-in", "stranger-key.pem", "-pubout"])
    );

    let run = place.good(&["post-server-cert", "--fingerprint", &fingerprint(place)]);
    assert_eq!(run.stdout, "OK\n");
    assert_eq!(place.read("posted.pem"), place.read(&certificate));
    assert_eq!(place.good(&["status", "--noverify"]).stdout, "status: restarted nginx\n");

    // Its key is not here: the server is started without it.
    let run = place.good(&["--format", "json", "instance-env"]);
    let json = run.json();
    let names: Vec<_> = json.as_object().unwrap().keys().collect();
    assert_eq!(names, ["CLIENT_CA", "CLIENT_CRT", "version"]);
    assert!(run.stderr.contains("the server makes its own key"), "{run:?}");
}

#[test]
fn t2_a_request_for_another_key_is_told() {
    let served = bootstrapping("other-key.pem");
    let run = served.place.good(&["get-server-csr", "--noverify"]);
    assert!(run.stderr.contains("warning: nothing proves that the request is"), "{run:?}");
    assert!(run.stderr.contains("`sbs-server certificate show`"), "{run:?}");
    // Where the fingerprint was demanded, the server was no other.
    let known = ["get-server-csr", "--fingerprint", &fingerprint(&served.place)];
    let run = served.place.good(&known);
    assert!(run.stderr.starts_with("the request is for the key sha256:"), "{run:?}");
    assert!(!run.stderr.contains("warning"), "{run:?}");
    let run = served.place.sbs(&["get-server-csr", "--noverify"]);
    // The signature of RSA is the same each time, and so is the request.
    assert_eq!(run.code, 0, "{run:?}");
    fs::remove_file(served.place.path("other-key.pem")).unwrap();
    let run = served.place.sbs(&["get-server-csr", "--noverify"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("is there already with another content"), "{run:?}");
    served.place.good(&["get-server-csr", "--noverify", "--overwrite"]);
}

#[test]
fn t2_what_is_no_request_is_neither_saved_nor_signed() {
    for csr in
        ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
    {
        let served = Served::stranger(move |_, _, _| (200, json!({ "csr": csr }).to_string()));
        let place = &served.place;
        let run = place.sbs(&["get-server-csr", "--noverify"]);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{csr}: {run:?}");
        let file = format!("{DIRECTORY}/server-csr.pem");
        assert!(!place.path(&file).exists());
        place.write(&file, csr);
        assert_eq!(place.sbs(&["sign-csr"]).code, 2);
        assert!(!place.path(&format!("{DIRECTORY}/server-cert.pem")).exists());
    }
}

#[test]
fn a_certificate_for_another_key_does_not_come_beside_ours() {
    let place = Place::with_certificates(1);
    let run = place.sbs(&["sign-csr"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("the server's key was made here"), "{run:?}");
    let place = Place::with_config(1);
    place.good(&["create-client-cert"]);
    let run = place.sbs(&["post-server-cert"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("hint: make it first: sbs get-server-csr"), "{run:?}");
}

#[test]
fn the_requests_path_can_be_given() {
    let served = bootstrapping("stranger-key.pem");
    let place = &served.place;
    place.set("CSRPATH", "own/request.pem");
    place.set("CERTPATH", "own/server-cert.pem");
    place.set("CAPATH", format!("{DIRECTORY}/client-ca.pem"));
    place.set("CAKEYPATH", format!("{DIRECTORY}/client-ca-key.pem"));
    fs::create_dir(place.path("own")).unwrap();
    place.good(&["get-server-csr", "--noverify"]);
    place.good(&["sign-csr"]);
    place.openssl(&["verify", "-CAfile", ".container-u-1.d/client-ca.pem", "own/server-cert.pem"]);
    fs::create_dir(place.path("flag")).unwrap();
    let csr = ["--csrpath", "flag/request.pem"];
    let _run: Run = place.good(&[&csr[..], &["get-server-csr", "--noverify"]].concat());
    assert_eq!(place.read("flag/request.pem"), place.read("own/request.pem"));
}
