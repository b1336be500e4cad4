use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sbs_proto::{CommitId, GitReference, GitUrl, SecretText};
use zeroize::Zeroizing;

use super::command::{Git, History, ObjectFormat, Repository, Transfer, TransferError};
use super::diagnosis::Verdict;
use super::ssh::{self, KeyFile};
use super::{FetchFault, FetchRequest, GitTrust, HostKeys};

/// Reaches servers, and knows which of them may get the credentials.
#[derive(Debug)]
pub(super) struct Remotes<'a> {
    key: Option<KeyFile>,
    top: &'a GitUrl,
    trust: &'a GitTrust,
}

/// What is wanted of a repository.
#[derive(Debug)]
pub(super) enum Wanted<'a> {
    Commit(CommitId),
    Head,
    Name(&'a GitReference),
}

/// A commit that is now in the local repository, with all its files.
#[derive(Debug)]
pub(super) struct Downloaded {
    pub(super) commit: CommitId,
    /// The fingerprint of the ssh host key.
    pub(super) host_key: Option<String>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(reference: Option<&'a GitReference>) -> Self {
        match reference.map(|reference| (reference, reference.as_commit())) {
            None => Self::Head,
            Some((_, Some(commit))) => Self::Commit(commit),
            Some((reference, None)) => Self::Name(reference),
        }
    }

    fn missing(&self) -> FetchFault {
        let reference = match self {
            Self::Head => return FetchFault::NoDefaultBranch,
            Self::Commit(commit) => commit.to_string(),
            Self::Name(reference) => super::error::shorten(reference.as_str()),
        };
        FetchFault::NoSuchReference { reference }
    }
}

impl<'a> Remotes<'a> {
    /// Writes the key where ssh finds it, if it can be needed.
    pub(super) async fn open(
        git: &Git<'_>,
        request: &FetchRequest<'a>,
    ) -> Result<Self, FetchFault> {
        let source = request.source;
        let key = match &source.key {
            Some(key) if source.url.is_ssh() || source.recurse_submodules => {
                Some(KeyFile::create(git, request.directory, key).await?)
            }
            _ => None,
        };
        Ok(Self { key, top: &source.url, trust: request.trust })
    }

    /// Resolves what is wanted, once, and transfers that commit into a new repository.
    pub(super) async fn download(
        &self,
        git: &Git<'_>,
        repository: &Repository,
        url: &GitUrl,
        wanted: &Wanted<'_>,
    ) -> Result<Downloaded, FetchFault> {
        let format = match wanted {
            Wanted::Commit(commit) if commit.as_str().len() == 64 => ObjectFormat::Sha256,
            _ => ObjectFormat::Sha1,
        };
        git.init(repository, format).await?;
        let known = self.known_hosts_bytes();
        let call = Call { git, remotes: self, repository, url };
        let mut result = call.download(wanted).await;
        let other_format = matches!(&result, Err(error) if error.verdict == Verdict::ObjectFormat);
        if other_format && format == ObjectFormat::Sha1 {
            fs::remove_dir_all(&repository.git_dir)?;
            git.init(repository, ObjectFormat::Sha256).await?;
            result = call.download(wanted).await;
        }
        let downloaded = result.map_err(|error| call.fault(error, wanted))?;
        if let Some(host_key) = &downloaded.host_key {
            let host = url.host();
            if self.known_hosts_bytes() > known {
                git.log().warning(&format!(
                    "the ssh host key of {host} was not known; {host_key} is recorded and no other \
                     will be accepted"
                ));
            } else {
                git.log().info(&format!("the ssh host key of {host} is {host_key}, as recorded"));
            }
        }
        Ok(downloaded)
    }

