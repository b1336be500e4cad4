//! What `init` and `update` send, made of the configuration.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_proto::key::{self, REPO_ID};
use sbs_proto::{
    Definition, Members, ParseDefinitionError, RuntimeType, parse_state_secret, shared_storage_key,
};
use serde_json::Value;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::{
    CICD_PORT, CONTAINER_NAME, Config, HOSTNAME, OpenConfigError, PENDING_SECRET, STATE_MIN_EPOCH,
    UUID,
};
use crate::file::{self, ReadFileError};
use crate::limits::PEM_BYTES;

/// Makes the body of `init` and `update`, and makes sure that the server can understand it.
pub(crate) fn members(config: &Config) -> Result<Members, MakeMembersError> {
    check_repo_id(config)?;
    let mut members = standing(|key| config.value(key));
    members.insert(key::BUILD_IMAGE_TAG, config.text(IMAGE_TAG)?.unwrap_or_default());
    let git_key = config.path(GITHUB_KEY_FILE)?.map(read_git_key).transpose()?;
    members.insert(key::GITHUB_KEY, git_key.as_deref().map_or("", String::as_str));
    let text = |key| -> Result<Option<String>, MakeMembersError> {
        let path = config.path(key)?;
        Ok(path.map(|path| file::read_text(&path, PEM_BYTES)).transpose()?)
    };
    members.insert(key::BASE_REPO_PUBLIC_KEY, "");
    for (file, key) in KEY_FILES {
        if let Some(text) = text(file)? {
            members.insert(key, text);
        }
    }
    check_missing(config, &members)?;
    Definition::parse(&members)?;
    parse_state_secret(&members)?;
    Ok(members)
}

/// Makes the part of the body that stands in the configuration as it is sent.
pub(crate) fn standing(value: impl Fn(&str) -> Option<Value>) -> Members {
    let mut members = Members::default();
    for key in key::REQUIRED.into_iter().chain(key::OPTIONAL) {
        if let Some(value) = value(key).or_else(|| value(shared_storage_key(key)?)) {
            members.insert(key, value);
        }
    }
    members
}

/// Returns the keys of the configuration that mean nothing, neither here nor to the original's
/// client; perhaps they are misspelt.
pub(crate) fn unknown_keys(config: &Config) -> Vec<String> {
    config.keys().filter(|name| !is_known(name)).map(ToOwned::to_owned).collect()
}

/// Tells whether a key of the configuration means something, here or to the original's client.
pub(crate) fn is_known(name: &str) -> bool {
    let is = |key: &&str| key.eq_ignore_ascii_case(name);
    key::REQUIRED.iter().any(is) || key::OPTIONAL.iter().any(is) || LOCAL.iter().any(is)
}

fn check_repo_id(config: &Config) -> Result<(), MakeMembersError> {
    let set = config.value(REPO_ID).is_some();
    match config.runtime_type()? {
        RuntimeType::Vpc | RuntimeType::OnPrem if set => Err(MakeMembersError::RepoId),
        _ => Ok(()),
    }
}

fn check_missing(config: &Config, members: &Members) -> Result<(), MakeMembersError> {
    let mut keys: Vec<_> =
        key::REQUIRED.into_iter().filter(|key| members.value(key).is_none()).collect();
    if config.value(HOSTNAME).is_none() {
        keys.push(HOSTNAME);
    }
    if config.runtime_type()? == RuntimeType::Classic && config.value(REPO_ID).is_none() {
        keys.push(REPO_ID);
    }
    if keys.is_empty() { Ok(()) } else { Err(MakeMembersError::Missing { keys }) }
}

/// Reads a git key that the server will be able to use, which knows no passphrase.
fn read_git_key(path: PathBuf) -> Result<Zeroizing<String>, MakeMembersError> {
    let text = Zeroizing::new(file::read_text(&path, PEM_BYTES)?);
    if !text.contains("-----BEGIN ") || !text.contains("PRIVATE KEY-----") {
        return Err(MakeMembersError::NotAPrivateKey { path });
    }
    if text.contains("ENCRYPTED") || has_openssh_passphrase(&text) {
        return Err(MakeMembersError::Passphrase { path });
    }
    Ok(text)
}

