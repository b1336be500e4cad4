use std::time::Instant;

use sbs_client::{CallError, Client};
use sbs_proto::{LogName, Progress};

use crate::command::Context;
use crate::command::build::{Pause, look};
use crate::error::CommandError;
use crate::follow::LogFollower;

/// Prints a log, whole.
pub(crate) async fn print(context: &Context<'_>, name: LogName) -> Result<(), CommandError> {
    let log = context.client()?.log(name).await?;
    context.ui.whole_log(&log)
}

/// Prints a log, and what is added to it until the build ends.
pub(crate) async fn follow(context: &Context<'_>, name: LogName) -> Result<(), CommandError> {
    let client = context.client()?;
    let mut follower = LogFollower::after("");
    let mut pause = Pause::default();
    loop {
        let started = Instant::now();
        // The status first: the log that is fetched after the end is the whole log.
        let status = look(context, async || client.status().await).await?;
        let log = look(context, async || fetch(&client, name).await).await?;
        if status.status.progress() == Progress::Running {
            context.ui.log(follower.advance(&log))?;
        } else {
            return context.ui.log(follower.finish(&log));
        }
        pause.wait(started.elapsed()).await;
    }
}

/// Fetches a log; before the first build there is none.
pub(crate) async fn fetch(client: &Client, name: LogName) -> Result<String, CallError> {
    match client.log(name).await {
        Err(CallError::Refused { status: 404, .. }) => Ok(String::new()),
        result => result,
    }
}
