//! The command line.

mod certificates;
mod command;
mod instead;
mod prepare;

use std::path::PathBuf;

use clap::{ArgAction, Parser, ValueEnum};

pub(crate) use self::certificates::{CertificateCommand, FirstContact, Layout};
pub(crate) use self::command::{Command, StateCommand};
pub(crate) use self::instead::Instead;
pub(crate) use self::prepare::{NewDefinition, Prepare};

/// Builds container images on a Secure Build Server, and checks what it built.
///
/// A first build takes these steps: prepare, which writes the configuration, the certificates and the
/// file that the server is started with; sbs-server run --init --env-file sbs.env, on the machine of
/// the server; and then init, build --follow and get-manifest --verify-manifest.
#[derive(Debug, Parser)]
#[command(name = "sbs", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done; 1 the server or the build said no; 2 wrong command line \
or configuration; 3 no connection, no answer, or the server is not trusted; 4 a signature or digest did not \
verify; 70 a fault of this program."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Read the configuration from this JSON file; missing UUID and SECRET are added to it
    #[arg(long, global = true, value_name = "FILE", default_value = "sbs-config.json")]
    pub(crate) env: PathBuf,

    /// Print results as text for people or as JSON for programs
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    #[command(flatten)]
    pub(crate) instead: Instead,

    /// Print as much as the original's client does at this level
    #[arg(long, global = true, hide = true, value_name = "LEVEL", ignore_case = true)]
    loglevel: Option<LogLevel>,

    /// Print no notes about what is going on, only results, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Print each request that is made, without what is in it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

/// The form of what is printed on the standard output.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line, each with a member `version`
    Json,
    /// Text
    Text,
}

/// How much is printed on the standard error output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// A level of Python's logging.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum LogLevel {
    Critical,
    Debug,
    Error,
    Info,
    Notset,
    Warning,
}

impl Args {
    pub(crate) fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose, self.loglevel) {
            (true, ..) => Verbosity::Quiet,
            (false, 1.., _) | (false, 0, Some(LogLevel::Debug | LogLevel::Notset)) => {
                Verbosity::Verbose
            }
            (false, 0, None | Some(LogLevel::Info)) => Verbosity::Normal,
            (false, 0, Some(LogLevel::Critical | LogLevel::Error | LogLevel::Warning)) => {
                Verbosity::Quiet
            }
        }
    }
}
