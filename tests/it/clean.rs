//! Clean ends a build with everything that it started, before it answers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use sbs_crypto::random_bytes;
use sbs_tests::{World, processes, push_base_image, wait_until};

#[test]
fn clean_ends_every_process_of_the_build_before_it_answers() -> Result<()> {
    let world = World::start()?;
    // Two processes, one of which has left its session: a number that nobody else sleeps for.
    let seconds = 1_000_000 + u64::from(u32::from_le_bytes(random_bytes::<4>()));
    let sleeping = world.dockerfile(&format!(
        "RUN echo it has begun; (trap '' TERM HUP; sleep {seconds} &) ; sleep {seconds}"
    ));
    let mut repository = world.with_repository(&[("Dockerfile", &sleeping)])?;
    world.sbs.ok(&["init"])?;
    let api = world.api()?;
    api.start_build()?;
    wait_until("two sleeping processes", Duration::from_mins(1), || {
        let found = processes::with_argument(&seconds.to_string())?;
        anyhow::ensure!(
            api.status()?.status.progress() == sbs_proto::Progress::Running,
            "the build ended: {}\n{}",
            api.status()?.status,
            api.log()?
        );
        Ok((found.len() >= 2).then_some(()))
    })?;

    world.sbs.ok(&["clean"])?;
    assert_eq!(processes::with_argument(&seconds.to_string())?, Vec::<String>::new());
    let data = world.server.data_directory();
    assert_eq!(processes::of_directory(&data)?, Vec::<String>::new());
    assert_eq!(api.status()?.status.as_str(), "restarted cicd");
    assert_eq!(api.log()?, "");

    repository.commit_files(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    api.build()?;
    Ok(())
}

#[test]
fn clean_ends_a_push_to_a_registry_that_hangs() -> Result<()> {
    let world = World::start()?;
    let open = world.parts.start_open_registry()?;
    let scratch = world.parts.path().join("open-base");
    fs::create_dir(&scratch)?;
    let base = push_base_image(&open, &scratch)?;
    world.with_repository(&[("Dockerfile", &format!("FROM {base}\nRUN true\n"))])?;
    world.sbs.ok(&["init"])?;
    let api = world.api()?;
    world.parts.registry.freeze()?;
    api.start_build()?;
    wait_until("the built image", Duration::from_mins(1), || {
        Ok((api.status()?.status.as_str() == "image built").then_some(()))
    })?;
    let start = Instant::now();
    world.sbs.ok(&["clean"])?;
    assert!(start.elapsed() < Duration::from_secs(20), "clean took {:?}", start.elapsed());
    assert_eq!(api.status()?.status.as_str(), "restarted cicd");
    world.parts.registry.thaw()?;
    api.build()?;
    Ok(())
}

#[test]
fn clean_without_a_build_is_no_fault() -> Result<()> {
    let world = World::start()?;
    world.sbs.ok(&["clean"])?;
    let api = world.api()?;
    assert_eq!(api.status()?.status.as_str(), "restarted cicd");
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.init_and_build()?;
    world.sbs.ok(&["clean"])?;
    assert_eq!(api.status()?.status.as_str(), "restarted cicd");
    // The evidence of what was built stays.
    assert!(!api.manifest()?.1.is_empty());
    Ok(())
}

#[test]
fn nothing_of_a_build_is_left_in_the_data_directory() -> Result<()> {
    let world = World::start()?;
    let secret = &world.parts.secrets.push.password;
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN true"))])?;
    world.init_and_build()?;
    let work = world.server.data_directory().join("work");
    let left = match fs::read_dir(&work) {
        Ok(entries) => entries.count(),
        Err(_) => 0,
    };
    assert_eq!(left, 0, "{} is not empty", work.display());
    // Neither a password nor the ssh key stands in clear in any file.
    let key = fs::read_to_string(world.parts.ssh.key_file())?;
    let line = key.lines().nth(1).unwrap_or_default();
    assert!(line.len() > 20);
    let mut files = 0;
    visit(&world.server.data_directory(), &mut |path, content| {
        files += 1;
        for needle in [secret.as_bytes(), line.as_bytes()] {
            let found = content.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{} holds a secret in clear", path.display());
        }
    })?;
    assert!(files > 3, "only {files} files were searched");
    Ok(())
}

/// Calls `check` with every file below `directory` that is no part of the engine's storage.
fn visit(directory: &Path, check: &mut impl FnMut(&Path, &[u8])) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            visit(&entry.path(), check)?;
        } else if kind.is_file() && entry.metadata()?.len() < 1 << 20 {
            check(&entry.path(), &fs::read(entry.path())?);
        }
    }
    Ok(())
}