/// Tells whether this is a key in OpenSSH's own form whose cipher is not `none`
/// (openssh-portable, PROTOCOL.key).
fn has_openssh_passphrase(pem: &str) -> bool {
    let body = pem.split_once("-----BEGIN OPENSSH PRIVATE KEY-----");
    let body = body.and_then(|(_, rest)| rest.split_once("-----END OPENSSH PRIVATE KEY-----"));
    let Some((body, _)) = body else { return false };
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(body).map(Zeroizing::new).unwrap_or_default();
    bytes.strip_prefix(b"openssh-key-v1\0").is_some_and(|rest| !rest.starts_with(b"\0\0\0\x04none"))
}

/// Why nothing was sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum MakeMembersError {
    #[error(transparent)]
    Config(#[from] OpenConfigError),

    #[error(transparent)]
    Definition(ParseDefinitionError),

    #[error("missing in the configuration: {}", keys.join(", "))]
    Missing { keys: Vec<&'static str> },

    #[error("GITHUB_KEY_FILE: `{}` is not a private key in PEM or OpenSSH form", path.display())]
    NotAPrivateKey { path: PathBuf },

    #[error("GITHUB_KEY_FILE: the key in `{}` has a passphrase, which the server cannot know; \
        use a key without one that only reads this repository", path.display())]
    Passphrase { path: PathBuf },

    #[error(transparent)]
    Read(#[from] ReadFileError),

    #[error("REPO_ID is only for RUNTIME_TYPE `classic`; remove it")]
    RepoId,
}

impl From<ParseDefinitionError> for MakeMembersError {
    fn from(error: ParseDefinitionError) -> Self {
        match error {
            // In the configuration it stands under another name than on the wire.
            ParseDefinitionError::Missing { key: key::BASE_REPO_PUBLIC_KEY } => {
                Self::Missing { keys: vec![ICR_BASE_REPO_PUBLIC_KEY] }
            }
            error => Self::Definition(error),
        }
    }
}

/// Keys that name a file, and those under which its content is sent.
pub(crate) const KEY_FILES: [(&str, &str); 3] = [
    (BASE_COSIGN_PUBLIC_KEY_FILE, key::BASE_COSIGN_PUBLIC_KEY),
    (DOCKER_CONTENT_TRUST_BASE_ROOT_FILE, key::DOCKER_CONTENT_TRUST_BASE_ROOT),
    (ICR_BASE_REPO_PUBLIC_KEY, key::BASE_REPO_PUBLIC_KEY),
];

/// Keys of this client alone: the original knows neither way of trust.
const BASE_COSIGN_PUBLIC_KEY_FILE: &str = "BASE_COSIGN_PUBLIC_KEY_FILE";
const DOCKER_CONTENT_TRUST_BASE_ROOT_FILE: &str = "DOCKER_CONTENT_TRUST_BASE_ROOT_FILE";
pub(crate) const GITHUB_KEY_FILE: &str = "GITHUB_KEY_FILE";
const ICR_BASE_REPO_PUBLIC_KEY: &str = "ICR_BASE_REPO_PUBLIC_KEY";
const IMAGE_TAG: &str = "IMAGE_TAG";

/// Keys that stay on this machine; some are the original's and have no effect here.
const LOCAL: [&str; 37] = [
    HOSTNAME,
    CICD_PORT,
    CONTAINER_NAME,
    UUID,
    PENDING_SECRET,
    STATE_MIN_EPOCH,
    IMAGE_TAG,
    GITHUB_KEY_FILE,
    BASE_COSIGN_PUBLIC_KEY_FILE,
    DOCKER_CONTENT_TRUST_BASE_ROOT_FILE,
    ICR_BASE_REPO_PUBLIC_KEY,
    "CLIENT_CRT_KEY",
    "CAPATH",
    "CAKEYPATH",
    "CERTPATH",
    "ROOT_SSH_KEY_FILE",
    "SERVER_KEY_RECIPIENT_FILE",
    "COS_ACCESS_KEY_ID",
    "COS_API_KEY_ID",
    "COS_AUTH_ENDPOINT",
    "COS_ENDPOINT",
    "COS_REGION",
    "COS_RESOURCE_CRN",
    "COS_SECRET_ACCESS_KEY",
    "BUILD_NAME",
    "CICD_PUBLIC_IP",
    "CSRPATH",
    "EMAIL",
    "ISV_SECRET",
    "KEY_ID",
    "NAME",
    "NEW_SECRET",
    "SECRETS",
    "SSC_HOST",
    "STATE_IMAGE",
    "GITHUB_KEY",
    "REGISTRATION_FILE",
];

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Map, json};

    use super::*;
    use crate::config::tests::config;

    fn minimal() -> Map<String, Value> {
        let json = json!({
            "hostname": "build.example", "GITHUB_URL": "git@git.example:u/r.git",
            "docker_repo": "ns/app", "DOCKER_USER": "u", "DOCKER_PASSWORD": "p",
        });
        json.as_object().unwrap().clone()
    }

    fn made(changes: &Value) -> Result<Value, MakeMembersError> {
        let mut json = minimal();
        json.extend(changes.as_object().unwrap().clone());
        let members = members(&config(&Value::from(json).to_string()))?;
        Ok(serde_json::from_str(&members.expose_json()).unwrap())
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_least_that_is_sent_is_what_the_original_sends() {
        let body = made(&json!({})).unwrap();
        assert_eq!(
            keys(&body),
            [
                "BASE_REPO_PUBLIC_KEY",
                "BUILD_IMAGE_TAG",
                "DOCKER_PASSWORD",
                "DOCKER_REPO",
                "DOCKER_USER",
                "GITHUB_KEY",
                "GITHUB_URL",
                "RUNTIME_TYPE",
                "SECRET"
            ]
        );
        assert_eq!(body["GITHUB_KEY"], "");
        assert_eq!(body["BUILD_IMAGE_TAG"], "");
        assert_eq!(body["RUNTIME_TYPE"], "vpc");
        assert_eq!(body["SECRET"].as_str().unwrap().len(), 172);
    }

    #[test]
    fn values_keep_their_json_type_and_get_their_wire_name() {
        let body = made(&json!({
            "arg": {"K": "V", "N": 1}, "ENV_WHITELIST": ["A"], "IMAGE_TAG": "1.3.0.20",
            "GITHUB_RECURSE_SUBMODULES": "True", "GITHUB_BRANCH": "main",
        }))
        .unwrap();
        assert_eq!(body["ARG"], json!({"K": "V", "N": 1}));
        assert_eq!(body["ENV_WHITELIST"], json!(["A"]));
        assert_eq!(body["BUILD_IMAGE_TAG"], "1.3.0.20");
        assert_eq!(body["GITHUB_RECURSE_SUBMODULES"], "True");
        assert!(body.get("IMAGE_TAG").is_none());
    }

    #[test]
    fn object_store_keys_are_aliased_where_they_are_absent() {
        let body = made(&json!({
            "COS_ENDPOINT": "https://a", "cos_api_key_id": "k", "STATE_COS_ENDPOINT": "https://b",
            "MANIFEST_COS_API_KEY_ID": "", "COS_RESOURCE_CRN": "crn:v1:x",
            "COS_AUTH_ENDPOINT": "https://iam.example/oidc/token",
        }))
        .unwrap();
        for (key, expected) in [
            ("MANIFEST_COS_ENDPOINT", Some("https://a")),
            ("STATE_COS_ENDPOINT", Some("https://b")),
            ("MANIFEST_COS_API_KEY_ID", Some("k")),
            ("STATE_COS_API_KEY_ID", Some("k")),
            ("COS_ENDPOINT", None),
            ("COS_API_KEY_ID", None),
        ] {
            assert_eq!(body.get(key).and_then(Value::as_str), expected, "{key}");
        }
    }

    #[test]
    fn l1_local_paths_and_run_time_secrets_are_not_sent() {
        let directory = tempfile::tempdir().unwrap();
        let [git, base] = ["git", "base"].map(|name| directory.path().join(name));
        let git_key = "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----\n";
        fs::write(&git, git_key).unwrap();
        fs::write(&base, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n").unwrap();
        let body = made(&json!({
            "GITHUB_KEY_FILE": git, "ICR_BASE_REPO_PUBLIC_KEY": base, "CAPATH": "canary/ca.pem",
            "ISV_SECRET": {"A": "canary"}, "SECRETS": "canary", "NEW_SECRET": "canary",
            "CLIENT_CRT_KEY": "canary", "KEY_ID": "canary", "TYPO": "canary",
        }))
        .unwrap();
        assert_eq!(body["GITHUB_KEY"], git_key);
        assert_eq!(body["BASE_REPO_PUBLIC_KEY"], "-----BEGIN PGP PUBLIC KEY BLOCK-----\n");
        let text = body.to_string();
        assert!(!text.contains("canary"), "{text}");
        assert!(!text.contains(directory.path().to_str().unwrap()), "{text}");
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let error = made(&json!({"hostname": "", "DOCKER_USER": "", "DOCKER_PASSWORD": null}));
        assert_eq!(
            error.unwrap_err().to_string(),
            "missing in the configuration: DOCKER_USER, DOCKER_PASSWORD, HOSTNAME"
        );
        let error = made(&json!({"RUNTIME_TYPE": "classic", "GITHUB_URL": ""}));
        assert_eq!(
            error.unwrap_err().to_string(),
            "missing in the configuration: GITHUB_URL, REPO_ID"
        );
    }

    #[test]
    fn repo_id_is_for_classic_alone() {
        for runtime in ["vpc", "on-prem"] {
            let error = made(&json!({"REPO_ID": "r", "RUNTIME_TYPE": runtime})).unwrap_err();
            assert!(matches!(error, MakeMembersError::RepoId), "{runtime}");
        }
        let body = made(&json!({"REPO_ID": "r", "RUNTIME_TYPE": "classic"})).unwrap();
        assert_eq!(body["REPO_ID"], "r");
    }

    #[test]
    fn what_the_server_would_refuse_is_refused_before_it_is_sent() {
        for (changes, expected) in [
            (json!({"GITHUB_URL": "file:///etc"}), "GITHUB_URL"),
            (json!({"ARG": {"LD_PRELOAD": "x"}}), "ARG"),
            (json!({"DOCKERFILE_PATH": "../x"}), "DOCKERFILE_PATH"),
            (json!({"docker_repo": "NS/app"}), "DOCKER_REPO"),
            (json!({"SECRET": "short"}), "SECRET"),
        ] {
            let error = made(&changes).unwrap_err();
            assert!(matches!(error, MakeMembersError::Definition(_)), "{error:?}");
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_key_that_is_missing_is_told_by_its_name_in_the_configuration() {
        let error = made(&json!({
            "DOCKER_CONTENT_TRUST_BASE": "True", "DOCKER_CONTENT_TRUST_BASE_SERVER": "us.icr.io",
        }));
        let text = error.unwrap_err().to_string();
        assert_eq!(text, "missing in the configuration: ICR_BASE_REPO_PUBLIC_KEY");
    }

    #[test]
    fn a_git_key_that_the_server_cannot_use_is_refused() {
        let openssh = |cipher: &str| {
            let length = u8::try_from(cipher.len()).unwrap();
            let head = [b"openssh-key-v1\0\0\0\0", &[length][..], cipher.as_bytes(), &[0; 90]];
            let body = STANDARD.encode(head.concat());
            let (a, b) = body.split_at(70);
            format!(
                "-----BEGIN OPENSSH PRIVATE KEY-----\n{a}\n{b}\n-----END OPENSSH PRIVATE KEY-----\n"
            )
        };
        let pem = |kind: &str, head: &str| {
            format!("-----BEGIN {kind}-----\n{head}AA==\n-----END {kind}-----\n")
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for (text, expected) in [
            (openssh("none"), "good"),
            (pem("EC PRIVATE KEY", ""), "good"),
            (pem("PRIVATE KEY", ""), "good"),
            (openssh("aes256-ctr"), "passphrase"),
            (pem("ENCRYPTED PRIVATE KEY", ""), "passphrase"),
            (pem("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: x\n\n"), "passphrase"),
            ("ssh-ed25519 AAAA me@here\n".to_owned(), "not a private key"),
            (pem("PUBLIC KEY", ""), "not a private key"),
            (String::new(), "not a private key"),
            ("x".repeat(64 * 1024 + 1), "larger than 65536 bytes"),
        ] {
            fs::write(&path, &text).unwrap();
            let shown = match made(&json!({"GITHUB_KEY_FILE": path})) {
                Ok(body) => {
                    assert_eq!(body["GITHUB_KEY"], text);
                    "good".to_owned()
                }
                Err(error) => error.to_string(),
            };
            assert!(shown.contains(expected), "{text}: {shown}");
        }
        let missing = directory.path().join("missing");
        let error = made(&json!({"GITHUB_KEY_FILE": missing})).unwrap_err().to_string();
        assert!(error.contains("missing") && error.contains("is not there"), "{error}");
    }

    #[test]
    fn keys_that_nobody_knows_are_found() {
        let config = config(r#"{"DOCKERFILE_PAHT":"x","hostname":"h","cos_endpoint":"","arg":{}}"#);
        assert_eq!(unknown_keys(&config), ["DOCKERFILE_PAHT"]);
    }
}
