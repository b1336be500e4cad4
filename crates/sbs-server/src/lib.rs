//! The Secure Build Server: it pulls source from git, builds an image from its Dockerfile, signs it
//! with keys born inside, pushes it and writes a signed manifest.
//!
//! This crate is the daemon; it is not a library for other programs. [`main`] is all there is to
//! call. Where to read on: `core` (what the server does, without HTTP), `build` (the steps of a
//! build), `registry`, `tool` (child processes), `http`, `listener`, `tls` and `certificates` (who may
//! ask, and how), `admin` (what the operator asks on the machine itself), `store` (what is on the disk).

mod admin;
mod args;
mod build;
mod certificates;
mod clock;
mod config;
mod core;
mod doctor;
mod env_file;
mod hardening;
mod http;
mod identity;
mod limits;
mod listener;
mod reseal;
mod root_secret;
mod run;
mod sealed_file;
mod storage;
mod store;
mod telemetry;
mod tls;
mod tool;

use std::io::Write as _;
use std::process::ExitCode;

// The public interface:
pub use crate::args::Args;

/// Runs what the command line asks for; the exit code is that of the process.
pub fn main(args: Args) -> ExitCode {
    match execute(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("error: {}\n", build::failure::chain(&*error));
            // With no standard error there is nobody left to tell.
            let _nobody = std::io::stderr().write_all(text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn execute(command: args::Command) -> Result<(), Box<dyn std::error::Error>> {
    hardening::harden()?;
    let text = match command {
        args::Command::Run { config, env_file, init, log_level } => {
            telemetry::init(&log_level);
            hardening::hide_panic_messages();
            run::run(config.as_deref(), env_file.as_deref(), init)?;
            String::new()
        }
        args::Command::Certificate(command) => run::certificate(command)?,
        args::Command::CheckConfig { config } => {
            config::Settings::load(&config)?;
            String::new()
        }
        args::Command::Doctor { config, env_file } => {
            let now = clock::Clock::system().now();
            let report = doctor::run(config.as_deref(), env_file.as_deref(), now)?;
            let (text, outcome) = report.finish();
            std::io::stdout().write_all(text.as_bytes())?;
            outcome?;
            String::new()
        }
        args::Command::DefaultConfig => include_str!("../default.toml").to_owned(),
        args::Command::Identity(args::IdentityCommand::Init { config }) => {
            identity::init(&run::load_settings(config.as_deref())?, clock::Clock::system())?
        }
        args::Command::Identity(args::IdentityCommand::Export { config }) => {
            identity::export(&run::load_settings(config.as_deref())?)?
        }
        args::Command::NotaryRoot(command) => run::notary_root(command)?,
        args::Command::RootSecret(args::RootSecretCommand::Init { config, from, backup }) => {
            let settings = run::load_settings(config.as_deref())?.root_secret;
            root_secret::init(&settings, from.as_deref(), backup.as_deref())?
        }
        args::Command::RootSecret(args::RootSecretCommand::Show { config }) => {
            let settings = run::load_settings(config.as_deref())?.root_secret;
            root_secret::show(&settings, config::credentials_directory().as_deref())?
        }
        args::Command::Reseal { config } => run::reseal(config.as_deref())?,
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
