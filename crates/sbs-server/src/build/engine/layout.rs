//! The check of what the engine wrote: an OCI image layout with one image, every byte of it there.

use std::io::{self, Read as _};
use std::path::Path;

use sbs_crypto::HashingReader;
use sbs_proto::Digest;
use serde::Deserialize;
use thiserror::Error;

use crate::build::dockerfile::{LoadFileError, open_file};

/// Checks the layout in `directory` and returns the digest of its one image manifest.
///
/// Every blob that the manifest names is read and hashed. Format: OCI image specification 1.1,
/// "Image Layout".
pub(super) fn check(directory: &Path) -> Result<Digest, CheckLayoutError> {
    let version: LayoutVersion = parse(&read(directory, "oci-layout", MAX_JSON_BYTES)?)?;
    if version.image_layout_version != "1.0.0" {
        return Err(CheckLayoutError::Form { what: "its version is not 1.0.0" });
    }
    let index: Index = parse(&read(directory, "index.json", MAX_JSON_BYTES)?)?;
    let [descriptor] = index.manifests.as_slice() else {
        return Err(CheckLayoutError::Form { what: "it has not exactly one image" });
    };
    if descriptor.media_type != MANIFEST || descriptor.size > MAX_JSON_BYTES {
        return Err(CheckLayoutError::Form { what: "its image manifest is not one of OCI's" });
    }
    let bytes = read(directory, &blob(descriptor.digest), descriptor.size)?;
    if bytes.len() as u64 != descriptor.size || sbs_crypto::digest(&bytes) != descriptor.digest {
        return Err(CheckLayoutError::Content { digest: descriptor.digest });
    }
    let manifest: Manifest = parse(&bytes)?;
    if manifest.schema_version != 2 || manifest.config.media_type != CONFIG {
        return Err(CheckLayoutError::Form { what: "its configuration is not one of OCI's" });
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(CheckLayoutError::Form { what: "it has more than 1,024 layers" });
    }
    check_blob(directory, &manifest.config)?;
    for layer in &manifest.layers {
        if !LAYERS.contains(&&*layer.media_type) {
            return Err(CheckLayoutError::Form { what: "it has a layer that is not one of OCI's" });
        }
        check_blob(directory, layer)?;
    }
    Ok(descriptor.digest)
}

