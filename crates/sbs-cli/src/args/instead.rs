/// Flags of the original's client that stand for keys of the configuration, for one run.
#[derive(Debug, clap::Args)]
pub(crate) struct Instead {
    /// The file with the git key, instead of `GITHUB_KEY_FILE`
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) github_key_file: Option<String>,

    /// The client's certificate and key, instead of `CLIENT_CRT_KEY`
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) client_crt_key: Option<String>,

    /// A part of the names of certificate files, instead of `CONTAINER_NAME`
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    pub(crate) container_name: Option<String>,

    /// The certificate of the authority, instead of `CAPATH`
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) capath: Option<String>,

    /// The key of the authority, instead of `CAKEYPATH`
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) cakeypath: Option<String>,

    /// The server's request for a certificate, instead of `CSRPATH`
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) csrpath: Option<String>,

    /// The server's certificate, instead of `CERTPATH`
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) certpath: Option<String>,
}

impl Instead {
    /// Returns the keys that were given, with their values.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("GITHUB_KEY_FILE", &self.github_key_file),
            ("CLIENT_CRT_KEY", &self.client_crt_key),
            ("CONTAINER_NAME", &self.container_name),
            ("CAPATH", &self.capath),
            ("CAKEYPATH", &self.cakeypath),
            ("CSRPATH", &self.csrpath),
            ("CERTPATH", &self.certpath),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }
}
