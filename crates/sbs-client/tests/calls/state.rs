//! Exports and imports of the state, with servers that lie, go on for ever or send elsewhere.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_client::{
    CallError, DownloadError, Event, ExportedState, ImportedState, StateImport, limits,
};
use sbs_proto::{BucketName, StateImageName, StateSecret};
use serde_json::{Value, json};

use crate::double::{Answer, Double, reply};

const IMAGE: &[u8] = b"SBS-SEAL and what is sealed";
const BAD_NAMES: [&str; 10] = [
    "",
    ".",
    "..",
    "../../.ssh/authorized_keys",
    "/etc/passwd",
    "a/b",
    "a\\b",
    ".bashrc",
    "-rf",
    "a\u{0}b",
];

fn ok(json: &Value) -> Answer {
    Answer::Bytes(reply("200 OK", &json.to_string()))
}

fn info(features: &[&str]) -> Answer {
    ok(&json!({
        "api": 2, "server_version": "9", "features": features,
        "limits": {"page_builds": 1, "request_body_bytes": 1, "v1_manifest_bytes": 1},
    }))
}

/// A server that has the v2 routes of the state.
fn v2(mut answer: impl FnMut(&str) -> Answer + Send + 'static) -> Double {
    Double::start_with(move |request| {
        if request.starts_with("GET /v2/info ") { info(&["state"]) } else { answer(request) }
    })
}

/// A server that has v1 alone.
fn v1(mut answer: impl FnMut(&str) -> Answer + Send + 'static) -> Double {
    Double::start_with(move |request| match request.split(' ').nth(1) {
        Some("/state-image") => answer(request),
        _ => Answer::Bytes(reply("404 Not Found", "no such page")),
    })
}

/// The head of an answer with the state image.
fn head(name: &str, image: &[u8]) -> Vec<u8> {
    let digest = STANDARD.encode(sbs_crypto::digest(image).as_bytes());
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.sbs.state\r\nContent-Disposition: \
         attachment; filename=\"{name}\"\r\nRepr-Digest: sha-256=:{digest}:\r\nConnection: \
         close\r\n"
    )
    .into_bytes()
}

fn whole(name: &str, image: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n\r\n", image.len());
    [head(name, image), length.into_bytes(), image.to_vec()].concat()
}

async fn export(double: &Double) -> Result<(ExportedState, Vec<u8>), DownloadError> {
    let mut sink = Vec::new();
    let exported = double.client().export_state(&mut sink).await?;
    Ok((exported, sink))
}

fn import(min_epoch: Option<u64>) -> StateImport {
    StateImport { min_epoch, secret: StateSecret::from_bytes([7; 128]) }
}

fn secret() -> String {
    StateSecret::from_bytes([7; 128]).expose_base64().to_string()
}

fn named(name: &str) -> StateImageName {
    StateImageName::parse(name).unwrap()
}

#[tokio::test]
async fn an_export_comes_as_its_bytes() {
    let double = v2(|request| {
        assert!(request.starts_with("GET /v2/state HTTP/1.1\r\n"), "{request}");
        Answer::Bytes(whole("b.1", IMAGE))
    });
    let expected = ExportedState { export_tag: None, name: named("b.1") };
    assert_eq!(export(&double).await.unwrap(), (expected, IMAGE.to_vec()));
}

#[tokio::test]
async fn an_export_of_v1_is_decoded() {
    let double = v1(|request| {
        assert!(request.ends_with("\r\n\r\n{}"), "{request}");
        ok(&json!({"name": "b.1", "export_tag": ["any"], "state": STANDARD.encode(IMAGE)}))
    });
    let expected = ExportedState { export_tag: Some(json!(["any"])), name: named("b.1") };
    assert_eq!(export(&double).await.unwrap(), (expected, IMAGE.to_vec()));
    // A server of ours that is older than the routes.
    let double = Double::start_with(|request| match request.split(' ').nth(1) {
        Some("/v2/info") => info(&[]),
        _ => ok(&json!({"name": "b.1", "state": STANDARD.encode(IMAGE)})),
    });
    assert_eq!(export(&double).await.unwrap().1, IMAGE);
}

