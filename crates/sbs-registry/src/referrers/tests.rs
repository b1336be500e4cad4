use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::testing::double::{Double, Reply, Seen};
use crate::testing::real::RealRegistry;
use crate::testing::{TestLog, run, session};
use crate::{BlobSource, ImageManifest};

fn repository() -> Repository {
    Repository::parse("team/app").unwrap()
}

fn subject() -> Descriptor {
    Descriptor::of(media_type::OCI_IMAGE, b"an image manifest")
}

/// Returns a referrer that says `name`; its blobs are pushed.
async fn referrer(session: &Session, name: &str) -> ImageManifest {
    let config = Bytes::from_static(b"{}");
    let descriptor = Descriptor::of(media_type::OCI_EMPTY, &config);
    let (digest, size) = (descriptor.digest, descriptor.size);
    session.push_blob(&repository(), digest, size, &BlobSource::Bytes(config)).await.unwrap();
    let mut manifest = ImageManifest::new(descriptor.clone(), vec![descriptor]);
    manifest.artifact_type = Some("application/x.test".to_owned());
    manifest.annotations = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    manifest.subject = Some(subject());
    manifest
}

async fn push(session: &Session, name: &str) -> Result<Descriptor, RegistryError> {
    session.push_referrer(&repository(), &referrer(session, name).await).await
}

async fn names(session: &Session) -> Vec<String> {
    let listed = session.referrers(&repository(), subject().digest).await.unwrap();
    let mut names: Vec<_> = listed.iter().map(|entry| entry.annotations["name"].clone()).collect();
    names.sort();
    names
}

fn is_list(seen: &Seen, method: &Method) -> bool {
    seen.is(method, "/manifests/sha256-")
}

#[tokio::test]
async fn debians_registry_lists_by_tag() {
    let registry = RealRegistry::start().await;
    let session = session(&registry.host(), &TestLog::new());
    assert!(names(&session).await.is_empty());
    let first = push(&session, "a").await.unwrap();
    push(&session, "b").await.unwrap();
    push(&session, "a").await.unwrap();
    assert_eq!(names(&session).await, ["a", "b"]);
    let listed = session.referrers(&repository(), subject().digest).await.unwrap();
    assert_eq!(listed[0], first);
    assert_eq!(listed[0].artifact_type.as_deref(), Some("application/x.test"));
    assert_eq!(listed[0].media_type, media_type::OCI_IMAGE);
    // Other clients find the list under the tag that the specification gives.
    let [certificates, credentials] = registry.skopeo_options();
    let hex = subject().digest.to_hex();
    let list = format!("docker://{}/team/app:sha256-{hex}", registry.host());
    let raw = run("skopeo", &["inspect", "--raw", &certificates, &credentials, &list]);
    assert_eq!(ImageIndex::parse(raw.as_bytes()).unwrap().manifests, listed);
}

#[tokio::test]
async fn a_registry_that_lists_by_itself_gets_no_list() {
    for page in [1, 2, 100] {
        let double = Double::registry_with_referrers(page, |_| None).await;
        let session = session(double.host(), &TestLog::new());
        for name in ["a", "b", "c"] {
            push(&session, name).await.unwrap();
        }
        assert_eq!(names(&session).await, ["a", "b", "c"]);
        assert!(!double.seen().iter().any(|seen| is_list(seen, &Method::PUT)));
    }
}

#[tokio::test]
async fn a_registry_that_says_nothing_of_the_subject_gets_a_list() {
    // It answers for referrers, and did not say that it took the subject in.
    let double = Double::registry(|seen| {
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let reply = || Reply::status(200).header("content-type", media_type::OCI_INDEX);
        seen.is(&Method::GET, "/referrers/").then(|| reply().body(index))
    })
    .await;
    push(&session(double.host(), &TestLog::new()), "a").await.unwrap();
    assert_eq!(double.seen().iter().filter(|seen| is_list(seen, &Method::PUT)).count(), 1);
}

