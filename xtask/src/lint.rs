//! Formatting, clippy, forbidden words and documentation.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{FEATURES, cargo, program, run_command, say};

/// Runs every check.
pub(crate) fn run() -> Result<()> {
    format()?;
    forbidden_words()?;
    pure_libraries()?;
    // With what is optional, and without.
    for features in [&FEATURES[..], &[]] {
        let clippy = ["clippy", "--workspace", "--all-targets"];
        cargo(&[&clippy[..], features, &["--", "--deny", "warnings"]].concat())?;
    }
    let mut doc = program("cargo");
    doc.args(["doc", "--workspace", "--no-deps"])
        .args(FEATURES)
        .env("RUSTDOCFLAGS", "--deny warnings");
    run_command(&mut doc)
}

/// Checks that the code is formatted.
pub(crate) fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])
}

/// Checks that the library of manifests, without the feature that is for its program, is made of
/// nothing that reads files, clocks or the network, and owes OpenPGP nothing.
fn pure_libraries() -> Result<()> {
    let mut tree = program("cargo");
    tree.args(["tree", "--package", "sbs-manifest", "--edges", "normal", "--prefix", "none"]);
    let output = tree.args(["--format", "{p}"]).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo cannot show what sbs-manifest is made of");
    let found = impure(&String::from_utf8_lossy(&output.stdout))?;
    ensure!(found.is_empty(), "the library sbs-manifest is built with {}", found.join(", "));
    Ok(())
}

fn impure(tree: &str) -> Result<Vec<String>> {
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    ensure!(names.contains(&"sbs-manifest") && names.contains(&"tar"), "cargo says: {tree}");
    let found = names.into_iter().filter(|name| IMPURE.contains(name));
    Ok(found.map(str::to_owned).collect())
}

/// Checks that no file of the project holds a word that must not be committed.
fn forbidden_words() -> Result<()> {
    let found = files()?
        .iter()
        .flat_map(|path| match fs::read_to_string(path) {
            Ok(text) => find_words(path, &text),
            // Not text, or deleted and not yet committed so.
            Err(_) => Vec::new(),
        })
        .collect::<Vec<_>>();
    for line in &found {
        say(line);
    }
    ensure!(found.is_empty(), "{} forbidden words", found.len());
    Ok(())
}

/// Returns the files that are in the repository or about to be.
fn files() -> Result<Vec<String>> {
    // A clone that another user owns is no reason to refuse: git only lists.
    let mut git = program("git");
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]);
    let output = git.arg("--exclude-standard").output().context("cannot run git")?;
    ensure!(output.status.success(), "git cannot list the files: is this a clone?");
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let names: Vec<String> =
        names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    ensure!(!names.is_empty(), "git lists no files");
    Ok(names)
}

fn find_words(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(index, line)| {
            let found = WORDS.iter().filter(|word| holds_word(line, word));
            found.map(move |word| format!("{path}:{}: `{word}`", index + 1))
        })
        .collect()
}

/// Tells whether `line` holds `word` with no letter, digit or `_` beside it.
fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, found)| {
        let before = line.get(..start).and_then(|text| text.chars().next_back());
        let after = line.get(start + found.len()..).and_then(|text| text.chars().next());
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let open_end = found.ends_with(['/', '(']);
        !before.is_some_and(part) && (open_end || !after.is_some_and(part))
    })
}

/// What only the programs are made of.
const IMPURE: [&str; 9] = [
    "axum",
    "clap",
    "hyper",
    "indicatif",
    "reqwest",
    "sequoia-openpgp",
    "tempfile",
    "tokio",
    "tracing",
];

// Written in two parts, so that this file does not hold them.
const WORDS: [&str; 6] = [
    concat!("dbg", "!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("/wo", "rk/"),
    concat!("/wo", "rk/shared"),
    concat!("/home", "/"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_pure_is_found() {
        let pure = "sbs-manifest v0.1.0 (/x)\ntar v0.4.46\nserde v1.0.0";
        assert_eq!(impure(pure).unwrap(), Vec::<String>::new());
        assert_eq!(impure(&format!("{pure}\ntokio v1.0.0 (*)")).unwrap(), ["tokio"]);
        impure("").unwrap_err();
    }

    #[test]
    fn finds_words_and_not_parts_of_words() {
        for (line, expected) in [
            (concat!("// FIX", "ME: later"), 1),
            (concat!("let a = dbg", "!(b);"), 1),
            (concat!("cd /wo", "rk/main"), 1),
            (concat!("cd /wo", "rk/shared"), 2),
            (concat!("mktemp /tmp/a.XX", "XX"), 0),
            (concat!("a FIX", "MEUP"), 0),
            (concat!("net/wo", "rk/ing"), 0),
            ("nothing", 0),
        ] {
            assert_eq!(find_words("f", line).len(), expected, "{line}");
        }
        assert_eq!(
            find_words("f", concat!("\nFIX", "ME")),
            [concat!("f:2: `FIX", "ME`").to_owned()]
        );
    }
}
