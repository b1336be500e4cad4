//! Secrets are searched for where they must not be, in every form that they could have there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Secrets with names, and all their forms.
#[derive(Debug)]
pub struct Canaries {
    names: Vec<String>,
    /// For each form the number of its name.
    owners: Vec<usize>,
    search: AhoCorasick,
}

impl Canaries {
    /// Prepares the search for secrets, each with the name that is told where it is found.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Result<Self> {
        let (mut names, mut owners, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for (name, secret) in secrets {
            anyhow::ensure!(secret.len() >= MIN_BYTES, "{name} is too short to be told from noise");
            for form in forms(&secret)? {
                all.push(form);
                owners.push(names.len());
            }
            names.push(name.to_owned());
        }
        Ok(Self { names, owners, search: AhoCorasick::new(all)? })
    }

    /// Returns the names of the secrets that stand in `bytes`.
    pub fn found_in(&self, bytes: &[u8]) -> BTreeSet<&str> {
        self.search.find_iter(bytes).filter_map(|found| self.name(found.pattern())).collect()
    }

    /// Searches every file below `path`, which may be a file itself, and their names; links are not
    /// followed. Adds each file with a secret to `found`, and returns how many files there were.
    ///
    /// What is removed meanwhile is passed over.
    pub fn found_below(
        &self,
        path: &Path,
        skip: &[PathBuf],
        found: &mut Vec<String>,
    ) -> Result<usize> {
        if skip.iter().any(|skipped| skipped == path) {
            return Ok(0);
        }
        let gone = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Ok(0),
            _ => Err(error).with_context(|| path.display().to_string()),
        };
        let kind = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) => return gone(error),
        };
        if kind.is_dir() {
            let entries = match fs::read_dir(path) {
                Ok(entries) => entries,
                Err(error) => return gone(error),
            };
            let mut count = 0;
            for entry in entries {
                count += self.found_below(&entry?.path(), skip, found)?;
            }
            return Ok(count);
        }
        let names = self.found_in(path.as_os_str().as_encoded_bytes());
        found.extend(names.iter().map(|name| format!("{name} in the name {}", path.display())));
        if !kind.is_file() {
            return Ok(1);
        }
        let file = match File::open(path) {
            Ok(file) => BufReader::new(file),
            Err(error) => return gone(error),
        };
        let mut names = BTreeSet::new();
        for one in self.search.stream_find_iter(file) {
            names.extend(self.name(one?.pattern()));
        }
        found.extend(names.iter().map(|name| format!("{name} in {}", path.display())));
        Ok(1)
    }

    fn name(&self, form: aho_corasick::PatternID) -> Option<&str> {
        let owner = self.owners.get(form.as_usize())?;
        self.names.get(*owner).map(String::as_str)
    }
}

/// Returns the bytes themselves, and base64 (at each of the three places where they can stand in what
/// is encoded), hex, the escapes of URLs and of JSON, and the numbers that Rust prints.
fn forms(secret: &[u8]) -> Result<BTreeSet<Vec<u8>>> {
    let mut forms = BTreeSet::from([secret.to_vec()]);
    for before in 0..3 {
        let shifted = [&[0; 2][..before], secret].concat();
        // Only the digits that nothing before or after the secret has a part in.
        let digits = (before * 8).div_ceil(6)..shifted.len() * 8 / 6;
        for engine in [STANDARD, URL_SAFE] {
            let encoded = engine.encode(&shifted);
            let own = encoded.get(digits.clone()).context("digits of base64")?;
            forms.insert(own.as_bytes().to_vec());
        }
    }
    forms.insert(hex::encode(secret).into_bytes());
    forms.insert(hex::encode_upper(secret).into_bytes());
    let numbers = format!("{secret:?}");
    forms.insert(numbers.trim_matches(['[', ']']).as_bytes().to_vec());
    let form = url::form_urlencoded::byte_serialize(secret).collect::<String>();
    forms.insert(form.replace('+', "%20").into_bytes());
    forms.insert(form.into_bytes());
    if let Ok(text) = str::from_utf8(secret) {
        let json = serde_json::to_string(text)?;
        forms.insert(json.trim_matches('"').as_bytes().to_vec());
    }
    Ok(forms)
}

/// What stands by chance in no file.
const MIN_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::Watch;
    use crate::{Daemon, program};

    const SECRET: &[u8] = b"canary+\"secret\"/of the tests";

    fn canaries() -> Canaries {
        Canaries::new([("other", vec![7; 20]), ("it", SECRET.to_vec())]).unwrap()
    }

    #[test]
    fn a_secret_is_found_in_every_form_and_nothing_else_is() {
        let canaries = canaries();
        for around in ["", "a", "ab", "abc"] {
            let text = [around.as_bytes(), SECRET, around.as_bytes()].concat();
            for form in [
                text.clone(),
                STANDARD.encode(&text).into_bytes(),
                URL_SAFE.encode(&text).into_bytes(),
                hex::encode(&text).into_bytes(),
                hex::encode_upper(&text).into_bytes(),
                format!("{text:?}").into_bytes(),
                serde_json::to_vec(&String::from_utf8(text.clone()).unwrap()).unwrap(),
                b"canary%2B%22secret%22%2Fof+the+tests".to_vec(),
                b"canary%2B%22secret%22%2Fof%20the%20tests".to_vec(),
            ] {
                assert_eq!(canaries.found_in(&form), BTreeSet::from(["it"]), "{form:?}");
            }
        }
        assert_eq!(canaries.found_in(b"canary+\"secret\"/of the test"), BTreeSet::new());
        Canaries::new([("short", vec![1; 15])]).unwrap_err();
    }

    #[test]
    fn a_secret_is_found_in_files_and_in_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/content"), [&vec![1; 100_000], SECRET].concat()).unwrap();
        fs::write(path(&hex::encode(SECRET)), "").unwrap();
        fs::write(path("skipped"), SECRET).unwrap();
        let mut found = Vec::new();
        let count = canaries().found_below(directory.path(), &[path("skipped")], &mut found);
        assert_eq!(count.unwrap(), 2);
        found.sort();
        let [content, name] = found.as_slice() else { panic!("{found:?}") };
        assert!(content.ends_with("d/content") && name.contains("in the name"), "{found:?}");
    }

    #[test]
    fn a_secret_is_found_in_arguments_and_in_environments() {
        let directory = tempfile::tempdir().unwrap();
        let watch = Watch::start();
        let text = str::from_utf8(SECRET).unwrap();
        let mut command = program("sh");
        command.args(["-c", "echo ready; sleep 60", text]).env("IT", hex::encode(text));
        let log = directory.path().join("log");
        let mut daemon = Daemon::spawn("sh", &mut command, &log).unwrap();
        daemon.wait_for("ready").unwrap();
        watch.look_again().unwrap();
        let seen = watch.end().unwrap();
        let canaries = canaries();
        let count = |part: fn(&crate::processes::Seen) -> &[u8]| {
            seen.iter().filter(|one| !canaries.found_in(part(one)).is_empty()).count()
        };
        assert!(count(|one| &one.line) > 0 && count(|one| &one.environment) > 0);
    }
}
