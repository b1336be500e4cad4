use tracing_subscriber::EnvFilter;

/// Writes records to the standard error, one a line; `level` is a filter such as `info`.
pub(crate) fn init(level: &str) {
    // The TPM's library tells of every handle that it closes.
    let filter = EnvFilter::try_new(format!("{level},tss_esapi=warn"))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call, in tests, changes nothing.
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
