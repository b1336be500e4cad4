use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::json::doubled_key;

/// The members of a JSON object as it came over the wire, before their meaning is looked at.
///
/// Its `Debug` names the keys only, and its strings are wiped when it is dropped: the values may be
/// secrets.
#[derive(Clone, Default, PartialEq)]
pub struct Members(Map<String, Value>);

impl Members {
    /// Parses a request body that must be one JSON object without doubled keys, at any
    /// depth.
    pub fn parse(body: &[u8]) -> Result<Self, ParseBodyError> {
        // serde_json's messages repeat what they found, which may be a secret: only the place is
        // passed on.
        if let Some(key) = doubled_key(body).map_err(|error| ParseBodyError::of(&error))? {
            return Err(ParseBodyError::DoubledKey { key });
        }
        let members: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| ParseBodyError::of(&error))?;
        let members = Self(members);
        if members.0.len() > MAX_MEMBERS { Err(ParseBodyError::NotAnObject) } else { Ok(members) }
    }

    /// Parses the body of a request that may have none.
    ///
    /// The original's client says "nothing" with the two bytes `""`; an empty body, `null` and `{}`
    /// mean the same.
    pub fn parse_optional(body: &[u8]) -> Result<Self, ParseBodyError> {
        match body.trim_ascii() {
            b"" | b"\"\"" | b"null" => Ok(Self::default()),
            body => Self::parse(body),
        }
    }

    /// Returns the value of `key`; an empty string or `null` counts as absent.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !matches!(value, Value::Null) && value.as_str() != Some(""))
    }

    /// Sets a member; used by those who make a body.
    pub fn insert(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// Takes a member out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// Returns the keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the JSON text, which holds every secret of the body in clear.
    pub fn expose_json(&self) -> Zeroizing<String> {
        Zeroizing::new(serde_json::to_string(&self.0).expect("a JSON object has a text form"))
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe);
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Why a request body was not understood. It never repeats a value.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseBodyError {
    /// A key stands in the object, or in one inside it, twice.
    #[error("key `{key}` stands in the body twice")]
    DoubledKey {
        /// The key, cut to 64 characters.
        key: String,
    },

    /// The body is JSON but not an object.
    #[error("body is not a JSON object")]
    NotAnObject,

    /// The body is not JSON.
    #[error("body is not JSON (line {line}, column {column})")]
    NotJson {
        /// The line of the first fault, from 1.
        line: usize,
        /// The column of the first fault.
        column: usize,
    },
}

impl ParseBodyError {
    fn of(error: &serde_json::Error) -> Self {
        if error.is_data() {
            return Self::NotAnObject;
        }
        Self::NotJson { line: error.line(), column: error.column() }
    }
}

/// Wipes every string in a value. Its depth is bounded by the parser.
fn wipe(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::String(text) => text.zeroize(),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The original has under 60 keys; this leaves room and bounds the work.
const MAX_MEMBERS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_nothing_is_no_body() {
        for body in ["", "\"\"", " \"\"\n", "null", "{}"] {
            assert_eq!(Members::parse_optional(body.as_bytes()), Ok(Members::default()), "{body}");
        }
    }

    #[test]
    fn t7_odd_json_is_refused_without_repeating_it() {
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        for (body, expected) in [
            ("", ParseBodyError::NotJson { line: 1, column: 0 }),
            ("\"\"", ParseBodyError::NotAnObject),
            ("[]", ParseBodyError::NotAnObject),
            ("1", ParseBodyError::NotAnObject),
            ("{\"a\":NaN}", ParseBodyError::NotJson { line: 1, column: 6 }),
            ("{\"a\":1,\"a\":2}", ParseBodyError::DoubledKey { key: "a".to_owned() }),
            ("{\"a\":{\"b\":1,\"b\":2}}", ParseBodyError::DoubledKey { key: "b".to_owned() }),
            ("{\"a\":\"\\ud800\"}", ParseBodyError::NotJson { line: 1, column: 13 }),
            ("{\"a\":1}x", ParseBodyError::NotJson { line: 1, column: 8 }),
            (&deep, ParseBodyError::NotJson { line: 1, column: 132 }),
        ] {
            let short: String = body.chars().take(20).collect();
            assert_eq!(Members::parse(body.as_bytes()), Err(expected), "{short}");
        }
        let many: Vec<String> = (0..2000).map(|i| format!("\"{i}\":1")).collect();
        let many = format!("{{{}}}", many.join(","));
        assert_eq!(Members::parse(many.as_bytes()), Err(ParseBodyError::NotAnObject));
    }

    #[test]
    fn values_do_not_print() {
        let members = Members::parse(br#"{"SECRET":"hunter2"}"#).unwrap();
        assert_eq!(format!("{members:?}"), r#"{"SECRET"}"#);
    }

    #[test]
    fn empty_strings_count_as_absent() {
        let members = Members::parse(br#"{"A":"","B":null,"C":"x","D":false}"#).unwrap();
        let present = ["A", "B", "C", "D", "E"].map(|key| members.value(key).is_some());
        assert_eq!(present, [false, false, true, true, false]);
    }
}
