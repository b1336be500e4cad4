//! A publisher in front of servers that misbehave.

use super::super::keys::NotaryKeys;
use super::super::publish::{Change, Publication, PublishError, publish};
use super::*;

fn publication<'a>(keys: &'a NotaryKeys, tag: &'a ImageTag) -> Publication<'a> {
    let (digest, size) = (digest("an image"), 8);
    Publication { tag, digest, size, keys, remembered: None }
}

fn keys() -> NotaryKeys {
    NotaryKeys::generate(&gun(), NOW).unwrap()
}

/// Trust data whose owner has these keys.
fn repo_of(keys: &NotaryKeys) -> Repo {
    let record: Value = serde_json::from_slice(&keys.to_record()).unwrap();
    let key = |name: &str| {
        let der = STANDARD.decode(record[name].as_str().unwrap()).unwrap();
        TrustSigningKey::from_pkcs8_der(&der).unwrap()
    };
    let mut repo = Repo::new();
    let root = Key { raw: keys.root_key(), signing: key("root"), method: "ecdsa" };
    let targets = Key { raw: keys.targets_key(), signing: key("targets"), method: "ecdsa" };
    (repo.root, repo.targets) = (Role::of(&root), Role::of(&targets));
    repo
}

#[test]
fn a_record_of_keys_is_the_same_keys() {
    let keys = keys();
    let record = keys.to_record();
    assert!(record.capacity() < record.len() + 64);
    let again = NotaryKeys::from_record(&record).unwrap();
    assert_eq!(again.to_record(), record);
    assert_eq!(again.root_key_id(), keys.root_key_id());
    assert!(again.are_for(&gun()) && !again.are_for(&gun_of("docker.io/library/app2")));
    assert_eq!(format!("{again:?}"), "NotaryKeys(docker.io/library/app)");
    assert_eq!(RootPin::parse(&keys.public_key()).unwrap(), keys.pin());
}

#[test]
fn a_damaged_record_is_refused_and_not_shown() {
    let keys = keys();
    let record = String::from_utf8(keys.to_record().to_vec()).unwrap();
    let mut value: Value = serde_json::from_str(&record).unwrap();
    value["certificate"] = json!(NotaryKeys::generate(&gun(), NOW).unwrap().public_key());
    for text in [
        String::new(),
        "{}".to_owned(),
        record.replace("\"schema\":1", "\"schema\":2"),
        record.replace("\"root\":\"MI", "\"root\":\"MJ"),
        record.replace("\"schema\"", "\"other\":1,\"schema\""),
        value.to_string(),
        " ".repeat(64 * 1024 + 1),
    ] {
        let error = NotaryKeys::from_record(text.as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("MI"), "{error}");
    }
}

#[tokio::test]
async fn keys_of_another_repository_do_not_sign() {
    let site = Site::start(Files::default()).await;
    let other = NotaryKeys::generate(&gun_of("docker.io/library/other"), NOW).unwrap();
    let result = publish(&site.session(), publication(&other, &tag("v1")), NOW).await;
    assert!(matches!(result, Err(PublishError::OtherKeys { .. })), "{result:?}");
    assert!(site.double.seen().is_empty());
}

#[tokio::test]
async fn a_stranded_repository_is_called_so() {
    let site = Site::start(Repo::new().files()).await;
    let keys = keys();
    let error = publish(&site.session(), publication(&keys, &tag("v1")), NOW).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, PublishError::Stranded { .. }), "{text}");
    assert!(text.contains("import the state image"), "{text}");
    assert!(text.contains(&keys.root_key_id().to_string()), "{text}");
    assert_eq!(site.double.count(&Method::POST, ""), 0);
}

#[tokio::test]
async fn a_key_that_lost_the_right_to_sign_does_not() {
    let keys = keys();
    let mut repo = repo_of(&keys);
    repo.targets = Role::of(&Key::plain());
    let site = Site::start(repo.files()).await;
    let result = publish(&site.session(), publication(&keys, &tag("v1")), NOW).await;
    let expected = TrustRole::Targets;
    assert!(
        matches!(&result, Err(PublishError::NotASigner { role, .. }) if *role == expected),
        "{result:?}"
    );
    assert_eq!(site.double.count(&Method::POST, ""), 0);
}

