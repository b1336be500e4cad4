//! bzip2, written and read faster than the libraries do.

mod crc;
pub(crate) mod decode;
pub(crate) mod encode;
