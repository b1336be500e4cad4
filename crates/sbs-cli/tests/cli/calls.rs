//! Commands that ask a server.

use std::fs;

use serde_json::{Value, json};

use crate::server::{BREAK, Served};

const OK: u16 = 200;

#[test]
fn init_sends_the_body_and_remembers_the_runtime_type() {
    let served = Served::fixed(&[("POST /image", OK, json!({"status": "OK"}))]);
    let place = &served.place;
    place.set("CAPATH", ".container-u-1.d/client-ca.pem");
    place.set("TYPO", "x");
    let run = place.good(&["-v", "init"]);
    assert_eq!(run.stdout, "OK\n");
    assert!(run.stderr.contains("unknown in the configuration, and not sent: TYPO"), "{run:?}");
    assert!(run.stderr.contains("POST /image: 200 ("), "{run:?}");
    assert!(!run.stderr.contains("canary"), "{run:?}");
    assert_eq!(place.read(".container-u-1.d/sbsRuntime_Type"), "vpc");
    let (_, body) = served.requests().pop().unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["DOCKER_PASSWORD"], "canary-password");
    assert!(body.get("CAPATH").is_none() && body.get("TYPO").is_none(), "{body}");
}

#[test]
fn update_cannot_change_the_runtime_type() {
    let served = Served::fixed(&[("PATCH /image", OK, json!({"status": "OK"}))]);
    let place = &served.place;
    place.good(&["update"]);
    assert_eq!(place.read(".container-u-1.d/sbsRuntime_Type"), "vpc");
    place.set("RUNTIME_TYPE", "on-prem");
    let run = place.sbs(&["update"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("RUNTIME_TYPE is not the one"), "{run:?}");
    assert_eq!(served.asked(), ["PATCH /image"]);
}

#[test]
fn a_refusal_is_exit_1_with_the_servers_reason_made_safe() {
    let json = json!({"code": "busy", "status": "a build \u{1b}[31mruns"});
    let served = Served::fixed(&[("PUT /image", 409, json)]);
    let run = served.place.sbs(&["build"]);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert_eq!(
        run.stderr,
        "error: the server refused with status 409 `busy`: a build \\x1b[31mruns\n\
         hint: wait for the build (sbs log --follow) or stop it (sbs clean)\n"
    );
}

#[test]
fn k8_a_root_secret_for_development_is_warned_of() {
    let info = |root_secret: Value| {
        json!({
            "api": 2, "server_version": "1\u{1b}[31m", "features": ["state", "x"], "more": 1,
            "limits": {"page_builds": 3, "request_body_bytes": 4, "v1_manifest_bytes": 5},
            "root_secret": root_secret,
        })
    };
    for (told, text, warned) in [
        (json!({"provider": "file", "development": true}), "file (for development)", true),
        (json!({"provider": "tpm2", "development": false}), "tpm2", false),
        (Value::Null, "not told", false),
    ] {
        let served = Served::fixed(&[("GET /v2/info", OK, info(told.clone()))]);
        let run = served.place.good(&["info"]);
        let expected = format!(
            "server_version: 1\\x1b[31m\napi: 2\nfeatures: state, x\nroot_secret: {text}\n\
             server_certificate_ends: not told\nclient_authority_ends: not told\n\
             page_builds: 3\nrequest_body_bytes: 4\nv1_manifest_bytes: 5\n"
        );
        assert_eq!(run.stdout, expected);
        let warning = "warning: the server keeps its root secret as for development (file)";
        assert_eq!(run.stderr.starts_with(warning), warned, "{run:?}");
        let run = served.place.good(&["--quiet", "--format", "json", "info"]);
        assert_eq!(run.json().get("root_secret").cloned().unwrap_or_default(), told);
        assert_eq!(run.stderr.starts_with(warning), warned, "{run:?}");
    }
    let served = Served::fixed(&[("GET /v2/info", 404, json!({"status": "no"}))]);
    let run = served.place.sbs(&["info"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("does not have a description of itself"), "{run:?}");
}

#[test]
fn until_when_the_certificates_are_good_is_told() {
    let info = json!({
        "api": 2, "server_version": "1", "features": [],
        "limits": {"page_builds": 3, "request_body_bytes": 4, "v1_manifest_bytes": 5},
        "certificates": {
            "server_not_after": "2027-01-02T03:04:05Z",
            "client_authority_not_after": "2028-01-02T03:04:05Z",
        },
    });
    let served = Served::fixed(&[("GET /v2/info", OK, info)]);
    let run = served.place.good(&["info"]);
    for line in [
        "server_certificate_ends: 2027-01-02T03:04:05Z\n",
        "client_authority_ends: 2028-01-02T03:04:05Z\n",
    ] {
        assert!(run.stdout.contains(line), "{run:?}");
    }
}

#[test]
fn results_are_text_or_json() {
    let digest = format!("docker.io/ns/app@sha256:{}", "0a".repeat(32));
    let served = Served::fixed(&[
        ("GET /image", OK, json!({"status": "image\u{202e}built", "build_name": ""})),
        ("GET /imagedigest", 201, json!(digest)),
        ("DELETE /image", OK, json!({"status": "OK"})),
        ("PUT /image", OK, json!({"status": "OK: async build started"})),
        ("GET /log/build", OK, json!({"log": "one\n\u{1b}]0;x\u{7}two\tthree\r\n"})),
    ]);
    let place = &served.place;
    for (command, text, json) in [
        (
            "status",
            "build_name: \nstatus: image\\u{202e}built\n".to_owned(),
            json!({"build_name": "", "status": "image\u{202e}built", "version": 1}),
        ),
        ("get-digest", format!("{digest}\n"), json!({"image": digest, "version": 1})),
        ("clean", "OK\n".to_owned(), json!({"status": "OK", "version": 1})),
        (
            "build",
            "OK: async build started\n".to_owned(),
            json!({"status": "OK: async build started", "version": 1}),
        ),
        (
            "log",
            "one\n\\x1b]0;x\\x07two\tthree\\r\n".to_owned(),
            json!({"log": "one\n\u{1b}]0;x\u{7}two\tthree\r\n", "version": 1}),
        ),
    ] {
        let run = place.good(&[command]);
        assert_eq!((run.stdout, run.stderr), (text, String::new()), "{command}");
        let run = place.good(&["--format", "json", command]);
        assert_eq!(run.json(), json, "{command}");
        let strange = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!run.stdout.contains(strange), "{}", run.stdout);
    }
}

/// A server whose builds go through these statuses, one at each look, and whose log grows by a
/// line at each.
fn building(statuses: &'static [&'static str]) -> Served {
    let mut looks: Option<usize> = None;
    Served::start(move |line, _| match (line, looks) {
        ("PUT /image", _) => {
            looks = Some(0);
            (OK, json!({"status": "OK: async build started"}).to_string())
        }
        ("GET /image", None) => (OK, json!({"status": "success", "build_name": "old"}).to_string()),
        ("GET /image", Some(look)) => {
            looks = Some(look + 1);
            let status = statuses[look.min(statuses.len() - 1)];
            (OK, json!({"status": status, "build_name": ""}).to_string())
        }
        ("GET /log/build", None) => (OK, json!({"log": "of the build before\n"}).to_string()),
        ("GET /log/build", Some(look)) => {
            let log = lines(1..=look);
            (OK, json!({"log": format!("{log}unfinished")}).to_string())
        }
        _ => (404, String::new()),
    })
}

