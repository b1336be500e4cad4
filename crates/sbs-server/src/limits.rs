//! Every limit on what comes from outside, with its reason.

use std::time::Duration;

/// Bytes of a request body. The largest is an `init` with a key and an OpenPGP key: under 64 KiB.
pub(crate) const REQUEST_BODY: usize = 1024 * 1024;

/// How long a request body may take. A megabyte over the slowest link that makes sense.
pub(crate) const REQUEST_BODY_TIME: Duration = Duration::from_secs(30);

/// Bytes of a state image. What is sealed has at most 10 MiB; header and tags take 32 KiB.
pub(crate) const STATE_FILE: u64 = 11 * 1024 * 1024;

/// Bytes of a request body with a state image in it, in base64 for v1. One is read at a time.
pub(crate) const STATE_BODY: usize = 16 * 1024 * 1024;

/// Bytes of the builds in a state image. The record may have 8 MiB, the sum of all less than 10.
pub(crate) const STATE_BUILDS: usize = 6 * 1024 * 1024;

/// How long a TLS handshake may take.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// How long the head of a request may take; it also ends idle kept-alive connections.
pub(crate) const HEADER_TIME: Duration = Duration::from_secs(15);

/// Bytes of a request's head: the clients send under 1 KiB.
pub(crate) const HEADER_BYTES: usize = 64 * 1024;

/// Connections at once. Each costs about 50 KiB.
pub(crate) const CONNECTIONS: usize = 4096;

/// HTTP/2 streams of one connection at once.
pub(crate) const STREAMS: u32 = 64;

/// How long requests that run may take to end when the server stops.
pub(crate) const SHUTDOWN_TIME: Duration = Duration::from_secs(10);

/// Bytes of a manifest that the v1 route answers with; a larger one needs the v2 route. The
/// original's client holds the answer five times over: 2.5 GiB of memory for a manifest of this
/// size.
pub(crate) const V1_MANIFEST: u64 = 512 * 1024 * 1024;

/// Bytes of a settings file, a certificate or a sealed record.
pub(crate) const SMALL_FILE: u64 = 4 * 1024 * 1024;
