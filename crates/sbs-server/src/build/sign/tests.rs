use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::Value;

use sbs_crypto::openpgp::OpenPgpSigningKey;
use sbs_crypto::{ImageSigningKey, digest as digest_of};
use sbs_proto::v2::BuildId;
use time::OffsetDateTime;

use super::*;
use crate::build::engine::Built;
use crate::build::failure::chain;
use crate::build::publish::{blob_path, publish};
use crate::build::testing::TestLog;
use sbs_registry::ImageManifest;
use sbs_registry::cosign::tag::tag as signature_tag;
use sbs_registry::cosign::{Expected, Verdict, bundle};
use sbs_registry::simple_signing::SignatureTree;
use sbs_registry::testing::double::{Double, Reply, Seen};
use sbs_registry::testing::real::RealRegistry;
use sbs_registry::testing::signatures::SignatureRegistry;
use sbs_registry::testing::{noise, run as run_program, session, write_layout};

/// A built image, a registry session, and a key.
struct Bench {
    directory: tempfile::TempDir,
    digest: Digest,
    destination: ImageReference,
    key: ImageSigningKey,
    log: TestLog,
    session: Session,
    cancel: CancellationToken,
}

impl Bench {
    fn new(registry: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let digest = write_layout(directory.path(), &[&noise(10_000), &[0; 1024]]);
        let log = TestLog::new();
        Self {
            directory,
            digest,
            destination: ImageReference::parse(&format!("{registry}/team/app:v1-0a1b2c3")).unwrap(),
            key: ImageSigningKey::generate().unwrap(),
            session: session(registry, &log.log),
            log,
            cancel: CancellationToken::new(),
        }
    }

    async fn publish(&self) -> Published {
        let layout = self.directory.path();
        publish(
            &Built::of_test(layout, self.digest),
            &self.destination,
            &self.session,
            &self.cancel,
        )
        .await
        .unwrap()
    }

    async fn sign(&self) -> Result<Signed, ReleaseError> {
        let published = self.publish().await;
        let build = BuildId::parse("00000007").unwrap();
        sign(published, &forms(&self.key, &build).each(), &self.session, &self.cancel).await
    }

    async fn read_back(&self, signed: Signed) -> Result<Confirmed, ReleaseError> {
        self.read_back_with(signed, &self.key).await
    }

    async fn read_back_with(
        &self,
        signed: Signed,
        key: &ImageSigningKey,
    ) -> Result<Confirmed, ReleaseError> {
        let build = BuildId::parse("00000007").unwrap();
        read_back(signed, &forms(key, &build).each(), &self.session, &self.cancel).await
    }

    async fn release(&self) -> Result<Tagged, ReleaseError> {
        let confirmed = self.read_back(self.sign().await?).await?;
        tag(confirmed, &self.session, &self.cancel).await
    }

    async fn signatures(&self) -> ImageManifest {
        let tag = signature_tag(self.digest).unwrap();
        let target = Target::Tag(&tag);
        let served = self.session.manifest(self.destination.repository(), target).await.unwrap();
        ImageManifest::parse(&served.bytes).unwrap()
    }
}

/// The forms that a build uses.
struct Forms<'a>(TagForm<'a>, BundleForm<'a>);

fn forms<'a>(key: &'a ImageSigningKey, build: &'a BuildId) -> Forms<'a> {
    let created = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    Forms(TagForm { key }, BundleForm { build, created, key })
}

impl Forms<'_> {
    fn each(&self) -> [&dyn SignatureForm; 2] {
        [&self.0, &self.1]
    }
}

fn is_signature(seen: &Seen, method: &Method) -> bool {
    seen.is(method, "/manifests/sha256-") && seen.path.contains(".sig")
}

