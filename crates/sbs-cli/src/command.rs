mod build;
mod certificate;
mod contact;
mod doctor;
mod drill;
mod environment;
mod image;
mod info;
mod list;
mod log;
mod manifest;
mod migrate;
mod prepare;
mod registration;
mod rotate;
mod state;
mod trust;
mod verify;
mod verify_image;

use sbs_client::{Client, ManifestForm};
use sbs_manifest::Detail;
use sbs_proto::v2::Selector;
use serde_json::json;
use time::OffsetDateTime;

use crate::args::{Args, CertificateCommand, Command, Prepare, StateCommand};
use crate::certificate::{Certificates, Renewal};
use crate::command::trust::KeySuffix;
use crate::command::verify::KeySource;
use crate::config::{Config, Notice, OpenConfigError};
use crate::connection;
use crate::error::{CommandError, Kind};
use crate::file::{Existing, ReadFileError};
use crate::ui::Ui;

pub(crate) use self::doctor::{RENEW_AUTHORITY, RENEW_CLIENT, RENEW_SERVER};
pub(crate) use self::verify_image::parse_image;

/// Does what the command line says.
pub(crate) fn run(args: &Args, ui: &Ui) -> Result<(), CommandError> {
    match &args.command {
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            ui.result(format_args!("sbs {version}"), json!({"sbs": version}))
        }
        Command::Verify { explain, file, key, original, thin } => {
            let detail = if *explain { Detail::Explained } else { Detail::Outcome };
            let form = verify::form(*original);
            let thin = thin.as_deref();
            verify::run(&verify::Question { file, thin, key, form, detail }, ui)
        }
        Command::VerifyImage { authfile, ca_file, image, token_host, trust } => {
            let asked = verify_image::Asked {
                image,
                trust,
                auth_file: authfile.as_deref(),
                ca_file: ca_file.as_deref(),
                token_hosts: token_host,
            };
            block_on(verify_image::run(&asked, OffsetDateTime::now_utc(), ui))
        }
        Command::State { command: StateCommand::Info { file } } => state::info(file, ui),
        Command::Migrate { file, output, runtime_type } => {
            migrate::run(file, output.as_deref(), *runtime_type, ui)
        }
        command => {
            let now = OffsetDateTime::now_utc();
            if let Command::Prepare(Prepare { definition: Some(definition), .. }) = command {
                prepare::write_config(&args.env, definition, ui)?;
            }
            let context = Context::open(args, now, ui)?;
            run_with_config(command, &context, now)
        }
    }
}

/// What every command with a configuration works with.
struct Context<'a> {
    certificates: Certificates,
    config: Config,
    ui: &'a Ui,
}

impl<'a> Context<'a> {
    fn open(args: &Args, now: OffsetDateTime, ui: &'a Ui) -> Result<Self, CommandError> {
        let (mut config, notices) = Config::open(&args.env, now).map_err(|error| {
            let missing = matches!(&error, OpenConfigError::Read(ReadFileError::Missing { .. }));
            let error = CommandError::from(error);
            if missing {
                error.hint("name another: sbs --env FILE, or make one: sbs prepare")
            } else {
                error
            }
        })?;
        for notice in notices {
            match notice {
                Notice::Completed { .. } => ui.note(notice),
                Notice::ReadableByOthers { .. } => ui.warning(notice),
            }
        }
        config.override_with(args.instead.keys());
        Ok(Self { certificates: Certificates::of(&config)?, config, ui })
    }

    fn client(&self) -> Result<Client, CommandError> {
        connection::client(&self.config, &self.certificates, self.ui)
    }
}

fn run_with_config(
    command: &Command,
    context: &Context<'_>,
    now: OffsetDateTime,
) -> Result<(), CommandError> {
    match command {
        Command::Certificates(command) => run_for_certificates(command, context, now),
        Command::Doctor => block_on(doctor::run(context, now)),
        Command::Prepare(asked) => prepare::run(context, asked, now),
        command => block_on(call(command, context)),
    }
}

fn run_for_certificates(
    command: &CertificateCommand,
    context: &Context<'_>,
    now: OffsetDateTime,
) -> Result<(), CommandError> {
    match command {
        CertificateCommand::CreateClientCert { renew } => {
            certificate::create_client(context, renewal(*renew), now)
        }
        CertificateCommand::CreateServerCert { renew } => {
            certificate::create_server(context, renewal(*renew), now)
        }
        CertificateCommand::GetServerCsr { contact, overwrite } => {
            block_on(contact::save_request(context, contact, existing(*overwrite)))
        }
        CertificateCommand::SignCsr { overwrite } => {
            certificate::sign_request(context, existing(*overwrite), now)
        }
        CertificateCommand::PostServerCert { contact } => {
            block_on(contact::post_certificate(context, contact))
        }
        CertificateCommand::DeleteCertificates => certificate::delete(context),
        CertificateCommand::InstanceEnv { layout, recipient } => {
            environment::print(context, *layout, recipient.as_deref(), now)
        }
    }
}

