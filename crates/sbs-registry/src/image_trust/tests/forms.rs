//! What counts in each form, and what does not.

use serde_json::Map;

use super::*;
use crate::cosign::attach::attest;
use crate::cosign::statement::{Statement, Subject};
use crate::notary::publish;
use crate::simple_signing::SignatureTree;
use crate::testing::notary::RealNotary;
use crate::testing::real::RealRegistry;
use crate::testing::signatures::SignatureRegistry;
use crate::{ImageIndex, simple_signing};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_signed_in_every_form_is_good() {
    let registry = RealRegistry::start().await;
    let keeping = SignatureRegistry::start(&registry, |_| None).await;
    let server = RealNotary::start().await;
    let image = ImageReference::parse(&format!("{}/team/app:v1", keeping.host())).unwrap();
    // What is uploaded goes where the registry says, and that is not through the proxy.
    let direct = session(&registry.host(), &TestLog::new());
    let session = session(keeping.host(), &TestLog::new());
    let subject = push_image(&direct, &image).await;
    let announcing = Announcing::new(&image);
    let mut bundle = bundle(&image);
    bundle.notary = Some(announcing.root(&server.host()));

    // Before: everything says that there is none.
    let report = try_check(&image, &bundle).await.unwrap();
    assert_eq!(report.verdict(), Verdict::Unsigned);
    for (form, outcome) in report.forms() {
        assert!(matches!(outcome, Outcome::Missing(_)), "{form:?}: {outcome:?}");
    }

    let digest = subject.digest;
    cosign::tag::sign(&direct, &image, digest, &OWNER.image).await.unwrap();
    let build = sbs_proto::v2::BuildId::parse("00000007").unwrap();
    let release = Release { image: &image, build: &build, created: now() };
    cosign::bundle::sign(&direct, release, from_ref(&subject), &OWNER.image).await.unwrap();
    simple_signing::publish(&session, OWNER.openpgp(), &image, digest, now()).await.unwrap();
    // All of it is there but for the notary, which the bundle names.
    let report = try_check(&image, &bundle).await.unwrap();
    assert_eq!(report.verdict(), Verdict::Unsigned, "{report:?}");
    assert_eq!(report.pinned(), None);
    announcing.announce(&server.host(), "v1", digest, subject.size).await;

    let both = ImageReference::parse(&format!("{image}@{digest}")).unwrap();
    for asked in [&image, &image.with_digest(digest), &both] {
        let report = try_check(asked, &bundle).await.unwrap();
        assert_eq!(report.verdict(), Verdict::Good, "{asked}: {report:?}");
        assert_eq!((report.digest(), report.kind()), (digest, DocumentKind::Image));
        assert_eq!(report.image(), asked);
        assert_eq!(report.pinned(), Some(image.with_digest(digest)));
        for (form, _) in report.forms() {
            let signer = signer(&report, form);
            let key = match form {
                Form::CosignTag | Form::CosignBundle => public_key(&OWNER.image, false).id,
                Form::SimpleSigning => OWNER.openpgp().fingerprint().to_string(),
                Form::Notary => announcing.keys.root_key_id().to_string(),
            };
            assert_eq!((&*signer.key, signer.standing), (&*key, Standing::Current), "{form:?}");
            assert_eq!(signer.name, image.to_string(), "{form:?}");
            assert_eq!(signer.build.is_some(), form == Form::CosignBundle, "{form:?}");
        }
    }
}