fn sets_tag(seen: &Seen) -> bool {
    seen.is(&Method::PUT, "/manifests/v1-0a1b2c3")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_image_is_tagged_and_openssl_verifies_its_signature() {
    let registry = RealRegistry::start().await;
    let bench = Bench::new(&registry.host());
    // Spawned, as a build is: the futures of all steps can move between threads.
    let bench = Arc::new(bench);
    let running = Arc::clone(&bench);
    let tagged = tokio::spawn(async move { running.release().await }).await.unwrap().unwrap();
    assert_eq!((tagged.reference(), tagged.digest()), (&bench.destination, bench.digest));
    assert_eq!(registry.skopeo_digest("team/app:v1-0a1b2c3"), bench.digest.to_string());

    // From here on everything is read with other programs.
    let [certificates, credentials] = registry.skopeo_options();
    let hex = bench.digest.to_hex();
    let image = format!("docker://{}/team/app:sha256-{hex}.sig", registry.host());
    let raw = run_program("skopeo", &["inspect", "--raw", &certificates, &credentials, &image]);
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
    let at = |name: &str| bench.directory.path().join(name).to_str().unwrap().to_owned();
    let [certificates, credentials] =
        [certificates, credentials].map(|option| option.replacen("--", "--src-", 1));
    let directory = format!("dir:{}", at("sig"));
    run_program("skopeo", &["copy", "-q", &certificates, &credentials, &image, &directory]);
    let payload = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let payload = at(&format!("sig/{payload}"));
    let signature = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
    std::fs::write(at("signature"), STANDARD.decode(signature).unwrap()).unwrap();
    std::fs::write(at("key.pem"), bench.key.verifying_key().to_pem()).unwrap();
    let (key, signature) = (at("key.pem"), at("signature"));
    let judge = ["dgst", "-sha256", "-verify", &key, "-signature", &signature, &payload];
    assert_eq!(run_program("openssl", &judge).trim(), "Verified OK");

    let said: Value = serde_json::from_slice(&std::fs::read(&payload).unwrap()).unwrap();
    let critical = &said["critical"];
    assert_eq!(critical["identity"]["docker-reference"], bench.destination.to_string());
    assert_eq!(critical["image"]["docker-manifest-digest"], bench.digest.to_string());
    let config = std::fs::read(
        Path::new(&at("sig"))
            .join(manifest["config"]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap()),
    );
    let config: Value = serde_json::from_slice(&config.unwrap()).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
}

#[tokio::test]
async fn i1_the_tag_is_the_last_thing_that_is_set() {
    let double = Double::registry(|_| None).await;
    Bench::new(double.host()).release().await.unwrap();
    let puts: Vec<_> =
        double.seen().into_iter().filter(|seen| seen.method == Method::PUT).collect();
    let manifests: Vec<_> = puts.iter().filter(|seen| seen.path.contains("/manifests/")).collect();
    let paths: Vec<_> = manifests.iter().map(|seen| seen.path.clone()).collect();
    // The image, a signature, the referrer and the list that it stands in, the tag.
    assert_eq!(manifests.len(), 5, "{paths:?}");
    assert!(paths[0].contains("/manifests/sha256:"));
    assert!(is_signature(manifests[1], &Method::PUT));
    assert!(paths[2].contains("/manifests/sha256:") && paths[2] != paths[0]);
    assert!(paths[3].contains("/manifests/sha256-") && !paths[3].contains(".sig"));
    assert!(sets_tag(manifests[4]) && sets_tag(puts.last().unwrap()));
    assert_eq!(manifests[4].body, manifests[0].body);
}

#[tokio::test]
async fn signing_again_adds_nothing_and_another_key_its_own() {
    let registry = RealRegistry::start().await;
    let mut bench = Bench::new(&registry.host());
    bench.release().await.unwrap();
    let first = bench.signatures().await;
    bench.release().await.unwrap();
    assert_eq!(bench.signatures().await, first);
    for form in ["simple signing under a tag", "sigstore bundle"] {
        let already = format!("the signature is there already: {form}");
        assert_eq!(bench.log.text().matches(&already).count(), 1, "{}", bench.log.text());
    }

    bench.key = ImageSigningKey::generate().unwrap();
    bench.release().await.unwrap();
    let both = bench.signatures().await;
    assert_eq!(both.layers.len(), 2);
    assert_eq!(both.layers[0], first.layers[0]);
    // The same statement by another key is another entry of the same blob.
    assert_eq!(both.layers[0].digest, both.layers[1].digest);
    assert_ne!(both.layers[0].annotations, both.layers[1].annotations);
}

#[tokio::test]
async fn signatures_by_others_are_kept_as_they_are() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let foreign = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"annotations":{"dev.cosignproject.cosign/signature":"AAAA","dev.sigstore.cosign/bundle":"b"},"data":"e30="}],"annotations":{"a":"b"}}"#;
    let tag = signature_tag(bench.digest).unwrap();
    let target = Target::Tag(&tag);
    let repository = bench.destination.repository();
    let push =
        bench.session.push_manifest(repository, target, media_type::OCI_IMAGE, foreign.into());
    push.await.unwrap();
    bench.release().await.unwrap();

    let before: Value = serde_json::from_str(foreign).unwrap();
    let after: Value = serde_json::from_slice(&bench.signatures().await.to_json()).unwrap();
    assert_eq!(after["layers"][0], before["layers"][0]);
    assert_eq!(after["annotations"], before["annotations"]);
    assert_eq!(after["layers"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_signature_tag_with_something_else_is_not_written_over() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let tag = signature_tag(bench.digest).unwrap();
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    let (repository, target) = (bench.destination.repository(), Target::Tag(&tag));
    let push = bench.session.push_manifest(repository, target, media_type::OCI_INDEX, index.into());
    push.await.unwrap();
    let error = bench.release().await.unwrap_err();
    assert!(matches!(error.fault, ReleaseFault::NotSignatures { .. }), "{error:?}");
    let puts = double.seen().into_iter().filter(|seen| is_signature(seen, &Method::PUT)).count();
    assert_eq!(puts, 1, "the one of this test");
}

#[tokio::test]
async fn b11_an_image_that_was_swapped_after_the_push_is_not_signed() {
    // Other bytes, and the same bytes as another kind of document.
    for (media_type, other) in [
        (media_type::OCI_IMAGE, Some(r#"{"schemaVersion":2}"#)),
        (media_type::OCI_INDEX, None),
        (media_type::DOCKER_IMAGE, None),
    ] {
        let kept = std::sync::Mutex::new(String::new());
        let double = Double::registry(move |seen| {
            let mut kept = kept.lock().unwrap();
            if seen.is(&Method::PUT, "/manifests/sha256:") {
                *kept = String::from_utf8(seen.body.to_vec()).unwrap();
            }
            let get = seen.is(&Method::GET, "/manifests/sha256:");
            let reply = || Reply::status(200).header("content-type", media_type);
            get.then(|| reply().body(other.unwrap_or(&kept)))
        })
        .await;
        let mut bench = Bench::new(double.host());
        // Without a type of its own, what the registry says is all there is.
        let layout = bench.directory.path();
        let manifest = std::fs::read_to_string(blob_path(layout, bench.digest)).unwrap();
        let manifest = manifest.replacen(
            r#""mediaType":"application/vnd.oci.image.manifest.v1+json","#,
            "",
            1,
        );
        bench.digest = digest_of(manifest.as_bytes());
        std::fs::write(blob_path(layout, bench.digest), manifest).unwrap();

        let error = bench.release().await.unwrap_err();
        let text = chain(&error);
        assert!(text.starts_with("cannot sign"), "{text}");
        let puts: Vec<_> = double.seen().into_iter().filter(|s| s.method == Method::PUT).collect();
        assert!(!puts.iter().any(|seen| is_signature(seen, &Method::PUT) || sets_tag(seen)));
    }
}

#[tokio::test]
async fn i1_an_image_whose_signature_is_lost_is_not_tagged() {
    let double = Double::registry(|seen| {
        // It says that it took it, and did not.
        is_signature(seen, &Method::PUT).then(|| Reply::status(201))
    })
    .await;
    let bench = Bench::new(double.host());
    let error = bench.release().await.unwrap_err();
    assert!(chain(&error).contains("does not serve it"), "{}", chain(&error));
    assert_eq!(error.failure().code, "registry");
    let command = format!("docker push {}", bench.destination);
    assert_eq!((error.failure().command, error.failure().return_code), (command, 1));
    assert!(!double.seen().iter().any(sets_tag));
}

#[tokio::test]
async fn i1_an_image_whose_signature_is_by_another_key_is_not_tagged() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let signed = bench.sign().await.unwrap();
    let other = ImageSigningKey::generate().unwrap();
    let error = bench.read_back_with(signed, &other).await.unwrap_err();
    assert!(matches!(error.fault, ReleaseFault::Invalid { .. }), "{error:?}");
}

#[tokio::test]
async fn i1_an_image_that_lost_a_blob_or_its_payload_is_not_tagged() {
    for payload in [false, true] {
        let lost = Arc::new(AtomicBool::new(false));
        let now = Arc::clone(&lost);
        let double = Double::registry(move |seen| {
            let (head, get) = (seen.is(&Method::HEAD, "/blobs/"), seen.is(&Method::GET, "/blobs/"));
            let wanted = if payload { get } else { head };
            if !(wanted && now.load(Ordering::Relaxed)) {
                return None;
            }
            Some(if payload { Reply::status(200).body([b'x'; 300]) } else { Reply::status(404) })
        })
        .await;
        let bench = Bench::new(double.host());
        let signed = bench.sign().await.unwrap();
        lost.store(true, Ordering::Relaxed);
        let error = bench.read_back(signed).await.unwrap_err();
        assert!(!double.seen().iter().any(sets_tag));
        let expected = if payload { "has another size" } else { "has lost blob" };
        assert!(chain(&error).contains(expected), "{}", chain(&error));
    }
}

#[tokio::test]
async fn throttled_is_not_unsigned() {
    let double = Double::registry(|seen| {
        is_signature(seen, &Method::GET).then(|| Reply::status(429).header("retry-after", "0"))
    })
    .await;
    let error = Bench::new(double.host()).release().await.unwrap_err();
    let limited = RegistryErrorStatus::of(&error);
    assert_eq!(limited, Some(429), "{error:?}");
    assert!(!double.seen().iter().any(|seen| is_signature(seen, &Method::PUT)));
}

struct RegistryErrorStatus;

impl RegistryErrorStatus {
    fn of(error: &ReleaseError) -> Option<u16> {
        match &error.fault {
            ReleaseFault::Registry(RegistryError::Rejected { status, .. }) => Some(*status),
            _ => None,
        }
    }
}

#[tokio::test]
async fn a_registry_that_shows_things_late_is_waited_for() {
    let hidden = AtomicUsize::new(0);
    let double = Double::registry(move |seen| {
        let late = is_signature(seen, &Method::GET) || seen.is(&Method::GET, "/manifests/v1-");
        // The first look at the signatures is before there are any.
        let hide = late && (1..4).contains(&hidden.fetch_add(1, Ordering::Relaxed));
        hide.then(|| Reply::status(404))
    })
    .await;
    Bench::new(double.host()).release().await.unwrap();
}

#[tokio::test]
async fn r4_a_tag_that_was_moved_at_once_is_noticed() {
    let double = Double::registry(|seen| {
        let get = seen.is(&Method::GET, "/manifests/v1-");
        get.then(|| {
            let body = br#"{"schemaVersion":2,"other":"image"}"#.to_vec();
            Reply::status(200).header("content-type", media_type::OCI_IMAGE).body(body)
        })
    })
    .await;
    let error = Bench::new(double.host()).release().await.unwrap_err();
    assert!(matches!(error.fault, ReleaseFault::TagMoved { .. }), "{error:?}");
}

#[tokio::test]
async fn a_cancelled_build_signs_and_tags_nothing() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let published = bench.publish().await;
    let before = double.seen().len();
    bench.cancel.cancel();
    let build = BuildId::parse("00000007").unwrap();
    let signing = forms(&bench.key, &build);
    let error = sign(published, &signing.each(), &bench.session, &bench.cancel).await.unwrap_err();
    assert_eq!((error.failure().code, error.failure().return_code), ("cancelled", 137));
    assert_eq!(double.seen().len(), before);
}

#[tokio::test]
async fn i1_an_image_that_lost_one_of_its_forms_is_not_tagged() {
    for lost in ["tag", "bundle"] {
        let now = Arc::new(AtomicBool::new(false));
        let gone = Arc::clone(&now);
        let double = Double::registry_with_referrers(10, move |seen| {
            let form = if lost == "tag" {
                is_signature(seen, &Method::GET)
            } else {
                seen.is(&Method::GET, "/referrers/")
                    || seen.is(&Method::GET, "/manifests/sha256-")
                        && !is_signature(seen, &Method::GET)
            };
            (form && gone.load(Ordering::Relaxed)).then(|| Reply::status(404))
        })
        .await;
        let bench = Bench::new(double.host());
        let signed = bench.sign().await.unwrap();
        now.store(true, Ordering::Relaxed);
        let error = bench.read_back(signed).await.unwrap_err();
        assert!(matches!(error.fault, ReleaseFault::Unsigned { .. }), "{lost}: {error:?}");
        assert_eq!(error.failure().code, "image_read_back");
        assert!(!double.seen().iter().any(sets_tag));
    }
}

#[tokio::test]
async fn a_bundle_names_repository_tag_and_build() {
    let registry = RealRegistry::start().await;
    let bench = Bench::new(&registry.host());
    bench.release().await.unwrap();
    let expected = Expected { image: &bench.destination, digest: bench.digest };
    let key = bench.key.verifying_key();
    let verdict = bundle::check(&bench.session, expected, &key).await.unwrap();
    let Verdict::Valid(signature) = verdict else { panic!("{verdict:?}") };
    assert_eq!(signature.image(), &bench.destination);
    assert_eq!(signature.build().unwrap().as_str(), "00000007");
}

#[tokio::test]
async fn an_image_is_not_released_without_any_form() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let published = bench.publish().await;
    sign(published, &[], &bench.session, &bench.cancel).await.unwrap_err();
}

