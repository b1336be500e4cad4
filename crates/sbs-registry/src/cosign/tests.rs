use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use sbs_crypto::ImageSigningKey;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::bundle::Release;
use super::statement::{SIGNED_IMAGE, Statement, Subject};
use super::*;
use crate::testing::double::{Double, Reply, Seen};
use crate::testing::real::{CuttingProxy, RealRegistry};
use crate::testing::{TestLog, noise, session};
use crate::{Descriptor, ImageIndex, ImageManifest, Session, Target, media_type};

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const BOTH: [Form; 2] = [Form::Tag, Form::Bundle];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Bundle,
    Tag,
}

/// An image manifest in a repository, and a key.
struct Bench {
    image: ImageReference,
    key: ImageSigningKey,
    log: TestLog,
    session: Session,
    subject: Descriptor,
}

impl Bench {
    async fn new(registry: &str) -> Self {
        let log = TestLog::new();
        let session = session(registry, &log);
        let image = ImageReference::parse(&format!("{registry}/team/app:v1")).unwrap();
        let key = ImageSigningKey::generate().unwrap();
        let subject = push_image(&session, &image, b"{}").await;
        Self { image, key, log, session, subject }
    }

    fn expected(&self) -> Expected<'_> {
        Expected { image: &self.image, digest: self.subject.digest }
    }

    async fn sign(&self, form: Form) -> Result<Signed, SignImageError> {
        self.sign_for(form, "00000007").await
    }

    async fn sign_for(&self, form: Form, build: &str) -> Result<Signed, SignImageError> {
        let (image, digest, key) = (&self.image, self.subject.digest, &self.key);
        let build = BuildId::parse(build).unwrap();
        let release = Release { image, build: &build, created: now() };
        match form {
            Form::Tag => tag::sign(&self.session, image, digest, key).await,
            Form::Bundle => {
                bundle::sign(&self.session, release, from_ref(&self.subject), key).await
            }
        }
    }

    async fn check(&self, form: Form) -> Result<Verdict<ImageSignature>, RegistryError> {
        self.check_for(form, self.expected(), &self.key).await
    }

    async fn check_for(
        &self,
        form: Form,
        expected: Expected<'_>,
        key: &ImageSigningKey,
    ) -> Result<Verdict<ImageSignature>, RegistryError> {
        let key = key.verifying_key();
        match form {
            Form::Tag => tag::check(&self.session, expected, &key).await,
            Form::Bundle => bundle::check(&self.session, expected, &key).await,
        }
    }

    /// Attests this with the key of the image.
    async fn attest(&self, statement: &Statement) {
        let at = (self.image.repository(), from_ref(&self.subject));
        attach::attest(&self.session, at, statement, &self.key, now()).await.unwrap();
    }
}

fn provenance(of: Digest) -> Statement {
    Statement::new(vec![Subject::new(of)], PROVENANCE, Map::new())
}

/// Pushes an image manifest with this config, whatever that is.
async fn push_image(session: &Session, image: &ImageReference, config: &[u8]) -> Descriptor {
    let descriptor = Descriptor::of(media_type::OCI_CONFIG, config);
    let (digest, size) = (descriptor.digest, descriptor.size);
    let source = crate::BlobSource::Bytes(config.to_vec().into());
    session.push_blob(image.repository(), digest, size, &source).await.unwrap();
    let manifest = ImageManifest::new(descriptor, Vec::new()).to_json();
    let pushed = Descriptor::of(media_type::OCI_IMAGE, &manifest);
    let target = Target::Digest(pushed.digest);
    let push =
        session.push_manifest(image.repository(), target, media_type::OCI_IMAGE, manifest.into());
    push.await.unwrap();
    pushed
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap()
}

/// Tells whether this asks for what lists the signatures of a form.
fn asks_for_list(seen: &Seen, form: Form) -> bool {
    let sig = seen.path.contains(".sig");
    match form {
        Form::Tag => seen.is(&Method::GET, "/manifests/sha256-") && sig,
        Form::Bundle => {
            seen.is(&Method::GET, "/referrers/")
                || (seen.is(&Method::GET, "/manifests/sha256-") && !sig)
        }
    }
}

fn puts(double: &Double) -> usize {
    double.count(&Method::PUT, "/manifests/")
}

