//! The server's state: saved, given to a new server, looked at and tried.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_proto::{StateHeader, StateImageName, StateLabel, StateMeta};
use serde_json::{Value, json};

use crate::place::{Place, Run};
use crate::server::{BREAK, Reply, Served};

const NAME: &str = "r.example.app.v1-0a1b2c3.2026-01-02_03-04-05.000006";

/// A state image of this epoch: its header, and something in the place of what is sealed.
fn image(epoch: u64) -> Vec<u8> {
    let meta = StateMeta {
        client_ca_sha256: Some(sbs_crypto::digest(b"ca")),
        export_tag: Some(StateLabel::parse("sbs-seal-1").unwrap()),
        name: Some(StateImageName::parse(NAME).unwrap()),
        provider: Some(StateLabel::parse("file").unwrap()),
        ..StateMeta::default()
    };
    let created_ms = 1_767_323_045_000;
    let header = StateHeader { server_kid: [0xab; 8], epoch, export_seq: 3, created_ms, meta };
    [header.to_bytes(), vec![0xff; 1000]].concat()
}

fn info() -> Value {
    json!({
        "api": 2, "server_version": "9", "features": ["state"],
        "limits": {"page_builds": 1, "request_body_bytes": 1, "v1_manifest_bytes": 1},
    })
}

fn file(name: &str, bytes: &[u8]) -> Reply {
    let digest = STANDARD.encode(sbs_crypto::digest(bytes).as_bytes());
    let head = format!(
        "Content-Disposition: attachment; filename=\"{name}\"\r\nRepr-Digest: sha-256=:{digest}:\r\n"
    );
    Reply { status: 200, head, body: bytes.to_vec() }
}

/// A server of ours whose exports have these epochs, one after the other, the last one for ever.
fn exporting(epochs: &[u64]) -> Served {
    let mut epochs = epochs.to_vec();
    epochs.reverse();
    Served::start_raw(move |line, _| match line {
        "GET /v2/info" => Reply::json(200, &info()),
        "GET /v2/state" => {
            let epoch = if epochs.len() > 1 { epochs.pop().unwrap() } else { epochs[0] };
            file(NAME, &image(epoch))
        }
        _ => Reply::json(404, &json!({"status": "not here"})),
    })
}

/// A server of ours that takes every state image, or answers as told.
fn importing(status: u16, answer: &Value) -> Served {
    let answer = answer.clone();
    Served::start_raw(move |line, _| match line {
        "GET /v2/info" => Reply::json(200, &info()),
        "POST /v2/state" | "POST /state-image" => Reply::json(status, &answer),
        _ => Reply::json(404, &json!({"status": "not here"})),
    })
}

fn done() -> Value {
    json!({"status": "OK", "epoch": 8, "definition": true})
}

fn saved(place: &Place, epoch: u64) -> String {
    let json = json!({
        "name": NAME, "export_tag": "sbs-seal-1", "state": STANDARD.encode(image(epoch)),
    });
    place.write("state.json", &json.to_string());
    "state.json".to_owned()
}

fn config(place: &Place, key: &str) -> Value {
    serde_json::from_str::<Value>(&place.read("env.json")).unwrap()[key].clone()
}

#[test]
fn the_state_is_saved_as_the_original_saves_it_and_its_epoch_is_pinned() {
    let served = exporting(&[7]);
    let place = &served.place;
    let run = place.good(&["get-state-image"]);
    assert_eq!(run.stdout, format!("{NAME}\n"));
    let text = place.read(NAME);
    assert!(text.starts_with(&format!("{{\"name\": \"{NAME}\", \"export_tag\": \"sbs-seal-1\", ")));
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["state"], STANDARD.encode(image(7)));
    assert_eq!(place.mode(NAME), 0o600);
    assert_eq!(config(place, "STATE_MIN_EPOCH"), "7");
    let backups = place.names().iter().filter(|name| name.starts_with("env.json.2")).count();
    assert_eq!((backups, place.mode("env.json")), (1, 0o600));

    let run = place.good(&["--format", "json", "get-state-image", "--raw"]);
    let path = format!("{NAME}.sbs-state");
    let expected = json!({
        "file": path, "name": NAME, "epoch": 7, "export_sequence": 3, "size": image(7).len(),
        "version": 1,
    });
    assert_eq!(run.json(), expected);
    assert_eq!(fs::read(place.path(&path)).unwrap(), image(7));
    assert_eq!(place.mode(&path), 0o600);
    // Off a terminal there is no progress, and nothing else is left behind.
    assert_eq!(run.stderr, "");
    let names = place.names();
    assert_eq!(names.len(), 6, "{names:?}");
}

