//! Images in a registry, verified by a trust bundle.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::ImageSigningKey;
use sbs_crypto::openpgp::OpenPgpSigningKey;
use sbs_proto::{
    DefinitionName, Digest, ImageReference, ImageTag, OpenPgpPublicKey, PublicKey, TRUST_SCHEMA,
    TrustBundle,
};
use sbs_registry::cosign::{key_id, tag};
use sbs_registry::testing::double::{Double, Reply};
use sbs_registry::testing::real::RealRegistry;
use sbs_registry::testing::{Authority, PASSWORD, TestLog, USER, session};
use sbs_registry::{BlobSource, Descriptor, ImageManifest, Session, Target, media_type};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::place::{Place, Run};

/// A registry with an image in it, and a place with what is needed to verify it.
struct Bench {
    digest: Digest,
    image: ImageReference,
    key: ImageSigningKey,
    place: Place,
    registry: RealRegistry,
    session: Session,
}

impl Bench {
    async fn new() -> Self {
        let registry = RealRegistry::start().await;
        let session = session(&registry.host(), &TestLog::new());
        let image = ImageReference::parse(&format!("{}/team/app:v1", registry.host())).unwrap();
        let digest = push_image(&session, &image).await;
        let (key, place) = (ImageSigningKey::generate().unwrap(), Place::new());
        let bench = Self { digest, image, key, place, registry, session };
        bench.place.write("ca.pem", &Authority::get().ca_pem);
        bench.place.write("auth.json", &auths(&bench.registry.host()).to_string());
        bench.save(&bundle(&bench.image, &bench.key));
        bench
    }

    fn save(&self, bundle: &TrustBundle) {
        self.place.write("trust.json", &serde_json::to_string(bundle).unwrap());
    }

    async fn sign(&self, key: &ImageSigningKey) {
        tag::sign(&self.session, &self.image, self.digest, key).await.unwrap();
    }

    /// Verifies the image, with everything that this needs.
    async fn verify(&self, more: &[&str]) -> Run {
        let image = self.image.to_string();
        let usual = ["verify-image", "--ca-file", "ca.pem", "--authfile", "auth.json", &image];
        self.run(&[more, &usual].concat()).await
    }

    async fn run(&self, arguments: &[&str]) -> Run {
        run(&self.place, arguments).await
    }
}

/// Runs the binary while the servers of this process go on.
async fn run(place: &Place, arguments: &[&str]) -> Run {
    tokio::task::yield_now().await;
    tokio::task::block_in_place(|| place.run(arguments))
}

fn auths(host: &str) -> Value {
    json!({ "auths": { host: { "auth": STANDARD.encode(format!("{USER}:{PASSWORD}")) } } })
}

fn bundle(image: &ImageReference, key: &ImageSigningKey) -> TrustBundle {
    let key = key.verifying_key();
    TrustBundle {
        attestation_keys: Vec::new(),
        definition: DefinitionName::default_name(),
        image_keys: vec![PublicKey {
            id: key_id(&key).to_hex(),
            pem: key.to_pem(),
            retiring: false,
        }],
        lookaside: None,
        manifest_keys: Vec::new(),
        notary: None,
        openpgp_keys: Vec::new(),
        repository: ImageReference::new(image.registry().clone(), image.repository().clone()),
        schema: TRUST_SCHEMA.to_owned(),
    }
}