#[tokio::test]
async fn what_was_signed_is_valid_and_tells_what_was_signed() {
    let real = RealRegistry::start().await;
    let double = Double::registry_with_referrers(1, |_| None).await;
    for registry in [real.host(), double.host().to_owned()] {
        let bench = Bench::new(&registry).await;
        for form in BOTH {
            let verdict = bench.check(form).await.unwrap();
            assert!(matches!(verdict, Verdict::Absent), "{form:?}: {verdict:?}");
            assert_eq!(bench.sign(form).await.unwrap(), Signed::Now);
            let verdict = bench.check(form).await.unwrap();
            let Verdict::Valid(signature) = verdict else { panic!("{form:?}: {verdict:?}") };
            assert_eq!(signature.image(), &bench.image);
            assert_eq!(signature.digest(), bench.subject.digest);
            assert_eq!(signature.key(), key_id(&bench.key.verifying_key()));
            let build = (form == Form::Bundle).then_some("00000007");
            assert_eq!(signature.build().map(BuildId::as_str), build);
        }
    }
}

#[tokio::test]
async fn signing_again_writes_nothing() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host()).await;
    for form in BOTH {
        bench.sign(form).await.unwrap();
        let before = puts(&double);
        assert_eq!(bench.sign(form).await.unwrap(), Signed::Already);
        // Another build that made the same image says nothing new.
        assert_eq!(bench.sign_for(form, "00000008").await.unwrap(), Signed::Already);
        assert_eq!(puts(&double), before);
    }
    // Another tag is another statement.
    let other = bench.image.with_tag(ImageTag::parse("v2").unwrap());
    let bench = Bench { image: other, ..bench };
    for form in BOTH {
        assert_eq!(bench.sign(form).await.unwrap(), Signed::Now);
        assert!(matches!(bench.check(form).await.unwrap(), Verdict::Valid(_)));
    }
}

#[tokio::test]
async fn another_key_tag_repository_or_digest_is_not_valid() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host()).await;
    let stranger = ImageSigningKey::generate().unwrap();
    let tag = bench.image.with_tag(ImageTag::parse("v2").unwrap());
    let other = ImageReference::parse(&format!("{}/team/other:v1", double.host())).unwrap();
    for form in BOTH {
        bench.sign(form).await.unwrap();
        let verdict = bench.check_for(form, bench.expected(), &stranger).await.unwrap();
        let reason = |verdict: &Verdict<_>| match verdict {
            Verdict::Invalid(InvalidSignature::OtherKey) => "key",
            Verdict::Invalid(InvalidSignature::Signature(_)) => "signature",
            Verdict::Invalid(InvalidSignature::OtherImage) => "image",
            _ => "other",
        };
        let expected = if form == Form::Tag { "signature" } else { "key" };
        assert_eq!(reason(&verdict), expected, "{verdict:?}");
        for image in [&tag, &other] {
            // The double has one store for all repositories, as one that copies does.
            let expected = Expected { image, ..bench.expected() };
            let verdict = bench.check_for(form, expected, &bench.key).await.unwrap();
            assert_eq!(reason(&verdict), "image", "{image}: {verdict:?}");
        }
        let digest = Digest::from_bytes([1; 32]);
        let expected = Expected { digest, ..bench.expected() };
        let verdict = bench.check_for(form, expected, &bench.key).await.unwrap();
        assert!(matches!(verdict, Verdict::Absent), "{verdict:?}");
    }
}

