//! The records of a state: how each is written, and what is made of it again.

use std::collections::BTreeSet;

use sbs_crypto::ManifestVerifyingKey;
use sbs_proto::v2::BuildId;
use sbs_proto::{Members, parse_json};
use sbs_state::{AcceptedState, DefinitionKeys, ParseRecordError, RecordName};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::build::notary_roots::NotaryRoots;
use crate::core::builds::{Journal, Phase};
use crate::core::state::error::ImportStateError;
use crate::core::upload::Upload;

/// `instance.json`: which server the state is of.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstanceRecord {
    pub(super) instance_id: String,
    pub(super) server_version: String,
}

/// `builds.json`: the builds that succeeded, newest first. Their manifests and logs are not there.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BuildsRecord {
    pub(super) builds: Vec<KeptBuild>,
}

/// One build that succeeded.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptBuild {
    pub(super) journal: Journal,
    /// The key of its manifest, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) public_key: Option<String>,
}

impl KeptBuild {
    /// Takes what is told of a build on a server that does not have its files.
    pub(super) fn new(mut journal: Journal, public_key: Option<String>) -> Self {
        // What waits to be uploaded stays behind.
        journal.upload = journal.upload.filter(|upload| !Upload::is_pending(upload));
        Self { journal, public_key }
    }
}

/// What a state holds, every record of it understood.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) builds: Vec<KeptBuild>,
    pub(super) instance: InstanceRecord,
    pub(super) keys: DefinitionKeys,
    pub(super) known_hosts: Option<Vec<u8>>,
    pub(super) members: Members,
    pub(super) notary_roots: Option<Vec<u8>>,
}

impl Contents {
    /// Reads the records. No text of theirs gets into an error: they hold secrets.
    ///
    /// Keys that an older state lacks are made now.
    pub(super) fn read(
        state: &AcceptedState,
        now: OffsetDateTime,
    ) -> Result<Self, ImportStateError> {
        let bytes = |record| state.record(record).unwrap_or_default();
        let refuse = |record, reason| ImportStateError::Content { record, reason };
        let (definition, keys) = (RecordName::Definition, RecordName::Keys);
        let instance = parse_json(bytes(RecordName::Instance))
            .map_err(|_| refuse(RecordName::Instance, MALFORMED))?;
        let members = Members::parse(bytes(definition));
        let roots = RecordName::NotaryRoots;
        let notary_roots = state.record(roots).map(<[u8]>::to_vec);
        let checked = notary_roots.as_deref().map(NotaryRoots::check).transpose();
        checked.map_err(|_| refuse(roots, MALFORMED))?;
        let parsed_keys = DefinitionKeys::from_record(bytes(keys), now);
        Ok(Self {
            builds: state.record(RecordName::Builds).map_or(Ok(Vec::new()), read_builds)?,
            instance,
            keys: parsed_keys.map_err(|error| refuse(keys, reason(&error)))?.keys,
            known_hosts: state.record(RecordName::KnownHosts).map(<[u8]>::to_vec),
            members: members.map_err(|_| refuse(definition, MALFORMED))?,
            notary_roots,
        })
    }
}

fn reason(error: &ParseRecordError) -> &'static str {
    match error {
        ParseRecordError::UnsupportedSchema { .. } => "its keys were written by a newer server",
        ParseRecordError::Generate(_) => "the keys that an older server lacked cannot be made",
        _ => "it does not hold the signing keys",
    }
}

fn read_builds(bytes: &[u8]) -> Result<Vec<KeptBuild>, ImportStateError> {
    let refuse = |reason| ImportStateError::Content { record: RecordName::Builds, reason };
    let BuildsRecord { builds } = parse_json(bytes).map_err(|_| refuse(MALFORMED))?;
    let mut seen = BTreeSet::new();
    for build in &builds {
        let journal = &build.journal;
        // The id becomes the name of a directory.
        let id =
            BuildId::parse(&journal.id).map_err(|_| refuse("the id of a build is no number"))?;
        if !seen.insert(id.number()) {
            return Err(refuse("two builds have the same id"));
        }
        if journal.phase != Phase::Succeeded || journal.build_name.is_none() {
            return Err(refuse("there is a build that did not succeed"));
        }
        let key = build.public_key.as_deref().map(ManifestVerifyingKey::from_pem);
        key.transpose().map_err(|_| refuse("the public key of a manifest is none"))?;
    }
    Ok(builds)
}

const MALFORMED: &str = "it is malformed";
