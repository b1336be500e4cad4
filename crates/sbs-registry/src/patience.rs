//! Waiting for what was pushed to show.

use std::time::Duration;

use tokio::time::sleep;

use super::Limits;

/// Waits for what was just pushed to show: with some registries that takes a while.
#[derive(Debug)]
pub struct Patience {
    left: u32,
    pause: Duration,
}

impl Patience {
    /// Begins with as many looks as there are attempts; the first one is free.
    pub fn new(limits: &Limits) -> Self {
        Self { left: limits.attempts.saturating_sub(1), pause: limits.first_pause }
    }

    /// Waits before the next look; `false` if there is to be none.
    pub async fn wait(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        sleep(self.pause).await;
        self.pause = self.pause.saturating_mul(2);
        true
    }
}
