//! The v2 wire: what is told of builds, and the routes of their files.
//!
//! | route | what |
//! |---|---|
//! | [`INFO`] | what the server is and can do |
//! | [`BUILDS_PATTERN`] | the builds of an image definition, newest first |
//! | [`BUILD_PATTERN`] | one build |
//! | [`file()`] | a file of a build, as its bytes |
//! | [`TRUST_PATTERN`] | the public keys of an image definition |
//! | [`ROTATION_PATTERN`] | a new key for one of its roles |
//! | [`CERTIFICATES`] | the certificates of the server, and of its clients' authorities |
//! | [`CERTIFICATE_REQUEST`] | a request for a certificate of the server |
//! | [`SERVER_CERTIFICATE`] | that certificate |
//! | [`STATE`] | the state image, as its bytes: export (GET) and import (POST) |
//!
//! A client takes a `404` on [`INFO`] as the word of a server that speaks v1 alone.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    BuildName, CertificateDates, DefinitionName, Digest, ImageReference, ImageTag, KeyRole,
    ParseNameError, StateLabel,
};

/// What the server is and can do.
pub const INFO: &str = "/v2/info";

/// The certificates: what is told of them.
pub const CERTIFICATES: &str = "/v2/certificates";

/// A request for a certificate of the server, made by a POST of `{"host": "…"}`.
pub const CERTIFICATE_REQUEST: &str = "/v2/certificates/csr";

/// The certificate of the server: a PUT of `{"certificate": "…"}` replaces it.
pub const SERVER_CERTIFICATE: &str = "/v2/certificates/server";

/// The state image.
pub const STATE: &str = "/v2/state";

/// The pattern of the routes of builds, with the image definition's name as `{name}`.
pub const BUILDS_PATTERN: &str = "/v2/images/{name}/builds";

/// The pattern of the route of one build; `{id}` is a [`Selector`].
pub const BUILD_PATTERN: &str = "/v2/images/{name}/builds/{id}";

/// The pattern of the route of what relying parties need, with the image definition's name as
/// `{name}`.
pub const TRUST_PATTERN: &str = "/v2/images/{name}/trust";

/// The pattern of the routes on which a key is rotated (POST) and the one before it retired
/// (DELETE); `{role}` is a [`KeyRole`]. Both take [`SECRET`](crate::key::SECRET) in their body and
/// answer as [`TRUST_PATTERN`] does.
pub const ROTATION_PATTERN: &str = "/v2/images/{name}/keys/{role}/rotation";

/// The most builds in one [`BuildPage`].
pub const PAGE_BUILDS: usize = 100;

/// Returns the route of an image definition's builds.
pub fn builds(definition: &DefinitionName) -> String {
    BUILDS_PATTERN.replace("{name}", definition.as_str())
}

/// Returns the route of what relying parties need to check the images of a definition.
pub fn trust(definition: &DefinitionName) -> String {
    TRUST_PATTERN.replace("{name}", definition.as_str())
}

/// Returns the route on which a key is rotated.
pub fn rotation(definition: &DefinitionName, role: KeyRole) -> String {
    ROTATION_PATTERN.replace("{name}", definition.as_str()).replace("{role}", role.as_str())
}

/// Returns the route of one build.
pub fn build(definition: &DefinitionName, selector: &Selector) -> String {
    format!("{}/{selector}", builds(definition))
}

/// Returns the route of a file of a build.
pub fn file(definition: &DefinitionName, selector: &Selector, kind: FileKind) -> String {
    format!("{}/{}", build(definition, selector), kind.as_str())
}

/// Which file of a build.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileKind {
    /// The public key of the manifest, PEM.
    Key,
    /// The build log.
    Log,
    /// The manifest, `.sig.tbz`.
    Manifest,
    /// The manifest without what its own source brings again, `.thin.sig.tar.zst`.
    ThinManifest,
}

impl FileKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Key, Self::Log, Self::Manifest, Self::ThinManifest];

    /// Returns the last part of the route.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Log => "log",
            Self::Manifest => "manifest",
            Self::ThinManifest => "thin-manifest",
        }
    }
}

/// The number of a build among those of its image definition, 1 to 19 digits; later builds have
/// higher ones.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct BuildId(String);

