use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use sbs_crypto::ManifestVerifyingKey;
use sbs_manifest::{CheckName, Compatibility, Limits, Manifest, Outcome, UnverifiedManifest};

/// A directory of the corpus.
struct Defect {
    name: String,
    archive: PathBuf,
    /// Stands in the refusal.
    expected: String,
    compatibility: Compatibility,
}

impl Defect {
    fn load(directory: &Path) -> Result<Self, String> {
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        let names = ["manifest.sig.tbz", "manifest.thin.sig.tar.zst"];
        let archive =
            names.map(|name| directory.join(name)).into_iter().find(|path| path.is_file());
        let archive = archive.ok_or_else(|| format!("{name} has no manifest.sig.tbz"))?;
        let text = fs::read_to_string(directory.join("expect.txt"))
            .map_err(|error| format!("{name} has no expect.txt: {error}"))?;
        let lines: Vec<&str> = text.lines().collect();
        let (expected, compatibility) = match lines.as_slice() {
            [expected, about] if !about.is_empty() => (expected, Compatibility::Strict),
            [expected, about, "original"] if !about.is_empty() => {
                (expected, Compatibility::Original)
            }
            _ => return Err(format!("{name}: expect.txt has another form")),
        };
        // What is shorter would be found in any refusal.
        if expected.len() < 10 {
            return Err(format!("{name} expects `{expected}`, which says nothing"));
        }
        Ok(Self { name, archive, expected: (*expected).to_owned(), compatibility })
    }
}

