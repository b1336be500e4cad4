use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::{Digest, ImageTag};

/// A registry: a host name or address with an optional port.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// Parses `host[:port]`; a scheme or a path is refused.
    ///
    /// So is a host without dot and port, other than `localhost`: a reference would not say that this
    /// is a registry, and whoever reads one would look for it at Docker Hub.
    pub fn parse(text: &str) -> Result<Self, ParseImageReferenceError> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good_host = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        if good_host && good_port && names_a_registry(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseImageReferenceError::Registry)
        }
    }

    /// Returns Docker Hub, the registry of references that name none.
    pub fn docker_hub() -> Self {
        Self(DOCKER_HUB.to_owned())
    }

    /// Returns the registry as it stands in a reference.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name or the address without the port: whose machine it is.
    pub fn name(&self) -> &str {
        match self.0.rsplit_once(':') {
            // An IPv6 address without a port ends in a bracket.
            Some((name, port)) if !port.ends_with(']') => name,
            _ => &self.0,
        }
    }

    /// Returns the host and port that answer for this registry.
    ///
    /// Docker Hub's name and its API host differ.
    pub fn api_host(&self) -> &str {
        if self.is_docker_hub() { "registry-1.docker.io" } else { &self.0 }
    }

    /// Tells whether this is Docker Hub.
    pub fn is_docker_hub(&self) -> bool {
        self.0 == DOCKER_HUB
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a repository inside a registry (OCI distribution specification 1.1).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Repository(String);

impl Repository {
    /// Parses a repository name: lower-case parts separated by `/`, at most 255 bytes.
    pub fn parse(text: &str) -> Result<Self, ParseImageReferenceError> {
        let good = text.len() <= MAX_REPOSITORY_BYTES && text.split('/').all(is_repository_part);
        if good { Ok(Self(text.to_owned())) } else { Err(ParseImageReferenceError::Repository) }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image reference, `registry/repository[:tag][@digest]`, with nothing left implicit.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ImageReference {
    registry: RegistryHost,
    repository: Repository,
    tag: Option<ImageTag>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// Makes a reference to a repository, without tag or digest.
    pub fn new(registry: RegistryHost, repository: Repository) -> Self {
        Self { registry, repository, tag: None, digest: None }
    }

    /// Parses a reference the way Docker does: the registry is `docker.io` and the namespace
    /// `library` where they are not written. A tag is not filled in.
    pub fn parse(text: &str) -> Result<Self, ParseImageReferenceError> {
        Self::parse_with(text, &RegistryHost::docker_hub())
    }

    /// Parses a reference whose registry, where it is not written, is `default`.
    pub fn parse_with(
        text: &str,
        default: &RegistryHost,
    ) -> Result<Self, ParseImageReferenceError> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = Digest::parse(digest).map_err(|_| ParseImageReferenceError::Digest)?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            // A colon before the last slash is that of a port.
            Some((name, tag)) if !tag.contains('/') => {
                let tag = ImageTag::parse(tag).map_err(|_| ParseImageReferenceError::Tag)?;
                (name, Some(tag))
            }
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if names_a_registry(first) => (RegistryHost::parse(first)?, rest),
            _ => (default.clone(), name),
        };
        let repository = if registry.is_docker_hub() && !repository.contains('/') {
            Repository::parse(&format!("library/{repository}"))?
        } else {
            Repository::parse(repository)?
        };
        Ok(Self { registry, repository, tag, digest })
    }

    /// Returns the same repository with this tag and no digest.
    #[must_use]
    pub fn with_tag(&self, tag: ImageTag) -> Self {
        Self { tag: Some(tag), digest: None, ..self.clone() }
    }

    /// Returns the same repository with this digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Returns the registry.
    pub fn registry(&self) -> &RegistryHost {
        &self.registry
    }

    /// Returns the repository inside the registry.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the tag.
    pub fn tag(&self) -> Option<&ImageTag> {
        self.tag.as_ref()
    }

    /// Returns the digest.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Serialize for ImageReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// Why a text is not an image reference.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseImageReferenceError {
    /// What follows `@` is not a SHA-256 digest.
    #[error("image reference has a digest that is not `sha256:<64 lower-case hex digits>`")]
    Digest,

    /// The registry is not `host[:port]`.
    #[error(
        "registry is not of the form `host` or `host:port`; a host without a dot, other than \
         `localhost`, needs its port"
    )]
    Registry,

    /// The repository is not a lower-case path.
    #[error("repository is not of the form `name/name`, in lower case, of at most 255 bytes")]
    Repository,

    /// The tag has a form that tags cannot have.
    #[error("image tag has a form that tags cannot have")]
    Tag,
}

