use serde_json::{Value, json};

use super::*;

fn migrated(old: &str, runtime: Option<RuntimeType>) -> (Value, Migration) {
    let migration = migrate(old, runtime).unwrap();
    (serde_json::from_str(&migration.members.to_text()).unwrap(), migration)
}

fn actions(migration: &Migration) -> Vec<(Action, &str)> {
    migration.changes.iter().map(|change| (change.action, change.key.as_str())).collect()
}

fn to_do(migration: &Migration) -> Vec<&str> {
    migration.to_do.iter().map(|to_do| to_do.key.as_str()).collect()
}

const COMPLETE: &str = r#"{"HOSTNAME": "h", "GITHUB_URL": "https://g/r", "DOCKER_REPO": "r",
    "DOCKER_USER": "u", "DOCKER_PASSWORD": "p", "RUNTIME_TYPE": "vpc", "UUID": "x", "SECRET": "",
    "IMAGE_TAG": "1.3.0.20", "CICD_PORT": "443", "GITHUB_KEY_FILE": "k"}"#;

#[test]
fn a_configuration_of_today_stays_as_it_is() {
    let (json, migration) = migrated(COMPLETE, None);
    assert_eq!(json, serde_json::from_str::<Value>(COMPLETE).unwrap());
    assert_eq!((actions(&migration), to_do(&migration)), (vec![], vec![]));
    let keys: Vec<_> = migration.members.keys().collect();
    assert_eq!(keys[..3], ["HOSTNAME", "GITHUB_URL", "DOCKER_REPO"]);
}

#[test]
fn the_keys_of_1_3_0_become_those_of_today() {
    use Action::{Changed, Removed, Set};
    let old = r#"{"CICD_PUBLIC_IP": "192.0.2.1", "CICD_PORT": 21443, "IMAGE_TAG": "1.3.0",
        "UUID": "u-1", "SECRET": "", "REPO_ID": "r", "GITHUB_URL": "https://g/r", "SSC_HOST": "x",
        "GITHUB_KEY": "canary", "DOCKER_REPO": "d", "DOCKER_USER": "u", "DOCKER_PASSWORD": "p",
        "DOCKER_CONTENT_TRUST_PUSH_SERVER": "https://notary.us.icr.io", "ISV_SECRET": {"A": "b"},
        "DOCKER_CONTENT_TRUST_BASE_SERVER": "https://de.icr.io:4443/", "KEY_ID": "k"}"#;
    let (json, migration) = migrated(old, None);
    assert_eq!(
        json,
        json!({
            "CICD_PORT": "21443", "IMAGE_TAG": "1.3.0", "SECRET": "", "REPO_ID": "r",
            "GITHUB_URL": "https://g/r", "DOCKER_REPO": "d", "DOCKER_USER": "u", "DOCKER_PASSWORD": "p",
            "DOCKER_CONTENT_TRUST_PUSH_SERVER": "https://us.icr.io", "ISV_SECRET": {"A": "b"},
            "DOCKER_CONTENT_TRUST_BASE_SERVER": "https://de.icr.io", "HOSTNAME": "192.0.2.1",
            "RUNTIME_TYPE": "classic", "KEY_ID": "k",
        })
    );
    assert_eq!(
        actions(&migration),
        [
            (Set, "HOSTNAME"),
            (Removed, "UUID"),
            (Removed, "CICD_PUBLIC_IP"),
            (Removed, "SSC_HOST"),
            (Changed, "CICD_PORT"),
            (Set, "RUNTIME_TYPE"),
            (Changed, "DOCKER_CONTENT_TRUST_PUSH_SERVER"),
            (Changed, "DOCKER_CONTENT_TRUST_BASE_SERVER"),
            (Removed, "GITHUB_KEY"),
        ]
    );
    assert_eq!(to_do(&migration), ["GITHUB_KEY_FILE", "RUNTIME_TYPE"]);
}

#[test]
fn certificates_that_name_the_host_keep_their_uuid() {
    let old = r#"{"HOSTNAME": "h", "CICD_PUBLIC_IP": "192.0.2.1", "UUID": "u-1"}"#;
    let (json, migration) = migrated(old, None);
    assert_eq!((&json["HOSTNAME"], &json["UUID"]), (&json!("h"), &json!("u-1")));
    assert_eq!(actions(&migration)[0], (Action::Removed, "CICD_PUBLIC_IP"));
}

