#![deny(clippy::wildcard_enum_match_arm, reason = "every error has a status of its own")]

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use sbs_proto::state::ParseStateRequestError;
use sbs_proto::{ErrorReply, ParseCertificateBodyError, ParseNameError};
use sbs_state::{OpenStateError, RotateKeyError};

use crate::build::failure::chain;
use crate::certificates::error::{
    CheckCertificateError, InstallCertificateError, RequestCertificateError,
};
use crate::core::error::{
    CleanError, ReadError, RotateError, SetDefinitionError, SetKeysError, StartBuildError,
    TrustError,
};
use crate::core::state::error::{BucketError, ExportStateError, ImportStateError, TooManyAttempts};
use crate::http::body::ReadBodyError;
use crate::storage::StorageError;

/// An error as a client gets it: the original's form, an object with `status`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The error with its causes, for the server's own log.
    told: String,
    form: Form,
    /// After how many seconds it is worth to try again.
    retry_after: Option<u64>,
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
        Self { status, code, message, told, form: Form::Object, retry_after: None }
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

    /// A request's body could not be written down.
    pub(crate) fn not_stored(error: &std::io::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error)
    }

    fn too_many_attempts(error: TooManyAttempts) -> Self {
        let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", &error);
        Self { retry_after: Some(error.seconds), ..refused }
    }

    /// Tells the client what went wrong elsewhere. No text of these errors holds a credential.
    fn elsewhere(status: StatusCode, code: &'static str, error: &dyn std::error::Error) -> Self {
        let refused = Self::new(status, code, error);
        Self { message: refused.told.clone(), ..refused }
    }

    /// Makes the error of a request that is refused for what its head says.
    pub(crate) fn plain(status: StatusCode, code: &'static str, message: &str) -> Self {
        let told = message.to_owned();
        Self { status, code, message: told.clone(), told, form: Form::Object, retry_after: None }
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
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
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
            ReadBodyError::Slow { .. } => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            ReadBodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
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
            SetDefinitionError::TooManyAttempts(error) => return Self::too_many_attempts(*error),
            SetDefinitionError::Sealing(_) | SetDefinitionError::Store(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        Self::new(status, code, &error)
    }
}

