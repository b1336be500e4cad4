//! What a manifest costs, beside programs that do the same: whole processes, timed by hyperfine in
//! one run. `cargo xtask bench manifests`.
//!
//! The trees are made of the sources of the crates that this project is built with, which every
//! machine that builds it has. Only the ratios mean something, and where the machine does other work,
//! those of the CPU time more than those of the clock.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{cargo, program, root, run_command, say, setup};

/// Which trees are measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sizes {
    All,
    /// The small one, to see whether everything works.
    Small,
}

pub(crate) fn manifests(sizes: Sizes) -> Result<()> {
    setup::run()?;
    let build = ["build", "--release", "--package=sbs-manifest", "--features=cli"];
    cargo(&[&build[..], &["--bins", "--example=speed"]].concat())?;
    say(
        "                                                    wall        CPU   ours to it: wall  CPU",
    );
    let trees = [("5 MB", 5_000_000, "10"), ("200 MB", 200_000_000, "3")];
    let count = if sizes == Sizes::Small { 1 } else { trees.len() };
    for (size, bytes, runs) in trees.into_iter().take(count) {
        let tree = Tree::prepare(size, bytes)?;
        tree.compare(
            runs,
            &[
                ("pack and hash", tree.speed("pack tree")),
                ("  tar | lbzip2 | tee | openssl dgst", BY_HAND.to_owned()),
                ("  the original's way, in Python", script("original_pack.py tree")?),
            ],
        )?;
        tree.compare(
            runs,
            &[
                ("verify the signature", tree.speed("verify")),
                ("  the original's way, in Python", script("original_verify.py m")?),
            ],
        )?;
        tree.compare(
            runs,
            &[
                ("verify, and check everything", tree.speed("check")),
                ("  lbzip2 -dc of the inner archive", "lbzip2 -n2 -dc m.tbz".to_owned()),
            ],
        )?;
        if size == "5 MB" {
            tree.compare(
                "50",
                &[
                    ("a signature of a digest, alone", format!("{} signature m", tree.speed)),
                    ("  openssl dgst -sha256 -verify", SIGNATURE.to_owned()),
                ],
            )?;
            tree.compare("50", &[("the smallest manifest, by the program", smallest()?)])?;
        }
    }
    Ok(())
}

/// A tree of source and its manifest, `m`, in a directory of their own.
struct Tree {
    directory: PathBuf,
    size: &'static str,
    speed: String,
}

impl Tree {
    /// Makes the tree and its manifest, unless they are there.
    fn prepare(size: &'static str, bytes: u64) -> Result<Self> {
        let target = target()?;
        let directory = target.join("bench").join(size.replace(' ', "-"));
        let speed = target.join("release/examples/speed").display().to_string();
        let tree = Self { directory, size, speed };
        if !tree.directory.join("m.signature").exists() {
            grow(&tree.directory.join("tree"), bytes)?;
            let make = format!(
                "{} && tar -xf m.sig.tbz --transform 's/.*[.]/m./' && \
                 openssl dgst -sha256 -binary m.tbz > m.digest && xxd -r -p m.sig > m.signature",
                tree.speed("make tree")
            );
            run_command(program("sh").current_dir(&tree.directory).args(["-c", &make]))?;
        }
        Ok(tree)
    }

    fn speed(&self, words: &str) -> String {
        format!("{} {words} m 2", self.speed)
    }

    /// Times the commands in one run; prints each, with the ratio of the first to it.
    fn compare(&self, runs: &str, commands: &[(&str, String)]) -> Result<()> {
        let report = self.directory.join("hyperfine.json");
        let mut hyperfine = program("hyperfine");
        hyperfine.current_dir(&self.directory).args(["--warmup=1", "--style=none"]);
        // A shell's own time, taken off, can leave nothing of what is as quick as a shell.
        hyperfine.args(["--shell=none", "--runs", runs]);
        hyperfine.arg("--export-json").arg(&report).args(commands.iter().map(|(_, line)| line));
        let done = hyperfine.output().context("cannot run hyperfine")?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let report: Value = serde_json::from_slice(&fs::read(report)?)?;
        let results = report.get("results").and_then(Value::as_array);
        let times = results.into_iter().flatten().map(Times::of).collect::<Result<Vec<_>>>()?;
        let ours = times.first().context("hyperfine measured nothing")?;
        for ((name, _), time) in commands.iter().zip(&times) {
            let (wall, cpu) = (ours.wall / time.wall, ours.cpu / time.cpu);
            say(&format!(
                "{:<7}{name:<39}{:>8.4} s {:>8.4} s {wall:>16.2} {cpu:>6.2}",
                self.size, time.wall, time.cpu
            ));
        }
        Ok(())
    }
}

/// The median on the clock, and the mean of what all processors did, in seconds.
struct Times {
    cpu: f64,
    wall: f64,
}

impl Times {
    fn of(result: &Value) -> Result<Self> {
        let number = |key| result.get(key).and_then(Value::as_f64).context("an odd report");
        Ok(Self { cpu: number("user")? + number("system")?, wall: number("median")? })
    }
}

/// Returns the command that runs one of the scripts of what the original does.
fn script(words: &str) -> Result<String> {
    Ok(format!("python3 {}/xtask/src/bench/{words}", root()?.display()))
}

fn smallest() -> Result<String> {
    let program = target()?.join("release/sbs-manifest");
    let data = root()?.join("tests/data/manifests");
    let (program, data) = (program.display(), data.display());
    Ok(format!("{program} verify {data}/good.sig.tbz --key {data}/public.pem"))
}

fn target() -> Result<PathBuf> {
    let set = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    Ok(set.map_or(root()?.join("target"), |target| target))
}

/// Copies sources of crates until they are that many bytes.
fn grow(tree: &Path, bytes: u64) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    fs::create_dir_all(tree)?;
    let metadata = program("cargo").args(["metadata", "--format-version=1"]).output()?;
    let metadata: Value = serde_json::from_slice(&metadata.stdout)?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    let mut left = bytes;
    for package in packages.into_iter().flatten() {
        let manifest = package.get("manifest_path").and_then(Value::as_str).unwrap_or_default();
        let Some(source) = Path::new(manifest).parent() else { continue };
        if package.get("source").is_some_and(Value::is_null) {
            continue;
        }
        run_command(program("cp").arg("-r").arg(source).arg(tree))?;
        let size = program("du").args(["-sb"]).arg(source).output()?;
        let size = String::from_utf8_lossy(&size.stdout);
        let size = size.split_whitespace().next().and_then(|size| size.parse().ok());
        left = left.saturating_sub(size.unwrap_or(0));
        if left == 0 {
            return Ok(());
        }
    }
    say(&format!("warning: the sources are {left} bytes smaller than asked for"));
    Ok(())
}

const SIGNATURE: &str = "openssl dgst -sha256 -verify m.pem -signature m.signature m.digest";
const BY_HAND: &str = "sh -c 'tar -c tree | lbzip2 -n2 -9 | tee hand.tbz | openssl dgst -sha256'";
