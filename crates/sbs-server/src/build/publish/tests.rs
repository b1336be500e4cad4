use http::Method;
use sbs_proto::{Credentials, RegistryHost, SecretText};

use super::*;
use crate::build::failure::chain;
use crate::build::testing::TestLog;
use sbs_registry::testing::double::{Double, Reply};
use sbs_registry::testing::real::RealRegistry;
use sbs_registry::testing::{client, noise, session, write_layout};

fn destination(registry: &str) -> ImageReference {
    ImageReference::parse(&format!("{registry}/team/app:v1-0a1b2c3")).unwrap()
}

#[tokio::test]
async fn an_image_is_pushed_by_digest_and_no_tag_points_to_it() {
    let registry = RealRegistry::start().await;
    let directory = tempfile::tempdir().unwrap();
    let large = noise(3 * 1024 * 1024);
    // The same layer twice, as with two empty ones, is one blob.
    let digest = write_layout(directory.path(), &[&large, &[0; 1024], &[0; 1024]]);
    let log = TestLog::new();
    let session = session(&registry.host(), &log.log);
    let destination = destination(&registry.host());
    let cancel = CancellationToken::new();
    let published =
        publish(&Built::of_test(directory.path(), digest), &destination, &session, &cancel)
            .await
            .unwrap();
    assert_eq!((published.digest(), published.blobs().len()), (digest, 3));

    let repository = destination.repository();
    let tag = Target::Tag(destination.tag().unwrap());
    assert!(session.manifest(repository, tag).await.unwrap_err().is_not_found());
    assert_eq!(registry.skopeo_digest(&format!("team/app@{digest}")), digest.to_string());
    assert!(log.text().contains("without tag yet"), "{}", log.text());
}

#[tokio::test]
async fn what_the_registry_has_is_not_sent_again() {
    let double = Double::registry(|_| None).await;
    let directory = tempfile::tempdir().unwrap();
    let digest = write_layout(directory.path(), &[&[0; 1024]]);
    let log = TestLog::new();
    let session = session(double.host(), &log.log);
    let cancel = CancellationToken::new();
    let destination = destination(double.host());
    for _ in 0..2 {
        publish(&Built::of_test(directory.path(), digest), &destination, &session, &cancel)
            .await
            .unwrap();
    }
    assert_eq!(double.count(&Method::PATCH, "/uploads/"), 2, "a layer and the config, once");
    assert_eq!(double.count(&Method::PUT, "/manifests/sha256:"), 2);
    assert_eq!(double.count(&Method::PUT, "/manifests/"), 2);
}

type Damage<'a> = &'a dyn Fn(&Path, Digest);

