//! skopeo of Debian judges what is signed here, and signs what is judged here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use bytes::Bytes;
use http::Method;
use sbs_crypto::openpgp::OpenPgpVerifier;
use sbs_proto::{ImageTag, RegistryHost, Repository};
use serde_json::json;
use tempfile::TempDir;
use url::Url;

use super::*;
use crate::testing::double::{Double, Reply};
use crate::testing::real::RealRegistry;
use crate::testing::signatures::SignatureRegistry;
use crate::testing::{TestLog, image_config, session};
use crate::{BlobSource, Descriptor, ImageManifest, Session, Target, media_type};

/// The clock of this machine: skopeo goes by it, too.
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn key() -> &'static OpenPgpSigningKey {
    static KEY: OnceLock<OpenPgpSigningKey> = OnceLock::new();
    KEY.get_or_init(|| OpenPgpSigningKey::generate("images", now()).unwrap())
}

fn other_key() -> &'static OpenPgpSigningKey {
    static KEY: OnceLock<OpenPgpSigningKey> = OnceLock::new();
    KEY.get_or_init(|| OpenPgpSigningKey::generate("somebody else", now()).unwrap())
}

fn verifier_of(key: &OpenPgpSigningKey) -> OpenPgpVerifier {
    OpenPgpVerifier::parse(key.to_armored_certificate().as_bytes(), now()).unwrap()
}

fn image(host: &str, name: &str) -> ImageReference {
    ImageReference::parse(&format!("{host}/{name}")).unwrap()
}

/// Pushes an image of one layer; returns its digest.
async fn push_image(session: &Session, name: &str, layer: &[u8]) -> Digest {
    let (repository, tag) = name.split_once(':').unwrap();
    let (repository, tag) = (Repository::parse(repository).unwrap(), ImageTag::parse(tag).unwrap());
    let layer_blob = Descriptor::of("application/vnd.oci.image.layer.v1.tar", layer);
    let config = image_config("amd64", std::slice::from_ref(&layer_blob));
    let config_blob = Descriptor::of(media_type::OCI_CONFIG, &config);
    for (blob, bytes) in [(&layer_blob, layer), (&config_blob, &config)] {
        let source = BlobSource::Bytes(Bytes::copy_from_slice(bytes));
        session.push_blob(&repository, blob.digest, blob.size, &source).await.unwrap();
    }
    let manifest = ImageManifest::new(config_blob, vec![layer_blob]).to_json();
    let digest = sbs_crypto::digest(&manifest);
    let target = Target::Tag(&tag);
    session
        .push_manifest(&repository, target, media_type::OCI_IMAGE, manifest.into())
        .await
        .unwrap();
    digest
}

/// skopeo with a policy that wants every image of one host signed by one key.
struct Skopeo {
    directory: TempDir,
    options: [String; 2],
}

impl Skopeo {
    fn new(registry: &RealRegistry, host: &str, key: &OpenPgpSigningKey) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("key.asc"), key.to_armored_certificate()).unwrap();
        let policy = json!({
            "default": [{ "type": "reject" }],
            "transports": { "docker": { host: [{
                "type": "signedBy",
                "keyType": "GPGKeys",
                "keyPath": at("key.asc"),
                "signedIdentity": { "type": "matchRepoDigestOrExact" },
            }]}},
        });
        std::fs::write(at("policy.json"), policy.to_string()).unwrap();
        std::fs::create_dir_all(at("registries.d")).unwrap();
        std::fs::create_dir(at("lookaside")).unwrap();
        let lookaside = format!("file://{}", at("lookaside").display());
        // JSON is YAML.
        let registries = json!({ "docker": { host: {
            "lookaside": lookaside, "lookaside-staging": lookaside,
        }}});
        std::fs::write(at("registries.d/r.yaml"), registries.to_string()).unwrap();
        Self { directory, options: registry.skopeo_options() }
    }

    fn lookaside(&self) -> PathBuf {
        self.directory.path().join("lookaside")
    }

    /// Pulls an image by the policy; returns what skopeo says if it refuses.
    fn pull(&self, image: &ImageReference) -> Result<(), String> {
        let output = tempfile::tempdir().unwrap();
        let [certificates, credentials] = &self.options;
        self.run(&[
            "copy",
            &certificates.replace("--", "--src-"),
            &credentials.replace("--", "--src-"),
            &format!("docker://{image}"),
            &format!("dir:{}", output.path().display()),
        ])
    }

    fn run(&self, arguments: &[&str]) -> Result<(), String> {
        let at = |name: &str| self.directory.path().join(name);
        let output = command("skopeo", self.directory.path())
            .arg("--policy")
            .arg(at("policy.json"))
            .arg("--registries.d")
            .arg(at("registries.d"))
            .args(arguments)
            .output()
            .unwrap();
        let says = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(says) }
    }
}

