//! Downloads over v2, from servers that cut, lie or go on for ever.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_client::{
    CallError, Client, DescribedManifest, DownloadError, Event, ManifestForm, Offer, Received,
};
use sbs_proto::Digest;
use sbs_proto::v2::{BuildId, Selector};
use serde_json::json;
use tokio::io::AsyncWrite;

use crate::double::{Answer, Double, reply};

const BUILD: &str = "r.example.app.v1.2026-01-02_03-04-05.000006";
const FILE: &str = "/v2/images/default/builds/00000007/manifest";

/// What a server has: 1,000 bytes.
fn file() -> Vec<u8> {
    (0..250_u8).cycle().take(1000).collect()
}

fn digest() -> Digest {
    sbs_crypto::digest(&file())
}

fn describe(size: usize) -> Answer {
    let build = json!({
        "id": "00000007", "phase": "succeeded", "status": "success", "build_name": BUILD,
        "manifest": {"digest": digest().to_string(), "size": size},
    });
    Answer::Bytes(reply("200 OK", &build.to_string()))
}

/// A server that answers requests for the file as it is told, by the first byte that is asked for.
fn server(file: impl FnMut(u64) -> Answer + Send + 'static) -> Double {
    let mut file = file;
    Double::start_with(move |request| {
        let path = request.split(' ').nth(1).unwrap();
        let from = request.lines().find_map(|line| line.strip_prefix("range: bytes="));
        let from = from.map_or(0, |range| range.strip_suffix('-').unwrap().parse().unwrap());
        match path {
            "/v2/info" => Answer::Bytes(reply(
                "200 OK",
                &json!({
                    "api": 2, "server_version": "9",
                    "limits": {"page_builds": 1, "request_body_bytes": 1, "v1_manifest_bytes": 1},
                })
                .to_string(),
            )),
            "/v2/images/default/builds/latest"
            | "/v2/images/default/builds/7"
            | "/v2/images/default/builds/8" => describe(1000),
            FILE => file(from),
            _ => Answer::Bytes(reply("404 Not Found", "")),
        }
    })
}

/// The head of an answer with the file or a part of it.
fn head(from: u64, more: &str) -> Vec<u8> {
    let range = format!("Content-Range: bytes {from}-999/1000\r\n");
    let (status, range) =
        if from == 0 { ("200 OK", "") } else { ("206 Partial Content", range.as_str()) };
    raw_head(status, &format!("{range}Content-Length: {}\r\n{more}", 1000 - from))
}

