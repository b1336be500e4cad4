use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

/// Counts wrong secrets, whoever sends them, and lets nobody try for a while after too many.
///
/// A secret has 128 random bytes and is not guessed: this is for those that are not random. It is
/// asked and told while one request at a time is judged, so that many at once get no more tries.
#[derive(Debug, Default)]
pub(in crate::core) struct Attempts(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    until: Option<Instant>,
    wrong: u32,
}

impl Attempts {
    /// Tells whether a secret may be tried now.
    pub(in crate::core) fn check(&self) -> Result<(), TooManyAttempts> {
        self.check_at(Instant::now())
    }

    /// Notes that a secret was wrong.
    pub(in crate::core) fn wrong(&self) {
        self.wrong_at(Instant::now());
    }

    fn check_at(&self, now: Instant) -> Result<(), TooManyAttempts> {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = counted.until.map(|until| until.saturating_duration_since(now));
        match left.filter(|left| !left.is_zero()) {
            None => Ok(()),
            Some(left) => Err(TooManyAttempts { seconds: left.as_secs().saturating_add(1) }),
        }
    }

    fn wrong_at(&self, now: Instant) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.wrong = counted.wrong.saturating_add(1);
        let Some(beyond) = counted.wrong.checked_sub(FREE) else { return };
        let factor = 1_u32.checked_shl(beyond).unwrap_or(u32::MAX);
        let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
        counted.until = Some(now + pause);
        let (wrong, seconds) = (counted.wrong, pause.as_secs());
        tracing::warn!(wrong, seconds, "too many wrong secrets: none is tried for a while");
    }

    /// Notes that a secret was right.
    pub(in crate::core) fn right(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Counted::default();
    }
}

/// Too many secrets were wrong.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("too many wrong secrets were sent; try again in {seconds} seconds")]
pub(crate) struct TooManyAttempts {
    /// How long no secret is tried.
    pub(crate) seconds: u64,
}

/// Wrong secrets before the first pause.
const FREE: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s21_after_ten_wrong_secrets_the_pauses_grow() {
        let attempts = Attempts::default();
        let mut now = Instant::now();
        for _ in 0..FREE {
            attempts.check_at(now).unwrap();
            attempts.wrong_at(now);
        }
        let mut expected = FIRST_PAUSE;
        for _ in 0..20 {
            let TooManyAttempts { seconds } = attempts.check_at(now).unwrap_err();
            assert_eq!(seconds, expected.as_secs() + 1);
            let second = Duration::from_secs(1);
            now += expected.saturating_sub(second);
            attempts.check_at(now).unwrap_err();
            now += second;
            attempts.check_at(now).unwrap();
            attempts.wrong_at(now);
            expected = (2 * expected).min(LONGEST_PAUSE);
        }
        attempts.right();
        for _ in 0..FREE - 1 {
            attempts.wrong_at(now);
        }
        attempts.check_at(now).unwrap();
    }
}
