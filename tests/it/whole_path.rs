//! From a repository to a signed image and a manifest, judged by programs that are not ours.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sbs_crypto::digest;
use sbs_tests::{Submodule, World, judge, output, program, push_base_image};
use serde_json::{Value, json};

#[test]
fn a_repository_over_ssh_becomes_a_signed_image_and_a_manifest() -> Result<()> {
    let world = World::start()?;
    let base = &world.parts.base;
    let dockerfile = format!(
        "FROM {base} AS build\n\
         ARG GREETING\n\
         COPY . /source\n\
         RUN echo \"$GREETING\" > /greeting && cd /source && find . | grep -c ignored > /ignored || true\n\
         FROM {base}\n\
         COPY --from=build /greeting /ignored /app/\n\
         CMD [\"/bin/cat\", \"/app/greeting\"]\n"
    );
    let mut repository = world.parts.ssh.repository("app")?;
    let files = [
        ("Dockerfile", &*dockerfile),
        (".dockerignore", "ignored*\n"),
        ("ignored.txt", "not in the context\n"),
        ("src/run.sh", "#!/bin/sh\n"),
    ];
    for (path, content) in files {
        repository.write(path, content)?;
    }
    repository.make_executable("src/run.sh")?;
    symlink("src/run.sh", repository.tree().join("link"))?;
    let commit = repository.commit()?;
    world.sbs.set("GITHUB_URL", world.parts.ssh.url(&repository))?;
    world.sbs.set("ARG", json!({ "GREETING": "good day, you" }))?;

    world.sbs.ok(&["init"])?;
    let followed = world.sbs.run(&["build", "--follow"])?;
    assert_eq!(followed.code, 0, "{}", followed.text());
    let tag = format!("v1-{}", short(&commit));
    let api = world.api()?;
    let status = api.status()?;
    assert_eq!((status.status.as_str(), &*status.image_tag), ("success", &*tag));
    assert_eq!(status.manifest_key_gen, "soft_crypto");

    // The image, as the registry serves it.
    let registry = &world.parts.registry;
    let root = world.parts.path().join("image");
    registry.unpack(World::REPOSITORY, &tag, &root)?;
    assert_eq!(fs::read_to_string(root.join("app/greeting"))?, "good day, you\n");
    assert_eq!(fs::read_to_string(root.join("app/ignored"))?, "0\n");
    assert!(!root.join("source").exists(), "the first stage is not in the image");

    // The manifest, as the command line saves it.
    world.sbs.ok(&["get-manifest", "--verify-manifest"])?;
    let file = world.sbs.file(".sig.tbz")?;
    let key = api.public_key()?;
    judge::openssl_manifest(&file, &key)?;
    let manifest = judge::python_manifest(&file)?;
    assert_eq!(manifest.name, format!("manifest.{}", status.build_name));
    let source = &manifest.record["source"];
    assert_eq!(source["commit"], *commit);
    assert_eq!(source["host_key"], *world.parts.ssh.fingerprint()?);
    assert_eq!(manifest.record["status"], "image pushed");
    let (base_digest, _) = registry.manifest("base/busybox", "1")?.context("the base image")?;
    assert_eq!(manifest.record["bases"][0]["digest"], *base_digest.to_string());
    assert_eq!(manifest.record["bases"][0]["reference"], **base);
    let mut expected: BTreeMap<String, (u32, String)> = files
        .iter()
        // A link is a file that holds where it points to.
        .chain(&[("link", "src/run.sh")])
        .map(|(path, content)| (format!("git/{path}"), (0o644, hex_digest(content))))
        .collect();
    expected.entry("git/src/run.sh".into()).and_modify(|(mode, _)| *mode = 0o755);
    let in_git = manifest.entries.iter().filter(|(path, _)| path.starts_with("git/"));
    let found: BTreeMap<_, _> = in_git
        .filter(|(_, entry)| entry.kind == "file")
        .map(|(path, entry)| (path.clone(), (entry.mode, entry.content.clone())))
        .collect();
    assert_eq!(found, expected);
    let (tree, proved) = judge::git_source(&file, &key)?;
    assert_eq!((&*proved, &source["tree"]), (&*commit, &json!(tree)));
    assert!(manifest.log.contains("starting a build"), "{}", manifest.log);

    // The digest and the signature, as others see them.
    let digest = judge::skopeo_digest(registry, World::REPOSITORY, &tag)?;
    assert_eq!(manifest.record["image"]["digest"], *digest.to_string());
    let reference = format!("{}/{}@{digest}", registry.host(), World::REPOSITORY);
    assert_eq!(api.image_digest()?, reference);
    assert_eq!(world.sbs.ok(&["get-digest"])?.trim(), reference);
    let image_key = manifest.image_key()?;
    assert_eq!(judge::openssl_image(registry, &tag, image_key)?, digest);

    no_secret_shows(&world, &manifest.log)
}

