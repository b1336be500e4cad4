//! The claims that manifests make, tested through the public interface.

// `cfg(test)` tells clippy that helpers, too, may unwrap.
#[cfg(test)]
mod common;
#[cfg(test)]
mod flip;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod judges;
#[cfg(test)]
mod original;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod thin;