impl From<StartBuildError> for ApiError {
    fn from(error: StartBuildError) -> Self {
        let (status, code) = match error {
            StartBuildError::SetKeys(error) => return error.into(),
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

impl From<ParseStateRequestError> for ApiError {
    fn from(error: ParseStateRequestError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", &error)
    }
}

impl From<ExportStateError> for ApiError {
    fn from(error: ExportStateError) -> Self {
        let (status, code) = match error {
            ExportStateError::Bucket(error) => return error.into(),
            ExportStateError::Nothing { .. } => (StatusCode::NOT_FOUND, "nothing_to_export"),
            ExportStateError::Check(_)
            | ExportStateError::Differs
            | ExportStateError::Seal(_)
            | ExportStateError::Sealing(_)
            | ExportStateError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, &error)
    }
}

impl From<ImportStateError> for ApiError {
    fn from(error: ImportStateError) -> Self {
        let (status, code) = match error {
            ImportStateError::Bucket(error) => return error.into(),
            ImportStateError::Open(error) => return Self::of_state_image(&error),
            ImportStateError::TooManyAttempts(error) => return Self::too_many_attempts(error),
            ImportStateError::Busy => (StatusCode::CONFLICT, "busy"),
            ImportStateError::Content { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "bad_content"),
            ImportStateError::NotEmpty => (StatusCode::CONFLICT, "state_not_empty"),
            ImportStateError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            ImportStateError::WrongSecret => (StatusCode::FORBIDDEN, "wrong_secret_or_header"),
            ImportStateError::Sealing(_) | ImportStateError::Store(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        Self::new(status, code, &error)
    }
}

impl ApiError {
    /// Judges why a state image was not opened, by its word: more reasons may come.
    fn of_state_image(error: &OpenStateError) -> Self {
        let status = match error.code() {
            "ca_mismatch" | "rollback" => StatusCode::CONFLICT,
            "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            "unreadable" => StatusCode::INTERNAL_SERVER_ERROR,
            "wrong_secret_or_header" => StatusCode::FORBIDDEN,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.code(), error)
    }
}

impl From<BucketError> for ApiError {
    fn from(error: BucketError) -> Self {
        let storage = match &error {
            BucketError::Definition(_) | BucketError::Store(_) => {
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error);
            }
            BucketError::NoAccess => {
                return Self::new(StatusCode::CONFLICT, "no_state_storage", &error);
            }
            BucketError::Storage(error) => error,
        };
        let (status, code) = match storage {
            StorageError::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            StorageError::Internal(_) | StorageError::Local { .. } => {
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error);
            }
            StorageError::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
            StorageError::TimeLimit { .. } => (StatusCode::GATEWAY_TIMEOUT, "storage"),
            StorageError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            StorageError::Changed { .. }
            | StorageError::Clock { .. }
            | StorageError::Credentials { .. }
            | StorageError::Denied { .. }
            | StorageError::Failing { .. }
            | StorageError::Key(_)
            | StorageError::Malformed { .. }
            | StorageError::Name(_)
            | StorageError::NoBucket { .. }
            | StorageError::Rejected { .. }
            | StorageError::Unreachable { .. }
            | StorageError::Untrusted { .. } => (StatusCode::BAD_GATEWAY, "storage"),
        };
        Self::elsewhere(status, code, &error)
    }
}

impl From<TrustError> for ApiError {
    fn from(error: TrustError) -> Self {
        let (status, code) = match &error {
            TrustError::NoKeys => (StatusCode::NOT_FOUND, "no_keys"),
            TrustError::NoSuchDefinition => (StatusCode::NOT_FOUND, "not_found"),
            TrustError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, &error)
    }
}

impl From<RotateError> for ApiError {
    fn from(error: RotateError) -> Self {
        let (status, code) = match error {
            RotateError::Busy => (StatusCode::CONFLICT, "busy"),
            RotateError::Keys(error) => return error.into(),
            RotateError::NotInitialised => (StatusCode::CONFLICT, "not_initialised"),
            RotateError::Rotate(RotateKeyError::NotRetired | RotateKeyError::NotRotating) => {
                (StatusCode::CONFLICT, "wrong_phase")
            }
            RotateError::SetKeys(error) => return error.into(),
            RotateError::TooManyAttempts(error) => return Self::too_many_attempts(error),
            RotateError::WrongSecret => (StatusCode::FORBIDDEN, "wrong_secret"),
            RotateError::Rotate(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, &error)
    }
}

impl From<SetKeysError> for ApiError {
    fn from(error: SetKeysError) -> Self {
        let (status, code) = match &error {
            SetKeysError::Full => (StatusCode::CONFLICT, "keys_full"),
            SetKeysError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
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
            | ReadError::NotHere { .. }
            | ReadError::NothingBuilt => (StatusCode::NOT_FOUND, "not_found"),
            ReadError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            ReadError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, &error)
    }
}

impl From<ParseCertificateBodyError> for ApiError {
    fn from(error: ParseCertificateBodyError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", &error)
    }
}

impl From<RequestCertificateError> for ApiError {
    fn from(error: RequestCertificateError) -> Self {
        let (status, code) = match &error {
            RequestCertificateError::NotAHost => (StatusCode::BAD_REQUEST, "invalid_request"),
            RequestCertificateError::Generate(_)
            | RequestCertificateError::Keep(_)
            | RequestCertificateError::Make(_)
            | RequestCertificateError::Task(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, &error)
    }
}

impl From<InstallCertificateError> for ApiError {
    fn from(error: InstallCertificateError) -> Self {
        let (status, code) = match &error {
            InstallCertificateError::Parse(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            InstallCertificateError::NoRequest => (StatusCode::CONFLICT, "no_request"),
            InstallCertificateError::OtherKey
            | InstallCertificateError::Check(
                CheckCertificateError::NotValidNow { .. }
                | CheckCertificateError::OtherAuthority
                | CheckCertificateError::OtherHost { .. }
                | CheckCertificateError::OtherPurpose
                | CheckCertificateError::Rejected { .. },
            ) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_certificate"),
            InstallCertificateError::Check(CheckCertificateError::Authorities)
            | InstallCertificateError::Keep(_)
            | InstallCertificateError::Tls(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, &error)
    }
}
