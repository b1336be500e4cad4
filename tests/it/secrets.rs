//! Secrets that are planted in everything a server is told show nowhere: while it builds, while its
//! state goes out and comes in, and when it is asked for what it does not do.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::random_bytes;
use sbs_proto::v2::FileKind;
use sbs_tests::processes::{Seen, Watch};
use sbs_tests::{Canaries, Outcome, Parts, World, output, program};
use serde_json::{Value, json};

#[test]
fn l1_planted_secrets_show_nowhere() -> Result<()> {
    let before = entries()?;
    let mut world = World::start()?;
    world.server.log_at("trace");
    world.server.terminate()?;
    world.start_server_again()?;
    let mut shown = Shown::default();
    let old_secret = world.secret()?;
    let storages = Storages::new();
    storages.configure(&world)?;

    let watch = Watch::start();
    world.with_repository(&[("Dockerfile", &world.dockerfile("RUN sleep 0.5"))])?;
    shown.command(&world, &["-vv", "init"], 0)?;
    shown.command(&world, &["-vv", "build", "--follow"], 0)?;
    let https = world.parts.start_https_git()?;
    let mut repository = https.repository("over-https")?;
    repository.commit_files(&[("Dockerfile", &world.dockerfile("RUN sleep 0.5"))])?;
    world.sbs.set("GITHUB_URL", https.url_with_password(&repository))?;
    shown.command(&world, &["-vv", "update", "--new-secret"], 0)?;
    shown.command(&world, &["-vv", "build", "--follow"], 0)?;
    let told = shown.command(&world, &["-vv", "get-state-image"], 0)?;
    let state = told.stdout.trim_end().to_owned();
    shown.command(&world, &["get-state-image", "--state-bucket-name", "bucket"], 1)?;
    shown.every_route(&world)?;
    shown.what_is_refused(&world, &old_secret)?;

    let canaries = Canaries::new(planted(&world, &storages, &old_secret)?)?;
    // The manifest is compressed: what is searched are its parts.
    shown.command(&world, &["get-manifest", "--verify-manifest"], 0)?;
    let mut found = Vec::new();
    unpacked(&world, &canaries, &mut found)?;
    files(&world, &before, &state, &canaries, &mut found)?;
    world.server.terminate()?;
    shown.log(&world);

    fs::remove_dir_all(world.server.data_directory())?;
    world.start_server_again()?;
    shown.command(&world, &["-vv", "post-state-image", "--state-image", &state], 0)?;
    shown.command(&world, &["-vv", "update"], 0)?;
    shown.command(&world, &["-vv", "build", "--follow"], 0)?;
    shown.every_route(&world)?;
    watch.look_again()?;
    files(&world, &before, &state, &canaries, &mut found)?;
    world.server.terminate()?;
    shown.log(&world);

    processes(&watch.end()?, &canaries, &mut found);
    for (what, text) in &shown.0 {
        found.extend(canaries.found_in(text).iter().map(|name| format!("{name} in {what}")));
    }
    assert!(found.is_empty(), "{found:#?}");
    Ok(())
}

/// What was answered, printed and logged.
#[derive(Default)]
struct Shown(Vec<(String, Vec<u8>)>);

impl Shown {
    fn command(&mut self, world: &World, arguments: &[&str], code: i32) -> Result<Outcome> {
        let outcome = world.sbs.run(arguments)?;
        assert_eq!(outcome.code, code, "{arguments:?}: {}", outcome.text());
        self.0.push((arguments.join(" "), outcome.text().into_bytes()));
        Ok(outcome)
    }

    fn request(&mut self, world: &World, method: &str, path: &str, body: &str) -> Result<u16> {
        let reply = world.api()?.send(method, path, body)?;
        self.0.push((format!("the answer to {method} {path}"), reply.body));
        Ok(reply.status)
    }

    /// Asks for everything that there is.
    fn every_route(&mut self, world: &World) -> Result<()> {
        let build = "/v2/images/default/builds/latest";
        let files = FileKind::ALL.map(|kind| format!("{build}/{}", kind.as_str()));
        let paths = ["/image", "/imagedigest", "/log/build", "/manifest", "/publickey"];
        let more = ["/state-image", "/v2/info", "/v2/state", "/v2/images/default/builds", build];
        for path in paths.into_iter().chain(more).chain(files.iter().map(String::as_str)) {
            let status = self.request(world, "GET", path, "\"\"")?;
            assert!(matches!(status, 200 | 201), "{path}: {status}");
        }
        Ok(())
    }

