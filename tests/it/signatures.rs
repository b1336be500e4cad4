//! What the server signs, judged by the tools that relying parties use; and base images that must be
//! signed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_tests::{
    Docker, Notary, Outcome, Parts, Registry, Repository, World, judge, outcome, output, program,
};
use serde_json::Value;

mod routes;

/// A world whose server writes OpenPGP signatures into a directory that is also their lookaside.
fn world_with_lookaside() -> Result<(World, PathBuf)> {
    let parts = Parts::start()?;
    let lookaside = parts.path().join("lookaside");
    fs::create_dir(&lookaside)?;
    let settings = World::settings(&parts, "network = \"none\"\n")?;
    let settings = settings.replace(
        "[registry]\n",
        &format!(
            "[signing]\nlookaside-directory = \"{0}\"\nlookaside-url = \"file://{0}\"\n\
             [registry]\nlookaside = {{ \"{1}\" = \"{0}\" }}\n",
            lookaside.display(),
            parts.registry.host()
        ),
    );
    Ok((World::start_on(parts, settings)?, lookaside))
}

/// A world, and a notary that its server trusts as it trusts the registry.
fn world_with_notary() -> Result<(World, Notary)> {
    let parts = Parts::start()?;
    let notary = Notary::start(&parts.authority, &parts.path().join("notary"))?;
    let settings = World::settings(&parts, "network = \"none\"\n")?;
    Ok((World::start_on(parts, settings)?, notary))
}

/// Copies an image as skopeo does under a policy of a trust bundle.
fn skopeo(world: &World, bundle: &Path, image: &str) -> Result<Outcome> {
    let registry = &world.parts.registry;
    let target = tempfile::tempdir()?;
    let mut command = program("skopeo");
    command.arg("--policy").arg(bundle.join("policy.json"));
    command.arg("--registries.d").arg(bundle.join("registries.d")).arg("copy");
    command.arg("--authfile").arg(registry.authfile());
    command.arg("--src-cert-dir").arg(registry.certificate_directory());
    command.arg(format!("docker://{image}"));
    command.arg(format!("dir:{}", target.path().display()));
    // It keeps a cache.
    command.env("HOME", target.path());
    outcome(&mut command)
}

fn refused(outcome: &Outcome, reason: &str) -> Result<()> {
    ensure!(outcome.code != 0 && outcome.text().contains(reason), "{}", outcome.text());
    Ok(())
}

/// Builds a first commit; returns its repository and the reference of the image with its tag.
fn build(world: &World) -> Result<(Repository, String)> {
    let repository = world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=one"))])?;
    world.init_and_build()?;
    Ok((repository, tagged(world)?))
}

/// Builds another commit; returns the reference of the image with its tag.
fn build_again(world: &World, repository: &mut Repository, label: &str) -> Result<String> {
    let dockerfile = world.dockerfile(&format!("LABEL a={label}"));
    repository.commit_files(&[("Dockerfile", &dockerfile)])?;
    world.sbs.ok(&["build", "--wait"])?;
    tagged(world)
}

fn tagged(world: &World) -> Result<String> {
    let status = world.api()?.status()?;
    Ok(format!("{}/{}:{}", world.parts.registry.host(), World::REPOSITORY, status.image_tag))
}

