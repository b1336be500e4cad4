use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::{Path, PathBuf};

use sbs_client::Shown;
use sbs_crypto::ManifestVerifyingKey;
use sbs_manifest::{
    Compatibility, Limits, Manifest, ManifestSignature, Outcome, ReadManifestError, Report,
    UnverifiedManifest,
};
use sbs_proto::BuildRecord;
use serde_json::{Value, json};

use crate::error::{CommandError, Kind, chain};
use crate::file;
use crate::limits::PEM_BYTES;
use crate::ui::Ui;

/// Where the key comes from that a manifest is verified with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum KeySource {
    /// A file of the user's.
    File(PathBuf),
    /// The server that the manifest comes from.
    Server,
}

/// A manifest whose signature is good, with its two parts.
pub(crate) struct Opened {
    /// The inner archive, from its start.
    pub(crate) inner: File,
    manifest: Manifest<File>,
    pub(crate) signature: ManifestSignature,
}

/// Verifies a manifest file with a key file.
pub(crate) fn run(
    path: &Path,
    key: &Path,
    form: Compatibility,
    ui: &Ui,
) -> Result<(), CommandError> {
    let key_file = KeySource::File(key.to_owned());
    let key = read_key(key)?;
    let archive = file::open(path)?;
    let mut opened = open(archive, &key, form)?;
    let expected = format!("{}.sig.tbz", opened.manifest.name());
    if path.file_name().is_none_or(|name| *name != *expected) {
        ui.note(format_args!("the file was named {expected} when it was made"));
    }
    opened.report(&key_file, ui)
}

/// Says whose manifests are accepted.
pub(crate) fn form(original: bool) -> Compatibility {
    if original { Compatibility::Original } else { Compatibility::Strict }
}

/// Reads a file with the public key of a manifest.
pub(crate) fn read_key(path: &Path) -> Result<ManifestVerifyingKey, CommandError> {
    let hint = format!(
        "`{}` must be the RSA public key of a manifest, PEM, as sbs get-publickey saves it",
        path.display()
    );
    parse_key(&file::read_text(path, PEM_BYTES)?).map_err(|error| error.hint(hint))
}

/// Parses the public key of a manifest.
pub(crate) fn parse_key(pem: &str) -> Result<ManifestVerifyingKey, CommandError> {
    ManifestVerifyingKey::from_pem(pem).map_err(|error| CommandError::new(Kind::Config, error))
}

/// Reads a manifest and verifies its signature.
pub(crate) fn open(
    archive: impl Read,
    key: &ManifestVerifyingKey,
    form: Compatibility,
) -> Result<Opened, CommandError> {
    let local = |error: std::io::Error| CommandError::new(Kind::Config, error);
    // It has no name: nobody else can change it between the check and its use.
    let spool = tempfile::tempfile().map_err(local)?;
    let mut inner = spool.try_clone().map_err(local)?;
    let unverified = UnverifiedManifest::read(archive, spool, form, &Limits::default());
    let unverified = unverified.map_err(|error| match error {
        ReadManifestError::Spool(_) => CommandError::new(Kind::Config, error),
        error => with_hint(CommandError::new(Kind::Unverified, error), form),
    })?;
    let signature = unverified.signature().clone();
    let manifest = unverified.verify(key).map_err(|error| {
        CommandError::new(Kind::Unverified, error).hint(
            "is the key that of this build? each key is for one image definition of one server",
        )
    })?;
    inner.rewind().map_err(local)?;
    Ok(Opened { inner, manifest, signature })
}

impl Opened {
    /// Makes and prints every check; an error if one does not hold.
    pub(crate) fn report(&mut self, key: &KeySource, ui: &Ui) -> Result<(), CommandError> {
        let form = self.manifest.compatibility();
        let report = self.manifest.check();
        let verified = match form {
            Compatibility::Original => !report.any_failed(),
            Compatibility::Strict => report.all_passed(),
        };
        // What the record says is shown only if it holds.
        let record = if verified { self.manifest.record().ok() } else { None };
        let findings = Findings { key, record, report, verified };
        ui.result(findings.to_text(self), findings.to_json(self))?;
        if verified {
            return Ok(());
        }
        let error = CommandError::new(Kind::Unverified, "the manifest does not hold");
        Err(with_hint(error, form))
    }
}

/// What is printed of a verification.
struct Findings<'a> {
    key: &'a KeySource,
    record: Option<BuildRecord>,
    report: Report,
    verified: bool,
}

impl Findings<'_> {
    fn to_text(&self, opened: &Opened) -> String {
        let mut text = format!("manifest: {}\n", opened.manifest.name());
        for check in self.report.checks() {
            let _infallible = match &check.outcome {
                Outcome::Passed => writeln!(text, "passed: {}", check.name),
                Outcome::Failed(error) => {
                    let reason = chain(error);
                    writeln!(text, "FAILED: {}: {}", check.name, Shown::line(&reason))
                }
                Outcome::NotMade => writeln!(text, "not made: {}", check.name),
            };
        }
        for (name, value) in self.facts() {
            let _infallible = writeln!(text, "{name}: {}", Shown::line(&value));
        }
        for unproven in self.unproven() {
            let _infallible = writeln!(text, "not proved: {}", Shown::line(&unproven));
        }
        text.push_str(if self.verified { "verify=OK" } else { "verify=failed" });
        text
    }

    fn to_json(&self, opened: &Opened) -> Value {
        let checks: Vec<Value> = self
            .report
            .checks()
            .iter()
            .map(|check| match &check.outcome {
                Outcome::Passed => json!({"name": check.name.as_str(), "outcome": "passed"}),
                Outcome::Failed(error) => json!({
                    "name": check.name.as_str(), "outcome": "failed", "reason": chain(error),
                }),
                Outcome::NotMade => json!({"name": check.name.as_str(), "outcome": "not-made"}),
            })
            .collect();
        let weaknesses: Vec<_> = self.report.weaknesses().iter().map(|w| w.as_str()).collect();
        let facts: serde_json::Map<String, Value> =
            self.facts().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        json!({
            "checks": checks,
            "facts": facts,
            "key_source": match self.key { KeySource::File(_) => "file", KeySource::Server => "server" },
            "manifest": opened.manifest.name().as_str(),
            "not_proved": self.unproven(),
            "verified": self.verified,
            "weaknesses": weaknesses,
        })
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let Some(record) = &self.record else { return Vec::new() };
        vec![
            ("image", record.image.reference.to_string()),
            ("digest", record.image.digest.to_string()),
            ("source", record.source.url.clone()),
            ("commit", record.source.commit.to_string()),
        ]
    }

    fn unproven(&self) -> Vec<String> {
        let mut unproven: Vec<String> =
            self.report.weaknesses().iter().map(ToString::to_string).collect();
        for path in self.report.unproven() {
            unproven.push(format!("the files of submodule `{path}` are those of its commit"));
        }
        unproven.push(match self.key {
            KeySource::File(_) => {
                "that the key is the build server's: that depends on where you have it from"
                    .to_owned()
            }
            KeySource::Server => "that the key is the build server's: it came over the same \
                connection as the manifest; --manifest-key takes one that you have from elsewhere"
                .to_owned(),
        });
        unproven
    }
}

fn with_hint(error: CommandError, form: Compatibility) -> CommandError {
    match form {
        Compatibility::Original => error,
        Compatibility::Strict => {
            error.hint("is the file whole? if the original server made it, give --original")
        }
    }
}
