//! Manifests over v2: by our command line and by curl, over connections that are cut, and by many
//! who read slowly.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::{digest, random_bytes};
use sbs_tests::{CuttingProxy, Outcome, TlsStream, World, outcome, program};
use serde_json::{Value, json};

const BUILDS: &str = "/v2/images/default/builds";

/// A world whose server has one build, with a manifest of this many MiB that says nothing: what is
/// in it does not matter for how it is sent.
struct Stored {
    world: World,
    bytes: Vec<u8>,
    directory: PathBuf,
    file: PathBuf,
}

impl Stored {
    fn new(mib: usize) -> Result<Self> {
        let mut world = World::start()?;
        world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
        world.init_and_build()?;
        let file = stored_manifest(&world)?;
        let bytes: Vec<u8> =
            std::iter::repeat_with(random_bytes::<4096>).take(mib * 256).flatten().collect();
        world.server.terminate()?;
        fs::write(&file, &bytes)?;
        let directory = file.parent().context("a build's directory")?.to_owned();
        edit_journal(&directory, |journal| {
            journal["manifest"] = json!({ "digest": digest(&bytes), "size": bytes.len() });
        })?;
        world.start_server_again()?;
        Ok(Self { world, bytes, directory, file })
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }

    fn tag(&self) -> String {
        format!("\"{}\"", digest(&self.bytes).to_hex())
    }

    /// Where the command line saves the manifest.
    fn target(&self) -> Result<PathBuf> {
        let name = self.file.file_name().context("a name")?;
        Ok(self.world.sbs.directory().join(name))
    }
}

fn stored_manifest(world: &World) -> Result<PathBuf> {
    let builds = world.server.data_directory().join("definitions/default/builds/00000001");
    for entry in fs::read_dir(builds)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".sig.tbz") {
            return Ok(path);
        }
    }
    anyhow::bail!("there is no manifest")
}

fn edit_journal(directory: &Path, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let path = directory.join("journal.json");
    let mut journal: Value = serde_json::from_slice(&fs::read(&path)?)?;
    edit(&mut journal);
    Ok(fs::write(&path, serde_json::to_vec(&journal)?)?)
}

/// Runs curl against the server, with the client certificate.
fn curl(world: &World, path: &str, arguments: &[&str]) -> Result<Outcome> {
    curl_at(world, world.server.port(), path, arguments)
}

fn curl_at(world: &World, port: u16, path: &str, arguments: &[&str]) -> Result<Outcome> {
    let directory = world.sbs.directory();
    fs::write(directory.join("curl-ca.pem"), world.sbs.certificate_file("client-ca.pem")?)?;
    fs::write(directory.join("curl-client.pem"), world.sbs.identity()?)?;
    let mut curl = program("curl");
    curl.current_dir(directory)
        .args(["--silent", "--show-error", "--cacert", "curl-ca.pem", "--cert", "curl-client.pem"])
        .args(arguments)
        .arg(format!("https://localhost:{port}{path}"));
    outcome(&mut curl)
}

/// Asks by curl; returns the status, the fields of the head in lower case, and the body.
fn ask(world: &World, path: &str, arguments: &[&str]) -> Result<(u16, String, Vec<u8>)> {
    let directory = world.sbs.directory();
    let (head, body) = (directory.join("head"), directory.join("body"));
    for path in [&head, &body] {
        fs::write(path, "")?;
    }
    let fixed = ["--dump-header", "head", "--output", "body"];
    let told = curl(world, path, &[&fixed, arguments].concat())?;
    ensure!(told.code == 0, "curl {path}: {}", told.text());
    let head = fs::read_to_string(head)?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    let fields = head.lines().map(|line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        format!("{}:{}\n", name.to_lowercase(), value.trim())
    });
    Ok((status, fields.collect(), fs::read(body)?))
}

