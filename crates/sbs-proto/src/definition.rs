use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use crate::signing::{parse_base_trust, parse_push_notary};
use crate::storage::{parse_manifest_storage, parse_state_storage};
use crate::{
    BaseTrust, GitReference, GitUrl, ImageReference, Members, NotaryServer, ParseGitError,
    ParseImageReferenceError, ParseNameError, ParseNotaryServerError, ParsePathError,
    ParseStateSecretError, RegistryHost, RelativePath, SecretText, StateSecret, StateStorage,
    StorageKeyError, StorageTarget, TagPrefix,
};

/// What `init` and `update` set: where the source is, how it is built, where the image goes.
///
/// It is parsed from the flat object of the wire, whose keys are in [`key`]. Unknown keys are
/// accepted; strings that are empty count as absent. The state secrets, which stand in the same
/// object, are read by [`parse_state_secret`] and [`parse_new_state_secret`]: they are no part of
/// the definition and are not kept with it.
#[derive(Debug)]
pub struct Definition {
    /// The registry that base images come from and the credentials for it.
    pub base: BaseRegistry,
    /// How base images must be signed; `None` where they need not be.
    pub base_trust: Option<BaseTrust>,
    /// `IMAGE_TAG`: the tag of the server's own image, kept for the status.
    pub build_image_tag: String,
    /// The names of environment variables that may be set where the image runs.
    pub env_whitelist: Vec<String>,
    /// Keys of the original that have no effect here, to be named in the log.
    pub ignored_keys: Vec<String>,
    /// The bucket that manifests are put into after each build.
    pub manifest_storage: Option<StorageTarget>,
    /// The notary that announces the image (Docker Content Trust), if one is named.
    pub notary: Option<NotaryServer>,
    /// The credentials with which the image is pulled where it runs.
    pub pull_credentials: Option<Credentials>,
    /// How the image is built.
    pub recipe: Recipe,
    /// The repository that the image is pushed to, without tag.
    pub destination: ImageReference,
    /// The credentials for pushing.
    pub push_credentials: Credentials,
    /// Where the built image is meant to run.
    pub runtime_type: RuntimeType,
    /// What is built from.
    pub source: Source,
    /// Where state images are kept, besides the files that a client keeps.
    pub state_storage: Option<StateStorage>,
    /// The first part of the image tag.
    pub tag_prefix: Option<TagPrefix>,
}

/// Where the source is and how to get it.
#[derive(Debug)]
pub struct Source {
    /// The ssh private key, if the repository needs one.
    pub key: Option<SecretText>,
    /// Whether submodules are checked out.
    pub recurse_submodules: bool,
    /// The branch, tag or commit; the remote's HEAD where absent.
    pub reference: Option<GitReference>,
    /// The repository.
    pub url: GitUrl,
}

/// How the image is built from the source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recipe {
    /// The build arguments.
    pub arguments: BTreeMap<String, String>,
    /// The build context: `DOCKER_BUILD_PATH`, by default the top of the repository.
    pub context: RelativePath,
    /// The Dockerfile: `DOCKERFILE_PATH`, by default `Dockerfile`. It is always relative to the top
    /// of the repository, whatever the context.
    pub dockerfile: RelativePath,
}

/// The registry that base images come from.
#[derive(Debug)]
pub struct BaseRegistry {
    /// The credentials that are sent to that registry, and to no other.
    pub credentials: Option<Credentials>,
    /// The registry of references that name none, and the one that the credentials are for.
    pub server: RegistryHost,
}

/// A user name and its password or token.
#[derive(Debug)]
pub struct Credentials {
    /// The password or token.
    pub password: SecretText,
    /// The user name.
    pub user: String,
}

/// Where a built image is meant to run; it changes only what the registration files look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RuntimeType {
    /// The classic service.
    Classic,
    /// A machine of one's own.
    OnPrem,
    /// A virtual private cloud.
    Vpc,
}

