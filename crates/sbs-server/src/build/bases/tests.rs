use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::Method;
use sbs_proto::{Credentials, Digest, RegistryHost, Repository, SecretText};
use serde_json::{Value, json};

use super::*;
use crate::build::failure::chain;
use crate::build::testing::TestLog;
use sbs_registry::simple_signing::SignatureTree;
use sbs_registry::testing::double::{Double, Reply, Seen};
use sbs_registry::testing::real::RealRegistry;
use sbs_registry::testing::{client, credentials, image_config, noise, run, session};
use sbs_registry::{BlobSource, media_type};

mod trust;

/// A registry with images, and a place to keep them.
struct Bench {
    cache: tempfile::TempDir,
    log: TestLog,
    registry: BaseRegistry,
    session: Session,
    /// Where OpenPGP signatures and what notaries have said is kept.
    beside: tempfile::TempDir,
}

impl Bench {
    fn new(registry: &str) -> Self {
        let log = TestLog::new();
        Self {
            cache: tempfile::tempdir().unwrap(),
            registry: BaseRegistry {
                credentials: Some(credentials()),
                server: RegistryHost::parse(registry).unwrap(),
            },
            session: session(registry, &log.log),
            log,
            beside: tempfile::tempdir().unwrap(),
        }
    }

    fn image(&self, name: &str) -> ImageReference {
        ImageReference::parse(&format!("{}/base/{name}", self.registry.server)).unwrap()
    }

    async fn resolve(
        &self,
        images: &[ImageReference],
    ) -> Result<Vec<ResolvedBase>, ResolveBasesError> {
        self.resolve_with(images, None).await
    }

    async fn resolve_with(
        &self,
        images: &[ImageReference],
        checks: Option<BaseChecks>,
    ) -> Result<Vec<ResolvedBase>, ResolveBasesError> {
        let client = client();
        let (cache, registry, log) = (self.cache.path(), &self.registry, &self.log.log);
        let tree = SignatureTree::new(self.beside.path().join("lookaside"));
        let lookasides =
            Lookasides::from([(registry.server.to_string(), Lookaside::Directory(tree))]);
        let lookasides = &lookasides;
        let sources = BaseSources { cache, registry, client: &client, log, lookasides };
        resolve_bases(images, sources, checks, &CancellationToken::new()).await
    }

    async fn refusal(&self, name: &str) -> ResolveBasesError {
        self.resolve(&[self.image(name)]).await.unwrap_err()
    }

    /// Returns what is in the cache, complete or not.
    fn kept(&self) -> Vec<PathBuf> {
        let list = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten();
        let partial = self.cache.path().join(PARTIAL);
        let kept = list(self.cache.path()).chain(list(&partial)).map(|entry| entry.unwrap().path());
        kept.filter(|path| *path != partial).collect()
    }

    async fn push_blob(&self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let blob = Descriptor::of(media_type, &bytes);
        let source = BlobSource::Bytes(bytes.into());
        let (digest, size) = (blob.digest, blob.size);
        self.session.push_blob(&repository(), digest, size, &source).await.unwrap();
        blob
    }

    /// Pushes an image of one layer; returns the descriptor of its image manifest.
    async fn push(&self, architecture: &str, form: Form, layer: Vec<u8>) -> Descriptor {
        let [image, config_type, layer_type] = form.media_types();
        let layer = self.push_blob(layer_type, layer).await;
        let config = image_config(architecture, std::slice::from_ref(&layer));
        let config = self.push_blob(config_type, config).await;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": image,
            "config": config,
            "layers": [layer],
        });
        self.put(Name::Digest, image, manifest).await
    }

    async fn put(&self, name: Name<'_>, media_type: &str, document: Value) -> Descriptor {
        let bytes = Bytes::from(document.to_string());
        let descriptor = Descriptor::of(media_type, &bytes);
        let tag = match name {
            Name::Digest => None,
            Name::Tag(tag) => Some(ImageTag::parse(tag).unwrap()),
        };
        let target = tag.as_ref().map_or(Target::Digest(descriptor.digest), Target::Tag);
        self.session.push_manifest(&repository(), target, media_type, bytes).await.unwrap();
        descriptor
    }

    /// Pushes an index of these images under the tag `1`.
    async fn put_index(&self, entries: Vec<Value>) -> Digest {
        let index = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries,
        });
        self.put(Name::Tag("1"), media_type::OCI_INDEX, index).await.digest
    }
}