fn block_on(calls: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CommandError::new(Kind::Internal, error))?.block_on(calls)
}

async fn call(command: &Command, context: &Context<'_>) -> Result<(), CommandError> {
    match command {
        Command::Init => image::init(context).await,
        Command::Update { new_secret } => {
            let pending = context.config.pending_secret()?.is_some();
            if *new_secret || pending {
                rotate::run(context).await
            } else {
                image::update(context).await
            }
        }
        Command::GetStateImage { overwrite, raw, state_bucket_name } => {
            let existing = existing(*overwrite);
            let bucket = state_bucket_name.as_ref();
            state::export(context, &state::Export { bucket, existing, raw: *raw }).await
        }
        Command::PostStateImage { min_epoch, name, state_bucket_name, state_image } => {
            let import = state::Import {
                bucket: state_bucket_name.as_ref(),
                file: state_image.as_deref(),
                min_epoch: *min_epoch,
                name: name.as_ref(),
            };
            state::import(context, &import).await
        }
        Command::State { command: StateCommand::Verify { file, root_secret, server_program } } => {
            let drill = drill::Drill { file, root_secret, program: server_program.as_deref() };
            drill::run(context, &drill).await
        }
        Command::Status { contact } => contact::status(context, contact).await,
        Command::Info => info::print(context).await,
        Command::Clean => image::clean(context).await,
        Command::GetDigest => image::digest(context).await,
        Command::Build { follow, wait } => {
            build::run(context, build::Patience::of(*wait, *follow)).await
        }
        Command::Log { follow: true, log } => log::follow(context, *log).await,
        Command::Log { follow: false, log } => log::print(context, *log).await,
        Command::List { limit } => list::print(context, usize::from(*limit)).await,
        Command::GetManifest {
            build_id,
            build_name,
            manifest_key,
            original,
            thin,
            verify_manifest,
            verify_test,
        } => {
            let key = match (manifest_key, verify_manifest) {
                (Some(path), _) => Some(KeySource::File(path.clone())),
                (None, true) => Some(KeySource::Server),
                (None, false) => None,
            };
            let form = if *thin { ManifestForm::Thin } else { ManifestForm::Full };
            let compatibility = verify::form(*original);
            let build = match build_id {
                Some(id) => Selector::Id(id.clone()),
                None => manifest::named(context, build_name.as_ref())?
                    .map_or(Selector::Latest, Selector::Named),
            };
            let verification = key.map(|key| manifest::Verification { key, test: *verify_test });
            manifest::fetch(context, &build, verification, compatibility, form).await
        }
        Command::GetPublickey { build_name } => {
            let build = manifest::named(context, build_name.as_ref())?;
            manifest::fetch_key(context, build.as_ref()).await
        }
        Command::GetSignedImagePublickey { overwrite } => {
            trust::save_image_key(context, KeySuffix::Public, existing(*overwrite)).await
        }
        Command::GetDctPublickey { overwrite } => {
            trust::save_image_key(context, KeySuffix::Dct, existing(*overwrite)).await
        }
        Command::GetTrust { output, overwrite } => {
            trust::save(context, output.as_deref(), existing(*overwrite)).await
        }
        Command::RotateKey { role, retire } => trust::rotate(context, *role, *retire).await,
        Command::GetConfigJson { email, isv_secrets, key_id, recipient, vendor_key } => {
            let sealing = registration::Sealing {
                email: email.as_deref(),
                key_id: key_id.as_deref(),
                recipient: recipient.as_deref(),
                secrets: *isv_secrets,
                vendor_key: vendor_key.as_deref(),
            };
            registration::save_json(context, &sealing).await
        }
        Command::GetConfigPython => registration::save_python(context).await,
        Command::Certificates(_)
        | Command::Doctor
        | Command::Migrate { .. }
        | Command::Prepare(_)
        | Command::State { command: StateCommand::Info { .. } }
        | Command::Verify { .. }
        | Command::VerifyImage { .. }
        | Command::Version => {
            Err(CommandError::new(Kind::Internal, "a command without calls came to the calls"))
        }
    }
}

fn existing(overwrite: bool) -> Existing {
    if overwrite { Existing::Replace } else { Existing::Keep }
}

fn renewal(renew: bool) -> Renewal {
    if renew { Renewal::Renew } else { Renewal::Keep }
}
