//! `doctor`, and the warnings of certificates that soon end.

use serde_json::{Value, json};

use crate::place::{Place, Run};
use crate::server::Served;

fn checks(run: &Run) -> Vec<(String, String)> {
    let json = run.json();
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let checks = json["checks"].as_array().unwrap();
    checks.iter().map(|check| (text(check, "subject"), text(check, "outcome"))).collect()
}

fn has(run: &Run, subject: &str, outcome: &str) -> bool {
    checks(run).contains(&(subject.to_owned(), outcome.to_owned()))
}

fn served(development: bool) -> Served {
    Served::fixed(&[
        ("GET /image", 200, json!({"status": "init", "version": "1"})),
        (
            "GET /v2/info",
            200,
            json!({
                "api": 2, "server_version": "1.2.3", "features": [],
                "limits": {"page_builds": 3, "request_body_bytes": 4, "v1_manifest_bytes": 5},
                "root_secret": {"development": development, "provider": "tpm2"},
            }),
        ),
    ])
}

/// Makes a certificate for the client that is valid for so many days, by the authority that is there.
fn renew_client(place: &Place, days: &str) {
    let directory = ".container-u-1.d";
    let words = format!(
        "x509 -req -in {directory}/client-csr.pem -CA {directory}/client-ca.pem \
         -CAkey {directory}/client-ca-key.pem -days {days} -out new.pem -extfile ext"
    );
    place.write("ext", "extendedKeyUsage=clientAuth\nbasicConstraints=CA:FALSE\n");
    place.openssl(&words.split_whitespace().collect::<Vec<_>>());
    let key = place.read(&format!("{directory}/client-cert-key.pem"));
    place.write(".container-u-1", &format!("{}{key}", place.read("new.pem")));
}

#[test]
fn a_server_that_answers_has_no_fault() {
    let served = served(false);
    let run = served.place.good(&["--format", "json", "doctor"]);
    for subject in [
        "configuration",
        "client certificate",
        "authority",
        "server certificate",
        "server",
        "root secret",
    ] {
        assert!(has(&run, subject, "ok"), "{subject}: {run:?}");
    }
    assert!(has(&run, "saved state", "warning"), "{run:?}");
    assert!(!run.stdout.contains("canary"), "{run:?}");
    served.place.set("STATE_MIN_EPOCH", 7);
    let run = served.place.good(&["doctor"]);
    assert!(run.stdout.ends_with("\nok       saved state         epoch 7\n"), "{run:?}");
    assert!(!run.stdout.contains("warning"), "{run:?}");
}

#[test]
fn each_fault_and_each_warning_is_told_with_what_to_do() {
    let served = served(true);
    let place = &served.place;
    place.set("TYPO", "x");
    place.set("GITHUB_URL", "ext::sh");
    let run = place.sbs(&["--format", "json", "doctor"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(
        has(&run, "configuration", "fault") && has(&run, "configuration", "warning"),
        "{run:?}"
    );
    assert!(has(&run, "root secret", "warning"), "{run:?}");
    assert!(run.stderr.contains("checks found a fault"), "{run:?}");
    for check in run.json()["checks"].as_array().unwrap() {
        let hints = check["hints"].as_array().unwrap();
        assert!(check["outcome"] != "warning" || !hints.is_empty(), "{check}");
    }

    // No server, and no certificates.
    let place = Place::with_config(1);
    let run = place.sbs(&["--format", "json", "doctor"]);
    assert_eq!(run.code, 2, "{run:?}");
    for subject in ["client certificate", "authority", "server"] {
        assert!(has(&run, subject, "fault"), "{subject}: {run:?}");
    }
    let place = Place::with_certificates(1);
    let run = place.sbs(&["--format", "json", "doctor"]);
    assert_eq!((run.code, has(&run, "server", "fault")), (3, true), "{run:?}");
}

#[test]
fn the_end_of_a_certificate_is_told_by_every_command_a_month_before() {
    let served = served(false);
    let place = &served.place;
    for (days, warns) in [("31", false), ("29", true)] {
        renew_client(place, days);
        let run = place.good(&["status"]);
        let warned = run.stderr.contains("warning: the client's certificate ends on ");
        assert_eq!(warned, warns, "{days}: {run:?}");
        let run = place.good(&["--format", "json", "doctor"]);
        assert_eq!(has(&run, "client certificate", "warning"), warns, "{days}: {run:?}");
    }
    renew_client(place, "-1");
    let run = place.sbs(&["--format", "json", "doctor"]);
    assert!(run.code == 2 && has(&run, "client certificate", "fault"), "{run:?}");
}

#[test]
fn the_end_of_the_servers_certificate_is_seen_in_its_answer() {
    let served = Served::with_server_days("29", |_, _| {
        (200, json!({"status": "init", "version": "1"}).to_string())
    });
    let run = served.place.good(&["status"]);
    assert_eq!(run.stderr.matches("the server's certificate ends on ").count(), 1, "{run:?}");
}
