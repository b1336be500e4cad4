//! Against Debian's notary-server, with the `notary` client as judge.

use std::path::Path;

use futures_util::future::join_all;

use super::super::KeyId;
use super::super::client::Publishing;
use super::super::keys::NotaryKeys;
use super::super::publish::{Change, Publication, PublishError, Published, create, publish};
use super::*;
use crate::testing::notary::{NotaryClient, RealNotary};
use crate::testing::real::CuttingProxy;

const GUN: &str = "127.0.0.1:5000/team/app";

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn keys() -> NotaryKeys {
    NotaryKeys::generate(&gun_of(GUN), now()).unwrap()
}

async fn sign(
    server: &RealNotary,
    keys: &NotaryKeys,
    name: &str,
    image: &str,
) -> Result<Published, PublishError> {
    let (digest, size, tag) = (digest(image), image.len() as u64, &tag(name));
    let publication = Publication { tag, digest, size, keys, remembered: None };
    publish(&session(&server.host(), &gun_of(GUN)), publication, now()).await
}

async fn judge(server: &RealNotary, name: &str, pin: &RootPin) -> Verdict {
    let trust = Trust { pin, remembered: None };
    verify(&session(&server.host(), &gun_of(GUN)), &tag(name), trust, now()).await.unwrap()
}

fn line(name: &str, image: &str, role: &str) -> String {
    format!("{name} {} {} {role}", digest(image).to_hex(), image.len())
}

#[tokio::test]
async fn the_real_client_sees_what_was_signed() {
    let server = RealNotary::start().await;
    let keys = keys();
    let first = sign(&server, &keys, "v1", "image one").await.unwrap();
    assert_eq!(first.change, Change::Created);
    assert_eq!(first.target.root_keys(), [keys.root_key_id()]);
    let second = sign(&server, &keys, "v2", "image two").await.unwrap();
    assert_eq!(second.change, Change::Updated);
    let again = sign(&server, &keys, "v2", "image two").await.unwrap();
    assert_eq!(again.change, Change::Unchanged);
    // The tag moves.
    sign(&server, &keys, "v1", "image three").await.unwrap();

    let client = server.client();
    let expected = [line("v1", "image three", "targets"), line("v2", "image two", "targets")];
    assert_eq!(client.list(GUN), expected);
    let found = client.run(&["lookup", GUN, "v2"]).unwrap();
    assert_eq!(found.trim(), format!("v2 sha256:{} 9", digest("image two").to_hex()));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image");
    let file = file.to_str().unwrap();
    std::fs::write(file, "image two").unwrap();
    client.run(&["verify", GUN, "v2", "-q", "-i", file]).unwrap();
    client.run(&["verify", GUN, "v1", "-q", "-i", file]).unwrap_err();

    // A client that remembers follows, too, and one that was never there sees the same.
    sign(&server, &keys, "v4", "image four").await.unwrap();
    assert_eq!(client.list(GUN), server.client().list(GUN));
    assert_eq!(client.list(GUN).len(), 3);
}

#[tokio::test]
async fn what_the_real_client_signed_is_verified() {
    let server = RealNotary::start().await;
    let client = server.client();
    let verdict = judge(&server, "v1", &RootPin::FirstUse).await;
    assert!(matches!(verdict, Verdict::Absent(Absence::Repository)), "{verdict:?}");
    client.create(GUN);
    client.add(GUN, "v1", &digest("image one").to_hex(), 9, &[]);
    let target = signed(judge(&server, "v1", &RootPin::FirstUse).await);
    assert_eq!((target.digest(), target.size()), (digest("image one"), 9));
    let verdict = judge(&server, "v2", &RootPin::FirstUse).await;
    assert!(matches!(verdict, Verdict::Absent(Absence::Tag(_))), "{verdict:?}");

    // Its root key is known to the client by the id outside of the certificate.
    let [id] = target.root_keys() else { panic!("{target:?}") };
    signed(judge(&server, "v1", &RootPin::Key(*id)).await);
    let keys = client.run(&["key", "list"]).unwrap();
    let root = keys.lines().find(|line| line.starts_with("root")).unwrap();
    let plain = root.split_whitespace().find_map(KeyId::parse).unwrap();
    assert_ne!(plain, *id);
    signed(judge(&server, "v1", &RootPin::Key(plain)).await);
}

#[tokio::test]
async fn a_root_that_the_real_client_rotates_is_followed() {
    let server = RealNotary::start().await;
    let client = server.client();
    client.create(GUN);
    client.add(GUN, "v1", &digest("image one").to_hex(), 9, &[]);
    let before = signed(judge(&server, "v1", &RootPin::FirstUse).await);
    for role in ["root", "targets", "root"] {
        client.confirm(&["key", "rotate", GUN, role]).unwrap();
    }
    let trust = Trust { pin: &RootPin::FirstUse, remembered: Some(before.remembered()) };
    let session = session(&server.host(), &gun_of(GUN));
    let after = signed(verify(&session, &tag("v1"), trust, now()).await.unwrap());
    let version =
        |target: &super::super::SignedTarget| target.remembered().version(TrustRole::Root);
    assert!(version(&after) >= version(&before).map(|version| version + 3), "{after:?}");
}

