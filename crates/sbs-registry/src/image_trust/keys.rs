//! The keys of a trust bundle, parsed and held against what the bundle says of them.

use sbs_crypto::openpgp::{Fingerprint, OpenPgpVerifier, ParseCertificateError};
use sbs_crypto::{ImageVerifyingKey, ManifestVerifyingKey, ParseKeyError, digest};
use sbs_proto::{
    Digest, ImageReference, NotaryRoot, NotaryServer, PublicKey, TRUST_SCHEMA, TrustBundle,
};
use thiserror::Error;
use time::OffsetDateTime;

use crate::Remark;
use crate::cosign::key_id;
use crate::notary::{Gun, KeyId, ParseRootPinError, RootPin};
use crate::simple_signing::{Lookaside, LookasideError};

/// What a relying party believes about the images of one repository.
///
/// A bundle that contradicts itself is not taken in parts: [`read`](Self::read) refuses it.
#[derive(Debug)]
pub struct ImageTrust {
    pub(super) image_keys: Vec<ReleaseKey>,
    pub(super) lookaside: Option<Lookaside>,
    pub(super) notary: Option<NotaryPin>,
    pub(super) openpgp: Option<OpenPgpKeys>,
    repository: ImageReference,
}

/// A key that releases images.
#[derive(Debug)]
pub(super) struct ReleaseKey {
    pub(super) key: ImageVerifyingKey,
    pub(super) standing: Standing,
}

/// The OpenPGP certificates that release images.
#[derive(Debug)]
pub(super) struct OpenPgpKeys {
    retiring: Vec<String>,
    pub(super) verifier: OpenPgpVerifier,
}

/// The notary, and who must stand behind what it says.
#[derive(Debug)]
pub(super) struct NotaryPin {
    pub(super) gun: Gun,
    pub(super) key: KeyId,
    pub(super) pin: RootPin,
    pub(super) server: NotaryServer,
}

/// Whether another key is about to take the place of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It is the key of its role.
    Current,
    /// A newer key has its place: it signs beside that one until it is retired.
    Retiring,
}

impl Standing {
    fn of(retiring: bool) -> Self {
        if retiring { Self::Retiring } else { Self::Current }
    }

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Retiring => "retiring",
        }
    }
}

impl ImageTrust {
    /// Takes the keys of a bundle. OpenPGP certificates are those that can be used at `now`.
    ///
    /// Keys for attestations are held against those for images. They and those of manifests must be
    /// what the bundle says of them, and are otherwise left aside.
    pub fn read(bundle: &TrustBundle, now: OffsetDateTime) -> Result<Self, ReadTrustError> {
        if bundle.schema != TRUST_SCHEMA {
            return Err(ReadTrustError::Schema { found: Remark::new(&bundle.schema) });
        }
        let repository = bundle.repository.clone();
        if repository.tag().is_some() || repository.digest().is_some() {
            return Err(ReadTrustError::Repository);
        }
        let image_keys = parse_keys(&bundle.image_keys, "image")?;
        if image_keys.is_empty() {
            return Err(ReadTrustError::NoImageKey);
        }
        let attests = parse_keys(&bundle.attestation_keys, "attestation")?;
        let same = |key: &(Digest, ReleaseKey)| attests.iter().any(|(id, _)| *id == key.0);
        if let Some((id, _)) = image_keys.iter().find(|key| same(key)) {
            return Err(ReadTrustError::TwoRoles { id: id.to_hex() });
        }
        check_manifest_keys(&bundle.manifest_keys)?;
        let notary = bundle.notary.as_ref().map(|root| NotaryPin::read(root, &repository));
        Ok(Self {
            image_keys: image_keys.into_iter().map(|(_, key)| key).collect(),
            lookaside: bundle.lookaside.as_deref().map(Lookaside::at).transpose()?,
            notary: notary.transpose()?,
            openpgp: OpenPgpKeys::read(bundle, now)?,
            repository,
        })
    }

    /// Returns the repository, without tag and digest.
    pub fn repository(&self) -> &ImageReference {
        &self.repository
    }

    /// Returns the notary that announces the images, if there is one.
    pub fn notary(&self) -> Option<&NotaryServer> {
        self.notary.as_ref().map(|notary| &notary.server)
    }

    /// Tells whether an image is one of the repository.
    pub fn is_for(&self, image: &ImageReference) -> bool {
        image.registry() == self.repository.registry()
            && image.repository() == self.repository.repository()
    }
}

impl OpenPgpKeys {
    fn read(bundle: &TrustBundle, now: OffsetDateTime) -> Result<Option<Self>, ReadTrustError> {
        let keys = &bundle.openpgp_keys;
        if keys.is_empty() {
            return Ok(None);
        }
        check_count(keys.len(), "OpenPGP")?;
        for key in keys {
            // Each by itself: one could hold a certificate that the bundle says nothing of.
            let found = OpenPgpVerifier::parse(key.armored.as_bytes(), now)?.certificates();
            if found.iter().map(Fingerprint::as_str).ne([key.fingerprint.as_str()]) {
                let id = Remark::new(&key.fingerprint);
                return Err(ReadTrustError::OtherId { role: "OpenPGP", id });
            }
        }
        let all: String = keys.iter().map(|key| key.armored.as_str()).collect();
        let retiring = keys.iter().filter(|key| key.retiring);
        let retiring = retiring.map(|key| key.fingerprint.clone()).collect();
        Ok(Some(Self { retiring, verifier: OpenPgpVerifier::parse(all.as_bytes(), now)? }))
    }