#[test]
fn a_changed_manifest_does_not_verify() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    world.init_and_build()?;
    world.sbs.ok(&["get-manifest"])?;
    world.sbs.ok(&["get-publickey"])?;
    let manifest = world.sbs.file(".sig.tbz")?;
    let key = world.sbs.file("-public.pem")?;
    let verify = |manifest: &Path, key: &Path| {
        let (manifest, key) = (manifest.to_string_lossy(), key.to_string_lossy());
        world.sbs.run(&["verify", &manifest, "--key", &key])
    };
    let good = verify(&manifest, &key)?;
    assert_eq!(good.code, 0, "{}", good.text());

    let other = World::start()?;
    other.with_repository(&[("Dockerfile", &other.dockerfile("LABEL a=b"))])?;
    other.init_and_build()?;
    other.sbs.ok(&["get-publickey"])?;
    let wrong_key = verify(&manifest, &other.sbs.file("-public.pem")?)?;
    assert_eq!(wrong_key.code, 4, "{}", wrong_key.text());

    let name = manifest.file_name().context("a file name")?;
    let changed = world.parts.path().join(name);
    judge_repack(&manifest, &changed)?;
    let told = verify(&changed, &key)?;
    assert_eq!(told.code, 4, "{}", told.text());

    // The judges see it, too: their word is worth something.
    let key = fs::read_to_string(&key)?;
    judge::openssl_manifest(&manifest, &key)?;
    assert_fails(&judge::openssl_manifest(&changed, &key));
    assert_fails(&judge::openssl_manifest(&manifest, &other.api()?.public_key()?));
    Ok(())
}

#[test]
fn the_judges_find_what_is_not_signed() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    let tag = world.init_and_build()?.image_tag;
    let registry = &world.parts.registry;
    let (_file, manifest) = download(&world)?;
    let key = manifest.image_key()?;
    assert_eq!(judge::every_tag_is_signed(registry, key)?, [&*tag]);
    // The manifest's key is another one than the image's.
    assert_fails(&judge::openssl_image(registry, &tag, &world.api()?.public_key()?));

    let copy = |from: &str, to: &str| {
        let mut skopeo = program("skopeo");
        skopeo.args(["copy", "--insecure-policy", "--authfile"]).arg(registry.authfile());
        for side in ["--src-cert-dir", "--dest-cert-dir"] {
            skopeo.arg(side).arg(registry.certificate_directory());
        }
        let url = |name: &str| format!("docker://{}/{name}", registry.host());
        output(skopeo.args([url(from), url(to)]))
    };
    // A signature holds for one name, not for the image under any name.
    copy(&format!("{}:{tag}", World::REPOSITORY), &format!("{}:other", World::REPOSITORY))?;
    assert_fails(&judge::every_tag_is_signed(registry, key));
    copy("base/busybox:1", &format!("{}:other", World::REPOSITORY))?;
    assert_fails(&judge::every_tag_is_signed(registry, key));
    Ok(())
}

