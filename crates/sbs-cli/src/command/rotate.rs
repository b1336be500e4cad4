//! The change of SECRET, which no lost answer and no crash may turn into a locked door.
//!
//! The new secret is in the configuration before the server hears of it, and stays there until the
//! server is known to have it. Whoever finds it there asks the server, with it as SECRET, whether it
//! is the one; if not, the change is sent again.

use sbs_client::{CallError, Client};
use sbs_crypto::random_bytes;
use sbs_proto::{Members, StateSecret, StatusReply, key};
use time::OffsetDateTime;

use crate::command::{Context, image};
use crate::config::PENDING_SECRET;
use crate::error::{CommandError, Kind};

/// Changes SECRET, or goes on with a change that an earlier run began. It is an `update`, too.
pub(crate) async fn run(context: &Context<'_>) -> Result<(), CommandError> {
    let (client, members) = image::prepare_update(context)?;
    let (new, begun) = match context.config.pending_secret()? {
        Some(new) => {
            context.ui.note("going on with the change of SECRET that an earlier run began");
            (new, Begun::Earlier)
        }
        None => (StateSecret::from_bytes(random_bytes()), Begun::Now),
    };
    if begun == Begun::Now {
        context.config.begin_rotation(&new, OffsetDateTime::now_utc())?;
    }
    let rotation = Rotation { client, members, new };
    let reply = rotation.complete(begun, context).await.map_err(|error| {
        CommandError::from(error).hint(format!(
            "the new secret is kept in the configuration as {PENDING_SECRET}; sbs update finds out \
             which of the two the server has, and goes on"
        ))
    })?;
    context.config.end_rotation(&rotation.new, OffsetDateTime::now_utc()).map_err(|error| {
        CommandError::new(Kind::Config, error).hint(format!(
            "the server has the new secret, which is in the configuration as {PENDING_SECRET}: \
             sbs update makes it SECRET"
        ))
    })?;
    context.ui.note(
        "SECRET is changed; state images that were saved before open with the old one only: save a \
         new one with sbs get-state-image",
    );
    image::print_reply(context, &reply)
}

/// When a change was begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Begun {
    /// By a run before this one: perhaps the server was told.
    Earlier,
    Now,
}

struct Rotation {
    client: Client,
    members: Members,
    new: StateSecret,
}

impl Rotation {
    /// Has the server take the new secret, once.
    async fn complete(
        &self,
        begun: Begun,
        context: &Context<'_>,
    ) -> Result<StatusReply, CallError> {
        if begun == Begun::Earlier
            && let Some(reply) = self.probe(context).await?
        {
            return Ok(reply);
        }
        match self.client.update(&self.with_new_secret()).await {
            Err(error) if may_be_done(&error) => {
                context.ui.note(format_args!("{error}; asking which secret the server has"));
            }
            result => return result,
        }
        match self.probe(context).await? {
            Some(reply) => Ok(reply),
            None => self.client.update(&self.with_new_secret()).await,
        }
    }

    /// Updates with the new secret as SECRET; `None` if the server does not have it.
    async fn probe(&self, context: &Context<'_>) -> Result<Option<StatusReply>, CallError> {
        // Nobody knows whether the original looks at the SECRET of such an update.
        if self.client.info().await?.is_none() {
            return Ok(None);
        }
        let mut members = self.copy();
        members.insert(key::SECRET, &**self.new.expose_base64());
        match self.client.update(&members).await {
            Ok(reply) => {
                context.ui.note("the server has the new secret already");
                Ok(Some(reply))
            }
            Err(CallError::Refused { status: 403, code, .. }) if WRONG.contains(&&*code) => {
                context.ui.note("the server has the old secret still");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn with_new_secret(&self) -> Members {
        let mut members = self.copy();
        members.insert(key::NEW_SECRET, &**self.new.expose_base64());
        members
    }

    fn copy(&self) -> Members {
        let mut copy = Members::default();
        for key in self.members.keys() {
            if let Some(value) = self.members.value(key) {
                copy.insert(key, value.clone());
            }
        }
        copy
    }
}

/// Tells whether the server may have done what was asked for although it did not say so.
fn may_be_done(error: &CallError) -> bool {
    match error {
        CallError::Refused { status, .. } => *status >= 500,
        CallError::Lost { .. }
        | CallError::TimedOut { .. }
        | CallError::TooLarge { .. }
        | CallError::UnexpectedReply { .. } => true,
        _ => false,
    }
}

/// What a server says to an update with another SECRET than its own.
const WRONG: [&str; 2] = ["wrong_secret", "wrong_secret_or_header"];
