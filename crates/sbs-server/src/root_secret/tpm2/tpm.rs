//! One connection to a TPM and the commands of it that the root secret needs (TCG, TPM 2.0
//! Library, part 3).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr as _;

use sbs_state::RootSecret;
use tss_esapi::attributes::{
    NvIndexAttributesBuilder, ObjectAttributesBuilder, SessionAttributesBuilder,
};
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::constants::{CapabilityType, NvIndexType, SessionType};
use tss_esapi::handles::{KeyHandle, NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth, Provision};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    CapabilityData, CreatePrimaryKeyResult, Digest, EccPoint, KeyedHashScheme, NvPublicBuilder,
    PcrSelectionList, PcrSelectionListBuilder, PcrSlot, Private, Public, PublicBuilder,
    PublicEccParametersBuilder, PublicKeyedHashParameters, SensitiveData, SymmetricDefinition,
    SymmetricDefinitionObject,
};
use tss_esapi::traits::{Marshall as _, UnMarshall as _};
use tss_esapi::{Context, TctiNameConf};
use zeroize::Zeroizing;

use crate::root_secret::tpm2::error::Tpm2Error;
use crate::root_secret::tpm2::record::{PcrValues, Record, Sealed};

/// A connection; its end flushes everything from the TPM that it put there.
pub(super) struct Tpm(Context);

/// Why a secret did not come out.
#[derive(Debug)]
pub(super) enum UnsealError {
    /// Something else went wrong.
    Command(Tpm2Error),
    /// The storage key is another one: another TPM, or another owner of this one.
    OtherTpm,
    /// The PCRs are not as they were.
    Policy,
}

impl Tpm {
    pub(super) fn connect(tcti: &str) -> Result<Self, Tpm2Error> {
        let at = |source| Tpm2Error::Connect { tcti: tcti.to_owned(), source };
        let name = TctiNameConf::from_str(tcti).map_err(at)?;
        Context::new(name).map(Self).map_err(at)
    }

    /// Reads the chosen PCRs, and refuses those that nothing is measured into: sealing to them
    /// looks like a policy and is none.
    pub(super) fn measured_pcrs(&mut self, pcrs: &[u8]) -> Result<PcrValues, Tpm2Error> {
        let values = self.read_pcrs(pcrs.iter().copied())?;
        if values.is_empty() || values.len() != pcrs.len() {
            return Err(Tpm2Error::Pcrs);
        }
        for (&pcr, value) in &values {
            for (digit, bits) in [('0', "zero bits"), ('f', "one bits")] {
                if value.chars().all(|c| c == digit) {
                    return Err(Tpm2Error::Unmeasured { pcr, bits });
                }
            }
        }
        Ok(values)
    }

    /// Says which PCRs have other values than in `recorded`.
    pub(super) fn changed_pcrs(&mut self, recorded: &PcrValues) -> Result<String, Tpm2Error> {
        let now = self.read_pcrs(recorded.keys().copied())?;
        let changed: Vec<String> = recorded
            .iter()
            .filter(|(pcr, value)| now.get(pcr) != Some(value))
            .map(|(pcr, _)| pcr.to_string())
            .collect();
        Ok(format!("PCR {} differs", changed.join(", ")))
    }

    /// Seals a secret so that it comes out while the PCRs have these values, and by no password.
    pub(super) fn seal(
        &mut self,
        secret: &RootSecret,
        pcrs: &PcrValues,
    ) -> Result<Sealed, Tpm2Error> {
        let at = || Tpm2Error::command("seal the secret");
        let primary = self.primary()?;
        let policy = self.policy_digest(pcrs)?;
        let session = self.session(&primary, SessionType::Hmac)?;
        let public = sealed_object(policy).map_err(at())?;
        let data = SensitiveData::try_from(secret.expose_bytes().as_slice()).map_err(at())?;
        let made = self
            .0
            .execute_with_session(Some(session), |context| {
                context.create(primary.key_handle, public, None, Some(data), None, None)
            })
            .map_err(at())?;
        Ok(Sealed {
            parent: primary.out_public.marshall().map_err(at())?,
            public: made.out_public.marshall().map_err(at())?,
            private: made.out_private.value().to_vec(),
        })
    }

