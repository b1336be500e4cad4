//! The resolve step: every external image that the Dockerfile names is resolved to a digest once
//! and downloaded; the build runs on what was downloaded and on nothing else.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sbs_proto::key::DOCKER_CONTENT_TRUST_BASE;
use sbs_proto::{
    BaseImage, BaseRegistry, BaseSignature, Credentials, Digest, ImageReference, ImageTag,
};
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use crate::build::failure::{Failure, StepError};
use crate::build::log::BuildLog;
use crate::build::notary_roots::NotaryRoots;
use crate::build::publish::{blob_path, v1_command};
use sbs_registry::simple_signing::Lookaside;
use sbs_registry::{
    Descriptor, DocumentKind, FetchedManifest, ImageIndex, ImageManifest, ParseDocumentError,
    RegistryClient, RegistryError, Session, Target, media_type,
};

use self::layout::Layout;
use self::trust::{NotKnown, Reasons, SignedName, TrustedSigners, Vouched};

mod layout;
pub(crate) mod trust;

pub(crate) use self::layout::PARTIAL;

/// An external image that is on this machine.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedBase {
    /// The reference as it was given.
    pub(crate) reference: ImageReference,
    /// What it was resolved to.
    pub(crate) base: BaseImage,
    /// The OCI layout that holds the image alone.
    ///
    /// The image has no name in it: by name, buildah 1.28 finds OCI image manifests only and no
    /// Docker ones, which are kept here as they are.
    pub(crate) layout: PathBuf,
}

/// What images are resolved with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BaseSources<'a> {
    /// A directory that outlives builds; one layout for each image is kept there.
    pub(crate) cache: &'a Path,
    /// The credentials, and the one registry that they go to.
    pub(crate) registry: &'a BaseRegistry,
    pub(crate) client: &'a RegistryClient,
    pub(crate) log: &'a BuildLog,
    /// Where OpenPGP signatures are looked for that a registry does not keep, by registry.
    pub(crate) lookasides: &'a Lookasides,
}

/// Where OpenPGP signatures are looked for that a registry does not keep itself, by registry.
pub(crate) type Lookasides = BTreeMap<String, Lookaside>;

/// What vouches for base images, where the definition asks for that.
#[derive(Debug)]
pub(crate) struct BaseChecks {
    pub(crate) roots: NotaryRoots,
    pub(crate) signers: TrustedSigners,
}

/// Resolves images to digests and downloads what is not there yet.
pub(crate) async fn resolve_bases(
    images: &[ImageReference],
    sources: BaseSources<'_>,
    mut checks: Option<BaseChecks>,
    cancel: &CancellationToken,
) -> Result<Vec<ResolvedBase>, ResolveBasesError> {
    let mut resolved: Vec<ResolvedBase> = Vec::new();
    for reference in images {
        // The same tag must not be two images in one build.
        if resolved.iter().any(|base| base.reference == *reference) {
            continue;
        }
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ResolveFault::Cancelled),
            result = resolve(reference, sources, checks.as_mut()) => result,
        };
        let fault = |fault| ResolveBasesError { reference: reference.clone(), fault };
        resolved.push(result.map_err(fault)?);
    }
    Ok(resolved)
}

async fn resolve(
    reference: &ImageReference,
    sources: BaseSources<'_>,
    checks: Option<&mut BaseChecks>,
) -> Result<ResolvedBase, ResolveFault> {
    let mut checks = checks;
    let registry = reference.registry();
    let same = registry.api_host() == sources.registry.server.api_host();
    let credentials = sources.registry.credentials.as_ref().filter(|_| same);
    let session = sources.client.for_registry(registry, credentials, sources.log)?;
    let latest =
        ImageTag::parse("latest").map_err(|_| RegistryError::Internal("`latest` is no tag"))?;
    let named = match (reference.tag(), reference.digest()) {
        (None, None) => reference.with_tag(latest.clone()),
        _ => reference.clone(),
    };
    let mut reasons = Reasons::default();
    let by_notary = match &mut checks {
        Some(checks) => ask_notary(checks, &named, credentials, sources, &mut reasons).await?,
        None => None,
    };
    // What the notary has signed is asked for by its digest: the tag may point elsewhere.
    let signed = by_notary.as_ref().map(|vouched| vouched.digest);
    let pinned = named.digest().or(signed);
    let target = pinned.map_or_else(|| Target::Tag(named.tag().unwrap_or(&latest)), Target::Digest);
    let top = session.manifest(reference.repository(), target).await?;
    let digest = top.digest;
    let image = match top.kind {
        DocumentKind::Image => top,
        DocumentKind::Index => fetch_platform(&session, reference, &top).await?,
    };
    let platform_digest = (image.digest != digest).then_some(image.digest);
    sources.log.info(&match platform_digest {
        Some(platform) => format!("{named} resolved to {digest}, for this platform {platform}"),
        None => format!("{named} resolved to {digest}"),
    });
    let signature = match (checks, by_notary) {
        (None, _) => None,
        (Some(_), Some(vouched)) => Some(vouched.signature),
        (Some(checks), None) => {
            let digests = [Some(digest), platform_digest];
            let lookaside = sources.lookasides.get(registry.as_str());
            let image = SignedName { image: &named, lookaside, session: &session };
            Some(find_signature(&checks.signers, image, &digests, reasons).await?)
        }
    };
    if let Some(BaseSignature { key_id, kind }) = &signature {
        sources.log.info(&format!("{named} is signed: {}, key {key_id}", kind.as_str()));
    }
    let layout = download(&session, reference, sources.cache, &image).await?;
    let base = BaseImage { digest, platform_digest, reference: named, signature };
    Ok(ResolvedBase { reference: reference.clone(), base, layout })
}

