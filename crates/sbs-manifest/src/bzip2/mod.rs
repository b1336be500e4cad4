//! bzip2, written faster than the libraries do.

pub(crate) mod encode;
