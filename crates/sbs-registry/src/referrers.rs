//! What refers to an image (OCI distribution specification 1.1, "Listing Referrers"), with registries
//! that list it by themselves and with those that leave that to their clients.

use bytes::Bytes;
use http::header::{ACCEPT, HeaderName, HeaderValue, LINK};
use http::{HeaderMap, Method};
use sbs_proto::{Digest, ImageTag, Repository};
use url::Url;

use super::auth::{Access, Scope};
use super::document::{Descriptor, DocumentKind, ImageIndex, ImageManifest, media_type};
use super::error::{Fault, RegistryError};
use super::shared::Change;
use super::transport::{Attempts, Call};
use super::{FetchedManifest, MAX_MANIFEST_BYTES, Patience, Session, Target, content_type};

impl Session {
    /// Returns what refers to the image manifest or index of this digest, at most 10,000 entries.
    ///
    /// Where the registry has no list of its own, the one under the tag `sha256-<hex>` counts, in
    /// which clients keep it. What an entry says is the registry's word and no more.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        if let Some(listed) = self.listed_by_registry(repository, digest).await? {
            return Ok(listed);
        }
        let list = self.list(repository, &referrers_tag(digest)?).await?;
        Ok(list.map(|list| self.parse_list(&list)).transpose()?.map_or_else(Vec::new, entries))
    }

    /// Pushes an image manifest that refers to another one, by its digest; its blobs are there.
    ///
    /// Where the registry does not list it by itself, the list under the tag is changed, and what
    /// others put into it is kept. Returns the entry once it is listed.
    pub async fn push_referrer(
        &self,
        repository: &Repository,
        manifest: &ImageManifest,
    ) -> Result<Descriptor, RegistryError> {
        let subject = manifest.subject.as_ref();
        let subject = subject.ok_or(RegistryError::Internal("a referrer without subject"))?.digest;
        let bytes = Bytes::from(manifest.to_json());
        let mut entry = Descriptor::of(media_type::OCI_IMAGE, &bytes);
        entry.artifact_type.clone_from(&manifest.artifact_type);
        entry.annotations.clone_from(&manifest.annotations);
        let target = Target::Digest(entry.digest);
        let headers = self.put_manifest(repository, target, media_type::OCI_IMAGE, bytes).await?;
        let lists = announces(&headers, subject)
            && self.waits_for_listing(repository, subject, entry.digest).await?;
        if !lists {
            self.list_referrer(repository, subject, &entry).await?;
        }
        Ok(entry)
    }

    /// Waits until the registry lists a referrer; `false` if it keeps no list after all.
    async fn waits_for_listing(
        &self,
        repository: &Repository,
        subject: Digest,
        referrer: Digest,
    ) -> Result<bool, RegistryError> {
        let mut patience = Patience::new(self.limits());
        loop {
            match self.listed_by_registry(repository, subject).await? {
                None => return Ok(false),
                Some(listed) if holds(&listed, referrer) => return Ok(true),
                Some(_) if patience.wait().await => {}
                Some(_) => {
                    let (host, what) = (self.host().to_owned(), "referrer");
                    return Err(RegistryError::NotKept { host, what });
                }
            }
        }
    }

    /// Puts an entry into the list under the tag.
    async fn list_referrer(
        &self,
        repository: &Repository,
        subject: Digest,
        entry: &Descriptor,
    ) -> Result<(), RegistryError> {
        let tag = referrers_tag(subject)?;
        let change = |there: Option<FetchedManifest>| {
            let list = there.map(|there| self.parse_list(&there)).transpose()?;
            let mut list = list.unwrap_or_else(|| ImageIndex::new(Vec::new()));
            if holds(&list.manifests, entry.digest) {
                return Ok(Change::None);
            }
            list.manifests.push(entry.clone());
            let document = Bytes::from(list.to_json());
            Ok(Change::Write { blobs: Vec::new(), media_type: media_type::OCI_INDEX, document })
        };
        self.change_list::<RegistryError>(repository, &tag, change).await?;
        Ok(())
    }

    fn parse_list(&self, list: &FetchedManifest) -> Result<ImageIndex, RegistryError> {
        let sound = list.kind == DocumentKind::Index && list.media_type == media_type::OCI_INDEX;
        let parsed = sound.then(|| ImageIndex::parse(&list.bytes).ok()).flatten();
        parsed.ok_or_else(|| self.malformed("a list of referrers that is none"))
    }

    /// Asks the registry for its own list; `None` if it keeps none.
    async fn listed_by_registry(
        &self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let mut url = self.url(&format!("{repository}/referrers/{digest}"))?;
        let mut listed = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(page) = self.page(repository, url).await? else { return Ok(None) };
            listed.extend(page.entries);
            if listed.len() > MAX_REFERRERS {
                break;
            }
            let Some(next) = page.next else { return Ok(Some(listed)) };
            url = next;
        }
        Err(self.malformed("a list of more than 10000 referrers, or of more than 100 parts"))
    }

    async fn page(&self, repository: &Repository, url: Url) -> Result<Option<Page>, RegistryError> {
        let scope = Scope { repository, access: Access::Pull };
        let mut call = Call::new(Method::GET, url, scope);
        call.headers.insert(ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX));
        let mut attempts = Attempts::new(self);
        loop {
            match self.try_page(&call).await {
                Ok(page) => return Ok(page),
                Err(fault) => attempts.pause(fault).await?,
            }
        }
    }

    async fn try_page(&self, call: &Call<'_>) -> Result<Option<Page>, Fault> {
        let response = self.once(call).await?;
        match response.status().as_u16() {
            200 => {}
            // 404 is what the specification says; registries that take the path for another one, or
            // do not know the type, say the others.
            400 | 404 | 405 | 406 => return Ok(None),
            _ => return Err(self.refusal(response, "list of referrers").await),
        }
        // Some answer every path that they do not know with a page for people.
        if content_type(&response).as_deref() != Some(media_type::OCI_INDEX) {
            return Ok(None);
        }
        let next = self.next_page(response.headers(), &call.url)?;
        let bytes = self.read(response, "list of referrers", MAX_MANIFEST_BYTES).await?;
        let list = ImageIndex::parse(&bytes);
        let list = list.map_err(|_| self.malformed("a list of referrers that is none"))?;
        Ok(Some(Page { entries: list.manifests, next }))
    }

    fn next_page(&self, headers: &HeaderMap, at: &Url) -> Result<Option<Url>, RegistryError> {
        let Some(link) = headers.get(LINK) else { return Ok(None) };
        let next = link.to_str().ok().and_then(next_link).and_then(|text| at.join(text).ok());
        let next = next.filter(|next| self.is_registry(next));
        let next = next.ok_or_else(|| self.malformed("a Link to nowhere"))?;
        Ok(Some(next))
    }
}

