//! What the command line reads and waits for at most. Past a limit it fails; nothing is cut off.

use std::time::Duration;

/// The most bytes of a configuration file.
pub(crate) const CONFIG_BYTES: u64 = 1024 * 1024;

/// The most bytes of a certificate, a key or a set of them.
pub(crate) const PEM_BYTES: u64 = 64 * 1024;

/// The most bytes of a state image in the JSON that the original's client saves: what base64 makes of
/// the largest, and some.
pub(crate) const STATE_JSON_BYTES: u64 = sbs_client::limits::STATE_BYTES / 3 * 4 + 64 * 1024;

/// How long a server may take to start for a restore drill: it tries what the build engine can do.
pub(crate) const DRILL_START: Duration = Duration::from_mins(2);

/// How long that server may take to end.
pub(crate) const DRILL_END: Duration = Duration::from_secs(30);

/// The first pause between two looks at a build.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause between two looks at a build.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause where a look takes long because the log is large.
pub(crate) const LONGEST_PAUSE_FOR_LARGE_LOGS: Duration = Duration::from_secs(20);

/// How long a status that does not change after `build` may be the one of the build before.
pub(crate) const START_GRACE: Duration = Duration::from_secs(30);

/// How many looks in a row may fail for want of a connection before waiting is given up.
pub(crate) const MISSED_LOOKS: u32 = 5;

/// How long before the end of a certificate a warning of it begins: time enough for a restart of
/// the server that someone else must plan.
pub(crate) const EARLY_WARNING: Duration = Duration::from_hours(30 * 24);

/// The most bytes of a trust bundle.
pub(crate) const TRUST_BYTES: u64 = 1024 * 1024;

/// The most bytes of a file with credentials for registries.
pub(crate) const AUTH_FILE_BYTES: u64 = 1024 * 1024;

/// What a registry or a notary may take, and how often it is asked: somebody waits for the answer.
pub(crate) fn registry() -> sbs_registry::Limits {
    sbs_registry::Limits {
        attempts: 4,
        longest_pause: Duration::from_secs(10),
        reply: Duration::from_secs(30),
        idle: Duration::from_secs(20),
        ..sbs_registry::Limits::default()
    }
}

/// The most characters of a reason that somebody else may have a part in.
pub(crate) const REASON_CHARS: usize = 400;
