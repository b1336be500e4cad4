use std::collections::BTreeSet;
use std::io::{Read, Seek};

use sbs_crypto::ManifestVerifyingKey;
use sbs_crypto::git::{ObjectFormat, ObjectKind, object_id};
use sbs_proto::{BuildRecord, BuildStatus, CommitId, ImageTag, RECORD_SCHEMA, SourceRecord};

use crate::form::Form;
use crate::header::{EntryKind, header_time};
use crate::layout::{COMMIT, FULL, RECORD, SOURCE, TREE};
use crate::manifest::{Entry, Manifest, ReadEntryError};
use crate::path::shown;
use crate::report::{CheckError, CheckName, NotMade, Report, Subject};
use crate::source::{CommitFacts, Extent, SourceError, SourceProof, blob_id, root_tree};
use crate::thin::{FULL_BYTES, FullManifest, ThinProof, archive_name};
use crate::unpack::{Compatibility, UnpackError};
use crate::weakness::Weakness;

impl<S: Read + Seek> Manifest<S> {
    /// Reads the whole manifest and holds what it says against itself.
    ///
    /// A report in which every check passed, and whose list of what is not proved is empty, says:
    /// whoever has the manifest key states that the image of the record was built from exactly
    /// these files, and these files are exactly those of the recorded commit. Of a thin manifest
    /// the same is said of the Dockerfile alone.
    pub fn check(&mut self) -> Report {
        let mut findings = Findings::default();
        let layout = findings.collect(self);
        let weaknesses = self.weaknesses().union(&findings.weaknesses).copied().collect();
        let subject = Subject {
            name: self.name().clone(),
            form: self.form(),
            compatibility: self.compatibility(),
            digest: self.digest(),
            record: findings.record().and_then(Result::ok).map(Box::new),
            full: findings.full.as_deref().and_then(|json| FullManifest::parse(json).ok()),
        };
        let mut report = Report::new(subject, weaknesses, findings.unproven());
        // The manifest was read and verified: there is no other way to come here.
        report.add(CheckName::Envelope, Ok(format!("archive and signature of {}", self.name())));
        let signed = format!("the signature, and {} with the given key", self.digest());
        report.add(CheckName::Signature, Ok(signed));
        let layout = layout.map(|entries| format!("{entries} entries, to the end of the archive"));
        report.add(CheckName::Layout, layout.map_err(CheckError::Read));
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
    full: Option<Vec<u8>>,
    source: Option<Result<BTreeSet<Vec<u8>>, SourceError>>,
    files: u64,
    weaknesses: BTreeSet<Weakness>,
}

impl Findings {
    /// Returns how many entries there are.
    fn collect<S: Read + Seek>(
        &mut self,
        manifest: &mut Manifest<S>,
    ) -> Result<u64, ReadEntryError> {
        let (limits, form) = (manifest.limits(), manifest.form());
        let strict = manifest.compatibility() == Compatibility::Strict;
        let (mut proof, mut count) = (None, 0);
        let mut entries = manifest.entries()?;
        while let Some(entry) = entries.next_entry()? {
            count += 1;
            let path = entry.path().clone();
            let name = path.as_bytes();
            if name == RECORD.as_bytes() {
                self.time = Some(entry.time());
                self.json = Some(entry.bytes(limits.record_bytes)?);
            } else if strict && name == COMMIT.as_bytes() {
                self.commit = Some(entry.bytes(limits.commit_bytes)?);
            } else if strict && name == TREE.as_bytes() {
                proof = self.begin_proof(entry.bytes(limits.listing_bytes)?, form);
            } else if form == Form::Thin && name == FULL.as_bytes() {
                self.full = Some(entry.bytes(FULL_BYTES)?);
            } else if let Some(path) = name.strip_prefix(SOURCE)
                && let Some(Ok(running)) = &mut proof
            {
                self.files += u64::from(entry.kind().is_file());
                if let Err(error) = visit(running, path, entry)? {
                    proof = Some(Err(error));
                }
            }
        }
        self.weaknesses = entries.weaknesses();
        self.source = proof.map(|proof| proof.and_then(Proof::finish));
        Ok(count)
    }