#[test]
fn skopeo_takes_what_the_trust_bundle_says_and_nothing_else() -> Result<()> {
    let (world, lookaside) = world_with_lookaside()?;
    let (_, image) = build(&world)?;
    let digest = judge::skopeo_digest(
        &world.parts.registry,
        World::REPOSITORY,
        image.rsplit(':').next().context("a tag")?,
    )?;
    world.sbs.ok(&["get-trust", "--output", "trust"])?;
    let bundle = world.sbs.directory().join("trust");
    let good = skopeo(&world, &bundle, &image)?;
    assert_eq!(good.code, 0, "{}", good.text());
    let repository = format!("{}/{}", world.parts.registry.host(), World::REPOSITORY);
    let by_digest = skopeo(&world, &bundle, &format!("{repository}@{digest}"))?;
    assert_eq!(by_digest.code, 0, "{}", by_digest.text());

    let checked = verify_image(&world, &image)?;
    assert_eq!(checked.code, 0, "{}", checked.text());
    let line = |form: &str| checked.stdout.lines().find(|line| line.starts_with(form));
    assert!(line("simple signing").context("a line")?.contains("valid"), "{}", checked.text());

    // What is not signed: an image of others, and this one under another tag.
    let base = skopeo(&world, &bundle, &world.parts.base)?;
    refused(&base, "rejected")?;
    retag(&world, &image, &format!("{repository}:other"))?;
    refused(&skopeo(&world, &bundle, &format!("{repository}:other"))?, "is not accepted")?;

    // The key of another server.
    let (other, _) = world_with_lookaside()?;
    build(&other)?;
    other.sbs.ok(&["get-trust", "--output", "trust"])?;
    let strange = other.sbs.directory().join("trust");
    let policy = fs::read_to_string(strange.join("policy.json"))?;
    let policy = policy.replace(&other.parts.registry.host(), &world.parts.registry.host());
    fs::write(strange.join("policy.json"), policy)?;
    fs::copy(bundle.join("registries.d/sbs.yaml"), strange.join("registries.d/sbs.yaml"))?;
    refused(&skopeo(&world, &strange, &image)?, "rejected")?;

    // A flipped byte.
    let signature = lookaside.join(format!("{}@sha256={}", World::REPOSITORY, digest.to_hex()));
    let signature = signature.join("signature-1");
    let mut bytes = fs::read(&signature)?;
    let last = bytes.last_mut().context("a byte")?;
    *last ^= 1;
    fs::write(&signature, bytes)?;
    refused(&skopeo(&world, &bundle, &image)?, "rejected")?;
    let checked = verify_image(&world, &image)?;
    assert_eq!(checked.code, 4, "{}", checked.text());
    Ok(())
}

/// Checks an image by our own command, with the trust bundle in the directory `trust`.
fn verify_image(world: &World, image: &str) -> Result<Outcome> {
    let registry = &world.parts.registry;
    fs::write(world.sbs.directory().join("ca.pem"), registry.authority())?;
    let authfile = registry.authfile().display().to_string();
    let arguments = ["verify-image", "--trust", "trust/trust.json", "--ca-file", "ca.pem"];
    world.sbs.run(&[&arguments[..], &["--authfile", &*authfile, image]].concat())
}

/// Copies an image to another tag, without any policy.
fn retag(world: &World, from: &str, to: &str) -> Result<()> {
    let registry = &world.parts.registry;
    let mut command = program("skopeo");
    command.args(["--insecure-policy", "copy"]);
    command.arg("--authfile").arg(registry.authfile());
    command.arg("--src-cert-dir").arg(registry.certificate_directory());
    command.arg("--dest-cert-dir").arg(registry.certificate_directory());
    command.arg(format!("docker://{from}")).arg(format!("docker://{to}"));
    command.env("HOME", world.parts.path());
    output(&mut command).map(drop)
}

#[test]
fn the_saved_key_is_the_one_that_contracts_take() -> Result<()> {
    let (world, _) = world_with_lookaside()?;
    build(&world)?;
    world.sbs.ok(&["get-trust", "--output", "trust"])?;
    let saved = world.sbs.ok(&["get-signed-image-publickey"])?;
    let text = fs::read_to_string(world.sbs.directory().join(saved.trim()))?;
    let host = world.parts.registry.host();
    assert_eq!(saved.trim(), format!("{host}-team-app-public.key"));
    assert!(!text.contains('\n'), "no line break, as in the original's file");
    let armored = String::from_utf8(STANDARD.decode(text)?)?;
    let bundle = world.sbs.directory().join("trust");
    assert_eq!(armored, fs::read_to_string(bundle.join("openpgp.asc"))?);
    let shown = output(
        program("gpg")
            .args(["--homedir"])
            .arg(world.parts.path())
            .args(["--show-keys", "--with-colons"])
            .arg(bundle.join("openpgp.asc")),
    )?;
    let trust: Value = serde_json::from_str(&fs::read_to_string(bundle.join("trust.json"))?)?;
    let fingerprint = trust["openpgp_keys"][0]["fingerprint"].as_str().context("a fingerprint")?;
    assert!(shown.contains(&format!("fpr:::::::::{fingerprint}:")), "{shown}");
    Ok(())
}

