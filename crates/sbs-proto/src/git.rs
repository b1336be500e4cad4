use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::SecretText;
use crate::image::is_host;

/// Where a repository is fetched from: `https://host/path`, `ssh://user@host/path` or the short
/// form `user@host:path`.
///
/// Every other transport is refused here, before git sees it. A user and password in an https URL
/// are kept apart and never printed.
pub struct GitUrl {
    text: String,
    host: String,
    name: String,
    transport: Transport,
    credentials: Option<(String, SecretText)>,
}

impl GitUrl {
    /// Parses a URL.
    pub fn parse(text: &str) -> Result<Self, ParseGitError> {
        if text.len() > MAX_URL_BYTES {
            return Err(ParseGitError::TooLong);
        }
        if text.starts_with('-') || text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(ParseGitError::Character);
        }
        if let Some(rest) = text.strip_prefix("https://") {
            return Self::parse_https(rest);
        }
        if let Some(rest) = text.strip_prefix("ssh://") {
            return Self::parse_ssh(text, rest);
        }
        // git reads `word::rest` as "run the helper git-remote-word".
        if text.contains("://") || text.contains("::") {
            return Err(ParseGitError::Transport);
        }
        Self::parse_short(text)
    }

    /// Returns the URL for git and for people, without any password.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the host without port, or the IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Tells whether git reaches the repository by ssh (else by https).
    pub fn is_ssh(&self) -> bool {
        self.transport == Transport::Ssh
    }

    /// Returns the user and the password or token that stood in an https URL.
    pub fn credentials(&self) -> Option<(&str, &SecretText)> {
        self.credentials.as_ref().map(|(user, password)| (user.as_str(), password))
    }

    /// Returns the last part of the path without `.git`: the name people give the repository. It is
    /// the name of a file: not empty, `.` or `..`, without `/`, and at most 255 bytes long.
    pub fn repository_name(&self) -> &str {
        &self.name
    }

    fn parse_https(rest: &str) -> Result<Self, ParseGitError> {
        let (authority, path) = split_path(rest)?;
        let (user_info, host_port) = match authority.rsplit_once('@') {
            Some((user_info, host_port)) => (Some(user_info), host_port),
            None => (None, authority),
        };
        let host = parse_host_port(host_port)?;
        let credentials = user_info.map(|user_info| {
            let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
            (user.to_owned(), SecretText::new(password.to_owned()))
        });
        Ok(Self {
            text: format!("https://{host_port}/{path}"),
            host,
            name: repository_name(path)?,
            transport: Transport::Https,
            credentials,
        })
    }

    fn parse_ssh(text: &str, rest: &str) -> Result<Self, ParseGitError> {
        let (authority, path) = split_path(rest)?;
        let (user, host_port) = split_user(authority)?;
        if user.is_some_and(|user| user.contains(':')) {
            return Err(ParseGitError::PasswordInSshUrl);
        }
        Ok(Self {
            text: text.to_owned(),
            host: parse_host_port(host_port)?,
            name: repository_name(path)?,
            transport: Transport::Ssh,
            credentials: None,
        })
    }

    fn parse_short(text: &str) -> Result<Self, ParseGitError> {
        let (authority, path) = text.split_once(':').ok_or(ParseGitError::Transport)?;
        // `./x:y` and `a/b:c` are local paths to git.
        if authority.contains('/') {
            return Err(ParseGitError::Transport);
        }
        if path.is_empty() || path.starts_with('-') {
            return Err(ParseGitError::Path);
        }
        // A mistyped `https:/user:password@host/path` must not be taken, and shown, as a path.
        if path.contains('@') {
            return Err(ParseGitError::Transport);
        }
        let (_user, host) = split_user(authority)?;
        if !is_host(host) {
            return Err(ParseGitError::Host);
        }
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            name: repository_name(path)?,
            transport: Transport::Ssh,
            credentials: None,
        })
    }
}

impl fmt::Debug for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the user: a token can stand in that place.
        f.debug_tuple("GitUrl").field(&self.text).finish()
    }
}

impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Transport {
    Https,
    Ssh,
}

/// A branch, a tag or a full commit id to build.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GitReference(String);

impl GitReference {
    /// Parses a reference by the rules of git-check-ref-format(1), without a leading `-`.
    pub fn parse(text: &str) -> Result<Self, ParseGitError> {
        let refused = text.is_empty()
            || text.len() > MAX_REFERENCE_BYTES
            || text.starts_with(['-', '/'])
            || text.ends_with(['/', '.'])
            || text == "@"
            || ["..", "@{", "//"].iter().any(|part| text.contains(part))
            || text.chars().any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
            || text.split('/').any(|part| {
                part.starts_with('.')
                    || std::path::Path::new(part).extension().is_some_and(|e| e == "lock")
            });
        if refused { Err(ParseGitError::Reference) } else { Ok(Self(text.to_owned())) }
    }

