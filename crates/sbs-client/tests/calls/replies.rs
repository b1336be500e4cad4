//! What is made of the answers.

use sbs_client::{CallError, DownloadError, limits};
use sbs_proto::{BuildSelector, LogName, ManifestName, Progress};

use crate::double::{Answer, Double, reply};

async fn v1_manifest(double: &Double) -> Result<(ManifestName, Vec<u8>), CallError> {
    let mut bytes = Vec::new();
    match double.client().download_v1(&BuildSelector::Latest, &mut bytes).await {
        Ok(name) => Ok((name, bytes)),
        Err(DownloadError::Call(error)) => Err(error),
        Err(error) => panic!("{error:?}"),
    }
}

async fn status_error(answer: Vec<u8>) -> CallError {
    Double::start(Answer::Bytes(answer)).client().status().await.unwrap_err()
}

#[tokio::test]
async fn answers_become_values() {
    let status = Double::json(r#"{"status":"success","x":1}"#).client().status().await.unwrap();
    assert_eq!(status.status.progress(), Progress::Succeeded);
    let log = Double::json(r#"{"log":"a\nb\n"}"#).client().log(LogName::Build).await.unwrap();
    assert_eq!(log, "a\nb\n");
    let manifest = r#"{"manifest_name":"manifest.b.1","encoded_manifest":"QlpoOTFB"}"#;
    let (name, bytes) = v1_manifest(&Double::json(manifest)).await.unwrap();
    assert_eq!((name.as_str(), &*bytes), ("manifest.b.1", &b"BZh91A"[..]));
    let started = Double::json(r#"{"status":"OK: async build started"}"#);
    assert_eq!(started.client().build().await.unwrap().status, "OK: async build started");
    let digest = format!("docker.io/ns/app@sha256:{}", "0a".repeat(32));
    let double = Double::start(Answer::Bytes(reply("201 Created", &format!("\"{digest}\""))));
    assert_eq!(double.client().image_digest().await.unwrap().to_string(), digest);
}

#[tokio::test]
async fn any_json_is_an_answer_to_clean() {
    for (json, expected) in
        [(r#"{"status":"OK"}"#, "OK"), (r#""done""#, "done"), (r#"{"a":1}"#, r#"{"a":1}"#)]
    {
        assert_eq!(Double::json(json).client().clean().await.unwrap().status, expected);
    }
}

#[tokio::test]
async fn a_refusal_is_read_as_an_object_and_as_plain_text() {
    for (status, body, expected) in [
        (
            "409 Conflict",
            r#"{"code":"busy","status":"a build runs"}"#,
            (409, "busy", "a build runs"),
        ),
        ("409 Conflict", r#"{"status":"a build runs"}"#, (409, "", "a build runs")),
        ("500 Oops", "plain words\n", (500, "", "plain words")),
        ("404 Not Found", "[1]", (404, "", "[1]")),
        ("403 Forbidden", "", (403, "", "")),
        ("302 Found", "elsewhere", (302, "", "elsewhere")),
        ("202 Accepted", r#"{"status":"OK"}"#, (202, "", "OK")),
    ] {
        match status_error(reply(status, body)).await {
            CallError::Refused { code, message, status } => {
                assert_eq!((status, code.as_str(), message.as_str()), expected);
            }
            error => panic!("{status}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_status_other_than_ok_is_a_refusal_whatever_the_http_status() {
    let double = Double::json(r#"{"status":"clean first"}"#);
    let error = double.client().build().await.unwrap_err();
    assert_eq!(error.to_string(), "the server refused: clean first");
}

#[tokio::test]
async fn c2_text_of_the_server_is_made_safe_in_errors() {
    let body = serde_json::json!({
        "code": "bu\u{1b}sy; rm", "status": format!("\u{1b}[2J\u{202e}{}", "x".repeat(1000)),
    });
    let error = status_error(reply("409 Conflict", &body.to_string())).await.to_string();
    assert!(error.contains("status 409 `busyrm`: \\x1b[2J\\u{202e}xxx"), "{error}");
    assert!(!error.contains(['\u{1b}', '\u{202e}']), "{error}");
    assert!(error.len() < 400, "{}", error.len());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Double::json(r#"{"status":"success"}"#);
    let head = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://localhost:{}/image\r\nContent-Length: 0\r\n\r\n",
        elsewhere.port
    );
    let error = status_error(head.into_bytes()).await;
    assert!(matches!(error, CallError::Refused { status: 307, .. }), "{error:?}");
    assert!(elsewhere.saw_nothing());
}

#[tokio::test]
async fn answers_of_another_form_are_not_understood() {
    for body in ["", "[]", "{\"status\":1}", "{\"status\":\"x\"", "not JSON"] {
        let error = status_error(reply("200 OK", body)).await;
        assert!(matches!(error, CallError::UnexpectedReply { .. }), "{body}: {error:?}");
        if !body.is_empty() {
            assert!(!error.to_string().contains(body), "{error}");
        }
    }
    for json in ["1", "\"docker.io/ns/app:tag\"", "\"\\u001b\"", "[\"a\"]"] {
        let error = Double::json(json).client().image_digest().await.unwrap_err();
        assert!(matches!(error, CallError::UnexpectedReply { .. }), "{json}: {error:?}");
    }
}

#[tokio::test]
async fn c1_a_name_that_is_no_file_name_is_refused() {
    for name in [
        "../../.ssh/authorized_keys",
        "/etc/passwd",
        "",
        "manifest.",
        "manifest.a/b",
        "manifest..x",
        "manifest.a\u{0}",
        "manifest.a\nb",
        ".bashrc",
        "-rf",
    ] {
        let json = serde_json::json!({"manifest_name": name, "encoded_manifest": "QlpoOTFB"});
        let double = Double::json(&json.to_string());
        let error = v1_manifest(&double).await.unwrap_err();
        assert!(matches!(error, CallError::UnexpectedReply { .. }), "{name:?}: {error:?}");
        let name = name.strip_prefix("manifest.").unwrap_or(name);
        let json = serde_json::json!({"build_name": name, "public_key_pem": "x"});
        let double = Double::json(&json.to_string());
        let error = double.client().public_key(&BuildSelector::Latest).await.unwrap_err();
        assert!(matches!(error, CallError::UnexpectedReply { .. }), "{name:?}: {error:?}");
    }
}

#[tokio::test]
async fn c2_a_reply_ends_at_its_limit() {
    let padded = |length: usize| {
        let json = r#"{"status":""}"#;
        format!("{json}{}", " ".repeat(length - json.len()))
    };
    let limit = usize::try_from(limits::REPLY_BYTES).unwrap();
    Double::json(&padded(limit)).client().status().await.unwrap();
    let error = Double::json(&padded(limit + 1)).client().status().await.unwrap_err();
    assert!(matches!(error, CallError::TooLarge { limit: limits::REPLY_BYTES }), "{error:?}");
}

#[tokio::test]
async fn c2_an_endless_reply_is_given_up() {
    let endless = |status: &str| {
        // No length: the body ends with the connection, which never ends.
        Double::start(Answer::Endless(format!("HTTP/1.1 {status}\r\n\r\n").into()))
    };
    let error = endless("200 OK").client().status().await.unwrap_err();
    assert!(matches!(error, CallError::TooLarge { .. }), "{error:?}");
    // Neither outside the manifest nor in it.
    let padding = v1_manifest(&endless("200 OK")).await.unwrap_err();
    assert!(matches!(padding, CallError::UnexpectedReply { .. }), "{padding:?}");
    let start = b"HTTP/1.1 200 OK\r\n\r\n{\"encoded_manifest\":\"";
    let manifest = v1_manifest(&Double::start(Answer::Endless(start.to_vec()))).await.unwrap_err();
    assert!(matches!(manifest, CallError::TooLarge { limit: 4096 }), "{manifest:?}");
    let announced = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n";
    let manifest = v1_manifest(&Double::start(Answer::Cut(announced.to_vec()))).await.unwrap_err();
    assert!(matches!(manifest, CallError::TooLarge { limit: 4096 }), "{manifest:?}");
    let error = endless("500 Oops").client().status().await.unwrap_err();
    assert!(matches!(error, CallError::Refused { status: 500, .. }), "{error:?}");
    let header = Answer::Endless(b"HTTP/1.1 200 OK\r\nX: ".to_vec());
    let error = Double::start(header).client().status().await.unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_or_end_is_an_error() {
    let error = Double::start(Answer::Silence).client().status().await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error:?}");
    for start in ["", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"status\":"] {
        let double = Double::start(Answer::Cut(start.into()));
        let error = double.client().status().await.unwrap_err();
        assert!(matches!(error, CallError::Lost { .. }), "{start:?}: {error:?}");
    }
}
