//! The command line against a real server: what it prints, where, and its exit codes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sbs_tests::{World, outcome, wait_until};
use serde_json::Value;

#[test]
fn the_exit_code_tells_what_went_wrong() -> Result<()> {
    let mut world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    let run = |world: &World, arguments: &[&str], code: i32, hint: &str| {
        let told = world.sbs.run(arguments)?;
        assert_eq!(told.code, code, "{arguments:?}: {}", told.text());
        assert!(told.stderr.contains(hint), "{arguments:?}: {}", told.text());
        assert_eq!(told.stdout, "", "{arguments:?}");
        anyhow::Ok(())
    };
    run(&world, &["no-such-command"], 2, "no-such-command")?;
    run(&world, &["build", "--wait"], 1, "init")?;
    run(&world, &["get-manifest"], 1, "build")?;
    run(&world, &["get-publickey"], 1, "build")?;
    run(&world, &["get-digest"], 1, "build")?;
    run(&world, &["verify", "no-such-file.sig.tbz", "--key", "no-such-key"], 2, "no-such-")?;
    world.sbs.set("RUNTIME_TYPE", "moon")?;
    run(&world, &["status"], 2, "RUNTIME_TYPE")?;
    world.sbs.set("RUNTIME_TYPE", "vpc")?;
    world.server.terminate()?;
    run(&world, &["status"], 3, "cannot be reached")?;

    let mut command = world.sbs.command(&[])?;
    let told = outcome(command.args(["--env", "no-such-config.json", "status"]))?;
    assert_eq!(told.code, 2, "{}", told.text());
    Ok(())
}

#[test]
fn a_followed_log_shows_every_line_and_ends_with_the_build() -> Result<()> {
    let world = World::start()?;
    let step = "RUN for i in 1 2 3; do echo line-$((i * 111)); sleep 0.5; done";
    world.with_repository(&[("Dockerfile", &world.dockerfile(step))])?;
    world.sbs.ok(&["init"])?;
    let api = world.api()?;
    api.start_build()?;
    let followed = world.sbs.run(&["log", "--follow"])?;
    assert_eq!(followed.code, 0, "{}", followed.text());
    for line in ["line-111", "line-222", "line-333"] {
        let count =
            followed.stdout.lines().filter(|l| l.ends_with(&format!("run: {line}"))).count();
        assert_eq!(count, 1, "{line} in {}", followed.text());
    }
    assert_eq!(api.status()?.status.as_str(), "success");
    assert_eq!(world.sbs.ok(&["log"])?.trim_end(), api.log()?.trim_end());
    assert_eq!(followed.stdout.trim_end(), api.log()?.trim_end());
    Ok(())
}

#[test]
fn a_build_goes_on_when_the_one_who_waits_goes_away() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN sleep 2"))])?;
    world.sbs.ok(&["init"])?;
    let mut waiting = world.sbs.start(&["build", "--follow"])?;
    let api = world.api()?;
    wait_until("the fetched source", Duration::from_mins(1), || {
        Ok((api.status()?.status.as_str() == "github cloned").then_some(()))
    })?;
    waiting.kill();
    assert_eq!(api.wait_for_end()?.status.as_str(), "success", "{}", api.log()?);
    Ok(())
}

#[test]
fn results_are_on_the_standard_output_and_json_where_asked_for() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.sbs.ok(&["init"])?;
    let built = world.sbs.run(&["build", "--wait", "--quiet"])?;
    assert_eq!((built.code, &*built.stderr), (0, ""), "{}", built.text());
    for command in ["status", "log", "get-digest", "get-publickey"] {
        let printed = world.sbs.ok(&["--format", "json", command])?;
        for line in printed.lines() {
            let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            assert!(value.get("version").is_some(), "{command}: {line}");
        }
        assert!(!printed.is_empty(), "{command}");
    }
    Ok(())
}

#[test]
fn talkativeness_shows_no_secret() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    let config = world.sbs.config()?;
    let secret = config.get("SECRET").and_then(Value::as_str).context("SECRET")?;
    let key = std::fs::read_to_string(world.parts.ssh.key_file())?;
    let key = key.lines().nth(1).context("the key")?;
    for arguments in [["-vv", "init"], ["-vv", "update"], ["-vv", "status"], ["-vv", "build"]] {
        let told = world.sbs.run(&arguments)?;
        assert_eq!(told.code, 0, "{}", told.text());
        assert_eq!(world.parts.secrets.found_in(&told.text()), None, "{}", told.text());
        assert!(!told.text().contains(secret) && !told.text().contains(key), "{}", told.text());
    }
    Ok(())
}
