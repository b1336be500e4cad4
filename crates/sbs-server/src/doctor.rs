//! `sbs-server doctor`: tries what the server will need on this machine, and says what is not as it
//! should be. Nothing is changed, and a server that runs is not disturbed.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use sbs_crypto::pki;
use sbs_proto::CertificateFacts;
use thiserror::Error;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::admin::{SOCKET, told};
use crate::build::environment::{Environment, probe_engine};
use crate::build::failure::chain;
use crate::config::{Identity, LoadSettingsError, Settings, credentials_directory};
use crate::env_file::{self, ReadEnvFileError};
use crate::root_secret;
use crate::run::load_settings;
use crate::tool;

/// Looks at everything. Returns what to tell, with whether something is at fault.
pub(crate) fn run(
    config: Option<&Path>,
    env_file: Option<&Path>,
    now: OffsetDateTime,
) -> Result<Report, DoctorError> {
    let settings = load_settings(config)?;
    let identity = match env_file {
        Some(path) => Some(env_file::read(path)?),
        None => None,
    };
    let mut report = Report::default();
    report.programs();
    report.root_secret(&settings);
    report.data_directory(&settings);
    report.build_environment(&settings)?;
    report.certificates(&settings, identity.as_ref(), now);
    Ok(report)
}

/// What was found, a line for each look.
#[derive(Debug, Default)]
pub(crate) struct Report {
    text: String,
    faults: usize,
}

impl Report {
    /// Returns the lines, and an error if one tells of a fault.
    pub(crate) fn finish(self) -> (String, Result<(), DoctorError>) {
        let faults = self.faults;
        (self.text, if faults == 0 { Ok(()) } else { Err(DoctorError::Faults { faults }) })
    }

    fn good(&mut self, subject: &str, text: &str) {
        let _infallible = writeln!(self.text, "ok       {subject:<19} {text}");
    }

    fn warning(&mut self, subject: &str, text: &str) {
        let _infallible = writeln!(self.text, "warning  {subject:<19} {text}");
    }

    fn fault(&mut self, subject: &str, text: &str) {
        self.faults += 1;
        let _infallible = writeln!(self.text, "fault    {subject:<19} {text}");
    }

    fn result(&mut self, subject: &str, good: &str, result: Result<(), &(dyn StdError + 'static)>) {
        match result {
            Ok(()) => self.good(subject, good),
            Err(error) => self.fault(subject, &chain(error)),
        }
    }

    fn programs(&mut self) {
        let missing: Vec<_> = PROGRAMS.into_iter().filter(|name| !tool::is_there(name)).collect();
        if missing.is_empty() {
            self.good("programs", &PROGRAMS.join(", "));
        } else {
            let text = format!(
                "{} are missing; docs/operations.md names the packages",
                missing.join(", ")
            );
            self.fault("programs", &text);
        }
    }

    fn root_secret(&mut self, settings: &Settings) {
        const SUBJECT: &str = "root secret";
        if root_secret::is_missing(&settings.root_secret) {
            self.fault(SUBJECT, "there is none: sbs-server root-secret init, or run --init");
            return;
        }
        match root_secret::open(&settings.root_secret, credentials_directory().as_deref()) {
            Err(error) => self.fault(SUBJECT, &chain(&error)),
            Ok(ring) if root_secret::is_for_development(ring.current()) => {
                let text = "in a file: who copies the disk may have the keys; `provider` in \
                     [root-secret] can be systemd or tpm2";
                self.warning(SUBJECT, text);
            }
            Ok(ring) => self.good(SUBJECT, ring.current().name()),
        }
    }

    fn data_directory(&mut self, settings: &Settings) {
        const SUBJECT: &str = "data directory";
        let path = &settings.data_directory;
        let there = nearest(path);
        match statvfs(&there) {
            Err(error) => self.fault(SUBJECT, &format!("`{}`: {error}", there.display())),
            Ok(system) => {
                let free = system.f_bavail.saturating_mul(system.f_frsize) / GIB;
                let text = format!("`{}`, {free} GiB free", path.display());
                if free < ROOM_GIB {
                    let text = format!("{text}; builds and their base images need some {ROOM_GIB}");
                    self.warning(SUBJECT, &text);
                } else {
                    self.good(SUBJECT, &text);
                }
            }
        }
    }

    fn build_environment(&mut self, settings: &Settings) -> Result<(), DoctorError> {
        let checked = Environment::check(settings);
        self.result(
            "registries",
            "settings can be used",
            checked.as_ref().map(drop).map_err(|e| e as _),
        );
        // Beside the server's own, which may be in use.
        let scratch = tempfile::tempdir_in(nearest(&settings.data_directory))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(probe_engine(scratch.path(), settings)) {
            Err(error) => self.fault("build engine", &chain(&error)),
            Ok(engine) => {
                let text = format!("buildah {}, {}", engine.version(), engine.isolation());
                self.good("build engine", &text);
                for warning in engine.warnings() {
                    self.warning("build engine", warning);
                }
            }
        }
        Ok(())
    }

    fn certificates(
        &mut self,
        settings: &Settings,
        identity: Option<&Identity>,
        now: OffsetDateTime,
    ) {
        if let Some(Identity { client_ca, server, .. }) = identity {
            let server = server.iter().map(|(pem, _)| ("server certificate", pem));
            for (subject, pem) in server.chain([("client authority", client_ca)]) {
                match pki::describe(pem) {
                    Ok(info) => self.end(subject, info.not_after, now),
                    Err(error) => self.fault(subject, &chain(&error)),
                }
            }
        }
        if !settings.data_directory.join(SOCKET).exists() {
            return self.good("server", "does not run");
        }
        match told(&settings.data_directory) {
            Err(error) => self.warning("server", &format!("does not run: {}", chain(&error))),
            Ok(told) => {
                self.good("server", "runs");
                self.end_of("its certificate", &told.server, now);
                for authority in &told.client_authorities {
                    self.end_of("its authority", authority, now);
                }
            }
        }
    }

    fn end_of(&mut self, subject: &str, facts: &CertificateFacts, now: OffsetDateTime) {
        match OffsetDateTime::parse(&facts.not_after, &Rfc3339) {
            Ok(end) => self.end(subject, end, now),
            Err(error) => self.fault(subject, &chain(&error)),
        }
    }

    fn end(&mut self, subject: &str, end: OffsetDateTime, now: OffsetDateTime) {
        if end < now {
            let text = format!(
                "ended on {}; see \"The server's certificates\" in docs/operations.md",
                end.date()
            );
            self.fault(subject, &text);
        } else if end < now + EARLY_WARNING {
            self.warning(subject, &format!("valid until {} and not longer: renew it", end.date()));
        } else {
            self.good(subject, &format!("valid until {}", end.date()));
        }
    }
}

/// Returns the directory itself or, before it is made, the one above it that is there.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or_else(|| Path::new("/")).to_owned()
}

