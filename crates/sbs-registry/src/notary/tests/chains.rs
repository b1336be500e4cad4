//! Attacks by a server, or by whoever has one of its keys.

use super::*;

const BELOW_ROOT: [TrustRole; 4] =
    [TrustRole::Timestamp, TrustRole::Snapshot, TrustRole::Targets, TrustRole::Releases];

#[tokio::test]
async fn finds_the_digest_of_a_tag() {
    let mut repo = Repo::with_releases();
    repo.tags.insert("both", "by targets");
    repo.released_tags.insert("both", "by releases");
    let site = Site::start(repo.files()).await;
    let first = Trust { pin: &RootPin::FirstUse, remembered: None };
    for (name, image, role) in [
        ("v1", "image one", TrustRole::Targets),
        ("r1", "released image", TrustRole::Releases),
        ("both", "by releases", TrustRole::Releases),
    ] {
        let target = signed(site.verify(name, first).await.unwrap());
        assert_eq!(target.digest(), digest(image));
        assert_eq!((target.size(), target.role()), (image.len() as u64, role));
        assert_eq!(target.root_keys(), [repo.root.listed[0].raw.id()]);
        assert_eq!(target.tag().as_str(), name);
    }
    match site.verify("none", first).await.unwrap() {
        Verdict::Absent(Absence::Tag(remembered)) => {
            assert_eq!(remembered.version(TrustRole::Targets), Some(5));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn finds_a_tag_of_a_digest() {
    let mut repo = Repo::with_releases();
    repo.tags.insert("both", "by targets");
    repo.released_tags.insert("both", "by releases");
    repo.tags.insert("r1/not-a-tag", "no tag has it");
    let site = Site::start(repo.files()).await;
    let trust = Trust { pin: &RootPin::FirstUse, remembered: None };
    let look_up =
        async |image| verify_digest(&site.session(), digest(image), trust, NOW).await.unwrap();
    for (name, image, role) in [
        ("v1", "image one", TrustRole::Targets),
        ("r1", "released image", TrustRole::Releases),
        ("both", "by releases", TrustRole::Releases),
    ] {
        let target = signed(look_up(image).await);
        assert_eq!((target.tag().as_str(), target.role()), (name, role));
        assert_eq!((target.digest(), target.size()), (digest(image), image.len() as u64));
    }
    // What the tag would be if nothing overrode it does not count.
    for image in ["by targets", "no tag has it", "another image"] {
        let verdict = look_up(image).await;
        assert!(matches!(verdict, Verdict::Absent(Absence::Tag(_))), "{image}: {verdict:?}");
    }
    repo.targets.signers = vec![Key::plain()];
    site.serve(repo.files());
    let missing = TrustDefect::Signatures { role: TrustRole::Targets, needed: 1 };
    assert_eq!(defect(look_up("image one").await), missing);
}

#[tokio::test]
async fn a_delegation_is_for_its_paths_only() {
    let mut repo = Repo::with_releases();
    repo.releases.as_mut().unwrap().1 = vec!["v2", "r"];
    repo.released_tags.insert("v1", "not for it");
    let site = Site::start(repo.files()).await;
    assert_eq!(signed(site.judge(None).await).digest(), digest("image one"));
    repo.releases.as_mut().unwrap().1 = vec![];
    site.serve(repo.files());
    let first = Trust { pin: &RootPin::FirstUse, remembered: None };
    let verdict = site.verify("r1", first).await.unwrap();
    assert!(matches!(verdict, Verdict::Absent(Absence::Tag(_))), "{verdict:?}");
}

#[tokio::test]
async fn r5_a_lower_version_of_any_role_is_refused() {
    for role in BELOW_ROOT {
        let mut repo = Repo::with_releases();
        let site = Site::start(repo.files()).await;
        let remembered = signed(site.judge(None).await).remembered().clone();
        // The same again is no fault.
        signed(site.judge(Some(&remembered)).await);
        repo.role(role).version = 4;
        site.serve(repo.files());
        let found = defect(site.judge(Some(&remembered)).await);
        assert_eq!(found, TrustDefect::Rollback { role, seen: 5, offered: 4 });
        // It is the memory that this is known by.
        signed(site.judge(None).await);
        // What is kept by the caller is what was seen.
        let again = Remembered::parse(&remembered.to_json()).unwrap();
        defect(site.judge(Some(&again)).await);
    }
}

#[tokio::test]
async fn r5_an_expired_document_of_any_role_is_refused() {
    for role in [&[TrustRole::Root][..], &BELOW_ROOT].concat() {
        for (expires, good) in
            [(NOW, false), (NOW - Duration::days(1), false), (NOW + Duration::SECOND, true)]
        {
            let mut repo = Repo::with_releases();
            repo.role(role).expires = expires;
            let site = Site::start(repo.files()).await;
            let verdict = site.judge(None).await;
            if good {
                signed(verdict);
            } else {
                assert_eq!(defect(verdict), TrustDefect::Expired { role, at: expires });
            }
        }
    }
}

#[tokio::test]
async fn r5_a_document_that_nobody_of_the_role_signed_is_refused() {
    for role in BELOW_ROOT {
        for signers in [vec![], vec![Key::plain()]] {
            let found = defect_of_repo(|repo| repo.role(role).signers = signers).await;
            assert_eq!(found, TrustDefect::Signatures { role, needed: 1 });
        }
    }
    // Whoever has the server's keys cannot sign for the owner.
    let found = defect_of_repo(|repo| {
        repo.targets.signers =
            vec![repo.snapshot.listed[0].twin(), repo.timestamp.listed[0].twin()];
    })
    .await;
    assert_eq!(found, TrustDefect::Signatures { role: TrustRole::Targets, needed: 1 });
}

#[tokio::test]
async fn r5_a_threshold_wants_different_keys() {
    let two = |repo: &mut Repo, other: Key, signers: Vec<Key>| {
        repo.targets.threshold = 2;
        repo.targets.listed.push(other);
        repo.targets.signers = signers;
    };
    let missing = TrustDefect::Signatures { role: TrustRole::Targets, needed: 2 };
    let key = |repo: &Repo| repo.targets.listed[0].twin();

    let found = defect_of_repo(|repo| two(repo, Key::plain(), vec![key(repo)])).await;
    assert_eq!(found, missing, "one of two");
    let found = defect_of_repo(|repo| two(repo, Key::plain(), vec![key(repo), key(repo)])).await;
    assert_eq!(found, missing, "the same twice");
    let found = defect_of_repo(|repo| two(repo, key(repo), vec![key(repo), key(repo)])).await;
    assert_eq!(found, missing, "the same twice, listed twice");
    let found = defect_of_repo(|repo| {
        let first = key(repo);
        let form = certificate_form(&first.signing, "another name", NOW);
        let (listed, signer) = (first.again(form.clone()), first.again(form));
        two(repo, listed, vec![first, signer]);
    })
    .await;
    assert_eq!(found, missing, "one key under two ids");

    let mut repo = Repo::new();
    let (first, second) = (key(&repo), Key::plain());
    two(&mut repo, second.twin(), vec![first, second]);
    signed(Site::start(repo.files()).await.judge(None).await);
    let found = defect_of_repo(|repo| repo.targets.threshold = 0).await;
    assert_eq!(found, TrustDefect::Malformed { role: TrustRole::Root });
}

#[tokio::test]
async fn r5_another_target_hash_is_refused() {
    let (was, is) = (digest("image one"), digest("image two"));
    let [was, is] = [was, is].map(|digest| STANDARD.encode(digest.as_bytes()));
    let swap = |bytes: &[u8]| str::from_utf8(bytes).unwrap().replace(&was, &is).into_bytes();
    let mut files = Repo::new().files();
    let changed = swap(files.of(TrustRole::Targets));
    assert_ne!(changed, *files.of(TrustRole::Targets));
    *files.of(TrustRole::Targets) = changed.clone();
    let mixed = TrustDefect::HashMismatch { role: TrustRole::Targets, by: TrustRole::Snapshot };
    assert_eq!(defect_of(files).await, mixed);

    // With the keys of the server it can be listed, and is not signed.
    let repo = Repo::new();
    let mut files = Files::default();
    files.0.insert("root.json".to_owned(), repo.root_document());
    let meta = json!({
        "root": file_meta(&repo.root_document()),
        "targets": files.add(TrustRole::Targets, swap(&repo.targets_document())),
    });
    let snapshot =
        files.add(TrustRole::Snapshot, repo.snapshot.sign("Snapshot", json!({ "meta": meta })));
    let timestamp = repo.timestamp.sign("Timestamp", json!({ "meta": { "snapshot": snapshot } }));
    files.0.insert("timestamp.json".to_owned(), timestamp);
    assert_eq!(
        defect_of(files).await,
        TrustDefect::Signatures { role: TrustRole::Targets, needed: 1 }
    );
}

#[tokio::test]
async fn r5_documents_of_different_times_do_not_mix() {
    let mut repo = Repo::with_releases();
    let mut old = repo.files();
    for role in [TrustRole::Timestamp, TrustRole::Snapshot, TrustRole::Targets, TrustRole::Releases]
    {
        repo.role(role).version = 6;
    }
    for (role, by) in [
        (TrustRole::Snapshot, TrustRole::Timestamp),
        (TrustRole::Targets, TrustRole::Snapshot),
        (TrustRole::Releases, TrustRole::Snapshot),
    ] {
        let mut files = repo.files();
        *files.of(role) = old.of(role).clone();
        assert_eq!(defect_of(files).await, TrustDefect::HashMismatch { role, by });
    }
    // Another root with the same keys than the snapshot lists.
    let mut files = repo.files();
    repo.root.version = 6;
    files.0.insert("root.json".to_owned(), repo.root_document());
    let (role, by) = (TrustRole::Root, TrustRole::Snapshot);
    assert_eq!(defect_of(files).await, TrustDefect::HashMismatch { role, by });
}

#[tokio::test]
async fn a_root_that_is_replaced_in_the_middle_is_asked_for_again() {
    let mut repo = Repo::new();
    let old_root = repo.root_document();
    repo.root.version = 6;
    let first = Mutex::new(Some(old_root));
    let site = Site::start_with(repo.files(), move |seen| {
        let old = first.lock().unwrap().take_if(|_| seen.path.ends_with("/root.json"))?;
        Some(Reply::status(200).body(old))
    })
    .await;
    assert_eq!(signed(site.judge(None).await).remembered().version(TrustRole::Root), Some(6));
}

#[tokio::test]
async fn r5_a_delegation_that_was_seen_cannot_vanish() {
    let mut repo = Repo::with_releases();
    let site = Site::start(repo.files()).await;
    let remembered = signed(site.judge(None).await).remembered().clone();
    let mut files = repo.files();
    let meta = json!({
        "root": file_meta(&repo.root_document()),
        "targets": file_meta(files.of(TrustRole::Targets)),
    });
    let snapshot =
        files.add(TrustRole::Snapshot, repo.snapshot.sign("Snapshot", json!({ "meta": meta })));
    let timestamp = repo.timestamp.sign("Timestamp", json!({ "meta": { "snapshot": snapshot } }));
    files.0.insert("timestamp.json".to_owned(), timestamp);
    site.serve(files);
    let found = defect(site.judge(Some(&remembered)).await);
    assert_eq!(found, TrustDefect::Missing { role: TrustRole::Releases });
    // Its owner can end it.
    repo.releases = None;
    repo.targets.version = 6;
    site.serve(repo.files());
    signed(site.judge(Some(&remembered)).await);
}

#[tokio::test]
async fn r5_more_bytes_than_allowed_or_listed_are_refused() {
    for (name, role) in [("root.json", TrustRole::Root), ("timestamp.json", TrustRole::Timestamp)] {
        let mut files = Repo::new().files();
        let bytes = files.0.get_mut(name).unwrap();
        bytes.resize(usize::try_from(role.max_bytes()).unwrap() + 1, b' ');
        let found = defect_of(files).await;
        assert_eq!(found, TrustDefect::TooLarge { role, max_bytes: role.max_bytes() });
    }
    let mut files = Repo::new().files();
    files.of(TrustRole::Targets).push(b' ');
    let (role, by) = (TrustRole::Targets, TrustRole::Snapshot);
    assert_eq!(defect_of(files).await, TrustDefect::HashMismatch { role, by });
    let mut files = Repo::new().files();
    files.of(TrustRole::Targets).pop();
    assert_eq!(defect_of(files).await, TrustDefect::HashMismatch { role, by });
    // Nothing is fetched that would be too large.
    let huge = json!({ "hashes": { "sha256": STANDARD.encode([0; 32]) }, "length": 1_u64 << 40 });
    let found = defect_of_repo(|repo| {
        let meta = json!({ "root": file_meta(&repo.root_document()), "targets": huge });
        repo.snapshot.edits.push(("meta", meta));
    })
    .await;
    assert_eq!(found, TrustDefect::TooLarge { role, max_bytes: role.max_bytes() });
}

#[tokio::test]
async fn r5_a_key_signs_in_its_own_way_and_under_its_own_id() {
    let no_signature = TrustDefect::Signatures { role: TrustRole::Timestamp, needed: 1 };
    for method in ["eddsa", "rsapss", "rsapkcs1v15", "ecdsa-x509", ""] {
        let found = defect_of_repo(|repo| repo.timestamp.signers[0].method = method).await;
        assert_eq!(found, no_signature, "{method}");
    }
    // A kind that is not known, or that the bytes are none of, is no key.
    for kind in ["ed25519", "rsa", "ecdsa-x509", "rsa-x509", "dsa"] {
        let found = defect_of_repo(|repo| {
            let key = repo.timestamp.listed[0].twin();
            let raw = RawKey::new(kind, key.signing.verifying_key().as_spki_der());
            repo.timestamp.listed = vec![key.again(raw.clone())];
            repo.timestamp.signers = vec![key.again(raw)];
        })
        .await;
        assert_eq!(found, no_signature, "{kind}");
    }
    // A key under the id of another.
    let mut repo = Repo::new();
    let (id, other) = (repo.targets.listed[0].raw.id().to_string(), Key::plain());
    let mut root: Value = serde_json::from_slice(&repo.root_document()).unwrap();
    root["signed"]["keys"][&id] = other.raw.to_json();
    repo.root.edits.push(("keys", root["signed"]["keys"].clone()));
    assert_eq!(defect_of(repo.files()).await, TrustDefect::Malformed { role: TrustRole::Root });
}

#[tokio::test]
async fn r5_a_document_is_of_its_own_kind() {
    for role in [
        TrustRole::Root,
        TrustRole::Timestamp,
        TrustRole::Snapshot,
        TrustRole::Targets,
        TrustRole::Releases,
    ] {
        for (name, value) in [
            ("_type", json!("Other")),
            ("_type", json!("snapshot")),
            ("version", json!(0)),
            ("version", json!(-1)),
            ("version", json!("5")),
            ("expires", json!("tomorrow")),
            ("expires", json!(2_000_000_000)),
        ] {
            let found =
                defect_of_repo(|repo| repo.role(role).edits.push((name, value.clone()))).await;
            assert_eq!(found, TrustDefect::Malformed { role }, "{name} {value}");
        }
    }
    // One role's key that also signs for another does not make its documents those.
    let mut repo = Repo::new();
    repo.timestamp = Role::of(&repo.snapshot.listed[0]);
    let mut files = repo.files();
    let snapshot = files.of(TrustRole::Snapshot).clone();
    files.0.insert("timestamp.json".to_owned(), snapshot);
    let found = defect_of(files).await;
    assert_eq!(found, TrustDefect::Malformed { role: TrustRole::Timestamp });
}

#[tokio::test]
async fn c1_a_doubled_key_or_another_number_is_refused() {
    let text = |files: &Files| String::from_utf8(files.0["timestamp.json"].clone()).unwrap();
    for (from, to) in [
        ("\"version\":5", "\"version\":6,\"version\":5"),
        ("\"version\":5", "\"version\":5,\"x\":{\"a\":1,\"a\":1}"),
        ("\"version\":5", "\"version\":5.0"),
        ("\"version\":5", "\"version\":5,\"x\":1.5"),
        ("{\"signed\":", "{\"signed\":{},\"signed\":"),
        ("{\"signed\":", "[{\"signed\":"),
    ] {
        let mut files = Repo::new().files();
        let changed = text(&files).replacen(from, to, 1);
        files.0.insert("timestamp.json".to_owned(), changed.into_bytes());
        let found = defect_of(files).await;
        assert_eq!(found, TrustDefect::Malformed { role: TrustRole::Timestamp }, "{to}");
    }
    // What is not known here is signed, too.
    let mut files = Repo::new().files();
    let changed = text(&files).replacen("\"version\":5", "\"version\":5,\"x\":1", 1);
    files.0.insert("timestamp.json".to_owned(), changed.into_bytes());
    let found = defect_of(files).await;
    assert_eq!(found, TrustDefect::Signatures { role: TrustRole::Timestamp, needed: 1 });
}

#[tokio::test]
async fn a_target_has_a_sha256_and_a_length() {
    let sha256 = STANDARD.encode([1; 32]);
    for (target, good) in [
        (json!({ "hashes": { "sha256": sha256 }, "length": 1 }), true),
        (json!({ "hashes": { "sha256": sha256 }, "length": 0 }), false),
        (json!({ "hashes": { "sha512": STANDARD.encode([1; 64]) }, "length": 1 }), false),
        (json!({ "hashes": { "sha256": STANDARD.encode([1; 31]) }, "length": 1 }), false),
        (json!({ "hashes": { "sha256": "01".repeat(32) }, "length": 1 }), false),
    ] {
        let mut repo = Repo::new();
        repo.targets.edits.push(("targets", json!({ "v1": target })));
        match Site::start(repo.files()).await.judge(None).await {
            Verdict::Signed(_) if good => {}
            other if !good => {
                assert_eq!(defect(other), TrustDefect::Target { role: TrustRole::Targets });
            }
            other => panic!("{target}: {other:?}"),
        }
    }
}
