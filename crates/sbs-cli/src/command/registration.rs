//! The registration definition of the classic runtime.

use std::path::Path;

use sbs_crypto::openpgp::{OpenPgpRecipient, OpenPgpSigningKey};
use sbs_proto::{Registration, RuntimeType};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::command::Context;
use crate::error::{CommandError, Kind};
use crate::file::{self, Access, Existing};
use crate::limits::PEM_BYTES;

/// What the encrypted definition is made with.
#[derive(Debug)]
pub(crate) struct Sealing<'a> {
    pub(crate) email: Option<&'a str>,
    pub(crate) key_id: Option<&'a str>,
    pub(crate) recipient: Option<&'a Path>,
    pub(crate) secrets: bool,
    pub(crate) vendor_key: Option<&'a Path>,
}

/// Saves the definition as JSON, encrypted to the runtime and signed by the vendor.
pub(crate) async fn save_json(
    context: &Context<'_>,
    sealing: &Sealing<'_>,
) -> Result<(), CommandError> {
    check_runtime_type(context)?;
    let now = OffsetDateTime::now_utc();
    let secrets = if sealing.secrets { Some(secrets(context)?) } else { None };
    let recipient = read_recipient(sealing.recipient, now)?;
    let vendor = vendor_key(context, sealing, now)?;
    let registration = context.client()?.registration().await?;
    let text = definition(&registration, secrets.as_ref(), &vendor.to_armored_certificate())?;
    let message = recipient.encrypt_and_sign(text.as_bytes(), &vendor, now);
    let message = message.map_err(|error| CommandError::new(Kind::Config, error))?;
    let path = format!("{}.enc", repo_id(context)?);
    file::write(Path::new(&path), message.as_bytes(), Access::Everyone, Existing::Replace)?;
    let (recipient, vendor) = (recipient.fingerprint(), vendor.fingerprint());
    context.ui.note(format_args!("encrypted to {recipient}, signed by the vendor key {vendor}"));
    let json = json!({
        "file": path, "recipient": recipient.to_string(), "vendor_key": vendor.to_string(),
    });
    context.ui.result(&path, json)
}

/// Saves the definition as Python, in clear.
pub(crate) async fn save_python(context: &Context<'_>) -> Result<(), CommandError> {
    check_runtime_type(context)?;
    let text = context.client()?.registration_python().await?;
    let path = format!("{}.py", repo_id(context)?);
    let bytes = text.expose().as_bytes();
    // It holds a password.
    file::write(Path::new(&path), bytes, Access::Owner, Existing::Replace)?;
    context.ui.result(&path, json!({ "file": path }))
}

fn check_runtime_type(context: &Context<'_>) -> Result<(), CommandError> {
    match context.config.runtime_type()? {
        RuntimeType::Classic => Ok(()),
        other => {
            let text = format!("there is no registration definition for {}", other.as_str());
            Err(CommandError::new(Kind::Usage, text).hint(
                "contracts of that runtime take the key that get-signed-image-publickey saves",
            ))
        }
    }
}

/// Returns the name that the files of the definition have.
fn repo_id(context: &Context<'_>) -> Result<String, CommandError> {
    let name = context.config.text("REPO_ID")?.unwrap_or("repo_regfile").to_owned();
    let safe = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.starts_with(['.', '-']) || !name.chars().all(safe) || name.len() > MAX_NAME_BYTES {
        let text = "REPO_ID must be letters, digits, `-`, `_` and `.`: it names files";
        return Err(CommandError::new(Kind::Config, text));
    }
    Ok(name)
}

fn secrets(context: &Context<'_>) -> Result<Map<String, Value>, CommandError> {
    let refuse = |text: &str| CommandError::new(Kind::Config, text.to_owned());
    let secrets = context.config.value("ISV_SECRET");
    let secrets = secrets.ok_or_else(|| refuse("--isv-secrets needs ISV_SECRET"))?;
    let secrets = secrets.as_object().filter(|secrets| !secrets.is_empty());
    let secrets = secrets.ok_or_else(|| refuse("ISV_SECRET must be an object with secrets"))?;
    let full = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if secrets.iter().any(|(name, value)| name.is_empty() || !full(value)) {
        return Err(refuse("ISV_SECRET must have names and texts that are not empty"));
    }
    Ok(secrets.clone())
}

