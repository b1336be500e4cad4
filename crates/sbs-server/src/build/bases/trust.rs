//! Whether a base image is signed as the definition asks.
//!
//! Of the ways that the definition gives, one that vouches for the image is enough. What cannot be
//! asked about is not taken as unsigned, and not as signed either.

use std::fmt;

use sbs_crypto::ImageVerifyingKey;
use sbs_crypto::openpgp::OpenPgpVerifier;
use sbs_proto::{
    BaseSignature, BaseTrust, Credentials, Digest, ImageReference, NotaryServer,
    ParseDefinitionError, SignatureKind, key,
};
use sbs_registry::cosign::{self, Expected};
use sbs_registry::notary::{self, Absence, Gun, RootPin, Trust};
use sbs_registry::simple_signing::{self, FetchSignaturesError, Lookaside};
use sbs_registry::{RegistryClient, RegistryError, Session};
use thiserror::Error;
use time::OffsetDateTime;

use crate::build::failure::chain;
use crate::build::log::BuildLog;
use crate::build::notary_roots::{NotaryRoots, NotaryRootsError};

/// The ways in which base images may be signed, ready to check.
#[derive(Debug)]
pub(crate) struct TrustedSigners {
    cosign: Option<ImageVerifyingKey>,
    notary: Option<(NotaryServer, RootPin)>,
    openpgp: Option<OpenPgpVerifier>,
    now: OffsetDateTime,
}

/// A digest that the notary has for an image.
#[derive(Clone, Debug)]
pub(super) struct Vouched {
    pub(super) digest: Digest,
    pub(super) signature: BaseSignature,
}

/// An image, and where its signatures are looked for.
#[derive(Clone, Copy)]
pub(super) struct SignedName<'a> {
    pub(super) image: &'a ImageReference,
    pub(super) lookaside: Option<&'a Lookaside>,
    pub(super) session: &'a Session,
}

/// Why nobody vouches for an image: one reason for each way.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Vec<String>);

impl TrustedSigners {
    /// Reads the keys of a definition; one that cannot be used is told by the name of its setting.
    pub(crate) fn of(trust: &BaseTrust, now: OffsetDateTime) -> Result<Self, ParseDefinitionError> {
        let bad = |key, error: &dyn std::error::Error| ParseDefinitionError::BadKey {
            key,
            reason: chain(error),
        };
        let cosign = trust.cosign_key.as_deref().map(ImageVerifyingKey::from_pem).transpose();
        let openpgp = trust.openpgp.as_ref();
        let openpgp = openpgp.map(|trust| OpenPgpVerifier::parse(trust.key.as_bytes(), now));
        let notary = trust.notary.as_ref().map(|trust| {
            let pin = trust.root.as_deref().map(RootPin::parse).transpose();
            let pin = pin.map_err(|error| bad(key::DOCKER_CONTENT_TRUST_BASE_ROOT, &error))?;
            Ok::<_, ParseDefinitionError>((trust.server.clone(), pin.unwrap_or(RootPin::FirstUse)))
        });
        Ok(Self {
            cosign: cosign.map_err(|error| bad(key::BASE_COSIGN_PUBLIC_KEY, &error))?,
            notary: notary.transpose()?,
            openpgp: openpgp.transpose().map_err(|error| bad(key::BASE_REPO_PUBLIC_KEY, &error))?,
            now,
        })
    }