#[tokio::test]
async fn what_does_not_answer_is_not_unsigned() {
    for form in BOTH {
        for (status, part) in
            [(429, "list"), (503, "list"), (500, "list"), (403, "list"), (503, "blob")]
        {
            let on = Arc::new(AtomicBool::new(false));
            let now = Arc::clone(&on);
            let double = Double::registry(move |seen| {
                let list = asks_for_list(seen, form) && part == "list";
                let blob = seen.is(&Method::GET, "/blobs/") && part == "blob";
                let reply = || Reply::status(status).header("retry-after", "0");
                ((list || blob) && now.load(Ordering::Relaxed)).then(reply)
            })
            .await;
            let bench = Bench::new(double.host()).await;
            bench.sign(form).await.unwrap();
            on.store(true, Ordering::Relaxed);
            let before = puts(&double);
            bench.check(form).await.unwrap_err();
            // Nor is it signed once more.
            if part == "list" {
                bench.sign(form).await.unwrap_err();
            }
            assert_eq!(puts(&double), before, "{form:?} {status}");
            on.store(false, Ordering::Relaxed);
            assert!(matches!(bench.check(form).await.unwrap(), Verdict::Valid(_)));
        }
    }
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host()).await;
    let bench = Bench { session: session("127.0.0.1:1", &bench.log), ..bench };
    for form in BOTH {
        let error = bench.check(form).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn r3_what_is_served_otherwise_than_listed_is_invalid() {
    for form in BOTH {
        for answer in ["gone", "other", "long"] {
            let on = Arc::new(AtomicBool::new(false));
            let now = Arc::clone(&on);
            let double = Double::registry(move |seen| {
                let blob = seen.is(&Method::GET, "/blobs/") && now.load(Ordering::Relaxed);
                blob.then(|| match answer {
                    "gone" => Reply::status(404),
                    "other" => Reply::status(200).body("x"),
                    _ => Reply::status(200).body(noise(1 << 20)),
                })
            })
            .await;
            let bench = Bench::new(double.host()).await;
            bench.sign(form).await.unwrap();
            on.store(true, Ordering::Relaxed);
            let verdict = bench.check(form).await.unwrap();
            let served = matches!(verdict, Verdict::Invalid(InvalidSignature::Served(_)));
            assert!(served, "{form:?} {answer}: {verdict:?}");
        }
    }
}

#[tokio::test]
async fn b11_a_bundle_that_was_swapped_after_the_push_is_invalid() {
    // The registry serves the referrer of another image under the digest that it lists.
    let on = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&on);
    let double = Double::registry_with_referrers(10, move |seen| {
        let wanted = seen.is(&Method::GET, "/manifests/sha256:") && now.load(Ordering::Relaxed);
        let reply = || Reply::status(200).header("content-type", media_type::OCI_IMAGE);
        wanted.then(|| reply().body(r#"{"schemaVersion":2}"#))
    })
    .await;
    let bench = Bench::new(double.host()).await;
    bench.sign(Form::Bundle).await.unwrap();
    on.store(true, Ordering::Relaxed);
    let verdict = bench.check(Form::Bundle).await.unwrap();
    assert!(matches!(verdict, Verdict::Invalid(InvalidSignature::Served(_))), "{verdict:?}");
}

#[tokio::test]
async fn r7_an_attestation_by_the_image_key_is_no_signature() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host()).await;
    bench.attest(&provenance(bench.subject.digest)).await;
    // It says of itself that it is none.
    let verdict = bench.check(Form::Bundle).await.unwrap();
    assert!(matches!(verdict, Verdict::Absent), "{verdict:?}");

    // It says that it is one.
    let bundle = Bundle::sign(&provenance(bench.subject.digest), &bench.key).unwrap();
    let at = (bench.image.repository(), &bench.subject);
    attach::attach(&bench.session, at, SIGNED_IMAGE, &bundle, now()).await.unwrap();
    let verdict = bench.check(Form::Bundle).await.unwrap();
    assert!(matches!(verdict, Verdict::Invalid(InvalidSignature::OtherStatement)), "{verdict:?}");

    // A signature beside them is found.
    assert_eq!(bench.sign(Form::Bundle).await.unwrap(), Signed::Now);
    assert!(matches!(bench.check(Form::Bundle).await.unwrap(), Verdict::Valid(_)));
}