fn raw_head(status: &str, more: &str) -> Vec<u8> {
    let (tag, digest) = (digest().to_hex(), STANDARD.encode(digest().as_bytes()));
    format!(
        "HTTP/1.1 {status}\r\nETag: \"{tag}\"\r\nRepr-Digest: sha-256=:{digest}:\r\n{more}\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// The bytes from one to before another.
fn part(from: u64, to: u64) -> Vec<u8> {
    file().drain(usize::try_from(from).unwrap()..usize::try_from(to).unwrap()).collect()
}

async fn found(client: &Client) -> DescribedManifest {
    match client.find_manifest(&Selector::Latest, ManifestForm::Full).await.unwrap() {
        Offer::Described(manifest) => manifest,
        Offer::Undescribed => panic!("the server speaks v2"),
    }
}

async fn download(double: &Double) -> Result<Vec<u8>, DownloadError> {
    let client = double.client();
    let mut sink = Vec::new();
    client.download(&found(&client).await, Received::nothing(), &mut sink).await?;
    Ok(sink)
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_stood() {
    // 300 bytes for each connection.
    let double = server(|from| {
        let to = (from + 300).min(1000);
        let bytes = [head(from, ""), part(from, to)].concat();
        if to == 1000 { Answer::Bytes(bytes) } else { Answer::Cut(bytes) }
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = told.clone();
    let client = double.builder().with_observer(move |event| match event {
        Event::Cut { bytes, .. } => keep.lock().unwrap().push(*bytes),
        Event::Downloaded { total, .. } => assert_eq!(*total, Some(1000)),
        _ => (),
    });
    let client = client.build().unwrap();
    let manifest = found(&client).await;
    assert_eq!(manifest.name.as_str(), format!("manifest.{BUILD}"));
    let mut sink = Vec::new();
    client.download(&manifest, Received::nothing(), &mut sink).await.unwrap();
    assert_eq!(sink, file());
    assert_eq!(*told.lock().unwrap(), [300, 600, 900]);
    let asked: Vec<String> = std::iter::repeat_with(|| double.request()).take(6).collect();
    assert!(!asked[2].contains("range"), "{}", asked[2]);
    let tag = format!("if-range: \"{}\"", digest().to_hex());
    assert!(asked[3].contains("range: bytes=300-") && asked[3].contains(&tag), "{}", asked[3]);
}

#[tokio::test]
async fn what_another_process_left_is_not_fetched_again() {
    let double = server(|from| {
        assert_eq!(from, 400);
        Answer::Bytes([head(from, ""), part(from, 1000)].concat())
    });
    let client = double.client();
    let manifest = found(&client).await;
    let mut sink = part(0, 400);
    let received = Received::read(&*sink).unwrap();
    client.download(&manifest, received, &mut sink).await.unwrap();
    assert_eq!(sink, file());
    // What is complete needs no request, and is checked.
    let mut more = Vec::new();
    client.download(&manifest, Received::read(&*sink).unwrap(), &mut more).await.unwrap();
    assert_eq!(more, b"");
    sink[999] ^= 1;
    let error = client.download(&manifest, Received::read(&*sink).unwrap(), &mut more).await;
    assert!(matches!(error, Err(DownloadError::Digest)), "{error:?}");
}

#[tokio::test]
async fn a_server_that_sends_everything_again_is_understood() {
    let double = server(|from| match from {
        0 => Answer::Cut([head(0, ""), part(0, 10)].concat()),
        _ => Answer::Bytes([head(0, ""), file()].concat()),
    });
    assert_eq!(download(&double).await.unwrap(), file());
}

#[tokio::test]
async fn c2_a_server_that_sends_more_than_it_announced_is_given_up() {
    let without_length = || raw_head("200 OK", "");
    for answer in [
        Answer::Bytes([raw_head("200 OK", "Content-Length: 1001\r\n"), file()].concat()),
        Answer::Endless(without_length()),
        Answer::Endless([without_length(), file()].concat()),
    ] {
        let error = download(&server(move |_| answer.clone())).await.unwrap_err();
        assert!(matches!(error, DownloadError::Longer), "{error:?}");
    }
    // A manifest over the limit is not asked for.
    let double = server(|_| Answer::Silence);
    let client = double.builder().with_manifest_limit(999).build().unwrap();
    let error = client.find_manifest(&Selector::Latest, ManifestForm::Full).await.unwrap_err();
    assert!(matches!(error, CallError::TooLarge { limit: 999 }), "{error:?}");
}

#[tokio::test]
async fn c2_another_file_than_the_announced_one_is_refused() {
    let tag = format!("\"{}\"", digest().to_hex());
    let other_tag = tag.replace(|c: char| c.is_ascii_digit(), "a");
    let other_digest = STANDARD.encode([1; 32]);
    let good_digest = STANDARD.encode(digest().as_bytes());
    for fields in [
        format!("ETag: {other_tag}\r\nRepr-Digest: sha-256=:{good_digest}:\r\n"),
        format!("ETag: W/{tag}\r\nRepr-Digest: sha-256=:{good_digest}:\r\n"),
        format!("ETag: {tag}\r\nRepr-Digest: sha-256=:{other_digest}:\r\n"),
        format!("ETag: {tag}\r\nRepr-Digest: sha-512=:{good_digest}:\r\n"),
        format!("ETag: {tag}\r\n"),
        format!("Repr-Digest: sha-256=:{good_digest}:\r\n"),
        format!("ETag: {tag}\r\nRepr-Digest: sha-256=:{good_digest}:\r\nContent-Length: 999\r\n"),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Connection: close\r\n\r\n").into_bytes();
        let double = server(move |_| Answer::Bytes([head.clone(), file()].concat()));
        let error = download(&double).await.unwrap_err();
        assert!(matches!(error, DownloadError::Changed), "{fields}: {error:?}");
    }
    // The tag changes between two connections, or the file has become shorter.
    let changed = format!("HTTP/1.1 200 OK\r\nETag: {other_tag}\r\nConnection: close\r\n\r\n");
    let shorter = "HTTP/1.1 416 X\r\nContent-Range: bytes */9\r\nConnection: close\r\n\r\n";
    for second in [changed.into_bytes(), shorter.as_bytes().to_vec()] {
        let double = server(move |from| match from {
            0 => Answer::Cut([head(0, ""), part(0, 10)].concat()),
            _ => Answer::Bytes(second.clone()),
        });
        let error = download(&double).await.unwrap_err();
        assert!(matches!(error, DownloadError::Changed), "{error:?}");
    }
    // All the words are right, and the bytes are not.
    let double = server(|_| Answer::Bytes([head(0, ""), vec![7; 1000]].concat()));
    let error = download(&double).await.unwrap_err();
    assert!(matches!(error, DownloadError::Digest), "{error:?}");
}

#[tokio::test]
async fn c2_a_part_that_was_not_asked_for_is_refused() {
    for (first, second) in [
        ("bytes 0-999/1000", ""),
        ("bytes 10-999/1000", ""),
        ("", "bytes 0-999/1000"),
        ("", "bytes 11-999/1000"),
        ("", "bytes 10-998/1000"),
        ("", "bytes 10-999/1001"),
        ("", "bytes 10-999/*"),
        ("", "none"),
    ] {
        let double = server(move |from| match (from, first) {
            (0, "") => Answer::Cut([head(0, ""), part(0, 10)].concat()),
            (_, range) => {
                let range = if from == 0 { range } else { second };
                let field = format!("Content-Range: {range}\r\n");
                Answer::Bytes([raw_head("206 Partial Content", &field), file()].concat())
            }
        });
        let error = download(&double).await.unwrap_err();
        assert!(
            matches!(error, DownloadError::Call(CallError::UnexpectedReply { .. })),
            "{first} {second}: {error:?}"
        );
    }
}

#[tokio::test]
async fn c2_a_server_that_drips_for_ever_is_given_up() {
    let double = server(|_| Answer::Drip(head(0, "")));
    let client = double.builder().with_download_timeout(Duration::from_millis(300));
    let client = client.build().unwrap();
    let manifest = found(&client).await;
    let error = client.download(&manifest, Received::nothing(), &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, DownloadError::GaveUp { .. }), "{error:?}");
}

#[tokio::test]
async fn c2_a_server_that_cuts_for_ever_is_given_up() {
    let double = server(|from| Answer::Cut([head(from, ""), part(from, from + 1)].concat()));
    let client = double.builder().with_download_attempts(3).build().unwrap();
    let manifest = found(&client).await;
    let error = client.download(&manifest, Received::nothing(), &mut Vec::new()).await.unwrap_err();
    match error {
        DownloadError::GaveUp { bytes: 3, source: Some(CallError::Lost { .. }) } => (),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_server_that_says_no_is_not_asked_again() {
    let mut asked = 0;
    let double = server(move |_| {
        asked += 1;
        assert_eq!(asked, 1);
        Answer::Bytes(reply("404 Not Found", r#"{"code":"not_found","status":"removed"}"#))
    });
    let error = download(&double).await.unwrap_err();
    assert!(
        matches!(error, DownloadError::Call(CallError::Refused { status: 404, .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again() {
    let mut asked = 0;
    let double = server(move |_| {
        asked += 1;
        match asked {
            1 => Answer::Bytes(reply("503 Unavailable", "")),
            _ => Answer::Bytes([head(0, ""), file()].concat()),
        }
    });
    assert_eq!(download(&double).await.unwrap(), file());
}

/// A disk that is full after some bytes.
struct Full(usize);

impl AsyncWrite for Full {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0 == 0 {
            return Poll::Ready(Err(io::ErrorKind::StorageFull.into()));
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_full_disk_is_not_tried_again() {
    let double = server(|from| {
        assert_eq!(from, 0);
        Answer::Bytes([head(0, ""), file()].concat())
    });
    let client = double.client();
    let manifest = found(&client).await;
    let error = client.download(&manifest, Received::nothing(), &mut Full(500)).await.unwrap_err();
    assert!(matches!(error, DownloadError::Write { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_without_v2_is_told_by_its_404() {
    let client = Double::start(Answer::Bytes(reply("404 Not Found", "no such page"))).client();
    let latest = Selector::Latest;
    let offer = client.find_manifest(&latest, ManifestForm::Full).await.unwrap();
    assert_eq!(offer, Offer::Undescribed);
    let thin = client.find_manifest(&latest, ManifestForm::Thin).await;
    assert!(matches!(thin, Err(CallError::Unavailable { .. })), "{thin:?}");
    let builds = client.builds(None, 10).await;
    assert!(matches!(builds, Err(CallError::Unavailable { .. })), "{builds:?}");
    let number = Selector::Id(BuildId::parse("7").unwrap());
    let numbered = client.find_manifest(&number, ManifestForm::Full).await;
    assert!(matches!(numbered, Err(CallError::Unavailable { .. })), "{numbered:?}");
    // Another refusal is none.
    let client = Double::start(Answer::Bytes(reply("500 Oops", ""))).client();
    let error = client.find_manifest(&latest, ManifestForm::Full).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { status: 500, .. }), "{error:?}");
}

#[tokio::test]
async fn a_build_is_found_by_its_number_and_no_other_is_taken_for_it() {
    let client = server(|_| Answer::Silence).client();
    for (number, good) in [("7", true), ("00000007", false), ("8", false)] {
        let number = Selector::Id(BuildId::parse(number).unwrap());
        let found = client.find_manifest(&number, ManifestForm::Full).await;
        // The double knows one spelling of the right number.
        assert_eq!(found.is_ok(), good, "{found:?}");
    }
    let other = Selector::Id(BuildId::parse("8").unwrap());
    let error = client.find_manifest(&other, ManifestForm::Full).await.unwrap_err();
    assert!(matches!(error, CallError::UnexpectedReply { .. }), "{error:?}");
}

#[tokio::test]
async fn c2_a_build_that_is_told_of_wrongly_is_not_understood() {
    let client = server(|_| Answer::Silence).client();
    let thin = client.find_manifest(&Selector::Latest, ManifestForm::Thin).await;
    assert!(matches!(thin, Err(CallError::Unavailable { .. })), "{thin:?}");
    for build in [
        json!({"id": "../../x", "phase": "succeeded", "status": "success", "build_name": BUILD}),
        json!({"id": "7", "phase": "succeeded", "status": "success", "build_name": "../x"}),
        json!({"id": "7", "phase": "succeeded", "status": "success", "build_name": BUILD,
            "manifest": {"digest": "sha256:x", "size": 1}}),
    ] {
        let double = Double::start_with(move |request| {
            Answer::Bytes(reply(
                "200 OK",
                &if request.starts_with("GET /v2/info ") {
                    r#"{"api":2,"server_version":"9","limits":{"page_builds":1,"request_body_bytes":1,"v1_manifest_bytes":1}}"#.to_owned()
                } else {
                    build.to_string()
                },
            ))
        });
        let client = double.client();
        let found = client.find_manifest(&Selector::Latest, ManifestForm::Full).await;
        assert!(matches!(found, Err(CallError::UnexpectedReply { .. })), "{found:?}");
    }
}