/// Asks the notary; where nothing else counts, what it does not vouch for is not signed.
async fn ask_notary(
    checks: &mut BaseChecks,
    image: &ImageReference,
    credentials: Option<&Credentials>,
    sources: BaseSources<'_>,
    reasons: &mut Reasons,
) -> Result<Option<Vouched>, ResolveFault> {
    let BaseChecks { roots, signers } = checks;
    let (client, log) = (sources.client, sources.log);
    let vouched = signers.by_notary(image, client, credentials, log, roots, reasons).await?;
    if vouched.is_none() && !signers.look_at_registries() {
        return Err(ResolveFault::Unsigned(std::mem::take(reasons)));
    }
    Ok(vouched)
}

/// Looks for a signature of any of these digests.
async fn find_signature(
    signers: &TrustedSigners,
    image: SignedName<'_>,
    digests: &[Option<Digest>],
    mut reasons: Reasons,
) -> Result<BaseSignature, ResolveFault> {
    for digest in digests.iter().flatten() {
        if let Some(signature) = signers.by_signature(image, *digest, &mut reasons).await? {
            return Ok(signature);
        }
    }
    Err(ResolveFault::Unsigned(reasons))
}

/// Fetches the image manifest of an index that is for this machine.
async fn fetch_platform(
    session: &Session,
    reference: &ImageReference,
    index: &FetchedManifest,
) -> Result<FetchedManifest, ResolveFault> {
    let index = ImageIndex::parse(&index.bytes)?;
    let none = || ResolveFault::NoPlatform { architecture: architecture() };
    let entry = choose(&index).ok_or_else(none)?;
    let image = session.manifest(reference.repository(), Target::Digest(entry.digest)).await?;
    if image.kind != DocumentKind::Image || image.bytes.len() as u64 != entry.size {
        return Err(ResolveFault::OtherThanListed);
    }
    Ok(image)
}

/// Downloads an image unless it is there; returns its layout.
async fn download(
    session: &Session,
    reference: &ImageReference,
    cache: &Path,
    image: &FetchedManifest,
) -> Result<PathBuf, ResolveFault> {
    let manifest = ImageManifest::parse(&image.bytes)?;
    let blobs = manifest.blobs();
    let bytes = blobs.iter().try_fold(0_u64, |sum, blob| sum.checked_add(blob.size));
    if bytes.is_none_or(|bytes| bytes > MAX_IMAGE_BYTES) || manifest.config.size > MAX_CONFIG_BYTES
    {
        return Err(ResolveFault::TooLarge);
    }
    let finished = cache.join(image.digest.to_hex());
    if layout::is_complete(&finished, image, &blobs).await {
        session.log().info(&format!("{reference} is here already"));
        return Ok(finished);
    }
    let layout = Layout::begin(cache, image).await?;
    let (path, repository) = (layout.path(), reference.repository());
    let fetches: Vec<_> = blobs
        .iter()
        .map(|blob| async move {
            let at = blob_path(path, blob.digest);
            let mut file = tokio::fs::File::create(at).await?;
            session.blob_to(repository, blob, &mut file).await?;
            file.flush().await?;
            file.sync_all().await?;
            Ok::<(), ResolveFault>(())
        })
        .collect();
    stream::iter(fetches).buffer_unordered(FETCHES_AT_ONCE).try_collect::<()>().await?;
    check_config(&layout, &manifest.config).await?;
    layout.finish(&finished).await?;
    Ok(finished)
}

/// Checks that the image is one that runs on this machine: an image manifest that a tag names
/// directly has been chosen by nobody.
async fn check_config(layout: &Layout, config: &Descriptor) -> Result<(), ResolveFault> {
    if !matches!(&*config.media_type, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
        return Err(ResolveFault::NoImage);
    }
    let bytes = tokio::fs::read(blob_path(layout.path(), config.digest)).await?;
    check_config_bytes(&bytes)
}