#[tokio::test]
async fn what_others_signed_stays() {
    let server = RealNotary::start().await;
    let keys = keys();
    sign(&server, &keys, "v1", "image one").await.unwrap();
    let client = server.client();
    let directory = tempfile::tempdir().unwrap();
    import_targets_key(&client, &keys, directory.path());
    // A name that servers write in another way than it is signed.
    client.add(GUN, "a<b>&é", &digest("image two").to_hex(), 9, &[]);
    sign(&server, &keys, "v3", "image three").await.unwrap();
    let expected = [
        line("a<b>&é", "image two", "targets"),
        line("v1", "image one", "targets"),
        line("v3", "image three", "targets"),
    ];
    assert_eq!(server.client().list(GUN), expected);
}

#[tokio::test]
async fn publishers_at_the_same_time_all_succeed() {
    let server = RealNotary::start().await;
    let keys = keys();
    let names = ["a", "b", "c", "d"];
    // The first ones of all: one of them makes the repository.
    let done = join_all(names.map(|name| sign(&server, &keys, name, name))).await;
    let changes: Vec<_> = done.into_iter().map(|done| done.unwrap().change).collect();
    assert_eq!(changes.iter().filter(|change| **change == Change::Created).count(), 1);
    assert_eq!(server.client().list(GUN), names.map(|name| line(name, name, "targets")));
}