#[test]
fn a_key_that_is_rotated_signs_until_it_is_retired() -> Result<()> {
    let (world, _) = world_with_lookaside()?;
    let (mut repository, _) = build(&world)?;
    world.sbs.ok(&["get-trust", "--output", "old"])?;
    let old = world.sbs.directory().join("old");
    let old_key = fs::read_to_string(old.join("image.pub"))?;
    for role in ["image", "openpgp"] {
        let told = world.sbs.ok(&["rotate-key", role])?;
        assert!(told.contains(" (retiring)"), "{told}");
        let again = world.sbs.run(&["rotate-key", role])?;
        assert_eq!(again.code, 1, "{}", again.text());
    }

    // Whoever has the old keys accepts what is built during the rotation; so does who has the new.
    let image = build_again(&world, &mut repository, "two")?;
    let tag = image.rsplit(':').next().context("a tag")?;
    world.sbs.ok(&["get-trust", "--output", "both"])?;
    let both = world.sbs.directory().join("both");
    let new_key = fs::read_to_string(both.join("image.pub"))?;
    assert_ne!(old_key, new_key);
    assert_eq!(old_key, fs::read_to_string(both.join("image.retiring.pub"))?);
    for key in [&old_key, &new_key] {
        judge::openssl_image(&world.parts.registry, tag, key)?;
    }
    for bundle in [&old, &both] {
        let taken = skopeo(&world, bundle, &image)?;
        assert_eq!(taken.code, 0, "{}", taken.text());
    }

    for role in ["image", "openpgp"] {
        world.sbs.ok(&["rotate-key", role, "--retire"])?;
    }
    // The log says who did it.
    let certificate = world.sbs.certificate_file("client-cert.pem")?;
    let certificate = sbs_crypto::pki::describe(&certificate)?.sha256.to_string();
    let log = world.server.log_text();
    for (done, count) in [("a signing key was rotated", 2), ("a signing key was retired", 2)] {
        let lines = log.lines().filter(|line| line.contains(done) && line.contains(&certificate));
        assert_eq!(lines.count(), count, "{log}");
    }
    let image = build_again(&world, &mut repository, "three")?;
    let tag = image.rsplit(':').next().context("a tag")?;
    judge::openssl_image(&world.parts.registry, tag, &new_key)?;
    judge::openssl_image(&world.parts.registry, tag, &old_key).unwrap_err();
    refused(&skopeo(&world, &old, &image)?, "rejected")?;
    let taken = skopeo(&world, &both, &image)?;
    assert_eq!(taken.code, 0, "{}", taken.text());
    Ok(())
}

#[test]
fn docker_with_content_trust_pulls_what_is_announced() -> Result<()> {
    let (world, notary) = world_with_notary()?;
    world.sbs.set("DOCKER_CONTENT_TRUST_PUSH_SERVER", notary.url())?;
    let (mut repository, first) = build(&world)?;
    let second = build_again(&world, &mut repository, "two")?;
    let gun = first.rsplit_once(':').context("a tag")?.0.to_owned();

    let listed = notary.client("reader", &["list", &gun])?;
    let registry = &world.parts.registry;
    for image in [&first, &second] {
        let tag = image.rsplit(':').next().context("a tag")?;
        let digest = judge::skopeo_digest(registry, World::REPOSITORY, tag)?.to_hex();
        let line = listed.lines().find(|line| line.starts_with(tag)).context("the tag")?;
        assert!(line.contains(&digest), "{listed}");
    }

    let directory = world.parts.path().join("docker");
    let push = world.parts.secrets.push.clone();
    let docker = Docker::start(&directory, &world.parts.authority, registry, &push, &notary)?;
    let inspected = docker.trust_inspect(&gun)?;
    world.sbs.ok(&["get-trust", "--output", "trust"])?;
    let trust = fs::read_to_string(world.sbs.directory().join("trust/trust.json"))?;
    let trust: Value = serde_json::from_str(&trust)?;
    let keys = inspected[0]["AdministrativeKeys"].as_array().context("keys")?;
    let root = keys.iter().find(|key| key["Name"] == "Root").context("the root key")?;
    assert_eq!(root["Keys"][0]["ID"], trust["notary"]["root_key_id"]);
    assert_eq!(inspected[0]["SignedTags"].as_array().map(Vec::len), Some(2));
    let pulled = docker.run(&["pull", &second])?;
    assert_eq!(pulled.code, 0, "{}", pulled.text());

    // A tag that is moved behind the notary's back is not what docker pulls.
    let digest = pulled.stdout.lines().find_map(|line| line.strip_prefix("Digest: "));
    let digest = digest.context("a digest")?.to_owned();
    retag(&world, &first, &second)?;
    let pulled = docker.run(&["pull", &second])?;
    assert!(pulled.stdout.contains(&digest), "{}", pulled.text());
    retag(&world, &first, &format!("{gun}:unsigned"))?;
    refused(&docker.run(&["pull", &format!("{gun}:unsigned")])?, "trust data")?;

    let checked = verify_image(&world, &second)?;
    assert_eq!(checked.code, 4, "the tag was moved: {}", checked.text());
    let checked = verify_image(&world, &first)?;
    assert_eq!(checked.code, 0, "{}", checked.text());
    let line = checked.stdout.lines().find(|line| line.starts_with("notary"));
    assert!(line.context("a line")?.contains("valid"), "{}", checked.text());

    // Another repository has no trust data; other keys in the place of ours are not followed.
    let other = second.replacen("/team/app:", "/team/other:", 1);
    retag(&world, &first, &other)?;
    refused(&docker.run(&["pull", &other])?, "trust data")?;
    notary.client("stranger", &["delete", &gun, "--remote"])?;
    let (digest, size) = served(registry, &first)?;
    let tag = first.rsplit(':').next().context("a tag")?;
    notary.sign("stranger", &gun, tag, (&digest, size))?;
    refused(&docker.run(&["pull", &first])?, "root")?;
    let checked = verify_image(&world, &first)?;
    assert_eq!(checked.code, 4, "{}", checked.text());

    // The key for contracts is the root certificate.
    let saved = world.sbs.ok(&["get-signed-image-publickey"])?;
    let text = fs::read_to_string(world.sbs.directory().join(saved.trim()))?;
    let certificate = String::from_utf8(STANDARD.decode(text)?)?;
    assert_eq!(Some(certificate.as_str()), trust["notary"]["root_certificate"].as_str());
    Ok(())
}

