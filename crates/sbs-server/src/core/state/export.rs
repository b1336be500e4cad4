//! The state of a server as one sealed file.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};

use sbs_crypto::HashingWriter;
use sbs_proto::state::EXPORT_TAG;
use sbs_proto::{DefinitionName, Digest, StateImageName, StateLabel, StateMeta};
use sbs_state::{ClientShare, Export, RecordName, StateWriter};
use tempfile::NamedTempFile;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::build::TIME_IN_NAMES;
use crate::core::Core;
use crate::core::builds::Phase;
use crate::core::error::KeepError;
use crate::core::kept::Kept;
use crate::core::read::OpenedFile;
use crate::core::slot::Slot;
use crate::core::state::STAGING;
use crate::core::state::error::ExportStateError;
use crate::core::state::records::{BuildsRecord, InstanceRecord, KeptBuild};
use crate::limits;
use crate::store::read_small_file;

/// A state image, opened again and found to be what was to be exported. Its file, which only the
/// server's user can read, is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct ExportedState {
    digest: Digest,
    pub(super) file: NamedTempFile,
    length: u64,
    pub(crate) name: StateImageName,
}

/// The records of a state, in their order.
type Records = Vec<(RecordName, Zeroizing<Vec<u8>>)>;

impl ExportedState {
    /// Opens the file for whoever sends it; it has no name in the directory any more.
    pub(crate) fn into_opened(self) -> Result<OpenedFile, ExportStateError> {
        let file = File::open(self.file.path()).map_err(KeepError::io(WHAT))?;
        let version = self.digest.to_hex();
        let (length, name) = (self.length, self.name.to_string());
        Ok(OpenedFile { digest: Some(self.digest), file, length, name, version })
    }
}

