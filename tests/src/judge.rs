//! Judges that are not of this project: openssl, Python and skopeo say whether what a server made
//! is what its documentation promises.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_proto::Digest;
use serde::Deserialize;
use serde_json::Value;

use crate::{Registry, World, output, program};

/// Has openssl verify a manifest's signature, by the recipe in `docs/formats/manifest.md`.
pub fn openssl_manifest(manifest: &Path, key_pem: &str) -> Result<()> {
    let told = by_hand(manifest, key_pem, 1)?;
    ensure!(told.contains("Verified OK"), "openssl says: {told}");
    Ok(())
}

/// Has git say which tree and which commit the source in a manifest is, by the recipe in
/// `docs/formats/manifest.md`.
pub fn git_source(manifest: &Path, key_pem: &str) -> Result<(String, String)> {
    let told = by_hand(manifest, key_pem, 2)?;
    let lines: Vec<_> = told.lines().skip_while(|line| *line != "Verified OK").skip(1).collect();
    let [tree, commit, "same"] = lines.as_slice() else { bail!("git says: {told}") };
    Ok(((*tree).to_owned(), (*commit).to_owned()))
}

/// Runs the first `blocks` shell blocks of "Verifying by hand" on a manifest.
fn by_hand(manifest: &Path, key_pem: &str, blocks: usize) -> Result<String> {
    let file = manifest.file_name().and_then(|name| name.to_str()).context("a file name")?;
    let name = file.strip_suffix(".sig.tbz").context("a manifest's file name")?;
    let text = include_str!("../../docs/formats/manifest.md");
    let (_, text) = text.split_once("### Verifying by hand").context("the recipe is gone")?;
    let parts = text.split("```sh\n").skip(1).take(blocks);
    let recipes: Vec<_> = parts.filter_map(|part| part.split("```").next()).collect();
    ensure!(recipes.len() == blocks, "the recipe has no {blocks} blocks");

    let scratch = tempfile::tempdir()?;
    fs::copy(manifest, scratch.path().join(file))?;
    fs::write(scratch.path().join("public.pem"), key_pem)?;
    let mut sh = program("sh");
    sh.args(["-euc", &recipes.concat().replace("NAME", name)]);
    output(sh.current_dir(scratch.path()))
}

/// A manifest as Python's `tarfile` and `hashlib` see it.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    /// What is in the inner archive, by path.
    pub entries: BTreeMap<String, Entry>,
    /// The content of `data/build.log`.
    pub log: String,
    /// The name, without extension.
    pub name: String,
    /// The content of `data/build.json`.
    pub record: Value,
}

/// An entry of an archive.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct Entry {
    /// `file` or `directory`: there are no links in a manifest.
    pub kind: String,
    /// The permissions.
    pub mode: u32,
    /// The SHA-256 of a file, hex; empty for a directory.
    pub content: String,
    /// The time of change, seconds since 1970.
    pub time: i64,
}

impl Manifest {
    /// Returns the key (PEM) that the record says the image was signed with.
    pub fn image_key(&self) -> Result<&str> {
        self.record["image"]["public_key_pem"].as_str().context("the record has no image key")
    }
}

/// Has Python read a manifest: its two members, their names, and what the inner archive holds.
///
/// An entry that is not sorted, not plain or not inside the archive is an error.
pub fn python_manifest(manifest: &Path) -> Result<Manifest> {
    let mut python = program("python3");
    let told = output(python.args(["-I", "-c", include_str!("judge_manifest.py")]).arg(manifest))?;
    serde_json::from_str(&told).context("what Python says")
}

/// Has Python read a state image; returns what it says: the records in hex, by their names.
///
/// It is a reader of its own, made from `docs/formats/state.md`.
pub fn python_state(file: &Path, root: &[u8], secret: &[u8]) -> Result<String> {
    let reader = include_str!("../../crates/sbs-state/tests/data/read_state.py");
    let mut python = program("python3");
    python.args(["-I", "-c", reader, "records"]);
    output(python.arg(hex::encode(root)).arg(hex::encode(secret)).arg(file))
}