/// Tells whether `text` is a host name or an IPv4 address.
pub(crate) fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_HOST_BYTES
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= MAX_LABEL_BYTES
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Docker's rule for whether the first part of a reference is a registry.
fn names_a_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

/// Runs of `[a-z0-9]`, joined by `.`, `_`, `__` or any number of `-`.
fn is_repository_part(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends.iter().all(|end| end.is_some_and(|b| alphanumeric(*b)))
        && separators
            .filter(|run| !run.is_empty())
            .all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

const DOCKER_HUB: &str = "docker.io";
const MAX_REPOSITORY_BYTES: usize = 255;
// RFC 1035, 2.3.4.
const MAX_HOST_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_what_docker_fills_in() {
        let hex = "a".repeat(64);
        for (text, expected) in [
            ("debian", "docker.io/library/debian".to_owned()),
            ("debian:12", "docker.io/library/debian:12".to_owned()),
            ("user/app", "docker.io/user/app".to_owned()),
            ("us.icr.io/ns/app:v1", "us.icr.io/ns/app:v1".to_owned()),
            ("localhost/app", "localhost/app".to_owned()),
            ("localhost:5000/app", "localhost:5000/app".to_owned()),
            ("[::1]:5000/app", "[::1]:5000/app".to_owned()),
            (&format!("a.b/c@sha256:{hex}"), format!("a.b/c@sha256:{hex}")),
            (&format!("a.b:1/c/d:t@sha256:{hex}"), format!("a.b:1/c/d:t@sha256:{hex}")),
        ] {
            let reference = ImageReference::parse(text).unwrap();
            assert_eq!(reference.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn machines_are_told_apart_by_their_names() {
        for (host, expected) in [
            ("r.example", "r.example"),
            ("r.example:5000", "r.example"),
            ("127.0.0.1:5000", "127.0.0.1"),
            ("[fe80::1]:5000", "[fe80::1]"),
            ("[fe80::1]", "[fe80::1]"),
        ] {
            assert_eq!(RegistryHost::parse(host).unwrap().name(), expected);
        }
    }

    #[test]
    fn b6_hostile_references_are_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            "/",
            "a//b",
            "A",
            "a/B",
            "a b",
            "a\nb",
            "a/../b",
            "../a",
            "a/.",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "a:",
            "a:-x",
            "a:b:c",
            "a@sha256:12",
            "a@md5:00",
            "a@",
            "a@b@c",
            "a.b/",
            "a.b:x/c",
            "a.b:0/c",
            "a.b:65536/c",
            "http://a.b/c",
            "-a.b/c",
            "a.b-/c",
            "[::1/c",
            "a\0",
            "a:\u{202e}",
            "ü",
            &long,
            &format!("a:{long}"),
            &format!("{long}.b/c"),
            "$x",
            "a;b",
            "a`b",
            "~a",
        ] {
            assert!(ImageReference::parse(text).is_err(), "{text:?}");
        }
    }

    /// Else the text of what was pushed to `registry` would name another image, at Docker Hub.
    #[test]
    fn b6_a_registry_is_one_in_every_reference() {
        let repository = Repository::parse("ns/app").unwrap();
        for text in ["docker.io", "a.b", "a:5000", "localhost", "[::1]", "[::1]:5000", "127.0.0.1"]
        {
            let registry = RegistryHost::parse(text).unwrap();
            let reference = ImageReference::new(registry, repository.clone());
            assert_eq!(ImageReference::parse(&reference.to_string()), Ok(reference), "{text}");
        }
        for text in ["registry", "Registry", "local-host", "", "a:0", "a.b:", "a.b/c"] {
            let expected = Err(ParseImageReferenceError::Registry);
            assert_eq!(RegistryHost::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_digest_replaces_a_tag_and_a_tag_a_digest() {
        let image = ImageReference::parse("a.b/c:t").unwrap();
        let digest = Digest::from_bytes([0; 32]);
        assert_eq!(image.with_digest(digest).tag(), None);
        let tag = ImageTag::parse("u").unwrap();
        assert_eq!(image.with_digest(digest).with_tag(tag).to_string(), "a.b/c:u");
    }

    #[test]
    fn docker_hub_answers_elsewhere() {
        assert_eq!(RegistryHost::docker_hub().api_host(), "registry-1.docker.io");
        assert_eq!(RegistryHost::parse("a:5000").unwrap().api_host(), "a:5000");
    }
}
