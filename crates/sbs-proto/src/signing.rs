//! What an image definition says of signatures: which base images are trusted, and by which notary
//! the image is to be announced.

use std::fmt;

use thiserror::Error;

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
    /// The root certificates, PEM, of which one must stand behind a repository:
    /// `DOCKER_CONTENT_TRUST_BASE_ROOT`. Without it the root of first use is believed and remembered.
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
    /// Parses what configurations have: `https://host[:port]`, with or without the scheme.
    pub fn parse(text: &str) -> Result<Self, ParseNotaryServerError> {
        let host = match text.split_once("://") {
            None => text,
            Some(("https", host)) => host.strip_suffix('/').unwrap_or(host),
            Some(_) => return Err(ParseNotaryServerError),
        };
        RegistryHost::parse(host).map(Self).map_err(|_| ParseNotaryServerError)
    }

    /// Returns the public service of Docker Hub.
    pub fn docker_hub() -> Self {
        Self(RegistryHost::parse(PUBLIC_SERVICE).expect("a host with a dot"))
    }

    /// Tells whether this is the public service of Docker Hub, which ends on 2026-12-08.
    pub fn is_docker_hub(&self) -> bool {
        self.0.as_str() == PUBLIC_SERVICE
    }

    /// Returns the server as `host[:port]`.
    pub fn host(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for NotaryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.0)
    }
}

/// The address of a notary server is malformed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a notary server is given as `https://host` or `https://host:port`; only https is taken")]
pub struct ParseNotaryServerError;

/// Tells whether a host belongs to IBM's registry, which has no notary: where a configuration names
/// it as one, Red Hat simple signing is meant.
pub(crate) fn is_icr(host: &str) -> bool {
    host == "icr.io" || host.ends_with(".icr.io")
}

/// Reads how base images must be signed; `None` where they need not be.
pub(crate) fn parse_base_trust(
    members: &Members,
) -> Result<Option<BaseTrust>, ParseDefinitionError> {
    if !flag(members, key::DOCKER_CONTENT_TRUST_BASE)? {
        return Ok(None);
    }
    let server = notary(members, key::DOCKER_CONTENT_TRUST_BASE_SERVER)?;
    let icr = server.as_ref().is_some_and(|server| is_icr(server.host()));
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
    Ok(server.filter(|server| !is_icr(server.host())))
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

const PUBLIC_SERVICE: &str = "notary.docker.io";

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
            ("https://notary.docker.io/", "https://notary.docker.io"),
            ("https://127.0.0.1:4443", "https://127.0.0.1:4443"),
            ("us.icr.io:4443", "https://us.icr.io:4443"),
        ] {
            assert_eq!(NotaryServer::parse(text).unwrap().to_string(), expected);
        }
        for text in [
            "",
            "http://notary.docker.io",
            "ftp://notary.docker.io",
            "https://user@notary.docker.io",
            "https://notary.docker.io/path",
            "https://notary.docker.io//",
            "https://notary.docker.io?x",
            "https://",
            "notary.docker.io:0",
        ] {
            assert_eq!(NotaryServer::parse(text), Err(ParseNotaryServerError), "{text}");
        }
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
        let given = [
            (key::DOCKER_CONTENT_TRUST_BASE, "True"),
            (key::DOCKER_CONTENT_TRUST_BASE_SERVER, "https://us.icr.io"),
        ];
        let error = parse_base_trust(&members(&given)).unwrap_err();
        assert_eq!(error, missing(key::BASE_REPO_PUBLIC_KEY));
    }

    #[test]
    fn only_a_notary_is_asked_to_announce() {
        let push = |value| {
            let given = [(key::DOCKER_CONTENT_TRUST_PUSH_SERVER, value)];
            parse_push_notary(&members(&given)).unwrap().map(|server| server.to_string())
        };
        assert_eq!(push("de.icr.io"), None);
        assert_eq!(push("https://de.icr.io"), None);
        assert_eq!(push("noticr.io"), Some("https://noticr.io".to_owned()));
        assert_eq!(push(""), None);
    }
}
