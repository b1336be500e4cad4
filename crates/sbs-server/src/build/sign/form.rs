//! The forms in which an image is signed. The steps know no more of a form than [`SignatureForm`].

use async_trait::async_trait;
use sbs_crypto::ImageSigningKey;
use sbs_proto::v2::BuildId;
use sbs_registry::cosign::bundle::{self, Release};
use sbs_registry::cosign::{Expected, Signed, Verdict, tag};
use sbs_registry::{Descriptor, Session, media_type};
use time::OffsetDateTime;

use super::ReleaseFault;
use crate::build::publish::Published;

/// A form of signature: how the sign step makes it, and how the step after makes sure of it.
#[async_trait]
pub(crate) trait SignatureForm: Send + Sync {
    /// Returns what the log calls it.
    fn name(&self) -> &'static str;

    /// Signs an image that is in its repository, unless it is signed so already.
    async fn push(&self, published: &Published, session: &Session) -> Result<Signed, ReleaseFault>;

    /// Fetches the signature and verifies it. A fault that may pass is asked about again.
    async fn confirm(&self, published: &Published, session: &Session) -> Result<(), ReleaseFault>;
}

/// cosign's form with a tag, which podman and skopeo read, too.
#[derive(Debug)]
pub(crate) struct TagForm<'a> {
    pub(crate) key: &'a ImageSigningKey,
}

#[async_trait]
impl SignatureForm for TagForm<'_> {
    fn name(&self) -> &'static str {
        "simple signing under a tag"
    }

    async fn push(&self, published: &Published, session: &Session) -> Result<Signed, ReleaseFault> {
        let (image, digest) = (published.destination(), published.digest());
        Ok(tag::sign(session, image, digest, self.key).await?)
    }

    async fn confirm(&self, published: &Published, session: &Session) -> Result<(), ReleaseFault> {
        let expected = expected(published);
        accept(self.name(), tag::check(session, expected, &self.key.verifying_key()).await?)
    }
}

/// cosign's form since version 3: a sigstore bundle that refers to the image.
#[derive(Debug)]
pub(crate) struct BundleForm<'a> {
    pub(crate) build: &'a BuildId,
    pub(crate) created: OffsetDateTime,
    pub(crate) key: &'a ImageSigningKey,
}

#[async_trait]
impl SignatureForm for BundleForm<'_> {
    fn name(&self) -> &'static str {
        "sigstore bundle"
    }

    async fn push(&self, published: &Published, session: &Session) -> Result<Signed, ReleaseFault> {
        let (build, created, image) = (self.build, self.created, published.destination());
        let size = published.manifest().len() as u64;
        let subject = Descriptor::new(media_type::OCI_IMAGE, published.digest(), size);
        let release = Release { image, build, created };
        Ok(bundle::sign(session, release, &[subject], self.key).await?)
    }

    async fn confirm(&self, published: &Published, session: &Session) -> Result<(), ReleaseFault> {
        let expected = expected(published);
        accept(self.name(), bundle::check(session, expected, &self.key.verifying_key()).await?)
    }
}

fn expected(published: &Published) -> Expected<'_> {
    Expected { image: published.destination(), digest: published.digest() }
}

fn accept<T>(form: &'static str, verdict: Verdict<T>) -> Result<(), ReleaseFault> {
    match verdict {
        Verdict::Absent => Err(ReleaseFault::Unsigned { form }),
        Verdict::Invalid(reason) => Err(ReleaseFault::Invalid { form, reason }),
        Verdict::Valid(_) => Ok(()),
    }
}
