//! Fuzzing with libFuzzer, as `cargo fuzz` does it, on the stable toolchain and without an install.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{program, root, run_command, say};

/// Runs one target or all, each for some seconds, or one with an input that broke it.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let targets = targets()?;
    match choose(&targets, words)? {
        Choice::Fuzz(runs) => fuzz_all(&build()?, runs),
        Choice::Input(target, input) => show(&build()?, target, input),
    }
}

/// Runs every target: first what is in the repository, then what comes of it.
///
/// Those that read what a stranger's archive holds get a quarter of a minute, the others less.
pub(crate) fn ci() -> Result<()> {
    let targets = targets()?;
    let seconds = |target: &String| if LONG.contains(&&**target) { 15 } else { 5 };
    // The long ones first, so that the last do not run alone.
    let mut runs: Vec<_> = targets.iter().map(|target| (target, seconds(target))).collect();
    runs.sort_by_key(|(_, seconds)| std::cmp::Reverse(*seconds));
    fuzz_all(&build()?, runs)
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

/// What is to be done.
#[derive(Debug, Eq, PartialEq)]
enum Choice<'a> {
    /// Targets, and how many seconds each runs.
    Fuzz(Vec<(&'a String, u32)>),
    /// A target, and the file to give it.
    Input(&'a String, &'a Path),
}

/// Reads `[TARGET] [SECONDS]` or `TARGET FILE`.
fn choose<'a>(targets: &'a [String], words: &[&'a str]) -> Result<Choice<'a>> {
    let number = |word: &str| word.parse().ok().filter(|seconds| *seconds > 0);
    let one = |name: &str| {
        let found = targets.iter().find(|target| *target == name);
        let listed =
            || format!("there is no fuzz target `{name}`; there are {}", targets.join(", "));
        found.with_context(listed)
    };
    let all = |seconds| Choice::Fuzz(targets.iter().map(|target| (target, seconds)).collect());
    match *words {
        [] => Ok(all(SECONDS)),
        [word] => match number(word) {
            Some(seconds) => Ok(all(seconds)),
            None => Ok(Choice::Fuzz(vec![(one(word)?, SECONDS)])),
        },
        [name, word] => match number(word) {
            Some(seconds) => Ok(Choice::Fuzz(vec![(one(name)?, seconds)])),
            None if Path::new(word).is_file() => Ok(Choice::Input(one(name)?, Path::new(word))),
            None => bail!("`{word}` is neither a number of seconds nor a file"),
        },
        _ => bail!("usage: cargo xtask fuzz [TARGET] [SECONDS | FILE]"),
    }
}

/// Builds the targets and returns the folder that they are in.
///
/// Only the crates of this project tell libFuzzer where an input went (`fuzz/rustc.sh`); all others
/// are those of a usual build, so that a build for fuzzing takes seconds and not minutes.
fn build() -> Result<PathBuf> {
    let mut cargo = program("cargo");
    cargo.args(["build", "--locked", "--package", "sbs-fuzz", "--bins"]);
    cargo.env("RUSTC_WORKSPACE_WRAPPER", root()?.join("fuzz/rustc.sh"));
    // What is built bit by bit is cut into more units, whose counters libFuzzer does not all see.
    run_command(cargo.env("CARGO_INCREMENTAL", "0"))?;
    Ok(built()?.join("debug"))
}

/// Returns the folder that cargo builds in: that of this very program is in it.
fn built() -> Result<PathBuf> {
    let this = env::current_exe().context("this program's own path")?;
    let folder = this.parent().and_then(Path::parent);
    Ok(folder.context("this program is in no folder of cargo's")?.to_owned())
}

/// Runs the targets, as many at once as there are processors; the others go on where one breaks.
fn fuzz_all(programs: &Path, runs: Vec<(&String, u32)>) -> Result<()> {
    let queue = std::sync::Mutex::new(runs.into_iter());
    let next = || queue.lock().ok()?.next();
    let work = || {
        let mut faults = Vec::new();
        while let Some((target, seconds)) = next() {
            faults.extend(fuzz(programs, target, seconds).err());
        }
        faults
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let faults: Vec<anyhow::Error> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    for fault in &faults {
        say(&format!("{fault:#}"));
    }
    ensure!(faults.is_empty(), "{} fuzz targets broke", faults.len());
    Ok(())
}

/// Runs a target with its seeds, and then on from there.
fn fuzz(programs: &Path, target: &str, seconds: u32) -> Result<()> {
    // What is found goes to the first; the second is only read.
    let work = built()?.join("fuzz").join(target);
    let (found, seeds) = (work.join("corpus"), Path::new("fuzz/corpus").join(target));
    ensure!(seeds.is_dir(), "the fuzz target has no seeds in {}", seeds.display());
    fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    let report = work.join("report.txt");
    let file = || File::create(&report).with_context(|| report.display().to_string());

    let mut fuzzer = program(&programs.join(target).to_string_lossy());
    fuzzer.arg(format!("-max_total_time={seconds}")).args(LIMITS);
    fuzzer.arg(format!("-artifact_prefix={}/", work.display())).args([&found, &seeds]);
    let status =
        fuzzer.stderr(file()?).status().with_context(|| format!("cannot run `{target}`"))?;

    let report = fs::read(&report).with_context(|| report.display().to_string())?;
    let report = String::from_utf8_lossy(&report);
    if !status.success() {
        bail!("{}", fault(target, &report));
    }
    let units = stat(&report, "number_of_executed_units").context("libFuzzer ran nothing")?;
    say(&format!("fuzzed `{target}` for {seconds} s: {units} inputs"));
    Ok(())
}

/// Gives a target one input.
fn show(programs: &Path, target: &str, input: &Path) -> Result<()> {
    let mut fuzzer = program(&programs.join(target).to_string_lossy());
    run_command(fuzzer.args(LIMITS).arg(input))
}

/// Says what libFuzzer found, and how to see it again.
fn fault(target: &str, report: &str) -> String {
    let lines: Vec<&str> = report.lines().collect();
    let end = lines.len().saturating_sub(LINES);
    let tail = lines.get(end..).unwrap_or_default().join("\n");
    let input = lines.iter().find_map(|line| line.split_once("Test unit written to "));
    let again = match input {
        Some((_, file)) => format!("see it again with: cargo xtask fuzz {target} {file}"),
        None => "it kept no input".to_owned(),
    };
    format!("{tail}\n`{target}` broke; {again}")
}

/// Returns a number of libFuzzer's final statistics.
fn stat<'a>(report: &'a str, name: &str) -> Option<&'a str> {
    let line = report.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name))?;
    Some(line.strip_prefix(':')?.trim())
}

