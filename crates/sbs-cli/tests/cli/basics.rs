//! The command line itself, and the configuration file.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::json;

use crate::place::{Place, Run};

#[test]
fn help_tells_a_stranger_what_each_command_does() {
    let run = Place::new().run(&["--help"]);
    assert_eq!(run.code, 0);
    for words in ["get-manifest", "Save the signed manifest", "--env <FILE>", "Exit codes"] {
        assert!(run.stdout.contains(words), "{words}: {}", run.stdout);
    }
    for command in [
        "create-client-cert",
        "create-server-cert",
        "instance-env",
        "init",
        "update",
        "build",
        "status",
        "log",
        "clean",
        "get-manifest",
        "get-publickey",
        "get-digest",
        "get-state-image",
        "post-state-image",
        "state",
        "verify",
        "verify-image",
        "version",
    ] {
        let run = Place::new().run(&[command, "--help"]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{command}");
        assert!(run.stdout.contains("Usage: sbs"), "{command}");
    }
}

#[test]
fn a_wrong_command_line_is_exit_2() {
    for arguments in [
        &["nonsense"][..],
        &[],
        &["build", "--nonsense"],
        &["--env"],
        &["log", "--log", "../x"],
        &["get-manifest", "--build-name", "../x"],
        &["-q", "-v", "version"],
        &["verify"],
        &["verify-image"],
        &["verify-image", "--trust"],
        &["get-state-image", "--raw", "--state-bucket-name", "bucket"],
        &["get-state-image", "--state-bucket-name", "../bucket"],
        &["post-state-image", "--state-image", "f", "--state-bucket-name", "bucket"],
        &["post-state-image", "--name", "../x"],
        &["post-state-image", "--min-epoch", "-1"],
        &["state"],
        &["state", "verify", "f"],
    ] {
        let run = Place::new().run(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(!run.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_version_is_text_or_json() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(Place::new().run(&["version"]).stdout, format!("sbs {version}\n"));
    assert_eq!(Place::new().run(&["--version"]).stdout, format!("sbs {version}\n"));
    let run = Place::new().run(&["--format", "json", "version"]);
    assert_eq!(run.json(), json!({"sbs": version, "version": 1}));
}

#[test]
fn a_command_without_a_configuration_is_exit_2() {
    let place = Place::new();
    let run = place.run(&["status"]);
    assert_eq!(run.code, 2);
    assert_eq!(
        run.stderr,
        "error: file `sbs-config.json` is not there\n\
         hint: name another: sbs --env FILE, or make one: sbs prepare\n"
    );
    let run = place.sbs(&["status"]);
    assert!(run.stderr.starts_with("error: file `env.json` is not there\n"), "{run:?}");
    assert_eq!(run.code, 2);
    place.write("env.json", "{\"SECRET\": canary");
    let run = place.sbs(&["status"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("not JSON (line 1"), "{run:?}");
    assert!(!run.stderr.contains("canary"), "{run:?}");
}

#[test]
fn c3_the_first_run_completes_the_configuration_and_keeps_the_old_one() {
    let place = Place::new();
    place.write("env.json", "{\"HOSTNAME\":\"localhost\",\n\"CICD_PORT\":\"1\"}");
    // The flag may stand behind the command, too.
    let run = place.run(&["status", "--env", "env.json"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("added RUNTIME_TYPE, UUID, SECRET to `env.json`"), "{run:?}");
    let config = place.read("env.json");
    let start = "{\n    \"HOSTNAME\": \"localhost\",\n    \"CICD_PORT\": \"1\",\n    \"RUNTIME_TYPE\": \"vpc\",\n    \"UUID\": \"";
    assert!(config.starts_with(start), "{config}");
    let secret = serde_json::from_str::<serde_json::Value>(&config).unwrap()["SECRET"].clone();
    assert!(!run.stderr.contains(secret.as_str().unwrap()));
    let names = place.names();
    let backup = names.iter().find(|name| name.starts_with("env.json.2")).unwrap();
    assert_eq!(backup.len(), "env.json.YYYY-MM-DD_HH-MM-SS.ffffff".len());
    assert_eq!(place.read(backup), "{\"HOSTNAME\":\"localhost\",\n\"CICD_PORT\":\"1\"}");
    assert_eq!((place.mode("env.json"), place.mode(backup)), (0o600, 0o600));

    let run = place.sbs(&["status"]);
    assert!(!run.stderr.contains("added"), "{run:?}");
    assert_eq!(place.read("env.json"), config);
}

#[test]
fn c3_a_configuration_that_others_can_read_is_warned_of() {
    let place = Place::with_config(1);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(place.path("env.json"), open).unwrap();
    let run = place.sbs(&["-q", "create-client-cert"]);
    assert_eq!(run.code, 0);
    assert!(run.stderr.starts_with("warning: `env.json` holds secrets"), "{run:?}");
}

#[test]
fn a_server_that_is_not_there_is_exit_3() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let place = Place::with_certificates(port);
    for command in ["status", "build", "clean", "init", "log", "get-manifest", "get-digest"] {
        let run = place.sbs(&[command]);
        assert_eq!((run.code, run.stdout.as_str()), (3, ""), "{command}: {run:?}");
        assert!(run.stderr.contains("error: the server cannot be reached: "), "{run:?}");
        assert!(run.stderr.contains("Connection refused"), "{run:?}");
        assert!(run.stderr.contains("hint: check HOSTNAME"), "{run:?}");
    }
}

#[test]
fn nothing_is_asked_of_a_server_if_the_configuration_is_incomplete() {
    let place = Place::with_certificates(1);
    place.set("GITHUB_URL", "");
    place.set("DOCKER_PASSWORD", "");
    let run = place.sbs(&["init"]);
    assert_eq!(run.code, 2);
    assert_eq!(
        run.stderr,
        "error: missing in the configuration: DOCKER_PASSWORD, GITHUB_URL\n\
         hint: nothing was sent to the server\n"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error_and_a_full_disk_is_one() {
    let place = Place::new();
    let run = |stdout: Stdio| {
        let mut command = place.command(env!("CARGO_BIN_EXE_sbs"));
        Run::of(&command.arg("version").stdout(stdout).output().unwrap())
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = run(writer.into());
    assert_eq!((closed.code, closed.stderr.as_str()), (0, ""));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let full = run(full.into());
    assert_eq!(full.code, 2);
    assert!(full.stderr.starts_with("error: cannot write the result: No space left"), "{full:?}");
}
