//! The steps of a build, in their order. Each step takes what only the step before can make.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::Arc;
use std::time::Duration;

use sbs_proto::{
    BuildName, BuildRecord, BuildStatus, Credentials, Definition, ImageRecord, ImageReference,
    ImageTag, ParseDefinitionError, ParseNameError, RECORD_SCHEMA, StatusText, Step, StorageAccess,
    StorageCredentials, StoragePurpose,
};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::build::bases::trust::TrustedSigners;
use crate::build::bases::{BaseChecks, BaseSources, ResolvedBase, resolve_bases};
use crate::build::dockerfile;
use crate::build::engine::{BuildRequest, Built};
use crate::build::environment::Environment;
use crate::build::failure::{Failure, StepError, chain};
use crate::build::fetch::{self, FetchLimits, FetchRequest, Fetched};
use crate::build::job::{Builder, Job, Recorded, Stopped};
use crate::build::log::{BuildLog, Masks};
use crate::build::notary_roots::{NotaryRoots, NotaryRootsError};
use crate::build::record::{self, PackRequest};
use crate::build::release::release;
use crate::build::sign::Tagged;
use crate::store::remove_directory;

impl Builder for Environment {
    fn check(&self, definition: &Definition) -> Result<(), ParseDefinitionError> {
        if let Some(trust) = &definition.base_trust {
            TrustedSigners::of(trust, self.clock.now())?;
        }
        if self.settings.storage.danger_allow_http {
            return Ok(());
        }
        if let Some(storage) = &definition.manifest_storage {
            storage.access.require_https(StoragePurpose::Manifest)?;
        }
        if let Some(storage) = &definition.state_storage {
            storage.access.require_https(StoragePurpose::State)?;
        }
        Ok(())
    }

    fn lookaside(&self) -> Option<&str> {
        self.settings.signing.lookaside_url.as_deref()
    }

    fn build(&self, job: &Job, report: &(dyn Fn(StatusText) + Sync)) -> Result<Recorded, Stopped> {
        Handle::current().block_on(run(self, job, report))
    }
}

async fn run(
    environment: &Environment,
    job: &Job,
    report: &(dyn Fn(StatusText) + Sync),
) -> Result<Recorded, Stopped> {
    let log = open_log(environment, job)?;
    log.info("starting a build");
    for key in &job.definition.ignored_keys {
        log.warning(&format!("{key} has no effect on this server"));
    }
    let result = steps(environment, job, &log, report).await;
    match &result {
        Ok(_) => log.info("completed a build"),
        Err(_) if job.cancel.is_cancelled() => log.warning("the build was ended by request"),
        Err(_) => {}
    }
    if let Err(error) = log.sync() {
        tracing::warn!(%error, "the build log may not last");
    }
    result
}

fn open_log(environment: &Environment, job: &Job) -> Result<BuildLog, Stopped> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(job.files.log());
    let file = file.map_err(|source| {
        // There is no log to tell it to.
        tracing::error!(%source, "the build log cannot be written");
        let error = LocalError { what: "the build log", source };
        let Failure { code, command, return_code } = error.failure();
        Stopped { code, command, return_code }
    })?;
    let limit = environment.settings.build.log_limit_mib.saturating_mul(1024 * 1024);
    Ok(BuildLog::new(file, environment.clock, masks(&job.definition), limit))
}

