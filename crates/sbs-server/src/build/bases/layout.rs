//! OCI image layouts (OCI image specification 1.1) that hold one image each.

use std::io;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::build::publish::blob_path;
use sbs_registry::{Descriptor, FetchedManifest};

/// A layout that is being written; it is gone when dropped.
#[derive(Debug)]
pub(super) struct Layout(TempDir);

impl Layout {
    /// Makes a layout with everything but the blobs.
    pub(super) async fn begin(cache: &Path, image: &FetchedManifest) -> io::Result<Self> {
        let partial = cache.join(PARTIAL);
        tokio::fs::create_dir_all(&partial).await?;
        let layout = Self(tempfile::tempdir_in(partial)?);
        let path = layout.path();
        tokio::fs::create_dir_all(path.join("blobs/sha256")).await?;
        write(&blob_path(path, image.digest), &image.bytes).await?;
        let index = json!({
            "schemaVersion": 2,
            "manifests": [Descriptor::of(&image.media_type, &image.bytes)],
        });
        write(&path.join("index.json"), index.to_string().as_bytes()).await?;
        write(&path.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).await?;
        Ok(layout)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts the layout where it stays.
    pub(super) async fn finish(self, finished: &Path) -> io::Result<()> {
        let path = self.0.path();
        for directory in [path.join("blobs/sha256"), path.join("blobs"), path.to_owned()] {
            sync_directory(&directory).await?;
        }
        // What is there is not complete, or it would not have been downloaded again.
        match tokio::fs::remove_dir_all(finished).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        tokio::fs::rename(path, finished).await?;
        // The directory has another name now: there is nothing left to remove.
        let _renamed = self.0.keep();
        match finished.parent() {
            Some(cache) => sync_directory(cache).await,
            None => Ok(()),
        }
    }
}

/// Tells whether a layout is there and has the image whole.
///
/// The image manifest is held against its digest and the blobs against their sizes; the engine
/// holds every blob against its digest when it reads it.
pub(super) async fn is_complete(
    layout: &Path,
    image: &FetchedManifest,
    blobs: &[&Descriptor],
) -> bool {
    let kept = tokio::fs::read(blob_path(layout, image.digest)).await;
    if !kept.is_ok_and(|kept| kept == image.bytes) {
        return false;
    }
    let index = tokio::fs::read(layout.join("index.json")).await.unwrap_or_default();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap_or_default();
    let named = index.pointer("/manifests/0/digest").and_then(serde_json::Value::as_str);
    if named != Some(image.digest.to_string().as_str()) || !layout.join("oci-layout").is_file() {
        return false;
    }
    for blob in blobs {
        let metadata = tokio::fs::symlink_metadata(blob_path(layout, blob.digest)).await;
        if !metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.size) {
            return false;
        }
    }
    true
}

async fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    tokio::fs::write(path, bytes).await?;
    tokio::fs::File::open(path).await?.sync_all().await
}

async fn sync_directory(path: &Path) -> io::Result<()> {
    tokio::fs::File::open(path).await?.sync_all().await
}

/// The directory below the cache where downloads are that are not complete. What is in it when the
/// server starts is of no use to anyone.
pub(crate) const PARTIAL: &str = "partial";
