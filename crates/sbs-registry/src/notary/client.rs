//! The exchange with a Notary server.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use sbs_proto::{Credentials, Digest, NotaryServer, RegistryHost};
use url::Url;

use super::TrustDefect;
use super::error::Fault;
use super::key::RawKey;
use super::metadata::{FileMeta, TrustRole};
use super::name::Gun;
use crate::auth::{Access, Login, Scope};
use crate::transport::{Attempts, Call, Payload};
use crate::{Inner, Limits, Log, RegistryClient, RegistryError, Session};

impl RegistryClient {
    /// Begins a session with a Notary server about one repository.
    ///
    /// The credentials are for the server. Those of the image's registry are so where the two are one
    /// service ([`shares_logins`]), or where whoever they belong to has named the server for them.
    ///
    /// Nothing is sent until something is asked for.
    pub fn for_notary(
        &self,
        server: &NotaryServer,
        gun: &Gun,
        credentials: Option<&Credentials>,
        log: &(impl Log + Clone + 'static),
    ) -> Result<NotarySession, RegistryError> {
        let base = Url::parse(&format!("{server}/v2/"))
            .map_err(|_| RegistryError::Internal("a server's name makes no URL"))?;
        let session = Session(Arc::new(Inner {
            base,
            client: self.clone(),
            log: Arc::new(log.clone()),
            login: Login::new(credentials),
            registry: server.host().clone(),
            // Here a repository's name has its registry in front.
            scope_prefix: format!("{}/", gun.registry()),
        }));
        Ok(NotarySession { session, gun: gun.clone() })
    }
}

/// Tells whether a Notary server may have the credentials of a registry without being named for them:
/// where it is the same machine, and at Docker Hub.
///
/// That a definition or a trust bundle names a notary is no reason to send it a password.
pub fn shares_logins(server: &NotaryServer, registry: &RegistryHost) -> bool {
    let docker_hub = registry.is_docker_hub() && server.is_docker_hub();
    docker_hub || server.host().name() == registry.name()
}

/// The exchange with a Notary server about one repository. Clones share logins and connections.
#[derive(Clone, Debug)]
pub struct NotarySession {
    session: Session,
    gun: Gun,
}

impl NotarySession {
    /// Returns the repository.
    pub fn gun(&self) -> &Gun {
        &self.gun
    }

    /// Returns the log of the session.
    pub fn log(&self) -> &dyn Log {
        self.session.log()
    }

    /// Returns the limits of the session.
    pub fn limits(&self) -> &Limits {
        self.session.limits()
    }

    /// Fetches the present version of a document; `None` if the server says that it has none.
    pub(super) async fn latest(&self, role: TrustRole) -> Result<Option<Vec<u8>>, Fault> {
        self.document(role, &format!("{role}.json"), role.max_bytes()).await
    }

    /// Fetches one version of the root.
    pub(super) async fn root_version(&self, version: u64) -> Result<Option<Vec<u8>>, Fault> {
        let role = TrustRole::Root;
        self.document(role, &format!("{version}.{role}.json"), role.max_bytes()).await
    }

    /// Fetches the document that another one lists, by its hash, so that what somebody publishes
    /// in between does no harm.
    pub(super) async fn listed(
        &self,
        role: TrustRole,
        by: TrustRole,
        meta: &FileMeta,
    ) -> Result<Vec<u8>, Fault> {
        let digest = meta.sha256().ok_or(TrustDefect::Malformed { role: by })?;
        if meta.length > role.max_bytes() {
            return Err(TrustDefect::TooLarge { role, max_bytes: role.max_bytes() }.into());
        }
        let name = format!("{role}.{}.json", digest.to_hex());
        let bytes = match self.document(role, &name, meta.length).await {
            Ok(found) => found.ok_or(TrustDefect::Missing { role })?,
            Err(Fault::Defect(TrustDefect::TooLarge { .. })) => {
                return Err(TrustDefect::HashMismatch { role, by }.into());
            }
            Err(fault) => return Err(fault),
        };
        check_listed(role, by, &bytes, (digest, meta.length))?;
        Ok(bytes)
    }