#[test]
fn a_repository_over_https_with_a_password_and_a_base_without_one() -> Result<()> {
    let world = World::start()?;
    let open = world.parts.start_open_registry()?;
    let scratch = world.parts.path().join("open-base");
    fs::create_dir(&scratch)?;
    let base = push_base_image(&open, &scratch)?;
    let https = world.parts.start_https_git()?;
    let mut repository = https.repository("app")?;
    let dockerfile = format!("FROM {base}\nCOPY f /f\n");
    let commit = repository.commit_files(&[("Dockerfile", &dockerfile), ("f", "1")])?;
    world.sbs.set("GITHUB_URL", https.url_with_password(&repository))?;
    for key in ["GITHUB_KEY_FILE", "DOCKER_BASE_SERVER", "DOCKER_BASE_USER", "DOCKER_BASE_PASSWORD"]
    {
        world.sbs.set(key, Value::Null)?;
    }
    let status = world.init_and_build()?;
    assert_eq!(status.image_tag, format!("v1-{}", short(&commit)));
    let (file, manifest) = download(&world)?;
    judge::openssl_manifest(&file, &world.api()?.public_key()?)?;
    assert_eq!(manifest.record["source"]["url"], *https.url(&repository));
    judge::openssl_image(&world.parts.registry, &status.image_tag, manifest.image_key()?)?;
    no_secret_shows(&world, &manifest.log)
}

#[test]
fn a_branch_a_tag_and_a_commit_are_built() -> Result<()> {
    let world = World::start()?;
    let mut repository = world.parts.ssh.repository("app")?;
    let dockerfile = world.dockerfile("COPY f /f");
    let first = repository.commit_files(&[("Dockerfile", &dockerfile), ("f", "first")])?;
    repository.tag("v1.0")?;
    repository.switch("side/branch")?;
    let side = repository.commit_files(&[("f", "side")])?;
    repository.switch("main")?;
    let middle = repository.commit_files(&[("f", "middle")])?;
    let head = repository.commit_files(&[("f", "head")])?;
    world.sbs.set("GITHUB_URL", world.parts.ssh.url(&repository))?;
    world.sbs.ok(&["init"])?;
    for (reference, commit, content) in [
        (Value::Null, &head, "head"),
        (json!("side/branch"), &side, "side"),
        (json!("v1.0"), &first, "first"),
        (json!(middle), &middle, "middle"),
    ] {
        world.sbs.set("GITHUB_BRANCH", reference.clone())?;
        let status = world.update_and_build()?;
        let tag = format!("v1-{}", short(commit));
        assert_eq!(status.image_tag, tag, "{reference}");
        assert_eq!(file_of_image(&world, &tag, "f")?, content, "{reference}");
        let (_file, manifest) = download(&world)?;
        assert_eq!(manifest.record["source"]["commit"], **commit, "{reference}");
    }
    Ok(())
}

#[test]
fn submodules_are_there_when_asked_for() -> Result<()> {
    let world = World::start()?;
    let mut inner = world.parts.ssh.repository("inner")?;
    let inner_commit = inner.commit_files(&[("f", "from the submodule")])?;
    let mut repository = world.parts.ssh.repository("app")?;
    let url = world.parts.ssh.url(&inner);
    repository.write("Dockerfile", &world.dockerfile("COPY . /all"))?;
    repository.commit()?;
    repository.add_submodule(Submodule { path: "lib/inner", repository: &inner, url: &url })?;
    let commit = repository.commit()?;
    let tag = format!("v1-{}", short(&commit));
    world.sbs.set("GITHUB_URL", world.parts.ssh.url(&repository))?;

    world.sbs.set("GITHUB_RECURSE_SUBMODULES", "True")?;
    world.init_and_build()?;
    assert_eq!(file_of_image(&world, &tag, "all/lib/inner/f")?, "from the submodule");
    let (_file, manifest) = download(&world)?;
    assert_eq!(manifest.record["source"]["submodules"]["lib/inner"], *inner_commit);
    assert!(manifest.entries.contains_key("git/lib/inner/f"));

    world.sbs.set("GITHUB_RECURSE_SUBMODULES", "False")?;
    world.update_and_build()?;
    let absent = file_of_image(&world, &tag, "all/lib/inner/f");
    assert!(absent.is_err(), "the submodule is in the image: {absent:?}");
    let (_file, manifest) = download(&world)?;
    assert!(!manifest.entries.contains_key("git/lib/inner/f"));
    Ok(())
}

