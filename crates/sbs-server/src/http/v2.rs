//! The v2 routes: builds and their files (`docs/formats/wire.md`).

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::{HeaderMap, Method, StatusCode, Uri};
use sbs_proto::v2::{
    self, Build, BuildId, BuildPage, BuildPhase, FileKind, Info, Limits, PAGE_BUILDS, Selector,
    Upload,
};
use sbs_proto::{
    DefinitionName, ImageReference, ImageTag, KeyRole, StateSecret, TrustBundle, parse_state_secret,
};
use url::form_urlencoded;

use crate::certificates::Certificates;
use crate::core::Core;
use crate::core::builds::{Journal, Phase};
use crate::core::error::{ReadError, SetDefinitionError};
use crate::core::upload::UploadState;
use crate::http::error::ApiError;
use crate::http::{body, file};
use crate::limits;
use crate::listener::AuthenticatedPeer;

type Answer<T> = Result<T, ApiError>;

pub(crate) fn router(core: Core, certificates: Certificates) -> Router {
    let told = async move |State(core)| info(&core, &certificates);
    let mut router = Router::new()
        .route(v2::INFO, get(told))
        .route(v2::BUILDS_PATTERN, get(builds))
        .route(v2::BUILD_PATTERN, get(build))
        .route(v2::TRUST_PATTERN, get(trust))
        .route(v2::ROTATION_PATTERN, post(rotate).delete(retire));
    for kind in FileKind::ALL {
        let route = format!("{}/{}", v2::BUILD_PATTERN, kind.as_str());
        router = router.route(
            &route,
            get(move |State(core), Path((name, id)), method, headers| async move {
                send_file(kind, &core, (name, id), &method, &headers)
            }),
        );
    }
    router.method_not_allowed_fallback(|| async { ApiError::method_not_allowed() }).with_state(core)
}

