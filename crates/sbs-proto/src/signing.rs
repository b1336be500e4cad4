//! What an image definition says of signatures: which base images are trusted, and by which notary
//! the image is to be announced.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;
use url::Url;

use crate::definition::{flag, missing, text};
use crate::{ImageReference, Members, ParseDefinitionError, RegistryHost, key};

/// How base images must be signed, where `DOCKER_CONTENT_TRUST_BASE` is "True".
///
/// Every external image must be signed in one of the ways that are given; there is at least one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BaseTrust {
    /// A public key, PEM, of cosign signatures: `BASE_COSIGN_PUBLIC_KEY`.
    pub cosign_key: Option<String>,
    /// Docker Content Trust: `DOCKER_CONTENT_TRUST_BASE_SERVER`.
    pub notary: Option<NotaryTrust>,
    /// Red Hat simple signing: `BASE_REPO_PUBLIC_KEY` and `ICR_BASE_REPO`.
    pub openpgp: Option<OpenPgpTrust>,
}

/// Trust in images that a notary server vouches for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotaryTrust {
    /// The root key that must stand behind a repository, as `DOCKER_CONTENT_TRUST_BASE_ROOT` names it:
    /// its id, or its one certificate as PEM or in base64. Without it the root of first use is believed
    /// and remembered.
    pub root: Option<String>,
    /// The server.
    pub server: NotaryServer,
}

/// Trust in images that an OpenPGP key has signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenPgpTrust {
    /// The image that the key is for, as `ICR_BASE_REPO` names it.
    pub image: Option<ImageReference>,
    /// The public key, as the client sent it: armored.
    pub key: String,
}

/// The address of a notary server: always https.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct NotaryServer(RegistryHost);

impl NotaryServer {
    /// The host of Docker Hub's public service.
    pub const DOCKER_HUB: &str = "notary.docker.io";

    /// Parses `host[:port]`, or the same as a URL with `https`.
    pub fn parse(text: &str) -> Result<Self, ParseNotaryServerError> {
        let text = text.trim();
        let host = match text.split_once("://") {
            None => text,
            Some(("https", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(_) => return Err(ParseNotaryServerError::Scheme),
        };
        let host = RegistryHost::parse(host).map_err(|_| ParseNotaryServerError::Host)?;
        // What a URL would read otherwise is no host.
        Url::parse(&format!("https://{host}/")).map_err(|_| ParseNotaryServerError::Host)?;
        Ok(Self(host))
    }

    /// Returns Docker Hub's public service.
    pub fn docker_hub() -> Self {
        Self::parse(Self::DOCKER_HUB).expect("the name of a host")
    }

    /// Returns the host, with its port where it is not 443.
    pub fn host(&self) -> &RegistryHost {
        &self.0
    }

    /// Tells whether this is Docker Hub's public service.
    pub fn is_docker_hub(&self) -> bool {
        self.0.as_str() == Self::DOCKER_HUB
    }

    /// Returns what users of this server have to be told about its end.
    pub fn warning(&self) -> Option<&'static str> {
        self.is_docker_hub().then_some(END_OF_SERVICE)
    }
}

impl Serialize for NotaryServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NotaryServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl fmt::Display for NotaryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.0)
    }
}

/// Why a text names no notary server.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseNotaryServerError {
    /// It is no host.
    #[error(
        "not the address of a Notary server; give `host`, `host:port` or `https://host[:port]`"
    )]
    Host,

    /// It is a URL of another kind.
    #[error("a Notary server is spoken to over `https` only; give `https://host[:port]`")]
    Scheme,
}

/// Tells whether a host belongs to IBM's registry, which has no notary any more: where a configuration
/// names it as one, also at the port that its notary had (`us.icr.io:4443`), Red Hat simple signing is
/// meant.
fn is_icr(server: &NotaryServer) -> bool {
    let name = server.host().name();
    name == "icr.io" || name.ends_with(".icr.io")
}

/// Reads how base images must be signed; `None` where they need not be.
pub(crate) fn parse_base_trust(
    members: &Members,
) -> Result<Option<BaseTrust>, ParseDefinitionError> {
    if !flag(members, key::DOCKER_CONTENT_TRUST_BASE)? {
        return Ok(None);
    }
    let server = notary(members, key::DOCKER_CONTENT_TRUST_BASE_SERVER)?;
    let icr = server.as_ref().is_some_and(is_icr);
    let openpgp = parse_openpgp(members)?;
    let cosign_key = text(members, key::BASE_COSIGN_PUBLIC_KEY)?.map(ToOwned::to_owned);
    if icr && openpgp.is_none() {
        return Err(missing(key::BASE_REPO_PUBLIC_KEY));
    }
    // The default is the public service only where no other way is given.
    let server = match server {
        Some(server) => (!icr).then_some(server),
        None if openpgp.is_some() || cosign_key.is_some() => None,
        None => Some(NotaryServer::docker_hub()),
    };
    let root = text(members, key::DOCKER_CONTENT_TRUST_BASE_ROOT)?.map(ToOwned::to_owned);
    let notary = server.map(|server| NotaryTrust { root, server });
    Ok(Some(BaseTrust { cosign_key, notary, openpgp }))
}

/// Reads the notary by which the built image is to be announced, if one is named.
pub(crate) fn parse_push_notary(
    members: &Members,
) -> Result<Option<NotaryServer>, ParseDefinitionError> {
    let server = notary(members, key::DOCKER_CONTENT_TRUST_PUSH_SERVER)?;
    Ok(server.filter(|server| !is_icr(server)))
}

