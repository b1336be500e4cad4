//! What relying parties get, and what they can tell by it of the images in the registry.

use std::fs;

use anyhow::{Context as _, Result};
use sbs_tests::{World, output, program};
use serde_json::Value;

#[test]
fn r7_an_image_that_is_released_verifies_and_one_under_its_tag_does_not() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    let tag = world.init_and_build()?.image_tag;
    world.sbs.ok(&["get-trust", "--output", "trust"])?;
    let registry = &world.parts.registry;
    let repository = format!("{}/{}", registry.host(), World::REPOSITORY);
    let image = format!("{repository}:{tag}");
    let (digest, _) = registry.manifest(World::REPOSITORY, &tag)?.context("the image")?;
    fs::write(world.sbs.directory().join("ca.pem"), registry.authority())?;
    let authfile = registry.authfile().display().to_string();
    let verify = |image: &str, more: &[&str]| {
        let mut arguments = vec!["verify-image", "--trust", "trust/trust.json", image];
        arguments.extend(["--ca-file", "ca.pem", "--authfile", &*authfile]);
        world.sbs.run(&[more, &arguments].concat())
    };

    let good = verify(&image, &[])?;
    assert_eq!(good.code, 0, "{}", good.text());
    for line in ["cosign tag      valid: current key", "cosign bundle   valid: current key"] {
        assert!(good.stdout.contains(line), "{}", good.text());
    }
    let pinned = format!("{repository}@{digest}");
    assert!(good.stdout.contains(&format!("pull            {pinned}\n")), "{}", good.text());
    let json: Value = serde_json::from_str(&verify(&image, &["--format", "json"])?.stdout)?;
    assert_eq!((&json["verdict"], &json["pull"]), (&"good".into(), &pinned.clone().into()));
    let by_digest = verify(&pinned, &[])?;
    assert_eq!(by_digest.code, 0, "{}", by_digest.text());

    // The signature holds for this name and for these bytes.
    copy(&world, &format!("{}:{tag}", World::REPOSITORY), &format!("{}:other", World::REPOSITORY))?;
    let other_tag = verify(&format!("{repository}:other"), &[])?;
    assert_eq!(other_tag.code, 4, "{}", other_tag.text());
    copy(&world, "base/busybox:1", &format!("{}:{tag}", World::REPOSITORY))?;
    let replaced = verify(&image, &[])?;
    assert_eq!(replaced.code, 4, "{}", replaced.text());
    assert!(!replaced.stdout.contains("pull"), "{}", replaced.text());
    // What was released stays so under its digest.
    let by_digest = verify(&pinned, &[])?;
    assert_eq!(by_digest.code, 0, "{}", by_digest.text());
    let base = verify(&world.parts.base, &[])?;
    assert_eq!(base.code, 2, "the bundle is for another repository: {}", base.text());
    assert_eq!(world.parts.secrets.found_in(&verify(&image, &["-vv"])?.text()), None);
    Ok(())
}

#[test]
fn a_registry_that_is_down_is_not_an_unsigned_image() -> Result<()> {
    let mut world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    let tag = world.init_and_build()?.image_tag;
    world.sbs.ok(&["get-trust", "--output", "trust"])?;
    let image = format!("{}/{}:{tag}", world.parts.registry.host(), World::REPOSITORY);
    world.parts.registry.stop();
    let told = world.sbs.run(&["verify-image", "--trust", "trust/trust.json", &image])?;
    assert_eq!((told.code, &*told.stdout), (3, ""), "{}", told.text());
    Ok(())
}

/// Copies an image inside the registry, as somebody who may write there.
fn copy(world: &World, from: &str, to: &str) -> Result<()> {
    let registry = &world.parts.registry;
    let mut skopeo = program("skopeo");
    skopeo.args(["copy", "--insecure-policy", "--authfile"]).arg(registry.authfile());
    for side in ["--src-cert-dir", "--dest-cert-dir"] {
        skopeo.arg(side).arg(registry.certificate_directory());
    }
    let url = |name: &str| format!("docker://{}/{name}", registry.host());
    output(skopeo.args([url(from), url(to)]))?;
    Ok(())
}