#[test]
fn what_init_would_refuse_is_left_to_the_user() {
    for (changes, expected) in [
        (json!({}), &[][..]),
        (json!({"COS_ENDPOINT": "https://s3.example", "COS_API_KEY_ID": "k"}), &[]),
        (json!({"GITHUB_URL": "http://git.example/r"}), &["GITHUB_URL"]),
        (json!({"DOCKER_RO_USER": "u"}), &["DOCKER_RO_PASSWORD"]),
        (
            json!({"MANIFEST_BUCKET_NAME": "B", "COS_ENDPOINT": "http://s3.example",
                "COS_ACCESS_KEY_ID": "i", "COS_SECRET_ACCESS_KEY": "k"}),
            &["MANIFEST_BUCKET_NAME", "STATE_COS_ENDPOINT"],
        ),
        (json!({"MANIFEST_BUCKET_NAME": "manifests"}), &["MANIFEST_COS_ENDPOINT"]),
        (
            json!({"DOCKER_CONTENT_TRUST_BASE": "True",
                "DOCKER_CONTENT_TRUST_BASE_SERVER": "us.icr.io"}),
            &["ICR_BASE_REPO_PUBLIC_KEY"],
        ),
        (
            json!({"DOCKER_CONTENT_TRUST_BASE": "yes", "DOCKER_REPO": "A:1", "ARG": ["canary"],
                "ENV_WHITELIST": "A", "IMAGE_TAG_PREFIX": "-canary", "SECRET": "canary",
                "DOCKERFILE_PATH": "../canary", "GITHUB_BRANCH": "-canary"}),
            &[
                "SECRET",
                "DOCKER_CONTENT_TRUST_BASE",
                "DOCKER_REPO",
                "ENV_WHITELIST",
                "DOCKERFILE_PATH",
                "ARG",
                "GITHUB_BRANCH",
                "IMAGE_TAG_PREFIX",
            ],
        ),
    ] {
        let mut old: Value = serde_json::from_str(COMPLETE).unwrap();
        old.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let (_, migration) = migrated(&old.to_string(), None);
        assert_eq!(to_do(&migration), expected, "{changes}");
        let told = format!("{:?}", migration.to_do);
        assert!(!told.contains("canary"), "{told}");
    }
}