/// Asks skopeo for the digest of an image.
pub fn skopeo_digest(registry: &Registry, repository: &str, reference: &str) -> Result<Digest> {
    let mut skopeo = program("skopeo");
    skopeo.args(["inspect", "--format", "{{.Digest}}", "--authfile"]).arg(registry.authfile());
    skopeo.arg("--cert-dir").arg(registry.certificate_directory());
    let told =
        output(skopeo.arg(format!("docker://{}/{repository}:{reference}", registry.host())))?;
    Digest::parse(told.trim()).context("what skopeo says")
}

/// Has openssl verify the cosign signature of the image that a tag points to, as both stand in the
/// registry, and checks that what is signed names this image. Returns the image's digest.
pub fn openssl_image(registry: &Registry, tag: &str, key_pem: &str) -> Result<Digest> {
    let repository = World::REPOSITORY;
    let image = registry.manifest(repository, tag)?;
    let (digest, _manifest) = image.with_context(|| format!("there is no tag {tag}"))?;
    let signatures = signature_tag(&digest);
    let manifest = registry.manifest(repository, &signatures)?;
    let (_digest, manifest) =
        manifest.with_context(|| format!("the image of tag {tag} has no signature"))?;
    let reference = format!("{}/{repository}:{tag}", registry.host());
    let layers = manifest["layers"].as_array().context("no list of signatures")?;
    let mut told = None;
    for layer in layers {
        match openssl_layer(registry, layer, key_pem, &reference, &digest) {
            Ok(()) => return Ok(digest),
            Err(error) => told = Some(error),
        }
    }
    Err(told.unwrap_or_else(|| anyhow::anyhow!("the image of tag {tag} has no signature")))
}

/// Has openssl verify one of the signatures of an image.
fn openssl_layer(
    registry: &Registry,
    layer: &Value,
    key_pem: &str,
    reference: &str,
    digest: &Digest,
) -> Result<()> {
    let payload = Digest::parse(layer["digest"].as_str().unwrap_or_default())?;
    let payload = registry.blob(World::REPOSITORY, &payload)?;
    let signature = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str();
    let signature = STANDARD.decode(signature.context("no signature in the annotations")?)?;

    let scratch = tempfile::tempdir()?;
    let path = |name: &str| scratch.path().join(name);
    fs::write(path("key.pem"), key_pem)?;
    fs::write(path("payload"), &payload)?;
    fs::write(path("signature"), signature)?;
    let mut openssl = program("openssl");
    openssl.args(["dgst", "-sha256", "-verify"]).arg(path("key.pem"));
    let told = output(openssl.arg("-signature").arg(path("signature")).arg(path("payload")))?;
    ensure!(told.contains("Verified OK"), "openssl says: {told}");

    let payload: Value = serde_json::from_slice(&payload)?;
    let critical = &payload["critical"];
    ensure!(critical["image"]["docker-manifest-digest"] == digest.to_string(), "{payload}");
    ensure!(critical["type"] == "cosign container image signature", "{payload}");
    ensure!(critical["identity"]["docker-reference"] == reference, "{payload} is not {reference}");
    Ok(())
}

/// Checks that no tag points to an image that openssl does not find signed. Returns the tags.
pub fn every_tag_is_signed(registry: &Registry, key_pem: &str) -> Result<Vec<String>> {
    let tags = image_tags(registry)?;
    for tag in &tags {
        openssl_image(registry, tag, key_pem)?;
    }
    Ok(tags)
}

/// Returns the tags that are not those of signatures.
pub fn image_tags(registry: &Registry) -> Result<Vec<String>> {
    let mut tags = registry.tags(World::REPOSITORY)?;
    tags.retain(|tag| !tag.starts_with("sha256-"));
    Ok(tags)
}

/// Returns the tag under which the signatures of an image stand.
pub fn signature_tag(digest: &Digest) -> String {
    format!("{}.sig", digest.to_string().replacen(':', "-", 1))
}