/// The keys of the wire.
pub mod key {
    /// An object of build arguments.
    pub const ARG: &str = "ARG";
    /// The key of cosign signatures that base images must have, PEM.
    pub const BASE_COSIGN_PUBLIC_KEY: &str = "BASE_COSIGN_PUBLIC_KEY";
    /// The OpenPGP key that base images must be signed by.
    pub const BASE_REPO_PUBLIC_KEY: &str = "BASE_REPO_PUBLIC_KEY";
    /// The tag of the server's own image.
    pub const BUILD_IMAGE_TAG: &str = "BUILD_IMAGE_TAG";
    /// The path of the Dockerfile.
    pub const DOCKERFILE_PATH: &str = "DOCKERFILE_PATH";
    /// The password for base images.
    pub const DOCKER_BASE_PASSWORD: &str = "DOCKER_BASE_PASSWORD";
    /// The registry of base images.
    pub const DOCKER_BASE_SERVER: &str = "DOCKER_BASE_SERVER";
    /// The user for base images.
    pub const DOCKER_BASE_USER: &str = "DOCKER_BASE_USER";
    /// The build context.
    pub const DOCKER_BUILD_PATH: &str = "DOCKER_BUILD_PATH";
    /// Whether base images must be signed.
    pub const DOCKER_CONTENT_TRUST_BASE: &str = "DOCKER_CONTENT_TRUST_BASE";
    /// The root certificates of the notary that base images are looked up at, PEM.
    pub const DOCKER_CONTENT_TRUST_BASE_ROOT: &str = "DOCKER_CONTENT_TRUST_BASE_ROOT";
    /// The notary that base images are looked up at.
    pub const DOCKER_CONTENT_TRUST_BASE_SERVER: &str = "DOCKER_CONTENT_TRUST_BASE_SERVER";
    /// The notary that announces the image.
    pub const DOCKER_CONTENT_TRUST_PUSH_SERVER: &str = "DOCKER_CONTENT_TRUST_PUSH_SERVER";
    /// The password for pushing.
    pub const DOCKER_PASSWORD: &str = "DOCKER_PASSWORD";
    /// The registry that the image is pushed to.
    pub const DOCKER_PUSH_SERVER: &str = "DOCKER_PUSH_SERVER";
    /// The repository that the image is pushed to.
    pub const DOCKER_REPO: &str = "DOCKER_REPO";
    /// The password with which the image is pulled where it runs.
    pub const DOCKER_RO_PASSWORD: &str = "DOCKER_RO_PASSWORD";
    /// The user as whom the image is pulled where it runs.
    pub const DOCKER_RO_USER: &str = "DOCKER_RO_USER";
    /// The user for pushing.
    pub const DOCKER_USER: &str = "DOCKER_USER";
    /// The names of environment variables that may be set where the image runs.
    pub const ENV_WHITELIST: &str = "ENV_WHITELIST";
    /// The branch, tag or commit.
    pub const GITHUB_BRANCH: &str = "GITHUB_BRANCH";
    /// The ssh private key.
    pub const GITHUB_KEY: &str = "GITHUB_KEY";
    /// Whether submodules are checked out.
    pub const GITHUB_RECURSE_SUBMODULES: &str = "GITHUB_RECURSE_SUBMODULES";
    /// The repository that is built.
    pub const GITHUB_URL: &str = "GITHUB_URL";
    /// The base image that the OpenPGP key is for.
    pub const ICR_BASE_REPO: &str = "ICR_BASE_REPO";
    /// The first part of the image tag.
    pub const IMAGE_TAG_PREFIX: &str = "IMAGE_TAG_PREFIX";
    /// Run-time secrets; accepted from old clients and dropped.
    pub const ISV_SECRET: &str = "ISV_SECRET";
    /// The bucket that manifests are put into.
    pub const MANIFEST_BUCKET_NAME: &str = "MANIFEST_BUCKET_NAME";
    /// The S3 access key for manifests.
    pub const MANIFEST_COS_ACCESS_KEY_ID: &str = "MANIFEST_COS_ACCESS_KEY_ID";
    /// The IBM Cloud API key for manifests.
    pub const MANIFEST_COS_API_KEY_ID: &str = "MANIFEST_COS_API_KEY_ID";
    /// Where that API key is exchanged for tokens.
    pub const MANIFEST_COS_AUTH_ENDPOINT: &str = "MANIFEST_COS_AUTH_ENDPOINT";
    /// The object storage for manifests.
    pub const MANIFEST_COS_ENDPOINT: &str = "MANIFEST_COS_ENDPOINT";
    /// The region of that storage.
    pub const MANIFEST_COS_REGION: &str = "MANIFEST_COS_REGION";
    /// The service instance of that storage, in IBM Cloud.
    pub const MANIFEST_COS_RESOURCE_CRN: &str = "MANIFEST_COS_RESOURCE_CRN";
    /// The secret of the S3 access key for manifests.
    pub const MANIFEST_COS_SECRET_ACCESS_KEY: &str = "MANIFEST_COS_SECRET_ACCESS_KEY";
    /// The new secret of a rotation.
    pub const NEW_SECRET: &str = "NEW_SECRET";
    /// The name of the registration files; clients of classic alone send it.
    pub const REPO_ID: &str = "REPO_ID";
    /// Where the image is meant to run; clients before 1.3.0.9 do not send it.
    pub const RUNTIME_TYPE: &str = "RUNTIME_TYPE";
    /// The client's half of what protects the state image.
    pub const SECRET: &str = "SECRET";
    /// The bucket of state images.
    pub const STATE_BUCKET_NAME: &str = "STATE_BUCKET_NAME";
    /// The S3 access key for state images.
    pub const STATE_COS_ACCESS_KEY_ID: &str = "STATE_COS_ACCESS_KEY_ID";
    /// The IBM Cloud API key for state images.
    pub const STATE_COS_API_KEY_ID: &str = "STATE_COS_API_KEY_ID";
    /// Where that API key is exchanged for tokens.
    pub const STATE_COS_AUTH_ENDPOINT: &str = "STATE_COS_AUTH_ENDPOINT";
    /// The object storage for state images.
    pub const STATE_COS_ENDPOINT: &str = "STATE_COS_ENDPOINT";
    /// The region of that storage.
    pub const STATE_COS_REGION: &str = "STATE_COS_REGION";
    /// The service instance of that storage, in IBM Cloud.
    pub const STATE_COS_RESOURCE_CRN: &str = "STATE_COS_RESOURCE_CRN";
    /// The secret of the S3 access key for state images.
    pub const STATE_COS_SECRET_ACCESS_KEY: &str = "STATE_COS_SECRET_ACCESS_KEY";