#[test]
fn the_runtime_is_the_one_that_is_wanted_there_or_meant() {
    for (old, wanted, expected, repo) in [
        ("{}", None, "vpc", false),
        (r#"{"REPO_ID": "r"}"#, None, "classic", true),
        (r#"{"REPO_ID": "r", "RUNTIME_TYPE": "on-prem"}"#, None, "on-prem", false),
        (r#"{"REPO_ID": "r"}"#, Some(RuntimeType::Vpc), "vpc", false),
        (r#"{"repo_id": "r", "runtime_type": "vpc"}"#, Some(RuntimeType::OnPrem), "on-prem", false),
        (r#"{"RUNTIME_TYPE": "nonsense"}"#, None, "vpc", false),
    ] {
        let (json, migration) = migrated(old, wanted);
        let runtime = migration.members.value("RUNTIME_TYPE").unwrap();
        assert_eq!(runtime.as_str(), Some(expected), "{old}");
        assert_eq!(migration.has("REPO_ID"), repo, "{json}");
    }
}

#[test]
fn keys_without_meaning_go_and_unknown_ones_are_named() {
    let old = r#"{"BUILD_SCRIPT": "x", "EXIT_NONZERO": "1", "NEW_SECRET": "1", "TYPO": 1,
        "registration_file": "x", "STATE_IMAGE": "s", "EMAIL": "e",
        "ISV_SECRET": {}, "Name": "n", "DOCKER_CONTENT_TRUST_PUSH_SERVER": "https://notary.example"}"#;
    let (json, migration) = migrated(old, Some(RuntimeType::Vpc));
    assert_eq!(
        json,
        json!({
            "TYPO": 1, "RUNTIME_TYPE": "vpc", "Name": "n", "STATE_IMAGE": "s", "EMAIL": "e",
            "DOCKER_CONTENT_TRUST_PUSH_SERVER": "https://notary.example",
        })
    );
    assert_eq!(
        to_do(&migration),
        ["HOSTNAME", "GITHUB_URL", "DOCKER_REPO", "DOCKER_USER", "DOCKER_PASSWORD", "TYPO"]
    );
}

const WORKERS: &str = "\
secure_build_workers:
    sbs:
        url: 'https://192.0.2.7'
        port: '21443'
        cert_path: '/keys/sbs.cert'
        key_path: '/keys/sbs.key'
    regfile:
        id: 'my_app'
    github:
        url: 'git@git.example:team/app.git'
        branch: 'main'
        ssh_private_key_path: '/users/me/.ssh/id_rsa'
        recurse_submodules: 'False'
        dockerfile_path: './docker/Dockerfile'
        docker_build_path: './'
    docker:
        push_server: 'my_registry'
        #base_server: 'my_registry'
        pull_server: 'my_registry'
        repo: 'team/app'
        image_tag_prefix: 'latest'
        content_trust_base: 'False'
    manifest_cos:
        bucket_name: 'manifests'
        api_key: 'canary'
        resource_crn: '< optional >'
        auth_endpoint: ''
        endpoint: 'https://s3.example'
    env:
        whitelist: ['A', 'B']
    build:
        args:
            K: V
            N: 1
    signing_key:
        private_key_path: '/keys/vendor.private'
        public_key_path: '/keys/vendor.pub'
";

#[test]
fn the_yaml_of_1_2_becomes_a_configuration() {
    let (json, migration) = migrated(WORKERS, None);
    let expected = json!({
        "HOSTNAME": "192.0.2.7", "CICD_PORT": "21443", "ARG": {"K": "V", "N": 1},
        "GITHUB_URL": "git@git.example:team/app.git", "GITHUB_BRANCH": "main",
        "GITHUB_KEY_FILE": "/users/me/.ssh/id_rsa", "GITHUB_RECURSE_SUBMODULES": "False",
        "DOCKERFILE_PATH": "docker/Dockerfile", "DOCKER_REPO": "team/app",
        "IMAGE_TAG_PREFIX": "latest", "DOCKER_CONTENT_TRUST_BASE": "False",
        "MANIFEST_BUCKET_NAME": "manifests", "MANIFEST_COS_API_KEY_ID": "canary",
        "MANIFEST_COS_ENDPOINT": "https://s3.example", "ENV_WHITELIST": ["A", "B"],
        "RUNTIME_TYPE": "on-prem",
    });
    assert_eq!(json, expected);
    assert_eq!(
        to_do(&migration),
        [
            "DOCKER_PUSH_SERVER",
            "DOCKER_RO_USER, DOCKER_RO_PASSWORD",
            "DOCKER_USER",
            "DOCKER_PASSWORD"
        ]
    );
    let told = format!("{:?} {:?}", migration.changes, migration.to_do);
    assert!(!told.contains("canary") && told.contains("signing_key.private_key_path"), "{told}");

    let (json, _) = migrated(WORKERS, Some(RuntimeType::Classic));
    assert_eq!((&json["REPO_ID"], &json["RUNTIME_TYPE"]), (&json!("my_app"), &json!("classic")));
    // As examples are that were indented too little.
    let flat = WORKERS.replace("\n    ", "\n");
    assert_eq!(migrated(&flat, None).0, expected);
    let url =
        WORKERS.replace("192.0.2.7'", "build.example:444/'").replace("'my_registry'", "us.icr.io");
    let (json, _) = migrated(&url, None);
    assert_eq!((&json["HOSTNAME"], &json["CICD_PORT"]), (&json!("build.example"), &json!("444")));
    assert_eq!(json["DOCKER_PUSH_SERVER"], "us.icr.io");
}

#[test]
fn what_is_no_configuration_is_refused_without_repeating_it() {
    for (old, expected) in [
        ("", "neither the JSON"),
        ("canary", "neither the JSON"),
        ("- sbs: 1", "neither the JSON"),
        ("other: canary", "neither the JSON"),
        ("{\"SECRET\": canary", "the configuration is not JSON (line 1"),
        ("{\"A\": 1, \"a\": \"canary\"}", "twice"),
        ("sbs:\n  url: 'canary\n", "neither JSON nor YAML (line "),
        ("sbs: {}\nsbs: {api_key: canary}\n", "neither JSON nor YAML (line "),
    ] {
        let error = migrate(old, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{old}: {error}");
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn c5_yaml_that_grows_without_end_is_refused() {
    let line = |level: u32| {
        let alias = vec![format!("*a{}", level - 1); 10].join(", ");
        format!("a{level}: &a{level} [{alias}]\n")
    };
    let bomb = format!("a0: &a0 [x]\n{}", (1..10).map(line).collect::<String>());
    for text in [format!("{bomb}sbs: *a9\n"), "[".repeat(100_000), "sbs: {".repeat(50_000)] {
        let error = migrate(&text, None).unwrap_err();
        assert!(matches!(error, MigrateError::NotYaml { .. }), "{error}");
    }
}
