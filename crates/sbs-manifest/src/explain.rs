//! A report in words, for people and for machines.

use std::error::Error;
use std::fmt::Write as _;

use serde::Serialize;

use crate::form::Form;
use crate::report::{Check, CheckName, NotMade, Outcome, Report};
use crate::unpack::Compatibility;

/// How much a report tells of each check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Detail {
    /// What came of it.
    Outcome,
    /// What it means and what was compared, too.
    Explained,
}

/// Where the key comes from that a manifest was verified with. The crate cannot know; whoever asks
/// for a report must say.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyOrigin {
    /// A file, or another place that the manifest does not come from.
    File,
    /// The server that the manifest comes from, over the same connection.
    Server,
}

/// A report as an object for machines. Texts are escaped.
#[derive(Clone, Debug, Serialize)]
pub struct ReportView {
    /// The form of this object: 1. Members may be added to it.
    pub schema: u32,
    /// The name of the manifest.
    pub manifest: String,
    /// `full` or `thin`.
    pub form: &'static str,
    /// The digest of the inner archive, which is what was signed.
    pub digest: String,
    /// Whether every check passed that a manifest of its kind has anything for.
    pub verified: bool,
    /// Every check.
    pub checks: Vec<CheckView>,
    /// What the record says, only where the manifest is verified.
    pub facts: serde_json::Map<String, serde_json::Value>,
    /// What is proved; nothing where the manifest is not verified.
    pub proved: Vec<String>,
    /// What is not proved, whatever came of the checks.
    pub not_proved: Vec<String>,
    /// The words of the weaknesses.
    pub weaknesses: Vec<&'static str>,
    /// Where the key comes from.
    pub key_source: KeyOrigin,
}

/// A check as an object for machines.
#[derive(Clone, Debug, Serialize)]
pub struct CheckView {
    /// The word of the check.
    pub name: &'static str,
    /// `passed`, `failed` or `not-made`.
    pub outcome: &'static str,
    /// What the check means.
    pub meaning: &'static str,
    /// What was compared, where it passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<String>,
    /// Why it failed or was not made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Report {
    /// Returns the report for machines.
    pub fn view(&self, key: KeyOrigin) -> ReportView {
        let facts = self.facts().into_iter();
        ReportView {
            schema: SCHEMA,
            manifest: self.subject.name.to_string(),
            form: self.subject.form.as_str(),
            digest: self.subject.digest.to_string(),
            verified: self.verified(),
            checks: self.checks().iter().map(CheckView::of).collect(),
            facts: facts.map(|(name, value)| (name.to_owned(), escaped(&value).into())).collect(),
            proved: self.proved(),
            not_proved: self.not_proved(key),
            weaknesses: self.weaknesses().iter().map(|weakness| weakness.as_str()).collect(),
            key_source: key,
        }
    }

    /// Returns the report for people: a line for each check, what is proved and what is not, and
    /// `verify=OK` or `verify=failed` at the end. Nothing in it moves a terminal's cursor.
    pub fn to_text(&self, detail: Detail, key: KeyOrigin) -> String {
        let view = self.view(key);
        let mut lines = vec![format!("manifest: {}", view.manifest)];
        if detail == Detail::Explained {
            lines.push(format!("form: {}, {}", view.form, view.digest));
        }
        for check in &view.checks {
            check.lines(detail, &mut lines);
        }
        for (name, value) in &view.facts {
            lines.push(format!("{name}: {}", value.as_str().unwrap_or_default()));
        }
        lines.extend(view.proved.iter().map(|text| format!("proved: {text}")));
        lines.extend(view.not_proved.iter().map(|text| format!("not proved: {text}")));
        lines.push(if view.verified { "verify=OK" } else { "verify=failed" }.to_owned());
        lines.join("\n")
    }