#[test]
fn what_the_server_tells_of_builds() -> Result<()> {
    let mut world = World::start()?;
    let (status, _, info) = ask(&world, "/v2/info", &[])?;
    let info: Value = serde_json::from_slice(&info)?;
    assert_eq!((status, &info["api"]), (200, &json!(2)));
    assert_eq!(info["limits"]["v1_manifest_bytes"], 512 << 20);
    let (_, _, none) = ask(&world, BUILDS, &[])?;
    assert_eq!(serde_json::from_slice::<Value>(&none)?, json!({ "builds": [] }));
    assert_eq!(ask(&world, &format!("{BUILDS}/latest/manifest"), &[])?.0, 404);

    let mut repository =
        world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    let first = world.init_and_build()?;
    repository.commit_files(&[("Dockerfile", &world.dockerfile("RUN false"))])?;
    world.api()?.build_failing()?;
    repository.commit_files(&[("Dockerfile", &world.dockerfile("LABEL a=c"))])?;
    let last = world.api()?.build()?;
    world.api()?.build()?;

    let page = |query: &str| -> Result<(Vec<String>, Value)> {
        let (status, _, page) = ask(&world, &format!("{BUILDS}{query}"), &[])?;
        ensure!(status == 200, "{query}: {status}");
        let page: Value = serde_json::from_slice(&page)?;
        let builds = page["builds"].as_array().context("builds")?;
        let ids = builds.iter().map(|build| build["id"].as_str().unwrap_or_default().to_owned());
        Ok((ids.collect(), page["next"].clone()))
    };
    let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(page("")?, (ids(&["00000004", "00000003", "00000002", "00000001"]), json!(null)));
    assert_eq!(page("?limit=2")?, (ids(&["00000004", "00000003"]), json!("00000003")));
    assert_eq!(page("?limit=2&before=00000003")?, (ids(&["00000002", "00000001"]), json!(null)));

    // One build by its number, its name and as the latest.
    let build = |id: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&ask(&world, &format!("{BUILDS}/{id}"), &[])?.2)?)
    };
    let one = build("00000001")?;
    assert_eq!(
        (&one["build_name"], &one["phase"]),
        (&json!(first.build_name), &json!("succeeded"))
    );
    let stored = fs::read(stored_manifest(&world)?)?;
    assert_eq!(one["manifest"], json!({ "digest": digest(&stored), "size": stored.len() }));
    assert_eq!(build(&first.build_name)?, one);
    assert_eq!(build("1")?, one);
    let failed = build("2")?;
    assert_eq!((&failed["phase"], &failed["manifest"]), (&json!("failed"), &Value::Null));
    assert_eq!(failed["failure"], "build_failed");
    let newest = build("latest")?;
    assert_eq!(newest["id"], "00000004");
    assert_eq!(newest["image"], world.api()?.image_digest()?);
    assert_eq!(newest["image_tag"], last.image_tag);

    // What is not there.
    for path in [
        "/v2/images/other/builds",
        "/v2/images/UPPER/builds",
        "/v2/images/default/builds/9",
        "/v2/images/default/builds/no.such.build",
        "/v2/images/default/builds/..%2f..%2fjournal",
        "/v2/images/default/builds/00000002/manifest",
        "/v2/images/default/builds/00000002/key",
        "/v2/images/default/builds/00000002/thin-manifest",
        "/v2/images/default/builds/00000001/other",
    ] {
        let (status, head, body) = ask(&world, path, &["--path-as-is"])?;
        let body: Value = serde_json::from_slice(&body)?;
        assert_eq!((status, &body["code"]), (404, &json!("not_found")), "{path}");
        assert!(body["status"].is_string() && head.contains("content-type:application/json"));
    }
    for query in ["?limit=0", "?limit=101", "?before=x", "?x=1", "?limit=1&limit=1"] {
        assert_eq!(ask(&world, &format!("{BUILDS}{query}"), &[])?.0, 400, "{query}");
    }
    assert_eq!(ask(&world, BUILDS, &["--request", "POST"])?.0, 405);
    // Nobody without a certificate.
    let told = outcome(program("curl").args([
        "--silent",
        "--insecure",
        &format!("https://localhost:{}/v2/info", world.server.port()),
    ]))?;
    assert_ne!(told.code, 0, "{}", told.text());

    // The command line tells the same.
    let table = world.sbs.ok(&["list"])?;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[1].starts_with("00000004  20") && lines[1].contains(&last.image_tag), "{table}");
    assert!(lines[3].contains("failed (build_failed)"), "{table}");
    let listed: Value =
        serde_json::from_str(&world.sbs.ok(&["--format", "json", "list", "--limit", "1"])?)?;
    assert_eq!(listed["builds"], json!([newest]));

    // The thin manifest, key and log.
    let (status, head, thin) = ask(&world, &format!("{BUILDS}/latest/thin-manifest"), &[])?;
    assert_eq!((status, &newest["thin_manifest"]["digest"]), (200, &json!(digest(&thin))));
    assert!(head.contains("content-type:application/zstd"), "{head}");
    assert!(head.contains(".thin.sig.tar.zst\""), "{head}");
    let (_, head, key) = ask(&world, &format!("{BUILDS}/latest/key"), &[])?;
    assert_eq!(String::from_utf8(key)?, world.api()?.public_key()?);
    assert!(head.contains("-public.pem\"") && head.contains("repr-digest:sha-256=:"), "{head}");
    let (_, head, log) = ask(&world, &format!("{BUILDS}/4/log"), &[])?;
    assert_eq!(String::from_utf8(log.clone())?, world.api()?.log()?);
    assert!(head.contains("content-type:text/plain; charset=utf-8"), "{head}");
    let (status, _, part) = ask(&world, &format!("{BUILDS}/4/log"), &["--range", "10-19"])?;
    assert_eq!((status, Some(&*part)), (206, log.get(10..20)));

    // A server of before v2 has written no digests: they are made when it starts.
    let tag = |head: &str| head.lines().find(|line| line.starts_with("etag:")).map(str::to_owned);
    let (_, before, _) = ask(&world, &format!("{BUILDS}/1/manifest"), &["--head"])?;
    world.server.terminate()?;
    let directory = stored_manifest(&world)?.parent().context("a directory")?.to_owned();
    edit_journal(&directory, |journal| {
        let journal = journal.as_object_mut().expect("a journal is an object");
        assert!(journal.remove("manifest").is_some());
    })?;
    world.start_server_again()?;
    let (_, after, _) = ask(&world, &format!("{BUILDS}/1/manifest"), &["--head"])?;
    assert_eq!(tag(&before), tag(&after));
    assert!(tag(&before).is_some(), "{before}");
    Ok(())
}

