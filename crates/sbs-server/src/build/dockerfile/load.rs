//! Reading from a work tree: what a repository's symbolic links point to is never opened.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use sbs_proto::{Recipe, RelativePath};
use thiserror::Error;

use crate::build::failure::{Failure, StepError};

/// Reads the Dockerfile of a recipe. Its path is relative to the top of the work tree, whatever the
/// context is.
pub(crate) fn load(work_tree: &Path, recipe: &Recipe) -> Result<String, LoadFileError> {
    match read_text(work_tree, recipe.dockerfile.as_str()) {
        Err(LoadFileError::NotFound { path, .. }) => {
            // DOCKER_BUILD_PATH alone does not move the Dockerfile; the original is not clear
            // about that, so people expect otherwise.
            let hint = if recipe.context.is_top() {
                String::new()
            } else {
                let context = recipe.context.as_str();
                format!(
                    "; if it is in the build path, set DOCKERFILE_PATH to `{context}/Dockerfile`"
                )
            };
            Err(LoadFileError::NotFound { path, hint })
        }
        result => result,
    }
}

/// Reads what a recipe leaves out of its context: `<Dockerfile>.dockerignore`, else
/// `.containerignore` or `.dockerignore` at the top of the context, else nothing.
pub(crate) fn load_ignore_file(work_tree: &Path, recipe: &Recipe) -> Result<String, LoadFileError> {
    let context = recipe.context.as_str();
    let in_context = |name: &str| {
        if context.is_empty() { name.to_owned() } else { format!("{context}/{name}") }
    };
    let paths = [
        format!("{}.dockerignore", recipe.dockerfile.as_str()),
        in_context(".containerignore"),
        in_context(".dockerignore"),
    ];
    for path in paths {
        match read_text(work_tree, &path) {
            Err(LoadFileError::NotFound { .. }) => {}
            result => return result,
        }
    }
    Ok(String::new())
}

