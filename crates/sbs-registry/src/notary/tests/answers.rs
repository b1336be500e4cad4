//! What is known after answers of all kinds, and data that the real server gave.

use super::super::shares_logins;
use super::*;
use crate::testing::{PASSWORD, USER};

#[tokio::test]
async fn no_trust_data_is_what_the_server_has_to_say() {
    let site = Site::start(Files::default()).await;
    let verdict = site.judge(None).await;
    assert!(matches!(verdict, Verdict::Absent(Absence::Repository)), "{verdict:?}");
}

#[tokio::test]
async fn r5_what_was_there_cannot_be_absent_later() {
    let site = Site::start(Repo::new().files()).await;
    let remembered = signed(site.judge(None).await).remembered().clone();
    site.serve(Files::default());
    assert_eq!(defect(site.judge(Some(&remembered)).await), TrustDefect::Vanished);
}

#[tokio::test]
async fn r5_no_answer_is_never_taken_for_unsigned() {
    for status in [400, 401, 403, 429, 500, 502, 503, 504] {
        for name in ["/root.json", "/timestamp.json", "/snapshot."] {
            let site = Site::start_with(Repo::new().files(), move |seen| {
                seen.path.contains(name).then(|| Reply::status(status))
            })
            .await;
            let trust = Trust { pin: &RootPin::FirstUse, remembered: None };
            let result = site.verify("v1", trust).await;
            let error = result.map(|verdict| panic!("{status} {name}: {verdict:?}")).unwrap_err();
            assert!(!error.is_not_found(), "{status} {name}: {error}");
        }
    }
    let gone = Site::start(Files::default()).await;
    let session = gone.session();
    drop(gone);
    let trust = Trust { pin: &RootPin::FirstUse, remembered: None };
    let error = verify(&session, &tag("v1"), trust, NOW).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn r5_a_part_that_is_missing_is_a_defect() {
    for role in [TrustRole::Timestamp, TrustRole::Snapshot, TrustRole::Targets, TrustRole::Releases]
    {
        let mut files = Repo::with_releases().files();
        files.0.retain(|name, _| match role {
            TrustRole::Targets => name.starts_with("targets/") || !name.starts_with("targets."),
            role => !name.starts_with(role.as_str()),
        });
        assert_eq!(defect_of(files).await, TrustDefect::Missing { role });
    }
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again() {
    let left = Mutex::new(2);
    let site = Site::start_with(Repo::new().files(), move |_| {
        let mut left = left.lock().unwrap();
        *left -= i32::from(*left > 0);
        (*left > 0).then(|| Reply::status(429).header("retry-after", "0"))
    })
    .await;
    signed(site.judge(None).await);
}

#[tokio::test]
async fn r5_other_pages_are_no_trust_data() {
    for body in
        [&b"<html>welcome</html>"[..], b"", b"{}", b"null", b"{\"signed\":{},\"signatures\":[]}"]
    {
        let site =
            Site::start_with(Files::default(), move |_| Some(Reply::status(200).body(body))).await;
        assert_eq!(
            defect(site.judge(None).await),
            TrustDefect::Malformed { role: TrustRole::Root }
        );
    }
}

#[test]
fn r1_a_registry_and_a_notary_are_one_service_where_they_are_one_machine() {
    for (server, registry, expected) in [
        ("r.example", "r.example", true),
        ("r.example:4443", "r.example:5000", true),
        ("notary.docker.io", "docker.io", true),
        ("notary.docker.io", "r.example", false),
        ("notary.example", "docker.io", false),
        ("notary.r.example", "r.example", false),
        ("r.example.thief.example", "r.example", false),
        ("[::1]:4443", "[::2]:4443", false),
    ] {
        let server_parsed = NotaryServer::parse(server).unwrap();
        let shares = shares_logins(&server_parsed, &RegistryHost::parse(registry).unwrap());
        assert_eq!(shares, expected, "{server} {registry}");
    }
}

#[tokio::test]
async fn r1_credentials_do_not_go_where_the_server_says() {
    let thief = Double::start("localhost", |_| Reply::status(200).body("{\"token\":\"t\"}")).await;
    let challenge = format!("Bearer realm=\"https://{}/token\",service=\"s\"", thief.host());
    let site = Site::start_with(Files::default(), move |_| {
        Some(Reply::status(401).header("www-authenticate", challenge.clone()))
    })
    .await;
    let trust = Trust { pin: &RootPin::FirstUse, remembered: None };
    let error = site.verify("v1", trust).await.unwrap_err();
    assert!(matches!(error, RegistryError::RealmNotAllowed { .. }), "{error}");
    assert!(thief.seen().is_empty());
    assert!(site.double.seen().iter().all(|seen| seen.authorization().is_none()));
}

#[tokio::test]
async fn logs_in_for_the_repository_by_its_whole_name() {
    let site = Site::start_with(Repo::new().files(), |seen| {
        if seen.path.starts_with("/token") {
            return Some(Reply::status(200).body("{\"token\":\"t\"}"));
        }
        let realm = format!("https://{}/token", seen.headers["host"].to_str().unwrap());
        let challenge = format!("Bearer realm=\"{realm}\",service=\"the notary\"");
        (seen.authorization() != Some("Bearer t"))
            .then(|| Reply::status(401).header("www-authenticate", challenge))
    })
    .await;
    signed(site.judge(None).await);
    let seen = site.double.seen();
    let token = seen.iter().find(|seen| seen.path.starts_with("/token")).unwrap();
    let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    assert_eq!(token.authorization(), Some(&*basic));
    let scope = "scope=repository%3Adocker.io%2Flibrary%2Fapp%3Apull";
    assert!(token.path.ends_with(scope), "{}", token.path);
}

// Written by Debian's notary-server and notary 0.7.0 on 2026-11-21; the ids and signatures in it
// are theirs.
const REAL: [(TrustRole, &str); 5] = [
    (TrustRole::Root, include_str!("data/root.json")),
    (TrustRole::Snapshot, include_str!("data/snapshot.json")),
    (TrustRole::Targets, include_str!("data/targets.json")),
    (TrustRole::Releases, include_str!("data/releases.json")),
    (TrustRole::Timestamp, include_str!("data/timestamp.json")),
];

fn real_files() -> Files {
    let mut files = Files::default();
    for (role, text) in REAL {
        match role {
            TrustRole::Root | TrustRole::Timestamp => {
                files.0.insert(format!("{role}.json"), text.as_bytes().to_vec());
            }
            _ => drop(files.add(role, text.as_bytes().to_vec())),
        }
    }
    files
}

async fn judge_real(files: Files, name: &str) -> Verdict {
    let now = datetime!(2026-11-22 12:00 UTC);
    let double = Double::start("127.0.0.1", move |seen| {
        let name = seen.path.strip_prefix("/v2/docker.io/lib/app/_trust/tuf/").unwrap();
        files
            .0
            .get(name)
            .map_or_else(|| Reply::status(404), |bytes| Reply::status(200).body(bytes.clone()))
    })
    .await;
    let trust = Trust { pin: &RootPin::FirstUse, remembered: None };
    verify(&session(double.host(), &gun_of("docker.io/lib/app")), &tag(name), trust, now)
        .await
        .unwrap()
}

#[tokio::test]
async fn verifies_what_the_real_server_gave() {
    for (name, size, role) in [
        ("v1", 19, TrustRole::Targets),
        ("big", 5_000_001, TrustRole::Targets),
        ("r1", 9, TrustRole::Releases),
    ] {
        let target = signed(judge_real(real_files(), name).await);
        assert_eq!((target.digest(), target.size(), target.role()), (digest("x"), size, role));
        let root = "3fac754f40a78505509eb251b4e4032e2154bfc2fe3b14bb358945c83dfc5789";
        assert_eq!(target.root_keys()[0].to_string(), root);
    }
}

#[tokio::test]
async fn r5_no_bit_of_it_can_be_changed() {
    for name in ["root.json", "timestamp.json"] {
        let files = real_files();
        let length = files.0[name].len();
        for at in (0..length).step_by(29) {
            let mut changed = files.clone();
            changed.0.get_mut(name).unwrap()[at] ^= 1;
            let verdict = judge_real(changed, "v1").await;
            assert!(matches!(verdict, Verdict::Invalid(_)), "{name} {at}: {verdict:?}");
        }
    }
}

#[test]
fn key_ids_are_those_of_the_real_client() {
    // From `data/root.json`, and computed with `printf %s | sha256sum` of the canonical form.
    for (kind, public, id) in [
        (
            "ed25519",
            "XAGorfRLCkf/G9rHFEryyWqwcELRVHOVzdLCAdkdiEw=",
            "22a4aa8ff356d83c63b703dbadc106f347e907878f85c5dd2079383cbbfde561",
        ),
        (
            "ecdsa",
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEr6nHQM2H1M6ltONUV7E/Ghmo+OEJZZNg0efAiit+KC+yYpBevIrXEV71q6q6kcIkBnevMbXX/YZmLawsDF+d9w==",
            "69f1c17f46c0a79139d54239752ddb63e2c4764102f2ba845764c640488c687a",
        ),
    ] {
        let key = RawKey::new(kind, &STANDARD.decode(public).unwrap());
        assert_eq!(key.id().to_string(), id);
    }
}
