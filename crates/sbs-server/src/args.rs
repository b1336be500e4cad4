use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The Secure Build Server: builds container images whose origin can be proved.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    ///
    /// The certificates come from the environment variables `CLIENT_CA`, `CLIENT_CRT`, `SERVER_CRT` and
    /// `SERVER_KEY`, each base64 of PEM; `sbs instance-env` prints them.
    Run {
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// What to log
        #[arg(long, value_name = "LEVEL", default_value = "info",
            value_parser = ["error", "warn", "info", "debug", "trace"])]
        log_level: String,
    },
    /// Check a settings file and print nothing if it is good
    CheckConfig {
        /// The settings file (TOML)
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the settings with their defaults and explanations
    DefaultConfig,
}