impl BuildId {
    /// Parses the digits.
    pub fn parse(text: &str) -> Result<Self, ParseNameError> {
        match text.len() {
            0 => Err(ParseNameError::Empty { kind: BUILD_ID }),
            1..=MAX_DIGITS if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self(text.to_owned()))
            }
            1..=MAX_DIGITS => Err(ParseNameError::Form { kind: BUILD_ID }),
            _ => Err(ParseNameError::TooLong { kind: BUILD_ID, max: MAX_DIGITS }),
        }
    }

    /// Returns the digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the number.
    pub fn number(&self) -> u64 {
        self.0.parse().unwrap_or(u64::MAX)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BuildId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Which build a route means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selector {
    /// The build with this id, however it ended.
    Id(BuildId),
    /// The newest build that succeeded, `latest`.
    Latest,
    /// The build of this name, which succeeded.
    Named(BuildName),
}

impl Selector {
    /// Parses the part of a route: `latest`, digits, or a name.
    pub fn parse(text: &str) -> Result<Self, ParseNameError> {
        match BuildId::parse(text) {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) if text == LATEST => Ok(Self::Latest),
            Err(_) => BuildName::parse(text).map(Self::Named),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id(id) => id.as_str(),
            Self::Latest => LATEST,
            Self::Named(name) => name.as_str(),
        })
    }
}

/// The reply of [`INFO`]. More keys may come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Info {
    /// The version of the API, `2`.
    pub api: u32,
    /// Until when the certificates are good; absent where the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificateDates>,
    /// Words for what the server can do, such as `thin-manifests`.
    #[serde(default)]
    pub features: Vec<String>,
    /// What the server takes and sends at most.
    pub limits: Limits,
    /// What the server's keys are sealed under; absent where the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_secret: Option<RootSecret>,
    /// The version of the server's program.
    pub server_version: String,
}

/// What is told of a server's root secret: what the server says of itself, and no proof.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RootSecret {
    /// Whether it is kept in a way that is for development only.
    pub development: bool,
    /// Who keeps it, such as `tpm2`.
    pub provider: StateLabel,
}

/// What a server takes and sends at most.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// Builds in one page.
    pub page_builds: usize,
    /// Bytes of a request's body.
    pub request_body_bytes: u64,
    /// Bytes of a manifest that the v1 route sends.
    pub v1_manifest_bytes: u64,
}

/// Some builds of an image definition, newest first.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct BuildPage {
    /// The builds.
    pub builds: Vec<Build>,
    /// The `before` that brings the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<BuildId>,
}

/// What is told of one build.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Build {
    /// Its name; absent unless it succeeded. The manifest's name is made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_name: Option<BuildName>,
    /// A word for what failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Its number.
    pub id: BuildId,
    /// `registry/repository@sha256:…`, once the image is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageReference>,
    /// The tag of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tag: Option<ImageTag>,
    /// The manifest, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<StoredFile>,
    /// How far it is.
    pub phase: BuildPhase,
    /// When it began, RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// What the v1 status says of it.
    pub status: String,
    /// The thin manifest, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thin_manifest: Option<StoredFile>,
    /// The way of its manifest into a bucket; absent where it is to go into none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
}

/// How the upload of a manifest into a bucket goes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Upload {
    /// How often it was tried in vain.
    pub attempts: u32,
    /// Why the last attempt was in vain. It holds no credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How far it is.
    pub state: UploadState,
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// The manifest is in the bucket.
    Done,
    /// It was given up; a change of the image definition has it tried again.
    Failed,
    /// It will be tried, or tried again.
    Pending,
    /// A word that this version does not know.
    #[serde(other)]
    Unknown,
}

impl UploadState {
    /// Returns the word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
        }
    }
}

/// How far a build is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildPhase {
    /// A clean ended it.
    Cancelled,
    /// It failed.
    Failed,
    /// The server's end ended it.
    Interrupted,
    /// It runs.
    Running,
    /// It succeeded.
    Succeeded,
    /// A word that this version does not know.
    #[serde(other)]
    Unknown,
}

impl BuildPhase {
    /// Returns the word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Unknown => "unknown",
        }
    }
}

/// A file that does not change any more.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StoredFile {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The number of its bytes.
    pub size: u64,
}

impl StoredFile {
    /// Returns the strong entity tag of the file (RFC 9110, 8.8.3): its digest's hex digits, in
    /// quotes.
    pub fn entity_tag(&self) -> String {
        format!("\"{}\"", self.digest.to_hex())
    }
}

