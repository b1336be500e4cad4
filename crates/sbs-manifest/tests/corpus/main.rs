//! The corpus of hostile manifests in `tests/data/manifests`: a directory for each defect.

// `cfg(test)` tells clippy that helpers, too, may unwrap.
#[cfg(test)]
mod defects;
