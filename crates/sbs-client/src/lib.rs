//! Client of a Secure Build Server: one typed call for each route, over mutual TLS.
//!
//! It moves bytes and gives them their types. It is not for judging them: whether a manifest is
//! genuine is decided by `sbs-manifest`, with a key that the caller trusts. It prints nothing and
//! logs nothing; whoever wants to see the requests gives an [observer](ClientBuilder::with_observer).
//!
//! | to | start at |
//! |---|---|
//! | connect | [`Client::builder`] |
//! | meet a server without a certificate of ours | [`ClientBuilder::danger_accept_any_server_certificate`] |
//! | give it one | [`Client::server_request`], [`Client::install_certificate`] |
//! | set what is built and start a build | [`Client::init`], [`Client::update`], [`Client::build`] |
//! | see how far it is | [`Client::status`], [`Client::log`] |
//! | see what there is | [`Client::info`], [`Client::builds`] |
//! | take a manifest | [`Client::find_manifest`], [`Client::download`], [`Client::download_v1`] |
//! | export or import the server's state | [`Client::export_state`], [`Client::import_state`] |
//! | take its key, or the image's digest | [`Client::public_key`], [`Client::image_digest`] |
//! | show text that the server chose | [`Shown`] |
//!
//! ```no_run
//! # async fn example(ca: String, identity: String) -> Result<(), Box<dyn std::error::Error>> {
//! let client = sbs_client::Client::builder("build.example", 443)?
//!     .trust(ca.as_bytes())?
//!     .identity(identity.as_bytes())?
//!     .build()?;
//! println!("{}", sbs_client::Shown::line(client.status().await?.status.as_str()));
//! # Ok(())
//! # }
//! ```
//!
//! The wire follows `docs/formats/wire.md`.

mod body;
mod bootstrap;
mod builder;
mod client;
mod download;
mod error;
pub mod limits;
mod observer;
mod original;
mod state;
mod text;

// The public interface:
pub use crate::bootstrap::{BootstrapClient, Unverified, UnverifiedReady};
pub use crate::builder::{BuildClientError, ClientBuilder, Ready, WantsIdentity, WantsTrust};
pub use crate::client::{Client, FetchedKey};
pub use crate::download::{DescribedManifest, DownloadError, ManifestForm, Offer, Received};
pub use crate::error::{CallError, UntrustedReason};
pub use crate::observer::Event;
pub use crate::state::{ExportedState, ImportedState, StateImport};
pub use crate::text::{Shown, is_deceptive};
