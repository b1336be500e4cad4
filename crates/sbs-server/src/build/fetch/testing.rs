//! A git server for tests: the real sshd and real bare repositories, on this machine alone.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sbs_proto::{GitReference, GitUrl, SecretText, Source};
use tempfile::TempDir;

/// An ssh server on a loopback port with a host key of its own, which lets one key in.
pub(crate) struct SshServer {
    directory: TempDir,
    port: u16,
    process: Option<Child>,
}

impl SshServer {
    pub(crate) fn start() -> Self {
        Self::start_with("AcceptEnv GIT_PROTOCOL")
    }

    /// Starts a server with further lines of `sshd_config(5)`.
    pub(crate) fn start_with(configuration: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        make_key(&directory.path().join("user"), "");
        fs::copy(directory.path().join("user.pub"), directory.path().join("authorized")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { directory, port, process: None };
        server.write_configuration(configuration);
        server.renew_host_key();
        server
    }

    /// Gives the server another host key on the same port.
    pub(crate) fn renew_host_key(&mut self) {
        self.stop();
        let key = self.path("host");
        let _absent_at_first = fs::remove_file(&key);
        make_key(&key, "");
        // sshd wants the directory of its unprivileged part.
        fs::create_dir_all("/run/sshd").unwrap();
        // sshd's sessions leave its process group: as the first process of a PID namespace it takes
        // them along when it is killed.
        let process = command("unshare")
            .args(["--fork", "--kill-child", "--pid", "--mount-proc", "--"])
            .args(["/usr/sbin/sshd", "-D", "-e", "-f"])
            .arg(self.path("sshd_config"))
            .stderr(fs::File::create(self.path("sshd.log")).unwrap())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = fs::read_to_string(self.path("sshd.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "sshd does not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the URL of a repository of this machine.
    pub(crate) fn url(&self, repository: &Path) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, repository.display())
    }

    /// Returns a source with the key that is let in.
    pub(crate) fn source(&self, repository: &Path, reference: Option<&str>) -> Source {
        Source {
            key: Some(SecretText::new(self.key())),
            recurse_submodules: false,
            reference: reference.map(|reference| GitReference::parse(reference).unwrap()),
            url: GitUrl::parse(&self.url(repository)).unwrap(),
        }
    }

    /// Returns the private key that is let in.
    pub(crate) fn key(&self) -> String {
        fs::read_to_string(self.path("user")).unwrap()
    }

    /// Returns the line of a `known_hosts` file for this server.
    pub(crate) fn known_hosts_line(&self) -> String {
        let key = fs::read_to_string(self.path("host.pub")).unwrap();
        format!("[127.0.0.1]:{} {key}", self.port)
    }

    /// Returns the fingerprint of the host key as ssh-keygen prints it.
    pub(crate) fn fingerprint(&self) -> String {
        let shown = command("ssh-keygen").arg("-lf").arg(self.path("host.pub")).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        shown.split(' ').nth(1).unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write_configuration(&self, further: &str) {
        let lines = [
            "ListenAddress 127.0.0.1".to_owned(),
            format!("Port {}", self.port),
            format!("HostKey {}", self.path("host").display()),
            format!("AuthorizedKeysFile {}", self.path("authorized").display()),
            "PermitRootLogin prohibit-password".to_owned(),
            "PasswordAuthentication no".to_owned(),
            "KbdInteractiveAuthentication no".to_owned(),
            "StrictModes no".to_owned(),
            "UsePAM no".to_owned(),
            "PidFile none".to_owned(),
            further.to_owned(),
        ];
        fs::write(self.path("sshd_config"), lines.join("\n") + "\n").unwrap();
    }

    /// Ends the server and every session; the next one can have the same port.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A bare repository; commits are made straight into it.
pub(crate) struct Origin {
    directory: TempDir,
}

impl Origin {
    pub(crate) fn new() -> Self {
        Self::with_format("sha1")
    }

    pub(crate) fn with_format(format: &str) -> Self {
        let origin = Self { directory: tempfile::tempdir().unwrap() };
        let format = format!("--object-format={format}");
        origin.git(["init", "--quiet", "--bare", "--initial-branch=main", &format, "."]);
        origin
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs git in the repository and returns what it prints, without the final newline.
    pub(crate) fn git(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        self.git_with(arguments, b"")
    }

    /// Stores a blob and returns its id.
    pub(crate) fn blob(&self, bytes: &[u8]) -> String {
        self.git_with(["hash-object", "-w", "--stdin"], bytes)
    }

    /// Stores a tree of `<mode> <type> <id>\t<name>` entries, whatever they are, and returns its id.
    pub(crate) fn tree(&self, entries: &[String]) -> String {
        let lines: Vec<u8> = entries.iter().flat_map(|e| [e.as_bytes(), b"\0"].concat()).collect();
        self.git_with(["mktree", "--missing", "-z"], &lines)
    }

    /// Commits a tree to a branch and returns the commit's id.
    pub(crate) fn commit(&self, branch: &str, tree: &str) -> String {
        let reference = format!("refs/heads/{branch}");
        let parent = self.git(["for-each-ref", "--format=%(objectname)", &reference]);
        let mut arguments = vec!["commit-tree", "-m", "a commit", tree];
        if !parent.is_empty() {
            arguments.extend(["-p", &parent]);
        }
        let commit = self.git(arguments);
        self.git(["update-ref", &reference, &commit]);
        commit
    }

    /// Commits files of one directory to a branch and returns the commit's id.
    pub(crate) fn commit_files(&self, branch: &str, files: &[(&str, &str)]) -> String {
        let entry = |(name, text): &(&str, &str)| {
            format!("100644 blob {}\t{name}", self.blob(text.as_bytes()))
        };
        let tree = self.tree(&files.iter().map(entry).collect::<Vec<_>>());
        self.commit(branch, &tree)
    }

    fn git_with(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &[u8],
    ) -> String {
        let mut git = command("git")
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        git.stdin.take().unwrap().write_all(input).unwrap();
        let output = git.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
    }
}

/// Makes a key pair without asking.
pub(crate) fn make_key(path: &Path, passphrase: &str) {
    let status = command("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-C", "", "-N", passphrase, "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
}

fn command(program: &str) -> Command {
    #[expect(clippy::disallowed_methods, reason = "a test plays the machines around the server")]
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    for (who, when) in [("AUTHOR", "1600000000 +0000"), ("COMMITTER", "1700000000 +0100")] {
        command
            .env(format!("GIT_{who}_NAME"), "A Tester")
            .env(format!("GIT_{who}_EMAIL"), "tester@git.example")
            .env(format!("GIT_{who}_DATE"), when);
    }
    command.stdin(Stdio::null());
    command
}
