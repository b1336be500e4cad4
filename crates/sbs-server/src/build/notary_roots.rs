//! What notaries have said before: the root of each repository, and the versions since.
//!
//! A repository whose root is not pinned is believed at first use, and held against that ever after;
//! an older state than one that was seen is refused.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sbs_proto::{NotaryServer, parse_json};
use sbs_registry::notary::{Gun, ParseRememberedError, Remembered};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::store::{read_small_file, replace_file};

/// The file of an image definition with what notaries have said.
#[derive(Debug)]
pub(crate) struct NotaryRoots {
    path: PathBuf,
    record: Record,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// By server and repository: `https://notary.example registry.example/app`.
    repositories: BTreeMap<String, Value>,
}

impl NotaryRoots {
    /// Loads the file, if there is one.
    pub(crate) fn load(path: &Path) -> Result<Self, NotaryRootsError> {
        let bytes = read_small_file(path).map_err(NotaryRootsError::Read)?;
        let record = match bytes {
            Some(bytes) => parse_json(&bytes).map_err(|_| NotaryRootsError::Damaged)?,
            None => Record::default(),
        };
        Ok(Self { path: path.to_owned(), record })
    }

    /// Refuses bytes that are no such file.
    pub(crate) fn check(bytes: &[u8]) -> Result<(), NotaryRootsError> {
        let record: Record = parse_json(bytes).map_err(|_| NotaryRootsError::Damaged)?;
        for remembered in record.repositories.values() {
            parse(remembered)?;
        }
        Ok(())
    }

    /// Makes one file of two, which forgets nothing: what is known of one repository in both is taken
    /// together.
    pub(crate) fn merge(first: &[u8], second: &[u8]) -> Result<Vec<u8>, NotaryRootsError> {
        let read = |bytes| parse_json::<Record>(bytes).map_err(|_| NotaryRootsError::Damaged);
        let (mut merged, second) = (read(first)?, read(second)?);
        for (repository, mut remembered) in second.repositories {
            if let Some(known) = merged.repositories.get(&repository) {
                remembered = value_of(&parse(known)?.merge(parse(&remembered)?))?;
            }
            merged.repositories.insert(repository, remembered);
        }
        to_bytes(&merged)?.ok_or(NotaryRootsError::NoRoomForBoth)
    }

    /// Returns what a server has said of a repository.
    pub(crate) fn get(
        &self,
        server: &NotaryServer,
        gun: &Gun,
    ) -> Result<Option<Remembered>, NotaryRootsError> {
        self.record.repositories.get(&key(server, &gun.to_string())).map(parse).transpose()
    }

    /// Keeps what a server has said of a repository.
    pub(crate) fn set(
        &mut self,
        server: &NotaryServer,
        remembered: &Remembered,
    ) -> Result<(), NotaryRootsError> {
        let value = value_of(remembered)?;
        let before = self.record.repositories.insert(key(server, remembered.gun()), value);
        let Some(bytes) = to_bytes(&self.record)? else {
            let key = key(server, remembered.gun());
            match before {
                Some(before) => self.record.repositories.insert(key, before),
                None => self.record.repositories.remove(&key),
            };
            return Err(NotaryRootsError::Full { path: self.path.clone() });
        };
        replace_file(&self.path, &bytes).map_err(NotaryRootsError::Write)
    }

    /// Forgets what a server has said of a repository, damaged or not; tells whether there was anything.
    pub(crate) fn forget(
        &mut self,
        server: &NotaryServer,
        gun: &Gun,
    ) -> Result<bool, NotaryRootsError> {
        if self.record.repositories.remove(&key(server, &gun.to_string())).is_none() {
            return Ok(false);
        }
        let bytes = serde_json::to_vec(&self.record).map_err(|_| NotaryRootsError::Damaged)?;
        replace_file(&self.path, &bytes).map_err(NotaryRootsError::Write)?;
        Ok(true)
    }
}

fn key(server: &NotaryServer, gun: &str) -> String {
    format!("{server} {gun}")
}

/// Writes the file; `None` if it would be too long.
fn to_bytes(record: &Record) -> Result<Option<Vec<u8>>, NotaryRootsError> {
    let bytes = serde_json::to_vec(record).map_err(|_| NotaryRootsError::Damaged)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() <= MAX_BYTES))
}

fn value_of(remembered: &Remembered) -> Result<Value, NotaryRootsError> {
    parse_json(&remembered.to_json()).map_err(|_| NotaryRootsError::Damaged)
}

fn parse(value: &Value) -> Result<Remembered, NotaryRootsError> {
    Ok(Remembered::parse(value.to_string().as_bytes())?)
}