enum Name<'a> {
    Digest,
    Tag(&'a str),
}

#[derive(Clone, Copy)]
enum Form {
    Docker,
    Oci,
}

impl Form {
    fn media_types(self) -> [&'static str; 3] {
        match self {
            Self::Docker => [
                media_type::DOCKER_IMAGE,
                media_type::DOCKER_CONFIG,
                "application/vnd.docker.image.rootfs.diff.tar",
            ],
            Self::Oci => [
                media_type::OCI_IMAGE,
                media_type::OCI_CONFIG,
                "application/vnd.oci.image.layer.v1.tar",
            ],
        }
    }
}

fn repository() -> Repository {
    Repository::parse("base/app").unwrap()
}

fn entry(image: &Descriptor, os: &str, architecture: &str, variant: Option<&str>) -> Value {
    let mut entry = serde_json::to_value(image).unwrap();
    entry["platform"] = json!({ "os": os, "architecture": architecture });
    if let Some(variant) = variant {
        entry["platform"]["variant"] = variant.into();
    }
    entry
}

/// Reads a layout with skopeo, which holds every blob against its digest.
fn skopeo_digest(base: &ResolvedBase) -> String {
    let target = tempfile::tempdir().unwrap();
    let directory = format!("dir:{}", target.path().display());
    let layout = format!("oci:{}", base.layout.display());
    run("skopeo", &["copy", "-q", &layout, &directory]);
    run("skopeo", &["inspect", "--format={{.Digest}}", &layout]).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_resolved_to_the_image_for_this_machine() {
    let registry = RealRegistry::start().await;
    let bench = Bench::new(&registry.host());
    let ours = bench.push(architecture(), Form::Oci, vec![0; 1024]).await;
    let others = bench.push("m68k", Form::Oci, vec![0; 2048]).await;
    let digest = bench
        .put_index(vec![
            entry(&others, "unknown", "unknown", None),
            entry(&others, "windows", architecture(), None),
            entry(&others, "linux", "m68k", None),
            entry(&others, "linux", architecture(), Some("v3")),
            entry(&ours, "linux", architecture(), None),
        ])
        .await;
    let image = bench.image("app:1");
    // Spawned, as a build is: the future can move between threads.
    let bench = Arc::new(bench);
    let (running, images) = (Arc::clone(&bench), vec![image.clone(), image.clone()]);
    let resolved =
        tokio::spawn(async move { running.resolve(&images).await }).await.unwrap().unwrap();
    assert_eq!(resolved.len(), 1, "the same reference twice is one image");
    let base = &resolved[0];
    assert_eq!((&base.reference, &base.base.reference), (&image, &image));
    assert_eq!((base.base.digest, base.base.platform_digest), (digest, Some(ours.digest)));
    assert_eq!(base.layout, bench.cache.path().join(ours.digest.to_hex()));
    assert_eq!(skopeo_digest(base), ours.digest.to_string());
    let line = format!("{image} resolved to {digest}");
    assert!(bench.log.text().contains(&line), "{}", bench.log.text());
}

#[tokio::test]
async fn an_image_in_dockers_form_keeps_its_digest() {
    let registry = RealRegistry::start().await;
    let bench = Bench::new(&registry.host());
    let ours = bench.push(architecture(), Form::Docker, vec![0; 1024]).await;
    let image = bench.image("app").with_digest(ours.digest);
    let resolved = bench.resolve(&[image]).await.unwrap();
    assert_eq!((resolved[0].base.digest, resolved[0].base.platform_digest), (ours.digest, None));
    assert_eq!(skopeo_digest(&resolved[0]), ours.digest.to_string());
}

#[tokio::test]
async fn what_is_here_is_not_downloaded_again_unless_it_is_damaged() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let layer = noise(5000);
    let ours = bench.push(architecture(), Form::Oci, layer.clone()).await;
    bench.put_index(vec![entry(&ours, "linux", architecture(), None)]).await;
    let images = [bench.image("app:1")];
    let downloads = || double.count(&Method::GET, "/blobs/sha256:");
    bench.resolve(&images).await.unwrap();
    assert_eq!(downloads(), 2);
    let base = bench.resolve(&images).await.unwrap().remove(0);
    assert_eq!(downloads(), 2);

    let layer = blob_path(&base.layout, sbs_crypto::digest(&layer));
    let damages: [&dyn Fn(); 5] = [
        &|| std::fs::write(&layer, "short").unwrap(),
        &|| std::fs::remove_file(&layer).unwrap(),
        &|| std::fs::write(blob_path(&base.layout, ours.digest), "{}").unwrap(),
        &|| std::fs::write(base.layout.join("index.json"), "{}").unwrap(),
        &|| std::fs::remove_file(base.layout.join("oci-layout")).unwrap(),
    ];
    for (done, damage) in damages.into_iter().enumerate() {
        damage();
        bench.resolve(&images).await.unwrap();
        assert_eq!(downloads(), 4 + 2 * done);
        assert_eq!(skopeo_digest(&base), ours.digest.to_string());
    }
    assert_eq!(bench.kept(), [base.layout]);
}

