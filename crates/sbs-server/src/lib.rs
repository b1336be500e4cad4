//! The Secure Build Server: it pulls source from git, builds an image from its Dockerfile, signs it
//! with keys born inside, pushes it and writes a signed manifest.
//!
//! This crate is the daemon; it is not a library for other programs. [`main`] is all there is to
//! call. Where to read on: `core` (what the server does, without HTTP), `build` (the steps of a
//! build), `registry`, `tool` (child processes), `http` and `tls` (who may ask, and how), `store`
//! (what is on the disk).

mod args;
mod build;
mod clock;
mod config;
mod core;
mod http;
mod limits;
mod registry;
mod run;
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
    let result: Result<(), Box<dyn std::error::Error>> = match args.command {
        args::Command::Run { config, log_level } => {
            telemetry::init(&log_level);
            run::run(config.as_deref()).map_err(Into::into)
        }
        args::Command::CheckConfig { config } => {
            config::Settings::load(&config).map(drop).map_err(Into::into)
        }
        args::Command::DefaultConfig => {
            let text = include_bytes!("../default.toml");
            std::io::stdout().write_all(text).map_err(Into::into)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("error: {}\n", build::failure::chain(&*error));
            // With no standard error there is nobody left to tell.
            let _nobody = std::io::stderr().write_all(text.as_bytes());
            ExitCode::FAILURE
        }
    }
}