#[tokio::test]
async fn a_retiring_key_counts_and_is_named() {
    let bench = Bench::new().await;
    for form in IN_REGISTRY {
        bench.sign(form, &RETIRING).await;
    }
    let report = bench.check().await;
    assert_eq!(report.verdict(), Verdict::Good, "{report:?}");
    for form in IN_REGISTRY {
        let signer = signer(&report, form);
        let key = match form {
            Form::SimpleSigning => RETIRING.openpgp().fingerprint().to_string(),
            _ => public_key(&RETIRING.image, true).id,
        };
        assert_eq!((&*signer.key, signer.standing), (&*key, Standing::Retiring), "{form:?}");
    }
    // What is signed by both is by the current one.
    for form in [Form::CosignTag, Form::CosignBundle] {
        bench.sign(form, &OWNER).await;
        assert_eq!(signer(&bench.check().await, form).standing, Standing::Current, "{form:?}");
    }
    // Once it is retired it does not count.
    let mut bundle = bench.bundle();
    bundle.image_keys.pop();
    bundle.openpgp_keys.pop();
    let report = try_check(&bench.image, &bundle).await.unwrap();
    assert!(why(&report, Form::SimpleSigning).contains("not among the trusted"), "{report:?}");
}

#[tokio::test]
async fn r7_another_key_tag_repository_or_digest_fails_in_each_form() {
    let other_digest = Digest::from_bytes([7; 32]);
    for form in IN_REGISTRY {
        // One cosign form that is good, or the image would be unsigned anyway.
        let good = if form == Form::CosignTag { Form::CosignBundle } else { Form::CosignTag };
        for wrong in ["key", "tag", "repository", "digest", "byte"] {
            let bench = Bench::new().await;
            bench.sign(good, &OWNER).await;
            assert_eq!(bench.check().await.verdict(), Verdict::Good);
            let (owner, digest) = (&*OWNER, bench.subject.digest);
            match wrong {
                "key" => bench.sign(form, &STRANGER).await,
                "tag" => bench.sign_as(form, owner, &bench.with_tag("v2"), digest).await,
                "repository" => bench.sign_as(form, owner, &bench.elsewhere(), digest).await,
                "digest" => sign_other_digest(&bench, form, other_digest).await,
                _ => sign_and_flip(&bench, form).await,
            }
            let report = bench.check().await;
            assert_eq!(report.verdict(), Verdict::Invalid, "{form:?} {wrong}: {report:?}");
            assert_eq!(report.pinned(), None);
            let why = why(&report, form);
            let expected = match (wrong, form) {
                ("byte", _) | ("key", Form::CosignTag) => "does not verify",
                ("key", Form::CosignBundle) => "by another key",
                ("key", _) => "not among the trusted",
                (_, Form::SimpleSigning) => "it is for ",
                _ => "for another image, repository or tag",
            };
            assert!(why.contains(expected), "{form:?} {wrong}: {why}");
        }
    }
}

/// Puts a signature for another digest where those of the image are.
async fn sign_other_digest(bench: &Bench, form: Form, other: Digest) {
    bench.sign_as(form, &OWNER, &bench.image, other).await;
    let digest = bench.subject.digest;
    let repository = bench.image.repository();
    let list = match form {
        Form::CosignTag => "sha256-HEX.sig",
        Form::CosignBundle => "sha256-HEX",
        Form::SimpleSigning | Form::Notary => return,
    };
    let name = |digest: Digest| ImageTag::parse(&list.replace("HEX", &digest.to_hex())).unwrap();
    let (from, to) = (name(other), name(digest));
    let served = bench.session.manifest(repository, Target::Tag(&from)).await.unwrap();
    let mut bytes = served.bytes;
    if form == Form::CosignBundle {
        // The referrer names what it refers to, too.
        let index = ImageIndex::parse(&bytes).unwrap();
        let target = Target::Digest(index.manifests[0].digest);
        let referrer = bench.session.manifest(repository, target).await.unwrap();
        let mut manifest = ImageManifest::parse(&referrer.bytes).unwrap();
        manifest.subject = Some(bench.subject.clone());
        let moved = manifest.to_json();
        let mut entry = Descriptor::of(media_type::OCI_IMAGE, &moved);
        entry.artifact_type.clone_from(&manifest.artifact_type);
        let target = Target::Digest(entry.digest);
        let media_type = media_type::OCI_IMAGE;
        bench.session.push_manifest(repository, target, media_type, moved.into()).await.unwrap();
        bytes = ImageIndex::new(vec![entry]).to_json();
    }
    let target = Target::Tag(&to);
    let push = bench.session.push_manifest(repository, target, &served.media_type, bytes.into());
    push.await.unwrap();
}