#[tokio::test]
async fn c1_a_name_that_is_no_safe_file_name_is_refused() {
    for name in BAD_NAMES {
        let over_v1 = v1(move |_| ok(&json!({"name": name, "export_tag": "t", "state": "QUJD"})));
        let error = export(&over_v1).await.unwrap_err();
        let over_v2 = v2(move |_| Answer::Bytes(whole(name, IMAGE)));
        let other = export(&over_v2).await.unwrap_err();
        for error in [error, other] {
            let expected = matches!(
                error,
                // A NUL is no part of a head; the HTTP library says so first.
                DownloadError::Call(CallError::UnexpectedReply { .. } | CallError::Lost { .. })
            );
            assert!(expected, "{name:?}: {error:?}");
        }
        let to_bucket = v1(move |_| ok(&json!({"name": name, "export_tag": "t"})));
        let bucket = BucketName::parse("bucket").unwrap();
        let error = to_bucket.client().export_state_to_bucket(&bucket).await.unwrap_err();
        assert!(matches!(error, CallError::UnexpectedReply { .. }), "{name:?}: {error:?}");
    }
    for field in ["attachment", "inline; filename=\"b.1\"", "attachment; filename*=UTF-8''b.1"] {
        let head = String::from_utf8(whole("b.1", IMAGE)).unwrap();
        let head = head.replace("attachment; filename=\"b.1\"", field).into_bytes();
        let error = export(&v2(move |_| Answer::Bytes(head.clone()))).await.unwrap_err();
        let expected = matches!(error, DownloadError::Call(CallError::UnexpectedReply { .. }));
        assert!(expected, "{field}: {error:?}");
    }
}

