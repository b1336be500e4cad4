use std::fmt::Write as _;

use sbs_client::{CallError, Client, Shown};
use sbs_proto::v2::{Build, PAGE_BUILDS, UploadState};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::command::Context;
use crate::error::CommandError;

/// Prints the newest builds, newest first.
pub(crate) async fn print(context: &Context<'_>, limit: usize) -> Result<(), CommandError> {
    let builds = fetch(&context.client()?, limit).await?;
    if let Some(text) = outside(&builds) {
        context.ui.warning(text);
    }
    context.ui.result(table(&builds), json!({"builds": builds}))
}

/// Says which manifests are not where they should be, and why the newest of them is not.
fn outside(builds: &[Build]) -> Option<String> {
    let tried = |build: &&Build| {
        let upload = build.upload.as_ref();
        upload.is_some_and(|upload| upload.state != UploadState::Done && upload.reason.is_some())
    };
    let newest = builds.iter().find(tried)?;
    let reason = newest.upload.as_ref().and_then(|upload| upload.reason.as_deref())?;
    let (count, reason) = (builds.iter().filter(tried).count(), Shown::short(reason, REASON));
    let what = if count == 1 {
        "1 manifest is not in its bucket".to_owned()
    } else {
        format!("{count} manifests are not in their bucket")
    };
    Some(format!("{what}; build {}: {reason}", newest.id))
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
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(builds.iter().map(row));
    if builds.iter().all(|build| build.upload.is_none()) {
        // Where nothing goes into a bucket, the last column would be empty.
        for row in &mut rows {
            row.truncate(HEAD.len() - 1);
        }
    }
    let mut widths = [0; HEAD.len()];
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

fn row(build: &Build) -> Vec<String> {
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
    let upload = build.upload.as_ref().map(|upload| match upload.attempts {
        0 => upload.state.as_str().to_owned(),
        failed => format!("{} ({failed} in vain)", upload.state.as_str()),
    });
    let cells = [or_none(started), status, or_none(tag), or_none(digest), or_none(upload)];
    std::iter::once(build.id.to_string()).chain(cells).collect()
}

const HEAD: [&str; 6] = ["ID", "STARTED (UTC)", "STATUS", "IMAGE TAG", "DIGEST", "UPLOAD"];
/// Characters of the reason why a manifest is not in its bucket.
const REASON: usize = 600;
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
        assert_eq!(outside(&builds), None);
    }

    #[test]
    fn uploads_are_shown_where_there_are_any() {
        let build = |id: &str, upload: serde_json::Value| {
            let json = json!({"id": id, "phase": "succeeded", "status": "success",
                "upload": upload});
            serde_json::from_value::<Build>(json).unwrap()
        };
        let builds = [
            build("5", json!(null)),
            build("4", json!({"attempts": 0, "state": "pending"})),
            build("3", json!({"attempts": 2, "state": "pending", "reason": "no \u{1b}[2J way"})),
            build("2", json!({"attempts": 175, "state": "failed", "reason": "another"})),
            build("1", json!({"attempts": 1, "state": "done"})),
        ];
        let expected = "\
ID  STARTED (UTC)  STATUS     IMAGE TAG  DIGEST  UPLOAD
5   -              succeeded  -          -       -
4   -              succeeded  -          -       pending
3   -              succeeded  -          -       pending (2 in vain)
2   -              succeeded  -          -       failed (175 in vain)
1   -              succeeded  -          -       done (1 in vain)";
        assert_eq!(table(&builds), expected);
        let expected = "2 manifests are not in their bucket; build 3: no \\x1b[2J way";
        assert_eq!(outside(&builds).as_deref(), Some(expected));
        let expected = "1 manifest is not in its bucket; build 2: another";
        assert_eq!(outside(&builds[3..]).as_deref(), Some(expected));
        assert_eq!(outside(&builds[4..]), None);
    }
}
