//! The step after the tag where the definition names a notary: Docker Content Trust.

use sbs_crypto::digest;
use sbs_proto::{Credentials, ImageReference, NotaryServer};
use sbs_registry::RegistryClient;
use sbs_registry::RegistryError;
use sbs_registry::notary::{Gun, NotaryKeys, Publication, PublishError, publish};
use thiserror::Error;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::build::failure::{Failure, StepError};
use crate::build::log::BuildLog;
use crate::build::notary_roots::{NotaryRoots, NotaryRootsError};
use crate::build::sign::Tagged;

/// What an image is announced with.
#[derive(Debug)]
pub(crate) struct Notary<'a> {
    pub(crate) client: &'a RegistryClient,
    pub(crate) credentials: &'a Credentials,
    pub(crate) keys: &'a NotaryKeys,
    pub(crate) log: &'a BuildLog,
    pub(crate) now: OffsetDateTime,
    pub(crate) server: &'a NotaryServer,
}

/// Signs the tag of an image at a notary, and remembers what that one says.
pub(crate) async fn announce(
    tagged: &Tagged,
    manifest: &[u8],
    notary: &Notary<'_>,
    roots: &mut NotaryRoots,
    cancel: &CancellationToken,
) -> Result<(), AnnounceError> {
    let image = tagged.reference().clone();
    let fault = |fault| AnnounceError { image: image.clone(), fault };
    if let Some(warning) = notary.server.warning() {
        notary.log.warning(warning);
    }
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(fault(AnnounceFault::Cancelled)),
        result = sign(tagged, manifest, notary, roots) => result.map_err(fault),
    }
}

async fn sign(
    tagged: &Tagged,
    manifest: &[u8],
    notary: &Notary<'_>,
    roots: &mut NotaryRoots,
) -> Result<(), AnnounceFault> {
    let image = tagged.reference();
    if digest(manifest) != tagged.digest() {
        return Err(RegistryError::Internal("the manifest is not the one that was tagged").into());
    }
    let tag = image.tag().ok_or(RegistryError::Internal("an image without a tag"))?;
    let gun = Gun::new(image.registry(), image.repository());
    let credentials = Some(notary.credentials);
    let session = notary.client.for_notary(notary.server, &gun, credentials, notary.log)?;
    let remembered = roots.get(notary.server, &gun)?;
    // Before anything is sent: whatever becomes of the answer, the keys may count from then on.
    if remembered.is_none() {
        notary.log.warning(
            "the keys of this repository at the notary exist nowhere else: save the state, or no \
             other server can ever sign for it",
        );
    }
    let publication = Publication {
        tag,
        digest: tagged.digest(),
        size: manifest.len() as u64,
        keys: notary.keys,
        remembered: remembered.as_ref(),
    };
    let published = publish(&session, publication, notary.now).await?;
    Ok(roots.set(notary.server, published.target.remembered())?)
}

/// An image was not announced.
#[derive(Debug, Error)]
#[error("cannot announce `{image}` at the notary")]
pub(crate) struct AnnounceError {
    image: ImageReference,
    #[source]
    fault: AnnounceFault,
}

/// Why an image was not announced.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum AnnounceFault {
    /// Somebody asked for the end of the build.
    #[error("cancelled")]
    Cancelled,

    /// It was not signed.
    #[error(transparent)]
    Publish(#[from] PublishError),

    /// The notary cannot be spoken to.
    #[error(transparent)]
    Registry(#[from] RegistryError),

    /// What was seen before is not known, or what was seen now cannot be kept.
    #[error(transparent)]
    Roots(#[from] NotaryRootsError),
}

impl StepError for AnnounceError {
    fn failure(&self) -> Failure {
        let command = format!("docker trust sign {}", self.image);
        match self.fault {
            AnnounceFault::Cancelled => Failure { code: "cancelled", command, return_code: 137 },
            _ => Failure { code: "notary", command, return_code: 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use http::Method;
    use sbs_crypto::TrustSigningKey;
    use sbs_registry::notary::Remembered;
    use sbs_registry::testing::double::{Double, Reply};
    use sbs_registry::testing::{client, credentials};
    use serde_json::json;

    use super::*;
    use crate::build::testing::TestLog;

    #[tokio::test]
    async fn who_has_keys_that_nobody_else_has_is_told_even_if_the_answer_is_lost() {
        let key = TrustSigningKey::generate().unwrap();
        let public = STANDARD.encode(key.verifying_key().as_spki_der());
        let key = json!({ "keytype": "ecdsa", "keyval": { "private": null, "public": public } });
        let double = Double::start("127.0.0.1", move |seen| {
            if seen.is(&Method::GET, ".key") {
                return Reply::status(200).body(key.to_string());
            }
            // What it does with the documents is not known.
            Reply::status(if seen.method == Method::POST { 500 } else { 404 })
        })
        .await;
        let server = NotaryServer::parse(double.host()).unwrap();
        let image = ImageReference::parse("registry.example/team/app:v1").unwrap();
        let gun = Gun::new(image.registry(), image.repository());
        let now = OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap();
        let (client, credentials) = (client(), credentials());
        let keys = NotaryKeys::generate(&gun, now).unwrap();
        let tagged = Tagged::of_test(image, digest(b"a manifest"));
        let directory = tempfile::tempdir().unwrap();
        let mut roots = NotaryRoots::load(&directory.path().join("roots")).unwrap();
        let mut warned = async || {
            let log = TestLog::new();
            let notary = Notary {
                client: &client,
                credentials: &credentials,
                keys: &keys,
                log: &log.log,
                now,
                server: &server,
            };
            let cancel = CancellationToken::new();
            announce(&tagged, b"a manifest", &notary, &mut roots, &cancel).await.unwrap_err();
            let known = json!({ "gun": gun.to_string(), "root": "{}", "versions": {} });
            let known = Remembered::parse(known.to_string().as_bytes()).unwrap();
            roots.set(&server, &known).unwrap();
            log.text().contains("exist nowhere else: save the state")
        };
        assert!(warned().await);
        assert_eq!(double.count(&Method::POST, ""), 1);
        // An announcement that succeeded is remembered, and the warning was read.
        assert!(!warned().await);
    }
}
