//! The step after the tag where the definition names a notary: Docker Content Trust.

use sbs_crypto::digest;
use sbs_proto::{Credentials, ImageReference, NotaryServer};
use sbs_registry::RegistryClient;
use sbs_registry::RegistryError;
use sbs_registry::notary::{Change, Gun, NotaryKeys, Publication, PublishError, publish};
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
    let publication = Publication {
        tag,
        digest: tagged.digest(),
        size: manifest.len() as u64,
        keys: notary.keys,
        foreign_root: None,
        remembered: remembered.as_ref(),
    };
    let published = publish(&session, publication, notary.now).await?;
    roots.set(notary.server, published.target.remembered())?;
    if published.change == Change::Created {
        notary.log.warning(
            "the keys of this repository at the notary exist nowhere else: save the state, or no \
             other server can ever sign for it",
        );
    }
    Ok(())
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
