//! What the tests have in common: an image that can be signed in every form, by anybody, under any
//! name, and the bundle of its owner.

mod answers;
mod bundles;
mod forms;

use std::slice::from_ref;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::ImageSigningKey;
use sbs_crypto::openpgp::OpenPgpSigningKey;
use sbs_proto::{
    DefinitionName, ImageTag, NotaryRoot, NotaryServer, OpenPgpPublicKey, PublicKey, TRUST_SCHEMA,
    TrustBundle,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::cosign::bundle::Release;
use crate::cosign::key_id;
use crate::notary::{Gun, NotaryKeys, Publication};
use crate::testing::double::{Double, Reply, Seen};
use crate::testing::{TestLog, client, credentials, session};
use crate::{BlobSource, Descriptor, DocumentKind, ImageManifest, media_type};

/// The forms whose signatures the registry itself keeps.
const IN_REGISTRY: [Form; 3] = [Form::CosignTag, Form::CosignBundle, Form::SimpleSigning];

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Somebody who signs images, in every form.
struct Owner {
    image: ImageSigningKey,
    /// Made when it is needed: that takes a second.
    openpgp: OnceLock<OpenPgpSigningKey>,
}

/// The owner of the image.
static OWNER: LazyLock<Owner> = LazyLock::new(Owner::new);
/// The same with the keys of before.
static RETIRING: LazyLock<Owner> = LazyLock::new(Owner::new);
/// The same with keys that are not for images.
static ATTESTER: LazyLock<Owner> = LazyLock::new(Owner::new);
/// Somebody whose keys are in no bundle.
static STRANGER: LazyLock<Owner> = LazyLock::new(Owner::new);

impl Owner {
    fn new() -> Self {
        Self { image: ImageSigningKey::generate().unwrap(), openpgp: OnceLock::new() }
    }

    fn openpgp(&self) -> &OpenPgpSigningKey {
        self.openpgp.get_or_init(|| OpenPgpSigningKey::generate("images", now()).unwrap())
    }
}

fn public_key(key: &ImageSigningKey, retiring: bool) -> PublicKey {
    let key = key.verifying_key();
    PublicKey { id: key_id(&key).to_hex(), pem: key.to_pem(), retiring }
}

fn openpgp_key(key: &OpenPgpSigningKey, retiring: bool) -> OpenPgpPublicKey {
    let fingerprint = key.fingerprint().to_string();
    OpenPgpPublicKey { armored: key.to_armored_certificate(), fingerprint, retiring }
}

/// A registry that keeps simple signatures, with an image in it, and the keys of its owner.
struct Bench {
    double: Double,
    image: ImageReference,
    kept: Arc<Mutex<Vec<Value>>>,
    session: Session,
    subject: Descriptor,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| None).await
    }

    /// Starts the registry; `fault` can answer in its place.
    async fn with(fault: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let kept = Arc::<Mutex<Vec<Value>>>::default();
        let shown = Arc::clone(&kept);
        let double = Double::registry(move |seen| {
            fault(seen).or_else(|| match &*seen.path {
                "/v2/" => Some(Reply::status(200).header("x-registry-supports-signatures", "1")),
                path if path.starts_with("/extensions/v2/") => {
                    let list = json!({ "signatures": *shown.lock().unwrap() });
                    Some(Reply::status(200).body(list.to_string()))
                }
                _ => None,
            })
        })
        .await;
        let image = ImageReference::parse(&format!("{}/team/app:v1", double.host())).unwrap();
        let session = session(double.host(), &TestLog::new());
        let subject = push_image(&session, &image).await;
        Self { double, image, kept, session, subject }
    }

    fn bundle(&self) -> TrustBundle {
        bundle(&self.image)
    }

    fn with_tag(&self, tag: &str) -> ImageReference {
        self.image.with_tag(ImageTag::parse(tag).unwrap())
    }

    /// Returns the same name in another repository; the double has one store for all of them.
    fn elsewhere(&self) -> ImageReference {
        ImageReference::parse(&format!("{}/team/other:v1", self.double.host())).unwrap()
    }

    async fn sign(&self, form: Form, by: &Owner) {
        self.sign_as(form, by, &self.image, self.subject.digest).await;
    }

    /// Puts a signature that says this where those of the image are looked for.
    async fn sign_as(&self, form: Form, by: &Owner, name: &ImageReference, digest: Digest) {
        let session = &self.session;
        match form {
            Form::CosignTag => {
                cosign::tag::sign(session, name, digest, &by.image).await.unwrap();
            }
            Form::CosignBundle => {
                let build = sbs_proto::v2::BuildId::parse("00000007").unwrap();
                let release = Release { image: name, build: &build, created: now() };
                let mut subject = self.subject.clone();
                subject.digest = digest;
                cosign::bundle::sign(session, release, from_ref(&subject), &by.image)
                    .await
                    .unwrap();
            }
            Form::SimpleSigning => {
                let bytes = simple_signing::sign(by.openpgp(), name, digest, now()).unwrap();
                self.keep(&bytes);
            }
            Form::Notary => panic!("the registry keeps none"),
        }
    }

    fn keep(&self, signature: &[u8]) {
        let content = STANDARD.encode(signature);
        let entry =
            json!({ "schemaVersion": 2, "name": "n", "type": "atomic", "content": content });
        self.kept.lock().unwrap().push(entry);
    }

    async fn check(&self) -> Report {
        self.check_as(&self.image).await
    }

    async fn check_as(&self, image: &ImageReference) -> Report {
        try_check(image, &self.bundle()).await.unwrap()
    }
}

