use std::fmt::Write as _;

use sbs_client::{CallError, Client, Shown};
use sbs_proto::v2::{Build, PAGE_BUILDS};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::command::Context;
use crate::error::CommandError;

/// Prints the newest builds, newest first.
pub(crate) async fn print(context: &Context<'_>, limit: usize) -> Result<(), CommandError> {
    let builds = fetch(&context.client()?, limit).await?;
    context.ui.result(table(&builds), json!({"builds": builds}))
}

async fn fetch(client: &Client, limit: usize) -> Result<Vec<Build>, CallError> {
    let mut builds: Vec<Build> = Vec::new();
    let mut before = None;
    loop {
        let page = client.builds(before.as_ref(), PAGE_BUILDS.min(limit - builds.len())).await?;
        // A server that goes in a circle brings what is not older.
        let older =
            |build: &Build| builds.last().is_none_or(|last| build.id.number() < last.id.number());
        if !page.builds.first().is_none_or(older) {
            return Err(CallError::UnexpectedReply { what: "its builds are not in order" });
        }
        let empty = page.builds.is_empty();
        builds.extend(page.builds);
        before = page.next;
        if before.is_none() || empty || builds.len() >= limit {
            return Ok(builds);
        }
    }
}

/// Returns the builds as lines whose columns stand below each other.
fn table(builds: &[Build]) -> String {
    let head = ["ID", "STARTED (UTC)", "STATUS", "IMAGE TAG", "DIGEST"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(builds.iter().map(row)).collect();
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _infallible = write!(line, "{cell:width$}  ");
        }
        let _infallible = writeln!(text, "{}", line.trim_end());
    }
    text.trim_end().to_owned()
}

fn row(build: &Build) -> [String; 5] {
    let started = build.started_at.as_deref();
    let started = started.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let started = started.and_then(|time| time.to_utc().format(form).ok());
    let phase = build.phase.as_str();
    let status = match &build.failure {
        None => phase.to_owned(),
        Some(failure) => format!("{phase} ({})", Shown::short(failure, 40)),
    };
    let tag = build.image_tag.as_ref().map(ToString::to_string);
    let digest = build.image.as_ref().and_then(sbs_proto::ImageReference::digest);
    let digest = digest.map(|digest| digest.to_string().chars().take(SHORT_DIGEST).collect());
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [build.id.to_string(), or_none(started), status, or_none(tag), or_none(digest)]
}

/// `sha256:` and as many digits as git shows of a commit in a busy repository.
const SHORT_DIGEST: usize = 7 + 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_a_table_holds_no_control_characters() {
        let build = |json: serde_json::Value| serde_json::from_value::<Build>(json).unwrap();
        let digest = format!("r.example/app@sha256:{}", "0a".repeat(32));
        let builds = [
            build(json!({"id": "00000002", "phase": "succeeded", "status": "success",
                "started_at": "2026-01-02T04:04:05.5+01:00", "image_tag": "v1-0a1b2c3",
                "image": digest})),
            build(json!({"id": "00000001", "phase": "failed", "status": "\u{1b}[2J",
                "failure": "eng\u{1b}ine", "started_at": "\u{1b}[2J"})),
        ];
        let expected = "\
ID        STARTED (UTC)        STATUS               IMAGE TAG   DIGEST
00000002  2026-01-02 03:04:05  succeeded            v1-0a1b2c3  sha256:0a0a0a0a0a0a
00000001  -                    failed (eng\\x1bine)  -           -";
        assert_eq!(table(&builds), expected);
        assert_eq!(table(&[]), "ID  STARTED (UTC)  STATUS  IMAGE TAG  DIGEST");
    }
}