/// Signs the image and changes one byte of what says so.
async fn sign_and_flip(bench: &Bench, form: Form) {
    let (owner, image, digest) = (&*OWNER, &bench.image, bench.subject.digest);
    match form {
        Form::CosignTag => {
            bench.sign(form, owner).await;
            let tag = cosign::tag::tag(digest).unwrap();
            let target = Target::Tag(&tag);
            let served = bench.session.manifest(image.repository(), target).await.unwrap();
            let mut list: Value = serde_json::from_slice(&served.bytes).unwrap();
            let signature =
                &mut list["layers"][0]["annotations"]["dev.cosignproject.cosign/signature"];
            let mut bytes = STANDARD.decode(signature.as_str().unwrap()).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            *signature = STANDARD.encode(bytes).into();
            let (kind, bytes) = (served.media_type, list.to_string());
            let push = bench.session.push_manifest(image.repository(), target, &kind, bytes.into());
            push.await.unwrap();
        }
        Form::CosignBundle => {
            let build = sbs_proto::v2::BuildId::parse("00000007").unwrap();
            let statement = Statement::signed_image(image, digest, &build);
            let bundle = cosign::Bundle::sign(&statement, &OWNER.image).unwrap();
            let mut json: Value = serde_json::from_slice(&bundle.to_json()).unwrap();
            let signature = &mut json["dsseEnvelope"]["signatures"][0]["sig"];
            let mut bytes = STANDARD.decode(signature.as_str().unwrap()).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            *signature = STANDARD.encode(bytes).into();
            let bundle = cosign::Bundle::parse(json.to_string().as_bytes()).unwrap();
            let at = (image.repository(), &bench.subject);
            let kind = cosign::statement::SIGNED_IMAGE;
            cosign::attach::attach(&bench.session, at, kind, &bundle, now()).await.unwrap();
        }
        Form::SimpleSigning | Form::Notary => {
            let mut bytes = simple_signing::sign(OWNER.openpgp(), image, digest, now()).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            bench.keep(&bytes);
        }
    }
}

#[tokio::test]
async fn r7_an_attestation_key_releases_nothing() {
    let bench = Bench::new().await;
    // What it is for.
    let subject = Subject::new(bench.subject.digest);
    let kind = "https://slsa.dev/provenance/v1";
    let statement = Statement::new(vec![subject], kind, Map::new());
    let at = (bench.image.repository(), from_ref(&bench.subject));
    attest(&bench.session, at, &statement, &ATTESTER.image, now()).await.unwrap();
    let report = bench.check().await;
    assert_eq!(report.verdict(), Verdict::Unsigned, "{report:?}");
    assert!(matches!(outcome(&report, Form::CosignBundle), Outcome::Missing(_)), "{report:?}");

    // What it is not for: it says in every form that the image is released.
    for form in IN_REGISTRY {
        bench.sign(form, &ATTESTER).await;
        let report = bench.check().await;
        assert_eq!(report.verdict(), Verdict::Invalid, "{form:?}: {report:?}");
        assert!(why(&report, form).len() > 10, "{form:?}");
    }
    // Beside it the owner's signature counts.
    for form in IN_REGISTRY {
        bench.sign(form, &OWNER).await;
    }
    assert_eq!(bench.check().await.verdict(), Verdict::Good);
}

