//! Manifests: fetched from a server, and verified from files.

use std::fs;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::ManifestSigningKey;
use sbs_crypto::git::{ObjectFormat, ObjectKind, object_id};
use sbs_manifest::{
    Envelope, FullManifest, InnerWriter, Limits, Materials, SourceEntry, SourceKind, ThinMaterials,
    sign, write_thin,
};
use sbs_proto::{BuildName, BuildRecord, CommitId};
use serde_json::json;

use crate::place::{Place, Run};
use crate::server::{Reply, Served};

const BUILD: &str = "r.example.app.v1-COMMIT0.2026-01-02_03-04-05.000006";
const DOCKERFILE: &[u8] = b"FROM scratch\n";

struct Sample {
    build: BuildName,
    bytes: Vec<u8>,
    commit: CommitId,
    key: String,
    other_key: String,
    thin: Vec<u8>,
}

/// A manifest as the server makes one.
fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| make(DOCKERFILE))
}

/// Makes a manifest whose Dockerfile has this content, whatever the commit says.
fn make(content: &[u8]) -> Sample {
    make_as(content, &ManifestSigningKey::generate().unwrap(), "0.1.0")
}

/// The same, with a key and the version of a server.
fn make_as(content: &[u8], key: &ManifestSigningKey, version: &str) -> Sample {
    let sha1 = ObjectFormat::of(&CommitId::parse(&"0".repeat(40)).unwrap());
    let blob = object_id(ObjectKind::Blob, DOCKERFILE, sha1);
    let hex = blob.as_str();
    let raw = hex::decode(hex).unwrap();
    let tree = object_id(ObjectKind::Tree, &[&b"100644 Dockerfile\0"[..], &raw].concat(), sha1);
    let listing = format!("100644 blob {hex}\tDockerfile\0");
    let person = "A <a@example> 1700000000 +0000";
    let commit_object = format!("tree {tree}\nauthor {person}\ncommitter {person}\n\nm\n");
    let commit = object_id(ObjectKind::Commit, commit_object.as_bytes(), sha1);
    let build = BuildName::parse(&BUILD.replace("COMMIT0", commit.short())).unwrap();
    let key_pem = key.verifying_key().to_pem();
    let digest = format!("sha256:{}", "0a".repeat(32));
    let record: BuildRecord = serde_json::from_value(json!({
        "status": "image pushed", "build_name": build.as_str(),
        "image_tag": format!("v1-{}", commit.short()), "bases": [],
        "engine": {"context": "", "dockerfile": "Dockerfile", "isolation": "chroot",
            "name": "buildah", "network": "none", "storage_driver": "vfs", "version": "1"},
        "finished_at": "2026-01-02T03:05:05Z", "started_at": "2026-01-02T03:04:05Z",
        "image": {"digest": digest, "public_key_pem": "x",
            "reference": format!("r.example/app:v1-{}", commit.short())},
        "manifest_public_key_pem": key_pem, "schema": "sbs-build-record-1",
        "server_version": version,
        "source": {"commit": commit.as_str(), "commit_time": 1_700_000_000,
            "tree": tree.as_str(), "url": "git@git.example:u/r.git"},
    }))
    .unwrap();
    let limits = Limits::default();
    let materials = || Materials {
        record: &record,
        commit: commit_object.as_bytes(),
        tree: listing.as_bytes(),
        log: &b"log\n"[..],
        log_size: 4,
    };
    let mut writer = InnerWriter::begin(Vec::new(), materials(), &limits).unwrap();
    let size = content.len() as u64;
    let entry = SourceEntry::new(b"Dockerfile", SourceKind::File(size)).unwrap();
    writer.add_source(&entry, content).unwrap();
    let (inner, digest, inner_size) = writer.finish().unwrap();
    let signature = sign(&digest, key).unwrap();
    let name = build.manifest_name();
    let envelope =
        Envelope { name: &name, signature: &signature, inner_size, commit_time: 1_700_000_000 };
    let bytes = envelope.write(&*inner, Vec::new(), &limits).unwrap();
    let full = FullManifest::new(&name, digest, inner_size);
    let thin = ThinMaterials { materials: materials(), full: &full, dockerfile: content };
    let (inner, digest, inner_size) = write_thin(Vec::new(), thin, &limits).unwrap();
    let signature = sign(&digest, key).unwrap();
    let envelope =
        Envelope { name: &name, signature: &signature, inner_size, commit_time: 1_700_000_000 };
    let thin = envelope.write_thin(&*inner, Vec::new(), &limits).unwrap();
    let other_key = ManifestSigningKey::generate().unwrap().verifying_key().to_pem();
    Sample { build, bytes, commit, key: key_pem, other_key, thin }
}

