//! Runs the commands of "A first build" in the README, letter by letter, where `registry.example` and
//! `git.example` are real servers on loopback. The test `first_run` starts it in namespaces of its
//! own, in which nothing of the machine is changed.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rcgen::SanType;
use sbs_tests::{
    Account, Authority, CuttingProxy, Daemon, Registry, SshGit, built, output, program,
};

fn main() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    if !mounts.lines().any(|mount| mount.contains(" /etc ") && mount.contains(" - overlay ")) {
        bail!("this changes /etc; start it by the test `first_run`, which gives it another");
    }
    let directory = std::env::args_os().nth(1).map(PathBuf::from).context("name a directory")?;
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let commands = commands(&readme)?;
    let stranger = Stranger::new(&directory)?;
    let servers = Servers::start(&directory, &stranger)?;
    let mut server = None;
    let mut last = String::new();
    for line in commands {
        let mut command = stranger.command(line)?;
        if line.starts_with("sbs-server run") {
            let log = directory.join("server.log");
            let mut daemon = Daemon::spawn("sbs-server", &mut command, &log)?;
            daemon.wait_for("ready address=")?;
            server = Some(daemon);
        } else {
            last = output(&mut command)?;
        }
    }
    drop(server);
    let verified = ["signature", "image-tag", "source"].map(|check| format!("passed: {check}\n"));
    ensure!(verified.iter().all(|line| last.contains(line)), "the last command printed: {last}");
    let tags = servers.registry.tags("team/app")?;
    let tag = format!("v1-{}", servers.commit.get(..7).context("a commit")?);
    ensure!(tags.contains(&tag), "{tags:?} has no {tag}");
    Ok(())
}

/// Returns the commands that are run here: all but the first, which installs the programs that were
/// built for the tests.
fn commands(readme: &str) -> Result<Vec<&str>> {
    let (_, section) = readme.split_once("\n## A first build\n").context("the section")?;
    let (_, block) = section.split_once("```sh\n").context("the block of commands")?;
    let (block, _) = block.split_once("```").context("the end of the block")?;
    let mut lines = block.lines();
    ensure!(lines.next() == Some("cargo xtask install"), "the first command is another");
    let commands: Vec<_> = lines.collect();
    ensure!((1..=5).contains(&commands.len()), "at most 6 commands, not {commands:?}");
    Ok(commands)
}

/// Somebody who has a git repository and an account at a registry, and nothing else.
struct Stranger {
    home: PathBuf,
}

impl Stranger {
    fn new(directory: &Path) -> Result<Self> {
        let home = directory.join("home");
        fs::create_dir_all(home.join(".ssh"))?;
        let stranger = Self { home };
        stranger.write("registry-password", PASSWORD.as_bytes())?;
        Ok(stranger)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.home.join(name);
        fs::write(&path, content)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
    }

    fn command(&self, line: &str) -> Result<Command> {
        let programs = built("sbs")?;
        let programs = programs.parent().context("a directory")?.display();
        let mut command = program("bash");
        command.args(["-c", line]).current_dir(&self.home).env("HOME", &self.home);
        command.env("PATH", format!("{programs}:/usr/sbin:/usr/bin:/sbin:/bin"));
        Ok(command)
    }
}

/// The servers whose names the README has.
struct Servers {
    commit: String,
    registry: Registry,
    /// Held for their Drop.
    _others: (SshGit, [CuttingProxy; 2]),
}

impl Servers {
    fn start(directory: &Path, stranger: &Stranger) -> Result<Self> {
        let authority = Authority::new("Tests CA")?;
        let name = SanType::DnsName("registry.example".try_into()?);
        let leaf = authority.issue_with("registry", |leaf| leaf.subject_alt_names.push(name))?;
        let account = Account::new("builder", PASSWORD);
        let registry =
            Registry::start_as(&leaf, &authority, &directory.join("registry"), &[account])?;
        // What a certificate of a public authority would be to this machine.
        let bundle = Path::new("/etc/ssl/certs/ca-certificates.crt");
        OpenOptions::new().append(true).open(bundle)?.write_all(authority.pem.as_bytes())?;

        let ssh = SshGit::start(&directory.join("ssh"))?;
        stranger.write(".ssh/id_ed25519", &fs::read(ssh.key_file())?)?;
        let mut repository = ssh.repository("app")?;
        repository.write("Dockerfile", DOCKERFILE)?;
        fs::copy("/bin/busybox", repository.tree().join("busybox"))?;
        let commit = repository.commit()?;
        fs::create_dir(ssh.home().join("team"))?;
        symlink(repository.path(), ssh.home().join("team/app.git"))?;

        let port = registry.host().rsplit_once(':').context("a port")?.1.parse()?;
        let proxies = [
            CuttingProxy::forward(([127, 0, 0, 2], 22).into(), ssh.port())?,
            CuttingProxy::forward(([127, 0, 0, 3], 5000).into(), port)?,
        ];
        let hosts = "127.0.0.1 localhost\n127.0.0.2 git.example\n127.0.0.3 registry.example\n";
        fs::write("/etc/hosts", hosts)?;
        Ok(Self { commit, registry, _others: (ssh, proxies) })
    }
}

const PASSWORD: &str = "canary-of-the-registry";

const DOCKERFILE: &str = "\
FROM scratch
COPY busybox /bin/busybox
RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo built > /proof\"]
CMD [\"/bin/busybox\", \"cat\", \"/proof\"]
";
