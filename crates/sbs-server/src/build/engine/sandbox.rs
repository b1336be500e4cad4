//! Where the engine runs: a root directory of its own, with fixed paths and generated settings.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Driver, Isolation};
use crate::tool::{Network, Tool};

/// A prepared directory that the engine can be run over, once or more.
#[derive(Debug)]
pub(super) struct Sandbox {
    scratch: PathBuf,
    isolation: Isolation,
    network: Network,
    binds: Vec<OsString>,
}

/// Which images the engine sees and where it keeps new ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Storage {
    /// Images are taken from an OCI layout into the store of base images.
    Import,
    /// Base images are seen and cannot be changed; what a build makes goes with its scratch.
    Build,
}

impl Sandbox {
    /// Makes the directories and settings in `scratch`, which is empty. `store` is that of the base
    /// images.
    pub(super) fn prepare(
        scratch: &Path,
        store: &Path,
        driver: Driver,
        storage: Storage,
    ) -> io::Result<Self> {
        let run = scratch.join(RUN);
        fs::create_dir_all(scratch.join(TOP))?;
        for name in ["home", "nothing", "root", "runroot", "runtime", "tmp"] {
            fs::create_dir_all(run.join(name))?;
        }
        let (root, additional, transport, access) = match storage {
            Storage::Import => ("/sbs/store", "", "oci", "rw"),
            Storage::Build => ("/sbs/run/root", "\"/sbs/store\"", "containers-storage", "ro"),
        };
        // The driver is given by its name alone: options of the machine's own file have no effect.
        let settings = format!(
            "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{root}\"\n\
             runroot = \"/sbs/run/runroot\"\n[storage.options]\n\
             additionalimagestores = [{additional}]\n"
        );
        fs::write(run.join("storage.conf"), settings)?;
        // Images come from here and from nowhere else, whatever the Dockerfile says.
        let policy = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"{transport}":{{"":[{{"type":"insecureAcceptAnything"}}]}}}}}}"#
        );
        fs::write(run.join("policy.json"), policy)?;
        fs::write(run.join("containers.conf"), CONTAINERS_CONF)?;
        fs::write(run.join("registries.conf"), REGISTRIES_CONF)?;
        // None; without the file the engine looks elsewhere or refuses to run.
        fs::write(run.join("credentials.json"), "{}")?;
        let mut sandbox = Self {
            scratch: scratch.to_owned(),
            isolation: Isolation::Chroot,
            network: Network::None,
            binds: Vec::new(),
        };
        sandbox.bind(access, store, "/sbs/store");
        sandbox.bind("rw", &run, "/sbs/run");
        Ok(sandbox)
    }

    /// Sets what the processes of a build get; without it they get the least.
    pub(super) fn runs(mut self, isolation: Isolation, network: Network) -> Self {
        self.isolation = isolation;
        self.network = network;
        self
    }

    /// Shows a directory at a place below `/sbs`, `ro` or `rw`.
    pub(super) fn bind(&mut self, access: &str, directory: &Path, place: &str) {
        self.binds.extend([access.into(), directory.into(), place.into()]);
    }

    /// Writes a file that the engine finds in `/sbs/run`.
    pub(super) fn write(&self, name: &str, content: &str) -> io::Result<()> {
        fs::write(self.scratch.join(RUN).join(name), content)
    }

    /// Names a program with its arguments, to be run in the sandbox.
    pub(super) fn tool(&self, arguments: impl IntoIterator<Item = OsString>) -> Tool {
        let isolation = match self.isolation {
            Isolation::Chroot => "chroot",
            Isolation::Oci(_) => "oci",
        };
        let network = match self.network {
            Network::Host => "host",
            Network::None => "none",
        };
        Tool::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(self.scratch.join(TOP))
            .args([isolation, network])
            .args(&self.binds)
            .arg("--")
            .args(arguments)
            .network(self.network)
            .env("HOME", "/sbs/run/home")
            .env("TMPDIR", "/sbs/run/tmp")
            .env("XDG_RUNTIME_DIR", "/sbs/run/runroot")
            .env("CONTAINERS_CONF", "/sbs/run/containers.conf")
            .env("CONTAINERS_REGISTRIES_CONF", "/sbs/run/registries.conf")
            .env("CONTAINERS_STORAGE_CONF", "/sbs/run/storage.conf")
            .env("REGISTRY_AUTH_FILE", "/sbs/run/credentials.json")
    }

    /// Removes everything that was made in the scratch directory.
    pub(super) fn remove(scratch: &Path) -> io::Result<()> {
        for name in [TOP, RUN] {
            match fs::remove_dir_all(scratch.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

const SCRIPT: &str = include_str!("sandbox.sh");
const TOP: &str = "engine-top";
const RUN: &str = "engine-run";
// No hooks, no mounts and no variables of the machine's.
const CONTAINERS_CONF: &str = "[containers]\nenv = []\nhttp_proxy = false\nvolumes = []\n\
    [engine]\ncgroup_manager = \"cgroupfs\"\nhooks_dir = []\n";
const REGISTRIES_CONF: &str =
    "unqualified-search-registries = []\nshort-name-mode = \"enforcing\"\n";
