use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

/// Where the server takes the time from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Option<i64>);

impl Clock {
    /// Returns the clock of the machine.
    pub(crate) fn system() -> Self {
        Self(None)
    }

    /// Returns a clock that stands still, in seconds since 1970.
    #[cfg(test)]
    pub(crate) fn fixed(seconds: i64) -> Self {
        Self(Some(seconds))
    }

    /// Returns the time, UTC.
    pub(crate) fn now(self) -> OffsetDateTime {
        match self.0 {
            None => {
                #[expect(clippy::disallowed_methods, reason = "this is the clock")]
                let now = SystemTime::now();
                // A machine whose clock is before 1970 has no time to speak of.
                let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                OffsetDateTime::UNIX_EPOCH + since
            }
            Some(seconds) => {
                OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
            }
        }
    }
}