/// Why the doctor has no good news.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum DoctorError {
    /// The file with the variables cannot be used.
    #[error(transparent)]
    EnvFile(#[from] ReadEnvFileError),

    /// Something is at fault.
    #[error("{faults} of the checks found a fault")]
    Faults { faults: usize },

    /// The settings cannot be used.
    #[error("the settings cannot be used")]
    Settings(#[from] LoadSettingsError),

    /// There is no place to try the engine in.
    #[error("cannot try the build engine")]
    Scratch(#[from] std::io::Error),
}

/// What the server starts, besides an OCI runtime, which the engine's trial needs.
const PROGRAMS: [&str; 8] =
    ["buildah", "git", "ip", "mount", "prlimit", "ssh", "ssh-keygen", "unshare"];

/// As much as a few large images and their layers take.
const ROOM_GIB: u64 = 10;
const GIB: u64 = 1024 * 1024 * 1024;
const EARLY_WARNING: Duration = Duration::days(30);

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::root_secret::RootSecretSettings;

    #[test]
    fn what_is_missing_or_ended_is_a_fault_and_what_soon_ends_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.root_secret.file = directory.path().join("root-secret");
        settings.data_directory = directory.path().join("not/yet");
        let mut report = Report::default();
        report.root_secret(&settings);
        report.data_directory(&settings);
        let now = datetime!(2027-01-01 00:00 UTC);
        for end in [
            datetime!(2026-12-31 23:59 UTC),
            datetime!(2027-01-30 00:00 UTC),
            datetime!(2027-02-01 00:00 UTC),
        ] {
            report.end("certificate", end, now);
        }
        report.certificates(&settings, None, now);
        let (text, outcome) = report.finish();
        let outcomes: Vec<_> = text
            .lines()
            .filter(|line| !line.contains("data directory"))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(outcomes, ["fault", "fault", "warning", "ok", "ok"], "{text}");
        assert!(text.contains("not/yet`, ") && text.contains("GiB free"), "{text}");
        assert!(matches!(outcome, Err(DoctorError::Faults { faults: 2 })), "{outcome:?}");

        // The secret is read, not only looked for.
        std::fs::write(&settings.root_secret.file, "no secret").unwrap();
        let mut report = Report::default();
        report.root_secret(&settings);
        assert!(report.text.starts_with("fault"), "{}", report.text);
        root_secret::init(
            &RootSecretSettings {
                file: directory.path().join("good"),
                ..settings.root_secret.clone()
            },
            None,
            None,
        )
        .unwrap();
        settings.root_secret.file = directory.path().join("good");
        let mut report = Report::default();
        report.root_secret(&settings);
        assert!(report.text.starts_with("warning"), "{}", report.text);
    }

    #[test]
    fn settings_that_cannot_be_used_are_a_fault_and_the_engine_is_tried() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings =
            Settings { data_directory: directory.path().to_owned(), ..Settings::default() };
        settings.registry.ca_file = Some(directory.path().join("missing.pem"));
        let mut report = Report::default();
        report.build_environment(&settings).unwrap();
        assert!(report.text.contains("fault    registries"), "{}", report.text);
        assert!(report.text.contains("ok       build engine        buildah "), "{}", report.text);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something was left");
    }
}