    /// Sends secrets where they are refused, as they are and in bodies that are wrong.
    fn what_is_refused(&mut self, world: &World, old_secret: &str) -> Result<()> {
        let mut definition = world.sbs.config()?;
        definition.remove("GITHUB_KEY_FILE");
        definition.insert("RUNTIME_TYPE".to_owned(), json!("vpc"));
        definition.insert("GITHUB_KEY".to_owned(), json!(git_key(&world.parts)?));
        definition.insert("SECRET".to_owned(), json!(old_secret));
        let wrong_secret = Value::Object(definition.clone()).to_string();
        let cut = wrong_secret.trim_end_matches('}').to_owned();
        definition.insert("SECRET".to_owned(), json!(world.secret()?));
        definition.insert("NEW_SECRET".to_owned(), json!({ "SECRET": old_secret }));
        let odd = Value::Object(definition.clone()).to_string();
        for body in [&*wrong_secret, &cut, &odd] {
            for (method, path) in
                [("POST", "/image"), ("PATCH", "/image"), ("POST", "/state-image")]
            {
                let status = self.request(world, method, path, body)?;
                assert!((400..500).contains(&status), "{method} {path}: {status}");
            }
        }
        Ok(())
    }

    /// Takes the log of a server that has ended.
    fn log(&mut self, world: &World) {
        let text = world.server.log_text();
        assert!(text.contains("TRACE"), "the log is not at its most talkative");
        self.0.push(("the server's log".to_owned(), text.into_bytes()));
    }
}

/// What gives access to object storages; new in every test, as all that is searched for must be.
struct Storages {
    access_key: String,
    api_key: String,
    instance: String,
}

impl Storages {
    fn new() -> Self {
        let new = |start: &str| format!("{start}{}", hex::encode(random_bytes::<12>()));
        Self {
            access_key: new("canary-secret-key/+"),
            api_key: new("canary-api-key/+&=%41"),
            instance: new("crn:v1:canary:public:cloud-object-storage:global:a/"),
        }
    }

    /// Configures storages that cannot be reached, one for each kind of credentials.
    fn configure(&self, world: &World) -> Result<()> {
        let nowhere = "https://127.0.0.1:9";
        for (key, value) in [
            ("MANIFEST_BUCKET_NAME", "manifests"),
            ("MANIFEST_COS_ENDPOINT", nowhere),
            ("MANIFEST_COS_ACCESS_KEY_ID", "AKIDTESTTESTTESTTEST"),
            ("MANIFEST_COS_SECRET_ACCESS_KEY", &self.access_key),
            ("STATE_COS_ENDPOINT", nowhere),
            ("STATE_COS_API_KEY_ID", &self.api_key),
            ("STATE_COS_AUTH_ENDPOINT", nowhere),
            ("STATE_COS_RESOURCE_CRN", &self.instance),
        ] {
            world.sbs.set(key, value)?;
        }
        Ok(())
    }
}

/// Returns everything that must not show.
fn planted(
    world: &World,
    storages: &Storages,
    old_secret: &str,
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let new_secret = world.secret()?;
    assert_ne!(new_secret, old_secret);
    let accounts = &world.parts.secrets;
    let (key, seed) = git_key_parts(&world.parts)?;
    Ok(vec![
        ("SECRET", STANDARD.decode(old_secret)?),
        ("SECRET as text", old_secret.into()),
        ("NEW_SECRET", STANDARD.decode(&new_secret)?),
        ("NEW_SECRET as text", new_secret.into()),
        ("the git key", seed),
        ("the git key as text", key.into()),
        ("the git password", accounts.git.password.clone().into()),
        ("the push password", accounts.push.password.clone().into()),
        ("the base password", accounts.base.password.clone().into()),
        ("the secret access key", storages.access_key.clone().into()),
        ("the API key", storages.api_key.clone().into()),
        ("the instance", storages.instance.clone().into()),
        ("the root secret", world.server.root_secret()?),
    ])
}

fn git_key(parts: &Parts) -> Result<String> {
    Ok(fs::read_to_string(parts.ssh.key_file())?)
}