    /// Asks the notary, if there is one, which digest the tag of an image has.
    pub(super) async fn by_notary(
        &self,
        image: &ImageReference,
        client: &RegistryClient,
        credentials: Option<&Credentials>,
        log: &BuildLog,
        roots: &mut NotaryRoots,
        reasons: &mut Reasons,
    ) -> Result<Option<Vouched>, NotKnown> {
        let Some((server, pin)) = &self.notary else { return Ok(None) };
        if let Some(warning) = server.warning() {
            log.warning(warning);
        }
        let Some(tag) = image.tag() else {
            reasons.add("the notary vouches for tags only: write `name:tag@digest`");
            return Ok(None);
        };
        let gun = Gun::new(image.registry(), image.repository());
        let credentials = credentials.filter(|_| notary::shares_logins(server, image.registry()));
        let session = client.for_notary(server, &gun, credentials, log)?;
        let remembered = roots.get(server, &gun)?;
        if remembered.is_none() && *pin == RootPin::FirstUse {
            log.warning(&format!(
                "{gun}: the root of its image trust data at {server} is believed at first use"
            ));
        }
        let trust = Trust { pin, remembered: remembered.as_ref() };
        match notary::verify(&session, tag, trust, self.now).await? {
            notary::Verdict::Absent(Absence::Repository) => {
                reasons.add(&format!("the notary {server} has no trust data for it"));
            }
            notary::Verdict::Absent(Absence::Tag(remembered)) => {
                roots.set(server, &remembered)?;
                reasons.add(&format!("the notary {server} has no signature for this tag"));
            }
            notary::Verdict::Invalid(invalid) => reasons.add(&chain(&invalid)),
            notary::Verdict::Signed(target) => {
                roots.set(server, target.remembered())?;
                if image.digest().is_some_and(|digest| digest != target.digest()) {
                    let digest = target.digest();
                    reasons.add(&format!("the notary {server} vouches for {digest} instead"));
                    return Ok(None);
                }
                let key_id = target.root_keys().first().map(ToString::to_string);
                let signature = BaseSignature {
                    key_id: key_id.unwrap_or_default(),
                    kind: SignatureKind::Notary,
                };
                return Ok(Some(Vouched { digest: target.digest(), signature }));
            }
        }
        Ok(None)
    }

    /// Tells whether signatures count that stand in the registry or beside it.
    pub(super) fn look_at_registries(&self) -> bool {
        self.cosign.is_some() || self.openpgp.is_some()
    }

    /// Looks for a signature of this digest in the registry or beside it.
    pub(super) async fn by_signature(
        &self,
        name: SignedName<'_>,
        digest: Digest,
        reasons: &mut Reasons,
    ) -> Result<Option<BaseSignature>, NotKnown> {
        let SignedName { image, lookaside, session } = name;
        if let Some(verifier) = &self.openpgp {
            let checked =
                simple_signing::verify(session, lookaside, verifier, image, digest).await?;
            match checked.require(image) {
                Ok(signed) => {
                    let key_id = signed.certificate().to_string();
                    return Ok(Some(BaseSignature { key_id, kind: SignatureKind::OpenPgp }));
                }
                Err(reason) => reasons.add(&chain(&reason)),
            }
        }
        if let Some(key) = &self.cosign {
            let expected = Expected { image, digest };
            for verdict in [
                cosign::bundle::check(session, expected, key).await?,
                cosign::tag::check(session, expected, key).await?,
            ] {
                match verdict {
                    cosign::Verdict::Valid(signed) => {
                        let key_id = signed.key().to_hex();
                        return Ok(Some(BaseSignature { key_id, kind: SignatureKind::Cosign }));
                    }
                    cosign::Verdict::Absent => {}
                    cosign::Verdict::Invalid(reason) => reasons.add(&chain(&reason)),
                }
            }
            reasons.add("no cosign signature of it is by the given key");
        }
        Ok(None)
    }
}

impl Reasons {
    fn add(&mut self, reason: &str) {
        if !self.0.iter().any(|there| there == reason) {
            self.0.push(reason.to_owned());
        }
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// Whether an image is signed could not be found out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum NotKnown {
    /// The signatures cannot be had.
    #[error(transparent)]
    Fetch(#[from] FetchSignaturesError),

    /// The registry or the notary does not answer.
    #[error(transparent)]
    Registry(#[from] RegistryError),

    /// What the notary said before is not known.
    #[error(transparent)]
    Roots(#[from] NotaryRootsError),
}
