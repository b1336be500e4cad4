use thiserror::Error;

use crate::build::log::BuildLog;

/// Hears what git and ssh say during a transfer: writes it to the log and keeps what it tells.
///
/// A hostile server can say anything here. What is understood therefore only chooses the words of
/// an error, or a further attempt; it never makes a failure a success.
#[derive(Debug)]
pub(super) struct Ear<'a> {
    host_key: Option<String>,
    log: &'a BuildLog,
    verdict: Verdict,
}

impl<'a> Ear<'a> {
    pub(super) fn new(log: &'a BuildLog) -> Self {
        Self { host_key: None, log, verdict: Verdict::Unknown }
    }

    /// Takes one line.
    pub(super) fn hear(&mut self, line: &[u8]) {
        // ssh prints this before anything that the server chose can reach the same output.
        if let Some(said) = line.strip_prefix(b"debug1: ") {
            if self.host_key.is_none() {
                self.host_key = said.strip_prefix(b"Server host key: ").and_then(fingerprint);
            }
            return;
        }
        let text = String::from_utf8_lossy(line);
        if is_passing(&text) {
            return;
        }
        self.log.output(text.trim_end().as_bytes());
        let text = text.to_lowercase();
        let heard = SAYINGS.iter().find(|(words, _)| text.contains(words)).map(|(_, said)| *said);
        // ssh and git go from the cause to the consequence; an unfounded consequence is weaker.
        if let Some(heard) = heard.filter(|heard| heard.weight() > self.verdict.weight()) {
            self.verdict = heard;
        }
    }

    /// Returns the fingerprint of the ssh host key that the server proved to have.
    pub(super) fn into_host_key(self) -> Option<String> {
        self.host_key
    }

    /// Returns what the words tell of a failure.
    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }
}

/// What the words before a failure tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    MissingReference,
    ObjectFormat,
    Peer(PeerFault),
    TooLarge,
    Unadvertised,
    Unknown,
    Unsound,
}

impl Verdict {
    fn weight(self) -> u8 {
        match self {
            Self::Unknown => 0,
            // Said of every failure to reach a host by its key.
            Self::Peer(PeerFault::HostKeyUnknown) => 1,
            _ => 2,
        }
    }
}

/// What is wrong with the git server, or with us in its eyes.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub(crate) enum PeerFault {
    /// The server does not accept the key, user or password.
    #[error(
        "it refused the credentials; check that the key of GITHUB_KEY_FILE, or the user and token \
         in GITHUB_URL, may read the repository"
    )]
    AuthenticationRefused,

    /// The server's certificate is not trusted.
    #[error("its TLS certificate is not trusted; add its authority to the server's git CA file")]
    CertificateRefused,

    /// The server shows another ssh host key than the one that is recorded.
    #[error(
        "its ssh host key is not the recorded one; somebody may be in between: compare it with \
         what the host's operator publishes before the known_hosts file is changed"
    )]
    HostKeyChanged,

    /// The server's ssh host key is not among the pinned ones.
    #[error("its ssh host key is not known; add it to the server's known_hosts file")]
    HostKeyUnknown,

    /// The server sends us elsewhere.
    #[error("it redirects, which is not followed; set GITHUB_URL to the final URL")]
    Redirected,

    /// The server knows no such repository, or hides it.
    #[error(
        "it has no such repository, or hides it from these credentials; check the path in \
         GITHUB_URL and the rights of the key or token"
    )]
    RepositoryNotFound,

    /// The server does not answer in time.
    #[error("it does not answer in time; check the host, the port and the network")]
    TimedOut,

    /// There is no way to the server.
    #[error("it cannot be reached; check the host, the port and the network")]
    Unreachable,
}

impl PeerFault {
    /// Returns the stable word of the failure.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::AuthenticationRefused => "git_access",
            Self::CertificateRefused => "git_certificate",
            Self::HostKeyChanged | Self::HostKeyUnknown => "git_host_key",
            Self::Redirected => "git_redirect",
            Self::RepositoryNotFound => "git_not_found",
            Self::TimedOut => "git_timeout",
            Self::Unreachable => "git_unreachable",
        }
    }
}

/// Returns `SHA256:…` of `<algorithm> SHA256:<43 characters of base64>`.
fn fingerprint(said: &[u8]) -> Option<String> {
    let said = std::str::from_utf8(said).ok()?;
    let (_algorithm, fingerprint) = said.split_once(' ')?;
    let base64 = fingerprint.strip_prefix("SHA256:")?;
    let good = base64.len() == 43
        && base64.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    good.then(|| fingerprint.to_owned())
}

/// Tells whether a line only shows that something goes on.
fn is_passing(text: &str) -> bool {
    let text = text.trim_end();
    let progress = text.contains("% (") && !text.ends_with("done.");
    progress || text.starts_with("Transferred: sent ") || text.starts_with("Bytes per second: ")
}

