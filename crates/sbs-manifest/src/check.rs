use std::collections::BTreeSet;
use std::io::{Read, Seek};

use sbs_crypto::ManifestVerifyingKey;
use sbs_crypto::git::{ObjectFormat, ObjectKind, object_id};
use sbs_proto::{BuildRecord, BuildStatus, CommitId, ImageTag, RECORD_SCHEMA, SourceRecord};

use crate::header::header_time;
use crate::layout::{COMMIT, RECORD, SOURCE, TREE};
use crate::manifest::{Entry, Manifest, ReadEntryError};
use crate::path::shown;
use crate::report::{CheckError, CheckName, Outcome, Report};
use crate::source::{CommitFacts, SourceError, SourceProof, root_tree};
use crate::unpack::{Compatibility, UnpackError};
use crate::weakness::Weakness;

impl<S: Read + Seek> Manifest<S> {
    /// Reads the whole manifest and holds what it says against itself.
    ///
    /// A report in which every check passed, and whose list of what is not proved is empty, says:
    /// whoever has the manifest key states that the image of the record was built from exactly
    /// these files, and these files are exactly those of the recorded commit.
    pub fn check(&mut self) -> Report {
        let mut findings = Findings::default();
        let layout = findings.collect(self);
        let weaknesses = self.weaknesses().union(&findings.weaknesses).copied().collect();
        let mut report = Report::new(weaknesses, findings.unproven());
        // The manifest was read and verified: there is no other way to come here.
        report.add(CheckName::Envelope, Outcome::Passed);
        report.add(CheckName::Signature, Outcome::Passed);
        report.add(CheckName::Layout, outcome(layout.map_err(CheckError::Read)));
        match self.compatibility() {
            Compatibility::Original => findings.report_status(self, &mut report),
            Compatibility::Strict => findings.report_record(self, &mut report),
        }
        report
    }
}

/// What one pass over the entries finds. What was not reached stays empty.
#[derive(Debug, Default)]
struct Findings {
    json: Option<Vec<u8>>,
    time: Option<u64>,
    commit: Option<Vec<u8>>,
    tree: Option<Result<CommitId, SourceError>>,
    source: Option<Result<BTreeSet<Vec<u8>>, SourceError>>,
    weaknesses: BTreeSet<Weakness>,
}

impl Findings {
    fn collect<S: Read + Seek>(
        &mut self,
        manifest: &mut Manifest<S>,
    ) -> Result<(), ReadEntryError> {
        let limits = manifest.limits();
        let strict = manifest.compatibility() == Compatibility::Strict;
        let mut proof = None;
        let mut entries = manifest.entries()?;
        while let Some(entry) = entries.next_entry()? {
            let path = entry.path().clone();
            let name = path.as_bytes();
            if name == RECORD.as_bytes() {
                self.time = Some(entry.time());
                self.json = Some(entry.bytes(limits.record_bytes)?);
            } else if strict && name == COMMIT.as_bytes() {
                self.commit = Some(entry.bytes(limits.commit_bytes)?);
            } else if strict && name == TREE.as_bytes() {
                proof = self.begin_proof(entry.bytes(limits.listing_bytes)?);
            } else if let Some(path) = name.strip_prefix(SOURCE)
                && let Some(Ok(running)) = &mut proof
                && let Err(error) = visit(running, path, entry)?
            {
                proof = Some(Err(error));
            }
        }
        self.weaknesses = entries.weaknesses();
        self.source = proof.map(|proof| proof.and_then(SourceProof::finish));
        Ok(())
    }

    /// Returns the submodules, for people.
    fn unproven(&self) -> Vec<String> {
        let Some(Ok(submodules)) = &self.source else {
            return Vec::new();
        };
        submodules.iter().map(|path| shown(path)).collect()
    }

    /// Computes the tree that a listing describes; without a record there is nothing to hold it
    /// against.
    fn begin_proof(&mut self, listing: Vec<u8>) -> Option<Result<SourceProof, SourceError>> {
        let record: BuildRecord = sbs_proto::parse_json(self.json.as_deref()?).ok()?;
        let format = ObjectFormat::of(&record.source.commit);
        self.tree = Some(root_tree(&listing, format));
        Some(Ok(SourceProof::new(listing, format)))
    }

    fn report_record<S: Read + Seek>(&self, manifest: &Manifest<S>, report: &mut Report) {
        let record = match self.json.as_deref().map(sbs_proto::parse_json::<BuildRecord>) {
            Some(Ok(record)) => record,
            Some(Err(error)) => {
                report.add(CheckName::Record, Outcome::Failed(CheckError::Record(error)));
                report.not_made(&AFTER_RECORD);
                return;
            }
            None => {
                report.not_made(&[CheckName::Record]);
                report.not_made(&AFTER_RECORD);
                return;
            }
        };
        let schema = agree("schema of the build record", RECORD_SCHEMA, &record.schema);
        report.add(CheckName::Record, outcome(schema));
        report.add(CheckName::BuildName, outcome(build_name(manifest, &record.status)));
        report.add(CheckName::ImageTag, outcome(image_tag(&record)));
        report.add(CheckName::ManifestKey, outcome(manifest_key(manifest, &record)));
        self.report_commit(&record.source, report);
    }

