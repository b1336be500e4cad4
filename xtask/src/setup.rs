//! The Debian packages that the server, its tests, demo and benchmark need.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{program, run_command, say};

/// Installs what everything here needs; does nothing where all is there.
pub(crate) fn run() -> Result<()> {
    install_missing(&[&SERVER[..], &BUILD, &TESTS].concat())
}

/// Installs what the programs are built with and what the server runs.
pub(crate) fn programs() -> Result<()> {
    install_missing(&[&SERVER[..], &BUILD].concat())
}

fn install_missing(packages: &[&'static str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        is_root(),
        "these packages are missing: {}\nrun `cargo xtask setup` as root, or install them",
        missing.join(" ")
    );
    say(&format!("installing {}", missing.join(" ")));
    let services = Services::hold_back()?;
    let installed = install(&missing);
    services.release()?;
    installed
}

fn missing(packages: &[&'static str]) -> Result<Vec<&'static str>> {
    let mut query = program("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(packages);
    // The exit code is 1 where a package is not known, which is no fault.
    let Ok(output) = query.output() else {
        bail!(
            "this is not a Debian system (there is no dpkg-query); what these packages of Debian \
             hold is needed: {}",
            packages.join(" ")
        );
    };
    let text = String::from_utf8_lossy(&output.stdout);
    // Packages of nodejs that are not Debian's hold npm, and rule out its own package.
    let npm = program("npm").arg("--version").output().is_ok_and(|npm| npm.status.success());
    let installed = |package: &&str| {
        text.lines().any(|line| line.split_once(' ') == Some((package, "installed")))
            || (*package == "npm" && npm)
    };
    Ok(packages.iter().copied().filter(|package| !installed(package)).collect())
}

fn install(packages: &[&str]) -> Result<()> {
    // A source that does not answer is no fault while the packages can be had elsewhere.
    if let Err(error) = run_command(program("apt-get").args(["update", "--quiet"])) {
        say(&format!("warning: {error:#}"));
    }
    let mut apt = program("apt-get");
    apt.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
    run_command(apt.env("DEBIAN_FRONTEND", "noninteractive")).context("cannot install packages")
}

/// Keeps Debian from starting the services of the packages that are installed: nobody who tries a
/// demo asked for an ssh server and a registry that are open to the network.
struct Services {
    /// Whether the policy is ours to remove.
    held_back: bool,
}

impl Services {
    fn hold_back() -> Result<Self> {
        let policy = Path::new(POLICY);
        if policy.exists() {
            return Ok(Self { held_back: false });
        }
        fs::write(policy, "#!/bin/sh\nexit 101\n").context(POLICY)?;
        run_command(program("chmod").args(["755", POLICY]))?;
        Ok(Self { held_back: true })
    }

    fn release(self) -> Result<()> {
        if self.held_back {
            fs::remove_file(POLICY).context(POLICY)?;
        }
        Ok(())
    }
}

fn is_root() -> bool {
    let output = program("id").arg("--user").output();
    output.is_ok_and(|output| output.stdout == b"0\n")
}

// invoke-rc.d(8): the exit code 101 of this program forbids the action.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What the server runs.
const SERVER: [&str; 8] = [
    "buildah",
    "ca-certificates",
    "git",
    "iproute2",
    "mount",
    "openssh-client",
    "runc",
    "util-linux",
];

/// What OpenPGP is built with.
const BUILD: [&str; 3] = ["libclang-dev", "libssl-dev", "pkg-config"];

const TESTS: [&str; 29] = [
    // What the feature `tpm2` is built with, and libFuzzer.
    "libtss2-dev",
    "g++",
    // The other end of what it talks to.
    "apache2-utils",
    "busybox-static",
    "docker-registry",
    "docker.io",
    "notary",
    "openssh-server",
    "swtpm",
    "swtpm-tools",
    // The judges.
    "bzip2",
    "curl",
    "gnupg",
    "hyperfine",
    "lbzip2",
    "nodejs",
    "npm",
    "openssl",
    "pbzip2",
    "python3",
    "python3-cryptography",
    "python3-requests",
    "skopeo",
    "strace",
    "systemd",
    "tar",
    "tpm2-tools",
    "xxd",
    "zstd",
];
