//! The bodies of the routes of state images.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::{
    BucketName, Members, ParseNameError, ParseStateSecretError, ParseStorageError, SecretText,
    StateImageName, StateSecret,
};

/// The form of a state image, as `export_tag` tells it: `docs/formats/state.md`.
pub const EXPORT_TAG: &str = "sbs-seal-1";

/// The media type of a state image.
pub const STATE_MEDIA_TYPE: &str = "application/vnd.sbs.state";

/// Where a state image that is exported goes, carried as a JSON body on a GET.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StateExportRequest {
    /// The bucket; without one, the state image comes with the reply.
    pub bucket: Option<BucketName>,
}

impl StateExportRequest {
    /// Reads the request from the members of a body.
    pub fn from_members(members: &Members) -> Result<Self, ParseStateRequestError> {
        Ok(Self { bucket: bucket(members)? })
    }

    /// Returns the body of the request.
    pub fn to_members(&self) -> Members {
        let mut members = Members::default();
        if let Some(bucket) = &self.bucket {
            members.insert(BUCKET, bucket.as_str());
        }
        members
    }
}

/// The reply of `GET /state-image`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StateExportReply {
    /// The form of the state image.
    pub export_tag: String,
    /// The name of the state image. It comes from the server: parse it as a [`StateImageName`]
    /// before it becomes a file name.
    pub name: String,
    /// Standard base64 of the state image, which is sealed; absent if it went into a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// The body of `POST /state-image`.
#[derive(Debug)]
pub struct StateImportRequest {
    /// The lowest epoch that the client accepts; the original's client never says one.
    pub min_epoch: Option<u64>,
    /// The client's half of what opens the state image.
    pub secret: StateSecret,
    /// The state image.
    pub source: StateSource,
}

/// Where a state image comes from.
#[derive(Debug)]
pub enum StateSource {
    /// An object in a bucket, with the credentials that the server has.
    Bucket {
        /// The bucket.
        bucket: BucketName,
        /// The object.
        name: StateImageName,
    },
    /// The request itself: standard base64, not yet decoded. It is sealed and no secret, but wiped
    /// like one.
    Inline(SecretText),
}

impl StateImportRequest {
    /// Reads the request from the members of a body, and takes what is large or secret out of them.
    pub fn from_members(members: &mut Members) -> Result<Self, ParseStateRequestError> {
        let secret = take_text(members, SECRET)?;
        let secret = secret.ok_or(ParseStateRequestError::Missing { key: SECRET })?;
        let secret = StateSecret::parse(secret.expose())?;
        let min_epoch = match members.value(MIN_EPOCH) {
            None => None,
            Some(value) => {
                Some(value.as_u64().ok_or(ParseStateRequestError::Type { key: MIN_EPOCH })?)
            }
        };
        let name = text(members, NAME)?.map(StateImageName::parse).transpose()?;
        let source = match (take_text(members, STATE)?, name, bucket(members)?) {
            // A client that sends back the whole reply of the export sends a name, too.
            (Some(state), _, None) => StateSource::Inline(state),
            (None, Some(name), Some(bucket)) => StateSource::Bucket { bucket, name },
            (Some(_), _, Some(_)) => return Err(ParseStateRequestError::TwoSources),
            (None, _, _) => return Err(ParseStateRequestError::NoSource),
        };
        Ok(Self { min_epoch, secret, source })
    }

    /// Returns the body of the request, which holds the secret in clear.
    pub fn expose_members(&self) -> Members {
        let mut members = Members::default();
        members.insert(SECRET, &**self.secret.expose_base64());
        if let Some(min_epoch) = self.min_epoch {
            members.insert(MIN_EPOCH, min_epoch);
        }
        match &self.source {
            StateSource::Bucket { bucket, name } => {
                members.insert(BUCKET, bucket.as_str());
                members.insert(NAME, name.as_str());
            }
            StateSource::Inline(state) => members.insert(STATE, state.expose()),
        }
        members
    }
}

/// The reply of `POST /v2/state`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StateImportReply {
    /// Whether the image definition of the state is now that of the server. If not, one that was
    /// set before the import stays.
    pub definition: bool,
    /// The epoch of the server after the import.
    pub epoch: u64,
    /// `OK`.
    pub status: String,
}

/// The parts of the form that `POST /v2/state` takes, in this order.
pub mod form {
    /// SECRET, its base64 text.
    pub const SECRET: &str = super::SECRET;
    /// The lowest epoch that the client accepts, decimal; need not be there.
    pub const MIN_EPOCH: &str = super::MIN_EPOCH;
    /// The state image.
    pub const STATE: &str = super::STATE;
}

/// Why the body of an export or an import was not understood. It repeats no value.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseStateRequestError {
    /// The bucket has no name that a bucket can have.
    #[error("`{BUCKET}` cannot be used: {0}")]
    Bucket(ParseStorageError),

    /// A member that must be there is not.
    #[error("`{key}` is missing")]
    Missing {
        /// Which member.
        key: &'static str,
    },

    /// The state image has no name that one can have.
    #[error(transparent)]
    Name(#[from] ParseNameError),

    /// There is neither a state image nor where it is.
    #[error("there is no state image: give `{STATE}`, or `{NAME}` and `{BUCKET}`")]
    NoSource,

    /// The secret is none.
    #[error(transparent)]
    Secret(#[from] ParseStateSecretError),

    /// There is a state image, and where another one is.
    #[error("`{STATE}` and `{BUCKET}` exclude each other; give one of them")]
    TwoSources,

    /// A member is of another type.
    #[error("`{key}` is of another type than it must be")]
    Type {
        /// Which member.
        key: &'static str,
    },
}

fn bucket(members: &Members) -> Result<Option<BucketName>, ParseStateRequestError> {
    let bucket = text(members, BUCKET)?.map(BucketName::parse);
    bucket.transpose().map_err(ParseStateRequestError::Bucket)
}

fn text<'a>(
    members: &'a Members,
    key: &'static str,
) -> Result<Option<&'a str>, ParseStateRequestError> {
    let typed = |value: &'a Value| value.as_str().ok_or(ParseStateRequestError::Type { key });
    members.value(key).map(typed).transpose()
}