    fn report_commit(&self, source: &SourceRecord, report: &mut Report) {
        let Some(commit) = &self.commit else {
            report.not_made(&[CheckName::Commit, CheckName::CommitTime, CheckName::Tree]);
            report.not_made(&[CheckName::Source]);
            return;
        };
        let id = object_id(ObjectKind::Commit, commit, ObjectFormat::of(&source.commit));
        let same = agree("id of the commit object", source.commit.as_str(), id.as_str());
        report.add(CheckName::Commit, outcome(same));
        if let Some(facts) = CommitFacts::parse(commit) {
            report.add(CheckName::CommitTime, outcome(self.commit_time(&facts, source)));
            self.report_tree(&facts, source, report);
        } else {
            report.add(CheckName::CommitTime, Outcome::Failed(CheckError::Commit));
            report.add(CheckName::Tree, Outcome::Failed(CheckError::Commit));
        }
        let source = match &self.source {
            Some(Ok(_)) => Outcome::Passed,
            Some(Err(error)) => Outcome::Failed(CheckError::Source(error.clone())),
            None => Outcome::NotMade,
        };
        report.add(CheckName::Source, source);
    }

    /// The commit's time is also that of every entry, which the layout has found to be one.
    fn commit_time(&self, facts: &CommitFacts, source: &SourceRecord) -> Result<(), CheckError> {
        let recorded = source.commit_time;
        agree("time of the commit object", &recorded.to_string(), &facts.time.to_string())?;
        let entries = self.time.unwrap_or_default();
        agree("time of the entries", &header_time(recorded).to_string(), &entries.to_string())
    }

    fn report_tree(&self, facts: &CommitFacts, source: &SourceRecord, report: &mut Report) {
        let tree = match &self.tree {
            None => Outcome::NotMade,
            Some(Err(error)) => Outcome::Failed(CheckError::Source(error.clone())),
            Some(Ok(listed)) => outcome(
                agree("tree of the commit object", source.tree.as_str(), facts.tree.as_str())
                    .and_then(|()| {
                        agree("tree of the listing", source.tree.as_str(), listed.as_str())
                    }),
            ),
        };
        report.add(CheckName::Tree, tree);
    }

    /// Makes the checks that a manifest of the original has anything for.
    fn report_status<S: Read + Seek>(&self, manifest: &Manifest<S>, report: &mut Report) {
        match self.json.as_deref().map(sbs_proto::parse_json::<BuildStatus>) {
            Some(Ok(status)) => {
                report.add(CheckName::Record, Outcome::Passed);
                report.add(CheckName::BuildName, outcome(build_name(manifest, &status)));
            }
            Some(Err(error)) => {
                report.add(CheckName::Record, Outcome::Failed(CheckError::Record(error)));
                report.not_made(&[CheckName::BuildName]);
            }
            None => report.not_made(&[CheckName::Record, CheckName::BuildName]),
        }
        let (_, rest) = AFTER_RECORD.split_at(1);
        report.not_made(rest);
    }
}

fn visit<S: Read>(
    proof: &mut SourceProof,
    path: &[u8],
    entry: Entry<'_, '_, S>,
) -> Result<Result<(), SourceError>, ReadEntryError> {
    let expected = match proof.expect(path, entry.kind()) {
        Ok(Some(id)) => id,
        Ok(None) => return Ok(Ok(())),
        Err(error) => return Ok(Err(error)),
    };
    let id = proof.blob_id(entry.size(), entry).map_err(UnpackError::from_io)?;
    Ok(if id == expected { Ok(()) } else { Err(SourceError::Content(shown(path))) })
}

fn build_name<S: Read + Seek>(
    manifest: &Manifest<S>,
    status: &BuildStatus,
) -> Result<(), CheckError> {
    let recorded = status.build_name.as_deref().unwrap_or_default();
    agree("build name of the manifest", recorded, manifest.name().build_name().as_str())
}

/// The tag is `<prefix>-<first 7 digits of the commit>`, or the digits alone.
fn image_tag(record: &BuildRecord) -> Result<(), CheckError> {
    let tag = record.image.reference.tag().map(ImageTag::as_str).unwrap_or_default();
    let named = record.status.image_tag.as_deref().unwrap_or_default();
    agree("image tag of the status", tag, named)?;
    let digits = tag.rsplit('-').next().unwrap_or(tag);
    agree("end of the image tag", record.source.commit.short(), digits)
}

/// The record holds the key as text; the keys themselves are compared.
fn manifest_key<S: Read + Seek>(
    manifest: &Manifest<S>,
    record: &BuildRecord,
) -> Result<(), CheckError> {
    let recorded = ManifestVerifyingKey::from_pem(&record.manifest_public_key_pem)
        .map_err(|_| CheckError::Key)?;
    if recorded.to_pem() == manifest.key_pem() { Ok(()) } else { Err(CheckError::Key) }
}

fn agree(what: &'static str, expected: &str, got: &str) -> Result<(), CheckError> {
    if expected == got {
        return Ok(());
    }
    let [expected, got] = [expected, got].map(|text| shown(text.as_bytes()));
    Err(CheckError::Differs { what, expected, got })
}

fn outcome(result: Result<(), CheckError>) -> Outcome {
    result.map_or_else(Outcome::Failed, |()| Outcome::Passed)
}

/// The checks that need what is in the build record.
const AFTER_RECORD: [CheckName; 7] = [
    CheckName::BuildName,
    CheckName::ImageTag,
    CheckName::ManifestKey,
    CheckName::Commit,
    CheckName::CommitTime,
    CheckName::Tree,
    CheckName::Source,
];
