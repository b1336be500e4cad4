//! The builds of an image definition on disk: a directory each, with a journal.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sbs_crypto::HashingReader;
use sbs_proto::v2::StoredFile;
use sbs_proto::{BuildName, BuildStatus, ManifestName};
use serde::{Deserialize, Serialize};

use crate::core::error::KeepError;
use crate::core::upload::Upload;
use crate::store::{read_small_file, remove_directory, replace_file};

/// What is known of a build from outside: replaced whole at every step, so that after a crash it
/// says how far the build was.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Journal {
    pub(crate) id: String,
    pub(crate) phase: Phase,
    pub(crate) status: BuildStatus,
    /// A word for what failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    /// The build's name, once the image is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) build_name: Option<BuildName>,
    /// `registry/repository@sha256:…`, once the image is pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// When it began, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    #[serde(flatten)]
    pub(crate) manifests: Manifests,
    /// How the manifest gets into the bucket; none where no bucket was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upload: Option<Upload>,
}

/// The manifests of a build as they were stored: they do not change any more.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Manifests {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<StoredFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) thin_manifest: Option<StoredFile>,
}

impl Journal {
    /// Starts the journal of a build.
    pub(crate) fn new(id: String, phase: Phase, status: BuildStatus) -> Self {
        Self {
            id,
            phase,
            status,
            failure: None,
            build_name: None,
            image: None,
            started_at: None,
            manifests: Manifests::default(),
            upload: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Cancelled,
    Failed,
    Interrupted,
    Running,
    Succeeded,
}

/// What an image definition's status tells of.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Current {
    /// No build yet.
    #[default]
    Nothing,
    /// Cleaned since the last build.
    Cleaned,
    /// The build with this id.
    Build(String),
}

/// The directory of an image definition's builds.
#[derive(Clone, Debug)]
pub(crate) struct Builds {
    directory: PathBuf,
    current: PathBuf,
}

impl Builds {
    pub(crate) fn new(definition_directory: &Path) -> Self {
        Self {
            directory: definition_directory.join("builds"),
            current: definition_directory.join("current.json"),
        }
    }

    /// Makes the directory of a new build; returns its id.
    ///
    /// Ids are numbers that grow: the order of builds must not depend on a clock that can go back.
    pub(crate) fn create(&self) -> Result<(String, BuildFiles), KeepError> {
        let numbers = self.directories()?.into_iter().filter_map(|files| {
            files.0.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok())
        });
        let id = format!("{:08}", numbers.max().unwrap_or(0).saturating_add(1));
        let files = self.files(&id);
        fs::create_dir_all(&files.0).map_err(KeepError::io("a build's directory"))?;
        Ok((id, files))
    }

    pub(crate) fn files(&self, id: &str) -> BuildFiles {
        BuildFiles(self.directory.join(id))
    }

    /// Loads what the status tells of.
    pub(crate) fn load_current(&self) -> Result<Current, KeepError> {
        Ok(load_json(&self.current, "the current build")?.unwrap_or_default())
    }

    /// Saves what the status tells of.
    pub(crate) fn save_current(&self, current: &Current) -> Result<(), KeepError> {
        save_json(&self.current, current, "the current build")
    }

    /// Returns the builds that are there, newest first. One whose journal is damaged is passed over
    /// with a warning: the others must stay readable.
    pub(crate) fn newest_first(&self) -> Result<Vec<(Journal, BuildFiles)>, KeepError> {
        let mut builds = Vec::new();
        for files in self.directories()? {
            match files.load_journal() {
                Ok(Some(journal)) => builds.push((journal, files)),
                Ok(None) => {}
                Err(error) => tracing::warn!(path = %files.0.display(), %error, "passed over"),
            }
        }
        builds.sort_by(|(a, _), (b, _)| b.id.cmp(&a.id));
        Ok(builds)
    }