fn parse_openpgp(members: &Members) -> Result<Option<OpenPgpTrust>, ParseDefinitionError> {
    let Some(key) = text(members, key::BASE_REPO_PUBLIC_KEY)? else { return Ok(None) };
    let image = text(members, key::ICR_BASE_REPO)?.map(|image| {
        ImageReference::parse(image).map_err(|source| ParseDefinitionError::BadReference {
            key: key::ICR_BASE_REPO,
            source,
        })
    });
    Ok(Some(OpenPgpTrust { image: image.transpose()?, key: key.to_owned() }))
}

fn notary(
    members: &Members,
    key: &'static str,
) -> Result<Option<NotaryServer>, ParseDefinitionError> {
    text(members, key)?
        .map(NotaryServer::parse)
        .transpose()
        .map_err(|source| ParseDefinitionError::BadNotaryServer { key, source })
}

// Docker's announcement; the present client of Docker, version 29, no longer has the function.
const END_OF_SERVICE: &str = "Docker ends the service notary.docker.io on 8 December 2026: from then on \
     images at Docker Hub can neither be signed with Docker Content Trust nor checked by it; use \
     another form of signature, or a Notary server of your own";

#[cfg(test)]
mod tests {
    use super::*;

    fn members(pairs: &[(&str, &str)]) -> Members {
        let mut members = Members::default();
        for (key, value) in pairs {
            members.insert(key, *value);
        }
        members
    }

    #[test]
    fn a_notary_server_is_a_host_with_or_without_its_scheme() {
        for (text, expected) in [
            ("notary.docker.io", "https://notary.docker.io"),
            ("https://notary.docker.io", "https://notary.docker.io"),
            ("https://notary.example.com:4443/", "https://notary.example.com:4443"),
            ("us.icr.io:4443", "https://us.icr.io:4443"),
            (" 127.0.0.1:14443\n", "https://127.0.0.1:14443"),
        ] {
            assert_eq!(NotaryServer::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn r5_credentials_go_over_https_to_a_host() {
        use ParseNotaryServerError::{Host, Scheme};
        for (text, expected) in [
            ("http://notary.example.com", Scheme),
            ("ftp://notary.example.com", Scheme),
            ("HTTPS+x://notary.example.com", Scheme),
            ("https://user@notary.example.com", Host),
            ("https://notary.example.com/path", Host),
            ("https://notary.example.com//", Host),
            ("https://notary.example.com?x", Host),
            ("https://", Host),
            ("notary.example.com:0", Host),
            ("", Host),
            ("a b", Host),
        ] {
            assert_eq!(NotaryServer::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn only_the_service_that_ends_is_warned_of() {
        assert!(NotaryServer::docker_hub().warning().unwrap().contains("8 December 2026"));
        assert_eq!(NotaryServer::parse("r.example.com:5000").unwrap().warning(), None);
    }

    #[test]
    fn base_images_are_trusted_in_the_ways_that_are_given() {
        let on = (key::DOCKER_CONTENT_TRUST_BASE, "True");
        let server = |value| (key::DOCKER_CONTENT_TRUST_BASE_SERVER, value);
        let openpgp = (key::BASE_REPO_PUBLIC_KEY, "armored");
        let cosign = (key::BASE_COSIGN_PUBLIC_KEY, "pem");
        let told = |pairs: &[(&str, &str)]| {
            let trust = parse_base_trust(&members(pairs)).unwrap().unwrap();
            let notary = trust.notary.map(|notary| notary.server.to_string());
            (notary, trust.openpgp.is_some(), trust.cosign_key.is_some())
        };
        let hub = Some("https://notary.docker.io".to_owned());
        assert_eq!(told(&[on]), (hub, false, false));
        assert_eq!(told(&[on, server("de.icr.io"), openpgp]), (None, true, false));
        assert_eq!(told(&[on, server("us.icr.io:4443"), openpgp]), (None, true, false));
        assert_eq!(told(&[on, openpgp]), (None, true, false));
        assert_eq!(told(&[on, cosign]), (None, false, true));
        let own = Some("https://notary.example".to_owned());
        assert_eq!(told(&[on, server("notary.example"), cosign]), (own, false, true));
        for off in [&[][..], &[openpgp], &[(key::DOCKER_CONTENT_TRUST_BASE, "False"), cosign]] {
            assert_eq!(parse_base_trust(&members(off)).unwrap(), None);
        }
    }

    #[test]
    fn a_registry_without_notary_needs_a_key() {
        for server in ["https://us.icr.io", "us.icr.io:4443"] {
            let given = [
                (key::DOCKER_CONTENT_TRUST_BASE, "True"),
                (key::DOCKER_CONTENT_TRUST_BASE_SERVER, server),
            ];
            let error = parse_base_trust(&members(&given)).unwrap_err();
            assert_eq!(error, missing(key::BASE_REPO_PUBLIC_KEY));
        }
    }

    #[test]
    fn only_a_notary_is_asked_to_announce() {
        let push = |value| {
            let given = [(key::DOCKER_CONTENT_TRUST_PUSH_SERVER, value)];
            parse_push_notary(&members(&given)).unwrap().map(|server| server.to_string())
        };
        assert_eq!(push("de.icr.io"), None);
        assert_eq!(push("https://de.icr.io"), None);
        assert_eq!(push("us.icr.io:4443"), None);
        assert_eq!(push("https://icr.io:4443/"), None);
        assert_eq!(push("noticr.io"), Some("https://noticr.io".to_owned()));
        let other = "icr.io.example:4443";
        assert_eq!(push(other), Some(format!("https://{other}")));
        assert_eq!(push(""), None);
    }
}
