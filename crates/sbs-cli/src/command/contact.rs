//! First contact: the calls that bring a server to a certificate that can be verified.

use sbs_client::BootstrapClient;
use sbs_crypto::pki;
use sbs_proto::Digest;
use serde_json::json;

use crate::args::FirstContact;
use crate::command::{Context, image};
use crate::connection;
use crate::error::{CommandError, Kind};
use crate::file::Existing;

/// Prints the status.
pub(crate) async fn status(
    context: &Context<'_>,
    contact: &FirstContact,
) -> Result<(), CommandError> {
    let status = match bootstrap(context, contact)? {
        None => context.client()?.status().await?,
        Some(client) => {
            let status = client.status().await;
            tell_certificate(context, contact, &client);
            status?
        }
    };
    image::print_status(context, &status)
}

/// Saves the server's request for a certificate.
pub(crate) async fn save_request(
    context: &Context<'_>,
    contact: &FirstContact,
    existing: Existing,
) -> Result<(), CommandError> {
    let host = context.config.hostname()?;
    let mut certificate = None;
    let pem = match bootstrap(context, contact)? {
        None => context.client()?.server_request(host).await?,
        Some(client) => {
            let pem = client.server_request(host).await;
            tell_certificate(context, contact, &client);
            certificate = client.server_certificate().map(<[u8]>::to_vec);
            pem?
        }
    };
    let (path, request) = context.certificates.save_request(&pem, existing)?;
    let path = path.display().to_string();
    let key = request.public_key_sha256();
    if let Some(certificate) = certificate.as_deref() {
        tell_key(context, contact, key, certificate);
    }
    let shown = certificate.map(|der| sbs_crypto::digest(&der).to_string());
    let json = json!({
        "file": path, "public_key": key.to_string(), "server_certificate": shown,
    });
    context.ui.result(&path, json)
}

/// Gives the server its certificate.
pub(crate) async fn post_certificate(
    context: &Context<'_>,
    contact: &FirstContact,
) -> Result<(), CommandError> {
    let pem = context.certificates.server_certificate().map_err(|error| {
        CommandError::from(error).hint("make it first: sbs get-server-csr, sbs sign-csr")
    })?;
    // What is sent is one certificate and nothing else of that file.
    let certificate = pki::describe(&pem).ok().filter(|_| !pem.contains("PRIVATE KEY"));
    let certificate = certificate.ok_or_else(|| {
        CommandError::new(Kind::Config, "the file of the server's certificate is not a certificate")
    })?;
    let reply = match bootstrap(context, contact)? {
        None => context.client()?.install_certificate(&pem).await?,
        Some(client) => {
            let reply = client.install_certificate(&pem).await;
            tell_certificate(context, contact, &client);
            reply?
        }
    };
    let end = certificate.not_after.date();
    context.ui.note(format_args!("the server has a certificate that is valid until {end}"));
    image::print_reply(context, &reply)
}

/// Says how to know whose key it is that a certificate is asked for.
fn tell_key(context: &Context<'_>, contact: &FirstContact, key: &Digest, certificate: &[u8]) {
    if contact.fingerprint.is_some() {
        // Nobody but the server could answer, and so it is its key.
        context.ui.note(format_args!("the request is for the key {key}"));
    } else if pki::public_key_digest(certificate).as_ref() == Some(key) {
        // Whoever compares the certificate has compared the key.
        context.ui.note("the request is for the key of the certificate that the server showed");
    } else {
        context.ui.warning(format_args!(
            "nothing proves that the request is the server's, and whoever has its key can pose as \
             the server: before sign-csr, compare its key {key} with the one that `sbs-server \
             certificate show` prints on the server, or get the request again with --fingerprint"
        ));
    }
}

/// Makes a client of an unverified server, if that is wanted.
fn bootstrap(
    context: &Context<'_>,
    contact: &FirstContact,
) -> Result<Option<BootstrapClient>, CommandError> {
    let FirstContact { fingerprint, noverify } = contact;
    if !noverify && fingerprint.is_none() {
        return Ok(None);
    }
    let (config, certificates) = (&context.config, &context.certificates);
    connection::first_contact(config, certificates, *fingerprint, context.ui).map(Some)
}

/// Says which certificate was accepted, unless it is the one that was expected.
fn tell_certificate(context: &Context<'_>, contact: &FirstContact, client: &BootstrapClient) {
    let (None, Some(der)) = (&contact.fingerprint, client.server_certificate()) else { return };
    let fingerprint = colons(&sbs_crypto::digest(der));
    context.ui.warning(format_args!(
        "the server's certificate was not verified; its SHA-256 fingerprint is {fingerprint}: \
         compare it with that of the server's own, and give it as --fingerprint from now on"
    ));
}

/// Returns a digest as OpenSSL prints fingerprints.
fn colons(digest: &Digest) -> String {
    let pairs = digest.as_bytes().iter().map(|byte| format!("{byte:02X}"));
    pairs.collect::<Vec<_>>().join(":")
}
