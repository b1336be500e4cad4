//! Whether a root is the right one.

use super::*;

fn pin(key: &Key) -> RootPin {
    RootPin::Key(key.raw.id())
}

#[tokio::test]
async fn a_pin_is_an_id_or_a_certificate() {
    let repo = Repo::new();
    let site = Site::start(repo.files()).await;
    let root = &repo.root.listed[0];
    let public = root.raw.to_json()["keyval"]["public"].as_str().unwrap().to_owned();
    let pem = String::from_utf8(STANDARD.decode(&public).unwrap()).unwrap();
    let (first, rest) = public.split_at(76);
    let wrapped = format!("{first}\n{rest}");
    for text in [
        wrapped,
        root.raw.id().to_string(),
        plain_form(&root.signing).id().to_string(),
        public,
        pem,
    ] {
        let pin = RootPin::parse(&format!("{text}\n")).unwrap();
        signed(site.verify("v1", Trust { pin: &pin, remembered: None }).await.unwrap());
    }
    for text in ["", "abc", &"g".repeat(64), "-----BEGIN CERTIFICATE-----", &STANDARD.encode("x")] {
        RootPin::parse(text).unwrap_err();
    }
}

#[tokio::test]
async fn r5_a_root_by_another_key_than_the_pinned_is_refused() {
    let repo = Repo::new();
    let site = Site::start(repo.files()).await;
    let real = repo.root.listed[0].raw.id();
    let stranger = Key::root();
    let certificate = stranger.raw.to_json()["keyval"]["public"].as_str().unwrap().to_owned();
    for pin in [pin(&stranger), RootPin::parse(&certificate).unwrap()] {
        let trust = Trust { pin: &pin, remembered: None };
        let found = defect(site.verify("v1", trust).await.unwrap());
        assert_eq!(found, TrustDefect::WrongRoot { found: vec![real] });
    }
}

#[tokio::test]
async fn r5_that_the_pinned_key_is_listed_is_not_enough() {
    let owner = Key::root();
    let mut repo = Repo::new();
    let attacker = repo.root.listed[0].raw.id();
    repo.root.listed.push(owner.twin());
    let site = Site::start(repo.files()).await;
    let pin = pin(&owner);
    let trust = Trust { pin: &pin, remembered: None };
    let found = defect(site.verify("v1", trust).await.unwrap());
    assert_eq!(found, TrustDefect::WrongRoot { found: vec![attacker] });
    repo.root.signers.push(owner);
    site.serve(repo.files());
    signed(site.verify("v1", trust).await.unwrap());
}

#[tokio::test]
async fn r5_a_root_key_has_a_valid_certificate_in_the_name_of_the_repository() {
    let name = gun().to_string();
    for (key, what) in [
        (Key::with_certificate("docker.io/library/other", NOW), "another repository"),
        (Key::with_certificate("docker.io/library/app2", NOW), "another repository"),
        (Key::with_certificate(&name, NOW + Duration::days(1)), "not yet valid"),
        (Key::with_certificate(&name, NOW - Duration::days(3651)), "expired"),
        (Key::plain(), "no certificate"),
    ] {
        let mut repo = Repo::new();
        repo.root.listed = vec![key.twin()];
        repo.root.signers = vec![key];
        let site = Site::start(repo.files()).await;
        assert_eq!(defect(site.judge(None).await), TrustDefect::Certificate, "{what}");
    }
}

#[tokio::test]
async fn r5_a_root_is_signed_by_its_own_keys() {
    for signers in [vec![], vec![Key::root()]] {
        let found = defect_of_repo(|repo| repo.root.signers = signers).await;
        assert_eq!(found, TrustDefect::Signatures { role: TrustRole::Root, needed: 1 });
    }
    let found = defect_of_repo(|repo| {
        repo.root.listed.push(Key::root());
        repo.root.threshold = 2;
    })
    .await;
    assert_eq!(found, TrustDefect::Signatures { role: TrustRole::Root, needed: 2 });
}

/// A repository whose root key changes with each version.
fn rotate(repo: &mut Repo, old_signs: bool) {
    let (old, new) = (repo.root.listed[0].twin(), Key::root());
    repo.root.version += 1;
    repo.root.listed = vec![new.twin()];
    repo.root.signers = if old_signs { vec![old, new] } else { vec![new] };
}

#[tokio::test]
async fn a_root_that_the_old_one_signed_takes_its_place() {
    let mut repo = Repo::new();
    let site = Site::start(repo.files()).await;
    let first = signed(site.judge(None).await).remembered().clone();
    let mut between = Vec::new();
    for _ in 0..3 {
        rotate(&mut repo, true);
        between.push((format!("{}.root.json", repo.root.version), repo.root_document()));
    }
    let mut files = repo.files();
    files.0.extend(between.clone());
    site.serve(files.clone());
    let target = signed(site.judge(Some(&first)).await);
    assert_eq!(target.remembered().version(TrustRole::Root), Some(8));
    assert_eq!(target.root_keys(), [repo.root.listed[0].raw.id()]);

    // From now on the old key is one as any other.
    let last = target.remembered().clone();
    site.serve(Repo::new().files());
    defect(site.judge(Some(&last)).await);

    // Every version in between counts.
    files.0.remove("7.root.json");
    site.serve(files.clone());
    let found = defect(site.judge(Some(&first)).await);
    assert_eq!(found, TrustDefect::Missing { role: TrustRole::Root });
    files.0.insert("7.root.json".to_owned(), between[0].1.clone());
    site.serve(files);
    assert_eq!(defect(site.judge(Some(&first)).await), TrustDefect::RootReplaced);
}

