//! What makes an image that was built one that others can have: publish, sign, read back, tag,
//! announce.

use sbs_proto::{CommitId, ImageReference, ImageTag};
use sbs_registry::notary::NotaryKeys;
use sbs_registry::simple_signing::SignatureTree;
use sbs_registry::{RegistryError, Session};
use thiserror::Error;
use time::OffsetDateTime;

use crate::build::announce::{Notary, announce};
use crate::build::engine::Built;
use crate::build::environment::Environment;
use crate::build::failure::{Failure, StepError};
use crate::build::job::{Job, Stopped};
use crate::build::log::BuildLog;
use crate::build::notary_roots::{NotaryRoots, NotaryRootsError};
use crate::build::pipeline::stop;
use crate::build::publish::publish;
use crate::build::sign::{
    self, BundleForm, OpenPgpForm, SignatureForm, SignaturePlace, TagForm, Tagged,
};

/// Publishes by digest, signs, reads back, and only then tags; then tells the notary, if one is
/// named.
pub(super) async fn release(
    environment: &Environment,
    job: &Job,
    commit: &CommitId,
    built: &Built,
    log: &BuildLog,
) -> Result<Tagged, Stopped> {
    let definition = &job.definition;
    let tag = ImageTag::for_commit(definition.tag_prefix.as_ref(), commit);
    let destination = definition.destination.with_tag(tag);
    let credentials = Some(&definition.push_credentials);
    let session = environment
        .registry
        .for_registry(destination.registry(), credentials, log)
        .map_err(|error| stop(log, &SessionError(error)))?;
    let cancel = &job.cancel;
    let published = publish(built, &destination, &session, cancel).await;
    let published = published.map_err(|error| stop(log, &error))?;
    let manifest = published.manifest().clone();
    let place = signature_place(environment, &destination, &session, log).await;
    let place = place.map_err(|error| stop(log, &error))?;
    let forms = forms(job, place.as_ref(), environment.clock.now());
    let forms: Vec<_> = forms.iter().map(|form| &**form).collect();
    let signed = sign::sign(published, &forms, &session, cancel).await;
    let signed = signed.map_err(|error| stop(log, &error))?;
    let confirmed = sign::read_back(signed, &forms, &session, cancel).await;
    let confirmed = confirmed.map_err(|error| stop(log, &error))?;
    let tagged = sign::tag(confirmed, &session, cancel).await.map_err(|error| stop(log, &error))?;
    tell_notary(environment, job, &tagged, &manifest, log).await?;
    Ok(tagged)
}

/// Returns the forms in which the image is signed: each by the key in use, and by the one before it
/// while that is not retired.
fn forms<'a>(
    job: &'a Job,
    place: Option<&'a SignaturePlace>,
    at: OffsetDateTime,
) -> Vec<Box<dyn SignatureForm + 'a>> {
    let build = &job.id;
    let mut forms: Vec<Box<dyn SignatureForm + 'a>> = Vec::new();
    for key in job.keys.image().keys() {
        forms.push(Box::new(TagForm { key }));
        forms.push(Box::new(BundleForm { build, created: at, key }));
    }
    if let Some(place) = place {
        for key in job.keys.openpgp().keys() {
            forms.push(Box::new(OpenPgpForm { at, key, place }));
        }
    }
    forms
}

/// Finds out where OpenPGP signatures go. A registry that relying parties expect them in must take
/// them.
async fn signature_place(
    environment: &Environment,
    image: &ImageReference,
    session: &Session,
    log: &BuildLog,
) -> Result<Option<SignaturePlace>, SessionError> {
    let directory = environment.settings.signing.lookaside_directory.clone();
    let tree = directory.map(SignatureTree::new);
    let place = SignaturePlace::find(session, image, tree).await.map_err(SessionError)?;
    if place.is_none() {
        log.info(
            "no OpenPGP signature: the registry keeps none, and no lookaside-directory is set",
        );
    }
    Ok(place)
}

/// Signs the tag at the notary that the definition names, if it names one.
async fn tell_notary(
    environment: &Environment,
    job: &Job,
    tagged: &Tagged,
    manifest: &[u8],
    log: &BuildLog,
) -> Result<(), Stopped> {
    let definition = &job.definition;
    let Some(server) = &definition.notary else { return Ok(()) };
    let keys = job.keys.notary(&definition.destination.to_string());
    let keys = keys.and_then(|record| NotaryKeys::from_record(record).ok());
    let keys = keys.ok_or_else(|| stop(log, &NoNotaryKeys))?;
    let mut roots =
        NotaryRoots::load(&job.notary_roots).map_err(|error| stop(log, &RootsError(error)))?;
    let notary = Notary {
        client: &environment.registry,
        credentials: &definition.push_credentials,
        keys: &keys,
        log,
        now: environment.clock.now(),
        server,
    };
    announce(tagged, manifest, &notary, &mut roots, &job.cancel)
        .await
        .map_err(|error| stop(log, &error))
}

/// What notaries have said before cannot be read.
#[derive(Debug, Error)]
#[error("the image cannot be announced at the notary")]
struct RootsError(#[source] NotaryRootsError);

impl StepError for RootsError {
    fn failure(&self) -> Failure {
        Failure { code: "notary", command: "docker trust sign".to_owned(), return_code: 1 }
    }
}

/// The keys for the notary are not there: a fault of ours.
#[derive(Debug, Error)]
#[error("internal fault: the keys for the notary were not made before the build")]
struct NoNotaryKeys;

impl StepError for NoNotaryKeys {
    fn failure(&self) -> Failure {
        Failure { code: "internal", command: "docker trust sign".to_owned(), return_code: 70 }
    }
}

/// A session with the registry could not begin.
#[derive(Debug, Error)]
#[error("the registry cannot be used")]
struct SessionError(#[source] RegistryError);

impl StepError for SessionError {
    fn failure(&self) -> Failure {
        Failure { code: "registry", command: "docker push".to_owned(), return_code: 1 }
    }
}