/// Makes the definition as the original's client does: all capabilities, and the variables that the
/// runtime itself sets.
fn definition(
    registration: &Registration,
    secrets: Option<&Map<String, Value>>,
    vendor_key: &str,
) -> Result<Zeroizing<String>, CommandError> {
    let internal = |error| CommandError::new(Kind::Internal, error);
    let mut json = serde_json::to_value(registration).map_err(internal)?;
    let members = json.as_object_mut().into_iter();
    for members in members {
        members.insert("cap_add".to_owned(), json!(["ALL"]));
        let names = members.entry("envs_whitelist").or_insert_with(|| json!([]));
        for name in RUNTIME_VARIABLES {
            let names = names.as_array_mut().into_iter();
            for names in names.filter(|names| !names.iter().any(|there| there == name)) {
                names.push(name.into());
            }
        }
        if let Some(secrets) = secrets {
            let list = json!({ "mount_path": SECRETS_PATH, "secrets_list": secrets });
            members.insert("secrets".to_owned(), list);
        }
        members.insert("vendor_key".to_owned(), vendor_key.into());
    }
    serde_json::to_string(&json).map(Zeroizing::new).map_err(internal)
}

fn read_recipient(
    file: Option<&Path>,
    now: OffsetDateTime,
) -> Result<OpenPgpRecipient, CommandError> {
    let bytes = match file {
        Some(file) => file::read(file, PEM_BYTES)?,
        None => RUNTIME_KEY.to_vec(),
    };
    OpenPgpRecipient::parse(&bytes, now).map_err(|error| {
        CommandError::new(Kind::Config, error)
            .hint("give the certificate of the runtime with --recipient FILE")
    })
}

/// Reads the vendor's key, or makes one that stays beside the client's certificates.
fn vendor_key<'a>(
    context: &'a Context<'_>,
    sealing: &Sealing<'a>,
    now: OffsetDateTime,
) -> Result<OpenPgpSigningKey, CommandError> {
    let parse = |bytes: &[u8]| {
        OpenPgpSigningKey::from_bytes(bytes).map_err(|error| {
            CommandError::new(Kind::Config, error)
                .hint("a vendor key is an OpenPGP secret key that signs and has no passphrase")
        })
    };
    if let Some(path) = sealing.vendor_key {
        return parse(&Zeroizing::new(file::read(path, PEM_BYTES)?));
    }
    let path = context.certificates.vendor_key_file()?;
    if path.exists() {
        return parse(&Zeroizing::new(file::read(&path, PEM_BYTES)?));
    }
    // The flag, or what stands in the configuration.
    let or_key = |given: Option<&'a str>, key| match given {
        Some(given) => Ok(Some(given)),
        None => context.config.text(key),
    };
    let name = or_key(sealing.key_id, "KEY_ID")?.unwrap_or("secure-build");
    let user_id = match or_key(sealing.email, "EMAIL")? {
        Some(email) => format!("{name} <{email}>"),
        None => name.to_owned(),
    };
    let key = OpenPgpSigningKey::generate(&user_id, now);
    let key = key.map_err(|error| CommandError::new(Kind::Config, error))?;
    file::write(&path, &key.to_bytes(), Access::Owner, Existing::Keep)?;
    context.ui.note(format_args!(
        "made the vendor key {} in {}",
        key.fingerprint(),
        path.display()
    ));
    Ok(key)
}

/// The certificate `rtoa_destination` of the classic runtime, as its vendor publishes it.
const RUNTIME_KEY: &[u8] = include_bytes!("../../data/classic-runtime.asc");
const SECRETS_PATH: &str = "/isv_secrets/secrets.json";
const MAX_NAME_BYTES: usize = 200;

/// Variables that the runtime itself sets.
const RUNTIME_VARIABLES: [&str; 11] = [
    "RUNQ_ROOTDISK",
    "RUNQ_RUNQENV",
    "RUNQ_SYSTEMD",
    "IMAGE_TAG",
    "REGION",
    "PHASE",
    "LPAR_NAME",
    "CPC",
    "RUNQ_CPU",
    "RUNQ_MEM",
    "POD",
];
