use std::fs::Permissions;

use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-01-02 04:04:05.000006 +1);

fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("env.json");
    fs::write(&path, text).unwrap();
    (directory, path)
}

/// Opens a configuration that is complete but for what `text` has.
pub(crate) fn config(text: &str) -> Config {
    let (_directory, path) = write(text);
    Config::open(&path, NOW).unwrap().0
}

fn error(text: &str) -> String {
    let (_directory, path) = write(text);
    let error = Config::open(&path, NOW).unwrap_err();
    assert_eq!(fs::read_to_string(path).unwrap(), text, "the file was changed");
    error.to_string()
}

#[test]
fn c3_the_first_use_adds_what_is_missing_and_keeps_the_old_file() {
    let text = "{\"z\": {\"y\": 1, \"a\": 2},\n\"hostname\": \"h\", \"secret\": \"\"}";
    let (directory, path) = write(text);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let (config, notices) = Config::open(&path, NOW).unwrap();
    let backup = directory.path().join("env.json.2026-01-02_03-04-05.000006");
    let added = vec!["RUNTIME_TYPE", "UUID", "SECRET"];
    let completed = Notice::Completed { added, backup: backup.clone(), path: path.clone() };
    assert_eq!(notices, [completed]);
    assert_eq!(fs::read_to_string(&backup).unwrap(), text);
    let new = fs::read_to_string(&path).unwrap();
    let start = "{\n    \"z\": {\n        \"y\": 1,\n        \"a\": 2\n    },\n    \"hostname\": \"h\",\n    \"secret\": \"";
    assert!(new.starts_with(start), "{new}");
    let keys: Vec<_> = config.keys().collect();
    assert_eq!(keys, ["z", "hostname", "secret", "RUNTIME_TYPE", "UUID"]);
    for file in [&path, &backup] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    StateSecret::parse(config.text("SECRET").unwrap().unwrap()).unwrap();

    let (again, notices) = Config::open(&path, NOW).unwrap();
    assert_eq!(notices, []);
    assert_eq!(again.members, config.members);
    assert_eq!(fs::read_to_string(&path).unwrap(), new);
}

#[test]
fn c3_a_file_that_others_can_read_is_warned_of() {
    let (_directory, path) = write("{}");
    Config::open(&path, NOW).unwrap();
    for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let (_, notices) = Config::open(&path, NOW).unwrap();
        assert_eq!(!notices.is_empty(), warned, "{mode:o}");
    }
}

#[test]
fn a_uuid_is_random_and_of_version_4() {
    let uuids = [random_uuid(), random_uuid()];
    assert_ne!(uuids[0], uuids[1]);
    for uuid in uuids {
        let bytes = uuid.as_bytes();
        assert_eq!((bytes.len(), bytes[14]), (36, b'4'), "{uuid}");
        assert!(b"89ab".contains(&bytes[19]), "{uuid}");
        assert!([8, 13, 18, 23].iter().all(|i| bytes[*i] == b'-'), "{uuid}");
    }
}

#[test]
fn what_is_wrong_is_said_without_repeating_values() {
    for (text, expected) in [
        ("", "the configuration is not JSON (line 1, column 0)"),
        ("{\"a\": canary}", "the configuration is not JSON (line 1, column 7)"),
        ("[\"canary\"]", "the configuration is not a JSON object"),
        (
            "{\"Secret\":\"canary\",\"SECRET\":\"x\"}",
            "the configuration has key `SECRET` twice (upper and lower case are the same)",
        ),
        ("{\"RUNTIME_TYPE\":\"canary\"}", "RUNTIME_TYPE must be `vpc`, `on-prem` or `classic`"),
        ("{\"UUID\":\"../canary\"}", "UUID must be a UUID"),
        ("{\"UUID\":1}", "UUID must be a string"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn the_port_is_a_string_or_a_number() {
    for (text, expected) in [
        ("{}", Some(443)),
        (r#"{"CICD_PORT":""}"#, Some(443)),
        (r#"{"cicd_port":"8443"}"#, Some(8443)),
        (r#"{"CICD_PORT":8443}"#, Some(8443)),
        (r#"{"CICD_PORT":0}"#, None),
        (r#"{"CICD_PORT":65536}"#, None),
        (r#"{"CICD_PORT":"x"}"#, None),
        (r#"{"CICD_PORT":true}"#, None),
    ] {
        assert_eq!(config(text).port().ok(), expected, "{text}");
    }
}

#[test]
fn the_container_name_is_a_part_of_a_file_name() {
    let stem = |name: &str| {
        let json = serde_json::json!({"UUID": "u-1", "CONTAINER_NAME": name});
        config(&json.to_string()).certificate_stem().ok()
    };
    assert_eq!(stem("").as_deref(), Some(".container-u-1"));
    assert_eq!(stem("a.b_c-1").as_deref(), Some(".a.b_c-1-u-1"));
    for name in ["a/b", "../x", "a b", "ä", "a\n", &"x".repeat(101)] {
        assert_eq!(stem(name), None, "{name}");
    }
}

#[test]
fn a_leading_tilde_is_the_home_directory() {
    let home = std::env::home_dir().unwrap();
    for (path, expected) in [
        ("~/a", home.join("a")),
        ("~", home.clone()),
        ("~a", "~a".into()),
        ("a/~", "a/~".into()),
        ("/a", "/a".into()),
    ] {
        assert_eq!(expand(Path::new(path)), expected);
    }
}