#[test]
fn a_server_that_lost_its_state_cannot_sign_at_the_notary() -> Result<()> {
    let (mut world, notary) = world_with_notary()?;
    world.sbs.set("DOCKER_CONTENT_TRUST_PUSH_SERVER", notary.url())?;
    build(&world)?;

    world.start_server_anew()?;
    world.sbs.ok(&["init"])?;
    let failed = world.sbs.run(&["build", "--wait"])?;
    assert_eq!(failed.code, 1, "{}", failed.text());
    let log = world.api()?.log()?;
    assert!(log.contains("import the state image"), "{log}");
    Ok(())
}

#[test]
fn a_base_image_that_nobody_signed_stops_the_build() -> Result<()> {
    let (world, notary) = world_with_notary()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    world.sbs.set("DOCKER_CONTENT_TRUST_BASE", "True")?;
    world.sbs.set("DOCKER_CONTENT_TRUST_BASE_SERVER", notary.url())?;
    world.sbs.ok(&["init"])?;
    let failed = world.sbs.run(&["build", "--wait"])?;
    assert_eq!(failed.code, 1, "{}", failed.text());
    let (status, log) = (world.api()?.status()?.status.to_string(), world.api()?.log()?);
    assert!(status.contains("docker trust inspect"), "{status}");
    let base = &world.parts.base;
    assert!(log.contains(&format!("cannot get the base image `{base}`")), "{log}");
    assert!(log.contains("has no trust data for it"), "{log}");
    assert!(log.contains("set DOCKER_CONTENT_TRUST_BASE to \"False\""), "{log}");

    let (gun, tag) = base.rsplit_once(':').context("a tag")?;
    let (digest, size) = served(&world.parts.registry, base)?;
    notary.sign("owner", gun, tag, (&digest, size))?;
    world.sbs.ok(&["build", "--wait"])?;
    world.sbs.ok(&["get-manifest"])?;
    let manifest = judge::python_manifest(&world.sbs.file(".sig.tbz")?)?;
    let signature = &manifest.record["bases"][0]["signature"];
    assert_eq!(signature["kind"], "notary");
    assert!(manifest.log.contains("is believed at first use"), "{}", manifest.log);
    Ok(())
}

/// Returns the hex digest and the size of what a tag points to.
fn served(registry: &Registry, image: &str) -> Result<(String, u64)> {
    let mut command = program("skopeo");
    command.arg("inspect").arg("--raw").arg("--authfile").arg(registry.authfile());
    command.arg("--cert-dir").arg(registry.certificate_directory());
    command.arg(format!("docker://{image}")).env("HOME", "/nonexistent");
    let raw = output(&mut command)?;
    Ok((sbs_crypto::digest(raw.as_bytes()).to_hex(), raw.len() as u64))
}
