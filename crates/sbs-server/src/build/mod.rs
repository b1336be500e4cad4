//! A build: fetch, resolve, build, publish, sign, read back, tag, record.

pub(crate) mod dockerfile;
pub(crate) mod failure;
pub(crate) mod fetch;
pub(crate) mod log;
