use std::time::{Duration, Instant};

use sbs_client::{CallError, Client, Shown};
use sbs_proto::{BuildStatus, LogName};

use crate::command::{Context, image, log};
use crate::error::{CommandError, Kind};
use crate::follow::{BuildWatcher, LogFollower, Verdict};
use crate::limits::{FIRST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE_FOR_LARGE_LOGS, MISSED_LOOKS};

/// How much of a build is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Patience {
    /// Its start.
    Start,
    /// Its end.
    End,
    /// Its end, with its log.
    EndWithLog,
}

/// The time between two looks; it grows.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Patience {
    pub(crate) fn of(wait: bool, follow: bool) -> Self {
        match (wait, follow) {
            (_, true) => Self::EndWithLog,
            (true, false) => Self::End,
            (false, false) => Self::Start,
        }
    }
}

/// Starts a build and waits as long as asked.
pub(crate) async fn run(context: &Context<'_>, patience: Patience) -> Result<(), CommandError> {
    let client = context.client()?;
    if patience == Patience::Start {
        return image::print_reply(context, &client.build().await?);
    }
    // What was before the start tells, afterwards, what is new.
    let before = client.status().await?;
    let follower = match patience {
        Patience::EndWithLog => {
            Some(LogFollower::after(&log::fetch(&client, LogName::Build).await?))
        }
        _ => None,
    };
    let reply = client.build().await?;
    context.ui.note(Shown::line(&reply.status));
    tokio::select! {
        result = wait(context, &client, before, follower) => result,
        _ = tokio::signal::ctrl_c() => {
            Err(CommandError::new(Kind::Refused, "interrupted; the build goes on at the server")
                .hint("sbs status shows how far it is, sbs log --follow its log, sbs clean stops it"))
        }
    }
}

async fn wait(
    context: &Context<'_>,
    client: &Client,
    before: BuildStatus,
    mut follower: Option<LogFollower>,
) -> Result<(), CommandError> {
    let started = Instant::now();
    let mut last = before.status.clone();
    let mut watcher = BuildWatcher::new(before);
    let mut pause = Pause::default();
    loop {
        let looked = Instant::now();
        let status = look(context, async || client.status().await).await?;
        let verdict = watcher.judge(&status, started.elapsed());
        if let Some(follower) = &mut follower {
            let log = look(context, async || log::fetch(client, LogName::Build).await).await?;
            let new = match verdict {
                Verdict::Pending => follower.advance(&log),
                _ => follower.finish(&log),
            };
            context.ui.log(new)?;
        }
        if status.status != last {
            context.ui.note(format_args!("status: {}", Shown::line(status.status.as_str())));
            last = status.status.clone();
        }
        if verdict != Verdict::Pending {
            image::print_status(context, &status)?;
            return outcome(verdict);
        }
        pause.wait(looked.elapsed()).await;
    }
}

fn outcome(verdict: Verdict) -> Result<(), CommandError> {
    match verdict {
        Verdict::Pending | Verdict::Succeeded => Ok(()),
        Verdict::Failed => Err(CommandError::new(Kind::Refused, "the build failed")
            .hint("sbs log shows why; after a repair: sbs build again")),
        Verdict::Cleaned => {
            Err(CommandError::new(Kind::Refused, "the build was stopped and cleaned away"))
        }
    }
}

/// Asks the server, and again if there is no connection for a moment: a build that runs for long
/// should not be given up for that.
pub(crate) async fn look<T>(
    context: &Context<'_>,
    ask: impl AsyncFn() -> Result<T, CallError>,
) -> Result<T, CommandError> {
    let mut missed = 0;
    loop {
        match ask().await {
            Err(
                error @ (CallError::Lost { .. }
                | CallError::TimedOut { .. }
                | CallError::Unreachable { .. }),
            ) if missed < MISSED_LOOKS => {
                missed += 1;
                context.ui.note(format_args!("{error}; asking again ({missed} of {MISSED_LOOKS})"));
                tokio::time::sleep(LONGEST_PAUSE).await;
            }
            result => return Ok(result?),
        }
    }
}

impl Pause {
    /// Waits; longer than before, and longer if the look itself took long.
    pub(crate) async fn wait(&mut self, look: Duration) {
        // A large log comes whole at each look: at most a fifth of the time goes to that.
        let load = (look * 4).min(LONGEST_PAUSE_FOR_LARGE_LOGS);
        tokio::time::sleep(self.0.max(load)).await;
        self.0 = (self.0 * 5 / 4).min(LONGEST_PAUSE);
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}