/// Returns the values of the definition that must not show in the log.
fn masks(definition: &Definition) -> Masks {
    let mut masks = Masks::default();
    let credentials = |masks: &mut Masks, credentials: &Credentials| {
        masks.add(credentials.password.expose(), "<PASSWORD>");
    };
    credentials(&mut masks, &definition.push_credentials);
    for other in [&definition.base.credentials, &definition.pull_credentials].into_iter().flatten()
    {
        credentials(&mut masks, other);
    }
    let mut storage = |access: &StorageAccess| match &access.credentials {
        StorageCredentials::AccessKey { secret, .. } => masks.add(secret.expose(), "<SECRET_KEY>"),
        StorageCredentials::IbmApiKey { api_key, instance, .. } => {
            masks.add(api_key.expose(), "<API_KEY_ID>");
            if let Some(instance) = instance {
                masks.add(instance.expose(), "<RESOURCE_CRN>");
            }
        }
    };
    if let Some(manifest) = &definition.manifest_storage {
        storage(&manifest.access);
    }
    if let Some(state) = &definition.state_storage {
        storage(&state.access);
    }
    if let Some(key) = &definition.source.key {
        masks.add(key.expose(), "<GITHUB_KEY>");
    }
    if let Some((user, password)) = definition.source.url.credentials() {
        // A token can stand in either place; in the URL its odd characters are percent-encoded.
        for (text, shown) in [(password.expose(), "<PASSWORD>"), (user, "<USERNAME>")] {
            masks.add(text, shown);
            let decoded = Zeroizing::new(fetch::percent_decode(text));
            masks.add(&String::from_utf8_lossy(&decoded), shown);
        }
        // What git sends: the base64 of both together.
        let decode = |text| String::from_utf8_lossy(&fetch::percent_decode(text)).into_owned();
        let both = Zeroizing::new(format!("{}:{}", decode(user), decode(password.expose())));
        masks.add(&both, "<USERNAME>:<PASSWORD>");
    }
    masks
}

async fn steps(
    environment: &Environment,
    job: &Job,
    log: &BuildLog,
    report: &(dyn Fn(StatusText) + Sync),
) -> Result<Recorded, Stopped> {
    let done = |step| report(StatusText::done(step));
    clean(job, log).map_err(|error| stop(log, &error))?;
    done(Step::CleanedUp);
    let fetched = fetch(environment, job, log).await?;
    done(Step::GithubCloned);
    let (built, bases) = build(environment, job, &fetched, log).await?;
    done(Step::ImageBuilt);
    let tagged = release(environment, job, &fetched.record.commit, &built, log).await?;
    done(Step::ImagePushed);
    // Success is not reported here: the core notes it together with the names, which whoever sees
    // `success` must find.
    keep(environment, job, Evidence { fetched, built, bases, tagged }, log).await
}

/// Makes the empty directories that the build works in.
fn clean(job: &Job, log: &BuildLog) -> Result<(), LocalError> {
    let at = |source| LocalError { what: "the work directory", source };
    log.info(&format!(
        "cleaning up the local github repo and the github access credential; github_dir={}",
        job.definition.source.url.repository_name()
    ));
    remove_directory(&job.work).map_err(at)?;
    for name in [SOURCE, SCRATCH, LAYOUT] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(job.work.join(name))
            .map_err(at)?;
    }
    Ok(())
}

async fn fetch(environment: &Environment, job: &Job, log: &BuildLog) -> Result<Fetched, Stopped> {
    let settings = &environment.settings.git;
    let defaults = FetchLimits::default();
    let limits = FetchLimits {
        max_bytes: settings.max_mib.saturating_mul(1024 * 1024),
        max_files: settings.max_files,
        time: Duration::from_secs(settings.time_limit_seconds),
        ..defaults
    };
    let request = FetchRequest {
        source: &job.definition.source,
        directory: &job.work.join(SOURCE),
        trust: &environment.git,
        limits: &limits,
    };
    let fetched = fetch::fetch(&request, log, &job.cancel).await;
    let fetched = fetched.map_err(|error| stop(log, &error))?;
    record::check_source(&fetched).map_err(|error| stop(log, &error))?;
    log.info(&format!("commit {}", fetched.record.commit));
    Ok(fetched)
}