#[tokio::test]
async fn r4_a_tag_that_moves_during_the_build_is_one_image() {
    let asked = AtomicUsize::new(0);
    let documents = Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let served = Arc::clone(&documents);
    let double = Double::registry(move |seen| {
        let get = seen.is(&Method::GET, "/manifests/moving");
        get.then(|| {
            let documents = served.lock().unwrap();
            let body = documents[asked.fetch_add(1, Ordering::Relaxed) % 2].clone();
            Reply::status(200).header("content-type", media_type::OCI_INDEX).body(body)
        })
    })
    .await;
    let bench = Bench::new(double.host());
    for layer in [1024, 2048] {
        let image = bench.push(architecture(), Form::Oci, vec![0; layer]).await;
        let entry = entry(&image, "linux", architecture(), None);
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        documents.lock().unwrap().push(index.to_string());
    }
    let image = bench.image("app:moving");
    let resolved = bench.resolve(&[image.clone(), image]).await.unwrap();
    assert_eq!(resolved.len(), 1);
    let first = sbs_crypto::digest(documents.lock().unwrap()[0].as_bytes());
    assert_eq!(resolved[0].base.digest, first);
}

#[tokio::test]
async fn a_reference_without_tag_is_latest_and_says_so() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let ours = bench.push(architecture(), Form::Oci, vec![0; 1024]).await;
    let index = json!({
        "schemaVersion": 2, "manifests": [entry(&ours, "linux", architecture(), None)],
    });
    bench.put(Name::Tag("latest"), media_type::OCI_INDEX, index).await;
    let image = bench.image("app");
    let base = bench.resolve(std::slice::from_ref(&image)).await.unwrap().remove(0);
    assert_eq!(base.reference, image);
    assert_eq!(base.base.reference, bench.image("app:latest"));
}

#[tokio::test]
async fn r1_credentials_go_to_the_one_registry_that_they_are_for() {
    let wanted = |_: &_| Some(Reply::status(401).header("www-authenticate", "Basic realm=\"r\""));
    let (own, other) = (Double::registry(wanted).await, Double::registry(wanted).await);
    let bench = Bench::new(own.host());
    for (double, sent) in [(&own, 1), (&other, 0)] {
        let image = ImageReference::parse(&format!("{}/base/app:1", double.host())).unwrap();
        let error = bench.resolve(std::slice::from_ref(&image)).await.unwrap_err();
        let with_credentials = double.seen().iter().filter(|s| s.authorization().is_some()).count();
        assert_eq!(with_credentials, sent, "{}", double.host());
        let failure = error.failure();
        let login = "docker login --username <USERNAME> --password <PASSWORD>";
        assert_eq!(failure.command, format!("{login} {}", double.host()));
        assert_eq!((failure.code, failure.return_code), ("registry_login", 1));
    }
}