#[tokio::test]
async fn by_digest_any_tag_of_the_repository_is_good() {
    let bench = Bench::new().await;
    let digest = bench.subject.digest;
    for form in IN_REGISTRY {
        bench.sign_as(form, &OWNER, &bench.with_tag("v9"), digest).await;
    }
    let report = bench.check_as(&bench.image.with_digest(digest)).await;
    assert_eq!(report.verdict(), Verdict::Good, "{report:?}");
    assert!(signer(&report, Form::SimpleSigning).name.ends_with("/team/app:v9"));
    // With a tag beside the digest it must be that one.
    let both = ImageReference::parse(&format!("{}@{digest}", bench.image)).unwrap();
    for asked in [&bench.image, &both] {
        assert_eq!(bench.check_as(asked).await.verdict(), Verdict::Invalid, "{asked}");
    }
    // Not of another repository.
    let bench = Bench::new().await;
    for form in IN_REGISTRY {
        bench.sign_as(form, &OWNER, &bench.elsewhere(), bench.subject.digest).await;
    }
    let report = bench.check_as(&bench.image.with_digest(bench.subject.digest)).await;
    for form in IN_REGISTRY {
        assert!(matches!(outcome(&report, form), Outcome::Invalid(_)), "{form:?}: {report:?}");
    }
}

#[tokio::test]
async fn a_lookaside_is_looked_at_where_the_registry_keeps_no_signatures() {
    let registry = RealRegistry::start().await;
    let image = ImageReference::parse(&format!("{}/team/app:v1", registry.host())).unwrap();
    let session = session(&registry.host(), &TestLog::new());
    let digest = push_image(&session, &image).await.digest;
    cosign::tag::sign(&session, &image, digest, &OWNER.image).await.unwrap();
    let directory = TempDir::new().unwrap();
    let tree = SignatureTree::new(directory.path().to_owned());
    tree.publish(OWNER.openpgp(), &image, digest, now()).unwrap();
    let served = Double::start("127.0.0.1", move |seen| {
        assert_eq!(seen.authorization(), None);
        match std::fs::read(directory.path().join(seen.path.trim_start_matches("/sigs/"))) {
            Ok(bytes) => Reply::status(200).body(bytes),
            Err(_) => Reply::status(404),
        }
    })
    .await;
    let mut bundle = bundle(&image);
    let report = try_check(&image, &bundle).await.unwrap();
    let Outcome::Missing(missing) = outcome(&report, Form::SimpleSigning) else { panic!() };
    assert!(missing.to_string().contains("keeps none, and no lookaside"), "{missing}");
    assert_eq!(report.verdict(), Verdict::Good, "one form that is not there is no fault");

    bundle.lookaside = Some(format!("https://{}/sigs", served.host()));
    let report = try_check(&image, &bundle).await.unwrap();
    assert_eq!(report.verdict(), Verdict::Good, "{report:?}");
    assert_eq!(signer(&report, Form::SimpleSigning).name, image.to_string());
}

#[tokio::test]
async fn an_index_is_checked_as_an_index() {
    let bench = Bench::new().await;
    let index = ImageIndex::new(vec![bench.subject.clone()]).to_json();
    let image = bench.with_tag("all");
    let subject = push_document(&bench.session, &image, media_type::OCI_INDEX, index).await;
    // A signature for the image of a platform is none for the index.
    bench.sign(Form::CosignTag, &OWNER).await;
    let report = bench.check_as(&image).await;
    assert_eq!((report.verdict(), report.kind()), (Verdict::Unsigned, DocumentKind::Index));
    bench.sign_as(Form::CosignTag, &OWNER, &image, subject.digest).await;
    let report = bench.check_as(&image).await;
    assert_eq!((report.verdict(), report.kind()), (Verdict::Good, DocumentKind::Index));
    assert_eq!(report.digest(), subject.digest);
}