    fn directories(&self) -> Result<Vec<BuildFiles>, KeepError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(KeepError::Io { what: "the builds", source }),
        };
        let files = entries.map(|entry| entry.map(|entry| BuildFiles(entry.path())));
        files.collect::<Result<_, _>>().map_err(KeepError::io("the builds"))
    }

    /// Removes all but the newest `keep` builds; the newest that succeeded always stays, and so do
    /// up to 100 more whose manifests are not in their bucket yet.
    pub(crate) fn retain(&self, keep: usize) -> Result<(), KeepError> {
        let builds = self.newest_first()?;
        let newest_success =
            builds.iter().position(|(journal, _)| journal.phase == Phase::Succeeded);
        let mut waiting = 0;
        for (at, (journal, files)) in builds.iter().enumerate() {
            if at < keep || Some(at) == newest_success {
                continue;
            }
            if journal.upload.as_ref().is_some_and(Upload::is_pending) {
                if waiting < MAX_WAITING_BUILDS {
                    waiting += 1;
                    continue;
                }
                let build = &journal.id;
                tracing::error!(build, "removed before its manifest was uploaded: too many wait");
            }
            remove_directory(&files.0).map_err(KeepError::io("an old build"))?;
        }
        Ok(())
    }

    /// Removes what a clean removes: builds that did not succeed, and the logs of those that did.
    /// Their manifests, which hold the log, stay.
    pub(crate) fn clean(&self) -> Result<(), KeepError> {
        for (journal, files) in self.newest_first()? {
            let removed = match journal.phase {
                Phase::Succeeded => match fs::remove_file(files.log()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                },
                Phase::Cancelled | Phase::Failed | Phase::Interrupted | Phase::Running => {
                    remove_directory(&files.0)
                }
            };
            removed.map_err(KeepError::io("an old build"))?;
        }
        // What has no journal never began.
        for files in self.directories()? {
            if matches!(files.load_journal(), Ok(None)) {
                remove_directory(&files.0).map_err(KeepError::io("an old build"))?;
            }
        }
        Ok(())
    }
}

/// The files of one build.
#[derive(Clone, Debug)]
pub(crate) struct BuildFiles(PathBuf);

impl BuildFiles {
    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("build.log")
    }

    pub(crate) fn public_key(&self) -> PathBuf {
        self.0.join("manifest-public.pem")
    }

    pub(crate) fn manifest(&self, name: &ManifestName) -> PathBuf {
        self.0.join(name.files().full)
    }

    pub(crate) fn thin_manifest(&self, name: &ManifestName) -> PathBuf {
        self.0.join(name.files().thin)
    }

    /// Returns length and digest of the manifests that are there. It reads them whole.
    pub(crate) fn describe(&self, build_name: &BuildName) -> Result<Manifests, KeepError> {
        let name = build_name.manifest_name();
        let describe = |path: &Path| stored_file(path).map_err(KeepError::io("a manifest"));
        Ok(Manifests {
            manifest: describe(&self.manifest(&name))?,
            thin_manifest: describe(&self.thin_manifest(&name))?,
        })
    }

    pub(crate) fn load_journal(&self) -> Result<Option<Journal>, KeepError> {
        load_json(&self.journal(), "a build's journal")
    }

    pub(crate) fn save_journal(&self, journal: &Journal) -> Result<(), KeepError> {
        save_json(&self.journal(), journal, "a build's journal")
    }

    fn journal(&self) -> PathBuf {
        self.0.join("journal.json")
    }
}

/// Returns length and digest of a file; `None` if it is not there.
fn stored_file(path: &Path) -> io::Result<Option<StoredFile>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    describe_file(&file).map(Some)
}

/// Returns length and digest of what a file holds from where it stands.
pub(crate) fn describe_file(file: &File) -> io::Result<StoredFile> {
    let mut reader = HashingReader::new(io::BufReader::with_capacity(HASHED_PIECE, file));
    io::copy(&mut reader, &mut io::sink())?;
    let (_, digest, size) = reader.finish();
    Ok(StoredFile { digest, size })
}

fn load_json<T: for<'de> Deserialize<'de>>(
    path: &Path,
    what: &'static str,
) -> Result<Option<T>, KeepError> {
    let Some(content) = read_small_file(path).map_err(KeepError::io(what))? else {
        return Ok(None);
    };
    serde_json::from_slice(&content).map(Some).map_err(KeepError::damaged(what))
}

fn save_json(path: &Path, value: &impl Serialize, what: &'static str) -> Result<(), KeepError> {
    let content = serde_json::to_vec(value).map_err(KeepError::damaged(what))?;
    replace_file(path, &content).map_err(KeepError::io(what))
}

const HASHED_PIECE: usize = 256 * 1024;
/// Builds that are kept only because their manifests wait for a storage: a bound on the disk that a
/// storage which never works again can fill.
const MAX_WAITING_BUILDS: usize = 100;

#[cfg(test)]
mod tests {
    use sbs_proto::{BucketName, StatusText, Step};

    use super::*;
    use crate::core::upload::UploadState;