fn command(program: &str, gnupg: &Path) -> Command {
    #[expect(clippy::disallowed_methods, reason = "a judge runs as its users run it")]
    let mut command = Command::new(program);
    command.env("GNUPGHOME", gnupg).env("LC_ALL", "C");
    command
}

#[tokio::test]
async fn skopeo_believes_a_lookaside_that_is_written_here() {
    let registry = RealRegistry::start().await;
    let host = registry.host();
    let session = session(&host, &TestLog::new());
    let digest = push_image(&session, "team/app:v1", b"one").await;
    let v1 = image(&host, "team/app:v1");
    let skopeo = Skopeo::new(&registry, &host, key());
    let refusal = skopeo.pull(&v1).unwrap_err();
    assert!(refusal.contains("A signature was required, but no signature exists"), "{refusal}");

    let tree = SignatureTree::new(skopeo.lookaside());
    assert_eq!(tree.publish(key(), &v1, digest, now()).unwrap(), Published::Now);
    skopeo.pull(&v1).unwrap();
    skopeo.pull(&v1.with_digest(digest)).unwrap();
    assert_eq!(tree.publish(key(), &v1, digest, now()).unwrap(), Published::Before);
    let files = skopeo.lookaside().join(format!("team/app@sha256={}", digest.to_hex()));
    let names = |path: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names(&files), ["signature-1"], "nothing temporary is left");

    // Other names and other bytes are not signed.
    push_image(&session, "team/app:v2", b"one").await;
    let refusal = skopeo.pull(&image(&host, "team/app:v2")).unwrap_err();
    assert!(refusal.contains("is not accepted"), "{refusal}");
    push_image(&session, "team/other:v1", b"one").await;
    skopeo.pull(&image(&host, "team/other:v1")).unwrap_err();
    let moved = skopeo.lookaside().join(format!("team/other@sha256={}", digest.to_hex()));
    std::fs::create_dir_all(&moved).unwrap();
    std::fs::copy(files.join("signature-1"), moved.join("signature-1")).unwrap();
    let refusal = skopeo.pull(&image(&host, "team/other:v1")).unwrap_err();
    assert!(refusal.contains("is not accepted"), "{refusal}");
    let two = push_image(&session, "team/app:v1", b"two").await;
    let moved = skopeo.lookaside().join(format!("team/app@sha256={}", two.to_hex()));
    std::fs::create_dir(&moved).unwrap();
    std::fs::copy(files.join("signature-1"), moved.join("signature-1")).unwrap();
    let refusal = skopeo.pull(&v1).unwrap_err();
    assert!(refusal.contains("does not match"), "{refusal}");

    // Another signer, beside whom ours counts, too.
    assert_eq!(tree.publish(other_key(), &v1, two, now()).unwrap(), Published::Now);
    skopeo.pull(&v1).unwrap_err();
    tree.publish(key(), &v1, two, now()).unwrap();
    skopeo.pull(&v1).unwrap();
    let mut found = names(&moved);
    found.sort();
    assert_eq!(found, ["signature-1", "signature-2", "signature-3"]);

    // One file without the form of a signature keeps skopeo, and us, from all of them.
    let lookaside = Lookaside::Directory(tree);
    let check = async || {
        let checked = verify(&session, Some(&lookaside), &verifier_of(key()), &v1, two).await;
        checked.unwrap().require(&v1)
    };
    check().await.unwrap();
    std::fs::write(moved.join("signature-4"), "-----BEGIN PGP MESSAGE-----").unwrap();
    let refusal = skopeo.pull(&v1).unwrap_err();
    assert!(refusal.contains("unrecognized signature format"), "{refusal}");
    let error = check().await.unwrap_err().to_string();
    assert!(
        error.contains("signature 4: it is no OpenPGP message, and must be removed"),
        "{error}"
    );

    // A byte of the signature, the last.
    let mut bytes = std::fs::read(files.join("signature-1")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(files.join("signature-1"), bytes).unwrap();
    push_image(&session, "team/app:v1", b"one").await;
    skopeo.pull(&v1).unwrap_err();
}