    /// Keys that are taken and have no effect: those that no one has documented, and the
    /// run-time secrets, which must not be here at all.
    pub const IGNORED: [&str; 5] =
        ["BUILD_DIR", "BUILD_SCRIPT", "EXIT_NONZERO", ISV_SECRET, "SECRETS"];

    /// Keys that a client must send.
    pub const REQUIRED: [&str; 5] = [DOCKER_REPO, DOCKER_USER, DOCKER_PASSWORD, GITHUB_URL, SECRET];

    /// Keys that a client sends when its configuration has them, besides the required ones.
    pub const OPTIONAL: [&str; 38] = [
        ARG,
        DOCKERFILE_PATH,
        DOCKER_BASE_PASSWORD,
        DOCKER_BASE_SERVER,
        DOCKER_BASE_USER,
        DOCKER_BUILD_PATH,
        DOCKER_CONTENT_TRUST_BASE,
        DOCKER_CONTENT_TRUST_BASE_SERVER,
        DOCKER_CONTENT_TRUST_PUSH_SERVER,
        DOCKER_PUSH_SERVER,
        DOCKER_RO_PASSWORD,
        DOCKER_RO_USER,
        ENV_WHITELIST,
        GITHUB_BRANCH,
        GITHUB_RECURSE_SUBMODULES,
        ICR_BASE_REPO,
        IMAGE_TAG_PREFIX,
        MANIFEST_BUCKET_NAME,
        MANIFEST_COS_ACCESS_KEY_ID,
        MANIFEST_COS_API_KEY_ID,
        MANIFEST_COS_AUTH_ENDPOINT,
        MANIFEST_COS_ENDPOINT,
        MANIFEST_COS_REGION,
        MANIFEST_COS_RESOURCE_CRN,
        MANIFEST_COS_SECRET_ACCESS_KEY,
        REPO_ID,
        RUNTIME_TYPE,
        STATE_BUCKET_NAME,
        STATE_COS_ACCESS_KEY_ID,
        STATE_COS_API_KEY_ID,
        STATE_COS_AUTH_ENDPOINT,
        STATE_COS_ENDPOINT,
        STATE_COS_REGION,
        STATE_COS_RESOURCE_CRN,
        STATE_COS_SECRET_ACCESS_KEY,
        "BUILD_DIR",
        "BUILD_SCRIPT",
        "EXIT_NONZERO",
    ];
}

