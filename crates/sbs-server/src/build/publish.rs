//! The publish step: blobs and image manifest are pushed by digest; no tag points to them yet.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sbs_proto::{Digest, ImageReference};
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use crate::build::engine::Built;
use crate::build::failure::{Failure, StepError};
use sbs_registry::{
    BlobSource, Descriptor, ImageManifest, ParseDocumentError, RegistryError, Session, Target,
    media_type,
};

/// An image that is in its repository, by digest. Only [`publish`] makes one.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    destination: ImageReference,
    digest: Digest,
    blobs: Vec<Digest>,
    manifest: Bytes,
}

impl Published {
    /// Returns the digest of the image manifest.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the repository, with the tag that the image is to have.
    pub(crate) fn destination(&self) -> &ImageReference {
        &self.destination
    }

    /// Returns the blobs that the image is made of.
    pub(crate) fn blobs(&self) -> &[Digest] {
        &self.blobs
    }

    /// Returns the image manifest.
    pub(crate) fn manifest(&self) -> &Bytes {
        &self.manifest
    }
}

/// Pushes an image that was built, by its digest.
///
/// `destination` names the repository, and the tag that the image gets in the end.
pub(crate) async fn publish(
    built: &Built,
    destination: &ImageReference,
    session: &Session,
    cancel: &CancellationToken,
) -> Result<Published, PublishError> {
    let fault = tokio::select! {
        biased;
        () = cancel.cancelled() => PublishFault::Cancelled,
        result = push(&built.layout, built.digest, destination, session) => match result {
            Ok(published) => return Ok(published),
            Err(fault) => fault,
        },
    };
    Err(PublishError { destination: destination.clone(), fault })
}

async fn push(
    layout: &Path,
    digest: Digest,
    destination: &ImageReference,
    session: &Session,
) -> Result<Published, PublishFault> {
    let manifest = Bytes::from(read_manifest(layout, digest).await?);
    let parsed = ImageManifest::parse(&manifest)?;
    // Docker's form has another digest for the same image, and signatures are over digests.
    if parsed.media_type.as_deref().is_some_and(|named| named != media_type::OCI_IMAGE) {
        return Err(PublishFault::NotOci);
    }
    let blobs = parsed.blobs();
    let repository = destination.repository();
    let pushes = blobs.iter().map(|blob| async move {
        let path = check_blob(layout, blob).await?;
        let source = BlobSource::File(&path);
        session.push_blob(repository, blob.digest, blob.size, &source).await?;
        Ok::<(), PublishFault>(())
    });
    // Collected first: a lazy iterator of futures inside the stream would tie their lifetimes up.
    let pushes: Vec<_> = pushes.collect();
    stream::iter(pushes).buffer_unordered(PUSHES_AT_ONCE).try_collect::<()>().await?;
    let target = Target::Digest(digest);
    session.push_manifest(repository, target, media_type::OCI_IMAGE, manifest.clone()).await?;

    let bytes: u64 = blobs.iter().map(|blob| blob.size).sum();
    let image = destination.with_digest(digest);
    let count = blobs.len();
    session.log().info(&format!("pushed {image}: {count} blobs of {bytes} bytes, without tag yet"));
    Ok(Published {
        destination: destination.clone(),
        digest,
        blobs: blobs.iter().map(|blob| blob.digest).collect(),
        manifest,
    })
}

/// Reads an image manifest of a layout; it has the digest that the engine said.
async fn read_manifest(layout: &Path, digest: Digest) -> Result<Vec<u8>, PublishFault> {
    let failed = |source| PublishFault::Layout { source };
    let file = tokio::fs::File::open(blob_path(layout, digest)).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(PublishFault::TooLarge);
    }
    let actual = sbs_crypto::digest(&bytes);
    if actual != digest {
        return Err(PublishFault::Digest { expected: digest, actual });
    }
    Ok(bytes)
}

/// Returns the path of a blob that has the size that the image manifest says.
///
/// Its content is not hashed here: a registry takes nothing in whose digest is not the one that it
/// is pushed under, and whoever pulls it checks again.
async fn check_blob(layout: &Path, blob: &Descriptor) -> Result<PathBuf, PublishFault> {
    let path = blob_path(layout, blob.digest);
    let metadata = tokio::fs::symlink_metadata(&path).await;
    let metadata = metadata.map_err(|source| PublishFault::Layout { source })?;
    if !metadata.is_file() || metadata.len() != blob.size {
        return Err(PublishFault::Blob { digest: blob.digest });
    }
    Ok(path)
}

/// Returns where a layout keeps a blob (OCI image specification 1.1, "Image layout").
pub(crate) fn blob_path(layout: &Path, digest: Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.to_hex())
}

/// Returns the command that the v1 status tells of when an exchange with a registry failed; bad
/// credentials show at login, as they do with the original.
pub(crate) fn v1_command(error: &RegistryError, verb: &str, image: &ImageReference) -> String {
    if matches!(error, RegistryError::Unauthorized { .. }) {
        let registry = image.registry();
        return format!("docker login --username <USERNAME> --password <PASSWORD> {registry}");
    }
    format!("docker {verb} {image}")
}

/// The image was not pushed.
#[derive(Debug, Error)]
#[error("cannot push the image to `{destination}`")]
pub(crate) struct PublishError {
    destination: ImageReference,
    #[source]
    fault: PublishFault,
}

/// Why an image was not pushed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum PublishFault {
    /// A blob is not in the layout as the image manifest says.
    #[error("blob {digest} of the built image is no file of the size that its manifest says")]
    Blob { digest: Digest },

    /// Somebody asked for the end of the build.
    #[error("cancelled")]
    Cancelled,

    /// The image manifest is not the one that was built.
    #[error("image manifest in the layout has digest {actual}, expected {expected}")]
    Digest { expected: Digest, actual: Digest },

    /// The image manifest cannot be read as one.
    #[error("the built image has an image manifest that cannot be used")]
    Document(#[from] ParseDocumentError),

    /// The layout cannot be read.
    #[error("the layout of the built image cannot be read")]
    Layout { source: io::Error },

    /// The image has another form.
    #[error("the built image is not in the OCI form")]
    NotOci,

    /// The registry did not take it.
    #[error("the registry did not take the image")]
    Registry(#[from] RegistryError),

    /// The image manifest is too large for any registry.
    #[error("image manifest is larger than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
}

impl StepError for PublishError {
    fn failure(&self) -> Failure {
        let plain = || format!("docker push {}", self.destination);
        let (code, command, return_code) = match &self.fault {
            PublishFault::Cancelled => ("cancelled", plain(), 137),
            PublishFault::Registry(error) => {
                (error.code(), v1_command(error, "push", &self.destination), 1)
            }
            _ => ("image_layout", plain(), 1),
        };
        Failure { code, command, return_code }
    }
}

const PUSHES_AT_ONCE: usize = 3;
/// What the OCI distribution specification asks registries to accept at least.
const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