/// Resolves the images that the Dockerfile names, then builds on what they were resolved to.
async fn build(
    environment: &Environment,
    job: &Job,
    fetched: &Fetched,
    log: &BuildLog,
) -> Result<(Built, Vec<ResolvedBase>), Stopped> {
    let definition = &job.definition;
    let recipe = &definition.recipe;
    let text = dockerfile::load(&fetched.work_tree, recipe).map_err(|error| stop(log, &error))?;
    let plan = dockerfile::plan(&text, &recipe.arguments, &definition.base.server)
        .map_err(|error| stop(log, &error))?;
    for warning in plan.warnings() {
        log.warning(warning);
    }
    let checks = base_checks(environment, job).map_err(|error| stop(log, &error))?;
    warn_of_unused_key(definition, plan.images(), log);
    let sources = BaseSources {
        cache: &environment.bases,
        registry: &definition.base,
        client: &environment.registry,
        log,
        lookasides: &environment.lookasides,
    };
    let bases = resolve_bases(plan.images(), sources, checks, &job.cancel).await;
    let bases = bases.map_err(|error| stop(log, &error))?;
    for base in &bases {
        let (engine, name) = (&environment.engine, local_name(base));
        let imported = engine.import_base(&base.layout, "", &name, log, &job.cancel).await;
        imported.map_err(|error| stop(log, &error))?;
    }
    let resolved = plan.rewrite(|reference| {
        // Every image of the plan was resolved; a name that is not there fails the build.
        let base = bases.iter().find(|base| base.reference == *reference);
        base.map_or_else(|| reference.to_string(), local_name)
    });
    let request = BuildRequest {
        dockerfile: &resolved,
        epoch: fetched.record.commit_time,
        output: &job.work.join(LAYOUT),
        recipe,
        scratch: &job.work.join(SCRATCH),
        work_tree: &fetched.work_tree,
    };
    let built = environment.engine.build(&request, log, &job.cancel).await;
    Ok((built.map_err(|error| stop(log, &error))?, bases))
}

/// Returns the name that a base image has in the engine: it says what was used, and is the same on
/// every machine, because it ends in the history of what is built on it.
fn local_name(base: &ResolvedBase) -> String {
    let (image, digest) = (&base.base.reference, base.base.digest);
    format!("{}/{}:sha256-{}", image.registry(), image.repository(), digest.to_hex())
}

/// Returns what base images must be signed by, if they must be.
fn base_checks(environment: &Environment, job: &Job) -> Result<Option<BaseChecks>, TrustError> {
    let Some(trust) = &job.definition.base_trust else { return Ok(None) };
    let signers = TrustedSigners::of(trust, environment.clock.now())?;
    Ok(Some(BaseChecks { roots: NotaryRoots::load(&job.notary_roots)?, signers }))
}

/// Says so if the key for one base image is used for others only.
fn warn_of_unused_key(definition: &Definition, images: &[ImageReference], log: &BuildLog) {
    let trust = definition.base_trust.as_ref().and_then(|trust| trust.openpgp.as_ref());
    let named = trust.and_then(|trust| trust.image.as_ref());
    if let Some(image) = named.filter(|image| !images.contains(image)) {
        log.warning(&format!(
            "ICR_BASE_REPO names {image}, which the Dockerfile does not build on; its key must have \
             signed the images that it does build on"
        ));
    }
}

/// What the steps before leave for the record.
struct Evidence {
    fetched: Fetched,
    built: Built,
    bases: Vec<ResolvedBase>,
    tagged: Tagged,
}

/// Makes the build record and the manifest.
async fn keep(
    environment: &Environment,
    job: &Job,
    evidence: Evidence,
    log: &BuildLog,
) -> Result<Recorded, Stopped> {
    let (build_name, record) = describe(environment, job, &evidence).map_err(|e| stop(log, &e))?;
    let image = evidence.tagged.reference().with_digest(evidence.tagged.digest()).to_string();
    let status = BuildStatus { status: StatusText::done(Step::Success), ..record.status.clone() };
    log.info(&format!("create manifest: {}; image={image}", build_name.manifest_name()));
    match &job.definition.manifest_storage {
        // The log ends with the build: how that went stands in the server's own.
        Some(storage) => log.info(&format!("the manifest goes to bucket {}", storage.bucket)),
        None => log.info("no MANIFEST_BUCKET_NAME: the manifest stays on this server"),
    }
    let packed = {
        let (build_name, keys) = (build_name.clone(), Arc::clone(&job.keys));
        let (files, log) = (job.files.clone(), log.clone());
        tokio::task::spawn_blocking(move || {
            let request = PackRequest {
                build_name: &build_name,
                fetched: &evidence.fetched,
                files: &files,
                keys: &keys,
                record: &record,
            };
            let packed = record::pack(&evidence.tagged, &request);
            packed.map_err(|error| stop(&log, &error))
        })
        .await
    };
    packed.unwrap_or_else(|_panicked| Err(Stopped::panicked()))?;
    Ok(Recorded { build_name, image, status })
}

