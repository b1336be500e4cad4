//! The keys of an image definition as others see them: what relying parties and runtimes are told,
//! and new keys in the place of old ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_crypto::openpgp::OpenPgpSigningKey;
use sbs_crypto::{ImageSigningKey, digest};
use sbs_proto::{
    Definition, DefinitionName, Digest, KeyRole, NotaryRoot, NotaryServer, OpenPgpPublicKey,
    PublicKey, Registration, RuntimeType, SecretText, StateSecret, TRUST_SCHEMA, TrustBundle,
};
use sbs_registry::notary::{Gun, NotaryKeys};
use sbs_state::{ClientShare, DefinitionKeys, Rotation};

use crate::build::notary_roots::NotaryRoots;
use crate::core::Core;
use crate::core::error::{ForgetNotaryRootError, KeepError, RotateError, TrustError};
use crate::core::slot::Slot;

impl Core {
    /// Returns what is needed to check the images of a definition.
    pub(crate) fn trust(&self, name: &DefinitionName) -> Result<TrustBundle, TrustError> {
        let (definition, keys) = self.definition_and_keys(name)?;
        Ok(TrustBundle {
            attestation_keys: image_keys(keys.attestation()),
            definition: name.clone(),
            image_keys: image_keys(keys.image()),
            lookaside: self.0.builder.lookaside().map(ToOwned::to_owned),
            manifest_keys: public_keys(keys.manifest(), |key| {
                let key = key.verifying_key();
                (key.to_pem(), digest(key.spki_der()))
            }),
            notary: notary_root(&definition, &keys)?,
            openpgp_keys: openpgp_keys(keys.openpgp()),
            repository: definition.destination.clone(),
            schema: TRUST_SCHEMA.to_owned(),
        })
    }

    /// Returns what a runtime is told of the image, with the credentials for pulling it.
    pub(crate) fn registration(&self, name: &DefinitionName) -> Result<Registration, TrustError> {
        let (definition, keys) = self.definition_and_keys(name)?;
        let key = &keys.openpgp().current;
        // The original's client writes the key to a file as it comes here, and makes base64 of it
        // everywhere else.
        let verbatim = definition.destination.registry().is_docker_hub()
            || definition.runtime_type == RuntimeType::Classic;
        let (public_key_id, text) = match notary_root(&definition, &keys)? {
            Some(root) => (root.root_key_id, root.root_certificate),
            None => (key.fingerprint().to_string(), key.to_armored_certificate()),
        };
        let public_key = if verbatim { STANDARD.encode(text) } else { text };
        let (user, password) = match definition.pull_credentials {
            Some(credentials) => (credentials.user, credentials.password),
            None => (String::new(), SecretText::new(String::new())),
        };
        Ok(Registration {
            docker_password: password,
            docker_username: user,
            envs_whitelist: definition.env_whitelist,
            public_key,
            public_key_id,
            repository_name: definition.destination.to_string(),
        })
    }

    /// Makes a new key for a role; the one before it signs beside it until it is retired. It takes
    /// the secret of the image definition, as `update` does.
    pub(crate) async fn rotate_key(
        &self,
        name: &DefinitionName,
        role: KeyRole,
        secret: &StateSecret,
    ) -> Result<(), RotateError> {
        let now = self.0.clock.now();
        self.change_keys(name, secret, move |keys| keys.rotate(role, now)).await
    }

    /// Ends the rotation of a role: the key before the present one is gone for good. It takes the
    /// secret of the image definition.
    pub(crate) async fn retire_key(
        &self,
        name: &DefinitionName,
        role: KeyRole,
        secret: &StateSecret,
    ) -> Result<(), RotateError> {
        self.change_keys(name, secret, move |keys| keys.retire(role)).await
    }

    /// Forgets what a notary has said of a repository; what is remembered of others stays.
    pub(crate) async fn forget_notary_root(
        &self,
        name: &DefinitionName,
        server: &NotaryServer,
        gun: &Gun,
    ) -> Result<(), ForgetNotaryRootError> {
        let unknown =
            || ForgetNotaryRootError::Unknown { server: server.clone(), gun: gun.clone() };
        let slot = self.slot(name).ok_or_else(unknown)?;
        let _writer = slot.writer.lock().await;
        // A build writes what it began with.
        if slot.now().running.is_some() {
            return Err(ForgetNotaryRootError::Busy);
        }
        if !NotaryRoots::load(&slot.notary_roots())?.forget(server, gun)? {
            return Err(unknown());
        }
        tracing::warn!(definition = %name, %server, %gun, "what a notary has said was forgotten");
        Ok(())
    }