async fn try_check(
    image: &ImageReference,
    bundle: &TrustBundle,
) -> Result<Report, CheckImageError> {
    let trust = ImageTrust::read(bundle, now()).unwrap();
    let login = credentials();
    let (registry_login, notary_login) = (Some(&login), Some(&login));
    let question = Question { image, trust: &trust, registry_login, notary_login, now: now() };
    check_image(&client(), question, &TestLog::new()).await
}

/// Returns the bundle of the owner.
fn bundle(image: &ImageReference) -> TrustBundle {
    TrustBundle {
        attestation_keys: vec![public_key(&ATTESTER.image, false)],
        definition: DefinitionName::default_name(),
        image_keys: vec![public_key(&OWNER.image, false), public_key(&RETIRING.image, true)],
        lookaside: None,
        manifest_keys: Vec::new(),
        notary: None,
        openpgp_keys: vec![
            openpgp_key(OWNER.openpgp(), false),
            openpgp_key(RETIRING.openpgp(), true),
        ],
        repository: ImageReference::new(image.registry().clone(), image.repository().clone()),
        schema: TRUST_SCHEMA.to_owned(),
    }
}

/// Pushes an image manifest under the tag of `image`.
async fn push_image(session: &Session, image: &ImageReference) -> Descriptor {
    let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let source = BlobSource::Bytes(b"{}".to_vec().into());
    let repository = image.repository();
    session.push_blob(repository, config.digest, config.size, &source).await.unwrap();
    let bytes = ImageManifest::new(config, Vec::new()).to_json();
    push_document(session, image, media_type::OCI_IMAGE, bytes).await
}

/// Pushes a document under the tag of `image`, and by its digest.
async fn push_document(
    session: &Session,
    image: &ImageReference,
    media_type: &str,
    bytes: Vec<u8>,
) -> Descriptor {
    let pushed = Descriptor::of(media_type, &bytes);
    for target in [Target::Digest(pushed.digest), Target::Tag(image.tag().unwrap())] {
        let bytes = bytes.clone().into();
        session.push_manifest(image.repository(), target, media_type, bytes).await.unwrap();
    }
    pushed
}

fn outcome(report: &Report, form: Form) -> &Outcome {
    report.forms().into_iter().find(|(found, _)| *found == form).unwrap().1
}

fn signer(report: &Report, form: Form) -> &Signer {
    match outcome(report, form) {
        Outcome::Valid(signer) => signer,
        other => panic!("{form:?}: {other:?}"),
    }
}

/// Returns why a form is invalid, as users read it.
fn why(report: &Report, form: Form) -> String {
    match outcome(report, form) {
        Outcome::Invalid(why) => crate::chain(why),
        other => panic!("{form:?}: {other:?}"),
    }
}