/// Opens a directory beneath a work tree, without following a symbolic link.
pub(crate) fn open_directory(
    work_tree: &Path,
    path: &RelativePath,
) -> Result<OwnedFd, LoadFileError> {
    let name = if path.is_top() { "." } else { path.as_str() };
    open_beneath(work_tree, name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens a regular file beneath a directory, without following a symbolic link.
pub(crate) fn open_file(directory: &Path, path: &str) -> Result<File, LoadFileError> {
    let file = File::from(open_beneath(directory, path, OFlags::RDONLY | OFlags::NONBLOCK)?);
    let metadata =
        file.metadata().map_err(|source| LoadFileError::Read { path: path.to_owned(), source })?;
    if metadata.is_file() { Ok(file) } else { Err(LoadFileError::Kind { path: path.to_owned() }) }
}

/// Why a file or directory of a work tree is not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum LoadFileError {
    /// It is not a regular file, or not a directory.
    #[error("`{path}` is not what it should be: a regular file, or a directory as build path")]
    Kind { path: String },

    /// It is not there.
    #[error("`{path}` is not there{hint}")]
    NotFound { path: String, hint: String },

    /// It could not be read.
    #[error("cannot read `{path}`")]
    Read { path: String, source: io::Error },

    /// It leads through a symbolic link or out of the work tree.
    #[error("`{path}` leads through a symbolic link; name the file itself")]
    SymbolicLink { path: String },

    /// It is not text in UTF-8 of at most 1 MiB.
    #[error("`{path}` is not a text in UTF-8 of at most {MAX_BYTES} bytes")]
    Text { path: String },
}

impl StepError for LoadFileError {
    fn failure(&self) -> Failure {
        let code = "bad_context";
        Failure { code, command: "buildah build".to_owned(), return_code: 125 }
    }
}

fn read_text(work_tree: &Path, path: &str) -> Result<String, LoadFileError> {
    let file = open_file(work_tree, path)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| LoadFileError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(LoadFileError::Text { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|_| LoadFileError::Text { path: path.to_owned() })
}

fn open_beneath(top: &Path, path: &str, flags: OFlags) -> Result<OwnedFd, LoadFileError> {
    let failed = |error: Errno| {
        let path = path.to_owned();
        match error {
            Errno::NOENT => LoadFileError::NotFound { path, hint: String::new() },
            Errno::LOOP | Errno::XDEV => LoadFileError::SymbolicLink { path },
            Errno::NOTDIR => LoadFileError::Kind { path },
            error => LoadFileError::Read { path, source: error.into() },
        }
    };
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = open(top, directory, Mode::empty())
        .map_err(|error| LoadFileError::Read { path: ".".to_owned(), source: error.into() })?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // The kernel answers EAGAIN when something is renamed at the same time.
    for _ in 0..8 {
        match openat2(&top, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result.map_err(failed),
        }
    }
    Err(failed(Errno::AGAIN))
}

const MAX_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn recipe(dockerfile: &str, context: &str) -> Recipe {
        Recipe {
            arguments: BTreeMap::new(),
            context: RelativePath::parse(context).unwrap(),
            dockerfile: RelativePath::parse(dockerfile).unwrap(),
        }
    }

    /// A work tree with a Dockerfile at the top and one below, each telling where it is.
    fn tree() -> TempDir {
        let tree = TempDir::new().unwrap();
        fs::create_dir_all(tree.path().join("sub/app")).unwrap();
        for path in ["Dockerfile", "sub/Dockerfile", "sub/app/Dockerfile"] {
            fs::write(tree.path().join(path), path).unwrap();
        }
        tree
    }

    #[test]
    fn the_dockerfile_is_looked_for_from_the_top_whatever_the_context_is() {
        let tree = tree();
        for (dockerfile, context, expected) in [
            ("Dockerfile", "", "Dockerfile"),
            ("sub/Dockerfile", "", "sub/Dockerfile"),
            ("Dockerfile", "sub", "Dockerfile"),
            ("sub/Dockerfile", "sub", "sub/Dockerfile"),
            ("sub/app/Dockerfile", "sub", "sub/app/Dockerfile"),
        ] {
            assert_eq!(load(tree.path(), &recipe(dockerfile, context)).unwrap(), expected);
        }
    }

    #[test]
    fn a_build_path_without_dockerfile_path_is_hinted_at() {
        let tree = tree();
        fs::remove_file(tree.path().join("Dockerfile")).unwrap();
        let error = load(tree.path(), &recipe("Dockerfile", "sub")).unwrap_err();
        let hint = "set DOCKERFILE_PATH to `sub/Dockerfile`";
        assert!(error.to_string().contains(hint), "{error}");
        let error = load(tree.path(), &recipe("Dockerfile", "")).unwrap_err();
        assert_eq!(error.to_string(), "`Dockerfile` is not there");
        assert_eq!(error.failure().code, "bad_context");
    }

    #[test]
    fn g6_links_directories_and_pipes_are_no_dockerfiles() {
        let tree = tree();
        let top = tree.path();
        let secret = TempDir::new().unwrap();
        fs::write(secret.path().join("key"), "secret").unwrap();
        symlink(secret.path().join("key"), top.join("absolute")).unwrap();
        symlink("Dockerfile", top.join("relative")).unwrap();
        symlink(secret.path(), top.join("directory")).unwrap();
        symlink("/proc/self/root/etc/passwd", top.join("magic")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, top.join("pipe"), Mode::RUSR).unwrap();
        for path in ["absolute", "relative", "directory/key", "magic"] {
            let error = load(top, &recipe(path, "")).unwrap_err();
            assert!(matches!(error, LoadFileError::SymbolicLink { .. }), "{path}: {error:?}");
        }
        for path in ["sub", "pipe", "Dockerfile/x"] {
            let error = load(top, &recipe(path, "")).unwrap_err();
            assert!(matches!(error, LoadFileError::Kind { .. }), "{path}: {error:?}");
        }
    }

    #[test]
    fn a_dockerfile_is_text_of_limited_size() {
        let tree = tree();
        let path = tree.path().join("Dockerfile");
        fs::write(&path, "#".repeat(1 << 20)).unwrap();
        load(tree.path(), &recipe("Dockerfile", "")).unwrap();
        for bytes in ["#".repeat((1 << 20) + 1).into_bytes(), b"FROM \xff".to_vec()] {
            fs::write(&path, bytes).unwrap();
            let error = load(tree.path(), &recipe("Dockerfile", "")).unwrap_err();
            assert!(matches!(error, LoadFileError::Text { .. }), "{error:?}");
        }
    }

    #[test]
    fn the_ignore_file_of_the_dockerfile_goes_before_that_of_the_context() {
        let tree = tree();
        let recipe = recipe("sub/Dockerfile", "sub/app");
        let ignored = || load_ignore_file(tree.path(), &recipe).unwrap();
        fs::write(tree.path().join(".dockerignore"), "of the top").unwrap();
        assert_eq!(ignored(), "");
        for name in
            ["sub/app/.dockerignore", "sub/app/.containerignore", "sub/Dockerfile.dockerignore"]
        {
            fs::write(tree.path().join(name), name).unwrap();
            assert_eq!(ignored(), name);
        }
        fs::remove_file(tree.path().join("sub/Dockerfile.dockerignore")).unwrap();
        symlink("/etc/passwd", tree.path().join("sub/Dockerfile.dockerignore")).unwrap();
        let error = load_ignore_file(tree.path(), &recipe).unwrap_err();
        assert!(matches!(error, LoadFileError::SymbolicLink { .. }), "{error:?}");
    }
}