#[test]
fn curl_gets_what_rfc_9110_says() -> Result<()> {
    let stored = Stored::new(3)?;
    let (world, size, tag) = (&stored.world, stored.size(), stored.tag());
    let path = format!("{BUILDS}/latest/manifest");
    for version in ["--http1.1", "--http2"] {
        let (status, head, body) = ask(world, &path, &[version])?;
        assert_eq!((status, body == stored.bytes), (200, true), "{version}");
        let name = stored.file.file_name().context("a name")?.to_string_lossy();
        let raw = digest(&stored.bytes);
        for field in [
            "accept-ranges:bytes\n".to_owned(),
            format!("content-length:{size}\n"),
            format!("content-disposition:attachment; filename=\"{name}\"\n"),
            format!("etag:{tag}\n"),
            format!("repr-digest:sha-256=:{}:\n", STANDARD.encode(raw.as_bytes())),
        ] {
            assert!(head.contains(&field), "{field} in {head}");
        }
        let (status, of_head, _) = ask(world, &path, &[version, "--head"])?;
        assert_eq!(status, 200);
        assert!(of_head.contains(&format!("content-length:{size}\n")), "{of_head}");

        let beyond = format!("{size}-");
        for (range, first, end) in [
            ("0-0", 0, 1),
            ("1000000-1999999", 1_000_000, 2_000_000),
            ("3000000-", 3_000_000, size),
            ("-5", size - 5, size),
            ("3000000-99999999999", 3_000_000, size),
        ] {
            let (status, head, body) = ask(world, &path, &[version, "--range", range])?;
            assert_eq!((status, Some(&*body)), (206, stored.bytes.get(first..end)), "{range}");
            let field = format!("content-range:bytes {first}-{}/{size}\n", end - 1);
            assert!(head.contains(&field), "{field} in {head}");
        }
        let (status, head, _) = ask(world, &path, &[version, "--range", &beyond])?;
        assert!(
            status == 416 && head.contains(&format!("content-range:bytes */{size}\n")),
            "{head}"
        );
        let (status, _, body) = ask(world, &path, &[version, "--range", "0-1,5-6"])?;
        assert_eq!((status, body == stored.bytes), (200, true));

        let header = |name: &str, value: &str| format!("{name}: {value}");
        for (name, value, range, expected) in [
            ("If-Range", &*tag, "0-9", 206),
            ("If-Range", "\"other\"", "0-9", 200),
            ("If-None-Match", &tag, "0-9", 304),
            ("If-None-Match", "\"other\"", "0-9", 206),
            ("If-Match", &tag, "0-9", 206),
            ("If-Match", "\"other\"", "0-9", 412),
        ] {
            let field = header(name, value);
            let (status, _, body) =
                ask(world, &path, &[version, "--range", range, "--header", &field])?;
            assert_eq!(status, expected, "{field}");
            assert_eq!(body.is_empty(), expected == 304, "{field}");
        }
    }

    // curl goes on where it was cut.
    let proxy = CuttingProxy::start(world.server.port(), 1 << 20, 2)?;
    let resumed = world.sbs.directory().join("resumed");
    let mut codes = Vec::new();
    while codes.last() != Some(&0) && codes.len() < 5 {
        let arguments = ["--continue-at", "-", "--output", "resumed"];
        codes.push(curl_at(world, proxy.port(), &path, &arguments)?.code);
    }
    assert_eq!((codes.len(), proxy.cuts()), (3, 2), "{codes:?}");
    assert_eq!(fs::read(resumed)?, stored.bytes);
    Ok(())
}

