//! No route signs with the keys of images and manifests what a caller chooses.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use sbs_crypto::openpgp::OpenPgpVerifier;
use sbs_crypto::{ImageVerifyingKey, ManifestVerifyingKey};
use sbs_proto::v2::{self, FileKind, Selector};
use sbs_proto::{DefinitionName, Digest, KeyRole, LogName, route};
use sbs_tests::judge;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{build, world_with_lookaside};

/// Every route, with every method that it has. What changes something comes last.
fn routes() -> Vec<(&'static str, String)> {
    let (name, latest) = (DefinitionName::default_name(), Selector::Latest);
    let get = [
        route::IMAGE,
        route::MANIFEST,
        route::PUBLIC_KEY,
        route::IMAGE_DIGEST,
        route::CONFIG_JSON,
        route::CONFIG_PYTHON,
        route::STATE_IMAGE,
        v2::INFO,
        v2::CERTIFICATES,
        v2::STATE,
    ];
    let mut routes: Vec<_> = get.map(|path| ("GET", path.to_owned())).into();
    routes.extend([
        ("GET", route::log(LogName::Build)),
        ("GET", route::csr("localhost")),
        ("GET", v2::builds(&name)),
        ("GET", v2::build(&name, &latest)),
        ("GET", v2::trust(&name)),
    ]);
    routes.extend(FileKind::ALL.map(|kind| ("GET", v2::file(&name, &latest, kind))));
    for (method, path) in [
        ("POST", route::IMAGE),
        ("PATCH", route::IMAGE),
        ("POST", route::CERTIFICATE),
        ("POST", route::STATE_IMAGE),
        ("POST", v2::CERTIFICATE_REQUEST),
        ("PUT", v2::SERVER_CERTIFICATE),
        ("POST", v2::STATE),
    ] {
        routes.push((method, path.to_owned()));
    }
    for method in ["POST", "DELETE"] {
        routes.extend(KeyRole::ALL.map(|role| (method, v2::rotation(&name, role))));
    }
    routes.extend(["PUT", "DELETE"].map(|method| (method, route::IMAGE.to_owned())));
    routes
}

#[test]
fn r7_no_route_signs_what_a_caller_chooses() -> Result<()> {
    let (world, lookaside) = world_with_lookaside()?;
    let (_, image) = build(&world)?;
    let chosen = b"{\"critical\":\"chosen by a caller\"}";
    let digest = sbs_crypto::digest(chosen);
    let body = json!({
        "BUILD_NAME": digest.to_string(), "certificate": String::from_utf8_lossy(chosen),
        "csr": STANDARD.encode(chosen), "digest": digest.to_string(), "hash": digest.to_hex(),
        "host": "localhost", "message": String::from_utf8_lossy(chosen),
        "payload": STANDARD.encode(chosen), "secret": STANDARD.encode([0; 128]),
    });
    let api = world.api()?;
    let trust = || -> Result<Value> { api.call("GET", "/v2/images/default/trust")?.json() };
    // The keys at the beginning and those at the end: between them, each is rotated once.
    let mut keys = Keys::default();
    keys.add(&trust()?)?;
    let mut replies = BTreeSet::new();
    for (method, path) in routes() {
        for path in [path.clone(), format!("{path}?digest={digest}")] {
            for body in [body.to_string(), String::from_utf8_lossy(chosen).into_owned()] {
                let reply = api.send(method, &path, &body)?;
                assert_ne!(reply.status, 405, "{method} {path}");
                replies.insert(reply.body);
            }
        }
    }
    keys.add(&trust()?)?;
    assert_eq!((keys.image.len(), keys.manifest.len(), keys.openpgp.len()), (4, 2, 2));
    let messages = [chosen.to_vec(), digest.to_hex().into_bytes(), digest.as_bytes().to_vec()];
    for reply in &replies {
        let found = signed(reply, &messages, &keys);
        assert_eq!(found, None, "{}", String::from_utf8_lossy(reply));
    }

    // The search finds what there is: the signature of the image, in the list of its signatures.
    let tag = image.rsplit(':').next().context("a tag")?;
    let (registry, repository) = (&world.parts.registry, sbs_tests::World::REPOSITORY);
    let (image, _) = registry.manifest(repository, tag)?.context("the image")?;
    let list = registry.manifest(repository, &judge::signature_tag(&image))?;
    let list = list.context("its signatures")?.1;
    let payload = list["layers"][0]["digest"].as_str().context("a payload")?;
    let payload = registry.blob(repository, &Digest::parse(payload)?)?;
    assert_ne!(signed(list.to_string().as_bytes(), &[payload], &keys), None);

    // And the OpenPGP message, in lines of a JSON string.
    let directory = lookaside.join(format!("{repository}@sha256={}", image.to_hex()));
    let message = fs::read(directory.join("signature-1"))?;
    let payload = keys.openpgp.iter().find_map(|key| key.verify_message(&message).ok());
    let payload = payload.context("a message")?.payload().to_vec();
    let lines = STANDARD.encode(&message);
    let lines: Vec<_> = lines.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let armored = format!(
        "-----BEGIN PGP MESSAGE-----\n\n{}\n=abcd\n-----END PGP MESSAGE-----\n",
        lines.join("\n")
    );
    let told = json!({ "a": [{ "b": armored }] }).to_string();
    assert_ne!(signed(told.as_bytes(), std::slice::from_ref(&payload), &keys), None);
    assert_eq!(signed(told.as_bytes(), &messages, &keys), None);

    // And the signature at its end, apart from what it signs.
    let mut ends = (1..message.len()).filter_map(|at| message.get(at..));
    let apart = ends.find(|end| keys.signed(end, &payload)).context("a signature apart")?;
    assert!(messages.iter().all(|message| !keys.signed(apart, message)));
    Ok(())
}

