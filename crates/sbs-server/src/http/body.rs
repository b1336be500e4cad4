use axum::body::Body;
use http_body_util::{BodyExt as _, Limited};
use sbs_proto::{Members, ParseBodyError};
use thiserror::Error;

use crate::limits;

/// Reads a body that must be an object.
pub(crate) async fn object(body: Body) -> Result<Members, ReadBodyError> {
    Ok(Members::parse(&read(body).await?)?)
}

/// Reads a body that may be absent or the original's `""`.
pub(crate) async fn optional_object(body: Body) -> Result<Members, ReadBodyError> {
    Ok(Members::parse_optional(&read(body).await?)?)
}

async fn read(body: Body) -> Result<bytes::Bytes, ReadBodyError> {
    let collected = Limited::new(body, limits::REQUEST_BODY).collect();
    match tokio::time::timeout(limits::REQUEST_BODY_TIME, collected).await {
        Err(_elapsed) => Err(ReadBodyError::Slow),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ReadBodyError::TooLarge)
        }
        Ok(Err(source)) => Err(ReadBodyError::Cut { source }),
    }
}

/// Why a request body was not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ReadBodyError {
    /// The connection ended first.
    #[error("the body ends too early")]
    Cut { source: Box<dyn std::error::Error + Send + Sync> },

    /// The body is not the JSON that it should be.
    #[error(transparent)]
    Parse(#[from] ParseBodyError),

    /// The body came too slowly.
    #[error("the body took more than {} seconds", limits::REQUEST_BODY_TIME.as_secs())]
    Slow,

    /// The body is too large.
    #[error("the body is larger than {} bytes", limits::REQUEST_BODY)]
    TooLarge,
}