#[test]
fn c1_a_saved_state_is_replaced_only_where_that_is_asked_for() {
    let served = exporting(&[7, 8, 9, 9]);
    let place = &served.place;
    place.good(&["get-state-image"]);
    let first = place.read(NAME);
    let run = place.sbs(&["get-state-image"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("--overwrite"), "{run:?}");
    assert_eq!(place.read(NAME), first);
    // What is not saved is not pinned.
    assert_eq!(config(place, "STATE_MIN_EPOCH"), "7");
    // A link is replaced; what it leads to stays.
    fs::rename(place.path(NAME), place.path("precious")).unwrap();
    symlink("precious", place.path(NAME)).unwrap();
    assert_eq!(place.sbs(&["get-state-image"]).code, 2);
    place.good(&["get-state-image", "--overwrite"]);
    assert_eq!(place.read("precious"), first);
    assert!(!fs::symlink_metadata(place.path(NAME)).unwrap().is_symlink());
    assert_eq!(config(place, "STATE_MIN_EPOCH"), "9");
}

#[test]
fn c1_names_that_the_server_chose_stay_in_the_directory() {
    let told = Arc::new(Mutex::new((String::new(), true)));
    let tell = told.clone();
    let served = Served::start_raw(move |line, _| {
        let (name, v2) = tell.lock().unwrap().clone();
        match line {
            "GET /v2/info" if v2 => Reply::json(200, &info()),
            "GET /v2/state" => file(&name, &image(1)),
            "GET /state-image" => {
                let state = STANDARD.encode(image(1));
                Reply::json(200, &json!({"name": name, "export_tag": "t", "state": state}))
            }
            _ => Reply::json(404, &json!({})),
        }
    });
    for name in ["../../.ssh/authorized_keys", "/etc/passwd", ".bashrc", "a/b", "-x", ""] {
        for v2 in [true, false] {
            *told.lock().unwrap() = (name.to_owned(), v2);
            for arguments in [
                &["get-state-image"][..],
                &["get-state-image", "--raw"],
                &["get-state-image", "--state-bucket-name", "bucket"],
            ] {
                let run = served.place.sbs(arguments);
                assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{name}: {run:?}");
            }
            let names = served.place.names();
            assert_eq!(names, [".container-u-1", ".container-u-1.d", "env.json"], "{name}");
        }
    }
}

#[test]
fn s12_an_export_that_is_older_than_the_last_one_is_told_of() {
    let served = exporting(&[6]);
    served.place.set("STATE_MIN_EPOCH", "7");
    let run = served.place.good(&["get-state-image"]);
    assert!(run.stderr.contains("has epoch 6 and STATE_MIN_EPOCH is 7"), "{run:?}");
    assert_eq!(config(&served.place, "STATE_MIN_EPOCH"), "7");
}

#[test]
fn a_state_of_the_original_is_saved_as_it_came() {
    let served = Served::start(|line, body| match line {
        "GET /state-image" => {
            assert_eq!(body, "{}");
            let json = json!({"name": "n.1", "export_tag": [1], "state": "QUJD"});
            (200, json.to_string())
        }
        _ => (404, String::new()),
    });
    served.place.good(&["get-state-image"]);
    let text = served.place.read("n.1");
    assert_eq!(text, r#"{"name": "n.1", "export_tag": [1], "state": "QUJD"}"#);
    assert_eq!(config(&served.place, "STATE_MIN_EPOCH"), Value::Null);
}

#[test]
fn c2_what_is_no_state_image_is_not_saved() {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let tell = bytes.clone();
    let served = Served::start_raw(move |line, _| match line {
        "GET /v2/info" => Reply::json(200, &info()),
        _ => file(NAME, &tell.lock().unwrap()),
    });
    for wrong in [&b"SBS-SEAL"[..], b"other", b"", &image(7)[..60]] {
        wrong.clone_into(&mut bytes.lock().unwrap());
        let run = served.place.sbs(&["get-state-image"]);
        assert_eq!(run.code, 4, "{run:?}");
        assert_eq!(served.place.names().len(), 3);
    }
    // Another digest, and a connection that breaks.
    let served = Served::start_raw(|line, _| match line {
        "GET /v2/info" => Reply::json(200, &info()),
        _ => Reply { body: image(8), ..file(NAME, &image(7)) },
    });
    assert_eq!(served.place.sbs(&["get-state-image"]).code, 4);
    let served = Served::start_raw(|line, _| match line {
        "GET /v2/info" => Reply::json(200, &info()),
        _ => Reply { status: BREAK, ..file(NAME, b"") },
    });
    assert_eq!(served.place.sbs(&["get-state-image"]).code, 3);
    assert_eq!(served.place.names().len(), 3);
}

#[test]
fn a_bucket_leaves_the_original_s_note_of_it_here() {
    let served = Served::fixed(&[(
        "GET /state-image",
        200,
        json!({"name": NAME, "export_tag": "sbs-seal-1"}),
    )]);
    let place = &served.place;
    place.set("STATE_BUCKET_NAME", "bucket");
    place.good(&["get-state-image"]);
    let note = format!(r#"{{"name": "{NAME}", "export_tag": "sbs-seal-1"}}"#);
    assert_eq!(place.read(NAME), note);
    place.good(&["get-state-image", "--state-bucket-name", "other-1"]);
    let bodies: Vec<String> = served.requests().into_iter().map(|(_, body)| body).collect();
    let expected =
        ["bucket", "other-1"].map(|bucket| json!({"state_bucket_name": bucket}).to_string());
    assert_eq!(bodies, expected);
    let run = place.sbs(&["get-state-image", "--raw"]);
    assert!(run.code == 2 && run.stderr.contains("STATE_BUCKET_NAME is set"), "{run:?}");
    place.set("STATE_BUCKET_NAME", "../bucket");
    assert_eq!(place.sbs(&["get-state-image"]).code, 2);
    // The note is no state image.
    place.set("STATE_BUCKET_NAME", "");
    let run = place.sbs(&["post-state-image", "--state-image", NAME]);
    assert!(run.code == 2 && run.stderr.contains("--state-bucket-name"), "{run:?}");
}

#[test]
fn both_forms_of_a_saved_state_are_imported() {
    let served = importing(200, &done());
    let place = &served.place;
    fs::write(place.path("state.raw"), image(7)).unwrap();
    for name in [saved(place, 7).as_str(), "state.raw"] {
        let run = place.good(&["post-state-image", "--state-image", name]);
        assert_eq!(run.stdout, "OK: epoch 8\n");
        let (line, body) = served.requests().pop().unwrap();
        assert_eq!(line, "POST /v2/state");
        let secret = config(place, "SECRET").as_str().unwrap().to_owned();
        assert!(body.contains(&secret) && body.contains(NAME), "{name}");
        assert!(!body.contains("min_epoch") && !format!("{run:?}").contains(&secret));
    }
    let run = place.good(&["--format", "json", "post-state-image", "--state-image", "state.raw"]);
    let expected = json!({"status": "OK", "epoch": 8, "definition": true, "version": 1});
    assert_eq!(run.json(), expected);
    let served = importing(200, &json!({"status": "OK", "epoch": 8, "definition": false}));
    let name = saved(&served.place, 7);
    let run = served.place.good(&["post-state-image", "--state-image", &name]);
    assert!(run.stderr.contains("that the server had already stays"), "{run:?}");
}

#[test]
fn s12_a_state_image_that_is_older_than_the_pinned_one_is_not_sent() {
    let served = importing(200, &done());
    let place = &served.place;
    let name = saved(place, 7);
    let post =
        |more: &[&str]| place.sbs(&[&["post-state-image", "--state-image", &name], more].concat());
    place.set("STATE_MIN_EPOCH", "8");
    let run = post(&[]);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stderr.contains("has epoch 7, and 8 is the least"), "{run:?}");
    assert_eq!(served.asked(), Vec::<String>::new());
    assert_eq!(post(&["--min-epoch", "8"]).code, 4);
    for (pinned, flag, sent) in
        [("7", &[][..], "7"), ("8", &["--min-epoch", "6"], "6"), ("", &["--min-epoch", "7"], "7")]
    {
        place.set("STATE_MIN_EPOCH", pinned);
        assert_eq!(post(flag).code, 0);
        let (_, body) = served.requests().pop().unwrap();
        assert!(body.contains(&format!("name=\"min_epoch\"\r\n\r\n{sent}\r\n")), "{body}");
    }
    // The server says so of a header that lies.
    let served = importing(409, &json!({"status": "too old", "code": "rollback"}));
    let name = saved(&served.place, 7);
    let run = served.place.sbs(&["post-state-image", "--state-image", &name]);
    assert!(run.code == 1 && run.stderr.contains("--min-epoch"), "{run:?}");
}

#[test]
fn a_refused_import_says_what_to_do() {
    for (status, code, hint) in [
        (403, "wrong_secret_or_header", "backup of the configuration"),
        (409, "state_not_empty", "without keys"),
        (409, "ca_mismatch", "accept-other-client-ca"),
        (422, "unknown_server_key", "root secret"),
    ] {
        let served = importing(status, &json!({"status": "no", "code": code}));
        let name = saved(&served.place, 7);
        let run = served.place.sbs(&["post-state-image", "--state-image", &name]);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains(code) && run.stderr.contains(hint), "{run:?}");
    }
    let served = Served::start_raw(|line, _| match line {
        "GET /v2/info" => Reply::json(200, &info()),
        _ => Reply { status: BREAK, ..Reply::json(0, &json!({})) },
    });
    let name = saved(&served.place, 7);
    let run = served.place.sbs(&["post-state-image", "--state-image", &name]);
    assert!(run.code == 3 && run.stderr.contains("state_not_empty"), "{run:?}");
}

#[test]
fn a_state_image_comes_from_a_bucket_or_from_a_file() {
    let served = importing(200, &json!({"status": "OK"}));
    let place = &served.place;
    let refused = |arguments: &[&str], why: &str| {
        let run = place.sbs(&[&["post-state-image"], arguments].concat());
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains(why), "{run:?}");
    };
    let name = saved(place, 7);
    refused(&[], "where is the state image?");
    refused(&["--name", "n"], "where is the state image?");
    refused(&["--state-bucket-name", "bucket"], "give --name");
    refused(&["--state-image", "missing"], "not there");
    place.set("STATE_BUCKET_NAME", "bucket");
    refused(&["--state-image", &name], "STATE_BUCKET_NAME is set");
    refused(&[], "give --name");
    assert_eq!(served.asked(), Vec::<String>::new());

    let run = place.good(&["post-state-image", "--name", NAME]);
    assert_eq!(run.stdout, "OK\n");
    place.set("STATE_MIN_EPOCH", 7);
    place.set("NAME", "n.1");
    place.good(&["post-state-image", "--state-bucket-name", "other-1"]);
    let secret = config(place, "SECRET");
    let bodies = served.requests().into_iter().map(|(line, body)| {
        assert_eq!(line, "POST /state-image");
        serde_json::from_str::<Value>(&body).unwrap()
    });
    let expected = [
        json!({"secret": secret, "name": NAME, "state_bucket_name": "bucket"}),
        json!({"secret": secret, "name": "n.1", "state_bucket_name": "other-1", "min_epoch": 7}),
    ];
    assert_eq!(bodies.collect::<Vec<_>>(), expected);
    // The configuration may name the file.
    place.set("STATE_BUCKET_NAME", "");
    place.set("STATE_IMAGE", name);
    assert_eq!(importing_body(&served), "POST /v2/state");
}

