//! The routes of the server's certificates, of v1 and v2. Both do the same.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use sbs_proto::{
    Certificates as Told, RequestReply, StatusReply, parse_certificate_body, parse_request_body,
    route, v2,
};

use crate::certificates::Certificates;
use crate::http::body;
use crate::http::error::ApiError;

type Answer<T> = Result<T, ApiError>;

pub(crate) fn router(certificates: Certificates) -> Router {
    Router::new()
        .route(route::CSR_PATTERN, get(request))
        .route(route::CERTIFICATE, post(install))
        .route(v2::CERTIFICATES, get(told))
        .route(v2::CERTIFICATE_REQUEST, post(request_v2))
        .route(v2::SERVER_CERTIFICATE, put(install_v2))
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .with_state(certificates)
}

async fn request(
    State(certificates): State<Certificates>,
    Path(host): Path<String>,
    request_body: Body,
) -> Answer<Json<RequestReply>> {
    body::optional_object(request_body).await?;
    Ok(Json(RequestReply { csr: certificates.request(&host).await? }))
}

async fn install(
    State(certificates): State<Certificates>,
    request_body: Body,
) -> Answer<Json<StatusReply>> {
    let members = body::object(request_body).await?;
    certificates.install(parse_certificate_body(&members)?).await?;
    Ok(Json(StatusReply::ok()))
}

async fn told(State(certificates): State<Certificates>) -> Json<Told> {
    Json(certificates.told())
}

async fn request_v2(
    State(certificates): State<Certificates>,
    request_body: Body,
) -> Answer<Json<RequestReply>> {
    let members = body::object(request_body).await?;
    let csr = certificates.request(parse_request_body(&members)?).await?;
    Ok(Json(RequestReply { csr }))
}

async fn install_v2(
    State(certificates): State<Certificates>,
    request_body: Body,
) -> Answer<Json<Told>> {
    let members = body::object(request_body).await?;
    certificates.install(parse_certificate_body(&members)?).await?;
    Ok(Json(certificates.told()))
}