#[tokio::test]
async fn an_image_that_is_not_there_is_told() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let error = bench.refusal("missing:1").await;
    let command = format!("docker pull {}", bench.image("missing:1"));
    let expected = Failure { code: "registry_not_found", command, return_code: 1 };
    assert_eq!(error.failure(), expected);
}

#[tokio::test]
async fn an_image_for_other_machines_is_refused() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let other = bench.push("m68k", Form::Oci, vec![0; 1024]).await;
    bench.put_index(vec![entry(&other, "linux", "m68k", None)]).await;
    let error = bench.refusal("app:1").await;
    assert!(matches!(error.fault, ResolveFault::NoPlatform { .. }), "{error:?}");
    // Named directly, and in an index that is wrong about it.
    let named = bench.resolve(&[bench.image("app").with_digest(other.digest)]).await;
    let error = named.unwrap_err();
    assert!(matches!(error.fault, ResolveFault::NoPlatform { .. }), "{error:?}");
    bench.put_index(vec![entry(&other, "linux", architecture(), None)]).await;
    let error = bench.refusal("app:1").await;
    assert!(matches!(error.fault, ResolveFault::NoPlatform { .. }), "{error:?}");
    assert!(bench.kept().is_empty());
}

#[tokio::test]
async fn r3_an_image_that_is_not_what_its_index_says_is_refused() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let ours = bench.push(architecture(), Form::Oci, vec![0; 1024]).await;
    let mut wrong_size = entry(&ours, "linux", architecture(), None);
    wrong_size["size"] = 1.into();
    bench.put_index(vec![wrong_size]).await;
    let error = bench.refusal("app:1").await;
    assert!(matches!(error.fault, ResolveFault::OtherThanListed), "{error:?}");

    let nested = json!({ "schemaVersion": 2, "manifests": [] });
    let nested = bench.put(Name::Digest, media_type::OCI_INDEX, nested).await;
    let mut entry = entry(&nested, "linux", architecture(), None);
    entry["mediaType"] = media_type::OCI_IMAGE.into();
    bench.put_index(vec![entry]).await;
    let error = bench.refusal("app:1").await;
    assert!(matches!(error.fault, ResolveFault::OtherThanListed), "{error:?}");
}

#[tokio::test]
async fn r3_a_layer_with_other_bytes_is_refused_and_not_kept() {
    let bad = Arc::new(AtomicBool::new(true));
    let (now, layer) = (Arc::clone(&bad), noise(5000));
    let layer_path = format!("/blobs/{}", sbs_crypto::digest(&layer));
    let double = Double::registry(move |seen| {
        let swapped = seen.is(&Method::GET, &layer_path) && now.load(Ordering::Relaxed);
        swapped.then(|| Reply::status(200).body(vec![b'x'; 5000]))
    })
    .await;
    let bench = Bench::new(double.host());
    let ours = bench.push(architecture(), Form::Oci, layer).await;
    bench.put_index(vec![entry(&ours, "linux", architecture(), None)]).await;
    let error = bench.refusal("app:1").await;
    assert!(chain(&error).contains("has digest"), "{}", chain(&error));
    assert!(bench.kept().is_empty());
    bad.store(false, Ordering::Relaxed);
    bench.resolve(&[bench.image("app:1")]).await.unwrap();
}

