use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn corpus(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/manifests").join(name);
    path.to_string_lossy().into_owned()
}

/// Runs a program; returns its exit code and what it prints.
fn start(program: &str, arguments: &[&str]) -> (i32, String, String) {
    #[expect(clippy::disallowed_methods, reason = "the program under test, with our arguments")]
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("these tests need `{program}`: {error}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn run(arguments: &[&str], file: &str, key: &str) -> (i32, String, String) {
    let (file, key) = (corpus(file), corpus(key));
    let rest = [file.as_str(), "--key", key.as_str()];
    start(env!("CARGO_BIN_EXE_sbs-manifest"), &[arguments, &rest].concat())
}

const GOOD: [&str; 2] = ["good.sig.tbz", "good.thin.sig.tar.zst"];

#[test]
fn r9_the_exit_code_says_whether_a_manifest_holds() {
    for file in GOOD {
        let (code, out, error) = run(&["verify"], file, "public.pem");
        assert_eq!((code, error.as_str()), (0, ""), "{out}");
        assert!(out.ends_with("\nverify=OK\n"), "{out}");
    }
    for command in [&["verify"][..], &["list"], &["show", "record"], &["show", "log"]] {
        let (code, out, error) = run(command, "outer-truncated/manifest.sig.tbz", "public.pem");
        assert_eq!((code, out.as_str()), (4, ""), "{error}");
        let (code, out, _) = run(command, "source-changed/manifest.sig.tbz", "public.pem");
        assert_eq!((code, out.contains("buildah")), (4, false), "{out}");
        let (code, out, _) = run(command, "no-such-file", "public.pem");
        assert_eq!((code, out.as_str()), (2, ""));
        let (code, out, _) = run(command, GOOD[0], "make.py");
        assert_eq!((code, out.as_str()), (2, ""));
    }
    assert_eq!(start(env!("CARGO_BIN_EXE_sbs-manifest"), &["verify"]).0, 2);
}

#[test]
fn a_report_is_text_or_json() {
    let (_, text, _) = run(&["verify", "--explain"], GOOD[1], "public.pem");
    assert!(text.contains("passed: dockerfile\n    The Dockerfile, hashed"), "{text}");
    let (_, json, _) = run(&["verify", "--format", "json"], GOOD[1], "public.pem");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["schema"], &json["form"], &json["verified"]),
        (&1.into(), &"thin".into(), &true.into())
    );
    assert!(json["not_proved"].as_array().unwrap().len() >= 3, "{json}");
}

#[test]
fn entries_record_and_log_are_shown() {
    let (code, out, _) = run(&["list"], GOOD[0], "public.pem");
    assert_eq!(code, 0);
    assert!(out.contains("executable           10 git/run.sh\n"), "{out}");
    let (code, out, _) = run(&["show", "record"], GOOD[1], "public.pem");
    let record: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &record["engine"]["name"]), (0, &"buildah".into()));
    let (code, out, _) = run(&["show", "log"], GOOD[0], "public.pem");
    assert_eq!((code, out.as_str()), (0, "2026-01-02 03:04:05 INFO build: done\n"));
}

#[test]
fn s16_entries_are_written_beneath_a_new_directory_alone() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let extract = |file: &str, to: &Path| {
        let (file, key) = (corpus(file), corpus("public.pem"));
        let to = to.to_string_lossy();
        let words = ["extract", &file, &to, "--key", &key];
        start(env!("CARGO_BIN_EXE_sbs-manifest"), &words)
    };
    let (code, _, error) = extract(GOOD[0], &out);
    assert_eq!((code, error.as_str()), (0, ""));
    let mode = |name: &str| fs::symlink_metadata(out.join(name)).unwrap().permissions().mode();
    assert_eq!(mode("git/run.sh") & 0o7111, 0o111);
    assert_eq!(mode("git/lib.rs") & 0o7111, 0);
    assert_eq!(mode("") & 0o7777, 0o700);
    // A link is a file with its target.
    assert!(fs::symlink_metadata(out.join("git/link")).unwrap().is_file());
    assert_eq!(fs::read(out.join("git/link")).unwrap(), b"../../etc/passwd");
    assert_eq!(fs::read(out.join("git/Dockerfile")).unwrap(), b"FROM debian:12\n");

    // Into what is there, also through a link, nothing is written.
    let link = place.path().join("link");
    std::os::unix::fs::symlink(place.path().join("elsewhere"), &link).unwrap();
    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for to in [&out, &link, &empty] {
        assert_eq!(extract(GOOD[1], to).0, 2);
    }
    assert!(!place.path().join("elsewhere").exists());
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);

    // No hostile manifest makes even the directory.
    let mut tried = 0;
    for defect in fs::read_dir(corpus("")).unwrap() {
        let defect: PathBuf = defect.unwrap().path();
        let names = ["manifest.sig.tbz", "manifest.thin.sig.tar.zst"];
        let Some(file) = names.map(|name| defect.join(name)).into_iter().find(|f| f.is_file())
        else {
            continue;
        };
        let name = defect.file_name().unwrap().to_string_lossy().into_owned();
        // These are about costs: they exceed limits that are smaller than the program's.
        if name.contains("bomb") || name.contains("cost") || name.contains("too-large") {
            continue;
        }
        let to = place.path().join("hostile");
        let code = extract(&file.to_string_lossy(), &to).0;
        assert_eq!((code, to.exists()), (4, false), "{name}");
        tried += 1;
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn manifests_are_verified_where_there_is_no_network() {
    let program = env!("CARGO_BIN_EXE_sbs-manifest");
    let key = corpus("public.pem");
    for file in GOOD {
        // A user other than root needs a user namespace for that.
        let root = start("id", &["--user"]).1 == "0\n";
        let alone: &[&str] = if root { &["--net"] } else { &["--net", "--map-root-user"] };
        let file = corpus(file);
        let words = [alone, &[program, "verify", &file, "--key", &key]].concat();
        let (code, out, error) = start("unshare", &words);
        assert_eq!((code, error.as_str()), (0, ""), "{out}");
        assert!(out.ends_with("\nverify=OK\n"), "{out}");
    }
}
