//! The bytes of the original's client, and what it must get back.

use std::fs;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::random_bytes;
use sbs_tests::{Reply, World};
use serde_json::{Map, Value, json};

#[test]
fn a_fresh_server() -> Result<()> {
    let world = World::start()?;
    let api = world.api()?;
    let status = api.call("GET", "/image")?;
    assert_eq!((status.status, &*status.text()), (200, r#"{"status":""}"#));
    assert!(status.content_type.starts_with("application/json"), "{}", status.content_type);
    for (method, path, code) in [
        ("PUT", "/image", 409),
        ("GET", "/log/other", 404),
        ("GET", "/manifest", 404),
        ("GET", "/publickey", 404),
        ("GET", "/no/such/route", 404),
        ("POST", "/manifest", 405),
    ] {
        is_error_object(&api.call(method, path)?, code)?;
    }
    // Here the original's client survives only what is not JSON.
    for path in ["/imagedigest", "/config-json", "/config-python"] {
        is_error_text(&api.call("GET", path)?, 404);
    }
    let clean = api.call("DELETE", "/image")?;
    assert_eq!((clean.status, &*clean.text()), (200, r#"{"status":"OK"}"#));
    assert_eq!(api.call("GET", "/image")?.json()?["status"], "restarted cicd");
    Ok(())
}

#[test]
fn init_and_update_as_the_original_sends_them() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("ARG K\nRUN test \"$K\" = V"))])?;
    let api = world.api()?;
    let mut body = original_body(&world)?;
    let send = |method: &str, body: &Map<String, Value>| {
        api.send(method, "/image", &Value::Object(body.clone()).to_string())
    };
    is_error_object(&send("PATCH", &body)?, 409)?;

    for (key, value) in [
        ("GITHUB_RECURSE_SUBMODULES", json!("False")),
        ("DOCKER_CONTENT_TRUST_BASE", json!("false")),
        ("ARG", json!({ "K": "V" })),
        ("ENV_WHITELIST", json!(["A"])),
        ("ISV_SECRET", json!({ "a": "b" })),
        ("BUILD_SCRIPT", json!("")),
        ("MANIFEST_BUCKET_NAME", json!("")),
        ("SOMETHING_NEW", json!([1, null, { "deep": true }])),
        ("ICR_BASE_REPO_PUBLIC_KEY", json!("/a/path/of/the/client")),
    ] {
        body.insert(key.to_owned(), value);
    }
    for _twice_while_no_key_exists in 0..2 {
        is_ok(&send("POST", &body)?);
    }
    assert_eq!(api.status()?.build_image_tag, "1.0.0");
    for (key, value) in [
        ("NEW_SECRET", json!("1")),
        ("GITHUB_URL", json!("file:///etc")),
        ("GITHUB_URL", json!("ext::sh -c id")),
        ("GITHUB_BRANCH", json!("--upload-pack=id")),
        ("DOCKERFILE_PATH", json!("../../etc/passwd")),
        ("DOCKER_REPO", json!("UPPER/case")),
        ("SECRET", json!("short")),
        ("RUNTIME_TYPE", json!("moon")),
    ] {
        let mut bad = body.clone();
        bad.insert(key.to_owned(), value);
        is_error_object(&send("POST", &bad)?, 400)?;
    }
    is_ok(&send("PATCH", &body)?);

    let built = api.build()?;
    assert_eq!(built.manifest_public_key, format!("manifest.{}-public.pem", built.build_name));

    // Keys exist now: whoever does not know the secret does not take them over.
    let secret = |bytes: [u8; 128]| json!(STANDARD.encode(bytes));
    let mut other = body.clone();
    other.insert("SECRET".to_owned(), secret(random_bytes()));
    is_error_object(&send("POST", &other)?, 409)?;
    is_error_object(&send("PATCH", &other)?, 403)?;
    is_ok(&send("POST", &body)?);

    let new = secret(random_bytes());
    body.insert("NEW_SECRET".to_owned(), new.clone());
    is_ok(&send("PATCH", &body)?);
    body.remove("NEW_SECRET");
    is_error_object(&send("PATCH", &body)?, 403)?;
    body.insert("SECRET".to_owned(), new);
    is_ok(&send("PATCH", &body)?);
    Ok(())
}