fn describe(
    environment: &Environment,
    job: &Job,
    evidence: &Evidence,
) -> Result<(BuildName, BuildRecord), NameError> {
    let Evidence { fetched, built, bases, tagged } = evidence;
    let reference = tagged.reference();
    let tag = ImageTag::for_commit(job.definition.tag_prefix.as_ref(), &fetched.record.commit);
    let now = environment.clock.now();
    let time = now.format(TIME_IN_NAMES).unwrap_or_default();
    let build_name =
        BuildName::new(reference.registry().as_str(), reference.repository(), &tag, &time)
            .map_err(NameError)?;
    let status = StatusText::done(Step::ImagePushed);
    let status = BuildStatus::unfinished(&job.definition.build_image_tag, status);
    let rfc_3339 = |time: OffsetDateTime| {
        time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
    };
    let record = BuildRecord {
        status: status.named(&build_name, &tag),
        bases: bases.iter().map(|base| base.base.clone()).collect(),
        engine: built.record.clone(),
        finished_at: rfc_3339(now),
        image: ImageRecord {
            digest: tagged.digest(),
            public_key_pem: job.keys.image().current.verifying_key().to_pem(),
            reference: reference.clone(),
        },
        manifest_public_key_pem: job.keys.manifest().current.verifying_key().to_pem(),
        manifests: Some(build_name.manifest_name().files()),
        schema: RECORD_SCHEMA.to_owned(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        source: fetched.record.clone(),
        started_at: rfc_3339(job.started),
    };
    Ok((build_name, record))
}

/// Writes an error to the build log and turns it into what the status says.
pub(super) fn stop(log: &BuildLog, error: &impl StepError) -> Stopped {
    log.error(&chain(error));
    let Failure { code, command, return_code } = error.failure();
    Stopped { code, command, return_code }
}

/// A file of the build's own cannot be read or written.
#[derive(Debug, Error)]
#[error("{what} cannot be read or written")]
struct LocalError {
    what: &'static str,
    source: io::Error,
}

impl StepError for LocalError {
    fn failure(&self) -> Failure {
        Failure { code: "storage", command: "prepare the build".to_owned(), return_code: 1 }
    }
}

/// The build's name would be too long.
#[derive(Debug, Error)]
#[error("registry, repository and tag are together too long for the name of a build")]
struct NameError(#[source] ParseNameError);

impl StepError for NameError {
    fn failure(&self) -> Failure {
        Failure { code: "build_name", command: "create manifest".to_owned(), return_code: 1 }
    }
}

/// What base images must be signed by cannot be used.
#[derive(Debug, Error)]
#[error("what base images must be signed by cannot be used")]
enum TrustError {
    Key(#[from] ParseDefinitionError),
    Roots(#[from] NotaryRootsError),
}

impl StepError for TrustError {
    fn failure(&self) -> Failure {
        let command = "docker trust inspect".to_owned();
        Failure { code: "base_image_trust", command, return_code: 1 }
    }
}

const SOURCE: &str = "source";
const SCRATCH: &str = "scratch";
const LAYOUT: &str = "image";
/// How a build's name tells its time.
pub(crate) const TIME_IN_NAMES: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]_[hour]-[minute]-[second].[subsecond digits:6]");
