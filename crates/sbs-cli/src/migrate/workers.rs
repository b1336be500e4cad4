//! The YAML of `hpvs sb`, 1.2.x: one server and one image under `secure_build_workers`.

use sbs_proto::RuntimeType;
use sbs_proto::key::{self, REPO_ID};
use serde_json::json;

use super::{Action, MigrateError, Migration};
use crate::config::{CICD_PORT, HOSTNAME};
use crate::json::{Json, Object};

/// Makes keys of the entries that have one.
pub(super) fn migrate(
    old: &Object,
    runtime: Option<RuntimeType>,
) -> Result<Migration, MigrateError> {
    let workers = match old.value("secure_build_workers") {
        Some(Json::Object(workers)) => workers,
        // Examples that were indented too little have the sections beside it.
        _ => old,
    };
    if !["sbs", "github", "docker"].iter().any(|section| workers.value(section).is_some()) {
        return Err(MigrateError::NotAConfiguration);
    }
    let mut migration = Migration::new(Object::default());
    address(workers, &mut migration);
    for (section, entry, key) in ENTRIES {
        let Some(value) = entry_of(workers, section, entry) else { continue };
        let value = match (key, value.as_str()) {
            (key::DOCKERFILE_PATH | key::DOCKER_BUILD_PATH, Some(text)) => {
                // They are relative to the top of the repository in any case.
                let path = text.trim_start_matches("./");
                if path.is_empty() {
                    continue;
                }
                Json::Plain(path.into())
            }
            // The examples have an empty list there.
            (key::ARG, None) if !matches!(value, Json::Object(_)) => continue,
            (key::ENV_WHITELIST, None) if value.to_value() == json!([]) => continue,
            _ => value.clone(),
        };
        migration.set(key, value, &format!("{section}.{entry}"));
    }
    match (runtime, entry_of(workers, "regfile", "id")) {
        (Some(RuntimeType::Classic), Some(id)) => {
            migration.set(REPO_ID, id.clone(), "regfile.id");
        }
        (_, Some(_)) => migration.note(
            Action::Removed,
            "regfile.id",
            "only classic has registration definitions; see --runtime-type",
        ),
        (_, None) => {}
    }
    registries(workers, &mut migration);
    files(workers, &mut migration);
    if runtime.is_none() {
        let value = Json::Plain(RuntimeType::OnPrem.as_str().into());
        let reason = "hpvs sb was for machines of one's own; --runtime-type chooses another one";
        migration.set(key::RUNTIME_TYPE, value, reason);
    }
    Ok(migration)
}

fn address(workers: &Object, migration: &mut Migration) {
    let url = entry_of(workers, "sbs", "url").and_then(Json::as_str).unwrap_or_default();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() => (host, Some(port)),
        _ => (authority, None),
    };
    if !host.is_empty() {
        migration.set(HOSTNAME, Json::Plain(host.into()), "the host of sbs.url");
    }
    let port = port.map(str::to_owned).or_else(|| {
        let port = entry_of(workers, "sbs", "port")?.to_value();
        Some(port.as_str().map_or_else(|| port.to_string(), str::to_owned))
    });
    if let Some(port) = port {
        migration.set(CICD_PORT, Json::Plain(port.into()), "the port of sbs.url, or sbs.port");
    }
}

/// The servers of images are names there, of a list that `hpvs registry` keeps with its credentials.
fn registries(workers: &Object, migration: &mut Migration) {
    for (entry, server, user, password) in [
        ("push_server", key::DOCKER_PUSH_SERVER, key::DOCKER_USER, key::DOCKER_PASSWORD),
        ("base_server", key::DOCKER_BASE_SERVER, key::DOCKER_BASE_USER, key::DOCKER_BASE_PASSWORD),
        ("pull_server", "", key::DOCKER_RO_USER, key::DOCKER_RO_PASSWORD),
    ] {
        let Some(name) = entry_of(workers, "docker", entry) else { continue };
        let name = name.as_str().unwrap_or_default();
        let source = format!("docker.{entry}");
        if !server.is_empty() && name.contains('.') {
            migration.set(server, Json::Plain(name.into()), &source);
        } else if !server.is_empty() {
            let reason = format!(
                "{source} is a name in `hpvs registry list`; set the host that stands there, unless \
                 it is docker.io"
            );
            migration.leave_to_user(server, &reason);
        }
        if entry != "push_server" {
            let reason = format!("the credentials of {source}, if it needs any");
            migration.leave_to_user(&format!("{user}, {password}"), &reason);
        }
    }
}

/// Files that are made anew.
fn files(workers: &Object, migration: &mut Migration) {
    for (section, entry, reason) in [
        ("sbs", "cert_path", MADE_ANEW),
        ("sbs", "key_path", MADE_ANEW),
        ("sbs", "ca_cert_path", MADE_ANEW),
        ("signing_key", "private_key_path", VENDOR_KEY),
        ("signing_key", "public_key_path", VENDOR_KEY),
    ] {
        if entry_of(workers, section, entry).is_some() {
            migration.note(Action::Removed, &format!("{section}.{entry}"), reason);
        }
    }
}

/// Returns an entry of a section; one that is empty, or a placeholder of the example, is none.
fn entry_of<'a>(workers: &'a Object, section: &str, entry: &str) -> Option<&'a Json> {
    let Some(Json::Object(section)) = workers.value(section) else { return None };
    let value = section.value(entry)?;
    let placeholder = value.as_str().is_some_and(|text| text.starts_with('<'));
    (!value.is_nothing() && !placeholder).then_some(value)
}

const MADE_ANEW: &str =
    "create-client-cert and create-server-cert make certificates that name the server";
const VENDOR_KEY: &str = "get-config-json makes a vendor key, or takes one with --vendor-key";

/// Sections, their entries, and the keys that mean the same.
const ENTRIES: [(&str, &str, &str); 16] = [
    ("build", "args", key::ARG),
    ("github", "url", key::GITHUB_URL),
    ("github", "branch", key::GITHUB_BRANCH),
    ("github", "ssh_private_key_path", "GITHUB_KEY_FILE"),
    ("github", "recurse_submodules", key::GITHUB_RECURSE_SUBMODULES),
    ("github", "dockerfile_path", key::DOCKERFILE_PATH),
    ("github", "docker_build_path", key::DOCKER_BUILD_PATH),
    ("docker", "repo", key::DOCKER_REPO),
    ("docker", "image_tag_prefix", key::IMAGE_TAG_PREFIX),
    ("docker", "content_trust_base", key::DOCKER_CONTENT_TRUST_BASE),
    ("manifest_cos", "bucket_name", key::MANIFEST_BUCKET_NAME),
    ("manifest_cos", "api_key", key::MANIFEST_COS_API_KEY_ID),
    ("manifest_cos", "resource_crn", key::MANIFEST_COS_RESOURCE_CRN),
    ("manifest_cos", "auth_endpoint", key::MANIFEST_COS_AUTH_ENDPOINT),
    ("manifest_cos", "endpoint", key::MANIFEST_COS_ENDPOINT),
    ("env", "whitelist", key::ENV_WHITELIST),
];
