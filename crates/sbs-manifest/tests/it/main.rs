//! The claims that manifests make, tested through the public interface.

mod common;
mod flip;
mod hostile;
mod judges;
mod original;
mod proof;
mod round_trip;