fn served(sample: &Sample, key: &str) -> Served {
    let name = sample.build.manifest_name();
    let manifest =
        json!({"manifest_name": name.as_str(), "encoded_manifest": STANDARD.encode(&sample.bytes)});
    let key = json!({"build_name": sample.build.as_str(), "public_key_pem": key});
    Served::fixed(&[("GET /manifest", 200, manifest), ("GET /publickey", 200, key)])
}

fn verify(bytes: &[u8], key: &str) -> Run {
    let place = Place::new();
    fs::write(place.path("m.sig.tbz"), bytes).unwrap();
    place.write("key.pem", key);
    place.run(&["verify", "m.sig.tbz", "--key", "key.pem"])
}

#[test]
fn get_manifest_saves_and_verifies() {
    let sample = sample();
    let served = served(sample, &sample.key);
    let place = &served.place;
    let run = place.good(&["get-manifest", "--verify-manifest"]);
    assert!(run.stdout.ends_with("\nverify=OK\n"), "{run:?}");
    assert!(run.stdout.contains("passed: source\n"), "{run:?}");
    assert!(run.stdout.contains(&format!("commit: {}\n", sample.commit)), "{run:?}");
    assert!(run.stdout.contains("it came over the same connection"), "{run:?}");
    let (_, body) = served.requests().pop().unwrap();
    assert_eq!(body, json!({"BUILD_NAME": sample.build.as_str()}).to_string());

    let name = sample.build.manifest_name().to_string();
    assert_eq!(fs::read(place.path(&format!("{name}.sig.tbz"))).unwrap(), sample.bytes);
    // The original's recipe, by OpenSSL: the digest is the message.
    let digest =
        place.openssl(&["dgst", "-sha256", "-binary", "-out", "d", &format!("{name}.tbz")]);
    assert_eq!(digest, "");
    let hex = place.read(&format!("{name}.sig"));
    let raw = hex::decode(&hex).unwrap();
    fs::write(place.path("s"), raw).unwrap();
    let key = sample.build.public_key_file();
    let verified = place.openssl(&["dgst", "-sha256", "-verify", &key, "-signature", "s", "d"]);
    assert_eq!(verified, "Verified OK\n");

    // Again: the files are the same, so nothing is in the way.
    place.good(&["get-manifest", "--verify-manifest"]);
    let run = place.run(&["verify", &format!("{name}.sig.tbz"), "--key", &key]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
}

#[test]
fn r9_verify_test_shows_that_a_changed_copy_is_refused() {
    let sample = sample();
    let served = served(sample, &sample.key);
    let place = &served.place;
    let run = place.good(&["get-manifest", "--verify-manifest", "--verify-test"]);
    assert!(run.stderr.contains("a changed copy of the manifest was refused"), "{run:?}");
    // What was downloaded stays as it is, unlike with the original.
    let name = sample.build.manifest_name();
    assert_eq!(fs::read(place.path(&format!("{name}.sig.tbz"))).unwrap(), sample.bytes);
    place.write("key.pem", &sample.key);
    let run = place.run(&["verify", &format!("{name}.tbz"), "--key", "key.pem"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(place.sbs(&["get-manifest", "--verify-test"]).code, 2);
}

#[test]
fn get_manifest_holds_against_a_key_from_elsewhere() {
    let sample = sample();
    let served = served(sample, &sample.key);
    let place = &served.place;
    place.write("good.pem", &sample.key);
    place.write("bad.pem", &sample.other_key);
    let run = place.good(&["get-manifest", "--manifest-key", "good.pem"]);
    assert!(!run.stdout.contains("same connection"), "{run:?}");
    // A server that speaks v1 alone is asked for its manifest there.
    assert_eq!(served.asked(), ["GET /v2/info", "GET /manifest"]);
    let run = place.sbs(&["get-manifest", "--manifest-key", "bad.pem"]);
    assert_eq!((run.code, run.stdout.as_str()), (4, ""), "{run:?}");
    assert!(run.stderr.contains("was not signed, as it is, with the key"), "{run:?}");
}

#[test]
fn r9_a_manifest_that_does_not_hold_is_exit_4() {
    let sample = sample();
    let run = served(sample, &sample.other_key).place.sbs(&["get-manifest", "--verify-manifest"]);
    assert_eq!(run.code, 4, "{run:?}");
    let run = served(sample, "no key").place.sbs(&["get-manifest", "--verify-manifest"]);
    assert_eq!(run.code, 4, "{run:?}");

    assert_eq!(verify(&sample.bytes, &sample.key).code, 0);
    let (half, _) = sample.bytes.split_at(sample.bytes.len() / 2);
    for (bytes, key) in [
        (&sample.bytes[..], &sample.other_key),
        (half, &sample.key),
        (b"", &sample.key),
        (b"BZh91AY&SY", &sample.key),
        (b"not a manifest", &sample.key),
        (&[&sample.bytes[..], b"x"].concat(), &sample.key),
    ] {
        let run = verify(bytes, key);
        assert_eq!((run.code, run.stdout.as_str()), (4, ""), "{run:?}");
        assert!(run.stderr.starts_with("error: "), "{run:?}");
    }
}

#[test]
fn r9_a_signed_manifest_that_contradicts_itself_is_exit_4() {
    let forged = make(b"FROM other  \n");
    let run = verify(&forged.bytes, &forged.key);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stdout.contains("passed: signature\n"), "{run:?}");
    assert!(run.stdout.contains("FAILED: source: "), "{run:?}");
    assert!(run.stdout.ends_with("verify=failed\n"), "{run:?}");
    // What the record says is not repeated: it does not hold.
    assert!(!run.stdout.contains("r.example/app"), "{run:?}");
}

#[test]
fn verify_prints_every_check_as_json() {
    let sample = sample();
    let place = Place::new();
    fs::write(place.path("m.sig.tbz"), &sample.bytes).unwrap();
    place.write("key.pem", &sample.key);
    let run = place.run(&["--format", "json", "verify", "m.sig.tbz", "--key", "key.pem"]);
    let json = run.json();
    assert_eq!(json["verified"], true);
    assert_eq!(json["key_source"], "file");
    assert_eq!([&json["checks"][0]["name"], &json["checks"][0]["outcome"]], ["envelope", "passed"]);
    assert_eq!((&json["schema"], &json["form"]), (&1.into(), &"full".into()));
    assert!(json["proved"].to_string().contains("all of them and no others"), "{json}");
    assert_eq!(json["facts"]["commit"], sample.commit.as_str());
    assert!(run.stderr.contains("the file was named manifest."), "{run:?}");
}

#[test]
fn verify_explains_every_check() {
    let sample = sample();
    let place = Place::new();
    fs::write(place.path("m.sig.tbz"), &sample.bytes).unwrap();
    place.write("key.pem", &sample.key);
    let run = place.good(&["verify", "m.sig.tbz", "--key", "key.pem", "--explain"]);
    assert!(
        run.stdout.contains("    The given key signed the archive, every byte of it."),
        "{run:?}"
    );
    let lines = |begin: &str| run.stdout.lines().filter(|line| line.starts_with(begin)).count();
    assert_eq!((lines("passed: "), lines("    compared: ")), (11, 11), "{run:?}");
    assert!(lines("proved: ") > 0 && lines("not proved: ") > 0, "{run:?}");
}

/// The two files that the original's client leaves on the disk.
#[test]
fn verify_takes_an_archive_with_its_signature_beside_it() {
    let sample = sample();
    let served = served(sample, &sample.key);
    let place = &served.place;
    place.good(&["get-manifest", "--verify-manifest"]);
    let name = sample.build.manifest_name().to_string();
    let (archive, signature) = (format!("{name}.tbz"), format!("{name}.sig"));
    let key = sample.build.public_key_file();
    let run = place.run(&["verify", &archive, "--key", &key]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
    assert!(run.stdout.contains(&format!("manifest: {name}\n")), "{run:?}");

    place.write("other.pem", &sample.other_key);
    let run = place.run(&["verify", &archive, "--key", "other.pem"]);
    assert_eq!((run.code, run.stdout.as_str()), (4, ""), "{run:?}");
    fs::write(place.path(&signature), "00").unwrap();
    let run = place.run(&["verify", &archive, "--key", &key]);
    assert_eq!((run.code, run.stdout.as_str()), (4, ""), "{run:?}");
    fs::remove_file(place.path(&signature)).unwrap();
    let run = place.run(&["verify", &archive, "--key", &key]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
    assert!(run.stderr.contains("hint: a manifest without its signature inside"), "{run:?}");
}

/// A server that speaks v2 and has one build, number 7.
fn served_v2(sample: &'static Sample) -> Served {
    let stored = |bytes: &[u8]| json!({"digest": sbs_crypto::digest(bytes).to_string(), "size": bytes.len()});
    let build = json!({
        "id": "00000007", "phase": "succeeded", "status": "success",
        "build_name": sample.build.as_str(), "manifest": stored(&sample.bytes),
        "thin_manifest": stored(&sample.thin),
    });
    let info = json!({
        "api": 2, "server_version": "9",
        "limits": {"page_builds": 1, "request_body_bytes": 1, "v1_manifest_bytes": 1},
    });
    let key = json!({"build_name": sample.build.as_str(), "public_key_pem": sample.key});
    let file = |bytes: &[u8]| {
        let digest = sbs_crypto::digest(bytes);
        let (tag, digest) = (digest.to_hex(), STANDARD.encode(digest.as_bytes()));
        let head = format!("ETag: \"{tag}\"\r\nRepr-Digest: sha-256=:{digest}:\r\n");
        Reply { status: 200, head, body: bytes.to_vec() }
    };
    Served::start_raw(move |line, _| match line {
        "GET /v2/info" => Reply::json(200, &info),
        "GET /v2/images/default/builds/latest" | "GET /v2/images/default/builds/7" => {
            Reply::json(200, &build)
        }
        "GET /v2/images/default/builds/00000007/manifest" => file(&sample.bytes),
        "GET /v2/images/default/builds/00000007/thin-manifest" => file(&sample.thin),
        "GET /publickey" => Reply::json(200, &key),
        _ => Reply::json(404, &json!({"status": "not here", "code": "not_found"})),
    })
}

#[test]
fn get_manifest_verifies_a_thin_manifest_and_saves_its_parts() {
    let sample = sample();
    let served = served_v2(sample);
    let place = &served.place;
    let run = place.good(&["get-manifest", "--thin", "--verify-manifest"]);
    assert!(run.stdout.ends_with("\nverify=OK\n"), "{run:?}");
    assert!(run.stdout.contains("passed: dockerfile\n"), "{run:?}");
    let name = sample.build.manifest_name().to_string();
    let (whole, archive) = (format!("{name}.thin.sig.tar.zst"), format!("{name}.thin.tar.zst"));
    assert_eq!(fs::read(place.path(&whole)).unwrap(), sample.thin);
    let hex = place.read(&format!("{name}.thin.sig"));
    fs::write(place.path("s"), hex::decode(hex).unwrap()).unwrap();
    place.openssl(&["dgst", "-sha256", "-binary", "-out", "d", &archive]);
    let key = sample.build.public_key_file();
    let verified = place.openssl(&["dgst", "-sha256", "-verify", &key, "-signature", "s", "d"]);
    assert_eq!(verified, "Verified OK\n");
    place.write("other.pem", &sample.other_key);
    let run = place.sbs(&["get-manifest", "--thin", "--manifest-key", "other.pem"]);
    assert_eq!(run.code, 4, "{run:?}");
}

#[test]
fn get_manifest_takes_a_build_by_its_number() {
    let sample = sample();
    let served = served_v2(sample);
    let run = served.place.good(&["get-manifest", "--build-id", "7", "--verify-manifest"]);
    assert!(run.stdout.ends_with("\nverify=OK\n"), "{run:?}");
    assert_eq!(served.place.sbs(&["get-manifest", "--build-id", "8"]).code, 1);
    let both = ["get-manifest", "--build-id", "7", "--build-name", "b.1"];
    assert_eq!(served.place.sbs(&both).code, 2);
    assert_eq!(served.place.sbs(&["get-manifest", "--build-id", "../7"]).code, 2);
}

#[test]
fn verify_holds_a_thin_manifest_against_the_full_one() {
    let key = ManifestSigningKey::generate().unwrap();
    let [sample, other] = ["0.1.0", "0.1.1"].map(|version| make_as(DOCKERFILE, &key, version));
    let place = Place::new();
    fs::write(place.path("m.sig.tbz"), &sample.bytes).unwrap();
    fs::write(place.path("m.thin.sig.tar.zst"), &sample.thin).unwrap();
    fs::write(place.path("other.thin.sig.tar.zst"), &other.thin).unwrap();
    place.write("key.pem", &sample.key);
    let verify = |full: &str, thin: &str| {
        place.run(&["-q", "verify", full, "--thin", thin, "--key", "key.pem"])
    };
    let run = verify("m.sig.tbz", "m.thin.sig.tar.zst");
    assert_eq!((run.code, run.stdout.matches("verify=OK").count()), (0, 2), "{run:?}");
    assert!(run.stdout.contains("passed: match\n"), "{run:?}");
    let run = verify("m.sig.tbz", "other.thin.sig.tar.zst");
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stdout.contains("FAILED: match"), "{run:?}");
    for (full, thin) in
        [("m.thin.sig.tar.zst", "m.sig.tbz"), ("m.sig.tbz", "m.sig.tbz"), ("m.sig.tbz", "missing")]
    {
        assert_eq!(verify(full, thin).code, 2, "{full} {thin}");
    }
}

#[test]
fn a_file_that_is_not_there_is_exit_2() {
    let place = Place::new();
    place.write("key.pem", &sample().key);
    place.write("m", "x");
    for arguments in [
        ["verify", "missing", "--key", "key.pem"],
        ["verify", "m", "--key", "missing"],
        ["verify", "m", "--key", "m"],
    ] {
        let run = place.run(&arguments);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
    }
}

#[test]
fn c1_names_that_the_server_chose_stay_in_the_directory() {
    for name in ["../../.ssh/authorized_keys", "/etc/passwd", ".bashrc", "manifest.a/b", ""] {
        let manifest = json!({"manifest_name": name, "encoded_manifest": "QlpoOTFB"});
        let key = json!({"build_name": name, "public_key_pem": sample().key});
        let served =
            Served::fixed(&[("GET /manifest", 200, manifest), ("GET /publickey", 200, key)]);
        for command in ["get-manifest", "get-publickey"] {
            let run = served.place.sbs(&[command]);
            assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{name}: {run:?}");
        }
        assert_eq!(served.place.names(), [".container-u-1", ".container-u-1.d", "env.json"]);
    }
}

#[test]
fn c1_a_file_with_the_same_name_is_not_overwritten() {
    let sample = sample();
    let served = served(sample, &sample.key);
    let place = &served.place;
    let manifest = format!("{}.sig.tbz", sample.build.manifest_name());
    let key = sample.build.public_key_file();
    for (command, name) in [("get-manifest", &manifest), ("get-publickey", &key)] {
        place.write(name, "precious");
        let run = place.sbs(&[command]);
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains("is there already with another content"), "{run:?}");
        assert_eq!(place.read(name), "precious");
        fs::remove_file(place.path(name)).unwrap();
        assert_eq!(place.good(&[command]).stdout, format!("{name}\n"));
        place.good(&[command]);
    }
    assert_eq!(place.read(&key), sample.key);
}

#[test]
fn another_build_than_the_one_asked_for_is_refused() {
    let sample = sample();
    let served = served(sample, &sample.key);
    let good = sample.build.as_str();
    for command in ["get-manifest", "get-publickey"] {
        assert_eq!(served.place.sbs(&[command, "--build-name", "other.1"]).code, 1);
        assert_eq!(served.place.sbs(&[command, "--build-name", good]).code, 0);
    }
}