    /// Returns the reference as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the commit id if the reference is one.
    pub fn as_commit(&self) -> Option<CommitId> {
        CommitId::parse(&self.0).ok()
    }
}

impl fmt::Display for GitReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The full id of a commit: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CommitId(String);

impl CommitId {
    /// Parses a full commit id.
    pub fn parse(text: &str) -> Result<Self, ParseGitError> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits && matches!(text.len(), 40 | 64) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseGitError::Commit)
        }
    }

    /// Returns the full id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first seven digits.
    pub fn short(&self) -> &str {
        self.0.get(..7).unwrap_or(&self.0)
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for CommitId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for CommitId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// Why a text is no git URL, reference or commit. It never repeats the text: that may hold a
/// password.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ParseGitError {
    /// The URL begins with `-` or has a blank or control character.
    #[error("git URL begins with `-` or has a blank or control character")]
    Character,

    /// The text is not a full commit id.
    #[error("not a full commit id of 40 or 64 lower-case hex digits")]
    Commit,

    /// The URL's host is not a host name or address.
    #[error("git URL has no valid host name or address")]
    Host,

    /// The URL's path ends in nothing that a repository can be called.
    #[error(
        "git URL ends in no name of a repository: its last part, without `.git`, is empty, `.`, \
         `..` or longer than {MAX_NAME_BYTES} bytes"
    )]
    Name,

    /// An ssh URL has a password.
    #[error("ssh URL has a password; ssh uses the key of GITHUB_KEY_FILE")]
    PasswordInSshUrl,

    /// The URL has no path, or one that begins with `-`.
    #[error("git URL has no path, or one that begins with `-`")]
    Path,

    /// The text is not the name of a branch or tag.
    #[error("not a branch, a tag or a full commit id")]
    Reference,

    /// The URL is longer than 2,048 bytes.
    #[error("git URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,

    /// The URL's transport is not https or ssh.
    #[error("git URL is neither https://host/path, ssh://user@host/path nor user@host:path")]
    Transport,
}

/// Splits what follows `scheme://` into authority and path.
fn split_path(rest: &str) -> Result<(&str, &str), ParseGitError> {
    match rest.split_once('/') {
        Some((authority, path)) if !path.is_empty() && !path.starts_with('-') => {
            Ok((authority, path))
        }
        _ => Err(ParseGitError::Path),
    }
}

/// Returns what git-clone(1) would call the directory.
fn repository_name(path: &str) -> Result<String, ParseGitError> {
    let path = path.trim_end_matches('/');
    // The repository of a work tree has the name of the work tree.
    let path = path.strip_suffix("/.git").unwrap_or(path).trim_end_matches('/');
    let name = path.rsplit(['/', '\\', ':']).next().unwrap_or(path);
    let name = name.strip_suffix(".git").unwrap_or(name);
    if matches!(name, "" | "." | "..") || name.len() > MAX_NAME_BYTES {
        return Err(ParseGitError::Name);
    }
    Ok(name.to_owned())
}

fn split_user(authority: &str) -> Result<(Option<&str>, &str), ParseGitError> {
    let Some((user, host)) = authority.rsplit_once('@') else { return Ok((None, authority)) };
    if user.is_empty() || user.starts_with('-') {
        return Err(ParseGitError::Host);
    }
    Ok((Some(user), host))
}

fn parse_host_port(text: &str) -> Result<String, ParseGitError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(ParseGitError::Host)?;
        let good = address.parse::<std::net::Ipv6Addr>().is_ok()
            && port.strip_prefix(':').map_or(port.is_empty(), |port| port.parse::<u16>().is_ok());
        return if good { Ok(address.to_owned()) } else { Err(ParseGitError::Host) };
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    if is_host(host) && port.is_none_or(|port| port.parse::<u16>().is_ok()) {
        Ok(host.to_owned())
    } else {
        Err(ParseGitError::Host)
    }
}

