//! What works on this machine, found out by trying.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sbs_proto::{Recipe, RegistryHost, RelativePath};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::cgroup::Cgroup;
use super::sandbox::{Sandbox, Storage};
use super::{
    BuildFault, BuildRequest, Buildah, CHROOT_WARNING, Driver, EngineSettings, Isolation, Runtime,
    TEMPORARY,
};
use crate::build::dockerfile::{ResolvedDockerfile, plan};
use crate::build::failure::chain;
use crate::tool::{RunToolError, Tool};

pub(super) async fn probe(
    root: &Path,
    settings: &EngineSettings,
) -> Result<Buildah, ProbeEngineError> {
    let prepare = |source| ProbeEngineError::Prepare { source };
    let version = version().await?;
    let cgroup = Cgroup::new(root);
    cgroup.remove_all();
    let temporary = root.join(TEMPORARY);
    make_directory(root).and_then(|()| remove(&temporary)).map_err(prepare)?;
    make_directory(&temporary).map_err(prepare)?;
    let work = tempfile::tempdir_in(&temporary).map_err(prepare)?;
    let work_tree = work.path().join("tree");
    tiny_system(&work_tree).await?;
    let mut tried = Vec::new();
    for driver in [Driver::Overlay, Driver::Vfs] {
        let mut buildah = Buildah {
            root: root.to_owned(),
            settings: settings.clone(),
            version: version.clone(),
            driver,
            isolation: Isolation::Chroot,
            cgroup: cgroup.clone(),
            warnings: Vec::new(),
            bases: Mutex::default(),
            importing: tokio::sync::Mutex::default(),
        };
        make_directory(&buildah.store()).map_err(prepare)?;
        match stored_names(&buildah, &work.path().join(driver.to_string())).await {
            Ok(names) => buildah.bases = Mutex::new(names),
            Err(error) => {
                tried.push(format!("{driver}: {}", chain(&error)));
                continue;
            }
        }
        for isolation in candidates(settings.isolation) {
            buildah.isolation = isolation;
            let scratch = work.path().join(format!("{driver}-{}", tried.len()));
            match try_build(&buildah, &work_tree, &scratch).await {
                Ok(()) => {
                    finish(&mut buildah);
                    return Ok(buildah);
                }
                Err(reason) => tried.push(format!("{driver}, {isolation}: {reason}")),
            }
        }
    }
    Err(ProbeEngineError::NothingWorks { tried: tried.join("; ") })
}

/// Why builds cannot be run on this machine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ProbeEngineError {
    /// buildah is not there.
    #[error("cannot run `buildah`; install it, 1.28 or later")]
    NotInstalled { source: RunToolError },

    /// Every way to run a build failed.
    #[error("no way to run a build works here, as root or as this user ({tried})")]
    NothingWorks { tried: String },

    /// A directory or file could not be made.
    #[error("cannot prepare the engine's directory")]
    Prepare { source: io::Error },

    /// The system's own programs could not be looked at.
    #[error("cannot find the libraries of `{TRUE}` with `ldd`")]
    Libraries { source: RunToolError },

    /// buildah is too old, or says something else than its version.
    #[error("`buildah --version` says `{found}`; 1.28 or later is needed")]
    Version { found: String },
}

/// Sets what the chosen way of building needs, and notes what the operator should know.
fn finish(buildah: &mut Buildah) {
    if buildah.isolation == Isolation::Chroot {
        buildah.warnings.push(CHROOT_WARNING.to_owned());
        return;
    }
    let settings = &buildah.settings;
    for what in buildah.cgroup.limit(settings.max_processes, settings.max_memory) {
        buildah.warnings.push(format!(
            "the control groups of this machine cannot be changed: builds have no limit on {what}"
        ));
    }
}

/// Returns what to try, the best first.
fn candidates(forced: Option<Isolation>) -> Vec<Isolation> {
    let all = [Isolation::Oci(Runtime::Crun), Isolation::Oci(Runtime::Runc), Isolation::Chroot];
    forced.map_or_else(|| all.to_vec(), |forced| vec![forced])
}

async fn version() -> Result<String, ProbeEngineError> {
    let output = Tool::new("buildah")
        .arg("--version")
        .env("HOME", "/nonexistent")
        .output(&CancellationToken::new(), MAX_OUTPUT_BYTES, |_| ())
        .await
        .map_err(|source| ProbeEngineError::NotInstalled { source })?;
    let text = String::from_utf8_lossy(&output);
    parse_version(&text)
        .map(ToOwned::to_owned)
        .ok_or_else(|| ProbeEngineError::Version { found: text.chars().take(MAX_SHOWN).collect() })
}