#[tokio::test]
async fn r2_urls_of_foreign_layers_are_not_gone_to() {
    let elsewhere = Double::start("127.0.0.1", |_| Reply::status(200).body([0; 1024])).await;
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let config = bench.push_blob(media_type::OCI_CONFIG, image_config(architecture(), &[])).await;
    let layer = json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "digest": sbs_crypto::digest(&[0; 1024]),
        "size": 1024,
        "urls": [format!("https://{}/layer", elsewhere.host())],
    });
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    bench.put(Name::Tag("1"), media_type::OCI_IMAGE, manifest).await;
    let error = bench.refusal("app:1").await;
    assert_eq!(error.failure().code, "registry_not_found");
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn r3_an_image_that_is_too_large_is_not_begun() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    let config = bench.push_blob(media_type::OCI_CONFIG, image_config(architecture(), &[])).await;
    let config = |size: u64| {
        let mut config = serde_json::to_value(&config).unwrap();
        config["size"] = size.into();
        config
    };
    let layer = |size: u64| {
        let layer = "application/vnd.oci.image.layer.v1.tar";
        serde_json::to_value(Descriptor::new(layer, Digest::from_bytes([1; 32]), size)).unwrap()
    };
    let other = |size: u64| {
        let mut layer = layer(size);
        layer["digest"] = Digest::from_bytes([2; 32]).to_string().into();
        layer
    };
    let small = config(100);
    for (config, layers) in [
        (small.clone(), vec![layer(MAX_IMAGE_BYTES)]),
        (small, vec![layer(u64::MAX), other(u64::MAX)]),
        (config(MAX_CONFIG_BYTES + 1), vec![]),
    ] {
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        bench.put(Name::Tag("1"), media_type::OCI_IMAGE, manifest).await;
        let error = bench.refusal("app:1").await;
        assert!(matches!(error.fault, ResolveFault::TooLarge), "{error:?}");
    }
    assert_eq!(double.count(&Method::GET, "/blobs/sha256:"), 0);
}

#[tokio::test]
async fn something_that_is_no_image_is_refused() {
    let double = Double::registry(|_| None).await;
    let bench = Bench::new(double.host());
    for (config_type, config) in [
        ("application/vnd.oci.empty.v1+json", b"{}".to_vec()),
        ("application/vnd.cncf.helm.config.v1+json", image_config(architecture(), &[])),
        (media_type::OCI_CONFIG, b"{}".to_vec()),
    ] {
        let config = bench.push_blob(config_type, config).await;
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] });
        bench.put(Name::Tag("1"), media_type::OCI_IMAGE, manifest).await;
        let error = bench.refusal("app:1").await;
        assert!(matches!(error.fault, ResolveFault::NoImage), "{error:?}");
        assert_eq!(error.failure().code, "base_image");
    }
}

#[tokio::test]
async fn a_password_for_base_images_shows_nowhere() {
    let registry = RealRegistry::start().await;
    let mut bench = Bench::new(&registry.host());
    bench.registry.credentials = Some(Credentials {
        password: SecretText::new("hunter2secret".to_owned()),
        user: "someone".to_owned(),
    });
    let error = bench.refusal("app:1").await;
    let text = format!("{} {error:?} {}", chain(&error), bench.log.text());
    assert!(text.contains("refused the user name or password"), "{text}");
    assert!(!text.contains("hunter2secret"), "{text}");
}

#[test]
fn b2_triggers_of_a_base_image_that_reach_outside_are_refused() {
    let config = |trigger: &str| {
        let config = json!({
            "architecture": architecture(), "os": "linux", "config": {"OnBuild": [trigger]},
        });
        check_config_bytes(config.to_string().as_bytes())
    };
    config("COPY . /app").unwrap();
    for trigger in [
        "COPY --from=other/image / /",
        "COPY --fr\\\nom=other/image / /",
        "RUN --mount=type=bind,source=/ ls",
    ] {
        assert!(matches!(config(trigger), Err(ResolveFault::Trigger)), "{trigger}");
    }
    let none = json!({"architecture": architecture(), "os": "linux", "config": null});
    check_config_bytes(none.to_string().as_bytes()).unwrap();
}