impl Definition {
    /// Parses the members of an `init` or `update` body.
    pub fn parse(members: &Members) -> Result<Self, ParseDefinitionError> {
        let present = |name: &&&str| members.value(name).is_some();
        Ok(Self {
            base: parse_base(members)?,
            base_trust: parse_base_trust(members)?,
            build_image_tag: text(members, key::BUILD_IMAGE_TAG)?.unwrap_or_default().to_owned(),
            destination: parse_destination(members)?,
            env_whitelist: parse_env_whitelist(members)?,
            ignored_keys: key::IGNORED.iter().filter(present).map(ToString::to_string).collect(),
            manifest_storage: parse_manifest_storage(members)?,
            notary: parse_push_notary(members)?,
            pull_credentials: parse_pair(members, key::DOCKER_RO_USER, key::DOCKER_RO_PASSWORD)?,
            push_credentials: Credentials {
                password: SecretText::new(required(members, key::DOCKER_PASSWORD)?.to_owned()),
                user: required(members, key::DOCKER_USER)?.to_owned(),
            },
            recipe: parse_recipe(members)?,
            runtime_type: parse_runtime_type(members)?,
            source: parse_source(members)?,
            state_storage: parse_state_storage(members)?,
            tag_prefix: text(members, key::IMAGE_TAG_PREFIX)?.map(TagPrefix::parse).transpose()?,
        })
    }
}

/// Reads SECRET, the client's half of what protects the state image.
pub fn parse_state_secret(members: &Members) -> Result<StateSecret, ParseDefinitionError> {
    Ok(StateSecret::parse(required(members, key::SECRET)?)?)
}

/// Reads `NEW_SECRET`, which stands in the body of an `update` that rotates the secret.
pub fn parse_new_state_secret(
    members: &Members,
) -> Result<Option<StateSecret>, ParseDefinitionError> {
    Ok(text(members, key::NEW_SECRET)?.map(StateSecret::parse).transpose()?)
}

impl RuntimeType {
    /// Parses the text of the wire.
    pub fn parse(text: &str) -> Result<Self, ParseDefinitionError> {
        match text {
            "classic" => Ok(Self::Classic),
            "on-prem" => Ok(Self::OnPrem),
            "vpc" => Ok(Self::Vpc),
            _ => Err(ParseDefinitionError::WrongType {
                key: key::RUNTIME_TYPE,
                expected: "`vpc`, `on-prem` or `classic`",
            }),
        }
    }

    /// Returns what is meant where none is named. Before 1.3.0.9 there was classic alone, and its
    /// clients had to have a `REPO_ID`, which no other kind has.
    pub fn implied(has_repo_id: bool) -> Self {
        if has_repo_id { Self::Classic } else { Self::Vpc }
    }

    /// Returns the text of the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::OnPrem => "on-prem",
            Self::Vpc => "vpc",
        }
    }
}