#[tokio::test]
async fn r6_what_the_notary_announces_must_be_the_image() {
    let bench = Bench::new().await;
    bench.sign(Form::CosignTag, &OWNER).await;
    let (digest, size) = (bench.subject.digest, bench.subject.size);
    let good = || Announcing::new(&bench.image);
    let check = async |server: &RealNotary, announcing: &Announcing, image: &ImageReference| {
        let mut bundle = bench.bundle();
        bundle.notary = Some(announcing.root(&server.host()));
        try_check(image, &bundle).await.unwrap()
    };
    for (tag, announced, expected) in [
        ("v1", (Digest::from_bytes([7; 32]), size), "under this tag"),
        ("v1", (digest, size + 1), "bytes under this digest"),
    ] {
        let (server, announcing) = (RealNotary::start().await, good());
        announcing.announce(&server.host(), tag, announced.0, announced.1).await;
        let report = check(&server, &announcing, &bench.image).await;
        assert_eq!(report.verdict(), Verdict::Invalid, "{expected}");
        let why = why(&report, Form::Notary);
        assert!(why.contains(expected), "{why}");
    }
    let (server, announcing) = (RealNotary::start().await, good());
    announcing.announce(&server.host(), "v2", digest, size).await;
    // Another tag says nothing of this one, and enough of the digest.
    let report = check(&server, &announcing, &bench.image).await;
    assert_eq!(outcome(&report, Form::Notary).as_str(), "missing", "{report:?}");
    assert_eq!(report.verdict(), Verdict::Unsigned);
    let report = check(&server, &announcing, &bench.image.with_digest(digest)).await;
    assert_eq!(report.verdict(), Verdict::Good, "{report:?}");
    assert!(signer(&report, Form::Notary).name.ends_with("/team/app:v2"));
    // Somebody else's root.
    let report = check(&server, &good(), &bench.image).await;
    assert_eq!(report.verdict(), Verdict::Invalid);
    let text = why(&report, Form::Notary);
    assert!(text.contains("not signed by the root key that was given"), "{text}");

    // A byte of what the notary's own key signed.
    let path = format!("/v2/{}/_trust/tuf/timestamp.json", announcing.gun);
    let mut timestamp: Value = serde_json::from_str(&server.get(&path).await).unwrap();
    let signature = &mut timestamp["signatures"][0]["sig"];
    let mut bytes = STANDARD.decode(signature.as_str().unwrap()).unwrap();
    bytes[0] ^= 1;
    *signature = STANDARD.encode(bytes).into();
    let root = server.get(&path.replace("timestamp", "root")).await;
    let double = Double::start("127.0.0.1", move |seen| {
        let body = if seen.path == path { timestamp.to_string() } else { root.clone() };
        Reply::status(200).body(body)
    })
    .await;
    let mut bundle = bench.bundle();
    bundle.notary = Some(announcing.root(double.host()));
    let report = try_check(&bench.image, &bundle).await.unwrap();
    assert_eq!(report.verdict(), Verdict::Invalid);
    let text = why(&report, Form::Notary);
    assert!(text.contains("`timestamp` is not signed"), "{text}");
}

/// The owner of a repository at a notary.
pub(super) struct Announcing {
    pub(super) gun: Gun,
    keys: NotaryKeys,
}

impl Announcing {
    pub(super) fn new(image: &ImageReference) -> Self {
        let gun = Gun::new(image.registry(), image.repository());
        Self { keys: NotaryKeys::generate(&gun, now()).unwrap(), gun }
    }

    pub(super) fn root(&self, server: &str) -> NotaryRoot {
        NotaryRoot {
            gun: self.gun.to_string(),
            root_certificate: self.keys.certificate_pem().to_owned(),
            root_key_id: self.keys.root_key_id().to_string(),
            server: NotaryServer::parse(server).unwrap(),
        }
    }

    async fn announce(&self, server: &str, tag: &str, digest: Digest, size: u64) {
        let server = NotaryServer::parse(server).unwrap();
        let session = client().for_notary(&server, &self.gun, None, &TestLog::new()).unwrap();
        let (tag, keys) = (&ImageTag::parse(tag).unwrap(), &self.keys);
        let publication = Publication { tag, digest, size, keys, remembered: None };
        publish(&session, publication, now()).await.unwrap();
    }
}