    fn record(&self) -> Option<serde_json::Result<BuildRecord>> {
        self.json.as_deref().map(sbs_proto::parse_json)
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
    fn begin_proof(&mut self, listing: Vec<u8>, form: Form) -> Option<Result<Proof, SourceError>> {
        let record = self.record()?.ok()?;
        let format = ObjectFormat::of(&record.source.commit);
        let dockerfile = record.engine.dockerfile.as_str().as_bytes();
        let extent = match form {
            Form::Full => Extent::Whole,
            Form::Thin => Extent::Towards(dockerfile),
        };
        self.tree = Some(root_tree(&listing, extent, format));
        Some(match form {
            Form::Full => Ok(Proof::Whole(SourceProof::new(listing, format))),
            Form::Thin => ThinProof::new(&listing, dockerfile, format).map(Proof::Thin),
        })
    }

    fn report_record<S: Read + Seek>(&self, manifest: &Manifest<S>, report: &mut Report) {
        let after_record = after_record(manifest.form());
        let record = match self.record() {
            Some(Ok(record)) => record,
            Some(Err(error)) => {
                report.add(CheckName::Record, Err(CheckError::Record(error)));
                report.not_made(&after_record, NotMade::After(CheckName::Record));
                return;
            }
            None => {
                report.not_made(&[CheckName::Record], NotMade::After(CheckName::Layout));
                report.not_made(&after_record, NotMade::After(CheckName::Layout));
                return;
            }
        };
        let schema = agree("schema of the build record", RECORD_SCHEMA, &record.schema);
        report.add(CheckName::Record, schema);
        report.add(CheckName::BuildName, names(manifest, &record));
        report.add(CheckName::ImageTag, image_tag(&record));
        report.add(CheckName::ManifestKey, manifest_key(manifest, &record));
        self.report_commit(&record.source, report);
        match manifest.form() {
            Form::Full => self.report_source(CheckName::Source, report),
            Form::Thin => {
                self.report_source(CheckName::Dockerfile, report);
                self.report_full(manifest, report);
            }
        }
    }

    fn report_commit(&self, source: &SourceRecord, report: &mut Report) {
        let Some(commit) = &self.commit else {
            let names = [CheckName::Commit, CheckName::CommitTime, CheckName::Tree];
            report.not_made(&names, NotMade::After(CheckName::Layout));
            return;
        };
        let id = object_id(ObjectKind::Commit, commit, ObjectFormat::of(&source.commit));
        let same = agree("id of the commit object", source.commit.as_str(), id.as_str());
        report.add(CheckName::Commit, same);
        if let Some(facts) = CommitFacts::parse(commit) {
            report.add(CheckName::CommitTime, self.commit_time(&facts, source));
            self.report_tree(&facts, source, report);
        } else {
            report.add(CheckName::CommitTime, Err(CheckError::Commit));
            report.add(CheckName::Tree, Err(CheckError::Commit));
        }
    }

    fn report_source(&self, name: CheckName, report: &mut Report) {
        match &self.source {
            Some(Ok(_)) => {
                report.add(name, Ok(format!("{} files with the ids in the listing", self.files)));
            }
            Some(Err(error)) => report.add(name, Err(CheckError::Source(error.clone()))),
            None => report.not_made(&[name], NotMade::After(CheckName::Layout)),
        }
    }

    /// The commit's time is also that of every entry, which the layout has found to be one.
    fn commit_time(
        &self,
        facts: &CommitFacts,
        source: &SourceRecord,
    ) -> Result<String, CheckError> {
        let recorded = source.commit_time;
        agree("time of the commit object", &recorded.to_string(), &facts.time.to_string())?;
        let entries = self.time.unwrap_or_default();
        agree("time of the entries", &header_time(recorded).to_string(), &entries.to_string())
    }

    fn report_tree(&self, facts: &CommitFacts, source: &SourceRecord, report: &mut Report) {
        match &self.tree {
            None => report.not_made(&[CheckName::Tree], NotMade::After(CheckName::Layout)),
            Some(Err(error)) => {
                report.add(CheckName::Tree, Err(CheckError::Source(error.clone())));
            }
            Some(Ok(listed)) => {
                let (recorded, named) = (source.tree.as_str(), facts.tree.as_str());
                let same = agree("tree of the commit object", recorded, named)
                    .and_then(|_| agree("tree of the listing", recorded, listed.as_str()));
                report.add(CheckName::Tree, same);
            }
        }
    }

    fn report_full<S: Read + Seek>(&self, manifest: &Manifest<S>, report: &mut Report) {
        let Some(json) = self.full.as_deref() else {
            report.not_made(&[CheckName::Full], NotMade::After(CheckName::Layout));
            return;
        };
        let same = FullManifest::parse(json).and_then(|full| {
            let expected = archive_name(manifest.name());
            agree("name of the full manifest", &expected, &full.name)?;
            Ok(format!("{} bytes, {}", full.size, full.digest))
        });
        report.add(CheckName::Full, same);
    }

    /// Makes the checks that a manifest of the original has anything for.
    fn report_status<S: Read + Seek>(&self, manifest: &Manifest<S>, report: &mut Report) {
        match self.json.as_deref().map(sbs_proto::parse_json::<BuildStatus>) {
            Some(Ok(status)) => {
                let text = status.build_name.as_deref().unwrap_or_default();
                report.add(CheckName::Record, Ok(format!("build `{}`", shown(text.as_bytes()))));
                report.add(CheckName::BuildName, build_name(manifest, &status));
            }
            Some(Err(error)) => {
                report.add(CheckName::Record, Err(CheckError::Record(error)));
                report.not_made(&[CheckName::BuildName], NotMade::After(CheckName::Record));
            }
            None => {
                let names = [CheckName::Record, CheckName::BuildName];
                report.not_made(&names, NotMade::After(CheckName::Layout));
            }
        }
        let after_record = after_record(Form::Full);
        let (_, rest) = after_record.split_at(1);
        report.not_made(rest, NotMade::NothingFor);
    }
}

/// The walk over the entries of the source, of either form.
enum Proof {
    Whole(SourceProof),
    Thin(ThinProof),
}

impl Proof {
    fn expect(&mut self, path: &[u8], kind: EntryKind) -> Result<Option<CommitId>, SourceError> {
        match self {
            Self::Whole(proof) => proof.expect(path, kind),
            Self::Thin(proof) => proof.expect(path, kind),
        }
    }