/// Why an `init` or `update` body is not an image definition. It never repeats a secret.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseDefinitionError {
    /// An entry of ARG has a name that build arguments cannot have.
    #[error(
        "{}: a name must be a letter or `_`, then letters, digits, `_`, `-` and `.`, and no name of \
         the builder itself",
        key::ARG
    )]
    ArgumentName,

    /// A key cannot be used.
    #[error("{key}: {reason}")]
    BadKey {
        /// The key of the definition.
        key: &'static str,
        /// Why.
        reason: String,
    },

    /// The address of a notary is malformed.
    #[error("{key}: {source}")]
    BadNotaryServer {
        /// The key.
        key: &'static str,
        /// Why.
        source: ParseNotaryServerError,
    },

    /// `DOCKERFILE_PATH` or `DOCKER_BUILD_PATH` is no path inside the repository.
    #[error("{key}: {source}")]
    BadPath {
        /// The key.
        key: &'static str,
        /// Why.
        source: ParsePathError,
    },

    /// One of the image or registry names is malformed.
    #[error("{key}: {source}")]
    BadReference {
        /// The key.
        key: &'static str,
        /// Why.
        source: ParseImageReferenceError,
    },

    /// `GITHUB_URL` or `GITHUB_BRANCH` is malformed.
    #[error("{key}: {source}")]
    BadSource {
        /// The key.
        key: &'static str,
        /// Why.
        source: ParseGitError,
    },

    /// `IMAGE_TAG_PREFIX` is malformed.
    #[error(transparent)]
    BadTagPrefix(#[from] ParseNameError),

    /// A required key is absent or empty.
    #[error("{key} is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },

    /// SECRET is not what the server needs.
    #[error(transparent)]
    Secret(#[from] ParseStateSecretError),

    /// A key of an object storage is wrong.
    #[error(transparent)]
    Storage(#[from] StorageKeyError),

    /// A value has another JSON type than it should.
    #[error("{key} must be {expected}")]
    WrongType {
        /// What is expected.
        expected: &'static str,
        /// The key.
        key: &'static str,
    },
}

impl ParseDefinitionError {
    /// Returns the key that is wrong.
    pub fn key(&self) -> &'static str {
        match self {
            Self::ArgumentName => key::ARG,
            Self::BadKey { key, .. }
            | Self::BadNotaryServer { key, .. }
            | Self::BadPath { key, .. }
            | Self::BadReference { key, .. }
            | Self::BadSource { key, .. }
            | Self::Missing { key }
            | Self::WrongType { key, .. } => key,
            Self::BadTagPrefix(_) => key::IMAGE_TAG_PREFIX,
            Self::Secret(_) => key::SECRET,
            Self::Storage(error) => error.key,
        }
    }
}

fn parse_runtime_type(members: &Members) -> Result<RuntimeType, ParseDefinitionError> {
    match text(members, key::RUNTIME_TYPE)? {
        Some(text) => RuntimeType::parse(text),
        None => Ok(RuntimeType::implied(members.value(key::REPO_ID).is_some())),
    }
}

fn parse_source(members: &Members) -> Result<Source, ParseDefinitionError> {
    let bad = |key| move |source| ParseDefinitionError::BadSource { key, source };
    let url = GitUrl::parse(required(members, key::GITHUB_URL)?).map_err(bad(key::GITHUB_URL))?;
    let reference = text(members, key::GITHUB_BRANCH)?
        .map(GitReference::parse)
        .transpose()
        .map_err(bad(key::GITHUB_BRANCH))?;
    Ok(Source {
        key: text(members, key::GITHUB_KEY)?.map(|key| SecretText::new(key.to_owned())),
        recurse_submodules: flag(members, key::GITHUB_RECURSE_SUBMODULES)?,
        reference,
        url,
    })
}

fn parse_recipe(members: &Members) -> Result<Recipe, ParseDefinitionError> {
    let path = |key, default| {
        RelativePath::parse(text(members, key)?.unwrap_or(default))
            .map_err(|source| ParseDefinitionError::BadPath { key, source })
    };
    let dockerfile = path(key::DOCKERFILE_PATH, "Dockerfile")?;
    if dockerfile.is_top() {
        return Err(ParseDefinitionError::WrongType {
            key: key::DOCKERFILE_PATH,
            expected: "the path of a file",
        });
    }
    Ok(Recipe {
        arguments: parse_arguments(members)?,
        context: path(key::DOCKER_BUILD_PATH, "")?,
        dockerfile,
    })
}

fn parse_arguments(members: &Members) -> Result<BTreeMap<String, String>, ParseDefinitionError> {
    let wrong = ParseDefinitionError::WrongType {
        key: key::ARG,
        expected: "an object of strings of at most 100 KiB, numbers or booleans, without control \
                   characters but tabs and line breaks",
    };
    let Some(value) = members.value(key::ARG) else { return Ok(BTreeMap::new()) };
    let object = value.as_object().ok_or_else(|| wrong.clone())?;
    let mut arguments = BTreeMap::new();
    for (name, value) in object {
        if !is_argument_name(name) {
            return Err(ParseDefinitionError::ArgumentName);
        }
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            _ => return Err(wrong),
        };
        // The engine gets each as one word of its command line, where a line break is as good as
        // any other character; a key in PEM has many.
        let odd = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        if value.len() > MAX_ARGUMENT_VALUE_BYTES || value.contains(odd) {
            return Err(wrong);
        }
        arguments.insert(name.clone(), value);
    }
    Ok(arguments)
}

fn parse_base(members: &Members) -> Result<BaseRegistry, ParseDefinitionError> {
    let server = registry(members, key::DOCKER_BASE_SERVER)?;
    let credentials = parse_pair(members, key::DOCKER_BASE_USER, key::DOCKER_BASE_PASSWORD)?;
    Ok(BaseRegistry { credentials, server: server.unwrap_or_else(RegistryHost::docker_hub) })
}