    /// Returns what the record says, only if it holds.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let Some(record) = self.subject.record.as_ref().filter(|_| self.verified()) else {
            return Vec::new();
        };
        vec![
            ("image", record.image.reference.to_string()),
            ("digest", record.image.digest.to_string()),
            ("source", record.source.url.clone()),
            ("commit", record.source.commit.to_string()),
        ]
    }

    fn proved(&self) -> Vec<String> {
        if !self.verified() {
            return Vec::new();
        }
        let mut proved = vec![
            "whoever has the private key of the given public key signed what is here, as it is"
                .to_owned(),
        ];
        if self.subject.compatibility == Compatibility::Original {
            return proved;
        }
        proved.push(
            "they state that the image above was built from the commit above, by the log and the \
             record that are here"
                .to_owned(),
        );
        let in_submodule = !self.unproven().is_empty();
        match self.subject.form {
            Form::Full if in_submodule => {
                proved.push("the files outside of submodules are those of that commit".to_owned());
            }
            Form::Full => proved
                .push("the files are those of that commit, all of them and no others".to_owned()),
            Form::Thin if in_submodule => {}
            Form::Thin => {
                let record = self.subject.record.as_ref();
                let path = record.map_or("", |record| record.engine.dockerfile.as_str());
                proved.push(format!("`{}` is that of that commit", escaped(path)));
            }
        }
        proved
    }

    fn not_proved(&self, key: KeyOrigin) -> Vec<String> {
        let mut open: Vec<String> = self.weaknesses().iter().map(ToString::to_string).collect();
        for path in self.unproven() {
            open.push(format!("the files of submodule `{path}` are those of its commit"));
        }
        if self.subject.form == Form::Thin {
            open.push(
                "which bytes the source has but for the Dockerfile: they are not here".to_owned(),
            );
            if !self.matched() {
                open.push(self.full_is_open());
            }
        }
        open.push(
            "that the build went as the record says: that is the word of whoever has the key"
                .to_owned(),
        );
        open.push(
            match key {
                KeyOrigin::File => {
                    "that the key is the build server's: that depends on where you have it from"
                }
                KeyOrigin::Server => {
                    "that the key is the build server's: it came over the same connection as the \
                     manifest; --manifest-key takes one that you have from elsewhere"
                }
            }
            .to_owned(),
        );
        open
    }

    fn full_is_open(&self) -> String {
        let full = self.subject.full.as_ref().filter(|_| self.verified());
        let which = full.map_or_else(String::new, |full| format!(" ({})", full.digest));
        format!("that the full manifest{which} still exists and holds: verify it, too")
    }

    fn matched(&self) -> bool {
        let matches = |check: &Check| matches!(check.outcome, Outcome::Passed);
        self.checks().iter().any(|check| check.name == CheckName::Match && matches(check))
    }
}

impl CheckView {
    fn of(check: &Check) -> Self {
        let (outcome, reason) = match &check.outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Failed(error) => ("failed", Some(escaped(&chain(error)))),
            Outcome::NotMade(why) => ("not-made", Some(why.to_string())),
        };
        Self {
            name: check.name.as_str(),
            outcome,
            meaning: check.name.meaning(),
            compared: Some(check.compared.clone()).filter(|text| !text.is_empty()),
            reason,
        }
    }

    fn lines(&self, detail: Detail, lines: &mut Vec<String>) {
        let name = self.name;
        let reason = self.reason.as_deref().unwrap_or_default();
        lines.push(match (self.outcome, detail) {
            ("passed", _) => format!("passed: {name}"),
            ("failed", _) => format!("FAILED: {name}: {reason}"),
            (_, Detail::Outcome) => format!("not made: {name}"),
            (_, Detail::Explained) => format!("not made: {name}: {reason}"),
        });
        if detail == Detail::Explained {
            lines.push(format!("    {}", self.meaning));
            lines.extend(self.compared.iter().map(|text| format!("    compared: {text}")));
        }
    }
}

impl CheckName {
    /// Returns one sentence on what the check means.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Envelope => "There is one archive and one signature of it, and nothing else.",
            Self::Signature => "The given key signed the archive, every byte of it.",
            Self::Layout => {
                "The archive has the entries of a manifest in their one order, all of them plain \
                 files and directories, and nothing follows."
            }
            Self::Record => "The build record can be read and has a form that is known here.",
            Self::BuildName => {
                "The name of the manifest, which is not signed, is that of the build in the record."
            }
            Self::ImageTag => "The tag of the image is the one that this commit gives it.",
            Self::ManifestKey => "The record names the given key and no other.",
            Self::Commit => "The commit object here is the commit that the record names.",
            Self::CommitTime => {
                "The record, the commit object and the entries all have the commit's time."
            }
            Self::Tree => {
                "The list of files, hashed as git does, is the tree that the commit object names."
            }
            Self::Source => {
                "Each file, hashed as git does, is in the list of files; none is missing or left \
                 over."
            }
            Self::Dockerfile => {
                "The Dockerfile, hashed as git does, is in the list of files, and is the only file \
                 here."
            }
            Self::Full => "The manifest names the digest of the full one that it stands for.",
            Self::Match => "The given full manifest is the one that the thin one stands for.",
        }
    }
}

impl std::fmt::Display for NotMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::After(check) => write!(f, "it builds on `{check}`, which did not pass"),
            Self::NothingFor => f.write_str("a manifest of the original has nothing for it"),
        }
    }
}

/// Returns text in which everything that is not printed as it is stands as its number: control
/// characters, also those that turn the direction of writing, and what has no shape.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // They have no effect on a terminal, and text with them is easier to read without.
        if matches!(c, '"' | '\'' | '\\') {
            safe.push(c);
        } else {
            let _infallible = write!(safe, "{}", c.escape_debug());
        }
    }
    safe
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _infallible = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}

const SCHEMA: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_nothing_that_controls_a_terminal_stays() {
        let hostile = "a\u{1b}[2J\u{9b}1m\u{7f}\r\n\t\u{202e}\u{2066}\u{e0041}\u{200b}\u{300}\0";
        let text = escaped(hostile);
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        assert!(text.chars().all(plain), "{text:?}");
        assert_eq!(escaped(r#"a "b" 'c' \d ü 語"#), r#"a "b" 'c' \d ü 語"#);
    }
}
