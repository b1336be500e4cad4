//! What does not answer is not unsigned, and a tag is asked for once.

use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;

use super::forms::Announcing;
use super::*;
use crate::testing::double::Reply;

/// Tells whether a request is for what only this form needs.
fn is_of(form: Form, seen: &Seen) -> bool {
    let sig = seen.path.contains(".sig");
    match form {
        Form::CosignTag => sig,
        Form::CosignBundle => {
            seen.path.contains("/referrers/") || (seen.path.contains("/manifests/sha256-") && !sig)
        }
        Form::SimpleSigning => seen.path == "/v2/" || seen.path.starts_with("/extensions/"),
        Form::Notary => false,
    }
}

#[tokio::test]
async fn b4_a_form_that_is_not_answered_for_is_not_missing() {
    for form in IN_REGISTRY {
        for status in [429, 500, 502, 503, 403] {
            let on = Arc::new(AtomicBool::new(false));
            let now = Arc::clone(&on);
            let bench = Bench::with(move |seen| {
                let busy = now.load(Ordering::Relaxed) && is_of(form, seen);
                busy.then(|| Reply::status(status).header("retry-after", "0"))
            })
            .await;
            for form in IN_REGISTRY {
                bench.sign(form, &OWNER).await;
            }
            on.store(true, Ordering::Relaxed);
            let report = bench.check().await;
            let told = outcome(&report, form);
            assert!(matches!(told, Outcome::NotAnswered(_)), "{form:?} {status}: {told:?}");
            assert_eq!(report.verdict(), Verdict::NotAnswered, "{form:?} {status}");
            assert_eq!(report.pinned(), None);
            on.store(false, Ordering::Relaxed);
            assert_eq!(bench.check().await.verdict(), Verdict::Good);
        }
    }
}

#[tokio::test]
async fn b4_what_is_wrong_weighs_more_than_what_is_not_answered() {
    let on = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&on);
    let bench = Bench::with(move |seen| {
        let busy = now.load(Ordering::Relaxed) && is_of(Form::CosignBundle, seen);
        busy.then(|| Reply::status(500))
    })
    .await;
    bench.sign(Form::CosignTag, &STRANGER).await;
    on.store(true, Ordering::Relaxed);
    let report = bench.check().await;
    assert_eq!(outcome(&report, Form::CosignBundle).as_str(), "not-answered");
    assert_eq!(report.verdict(), Verdict::Invalid);
}

#[tokio::test]
async fn b4_a_notary_or_a_lookaside_that_does_not_answer_is_not_missing() {
    let bench = Bench::with(|seen| (seen.path == "/v2/").then(|| Reply::status(200))).await;
    bench.sign(Form::CosignTag, &OWNER).await;
    for status in [429, 500, 503, 403, 401] {
        let busy =
            Double::start("127.0.0.1", move |_| Reply::status(status).header("retry-after", "0"))
                .await;
        let mut bundle = bench.bundle();
        bundle.notary = Some(Announcing::new(&bench.image).root(busy.host()));
        let report = try_check(&bench.image, &bundle).await.unwrap();
        assert_eq!(outcome(&report, Form::Notary).as_str(), "not-answered", "{status}");
        assert_eq!(report.verdict(), Verdict::NotAnswered);

        let mut bundle = bench.bundle();
        bundle.lookaside = Some(format!("https://{}/sigs", busy.host()));
        let report = try_check(&bench.image, &bundle).await.unwrap();
        assert_eq!(outcome(&report, Form::SimpleSigning).as_str(), "not-answered", "{status}");
        assert_eq!(report.verdict(), Verdict::NotAnswered);
    }
    let mut bundle = bench.bundle();
    bundle.notary = Some(Announcing::new(&bench.image).root("127.0.0.1:1"));
    let report = try_check(&bench.image, &bundle).await.unwrap();
    assert_eq!(report.verdict(), Verdict::NotAnswered, "{report:?}");
}

#[tokio::test]
async fn a_list_of_signatures_that_is_none_is_invalid() {
    let bench = Bench::with(|seen| {
        let list = seen.path.starts_with("/extensions/");
        list.then(|| Reply::status(200).body("no JSON"))
    })
    .await;
    bench.sign(Form::CosignTag, &OWNER).await;
    let report = bench.check().await;
    assert_eq!(report.verdict(), Verdict::Invalid);
    let text = why(&report, Form::SimpleSigning);
    assert!(text.contains("a list of signatures of another form"), "{text}");
}

#[tokio::test]
async fn b4_an_image_that_is_not_served_is_told_from_a_registry_that_is_not_there() {
    let bench = Bench::new().await;
    let error = try_check(&bench.with_tag("none"), &bench.bundle()).await.unwrap_err();
    assert!(matches!(error, CheckImageError::NotServed { .. }), "{error:?}");
    for status in [429, 500, 503, 401, 403] {
        let bench = Bench::with(move |seen| {
            let busy = seen.is(&Method::GET, "/manifests/v1");
            busy.then(|| Reply::status(status).header("retry-after", "0"))
        })
        .await;
        let error = try_check(&bench.image, &bench.bundle()).await.unwrap_err();
        assert!(matches!(error, CheckImageError::Unanswered { .. }), "{status}: {error:?}");
    }
    let gone = ImageReference::parse("127.0.0.1:1/team/app:v1").unwrap();
    let mut bundle = bench.bundle();
    bundle.repository = ImageReference::new(gone.registry().clone(), gone.repository().clone());
    let error = try_check(&gone, &bundle).await.unwrap_err();
    assert!(matches!(error, CheckImageError::Unanswered { .. }), "{error:?}");
}

#[tokio::test]
async fn b11_a_tag_is_resolved_once_and_the_digest_is_what_is_checked() {
    // The tag means another image each time that it is asked for.
    let second = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&second);
    let bench = Bench::with(move |seen| {
        let again = seen.is(&Method::GET, "/manifests/v1") && asked.swap(true, Ordering::Relaxed);
        let reply = || Reply::status(200).header("content-type", media_type::OCI_IMAGE);
        again.then(|| reply().body(r#"{"schemaVersion":2}"#))
    })
    .await;
    bench.sign(Form::CosignTag, &OWNER).await;
    let report = bench.check().await;
    assert_eq!(report.verdict(), Verdict::Good, "{report:?}");
    assert_eq!(report.digest(), bench.subject.digest);
    assert_eq!(bench.double.count(&Method::GET, "/manifests/v1"), 1);
    // What the tag means now is not signed.
    assert_eq!(bench.check().await.verdict(), Verdict::Unsigned);
}

#[tokio::test]
async fn b11_what_is_served_under_a_digest_must_have_it() {
    let on = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&on);
    let bench = Bench::with(move |seen| {
        let wanted = seen.is(&Method::GET, "/manifests/sha256:") && now.load(Ordering::Relaxed);
        let reply = || Reply::status(200).header("content-type", media_type::OCI_IMAGE);
        wanted.then(|| reply().body(r#"{"schemaVersion":2}"#))
    })
    .await;
    bench.sign(Form::CosignTag, &OWNER).await;
    let by_digest = bench.image.with_digest(bench.subject.digest);
    assert_eq!(bench.check_as(&by_digest).await.verdict(), Verdict::Good);
    on.store(true, Ordering::Relaxed);
    let error = try_check(&by_digest, &bench.bundle()).await.unwrap_err();
    assert!(matches!(error, CheckImageError::NotServed { .. }), "{error:?}");
}