fn info(core: &Core, certificates: &Certificates) -> Json<Info> {
    Json(Info {
        api: 2,
        certificates: Some(certificates.dates()),
        features: FEATURES.map(str::to_owned).to_vec(),
        limits: Limits {
            page_builds: PAGE_BUILDS,
            request_body_bytes: limits::REQUEST_BODY as u64,
            v1_manifest_bytes: limits::V1_MANIFEST,
        },
        root_secret: Some(core.root_secret()),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

async fn builds(
    State(core): State<Core>,
    Path(name): Path<String>,
    uri: Uri,
) -> Answer<Json<BuildPage>> {
    let page = Page::parse(uri.query().unwrap_or_default())?;
    let builds = core.builds(&definition(&name)?)?;
    let before =
        |build: &Build| page.before.as_ref().is_none_or(|id| build.id.number() < id.number());
    let builds = builds.iter().filter_map(|(journal, _)| told(journal)).filter(before);
    // One more tells whether there is another page.
    let mut builds: Vec<Build> = builds.take(page.limit + 1).collect();
    let more = builds.len() > page.limit;
    builds.truncate(page.limit);
    let next = builds.last().filter(|_| more).map(|build| build.id.clone());
    Ok(Json(BuildPage { builds, next }))
}

async fn build(
    State(core): State<Core>,
    Path((name, id)): Path<(String, String)>,
) -> Answer<Json<Build>> {
    let (journal, _) = core.build(&definition(&name)?, &selector(&id)?)?;
    Ok(Json(told(&journal).ok_or(ReadError::NoSuchBuild)?))
}

async fn trust(State(core): State<Core>, Path(name): Path<String>) -> Answer<Json<TrustBundle>> {
    Ok(Json(core.trust(&definition(&name)?)?))
}

async fn rotate(
    State(core): State<Core>,
    Extension(peer): Extension<AuthenticatedPeer>,
    Path((name, role)): Path<(String, String)>,
    request_body: Body,
) -> Answer<Json<TrustBundle>> {
    let (name, role) = (definition(&name)?, key_role(&role)?);
    core.rotate_key(&name, role, &secret(request_body).await?).await?;
    tell("a signing key was rotated", &name, role, peer);
    Ok(Json(core.trust(&name)?))
}

async fn retire(
    State(core): State<Core>,
    Extension(peer): Extension<AuthenticatedPeer>,
    Path((name, role)): Path<(String, String)>,
    request_body: Body,
) -> Answer<Json<TrustBundle>> {
    let (name, role) = (definition(&name)?, key_role(&role)?);
    core.retire_key(&name, role, &secret(request_body).await?).await?;
    tell("a signing key was retired", &name, role, peer);
    Ok(Json(core.trust(&name)?))
}

/// Reads the body of who changes keys, which must prove more than a client certificate does.
async fn secret(request_body: Body) -> Answer<StateSecret> {
    let members = body::object(request_body).await?;
    Ok(parse_state_secret(&members).map_err(SetDefinitionError::Secret)?)
}

/// Says in the server's log who changed a key.
fn tell(what: &str, definition: &DefinitionName, role: KeyRole, peer: AuthenticatedPeer) {
    let (address, certificate) = (peer.address(), peer.certificate());
    tracing::info!(%definition, role = role.as_str(), %address, %certificate, "{what}");
}

fn key_role(text: &str) -> Answer<KeyRole> {
    KeyRole::parse(text).ok_or_else(ApiError::not_found)
}

fn send_file(
    kind: FileKind,
    core: &Core,
    (name, id): (String, String),
    method: &Method,
    headers: &HeaderMap,
) -> Answer<Response> {
    let opened = core.open_file(&definition(&name)?, &selector(&id)?, kind)?;
    file::respond(method, headers, opened, content_type(kind))
}

/// A name that no image definition can have is one that none has.
fn definition(name: &str) -> Result<DefinitionName, ReadError> {
    DefinitionName::parse(name).map_err(|_| ReadError::NoSuchDefinition)
}

fn selector(id: &str) -> Result<Selector, ReadError> {
    Selector::parse(id).map_err(|_| ReadError::NoSuchBuild)
}

/// Returns what is told of a build; nothing of one whose directory is not ours.
fn told(journal: &Journal) -> Option<Build> {
    Some(Build {
        build_name: journal.build_name.clone(),
        failure: journal.failure.clone(),
        id: BuildId::parse(&journal.id).ok()?,
        image: journal.image.as_deref().and_then(|image| ImageReference::parse(image).ok()),
        image_tag: journal.status.image_tag.as_deref().and_then(|tag| ImageTag::parse(tag).ok()),
        manifest: journal.manifests.manifest,
        phase: match journal.phase {
            Phase::Cancelled => BuildPhase::Cancelled,
            Phase::Failed => BuildPhase::Failed,
            Phase::Interrupted => BuildPhase::Interrupted,
            Phase::Running => BuildPhase::Running,
            Phase::Succeeded => BuildPhase::Succeeded,
        },
        started_at: journal.started_at.clone(),
        status: journal.status.status.to_string(),
        thin_manifest: journal.manifests.thin_manifest,
        upload: journal.upload.as_ref().map(|upload| Upload {
            attempts: upload.attempts,
            reason: upload.reason.clone(),
            state: match upload.state {
                UploadState::Done => v2::UploadState::Done,
                UploadState::Failed => v2::UploadState::Failed,
                UploadState::Pending => v2::UploadState::Pending,
            },
        }),
    })
}

fn content_type(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Key => "application/x-pem-file",
        FileKind::Log => "text/plain; charset=utf-8",
        FileKind::Manifest => "application/x-bzip2",
        FileKind::ThinManifest => "application/zstd",
    }
}

/// Which builds are asked for.
#[derive(Debug, Eq, PartialEq)]
struct Page {
    before: Option<BuildId>,
    limit: usize,
}

impl Page {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let refused =
            |message: &str| ApiError::plain(StatusCode::BAD_REQUEST, "invalid_request", message);
        let (mut before, mut limit) = (None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let doubled = match &*key {
                "before" => {
                    let id = BuildId::parse(&value);
                    before.replace(id.map_err(|_| refused("`before` is no build id"))?).is_some()
                }
                "limit" => {
                    let count =
                        value.parse().ok().filter(|count| (1..=PAGE_BUILDS).contains(count));
                    let message = format!("`limit` is no number from 1 to {PAGE_BUILDS}");
                    limit.replace(count.ok_or_else(|| refused(&message))?).is_some()
                }
                _ => return Err(refused("a query can have `before` and `limit` and no more")),
            };
            if doubled {
                return Err(refused("a part of the query stands twice"));
            }
        }
        Ok(Self { before, limit: limit.unwrap_or(DEFAULT_LIMIT) })
    }
}

const DEFAULT_LIMIT: usize = 20;
const FEATURES: [&str; 5] = ["builds", "certificates", "ranges", "state", "thin-manifests"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_by_limit_and_before() {
        let id = |text| Some(BuildId::parse(text).unwrap());
        for (query, before, limit) in [
            ("", None, 20),
            ("limit=1", None, 1),
            ("limit=100&before=00000007", id("00000007"), 100),
            ("before=%37", id("7"), 20),
        ] {
            assert_eq!(Page::parse(query).unwrap(), Page { before, limit }, "{query}");
        }
        for query in [
            "limit=0",
            "limit=101",
            "limit=",
            "limit=-1",
            "limit=99999999999999999999999",
            "before=",
            "before=x",
            "before=latest",
            "limit=1&limit=2",
            "before=1&before=1",
            "x=1",
            "limit",
        ] {
            Page::parse(query).unwrap_err();
        }
    }
}
