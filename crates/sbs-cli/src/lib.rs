//! The command line of a Secure Build Server: words become calls, results become text and exit
//! codes.
//!
//! It is a binary, `sbs`; start at [`main`]. It is not for deciding what is genuine: signatures are
//! judged by `sbs-manifest` and `sbs-registry`, certificates are made by `sbs-crypto`.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done, also if the reader of the output went away |
//! | 1 | the server or the build said no |
//! | 2 | the command line or the configuration is wrong |
//! | 3 | no connection, or the server's certificate is not trusted; nothing is known |
//! | 4 | a signature or digest did not verify |
//! | 70 | a fault of this program |
//!
//! The configuration file and the files on disk follow `docs/formats/wire.md`.

mod args;
mod certificate;
mod command;
mod config;
mod connection;
mod definition;
mod error;
mod file;
mod follow;
mod json;
mod limits;
mod login;
mod migrate;
mod original;
mod part;
mod state_file;
mod ui;
mod validity;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Format, Verbosity};
use crate::ui::Ui;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let translated = match original::translate(std::env::args_os()) {
        Ok(translated) => translated,
        Err(error) => {
            Ui::new(Format::Text, Verbosity::Normal).error(&error);
            return error.exit_code();
        }
    };
    let args = match Args::try_parse_from(translated.words) {
        Ok(args) => args,
        Err(error) => return ui::usage(&error),
    };
    let ui = Ui::new(args.format, args.verbosity());
    translated.notes.iter().for_each(|note| ui.note(note));
    match command::run(&args, &ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui.error(&error);
            error.exit_code()
        }
    }
}