fn importing_body(served: &Served) -> String {
    // v1's answer is no answer of v2, so the command ends with 1; what was sent is what counts.
    assert_eq!(served.place.sbs(&["post-state-image"]).code, 1);
    served.asked().pop().unwrap()
}

#[test]
fn info_tells_what_the_header_tells() {
    let place = Place::new();
    fs::write(place.path("raw"), image(7)).unwrap();
    let size = image(7).len();
    let text = |form: &str| {
        format!(
            "name: {NAME}\nepoch: 7\nexport_sequence: 3\ncreated: 2026-01-02T03:04:05Z\n\
             server_kid: abababababababab\nprovider: file\nclient_ca_sha256: {}\n\
             export_tag: sbs-seal-1\nform: {form}\nsize: {size}\n",
            sbs_crypto::digest(b"ca")
        )
    };
    let run = place.run(&["state", "info", "raw"]);
    assert_eq!((run.code, run.stdout), (0, text("raw")));
    assert!(run.stderr.contains("nothing of this is proved"));
    let run = place.run(&["-q", "state", "info", &saved(&place, 7)]);
    assert_eq!((run.code, run.stdout, run.stderr), (0, text("json"), String::new()));
    let json = place.run(&["--format", "json", "state", "info", "raw"]).json();
    assert_eq!(
        (&json["epoch"], &json["size"], &json["version"]),
        (&7.into(), &size.into(), &1.into())
    );
    assert_eq!((&json["image_tag"], &json["form"]), (&Value::Null, &"raw".into()));

    let other = place.read("state.json").replace(NAME, "other");
    place.write("other.json", &other);
    let run = place.run(&["state", "info", "other.json"]);
    assert!(run.stderr.contains("warning: the name beside"), "{run:?}");
    for (text, code) in [("", 4), ("SBS-SEAL", 4), ("{}", 2), ("{\"state\":\"QUJD\"}", 4)] {
        place.write("bad", text);
        assert_eq!(place.run(&["state", "info", "bad"]).code, code, "{text}");
    }
}

