//! The program `sbs-manifest`, run on the corpus of hostile manifests and their good ones.

// `cfg(test)` tells clippy that helpers, too, may unwrap.
#[cfg(test)]
mod runs;