const BUILD_ID: &str = "build id";
const LATEST: &str = "latest";
// What fits into 64 bits whatever the digits are.
const MAX_DIGITS: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_what_it_prints() {
        let name = "r.example.app.v1.2026-01-02_03-04-05.000006";
        for (text, expected) in [
            ("latest", Selector::Latest),
            ("00000001", Selector::Id(BuildId::parse("00000001").unwrap())),
            (name, Selector::Named(BuildName::parse(name).unwrap())),
        ] {
            assert_eq!(Selector::parse(text), Ok(expected.clone()));
            assert_eq!(expected.to_string(), text);
        }
        for text in ["", "..", "../1", "a/b", "-1", "1 ", "\u{661}", &"1".repeat(256)] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        assert_eq!(BuildId::parse(&"9".repeat(19)).unwrap().number(), 9_999_999_999_999_999_999);
        BuildId::parse(&"1".repeat(20)).unwrap_err();
    }

    #[test]
    fn golden_routes() {
        let name = DefinitionName::default_name();
        let id = Selector::Id(BuildId::parse("07").unwrap());
        assert_eq!(builds(&name), "/v2/images/default/builds");
        assert_eq!(build(&name, &Selector::Latest), "/v2/images/default/builds/latest");
        let routes = FileKind::ALL.map(|kind| file(&name, &id, kind));
        let expected = ["key", "log", "manifest", "thin-manifest"]
            .map(|last| format!("/v2/images/default/builds/07/{last}"));
        assert_eq!(routes, expected);
    }

    #[test]
    fn golden_build() {
        let build = Build {
            build_name: None,
            failure: None,
            id: BuildId::parse("00000002").unwrap(),
            image: None,
            image_tag: None,
            manifest: Some(StoredFile { digest: Digest::from_bytes([10; 32]), size: 7 }),
            phase: BuildPhase::Succeeded,
            started_at: Some("2026-01-02T03:04:05Z".to_owned()),
            status: "success".to_owned(),
            thin_manifest: None,
            upload: Some(Upload { attempts: 1, reason: None, state: UploadState::Pending }),
        };
        let json = format!(
            r#"{{"id":"00000002","manifest":{{"digest":"sha256:{}","size":7}},"phase":"succeeded","started_at":"2026-01-02T03:04:05Z","status":"success","upload":{{"attempts":1,"state":"pending"}}}}"#,
            "0a".repeat(32)
        );
        assert_eq!(serde_json::to_string(&build).unwrap(), json);
        assert_eq!(serde_json::from_str::<Build>(&json).unwrap(), build);
    }

    #[test]
    fn golden_info() {
        let provider = StateLabel::parse("tpm2").unwrap();
        let info = Info {
            api: 2,
            certificates: Some(CertificateDates {
                client_authority_not_after: "2028-01-02T03:04:05Z".to_owned(),
                server_not_after: "2027-01-02T03:04:05Z".to_owned(),
            }),
            features: vec!["builds".to_owned()],
            limits: Limits { page_builds: 3, request_body_bytes: 4, v1_manifest_bytes: 5 },
            root_secret: Some(RootSecret { development: false, provider }),
            server_version: "6".to_owned(),
        };
        let json = r#"{"api":2,"certificates":{"client_authority_not_after":"2028-01-02T03:04:05Z","server_not_after":"2027-01-02T03:04:05Z"},"features":["builds"],"limits":{"page_builds":3,"request_body_bytes":4,"v1_manifest_bytes":5},"root_secret":{"development":false,"provider":"tpm2"},"server_version":"6"}"#;
        assert_eq!(serde_json::to_string(&info).unwrap(), json);
        assert_eq!(serde_json::from_str::<Info>(json).unwrap(), info);
        // A server of before does not say; what it says must be said whole.
        let without = json.replace(r#""root_secret":{"development":false,"provider":"tpm2"},"#, "");
        assert_eq!(serde_json::from_str::<Info>(&without).unwrap().root_secret, None);
        for (of, to) in [("\"development\":false,", ""), ("tpm2", "\\u001b")] {
            serde_json::from_str::<Info>(&json.replace(of, to)).unwrap_err();
        }
    }

    #[test]
    fn what_is_new_is_read_and_what_is_wrong_is_not() {
        let build = r#"{"id":"1","phase":"paused","status":"x","new":[1]}"#;
        assert_eq!(serde_json::from_str::<Build>(build).unwrap().phase, BuildPhase::Unknown);
        let upload = r#"{"attempts":0,"state":"paused","new":1}"#;
        let upload = serde_json::from_str::<Upload>(upload).unwrap();
        assert_eq!(upload.state, UploadState::Unknown);
        for build in [
            r#"{"id":"../1","phase":"failed","status":"x"}"#,
            r#"{"id":"1","phase":"failed","status":"x","build_name":"../x"}"#,
            r#"{"id":"1","phase":"failed","status":"x","image":"\u001b"}"#,
            r#"{"id":"1","phase":"failed","status":"x","manifest":{"digest":"sha256:0","size":1}}"#,
            r#"{"id":"1","phase":"failed","status":"x","manifest":{"digest":"","size":-1}}"#,
            r#"{"id":"1","phase":"failed","status":"x","upload":{"attempts":-1,"state":"done"}}"#,
        ] {
            serde_json::from_str::<Build>(build).unwrap_err();
        }
    }
}