#[test]
fn the_four_cases_of_dockerfile_and_build_path() -> Result<()> {
    let world = World::start()?;
    let step = |name: &str| world.dockerfile(&format!("COPY which /which\nRUN echo {name} > /by"));
    world.with_repository(&[
        ("Dockerfile", &step("top")),
        ("docker/Other", &step("other")),
        // The Dockerfile is always relative to the top: this one is never the one.
        ("sub/Dockerfile", &step("sub")),
        ("which", "top"),
        ("sub/which", "sub"),
    ])?;
    world.sbs.ok(&["init"])?;
    for (dockerfile, context, expected) in [
        (Value::Null, Value::Null, ("top\n", "top")),
        (json!("docker/Other"), Value::Null, ("other\n", "top")),
        (Value::Null, json!("sub"), ("top\n", "sub")),
        (json!("docker/Other"), json!("sub"), ("other\n", "sub")),
    ] {
        world.sbs.set("DOCKERFILE_PATH", dockerfile.clone())?;
        world.sbs.set("DOCKER_BUILD_PATH", context.clone())?;
        let tag = world.update_and_build()?.image_tag;
        let found = (file_of_image(&world, &tag, "by")?, file_of_image(&world, &tag, "which")?);
        assert_eq!((&*found.0, &*found.1), expected, "{dockerfile} {context}");
    }
    Ok(())
}

#[test]
fn without_a_prefix_the_tag_is_seven_digits_of_the_commit() -> Result<()> {
    let world = World::start()?;
    let repository = world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    world.sbs.set("IMAGE_TAG_PREFIX", Value::Null)?;
    let tag = world.init_and_build()?.image_tag;
    assert_eq!(tag, short(&repository.head()?));
    assert_eq!(judge::image_tags(&world.parts.registry)?, [tag]);
    Ok(())
}

#[test]
fn the_same_commit_has_the_same_digest() -> Result<()> {
    let mut world = World::start()?;
    world.with_repository(&[
        ("Dockerfile", &world.dockerfile("COPY f /f\nRUN hostname > /h; id > /i; mkdir /d")),
        ("f", "1"),
    ])?;
    let tag = world.init_and_build()?.image_tag;
    let first = judge::skopeo_digest(&world.parts.registry, World::REPOSITORY, &tag)?;
    world.api()?.build()?;
    let second = judge::skopeo_digest(&world.parts.registry, World::REPOSITORY, &tag)?;
    assert_eq!(first, second);

    // Nor does it matter which server builds.
    world.server.terminate()?;
    let mut second_world = World::start_beside(world)?;
    let status = second_world.init_and_build()?;
    let third = judge::skopeo_digest(&second_world.parts.registry, World::REPOSITORY, &tag)?;
    assert_eq!((&*status.image_tag, third), (&*tag, first));
    second_world.server.terminate()
}

#[test]
fn a_step_is_in_the_servers_network_only_where_that_is_set() -> Result<()> {
    let ours = fs::read_link("/proc/self/ns/net")?.to_string_lossy().into_owned();
    for (network, is_ours) in [("none", false), ("host", true)] {
        let world = World::start_with(&format!("network = \"{network}\"\n"))?;
        let step = "RUN readlink /proc/self/ns/net; cut -d: -f1 /proc/net/dev | tail -n +3";
        world.with_repository(&[("Dockerfile", &world.dockerfile(step))])?;
        world.init_and_build()?;
        let log = world.api()?.log()?;
        let told: Vec<_> = log.lines().filter_map(|line| line.split_once(" run: ")).collect();
        let line = |text: &str| told.iter().any(|(_, printed)| printed.trim() == text);
        assert_eq!(line(&ours), is_ours, "{network}: {log}");
        assert!(line("lo") && told.iter().any(|(_, line)| line.starts_with("net:[")), "{log}");
        let (_file, manifest) = download(&world)?;
        assert_eq!(manifest.record["engine"]["network"], network);
    }
    Ok(())
}