    fn journal(id: &str, phase: Phase) -> Journal {
        let status = BuildStatus::unfinished("", StatusText::done(Step::CleanedUp));
        Journal::new(id.to_owned(), phase, status)
    }

    fn builds(phases: &[Phase]) -> (tempfile::TempDir, Builds) {
        let directory = tempfile::tempdir().unwrap();
        let builds = Builds::new(directory.path());
        for phase in phases {
            let (id, files) = builds.create().unwrap();
            files.save_journal(&journal(&id, *phase)).unwrap();
            fs::write(files.log(), "x").unwrap();
        }
        (directory, builds)
    }

    fn phases(builds: &Builds) -> Vec<Phase> {
        builds.newest_first().unwrap().into_iter().map(|(journal, _)| journal.phase).collect()
    }

    #[test]
    fn the_newest_success_is_never_removed() {
        use Phase::{Failed, Succeeded};
        let (_directory, builds) = builds(&[Succeeded, Succeeded, Failed, Failed]);
        builds.retain(1).unwrap();
        assert_eq!(phases(&builds), [Failed, Succeeded]);
    }

    #[test]
    fn a_build_whose_manifest_is_not_in_its_bucket_yet_is_kept_within_a_bound() {
        let many = vec![Phase::Succeeded; MAX_WAITING_BUILDS + 5];
        let (_directory, builds) = builds(&many);
        for (mut journal, files) in builds.newest_first().unwrap() {
            journal.upload = Some(Upload::pending(&BucketName::parse("manifests").unwrap()));
            files.save_journal(&journal).unwrap();
        }
        builds.retain(2).unwrap();
        let kept = builds.newest_first().unwrap();
        assert_eq!(kept.len(), 2 + MAX_WAITING_BUILDS);
        for (mut journal, files) in kept {
            journal.upload.as_mut().unwrap().state = UploadState::Done;
            files.save_journal(&journal).unwrap();
        }
        builds.retain(2).unwrap();
        assert_eq!(phases(&builds).len(), 2);
    }

    #[test]
    fn a_clean_keeps_the_evidence() {
        use Phase::{Failed, Interrupted, Succeeded};
        let (_directory, builds) = builds(&[Succeeded, Failed, Interrupted]);
        builds.clean().unwrap();
        assert_eq!(phases(&builds), [Succeeded]);
        let (_, files) = builds.newest_first().unwrap().remove(0);
        assert!(!files.log().exists());
        builds.clean().unwrap();
    }

    #[test]
    fn what_never_began_is_removed_and_ids_grow() {
        let (_directory, builds) = builds(&[Phase::Succeeded]);
        let (id, files) = builds.create().unwrap();
        assert_eq!(id, "00000002");
        builds.clean().unwrap();
        assert!(!files.directory().exists());
        assert_eq!(phases(&builds), [Phase::Succeeded]);
    }

    #[test]
    fn a_damaged_journal_hides_no_other_build() {
        let (_directory, builds) = builds(&[Phase::Succeeded, Phase::Failed]);
        let (_, files) = builds.newest_first().unwrap().remove(0);
        fs::write(files.directory().join("journal.json"), "{").unwrap();
        assert_eq!(phases(&builds), [Phase::Succeeded]);
    }

    #[test]
    fn manifests_are_described_by_length_and_digest() {
        let (_directory, builds) = builds(&[Phase::Succeeded]);
        let (mut journal, files) = builds.newest_first().unwrap().remove(0);
        let name = BuildName::parse("r.example.app.1").unwrap();
        assert_eq!(files.describe(&name).unwrap(), Manifests::default());
        fs::write(files.manifest(&name.manifest_name()), "abc").unwrap();
        journal.manifests = files.describe(&name).unwrap();
        files.save_journal(&journal).unwrap();
        let (journal, _) = builds.newest_first().unwrap().remove(0);
        let manifest = journal.manifests.manifest.unwrap();
        // FIPS 180-4, the example of one block.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((manifest.size, manifest.digest.to_hex().as_str()), (3, abc));
        assert_eq!(journal.manifests.thin_manifest, None);
    }

    #[test]
    fn what_is_current_survives() {
        let (_directory, builds) = builds(&[]);
        assert!(matches!(builds.load_current().unwrap(), Current::Nothing));
        builds.save_current(&Current::Build("x".to_owned())).unwrap();
        assert!(matches!(builds.load_current().unwrap(), Current::Build(id) if id == "x"));
    }
}