fn check_config_bytes(bytes: &[u8]) -> Result<(), ResolveFault> {
    #[derive(serde::Deserialize)]
    struct Config {
        architecture: String,
        os: String,
        #[serde(default, rename = "config")]
        settings: Option<Settings>,
    }
    #[derive(serde::Deserialize)]
    struct Settings {
        #[serde(default, rename = "OnBuild")]
        triggers: Option<Vec<String>>,
    }
    let config: Config = serde_json::from_slice(bytes).map_err(|_| ResolveFault::NoImage)?;
    // The engine runs these instructions as if they stood in the Dockerfile, where nobody looked at
    // them: what the Dockerfile's own checks are about must not come in that way.
    let triggers = config.settings.and_then(|settings| settings.triggers).unwrap_or_default();
    // One that goes on in another line could hide them.
    let reaches_outside =
        |trigger: &String| ["--mount", "--from", "\n"].iter().any(|part| trigger.contains(part));
    if triggers.iter().any(reaches_outside) {
        return Err(ResolveFault::Trigger);
    }
    if config.os != "linux" || config.architecture != architecture() {
        return Err(ResolveFault::NoPlatform { architecture: architecture() });
    }
    Ok(())
}

/// Chooses the entry for this machine: the one that names no variant before one that does.
fn choose(index: &ImageIndex) -> Option<&Descriptor> {
    let variant = |entry: &Descriptor| entry.platform.as_ref().and_then(|p| p.variant.clone());
    let fitting = index.manifests.iter().filter(|entry| {
        DocumentKind::of(&entry.media_type) == Some(DocumentKind::Image)
            && entry
                .platform
                .as_ref()
                .is_some_and(|p| p.os == "linux" && p.architecture == architecture())
    });
    // `v8` is the first and common one of arm64; an amd64 variant `v2` might not run here.
    fitting.min_by_key(|entry| match variant(entry).as_deref() {
        None | Some("") => 0,
        Some("v8" | "v1") => 1,
        Some(_) => 2,
    })
}

/// Returns this machine's architecture by its name in Go, which image indexes use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// An external image could not be resolved or downloaded.
#[derive(Debug, Error)]
#[error("cannot get the base image `{reference}`")]
pub(crate) struct ResolveBasesError {
    reference: ImageReference,
    #[source]
    fault: ResolveFault,
}

/// Why an external image could not be resolved or downloaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ResolveFault {
    /// Somebody asked for the end of the build.
    #[error("cancelled")]
    Cancelled,

    /// The image manifest or index cannot be read as one.
    #[error("the registry serves an image manifest or index that cannot be used")]
    Document(#[from] ParseDocumentError),

    /// The directory of base images cannot be written.
    #[error("cannot write to the directory of base images")]
    Local(#[from] io::Error),

    /// It is no image of a container.
    #[error("it is not the image of a container")]
    NoImage,

    /// It does not run here.
    #[error("there is no image for linux/{architecture}")]
    NoPlatform { architecture: &'static str },

    /// The index says something else of an image than the image itself.
    #[error("the image is not what its index says")]
    OtherThanListed,

    /// The registry did not serve it.
    #[error("the registry does not serve the image")]
    Registry(#[from] RegistryError),

    /// It has ONBUILD instructions that reach outside.
    #[error(
        "its ONBUILD instructions use `--from` or `--mount`, which cannot be checked; build on another image"
    )]
    Trigger,

    /// Whether it is signed is not known.
    #[error("whether the image is signed cannot be found out now; nothing was built")]
    NotKnown(#[source] Box<NotKnown>),

    /// It is not signed as it must be.
    #[error(
        "no signature of the image is trusted: {0}. Have it signed, correct the keys, or set \
         {DOCKER_CONTENT_TRUST_BASE} to \"False\" to build on what is not signed"
    )]
    Unsigned(Reasons),

    /// It is too large.
    #[error("the image is larger than {} GiB", MAX_IMAGE_BYTES >> 30)]
    TooLarge,
}

impl From<NotKnown> for ResolveFault {
    fn from(error: NotKnown) -> Self {
        Self::NotKnown(Box::new(error))
    }
}

impl StepError for ResolveBasesError {
    fn failure(&self) -> Failure {
        let plain = || format!("docker pull {}", self.reference);
        let (code, command, return_code) = match &self.fault {
            ResolveFault::Cancelled => ("cancelled", plain(), 137),
            ResolveFault::Registry(error) => {
                (error.code(), v1_command(error, "pull", &self.reference), 1)
            }
            ResolveFault::Unsigned(_) | ResolveFault::NotKnown(_) => {
                ("base_image_trust", format!("docker trust inspect {}", self.reference), 1)
            }
            _ => ("base_image", plain(), 1),
        };
        Failure { code, command, return_code }
    }
}

const FETCHES_AT_ONCE: usize = 3;
/// Bytes of one image, compressed. The largest public ones, of machine learning, reach 20 GiB.
const MAX_IMAGE_BYTES: u64 = 32 * 1024 * 1024 * 1024;
const MAX_CONFIG_BYTES: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests;
