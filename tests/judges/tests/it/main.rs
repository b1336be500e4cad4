//! The verifiers of the sigstore project, each with what it must accept and what it must refuse.

mod bundle;
mod log;
mod tag;

use std::slice::from_ref;

use sbs_crypto::ImageSigningKey;
use sbs_proto::v2::BuildId;
use sbs_proto::{Digest, ImageReference};
use sbs_registry::cosign::{bundle as bundle_form, tag as tag_form};
use sbs_registry::testing::real::RealRegistry;
use sbs_registry::testing::{TestLog, noise, session, write_layout};
use sbs_registry::{BlobSource, Descriptor, ImageManifest, Session, Target, media_type};
use time::OffsetDateTime;

/// An image in Debian's registry that is signed in both forms.
struct Signed {
    registry: RealRegistry,
    session: Session,
    image: ImageReference,
    digest: Digest,
    key: ImageSigningKey,
}

impl Signed {
    async fn new() -> Self {
        let registry = RealRegistry::start().await;
        let session = session(&registry.host(), &TestLog::new());
        let image = format!("{}/team/app:v1", registry.host());
        let image = ImageReference::parse(&image).unwrap();
        let pushed = push_image(&session, &image).await;
        let key = ImageSigningKey::generate().unwrap();
        tag_form::sign(&session, &image, pushed.digest, &key).await.unwrap();
        let build = BuildId::parse("00000007").unwrap();
        let created = OffsetDateTime::now_utc();
        let release = bundle_form::Release { image: &image, build: &build, created };
        bundle_form::sign(&session, release, from_ref(&pushed), &key).await.unwrap();
        Self { registry, session, image, digest: pushed.digest, key }
    }

    fn key_pem(&self) -> String {
        self.key.verifying_key().to_pem()
    }

    /// Fetches the bundle as any client does that knows referrers.
    async fn bundle(&self) -> String {
        let repository = self.image.repository();
        let listed = self.session.referrers(repository, self.digest).await.unwrap();
        assert_eq!(listed.len(), 1);
        let target = Target::Digest(listed[0].digest);
        let served = self.session.manifest(repository, target).await.unwrap();
        let manifest = ImageManifest::parse(&served.bytes).unwrap();
        let bytes = self.session.blob(repository, &manifest.layers[0], 1 << 20).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

async fn push_image(session: &Session, image: &ImageReference) -> Descriptor {
    let layout = tempfile::tempdir().unwrap();
    let digest = write_layout(layout.path(), &[&noise(1000)]);
    let blob = |digest: Digest| layout.path().join("blobs/sha256").join(digest.to_hex());
    let manifest = std::fs::read(blob(digest)).unwrap();
    for part in ImageManifest::parse(&manifest).unwrap().blobs() {
        let (path, repository) = (blob(part.digest), image.repository());
        let source = BlobSource::File(&path);
        session.push_blob(repository, part.digest, part.size, &source).await.unwrap();
    }
    let pushed = Descriptor::of(media_type::OCI_IMAGE, &manifest);
    let (target, kind) = (Target::Digest(digest), media_type::OCI_IMAGE);
    session.push_manifest(image.repository(), target, kind, manifest.clone().into()).await.unwrap();
    let target = Target::Tag(image.tag().unwrap());
    session.push_manifest(image.repository(), target, kind, manifest.into()).await.unwrap();
    pushed
}