/// Why what the engine wrote is not the image that it should be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum CheckLayoutError {
    /// A blob has other bytes than its descriptor says.
    #[error("blob {digest} of the built image has other bytes than its descriptor says")]
    Content { digest: Digest },

    /// The layout is not of the form that it should have.
    #[error("the built image is not as expected: {what}")]
    Form { what: &'static str },

    /// A document of the layout is not JSON, or lacks something.
    #[error("a document of the built image cannot be parsed")]
    Parse { source: serde_json::Error },

    /// A file of the layout could not be opened or read.
    #[error("a file of the built image cannot be read")]
    Read { source: LoadFileError },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutVersion {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CheckLayoutError> {
    serde_json::from_slice(bytes).map_err(|source| CheckLayoutError::Parse { source })
}

/// Reads a file of at most `max` bytes.
fn read(directory: &Path, path: &str, max: u64) -> Result<Vec<u8>, CheckLayoutError> {
    let file = open_file(directory, path).map_err(|source| CheckLayoutError::Read { source })?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|source| read_error(path, source))?;
    if bytes.len() as u64 > max {
        return Err(CheckLayoutError::Form { what: "a document is larger than it should be" });
    }
    Ok(bytes)
}

fn check_blob(directory: &Path, descriptor: &Descriptor) -> Result<(), CheckLayoutError> {
    let path = blob(descriptor.digest);
    let file = open_file(directory, &path).map_err(|source| CheckLayoutError::Read { source })?;
    // One byte more than the descriptor says is enough to see that there are more.
    let mut reader = HashingReader::new(file.take(descriptor.size.saturating_add(1)));
    io::copy(&mut reader, &mut io::sink()).map_err(|source| read_error(&path, source))?;
    let (_, digest, size) = reader.finish();
    if (digest, size) == (descriptor.digest, descriptor.size) {
        Ok(())
    } else {
        Err(CheckLayoutError::Content { digest: descriptor.digest })
    }
}

fn read_error(path: &str, source: io::Error) -> CheckLayoutError {
    CheckLayoutError::Read { source: LoadFileError::Read { path: path.to_owned(), source } }
}

fn blob(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.to_hex())
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYERS: [&str; 3] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
];
/// Bytes; registries take manifests of at most 4 MiB.
const MAX_JSON_BYTES: u64 = 4 * 1024 * 1024;
const MAX_LAYERS: usize = 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;

    fn put(directory: &Path, bytes: &[u8]) -> (Digest, usize) {
        let digest = sbs_crypto::digest(bytes);
        fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        fs::write(directory.join(blob(digest)), bytes).unwrap();
        (digest, bytes.len())
    }

    fn descriptor(media_type: &str, (digest, size): (Digest, usize)) -> Value {
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }

    /// Writes a layout whose manifest and index `change` may alter.
    fn layout(change: impl Fn(&mut Value, &mut Value)) -> (TempDir, Digest) {
        let directory = TempDir::new().unwrap();
        let top = directory.path();
        let config = descriptor(CONFIG, put(top, b"{}"));
        let layer = descriptor(LAYERS[1], put(top, b"layer"));
        let mut manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        let mut index = json!({ "schemaVersion": 2, "manifests": [] });
        change(&mut manifest, &mut index);
        let manifest = put(top, manifest.to_string().as_bytes());
        if index["manifests"] == json!([]) {
            index["manifests"] = json!([descriptor(MANIFEST, manifest)]);
        }
        fs::write(top.join("index.json"), index.to_string()).unwrap();
        fs::write(top.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        (directory, manifest.0)
    }

    #[test]
    fn accepts_one_whole_image() {
        let (directory, digest) = layout(|_, _| ());
        assert_eq!(check(directory.path()).unwrap(), digest);
    }

    #[test]
    fn refuses_what_is_not_one_image_of_oci() {
        let changes: [fn(&mut Value, &mut Value); 7] = [
            |_, index| index["manifests"] = json!([1, 2]),
            |_, index| index["manifests"] = json!({}),
            |manifest, _| manifest["schemaVersion"] = json!(1),
            |manifest, _| manifest["config"]["mediaType"] = json!("application/json"),
            |manifest, _| {
                let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
                manifest["layers"][0]["mediaType"] = json!(docker);
            },
            |manifest, _| {
                let layer = manifest["layers"][0].clone();
                manifest["layers"] = json!(vec![layer; MAX_LAYERS + 1]);
            },
            |manifest, _| manifest["layers"][0]["digest"] = json!("sha256:../../x"),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let (directory, _) = layout(change);
            let error = check(directory.path()).unwrap_err();
            let expected =
                matches!(error, CheckLayoutError::Form { .. } | CheckLayoutError::Parse { .. });
            assert!(expected, "{number}: {error:?}");
        }
    }

    #[test]
    fn refuses_blobs_that_are_changed_missing_longer_shorter_or_links() {
        let layer = blob(sbs_crypto::digest(b"layer"));
        let changes: [fn(&Path); 5] = [
            |path| fs::write(path, b"laYer").unwrap(),
            |path| fs::write(path, b"layers").unwrap(),
            |path| fs::write(path, b"laye").unwrap(),
            |path| fs::remove_file(path).unwrap(),
            |path| {
                fs::rename(path, path.with_extension("x")).unwrap();
                std::os::unix::fs::symlink(path.with_extension("x"), path).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let (directory, _) = layout(|_, _| ());
            change(&directory.path().join(&layer));
            let error = check(directory.path()).unwrap_err();
            let expected =
                matches!(error, CheckLayoutError::Content { .. } | CheckLayoutError::Read { .. });
            assert!(expected, "{number}: {error:?}");
        }
    }

    #[test]
    fn refuses_a_manifest_that_is_changed_or_too_large() {
        let (directory, digest) = layout(|_, _| ());
        let path = directory.path().join(blob(digest));
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] = b' ';
        fs::write(&path, &bytes).unwrap();
        let error = check(directory.path()).unwrap_err();
        assert!(matches!(error, CheckLayoutError::Content { .. }), "{error:?}");
        fs::write(directory.path().join("index.json"), " ".repeat(5 << 20)).unwrap();
        let error = check(directory.path()).unwrap_err();
        assert!(matches!(error, CheckLayoutError::Form { .. }), "{error:?}");
    }
}