    /// Fetches the public half of a key that the server holds, and makes it if need be.
    pub(super) async fn server_key(&self, role: TrustRole) -> Result<RawKey, RegistryError> {
        let call = self.call(Method::GET, &format!("{role}.key"), Access::Push)?;
        let what = "key of the server";
        let fetched = self.fetch(&call, what, MAX_KEY_BYTES).await?;
        let key = fetched.and_then(|bytes| sbs_proto::parse_json::<RawKey>(&bytes).ok());
        let key = key.filter(|key| key.parse().is_some());
        key.ok_or_else(|| self.session.malformed("a key of the server that is none"))
    }

    /// Publishes documents, all or none of them.
    pub(super) async fn publish(
        &self,
        documents: &[(TrustRole, String)],
    ) -> Result<Publishing, RegistryError> {
        let boundary = format!("sbs-{:032x}", u128::from_be_bytes(sbs_crypto::random_bytes()));
        let mut call = self.call(Method::POST, "", Access::Push)?;
        let form = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}"));
        let form = form.map_err(|_| RegistryError::Internal("a content type"))?;
        call.headers.insert(CONTENT_TYPE, form);
        call.payload = Payload::Bytes(Bytes::from(multipart(&boundary, documents)));
        let response = self.session.call(&call).await?;
        if response.status() == StatusCode::OK {
            return Ok(Publishing::Done);
        }
        match self.session.refusal(response, "repository").await.error {
            RegistryError::Rejected { status: 400, reason, .. }
                if reason.as_str() == OLD_VERSION =>
            {
                Ok(Publishing::Conflict)
            }
            error => Err(error),
        }
    }

    async fn document(
        &self,
        role: TrustRole,
        name: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let call = self.call(Method::GET, name, Access::Pull)?;
        match self.fetch(&call, role.as_str(), max_bytes).await {
            Err(RegistryError::TooLarge { max_bytes, .. }) => {
                Err(TrustDefect::TooLarge { role, max_bytes }.into())
            }
            other => Ok(other?),
        }
    }

    /// Fetches something short; `None` if the server says that it has no such thing.
    async fn fetch(
        &self,
        call: &Call<'_>,
        what: &'static str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let mut attempts = Attempts::new(&self.session);
        loop {
            let fetched = async {
                let response = self.session.once(call).await?;
                match response.status() {
                    StatusCode::OK => self.session.read(response, what, max_bytes).await.map(Some),
                    StatusCode::NOT_FOUND => Ok(None),
                    _ => Err(self.session.refusal(response, what).await),
                }
            };
            match fetched.await {
                Ok(found) => return Ok(found),
                Err(fault) => attempts.pause(fault).await?,
            }
        }
    }

    fn call(&self, method: Method, name: &str, access: Access) -> Result<Call<'_>, RegistryError> {
        // Without the dot, a host with a port would be read as a scheme.
        let url = self.session.url(&format!("./{}/_trust/tuf/{name}", self.gun))?;
        Ok(Call::new(method, url, Scope { repository: self.gun.repository(), access }))
    }
}

/// What came of an attempt to publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Publishing {
    Done,
    /// Somebody else was faster.
    Conflict,
}

/// Checks that these bytes are what a document lists.
pub(super) fn check_listed(
    role: TrustRole,
    by: TrustRole,
    bytes: &[u8],
    (digest, length): (Digest, u64),
) -> Result<(), TrustDefect> {
    if bytes.len() as u64 != length || sbs_crypto::digest(bytes) != digest {
        return Err(TrustDefect::HashMismatch { role, by });
    }
    Ok(())
}

/// Writes a form (RFC 7578). Nothing in it can hold the boundary, which is random.
fn multipart(boundary: &str, documents: &[(TrustRole, String)]) -> String {
    let mut form = String::new();
    for (role, text) in documents {
        for part in [
            "--",
            boundary,
            "\r\nContent-Disposition: form-data; name=\"files\"; filename=\"",
            role.as_str(),
            "\"\r\nContent-Type: application/octet-stream\r\n\r\n",
            text,
            "\r\n",
        ] {
            form.push_str(part);
        }
    }
    form.push_str("--");
    form.push_str(boundary);
    form.push_str("--\r\n");
    form
}

// The server's code for a version that is not newer than what it has.
const OLD_VERSION: &str = "VERSION";
const MAX_KEY_BYTES: u64 = 16 * 1024;
