use std::path::PathBuf;

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use sbs_proto::v2::BuildId;
use sbs_proto::{
    BucketName, BuildName, ImageReference, KeyRole, LogName, RuntimeType, StateImageName,
    TRUST_FILE,
};

use crate::args::{CertificateCommand, FirstContact, Prepare};
use crate::command::parse_image;

/// What to do.
#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "the text is shown to users, who see no backticks")]
pub(crate) enum Command {
    /// Write the configuration, the certificates and the file that the server is started with
    ///
    /// With --git-url and --image it writes the configuration anew; otherwise it takes the one that is
    /// there. Certificates that are there stay, so that it can be repeated.
    #[command(display_order = 0)]
    Prepare(Prepare),

    #[command(flatten)]
    Certificates(CertificateCommand),

    /// Tell a new server what to build, how, and where the image goes
    #[command(display_order = 4)]
    Init,

    /// Tell the server that the configuration changed
    ///
    /// A change of SECRET that was interrupted is gone on with, whether or not --new-secret is given.
    #[command(display_order = 5)]
    Update {
        /// Make a new SECRET; state images that were saved before open only with the old one
        #[arg(long)]
        new_secret: bool,
    },

    /// Start a build; it runs on the server whether or not this program waits
    #[command(display_order = 6)]
    Build {
        /// Print the build's log as it grows; waits like --wait
        #[arg(long)]
        follow: bool,

        /// Wait for the end of the build; the exit code is 0 only if it succeeded
        #[arg(long)]
        wait: bool,
    },

    /// Print what the server has done last, or what failed
    #[command(display_order = 7)]
    Status {
        #[command(flatten)]
        contact: FirstContact,
    },

    /// Print the log of the last build
    #[command(display_order = 8)]
    Log {
        /// Go on printing what is added until the build ends
        #[arg(long)]
        follow: bool,

        /// Print this log; the server keeps one, `build`
        #[arg(long, value_name = "NAME", default_value = "build", value_parser = LogName::parse)]
        log: LogName,
    },

    /// Stop the build that runs, if any, and remove what it left on the server
    #[command(display_order = 9)]
    Clean,

    /// Save the signed manifest of a build: its source, its log and the record of what was done
    ///
    /// A download that was interrupted is gone on with: what there is of it is kept beside the file,
    /// under a name that ends in .part.
    #[command(display_order = 10)]
    GetManifest {
        /// Take the build of this number, which list prints, instead of the last one
        #[arg(long, value_name = "ID", value_parser = BuildId::parse, conflicts_with = "build_name")]
        build_id: Option<BuildId>,

        /// Take the build of this name instead of the one that BUILD_NAME names, or of the last one
        #[arg(long, value_name = "NAME", value_parser = BuildName::parse)]
        build_name: Option<BuildName>,

        /// Verify with the public key in this file, which you have from elsewhere, instead of the
        /// one that the server sends
        #[arg(long, value_name = "FILE")]
        manifest_key: Option<PathBuf>,

        /// Accept the looser form of manifests that the original server makes, which prove less
        #[arg(long)]
        original: bool,

        /// Save the thin form, without the files that the source's own repository has
        #[arg(long, conflicts_with = "original")]
        thin: bool,

        /// Verify the manifest and save its parts and the public key, too
        #[arg(long)]
        verify_manifest: bool,

        /// Make sure that a changed copy of the manifest is refused
        #[arg(long, requires = "verify_manifest")]
        verify_test: bool,
    },

    /// Save the public key that verifies the manifest of a build
    #[command(display_order = 11)]
    GetPublickey {
        /// Take the build of this name instead of the one that BUILD_NAME names, or of the last one
        #[arg(long, value_name = "NAME", value_parser = BuildName::parse)]
        build_name: Option<BuildName>,
    },

    /// Print the registry, repository and digest of the last image built
    #[command(display_order = 12)]
    GetDigest,

    /// Save the public key that the image is checked with, in the form that contracts want it
    #[command(display_order = 12)]
    GetSignedImagePublickey {
        /// Replace the key of an earlier time
        #[arg(long)]
        overwrite: bool,
    },

