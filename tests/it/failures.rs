//! A build that fails says so in the original's form, with the reason in its log and no credential
//! anywhere, and the next build works.

use std::fs;

use anyhow::{Context as _, Result};
use sbs_tests::{World, push_base_image};
use serde_json::{Value, json};

#[test]
fn a_failing_step_of_the_dockerfile() -> Result<()> {
    let world = World::start()?;
    let dockerfile = world.dockerfile("RUN echo the reason is here >&2; exit 3");
    let mut repository = world.with_repository(&[("Dockerfile", &dockerfile)])?;
    world.sbs.ok(&["init"])?;
    fails(&world, "the reason is here")?;
    repository.commit_files(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.api()?.build()?;
    Ok(())
}

#[test]
fn a_dockerfile_that_is_not_there() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Containerfile", &world.dockerfile("RUN true"))])?;
    world.sbs.ok(&["init"])?;
    fails(&world, "Dockerfile")?;
    world.sbs.set("DOCKERFILE_PATH", "Containerfile")?;
    world.update_and_build()?;
    Ok(())
}

#[test]
fn a_wrong_git_key() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.sbs.set("GITHUB_KEY_FILE", json!(world.parts.ssh.other_key_file()))?;
    world.sbs.ok(&["init"])?;
    let log = fails(&world, "Permission denied")?;
    let key = fs::read_to_string(world.parts.ssh.other_key_file())?;
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!log.contains(line), "the log holds a part of the key");
    }
    world.sbs.set("GITHUB_KEY_FILE", json!(world.parts.ssh.key_file()))?;
    world.update_and_build()?;
    Ok(())
}

#[test]
fn a_git_host_with_another_key() -> Result<()> {
    let parts = sbs_tests::Parts::start()?;
    let settings = World::settings(&parts, "network = \"none\"\n")?;
    let pins = parts.path().join("known_hosts");
    let right = fs::read_to_string(&pins)?;
    fs::write(&pins, parts.ssh.wrong_known_hosts()?)?;
    let mut world = World::start_on(parts, settings)?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.sbs.ok(&["init"])?;
    fails(&world, "ost key verification failed")?;
    fs::write(&pins, right)?;
    world.server.terminate()?;
    world.start_server_again()?;
    world.api()?.build()?;
    Ok(())
}

#[test]
fn a_wrong_git_password() -> Result<()> {
    let world = World::start()?;
    let https = world.parts.start_https_git()?;
    let mut repository = https.repository("app")?;
    repository.commit_files(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.sbs.set("GITHUB_KEY_FILE", Value::Null)?;
    let wrong = "canary-wrong-git-password";
    world.sbs.set("GITHUB_URL", https.url_with(&repository, wrong))?;
    world.sbs.ok(&["init"])?;
    let log = fails(&world, "it refused the credentials")?;
    assert!(!log.contains(wrong) && !world.server.log_text().contains(wrong), "{log}");
    world.sbs.set("GITHUB_URL", https.url_with_password(&repository))?;
    world.update_and_build()?;
    Ok(())
}

#[test]
fn a_repository_that_is_not_there() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    let right = world.sbs.config()?.get("GITHUB_URL").cloned().context("GITHUB_URL")?;
    world.sbs.set("GITHUB_URL", world.parts.ssh.missing_url())?;
    world.sbs.ok(&["init"])?;
    fails(&world, "not appear to be a git repository")?;
    world.sbs.set("GITHUB_URL", right)?;
    world.update_and_build()?;
    Ok(())
}

#[test]
fn a_missing_branch() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.sbs.set("GITHUB_BRANCH", "no-such-branch")?;
    world.sbs.ok(&["init"])?;
    fails(&world, "no-such-branch")?;
    world.sbs.set("GITHUB_BRANCH", "main")?;
    world.update_and_build()?;
    Ok(())
}

