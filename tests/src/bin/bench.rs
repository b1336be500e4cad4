//! What a build on the server costs, as a ratio to the same work done by hand with git and buildah.
//! `cargo xtask bench` runs it.
//!
//! Both sides clone the same repository over ssh, build the same Dockerfile on a base image that
//! is there already, without a cache of layers, and push to the same registry. They take turns, so
//! that what else the machine does meets both. Only the ratio means something.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sbs_tests::{Account, Api, Repository, World, judge, output, program};
use serde_json::Value;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _written = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    say("build                      by hand   server    ratio   more   target\n")?;
    for (name, step, rounds, target) in [
        ("the smallest image", "RUN true", 5, "1.5 s more at most"),
        ("a build of 10 seconds", "RUN sleep 10", 3, "ratio 1.10 at most"),
    ] {
        let world = World::start()?;
        let repository = world.with_repository(&[
            ("Dockerfile", &world.dockerfile(&format!("COPY f /f\n{step}"))),
            ("f", "content\n"),
        ])?;
        world.sbs.ok(&["init"])?;
        let (by_hand, server) = measure(&world, &repository, rounds)?;
        let ratio = server.as_secs_f64() / by_hand.as_secs_f64();
        let more = server.as_secs_f64() - by_hand.as_secs_f64();
        say(&format!(
            "{name:<25} {:>6.2} s {:>6.2} s {ratio:>8.2} {more:>5.2} s   {target}\n",
            by_hand.as_secs_f64(),
            server.as_secs_f64()
        ))?;
    }
    Ok(())
}

/// Returns the medians of the two sides, after one round that does not count.
fn measure(world: &World, repository: &Repository, rounds: usize) -> Result<(Duration, Duration)> {
    let api = world.api()?;
    api.build()?;
    let hand = ByHand::new(world, repository, &api)?;
    hand.build()?;
    let (mut by_hand, mut server) = (Vec::new(), Vec::new());
    for _round in 0..rounds {
        by_hand.push(timed(|| hand.build())?);
        server.push(timed(|| api.build().map(drop))?);
    }
    Ok((median(by_hand)?, median(server)?))
}

/// The same work with git and buildah, with the isolation and the storage that the server uses.
struct ByHand<'a> {
    directory: PathBuf,
    isolation: Vec<&'static str>,
    repository: &'a Repository,
    storage: String,
    world: &'a World,
}

impl<'a> ByHand<'a> {
    fn new(world: &'a World, repository: &'a Repository, api: &Api) -> Result<Self> {
        let directory = world.parts.path().join("by-hand");
        fs::create_dir(&directory)?;
        let (name, bytes) = api.manifest()?;
        let file = directory.join(format!("{name}.sig.tbz"));
        fs::write(&file, bytes)?;
        let engine = judge::python_manifest(&file)?.record;
        let text = |key: &str| {
            engine
                .pointer(&format!("/engine/{key}"))
                .and_then(Value::as_str)
                .map(str::to_owned)
                .with_context(|| format!("no {key}"))
        };
        let isolation = match text("isolation")? {
            oci if oci.contains("crun") => vec!["--isolation", "oci", "--runtime", "crun"],
            oci if oci.contains("runc") => vec!["--isolation", "oci", "--runtime", "runc"],
            _ => vec!["--isolation", "chroot"],
        };
        let accounts =
            [(&world.parts.secrets.push, "push.json"), (&world.parts.secrets.base, "base.json")];
        for (Account { password, user }, name) in accounts {
            let auth = format!("{user}:{password}");
            let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, auth);
            let host = world.parts.registry.host();
            let auths: Value = serde_json::json!({ "auths": { host: { "auth": auth } } });
            fs::write(directory.join(name), auths.to_string())?;
        }
        fs::write(directory.join("known_hosts"), world.parts.ssh.known_hosts()?)?;
        Ok(Self { directory, isolation, repository, storage: text("storage_driver")?, world })
    }

    fn build(&self) -> Result<()> {
        let tree = self.directory.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        let ssh = format!(
            "ssh -F none -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={}",
            self.world.parts.ssh.key_file().display(),
            self.directory.join("known_hosts").display()
        );
        let mut git = program("git");
        git.env("GIT_SSH_COMMAND", ssh).args(["clone", "--quiet", "--depth", "1"]);
        output(git.arg(self.world.parts.ssh.url(self.repository)).arg(&tree))?;

        let mut bud = self.buildah("bud", "base.json");
        bud.args(&self.isolation).args(["--network", "none", "--tag", "localhost/by-hand"]);
        output(bud.arg(&tree))?;
        let target = format!("docker://{}/team/by-hand:1", self.world.parts.registry.host());
        output(self.buildah("push", "push.json").args(["localhost/by-hand", &target]))?;
        Ok(())
    }

    fn buildah(&self, verb: &str, authfile: &str) -> Command {
        let mut buildah = program("buildah");
        // The machine's own settings and images stay out of it.
        buildah.env("HOME", &self.directory).env("XDG_RUNTIME_DIR", &self.directory);
        buildah.arg("--root").arg(self.directory.join("storage"));
        buildah.arg("--runroot").arg(self.directory.join("run"));
        buildah.args(["--storage-driver", &self.storage, verb, "--quiet"]);
        buildah.arg("--authfile").arg(self.directory.join(authfile));
        buildah.arg("--cert-dir").arg(self.world.parts.registry.certificate_directory());
        buildah
    }
}

fn timed(run: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort();
    times.get(times.len() / 2).copied().context("nothing was measured")
}

fn say(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}
