//! The keys of `build.py`, from its first version to the last.

use sbs_proto::RuntimeType;
use sbs_proto::key::{self, REPO_ID};
use serde_json::Value;

use super::Migration;
use crate::config::{CICD_PORT, HOSTNAME, UUID};
use crate::definition;
use crate::json::Json;

/// Brings the keys of a configuration to those of today.
pub(super) fn migrate(migration: &mut Migration, runtime: Option<RuntimeType>) {
    address(migration);
    let runtime = runtime_type(migration, runtime);
    repository_id(migration, runtime);
    notary(migration, "DOCKER_CONTENT_TRUST_PUSH_SERVER");
    notary(migration, "DOCKER_CONTENT_TRUST_BASE_SERVER");
    for (key, reason) in WITHOUT_EFFECT {
        migration.remove(key, reason);
    }
    if migration.has("GITHUB_KEY") && !migration.has("GITHUB_KEY_FILE") {
        migration
            .leave_to_user("GITHUB_KEY_FILE", "put the git key into a file of its own, mode 0600");
    }
    migration.remove("GITHUB_KEY", "the git key is read from the file that GITHUB_KEY_FILE names");
    if runtime != RuntimeType::Classic {
        migration.remove("ISV_SECRET", "only registration definitions of classic hold it");
    }
    missing(migration, runtime);
}

fn address(migration: &mut Migration) {
    if migration.has("CICD_PUBLIC_IP") && !migration.has(HOSTNAME) {
        let address = migration.text("CICD_PUBLIC_IP").unwrap_or_default();
        let address = Json::Plain(address.into());
        migration.set(HOSTNAME, address, "in the place of CICD_PUBLIC_IP, since 1.3.0.4");
        let reason = "certificates of that time bear no host name; with a new UUID new ones are made, \
                      and the old files stay where they are";
        migration.remove(UUID, reason);
    }
    migration.remove("CICD_PUBLIC_IP", "HOSTNAME names the server since 1.3.0.4");
    migration.remove("SSC_HOST", "HOSTNAME names the server");
    if let Some(Json::Plain(Value::Number(port))) = migration.members.value(CICD_PORT) {
        let port = Json::Plain(port.to_string().into());
        migration.set(CICD_PORT, port, "the original's client takes a text alone");
    }
}

fn runtime_type(migration: &mut Migration, wanted: Option<RuntimeType>) -> RuntimeType {
    let present = migration.text(key::RUNTIME_TYPE).map(RuntimeType::parse);
    match (wanted, present) {
        (Some(wanted), Some(Ok(present))) if wanted == present => wanted,
        (Some(wanted), _) => {
            let value = Json::Plain(wanted.as_str().into());
            migration.set(key::RUNTIME_TYPE, value, "as --runtime-type says");
            wanted
        }
        (None, Some(Ok(present))) => present,
        (None, _) => {
            let runtime = RuntimeType::implied(migration.has(REPO_ID));
            let reason = if runtime == RuntimeType::Classic {
                "there is a REPO_ID, which classic alone has"
            } else {
                "what both clients take where none is set"
            };
            let value = Json::Plain(runtime.as_str().into());
            migration.set(key::RUNTIME_TYPE, value, reason);
            runtime
        }
    }
}

fn repository_id(migration: &mut Migration, runtime: RuntimeType) {
    if runtime == RuntimeType::Classic {
        if !migration.has(REPO_ID) {
            migration
                .leave_to_user(REPO_ID, "choose a name for the files of registration definitions");
        }
    } else {
        migration.remove(REPO_ID, "both clients refuse it where RUNTIME_TYPE is not classic");
    }
}

/// IBM Cloud's registry had a notary of its own until November 2021; its address stands for Red Hat
/// signing since then.
fn notary(migration: &mut Migration, key: &str) {
    let Some(text) = migration.text(key) else { return };
    let host = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let bare = host.strip_prefix("notary.").unwrap_or(host);
    let bare = bare.strip_suffix(":4443").unwrap_or(bare).to_owned();
    if bare != host && (bare == "icr.io" || bare.ends_with(".icr.io")) {
        let value = Json::Plain(format!("https://{bare}").into());
        migration.set(
            key,
            value,
            "the notary of that registry ended; images there have Red Hat's \
            simple signatures",
        );
    }
}

fn missing(migration: &mut Migration, runtime: RuntimeType) {
    for (key, reason) in [
        (HOSTNAME, "the name of the server, as its certificate will have it"),
        (key::GITHUB_URL, "what to build"),
        (key::DOCKER_REPO, "where the image goes"),
        (key::DOCKER_USER, "who pushes the image"),
        (key::DOCKER_PASSWORD, "with what"),
    ] {
        if !migration.has(key) {
            migration.leave_to_user(key, reason);
        }
    }
    if runtime == RuntimeType::Classic {
        migration.leave_to_user(
            key::RUNTIME_TYPE,
            "classic ended in January 2025: choose vpc or on-prem with --runtime-type if the image \
             is to run elsewhere",
        );
    }
    let unknown: Vec<_> = migration
        .members
        .keys()
        .filter(|key| !definition::is_known(key))
        .map(str::to_owned)
        .collect();
    for key in unknown {
        migration.leave_to_user(&key, "nobody knows this key; it stays, and has no effect");
    }
}

/// Keys that say nothing any more, and why.
const WITHOUT_EFFECT: [(&str, &str); 6] = [
    ("BUILD_DIR", "no version documented it, and the server passes over it"),
    ("BUILD_SCRIPT", "no version documented it, and the server passes over it"),
    ("EXIT_NONZERO", "no version documented it, and the server passes over it"),
    ("NEW_SECRET", "update --new-secret makes it"),
    ("REGISTRATION_FILE", "no version reads it"),
    ("SECRETS", "no version documented it, and the server passes over it"),
];
