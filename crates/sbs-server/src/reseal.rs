//! Sealing again what is kept, when the root secret or the format of sealed files has changed.

use std::io;
use std::path::PathBuf;

use sbs_crypto::SealError;
use sbs_state::{AtRest, OpenRecordError};
use thiserror::Error;

use crate::store::{Store, read_small_file, replace_file};

/// How many files were sealed again, and how many had no need of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Resealed {
    pub(crate) changed: usize,
    pub(crate) unchanged: usize,
}

/// Seals every sealed file under the current root secret that is not.
///
/// Each is replaced whole: at any moment it opens under the current or a previous secret, so this
/// can be interrupted and done again.
pub(crate) fn reseal_all(store: &Store, at_rest: &AtRest) -> Result<Resealed, ResealError> {
    let mut resealed = Resealed::default();
    for name in store.sealed_records().map_err(ResealError::List)? {
        match reseal(store, at_rest, &name)? {
            Done::Changed => resealed.changed += 1,
            Done::Unchanged => resealed.unchanged += 1,
        }
    }
    Ok(resealed)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Done {
    Changed,
    Unchanged,
}

fn reseal(store: &Store, at_rest: &AtRest, name: &str) -> Result<Done, ResealError> {
    let path = store.sealed_file(name);
    let at = |source| ResealError::Io { path: path.clone(), source };
    let sealed = read_small_file(&path).map_err(at)?;
    let sealed = sealed.ok_or_else(|| at(io::ErrorKind::NotFound.into()))?;
    let plaintext = at_rest
        .open(name, &sealed)
        .map_err(|source| ResealError::Open { path: path.clone(), source })?;
    if at_rest.is_current(&sealed) {
        return Ok(Done::Unchanged);
    }
    let sealed = at_rest
        .seal(name, &plaintext)
        .map_err(|source| ResealError::Seal { path: path.clone(), source })?;
    replace_file(&path, &sealed).map_err(at)?;
    Ok(Done::Changed)
}

/// Why not everything was sealed again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ResealError {
    /// A file cannot be read or written.
    #[error("`{}` cannot be read or replaced", path.display())]
    Io { path: PathBuf, source: io::Error },

    /// The data directory cannot be searched.
    #[error("the data directory cannot be searched for sealed files")]
    List(#[source] io::Error),

    /// A file does not open.
    #[error("`{}` does not open; is it sealed by another root secret?", path.display())]
    Open { path: PathBuf, source: OpenRecordError },

    /// A file cannot be sealed.
    #[error("`{}` cannot be sealed", path.display())]
    Seal { path: PathBuf, source: SealError },
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use sbs_state::{KeyRing, RootSecret, RootSecretProvider};

    use super::*;

    fn at_rest(current: u8, previous: &[u8]) -> AtRest {
        let secret = |first: u8| -> Box<dyn RootSecretProvider> {
            let content: Vec<u8> = (first..first + 32).collect();
            Box::new(RootSecret::parse(&content).unwrap())
        };
        let previous = previous.iter().map(|first| secret(*first)).collect();
        AtRest::new(&KeyRing::new(secret(current), previous).unwrap()).unwrap()
    }

    const NAMES: [&str; 4] =
        ["server", "definitions/a/keys", "definitions/a/definition", "definitions/b/keys"];

    fn filled(directory: &Path, at_rest: &AtRest) -> Store {
        let store = Store::open(directory).unwrap();
        for name in NAMES {
            let path = store.sealed_file(name);
            store.directory(path.parent().unwrap()).unwrap();
            fs::write(path, at_rest.seal(name, name.as_bytes()).unwrap()).unwrap();
        }
        store
    }

    fn check(store: &Store, at_rest: &AtRest) {
        for name in NAMES {
            let sealed = fs::read(store.sealed_file(name)).unwrap();
            assert_eq!(*at_rest.open(name, &sealed).unwrap(), name.as_bytes());
        }
    }

    #[test]
    fn k7_what_is_kept_moves_to_a_new_root_secret() {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path(), &at_rest(1, &[]));
        let now = at_rest(2, &[1]);
        let expected = Resealed { changed: NAMES.len(), unchanged: 0 };
        assert_eq!(reseal_all(&store, &now).unwrap(), expected);
        // The old secret is of no more use.
        check(&store, &at_rest(2, &[]));
        let expected = Resealed { changed: 0, unchanged: NAMES.len() };
        assert_eq!(reseal_all(&store, &at_rest(2, &[])).unwrap(), expected);
    }

    #[test]
    fn what_was_interrupted_opens_and_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path(), &at_rest(1, &[]));
        let now = at_rest(2, &[1]);
        assert_eq!(reseal(&store, &now, NAMES[1]).unwrap(), Done::Changed);
        // What a write that was cut leaves is no sealed file.
        fs::write(directory.path().join("definitions/a/.new-x"), "half").unwrap();
        check(&store, &now);
        let expected = Resealed { changed: NAMES.len() - 1, unchanged: 1 };
        assert_eq!(reseal_all(&store, &now).unwrap(), expected);
        check(&store, &at_rest(2, &[]));
    }

    #[test]
    fn a_file_of_an_unknown_secret_is_named_and_left() {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path(), &at_rest(1, &[]));
        let before = fs::read(store.sealed_file(NAMES[0])).unwrap();
        let error = reseal_all(&store, &at_rest(2, &[3])).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().contains(".sealed`"), "{error}");
        assert!(source.contains("is under root secret"), "{source}");
        assert_eq!(fs::read(store.sealed_file(NAMES[0])).unwrap(), before);
    }

    #[test]
    fn a_file_that_calls_itself_current_is_opened_too() {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path(), &at_rest(1, &[]));
        let moved = fs::read(store.sealed_file(NAMES[1])).unwrap();
        fs::write(store.sealed_file(NAMES[3]), moved).unwrap();
        reseal_all(&store, &at_rest(1, &[])).unwrap_err();
    }
}