#[tokio::test]
async fn what_skopeo_signs_is_believed_here() {
    let registry = RealRegistry::start().await;
    let host = registry.host();
    let log = TestLog::new();
    let session = session(&host, &log);
    push_image(&session, "team/app:v1", b"one").await;
    let signed = image(&host, "team/signed:v1");
    let skopeo = Skopeo::new(&registry, &host, key());
    let gpg = |arguments: &[&str]| {
        let batch = ["--batch", "--pinentry-mode=loopback", "--passphrase="];
        let output = command("gpg", skopeo.directory.path()).args(batch).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    gpg(&["--quick-generate-key", "distributor", "rsa2048", "sign", "never"]);
    let certificate = gpg(&["--export", "--armor", "distributor"]);
    let [certificates, credentials] = &skopeo.options;
    let mut options: Vec<String> = vec!["--insecure-policy".to_owned(), "copy".to_owned()];
    for side in ["--src-", "--dest-"] {
        options.extend([certificates, credentials].map(|option| option.replace("--", side)));
    }
    options.extend(["--sign-by=distributor".to_owned(), format!("docker://{host}/team/app:v1")]);
    options.push(format!("docker://{signed}"));
    skopeo.run(&options.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let _ended = command("gpgconf", skopeo.directory.path()).args(["--kill", "gpg-agent"]).status();

    // It compressed the layer on the way.
    let digest = Digest::parse(&registry.skopeo_digest("team/signed:v1")).unwrap();
    let verifier = OpenPgpVerifier::parse(&certificate, now()).unwrap();
    let directory = Lookaside::Directory(SignatureTree::new(skopeo.lookaside()));
    let served = serve(skopeo.lookaside(), |_| None).await;
    let web = Lookaside::Web(Url::parse(&format!("https://{}/sigs/", served.host())).unwrap());
    for lookaside in [&directory, &web] {
        let check = async |verifier: &OpenPgpVerifier, image: &ImageReference, digest| {
            let checked = verify(&session, Some(lookaside), verifier, image, digest).await.unwrap();
            checked.require(image)
        };
        let proof = check(&verifier, &signed, digest).await.unwrap();
        assert_eq!(proof.claim().reference(), signed.to_string());
        assert_eq!([proof.certificate().clone()].as_slice(), verifier.certificates());
        let creator = proof.claim().optional()["creator"].as_str().unwrap();
        assert!(creator.starts_with("atomic "), "{creator}");
        check(&verifier, &signed.with_digest(digest), digest).await.unwrap();

        let refused = |result: Result<SignedImage, NotSigned>, reason: &str| {
            let error = result.unwrap_err();
            let NotSigned::Invalid { image, .. } = &error else { panic!("{error}") };
            assert!(image.contains("team/signed"), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        };
        refused(check(&verifier_of(key()), &signed, digest).await, "not among the trusted");
        let v2 = signed.with_tag(ImageTag::parse("v2").unwrap());
        refused(check(&verifier, &v2, digest).await, "team/signed:v1`");
        let absent = check(&verifier, &image(&host, "team/app:v1"), digest).await.unwrap_err();
        assert!(matches!(absent, NotSigned::Absent { place: Place::Lookaside(_), .. }), "{absent}");
        let other = Digest::from_bytes([0; 32]);
        assert!(matches!(check(&verifier, &signed, other).await, Err(NotSigned::Absent { .. })));
    }
    let nowhere = verify(&session, None, &verifier, &signed, digest).await.unwrap();
    let error = nowhere.require(&signed).unwrap_err();
    assert!(error.to_string().contains("keeps none, and no lookaside is given"), "{error}");
}

/// Serves a directory below `/sigs/`, as a web server does; `fault` can answer in its place.
async fn serve(
    directory: PathBuf,
    fault: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static,
) -> Double {
    Double::start("127.0.0.1", move |seen| {
        assert!(seen.authorization().is_none(), "credentials went to a lookaside");
        if let Some(reply) = fault(&seen.path) {
            return reply;
        }
        let path = seen.path.strip_prefix("/sigs/").unwrap();
        match std::fs::read(directory.join(path)) {
            Ok(bytes) => Reply::status(200).body(bytes),
            Err(_) => Reply::status(404),
        }
    })
    .await
}

#[tokio::test]
async fn a_lookaside_that_does_not_answer_is_not_an_unsigned_image() {
    let registry = RealRegistry::start().await;
    let session = session(&registry.host(), &TestLog::new());
    let v1 = image(&registry.host(), "team/app:v1");
    let digest = Digest::from_bytes([0; 32]);
    for reply in [
        Reply::status(500),
        Reply::status(503),
        Reply::status(429),
        Reply::status(403),
        Reply::status(401),
        Reply::status(302).header("location", "https://10.0.0.1/"),
        Reply::status(200).body(vec![0xc4; 200 * 1024]),
    ] {
        let status = reply.status;
        let served = serve(PathBuf::new(), move |_| Some(reply.clone())).await;
        let web = Lookaside::Web(Url::parse(&format!("https://{}/sigs", served.host())).unwrap());
        let result = verify(&session, Some(&web), &verifier_of(key()), &v1, digest).await;
        let error = result.unwrap_err();
        assert!(matches!(error, FetchSignaturesError::Lookaside { .. }), "{status}: {error}");
    }
    let endless = serve(PathBuf::new(), |_| Some(Reply::status(200).body("x"))).await;
    let web = Lookaside::Web(Url::parse(&format!("https://{}/sigs", endless.host())).unwrap());
    let result = verify(&session, Some(&web), &verifier_of(key()), &v1, digest).await;
    assert!(matches!(result, Err(FetchSignaturesError::Lookaside { .. })), "{result:?}");
    assert_eq!(endless.seen().len(), MAX_SIGNATURES + 1);
    for bad in
        ["http://a.b/", "https://u:p@a.b/", "https://a.b/?x", "file://a.b/sigs", "https://a.b/#"]
    {
        let web = Lookaside::Web(Url::parse(bad).unwrap());
        let result = verify(&session, Some(&web), &verifier_of(key()), &v1, digest).await;
        let error = crate::chain(&result.unwrap_err());
        assert!(error.contains("not the address of a lookaside"), "{bad}: {error}");
        let error = Lookaside::at(bad).unwrap_err();
        assert!(matches!(error, LookasideError::Base), "{bad}: {error}");
    }
    let here = Lookaside::at("file:///sigs/of%20ours").unwrap();
    assert!(matches!(here, Lookaside::Directory(_)) && here.place() == "/sigs/of ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_believes_a_registry_that_keeps_our_signatures() {
    let registry = RealRegistry::start().await;
    let proxy = SignatureRegistry::start(&registry, |_| None).await;
    let host = proxy.host();
    let digest = push_image(&session(&registry.host(), &TestLog::new()), "team/app:v1", b"1").await;
    let log = TestLog::new();
    let session = session(host, &log);
    let v1 = image(host, "team/app:v1");
    let skopeo = Skopeo::new(&registry, host, key());
    skopeo.pull(&v1).unwrap_err();
    let verifier = verifier_of(key());
    // The registry's word is the only one: a lookaside is not looked at.
    let tree = SignatureTree::new(skopeo.lookaside());
    tree.publish(key(), &v1, digest, now()).unwrap();
    skopeo.pull(&v1).unwrap_err();
    let lookaside = Lookaside::Directory(tree);
    let checked = verify(&session, Some(&lookaside), &verifier, &v1, digest).await.unwrap();
    assert_eq!(checked.place, Place::Registry);
    assert!(matches!(checked.verdict, Verdict::Absent), "{checked:?}");

    let published = publish(&session, key(), &v1, digest, now()).await.unwrap();
    assert_eq!(published, Published::Now);
    let kept = proxy.kept();
    let name = kept[0]["name"].as_str().unwrap();
    let unique = name.strip_prefix(&format!("{digest}@")).unwrap();
    assert!(unique.len() == 32 && unique.bytes().all(|c| c.is_ascii_hexdigit()), "{name}");
    assert_eq!((&kept[0]["schemaVersion"], &kept[0]["type"]), (&json!(2), &json!("atomic")));
    skopeo.pull(&v1).unwrap();
    let again = publish(&session, key(), &v1, digest, now()).await.unwrap();
    assert_eq!((again, proxy.kept().len()), (Published::Before, 1));
    let checked = verify(&session, None, &verifier, &v1, digest).await.unwrap();
    assert_eq!(checked.require(&v1).unwrap().certificate(), &key().fingerprint());

    // Another key's is added; it counts for nobody who does not trust it.
    publish(&session, other_key(), &v1, digest, now()).await.unwrap();
    assert_eq!(proxy.kept().len(), 2);
    let other = verify(&session, None, &verifier_of(other_key()), &v1, digest).await.unwrap();
    other.require(&v1).unwrap();
    skopeo.pull(&v1).unwrap();
    Skopeo::new(&registry, host, other_key()).pull(&v1).unwrap();

    // An entry that is none keeps neither skopeo nor us from the others; alone it is refused.
    let content = "LS0tLS1CRUdJTg==";
    let bad = json!({ "schemaVersion": 2, "name": "x", "type": "atomic", "content": content });
    proxy.keep("team/app", &digest.to_string(), bad);
    skopeo.pull(&v1).unwrap();
    let checked = verify(&session, None, &verifier, &v1, digest).await.unwrap();
    checked.require(&v1).unwrap();
    let third = Digest::from_bytes([3; 32]);
    proxy.keep("team/app", &third.to_string(), proxy.kept()[2].clone());
    let checked = verify(&session, None, &verifier, &v1, third).await.unwrap();
    let error = checked.require(&v1).unwrap_err().to_string();
    assert!(error.contains("in the registry: signature 1: not an OpenPGP message"), "{error}");
    assert!(!log.text().contains("attempt"), "{}", log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_answer_has_not_said_that_there_is_none() {
    let registry = RealRegistry::start().await;
    let v1 = |host: &str| image(host, "team/app:v1");
    let digest = Digest::from_bytes([0; 32]);
    let plain = session(&registry.host(), &TestLog::new());
    let error = publish(&plain, key(), &v1(&registry.host()), digest, now()).await.unwrap_err();
    assert!(matches!(error, SignImageError::NotOffered { .. }), "{error}");

    let list = |body: &'static str| Reply::status(200).body(body);
    let entry = r#"{"signatures":[{"schemaVersion":2,"name":"x","type":"atomic","content":"!"}]}"#;
    for (path, reply) in [
        ("/v2/", Reply::status(500)),
        ("/v2/", Reply::status(404)),
        ("/v2/", Reply::status(429)),
        ("/extensions/", Reply::status(500)),
        ("/extensions/", Reply::status(503)),
        ("/extensions/", Reply::status(403)),
        ("/extensions/", list("{")),
        ("/extensions/", list("[1]")),
        ("/extensions/", list(entry)),
        ("/extensions/", Reply::status(200).body(vec![b' '; 5 * 1024 * 1024])),
    ] {
        let status = reply.status;
        let fault = move |seen: &crate::testing::double::Seen| {
            seen.path.starts_with(path).then(|| reply.clone())
        };
        let proxy = SignatureRegistry::start(&registry, fault).await;
        let session = session(proxy.host(), &TestLog::new());
        let image = v1(proxy.host());
        let result = verify(&session, None, &verifier_of(key()), &image, digest).await;
        assert!(matches!(result, Err(FetchSignaturesError::Registry(_))), "{path} {status}");
        let error = publish(&session, key(), &image, digest, now()).await.unwrap_err();
        assert!(matches!(error, SignImageError::Registry(_)), "{path} {status}: {error}");
    }
    // Entries of another kind are not for us; no entry is no signature.
    for body in [
        r#"{"signatures":[{"schemaVersion":1,"name":"","type":"atomic","content":"!"}]}"#,
        r#"{"signatures":[{"schemaVersion":2,"name":"","type":"x","content":"!"}]}"#,
        r#"{"signatures":null}"#,
        "{}",
    ] {
        let fault = move |seen: &crate::testing::double::Seen| {
            seen.path.starts_with("/extensions/").then(|| list(body))
        };
        let proxy = SignatureRegistry::start(&registry, fault).await;
        let session = session(proxy.host(), &TestLog::new());
        let image = v1(proxy.host());
        let checked = verify(&session, None, &verifier_of(key()), &image, digest).await.unwrap();
        assert!(matches!(checked.verdict, Verdict::Absent), "{checked:?}");
        // It says 200 to what is put there, and drops it.
        let error = publish(&session, key(), &image, digest, now()).await.unwrap_err();
        assert!(matches!(error, SignImageError::Registry(_)), "{error}");
    }
    let dropped = SignatureRegistry::start(&registry, |seen| {
        (seen.method == Method::PUT).then(|| Reply::status(201))
    })
    .await;
    let session = session(dropped.host(), &TestLog::new());
    let error = publish(&session, key(), &v1(dropped.host()), digest, now()).await.unwrap_err();
    assert!(matches!(error, SignImageError::NotKept { .. }), "{error}");
}

#[test]
fn r8_signatures_are_judged_one_by_one() {
    let host = RegistryHost::parse("a.b").unwrap();
    let v1 = image(host.as_str(), "c:v1");
    let digest = Digest::from_bytes([1; 32]);
    let good = sign(key(), &v1, digest, now()).unwrap();
    let others = sign(other_key(), &v1, digest, now()).unwrap();
    let mut broken = good.clone();
    *broken.last_mut().unwrap() ^= 1;
    let no_claim = key().sign_message(b"{}", now()).unwrap();
    let sigstore = b"\0sigstore-json\n{}".to_vec();
    let verifier = verifier_of(key());
    let judged = |list: &[&Vec<u8>]| {
        let list: Vec<_> = list.iter().map(|bytes| (*bytes).clone()).collect();
        judge(&list, &verifier, &v1, digest)
    };
    for list in [
        &[&good][..],
        &[&broken, &good],
        &[&others, &no_claim, &good],
        &[&sigstore, &good, &broken],
    ] {
        assert!(matches!(judged(list), Verdict::Valid(_)), "{list:?}");
    }
    for list in [&[][..], &[&sigstore]] {
        assert!(matches!(judged(list), Verdict::Absent), "{list:?}");
    }
    let empty = Vec::new();
    let armor = b"-----BEGIN PGP MESSAGE-----".to_vec();
    for (list, reasons) in [
        (&[&broken][..], "signature 1: the OpenPGP signature does not verify"),
        (&[&no_claim], "signature 1: what is signed has members that are not known, or lacks one"),
        (&[&sigstore, &broken], "signature 2: the OpenPGP signature does not verify"),
        (&[&armor], "signature 1: not an OpenPGP message"),
        (&[&empty, &others], "signature 1: not an OpenPGP message"),
    ] {
        let Verdict::Invalid(refused) = judged(list) else { panic!("{list:?}") };
        let told = Reasons(refused).to_string();
        assert!(told.starts_with(reasons), "{told}");
    }
    let untagged = ImageReference::new(host, Repository::parse("c").unwrap());
    for image in [untagged.clone(), untagged.with_digest(digest)] {
        let error = sign(key(), &image, digest, now()).unwrap_err();
        assert!(matches!(error, SignImageError::NoTag), "{error}");
    }
}

#[test]
fn signatures_are_numbered_without_gaps_by_many_writers() {
    let directory = tempfile::tempdir().unwrap();
    let tree = SignatureTree::new(directory.path().join("not/there/yet"));
    let digest = Digest::from_bytes([1; 32]);
    let images: Vec<_> = (0..8).map(|n| image("a.b", &format!("c:v{n}"))).collect();
    std::thread::scope(|scope| {
        for image in &images {
            let tree = &tree;
            scope.spawn(move || tree.publish(key(), image, digest, now()).unwrap());
        }
    });
    let repository = Repository::parse("c").unwrap();
    let signatures = tree.read(&repository, digest).unwrap();
    assert_eq!(signatures.len(), images.len());
    for image in &images {
        let verdict = judge(&signatures, &verifier_of(key()), image, digest);
        assert!(matches!(verdict, Verdict::Valid(_)), "{image}");
        assert_eq!(tree.publish(key(), image, digest, now()).unwrap(), Published::Before);
    }
    let first = directory.path().join(format!("not/there/yet/c@sha256={}", digest.to_hex()));
    std::fs::write(first.join("signature-1"), vec![0xc4; 129 * 1024]).unwrap();
    let error = tree.read(&repository, digest).unwrap_err();
    assert!(matches!(error, LookasideError::TooMany), "{error}");
}