    /// Brings a secret out.
    pub(super) fn unseal(&mut self, record: &Record) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        let at = || Tpm2Error::command("unseal the secret");
        let command = |source| UnsealError::Command(at()(source));
        let primary = self.primary()?;
        // Before the session, whose secret is encrypted to this key: a thing between us and the
        // TPM could put its own here.
        if primary.out_public.marshall().map_err(command)? != record.sealed.parent {
            return Err(UnsealError::OtherTpm);
        }
        let public = Public::unmarshall(&record.sealed.public).map_err(command)?;
        let private = Private::try_from(record.sealed.private.as_slice()).map_err(command)?;
        let load = self.session(&primary, SessionType::Hmac)?;
        let object = self
            .0
            .execute_with_session(Some(load), |context| {
                context.load(primary.key_handle, private, public)
            })
            .map_err(|source| match kind(source) {
                Some(Tss2ResponseCodeKind::Integrity) => UnsealError::OtherTpm,
                _ => command(source),
            })?;
        let session = self.session(&primary, SessionType::Policy)?;
        let policy = PolicySession::try_from(session).map_err(command)?;
        let selection = selection(&record.pcrs).map_err(command)?;
        // An empty digest stands for the values of now.
        self.0.policy_pcr(policy, Digest::default(), selection).map_err(command)?;
        let data = self
            .0
            .execute_with_session(Some(session), |context| context.unseal(object.into()))
            .map_err(|source| match kind(source) {
                Some(Tss2ResponseCodeKind::PolicyFail | Tss2ResponseCodeKind::PcrChanged) => {
                    UnsealError::Policy
                }
                _ => command(source),
            })?;
        Ok(Zeroizing::new(data.value().to_vec()))
    }

    /// Makes the counter, or takes the one that is there: it must not begin again.
    pub(super) fn define_counter(&mut self, index: u32) -> Result<(), Tpm2Error> {
        let at = || Tpm2Error::command("make the counter; its owner must have no password");
        let handle = NvIndexTpmHandle::new(index).map_err(at())?;
        let attributes = NvIndexAttributesBuilder::new()
            .with_nv_index_type(NvIndexType::Counter)
            .with_auth_read(true)
            .with_auth_write(true)
            .with_no_da(true)
            .build()
            .map_err(at())?;
        if self.has_index(handle).map_err(at())? {
            let there = self.counter(index).map_err(at())?;
            let (public, _name) = self.0.nv_read_public(there).map_err(at())?;
            let ours = public.attributes().index_type().map_err(at())? == NvIndexType::Counter
                && public.attributes().auth_write()
                && public.attributes().auth_read();
            return if ours { Ok(()) } else { Err(Tpm2Error::CounterTaken { index }) };
        }
        let public = NvPublicBuilder::new()
            .with_nv_index(handle)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes)
            .with_data_area_size(COUNTER_BYTES)
            .build()
            .map_err(at())?;
        self.0
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.nv_define_space(Provision::Owner, None, public)
            })
            .map_err(at())?;
        // A counter has no value before it has counted.
        self.increment_counter(index)
    }

    pub(super) fn increment_counter(&mut self, index: u32) -> Result<(), Tpm2Error> {
        let at = || Tpm2Error::command("count");
        let counter = self.counter(index).map_err(at())?;
        self.0
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.nv_increment(NvAuth::NvIndex(counter), counter)
            })
            .map_err(at())
    }

    pub(super) fn read_counter(&mut self, index: u32) -> Result<u64, Tpm2Error> {
        let at = || Tpm2Error::command("have the counter; was it cleared?");
        let counter = self.counter(index).map_err(at())?;
        let value = self
            .0
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.nv_read(NvAuth::NvIndex(counter), counter, 8, 0)
            })
            .map_err(at())?;
        let bytes = value.value().try_into().map_err(|_| {
            let kind = tss_esapi::WrapperErrorKind::WrongValueFromTpm;
            at()(tss_esapi::Error::WrapperError(kind))
        })?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn has_index(&mut self, index: NvIndexTpmHandle) -> tss_esapi::Result<bool> {
        // The first handle from there on, whichever it is.
        let (found, _more) = self.0.get_capability(CapabilityType::Handles, index.into(), 1)?;
        let CapabilityData::Handles(found) = found else { return Ok(false) };
        Ok(found.first() == Some(&TpmHandle::NvIndex(index)))
    }

    fn counter(&mut self, index: u32) -> tss_esapi::Result<NvIndexHandle> {
        let handle = TpmHandle::NvIndex(NvIndexTpmHandle::new(index)?);
        self.0.tr_from_tpm_public(handle).map(NvIndexHandle::from)
    }

    /// Makes the storage key: the same in each call, from a seed that never leaves the TPM.
    fn primary(&mut self) -> Result<CreatePrimaryKeyResult, Tpm2Error> {
        let at = || Tpm2Error::command("make a storage key; its owner must have no password");
        let public = storage_key().map_err(at())?;
        self.0
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.create_primary(Hierarchy::Owner, public, None, None, None, None)
            })
            .map_err(at())
    }

    /// Starts a session that encrypts what goes to the TPM and what comes from it. Its key is
    /// encrypted to the storage key, so whoever listens on the bus does not have it.
    fn session(
        &mut self,
        primary: &CreatePrimaryKeyResult,
        session_type: SessionType,
    ) -> Result<AuthSession, Tpm2Error> {
        let at = || Tpm2Error::command("start an encrypted session");
        let session = self.start(Some(primary.key_handle), session_type)?;
        let (attributes, mask) =
            SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true).build();
        self.0.tr_sess_set_attributes(session, attributes, mask).map_err(at())?;
        Ok(session)
    }

    fn start(
        &mut self,
        key: Option<KeyHandle>,
        session_type: SessionType,
    ) -> Result<AuthSession, Tpm2Error> {
        let at = || Tpm2Error::command("start a session");
        let symmetric = SymmetricDefinition::AES_128_CFB;
        let hash = HashingAlgorithm::Sha256;
        let session = self.0.start_auth_session(key, None, None, session_type, symmetric, hash);
        let none = tss_esapi::Error::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm);
        session.map_err(at())?.ok_or(none).map_err(at())
    }

    /// Computes the policy of PCR values, by a trial session of the TPM itself.
    fn policy_digest(&mut self, pcrs: &PcrValues) -> Result<Digest, Tpm2Error> {
        let at = || Tpm2Error::command("compute the policy");
        let trial = self.start(None, SessionType::Trial)?;
        let policy = PolicySession::try_from(trial).map_err(at())?;
        let values: Vec<u8> =
            pcrs.values().filter_map(|value| hex::decode(value).ok()).flatten().collect();
        // The values that were checked, not those that the PCRs may have by now.
        let digest = Digest::try_from(sbs_crypto::digest(&values).as_bytes().as_slice());
        let selection = selection(pcrs).map_err(at())?;
        self.0.policy_pcr(policy, digest.map_err(at())?, selection).map_err(at())?;
        self.0.policy_get_digest(policy).map_err(at())
    }

    fn read_pcrs(&mut self, pcrs: impl Iterator<Item = u8>) -> Result<PcrValues, Tpm2Error> {
        let mut values = PcrValues::new();
        for pcr in pcrs.collect::<BTreeSet<_>>() {
            // One at a time: an answer holds at most eight.
            let one = PcrValues::from([(pcr, String::new())]);
            let selection = selection(&one).map_err(|_| Tpm2Error::Pcrs)?;
            let answer = self.0.pcr_read(selection).map_err(Tpm2Error::command("show its PCRs"));
            let (_, _, digests) = answer?;
            let digest = digests.value().first().ok_or(Tpm2Error::NoBank { pcr })?;
            let _none = values.insert(pcr, hex::encode(digest.value()));
        }
        Ok(values)
    }
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tpm")
    }
}