/// The keys that nobody is to make sign.
#[derive(Default)]
struct Keys {
    /// Those of attestations, too.
    image: Vec<ImageVerifyingKey>,
    manifest: Vec<ManifestVerifyingKey>,
    openpgp: Vec<OpenPgpVerifier>,
}

impl Keys {
    /// Adds the keys of a trust bundle.
    fn add(&mut self, trust: &Value) -> Result<()> {
        let texts = |role: &str, form: &str| -> Result<Vec<String>> {
            let keys = trust[role].as_array().context("keys")?;
            let text = |key: &Value| key[form].as_str().map(ToOwned::to_owned);
            keys.iter().map(|key| text(key).context("a key")).collect()
        };
        for role in ["image_keys", "attestation_keys"] {
            for pem in texts(role, "pem")? {
                self.image.push(ImageVerifyingKey::from_pem(&pem)?);
            }
        }
        for pem in texts("manifest_keys", "pem")? {
            self.manifest.push(ManifestVerifyingKey::from_pem(&pem)?);
        }
        for armored in texts("openpgp_keys", "armored")? {
            let now = OffsetDateTime::now_utc();
            self.openpgp.push(OpenPgpVerifier::parse(armored.as_bytes(), now)?);
        }
        Ok(())
    }

    /// Tells whether this is a signature of the message by any of the keys.
    fn signed(&self, signature: &[u8], message: &[u8]) -> bool {
        self.image.iter().any(|key| key.verify(message, signature).is_ok())
            || self.manifest.iter().any(|key| key.verify(message, signature).is_ok())
            || self.openpgp.iter().any(|key| {
                let is = |bytes: &[u8]| {
                    key.verify_message(bytes).is_ok_and(|signed| signed.payload() == message)
                };
                is(signature) || completed(signature, message, key).iter().any(|bytes| is(bytes))
            })
    }
}

/// Makes messages of an OpenPGP signature that stands apart, one for each hash that it may have: a
/// one-pass signature, the content, the signature (RFC 9580, 5.4, 5.9 and 10.3).
fn completed(signature: &[u8], content: &[u8], key: &OpenPgpVerifier) -> Vec<Vec<u8>> {
    if !matches!(signature.first(), Some(0x88 | 0x89 | 0xc2)) {
        return Vec::new();
    }
    let fingerprints = key.certificates().into_iter();
    let key_ids =
        fingerprints.filter_map(|key| hex::decode(key.as_str()).ok()?.last_chunk().copied());
    let body = [b"b\0\0\0\0\0", content].concat();
    let length = u32::try_from(body.len()).expect("a short content").to_be_bytes();
    let messages = key_ids.flat_map(|key_id: [u8; 8]| {
        // SHA-256 and SHA-512; RSA.
        [8, 10].map(|hash| {
            let one_pass = [&[0xc4, 13, 3, 0, hash, 1][..], &key_id, &[1]].concat();
            [&one_pass[..], &[0xcb, 0xff], &length, &body, signature].concat()
        })
    });
    messages.collect()
}

/// Looks for a signature of any of these messages by any of these keys in an answer.
fn signed(answer: &[u8], messages: &[Vec<u8>], keys: &Keys) -> Option<String> {
    let mut texts = vec![String::from_utf8_lossy(answer).into_owned()];
    if let Ok(value) = serde_json::from_slice(answer) {
        add_strings(&value, &mut texts);
    }
    texts.iter().flat_map(|text| candidates(text)).find(|candidate| {
        let forms = [
            STANDARD.decode(candidate).ok(),
            URL_SAFE.decode(candidate).ok(),
            hex::decode(candidate).ok(),
        ];
        forms.iter().flatten().any(|form| messages.iter().any(|message| keys.signed(form, message)))
    })
}

/// Adds every string in a JSON value, as it is without escapes.
fn add_strings(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| add_strings(value, texts)),
        Value::Object(members) => members.values().for_each(|value| add_strings(value, texts)),
        Value::String(text) => texts.push(text.clone()),
        _ => {}
    }
}

/// Returns the words of a text that could be signatures, also those that are broken into lines.
fn candidates(text: &str) -> BTreeSet<String> {
    // Behind the lines of an OpenPGP message stands a checksum.
    let joined = text.replace("-----", " ").replace("\n=", " ").replace(['\r', '\n'], "");
    let word = |c: char| c.is_ascii_alphanumeric() || "+/=-_".contains(c);
    let words = text.split(|c| !word(c)).chain(joined.split(|c| !word(c)));
    words.filter(|word| (64..2000).contains(&word.len())).map(ToOwned::to_owned).collect()
}
