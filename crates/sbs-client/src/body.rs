use reqwest::Response;
use sbs_proto::ErrorReply;
use serde::de::DeserializeOwned;

use crate::limits::{ERROR_BYTES, SHOWN_CHARACTERS};
use crate::observer::{Event, Observer};
use crate::{CallError, Shown};

/// Reads the body of a reply; fails once it is longer than `limit` bytes.
pub(crate) async fn read(
    mut response: Response,
    limit: u64,
    route: &str,
    observer: &Observer,
) -> Result<Vec<u8>, CallError> {
    let total = response.content_length();
    if total.is_some_and(|total| total > limit) {
        return Err(CallError::TooLarge { limit });
    }
    // The announced length is only a hint: memory is taken as bytes come.
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(CallError::from_transport)? {
        let bytes = body.len() as u64 + chunk.len() as u64;
        if bytes > limit {
            return Err(CallError::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
        observer.tell(&Event::Received { bytes, route, total });
    }
    Ok(body)
}

/// Reads the explanation that came with an error status.
pub(crate) async fn read_refusal(response: Response) -> CallError {
    let status = response.status().as_u16();
    let refused = |code: &str, message: &str| CallError::Refused {
        code: word(code),
        message: Shown::short(message, SHOWN_CHARACTERS).to_string(),
        status,
    };
    let body = match read(response, ERROR_BYTES, "", &Observer::default()).await {
        Ok(body) => body,
        // The status says already that the server will not; only the reason is missing.
        Err(CallError::TooLarge { .. }) => {
            return refused("", "its explanation is too long to show");
        }
        Err(_) => return refused("", "its explanation did not come through"),
    };
    match parse_object::<ErrorReply>(&body) {
        Ok(reply) => refused(&reply.code, &reply.status),
        Err(_) => refused("", String::from_utf8_lossy(&body).trim()),
    }
}

/// Parses a reply that must be a JSON object.
pub(crate) fn parse_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    // serde takes an array for a struct, too.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(CallError::UnexpectedReply { what: "it is not a JSON object" });
    }
    parse(body)
}

/// Parses the JSON of a reply.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    // serde_json's own message can repeat what the server sent.
    serde_json::from_slice(body).map_err(|_| CallError::UnexpectedReply {
        what: "it is not the JSON that this call answers with",
    })
}

/// Keeps of a server's code what a code can be made of.
fn word(code: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || *c == '_' || *c == '-';
    code.chars().filter(kept).take(MAX_CODE_CHARACTERS).collect()
}

const MAX_CODE_CHARACTERS: usize = 40;