/// Simple signing by one key, beside nothing else.
async fn release_by(bench: &Bench, form: &OpenPgpForm<'_>) -> Result<Tagged, ReleaseError> {
    let forms: [&dyn SignatureForm; 1] = [form];
    let (session, cancel) = (&bench.session, &bench.cancel);
    let signed = sign(bench.publish().await, &forms, session, cancel).await?;
    tag(read_back(signed, &forms, session, cancel).await?, session, cancel).await
}

#[tokio::test(flavor = "multi_thread")]
async fn openpgp_signatures_go_to_the_registry_that_keeps_them() {
    let registry = RealRegistry::start().await;
    let keeping = SignatureRegistry::start(&registry, |_| None).await;
    let bench = Bench::new(keeping.host());
    let at = OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap();
    let key = OpenPgpSigningKey::generate("test", at).unwrap();
    let beside = tempfile::tempdir().unwrap();
    let tree = SignatureTree::new(beside.path().join("lookaside"));
    let place = SignaturePlace::find(&bench.session, &bench.destination, Some(tree.clone())).await;
    let place = place.unwrap().unwrap();
    assert!(matches!(place, SignaturePlace::Registry), "the directory is not asked for");
    let form = OpenPgpForm { at, key: &key, place: &place };
    for _ in 0..2 {
        release_by(&bench, &form).await.unwrap();
        assert_eq!(keeping.kept().len(), 1, "one is enough");
    }
    assert!(!beside.path().join("lookaside").exists());

    // A registry without the extension: the directory, or nowhere.
    let plain = Bench::new(&registry.host());
    let none = SignaturePlace::find(&plain.session, &plain.destination, None).await.unwrap();
    assert!(none.is_none());
    let place = SignaturePlace::find(&plain.session, &plain.destination, Some(tree)).await;
    let place = place.unwrap().unwrap();
    release_by(&plain, &OpenPgpForm { at, key: &key, place: &place }).await.unwrap();
    assert!(beside.path().join("lookaside/team").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_openpgp_signature_that_the_registry_loses_stops_the_release() {
    let registry = RealRegistry::start().await;
    let gone = Arc::new(AtomicBool::new(false));
    let losing = Arc::clone(&gone);
    let keeping = SignatureRegistry::start(&registry, move |seen| {
        let asked = seen.is(&Method::GET, "/extensions/v2/");
        let empty = || Reply::status(200).body(br#"{"signatures":[]}"#.to_vec());
        (asked && losing.load(Ordering::SeqCst)).then(empty)
    })
    .await;
    let bench = Bench::new(keeping.host());
    let at = OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap();
    let key = OpenPgpSigningKey::generate("test", at).unwrap();
    let form = OpenPgpForm { at, key: &key, place: &SignaturePlace::Registry };
    let forms: [&dyn SignatureForm; 1] = [&form];
    let (session, cancel) = (&bench.session, &bench.cancel);
    let signed = sign(bench.publish().await, &forms, session, cancel).await.unwrap();
    gone.store(true, Ordering::SeqCst);
    let error = read_back(signed, &forms, session, cancel).await.unwrap_err();
    assert!(matches!(error.fault, ReleaseFault::NotSigned(_)), "{error:?}");
    assert!(!keeping.seen().iter().any(sets_tag), "no tag points to it");
}