/// Lower-case parts of what git 2.39 to 2.47, OpenSSH 9, curl and the large hosts say.
const SAYINGS: [(&str, Verdict); 35] = [
    ("couldn't find remote ref", Verdict::MissingReference),
    ("mismatched algorithms", Verdict::ObjectFormat),
    ("unadvertised object", Verdict::Unadvertised),
    ("not our ref", Verdict::Unadvertised),
    ("fsck error", Verdict::Unsound),
    ("file too large", Verdict::TooLarge),
    ("out of memory", Verdict::TooLarge),
    ("remote host identification has changed", Verdict::Peer(PeerFault::HostKeyChanged)),
    ("revoked host key detected", Verdict::Peer(PeerFault::HostKeyChanged)),
    ("host key verification failed", Verdict::Peer(PeerFault::HostKeyUnknown)),
    ("host key is known for", Verdict::Peer(PeerFault::HostKeyUnknown)),
    ("permission denied (", Verdict::Peer(PeerFault::AuthenticationRefused)),
    ("too many authentication failures", Verdict::Peer(PeerFault::AuthenticationRefused)),
    ("authentication failed for", Verdict::Peer(PeerFault::AuthenticationRefused)),
    ("could not read username", Verdict::Peer(PeerFault::AuthenticationRefused)),
    ("could not read password", Verdict::Peer(PeerFault::AuthenticationRefused)),
    ("returned error: 401", Verdict::Peer(PeerFault::AuthenticationRefused)),
    ("returned error: 403", Verdict::Peer(PeerFault::AuthenticationRefused)),
    ("returned error: 404", Verdict::Peer(PeerFault::RepositoryNotFound)),
    ("repository not found", Verdict::Peer(PeerFault::RepositoryNotFound)),
    ("' not found", Verdict::Peer(PeerFault::RepositoryNotFound)),
    ("could not be found or you don't have perm", Verdict::Peer(PeerFault::RepositoryNotFound)),
    ("does not appear to be a git repository", Verdict::Peer(PeerFault::RepositoryNotFound)),
    ("ssl certificate problem", Verdict::Peer(PeerFault::CertificateRefused)),
    ("certificate verification failed", Verdict::Peer(PeerFault::CertificateRefused)),
    ("certificate subject name", Verdict::Peer(PeerFault::CertificateRefused)),
    ("update url base from redirection", Verdict::Peer(PeerFault::Redirected)),
    ("returned error: 30", Verdict::Peer(PeerFault::Redirected)),
    ("timed out", Verdict::Peer(PeerFault::TimedOut)),
    ("operation too slow", Verdict::Peer(PeerFault::TimedOut)),
    ("could not resolve host", Verdict::Peer(PeerFault::Unreachable)),
    ("connection refused", Verdict::Peer(PeerFault::Unreachable)),
    ("no route to host", Verdict::Peer(PeerFault::Unreachable)),
    ("network is unreachable", Verdict::Peer(PeerFault::Unreachable)),
    ("connect to server", Verdict::Peer(PeerFault::Unreachable)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::log::Masks;
    use crate::clock::Clock;

    fn hear(lines: &[&str]) -> (Option<String>, Verdict, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = file.reopen().unwrap();
        let log = BuildLog::new(writer, Clock::fixed(0), Masks::default(), 10_000);
        let mut ear = Ear::new(&log);
        for line in lines {
            ear.hear(line.as_bytes());
        }
        let verdict = ear.verdict();
        let text = std::fs::read_to_string(file.path()).unwrap();
        (ear.into_host_key(), verdict, text)
    }

    #[test]
    fn tells_failures_apart() {
        use PeerFault::*;
        for (lines, expected) in [
            (&["git@h: Permission denied (publickey)."][..], AuthenticationRefused),
            (&["fatal: could not read Username for 'https://h': x"], AuthenticationRefused),
            (&["fatal: Authentication failed for 'https://h/r/'"], AuthenticationRefused),
            (
                &["fatal: unable to access: The requested URL returned error: 403"],
                AuthenticationRefused,
            ),
            (&["ERROR: Repository not found.", "fatal: Could not read"], RepositoryNotFound),
            (&["fatal: repository 'https://h/r/' not found"], RepositoryNotFound),
            (
                &[
                    "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @",
                    "Host key verification failed.",
                ],
                HostKeyChanged,
            ),
            (
                &["No ED25519 host key is known for h and", "Host key verification failed."],
                HostKeyUnknown,
            ),
            (&["Host key verification failed.", "@ REVOKED HOST KEY DETECTED! @"], HostKeyChanged),
            (
                &["fatal: unable to access 'x': server certificate verification failed. CAfile"],
                CertificateRefused,
            ),
            (&["SSL certificate problem: self-signed certificate"], CertificateRefused),
            (&["fatal: unable to access 'x': The requested URL returned error: 301"], Redirected),
            (&["ssh: Could not resolve hostname h: Name or service not known"], Unreachable),
            (
                &["fatal: unable to access: Failed to connect to h: Couldn't connect to server"],
                Unreachable,
            ),
            (&["ssh: connect to host h port 22: Connection timed out"], TimedOut),
            (&["Connection timed out during banner exchange"], TimedOut),
        ] {
            assert_eq!(hear(lines).1, Verdict::Peer(expected), "{lines:?}");
        }
        assert_eq!(hear(&["fatal: something new"]).1, Verdict::Unknown);
    }

    #[test]
    fn g7_a_fingerprint_comes_from_ssh_alone() {
        let real = format!("SHA256:{}", "a".repeat(43));
        let forged = format!("SHA256:{}", "b".repeat(43));
        let line =
            |fingerprint: &str| format!("debug1: Server host key: ssh-ed25519 {fingerprint}");
        let (host_key, _, log) = hear(&[&line(&real), &line(&forged)]);
        assert_eq!((host_key, log.as_str()), (Some(real), ""));
        for bad in ["SHA256:x", "MD5:aa", "", &format!("SHA256:{}", "é".repeat(43))] {
            assert_eq!(hear(&[&line(bad)]).0, None, "{bad}");
        }
    }

    #[test]
    fn the_log_has_the_words_but_no_progress() {
        let (_, _, log) = hear(&[
            "debug1: Connecting",
            "Receiving objects:  50% (1/2)",
            "Receiving objects: 100% (2/2), done.",
            "Transferred: sent 1, received 2 bytes, in 0.1 seconds",
            "fatal: x",
        ]);
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.contains("run: Receiving objects: 100% (2/2), done.\n"), "{log}");
        assert!(log.contains("run: fatal: x\n"), "{log}");
    }
}