#[tokio::test]
async fn c2_an_export_without_its_digest_or_with_another_is_refused() {
    let good = String::from_utf8(whole("b.1", IMAGE)).unwrap();
    let other = STANDARD.encode([1; 32]);
    let digest = STANDARD.encode(sbs_crypto::digest(IMAGE).as_bytes());
    for (changed, wrong_digest) in [
        (good.replace(&digest, &other), true),
        (good.replace("what is sealed", "what is forged"), true),
        (good.replace("Repr-Digest", "X-Digest"), false),
        (good.replace("sha-256", "sha-512"), false),
    ] {
        assert_ne!(changed, good);
        let double = v2(move |_| Answer::Bytes(changed.clone().into_bytes()));
        match export(&double).await.unwrap_err() {
            DownloadError::Digest if wrong_digest => {}
            DownloadError::Call(CallError::UnexpectedReply { .. }) if !wrong_digest => {}
            error => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn c2_an_export_that_does_not_end_or_is_cut_is_given_up() {
    let limit = limits::STATE_BYTES;
    let endless = [head("b.1", IMAGE), b"\r\n".to_vec()].concat();
    let announced = [head("b.1", IMAGE), format!("Content-Length: {}\r\n\r\n", limit + 1).into()];
    let v1_head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    let v1_state = format!("{v1_head}{{\"name\":\"b.1\",\"state\":\"");
    for double in [
        v2(move |_| Answer::Endless(endless.clone())),
        v2(move |_| Answer::Endless(announced.concat())),
        v1(move |_| Answer::Endless(v1_state.clone().into_bytes())),
        v1(move |_| Answer::Endless(v1_head.as_bytes().to_vec())),
    ] {
        let error = export(&double).await.unwrap_err();
        let expected = matches!(
            error,
            DownloadError::Call(CallError::TooLarge { .. } | CallError::UnexpectedReply { .. })
        );
        assert!(expected, "{error:?}");
    }
    let cut = whole("b.1", IMAGE);
    let cut = cut[..cut.len() - 1].to_vec();
    let v1_cut = format!("{v1_head}{{\"name\":\"b.1\",\"state\":\"QUJD");
    for double in
        [v2(move |_| Answer::Cut(cut.clone())), v1(move |_| Answer::Cut(v1_cut.clone().into()))]
    {
        let error = export(&double).await.unwrap_err();
        let expected = matches!(
            error,
            DownloadError::Call(CallError::Lost { .. } | CallError::UnexpectedReply { .. })
        );
        assert!(expected, "{error:?}");
    }
}

#[tokio::test]
async fn t5_a_redirect_takes_no_secret_elsewhere() {
    let elsewhere = Double::json("{}");
    let to = format!("https://localhost:{}/v2/state", elsewhere.port);
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    let double = v2(move |_| Answer::Bytes(answer.clone().into_bytes()));
    let error = export(&double).await.unwrap_err();
    let expected = matches!(error, DownloadError::Call(CallError::Refused { status: 307, .. }));
    assert!(expected, "{error:?}");
    let error = double.client().import_state(import(None), 3, &b"abc"[..]).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { status: 307, .. }), "{error:?}");
    assert!(elsewhere.saw_nothing());
}

#[tokio::test]
async fn an_import_is_a_form_with_the_state_image_last() {
    let double = v2(|_| ok(&json!({"status": "OK", "epoch": 8, "definition": true})));
    let size = IMAGE.len() as u64;
    let imported = double.client().import_state(import(Some(7)), size, IMAGE).await.unwrap();
    assert_eq!(imported, ImportedState { definition: Some(true), epoch: Some(8) });
    double.request();
    let request = double.request();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v2/state HTTP/1.1\r\n"), "{head}");
    let boundary = head.split_once("multipart/form-data; boundary=").unwrap().1;
    let boundary = boundary.lines().next().unwrap();
    let disposition = "Content-Disposition: form-data; name=";
    let expected = format!(
        "--{boundary}\r\n{disposition}\"secret\"\r\n\r\n{}\r\n\
         --{boundary}\r\n{disposition}\"min_epoch\"\r\n\r\n7\r\n\
         --{boundary}\r\n{disposition}\"state\"; filename=\"state\"\r\n\
         Content-Type: application/vnd.sbs.state\r\n\r\n{}\r\n--{boundary}--\r\n",
        secret(),
        String::from_utf8_lossy(IMAGE)
    );
    assert_eq!(body, expected);
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");

    let double = v2(|_| ok(&json!({"status": "OK", "epoch": 8, "definition": true})));
    double.client().import_state(import(None), size, IMAGE).await.unwrap();
    double.request();
    assert!(!double.request().contains("min_epoch"));
}

#[tokio::test]
async fn an_import_over_v1_is_what_the_original_sends() {
    let body = |request: &str| -> Value {
        assert!(request.starts_with("POST /state-image HTTP/1.1\r\n"), "{request}");
        serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let state = STANDARD.encode(IMAGE);
    let size = IMAGE.len() as u64;
    for (min_epoch, expected) in [
        (None, json!({"secret": secret(), "state": state})),
        (Some(7), json!({"secret": secret(), "state": state, "min_epoch": 7})),
    ] {
        let double = v1(|_| ok(&json!({"status": "OK"})));
        let imported = double.client().import_state(import(min_epoch), size, IMAGE).await.unwrap();
        assert_eq!(imported, ImportedState { definition: None, epoch: None });
        double.request();
        assert_eq!(body(&double.request()), expected);
    }
    let double = v1(|_| ok(&json!({"status": "OK"})));
    let (client, bucket) = (double.client(), BucketName::parse("bucket").unwrap());
    client.import_state_from_bucket(import(Some(7)), &bucket, &named("b.1")).await.unwrap();
    let expected = json!({
        "secret": secret(), "state_bucket_name": "bucket", "name": "b.1", "min_epoch": 7,
    });
    assert_eq!(body(&double.request()), expected);
}

#[tokio::test]
async fn what_the_server_says_against_an_import_is_told() {
    for (status, code) in
        [("403 X", "wrong_secret_or_header"), ("409 X", "rollback"), ("429 X", "too_many_attempts")]
    {
        let text = json!({"status": "do this", "code": code}).to_string();
        let double = v2(move |_| Answer::Bytes(reply(status, &text)));
        let error = double.client().import_state(import(None), 3, &b"abc"[..]).await.unwrap_err();
        let CallError::Refused { code: told, message, .. } = &error else { panic!("{error:?}") };
        assert_eq!((told.as_str(), message.as_str()), (code, "do this"));
        assert!(!error.to_string().contains(&secret()));
    }
    // A server that does not keep to v1, and one to which too much would be sent.
    let double = v1(|_| ok(&json!({"status": "no"})));
    let error = double.client().import_state(import(None), 3, &b"abc"[..]).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { status: 200, .. }), "{error:?}");
    let double = v2(|_| Answer::Silence);
    let size = limits::STATE_BYTES + 1;
    let error = double.client().import_state(import(None), size, tokio::io::repeat(0)).await;
    assert!(matches!(error, Err(CallError::TooLarge { .. })), "{error:?}");
    assert!(double.saw_nothing());
}

#[tokio::test]
async fn l1_an_observer_sees_how_far_an_import_is_and_no_secret() {
    let double = v2(|_| ok(&json!({"status": "OK", "epoch": 8, "definition": false})));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let observe = move |event: &Event<'_>| kept.lock().unwrap().push(format!("{event:?}"));
    let client = double.builder().with_observer(observe).build().unwrap();
    let size = IMAGE.len() as u64;
    client.import_state(import(None), size, IMAGE).await.unwrap();
    let seen = seen.lock().unwrap().join("\n");
    assert!(seen.contains(&format!("Uploaded {{ bytes: {size}, total: {size} }}")), "{seen}");
    assert!(seen.contains(r#"method: "POST", route: "/v2/state", status: Some(200)"#), "{seen}");
    assert!(!seen.contains(&secret()) && !format!("{:?}", import(None)).contains("BwcH"), "{seen}");
}