    fn format(&self) -> ObjectFormat {
        match self {
            Self::Whole(proof) => proof.format(),
            Self::Thin(proof) => proof.format(),
        }
    }

    fn finish(self) -> Result<BTreeSet<Vec<u8>>, SourceError> {
        match self {
            Self::Whole(proof) => proof.finish(),
            Self::Thin(proof) => proof.finish(),
        }
    }
}

fn visit<S: Read>(
    proof: &mut Proof,
    path: &[u8],
    entry: Entry<'_, '_, S>,
) -> Result<Result<(), SourceError>, ReadEntryError> {
    let expected = match proof.expect(path, entry.kind()) {
        Ok(Some(id)) => id,
        Ok(None) => return Ok(Ok(())),
        Err(error) => return Ok(Err(error)),
    };
    let id = blob_id(entry.size(), entry, proof.format()).map_err(UnpackError::from_io)?;
    Ok(if id == expected { Ok(()) } else { Err(SourceError::Content(shown(path))) })
}

/// The names in the record: that of the build, and those of the files, where it has them.
fn names<S: Read + Seek>(
    manifest: &Manifest<S>,
    record: &BuildRecord,
) -> Result<String, CheckError> {
    if let Some(recorded) = &record.manifests {
        let files = manifest.name().files();
        agree("name of the full manifest's file in the record", &files.full, &recorded.full)?;
        agree("name of the thin manifest's file in the record", &files.thin, &recorded.thin)?;
    }
    build_name(manifest, &record.status)
}

fn build_name<S: Read + Seek>(
    manifest: &Manifest<S>,
    status: &BuildStatus,
) -> Result<String, CheckError> {
    let recorded = status.build_name.as_deref().unwrap_or_default();
    agree("build name of the manifest", recorded, manifest.name().build_name().as_str())
}

/// The tag is `<prefix>-<first 7 digits of the commit>`, or the digits alone.
fn image_tag(record: &BuildRecord) -> Result<String, CheckError> {
    let tag = record.image.reference.tag().map(ImageTag::as_str).unwrap_or_default();
    let named = record.status.image_tag.as_deref().unwrap_or_default();
    let same = agree("image tag of the status", tag, named)?;
    let digits = tag.rsplit('-').next().unwrap_or(tag);
    agree("end of the image tag", record.source.commit.short(), digits)?;
    Ok(same)
}

/// The record holds the key as text; the keys themselves are compared.
fn manifest_key<S: Read + Seek>(
    manifest: &Manifest<S>,
    record: &BuildRecord,
) -> Result<String, CheckError> {
    let recorded = ManifestVerifyingKey::from_pem(&record.manifest_public_key_pem)
        .map_err(|_| CheckError::Key)?;
    if recorded.to_pem() != manifest.key_pem() {
        return Err(CheckError::Key);
    }
    Ok("the key in the record and the given one".to_owned())
}

/// Returns what was compared, for people.
fn agree(what: &'static str, expected: &str, got: &str) -> Result<String, CheckError> {
    let [expected_text, got_text] = [expected, got].map(|text| shown(text.as_bytes()));
    if expected == got {
        return Ok(format!("{what} is `{got_text}`, as it must be"));
    }
    Err(CheckError::Differs { what, expected: expected_text, got: got_text })
}

/// Returns the checks that need what is in the build record.
fn after_record(form: Form) -> Vec<CheckName> {
    let common = [
        CheckName::BuildName,
        CheckName::ImageTag,
        CheckName::ManifestKey,
        CheckName::Commit,
        CheckName::CommitTime,
        CheckName::Tree,
    ];
    let of_form: &[_] = match form {
        Form::Full => &[CheckName::Source],
        Form::Thin => &[CheckName::Dockerfile, CheckName::Full],
    };
    [&common, of_form].concat()
}