#[test]
fn a_wrong_password_for_the_push() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    let wrong = "canary-wrong-push-password";
    world.sbs.set("DOCKER_PASSWORD", wrong)?;
    world.sbs.ok(&["init"])?;
    let log = fails(&world, "refused the user name or password")?;
    assert!(!log.contains(wrong) && !world.server.log_text().contains(wrong), "{log}");
    assert!(world.parts.registry.tags(World::REPOSITORY)?.is_empty());
    world.sbs.set("DOCKER_PASSWORD", &*world.parts.secrets.push.password)?;
    world.update_and_build()?;
    Ok(())
}

#[test]
fn a_wrong_password_for_the_base_image() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    let wrong = "canary-wrong-base-password";
    world.sbs.set("DOCKER_BASE_PASSWORD", wrong)?;
    world.sbs.ok(&["init"])?;
    let log = fails(&world, "refused the user name or password")?;
    assert!(!log.contains(wrong) && !world.server.log_text().contains(wrong), "{log}");
    world.sbs.set("DOCKER_BASE_PASSWORD", &*world.parts.secrets.base.password)?;
    world.update_and_build()?;
    Ok(())
}

#[test]
fn a_base_image_that_is_not_there() -> Result<()> {
    let world = World::start()?;
    let missing = format!("FROM {}/base/nothing:9\n", world.parts.registry.host());
    let mut repository = world.with_repository(&[("Dockerfile", &missing)])?;
    world.sbs.ok(&["init"])?;
    fails(&world, "base/nothing:9")?;
    repository.commit_files(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.api()?.build()?;
    Ok(())
}

#[test]
fn a_registry_that_is_down_for_the_base() -> Result<()> {
    let mut world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.sbs.ok(&["init"])?;
    world.parts.registry.stop();
    fails(&world, "onnection refused")?;
    world.parts.registry.start_again()?;
    world.api()?.build()?;
    Ok(())
}

#[test]
fn a_registry_that_is_down_for_the_push() -> Result<()> {
    let mut world = World::start()?;
    let open = world.parts.start_open_registry()?;
    let scratch = world.parts.path().join("open-base");
    fs::create_dir(&scratch)?;
    let base = push_base_image(&open, &scratch)?;
    let dockerfile = format!("FROM {base}\nRUN true\n");
    world.with_repository(&[("Dockerfile", &dockerfile)])?;
    world.sbs.ok(&["init"])?;
    world.parts.registry.stop();
    fails(&world, "onnection refused")?;
    world.parts.registry.start_again()?;
    world.api()?.build()?;
    Ok(())
}

#[test]
fn a_step_that_runs_too_long() -> Result<()> {
    let world = World::start_with("network = \"none\"\ntime-limit-seconds = 5\n")?;
    let dockerfile = world.dockerfile("RUN while true; do echo busy; sleep 1; done");
    let mut repository = world.with_repository(&[("Dockerfile", &dockerfile)])?;
    world.sbs.ok(&["init"])?;
    fails(&world, "5 seconds")?;
    repository.commit_files(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.api()?.build()?;
    Ok(())
}

/// Builds by `sbs build --wait`, which must fail as it should. Returns the log.
fn fails(world: &World, reason: &str) -> Result<String> {
    let waited = world.sbs.run(&["build", "--wait"])?;
    let api = world.api()?;
    let status = api.status()?.status.to_string();
    let log = api.log()?;
    assert_eq!(waited.code, 1, "{}\n{status}\n{log}", waited.text());
    let told = status.strip_prefix("exiting due to a non-zero return value: ");
    let (code, command) =
        told.and_then(|told| told.split_once(", cmd: ")).context(status.clone())?;
    assert_ne!(code.parse::<i32>()?, 0, "{status}");
    assert!(!command.trim().is_empty(), "{status}");
    assert!(log.contains(reason), "the log does not hold `{reason}`; {status}\n{log}");
    let directory = world.parts.path().to_string_lossy();
    assert!(!status.contains(&format!("{directory}/server")), "a path of the server: {status}");
    for text in [&status, &log, &waited.text(), &world.server.log_text()] {
        assert_eq!(world.parts.secrets.found_in(text), None, "a password shows in:\n{text}");
    }
    Ok(log)
}
