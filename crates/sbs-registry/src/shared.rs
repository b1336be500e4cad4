//! Lists under tags that many write: registries have no condition for a write, so that a list is read,
//! changed, written, and read again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use sbs_proto::{Digest, ImageTag, Repository};
use tokio::sync::OwnedMutexGuard;

use super::error::RegistryError;
use super::{BlobSource, FetchedManifest, Patience, Session, Target};

/// What is to become of a list.
pub(crate) enum Change {
    /// It has everything that it should.
    None,
    /// It becomes this document; the blobs are pushed before.
    Write { blobs: Vec<Bytes>, media_type: &'static str, document: Bytes },
}

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Changed {
    /// Nothing had to be done.
    No,
    /// It was written, and the registry served it again.
    Yes,
}

impl Session {
    /// Changes a list until the registry serves one that `change` has nothing to say about.
    ///
    /// `change` gets what is there each time, and keeps what others put in. Two changes through the
    /// same client are made one after the other; a list that another program writes over in between
    /// is changed again.
    pub(crate) async fn change_list<E: From<RegistryError>>(
        &self,
        repository: &Repository,
        tag: &ImageTag,
        mut change: impl FnMut(Option<FetchedManifest>) -> Result<Change, E>,
    ) -> Result<Changed, E> {
        let _one_at_a_time = self.lock(&format!("{repository}:{tag}")).await;
        let mut patience = Patience::new(self.limits());
        // The digest of what the last write replaced, if there was a write.
        let mut replaced: Option<Option<Digest>> = None;
        let mut writes = 0;
        loop {
            let there = self.list(repository, tag).await?;
            let before = there.as_ref().map(|list| list.digest);
            let Change::Write { blobs, media_type, document } = change(there)? else {
                let changed = if replaced.is_some() { Changed::Yes } else { Changed::No };
                return Ok(changed);
            };
            // What was there before the write, or nothing, is not somebody else's change: ours does
            // not show yet. To write then would be to drop what others wrote.
            let hidden = replaced.is_some_and(|old| before.is_none() || before == old);
            if hidden && patience.wait().await {
                continue;
            }
            if hidden || writes == self.limits().attempts {
                let (host, what) = (self.host().to_owned(), "list of signatures");
                return Err(RegistryError::NotKept { host, what }.into());
            }
            for blob in blobs {
                let (digest, size) = (sbs_crypto::digest(&blob), blob.len() as u64);
                self.push_blob(repository, digest, size, &BlobSource::Bytes(blob)).await?;
            }
            self.push_manifest(repository, Target::Tag(tag), media_type, document).await?;
            replaced = Some(before);
            writes += 1;
        }
    }

    /// Fetches what a tag points to; `None` if the registry says that there is no such tag.
    pub(crate) async fn list(
        &self,
        repository: &Repository,
        tag: &ImageTag,
    ) -> Result<Option<FetchedManifest>, RegistryError> {
        match self.manifest(repository, Target::Tag(tag)).await {
            Ok(list) => Ok(Some(list)),
            Err(error) if error.is_not_found() => Ok(None),
            // A registry that does not answer has not said that there is none.
            Err(error) => Err(error),
        }
    }

    async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let name = format!("{}/{name}", self.host());
        self.0.client.0.locks.of(name).lock_owned().await
    }
}

/// A lock for each name that somebody holds or waits for.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Locks {
    fn of(&self, name: String) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(&name).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        locks.insert(name, Arc::downgrade(&lock));
        lock
    }
}
