//! Base images must be signed, where the definition asks for that.

use http::Method;
use sbs_crypto::ImageSigningKey;
use sbs_crypto::openpgp::OpenPgpSigningKey;
use sbs_proto::v2::BuildId;
use sbs_proto::{BaseTrust, NotaryServer, NotaryTrust, OpenPgpTrust, SignatureKind};
use sbs_registry::cosign::{bundle, tag};
use sbs_registry::notary::{Gun, NotaryKeys, Publication, publish};
use sbs_registry::testing::notary::RealNotary;
use time::OffsetDateTime;

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap()
}

/// What is trusted: nothing yet.
fn nothing() -> BaseTrust {
    BaseTrust { cosign_key: None, notary: None, openpgp: None }
}

fn by_cosign(key: &ImageSigningKey) -> BaseTrust {
    BaseTrust { cosign_key: Some(key.verifying_key().to_pem()), ..nothing() }
}

fn by_openpgp(key: &OpenPgpSigningKey) -> BaseTrust {
    let openpgp = OpenPgpTrust { image: None, key: key.to_armored_certificate() };
    BaseTrust { openpgp: Some(openpgp), ..nothing() }
}

fn by_notary(host: &str, root: Option<String>) -> BaseTrust {
    let server = NotaryServer::parse(host).unwrap();
    BaseTrust { notary: Some(NotaryTrust { root, server }), ..nothing() }
}

impl Bench {
    async fn resolve_trusted(
        &self,
        image: &ImageReference,
        trust: &BaseTrust,
    ) -> Result<ResolvedBase, ResolveBasesError> {
        let roots = NotaryRoots::load(&self.beside.path().join("roots")).unwrap();
        let checks = BaseChecks { roots, signers: TrustedSigners::of(trust, now()).unwrap() };
        let resolved = self.resolve_with(std::slice::from_ref(image), Some(checks)).await;
        resolved.map(|mut resolved| resolved.remove(0))
    }

    /// Resolves an image that must not be taken; returns what is told.
    async fn untrusted(&self, image: &ImageReference, trust: &BaseTrust) -> String {
        let error = self.resolve_trusted(image, trust).await.unwrap_err();
        assert!(matches!(error.fault, ResolveFault::Unsigned(_)), "{error:?}");
        assert_eq!(error.failure().code, "base_image_trust");
        assert_eq!(self.kept(), Vec::<PathBuf>::new(), "nothing of it was downloaded");
        let text = chain(&error);
        assert!(text.contains(&image.to_string()) && text.contains("Have it signed"), "{text}");
        text
    }

    /// Pushes an image under a tag; returns its digest.
    async fn push_tagged(&self, name: &str, layer: u8) -> (Digest, u64) {
        let image = self.push(architecture(), Form::Oci, vec![layer; 512]).await;
        let repository = repository();
        let served =
            self.session.manifest(&repository, Target::Digest(image.digest)).await.unwrap();
        let tag = ImageTag::parse(name).unwrap();
        let bytes = Bytes::from(served.bytes);
        let target = Target::Tag(&tag);
        self.session.push_manifest(&repository, target, &served.media_type, bytes).await.unwrap();
        (image.digest, image.size)
    }

    fn tree(&self) -> SignatureTree {
        SignatureTree::new(self.beside.path().join("lookaside"))
    }

    async fn announce(
        &self,
        notary: &RealNotary,
        keys: &NotaryKeys,
        name: &str,
        of: (Digest, u64),
    ) {
        let server = NotaryServer::parse(&notary.host()).unwrap();
        let credentials = credentials();
        let log = sbs_registry::testing::TestLog::new();
        let session = client().for_notary(&server, &self.gun(), Some(&credentials), &log).unwrap();
        let tag = ImageTag::parse(name).unwrap();
        let (digest, size) = of;
        let publication = Publication { tag: &tag, digest, size, keys, remembered: None };
        let at = OffsetDateTime::now_utc();
        publish(&session, publication, at).await.unwrap();
    }

    fn gun(&self) -> Gun {
        Gun::new(&self.registry.server, &repository())
    }
}