fn lines(numbers: impl Iterator<Item = usize>) -> String {
    numbers.fold(String::new(), |log, n| format!("{log}line {n}\n"))
}

#[test]
fn build_wait_ends_with_the_build_and_its_exit_code() {
    let served = building(&["cleaned up", "github cloned", "success"]);
    let run = served.place.good(&["build", "--wait"]);
    assert_eq!(run.stdout, "build_name: \nstatus: success\n");
    assert_eq!(
        run.stderr,
        "OK: async build started\nstatus: cleaned up\nstatus: github cloned\nstatus: success\n"
    );

    let served = building(&["cleaned up", "exiting due to a non-zero return value: 1, cmd: x"]);
    let run = served.place.sbs(&["-q", "build", "--wait"]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("non-zero return value: 1, cmd: x"), "{run:?}");
    assert!(run.stderr.starts_with("error: the build failed\n"), "{run:?}");

    let served = building(&["github cloned", "restarted cicd"]);
    let run = served.place.sbs(&["build", "--wait"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("error: the build was stopped and cleaned away"), "{run:?}");
}

#[test]
fn build_follow_prints_every_line_of_the_new_log_once() {
    let served = building(&["cleaned up", "github cloned", "success"]);
    let run = served.place.good(&["build", "--follow"]);
    assert_eq!(run.stdout, "line 1\nline 2\nline 3\nunfinished\nbuild_name: \nstatus: success\n");
    let run = building(&["success"]).place.good(&["--format", "json", "build", "--follow"]);
    let first: Value = serde_json::from_str(run.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first, json!({"line": "line 1", "version": 1}));
}

#[test]
fn log_follow_ends_with_the_build() {
    let mut looks = 0;
    let served = Served::start(move |line, _| {
        looks += usize::from(line == "GET /image");
        let status = if looks < 3 { "github cloned" } else { "success" };
        let log = lines(0..looks);
        (OK, json!({"status": status, "log": log}).to_string())
    });
    let run = served.place.good(&["log", "--follow"]);
    assert_eq!(run.stdout, "line 0\nline 1\nline 2\n");
}

#[test]
fn an_interrupt_leaves_the_build_running_and_says_so() {
    let served = building(&["github cloned"]);
    let child = served
        .place
        .command(env!("CARGO_BIN_EXE_sbs"))
        .args(["--env", "env.json", "build", "--wait"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while served.asked().len() < 3 {
        std::thread::yield_now();
    }
    let id = child.id().to_string();
    assert!(served.place.command("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("interrupted; the build goes on at the server"), "{stderr}");
    assert!(!served.asked().contains(&"DELETE /image".to_owned()));
}

#[test]
fn a_lost_connection_does_not_end_the_waiting() {
    let mut looks = 0;
    let served = Served::start(move |line, _| {
        if line == "PUT /image" {
            return (OK, json!({"status": "OK: async build started"}).to_string());
        }
        looks += 1;
        match looks {
            1 => (OK, json!({"status": ""}).to_string()),
            2 => (BREAK, String::new()),
            _ => (OK, json!({"status": "success"}).to_string()),
        }
    });
    let run = served.place.good(&["build", "--wait"]);
    assert!(run.stderr.contains("asking again (1 of 5)"), "{run:?}");
    assert_eq!(run.stdout, "status: success\n");
}

#[test]
fn t2_a_server_with_another_authority_or_name_is_exit_3() {
    let served = Served::fixed(&[("GET /image", OK, json!({"status": ""}))]);
    let place = &served.place;
    place.set("HOSTNAME", "127.0.0.1");
    let run = place.sbs(&["status"]);
    assert_eq!(run.code, 3);
    assert!(run.stderr.contains("it was issued for another host name"), "{run:?}");
    place.set("HOSTNAME", "localhost");
    place.good(&["status"]);

    place.set("UUID", "u-2");
    place.good(&["create-client-cert"]);
    let run = place.sbs(&["status"]);
    assert_eq!(run.code, 3);
    assert!(run.stderr.contains("does not come from the certificate authority"), "{run:?}");

    // Our certificate, but an authority that the server does not know made it.
    fs::copy(
        place.path(".container-u-1.d/client-ca.pem"),
        place.path(".container-u-2.d/client-ca.pem"),
    )
    .unwrap();
    let run = place.sbs(&["status"]);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("hint: "), "{run:?}");
    assert_eq!(served.asked(), ["GET /image"]);
}

#[test]
fn c1_the_key_of_signed_images_is_replaced_only_where_that_is_asked_for() {
    let mut key = 0;
    let served = Served::start(move |_, _| {
        key += 1;
        let key = key.to_string();
        let json = json!({
            "repository_name": "docker.io/ns/app", "docker_username": "", "docker_password": "",
            "public_key_id": "ab", "public_key": key, "envs_whitelist": [],
        });
        (200, json.to_string())
    });
    let place = &served.place;
    for (command, file, keys) in [
        ("get-signed-image-publickey", "docker.io-ns-app-public.key", ["1", "3"]),
        ("get-dct-publickey", "docker.io-ns-app-dct-public.key", ["4", "6"]),
    ] {
        assert_eq!(place.good(&[command]).stdout.trim_end(), file);
        let run = place.sbs(&[command]);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains("--overwrite puts it in its place"), "{run:?}");
        assert_eq!(place.read(file), keys[0]);
        place.good(&[command, "--overwrite"]);
        assert_eq!(place.read(file), keys[1]);
    }
}