    pub(super) fn standing(&self, certificate: &Fingerprint) -> Standing {
        Standing::of(self.retiring.iter().any(|retiring| retiring == certificate.as_str()))
    }
}

impl NotaryPin {
    fn read(root: &NotaryRoot, repository: &ImageReference) -> Result<Self, ReadTrustError> {
        let gun = Gun::new(repository.registry(), repository.repository());
        if root.gun != gun.to_string() {
            return Err(ReadTrustError::OtherGun { gun: Remark::new(&root.gun) });
        }
        let key = KeyId::of_certificate(&root.root_certificate);
        if root.root_key_id != key.to_string() {
            let id = Remark::new(&root.root_key_id);
            return Err(ReadTrustError::OtherId { role: "notary root", id });
        }
        let pin = RootPin::parse(&root.root_certificate)?;
        Ok(Self { gun, key, pin, server: root.server.clone() })
    }
}

fn parse_keys(
    keys: &[PublicKey],
    role: &'static str,
) -> Result<Vec<(Digest, ReleaseKey)>, ReadTrustError> {
    check_count(keys.len(), role)?;
    let parse = |(key, number): (&PublicKey, usize)| {
        let standing = Standing::of(key.retiring);
        let parsed = ImageVerifyingKey::from_pem(&key.pem)
            .map_err(|source| ReadTrustError::Key { role, number, source })?;
        let id = key_id(&parsed);
        if id.to_hex() != key.id {
            return Err(ReadTrustError::OtherId { role, id: Remark::new(&key.id) });
        }
        Ok((id, ReleaseKey { key: parsed, standing }))
    };
    keys.iter().zip(1..).map(parse).collect()
}

fn check_manifest_keys(keys: &[PublicKey]) -> Result<(), ReadTrustError> {
    let role = "manifest";
    check_count(keys.len(), role)?;
    for (key, number) in keys.iter().zip(1..) {
        let parsed = ManifestVerifyingKey::from_pem(&key.pem)
            .map_err(|source| ReadTrustError::Key { role, number, source })?;
        if digest(parsed.spki_der()).to_hex() != key.id {
            return Err(ReadTrustError::OtherId { role, id: Remark::new(&key.id) });
        }
    }
    Ok(())
}

fn check_count(count: usize, role: &'static str) -> Result<(), ReadTrustError> {
    if count > MAX_KEYS { Err(ReadTrustError::TooManyKeys { role }) } else { Ok(()) }
}

/// Why a trust bundle cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadTrustError {
    /// A key cannot be read.
    #[error("{role} key {number} of the trust bundle cannot be used")]
    Key {
        /// What the key is for.
        role: &'static str,
        /// Which one, from 1 on.
        number: usize,
        /// The cause.
        source: ParseKeyError,
    },

    /// The lookaside has no address that is gone to.
    #[error("the lookaside of the trust bundle cannot be used")]
    Lookaside(#[from] LookasideError),

    /// Nothing could be good.
    #[error("the trust bundle has no image key")]
    NoImageKey,

    /// The notary's root certificate cannot be read.
    #[error("the notary's root certificate in the trust bundle cannot be used")]
    NotaryRoot(#[from] ParseRootPinError),

    /// An OpenPGP certificate cannot be used.
    #[error("the OpenPGP keys of the trust bundle cannot be used")]
    OpenPgp(#[from] ParseCertificateError),

    /// The notary's data is for another repository.
    #[error("the trust bundle names `{gun}` at its notary, which is not its own repository")]
    OtherGun {
        /// What it names.
        gun: Remark,
    },

    /// A key is not the one that the bundle says.
    #[error("the {role} key that the trust bundle calls `{id}` is another one")]
    OtherId {
        /// What the key is for.
        role: &'static str,
        /// What the bundle says.
        id: Remark,
    },

    /// It names more than a repository.
    #[error("the repository of the trust bundle has a tag or a digest")]
    Repository,

    /// It has a form that is not known here.
    #[error("the trust bundle has the form `{found}`, expected `{TRUST_SCHEMA}`")]
    Schema {
        /// What it says of itself.
        found: Remark,
    },

    /// There are more keys of a role than are tried.
    #[error("the trust bundle has more than {MAX_KEYS} {role} keys")]
    TooManyKeys {
        /// What the keys are for.
        role: &'static str,
    },

    /// An image would be released by whatever is said about it.
    #[error(
        "key `{id}` of the trust bundle is for images and for attestations; it must be for one"
    )]
    TwoRoles {
        /// Its id.
        id: String,
    },
}

/// A rotation has two; each costs requests.
const MAX_KEYS: usize = 8;