#[tokio::test]
async fn a_first_publication_that_comes_second_is_a_conflict() {
    let server = RealNotary::start().await;
    let session = session(&server.host(), &gun_of(GUN));
    let (keys, tag, digest) = (keys(), tag("v1"), digest("image one"));
    let publication = Publication { tag: &tag, digest, size: 9, keys: &keys, remembered: None };
    for expected in [Publishing::Done, Publishing::Conflict] {
        // Signed anew, as another server with the same keys does.
        let documents = create(&session, publication, now()).await.unwrap();
        assert_eq!(session.publish(&documents).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_at_any_point_does_no_harm() {
    let server = RealNotary::start().await;
    let keys = keys();
    let mut expected = Vec::new();
    for n in 0..24 {
        // Two connections are cut: in the handshake, before the publication, in its answer, after.
        let proxy = CuttingProxy::start_down(server.host(), 1000 + n * 250, 2).await;
        let name = format!("t{n:02}");
        let (digest, tag) = (digest(&name), &tag(&name));
        let publication = Publication { tag, digest, size: 3, keys: &keys, remembered: None };
        let session = session(&proxy.host(), &gun_of(GUN));
        let done = publish(&session, publication, now()).await.unwrap();
        assert_eq!(done.target.digest(), digest);
        expected.push(line(&name, &name, "targets"));
    }
    assert_eq!(server.client().list(GUN), expected);
    // Whatever was repeated was signed once.
    let Verdict::Signed(target) = judge(&server, "t23", &keys.pin()).await else { panic!() };
    assert_eq!(target.remembered().version(TrustRole::Targets), Some(24));
}

#[tokio::test]
async fn a_repository_of_somebody_else_is_not_signed() {
    let server = RealNotary::start().await;
    let owner = server.client();
    owner.create(GUN);
    owner.add(GUN, "theirs", &digest("theirs").to_hex(), 6, &[]);
    let result = sign(&server, &keys(), "ours", "ours").await;
    assert!(matches!(result, Err(PublishError::Stranded { .. })), "{result:?}");
    assert_eq!(server.client().list(GUN), [line("theirs", "theirs", "targets")]);
}

#[tokio::test]
async fn where_others_have_delegated_to_our_key_tags_go_there() {
    let server = RealNotary::start().await;
    let keys = keys();
    sign(&server, &keys, "v1", "image one").await.unwrap();
    let owner = server.client();
    let directory = tempfile::tempdir().unwrap();
    import_targets_key(&owner, &keys, directory.path());
    let file = directory.path().join("key.pub");
    std::fs::write(&file, targets_key(&keys).verifying_key().to_pem()).unwrap();
    let file = file.to_str().unwrap();
    let add = ["delegation", "add", GUN, "targets/releases", file, "--all-paths", "-p"];
    owner.run(&add).unwrap();
    for name in ["v2", "v3"] {
        let done = sign(&server, &keys, name, name).await.unwrap();
        assert_eq!((done.change, done.target.role()), (Change::Updated, TrustRole::Releases));
    }
    let expected = [
        line("v1", "image one", "targets"),
        line("v2", "v2", "targets/releases"),
        line("v3", "v3", "targets/releases"),
    ];
    assert_eq!(server.client().list(GUN), expected);
}

fn targets_key(keys: &NotaryKeys) -> TrustSigningKey {
    let record: Value = serde_json::from_slice(&keys.to_record()).unwrap();
    let der = STANDARD.decode(record["targets"].as_str().unwrap()).unwrap();
    TrustSigningKey::from_pkcs8_der(&der).unwrap()
}

/// Puts a key of ours into the hands of the real client.
fn import_targets_key(client: &NotaryClient, keys: &NotaryKeys, directory: &Path) {
    let body = STANDARD.encode(targets_key(keys).to_pkcs8_der());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    let file = directory.join("key.pem");
    std::fs::write(&file, pem).unwrap();
    let file = file.to_str().unwrap();
    client.run(&["key", "import", file, "--role", "targets", "--gun", GUN]).unwrap();
}

#[tokio::test]
async fn asks_for_tokens_as_the_real_server_wants_them() {
    let tokens =
        Double::start("127.0.0.1", |_| Reply::status(200).body("{\"token\":\"none\"}")).await;
    let server = RealNotary::start_with_tokens(&format!("https://{}/token", tokens.host())).await;
    let result = sign(&server, &keys(), "v1", "image one").await;
    // The token is none that the server believes.
    assert!(
        matches!(result, Err(PublishError::Registry(RegistryError::Unauthorized { .. }))),
        "{result:?}"
    );
    let double = tokens.seen();
    let asked = |actions: &str| {
        let scope = format!(
            "service=the+notary&scope=repository%3A127.0.0.1%3A5000%2Fteam%2Fapp%3A{actions}"
        );
        double.iter().any(|seen| seen.path.ends_with(&scope))
    };
    assert!(asked("pull"), "{double:?}");
    let wanted = server.challenge(&format!("/v2/{GUN}/_trust/tuf/timestamp.key")).await;
    // The server keeps them in a Go map, and the order is another each time.
    let either = ["push,pull", "pull,push"].map(|way| format!("scope=\"repository:{GUN}:{way}\""));
    assert!(either.iter().any(|scope| wanted.contains(scope)), "{wanted}");
    let wanted = server.challenge(&format!("/v2/{GUN}/_trust/tuf/root.json")).await;
    assert!(wanted.contains(&format!("scope=\"repository:{GUN}:pull\"")), "{wanted}");
}

#[tokio::test]
async fn the_real_client_refuses_another_key_and_another_repository() {
    let server = RealNotary::start().await;
    sign(&server, &keys(), "v1", "image one").await.unwrap();
    let client = server.client();
    assert_eq!(client.list(GUN), [line("v1", "image one", "targets")]);
    client.run(&["lookup", "127.0.0.1:5000/team/other", "v1"]).unwrap_err();

    // Somebody else's keys in the place of ours: whoever has seen ours does not follow.
    server.client().confirm(&["delete", GUN, "--remote"]).unwrap();
    sign(&server, &keys(), "v1", "image one").await.unwrap();
    let refusal = client.run(&["lookup", GUN, "v1"]).unwrap_err();
    assert!(refusal.contains("root"), "{refusal}");
    assert_eq!(server.client().list(GUN), [line("v1", "image one", "targets")]);
}

#[tokio::test]
async fn the_real_client_refuses_a_changed_byte() {
    let server = RealNotary::start().await;
    sign(&server, &keys(), "v1", "image one").await.unwrap();
    let mut documents = Vec::new();
    for role in ["root", "targets", "snapshot", "timestamp"] {
        documents.push((role, server.get(&format!("/v2/{GUN}/_trust/tuf/{role}.json")).await));
    }
    // The same documents from a server that changes one of them, or none.
    for changed in [None, Some("root"), Some("targets"), Some("snapshot"), Some("timestamp")] {
        let served: Vec<_> = documents
            .iter()
            .map(|(role, text)| {
                let text = if Some(*role) == changed { flip_signature(text) } else { text.clone() };
                (*role, text)
            })
            .collect();
        let double = Double::start("127.0.0.1", move |seen| {
            if seen.path == "/v2/" {
                return Reply::status(200);
            }
            // With a digest or a version in its name, or without.
            let name = seen.path.rsplit('/').next().unwrap_or_default();
            let found = served.iter().find(|(role, _)| name.contains(role));
            found.map_or_else(|| Reply::status(404), |(_, text)| Reply::status(200).body(&**text))
        })
        .await;
        let client = server.client_of(double.host());
        let looked_up = tokio::task::spawn_blocking(move || client.run(&["lookup", GUN, "v1"]));
        let looked_up = looked_up.await.unwrap();
        assert_eq!(looked_up.is_ok(), changed.is_none(), "{changed:?}: {looked_up:?}");
    }
}

/// Changes one bit of the first signature of a document.
fn flip_signature(document: &str) -> String {
    let parsed: Value = serde_json::from_str(document).unwrap();
    let text = parsed["signatures"][0]["sig"].as_str().unwrap();
    let mut signature = STANDARD.decode(text).unwrap();
    signature[9] ^= 1;
    let changed = document.replacen(text, &STANDARD.encode(signature), 1);
    assert_ne!(changed, document);
    changed
}
