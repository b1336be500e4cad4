//! The certificates of mutual TLS (RFC 5280): one authority, one client, one server.
//!
//! Subjects, life times, key kinds and usages are those of the certificates that the historical
//! client makes, so that both kinds work side by side. Four things differ on purpose:
//!
//! - basic constraints are critical (strict verifiers refuse an authority otherwise), and an
//!   authority signs end entities only (path length 0);
//! - key identifiers are derived from the key (RFC 7093, method 1), not from nothing;
//! - serial numbers have 128 random bits;
//! - a host that is an IP address becomes an IP address in the certificate, as TLS wants it.
//!
//! Beside them, the self-signed certificates that image trust data names its root keys by:
//! [`CodeSigningCertificate`].
//!
//! A certificate is valid from five minutes before it is made, so that a peer whose clock is a
//! little behind accepts it at once. A certificate never outlives its authority.

mod authority;
mod code_signing;
mod describe;
mod host;
mod key;
mod request;
mod revocation;
mod server;

// The public interface:
pub use self::authority::{CertificateAuthority, IssueError, Issued, LoadError};
pub use self::code_signing::{CodeSigningCertificate, ParseCodeSigningError};
pub use self::describe::{CertificateInfo, DescribeError, describe, describe_all, describe_der};
pub use self::request::{ParseRequestError, ServerRequest, public_key_digest};
pub use self::revocation::RevocationList;
pub use self::server::{
    ParseServerChainError, ParseServerKeyError, ServerChain, ServerHost, ServerKey,
};

#[cfg(test)]
mod tests;