#[tokio::test]
async fn r5_a_root_that_the_old_one_did_not_sign_is_refused() {
    let mut repo = Repo::new();
    let site = Site::start(repo.files()).await;
    let remembered = signed(site.judge(None).await).remembered().clone();
    let old = repo.root.listed[0].twin();
    rotate(&mut repo, false);
    site.serve(repo.files());
    assert_eq!(defect(site.judge(Some(&remembered)).await), TrustDefect::RootReplaced);
    // By the old key alone it is no root either.
    repo.root.signers = vec![old];
    site.serve(repo.files());
    assert_eq!(defect(site.judge(Some(&remembered)).await), TrustDefect::RootReplaced);
    // A repository that was made anew.
    let mut other = Repo::new();
    site.serve(other.files());
    assert_eq!(defect(site.judge(Some(&remembered)).await), TrustDefect::RootReplaced);
    other.root.version = 4;
    site.serve(other.files());
    let found = defect(site.judge(Some(&remembered)).await);
    assert_eq!(found, TrustDefect::Rollback { role: TrustRole::Root, seen: 5, offered: 4 });
    other.root.version = u64::from(u32::MAX);
    site.serve(other.files());
    assert_eq!(defect(site.judge(Some(&remembered)).await), TrustDefect::RootReplaced);
}

#[tokio::test]
async fn a_root_that_is_pinned_takes_the_place_of_one_that_is_remembered() {
    let repo = Repo::new();
    let site = Site::start(repo.files()).await;
    let remembered = signed(site.judge(None).await).remembered().clone();
    // Made anew by a new owner: every version begins again.
    let mut new = Repo::new();
    for role in [TrustRole::Root, TrustRole::Targets, TrustRole::Snapshot, TrustRole::Timestamp] {
        new.role(role).version = 1;
    }
    site.serve(new.files());
    let pin = pin(&new.root.listed[0]);
    let trust = Trust { pin: &pin, remembered: Some(&remembered) };
    let log = TestLog::new();
    let session = session_with(site.double.host(), &gun(), &log);
    let target = signed(verify(&session, &tag("v1"), trust, NOW).await.unwrap());
    assert!(log.text().contains("is replaced by the given one"), "{}", log.text());
    assert_eq!(target.remembered().version(TrustRole::Targets), Some(1));

    // From now on it is the new one that counts, with the pin or without.
    let remembered = target.remembered().clone();
    signed(site.judge(Some(&remembered)).await);
    site.serve(repo.files());
    defect(site.judge(Some(&remembered)).await);
}

#[tokio::test]
async fn r5_a_pin_makes_no_other_root_and_nothing_old_good() {
    let mut repo = Repo::new();
    let owner = repo.root.listed[0].twin();
    let site = Site::start(repo.files()).await;
    let remembered = signed(site.judge(None).await).remembered().clone();
    let new = Repo::new();
    site.serve(new.files());
    let judge = async |key: &Key| {
        let trust = Trust { pin: &pin(key), remembered: Some(&remembered) };
        defect(site.verify("v1", trust).await.unwrap())
    };
    let found = vec![new.root.listed[0].raw.id()];
    assert_eq!(judge(&Key::root()).await, TrustDefect::WrongRoot { found });
    // The pin means what is remembered.
    assert_eq!(judge(&owner).await, TrustDefect::RootReplaced);
    repo.root.version = 4;
    site.serve(repo.files());
    let rollback = TrustDefect::Rollback { role: TrustRole::Root, seen: 5, offered: 4 };
    assert_eq!(judge(&owner).await, rollback);
}

#[tokio::test]
async fn r5_the_threshold_of_the_old_root_counts() {
    let mut repo = Repo::new();
    let second = Key::root();
    repo.root.listed.push(second.twin());
    repo.root.signers.push(second.twin());
    repo.root.threshold = 2;
    let site = Site::start(repo.files()).await;
    let remembered = signed(site.judge(None).await).remembered().clone();
    let (new, first) = (Key::root(), repo.root.listed[0].twin());
    repo.root.version = 6;
    repo.root.listed = vec![new.twin()];
    repo.root.threshold = 1;
    repo.root.signers = vec![new.twin(), first.twin()];
    site.serve(repo.files());
    assert_eq!(defect(site.judge(Some(&remembered)).await), TrustDefect::RootReplaced);
    repo.root.signers = vec![new, first, second];
    site.serve(repo.files());
    signed(site.judge(Some(&remembered)).await);
}

#[tokio::test]
async fn what_is_remembered_is_of_one_repository() {
    let site = Site::start(Repo::new().files()).await;
    let json = String::from_utf8(signed(site.judge(None).await).remembered().to_json()).unwrap();
    let other = json.replace("docker.io/library/app", "docker.io/library/other");
    let other = Remembered::parse(other.as_bytes()).unwrap();
    let trust = Trust { pin: &RootPin::FirstUse, remembered: Some(&other) };
    let error = site.verify("v1", trust).await.unwrap_err();
    assert!(matches!(error, RegistryError::Internal(_)), "{error}");
    for text in ["", "{}", &json.replace("\"targets\":5", "\"targets\":5,\"targets\":6")] {
        Remembered::parse(text.as_bytes()).unwrap_err();
    }
}
