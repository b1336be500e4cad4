//! The routes of the v1 wire.
//!
//! | route | methods | what |
//! |---|---|---|
//! | [`IMAGE`] | GET, POST, PATCH, PUT, DELETE | status, init, update, build, clean |
//! | [`log`] | GET | a log |
//! | [`MANIFEST`] | GET | the manifest of a build |
//! | [`PUBLIC_KEY`] | GET | the public key of a build's manifest |
//! | [`IMAGE_DIGEST`] | GET | the digest reference of the last image |
//! | [`CONFIG_JSON`] | GET | the registration definition, JSON |
//! | [`CONFIG_PYTHON`] | GET | the registration definition, Python |
//! | [`csr`] | GET | a request for a certificate of the server |
//! | [`CERTIFICATE`] | POST | that certificate |
//! | [`STATE_IMAGE`] | GET, POST | export and import of the state |

use crate::LogName;

/// The certificate of the server.
pub const CERTIFICATE: &str = "/certificate";

/// The registration definition as JSON; answers with status 201.
pub const CONFIG_JSON: &str = "/config-json";

/// The registration definition as Python; answers with status 201.
pub const CONFIG_PYTHON: &str = "/config-python";

/// The image definition and its build.
pub const IMAGE: &str = "/image";

/// The digest reference of the last image built; answers with status 201.
pub const IMAGE_DIGEST: &str = "/imagedigest";

/// The manifest of a build.
pub const MANIFEST: &str = "/manifest";

/// The public key of a build's manifest.
pub const PUBLIC_KEY: &str = "/publickey";

/// The state image.
pub const STATE_IMAGE: &str = "/state-image";

/// The pattern of the log routes, with the log's name as `{name}`.
pub const LOG_PATTERN: &str = "/log/{name}";

/// The pattern of the routes of requests for a certificate, with the server's name as `{host}`.
pub const CSR_PATTERN: &str = "/csr/{host}";

/// Returns the route of a request for a certificate of the server at this host: a DNS name, or an IP
/// address without brackets.
pub fn csr(host: &str) -> String {
    CSR_PATTERN.replace("{host}", host)
}

/// Returns the route of a log.
pub fn log(name: LogName) -> String {
    LOG_PATTERN.replace("{name}", name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_log_has_the_originals_path() {
        assert_eq!(log(LogName::Build), "/log/build");
    }

    #[test]
    fn the_request_of_a_host_has_the_originals_path() {
        assert_eq!(csr("build.example"), "/csr/build.example");
        assert_eq!(csr("192.0.2.1"), "/csr/192.0.2.1");
    }
}
