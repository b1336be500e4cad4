use std::path::PathBuf;

use sbs_proto::ImageReference;

/// What `prepare` makes of nothing, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Prepare {
    #[command(flatten)]
    pub(crate) definition: Option<NewDefinition>,

    /// Write the variables that the server is started with to this file
    #[arg(long, value_name = "FILE", default_value = "sbs.env")]
    pub(crate) output: PathBuf,

    /// Replace that file
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// What a new configuration says: what to build, and where the image goes.
#[derive(Debug, clap::Args)]
#[group(requires_all = ["git_url", "image"])]
pub(crate) struct NewDefinition {
    /// The branch to build, instead of the repository's own
    #[arg(long, value_name = "NAME")]
    pub(crate) git_branch: Option<String>,

    /// A private key without passphrase that reads the repository, where it is not public
    #[arg(long, value_name = "FILE")]
    pub(crate) git_key: Option<PathBuf>,

    /// The repository with the Dockerfile
    #[arg(long, value_name = "URL", required = false)]
    pub(crate) git_url: String,

    /// The name that clients know the server by: a DNS name or an IP address
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    pub(crate) hostname: String,

    /// Where the image goes; its tag is this one, a hyphen and seven digits of the commit
    #[arg(long, value_name = "REGISTRY/REPOSITORY:TAG", required = false,
        value_parser = ImageReference::parse)]
    pub(crate) image: ImageReference,

    /// Read the registry's password from the standard input, instead of from the files in which
    /// podman and docker keep it
    #[arg(long, requires = "user")]
    pub(crate) password_stdin: bool,

    /// The port that clients reach the server at
    #[arg(long, value_name = "NUMBER", default_value = "443",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,

    /// The user at the registry
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    pub(crate) user: Option<String>,
}