struct Page {
    entries: Vec<Descriptor>,
    next: Option<Url>,
}

fn entries(list: ImageIndex) -> Vec<Descriptor> {
    list.manifests
}

fn holds(list: &[Descriptor], digest: Digest) -> bool {
    list.iter().any(|entry| entry.digest == digest)
}

/// Tells whether the registry says that it lists referrers of `subject` by itself.
fn announces(headers: &HeaderMap, subject: Digest) -> bool {
    let value = headers.get(OCI_SUBJECT).and_then(|value| value.to_str().ok());
    value.and_then(|text| Digest::parse(text).ok()) == Some(subject)
}

/// Returns the target of `<target>; rel="next"` (RFC 8288), of which there is one.
fn next_link(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = |text: &str| matches!(text.trim(), "rel=\"next\"" | "rel=next");
    parameters.split(';').any(next).then_some(target)
}

/// Returns the tag under which clients list the referrers of an image.
fn referrers_tag(digest: Digest) -> Result<ImageTag, RegistryError> {
    let tag = ImageTag::parse(&format!("sha256-{}", digest.to_hex()));
    tag.map_err(|_| RegistryError::Internal("the tag of a list of referrers"))
}

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const MAX_PAGES: usize = 100;
/// Ten years of daily attestations, three at a time.
const MAX_REFERRERS: usize = 10_000;

#[cfg(test)]
mod tests;
