//! The Dockerfile resolver: which images from outside a Dockerfile uses, and the same Dockerfile
//! with other references in their place.
//!
//! It is pure but for [`load`]. The engine has a parser of its own, so what the two could read
//! differently is refused; what still slips through finds no image, because the engine is given
//! only those that were resolved here.

mod expand;
mod load;
mod mount;
mod platform;
mod text;
mod visit;

use std::collections::BTreeMap;
use std::ops::Range;

use sbs_proto::{ImageReference, ParseImageReferenceError, RegistryHost};
use thiserror::Error;

use crate::build::failure::{Failure, StepError};

pub(crate) use self::load::{LoadFileError, load, load_ignore_file, open_directory, open_file};

/// What a Dockerfile needs from outside.
#[derive(Debug)]
pub(crate) struct Plan {
    text: String,
    edits: Vec<Edit>,
    images: Vec<ImageReference>,
    arguments: BTreeMap<String, String>,
    mounts: bool,
    stage_on_stage: bool,
    remote_adds: Vec<String>,
    warnings: Vec<String>,
}

/// A Dockerfile that names no image from outside but those that it was given: what the engine
/// builds from. Only [`Plan::rewrite`] makes one.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedDockerfile {
    text: String,
    arguments: BTreeMap<String, String>,
    mounts: bool,
    stage_on_stage: bool,
    remote_adds: Vec<String>,
}

/// Reads a Dockerfile's text and returns what it needs from outside.
///
/// `arguments` are the build arguments, and `default_registry` is that of references without one.
pub(crate) fn plan(
    text: &str,
    arguments: &BTreeMap<String, String>,
    default_registry: &RegistryHost,
) -> Result<Plan, PlanError> {
    visit::plan(text, arguments, default_registry)
}

impl Plan {
    /// Returns the images from outside, each once, in the order of their first use.
    pub(crate) fn images(&self) -> &[ImageReference] {
        &self.images
    }

    /// Returns what the user should know about this Dockerfile.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the Dockerfile with every reference to an image from outside replaced. References
    /// to a stage and platforms stand in it as the engine understands them.
    pub(crate) fn rewrite(
        &self,
        replacement: impl Fn(&ImageReference) -> String,
    ) -> ResolvedDockerfile {
        let mut text = String::with_capacity(self.text.len());
        let mut done = 0;
        for edit in &self.edits {
            text.push_str(self.text.get(done..edit.span.start).unwrap_or_default());
            match &edit.with {
                Replacement::Image(index) => {
                    text.extend(self.images.get(*index).map(&replacement));
                }
                Replacement::Text(word) => text.push_str(word),
            }
            done = edit.span.end;
        }
        text.push_str(self.text.get(done..).unwrap_or_default());
        ResolvedDockerfile {
            text,
            arguments: self.arguments.clone(),
            mounts: self.mounts,
            stage_on_stage: self.stage_on_stage,
            remote_adds: self.remote_adds.clone(),
        }
    }
}

impl ResolvedDockerfile {
    /// Returns the text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the values of the platform's arguments, such as `TARGETARCH`, that it declares.
    pub(crate) fn arguments(&self) -> &BTreeMap<String, String> {
        &self.arguments
    }

    /// Tells whether a stage is built on another one.
    pub(crate) fn has_stage_on_stage(&self) -> bool {
        self.stage_on_stage
    }

    /// Tells whether a step uses `RUN --mount`.
    pub(crate) fn has_mounts(&self) -> bool {
        self.mounts
    }

    /// Returns the URLs that `ADD` fetches.
    pub(crate) fn remote_adds(&self) -> &[String] {
        &self.remote_adds
    }
}

/// Why a Dockerfile is not built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum PlanError {
    /// The Dockerfile asks for a program from elsewhere to read it.
    #[error(
        "line {line}: `# syntax=` names a program that would read this Dockerfile; only \
         `docker/dockerfile` is accepted, remove the line"
    )]
    Frontend { line: usize },

    /// A word is no image reference.
    #[error("line {line}: `{word}` is no image")]
    Image { line: usize, word: String, source: ParseImageReferenceError },

    /// The Dockerfile is over a limit.
    #[error("the Dockerfile has more than {max} {what}")]
    Limit { what: &'static str, max: usize },

    /// The Dockerfile uses what is not allowed here.
    #[error("line {line}: {what} is not supported; {advice}")]
    NotSupported { line: usize, what: String, advice: &'static str },

    /// A stage is for another platform than this machine's.
    #[error("line {line}: platform `{platform}` is not that of this server, `{host}`")]
    Platform { line: usize, platform: String, host: String },

    /// A stage is used that is not there, or not yet.
    #[error("line {line}: `{name}` is no stage that ends before this line")]
    Stage { line: usize, name: String },

    /// The Dockerfile cannot be parsed.
    #[error("the Dockerfile cannot be read")]
    Syntax { source: parse_dockerfile::Error },

    /// A reference uses a variable without a value.
    #[error(
        "line {line}: `{name}` has no value; give it one in ARG, or a default before the first \
         `FROM`"
    )]
    Undefined { line: usize, name: String },
}

impl StepError for PlanError {
    fn failure(&self) -> Failure {
        let code = match self {
            Self::Frontend { .. } => "frontend_not_allowed",
            _ => "bad_dockerfile",
        };
        Failure { code, command: "buildah build".to_owned(), return_code: 125 }
    }
}

/// A piece of the text that something else takes the place of.
#[derive(Debug)]
struct Edit {
    span: Range<usize>,
    with: Replacement,
}

#[derive(Debug)]
enum Replacement {
    /// What the image of this index is replaced by.
    Image(usize),
    Text(String),
}

/// Shortens text of the user's for a message.
fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

const MAX_SHOWN_CHARACTERS: usize = 120;

#[cfg(test)]
mod tests;
