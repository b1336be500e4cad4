//! The routes of state images, v1 and v2.

use std::io::{Cursor, Seek as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{DefaultBodyLimit, Multipart, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use sbs_proto::state::{
    EXPORT_TAG, STATE_MEDIA_TYPE, StateExportReply, StateExportRequest, StateImportReply,
    StateImportRequest, StateSource, form,
};
use sbs_proto::{DefinitionName, StateSecret, StatusReply, route, v2};
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

use crate::core::Core;
use crate::http::error::ApiError;
use crate::http::{body, file, v1};
use crate::limits;
use crate::storage::OpenStorage;

type Answer<T> = Result<T, ApiError>;

/// What the routes work with.
#[derive(Clone, Debug)]
struct StateRoutes {
    core: Core,
    /// How long a state image may take to come.
    receive_limit: Duration,
    /// Held while a state image is received: it may be in memory some times over.
    receiving: Arc<Semaphore>,
    storages: Arc<dyn OpenStorage>,
}

pub(crate) fn router(
    core: Core,
    storages: Arc<dyn OpenStorage>,
    receive_limit: Duration,
) -> Router {
    let receiving = Arc::new(Semaphore::new(1));
    let routes = StateRoutes { core, receive_limit, receiving, storages };
    Router::new()
        .route(route::STATE_IMAGE, get(export).post(import))
        .route(v2::STATE, get(export_file).post(import_file))
        .layer(DefaultBodyLimit::max(limits::STATE_BODY))
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .with_state(routes)
}

/// `GET /state-image`: the state image in base64, or into a bucket.
async fn export(State(routes): State<StateRoutes>, request_body: Body) -> Answer<Response> {
    let members = body::optional_object(request_body).await?;
    let request = StateExportRequest::from_members(&members)?;
    let StateRoutes { core, storages, .. } = routes;
    if let Some(bucket) = request.bucket {
        let name = core.export_state_into(&the_definition(), &bucket, &*storages).await?;
        let (export_tag, name) = (EXPORT_TAG.to_owned(), name.to_string());
        let reply = StateExportReply { export_tag, name, state: None };
        return Ok(axum::response::IntoResponse::into_response(Json(reply)));
    }
    let opened = core.export_state(&the_definition()).await?.into_opened()?;
    // Neither has a character that JSON escapes.
    let end = format!("\",\"export_tag\":\"{EXPORT_TAG}\",\"name\":\"{}\"}}", opened.name);
    Ok(v1::stream_json("{\"state\":\"", Some(opened.file), v1::Base64Encoder, end))
}

/// `POST /state-image`: a state image in base64, or from a bucket.
async fn import(
    State(routes): State<StateRoutes>,
    request_body: Body,
) -> Answer<Json<StatusReply>> {
    let StateRoutes { core, receive_limit, receiving, storages } = routes;
    let _alone = alone(&receiving)?;
    let mut members = body::state_object(request_body, receive_limit).await?;
    let request = StateImportRequest::from_members(&mut members)?;
    drop(members);
    let (name, secret) = (the_definition(), &request.secret);
    let min_epoch = request.min_epoch.unwrap_or(0);
    match &request.source {
        StateSource::Bucket { bucket, name: object } => {
            let from = (bucket, object);
            core.import_state_from(&name, secret, min_epoch, from, &*storages).await?;
        }
        StateSource::Inline(text) => {
            let decoded = STANDARD.decode(text.expose());
            let bytes = decoded.map_err(|_| refused("`state` is not standard base64"))?;
            core.import_state(&name, secret, min_epoch, Cursor::new(bytes)).await?;
        }
    }
    Ok(Json(StatusReply::ok()))
}

/// `GET /v2/state`: the state image as it is. Each answer is another one: there are no ranges.
async fn export_file(State(routes): State<StateRoutes>) -> Answer<Response> {
    let opened = routes.core.export_state(&the_definition()).await?.into_opened()?;
    let mut response = file::respond(&Method::GET, &HeaderMap::new(), opened, STATE_MEDIA_TYPE)?;
    let headers = response.headers_mut();
    for name in [header::ACCEPT_RANGES, header::ETAG] {
        headers.remove(name);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `POST /v2/state`: a form with the secret and the state image as it is.
async fn import_file(
    State(routes): State<StateRoutes>,
    form: Result<Multipart, MultipartRejection>,
) -> Answer<Json<StateImportReply>> {
    let StateRoutes { core, receive_limit, receiving, .. } = routes;
    let _alone = alone(&receiving)?;
    let form = form.map_err(|_| refused("the body is no form (multipart/form-data)"))?;
    let received = tokio::time::timeout(receive_limit, receive(form, &core)).await;
    let received = received.map_err(|_elapsed| body::ReadBodyError::slow(receive_limit))??;
    let Received { min_epoch, secret, state } = received;
    let imported = core.import_state(&the_definition(), &secret, min_epoch, state).await?;
    let (definition, epoch) = (imported.definition, imported.epoch);
    Ok(Json(StateImportReply { definition, epoch, status: StatusReply::ok().status }))
}

/// A form that was received.
struct Received {
    min_epoch: u64,
    secret: StateSecret,
    state: std::fs::File,
}

async fn receive(mut form: Multipart, core: &Core) -> Answer<Received> {
    let order = || refused("the parts of the form are `secret`, `min_epoch` (if any) and `state`");
    let secret = form.next_field().await?.ok_or_else(order)?;
    if secret.name() != Some(form::SECRET) {
        return Err(order());
    }
    let secret = StateSecret::parse(&short_text(secret).await?);
    let secret = secret.map_err(|error| refused(&error.to_string()))?;
    let mut field = form.next_field().await?.ok_or_else(order)?;
    let mut min_epoch = 0;
    if field.name() == Some(form::MIN_EPOCH) {
        let text = short_text(field).await?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        min_epoch = number.ok_or_else(|| refused("`min_epoch` is no decimal number"))?;
        field = form.next_field().await?.ok_or_else(order)?;
    }
    if field.name() != Some(form::STATE) {
        return Err(order());
    }
    let state = store(field, core).await?;
    if form.next_field().await?.is_some() {
        return Err(order());
    }
    Ok(Received { min_epoch, secret, state })
}

/// Reads a part that is one short line.
async fn short_text(mut field: Field<'_>) -> Answer<Zeroizing<String>> {
    // The whole room at once: a text that grows leaves copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(SHORT_TEXT));
    while let Some(chunk) = field.chunk().await? {
        let chunk = std::str::from_utf8(&chunk).map_err(|_| refused("a part is no text"))?;
        if text.len() + chunk.len() > SHORT_TEXT {
            return Err(refused("a part of the form is longer than it can be"));
        }
        text.push_str(chunk);
    }
    Ok(text)
}

/// Writes the state image into a file without a name.
async fn store(mut field: Field<'_>, core: &Core) -> Answer<std::fs::File> {
    let failed = |error: std::io::Error| ApiError::not_stored(&error);
    let mut file = core.receiving_file().map_err(failed)?;
    let mut room = limits::STATE_FILE;
    while let Some(chunk) = field.chunk().await? {
        let rest = room.checked_sub(chunk.len() as u64);
        room = rest.ok_or_else(body::ReadBodyError::large_state)?;
        file.write_all(&chunk).map_err(failed)?;
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}

fn alone(receiving: &Semaphore) -> Answer<SemaphorePermit<'_>> {
    let status = StatusCode::CONFLICT;
    let message = "another state image is being received; try again when that is done";
    receiving.try_acquire().map_err(|_| ApiError::plain(status, "busy", message))
}

fn refused(message: &str) -> ApiError {
    ApiError::plain(StatusCode::BAD_REQUEST, "invalid_request", message)
}

impl From<MultipartError> for ApiError {
    fn from(error: MultipartError) -> Self {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return body::ReadBodyError::large_state().into();
        }
        // Its text can repeat what was sent.
        refused("the form (multipart/form-data) is malformed or cut")
    }
}

/// There is one state, which is that of the image definition that v1 knows.
fn the_definition() -> DefinitionName {
    DefinitionName::default_name()
}

/// The longest of the short parts is SECRET with 172 characters.
const SHORT_TEXT: usize = 256;