    /// Returns what the transport to this URL needs. A key or password goes to the server that it
    /// was given for, and to no other.
    fn transport(&self, url: &GitUrl) -> Result<Transport, FetchFault> {
        if url.is_ssh() {
            let key = self.key.as_ref().filter(|_| url.host() == self.top.host());
            let command = ssh::command(&self.trust.known_hosts, key)?;
            let environment = vec![("GIT_SSH_COMMAND", command), ("GIT_SSH_VARIANT", "ssh".into())];
            return Ok(Transport { protocol: "ssh", environment, configuration: Vec::new() });
        }
        let mut configuration = Vec::new();
        if let Some(file) = &self.trust.ca_file {
            let file = file.to_str().ok_or(FetchFault::Internal("git CA path is not UTF-8"))?;
            configuration.push(format!("http.sslCAInfo={file}"));
        }
        let of_top = || self.top.credentials().filter(|_| server(url) == server(self.top));
        let environment = match url.credentials().or_else(of_top) {
            Some((user, password)) => authorization(server(url), user, password),
            None => Vec::new(),
        };
        Ok(Transport { protocol: "https", environment, configuration })
    }

    /// Returns the length of the `known_hosts` file, which ssh only ever appends to.
    fn known_hosts_bytes(&self) -> u64 {
        let (HostKeys::FirstUse(file) | HostKeys::Pinned(file)) = &self.trust.known_hosts;
        fs::metadata::<&Path>(file).map_or(0, |metadata| metadata.len())
    }
}

struct Transport {
    configuration: Vec<String>,
    environment: Vec<(&'static str, String)>,
    protocol: &'static str,
}

/// One repository on its server and here.
struct Call<'a> {
    git: &'a Git<'a>,
    remotes: &'a Remotes<'a>,
    repository: &'a Repository,
    url: &'a GitUrl,
}

impl Call<'_> {
    async fn download(&self, wanted: &Wanted<'_>) -> Result<Downloaded, TransferError> {
        let missing = |error: &TransferError| error.verdict == Verdict::MissingReference;
        let host_key = match wanted {
            Wanted::Head => self.one("HEAD").await?,
            Wanted::Name(name) => match self.one(&format!("refs/heads/{name}")).await {
                Err(error) if missing(&error) => self.one(&format!("refs/tags/{name}")).await?,
                other => other?,
            },
            Wanted::Commit(commit) => match self.one(commit.as_str()).await {
                // Not every server gives out a commit by its id.
                Err(error) if error.verdict == Verdict::Unadvertised => self.everything().await?,
                other => other?,
            },
        };
        let commit = self.resolve(wanted).await.map_err(TransferError::plain)?;
        Ok(Downloaded { commit, host_key })
    }

    async fn one(&self, name: &str) -> Result<Option<String>, TransferError> {
        self.transfer(History::Shallow, &[format!("+{name}:{FETCHED}")]).await
    }

    async fn everything(&self) -> Result<Option<String>, TransferError> {
        let refspecs =
            ["+refs/heads/*:refs/sbs/heads/*".into(), "+refs/tags/*:refs/sbs/tags/*".into()];
        self.git.log().info("the server gives out no commit by its id; fetching the whole history");
        self.transfer(History::Full, &refspecs).await
    }

    async fn transfer(
        &self,
        history: History,
        refspecs: &[String],
    ) -> Result<Option<String>, TransferError> {
        let Transport { configuration, environment, protocol } =
            self.remotes.transport(self.url).map_err(TransferError::plain)?;
        let url = self.url.as_str();
        let transfer = Transfer { environment, configuration, history, protocol, refspecs, url };
        let ear = self.git.transfer(self.repository, &transfer).await?;
        Ok(ear.into_host_key())
    }

    /// Returns the id of the commit that was fetched.
    async fn resolve(&self, wanted: &Wanted<'_>) -> Result<CommitId, FetchFault> {
        let name = match wanted {
            Wanted::Commit(commit) => commit.as_str(),
            Wanted::Head | Wanted::Name(_) => FETCHED,
        };
        // An annotated tag stands for its commit.
        let name = format!("{name}^{{commit}}");
        let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &name];
        let id = match self.git.output(self.repository, &arguments, 256).await {
            Err(FetchFault::Git { .. }) => return Err(wanted.missing()),
            other => other?,
        };
        let id = String::from_utf8_lossy(&id);
        let id = CommitId::parse(id.trim_end())
            .map_err(|_| FetchFault::Internal("git resolved a reference to no commit id"))?;
        match wanted {
            // The id of a tag object is not the id of a commit.
            Wanted::Commit(commit) if *commit != id => Err(wanted.missing()),
            _ => Ok(id),
        }
    }

    fn fault(&self, error: TransferError, wanted: &Wanted<'_>) -> FetchFault {
        let FetchFault::Git { .. } = error.error else { return error.error };
        match error.verdict {
            Verdict::MissingReference | Verdict::Unadvertised => wanted.missing(),
            Verdict::Peer(source) => FetchFault::Peer { host: self.url.host().to_owned(), source },
            Verdict::TooLarge => self.git.too_large(),
            Verdict::Unsound => FetchFault::Unsound,
            Verdict::ObjectFormat | Verdict::Unknown => error.error,
        }
    }
}

