//! Which bundles are believed, and for which images.

use http::Method;
use sbs_crypto::ManifestSigningKey;

use super::forms::Announcing;
use super::*;

fn image() -> ImageReference {
    ImageReference::parse("registry.example/team/app:v1").unwrap()
}

fn good() -> TrustBundle {
    let mut bundle = bundle(&image());
    bundle.lookaside = Some("https://signatures.example/path".to_owned());
    bundle.notary = Some(Announcing::new(&image()).root("notary.example"));
    bundle
}

#[test]
fn a_bundle_is_for_one_repository() {
    let trust = ImageTrust::read(&good(), now()).unwrap();
    assert_eq!(trust.repository().to_string(), "registry.example/team/app");
    assert_eq!(trust.notary().unwrap().to_string(), "https://notary.example");
    for (text, expected) in [
        ("registry.example/team/app:v2", true),
        ("registry.example/team/app", true),
        ("registry.example/team/other:v1", false),
        ("registry.example:443/team/app:v1", false),
        ("team/app:v1", false),
    ] {
        assert_eq!(trust.is_for(&ImageReference::parse(text).unwrap()), expected, "{text}");
    }
}

#[tokio::test]
async fn an_image_of_another_repository_is_not_even_asked_for() {
    let bench = Bench::new().await;
    bench.sign(Form::CosignTag, &OWNER).await;
    let before = bench.double.count(&Method::GET, "/");
    let error = try_check(&bench.elsewhere(), &bench.bundle()).await.unwrap_err();
    assert!(matches!(error, CheckImageError::OtherRepository { .. }), "{error:?}");
    let whole = bench.bundle().repository;
    let error = try_check(&whole, &bench.bundle()).await.unwrap_err();
    assert!(matches!(error, CheckImageError::NoImage { .. }), "{error:?}");
    assert_eq!(bench.double.count(&Method::GET, "/"), before);
}

#[test]
fn r7_a_bundle_that_contradicts_itself_is_refused() {
    type Change = fn(&mut TrustBundle);
    let changes: [(Change, &str); 19] = [
        (|bundle| bundle.schema.push('x'), "has the form `sbs-trust-1x`"),
        (|bundle| bundle.repository = image(), "has a tag or a digest"),
        (|bundle| bundle.image_keys.clear(), "no image key"),
        (|bundle| bundle.image_keys[1].pem.clear(), "image key 2 of the trust bundle"),
        (|bundle| bundle.attestation_keys[0].pem.clear(), "attestation key 1 of"),
        (
            |bundle| bundle.image_keys[0].id = "00".repeat(32),
            "image key that the trust bundle calls",
        ),
        (
            |bundle| bundle.image_keys[0].pem = bundle.image_keys[1].pem.clone(),
            "image key that the trust bundle calls",
        ),
        (|bundle| bundle.attestation_keys[0].id.clear(), "attestation key that the trust bundle"),
        (
            |bundle| bundle.manifest_keys.push(bundle.image_keys[0].clone()),
            "manifest key 1 of the trust bundle",
        ),
        (
            |bundle| {
                let pem = ManifestSigningKey::generate().unwrap().verifying_key().to_pem();
                bundle.manifest_keys =
                    vec![PublicKey { id: "00".repeat(32), pem, retiring: false }];
            },
            "manifest key that the trust bundle calls",
        ),
        // Whoever may attest could release.
        (|bundle| bundle.attestation_keys.push(bundle.image_keys[1].clone()), "must be for one"),
        (|bundle| bundle.image_keys = vec![bundle.image_keys[0].clone(); 9], "more than 8 image"),
        (|bundle| bundle.openpgp_keys[0].armored.clear(), "OpenPGP keys of the trust bundle"),
        (|bundle| bundle.openpgp_keys[0].fingerprint.push('0'), "OpenPGP key that the trust"),
        (
            |bundle| {
                let more = bundle.openpgp_keys[1].armored.clone();
                bundle.openpgp_keys[0].armored.push_str(&more);
            },
            "OpenPGP key that the trust",
        ),
        (|bundle| bundle.lookaside = Some("http://a.b/".to_owned()), "lookaside of the trust"),
        (|bundle| bundle.notary.as_mut().unwrap().gun.push('x'), "not its own repository"),
        (|bundle| bundle.notary.as_mut().unwrap().root_key_id.clear(), "notary root key that"),
        (
            |bundle| {
                let other = Announcing::new(&image()).root("x.example");
                bundle.notary.as_mut().unwrap().root_certificate = other.root_certificate;
            },
            "notary root key that",
        ),
    ];
    ImageTrust::read(&good(), now()).unwrap();
    for (change, expected) in changes {
        let mut bundle = good();
        change(&mut bundle);
        let text = ImageTrust::read(&bundle, now()).map(drop).map_err(|error| error.to_string());
        assert!(text.as_ref().is_err_and(|text| text.contains(expected)), "{expected}: {text:?}");
    }
}

#[test]
fn a_bundle_without_the_other_forms_is_enough() {
    let mut bundle = good();
    (bundle.lookaside, bundle.notary) = (None, None);
    bundle.openpgp_keys.clear();
    bundle.attestation_keys.clear();
    ImageTrust::read(&bundle, now()).unwrap();
}