fn take_text(
    members: &mut Members,
    key: &'static str,
) -> Result<Option<SecretText>, ParseStateRequestError> {
    if text(members, key)?.is_none() {
        return Ok(None);
    }
    match members.remove(key) {
        Some(Value::String(text)) => Ok(Some(SecretText::new(text))),
        _ => Ok(None),
    }
}

const BUCKET: &str = "state_bucket_name";
const MIN_EPOCH: &str = "min_epoch";
const NAME: &str = "name";
const SECRET: &str = "secret";
const STATE: &str = "state";

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> String {
        StateSecret::from_bytes([7; 128]).expose_base64().to_string()
    }

    fn import(rest: &str) -> Result<StateImportRequest, ParseStateRequestError> {
        let body = format!("{{\"secret\":\"{}\"{rest}}}", secret());
        StateImportRequest::from_members(&mut Members::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn golden_replies() {
        let state = Some("U0JT".to_owned());
        let reply =
            StateExportReply { export_tag: EXPORT_TAG.to_owned(), name: "n".to_owned(), state };
        let json = r#"{"export_tag":"sbs-seal-1","name":"n","state":"U0JT"}"#;
        assert_eq!(serde_json::to_string(&reply).unwrap(), json);
        let reply = StateExportReply { state: None, ..reply };
        let json = r#"{"export_tag":"sbs-seal-1","name":"n"}"#;
        assert_eq!(serde_json::to_string(&reply).unwrap(), json);
        assert_eq!(serde_json::from_str::<StateExportReply>(json).unwrap(), reply);
        let reply = StateImportReply { definition: true, epoch: 3, status: "OK".to_owned() };
        let json = r#"{"definition":true,"epoch":3,"status":"OK"}"#;
        assert_eq!(serde_json::to_string(&reply).unwrap(), json);
    }

    #[test]
    fn an_export_names_a_bucket_or_none() {
        for (body, expected) in [
            ("", Ok(None)),
            ("\"\"", Ok(None)),
            ("{\"state_bucket_name\":\"\"}", Ok(None)),
            ("{\"state_bucket_name\":\"b-1\"}", Ok(Some(BucketName::parse("b-1").unwrap()))),
            (
                "{\"state_bucket_name\":\"../b\"}",
                Err(ParseStateRequestError::Bucket(ParseStorageError::Bucket)),
            ),
            ("{\"state_bucket_name\":7}", Err(ParseStateRequestError::Type { key: BUCKET })),
        ] {
            let members = Members::parse_optional(body.as_bytes()).unwrap();
            let request = StateExportRequest::from_members(&members);
            assert_eq!(request.clone().map(|request| request.bucket), expected, "{body}");
            if let Ok(request) = request {
                assert_eq!(StateExportRequest::from_members(&request.to_members()), Ok(request));
            }
        }
    }

    #[test]
    fn an_import_is_what_it_sends() {
        for rest in [
            ",\"state\":\"U0JT\"",
            ",\"state\":\"U0JT\",\"min_epoch\":9",
            ",\"name\":\"n.1\",\"state_bucket_name\":\"bucket\"",
            ",\"name\":\"n.1\",\"state_bucket_name\":\"bucket\",\"min_epoch\":0",
        ] {
            let request = import(rest).unwrap();
            let mut members = request.expose_members();
            let sent = members.expose_json();
            let again = StateImportRequest::from_members(&mut members).unwrap();
            assert_eq!(again.expose_members().expose_json(), sent, "{rest}");
            assert!(again.secret.same_as(&request.secret));
        }
        let whole_reply = import(r#","state":"U0JT","name":"n","export_tag":"sbs-seal-1""#);
        assert!(matches!(whole_reply.unwrap().source, StateSource::Inline(_)));
    }

    #[test]
    fn an_import_without_a_state_or_with_a_doubtful_one_is_refused() {
        use ParseStateRequestError as E;
        for (rest, expected) in [
            ("", E::NoSource),
            (",\"name\":\"n\"", E::NoSource),
            (",\"state_bucket_name\":\"bucket\"", E::NoSource),
            (",\"state\":\"\"", E::NoSource),
            (",\"state\":\"x\",\"state_bucket_name\":\"bucket\"", E::TwoSources),
            (",\"state\":7", E::Type { key: STATE }),
            (",\"state\":\"x\",\"min_epoch\":-1", E::Type { key: MIN_EPOCH }),
            (",\"state\":\"x\",\"min_epoch\":\"1\"", E::Type { key: MIN_EPOCH }),
            (
                ",\"name\":\"../n\",\"state_bucket_name\":\"bucket\"",
                E::Name(ParseNameError::Form { kind: "state image name" }),
            ),
        ] {
            assert_eq!(import(rest).err(), Some(expected), "{rest}");
        }
        let mut none = Members::parse(b"{\"state\":\"x\"}").unwrap();
        let error = StateImportRequest::from_members(&mut none).err();
        assert_eq!(error, Some(E::Missing { key: SECRET }));
        let mut short = Members::parse(b"{\"state\":\"x\",\"secret\":\"AAAA\"}").unwrap();
        let error = StateImportRequest::from_members(&mut short).err();
        assert_eq!(error, Some(E::Secret(ParseStateSecretError)));
    }
}
