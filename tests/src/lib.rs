//! The harness of the end-to-end tests: the real parts that a Secure Build Server works with, each
//! started for one test, on loopback, on a free port, in a directory of its own.
//!
//! It is for the tests, the demo and the benchmark of this workspace, and for nothing else.
//!
//! | to | start at |
//! |---|---|
//! | have everything: registry, git, base image, server, command line | [`World::start`] |
//! | have a server with nothing to work with | [`BareServer::start`] |
//! | have only what a server works with | [`Parts::start`] |
//! | speak to a server as the original's client does | [`Api`] |
//! | have a manifest, an image or a signature judged by other programs | [`judge`] |
//!
//! Every process that is started here ends with its handle, and with the process that started it,
//! however that ends. Nothing outside the directories is changed.

#![expect(clippy::indexing_slicing, reason = "a JSON value without a key is `null`, no panic")]

mod api;
mod bare;
mod base_image;
mod canary;
mod http;
mod https_git;
pub mod judge;
mod middle;
mod notary;
mod parts;
mod process;
pub mod processes;
mod proxy;
mod registry;
mod repository;
mod sbs;
mod server;
mod ssh_git;
mod tls;
mod world;

// The public interface:
pub use crate::api::{Api, Status};
pub use crate::bare::{BareServer, variable};
pub use crate::base_image::{BASE_REPOSITORY, push_base_image, write_base_image};
pub use crate::canary::Canaries;
pub use crate::http::{Http, Reply};
pub use crate::https_git::HttpsGit;
pub use crate::middle::{ManInTheMiddle, Seen};
pub use crate::notary::{Docker, Notary};
pub use crate::parts::{Parts, Secrets};
pub use crate::process::{Daemon, Outcome, outcome, output, program, wait_until};
pub use crate::proxy::CuttingProxy;
pub use crate::registry::{Account, Registry};
pub use crate::repository::{COMMIT_TIME, Repository, Submodule};
pub use crate::sbs::Sbs;
pub use crate::server::{ServerSetup, TestServer, built};
pub use crate::ssh_git::SshGit;
pub use crate::tls::{Authority, Leaf, TlsStream, client_config, connect_with};
pub use crate::world::World;
