//! HTTP: thin layers over the core, which decide nothing. v1 is the original's wire, v2 our own.

mod body;
mod certificates;
mod conditional;
mod error;
mod file;
mod state;
mod v1;
mod v2;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;

use crate::certificates::Certificates;
use crate::core::Core;
use crate::http::error::Told;
use crate::listener::AuthenticatedPeer;
use crate::storage::OpenStorage;

/// Returns every route of the server. A state image may take `receive_limit` to come.
pub(crate) fn router(
    core: Core,
    certificates: Certificates,
    storages: Arc<dyn OpenStorage>,
    receive_limit: Duration,
) -> Router {
    let state = state::router(core.clone(), storages, receive_limit);
    let v2 = v2::router(core.clone(), certificates.clone());
    let others = state.merge(certificates::router(certificates));
    v1::router(core).merge(v2).merge(others).layer(from_fn(log_request))
}

/// Writes one record for each request, with its error if it has one.
async fn log_request(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = request.extensions().get::<AuthenticatedPeer>().copied();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let address = peer.map(|peer| peer.address().to_string()).unwrap_or_default();
    let certificate = peer.map(|peer| peer.certificate().to_string()).unwrap_or_default();
    match response.extensions().get::<Told>() {
        None => tracing::debug!(%method, path, status, address, certificate, "answered"),
        Some(Told(error)) if status >= 500 => {
            tracing::error!(%method, path, status, address, certificate, error, "failed");
        }
        Some(Told(error)) => {
            tracing::info!(%method, path, status, address, certificate, error, "refused");
        }
    }
    response
}
