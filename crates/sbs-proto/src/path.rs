use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// A path inside a repository: relative, `/`-separated, without `..`; empty means the top.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RelativePath(String);

impl RelativePath {
    /// Parses a path; `.` parts and doubled or final slashes are dropped.
    pub fn parse(text: &str) -> Result<Self, ParsePathError> {
        if text.len() > MAX_BYTES {
            return Err(ParsePathError::TooLong);
        }
        if text.starts_with('/') {
            return Err(ParsePathError::Absolute);
        }
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return Err(ParsePathError::Character);
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.contains(&"..") {
            return Err(ParsePathError::Parent);
        }
        // The repository's own administration is no input of a build.
        if parts.first().is_some_and(|part| part.eq_ignore_ascii_case(".git")) {
            return Err(ParsePathError::GitDirectory);
        }
        Ok(Self(parts.join("/")))
    }

    /// Returns the path as text, empty for the top.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether this is the top of the repository.
    pub fn is_top(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

impl Serialize for RelativePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelativePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// Why a text is not a path inside a repository.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParsePathError {
    /// The path begins with `/`.
    #[error("path is absolute; give it relative to the top of the repository")]
    Absolute,

    /// The path has a control character or a backslash.
    #[error("path has a control character or a backslash")]
    Character,

    /// The path leads into `.git`.
    #[error("path leads into `.git`")]
    GitDirectory,

    /// The path has a `..` part.
    #[error("path has a `..` part; it must stay inside the repository")]
    Parent,

    /// The path is longer than 1,024 bytes.
    #[error("path is longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// Bytes: a quarter of Linux's `PATH_MAX`, so that it can be joined to a directory.
const MAX_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_what_stays_inside() {
        for (text, expected) in
            [("", ""), (".", ""), ("./", ""), ("a", "a"), ("./a//b/", "a/b"), ("a/./b", "a/b")]
        {
            assert_eq!(RelativePath::parse(text).unwrap().as_str(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_leads_out() {
        for (text, expected) in [
            ("/etc", ParsePathError::Absolute),
            ("..", ParsePathError::Parent),
            ("a/../b", ParsePathError::Parent),
            (".git/config", ParsePathError::GitDirectory),
            ("./.GIT", ParsePathError::GitDirectory),
            ("a\nb", ParsePathError::Character),
            ("a\\b", ParsePathError::Character),
            ("a\0", ParsePathError::Character),
            (&"a".repeat(1025), ParsePathError::TooLong),
        ] {
            assert_eq!(RelativePath::parse(text), Err(expected), "{text:?}");
        }
    }
}