async fn push_image(session: &Session, image: &ImageReference) -> Digest {
    let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let source = BlobSource::Bytes(b"{}".to_vec().into());
    session.push_blob(image.repository(), config.digest, config.size, &source).await.unwrap();
    let bytes = ImageManifest::new(config, Vec::new()).to_json();
    let digest = sbs_crypto::digest(&bytes);
    let target = Target::Tag(image.tag().unwrap());
    let push =
        session.push_manifest(image.repository(), target, media_type::OCI_IMAGE, bytes.into());
    push.await.unwrap();
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_image_is_exit_0_and_told_form_by_form() {
    let bench = Bench::new().await;
    bench.sign(&bench.key).await;
    let (image, digest) = (&bench.image, bench.digest);
    let id = key_id(&bench.key.verifying_key()).to_hex();
    let repository = bundle(image, &bench.key).repository;
    let good = bench.verify(&[]).await;
    assert_eq!((good.code, good.stderr.as_str()), (0, ""), "{good:?}");
    assert_eq!(
        good.stdout,
        format!(
            "image           {image}\n\
             digest          {digest}\n\
             cosign tag      valid: current key {id}, for {image}\n\
             cosign bundle   missing: the registry has none\n\
             simple signing  not checked: the bundle names no key\n\
             notary          not checked: the bundle names no key\n\
             verdict         good\n\
             pull            {repository}@{digest}\n"
        )
    );
    let json = bench.verify(&["--format", "json"]).await.json();
    let expected = json!({
        "digest": digest, "image": image, "kind": "image", "version": 1, "verdict": "good",
        "pull": format!("{repository}@{digest}"),
        "forms": [
            { "form": "cosign-tag", "result": "valid", "key": id, "retiring": false,
              "signed": image, "build": null },
            { "form": "cosign-bundle", "result": "missing", "reason": "the registry has none" },
            { "form": "simple-signing", "result": "not-checked", "reason": null },
            { "form": "notary", "result": "not-checked", "reason": null },
        ],
    });
    assert_eq!(json, expected);
    // What is told to be pulled can be verified again; the bundle has another name now.
    bench.place.write("other.json", &bench.place.read("trust.json"));
    std::fs::remove_file(bench.place.path("trust.json")).unwrap();
    let pull = json["pull"].as_str().unwrap();
    let usual = ["--trust", "other.json", "--ca-file", "ca.pem", "--authfile", "auth.json"];
    let again = bench.run(&[&["verify-image", pull][..], &usual].concat()).await;
    assert_eq!(again.code, 0, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_an_image_that_is_not_released_is_exit_4_and_not_to_be_pulled() {
    let bench = Bench::new().await;
    let unsigned = bench.verify(&[]).await;
    assert_eq!(unsigned.code, 4, "{unsigned:?}");
    assert!(unsigned.stdout.contains("verdict         UNSIGNED: do not use"), "{unsigned:?}");
    assert!(unsigned.stderr.contains("is not signed as it must be"), "{unsigned:?}");

    bench.sign(&ImageSigningKey::generate().unwrap()).await;
    let invalid = bench.verify(&[]).await;
    assert_eq!(invalid.code, 4, "{invalid:?}");
    assert!(invalid.stdout.contains("cosign tag      INVALID: a signature of"), "{invalid:?}");
    assert!(invalid.stdout.contains("verdict         INVALID: do not use"), "{invalid:?}");
    let json = bench.verify(&["--format", "json"]).await.json();
    assert_eq!((&json["verdict"], &json["pull"]), (&json!("invalid"), &Value::Null));
    for run in [unsigned, invalid] {
        assert!(!run.stdout.contains("pull"), "{run:?}");
    }

    let absent = bench.image.with_tag(ImageTag::parse("none").unwrap()).to_string();
    let usual = ["verify-image", "--ca-file", "ca.pem", "--authfile", "auth.json", &absent];
    let absent = bench.run(&usual).await;
    assert_eq!((absent.code, absent.stdout.as_str()), (4, ""), "{absent:?}");
    assert!(absent.stderr.contains("cannot be had: registry"), "{absent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_credentials_come_from_the_usual_files_and_are_not_shown() {
    let bench = Bench::new().await;
    bench.sign(&bench.key).await;
    let image = bench.image.to_string();
    let verify = ["-vv", "verify-image", "--ca-file", "ca.pem", &image];
    let none = bench.run(&verify).await;
    assert_eq!((none.code, none.stdout.as_str()), (3, ""), "{none:?}");
    assert!(none.stderr.contains("hint: --authfile names a file"), "{none:?}");

    let auth = bench.place.read("auth.json");
    std::fs::create_dir_all(bench.place.path(".docker")).unwrap();
    std::fs::create_dir_all(bench.place.path("run/containers")).unwrap();
    let with = |name: &str, value: &str| {
        let mut command = bench.place.command(env!("CARGO_BIN_EXE_sbs"));
        let command = command.args(verify).env(name, bench.place.path(value));
        tokio::task::block_in_place(|| Run::of(&command.output().unwrap()))
    };
    let mut runs = vec![with("REGISTRY_AUTH_FILE", "auth.json")];
    bench.place.write("run/containers/auth.json", &auth);
    runs.push(with("XDG_RUNTIME_DIR", "run"));
    // The one for podman has no such entry.
    bench.place.write("run/containers/auth.json", &auths("other.example").to_string());
    bench.place.write(".docker/config.json", &auth);
    runs.push(with("XDG_RUNTIME_DIR", "run"));
    for run in &runs {
        assert_eq!(run.code, 0, "{run:?}");
    }
    // A file that is named must be there, and counts alone.
    let gone = with("REGISTRY_AUTH_FILE", "gone.json");
    assert_eq!(gone.code, 2, "{gone:?}");
    bench.place.write("wrong.json", &auths("other.example").to_string());
    let wrong = with("REGISTRY_AUTH_FILE", "wrong.json");
    assert_eq!(wrong.code, 3, "{wrong:?}");
    let bad = auth.replace(&STANDARD.encode(format!("{USER}:{PASSWORD}")), "canary-%");
    bench.place.write("bad.json", &bad);
    let bad = with("REGISTRY_AUTH_FILE", "bad.json");
    assert_eq!(bad.code, 2, "{bad:?}");
    bench.place.write("broken.json", r#"{"auths":{"h":{"auth":7,"canary":"canary"}}}"#);
    let broken = with("REGISTRY_AUTH_FILE", "broken.json");
    assert_eq!(broken.code, 2, "{broken:?}");
    assert!(broken.stderr.contains("is not a file with credentials"), "{broken:?}");
    let pair = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    for run in [runs, vec![none, gone, wrong, bad, broken]].concat() {
        for secret in [PASSWORD, &*pair, "canary"] {
            assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "{run:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_what_does_not_answer_is_exit_3() {
    for (part, answers) in [("/manifests/v1", false), ("/referrers/", true), (".sig", true)] {
        let double = Double::registry(move |seen| {
            let busy = seen.method == "GET" && seen.path.contains(part);
            busy.then(|| Reply::status(503).header("retry-after", "0"))
        })
        .await;
        let image = ImageReference::parse(&format!("{}/team/app:v1", double.host())).unwrap();
        push_image(&session(double.host(), &TestLog::new()), &image).await;
        let (key, place) = (ImageSigningKey::generate().unwrap(), Place::new());
        place.write("trust.json", &serde_json::to_string(&bundle(&image, &key)).unwrap());
        place.write("ca.pem", &Authority::get().ca_pem);
        let image = image.to_string();
        let told = run(&place, &["verify-image", "--ca-file", "ca.pem", &image]).await;
        assert_eq!(told.code, 3, "{part}: {told:?}");
        assert_eq!(told.stdout.contains("not answered"), answers, "{part}: {told:?}");
        assert!(!told.stdout.contains("pull"), "{part}: {told:?}");
        assert!(told.stderr.contains("trying again in"), "{part}: {told:?}");
        if answers {
            let json = ["--format", "json", "verify-image", "--ca-file", "ca.pem", &image];
            let json = run(&place, &json).await.json();
            assert_eq!((&json["verdict"], &json["pull"]), (&json!("not-answered"), &Value::Null));
        }
        // Without the authority nobody is there whom one could believe.
        let told = run(&place, &["verify-image", &image]).await;
        assert_eq!(told.code, 3, "{told:?}");
        assert!(told.stderr.contains("hint: here that is the option --ca-file"), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_what_a_registry_says_moves_no_cursor_and_is_short() {
    let bench = Bench::new().await;
    // A member that no bundle has, whose name stands in the parser's message.
    let name = format!("\\u001b[2J\\u202e{}", "x".repeat(100_000));
    let bundle = format!("{{\"{name}\":1}}").into_bytes();
    let kind = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let layer = Descriptor::of(kind, &bundle);
    let repository = bench.image.repository();
    let source = BlobSource::Bytes(bundle.into());
    bench.session.push_blob(repository, layer.digest, layer.size, &source).await.unwrap();
    let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let subject = bench.session.manifest(repository, Target::Digest(bench.digest)).await.unwrap();
    let mut referrer = ImageManifest::new(config, vec![layer]);
    referrer.artifact_type = Some(kind.to_owned());
    referrer.subject = Some(Descriptor::of(media_type::OCI_IMAGE, &subject.bytes));
    bench.session.push_referrer(repository, &referrer).await.unwrap();
    bench.sign(&bench.key).await;

    let run = bench.verify(&[]).await;
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stdout.contains("unknown field `\\x1b[2J\\u{202e}xxx"), "{run:?}");
    let json = bench.verify(&["--format", "json"]).await;
    for text in [run.stdout, run.stderr, json.stdout] {
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        assert!(text.len() < 2000, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simple_signature_is_looked_for_where_the_bundle_has_a_key_for_it() {
    let bench = Bench::new().await;
    bench.sign(&bench.key).await;
    let openpgp = OpenPgpSigningKey::generate("images", OffsetDateTime::now_utc()).unwrap();
    let mut bundle = bundle(&bench.image, &bench.key);
    let fingerprint = openpgp.fingerprint().to_string();
    let armored = openpgp.to_armored_certificate();
    bundle.openpgp_keys = vec![OpenPgpPublicKey { armored, fingerprint, retiring: false }];
    bench.save(&bundle);
    let run = bench.verify(&[]).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("simple signing  missing: none in the registry"), "{run:?}");
}

#[test]
fn what_is_wrong_before_anybody_is_asked_is_exit_2() {
    let place = Place::new();
    let image = ImageReference::parse("r.example/team/app:v1").unwrap();
    let key = ImageSigningKey::generate().unwrap();
    let good = bundle(&image, &key);
    let verify = |bundle: &str, image: &str| {
        place.write("trust.json", bundle);
        place.run(&["verify-image", image])
    };
    let text = serde_json::to_string(&good).unwrap();
    let mut other = good.clone();
    other.schema.push('0');
    let other = serde_json::to_string(&other).unwrap();
    for (bundle, image, expected) in [
        (
            &*text,
            "r.example/team/other:v1",
            "error: the trust bundle is for images of `r.example/team/app`",
        ),
        (&*text, "r.example/team/app", "neither a tag nor a digest"),
        (&*text, "r.example/team/App:v1", "lower case"),
        (&*other, "r.example/team/app:v1", "has the form `sbs-trust-10`"),
        ("{}", "r.example/team/app:v1", "`trust.json` is not a trust bundle"),
        ("no JSON", "r.example/team/app:v1", "`trust.json` is not a trust bundle"),
    ] {
        let run = verify(bundle, image);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{expected}: {run:?}");
        assert!(run.stderr.contains(expected), "{expected}: {run:?}");
    }
    let large = format!("{}{}", " ".repeat(1 << 20), text);
    let run = verify(&large, "r.example/team/app:v1");
    assert_eq!(run.code, 2, "{run:?}");
    std::fs::remove_file(place.path("trust.json")).unwrap();
    let run = place.run(&["verify-image", "r.example/team/app:v1"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("`trust.json` is not there"), "{run:?}");
    assert!(run.stderr.contains("hint: save it with sbs get-trust"), "{run:?}");
    place.write("trust.json", &text);
    for option in ["--ca-file", "--authfile"] {
        let run = place.run(&["verify-image", option, "gone", "r.example/team/app:v1"]);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains("`gone` is not there"), "{run:?}");
    }
    place.write("ca.pem", "no certificate");
    let run = place.run(&["verify-image", "--ca-file", "ca.pem", "r.example/team/app:v1"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("hint: --ca-file names a file"), "{run:?}");
}