#[test]
fn the_replies_of_a_build() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN sleep 1"))])?;
    world.sbs.ok(&["init"])?;
    let api = world.api()?;
    let started = api.call("PUT", "/image")?;
    let expected = r#"{"status":"OK: async build started"}"#;
    assert_eq!((started.status, &*started.text()), (200, expected));
    // A build runs: it is not disturbed by another that is asked for.
    is_error_object(&api.call("PUT", "/image")?, 409)?;
    let running = api.call("GET", "/image")?.text();
    let fixed = r#"{"build_image_tag":"1.0.0","build_name":"","image_tag":"","manifest_key_gen":"","manifest_public_key":"","status":""#;
    assert!(running.starts_with(fixed), "{running}");
    let status = api.wait_for_end()?;
    assert_eq!(status.status.as_str(), "success", "{}", api.log()?);

    let log = api.call("GET", "/log/build")?;
    let text = log.json()?["log"].as_str().context("log")?.to_owned();
    assert_eq!(log.json()?.as_object().map(Map::len), Some(1));
    for line in text.lines() {
        // 2026-01-02 03:00:00,000  root       INFO    starting a build
        let fixed = line.get(23..36);
        assert_eq!(fixed, Some("  root       "), "{line}");
    }
    let digest = api.call("GET", "/imagedigest")?;
    assert_eq!(digest.status, 201);
    let digest = digest.json()?;
    let digest = digest.as_str().context("a JSON string")?;
    let repository = format!("{}/{}@sha256:", world.parts.registry.host(), World::REPOSITORY);
    assert!(digest.starts_with(&repository), "{digest}");

    let name = &status.build_name;
    for body in ["\"\"", "{}", "", &*json!({ "BUILD_NAME": name }).to_string()] {
        let manifest = api.send("GET", "/manifest", body)?;
        assert_eq!(manifest.status, 200, "{body}: {}", manifest.text());
        assert_eq!(manifest.json()?["manifest_name"], format!("manifest.{name}"), "{body}");
        let key = api.send("GET", "/publickey", body)?;
        assert_eq!(key.json()?["build_name"], *name, "{body}");
        let pem = key.json()?["public_key_pem"].as_str().unwrap_or_default().to_owned();
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
    }
    for (body, code) in [
        (json!({ "BUILD_NAME": "no.such.build" }).to_string(), 404),
        (json!({ "BUILD_NAME": "../../etc/passwd" }).to_string(), 400),
        (json!({ "BUILD_NAME": 1 }).to_string(), 400),
        ("[1]".to_owned(), 400),
        ("{".to_owned(), 400),
    ] {
        is_error_object(&api.send("GET", "/manifest", &body)?, code)?;
        is_error_object(&api.send("GET", "/publickey", &body)?, code)?;
    }
    Ok(())
}

#[test]
fn a_body_that_is_too_large_is_refused() -> Result<()> {
    let world = World::start()?;
    let api = world.api()?;
    let large = json!({ "SECRET": "x".repeat(32 << 20) }).to_string();
    // The server may close before all is sent: either is a refusal, an answer with 200 is not.
    match api.send("POST", "/image", &large) {
        Ok(reply) => is_error_object(&reply, 413)?,
        Err(error) => assert!(error.to_string().contains("sending request"), "{error}"),
    }
    assert_eq!(api.call("GET", "/image")?.text(), r#"{"status":""}"#);
    Ok(())
}

/// Makes the body of `init` as the original's client does.
fn original_body(world: &World) -> Result<Map<String, Value>> {
    let mut body = world.sbs.config()?;
    for kept_here in ["HOSTNAME", "CICD_PORT", "UUID"] {
        body.remove(kept_here);
    }
    let tag = body.remove("IMAGE_TAG").context("IMAGE_TAG")?;
    body.insert("BUILD_IMAGE_TAG".to_owned(), tag);
    body.remove("GITHUB_KEY_FILE");
    let key = fs::read_to_string(world.parts.ssh.key_file())?;
    body.insert("GITHUB_KEY".to_owned(), json!(key));
    body.insert("BASE_REPO_PUBLIC_KEY".to_owned(), json!(""));
    Ok(body)
}

fn is_ok(reply: &Reply) {
    assert_eq!((reply.status, &*reply.text()), (200, r#"{"status":"OK"}"#));
}

/// Checks the form of errors that the original's client prints.
fn is_error_object(reply: &Reply, code: u16) -> Result<()> {
    assert_eq!(reply.status, code, "{}", reply.text());
    let value = reply.json()?;
    let object = value.as_object().with_context(|| format!("no object: {value}"))?;
    let status = object.get("status").and_then(Value::as_str).unwrap_or_default();
    assert!(!status.is_empty() && status != "OK", "{value}");
    Ok(())
}

fn is_error_text(reply: &Reply, code: u16) {
    assert_eq!(reply.status, code, "{}", reply.text());
    assert!(!reply.body.is_empty());
    assert!(
        reply.json().is_err(),
        "it is JSON where the original cannot read it: {}",
        reply.text()
    );
}