#[test]
fn get_manifest_goes_on_after_every_cut_and_across_runs() -> Result<()> {
    let stored = Stored::new(8)?;
    let world = &stored.world;
    let target = stored.target()?;
    // Five cuts in one run.
    let proxy = CuttingProxy::start(world.server.port(), 1_500_000, 5)?;
    world.sbs.set("CICD_PORT", proxy.port().to_string())?;
    let told = world.sbs.run(&["get-manifest"])?;
    assert_eq!((told.code, proxy.cuts()), (0, 5), "{}", told.text());
    assert_eq!(told.stderr.matches("cut after").count(), 5, "{}", told.stderr);
    assert!(fs::read(&target)? == stored.bytes);
    // What is there and is right is not fetched again.
    world.sbs.ok(&["get-manifest"])?;
    assert_eq!(parts(world)?, Vec::<PathBuf>::new());

    // What another run left: the first half, then two halves of which one is of something else.
    let (half, _) = stored.bytes.split_at(stored.size() / 2);
    let digits: String = digest(&stored.bytes).to_hex().chars().take(12).collect();
    let part = PathBuf::from(format!("{}.{digits}.part", target.display()));
    world.sbs.set("CICD_PORT", world.server.port().to_string())?;
    fs::remove_file(&target)?;
    fs::write(&part, half)?;
    let told = world.sbs.run(&["get-manifest"])?;
    assert!(told.code == 0 && told.stderr.contains("going on at 4194304 of"), "{}", told.text());
    assert!(fs::read(&target)? == stored.bytes);
    fs::remove_file(&target)?;
    fs::write(&part, vec![7; 1000])?;
    let told = world.sbs.run(&["get-manifest"])?;
    assert_eq!(told.code, 4, "{}", told.text());
    assert!(!target.exists() && !part.exists());
    world.sbs.ok(&["get-manifest"])?;
    assert!(fs::read(&target)? == stored.bytes);

    // Another content in its place is not overwritten, nor what a link leads to.
    fs::write(&target, "precious")?;
    let told = world.sbs.run(&["get-manifest"])?;
    assert!(told.code == 2 && told.stderr.contains("another content"), "{}", told.text());
    assert_eq!(fs::read(&target)?, b"precious");
    let precious = world.sbs.directory().join("precious");
    fs::rename(&target, &precious)?;
    std::os::unix::fs::symlink(&precious, &part)?;
    assert_eq!(world.sbs.run(&["get-manifest"])?.code, 2);
    assert_eq!(fs::read(&precious)?, b"precious");
    Ok(())
}

