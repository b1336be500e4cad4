//! The commands for certificates, and how a server is met that has none of ours.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use sbs_proto::Digest;

/// What to do with the certificates of client and server.
#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "the text is shown to users, who see no backticks")]
pub(crate) enum CertificateCommand {
    /// Make a certificate authority and the client certificate that this program presents
    #[command(display_order = 1)]
    CreateClientCert {
        /// Make a new certificate and key under the same authority, in the place of those there
        #[arg(long)]
        renew: bool,
    },

    /// Make the server's certificate and key, for the host name in the configuration
    #[command(display_order = 2)]
    CreateServerCert {
        /// Make a new certificate and key, in the place of those there
        #[arg(long)]
        renew: bool,
    },

    /// Save the request for a certificate of a server that makes its own key
    #[command(display_order = 2)]
    GetServerCsr {
        #[command(flatten)]
        contact: FirstContact,

        /// Replace an earlier request
        #[arg(long)]
        overwrite: bool,
    },

    /// Make the certificate that the saved request is for, for the host name in the configuration
    #[command(display_order = 2)]
    SignCsr {
        /// Replace an earlier certificate
        #[arg(long)]
        overwrite: bool,
    },

    /// Give the server the certificate that sign-csr made
    #[command(display_order = 2)]
    PostServerCert {
        #[command(flatten)]
        contact: FirstContact,
    },

    /// Remove the certificates and keys that this program made, those of the authority too
    ///
    /// Files that the configuration names stay; where it has CLIENT_CRT_KEY, nothing is removed.
    #[command(display_order = 3)]
    DeleteCertificates,

    /// Print the environment variables that the server is started with, its private key included
    #[command(display_order = 3)]
    InstanceEnv {
        /// Print in this form, instead of the one that fits RUNTIME_TYPE
        #[arg(long, value_enum, value_name = "FORM")]
        layout: Option<Layout>,

        /// Encrypt SERVER_KEY to the OpenPGP certificate in this file, instead of the one that
        /// SERVER_KEY_RECIPIENT_FILE names, if any
        #[arg(long, value_name = "FILE")]
        recipient: Option<PathBuf>,
    },
}

/// How a server is met that has no certificate of ours yet.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FirstContact {
    /// Accept the server's certificate only if it has this SHA-256 fingerprint, whoever issued it
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    pub(crate) fingerprint: Option<Digest>,

    /// Accept any certificate of the server, and print its fingerprint for comparing; no secret is
    /// sent
    #[arg(long)]
    pub(crate) noverify: bool,
}

/// The form of what `instance-env` prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Layout {
    /// Pairs `-e NAME=value` on one line, for the runtime classic
    Classic,
    /// Lines `NAME: "value"`, for the contract of an instance
    Contract,
    /// Lines `NAME=value`, for --env-file of docker and podman
    Env,
    /// Lines `NAME="value"`, for `EnvironmentFile=` of a unit
    Systemd,
}

/// Parses a fingerprint as tools print it: 64 hex digits of any case, colons between them or not,
/// `sha256:` in front or not.
fn fingerprint(text: &str) -> Result<Digest, String> {
    let digits = text.to_ascii_lowercase();
    let digits = digits.strip_prefix("sha256:").unwrap_or(&digits).replace(':', "");
    Digest::parse(&format!("sha256:{digits}"))
        .map_err(|_| "a SHA-256 fingerprint has 64 hex digits".to_owned())
}
