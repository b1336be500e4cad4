//! Changes of the configuration file that commands make, each kept before the next step is taken.

use std::fs::{self, File};

use sbs_proto::{StateSecret, key};
use time::OffsetDateTime;

use super::{Config, OpenConfigError, PENDING_SECRET, STATE_MIN_EPOCH, parse};
use crate::file::{self, ReadFileError};
use crate::json::Object;
use crate::limits::CONFIG_BYTES;

/// What became of a wish to pin an epoch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pin {
    /// A higher one is pinned already.
    Higher(u64),
    /// It is pinned now, or was before.
    Pinned,
}

impl Config {
    /// Keeps a secret that is going to take the place of SECRET, before anybody else is told of it.
    pub(crate) fn begin_rotation(
        &self,
        new: &StateSecret,
        now: OffsetDateTime,
    ) -> Result<(), OpenConfigError> {
        self.change(now, |members| {
            // Another run has begun one, or ended one.
            let same = |key| members.value(key) == self.members.value(key);
            if !same(PENDING_SECRET) || !same(key::SECRET) {
                return Err(OpenConfigError::Changed);
            }
            members.set(PENDING_SECRET, &new.expose_base64());
            Ok(())
        })
    }

    /// Makes the new secret, which the server has, SECRET.
    pub(crate) fn end_rotation(
        &self,
        new: &StateSecret,
        now: OffsetDateTime,
    ) -> Result<(), OpenConfigError> {
        self.change(now, |members| {
            let text = new.expose_base64();
            members.set(key::SECRET, &text);
            if members.value(PENDING_SECRET).and_then(|value| value.as_str()) == Some(&text) {
                members.remove(PENDING_SECRET);
            }
            Ok(())
        })
    }

    /// Pins the epoch of a state image that was saved, so that none older is imported by mistake.
    pub(crate) fn pin_epoch(
        &self,
        epoch: u64,
        now: OffsetDateTime,
    ) -> Result<Pin, OpenConfigError> {
        match self.min_epoch()? {
            Some(pinned) if pinned > epoch => Ok(Pin::Higher(pinned)),
            Some(pinned) if pinned == epoch => Ok(Pin::Pinned),
            _ => {
                self.change(now, |members| {
                    members.set(STATE_MIN_EPOCH, &epoch.to_string());
                    Ok(())
                })?;
                Ok(Pin::Pinned)
            }
        }
    }

    /// Changes the file as it is now, which others may have changed since it was read.
    fn change(
        &self,
        now: OffsetDateTime,
        edit: impl FnOnce(&mut Object) -> Result<(), OpenConfigError>,
    ) -> Result<(), OpenConfigError> {
        let failed = |source| ReadFileError::Io { path: self.path.clone(), source };
        let target = fs::canonicalize(&self.path).map_err(failed)?;
        // The file itself is replaced; its directory stays, and a lock on it ends with this.
        let directory = File::open(file::directory_of(&target)).map_err(failed)?;
        directory.lock().map_err(failed)?;
        let old = file::read(&target, CONFIG_BYTES)?;
        let mut members = parse(&old)?;
        edit(&mut members)?;
        let changed = Self { members, path: target };
        changed.rewrite(&old, now)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-02 03:04:05 UTC);
    const LATER: OffsetDateTime = datetime!(2026-01-02 03:04:06 UTC);

    fn opened(more: &Value) -> (tempfile::TempDir, Config) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env.json");
        let mut json = json!({"Secret": secret(1), "UUID": "u-1", "RUNTIME_TYPE": "vpc"});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fs::write(&path, json.to_string()).unwrap();
        let (config, _) = Config::open(&path, NOW).unwrap();
        (directory, config)
    }

    fn secret(byte: u8) -> String {
        StateSecret::from_bytes([byte; 128]).expose_base64().to_string()
    }

    fn on_disk(directory: &tempfile::TempDir) -> Value {
        serde_json::from_slice(&fs::read(directory.path().join("env.json")).unwrap()).unwrap()
    }

    #[test]
    fn s19_at_every_step_both_secrets_are_on_the_disk() {
        let (directory, config) = opened(&json!({}));
        let new = StateSecret::from_bytes([2; 128]);
        config.begin_rotation(&new, NOW).unwrap();
        let json = on_disk(&directory);
        assert_eq!(
            (&json["Secret"], &json["PENDING_SECRET"]),
            (&secret(1).into(), &secret(2).into())
        );
        config.end_rotation(&new, LATER).unwrap();
        let json = on_disk(&directory);
        assert_eq!((&json["Secret"], json.get("PENDING_SECRET")), (&secret(2).into(), None));
        for name in [
            "env.json",
            "env.json.2026-01-02_03-04-05.000000",
            "env.json.2026-01-02_03-04-06.000000",
        ] {
            let path = directory.path().join(name);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        }
        let old = directory.path().join("env.json.2026-01-02_03-04-06.000000");
        assert!(fs::read_to_string(old).unwrap().contains(&secret(1)));
        // Once more changes nothing but the time of the backup.
        config.end_rotation(&new, datetime!(2026-01-02 03:04:07 UTC)).unwrap();
        assert_eq!(on_disk(&directory), json);
    }

    #[test]
    fn s19_two_runs_do_not_begin_two_changes_of_the_secret() {
        let (directory, first) = opened(&json!({}));
        let (second, _) = Config::open(&directory.path().join("env.json"), NOW).unwrap();
        first.begin_rotation(&StateSecret::from_bytes([2; 128]), NOW).unwrap();
        let other = StateSecret::from_bytes([3; 128]);
        let error = second.begin_rotation(&other, LATER).unwrap_err();
        assert!(matches!(error, OpenConfigError::Changed), "{error}");
        assert_eq!(on_disk(&directory)["PENDING_SECRET"], secret(2));
        // Whose end it is does not matter; what another run wrote meanwhile is kept.
        second.end_rotation(&other, LATER).unwrap();
        let json = on_disk(&directory);
        assert_eq!(
            (&json["Secret"], &json["PENDING_SECRET"]),
            (&secret(3).into(), &secret(2).into())
        );
    }

    #[test]
    fn s12_the_pinned_epoch_only_grows() {
        for (before, epoch, pin, after) in [
            (json!({}), 7, Pin::Pinned, json!("7")),
            (json!({"STATE_MIN_EPOCH": 6}), 7, Pin::Pinned, json!("7")),
            (json!({"STATE_MIN_EPOCH": "6"}), 7, Pin::Pinned, json!("7")),
            (json!({"STATE_MIN_EPOCH": "7"}), 7, Pin::Pinned, json!("7")),
            (json!({"STATE_MIN_EPOCH": 8}), 7, Pin::Higher(8), json!(8)),
        ] {
            let (directory, config) = opened(&before);
            assert_eq!(config.pin_epoch(epoch, NOW).unwrap(), pin, "{before}");
            assert_eq!(on_disk(&directory)["STATE_MIN_EPOCH"], after, "{before}");
        }
        for wrong in [json!("x"), json!(-1), json!([1])] {
            let (_directory, config) = opened(&json!({"STATE_MIN_EPOCH": wrong}));
            let error = config.pin_epoch(7, NOW).unwrap_err();
            assert_eq!(error.to_string(), "STATE_MIN_EPOCH must be a number");
        }
    }

    #[test]
    fn a_secret_that_is_none_is_not_repeated() {
        let (_directory, config) = opened(&json!({"Secret": "canary", "PENDING_SECRET": "canary"}));
        for error in [config.secret().unwrap_err(), config.pending_secret().unwrap_err()] {
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}