#[test]
fn what_is_kept_survives_a_restart() -> Result<()> {
    let mut world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    let before = world.init_and_build()?;
    let (manifest, key) = (world.api()?.manifest()?, world.api()?.public_key()?);
    world.server.terminate()?;
    world.start_server_again()?;
    let api = world.api()?;
    assert_eq!(api.status()?, before);
    assert_eq!(api.manifest()?, manifest);
    assert_eq!(api.public_key()?, key);
    assert!(api.log()?.contains("starting a build"));
    // The definition and the keys are still there, too.
    api.build()?;
    assert_eq!(api.public_key()?, key);
    Ok(())
}

#[test]
fn an_older_build_is_found_by_its_name() -> Result<()> {
    let world = World::start()?;
    world.with_repository(&[("Dockerfile", &world.dockerfile("LABEL a=b"))])?;
    let first = world.init_and_build()?;
    let second = world.api()?.build()?;
    assert_ne!(first.build_name, second.build_name);
    world.sbs.ok(&["get-manifest", "--build-name", &first.build_name])?;
    assert!(world.sbs.file(".sig.tbz")?.to_string_lossy().contains(&*first.build_name));
    let unknown = world.sbs.run(&["get-manifest", "--build-name", "no.such.build"])?;
    assert_eq!(unknown.code, 1, "{}", unknown.text());
    Ok(())
}

/// Downloads the last manifest and has Python read it.
fn download(world: &World) -> Result<(PathBuf, judge::Manifest)> {
    let (name, bytes) = world.api()?.manifest()?;
    let file = world.parts.path().join(format!("{name}.sig.tbz"));
    fs::write(&file, bytes)?;
    let manifest = judge::python_manifest(&file)?;
    Ok((file, manifest))
}

fn file_of_image(world: &World, tag: &str, path: &str) -> Result<String> {
    let root = tempfile::tempdir_in(world.parts.path())?;
    world.parts.registry.unpack(World::REPOSITORY, tag, &root.path().join("image"))?;
    Ok(fs::read_to_string(root.path().join("image").join(path))?)
}

fn assert_fails<T: std::fmt::Debug>(result: &Result<T>) {
    assert!(result.is_err(), "it should fail: {result:?}");
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

fn hex_digest(content: &str) -> String {
    digest(content.as_bytes()).to_string().replacen("sha256:", "", 1)
}

/// Changes one byte of the inner archive and leaves the rest as it is.
fn judge_repack(manifest: &Path, changed: &Path) -> Result<()> {
    let script = "\
import io, sys, tarfile
with tarfile.open(sys.argv[1], 'r:bz2') as old, tarfile.open(sys.argv[2], 'w:bz2') as new:
    for member in old.getmembers():
        data = bytearray(old.extractfile(member).read())
        if member.name.endswith('.tbz'):
            data[len(data) // 2] ^= 1
        new.addfile(member, io.BytesIO(bytes(data)))
";
    let mut python = program("python3");
    output(python.args(["-I", "-c", script]).arg(manifest).arg(changed))?;
    Ok(())
}

/// Fails if a password stands in what anybody can read.
fn no_secret_shows(world: &World, log_of_manifest: &str) -> Result<()> {
    let api = world.api()?;
    let status = api.call("GET", "/image")?.text();
    for (what, text) in [
        ("the status", &*status),
        ("the log", &*api.log()?),
        ("the log in the manifest", log_of_manifest),
        ("the server's output", &*world.server.log_text()),
    ] {
        assert_eq!(world.parts.secrets.found_in(text), None, "{what} holds a password");
    }
    Ok(())
}