    /// Save the same key under the name that its file had in 1.3.0.6
    #[command(hide = true)]
    GetDctPublickey {
        /// Replace the key of an earlier time
        #[arg(long)]
        overwrite: bool,
    },

    /// Save all that relying parties need to check the image: keys, policies, commands
    #[command(display_order = 12)]
    GetTrust {
        /// Write into this directory instead of one named after the image
        #[arg(long, value_name = "DIRECTORY")]
        output: Option<PathBuf>,

        /// Replace the files of an earlier time
        #[arg(long)]
        overwrite: bool,
    },

    /// Make a new signing key; the one before it signs beside it until it is retired
    #[command(display_order = 12)]
    RotateKey {
        /// What the key is for
        #[arg(value_parser = key_role())]
        role: KeyRole,

        /// End the rotation: the key before the present one is removed for good
        #[arg(long)]
        retire: bool,
    },

    /// Save the registration definition of the classic runtime, encrypted and signed
    #[command(display_order = 12)]
    GetConfigJson {
        /// Put this address into the user id of a vendor key that is made, instead of EMAIL
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,

        /// Add the run-time secrets that ISV_SECRET in the configuration holds
        #[arg(long)]
        isv_secrets: bool,

        /// Put this name into the user id of a vendor key that is made, instead of KEY_ID;
        /// without both it is `secure-build`
        #[arg(long, value_name = "NAME")]
        key_id: Option<String>,

        /// Encrypt to the OpenPGP certificate in this file instead of the runtime's own
        #[arg(long, value_name = "FILE")]
        recipient: Option<PathBuf>,

        /// Sign with the OpenPGP secret key in this file, which has no passphrase
        #[arg(long, value_name = "FILE")]
        vendor_key: Option<PathBuf>,
    },

    /// Save the registration definition of the classic runtime as Python, in clear
    #[command(display_order = 12)]
    GetConfigPython,

