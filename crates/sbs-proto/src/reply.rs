use serde::{Deserialize, Serialize};

use crate::{BuildName, Members, ParseNameError};

/// A reply that says only how it went, such as `{"status":"OK"}`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StatusReply {
    /// `OK`, or what to do instead.
    pub status: String,
}

impl StatusReply {
    /// The reply to `init`, `update` and `clean`. The original's client records a new secret only
    /// if the text is exactly `OK`.
    pub fn ok() -> Self {
        Self { status: "OK".to_owned() }
    }

    /// The reply to `build`.
    pub fn build_started() -> Self {
        Self { status: "OK: async build started".to_owned() }
    }
}

/// An error in the form that the original's client survives: an object with `status`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ErrorReply {
    /// A stable word for programs, such as `busy`; empty from the original.
    #[serde(default)]
    pub code: String,
    /// What went wrong and what to do, for people.
    pub status: String,
}

/// The reply of `GET /log/{name}`: the whole log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogReply {
    /// The lines, each ended by `\n`.
    pub log: String,
}

/// The reply of `GET /manifest`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ManifestReply {
    /// Standard base64 of the `.sig.tbz` file.
    pub encoded_manifest: String,
    /// The manifest's name, without extension. It comes from the server: parse it as a
    /// [`ManifestName`](crate::ManifestName) before it becomes a file name.
    pub manifest_name: String,
}

/// The reply of `GET /publickey`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PublicKeyReply {
    /// The build whose manifest the key verifies. It comes from the server: parse it as a
    /// [`BuildName`] before it becomes a file name.
    pub build_name: String,
    /// The key as a SubjectPublicKeyInfo in PEM.
    pub public_key_pem: String,
}

/// Which build `GET /manifest` and `GET /publickey` ask for, carried as a JSON body on a GET.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BuildSelector {
    /// The last build that succeeded.
    Latest,
    /// The build of this name.
    Named(BuildName),
}

impl BuildSelector {
    /// Reads the selector from the members of a body.
    pub fn from_members(members: &Members) -> Result<Self, ParseNameError> {
        match members.value(BUILD_NAME) {
            None => Ok(Self::Latest),
            Some(value) => {
                let name = value.as_str().ok_or(ParseNameError::Form { kind: BUILD_NAME })?;
                Ok(Self::Named(BuildName::parse(name)?))
            }
        }
    }

    /// Returns the body that asks for this build.
    pub fn to_members(&self) -> Members {
        let mut members = Members::default();
        if let Self::Named(name) = self {
            members.insert(BUILD_NAME, name.as_str());
        }
        members
    }
}

const BUILD_NAME: &str = "BUILD_NAME";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_replies() {
        for (reply, expected) in [
            (StatusReply::ok(), r#"{"status":"OK"}"#),
            (StatusReply::build_started(), r#"{"status":"OK: async build started"}"#),
        ] {
            assert_eq!(serde_json::to_string(&reply).unwrap(), expected);
        }
        let log = LogReply { log: "a\nb\n".to_owned() };
        assert_eq!(serde_json::to_string(&log).unwrap(), r#"{"log":"a\nb\n"}"#);
        let manifest = ManifestReply {
            encoded_manifest: "QlpoOTFB".to_owned(),
            manifest_name: "m".to_owned(),
        };
        assert_eq!(
            serde_json::to_string(&manifest).unwrap(),
            r#"{"encoded_manifest":"QlpoOTFB","manifest_name":"m"}"#
        );
        let key = PublicKeyReply { build_name: "b".to_owned(), public_key_pem: "p".to_owned() };
        assert_eq!(
            serde_json::to_string(&key).unwrap(),
            r#"{"build_name":"b","public_key_pem":"p"}"#
        );
    }

    #[test]
    fn replies_with_unknown_keys_are_read_and_with_missing_keys_are_not() {
        let reply: PublicKeyReply =
            serde_json::from_str(r#"{"x":1,"public_key_pem":"p","build_name":"b"}"#).unwrap();
        assert_eq!(reply.build_name, "b");
        serde_json::from_str::<PublicKeyReply>(r#"{"build_name":"b"}"#).unwrap_err();
        serde_json::from_str::<ManifestReply>(r#"{"manifest_name":"m"}"#).unwrap_err();
        serde_json::from_str::<LogReply>(r#"{"log":1}"#).unwrap_err();
        let error: ErrorReply = serde_json::from_str(r#"{"status":"busy"}"#).unwrap();
        assert_eq!(error.code, "");
    }

    #[test]
    fn a_json_body_on_a_get_selects_the_build() {
        for (body, expected) in [
            ("\"\"", Ok(BuildSelector::Latest)),
            ("", Ok(BuildSelector::Latest)),
            (r#"{"BUILD_NAME":""}"#, Ok(BuildSelector::Latest)),
            (r#"{"BUILD_NAME":"b.1"}"#, Ok(BuildSelector::Named(BuildName::parse("b.1").unwrap()))),
            (r#"{"BUILD_NAME":1}"#, Err(ParseNameError::Form { kind: "BUILD_NAME" })),
            (r#"{"BUILD_NAME":"../x"}"#, Err(ParseNameError::Form { kind: "build name" })),
        ] {
            let members = Members::parse_optional(body.as_bytes()).unwrap();
            assert_eq!(BuildSelector::from_members(&members), expected, "{body}");
        }
    }

    #[test]
    fn a_selector_makes_the_body_that_it_reads() {
        let named = BuildSelector::Named(BuildName::parse("b.1").unwrap());
        assert_eq!(*named.to_members().expose_json(), *r#"{"BUILD_NAME":"b.1"}"#);
        for selector in [BuildSelector::Latest, named] {
            assert_eq!(BuildSelector::from_members(&selector.to_members()), Ok(selector));
        }
    }
}
