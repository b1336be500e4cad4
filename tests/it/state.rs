//! The state leaves a server as one sealed file, and comes back on another: the recipes of the
//! original's guide, and what is refused.

use std::fs;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::digest;
use sbs_tests::{Api, Reply, World, judge};
use serde_json::{Value, json};

#[test]
fn a_server_that_was_lost_is_recovered_from_a_file() -> Result<()> {
    let mut world = World::start()?;
    let mut repository =
        world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    let api = world.api()?;
    refused(&api.call("GET", "/state-image")?, 404, "nothing_to_export")?;
    let old = world.init_and_build()?;
    let image_key = image_key_of_last(&world)?;
    let (name, bytes) = api.manifest()?;
    let manifest = world.parts.path().join(format!("{name}.sig.tbz"));
    fs::write(&manifest, bytes)?;
    let (public_key, image) = (api.public_key()?, api.image_digest()?);

    let exported = api.call("GET", "/state-image")?;
    assert_eq!((exported.status, &*exported.content_type), (200, "application/json"));
    let exported = exported.json()?;
    assert_eq!(exported["name"], *old.build_name);
    assert_eq!(exported["export_tag"], "sbs-seal-1");
    let state = exported["state"].as_str().context("a state")?;
    a_second_reader_opens_it(&world, &STANDARD.decode(state)?)?;
    refused(&import(&api, &world.secret()?, state)?, 409, "state_not_empty")?;

    world.start_server_anew()?;
    let api = world.api()?;
    let imported = import(&api, &world.secret()?, state)?;
    assert_eq!((imported.status, &*imported.text()), (200, "{\"status\":\"OK\"}"));
    let status = api.status()?;
    assert_eq!((status.status.as_str(), &*status.build_name), ("", ""));
    // What the server of before has built is still known.
    let selector = json!({ "BUILD_NAME": old.build_name }).to_string();
    for body in ["\"\"", &selector] {
        let reply = api.send("GET", "/publickey", body)?.json()?;
        assert_eq!(
            (&reply["public_key_pem"], &reply["build_name"]),
            (&json!(public_key), &json!(old.build_name))
        );
        refused(&api.send("GET", "/manifest", body)?, 404, "not_found")?;
    }
    assert_eq!(api.image_digest()?, image);
    judge::openssl_manifest(&manifest, &public_key)?;

    repository.commit_files(&[("Dockerfile", &world.dockerfile("LABEL a=c"))])?;
    let new = world.update_and_build()?;
    assert_ne!(new.image_tag, old.image_tag);
    // One key signs the images of both.
    for tag in [&old.image_tag, &new.image_tag] {
        judge::openssl_image(&world.parts.registry, tag, &image_key)?;
    }
    assert_eq!(image_key_of_last(&world)?, image_key);
    let builds = api.call("GET", "/v2/images/default/builds")?.json()?;
    let ids: Vec<_> = builds["builds"].as_array().into_iter().flatten().map(|b| &b["id"]).collect();
    assert_eq!(ids, ["00000002", "00000001"]);
    Ok(())
}

#[test]
fn the_file_itself_goes_over_v2_and_so_does_a_new_secret() -> Result<()> {
    let mut world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    world.init_and_build()?;
    let api = world.api()?;
    let features = api.call("GET", "/v2/info")?.json()?;
    assert!(features["features"].as_array().is_some_and(|all| all.contains(&json!("state"))));
    let old = api.call("GET", "/v2/state")?;
    assert_eq!((old.status, &*old.content_type), (200, "application/vnd.sbs.state"));

    let (secret, new_secret) = (world.secret()?, STANDARD.encode([9; 128]));
    let mut definition = world.sbs.config()?;
    definition.insert("RUNTIME_TYPE".to_owned(), json!("vpc"));
    let key = fs::read_to_string(world.parts.ssh.key_file())?;
    definition.insert("GITHUB_KEY".to_owned(), json!(key));
    definition.insert("NEW_SECRET".to_owned(), json!(new_secret));
    let rotate = |api: &Api, secret: &str| {
        let mut definition = definition.clone();
        definition.insert("SECRET".to_owned(), json!(secret));
        api.send("PATCH", "/image", &Value::Object(definition).to_string())
    };
    refused(&rotate(&api, &STANDARD.encode([8; 128]))?, 403, "wrong_secret")?;
    assert_eq!(rotate(&api, &secret)?.text(), "{\"status\":\"OK\"}");
    // The answer was lost: the same again says no, and with the new one as SECRET says yes.
    refused(&rotate(&api, &secret)?, 403, "wrong_secret")?;
    assert_eq!(rotate(&api, &new_secret)?.text(), "{\"status\":\"OK\"}");
    let new = api.call("GET", "/v2/state")?;

    world.start_server_anew()?;
    let api = world.api()?;
    refused(&post_form(&api, &form(&new_secret, None, &old.body))?, 403, "wrong_secret_or_header")?;
    refused(&post_form(&api, &form(&new_secret, Some("9"), &new.body))?, 409, "rollback")?;
    let imported = post_form(&api, &form(&new_secret, Some("3"), &new.body))?;
    // Keys made it 1, each new secret one more, and the import again one.
    assert_eq!(imported.json()?, json!({ "definition": true, "epoch": 4, "status": "OK" }));
    api.build()?;
    let again = api.call("GET", "/v2/state")?;
    assert_ne!(digest(&again.body), digest(&new.body));
    Ok(())
}

