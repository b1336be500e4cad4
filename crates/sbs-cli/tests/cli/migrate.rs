//! Old configurations made new.

use serde_json::json;

use crate::place::Place;

const OLD: &str =
    r#"{"CICD_PUBLIC_IP": "192.0.2.1", "SECRET": "canary", "DOCKER_PASSWORD": "canary"}"#;

#[test]
fn the_new_configuration_stands_beside_the_old_one() {
    let place = Place::new();
    place.write("old.json", OLD);
    let run = place.run(&["migrate", "old.json"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(
        run.stdout,
        "set HOSTNAME: in the place of CICD_PUBLIC_IP, since 1.3.0.4\n\
         removed CICD_PUBLIC_IP: HOSTNAME names the server since 1.3.0.4\n\
         set RUNTIME_TYPE: what both clients take where none is set\n\
         to do: GITHUB_URL: what to build\n\
         to do: DOCKER_REPO: where the image goes\n\
         to do: DOCKER_USER: who pushes the image\n\
         to do: SECRET: is not the standard base64 text of exactly 128 bytes (172 characters)\n\
         written to old.migrated.json\n"
    );
    assert_eq!(place.read("old.json"), OLD);
    assert_eq!(place.mode("old.migrated.json"), 0o600);
    let run = place.run(&["--format", "json", "migrate", "old.json"]);
    let json = run.json();
    assert_eq!(json["file"], "old.migrated.json");
    let first = json!({
        "action": "set", "key": "HOSTNAME",
        "reason": "in the place of CICD_PUBLIC_IP, since 1.3.0.4",
    });
    assert_eq!(json["changes"][0], first);
    assert_eq!(json["to_do"][0]["key"], "GITHUB_URL");
    assert!(!run.stdout.contains("canary") && !run.stderr.contains("canary"), "{run:?}");
    // Both clients go on with it.
    place.run(&["--env", "old.migrated.json", "create-client-cert"]);
    assert!(place.read("old.migrated.json").contains("\"UUID\""));
}

#[test]
fn nothing_is_ever_written_over() {
    let place = Place::new();
    place.write("old.json", OLD);
    place.write("old.migrated.json", "mine");
    for output in [&[][..], &["--output", "old.migrated.json"], &["--output", "old.json"]] {
        let run = place.run(&[&["migrate", "old.json"], output].concat());
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
        assert!(run.stderr.contains("is there already with another content"), "{run:?}");
    }
    assert_eq!(
        (place.read("old.json").as_str(), place.read("old.migrated.json").as_str()),
        (OLD, "mine")
    );
    let yaml = "secure_build_workers: {sbs: {url: 'https://192.0.2.1'}}";
    place.write("old.yaml", yaml);
    let run = place.run(&["migrate", "old.yaml", "--output", "new.json", "--runtime-type", "vpc"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(place.read("new.json").contains("\"HOSTNAME\": \"192.0.2.1\""));
    assert_eq!(place.read("old.yaml"), yaml);
    assert_eq!(place.run(&["migrate", "none"]).code, 2);
}
