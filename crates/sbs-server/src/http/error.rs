#![deny(clippy::wildcard_enum_match_arm, reason = "every error has a status of its own")]

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use sbs_proto::{ErrorReply, ParseNameError};

use crate::build::failure::chain;
use crate::core::error::{CleanError, ReadError, SetDefinitionError, StartBuildError};
use crate::http::body::ReadBodyError;

/// An error as a client gets it: the original's form, an object with `status`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The error with its causes, for the server's own log.
    told: String,
    form: Form,
}

/// What the original's client survives as the body of an error, by route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Object,
    Text,
}

/// The text of an error, put into the response for the layer that logs.
#[derive(Clone, Debug)]
pub(crate) struct Told(pub(crate) String);

impl ApiError {
    fn new(status: StatusCode, code: &'static str, error: &dyn std::error::Error) -> Self {
        let told = chain(error);
        // What failed inside is the operator's to know.
        let message = if status.is_server_error() {
            "the server failed; its log has the reason".to_owned()
        } else {
            told.clone()
        };
        Self { status, code, message, told, form: Form::Object }
    }

    /// Makes the body plain text, for the routes whose errors the original's client cannot read as
    /// JSON (`docs/formats/wire.md`, "Errors").
    #[must_use]
    pub(crate) fn into_text(self) -> Self {
        Self { form: Form::Text, ..self }
    }

    /// Adds what the client can do.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: &str) -> Self {
        self.message = format!("{}; {hint}", self.message);
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::plain(StatusCode::NOT_FOUND, "not_found", "there is no such route")
    }

    pub(crate) fn method_not_allowed() -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::plain(status, "method_not_allowed", "this route has no such method")
    }

    /// Makes the error of a request that is refused for what its head says.
    pub(crate) fn plain(status: StatusCode, code: &'static str, message: &str) -> Self {
        let told = message.to_owned();
        Self { status, code, message: told.clone(), told, form: Form::Object }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = match self.form {
            Form::Object => {
                let reply = ErrorReply { code: self.code.to_owned(), status: self.message };
                (self.status, Json(reply)).into_response()
            }
            Form::Text => (self.status, self.message + "\n").into_response(),
        };
        response.extensions_mut().insert(Told(self.told));
        response
    }
}

impl From<ReadBodyError> for ApiError {
    fn from(error: ReadBodyError) -> Self {
        let (status, code) = match &error {
            ReadBodyError::Cut { .. } | ReadBodyError::Parse(_) => {
                (StatusCode::BAD_REQUEST, "invalid_request")
            }
            ReadBodyError::Slow => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            ReadBodyError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        };
        Self::new(status, code, &error)
    }
}

impl From<ParseNameError> for ApiError {
    fn from(error: ParseNameError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", &error)
    }
}

impl From<SetDefinitionError> for ApiError {
    fn from(error: SetDefinitionError) -> Self {
        let (status, code) = match &error {
            SetDefinitionError::Definition(_)
            | SetDefinitionError::NewSecretOnInit
            | SetDefinitionError::Secret(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            SetDefinitionError::KeysExist => (StatusCode::CONFLICT, "wrong_phase"),
            SetDefinitionError::NotInitialised => (StatusCode::CONFLICT, "not_initialised"),
            SetDefinitionError::WrongSecret => (StatusCode::FORBIDDEN, "wrong_secret"),
            SetDefinitionError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, &error)
    }
}

impl From<StartBuildError> for ApiError {
    fn from(error: StartBuildError) -> Self {
        let (status, code) = match &error {
            StartBuildError::Busy => (StatusCode::CONFLICT, "busy"),
            StartBuildError::NotInitialised => (StatusCode::CONFLICT, "not_initialised"),
            StartBuildError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            StartBuildError::Definition(_)
            | StartBuildError::Keys(_)
            | StartBuildError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, &error)
    }
}

impl From<CleanError> for ApiError {
    fn from(error: CleanError) -> Self {
        let CleanError::Store(_) = &error;
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error)
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let (status, code) = match &error {
            ReadError::NoSuchBuild
            | ReadError::NoSuchDefinition
            | ReadError::NoSuchFile { .. }
            | ReadError::NothingBuilt => (StatusCode::NOT_FOUND, "not_found"),
            ReadError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            ReadError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, &error)
    }
}