#[tokio::test]
async fn r5_what_was_taken_back_is_not_signed_again() {
    let keys = keys();
    let mut repo = repo_of(&keys);
    let site = Site::start(repo.files()).await;
    let remembered = signed(site.judge(None).await).remembered().clone();
    repo.targets.version = 4;
    site.serve(repo.files());
    let tag = tag("v2");
    let publication = Publication { remembered: Some(&remembered), ..publication(&keys, &tag) };
    let result = publish(&site.session(), publication, NOW).await;
    let Err(PublishError::Invalid(invalid)) = result else { panic!("{result:?}") };
    let expected = TrustDefect::Rollback { role: TrustRole::Targets, seen: 5, offered: 4 };
    assert_eq!(invalid.defect, expected);
    assert_eq!(site.double.count(&Method::POST, ""), 0);
}

#[tokio::test]
async fn conflicts_without_end_end() {
    let keys = keys();
    let site = Site::start_with(repo_of(&keys).files(), |seen| {
        let body = r#"{"errors":[{"code":"VERSION","message":"m","detail":{}}]}"#;
        (seen.method == Method::POST).then(|| Reply::status(400).body(body))
    })
    .await;
    let result = publish(&site.session(), publication(&keys, &tag("v2")), NOW).await;
    assert!(matches!(result, Err(PublishError::Conflict { attempts: 6, .. })), "{result:?}");
    assert_eq!(site.double.count(&Method::POST, ""), 6);
}

#[tokio::test]
async fn a_server_that_refuses_or_forgets_is_found_out() {
    let keys = keys();
    let refusal = r#"{"errors":[{"code":"INVALID_UPDATE","message":"m","detail":{}}]}"#;
    for (status, body) in [(400, refusal), (200, "")] {
        let site = Site::start_with(repo_of(&keys).files(), move |seen| {
            (seen.method == Method::POST).then(|| Reply::status(status).body(body))
        })
        .await;
        let result = publish(&site.session(), publication(&keys, &tag("v2")), NOW).await;
        match result.unwrap_err() {
            PublishError::Registry(error) => assert!(error.to_string().contains("INVALID_UPDATE")),
            PublishError::NotShown { found: None, .. } => assert_eq!(status, 200),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn what_stands_is_not_signed_again_until_it_runs_out() {
    let keys = keys();
    let mut repo = repo_of(&keys);
    repo.tags.insert("v1", "an image");
    repo.targets.expires = NOW + Duration::days(200);
    let site = Site::start(repo.files()).await;
    let done = publish(&site.session(), publication(&keys, &tag("v1")), NOW).await.unwrap();
    assert_eq!(done.change, Change::Unchanged);
    assert_eq!(done.target.digest(), digest("an image"));
    assert_eq!(site.double.count(&Method::POST, ""), 0);
    // Also where it has run out already, which is no fault for its owner.
    for days in [150, -1] {
        repo.targets.expires = NOW + Duration::days(days);
        site.serve(repo.files());
        let before = site.double.count(&Method::POST, "");
        publish(&site.session(), publication(&keys, &tag("v1")), NOW).await.unwrap_err();
        assert_eq!(site.double.count(&Method::POST, ""), before + 1);
    }
}

#[tokio::test]
async fn r5_a_server_without_an_answer_is_not_signed_for_anew() {
    for status in [500, 503, 403] {
        let site = Site::start_with(Files::default(), move |seen| {
            (seen.method == Method::GET).then(|| Reply::status(status))
        })
        .await;
        let result = publish(&site.session(), publication(&keys(), &tag("v1")), NOW).await;
        assert!(matches!(result, Err(PublishError::Registry(_))), "{result:?}");
        assert_eq!(site.double.count(&Method::POST, ""), 0);
    }
}

#[tokio::test]
async fn a_tag_that_others_hide_is_not_called_signed() {
    let keys = keys();
    let mut repo = repo_of(&keys);
    repo.tags.insert("v1", "an image");
    repo.targets.expires = NOW + Duration::days(200);
    // In the document that docker looks at first, and that somebody else signs.
    repo.releases = Some((Role::of(&Key::plain()), vec![""]));
    repo.released_tags.insert("v1", "another image");
    let site = Site::start(repo.files()).await;
    let result = publish(&site.session(), publication(&keys, &tag("v1")), NOW).await;
    let Err(PublishError::NotShown { found, .. }) = result else { panic!("{result:?}") };
    assert_eq!(found, Some(digest("another image")));
}
