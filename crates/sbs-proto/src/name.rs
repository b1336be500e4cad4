use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::{CommitId, ManifestFiles, Repository};

/// Declares a name: a checked string that prints and serialises as itself.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(String);

        impl $name {
            /// Parses a name; its characters and length are checked.
            pub fn parse(text: &str) -> Result<Self, ParseNameError> {
                let check: fn(&str) -> bool = $check;
                if text.is_empty() {
                    return Err(ParseNameError::Empty { kind: $kind });
                }
                if text.len() > $max {
                    return Err(ParseNameError::TooLong { kind: $kind, max: $max });
                }
                if !check(text) {
                    return Err(ParseNameError::Form { kind: $kind });
                }
                Ok(Self(text.to_owned()))
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    };
}

name!(
    /// The name of an image definition; the only one that the v1 routes know is `default`.
    DefinitionName, "image definition name", 63, |text| {
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    }
);

name!(
    /// The name of one build: `<registry>.<repository>.<image tag>.<UTC time>`.
    ///
    /// It is a safe file name: letters, digits, `.`, `_` and `-`, not first a `.` or `-`.
    BuildName, "build name", 255, is_file_name
);

name!(
    /// The name of a build's manifest: `manifest.` and the build name.
    ManifestName, "manifest name", 255, |text| {
        is_file_name(text) && text.strip_prefix("manifest.").is_some_and(|rest| BuildName::parse(rest).is_ok())
    }
);

name!(
    /// A tag of an image (OCI distribution specification 1.1, "Pulling manifests").
    ImageTag, "image tag", 128, is_tag
);

name!(
    /// What stands before `-<commit>` in the tag of a built image.
    TagPrefix, "IMAGE_TAG_PREFIX", 120, is_tag
);

name!(
    /// The name under which a client keeps a state image. It is a safe file name, as a build's is.
    StateImageName, "state image name", 255, is_file_name
);

name!(
    /// A word in the clear part of a state image: letters, digits, `.`, `_`, `-` and `+`.
    StateLabel, "label of a state image", 128, |text| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
    }
);

impl DefinitionName {
    /// Returns the name under which the v1 routes keep their one image definition.
    pub fn default_name() -> Self {
        Self("default".to_owned())
    }
}

impl BuildName {
    /// Makes the name of a build that started at `time`, a UTC time already in the form
    /// `YYYY-MM-DD_HH-MM-SS.ffffff`.
    ///
    /// Fails if the parts do not make a file name of at most 255 bytes.
    pub fn new(
        registry: &str,
        repository: &Repository,
        tag: &ImageTag,
        time: &str,
    ) -> Result<Self, ParseNameError> {
        // A port's colon is no file name character.
        let registry = registry.replace(':', "_");
        let repository = repository.as_str().replace('/', ".");
        Self::parse(&format!("{registry}.{repository}.{tag}.{time}"))
    }

    /// Returns the name of this build's manifest.
    pub fn manifest_name(&self) -> ManifestName {
        ManifestName(format!("manifest.{}", self.0))
    }

    /// Returns the name of the file that holds the public key of this build's manifest.
    pub fn public_key_file(&self) -> String {
        format!("manifest.{}-public.pem", self.0)
    }
}

impl ManifestName {
    /// Returns the names of the files that the two forms of this manifest are kept in.
    pub fn files(&self) -> ManifestFiles {
        ManifestFiles {
            full: format!("{}.sig.tbz", self.0),
            thin: format!("{}.thin.sig.tar.zst", self.0),
        }
    }

    /// Returns the name of the build that the manifest is evidence of.
    pub fn build_name(&self) -> BuildName {
        BuildName(self.0.strip_prefix("manifest.").unwrap_or(&self.0).to_owned())
    }
}

impl ImageTag {
    /// Makes the tag of an image built from `commit`: `<prefix>-<first 7 hex digits>`.
    pub fn for_commit(prefix: Option<&TagPrefix>, commit: &CommitId) -> Self {
        match prefix {
            Some(prefix) => Self(format!("{prefix}-{}", commit.short())),
            None => Self(commit.short().to_owned()),
        }
    }
}

/// The name of a log. There is one: the log of the last build.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogName {
    /// The log of the last build, `build`.
    Build,
}

impl LogName {
    /// Parses the name of a log.
    pub fn parse(text: &str) -> Result<Self, ParseNameError> {
        match text {
            "build" => Ok(Self::Build),
            _ => Err(ParseNameError::NoSuchLog),
        }
    }

    /// Returns the name as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
        }
    }
}

/// Why a text is not such a name.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseNameError {
    /// The text is empty.
    #[error("{kind} is empty")]
    Empty {
        /// What was to be named.
        kind: &'static str,
    },

    /// The text has characters, or an order of them, that the name cannot have.
    #[error("{kind} has a character that it must not have there")]
    Form {
        /// What was to be named.
        kind: &'static str,
    },

    /// There is no log of this name.
    #[error("there is one log, `build`")]
    NoSuchLog,

    /// The text is longer than the name may be.
    #[error("{kind} is longer than {max} bytes")]
    TooLong {
        /// What was to be named.
        kind: &'static str,
        /// The greatest length in bytes.
        max: usize,
    },
}

fn is_file_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !text.starts_with(['.', '-'])
}

fn is_tag(text: &str) -> bool {
    is_file_name(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_name_has_the_form_of_the_original() {
        let name = BuildName::new(
            "us.icr.io",
            &Repository::parse("ns/repo").unwrap(),
            &ImageTag::parse("v1-ad52e76").unwrap(),
            "2024-07-10_15-37-37.178350",
        )
        .unwrap();
        assert_eq!(name.as_str(), "us.icr.io.ns.repo.v1-ad52e76.2024-07-10_15-37-37.178350");
        assert_eq!(
            name.public_key_file(),
            "manifest.us.icr.io.ns.repo.v1-ad52e76.2024-07-10_15-37-37.178350-public.pem"
        );
        assert_eq!(name.manifest_name().build_name(), name);
    }

    #[test]
    fn a_port_does_not_break_the_file_name() {
        let repository = Repository::parse("ns/repo").unwrap();
        let tag = ImageTag::parse("ad52e76").unwrap();
        let name = BuildName::new("127.0.0.1:5000", &repository, &tag, "t").unwrap();
        assert_eq!(name.as_str(), "127.0.0.1_5000.ns.repo.ad52e76.t");
    }

    #[test]
    fn names_are_never_paths() {
        for text in ["", ".", "..", "../x", "a/b", "-x", ".x", "a\n", "a\0b", "ü", &"x".repeat(256)]
        {
            assert!(BuildName::parse(text).is_err(), "{text:?}");
            assert!(ManifestName::parse(text).is_err(), "{text:?}");
            assert!(ManifestName::parse(&format!("manifest.{text}")).is_err(), "{text:?}");
        }
    }

    #[test]
    fn tags_follow_the_distribution_specification() {
        for (text, good) in [
            ("v1", true),
            ("_x", true),
            (&"a".repeat(128), true),
            (&"a".repeat(129), false),
            ("-x", false),
            (".x", false),
            ("a:b", false),
            ("a@b", false),
        ] {
            assert_eq!(ImageTag::parse(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn there_is_one_log() {
        assert_eq!(LogName::parse("build"), Ok(LogName::Build));
        for text in ["", "Build", "../build", "%2e%2e", "cicd"] {
            assert!(LogName::parse(text).is_err(), "{text}");
        }
    }
}