/// Returns the host with the port of an https URL.
fn server(url: &GitUrl) -> Option<&str> {
    url.as_str().strip_prefix("https://")?.split('/').next()
}

/// Returns the environment that makes git send HTTP Basic credentials (RFC 7617) to one server.
fn authorization(
    server: Option<&str>,
    user: &str,
    password: &SecretText,
) -> Vec<(&'static str, String)> {
    let mut plain = Zeroizing::new(percent_decode(user));
    plain.push(b':');
    plain.extend_from_slice(&Zeroizing::new(percent_decode(password.expose())));
    vec![
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", format!("http.https://{}/.extraHeader", server.unwrap_or_default())),
        ("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {}", STANDARD.encode(&*plain))),
    ]
}

/// Decodes `%` and two hex digits (RFC 3986, 2.1); anything else stands for itself.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let mut byte = [0];
        match tail.split_at_checked(2).filter(|_| first == b'%') {
            Some((digits, tail)) if hex::decode_to_slice(digits, &mut byte).is_ok() => {
                decoded.extend(byte);
                rest = tail;
            }
            _ => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    decoded
}

const FETCHED: &str = "refs/sbs/fetched";

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(top: &str, url: &str) -> Vec<(&'static str, String)> {
        let trust =
            GitTrust { known_hosts: HostKeys::Pinned("/known hosts".into()), ca_file: None };
        let top = GitUrl::parse(top).unwrap();
        let remotes = Remotes { key: None, top: &top, trust: &trust };
        remotes.transport(&GitUrl::parse(url).unwrap()).unwrap().environment
    }

    #[test]
    fn g11_a_password_goes_to_its_server_by_the_environment() {
        let top = "https://us%65r:p%3Aw%@h:8443/r";
        let expected = vec![
            ("GIT_CONFIG_COUNT", "1".to_owned()),
            ("GIT_CONFIG_KEY_0", "http.https://h:8443/.extraHeader".to_owned()),
            (
                "GIT_CONFIG_VALUE_0",
                format!("Authorization: Basic {}", STANDARD.encode("user:p:w%")),
            ),
        ];
        assert_eq!(environment(top, top), expected);
        assert_eq!(environment(top, "https://h:8443/other"), expected);
        for url in ["https://h/r", "https://h:8444/r", "https://i:8443/r", "https://h.i:8443/r"] {
            assert_eq!(environment(top, url), [], "{url}");
        }
        let ssh = environment(top, "ssh://git@h:8443/r");
        assert!(ssh.iter().all(|(_, value)| !value.contains("p:w")), "{ssh:?}");
    }

    #[test]
    fn the_authority_file_is_gits() {
        let trust = GitTrust {
            known_hosts: HostKeys::Pinned("/k".into()),
            ca_file: Some("/etc/git ca.pem".into()),
        };
        let url = GitUrl::parse("https://h/r").unwrap();
        let remotes = Remotes { key: None, top: &url, trust: &trust };
        let transport = remotes.transport(&url).unwrap();
        assert_eq!(transport.configuration, ["http.sslCAInfo=/etc/git ca.pem"]);
        assert_eq!(transport.protocol, "https");
    }
}
