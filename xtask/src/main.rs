//! The project's own commands; `cargo xtask help` lists them.

mod bench;
mod fuzz;
mod lint;
mod setup;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    env::set_current_dir(root()?).context("cannot enter the top of the project")?;
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["setup"] => setup::run(),
        ["install"] => install(Path::new("/usr/local/bin")),
        ["install", directory] => install(Path::new(directory)),
        ["fmt"] => cargo(&["fmt", "--all"]),
        ["fmt", "--check"] => lint::format(),
        ["lint"] => lint::run(),
        ["test", filters @ ..] => test(filters),
        ["ci"] => {
            lint::run()?;
            test(&[])?;
            fuzz::ci()
        }
        ["fuzz", words @ ..] => fuzz::run(words),
        ["demo", arguments @ ..] => demo(arguments),
        ["bench", "manifests"] => bench::manifests(bench::Sizes::All),
        ["bench", "manifests", "--small"] => bench::manifests(bench::Sizes::Small),
        ["bench", arguments @ ..] => build_bench(arguments),
        [] | ["help" | "--help" | "-h"] => {
            say(HELP);
            Ok(())
        }
        _ => bail!("unknown command `{}`; `cargo xtask help` lists them", words.join(" ")),
    }
}

/// Builds the two programs as they are meant to be used, and puts them into a directory.
fn install(directory: &Path) -> Result<()> {
    setup::programs()?;
    cargo(&[
        "build",
        "--release",
        "--locked",
        "--bins",
        "--package=sbs-server",
        "--package=sbs-cli",
    ])?;
    let built = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let mut install = program("install");
    install.args(["-D", "--mode=755", "--target-directory"]).arg(directory);
    install.args(["sbs", "sbs-server"].map(|name| built.join("release").join(name)));
    run_command(&mut install)?;
    say(&format!("sbs and sbs-server are in {}", directory.display()));
    Ok(())
}

fn test(filters: &[&str]) -> Result<()> {
    setup::run()?;
    // The programs that tests start, together with the tests: apart, what both are made of would be
    // built twice. There are no tests in the fuzz targets.
    let packages = ["--workspace", "--exclude", "sbs-fuzz"];
    cargo(&[&["build", "--bins", "--tests"], &packages[..], &FEATURES].concat())?;
    if nextest() {
        cargo(&[&["nextest", "run"], &packages[..], &FEATURES, filters].concat())?;
    } else {
        // A list of filters is nextest's; libtest takes it behind `--`.
        let test = ["test", "--lib", "--bins", "--tests"];
        cargo(&[&test[..], &packages, &FEATURES, &["--"], filters].concat())?;
    }
    if filters.is_empty() {
        cargo(&[&["test", "--workspace", "--doc"], &FEATURES[..]].concat())?;
        judges()
    } else {
        Ok(())
    }
}

/// Lets other people's verifiers judge our signatures.
fn judges() -> Result<()> {
    let mut npm = program("npm");
    npm.args(["ci", "--prefix", "tests/judges/npm", "--ignore-scripts", "--no-audit", "--no-fund"]);
    run_command(npm.arg("--prefer-offline"))?;
    let judges = ["test", "--locked", "--manifest-path", "tests/judges/Cargo.toml"];
    // What the judges and the project have in common is built once.
    cargo(&[&judges[..], &["--target-dir", "target"]].concat())
}

fn demo(arguments: &[&str]) -> Result<()> {
    setup::run()?;
    build_programs(&[])?;
    let run = ["run", "--quiet", "--package", "sbs-tests", "--bin", "demo", "--"];
    cargo(&[&run[..], arguments].concat())
}

fn build_bench(arguments: &[&str]) -> Result<()> {
    setup::run()?;
    build_programs(&["--release"])?;
    let run = ["run", "--quiet", "--release", "--package", "sbs-tests", "--bin", "bench", "--"];
    cargo(&[&run[..], arguments].concat())
}

/// Builds the programs that tests, demo and benchmark start; they look for them beside themselves.
fn build_programs(options: &[&str]) -> Result<()> {
    let build = ["build", "--package=sbs-server", "--package=sbs-cli", "--package=sbs-manifest"];
    cargo(&[&build[..], &["--bins"], &FEATURES, options].concat())
}

fn nextest() -> bool {
    let mut command = program("cargo");
    command.args(["nextest", "--version"]);
    command.output().is_ok_and(|output| output.status.success())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run_command(program("cargo").args(arguments))
}

/// Runs a command to its end; an exit code other than 0 is an error that shows it.
fn run_command(command: &mut Command) -> Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.join(" ".as_ref()).to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the server's rule for its tools is not for these")]
fn program(name: &str) -> Command {
    Command::new(name)
}

/// Returns the top of the project: the folder above this package's.
fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this package has no folder above it")
}

#[expect(clippy::print_stderr, reason = "these commands talk to whoever typed them")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// What is not built by default and is tested all the same.
const FEATURES: [&str; 2] = ["--features", "sbs-server/tpm2,sbs-manifest/cli"];

const HELP: &str = "\
cargo xtask COMMAND

  setup            install the Debian packages that tests and demo need (as root)
  install [DIRECTORY]
                   build sbs and sbs-server for use and put them into /usr/local/bin, with the Debian
                   packages that they need (as root)
  fmt [--check]    format the code, or check that it is formatted
  lint             formatting, clippy, forbidden words, documentation
  test [FILTER..]  every test, with the real programs (git, sshd, buildah, docker-registry)
  fuzz [TARGET] [SECONDS]
                   libFuzzer on what strangers send, 10 seconds a target
  fuzz TARGET FILE give a target an input that broke it
  ci               lint, test, and fuzz for minutes: what .ci/run does
  demo             the whole path on this machine, from a repository to a verified image
  bench            what a build here costs, as a ratio to doing it by hand
  bench manifests [--small]
                   what packing and verifying costs, beside programs that do the same; --small
                   measures the small tree alone";