#[tokio::test]
async fn other_ways_to_have_no_list_are_known() {
    for status in [400, 404, 405, 406, 200] {
        let double = Double::registry(move |seen| {
            let page = || Reply::status(status).header("content-type", "text/html").body("hello");
            seen.is(&Method::GET, "/referrers/").then(page)
        })
        .await;
        let session = session(double.host(), &TestLog::new());
        push(&session, "a").await.unwrap();
        assert_eq!(names(&session).await, ["a"], "{status}");
    }
}

#[tokio::test]
async fn a_registry_that_does_not_answer_has_not_said_that_nothing_refers() {
    for status in [401, 403, 429, 500, 503] {
        let double = Double::registry(move |seen| {
            let reply = || Reply::status(status).header("retry-after", "0");
            seen.is(&Method::GET, "/referrers/").then(reply)
        })
        .await;
        let session = session(double.host(), &TestLog::new());
        session.referrers(&repository(), subject().digest).await.unwrap_err();
        assert!(!double.seen().iter().any(|seen| is_list(seen, &Method::GET)), "{status}");
    }
}

#[tokio::test]
async fn a_registry_that_throttles_is_asked_again_when_it_says() {
    let left = AtomicUsize::new(4);
    let double = Double::registry(move |seen| {
        let wanted = seen.is(&Method::GET, "/referrers/") || is_list(seen, &Method::PUT);
        let busy = wanted
            && left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok();
        let status = if seen.method == Method::PUT { 503 } else { 429 };
        busy.then(|| Reply::status(status).header("retry-after", "0"))
    })
    .await;
    let log = TestLog::new();
    let session = session(double.host(), &log);
    push(&session, "a").await.unwrap();
    assert_eq!(names(&session).await, ["a"]);
    assert!(log.text().contains("trying again in 0.0 seconds"), "{}", log.text());
}

#[tokio::test]
async fn entries_by_others_stay_as_they_are() {
    let double = Double::registry(|_| None).await;
    let session = session(double.host(), &TestLog::new());
    let foreign = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/x.other","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"annotations":{"name":"z"},"data":"e30="}],"annotations":{"a":"b"}}"#;
    let tag = referrers_tag(subject().digest).unwrap();
    let target = Target::Tag(&tag);
    let repository = repository();
    let put = session.push_manifest(&repository, target, media_type::OCI_INDEX, foreign.into());
    put.await.unwrap();
    push(&session, "a").await.unwrap();
    let list = session.list(&repository, &tag).await.unwrap().unwrap();
    let after: serde_json::Value = serde_json::from_slice(&list.bytes).unwrap();
    let before: serde_json::Value = serde_json::from_str(foreign).unwrap();
    assert_eq!(after["manifests"][0], before["manifests"][0]);
    assert_eq!(after["annotations"], before["annotations"]);
    assert_eq!(names(&session).await, ["a", "z"]);
}

