//! The name of trust data.

use std::fmt;

use sbs_proto::{RegistryHost, Repository};

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