/// Returns the line of the key file that holds the seed of the Ed25519 key, and the seed.
fn git_key_parts(parts: &Parts) -> Result<(String, Vec<u8>)> {
    let public = fs::read_to_string(parts.ssh.key_file().with_extension("pub"))?;
    let public = STANDARD.decode(public.split_whitespace().nth(1).context("the public key")?)?;
    let public = public.last_chunk::<32>().context("32 bytes of a public key")?;
    let text = git_key(parts)?;
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let bytes = STANDARD.decode(lines.concat())?;
    // The seed stands before the last of the three copies of the public key.
    let place = bytes.windows(32).rposition(|window| window == public).context("the key")?;
    let seed = bytes.get(place - 32..place).context("the seed")?.to_vec();
    let line = lines.get((place - 32) * 8 / 6 / lines.first().map_or(1, |line| line.len()));
    Ok(((*line.context("the line")?).to_owned(), seed))
}

/// Searches what is in the manifest.
fn unpacked(world: &World, canaries: &Canaries, found: &mut Vec<String>) -> Result<()> {
    let directory = world.parts.path().join("unpacked");
    fs::create_dir(&directory)?;
    let outer = world.sbs.file(".sig.tbz")?;
    output(program("tar").arg("-xf").arg(outer).arg("-C").arg(&directory))?;
    let inner: Vec<_> = fs::read_dir(&directory)?.collect::<Result<_, _>>()?;
    let mut inner = inner.iter().map(fs::DirEntry::path);
    let inner = inner.find(|path| path.extension().is_some_and(|end| end == "tbz"));
    let inner = inner.context("the inner archive")?;
    output(program("tar").arg("-xf").arg(inner).arg("-C").arg(&directory))?;
    let count = canaries.found_below(&directory, &[], found)?;
    assert!(count > 4, "{count} files in the manifest");
    Ok(())
}

/// Searches the server's directory, the state image that it made, and what is new in all places for
/// what is temporary.
fn files(
    world: &World,
    before: &BTreeSet<(PathBuf, u64)>,
    state: &str,
    canaries: &Canaries,
    found: &mut Vec<String>,
) -> Result<()> {
    let root_secret = world.server.root_secret_file();
    let server = root_secret.parent().context("the server's directory")?.to_owned();
    // The log is searched at its end, when it is whole.
    let skip = [root_secret, server.join("server.log")];
    let count = canaries.found_below(&server, &skip, found)?;
    assert!(count > 10, "{count} files of the server");
    let told = canaries.found_below(&world.sbs.directory().join(state), &[], found)?;
    assert_eq!(told, 1, "the state image");
    // The tests' own directory holds the key of the git server and the client's configuration.
    let own = [world.parts.path().to_owned()];
    for (path, _) in entries()?.difference(before) {
        canaries.found_below(path, &own, found)?;
    }
    Ok(())
}

/// Returns what there is at the places for what is temporary, with the number of each file.
fn entries() -> Result<BTreeSet<(PathBuf, u64)>> {
    let mut all = BTreeSet::new();
    for place in ["/tmp", "/var/tmp", "/dev/shm", "/run"].map(Path::new) {
        for entry in fs::read_dir(place)? {
            let path = entry?.path();
            // What is removed meanwhile is no longer there.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            all.insert((path, metadata.ino()));
        }
    }
    Ok(all)
}

/// Searches what the processes were told.
fn processes(seen: &BTreeSet<Seen>, canaries: &Canaries, found: &mut Vec<String>) {
    for program in ["sbs", "sbs-server", "buildah", "git"] {
        let is = |one: &&Seen| one.line.split(|byte| *byte == 0).any(|word| is(word, program));
        assert!(seen.iter().any(|one| is(&one)), "{program} was not seen");
    }
    for one in seen {
        let line = String::from_utf8_lossy(&one.line).replace('\0', " ");
        let names = canaries.found_in(&one.line);
        found.extend(names.iter().map(|name| format!("{name} in the arguments {line}")));
        for variable in one.environment.split(|byte| *byte == 0) {
            for name in canaries.found_in(variable) {
                if !(name == "the git password" && is_for_git(one, variable)) {
                    found.push(format!("{name} in the environment of {line}"));
                }
            }
        }
    }
}

/// Tells whether this is the one exception, which `SECURITY.md` names: git takes the password of an
/// https repository from its environment.
fn is_for_git(one: &Seen, variable: &[u8]) -> bool {
    let git = |word: &[u8]| is(word, "git") || is(word, "git-remote-https");
    variable.starts_with(b"GIT_CONFIG_VALUE_0=Authorization: Basic ")
        && one.line.split(|byte| *byte == 0).any(git)
}

/// Tells whether an argument names a program.
fn is(word: &[u8], program: &str) -> bool {
    word.rsplit(|byte| *byte == b'/').next() == Some(program.as_bytes())
}
