use sbs_client::{BootstrapClient, Client};
use sbs_proto::Digest;
use zeroize::Zeroizing;

use crate::certificate::Certificates;
use crate::config::{Config, Notice};
use crate::error::{CommandError, Kind};
use crate::file::{self, ReadFileError};
use crate::limits::PEM_BYTES;
use crate::ui::Ui;
use crate::validity;

/// Makes a client of the server that the configuration names, as the client that it describes.
pub(crate) fn client(
    config: &Config,
    certificates: &Certificates,
    ui: &Ui,
) -> Result<Client, CommandError> {
    let authority = file::read(&certificates.authority, PEM_BYTES).map_err(missing)?;
    let identity = identity(certificates, ui)?;
    validity::of_client(certificates, ui);
    let (ui, of_server) = (ui.clone(), validity::of_server(ui.clone()));
    let client = Client::builder(config.hostname()?, config.port()?)?
        .trust(&authority)?
        .identity(&identity)?
        .with_observer(move |event| {
            of_server(event);
            ui.observe(event);
        })
        .build()?;
    Ok(client)
}

/// Makes a client of a server whose certificate is none of ours yet.
pub(crate) fn first_contact(
    config: &Config,
    certificates: &Certificates,
    expected: Option<Digest>,
    ui: &Ui,
) -> Result<BootstrapClient, CommandError> {
    let identity = identity(certificates, ui)?;
    let ui = ui.clone();
    let client = Client::builder(config.hostname()?, config.port()?)?
        .danger_accept_any_server_certificate(expected)
        .identity(&identity)?
        .with_observer(move |event| ui.observe(event))
        .build_bootstrap()?;
    Ok(client)
}

fn identity(certificates: &Certificates, ui: &Ui) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let identity = file::read(&certificates.client, PEM_BYTES).map_err(missing)?;
    // The original's client leaves it open to all.
    if let Some(notice) = Notice::of_mode(&certificates.client)? {
        ui.warning(notice);
    }
    Ok(Zeroizing::new(identity))
}

fn missing(error: ReadFileError) -> CommandError {
    let hint = "make the certificates first: sbs create-client-cert";
    CommandError::new(Kind::Config, error).hint(hint)
}