#[tokio::test]
async fn what_is_no_list_is_not_written_over() {
    for (media_type, document) in [
        (media_type::OCI_IMAGE, r#"{"schemaVersion":2}"#),
        (media_type::DOCKER_INDEX, r#"{"schemaVersion":2,"manifests":[]}"#),
        (media_type::OCI_INDEX, r#"{"schemaVersion":2,"manifests":[1]}"#),
    ] {
        let double = Double::registry(|_| None).await;
        let session = session(double.host(), &TestLog::new());
        let tag = referrers_tag(subject().digest).unwrap();
        let target = Target::Tag(&tag);
        session.push_manifest(&repository(), target, media_type, document.into()).await.unwrap();
        let error = push(&session, "a").await.unwrap_err();
        assert!(matches!(error, RegistryError::Malformed { .. }), "{error:?}");
        let puts = double.seen().iter().filter(|seen| is_list(seen, &Method::PUT)).count();
        assert_eq!(puts, 1, "the one of this test");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_lose_none() {
    let double = Double::registry(|_| None).await;
    let session = session(double.host(), &TestLog::new());
    let pushes: Vec<_> = (0..8)
        .map(|number| {
            let session = session.clone();
            tokio::spawn(async move { push(&session, &format!("n{number}")).await.unwrap() })
        })
        .collect();
    for push in pushes {
        push.await.unwrap();
    }
    let expected: Vec<_> = (0..8).map(|number| format!("n{number}")).collect();
    assert_eq!(names(&session).await, expected);
}

#[tokio::test]
async fn a_list_that_another_program_wrote_over_is_written_again() {
    // Each of the first two writes is replaced at once by what another program wrote.
    let foreign = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/x.other","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"annotations":{"name":"z"}}],"n":NUMBER}"#;
    let puts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&puts);
    let double = Double::registry(move |seen| {
        if is_list(seen, &Method::PUT) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        let get = is_list(seen, &Method::GET);
        let puts = counted.load(Ordering::Relaxed);
        let reply = || Reply::status(200).header("content-type", media_type::OCI_INDEX);
        let text = foreign.replace("NUMBER", &puts.to_string());
        (get && (1..=2).contains(&puts)).then(|| reply().body(text))
    })
    .await;
    let session = session(double.host(), &TestLog::new());
    push(&session, "a").await.unwrap();
    assert_eq!(puts.load(Ordering::Relaxed), 3);
    assert_eq!(names(&session).await, ["a", "z"]);
}

#[tokio::test]
async fn a_list_that_shows_late_is_not_written_again() {
    let hidden = AtomicUsize::new(0);
    let double = Double::registry(move |seen| {
        // The first look is before there is a list.
        let late =
            is_list(seen, &Method::GET) && (1..4).contains(&hidden.fetch_add(1, Ordering::Relaxed));
        late.then(|| Reply::status(404))
    })
    .await;
    let session = session(double.host(), &TestLog::new());
    push(&session, "a").await.unwrap();
    assert_eq!(double.seen().iter().filter(|seen| is_list(seen, &Method::PUT)).count(), 1);
}

#[tokio::test]
async fn a_referrer_that_is_not_kept_is_an_error() {
    let double =
        Double::registry(|seen| is_list(seen, &Method::PUT).then(|| Reply::status(201))).await;
    let error = push(&session(double.host(), &TestLog::new()), "a").await.unwrap_err();
    assert!(matches!(error, RegistryError::NotKept { .. }), "{error:?}");

    let double = Double::registry_with_referrers(10, |seen| {
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let reply = || Reply::status(200).header("content-type", media_type::OCI_INDEX);
        seen.is(&Method::GET, "/referrers/").then(|| reply().body(index))
    })
    .await;
    let error = push(&session(double.host(), &TestLog::new()), "a").await.unwrap_err();
    assert!(matches!(error, RegistryError::NotKept { .. }), "{error:?}");
}

#[tokio::test]
async fn r1_a_list_goes_on_nowhere_but_at_the_registry() {
    for link in [
        "<https://other.example/v2/team/app/referrers/x>; rel=\"next\"",
        "<http://127.0.0.1/v2/>; rel=\"next\"",
        "</v2/next>; rel=\"previous\"",
        "/v2/next",
    ] {
        let double = Double::registry(move |seen| {
            let index = r#"{"schemaVersion":2,"manifests":[]}"#;
            let reply = || Reply::status(200).header("content-type", media_type::OCI_INDEX);
            seen.is(&Method::GET, "/referrers/").then(|| reply().header("link", link).body(index))
        })
        .await;
        let session = session(double.host(), &TestLog::new());
        let result = session.referrers(&repository(), subject().digest).await;
        assert!(matches!(result, Err(RegistryError::Malformed { .. })), "{link}: {result:?}");
        assert_eq!(double.seen().iter().filter(|seen| seen.path.contains("next")).count(), 0);
    }
}

#[tokio::test]
async fn r3_a_list_without_end_is_refused() {
    let double = Double::registry(|seen| {
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let reply = Reply::status(200).header("content-type", media_type::OCI_INDEX);
        let reply = reply.header("link", format!("<{}>; rel=\"next\"", seen.path));
        seen.is(&Method::GET, "/referrers/").then(|| reply.body(index))
    })
    .await;
    let session = session(double.host(), &TestLog::new());
    let result = session.referrers(&repository(), subject().digest).await;
    assert!(matches!(result, Err(RegistryError::Malformed { .. })), "{result:?}");
    assert_eq!(double.count(&Method::GET, "/referrers/"), MAX_PAGES);
}
