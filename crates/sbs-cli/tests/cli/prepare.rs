//! `prepare`: from nothing to what a server is started with.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::place::{Place, Run};

const NEW: [&str; 7] = [
    "prepare",
    "--git-url",
    "git@git.example:team/app.git",
    "--git-key",
    "id",
    "--image",
    "registry.example/team/app:v1",
];

fn with_key() -> Place {
    let place = Place::new();
    let mut made = place.command("ssh-keygen");
    made.args(["-q", "-t", "ed25519", "-N", "", "-f", "id"]);
    assert!(made.status().unwrap().success());
    place
}

fn with_password(place: &Place, arguments: &[&str], password: &str) -> Run {
    let mut command = place.command(env!("CARGO_BIN_EXE_sbs"));
    command.args(arguments).args(["--user", "builder", "--password-stdin"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    Run::of(&child.wait_with_output().unwrap())
}

#[test]
fn one_command_makes_everything_and_can_be_repeated() {
    let place = with_key();
    let run = with_password(&place, &NEW, "canary-password\n");
    assert_eq!((run.code, run.stdout.as_str()), (0, "sbs.env\n"), "{run:?}");
    assert!(run.stderr.contains("sbs-server run --init --env-file sbs.env"), "{run:?}");
    assert!(!run.stderr.contains("canary"), "{run:?}");
    for name in ["sbs-config.json", "sbs.env"] {
        assert_eq!(place.mode(name), 0o600, "{name}");
    }
    let config = place.read("sbs-config.json");
    let members: Value = serde_json::from_str(&config).unwrap();
    for (key, expected) in [
        ("HOSTNAME", "localhost"),
        ("CICD_PORT", "443"),
        ("GITHUB_URL", "git@git.example:team/app.git"),
        ("GITHUB_KEY_FILE", place.path("id").to_str().unwrap()),
        ("DOCKER_PUSH_SERVER", "registry.example"),
        ("DOCKER_REPO", "team/app"),
        ("DOCKER_USER", "builder"),
        ("DOCKER_PASSWORD", "canary-password"),
        ("IMAGE_TAG_PREFIX", "v1"),
        ("RUNTIME_TYPE", "vpc"),
    ] {
        assert_eq!(members[key], expected, "{key}");
    }
    let variables = place.read("sbs.env");
    let names: Vec<_> =
        variables.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert_eq!(names, ["CLIENT_CRT", "CLIENT_CA", "SERVER_CRT", "SERVER_KEY"]);
    let names = place.names();

    // Again, with what is there; it is the default file of every command, too.
    let run = place.run(&["prepare"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!((place.read("sbs-config.json"), place.read("sbs.env")), (config, variables));
    assert_eq!(place.names(), names);
    let run = place.run(&["status"]);
    assert_eq!(run.code, 3, "{run:?}");
}

#[test]
fn nothing_that_is_there_is_replaced_unasked() {
    let place = with_key();
    place.write("sbs.env", "mine");
    let run = with_password(&place, &NEW, "one");
    assert_eq!(run.code, 2, "{run:?}");
    assert_eq!(place.read("sbs.env"), "mine");
    let config = place.read("sbs-config.json");
    let run = with_password(&place, &NEW, "another");
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("`sbs-config.json` is there already"), "{run:?}");
    assert_eq!(place.read("sbs-config.json"), config);
    assert_eq!(place.run(&["prepare", "--overwrite"]).code, 0);
    assert!(place.read("sbs.env").starts_with("CLIENT_CRT="));
}

#[test]
fn the_password_is_that_of_a_login_where_none_is_given() {
    let place = with_key();
    let run = place.run(&NEW);
    assert_eq!((run.code, place.path("sbs-config.json").exists()), (2, false), "{run:?}");
    assert!(run.stderr.contains("hint: log in with podman or docker"), "{run:?}");
    std::fs::create_dir(place.path(".docker")).unwrap();
    // The base64 of `me:from-login`.
    let auths = "{\"auths\":{\"registry.example\":{\"auth\":\"bWU6ZnJvbS1sb2dpbg==\"}}}";
    place.write(".docker/config.json", auths);
    assert_eq!(place.run(&NEW).code, 0);
    let members: Value = serde_json::from_str(&place.read("sbs-config.json")).unwrap();
    assert_eq!(
        (&members["DOCKER_USER"], &members["DOCKER_PASSWORD"]),
        (&"me".into(), &"from-login".into())
    );
}

#[test]
fn what_init_would_refuse_is_refused_before_certificates_are_made() {
    let place = Place::new();
    for arguments in [
        // No such key.
        &NEW[..],
        &["prepare", "--git-url", "ext::sh", "--image", "registry.example/team/app:v1"],
    ] {
        let run = with_password(&place, arguments, "password");
        assert_eq!(run.code, 2, "{run:?}");
        assert_eq!(place.names(), ["sbs-config.json"]);
        std::fs::remove_file(place.path("sbs-config.json")).unwrap();
    }
    for arguments in [
        &["prepare", "--git-url", "https://git.example/a.git"][..],
        &["prepare", "--image", "registry.example/team/app:v1"],
        &[
            "prepare",
            "--git-url",
            "https://git.example/a.git",
            "--image",
            "registry.example/team/app",
        ],
    ] {
        let run = with_password(&place, arguments, "password");
        assert_eq!((run.code, place.names().len()), (2, 0), "{run:?}");
    }
    assert_eq!(place.run(&["prepare"]).code, 2);
}
