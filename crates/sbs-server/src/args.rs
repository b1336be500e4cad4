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
    /// `SERVER_KEY`, each base64 of PEM; `sbs instance-env` prints them, and `sbs prepare` writes them to a
    /// file for --env-file. `SERVER_KEY` can be base64 of an
    /// OpenPGP message to this server's identity instead. Without the last two the server starts with a
    /// certificate of its own.
    Run {
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Read the variables from this file, which nobody else may read, instead of the environment
        #[arg(long, value_name = "FILE")]
        env_file: Option<PathBuf>,
        /// On a machine where nothing is kept yet: make the root secret first, if there is none
        #[arg(long)]
        init: bool,
        /// What to log
        #[arg(long, value_name = "LEVEL", default_value = "info",
            value_parser = ["error", "warn", "info", "debug", "trace"])]
        log_level: String,
    },
    /// Look at the certificates of the server that runs here, or replace its own
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Check a settings file and print nothing if it is good
    CheckConfig {
        /// The settings file (TOML)
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the settings with their defaults and explanations
    DefaultConfig,
    /// Try what the server needs on this machine, and tell what is not as it should be
    ///
    /// Nothing is changed, and a server that runs is not disturbed: its certificates are asked for at its
    /// socket. With a fault the exit code is not 0.
    Doctor {
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Look at the certificates in this file, too, as run takes it
        #[arg(long, value_name = "FILE")]
        env_file: Option<PathBuf>,
    },
    /// Make the key that `SERVER_KEY` can be encrypted to, or print its public half
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Change what the server that runs here remembers of notaries
    #[command(subcommand)]
    NotaryRoot(NotaryRootCommand),
    /// Make the root secret, or tell which it is
    #[command(subcommand)]
    RootSecret(RootSecretCommand),
    /// Seal everything in the data directory again, under the current root secret
    ///
    /// The server must be stopped. Afterwards the previous root secrets are of no more use. It can be
    /// interrupted and run again.
    Reseal {
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand {
    /// Print a request for a certificate of the server at this host
    Csr {
        /// The name that clients know the server by: a DNS name, or an IP address without brackets
        host: String,
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Install the certificate that was made of the last request
    Install {
        /// The certificate, PEM, with those between it and the authority behind it
        #[arg(value_name = "FILE")]
        certificate: PathBuf,
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print what the certificates are, with their digests
    Show {
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make the identity of this server, an OpenPGP key; one that exists is not overwritten
    ///
    /// The server must be stopped. The key is kept in the data directory, sealed under the root secret.
    Init {
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the public half, armored: `sbs instance-env` encrypts `SERVER_KEY` to it
    Export {
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NotaryRootCommand {
    /// Forget what a notary has said of a repository: its root of trust, and the versions since
    ///
    /// For a repository whose owner has lost the root key, or has deleted its data at the notary. The
    /// next build takes what the notary says then as the first that it ever said; ask the owner for the
    /// new root key and pin it.
    Forget {
        /// The notary as builds name it: `host`, `host:port` or `https://host[:port]`
        server: String,
        /// The repository, with its registry
        repository: String,
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RootSecretCommand {
    /// Make a root secret where the settings say; nothing that exists is overwritten
    Init {
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Take the secret of this file, such as a backup, instead of a new one
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Write a copy of the secret, to be kept off this machine
        #[arg(long, value_name = "FILE")]
        backup: Option<PathBuf>,
    },
    /// Tell the number and the provider of each root secret, never the secret
    Show {
        /// The settings file (TOML); without it every setting has its default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}
