//! The registration definition of the classic runtime, judged by gpg and python.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_tests::{World, output, program};
use serde_json::{Value, json};

fn gpg(home: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = program("gpg");
    command.args(["--batch", "--quiet", "--homedir"]).arg(home).args(arguments);
    output(&mut command)
}

/// Makes a directory of the kind that gpg wants for its keys.
fn make_private(directory: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    Ok(fs::DirBuilder::new().mode(0o700).create(directory)?)
}

/// A world whose image is for the classic runtime, built once.
fn classic() -> Result<World> {
    let world = World::start()?;
    world.sbs.set("RUNTIME_TYPE", "classic")?;
    world.sbs.set("REPO_ID", "app")?;
    world.sbs.set("DOCKER_RO_USER", "reader")?;
    world.sbs.set("DOCKER_RO_PASSWORD", "it's \"quoted\" \\")?;
    world.sbs.set("ENV_WHITELIST", json!(["MODE", "REGION"]))?;
    world.sbs.set("ISV_SECRET", json!({ "TOKEN": "hidden from the server" }))?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    world.init_and_build()?;
    Ok(world)
}

#[test]
fn the_definition_opens_with_the_runtimes_key_and_is_signed_by_the_vendors() -> Result<()> {
    let world = classic()?;
    let home = world.parts.path().join("gnupg");
    make_private(&home)?;
    let make = ["--passphrase", "", "--quick-gen-key", "runtime", "default", "default", "never"];
    gpg(&home, &make)?;
    let runtime = world.sbs.directory().join("runtime.asc");
    fs::write(&runtime, gpg(&home, &["--armor", "--export", "runtime"])?)?;

    let arguments = ["get-config-json", "--recipient", "runtime.asc", "--isv-secrets"];
    let told = world.sbs.run(&arguments)?;
    assert_eq!((told.code, told.stdout.trim()), (0, "app.enc"), "{}", told.text());
    assert!(!told.text().contains("quoted") && !told.text().contains("hidden"), "{}", told.text());
    let file = world.sbs.directory().join("app.enc");
    let message = fs::read_to_string(&file)?;
    assert!(message.starts_with("-----BEGIN PGP MESSAGE-----\n"), "{message}");

    let file = file.to_string_lossy();
    let text = gpg(&home, &["--skip-verify", "--decrypt", &file])?;
    let definition: Value = serde_json::from_str(&text)?;
    assert_eq!(definition["docker_username"], "reader");
    assert_eq!(definition["docker_password"], "it's \"quoted\" \\");
    let host = world.parts.registry.host();
    assert_eq!(definition["repository_name"], format!("{host}/{}", World::REPOSITORY));
    assert_eq!(definition["cap_add"], json!(["ALL"]));
    let names = definition["envs_whitelist"].as_array().context("names")?;
    assert_eq!(names.len(), 12, "REGION stands there once: {names:?}");
    let secrets = &definition["secrets"];
    assert_eq!(secrets["mount_path"], "/isv_secrets/secrets.json");
    assert_eq!(secrets["secrets_list"], json!({ "TOKEN": "hidden from the server" }));
    let key = definition["public_key"].as_str().context("a key")?;
    assert!(STANDARD.decode(key)?.starts_with(b"-----BEGIN PGP PUBLIC KEY BLOCK-----"));

    // Signed by the vendor key that is in it, and by no other.
    let vendor = world.parts.path().join("vendor.asc");
    fs::write(&vendor, definition["vendor_key"].as_str().context("a vendor key")?)?;
    gpg(&home, &["--import", &vendor.to_string_lossy()])?;
    let status = gpg(&home, &["--status-fd", "1", "--decrypt", &file])?;
    assert!(status.contains("[GNUPG:] GOODSIG "), "{status}");
    assert!(status.contains(" secure-build"), "{status}");

    // Nobody else's key says so, and no byte of it can be changed.
    let stranger = world.parts.path().join("stranger");
    make_private(&stranger)?;
    let secret = ["--armor", "--export-secret-keys", "runtime"];
    fs::write(world.parts.path().join("runtime.key"), gpg(&home, &secret)?)?;
    let key = world.parts.path().join("runtime.key");
    gpg(&stranger, &["--import", &key.to_string_lossy()])?;
    let unknown = gpg(&stranger, &["--status-fd", "1", "--decrypt", &file]);
    assert!(!unknown.unwrap_or_default().contains("GOODSIG"), "the vendor is not known there");
    let changed = world.parts.path().join("changed.enc");
    let mut bytes = message.clone().into_bytes();
    let middle = bytes.len() / 2;
    // A letter of the base64, not the end of a line.
    let place =
        (middle..bytes.len()).find(|at| bytes[*at].is_ascii_alphanumeric()).context("a letter")?;
    bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
    fs::write(&changed, bytes)?;
    gpg(&home, &["--decrypt", &changed.to_string_lossy()]).unwrap_err();

    // The vendor key stays: whoever has registered it knows it again.
    world.sbs.ok(&arguments)?;
    let again: Value = serde_json::from_str(&gpg(&home, &["--decrypt", &file])?)?;
    assert_eq!(again["vendor_key"], definition["vendor_key"]);

    // Without a recipient it is for the classic runtime itself, which alone can open it.
    world.sbs.ok(&["get-config-json"])?;
    let packets = gpg(&home, &["--list-only", "--status-fd", "1", "--decrypt", &file])?;
    assert!(packets.contains("[GNUPG:] ENC_TO "), "{packets}");
    gpg(&home, &["--decrypt", &file]).unwrap_err();
    Ok(())
}

#[test]
fn python_reads_the_definition_in_clear() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let world = classic()?;
    world.sbs.ok(&["get-config-python"])?;
    let file = world.sbs.directory().join("app.py");
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600, "it holds a password");
    let mut python = program("python3");
    python.args([
        "-c",
        "import runpy,json,sys; print(json.dumps(runpy.run_path(sys.argv[1])['repository']))",
    ]);
    let read: Value = serde_json::from_str(&output(python.arg(&file))?)?;
    assert_eq!(read["docker_password"], "it's \"quoted\" \\");
    assert_eq!(read["envs_whitelist"], json!(["MODE", "REGION"]));
    Ok(())
}

#[test]
fn bad_input_for_a_definition_is_refused() -> Result<()> {
    let world = classic()?;
    let refused = |arguments: &[&str], reason: &str| -> Result<()> {
        let told = world.sbs.run(arguments)?;
        assert_eq!(told.code, 2, "{}", told.text());
        assert!(told.stderr.contains(reason), "{}", told.text());
        assert!(!world.sbs.directory().join("app.enc").exists());
        Ok(())
    };
    fs::write(world.sbs.directory().join("key.asc"), "no key")?;
    refused(&["get-config-json", "--recipient", "key.asc"], "give the certificate of the runtime")?;
    refused(&["get-config-json", "--vendor-key", "key.asc"], "has no passphrase")?;
    world.sbs.set("ISV_SECRET", json!({ "TOKEN": "" }))?;
    refused(&["get-config-json", "--isv-secrets"], "ISV_SECRET must have names")?;
    world.sbs.set("ISV_SECRET", Value::Null)?;
    refused(&["get-config-json", "--isv-secrets"], "needs ISV_SECRET")?;
    world.sbs.set("REPO_ID", "../app")?;
    refused(&["get-config-json"], "REPO_ID")?;
    world.sbs.set("REPO_ID", Value::Null)?;
    world.sbs.set("RUNTIME_TYPE", "vpc")?;
    refused(&["get-config-json"], "there is no registration definition for vpc")?;
    refused(&["get-config-python"], "there is no registration definition for vpc")
}
