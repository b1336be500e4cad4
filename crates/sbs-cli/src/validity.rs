//! Warnings of certificates that soon end, at whatever command they are seen.

use std::sync::Once;

use sbs_client::Event;
use sbs_crypto::pki::{self, CertificateInfo, DescribeError};
use time::OffsetDateTime;

use crate::certificate::Certificates;
use crate::command::{RENEW_AUTHORITY, RENEW_CLIENT, RENEW_SERVER};
use crate::limits::EARLY_WARNING;
use crate::ui::Ui;

/// Looks at the certificates that a client uses. What cannot be read is told elsewhere.
pub(crate) fn of_client(certificates: &Certificates, ui: &Ui) {
    for (whose, pem, hint) in [
        ("client's", certificates.client_certificate(), RENEW_CLIENT),
        ("authority's", certificates.authority_certificate(), RENEW_AUTHORITY),
    ] {
        if let Ok(pem) = pem {
            warn(whose, &pki::describe(&pem), hint, ui);
        }
    }
}

/// Looks at the certificate that a server shows, at its first answer.
pub(crate) fn of_server(ui: Ui) -> impl Fn(&Event<'_>) {
    let once = Once::new();
    move |event| {
        if let Event::Answered { certificate } = event {
            let info = || pki::describe_der(certificate);
            once.call_once(|| warn("server's", &info(), RENEW_SERVER, &ui));
        }
    }
}

fn warn(whose: &str, info: &Result<CertificateInfo, DescribeError>, hint: &str, ui: &Ui) {
    let Ok(CertificateInfo { not_after, .. }) = info else { return };
    if *not_after < OffsetDateTime::now_utc() + EARLY_WARNING {
        let end = not_after.date();
        ui.warning(format_args!("the {whose} certificate ends on {end}; renew it: {hint}"));
    }
}
