//! Red Hat simple signing: where its signatures go, and the form of the sign step.

use async_trait::async_trait;
use sbs_crypto::openpgp::{OpenPgpSigningKey, OpenPgpVerifier};
use sbs_proto::ImageReference;
use sbs_registry::cosign::Signed;
use sbs_registry::simple_signing::{self, Lookaside, Published as Kept, SignatureTree};
use sbs_registry::{RegistryError, Session};
use time::OffsetDateTime;

use super::{ReleaseFault, SignatureForm};
use crate::build::publish::Published;

/// Where the signatures of an image are kept.
#[derive(Clone, Debug)]
pub(crate) enum SignaturePlace {
    /// The registry keeps them.
    Registry,
    /// In the lookaside directory of this server.
    Tree(SignatureTree),
}

impl SignaturePlace {
    /// Finds out where the signatures of an image go: to the registry if it keeps some, else into
    /// the lookaside directory, if there is one.
    pub(crate) async fn find(
        session: &Session,
        image: &ImageReference,
        tree: Option<SignatureTree>,
    ) -> Result<Option<Self>, RegistryError> {
        if session.keeps_signatures(image.repository()).await? {
            return Ok(Some(Self::Registry));
        }
        Ok(tree.map(Self::Tree))
    }
}

/// Simple signing by one key.
pub(crate) struct OpenPgpForm<'a> {
    pub(crate) at: OffsetDateTime,
    pub(crate) key: &'a OpenPgpSigningKey,
    pub(crate) place: &'a SignaturePlace,
}

#[async_trait]
impl SignatureForm for OpenPgpForm<'_> {
    fn name(&self) -> &'static str {
        match self.place {
            SignaturePlace::Registry => "OpenPGP, kept by the registry",
            SignaturePlace::Tree(_) => "OpenPGP, in the lookaside directory",
        }
    }

    async fn push(&self, published: &Published, session: &Session) -> Result<Signed, ReleaseFault> {
        let (image, digest, key, at) =
            (published.destination(), published.digest(), self.key, self.at);
        let kept = match self.place {
            SignaturePlace::Registry => {
                simple_signing::publish(session, key, image, digest, at).await?
            }
            // One small file.
            SignaturePlace::Tree(tree) => {
                tokio::task::block_in_place(|| tree.publish(key, image, digest, at))?
            }
        };
        Ok(match kept {
            Kept::Before => Signed::Already,
            Kept::Now => Signed::Now,
        })
    }

    async fn confirm(&self, published: &Published, session: &Session) -> Result<(), ReleaseFault> {
        let (image, digest) = (published.destination(), published.digest());
        let certificate = self.key.to_armored_certificate();
        let verifier = OpenPgpVerifier::parse(certificate.as_bytes(), self.at)
            .map_err(|_| RegistryError::Internal("a key that signs does not verify"))?;
        let lookaside = match self.place {
            SignaturePlace::Registry => None,
            SignaturePlace::Tree(tree) => Some(Lookaside::Directory(tree.clone())),
        };
        let checked =
            simple_signing::verify(session, lookaside.as_ref(), &verifier, image, digest).await?;
        let _proof = checked.require(image)?;
        Ok(())
    }
}
