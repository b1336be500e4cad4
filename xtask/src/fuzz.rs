//! Fuzzing with libFuzzer, as `cargo fuzz` does it, on the stable toolchain and without an install.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{program, run_command, say};

/// Runs one target or all, each for some seconds; the first input that breaks one ends it.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let targets = targets()?;
    let (chosen, seconds) = choose(&targets, words)?;
    let programs = build()?;
    for target in chosen {
        say(&format!("fuzzing `{target}` for {seconds} s"));
        fuzz(&programs, target, seconds)?;
    }
    Ok(())
}

/// Returns the names of the targets, in order.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for item in fs::read_dir("fuzz/fuzz_targets").context("fuzz/fuzz_targets")? {
        let path = item?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        names.push(name.context("a fuzz target has a name that is not UTF-8")?.to_owned());
    }
    names.sort();
    Ok(names)
}

/// Reads `[TARGET] [SECONDS]`.
fn choose<'a>(targets: &'a [String], words: &[&str]) -> Result<(Vec<&'a String>, u32)> {
    let number = |word: &str| word.parse().ok().filter(|seconds| *seconds > 0);
    let (name, seconds) = match *words {
        [] => (None, SECONDS),
        [word] => number(word).map_or((Some(word), SECONDS), |seconds| (None, seconds)),
        [name, word] => {
            let seconds = number(word);
            (Some(name), seconds.with_context(|| format!("`{word}` is no number of seconds"))?)
        }
        _ => bail!("usage: cargo xtask fuzz [TARGET] [SECONDS]"),
    };
    let chosen: Vec<_> =
        targets.iter().filter(|target| name.is_none_or(|name| name == *target)).collect();
    ensure!(
        !chosen.is_empty(),
        "there is no fuzz target `{}`; there are {}",
        name.unwrap_or_default(),
        targets.join(", ")
    );
    Ok((chosen, seconds))
}

/// Builds the targets and returns the folder that they are in.
fn build() -> Result<String> {
    let host = host()?;
    let mut cargo = program("cargo");
    cargo.args(["build", "--manifest-path", "fuzz/Cargo.toml", "--locked", "--bins"]);
    // With a target, the flags are not for build scripts, which nothing would link to libFuzzer.
    cargo.args(["--target", &host, "--target-dir", BUILT]);
    run_command(cargo.env("RUSTFLAGS", FLAGS.join(" ")))?;
    Ok(format!("{BUILT}/{host}/debug"))
}

/// Returns the name of the platform that this is.
fn host() -> Result<String> {
    let output = program("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what it builds for")
}

fn fuzz(programs: &str, target: &str, seconds: u32) -> Result<()> {
    // What is found goes to the first; the second is only read.
    let (found, seeds) = (format!("{BUILT}/corpus/{target}"), format!("fuzz/corpus/{target}"));
    let artifacts = format!("{BUILT}/artifacts/{target}/");
    ensure!(Path::new(&seeds).is_dir(), "the fuzz target has no seeds in {seeds}");
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| folder.clone())?;
    }
    let mut fuzzer = program(&format!("{programs}/{target}"));
    fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={artifacts}"));
    fuzzer.args(LIMITS).args([found, seeds]);
    run_command(&mut fuzzer).with_context(|| {
        format!(
            "`{target}` broke; the input is in {artifacts}, give it to the program to see it again"
        )
    })
}

const BUILT: &str = "target/fuzz";
/// Seconds for each target.
const SECONDS: u32 = 10;

/// What tells libFuzzer which code an input reached. They are options of LLVM's passes, which the
/// stable compiler hands on; a sanitizer needs nightly, and without `unsafe` finds little.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Bytes of input, megabytes of memory and seconds for one input; and no line for each new input.
const LIMITS: [&str; 5] =
    ["-max_len=16384", "-rss_limit_mb=1024", "-timeout=10", "-verbosity=0", "-print_final_stats=1"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_target_and_seconds_or_neither() {
        let targets = ["inner".to_owned(), "outer".to_owned()];
        let names = |words: &[&str]| {
            choose(&targets, words).map(|(names, seconds)| {
                (names.into_iter().map(String::as_str).collect::<Vec<_>>(), seconds)
            })
        };
        assert_eq!(names(&[]).unwrap(), (vec!["inner", "outer"], SECONDS));
        assert_eq!(names(&["outer"]).unwrap(), (vec!["outer"], SECONDS));
        assert_eq!(names(&["5"]).unwrap(), (vec!["inner", "outer"], 5));
        assert_eq!(names(&["inner", "5"]).unwrap(), (vec!["inner"], 5));
        for words in
            [&["other"][..], &["0"], &["inner", "0"], &["inner", "x"], &["inner", "5", "x"]]
        {
            assert!(choose(&targets, words).is_err(), "{words:?}");
        }
    }
}