#[tokio::test]
async fn what_refers_in_another_form_is_no_bundle() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host()).await;
    let build = BuildId::parse("00000007").unwrap();
    let statement = Statement::signed_image(&bench.image, bench.subject.digest, &build);
    let bundle = Bundle::sign(&statement, &bench.key).unwrap();
    let at = (bench.image.repository(), &bench.subject);
    let entry = attach::attach(&bench.session, at, SIGNED_IMAGE, &bundle, now()).await.unwrap();
    let served = bench.session.manifest(bench.image.repository(), Target::Digest(entry.digest));
    let good = ImageManifest::parse(&served.await.unwrap().bytes).unwrap();
    assert!(matches!(bench.check(Form::Bundle).await.unwrap(), Verdict::Valid(_)));

    let other = push_image(&bench.session, &bench.image, b"{ }").await;
    let change = |change: &dyn Fn(&mut ImageManifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        manifest
    };
    let layer = good.layers[0].clone();
    for manifest in [
        change(&|manifest| manifest.layers.push(layer.clone())),
        change(&|manifest| manifest.layers.clear()),
        change(&|manifest| manifest.layers[0].media_type.push('x')),
        change(&|manifest| manifest.artifact_type = None),
        change(&|manifest| manifest.subject = Some(other.clone())),
        change(&|manifest| manifest.subject = None),
    ] {
        let double = Double::registry(|_| None).await;
        let bench = Bench {
            session: session(double.host(), &bench.log),
            ..Bench::new(double.host()).await
        };
        let bytes = manifest.to_json();
        let mut entry = Descriptor::of(media_type::OCI_IMAGE, &bytes);
        entry.artifact_type.clone_from(&good.artifact_type);
        let target = Target::Digest(entry.digest);
        let repository = bench.image.repository();
        let push =
            bench.session.push_manifest(repository, target, media_type::OCI_IMAGE, bytes.into());
        push.await.unwrap();
        let list = ImageIndex::new(vec![entry]).to_json();
        let tag = format!("sha256-{}", bench.subject.digest.to_hex());
        let tag = ImageTag::parse(&tag).unwrap();
        let push = bench.session.push_manifest(
            repository,
            Target::Tag(&tag),
            media_type::OCI_INDEX,
            list.into(),
        );
        push.await.unwrap();
        let verdict = bench.check(Form::Bundle).await.unwrap();
        assert!(matches!(verdict, Verdict::Invalid(InvalidSignature::Form)), "{verdict:?}");
    }
}

#[tokio::test]
async fn an_index_is_signed_with_each_of_its_manifests() {
    let registry = RealRegistry::start().await;
    let bench = Bench::new(&registry.host()).await;
    let other = push_image(&bench.session, &bench.image, b"{ }").await;
    let index = ImageIndex::new(vec![bench.subject.clone(), other.clone()]).to_json();
    let descriptor = Descriptor::of(media_type::OCI_INDEX, &index);
    let (repository, target) = (bench.image.repository(), Target::Digest(descriptor.digest));
    let push = bench.session.push_manifest(repository, target, media_type::OCI_INDEX, index.into());
    push.await.unwrap();
    let subjects = [bench.subject.clone(), other, descriptor];
    let build = BuildId::parse("00000007").unwrap();
    let release = Release { image: &bench.image, build: &build, created: now() };
    bundle::sign(&bench.session, release, &subjects, &bench.key).await.unwrap();
    for subject in &subjects {
        let expected = Expected { image: &bench.image, digest: subject.digest };
        let verdict = bench.check_for(Form::Bundle, expected, &bench.key).await.unwrap();
        assert!(matches!(verdict, Verdict::Valid(_)), "{verdict:?}");
        let listed = bench.session.referrers(repository, subject.digest).await.unwrap();
        let served = bench.session.manifest(repository, Target::Digest(listed[0].digest)).await;
        let manifest = ImageManifest::parse(&served.unwrap().bytes).unwrap();
        assert_eq!(manifest.subject.as_ref(), Some(subject));
        assert_eq!(manifest.config, Descriptor::of(media_type::OCI_EMPTY, b"{}"));
        let annotations = serde_json::to_value(&manifest.annotations).unwrap();
        let expected = serde_json::json!({
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": SIGNED_IMAGE,
            "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
        });
        assert_eq!(annotations, expected);
        assert_eq!(serde_json::to_value(&listed[0].annotations).unwrap(), expected);
    }
    assert_eq!(
        bundle::sign(&bench.session, release, &subjects, &bench.key).await.unwrap(),
        Signed::Already
    );
}

