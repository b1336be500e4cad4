use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_proto::{Digest, ImageTag, ParseDefinitionError, Progress, RuntimeType};
use sbs_state::{CaBinding, KeyRing, RootSecret};

use super::*;
use crate::build::job::Recorded;

/// A builder that does what a test tells it to.
#[derive(Debug)]
struct Double {
    act: Act,
    builds: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Act {
    /// Ends a while after it was cancelled: when a file `end` is in the data directory.
    EndWhenTold,
    Fail,
    Panic,
    Succeed,
    WaitForCancel,
}

impl Builder for Double {
    fn lookaside(&self) -> Option<&str> {
        None
    }

    fn check(&self, _definition: &Definition) -> Result<(), ParseDefinitionError> {
        Ok(())
    }

    fn build(&self, job: &Job, report: &(dyn Fn(StatusText) + Sync)) -> Result<Recorded, Stopped> {
        let count = self.builds.fetch_add(1, Ordering::SeqCst);
        fs::create_dir_all(&job.work).unwrap();
        fs::write(job.files.log(), "a log\n").unwrap();
        report(StatusText::done(Step::GithubCloned));
        match self.act {
            Act::Panic => panic!("as the test wants"),
            Act::EndWhenTold => {
                let end = job.work.join("../../end");
                while !(job.cancel.is_cancelled() && end.exists()) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(stopped())
            }
            Act::WaitForCancel => {
                tokio::runtime::Handle::current().block_on(job.cancel.cancelled());
                Err(stopped())
            }
            Act::Fail => Err(stopped()),
            Act::Succeed => {
                let build_name = BuildName::parse(&format!("r.example.app.{count}")).unwrap();
                let manifest = job.files.manifest(&build_name.manifest_name());
                fs::write(manifest, "a manifest").unwrap();
                fs::write(
                    job.files.public_key(),
                    job.keys.manifest().current.verifying_key().to_pem(),
                )
                .unwrap();
                let status = BuildStatus::unfinished("", StatusText::done(Step::Success))
                    .named(&build_name, &ImageTag::parse("v1").unwrap());
                Ok(Recorded { build_name, image: "r.example/app@sha256:00".to_owned(), status })
            }
        }
    }
}

fn stopped() -> Stopped {
    Stopped { code: "engine", command: "buildah build -f Dockerfile .".to_owned(), return_code: 3 }
}

pub(super) const CANARY: &str = "canary-0f6d1b";

pub(super) fn secret(byte: u8) -> String {
    STANDARD.encode([byte; 128])
}

pub(super) fn body(byte: u8) -> Members {
    let json = serde_json::json!({
        "RUNTIME_TYPE": "vpc", "GITHUB_URL": "git@git.example:u/r.git", "DOCKER_REPO": "ns/app",
        "DOCKER_USER": "u", "DOCKER_PASSWORD": CANARY, "SECRET": secret(byte),
        "ISV_SECRET": {"k": CANARY}, "BUILD_IMAGE_TAG": "1.3.0.20",
    });
    Members::parse(json.to_string().as_bytes()).unwrap()
}

pub(super) fn at() -> time::OffsetDateTime {
    Clock::fixed(1_700_000_000).now()
}

pub(super) fn name() -> DefinitionName {
    DefinitionName::default_name()
}

pub(super) fn open(directory: &Path, act: Act) -> Core {
    try_open(directory, act, 1).unwrap()
}

fn try_open(directory: &Path, act: Act, root: u8) -> Result<Core, KeepError> {
    let ring = KeyRing::new(Box::new(root_secret(root)), Vec::new()).unwrap();
    open_with(directory, act, sealing(&ring))
}

pub(super) fn open_with(directory: &Path, act: Act, sealing: Sealing) -> Result<Core, KeepError> {
    let store = Store::open(directory).unwrap();
    let builder = Arc::new(Double { act, builds: AtomicUsize::new(0) });
    Core::load(store, sealing, Clock::system(), builder, 20)
}

pub(super) fn root_secret(first: u8) -> RootSecret {
    let content: Vec<u8> = (first..first + 32).collect();
    RootSecret::parse(&content).unwrap()
}

pub(super) fn sealing(ring: &KeyRing) -> Sealing {
    Sealing::new(ring, Digest::from_bytes([7; 32]), CaBinding::Enforced).unwrap()
}

/// Builds once with a definition that has these keys, too, and waits for the end.
pub(super) async fn built_with(directory: &Path, keys: &[(&str, String)]) -> Core {
    let core = open(directory, Act::Succeed);
    set(&core, keys).await;
    core.start_build(&name()).await.unwrap();
    assert_eq!(ended(&core).await.progress(), Progress::Succeeded);
    core
}

/// Sets a definition that has these keys, too.
pub(super) async fn set(core: &Core, keys: &[(&str, String)]) {
    let mut members = body(1);
    for (key, value) in keys {
        members.insert(key, value.clone());
    }
    core.initialise(&name(), members).await.unwrap();
}

async fn initialised(act: Act) -> (tempfile::TempDir, Core) {
    let directory = tempfile::tempdir().unwrap();
    let core = open(directory.path(), act);
    core.initialise(&name(), body(1)).await.unwrap();
    (directory, core)
}

/// Waits for the end of the build that runs.
pub(super) async fn ended(core: &Core) -> StatusText {
    loop {
        let slot = core.slot(&name()).unwrap();
        if slot.now().running.is_none() {
            return core.status(&name()).status;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_fresh_server_has_an_empty_status_and_nothing_to_build() {
    let directory = tempfile::tempdir().unwrap();
    let core = open(directory.path(), Act::Succeed);
    assert_eq!(core.status(&name()), BuildStatus::fresh());
    assert!(matches!(core.start_build(&name()).await, Err(StartBuildError::NotInitialised)));
    let updated = core.update(&name(), body(1)).await;
    assert!(matches!(updated, Err(SetDefinitionError::NotInitialised)));
    assert!(matches!(core.image_digest(&name()), Err(ReadError::NothingBuilt)));
    assert!(core.log(&name()).unwrap().is_none());
}

#[tokio::test]
async fn an_update_that_names_no_runtime_type_keeps_it() {
    let (_directory, core) = initialised(Act::Succeed).await;
    let update = async |runtime_type: &str, repo_id: &str| {
        let mut members = body(1);
        members.insert(key::RUNTIME_TYPE, runtime_type);
        members.insert(key::REPO_ID, repo_id);
        core.update(&name(), members).await.unwrap();
        let kept = core.slot(&name()).unwrap().keep.load_definition().unwrap().unwrap();
        kept.definition().unwrap().runtime_type
    };
    assert_eq!(update("", "").await, RuntimeType::Vpc);
    assert_eq!(update("on-prem", "").await, RuntimeType::OnPrem);
    for repo_id in ["", "app"] {
        assert_eq!(update("", repo_id).await, RuntimeType::OnPrem, "{repo_id}");
    }
}

#[tokio::test]
async fn a_build_that_succeeds_can_be_asked_for_by_name() {
    let (_directory, core) = initialised(Act::Succeed).await;
    for _ in 0..2 {
        core.start_build(&name()).await.unwrap();
        assert_eq!(ended(&core).await.progress(), Progress::Succeeded);
    }
    let (latest, _) = core.public_key(&name(), &BuildSelector::Latest).unwrap();
    assert_eq!(latest.as_str(), "r.example.app.1");
    let first = BuildSelector::Named(BuildName::parse("r.example.app.0").unwrap());
    assert_eq!(
        core.manifest(&name(), &first, 100).unwrap().0.build_name().as_str(),
        "r.example.app.0"
    );
    assert!(matches!(
        core.manifest(&name(), &first, 9),
        Err(ReadError::TooLarge { limit: 9, size: 10, .. })
    ));
    let none = BuildSelector::Named(BuildName::parse("r.example.app.9").unwrap());
    assert!(matches!(core.public_key(&name(), &none), Err(ReadError::NoSuchBuild)));
}

#[tokio::test]
async fn a_build_that_fails_or_panics_says_so_and_the_next_one_can_start() {
    for (act, expected) in [
        (
            Act::Fail,
            "exiting due to a non-zero return value: 3, cmd: buildah build -f Dockerfile .",
        ),
        (Act::Panic, "exiting due to a non-zero return value: 70, cmd: a fault of the server"),
    ] {
        let (directory, core) = initialised(act).await;
        for _ in 0..2 {
            core.start_build(&name()).await.unwrap();
            let status = ended(&core).await;
            assert!(status.as_str().starts_with(expected), "{status}");
            assert!(!directory.path().join("work/default").exists());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t8_of_fifty_builds_at_once_one_starts() {
    let (_directory, core) = initialised(Act::WaitForCancel).await;
    let starts: Vec<_> = (0..50)
        .map(|_| {
            let core = core.clone();
            tokio::spawn(async move { core.start_build(&name()).await })
        })
        .collect();
    let mut started = 0;
    for start in starts {
        match start.await.unwrap() {
            Ok(()) => started += 1,
            Err(error) => assert!(matches!(error, StartBuildError::Busy), "{error}"),
        }
    }
    assert_eq!(started, 1);
    core.clean(&name()).await.unwrap();
}

#[tokio::test]
async fn a_clean_ends_the_build_before_it_answers() {
    let (directory, core) = initialised(Act::WaitForCancel).await;
    core.start_build(&name()).await.unwrap();
    core.clean(&name()).await.unwrap();
    assert_eq!(core.status(&name()).status.as_str(), RESTARTED_CICD);
    assert!(core.slot(&name()).unwrap().now().running.is_none());
    assert!(!directory.path().join("work/default").exists());
    core.start_build(&name()).await.unwrap();
    core.clean(&name()).await.unwrap();
    drop(core);
    let core = open(directory.path(), Act::Succeed);
    assert_eq!(core.status(&name()).status.as_str(), RESTARTED_CICD);
}

#[tokio::test]
async fn t8_a_clean_whose_client_goes_away_lets_no_second_build_start_beside_the_first() {
    let (directory, core) = initialised(Act::EndWhenTold).await;
    core.start_build(&name()).await.unwrap();
    let gone = tokio::time::timeout(Duration::from_millis(100), core.clean(&name())).await;
    assert!(gone.is_err(), "the build has not ended, and the clean answered");
    let second = core.start_build(&name()).await;
    assert!(matches!(second, Err(StartBuildError::Busy)), "{second:?}");
    fs::write(directory.path().join("end"), "").unwrap();
    core.clean(&name()).await.unwrap();
    assert_eq!(core.status(&name()).status.as_str(), RESTARTED_CICD);
    core.start_build(&name()).await.unwrap();
    core.clean(&name()).await.unwrap();
}

#[tokio::test]
async fn a_build_that_the_servers_end_cut_is_interrupted() {
    let (directory, core) = initialised(Act::WaitForCancel).await;
    core.start_build(&name()).await.unwrap();
    core.stop().await;
    assert!(matches!(core.start_build(&name()).await, Err(StartBuildError::Stopping)));
    assert_eq!(core.status(&name()).status.progress(), Progress::Failed);
    drop(core);
    let core = open(directory.path(), Act::Succeed);
    assert_eq!(core.status(&name()).status.progress(), Progress::Failed);
    core.start_build(&name()).await.unwrap();
    assert_eq!(ended(&core).await.progress(), Progress::Succeeded);
}

#[tokio::test]
async fn i3_a_build_of_a_server_that_was_killed_is_interrupted() {
    let (directory, core) = initialised(Act::Fail).await;
    core.start_build(&name()).await.unwrap();
    ended(&core).await;
    // What is on the disk while a build runs.
    let slot = core.slot(&name()).unwrap();
    let mut journal = slot.now().journal.clone().unwrap();
    journal.phase = Phase::Running;
    journal.status.status = StatusText::done(Step::ImageBuilt);
    let files = slot.builds.files(&journal.id);
    files.save_journal(&journal).unwrap();
    // It can die before the log is there.
    fs::remove_file(files.log()).unwrap();
    drop(core);
    for _ in 0..2 {
        let core = open(directory.path(), Act::Fail);
        let log = io::read_to_string(core.log(&name()).unwrap().unwrap()).unwrap();
        assert_eq!(log.matches("the build was interrupted").count(), 1, "{log}");
        let status = core.status(&name()).status;
        assert_eq!(
            status.as_str(),
            "exiting due to a non-zero return value: 137, cmd: the server stopped during the build, \
             after `image built`; build again"
        );
    }
}

#[tokio::test]
async fn s20_another_secret_changes_nothing_once_there_are_keys() {
    let (_directory, core) = initialised(Act::Succeed).await;
    // No keys yet: whoever set the wrong secret can set another.
    core.initialise(&name(), body(2)).await.unwrap();
    core.start_build(&name()).await.unwrap();
    ended(&core).await;
    let again = core.initialise(&name(), body(3)).await;
    assert!(matches!(again, Err(SetDefinitionError::KeysExist)), "{again:?}");
    let update = core.update(&name(), body(3)).await;
    assert!(matches!(update, Err(SetDefinitionError::WrongSecret)), "{update:?}");
    core.initialise(&name(), body(2)).await.unwrap();
    core.update(&name(), body(2)).await.unwrap();
}

#[tokio::test]
async fn a_new_secret_takes_the_place_of_the_old_one() {
    let (_directory, core) = initialised(Act::Succeed).await;
    let mut rotate = body(1);
    rotate.insert(key::NEW_SECRET, secret(2));
    let with_init = core.initialise(&name(), rotate.clone()).await;
    assert!(matches!(with_init, Err(SetDefinitionError::NewSecretOnInit)));
    core.update(&name(), rotate.clone()).await.unwrap();
    let old = core.update(&name(), rotate).await;
    assert!(matches!(old, Err(SetDefinitionError::WrongSecret)), "{old:?}");
    core.update(&name(), body(2)).await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_refused_changes_nothing() {
    let (_directory, core) = initialised(Act::Succeed).await;
    let mut bad = body(1);
    bad.insert(key::DOCKER_REPO, "NOT/lower");
    let update = core.update(&name(), bad).await;
    assert!(matches!(update, Err(SetDefinitionError::Definition(_))), "{update:?}");
    let kept = core.slot(&name()).unwrap().keep.load_definition().unwrap().unwrap();
    let kept = kept.definition().unwrap();
    assert_eq!(kept.destination.to_string(), "docker.io/ns/app");
}

#[tokio::test]
async fn definition_and_keys_survive_and_open_under_their_root_secret_alone() {
    let (directory, core) = initialised(Act::Succeed).await;
    core.start_build(&name()).await.unwrap();
    ended(&core).await;
    let public = |core: &Core| {
        let keys = core.slot(&name()).unwrap().now().keys.clone().unwrap();
        keys.image().current.verifying_key().to_pem()
            + &keys.manifest().current.verifying_key().to_pem()
    };
    let before = public(&core);
    drop(core);
    let core = open(directory.path(), Act::Succeed);
    assert_eq!(public(&core), before);
    drop(core);
    let other = try_open(directory.path(), Act::Succeed, 2);
    assert!(matches!(other, Err(KeepError::Damaged { .. })), "{other:?}");
}

#[tokio::test]
async fn i6_no_secret_is_in_a_file_in_clear() {
    let (directory, core) = initialised(Act::Succeed).await;
    core.start_build(&name()).await.unwrap();
    ended(&core).await;
    let forms = [CANARY.to_owned(), STANDARD.encode(CANARY), secret(1), "PRIVATE KEY".to_owned()];
    let mut files = 0;
    let mut directories = vec![directory.path().to_owned()];
    while let Some(at) = directories.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            files += 1;
            let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            let found = forms.iter().find(|form| content.contains(form.as_str()));
            assert_eq!(found, None, "{}", path.display());
        }
    }
    assert!(files >= 6, "{files} files");
}
