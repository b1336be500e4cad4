//! The bytes of every call.

use std::sync::{Arc, Mutex};

use sbs_client::{Client, Event};
use sbs_proto::{BuildName, BuildSelector, LogName, Members};

use crate::double::Double;

fn members() -> Members {
    Members::parse(br#"{"SECRET":"canary","A":1}"#).unwrap()
}

fn named() -> BuildSelector {
    BuildSelector::Named(BuildName::parse("b.1").unwrap())
}

async fn sent(call: impl AsyncFnOnce(Client)) -> String {
    let double = Double::json("{}");
    call(double.client()).await;
    double.request()
}

#[tokio::test]
async fn every_call_sends_what_the_original_sends() {
    let nothing = "\"\"";
    let body = r#"{"A":1,"SECRET":"canary"}"#;
    for (line, body, request) in [
        ("GET /image", nothing, sent(async |c| drop(c.status().await)).await),
        ("POST /image", body, sent(async |c| drop(c.init(&members()).await)).await),
        ("PATCH /image", body, sent(async |c| drop(c.update(&members()).await)).await),
        ("PUT /image", nothing, sent(async |c| drop(c.build().await)).await),
        ("DELETE /image", nothing, sent(async |c| drop(c.clean().await)).await),
        ("GET /log/build", nothing, sent(async |c| drop(c.log(LogName::Build).await)).await),
        (
            "GET /manifest",
            nothing,
            sent(async |c| drop(c.download_v1(&BuildSelector::Latest, &mut Vec::new()).await))
                .await,
        ),
        (
            "GET /manifest",
            r#"{"BUILD_NAME":"b.1"}"#,
            sent(async |c| drop(c.download_v1(&named(), &mut Vec::new()).await)).await,
        ),
        (
            "GET /publickey",
            nothing,
            sent(async |c| drop(c.public_key(&BuildSelector::Latest).await)).await,
        ),
        (
            "GET /publickey",
            r#"{"BUILD_NAME":"b.1"}"#,
            sent(async |c| drop(c.public_key(&named()).await)).await,
        ),
        ("GET /imagedigest", nothing, sent(async |c| drop(c.image_digest().await)).await),
    ] {
        let (head, sent) = request.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some(format!("{line} HTTP/1.1").as_str()));
        assert_eq!(sent, body, "{line}");
        let mut headers: Vec<_> =
            lines.map(str::to_lowercase).filter(|l| !l.starts_with("host: localhost:")).collect();
        headers.sort();
        let expected = [
            "accept: */*".to_owned(),
            format!("content-length: {}", body.len()),
            "content-type: application/json".to_owned(),
            format!("user-agent: sbs-client/{}", env!("CARGO_PKG_VERSION")),
        ];
        assert_eq!(headers, expected, "{line}");
    }
}

#[tokio::test]
async fn l1_an_observer_sees_methods_and_routes_and_no_secret() {
    let double = Double::json(r#"{"status":"OK"}"#);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let client = Client::builder("localhost", double.port)
        .and_then(|b| b.trust(double.authority.pem.as_bytes()))
        .and_then(|b| b.identity(double.client.both().as_bytes()))
        .and_then(|b| {
            b.with_observer(move |event: &Event<'_>| {
                kept.lock().unwrap().push(format!("{event:?}"));
            })
            .build()
        })
        .unwrap();
    client.init(&members()).await.unwrap();
    let seen = seen.lock().unwrap().join("\n");
    assert!(seen.contains(r#"method: "POST", route: "/image", status: Some(200)"#), "{seen}");
    assert!(!seen.contains("canary"), "{seen}");
    assert!(!format!("{client:?}").contains("PRIVATE KEY"));
}