const MAX_URL_BYTES: usize = 2048;
/// Linux's `NAME_MAX`.
const MAX_NAME_BYTES: usize = 255;
const MAX_REFERENCE_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_https_and_ssh() {
        for (text, host, ssh, name) in [
            ("https://github.com/u/r.git", "github.com", false, "r"),
            ("https://git.example:8443/u/r", "git.example", false, "r"),
            ("https://[::1]:8443/r", "::1", false, "r"),
            ("ssh://git@git.example/u/r.git", "git.example", true, "r"),
            ("ssh://git@127.0.0.1:2222/srv/r.git", "127.0.0.1", true, "r"),
            ("git@github.com:u/r.git", "github.com", true, "r"),
            ("host:r", "host", true, "r"),
            ("https://git.example/u/r.git/", "git.example", false, "r"),
            ("ssh://git@git.example/srv/r/.git", "git.example", true, "r"),
            ("git@git.example:r/.git/", "git.example", true, "r"),
            ("git@git.example:../r.git", "git.example", true, "r"),
            ("git@git.example:C:\\r.git", "git.example", true, "r"),
            ("git@git.example:...", "git.example", true, "..."),
        ] {
            let url = GitUrl::parse(text).unwrap();
            assert_eq!(
                (url.host(), url.is_ssh(), url.repository_name()),
                (host, ssh, name),
                "{text}"
            );
            assert_eq!(url.as_str(), text);
        }
    }

    #[test]
    fn g11_a_password_in_the_url_is_kept_apart() {
        let url = GitUrl::parse("https://me:pa:ss@git.example/u/r.git").unwrap();
        assert_eq!(url.as_str(), "https://git.example/u/r.git");
        let (user, password) = url.credentials().unwrap();
        assert_eq!((user, password.expose()), ("me", "pa:ss"));
        assert!(!format!("{url:?} {url}").contains("pa:ss"));
        let url = GitUrl::parse("https://t0ken@git.example/u/r.git").unwrap();
        assert_eq!(url.credentials().unwrap().0, "t0ken");
        assert!(!format!("{url:?} {url}").contains("t0ken"));
        assert_eq!(GitUrl::parse("ssh://me:pw@h/r").err(), Some(ParseGitError::PasswordInSshUrl));
    }

    #[test]
    fn g1_g2_g3_hostile_urls_are_refused() {
        for (text, expected) in [
            ("", ParseGitError::Transport),
            ("--upload-pack=touch /tmp/x", ParseGitError::Character),
            ("-oProxyCommand=x:y", ParseGitError::Character),
            ("ext::sh -c x", ParseGitError::Character),
            ("ext::sh", ParseGitError::Transport),
            ("fd::17", ParseGitError::Transport),
            ("file:///etc", ParseGitError::Transport),
            ("/etc/passwd", ParseGitError::Transport),
            ("../r", ParseGitError::Transport),
            ("./a:b", ParseGitError::Transport),
            ("http://git.example/r", ParseGitError::Transport),
            ("git://git.example/r", ParseGitError::Transport),
            ("ssh://-oProxyCommand=x/r", ParseGitError::Host),
            ("ssh://git@-oProxyCommand=x/r", ParseGitError::Host),
            ("ssh://-l@host/r", ParseGitError::Host),
            ("git@-oProxyCommand=x:r", ParseGitError::Host),
            ("https:///r", ParseGitError::Host),
            ("https://host", ParseGitError::Path),
            ("https://host/", ParseGitError::Path),
            ("https://host/-r", ParseGitError::Path),
            ("https://host:99999/r", ParseGitError::Host),
            ("https:/u:password@host/r", ParseGitError::Transport),
            ("htt:sp//u:password@host/r", ParseGitError::Transport),
            ("git@host:", ParseGitError::Path),
            ("git@host:-r", ParseGitError::Path),
            ("git@host:a b", ParseGitError::Character),
            ("https://host/..", ParseGitError::Name),
            ("https://host/u/../", ParseGitError::Name),
            ("https://host/u/.", ParseGitError::Name),
            ("https://host/u/...git", ParseGitError::Name),
            ("https://host/u/..git", ParseGitError::Name),
            ("https://host//", ParseGitError::Name),
            ("https://host/.git", ParseGitError::Name),
            ("https://host/u/../.git", ParseGitError::Name),
            ("ssh://git@host/u/..", ParseGitError::Name),
            ("ssh://git@host//.git", ParseGitError::Name),
            ("git@host:..", ParseGitError::Name),
            ("git@host:.git", ParseGitError::Name),
            ("git@host:u/..", ParseGitError::Name),
            ("git@host:/", ParseGitError::Name),
            ("git@host:a\\..", ParseGitError::Name),
            ("git@host:a:", ParseGitError::Name),
            (&format!("git@host:{}", "a".repeat(256)), ParseGitError::Name),
            ("https://host/a\nb", ParseGitError::Character),
            (&format!("https://host/{}", "a".repeat(2048)), ParseGitError::TooLong),
        ] {
            assert_eq!(GitUrl::parse(text).err(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn g1_hostile_references_are_refused() {
        for text in ["main", "v1.0", "feature/x-1", &"0a1b2c3d".repeat(5), "wip@2"] {
            assert!(GitReference::parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "a[",
            "a\\b",
            "@",
            "a@{1}",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.",
            "a.lock",
            "a.lock/b",
            "a\n",
            "a\u{7f}",
            &"a".repeat(256),
        ] {
            assert_eq!(GitReference::parse(text), Err(ParseGitError::Reference), "{text:?}");
        }
    }

    #[test]
    fn a_commit_id_is_whole_and_lower_case() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(CommitId::parse(text).unwrap().short(), "0123456");
        for text in [text.strip_prefix('0').unwrap(), &text.to_uppercase(), "", "main"] {
            assert_eq!(CommitId::parse(text), Err(ParseGitError::Commit), "{text}");
        }
    }
}