/// What notaries have said before cannot be read or kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum NotaryRootsError {
    /// The file is not what was written.
    #[error(
        "the record of what notaries have said before is damaged; restore it from a state image"
    )]
    Damaged,

    /// There is no room.
    #[error("`{}` has no room for another repository", path.display())]
    Full { path: PathBuf },

    /// Two files do not fit into one.
    #[error("what notaries have said here and elsewhere has no room in one record")]
    NoRoomForBoth,

    /// The file cannot be read.
    #[error("the record of what notaries have said before cannot be read")]
    Read(#[source] io::Error),

    /// What is remembered of one repository is not what was written.
    #[error(transparent)]
    Remembered(#[from] ParseRememberedError),

    /// The file cannot be written.
    #[error("the record of what notaries have said cannot be written")]
    Write(#[source] io::Error),
}

/// As much as a state image takes.
const MAX_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(gun: &str, version: u64) -> Remembered {
        let json = serde_json::json!({
            "gun": gun, "root": "{}", "versions": { "targets": version },
        });
        Remembered::parse(json.to_string().as_bytes()).unwrap()
    }

    fn gun(repository: &str) -> Gun {
        let image = sbs_proto::ImageReference::parse(repository).unwrap();
        Gun::new(image.registry(), image.repository())
    }

    #[test]
    fn what_a_server_said_is_known_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots");
        let [one, other] = ["https://one.example", "https://other.example"]
            .map(|server| NotaryServer::parse(server).unwrap());
        let app = gun("registry.example/ns/app");
        let mut roots = NotaryRoots::load(&path).unwrap();
        assert_eq!(roots.get(&one, &app).unwrap(), None);
        roots.set(&one, &remembered("registry.example/ns/app", 3)).unwrap();
        roots.set(&one, &remembered("registry.example/ns/app", 4)).unwrap();
        let roots = NotaryRoots::load(&path).unwrap();
        let known = roots.get(&one, &app).unwrap().unwrap();
        assert_eq!(known, remembered("registry.example/ns/app", 4));
        assert_eq!(roots.get(&other, &app).unwrap(), None);
        assert_eq!(roots.get(&one, &gun("registry.example/ns/ap")).unwrap(), None);
        NotaryRoots::check(&std::fs::read(&path).unwrap()).unwrap();
    }

    #[test]
    fn one_server_and_one_repository_are_forgotten_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots");
        let [one, other] = ["https://one.example", "https://other.example"]
            .map(|server| NotaryServer::parse(server).unwrap());
        let [app, next] = ["registry.example/app", "registry.example/next"].map(gun);
        let mut roots = NotaryRoots::load(&path).unwrap();
        assert!(!roots.forget(&one, &app).unwrap());
        for (server, gun) in [(&one, &app), (&one, &next), (&other, &app)] {
            roots.set(server, &remembered(&gun.to_string(), 3)).unwrap();
        }
        assert!(roots.forget(&one, &app).unwrap());
        assert!(!roots.forget(&one, &app).unwrap());
        let roots = NotaryRoots::load(&path).unwrap();
        assert_eq!(roots.get(&one, &app).unwrap(), None);
        for (server, gun) in [(&one, &next), (&other, &app)] {
            assert_eq!(roots.get(server, gun).unwrap(), Some(remembered(&gun.to_string(), 3)));
        }
    }

    #[test]
    fn of_two_files_nothing_is_forgotten() {
        let entry = |gun: &str, root: &str, versions: Value| serde_json::json!({ "gun": gun, "root": root, "versions": versions });
        let file = |entries: &[(&str, &str, Value)]| {
            let entries = entries.iter().map(|(gun, root, versions)| {
                (format!("https://one.example {gun}"), entry(gun, root, versions.clone()))
            });
            let repositories: serde_json::Map<_, _> = entries.collect();
            serde_json::json!({ "repositories": repositories }).to_string()
        };
        let first = file(&[
            (
                "r.example/both",
                "old",
                serde_json::json!({ "root": 1, "targets": 9, "snapshot": 4 }),
            ),
            ("r.example/first", "first", serde_json::json!({ "root": 3 })),
        ]);
        let second = file(&[
            (
                "r.example/both",
                "new",
                serde_json::json!({ "root": 2, "targets": 3, "timestamp": 5 }),
            ),
            ("r.example/second", "second", serde_json::json!({ "root": 1 })),
        ]);
        let both = serde_json::json!({ "root": 2, "snapshot": 4, "targets": 9, "timestamp": 5 });
        let expected: Value = serde_json::from_str(&file(&[
            ("r.example/both", "new", both),
            ("r.example/first", "first", serde_json::json!({ "root": 3 })),
            ("r.example/second", "second", serde_json::json!({ "root": 1 })),
        ]))
        .unwrap();
        for (one, other) in [(&first, &second), (&second, &first)] {
            let merged = NotaryRoots::merge(one.as_bytes(), other.as_bytes()).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&merged).unwrap(), expected);
        }
        let large = |gun: &str| {
            file(&[(gun, &"x".repeat(MAX_BYTES / 2), serde_json::json!({ "root": 1 }))])
        };
        let full =
            NotaryRoots::merge(large("r.example/a").as_bytes(), large("r.example/b").as_bytes());
        assert!(matches!(full, Err(NotaryRootsError::NoRoomForBoth)), "{full:?}");
        NotaryRoots::merge(large("r.example/a").as_bytes(), large("r.example/a").as_bytes())
            .unwrap();
    }

    #[test]
    fn damage_is_no_first_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots");
        for damage in ["", "{}", "[]", r#"{"repositories":{},"more":1}"#] {
            std::fs::write(&path, damage).unwrap();
            assert!(matches!(NotaryRoots::load(&path), Err(NotaryRootsError::Damaged)), "{damage}");
        }
        let bad = br#"{"repositories":{"https://one.example registry.example/app":{}}}"#;
        assert!(matches!(NotaryRoots::check(bad), Err(NotaryRootsError::Remembered(_))));
    }

    #[test]
    fn what_has_no_room_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots");
        let server = NotaryServer::parse("https://one.example").unwrap();
        let mut roots = NotaryRoots::load(&path).unwrap();
        roots.set(&server, &remembered("registry.example/app", 1)).unwrap();
        let json = serde_json::json!({
            "gun": "registry.example/large", "root": "x".repeat(MAX_BYTES), "versions": {},
        });
        let large = Remembered::parse(json.to_string().as_bytes()).unwrap();
        let error = roots.set(&server, &large).unwrap_err();
        assert!(matches!(error, NotaryRootsError::Full { .. }));
        let roots = NotaryRoots::load(&path).unwrap();
        assert!(roots.get(&server, &gun("registry.example/app")).unwrap().is_some());
        assert!(roots.get(&server, &gun("registry.example/large")).unwrap().is_none());
    }
}