/// The check happens at the present time where a real notary signs with it.
fn at_present(trust: &BaseTrust) -> TrustedSigners {
    TrustedSigners::of(trust, OffsetDateTime::now_utc()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_a_cosign_signature_by_the_key_is_taken() {
    let registry = RealRegistry::start().await;
    let bench = Bench::new(&registry.host());
    let (digest, size) = bench.push_tagged("1", 1).await;
    let image = bench.image("app:1");
    let (key, other) = (ImageSigningKey::generate().unwrap(), ImageSigningKey::generate().unwrap());

    let text = bench.untrusted(&image, &by_cosign(&key)).await;
    assert!(text.contains("no cosign signature of it is by the given key"), "{text}");

    tag::sign(&bench.session, &image, digest, &other).await.unwrap();
    bench.untrusted(&image, &by_cosign(&key)).await;

    tag::sign(&bench.session, &image, digest, &key).await.unwrap();
    let base = bench.resolve_trusted(&image, &by_cosign(&key)).await.unwrap().base;
    let signature = base.signature.unwrap();
    assert_eq!(base.digest, digest);
    assert_eq!(signature.kind, SignatureKind::Cosign);
    let key_id = sbs_crypto::digest(key.verifying_key().spki_der()).to_hex();
    assert_eq!(signature.key_id, key_id);
    let line = format!("{image} is signed: cosign, key {key_id}");
    assert!(bench.log.text().contains(&line), "{}", bench.log.text());

    // A bundle alone will do, too.
    let subject = Descriptor::new(media_type::OCI_IMAGE, digest, size);
    let build = BuildId::parse("1").unwrap();
    let release = bundle::Release { image: &image, build: &build, created: now() };
    bundle::sign(&bench.session, release, &[subject], &other).await.unwrap();
    bench.resolve_trusted(&image, &by_cosign(&other)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_of_every_stage_must_be_signed() {
    let registry = RealRegistry::start().await;
    let bench = Bench::new(&registry.host());
    let key = ImageSigningKey::generate().unwrap();
    let (first, _) = bench.push_tagged("1", 1).await;
    let (second, _) = bench.push_tagged("2", 2).await;
    let images = [bench.image("app:1"), bench.image("app:2")];
    tag::sign(&bench.session, &images[0], first, &key).await.unwrap();
    let resolve = async || {
        let roots = NotaryRoots::load(&bench.beside.path().join("roots")).unwrap();
        let signers = TrustedSigners::of(&by_cosign(&key), now()).unwrap();
        bench.resolve_with(&images, Some(BaseChecks { roots, signers })).await
    };
    let error = resolve().await.unwrap_err();
    assert_eq!(error.reference, images[1]);
    assert!(matches!(error.fault, ResolveFault::Unsigned(_)), "{error:?}");
    tag::sign(&bench.session, &images[1], second, &key).await.unwrap();
    let resolved = resolve().await.unwrap();
    assert_eq!([resolved[0].base.digest, resolved[1].base.digest], [first, second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_tag_that_was_moved_is_not_taken_for_what_was_signed() {
    let registry = RealRegistry::start().await;
    let bench = Bench::new(&registry.host());
    let (digest, _) = bench.push_tagged("1", 1).await;
    let image = bench.image("app:1");
    let key = ImageSigningKey::generate().unwrap();
    let openpgp = OpenPgpSigningKey::generate("base", now()).unwrap();
    tag::sign(&bench.session, &image, digest, &key).await.unwrap();
    bench.tree().publish(&openpgp, &image, digest, now()).unwrap();

    bench.push_tagged("1", 2).await;
    bench.untrusted(&image, &by_cosign(&key)).await;
    bench.untrusted(&image, &by_openpgp(&openpgp)).await;

    // Under another tag the signed image is another one, too.
    bench.push_tagged("2", 1).await;
    bench.untrusted(&bench.image("app:2"), &by_cosign(&key)).await;
    let text = bench.untrusted(&bench.image("app:2"), &by_openpgp(&openpgp)).await;
    assert!(text.contains(&format!("it is for `{image}`")), "{text}");

    // By its digest it is what was signed, whatever the tag.
    let by_digest = ImageReference::parse(&format!("{}/base/app", bench.registry.server)).unwrap();
    let by_digest = by_digest.with_digest(digest);
    bench.resolve_trusted(&by_digest, &by_cosign(&key)).await.unwrap();
    bench.resolve_trusted(&by_digest, &by_openpgp(&openpgp)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_an_openpgp_signature_by_the_key_is_taken() {
    let registry = RealRegistry::start().await;
    let bench = Bench::new(&registry.host());
    let (digest, _) = bench.push_tagged("1", 1).await;
    let image = bench.image("app:1");
    let key = OpenPgpSigningKey::generate("base", now()).unwrap();
    let other = OpenPgpSigningKey::generate("other", now()).unwrap();

    let text = bench.untrusted(&image, &by_openpgp(&key)).await;
    assert!(text.contains("has no simple signature"), "{text}");
    bench.tree().publish(&other, &image, digest, now()).unwrap();
    bench.untrusted(&image, &by_openpgp(&key)).await;

    bench.tree().publish(&key, &image, digest, now()).unwrap();
    let base = bench.resolve_trusted(&image, &by_openpgp(&key)).await.unwrap().base;
    let signature = base.signature.unwrap();
    assert_eq!(signature.kind, SignatureKind::OpenPgp);
    assert_eq!(signature.key_id, key.fingerprint().to_string());

    // One way of several is enough.
    let cosign = ImageSigningKey::generate().unwrap();
    let both = BaseTrust { openpgp: by_openpgp(&key).openpgp, ..by_cosign(&cosign) };
    bench.resolve_trusted(&image, &both).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_that_the_notary_has_is_taken_whatever_the_tag_points_to() {
    let (registry, notary) = (RealRegistry::start().await, RealNotary::start().await);
    let bench = Bench::new(&registry.host());
    let signed = bench.push_tagged("1", 1).await;
    let keys = NotaryKeys::generate(&bench.gun(), OffsetDateTime::now_utc()).unwrap();
    let image = bench.image("app:1");
    let resolve = async |image: &ImageReference, trust: &BaseTrust| {
        let roots = NotaryRoots::load(&bench.beside.path().join("roots")).unwrap();
        let checks = BaseChecks { roots, signers: at_present(trust) };
        bench.resolve_with(std::slice::from_ref(image), Some(checks)).await
    };
    let told = |result: Result<Vec<ResolvedBase>, ResolveBasesError>| {
        let error = result.unwrap_err();
        assert!(matches!(error.fault, ResolveFault::Unsigned(_)), "{error:?}");
        chain(&error)
    };

    let first_use = by_notary(&notary.host(), None);
    let text = told(resolve(&image, &first_use).await);
    assert!(text.contains("has no trust data for it"), "{text}");

    bench.announce(&notary, &keys, "1", signed).await;
    let (moved, _) = bench.push_tagged("1", 2).await;
    assert_ne!(moved, signed.0);
    let pinned = by_notary(&notary.host(), Some(keys.certificate_pem().to_owned()));
    for trust in [&first_use, &pinned] {
        let base = resolve(&image, trust).await.unwrap().remove(0).base;
        assert_eq!(base.digest, signed.0);
        let signature = base.signature.unwrap();
        assert_eq!(signature.kind, SignatureKind::Notary);
        assert_eq!(signature.key_id, keys.root_key_id().to_string());
    }
    assert!(bench.log.text().contains("is believed at first use"), "{}", bench.log.text());

    let text = told(resolve(&bench.image("app:2"), &first_use).await);
    assert!(text.contains("has no signature for this tag"), "{text}");
    let both = ImageReference::parse(&format!("{image}@{moved}")).unwrap();
    let text = told(resolve(&both, &first_use).await);
    assert!(text.contains(&format!("vouches for {} instead", signed.0)), "{text}");
    let untagged = ImageReference::parse(&format!("{}/base/app", bench.registry.server)).unwrap();
    let text = told(resolve(&untagged.with_digest(signed.0), &first_use).await);
    assert!(text.contains("write `name:tag@digest`"), "{text}");
    let other = NotaryKeys::generate(&bench.gun(), OffsetDateTime::now_utc()).unwrap();
    let other = by_notary(&notary.host(), Some(other.certificate_pem().to_owned()));
    told(resolve(&image, &other).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_a_root_that_was_believed_at_first_use_is_held_against_the_next() {
    let registry = RealRegistry::start().await;
    let bench = Bench::new(&registry.host());
    let signed = bench.push_tagged("1", 1).await;
    let image = bench.image("app:1");
    let notary = RealNotary::start().await;
    let host = notary.host();
    let keys = NotaryKeys::generate(&bench.gun(), OffsetDateTime::now_utc()).unwrap();
    bench.announce(&notary, &keys, "1", signed).await;
    let path = bench.beside.path().join("roots");
    let trust = by_notary(&host, None);
    let resolve = async || {
        let roots = NotaryRoots::load(&path).unwrap();
        let checks = BaseChecks { roots, signers: at_present(&trust) };
        bench.resolve_with(std::slice::from_ref(&image), Some(checks)).await
    };
    resolve().await.unwrap();

    // The same server with trust data that somebody else has made: it keeps them in memory, so
    // what was remembered is put under the name of a new one.
    let other = RealNotary::start().await;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&host, &other.host())).unwrap();
    let strangers = NotaryKeys::generate(&bench.gun(), OffsetDateTime::now_utc()).unwrap();
    bench.announce(&other, &strangers, "1", signed).await;
    let trust = by_notary(&other.host(), None);
    let roots = NotaryRoots::load(&path).unwrap();
    let checks = BaseChecks { roots, signers: at_present(&trust) };
    let error = bench.resolve_with(std::slice::from_ref(&image), Some(checks)).await.unwrap_err();
    assert!(matches!(error.fault, ResolveFault::Unsigned(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_notary_elsewhere_gets_no_credentials_of_the_registry() {
    let bench = Bench::new("127.0.0.1:5000");
    for (host, may) in [("localhost", false), ("127.0.0.1", true)] {
        let tokens =
            Double::start(host, |_| Reply::status(200).body("{\"token\":\"anonymous\"}")).await;
        let bearer = format!("Bearer realm=\"https://{}/token\",service=\"s\"", tokens.host());
        for challenge in ["Basic realm=\"r\"".to_owned(), bearer] {
            let notary = Double::start(host, move |_| {
                Reply::status(401).header("www-authenticate", challenge.clone())
            })
            .await;
            let trust = by_notary(notary.host(), None);
            let error = bench.resolve_trusted(&bench.image("app:1"), &trust).await.unwrap_err();
            assert!(matches!(error.fault, ResolveFault::NotKnown(_)), "{error:?}");
            let mut seen = notary.seen();
            assert!(!seen.is_empty());
            seen.extend(tokens.seen());
            let basic =
                |seen: &Seen| seen.authorization().is_some_and(|text| text.starts_with("Basic"));
            assert_eq!(seen.iter().any(basic), may, "{host}: {seen:?}");
        }
        // The token itself was asked for: as nobody, where nothing may be said.
        let asked = tokens.seen();
        assert!(!asked.is_empty());
        assert!(asked.iter().all(|seen| seen.authorization().is_some() == may), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_not_called_unsigned() {
    let double = Double::registry(|seen| {
        let asked = seen.is(&Method::GET, ".sig") || seen.is(&Method::GET, "referrers");
        asked.then(|| Reply::status(429))
    })
    .await;
    let bench = Bench::new(double.host());
    bench.push_tagged("1", 1).await;
    let key = ImageSigningKey::generate().unwrap();
    let error = bench.resolve_trusted(&bench.image("app:1"), &by_cosign(&key)).await.unwrap_err();
    assert!(matches!(error.fault, ResolveFault::NotKnown(_)), "{error:?}");
    let text = chain(&error);
    assert!(text.contains("cannot be found out now; nothing was built"), "{text}");
    assert_eq!(bench.kept(), Vec::<PathBuf>::new());

    // Nobody listens there.
    let notary = by_notary("127.0.0.1:1", None);
    let error = bench.resolve_trusted(&bench.image("app:1"), &notary).await.unwrap_err();
    assert!(matches!(error.fault, ResolveFault::NotKnown(_)), "{error:?}");
}

#[test]
fn keys_that_cannot_be_used_are_told_by_the_name_of_their_setting() {
    let bad = "no key".to_owned();
    let notary = by_notary("notary.example", Some(bad.clone()));
    let openpgp = Some(OpenPgpTrust { image: None, key: bad.clone() });
    for (trust, name) in [
        (BaseTrust { cosign_key: Some(bad), ..nothing() }, "BASE_COSIGN_PUBLIC_KEY"),
        (BaseTrust { openpgp, ..nothing() }, "BASE_REPO_PUBLIC_KEY"),
        (notary, "DOCKER_CONTENT_TRUST_BASE_ROOT"),
    ] {
        let error = TrustedSigners::of(&trust, now()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name}: ")), "{error}");
    }
}
