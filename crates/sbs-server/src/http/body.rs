use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt as _, Limited};
use sbs_proto::{Members, ParseBodyError};
use thiserror::Error;

use crate::limits;

/// Reads a body that must be an object.
pub(crate) async fn object(body: Body) -> Result<Members, ReadBodyError> {
    Ok(Members::parse(&read(body, SMALL).await?)?)
}

/// Reads a body that must be an object, with a state image in it.
pub(crate) async fn state_object(body: Body, time: Duration) -> Result<Members, ReadBodyError> {
    Ok(Members::parse(&read(body, Limits { bytes: limits::STATE_BODY, time }).await?)?)
}

/// Reads a body that may be absent or the original's `""`.
pub(crate) async fn optional_object(body: Body) -> Result<Members, ReadBodyError> {
    Ok(Members::parse_optional(&read(body, SMALL).await?)?)
}

async fn read(body: Body, limits: Limits) -> Result<bytes::Bytes, ReadBodyError> {
    let collected = Limited::new(body, limits.bytes).collect();
    match tokio::time::timeout(limits.time, collected).await {
        Err(_elapsed) => Err(ReadBodyError::slow(limits.time)),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ReadBodyError::TooLarge { max_bytes: limits.bytes })
        }
        Ok(Err(source)) => Err(ReadBodyError::Cut { source }),
    }
}

/// What one kind of body may take.
#[derive(Clone, Copy)]
struct Limits {
    bytes: usize,
    time: Duration,
}

const SMALL: Limits = Limits { bytes: limits::REQUEST_BODY, time: limits::REQUEST_BODY_TIME };

impl ReadBodyError {
    /// A body took longer than this.
    pub(crate) fn slow(time: Duration) -> Self {
        Self::Slow { seconds: time.as_secs() }
    }

    /// A state image is too large.
    pub(crate) fn large_state() -> Self {
        Self::TooLarge { max_bytes: limits::STATE_BODY }
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
    #[error("the body took more than {seconds} seconds")]
    Slow { seconds: u64 },

    /// The body is too large.
    #[error("the body is larger than {max_bytes} bytes")]
    TooLarge { max_bytes: usize },
}
