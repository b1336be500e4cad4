//! Where trust data is, and under which name.

use std::fmt;

use sbs_proto::{RegistryHost, Repository};
use thiserror::Error;
use url::Url;

/// The name that a repository has in trust data: `registry/path`, such as `docker.io/library/alpine`.
///
/// Notary calls it the *globally unique name*.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Gun {
    registry: RegistryHost,
    repository: Repository,
}

impl Gun {
    /// Returns the name of a registry's repository.
    pub fn new(registry: &RegistryHost, repository: &Repository) -> Self {
        Self { registry: registry.clone(), repository: repository.clone() }
    }

    /// Returns the registry.
    pub fn registry(&self) -> &RegistryHost {
        &self.registry
    }

    /// Returns the repository in its registry.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }
}

impl fmt::Display for Gun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

/// A server of trust data.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct NotaryServer(RegistryHost);

impl NotaryServer {
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

    /// Returns the server that docker's client asks for the images of a registry where no other is
    /// named: Docker Hub has one beside it, other registries are their own.
    pub fn for_registry(registry: &RegistryHost) -> Self {
        if registry.is_docker_hub() {
            return Self::parse(DOCKER_HUB_NOTARY).expect("the name of a host");
        }
        Self(registry.clone())
    }

    /// Returns the host, with its port where it is not 443.
    pub fn host(&self) -> &RegistryHost {
        &self.0
    }

    /// Returns what users of this server have to be told about its end.
    pub fn warning(&self) -> Option<&'static str> {
        (self.0.as_str() == DOCKER_HUB_NOTARY).then_some(END_OF_SERVICE)
    }
}

impl fmt::Display for NotaryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.0)
    }
}

/// Why a text names no server.
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

/// The public service's host.
pub(crate) const DOCKER_HUB_NOTARY: &str = "notary.docker.io";

// Docker's announcement; the present client of Docker, version 29, no longer has the function.
const END_OF_SERVICE: &str = "Docker ends the service notary.docker.io on 8 December 2026: from then on \
     images at Docker Hub can neither be signed with Docker Content Trust nor checked by it; use \
     another form of signature, or a Notary server of your own";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_forms_of_the_setting() {
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
            ("https://notary.example.com?x", Host),
            ("https://", Host),
            ("", Host),
            ("a b", Host),
        ] {
            assert_eq!(NotaryServer::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn only_the_service_that_ends_is_warned_of() {
        let hub = NotaryServer::for_registry(&RegistryHost::docker_hub());
        assert!(hub.warning().unwrap().contains("8 December 2026"));
        let other = NotaryServer::for_registry(&RegistryHost::parse("r.example.com:5000").unwrap());
        assert_eq!(
            (other.to_string().as_str(), other.warning()),
            ("https://r.example.com:5000", None)
        );
    }
}