/// Seconds for each target.
const SECONDS: u32 = 10;
/// The targets that read a stranger's archive.
const LONG: [&str; 4] = ["bunzip2", "inner", "outer", "record"];
/// Lines of libFuzzer's report that say what broke.
const LINES: usize = 40;

/// Bytes of input, megabytes of memory and seconds for one input; and no line for each new input.
const LIMITS: [&str; 5] =
    ["-max_len=16384", "-rss_limit_mb=1024", "-timeout=10", "-verbosity=0", "-print_final_stats=1"];

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

    #[test]
    fn takes_a_target_and_seconds_or_an_input_or_nothing() {
        let targets = ["inner".to_owned(), "outer".to_owned()];
        let [inner, outer] = &targets;
        for (words, expected) in [
            (&[][..], Choice::Fuzz(vec![(inner, SECONDS), (outer, SECONDS)])),
            (&["outer"], Choice::Fuzz(vec![(outer, SECONDS)])),
            (&["5"], Choice::Fuzz(vec![(inner, 5), (outer, 5)])),
            (&["inner", "5"], Choice::Fuzz(vec![(inner, 5)])),
            (&["inner", FILE], Choice::Input(inner, Path::new(FILE))),
        ] {
            assert_eq!(choose(&targets, words).unwrap(), expected, "{words:?}");
        }
        for words in
            [&["other"][..], &["0"], &["inner", "0"], &["inner", "x"], &["inner", "5", "x"]]
        {
            assert!(choose(&targets, words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn says_how_to_see_a_fault_again() {
        let report = "panicked at a.rs\nartifact_prefix='t/'; Test unit written to t/crash-1\nend";
        let said = fault("inner", report);
        assert!(
            said.starts_with("panicked") && said.contains("xtask fuzz inner t/crash-1"),
            "{said}"
        );
        assert!(fault("inner", "killed").contains("kept no input"));
        let long = "line\n".repeat(1000);
        assert_eq!(fault("inner", &long).lines().count(), LINES + 1);
    }

    #[test]
    fn reads_the_statistics() {
        let report =
            "INFO\nstat::number_of_executed_units: 268\nstat::average_exec_per_sec:     29";
        assert_eq!(stat(report, "number_of_executed_units"), Some("268"));
        assert_eq!(stat(report, "average_exec_per_sec"), Some("29"));
        assert_eq!(stat("", "number_of_executed_units"), None);
    }
}
