//! What the client accepts at most from a server. Past a limit a call fails; nothing is cut off.

use std::time::Duration;

/// The most bytes of a short JSON reply: a status, a key, a digest.
pub const REPLY_BYTES: u64 = 1024 * 1024;

/// The most bytes of the explanation that comes with an error status.
pub const ERROR_BYTES: u64 = 64 * 1024;

/// The most bytes of the reply that holds a log. Every call brings the whole log.
pub const LOG_BYTES: u64 = 512 * 1024 * 1024;

/// The most bytes of a manifest, if the caller sets no other limit: what a server stores at most.
pub const MANIFEST_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// The most bytes of a state image. A server's own limit is about a third of it.
pub const STATE_BYTES: u64 = 32 * 1024 * 1024;

/// How often in a row a download is begun or resumed that brings next to nothing.
pub const DOWNLOAD_ATTEMPTS: u32 = 8;

/// The pause before a download goes on that was cut; the next one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause before a download goes on. All of them are half a minute: time enough for a
/// server to start again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The most characters of a server's text that an error repeats.
pub const SHOWN_CHARACTERS: usize = 300;

/// How long the TCP and TLS handshakes may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a short call may take, and how long a download may stand still.
pub const TIMEOUT: Duration = Duration::from_mins(1);

/// How long an import may take, or an export into a bucket: upload, and what the server does.
pub const STATE_TIMEOUT: Duration = Duration::from_mins(10);

/// How long the download of a log or manifest may take, with all its pauses.
pub const DOWNLOAD_TIMEOUT: Duration = Duration::from_hours(1);