#[test]
fn s14_s21_what_is_no_import_is_refused_and_many_wrong_secrets_are_too() -> Result<()> {
    let world = World::start()?;
    let api = world.api()?;
    let secret = STANDARD.encode([7; 128]);
    let short = [127, 129].map(|length| STANDARD.encode(vec![7; length]));
    let odd = [
        short[0].clone(),
        short[1].clone(),
        String::new(),
        secret.replace('/', "_"),
        format!("{secret} "),
    ];
    for odd in &odd[..3] {
        refused(&import(&api, odd, "U0JT")?, 400, "invalid_request")?;
        refused(&post_form(&api, &form(odd, None, b"x"))?, 400, "invalid_request")?;
    }
    refused(&import(&api, &odd[4], "U0JT")?, 400, "invalid_request")?;
    for body in [
        json!({ "secret": secret }),
        json!({ "secret": secret, "state": 7 }),
        json!({ "secret": secret, "state": "not base64!" }),
        json!({ "state": "U0JT" }),
        json!({ "secret": secret, "name": "../x", "state_bucket_name": "bucket" }),
        json!({ "secret": secret, "state": "U0JT", "state_bucket_name": "bucket" }),
        json!([]),
    ] {
        refused(&api.send("POST", "/state-image", &body.to_string())?, 400, "invalid_request")?;
    }
    let state = part("state", b"x");
    let secret_part = part("secret", secret.as_bytes());
    for parts in [
        vec![],
        vec![&*state, &*secret_part],
        vec![&*secret_part],
        vec![&*secret_part, &*state, &*state],
        vec![&*secret_part, &*part("min_epoch", b"-1"), &*state],
        vec![&*secret_part, &*part("min_epoch", b""), &*state],
        vec![&*secret_part, &*part("x", b"1"), &*state],
    ] {
        let body = [&parts.concat()[..], format!("--{BOUNDARY}--\r\n").as_bytes()].concat();
        refused(&post_form(&api, &body)?, 400, "invalid_request")?;
    }
    refused(&post_form(&api, &form(&secret, None, b"x")[..300])?, 400, "invalid_request")?;
    refused(&api.send_bytes("/v2/state", "text/plain", b"x")?, 400, "invalid_request")?;
    refused(&api.call("PATCH", "/v2/state")?, 405, "method_not_allowed")?;
    let bucket = json!({ "secret": secret, "name": "x", "state_bucket_name": "bucket" });
    refused(&api.send("POST", "/state-image", &bucket.to_string())?, 409, "no_state_storage")?;
    for (state, code) in [(&b"x"[..], "bad_magic"), (b"SBS-SEAL\0\x02", "truncated")] {
        refused(&post_form(&api, &form(&secret, None, state))?, 422, code)?;
        refused(&import(&api, &secret, &STANDARD.encode(state))?, 422, code)?;
    }
    refused(&post_form(&api, &form(&secret, None, b""))?, 422, "truncated")?;
    // One byte more than a state image can have, in both forms.
    let large = vec![0; 11 * 1024 * 1024 + 1];
    refused(&post_form(&api, &form(&secret, None, &large))?, 413, "too_large")?;

    // A server that is initialised knows its secret, and whether this is another one.
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    world.sbs.ok(&["init"])?;
    for _ in 0..10 {
        refused(&import(&api, &secret, "U0JT")?, 403, "wrong_secret_or_header")?;
    }
    refused(&import(&api, &world.secret()?, "U0JT")?, 429, "too_many_attempts")?;
    let update = world.sbs.run(&["update"])?;
    assert!(update.code != 0 && update.text().contains("try again in"), "{}", update.text());
    Ok(())
}

/// Imports by v1, as the original's client does.
fn import(api: &Api, secret: &str, state: &str) -> Result<Reply> {
    let body = json!({ "secret": secret, "state": state });
    api.send("POST", "/state-image", &body.to_string())
}

/// Makes the form that v2 takes.
fn form(secret: &str, min_epoch: Option<&str>, state: &[u8]) -> Vec<u8> {
    let min_epoch = min_epoch.map(|text| part("min_epoch", text.as_bytes())).unwrap_or_default();
    let end = format!("--{BOUNDARY}--\r\n");
    [&part("secret", secret.as_bytes())[..], &min_epoch, &part("state", state), end.as_bytes()]
        .concat()
}

fn part(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn post_form(api: &Api, body: &[u8]) -> Result<Reply> {
    api.send_bytes("/v2/state", &format!("multipart/form-data; boundary={BOUNDARY}"), body)
}

fn refused(reply: &Reply, status: u16, code: &str) -> Result<()> {
    assert_eq!(
        (reply.status, reply.json()?.get("code")),
        (status, Some(&json!(code))),
        "{}",
        reply.text()
    );
    Ok(())
}

/// Has the reader in Python find the records, with the credentials in one of them.
fn a_second_reader_opens_it(world: &World, state: &[u8]) -> Result<()> {
    let file = world.parts.path().join("state");
    fs::write(&file, state)?;
    let secret = STANDARD.decode(world.secret()?)?;
    let told = judge::python_state(&file, &world.server.root_secret()?, &secret)?;
    for name in ["instance.json", "definition.json", "keys.json", "builds.json"] {
        assert!(told.contains(name), "{name}");
    }
    let mut wrong = secret;
    wrong.reverse();
    let opened = judge::python_state(&file, &world.server.root_secret()?, &wrong);
    assert!(
        opened.expect_err("another secret opens it").to_string().contains("refused: commitment")
    );
    assert_eq!(world.parts.secrets.found_in(&String::from_utf8_lossy(state)), None);
    Ok(())
}

/// Returns the key that signs images, from the manifest of the last build.
pub(crate) fn image_key_of_last(world: &World) -> Result<String> {
    let (name, bytes) = world.api()?.manifest()?;
    let file = world.parts.path().join(format!("{name}.sig.tbz"));
    fs::write(&file, bytes)?;
    Ok(judge::python_manifest(&file)?.image_key()?.to_owned())
}

const BOUNDARY: &str = "a-boundary-of-the-tests";