fn parts(world: &World) -> Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(world.sbs.directory())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            parts.push(path);
        }
    }
    Ok(parts)
}

#[test]
fn a_large_manifest_needs_little_memory_and_v1_says_where_it_is() -> Result<()> {
    let stored = Stored::new(160)?;
    let world = &stored.world;
    // RLIMIT_DATA: what the program may have of memory of its own.
    let limited = |arguments: &[&str]| -> Result<Outcome> {
        let sbs = sbs_tests::built("sbs")?;
        let mut command = program("prlimit");
        command.arg("--data=67108864").arg("--").arg(sbs).args(["--env", "sbs-config.json"]);
        outcome(command.args(arguments).current_dir(world.sbs.directory()))
    };
    let told = limited(&["get-manifest"])?;
    assert_eq!(told.code, 0, "{}", told.text());
    assert!(fs::read(stored.target()?)? == stored.bytes);
    // Over v1 the same bytes come whole, to whoever holds them.
    let (name, bytes) = world.api()?.manifest()?;
    assert!(stored.target()?.ends_with(format!("{name}.sig.tbz")) && bytes == stored.bytes);

    // A manifest above the limit of v1: holes, no bytes.
    let size = (512_u64 << 20) + 1;
    fs::OpenOptions::new().write(true).open(&stored.file)?.set_len(size)?;
    let reply = world.api()?.call("GET", "/manifest")?;
    let text = reply.json()?["status"].as_str().unwrap_or_default().to_owned();
    assert_eq!((reply.status, &reply.json()?["code"]), (413, &json!("too_large")));
    assert!(text.contains("/v2/images/default/builds/00000001/manifest"), "{text}");
    assert!(text.contains("sbs get-manifest"), "{text}");
    // And v2 does not send what is not what was stored.
    let (status, _, _) = ask(world, &format!("{BUILDS}/1/manifest"), &[])?;
    assert_eq!(status, 500);
    Ok(())
}

#[test]
fn a_build_that_is_removed_is_still_sent_to_its_end() -> Result<()> {
    let stored = Stored::new(16)?;
    let mut reader = SlowReader::begin(&stored.world)?;
    // What retention does.
    fs::remove_dir_all(&stored.directory)?;
    assert_eq!(ask(&stored.world, &format!("{BUILDS}/1/manifest"), &[])?.0, 404);
    let mut received = std::mem::take(&mut reader.body);
    reader.stream.read_to_end(&mut received)?;
    assert!(received == stored.bytes, "{} bytes", received.len());
    Ok(())
}

#[test]
fn two_hundred_slow_readers_cost_little() -> Result<()> {
    let stored = Stored::new(32)?;
    let world = &stored.world;
    let before = world.server.memory("VmRSS")?;
    let mut readers = Vec::new();
    for _ in 0..200 {
        readers.push(SlowReader::begin(world)?);
    }
    let each = world.server.memory("VmRSS")?.saturating_sub(before) / 200;
    assert!(each < 1 << 20, "{each} bytes each");
    // Others are not held up, and who reads slowly gets everything.
    assert_eq!(ask(world, "/v2/info", &[])?.0, 200);
    let reader = readers.last_mut().context("a reader")?;
    let mut received = std::mem::take(&mut reader.body);
    reader.stream.read_to_end(&mut received)?;
    assert!(received == stored.bytes, "{} bytes", received.len());
    Ok(())
}

/// Somebody who has asked for a manifest, has read the head of the answer, and reads no further.
struct SlowReader {
    body: Vec<u8>,
    stream: TlsStream,
}

impl SlowReader {
    fn begin(world: &World) -> Result<Self> {
        let mut stream = world.connect()?;
        write!(
            stream,
            "GET {BUILDS}/latest/manifest HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut received = Vec::new();
        let end = loop {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece)?;
            ensure!(count > 0, "the answer ends in its head");
            received.extend_from_slice(piece.get(..count).context("a piece")?);
            if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
        };
        ensure!(received.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&received));
        let body = received.split_off(end + 4);
        Ok(Self { body, stream })
    }
}