/// Reads credentials of which neither half comes alone.
fn parse_pair(
    members: &Members,
    user: &'static str,
    password: &'static str,
) -> Result<Option<Credentials>, ParseDefinitionError> {
    match (text(members, user)?, text(members, password)?) {
        (Some(user), Some(password)) => Ok(Some(Credentials {
            password: SecretText::new(password.to_owned()),
            user: user.to_owned(),
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(missing(password)),
        (None, Some(_)) => Err(missing(user)),
    }
}

fn parse_env_whitelist(members: &Members) -> Result<Vec<String>, ParseDefinitionError> {
    let wrong =
        ParseDefinitionError::WrongType { key: key::ENV_WHITELIST, expected: "an array of names" };
    let Some(value) = members.value(key::ENV_WHITELIST) else { return Ok(Vec::new()) };
    let names = value.as_array().ok_or_else(|| wrong.clone())?;
    let name = |name: &Value| {
        let name = name.as_str().ok_or_else(|| wrong.clone())?;
        let fits = !name.is_empty()
            && name.len() <= MAX_VARIABLE_NAME_BYTES
            && name.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
        if fits { Ok(name.to_owned()) } else { Err(wrong.clone()) }
    };
    names.iter().map(name).collect()
}

/// Reads `DOCKER_REPO` and `DOCKER_PUSH_SERVER`. A registry in `DOCKER_REPO` is accepted; where both name
/// one they must agree.
fn parse_destination(members: &Members) -> Result<ImageReference, ParseDefinitionError> {
    let bad = |source| ParseDefinitionError::BadReference { key: key::DOCKER_REPO, source };
    let repo = required(members, key::DOCKER_REPO)?;
    let server = registry(members, key::DOCKER_PUSH_SERVER)?;
    let default = server.clone().unwrap_or_else(RegistryHost::docker_hub);
    let reference = ImageReference::parse_with(repo, &default).map_err(bad)?;
    if reference.tag().is_some() || reference.digest().is_some() {
        return Err(ParseDefinitionError::WrongType {
            key: key::DOCKER_REPO,
            expected: "a repository without tag or digest; the tag is made of IMAGE_TAG_PREFIX and the commit",
        });
    }
    if server.is_some_and(|server| server != *reference.registry()) {
        return Err(ParseDefinitionError::WrongType {
            key: key::DOCKER_REPO,
            expected: "in the registry that DOCKER_PUSH_SERVER names",
        });
    }
    Ok(reference)
}

fn registry(
    members: &Members,
    key: &'static str,
) -> Result<Option<RegistryHost>, ParseDefinitionError> {
    text(members, key)?
        .map(RegistryHost::parse)
        .transpose()
        .map_err(|source| ParseDefinitionError::BadReference { key, source })
}

pub(crate) fn text<'a>(
    members: &'a Members,
    key: &'static str,
) -> Result<Option<&'a str>, ParseDefinitionError> {
    match members.value(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ParseDefinitionError::WrongType { key, expected: "a string" }),
    }
}

fn required<'a>(members: &'a Members, key: &'static str) -> Result<&'a str, ParseDefinitionError> {
    text(members, key)?.ok_or_else(|| missing(key))
}

pub(crate) fn missing(key: &'static str) -> ParseDefinitionError {
    ParseDefinitionError::Missing { key }
}

/// Reads a flag: a JSON boolean or, as the original's users write, the text of one.
pub(crate) fn flag(members: &Members, key: &'static str) -> Result<bool, ParseDefinitionError> {
    match members.value(key) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(ParseDefinitionError::WrongType { key, expected: "\"True\" or \"False\"" }),
    }
}