#[tokio::test]
async fn an_attestation_by_another_key_is_found_and_is_large() {
    let registry = RealRegistry::start().await;
    // What it is pushed through ends the first connections after 64 KiB each.
    let proxy = CuttingProxy::start(registry.host(), 64 * 1024, 3).await;
    let bench = Bench::new(&proxy.host()).await;
    let key = ImageSigningKey::generate().unwrap();
    let text = STANDARD.encode(noise(225_000));
    let predicate = Map::from_iter([("buildDefinition".to_owned(), Value::from(text))]);
    let subject = Subject::new(bench.subject.digest);
    let statement = Statement::new(vec![subject], PROVENANCE, predicate);
    let (repository, digest) = (bench.image.repository(), bench.subject.digest);
    let at = (repository, from_ref(&bench.subject));
    let (session, public) = (&bench.session, key.verifying_key());
    let signed = attach::attest(session, at, &statement, &key, now()).await.unwrap();
    assert_eq!(signed, Signed::Now);
    assert!(proxy.connections() > 1, "a connection was cut");
    let signed = attach::attest(session, at, &statement, &key, now()).await.unwrap();
    assert_eq!(signed, Signed::Already);
    let find = |kind, key| attach::statement(session, (repository, digest), kind, key);
    let verdict = find(PROVENANCE, &public).await.unwrap();
    let Verdict::Valid(found) = verdict else { panic!("{verdict:?}") };
    assert_eq!(found.statement(), &statement);
    assert_eq!(found.key(), key_id(&public));
    // Neither is it another kind of statement, nor one by another key, nor a signature.
    let verdict = find("https://spdx.dev/Document", &public).await.unwrap();
    assert!(matches!(verdict, Verdict::Absent), "{verdict:?}");
    let verdict = find(PROVENANCE, &bench.key.verifying_key()).await.unwrap();
    assert!(matches!(verdict, Verdict::Invalid(InvalidSignature::OtherKey)), "{verdict:?}");
    let verdict = bench.check_for(Form::Bundle, bench.expected(), &key).await.unwrap();
    assert!(matches!(verdict, Verdict::Absent), "{verdict:?}");
}

#[tokio::test]
async fn an_attestation_of_another_image_is_none_of_this_one() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host()).await;
    bench.attest(&provenance(Digest::from_bytes([1; 32]))).await;
    let at = (bench.image.repository(), bench.subject.digest);
    let key = bench.key.verifying_key();
    let verdict = attach::statement(&bench.session, at, PROVENANCE, &key).await.unwrap();
    assert!(matches!(verdict, Verdict::Invalid(InvalidSignature::OtherImage)), "{verdict:?}");
}

#[tokio::test]
async fn more_signatures_than_are_looked_at_are_not_called_unsigned() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host()).await;
    let stranger =
        Bench { key: ImageSigningKey::generate().unwrap(), ..Bench::new(double.host()).await };
    for form in BOTH {
        stranger.sign(form).await.unwrap();
        let name = match form {
            Form::Tag => format!("sha256-{}.sig", bench.subject.digest.to_hex()),
            Form::Bundle => format!("sha256-{}", bench.subject.digest.to_hex()),
        };
        let tag = ImageTag::parse(&name).unwrap();
        let (repository, target) = (bench.image.repository(), Target::Tag(&tag));
        let served = bench.session.manifest(repository, target).await.unwrap();
        let mut list: Value = serde_json::from_slice(&served.bytes).unwrap();
        let entries = if form == Form::Tag { "layers" } else { "manifests" };
        let entry = list[entries][0].clone();
        // Something that is no signature neither counts nor hides what does.
        let mut other = entry.clone();
        other["annotations"] = json!({});
        other["artifactType"] = json!("application/vnd.example.other");
        let mut between = vec![entry.clone(); 302];
        between[200] = other;
        for entries_now in [vec![entry; 201], between] {
            list[entries] = entries_now.into();
            let bytes = list.to_string();
            let push =
                bench.session.push_manifest(repository, target, &served.media_type, bytes.into());
            push.await.unwrap();
            let before = double.count(&Method::GET, "/blobs/");
            let verdict = bench.check(form).await.unwrap();
            let many = matches!(verdict, Verdict::Invalid(InvalidSignature::TooMany { max: 200 }));
            assert!(many, "{form:?}: {verdict:?}");
            assert_eq!(double.count(&Method::GET, "/blobs/") - before, 200);
        }
    }
}

#[tokio::test]
async fn an_image_without_a_tag_is_not_signed() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host()).await;
    let image =
        ImageReference::new(bench.image.registry().clone(), bench.image.repository().clone());
    let bench = Bench { image, ..bench };
    for form in BOTH {
        let error = bench.sign(form).await.unwrap_err();
        let internal = matches!(error, SignImageError::Registry(RegistryError::Internal(_)));
        assert!(internal, "{error:?}");
    }
}