/// A place for a drill, with a server's program that does as this word says.
struct Trial(Place);

impl Trial {
    fn new(word: &str) -> Self {
        let place = Place::with_certificates(1);
        place.write("root", word);
        fs::write(place.path("state.raw"), image(7)).unwrap();
        fs::write(place.path("sbs-server"), include_str!("trial_server.py")).unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.path("sbs-server"), executable).unwrap();
        Self(place)
    }

    fn run(&self) -> Run {
        let program = ["--root-secret", "root", "--server-program", "sbs-server"];
        self.0.sbs(&[&["state", "verify", "state.raw"][..], &program].concat())
    }

    /// What the server saw; neither it nor what it had may be there any more.
    fn seen(&self) -> Value {
        let seen: Value = serde_json::from_str(&self.0.read("root.seen")).unwrap();
        let directory = seen["directory"].as_str().unwrap();
        assert!(directory.contains("sbs-drill-") && !Path::new(directory).exists());
        assert!(!Path::new(&format!("/proc/{}", seen["pid"])).exists());
        seen
    }
}

#[test]
fn a_drill_restores_the_state_and_removes_everything() {
    let trial = Trial::new("good");
    let run = trial.run();
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.starts_with("verify=OK: "), "{run:?}");
    let seen = trial.seen();
    let variables = json!(["CLIENT_CA", "CLIENT_CRT", "PATH", "SERVER_CRT", "SERVER_KEY"]);
    // Python adds a variable of its own to an environment without a locale.
    let found: Vec<&Value> =
        seen["variables"].as_array().unwrap().iter().filter(|name| *name != "LC_CTYPE").collect();
    assert_eq!(json!(found), variables);
    assert_eq!((&seen["settings_mode"], &seen["directory_mode"]), (&0o600.into(), &0o700.into()));
    trial.0.set("STATE_MIN_EPOCH", "9");
    let run = trial.run();
    assert!(run.code == 0 && run.stderr.contains("a newer state image was saved"), "{run:?}");
    let program = ["--root-secret", "root", "--server-program", "./sbs-server"];
    let json = ["--format", "json", "state", "verify", "state.raw"];
    let expected = json!({"verified": true, "definition": true, "epoch": 8, "version": 1});
    assert_eq!(trial.0.good(&[&json[..], &program].concat()).json(), expected);
}