impl Core {
    /// Exports the state of an image definition: its keys, itself, and what is told of its builds.
    ///
    /// Nothing changes meanwhile, and the file is opened again before it is given out.
    pub(crate) async fn export_state(
        &self,
        name: &DefinitionName,
    ) -> Result<ExportedState, ExportStateError> {
        let slot = self.slot(name).ok_or(NO_DEFINITION)?;
        let _writer = slot.writer.lock().await;
        let kept = slot.keep.load_definition()?.ok_or(NO_DEFINITION)?;
        let keys = slot.now().keys.clone().ok_or(NO_KEYS)?;
        let at_rest = &self.0.sealing.at_rest;
        let export_seq = self.0.instance.begin_export(at_rest)?;
        let name = state_name(slot, &kept, self.0.clock.now())?;
        let instance = InstanceRecord {
            instance_id: self.0.instance.id(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut records: Records = vec![
            (RecordName::Instance, json(&instance)?),
            (RecordName::Definition, kept.expose_members()),
            (RecordName::Keys, keys.to_record()),
            (RecordName::Builds, builds(slot)?),
        ];
        let known_hosts = read_small_file(&slot.known_hosts()).map_err(KeepError::io(WHAT))?;
        records.extend(known_hosts.map(|bytes| (RecordName::KnownHosts, bytes)));
        let roots = read_small_file(&slot.notary_roots()).map_err(KeepError::io(WHAT))?;
        records.extend(roots.map(|bytes| (RecordName::NotaryRoots, bytes)));
        let created_ms = self.0.clock.now().unix_timestamp_nanos() / 1_000_000;
        let export = Export {
            epoch: kept.epoch(),
            export_seq,
            created_ms: u64::try_from(created_ms).unwrap_or(0),
            meta: self.meta(&name),
        };
        let exported = self.seal(export.clone(), kept.client_share(), &records, name)?;
        self.check_export(&exported, &export, kept.client_share(), &records)?;
        let (name, epoch, bytes) = (&exported.name, export.epoch, exported.length);
        tracing::info!(%name, epoch, export_seq, bytes, "state exported");
        Ok(exported)
    }

    /// Says what whoever has the file can read.
    fn meta(&self, name: &StateImageName) -> StateMeta {
        let label = |text: &str| StateLabel::parse(text).ok();
        StateMeta {
            client_ca_sha256: Some(self.0.sealing.client_ca_sha256()),
            export_tag: label(EXPORT_TAG),
            image_tag: None,
            name: Some(name.clone()),
            provider: Some(self.0.sealing.provider().clone()),
            server_version: label(env!("CARGO_PKG_VERSION")),
        }
    }

    /// Writes the records, sealed, into a file of their own.
    fn seal(
        &self,
        export: Export,
        client: &ClientShare,
        records: &Records,
        name: StateImageName,
    ) -> Result<ExportedState, ExportStateError> {
        let staging = self.0.store.directory(STAGING).map_err(KeepError::io(WHAT))?;
        // Mode 0600.
        let file = NamedTempFile::new_in(staging).map_err(KeepError::io(WHAT))?;
        let output = HashingWriter::new(BufWriter::new(file.as_file()));
        let server = self.0.sealing.current();
        let mut state = StateWriter::new(export, server, client, output)?;
        for (name, bytes) in records {
            state.record(*name, bytes)?;
        }
        let (mut output, digest, length) = state.finish()?.finish();
        output.flush().map_err(KeepError::io(WHAT))?;
        drop(output);
        Ok(ExportedState { digest, file, length, name })
    }

    /// Opens what was sealed, as an import would, and compares it with what was to be sealed.
    fn check_export(
        &self,
        exported: &ExportedState,
        export: &Export,
        client: &ClientShare,
        records: &Records,
    ) -> Result<(), ExportStateError> {
        let file = File::open(exported.file.path()).map_err(KeepError::io(WHAT))?;
        let input = io::BufReader::new(file);
        let sealing = &self.0.sealing;
        let opened = sbs_state::open(sealing.shares(), client, input);
        let opened = opened.map_err(ExportStateError::Check)?;
        let policy = sealing.policy(export.epoch, export.epoch)?;
        let state = opened.accept(&policy).map_err(ExportStateError::Check)?;
        let header = state.header();
        let same_header = (header.epoch, header.export_seq, &header.meta)
            == (export.epoch, export.export_seq, &export.meta);
        let all = RecordName::ALL.into_iter().filter(|name| state.record(*name).is_some());
        let same_records = all.eq(records.iter().map(|(name, _)| *name))
            && records.iter().all(|(name, bytes)| state.record(*name) == Some(bytes.as_slice()));
        if same_header && same_records { Ok(()) } else { Err(ExportStateError::Differs) }
    }
}

/// Names the state image after the newest build that succeeded, as the original does, or after the
/// repository.
fn state_name(
    slot: &Slot,
    kept: &Kept,
    now: OffsetDateTime,
) -> Result<StateImageName, ExportStateError> {
    let builds = slot.builds.newest_first()?;
    let succeeded = builds.iter().filter(|(journal, _)| journal.phase == Phase::Succeeded);
    let names = succeeded.filter_map(|(journal, _)| journal.build_name.as_ref());
    let time = now.format(TIME_IN_NAMES).unwrap_or_default();
    let repository =
        kept.definition().ok().map(|definition| definition.destination.repository().clone());
    let repository = repository.map(|name| name.as_str().replace('/', "."));
    let candidates = names.take(1).map(ToString::to_string);
    let mut candidates = candidates
        .chain(repository.map(|name| format!("state.{name}.{time}")))
        // Where the name of the repository leaves no room for the rest.
        .chain([format!("state.{time}")]);
    let name = candidates.find_map(|text| StateImageName::parse(&text).ok());
    name.ok_or(ExportStateError::Differs)
}

/// Writes `builds.json`: as many of the newest builds that succeeded as there is room for.
fn builds(slot: &Slot) -> Result<Zeroizing<Vec<u8>>, ExportStateError> {
    let mut record = BuildsRecord::default();
    let mut room = limits::STATE_BUILDS;
    let mut left_out = 0_usize;
    for (journal, files) in slot.builds.newest_first()? {
        if journal.phase != Phase::Succeeded {
            continue;
        }
        let key = read_small_file(&files.public_key()).map_err(KeepError::io(WHAT))?;
        let key = key.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        let build = KeptBuild::new(journal, key);
        let bytes = json(&build)?.len() + 1;
        match room.checked_sub(bytes) {
            Some(rest) if left_out == 0 => {
                room = rest;
                record.builds.push(build);
            }
            _ => left_out += 1,
        }
    }
    if left_out > 0 {
        tracing::warn!(left_out, "the oldest builds have no room in the state image");
    }
    json(&record)
}

fn json(value: &impl serde::Serialize) -> Result<Zeroizing<Vec<u8>>, ExportStateError> {
    let bytes = serde_json::to_vec(value).map_err(KeepError::damaged(WHAT))?;
    Ok(Zeroizing::new(bytes))
}

const NO_DEFINITION: ExportStateError = ExportStateError::Nothing {
    what: "there is no image definition; run `init` and a build first",
};
const NO_KEYS: ExportStateError =
    ExportStateError::Nothing { what: "there are no keys; run a build first" };
const WHAT: &str = "the state image";
