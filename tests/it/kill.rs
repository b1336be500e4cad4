//! A server that is killed in any step of a build starts again by itself, says that the build was
//! interrupted, has left no tag on an unsigned image, and builds again.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sbs_crypto::random_bytes;
use sbs_proto::Progress;
use sbs_tests::{Api, World, judge, processes, program, wait_until};

#[test]
fn in_fetch() -> Result<()> {
    killed("cleaned up", |_world, api| Ok(api.status()?.status.as_str() == "cleaned up"))
}

#[test]
fn in_build() -> Result<()> {
    killed("github cloned", |_world, api| Ok(api.log()?.contains("begun-42")))
}

#[test]
fn in_publish() -> Result<()> {
    killed("image built", |world, _api| {
        let log = world.parts.registry.log_text();
        Ok(log.contains(&format!("/v2/{}/blobs/", World::REPOSITORY)))
    })
}

#[test]
fn in_sign() -> Result<()> {
    killed("image built", |world, _api| Ok(has_put(world, "sha256:")))
}

#[test]
fn in_read_back() -> Result<()> {
    killed("image built", |world, _api| Ok(has_put(world, "sha256-")))
}

#[test]
fn in_tag() -> Result<()> {
    killed("image built", |world, _api| Ok(has_put(world, "v1-")))
}

#[test]
fn in_record() -> Result<()> {
    killed("image pushed", |_world, api| Ok(api.status()?.status.as_str() == "image pushed"))
}

/// Builds, kills the server as soon as `now` says so, and checks what must hold afterwards.
///
/// `after` is the step that is the last one done then. The steps between `image built` and `image
/// pushed` are short: the server may be past them when it is killed.
fn killed(after: &str, now: impl Fn(&World, &Api) -> Result<bool>) -> Result<()> {
    let mut world = World::start()?;
    let dockerfile = world.dockerfile("COPY f /f\nRUN echo begun-$((40 + 2)); sleep 1");
    // Something to pack, so that the last step takes a moment, too.
    let ballast: String = (0..500).map(|_| hex::encode(random_bytes::<4096>())).collect();
    let mut repository = world.with_repository(&[
        ("Dockerfile", &dockerfile),
        (".dockerignore", "ballast\n"),
        ("ballast", &ballast),
        ("f", "0"),
    ])?;
    world.sbs.ok(&["init"])?;
    let api = world.api()?;
    api.start_build()?;
    wait_until(&format!("a moment after `{after}`"), Duration::from_mins(2), || {
        if now(&world, &api)? {
            return Ok(Some(()));
        }
        let status = api.status()?.status;
        let running = status.progress() == Progress::Running;
        ensure!(running, "the build ended too early: `{status}`\n{}", api.log()?);
        Ok(None)
    })?;
    world.server.kill();

    let data = world.server.data_directory();
    wait_until("the end of every process of the build", Duration::from_secs(10), || {
        Ok(processes::of_directory(&data)?.is_empty().then_some(()))
    })?;
    let tags_then = tags_with_a_signature(&world)?;
    if ["cleaned up", "github cloned"].contains(&after) {
        assert_eq!(tags_then, Vec::<String>::new());
    }

    world.start_server_again()?;
    let api = world.api()?;
    let status = api.status()?.status;
    assert_eq!(status.progress(), Progress::Failed, "{status}");
    let told = "cmd: the server stopped during the build, after `";
    let step = status.as_str().split_once(told).context(status.to_string())?.1;
    let past = after == "image built" && step.starts_with("image pushed");
    assert!(step.starts_with(after) || past, "{status}, not after `{after}`");
    let log = api.log()?;
    assert!(log.contains("the build was interrupted"), "{log}");
    let work = data.join("work");
    let left = fs::read_dir(&work).map(Iterator::count).unwrap_or_default();
    assert_eq!(left, 0, "{} is not empty", work.display());

    // Another commit, so that what the killed build left stays as it is.
    repository.commit_files(&[("f", "1")])?;
    let tag = api.build()?.image_tag;
    let (name, bytes) = api.manifest()?;
    let file = world.parts.path().join(format!("{name}.sig.tbz"));
    fs::write(&file, bytes)?;
    judge::openssl_manifest(&file, &api.public_key()?)?;
    let manifest = judge::python_manifest(&file)?;
    let tags = judge::every_tag_is_signed(&world.parts.registry, manifest.image_key()?)?;
    assert!(tags.contains(&tag), "{tags:?}");
    assert!(tags_then.iter().all(|tag| tags.contains(tag)), "{tags_then:?} {tags:?}");
    Ok(())
}

/// Returns the tags of images; one whose image has no signature is an error.
fn tags_with_a_signature(world: &World) -> Result<Vec<String>> {
    let registry = &world.parts.registry;
    let tags = judge::image_tags(registry)?;
    for tag in &tags {
        let image = registry.manifest(World::REPOSITORY, tag)?;
        let (digest, _manifest) = image.context("a tag without an image")?;
        let signature = registry.manifest(World::REPOSITORY, &judge::signature_tag(&digest))?;
        ensure!(signature.is_some(), "the tag {tag} points to an unsigned image");
    }
    Ok(tags)
}

/// Tells whether an image manifest was put under a reference that begins with `start`.
fn has_put(world: &World, start: &str) -> bool {
    let request = format!("\"PUT /v2/{}/manifests/{start}", World::REPOSITORY);
    world.parts.registry.log_text().contains(&request)
}

#[test]
fn a_second_server_does_not_start_on_the_same_data() -> Result<()> {
    let world = World::start()?;
    let mut server = program(sbs_tests::built("sbs-server")?);
    server.args(["run", "--config"]).arg(world.parts.path().join("server/server.toml"));
    server.envs(world.sbs.make_certificates()?);
    let told = sbs_tests::outcome(&mut server)?;
    assert_ne!(told.code, 0);
    assert!(told.stderr.contains("another"), "{}", told.text());
    assert_eq!(world.api()?.status()?.status.as_str(), "");
    Ok(())
}