#[test]
fn a_drill_that_fails_is_exit_4_and_leaves_nothing() {
    for (word, code, told) in [
        ("refuses", 4, "unknown_server_key"),
        ("forgets", 4, "the epoch that it should have"),
        ("dies", 2, "the root secret is \\x1b[31mnot good"),
    ] {
        let trial = Trial::new(word);
        let run = trial.run();
        assert_eq!((run.code, run.stdout.as_str()), (code, ""), "{word}: {run:?}");
        assert!(run.stderr.contains(told), "{word}: {run:?}");
        trial.seen();
    }
}

#[test]
fn a_drill_without_a_server_program_says_so() {
    let trial = Trial::new("good");
    let place = &trial.0;
    // Elsewhere, so that no sbs-server stands beside it.
    fs::create_dir(place.path("bin")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_sbs"), place.path("bin/sbs")).unwrap();
    let run = |more: &[&str]| {
        let drill = ["--env", "env.json", "state", "verify", "state.raw"];
        let mut command = place.command(place.path("bin/sbs").to_str().unwrap());
        Run::of(&command.args(drill).args(more).output().unwrap())
    };
    for (arguments, told) in [
        (&["--server-program", "no-such"][..], "there is no program `no-such`"),
        (&[], "there is no sbs-server beside this program or in PATH"),
    ] {
        let run = run(&[arguments, &["--root-secret", "root"]].concat());
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains(told), "{run:?}");
        assert!(run.stderr.contains("hint: name the server's program"), "{run:?}");
    }
    let run = run(&["--root-secret", "missing", "--server-program", "sbs-server"]);
    assert!(run.code == 2 && run.stderr.contains("cannot read `missing`"), "{run:?}");
    fs::copy(place.path("sbs-server"), place.path("bin/sbs-server")).unwrap();
    assert_eq!(run_beside(place).code, 0);
}

/// A drill by the program in `bin`, which finds the server beside itself.
fn run_beside(place: &Place) -> Run {
    let drill = ["--env", "env.json", "state", "verify", "state.raw", "--root-secret", "root"];
    let mut command = place.command(place.path("bin/sbs").to_str().unwrap());
    Run::of(&command.args(drill).output().unwrap())
}
