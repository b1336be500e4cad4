//! A build: fetch, resolve, build, publish, sign, read back, tag, record.

pub(crate) mod announce;
pub(crate) mod bases;
pub(crate) mod dockerfile;
pub(crate) mod engine;
pub(crate) mod environment;
pub(crate) mod failure;
pub(crate) mod fetch;
pub(crate) mod job;
pub(crate) mod log;
pub(crate) mod notary_roots;
pub(crate) mod pipeline;
pub(crate) mod publish;
pub(crate) mod record;
mod release;
pub(crate) mod sign;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use self::pipeline::TIME_IN_NAMES;
