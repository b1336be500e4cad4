use sbs_client::Client;
use zeroize::Zeroizing;

use crate::certificate::Certificates;
use crate::config::{Config, Notice};
use crate::error::{CommandError, Kind};
use crate::file;
use crate::limits::PEM_BYTES;
use crate::ui::Ui;

/// Makes a client of the server that the configuration names, as the client that it describes.
pub(crate) fn client(
    config: &Config,
    certificates: &Certificates,
    ui: &Ui,
) -> Result<Client, CommandError> {
    let missing = |error| {
        let hint = "make the certificates first: sbs create-client-cert";
        CommandError::new(Kind::Config, error).hint(hint)
    };
    let authority = file::read(&certificates.authority, PEM_BYTES).map_err(missing)?;
    let identity = file::read(&certificates.client, PEM_BYTES).map_err(missing)?;
    let identity = Zeroizing::new(identity);
    // The original's client leaves it open to all.
    if let Some(notice) = Notice::of_mode(&certificates.client)? {
        ui.warning(notice);
    }
    let ui = ui.clone();
    let client = Client::builder(config.hostname()?, config.port()?)?
        .trust(&authority)?
        .identity(&identity)?
        .with_observer(move |event| ui.observe(event))
        .build()?;
    Ok(client)
}