#[tokio::test]
async fn b11_a_layout_that_is_not_what_was_built_is_not_pushed() {
    let double = Double::registry(|_| None).await;
    let log = TestLog::new();
    let session = session(double.host(), &log.log);
    let destination = destination(double.host());
    let cancel = CancellationToken::new();
    let layer = noise(2000);
    let layer_path = |layout: &Path| blob_path(layout, sbs_crypto::digest(&layer));
    let damages: [(&str, Damage<'_>); 5] = [
        ("has digest", &|layout, digest| {
            std::fs::write(blob_path(layout, digest), "{}").unwrap();
        }),
        ("cannot be read", &|layout, digest| {
            std::fs::remove_file(blob_path(layout, digest)).unwrap();
        }),
        ("is larger than", &|layout, digest| {
            let file = std::fs::File::create(blob_path(layout, digest)).unwrap();
            file.set_len(MAX_MANIFEST_BYTES + 1).unwrap();
        }),
        ("is no file of the size", &|layout, _| {
            std::fs::write(layer_path(layout), "short").unwrap();
        }),
        ("is no file of the size", &|layout, _| {
            std::fs::rename(layer_path(layout), layout.join("other")).unwrap();
            std::os::unix::fs::symlink(layout.join("other"), layer_path(layout)).unwrap();
        }),
    ];
    for (expected, damage) in damages {
        let directory = tempfile::tempdir().unwrap();
        let digest = write_layout(directory.path(), &[&layer]);
        damage(directory.path(), digest);
        let result =
            publish(&Built::of_test(directory.path(), digest), &destination, &session, &cancel)
                .await;
        let error = result.unwrap_err();
        assert!(chain(&error).contains(expected), "{}", chain(&error));
        assert_eq!(error.failure().code, "image_layout");
    }
    // A blob of the right size and other bytes is found by the registry.
    let directory = tempfile::tempdir().unwrap();
    let digest = write_layout(directory.path(), &[&layer]);
    std::fs::write(layer_path(directory.path()), noise(2001).split_off(1)).unwrap();
    let result =
        publish(&Built::of_test(directory.path(), digest), &destination, &session, &cancel).await;
    let error = result.unwrap_err();
    assert!(chain(&error).contains("DIGEST_INVALID"), "{}", chain(&error));
    assert_eq!(double.count(&Method::PUT, "/manifests/"), 0);
}

#[tokio::test]
async fn dockers_form_is_not_pushed() {
    let directory = tempfile::tempdir().unwrap();
    let digest = write_layout(directory.path(), &[b"layer"]);
    let oci = std::fs::read_to_string(blob_path(directory.path(), digest)).unwrap();
    let docker = oci.replacen(media_type::OCI_IMAGE, media_type::DOCKER_IMAGE, 1);
    let digest = sbs_crypto::digest(docker.as_bytes());
    std::fs::write(blob_path(directory.path(), digest), docker).unwrap();
    let log = TestLog::new();
    let (session, destination) = (session("127.0.0.1:1", &log.log), destination("127.0.0.1:1"));
    let cancel = CancellationToken::new();
    let result =
        publish(&Built::of_test(directory.path(), digest), &destination, &session, &cancel).await;
    assert!(matches!(result.unwrap_err().fault, PublishFault::NotOci));
}

#[tokio::test]
async fn failures_are_told_as_the_original_tells_them() {
    let directory = tempfile::tempdir().unwrap();
    let digest = write_layout(directory.path(), &[b"layer"]);
    let registry = RealRegistry::start().await;
    let log = TestLog::new();
    let wrong = Credentials {
        password: SecretText::new("hunter2secret".to_owned()),
        user: "someone-else".to_owned(),
    };
    let host = RegistryHost::parse(&registry.host()).unwrap();
    let session = client().for_registry(&host, Some(&wrong), &log.log).unwrap();
    let destination = destination(&registry.host());
    let cancel = CancellationToken::new();
    let error = publish(&Built::of_test(directory.path(), digest), &destination, &session, &cancel)
        .await
        .unwrap_err();
    let command = format!("docker login --username <USERNAME> --password <PASSWORD> {host}");
    assert_eq!(error.failure(), Failure { code: "registry_login", command, return_code: 1 });
    let text = format!("{} {error:?} {}", chain(&error), log.text());
    assert!(!text.contains("hunter2secret") && !text.contains("someone-else"), "{text}");

    drop(registry);
    let error = publish(&Built::of_test(directory.path(), digest), &destination, &session, &cancel)
        .await
        .unwrap_err();
    let command = format!("docker push {host}/team/app:v1-0a1b2c3");
    assert_eq!(error.failure(), Failure { code: "registry_unreachable", command, return_code: 1 });
}

#[tokio::test]
async fn a_cancelled_push_ends_at_once() {
    let cancel = CancellationToken::new();
    let (token, directory) = (cancel.clone(), tempfile::tempdir().unwrap());
    let double = Double::registry(move |_| {
        token.cancel();
        Some(Reply::status(503).header("retry-after", "1"))
    })
    .await;
    let digest = write_layout(directory.path(), &[b"layer"]);
    let log = TestLog::new();
    let (session, destination) = (session(double.host(), &log.log), destination(double.host()));
    let error = publish(&Built::of_test(directory.path(), digest), &destination, &session, &cancel)
        .await
        .unwrap_err();
    assert_eq!((error.failure().code, error.failure().return_code), ("cancelled", 137));
}
