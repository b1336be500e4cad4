//! The state as a whole: exported into one sealed file, and imported into a server that is empty.
//!
//! A state image opens with the client's SECRET and a root secret of this server together. What is
//! in it, and the order in which an import judges it, is `docs/formats/state.md`.

pub(super) mod attempts;
mod bucket;
pub(crate) mod error;
pub(crate) mod export;
pub(crate) mod import;
pub(super) mod instance;
mod records;
mod sealing;

pub(crate) use self::sealing::{Sealing, SealingError};

/// Where state images stand while they are made or judged, below the data directory. Nothing in it
/// survives a start of the server.
pub(super) const STAGING: &str = "staging";

#[cfg(test)]
mod sweep;
#[cfg(test)]
mod tests;