/// That no file is touched is no achievement: the reader gets a spool and no path, and nothing in the
/// crate writes a file. It is watched here so that a change that extracts does not go unnoticed.
#[test]
fn s16_r9_c1_every_hostile_manifest_is_refused_for_its_own_reason() {
    let top = tempfile::tempdir().unwrap();
    let inside = top.path().join("a/b");
    fs::create_dir_all(&inside).unwrap();
    // What the names in the corpus lead to from there.
    for name in ["outside", "a/outside", "a/b/notes"] {
        fs::write(top.path().join(name), "untouched").unwrap();
    }
    std::env::set_current_dir(&inside).unwrap();
    let spool = inside.join("spool");
    fs::write(&spool, "").unwrap();
    let before = files(top.path(), &spool);
    let (mut faults, mut reached) = (Vec::new(), 0);
    for directory in directories(&corpus()) {
        let defect = Defect::load(&directory).unwrap();
        reached += 1;
        match refusal(&defect.archive, defect.compatibility, &spool) {
            None => faults.push(format!("{}: accepted", defect.name)),
            Some(reason) if reason.contains(&defect.expected) => {}
            Some(reason) => {
                faults.push(format!("{}: `{reason}` is not `{}`", defect.name, defect.expected));
            }
        }
        assert_eq!(files(top.path(), &spool), before, "{} touched a file", defect.name);
        for path in OUTSIDE {
            assert!(!Path::new(path).exists(), "{} made {path}", defect.name);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(reached >= FEWEST, "only {reached} defects were reached");
    assert_eq!(reached, directories(&corpus()).len());
}

#[test]
fn the_manifest_that_the_others_are_made_from_is_good() {
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("spool");
    for compatibility in [Compatibility::Strict, Compatibility::Original] {
        for name in ["good.sig.tbz", "good.thin.sig.tar.zst"] {
            assert_eq!(refusal(&corpus().join(name), compatibility, &spool), None, "{name}");
        }
    }
}

#[test]
fn every_directory_of_the_corpus_is_whole() {
    let faults: Vec<String> =
        directories(&corpus()).iter().filter_map(|path| Defect::load(path).err()).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_directory_that_is_not_whole_is_noticed() {
    let top = tempfile::tempdir().unwrap();
    let directory = top.path().join("defect");
    fs::create_dir(&directory).unwrap();
    assert_eq!(directories(top.path()), std::slice::from_ref(&directory));
    let fault = || Defect::load(&directory).err().unwrap_or_default();
    assert!(fault().contains("no manifest.sig.tbz"));
    fs::write(directory.join("manifest.sig.tbz"), "").unwrap();
    assert!(fault().contains("no expect.txt"));
    for (text, expected) in [
        ("", "another form"),
        ("has a `..` part\n", "another form"),
        ("has a `..` part\nabout\nlenient\n", "another form"),
        ("is\nabout\n", "says nothing"),
        ("has a `..` part\nabout\n", ""),
    ] {
        fs::write(directory.join("expect.txt"), text).unwrap();
        assert!(fault().contains(expected), "{text:?}: {}", fault());
        assert_eq!(fault().is_empty(), expected.is_empty(), "{text:?}: {}", fault());
    }
}

/// Nobody changed an archive by hand, and whoever doubts one can see how it is made.
#[test]
fn the_corpus_is_what_its_generator_makes() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the generator, with arguments of the test's own"
    )]
    let output = Command::new("python3")
        .args(["-B", "make.py", "--check"])
        .current_dir(corpus())
        .output()
        .unwrap_or_else(|error| panic!("these tests need `python3`: {error}"));
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

/// Reads a manifest with the right key; says why it is refused, if it is.
fn refusal(archive: &Path, compatibility: Compatibility, spool: &Path) -> Option<String> {
    let pem = fs::read_to_string(corpus().join("public.pem")).unwrap();
    let key = ManifestVerifyingKey::from_pem(&pem).unwrap();
    let mut options = File::options();
    let spool = options.read(true).write(true).create(true).truncate(true).open(spool).unwrap();
    let archive = File::open(archive).unwrap();
    let unverified = match UnverifiedManifest::read(archive, spool, compatibility, &LIMITS) {
        Ok(unverified) => unverified,
        Err(error) => return Some(chain(&error)),
    };
    let mut manifest = match unverified.verify(&key) {
        Ok(manifest) => manifest,
        Err(error) => return Some(chain(&error)),
    };
    let report = manifest.check();
    let failed = report.checks().iter().find_map(|check| match &check.outcome {
        Outcome::Failed(error) => Some((check.name, chain(error))),
        Outcome::Passed | Outcome::NotMade(_) => None,
    });
    // Whoever reads the entries without a report is stopped by the same.
    match (walk(&mut manifest), &failed) {
        (Err(error), Some((CheckName::Layout, reason))) => {
            assert!(reason.ends_with(&error), "`{reason}` is not `{error}`");
        }
        // What a check keeps in memory has limits of its own.
        (Ok(()), Some((CheckName::Layout, reason))) => {
            assert!(reason.contains("entry `data/"), "{reason}");
        }
        (Ok(()), _) => {}
        (Err(error), failed) => panic!("{failed:?}, but {error}"),
    }
    assert!(failed.is_none() || !report.all_passed());
    if compatibility == Compatibility::Strict {
        assert_eq!(failed.is_none(), report.all_passed(), "{report:?}");
    }
    failed.map(|(name, reason)| format!("{name}: {reason}"))
}

fn walk(manifest: &mut Manifest<File>) -> Result<(), String> {
    let mut entries = manifest.entries().unwrap();
    while let Some(mut entry) = entries.next_entry().map_err(|error| chain(&error))? {
        // A failure in content comes again with the next entry.
        drop(io::copy(&mut entry.by_ref(), &mut io::sink()));
    }
    Ok(())
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Returns every file below a directory with its content, but for the spool.
fn files(directory: &Path, spool: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for item in fs::read_dir(directory).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, spool));
            found.insert(path, Vec::new());
        } else if path != spool {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

fn directories(top: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(top).unwrap().map(|item| item.unwrap().path());
    let mut found: Vec<PathBuf> = items.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/manifests")
}

/// Small, so that archives of some kilobytes exceed them.
const LIMITS: Limits = Limits {
    archive_bytes: 1 << 20,
    commit_bytes: 16 << 10,
    entries: 64,
    entry_bytes: 8 << 20,
    listing_bytes: 16 << 10,
    log_bytes: 16 << 10,
    ratio: 100,
    ratio_from_bytes: 2 << 20,
    record_bytes: 16 << 10,
    // The path with several threads is the one that users run.
    threads: NonZeroUsize::new(3).unwrap(),
    unpacked_bytes: 16 << 20,
};
/// Defects: fewer would mean that the corpus was not found.
const FEWEST: usize = 220;
/// What absolute names in the corpus would make.
const OUTSIDE: [&str; 3] = ["/etc/cron.d/x", "/manifest.a.tbz", "/outside"];