/// Tells whether a build argument may have this name: one that Docker takes, but for odd
/// characters.
///
/// A name that the engine or the loader reads itself could change the build behind the record's
/// back.
fn is_argument_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first
        && name.len() <= MAX_ARGUMENT_NAME_BYTES
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && !["BUILDKIT_", "BUILDAH_", "LD_", "SOURCE_DATE_EPOCH"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

const MAX_ARGUMENT_NAME_BYTES: usize = 255;
/// Linux takes words of a command line below 128 KiB.
const MAX_ARGUMENT_VALUE_BYTES: usize = 100 * 1024;
const MAX_VARIABLE_NAME_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn body() -> Members {
        let secret = base64::engine::general_purpose::STANDARD.encode([7; 128]);
        let json = serde_json::json!({
            "RUNTIME_TYPE": "vpc", "GITHUB_URL": "git@git.example:u/r.git", "GITHUB_BRANCH": "main",
            "GITHUB_KEY": "-----BEGIN OPENSSH PRIVATE KEY-----\n", "DOCKER_REPO": "ns/app",
            "DOCKER_USER": "u", "DOCKER_PASSWORD": "p", "DOCKER_RO_USER": "r",
            "DOCKER_RO_PASSWORD": "q", "IMAGE_TAG_PREFIX": "v1", "BUILD_IMAGE_TAG": "1.3.0.20",
            "SECRET": secret, "BASE_REPO_PUBLIC_KEY": "", "ENV_WHITELIST": ["A"],
            "ARG": {"K": "V", "N": 1, "B": true}, "DOCKER_CONTENT_TRUST_BASE": "False",
            "MANIFEST_BUCKET_NAME": "manifests", "MANIFEST_COS_ENDPOINT": "https://s3.example",
            "MANIFEST_COS_API_KEY_ID": "k", "MANIFEST_COS_RESOURCE_CRN": "crn:v1:x",
            "MANIFEST_COS_AUTH_ENDPOINT": "https://iam.example/oidc/token",
            "STATE_BUCKET_NAME": "", "NEVER_HEARD_OF": {"x": [1]},
        });
        Members::parse(json.to_string().as_bytes()).unwrap()
    }

    fn with(key: &str, value: impl Into<Value>) -> Result<Definition, ParseDefinitionError> {
        let mut members = body();
        members.insert(key, value);
        Definition::parse(&members)
    }

    #[test]
    fn reads_the_originals_sample() {
        let definition = Definition::parse(&body()).unwrap();
        assert_eq!(definition.destination.to_string(), "docker.io/ns/app");
        assert_eq!(definition.tag_prefix.unwrap().as_str(), "v1");
        assert_eq!(definition.build_image_tag, "1.3.0.20");
        assert_eq!(definition.recipe.dockerfile.as_str(), "Dockerfile");
        assert!(definition.recipe.context.is_top());
        let arguments: Vec<_> = definition.recipe.arguments.into_iter().collect();
        assert_eq!(
            arguments,
            [("B", "true"), ("K", "V"), ("N", "1")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert!(!definition.source.recurse_submodules);
        assert_eq!(definition.manifest_storage.unwrap().bucket.as_str(), "manifests");
        assert!(definition.state_storage.is_none());
        assert!(definition.ignored_keys.is_empty());
    }

    #[test]
    fn every_required_key_is_asked_for_by_name() {
        for key in key::REQUIRED.into_iter().filter(|key| *key != key::SECRET) {
            let expected = ParseDefinitionError::Missing { key };
            assert_eq!(with(key, "").err(), Some(expected), "{key}");
            let mut members = body();
            members.remove(key);
            let expected = format!("{key} is missing");
            assert_eq!(Definition::parse(&members).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn clients_of_before_1_3_0_9_name_no_runtime() {
        for (repo_id, expected) in [
            (None, RuntimeType::Vpc),
            (Some(""), RuntimeType::Vpc),
            (Some("app"), RuntimeType::Classic),
        ] {
            let mut members = body();
            members.remove(key::RUNTIME_TYPE);
            if let Some(repo_id) = repo_id {
                members.insert(key::REPO_ID, repo_id);
            }
            let parsed = Definition::parse(&members).unwrap();
            assert_eq!(parsed.runtime_type, expected, "{repo_id:?}");
            members.insert(key::RUNTIME_TYPE, "on-prem");
            let parsed = Definition::parse(&members).unwrap();
            assert_eq!(parsed.runtime_type, RuntimeType::OnPrem, "{repo_id:?}");
        }
        for bad in [Value::from("moon"), "Classic".into(), 1.into()] {
            assert_eq!(with(key::RUNTIME_TYPE, bad).unwrap_err().key(), key::RUNTIME_TYPE);
        }
    }

    #[test]
    fn the_state_secrets_are_read_apart() {
        let mut members = body();
        parse_state_secret(&members).unwrap();
        assert!(parse_new_state_secret(&members).unwrap().is_none());
        members.insert(key::NEW_SECRET, "1");
        assert_eq!(
            parse_new_state_secret(&members).err(),
            Some(ParseDefinitionError::Secret(ParseStateSecretError))
        );
        members.remove(key::SECRET);
        assert_eq!(
            parse_state_secret(&members).err(),
            Some(ParseDefinitionError::Missing { key: key::SECRET })
        );
    }

    #[test]
    fn the_words_true_and_false_are_flags() {
        for (value, expected) in [
            (Value::from("True"), Ok(true)),
            ("true".into(), Ok(true)),
            ("False".into(), Ok(false)),
            ("".into(), Ok(false)),
            (true.into(), Ok(true)),
            (Value::Null, Ok(false)),
            ("yes".into(), Err(())),
            (1.into(), Err(())),
        ] {
            let parsed = with(key::GITHUB_RECURSE_SUBMODULES, value.clone());
            let parsed = parsed.map(|d| d.source.recurse_submodules).map_err(|_| ());
            assert_eq!(parsed, expected, "{value}");
        }
    }

    #[test]
    fn the_registry_may_stand_in_either_key() {
        for (repo, server, expected) in [
            ("ns/app", "", Ok("docker.io/ns/app")),
            ("ns/app", "us.icr.io", Ok("us.icr.io/ns/app")),
            ("us.icr.io/ns/app", "", Ok("us.icr.io/ns/app")),
            ("us.icr.io/ns/app", "us.icr.io", Ok("us.icr.io/ns/app")),
            ("127.0.0.1:5000/app", "", Ok("127.0.0.1:5000/app")),
            ("us.icr.io/ns/app", "de.icr.io", Err(())),
            ("ns/app:latest", "", Err(())),
            ("ns/app", "https://us.icr.io", Err(())),
            ("NS/app", "", Err(())),
        ] {
            let mut members = body();
            members.insert(key::DOCKER_REPO, repo);
            members.insert(key::DOCKER_PUSH_SERVER, server);
            let parsed = Definition::parse(&members);
            let parsed = parsed.map(|d| d.destination.to_string()).map_err(|_| ());
            assert_eq!(parsed.as_deref(), expected.as_ref().copied(), "{repo} {server}");
        }
    }

    #[test]
    fn base_credentials_come_in_pairs() {
        assert_eq!(
            with(key::DOCKER_BASE_USER, "u").err(),
            Some(ParseDefinitionError::Missing { key: key::DOCKER_BASE_PASSWORD })
        );
        assert_eq!(
            with(key::DOCKER_BASE_PASSWORD, "p").err(),
            Some(ParseDefinitionError::Missing { key: key::DOCKER_BASE_USER })
        );
    }

    #[test]
    fn b5_hostile_build_arguments_are_refused() {
        for name in [
            "",
            "1A",
            "-x",
            "A=B",
            "A B",
            "A\n",
            "--isolation",
            "LD_PRELOAD",
            "BUILDKIT_SYNTAX",
            "BUILDAH_ISOLATION",
            "SOURCE_DATE_EPOCH",
            "-a",
            ".a",
            "A/B",
            "é",
            &"A".repeat(256),
        ] {
            let value = serde_json::json!({ name: "v" });
            assert_eq!(
                with(key::ARG, value).err(),
                Some(ParseDefinitionError::ArgumentName),
                "{name:?}"
            );
        }
        let long = "x".repeat(100 * 1024 + 1);
        for value in [
            serde_json::json!({"A": "a\0b"}),
            serde_json::json!({"A": "a\u{1b}[2J"}),
            serde_json::json!({"A": long}),
            serde_json::json!({"A": []}),
            1.into(),
        ] {
            assert!(with(key::ARG, value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn a_build_argument_may_have_many_lines_and_a_name_of_docker() {
        let pem = "-----BEGIN CERTIFICATE-----\nMIIB\r\n-----END CERTIFICATE-----\n";
        let longest = "x".repeat(100 * 1024);
        let given = serde_json::json!({"npm.rc": "a\tb", "ca-cert": pem, "_": longest});
        let arguments = with(key::ARG, given).unwrap().recipe.arguments;
        assert_eq!(arguments["ca-cert"], pem);
        assert_eq!((arguments["npm.rc"].as_str(), arguments["_"].len()), ("a\tb", longest.len()));
    }

    #[test]
    fn the_whitelist_is_an_array_of_names() {
        assert_eq!(Definition::parse(&body()).unwrap().env_whitelist, ["A"]);
        for bad in [Value::from("A"), 1.into(), serde_json::json!([1]), serde_json::json!(["A=b"])]
        {
            with(key::ENV_WHITELIST, bad).unwrap_err();
        }
    }

    #[test]
    fn credentials_to_pull_with_come_in_pairs() {
        let pull = Definition::parse(&body()).unwrap().pull_credentials.unwrap();
        assert_eq!((pull.user.as_str(), pull.password.expose()), ("r", "q"));
        let expected = Some(ParseDefinitionError::Missing { key: key::DOCKER_RO_PASSWORD });
        assert_eq!(with(key::DOCKER_RO_PASSWORD, "").err(), expected);
    }

    #[test]
    fn undocumented_keys_are_named() {
        let definition = with(key::ISV_SECRET, serde_json::json!({"a": "b"})).unwrap();
        assert_eq!(definition.ignored_keys, ["ISV_SECRET"]);
    }

    #[test]
    fn l1_no_error_or_debug_text_repeats_a_value() {
        let canary = "canary-5f3a";
        for key in body().keys() {
            for value in [Value::from(canary), serde_json::json!([canary]), 17.into()] {
                let shown = match with(key, value) {
                    Ok(definition) => format!(
                        "{:?} {:?}",
                        definition.push_credentials.password,
                        definition.manifest_storage.map(|storage| storage.access.credentials)
                    ),
                    Err(error) => format!("{error} {error:?}"),
                };
                assert!(!shown.contains(canary), "{key}: {shown}");
            }
        }
    }
}
