use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};
use sbs_crypto::digest;
use sbs_proto::Digest;
use serde_json::{Value, json};

use crate::{Registry, output, program};

/// The repository and tag that [`push_base_image`] pushes to.
pub const BASE_REPOSITORY: &str = "base/busybox:1";

/// Pushes a small Linux, made of Debian's static busybox, and returns its reference.
///
/// `scratch` is a folder that may be written to; what is written is left there.
pub fn push_base_image(registry: &Registry, scratch: &Path) -> Result<String> {
    let layout = scratch.join("base-image");
    write_base_image(&layout)?;
    let reference = format!("{}/{BASE_REPOSITORY}", registry.host());
    let mut skopeo = program("skopeo");
    skopeo.args(["copy", "--quiet", "--insecure-policy", "--authfile"]).arg(registry.authfile());
    skopeo.arg("--dest-cert-dir").arg(registry.certificate_directory());
    skopeo.arg(format!("oci:{}:1", layout.display())).arg(format!("docker://{reference}"));
    output(&mut skopeo)?;
    Ok(reference)
}

/// Writes the same image as an OCI layout with the tag `1`.
pub fn write_base_image(layout: &Path) -> Result<()> {
    let root = layout.with_extension("root");
    write_root(&root)?;
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let archive = layout.with_extension("tar");
    let mut tar = program("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf"]);
    output(tar.arg(&archive).arg("-C").arg(&root).arg("."))?;

    let layer = fs::read(&archive)?;
    let config = json!({
        "architecture": architecture(),
        "config": { "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"] },
        "created": "1970-01-01T00:00:00Z",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer).to_string()] },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(&blobs, "config", config.to_string().as_bytes())?,
        "layers": [blob(&blobs, "layer", &layer)?],
    });
    let mut manifest = blob(&blobs, "manifest", manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    fs::remove_file(archive)?;
    fs::remove_dir_all(root)?;
    Ok(())
}

fn write_root(root: &Path) -> Result<()> {
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"];
    let busybox = busybox.iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.context("busybox-static is not installed")?, root.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    Ok(())
}

/// Writes a blob and returns its descriptor.
fn blob(directory: &Path, kind: &str, bytes: &[u8]) -> Result<Value> {
    let digest: Digest = digest(bytes);
    let name = digest.to_string();
    fs::write(directory.join(name.trim_start_matches("sha256:")), bytes)?;
    let media_type = match kind {
        "layer" => "application/vnd.oci.image.layer.v1.tar".to_owned(),
        kind => format!("application/vnd.oci.image.{kind}.v1+json"),
    };
    Ok(json!({ "mediaType": media_type, "digest": name, "size": bytes.len() }))
}

/// Returns this machine's architecture in the words of OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

const APPLETS: [&str; 25] = [
    "cat", "chmod", "cp", "cut", "date", "echo", "env", "false", "find", "grep", "head",
    "hostname", "id", "ls", "mkdir", "mv", "ps", "readlink", "rm", "sed", "sh", "sleep", "tail",
    "test", "true",
];