    /// List the builds that the server keeps, newest first
    #[command(display_order = 13)]
    List {
        /// Print at most this many
        #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },

    /// Save the server's state, sealed: its keys and what it builds
    ///
    /// Nobody can open it without both SECRET and the server's root secret. STATE_MIN_EPOCH in the
    /// configuration keeps how new it is, so that no older one is imported by mistake.
    #[command(display_order = 14)]
    GetStateImage {
        /// Replace a file of the same name, which another state image may be in
        #[arg(long)]
        overwrite: bool,

        /// Save the sealed bytes themselves, in a file whose name ends in .sbs-state
        #[arg(long)]
        raw: bool,

        /// Put it into this bucket instead of the one that STATE_BUCKET_NAME names, if any
        #[arg(long, value_name = "NAME", value_parser = BucketName::parse, conflicts_with = "raw")]
        state_bucket_name: Option<BucketName>,
    },

    /// Give a new server the state of another one, with SECRET as it was when the state was saved
    #[command(display_order = 15)]
    PostStateImage {
        /// Accept no state image of a lower epoch, whatever STATE_MIN_EPOCH says
        #[arg(long, value_name = "NUMBER")]
        min_epoch: Option<u64>,

        /// Take the state image of this name from the bucket
        #[arg(long, value_name = "NAME", value_parser = StateImageName::parse)]
        name: Option<StateImageName>,

        /// Take it from this bucket instead of the one that STATE_BUCKET_NAME names, if any
        #[arg(long, value_name = "NAME", value_parser = BucketName::parse)]
        state_bucket_name: Option<BucketName>,

        /// Send the state image in this file, as get-state-image saved it
        #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "state_bucket_name"])]
        state_image: Option<PathBuf>,
    },

    /// Look at state images in files
    #[command(display_order = 16)]
    State {
        #[command(subcommand)]
        command: StateCommand,
    },

    /// Verify a manifest file without a server and without a configuration
    #[command(display_order = 17)]
    Verify {
        /// Say of every check what it means and what was compared
        #[arg(long)]
        explain: bool,

        /// The manifest: a file whose name ends in .sig.tbz or .thin.sig.tar.zst, or an archive
        /// (.tbz, .thin.tar.zst) with its signature (.sig, .thin.sig) beside it
        #[arg(value_name = "MANIFEST")]
        file: PathBuf,

        /// The public key of the manifest, PEM, from a source that you trust
        #[arg(long, value_name = "FILE")]
        key: PathBuf,

        /// Accept the looser form of manifests that the original server makes, which prove less
        #[arg(long)]
        original: bool,

        /// Verify this thin manifest, too, and that it belongs to MANIFEST, which is the full one
        #[arg(long, value_name = "THIN", conflicts_with = "original")]
        thin: Option<PathBuf>,
    },

    /// Make a configuration of today of an old one, beside it, and say what changed and why
    ///
    /// It reads the JSON of all versions of build.py, and the YAML of hpvs sb 1.2.x.
    #[command(display_order = 17)]
    Migrate {
        /// The old configuration
        file: PathBuf,

        /// Write to this file instead of one whose name ends in .migrated.json
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,

        /// Where the image is to run; otherwise what the old configuration says or means
        #[arg(long, value_name = "TYPE", value_parser = runtime_type())]
        runtime_type: Option<RuntimeType>,
    },

    /// Verify an image in a registry by a trust bundle, without a server and without a configuration
    ///
    /// Every form of signature is looked at: cosign's two, Red Hat simple signing and, where the
    /// bundle names one, the notary. Exit code 0: the image is released; 4: it is not signed, or a
    /// signature does not hold; 3: something did not answer, so that nothing is known.
    #[command(display_order = 17)]
    VerifyImage {
        /// Log in with the user name and password in this file instead of those that podman and
        /// docker keep
        #[arg(long, value_name = "FILE")]
        authfile: Option<PathBuf>,

        /// Trust the authorities in this file, PEM, beside those of the system
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,

        /// The image: REPOSITORY:TAG, REPOSITORY@DIGEST or both
        #[arg(value_name = "IMAGE", value_parser = parse_image)]
        image: ImageReference,

        /// Let the registry's users log in at this host, too; it gets the password
        #[arg(long, value_name = "HOST")]
        token_host: Vec<String>,

        /// The trust bundle, as get-trust saves it
        #[arg(long, value_name = "FILE", default_value = TRUST_FILE)]
        trust: PathBuf,
    },

    /// Look at all that a build depends on, and say what is not as it should be and what to do
    ///
    /// The configuration and what it names, the certificates and until when they are valid, the server,
    /// its root secret, and whether its state was saved. With a fault the exit code is not 0.
    #[command(display_order = 18)]
    Doctor,

    /// Print what the server is and can do, and how its root secret is kept
    #[command(display_order = 18)]
    Info,

    /// Print the version of this program
    #[command(display_order = 19)]
    Version,
}

/// What to do with a state image in a file.
#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Print what a state image tells without a secret; nothing of it is proved
    Info {
        /// The state image, as get-state-image saved it
        file: PathBuf,
    },

    /// Prove that a state image can be restored: in a server that is started for that and removed
    ///
    /// It runs on this machine, on loopback, with an empty directory, and needs what a server needs
    /// (root, buildah). Nothing is built and nothing is kept.
    Verify {
        /// The state image, as get-state-image saved it
        file: PathBuf,

        /// The root secret of the server that made the state image, or its backup
        #[arg(long, value_name = "FILE")]
        root_secret: PathBuf,

        /// Start this program; otherwise the sbs-server beside this program, or in PATH
        #[arg(long, value_name = "PATH")]
        server_program: Option<PathBuf>,
    },
}

/// Reads a runtime by its word, and shows all of them in the help.
fn runtime_type() -> impl TypedValueParser<Value = RuntimeType> {
    let all = [RuntimeType::Classic, RuntimeType::OnPrem, RuntimeType::Vpc];
    let words = PossibleValuesParser::new(all.map(RuntimeType::as_str));
    words.map(|word| RuntimeType::parse(&word).unwrap_or(RuntimeType::Vpc))
}

/// Reads a role by its word, and shows all of them in the help.
fn key_role() -> impl TypedValueParser<Value = KeyRole> {
    let words = KeyRole::ALL.map(KeyRole::as_str);
    PossibleValuesParser::new(words).map(|word| KeyRole::parse(&word).unwrap_or(KeyRole::Image))
}