/// Finds the version in `buildah version 1.28.2 (…)`, if it is not too old.
fn parse_version(text: &str) -> Option<&str> {
    let version = text.strip_prefix("buildah version ")?.split_whitespace().next()?;
    let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    ((major, minor) >= (1, 28)).then_some(version)
}

/// Makes a system with one program in it: that of this machine, with its libraries.
async fn tiny_system(directory: &Path) -> Result<(), ProbeEngineError> {
    let cancel = CancellationToken::new();
    let output = Tool::new("ldd").arg(TRUE).output(&cancel, MAX_OUTPUT_BYTES, |_| ()).await;
    let libraries = match output {
        Ok(output) => libraries(&String::from_utf8_lossy(&output)),
        // A program without libraries.
        Err(RunToolError::Failed { .. }) => Vec::new(),
        Err(source) => return Err(ProbeEngineError::Libraries { source }),
    };
    let copy = || -> io::Result<()> {
        for file in libraries.iter().map(PathBuf::as_path).chain([Path::new(TRUE)]) {
            let target = directory.join(file.strip_prefix("/").map_err(io::Error::other)?);
            fs::create_dir_all(target.parent().unwrap_or(directory))?;
            fs::copy(file, target)?;
        }
        Ok(())
    };
    copy().map_err(|source| ProbeEngineError::Prepare { source })
}

/// Finds the absolute paths in the output of `ldd`.
fn libraries(output: &str) -> Vec<PathBuf> {
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(Into::into);
    output.lines().filter_map(path).collect()
}

/// Makes the store of base images if it is not there, and returns the names in it.
pub(super) async fn stored_names(
    buildah: &Buildah,
    scratch: &Path,
) -> Result<HashSet<String>, BuildFault> {
    let sandbox = Sandbox::prepare(scratch, &buildah.store(), buildah.driver, Storage::Import)
        .map_err(|source| BuildFault::Prepare { source })?;
    let words = ["buildah", "images", "--noheading", "--format={{.Name}}:{{.Tag}}"];
    let output = sandbox
        .tool(words.map(OsString::from))
        .output(&CancellationToken::new(), MAX_NAMES_BYTES, |_| ())
        .await
        .map_err(BuildFault::of_tool)?;
    Ok(String::from_utf8_lossy(&output).lines().map(ToOwned::to_owned).collect())
}

/// Builds a tiny image whose one step runs a program; the error is why that failed.
async fn try_build(buildah: &Buildah, work_tree: &Path, scratch: &Path) -> Result<(), String> {
    let output = scratch.join("output");
    fs::create_dir_all(&output).map_err(|error| error.to_string())?;
    let dockerfile = tiny_dockerfile()?;
    let recipe = Recipe {
        arguments: BTreeMap::new(),
        context: RelativePath::default(),
        dockerfile: RelativePath::default(),
    };
    let request = BuildRequest {
        dockerfile: &dockerfile,
        epoch: 0,
        output: &output,
        recipe: &recipe,
        scratch,
        work_tree,
    };
    let mut last = String::new();
    let on_line = |line: &[u8]| last = String::from_utf8_lossy(line).into_owned();
    match buildah.run_build(&request, &CancellationToken::new(), on_line).await {
        Ok(_) => Ok(()),
        Err(BuildFault::Failed { .. }) => Err(last.chars().take(MAX_SHOWN).collect()),
        Err(error) => Err(chain(&error)),
    }
}

fn tiny_dockerfile() -> Result<ResolvedDockerfile, String> {
    let text = format!("FROM scratch\nCOPY . /\nRUN [\"{TRUE}\"]\n");
    let plan = plan(&text, &BTreeMap::new(), &RegistryHost::docker_hub());
    Ok(plan.map_err(|error| chain(&error))?.rewrite(ToString::to_string))
}

/// Makes a directory that only its owner can enter.
fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

const TRUE: &str = "/bin/true";
const MAX_OUTPUT_BYTES: usize = 64 * 1024;
const MAX_NAMES_BYTES: usize = 16 * 1024 * 1024;
const MAX_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_engine_or_another_answer_is_refused() {
        let debian = "buildah version 1.28.2 (image-spec 1.1.0-rc2, runtime-spec 1.0.2-dev)\n";
        assert_eq!(parse_version(debian), Some("1.28.2"));
        assert_eq!(parse_version("buildah version 2.0.0-dev (x)"), Some("2.0.0-dev"));
        for text in ["", "buildah", "buildah version x", "buildah version 1.27.9 (x)", "1.30"] {
            assert_eq!(parse_version(text), None, "{text}");
        }
    }

    #[test]
    fn libraries_are_found_in_both_forms() {
        let output = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x1)\n\t\
            /lib64/ld-linux-x86-64.so.2 (0x2)\n";
        let expected = ["/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(output), expected.map(PathBuf::from));
    }
}