    async fn change_keys(
        &self,
        name: &DefinitionName,
        secret: &StateSecret,
        change: impl FnOnce(&mut DefinitionKeys) -> Result<(), sbs_state::RotateKeyError>
        + Send
        + 'static,
    ) -> Result<(), RotateError> {
        let slot = self.slot(name).ok_or(TrustError::NoSuchDefinition)?;
        let share = ClientShare::derive(secret);
        let _writer = slot.writer.lock().await;
        {
            let now = slot.now();
            let known = now.known.as_ref().ok_or(RotateError::NotInitialised)?;
            self.0.attempts.check()?;
            if !known.client_share.same_as(&share) {
                self.0.attempts.wrong();
                return Err(RotateError::WrongSecret);
            }
            self.0.attempts.right();
        }
        // A build signs with the keys that it began with.
        if slot.now().running.is_some() {
            return Err(RotateError::Busy);
        }
        let kept = slot.keep.load_definition().map_err(TrustError::from)?;
        let kept = kept.ok_or(TrustError::NoKeys)?;
        let keys = slot.now().keys.clone().ok_or(TrustError::NoKeys)?;
        let now = self.0.clock.now();
        let changed = tokio::task::spawn_blocking(move || {
            let copied = DefinitionKeys::from_record(&keys.to_record(), now);
            let mut keys = copied.map_err(KeepError::damaged(WHAT)).map_err(TrustError::from)?.keys;
            change(&mut keys)?;
            Ok::<_, RotateError>(keys)
        });
        let keys = changed.await.map_err(KeepError::damaged(WHAT)).map_err(TrustError::from)??;
        slot.set_keys(kept, keys, &self.0.sealing)?;
        Ok(())
    }

    fn definition_and_keys(
        &self,
        name: &DefinitionName,
    ) -> Result<(Definition, std::sync::Arc<DefinitionKeys>), TrustError> {
        let slot: &Slot = self.slot(name).ok_or(TrustError::NoSuchDefinition)?;
        let kept = slot.keep.load_definition()?.ok_or(TrustError::NoKeys)?;
        let keys = slot.now().keys.clone().ok_or(TrustError::NoKeys)?;
        let definition = kept.definition().map_err(KeepError::damaged(WHAT))?;
        Ok((definition, keys))
    }
}

fn image_keys(keys: &Rotation<ImageSigningKey>) -> Vec<PublicKey> {
    public_keys(keys, |key| {
        let key = key.verifying_key();
        (key.to_pem(), digest(key.spki_der()))
    })
}

/// Lists the keys of a role by their PEM and the digest of their DER.
fn public_keys<K>(keys: &Rotation<K>, public: impl Fn(&K) -> (String, Digest)) -> Vec<PublicKey> {
    let all = keys.keys().enumerate();
    all.map(|(place, key)| {
        let (pem, id) = public(key);
        PublicKey { id: id.to_hex(), pem, retiring: place > 0 }
    })
    .collect()
}

fn openpgp_keys(keys: &Rotation<OpenPgpSigningKey>) -> Vec<OpenPgpPublicKey> {
    let all = keys.keys().enumerate();
    all.map(|(place, key)| OpenPgpPublicKey {
        armored: key.to_armored_certificate(),
        fingerprint: key.fingerprint().to_string(),
        retiring: place > 0,
    })
    .collect()
}

/// Returns the name that a definition's repository has at a notary.
pub(crate) fn gun(definition: &Definition) -> Gun {
    Gun::new(definition.destination.registry(), definition.destination.repository())
}

fn notary_root(
    definition: &Definition,
    keys: &DefinitionKeys,
) -> Result<Option<NotaryRoot>, KeepError> {
    let Some(server) = &definition.notary else { return Ok(None) };
    let gun = gun(definition);
    // They are made when the next build starts.
    let Some(record) = keys.notary(&gun.to_string()) else { return Ok(None) };
    let keys = NotaryKeys::from_record(record).map_err(KeepError::damaged(WHAT))?;
    Ok(Some(NotaryRoot {
        gun: gun.to_string(),
        root_certificate: keys.certificate_pem().to_owned(),
        root_key_id: keys.root_key_id().to_string(),
        server: server.clone(),
    }))
}

const WHAT: &str = "the keys";

#[cfg(test)]
mod tests;