impl From<Tpm2Error> for UnsealError {
    fn from(error: Tpm2Error) -> Self {
        Self::Command(error)
    }
}

fn kind(error: tss_esapi::Error) -> Option<Tss2ResponseCodeKind> {
    match error {
        tss_esapi::Error::Tss2Error(code) => code.kind(),
        tss_esapi::Error::WrapperError(_) => None,
    }
}

fn selection(pcrs: &PcrValues) -> tss_esapi::Result<PcrSelectionList> {
    let slots = pcrs
        .keys()
        .map(|&pcr| match pcr {
            0..=23 => PcrSlot::try_from(1_u32 << pcr),
            _ => Err(tss_esapi::Error::WrapperError(tss_esapi::WrapperErrorKind::InvalidParam)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    PcrSelectionListBuilder::new().with_selection(HashingAlgorithm::Sha256, &slots).build()
}

/// The template of the storage key: P-256, that of the TCG's storage root keys.
fn storage_key() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_decrypt(true)
        .with_restricted(true)
        .build()?;
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    );
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters.build()?)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

/// The template of the sealed object: without `userWithAuth`, so that only the policy opens it.
fn sealed_object(policy: Digest) -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_admin_with_policy(true)
        .with_no_da(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(policy)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}

const COUNTER_BYTES: usize = 8;
