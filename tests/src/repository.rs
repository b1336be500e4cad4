use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{output, program};

/// The time of the first commit, in seconds since 1970; each later commit is a minute later.
pub const COMMIT_TIME: i64 = 1_700_000_000;

/// A git repository: a work tree to write in, and a bare one beside it that is served.
///
/// Commits have fixed authors and dates: the same files make the same commit ids.
#[derive(Debug)]
pub struct Repository {
    bare: PathBuf,
    commits: i64,
    tree: PathBuf,
}

/// A repository inside another one.
#[derive(Clone, Copy, Debug)]
pub struct Submodule<'a> {
    /// Where it stands in the outer work tree.
    pub path: &'a str,
    /// The inner repository.
    pub repository: &'a Repository,
    /// The URL that is written into `.gitmodules`.
    pub url: &'a str,
}

impl Repository {
    /// Makes the empty repository `directory/name.git`, with the branch `main`.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let bare = directory.join(format!("{name}.git"));
        let tree = directory.join(format!("{name}.tree"));
        for (path, options) in [(&bare, &["--bare"][..]), (&tree, &[])] {
            let mut git = program("git");
            git.args(["init", "--quiet", "--initial-branch", "main"]).args(options);
            output(git.arg(path))?;
        }
        let repository = Self { bare, commits: 0, tree };
        // As the large hosters have it: a commit that a branch or tag reaches can be asked for.
        let mut config = program("git");
        config.arg("-C").arg(&repository.bare);
        output(config.args(["config", "uploadpack.allowReachableSHA1InWant", "true"]))?;
        Ok(repository)
    }

    /// Returns the path of the bare repository.
    pub fn path(&self) -> &Path {
        &self.bare
    }

    /// Returns the path of the work tree.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Writes a file into the work tree.
    pub fn write(&self, path: &str, content: &str) -> Result<&Self> {
        let path = self.tree.join(path);
        fs::create_dir_all(path.parent().context("a path without a folder")?)?;
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(self)
    }

    /// Makes a file of the work tree executable.
    pub fn make_executable(&self, path: &str) -> Result<&Self> {
        fs::set_permissions(self.tree.join(path), fs::Permissions::from_mode(0o755))?;
        Ok(self)
    }

    /// Commits the work tree, publishes it and returns the commit id.
    pub fn commit(&mut self) -> Result<String> {
        output(self.git().args(["add", "--all"]))?;
        let date = format!("{} +0000", COMMIT_TIME + 60 * self.commits);
        let mut git = self.git();
        git.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
        output(git.args(["commit", "--quiet", "--allow-empty", "--message", "A commit"]))?;
        self.commits += 1;
        self.publish()?;
        self.head()
    }

    /// Writes `files` (path, content), commits them and returns the commit id.
    pub fn commit_files(&mut self, files: &[(&str, &str)]) -> Result<String> {
        for (path, content) in files {
            self.write(path, content)?;
        }
        self.commit()
    }

    /// Switches to the branch `name`, which is made if it is not there.
    pub fn switch(&self, name: &str) -> Result<()> {
        if output(self.git().args(["switch", "--quiet", name])).is_err() {
            output(self.git().args(["switch", "--quiet", "--create", name]))?;
        }
        Ok(())
    }

    /// Names the current commit by an annotated tag.
    pub fn tag(&self, name: &str) -> Result<()> {
        let date = format!("{COMMIT_TIME} +0000");
        let mut git = self.git();
        git.env("GIT_COMMITTER_DATE", date);
        output(git.args(["tag", "--annotate", "--message", "A tag", name]))?;
        self.publish()
    }

    /// Adds a submodule at its current commit; [`commit`](Self::commit) comes after it.
    pub fn add_submodule(&self, submodule: Submodule<'_>) -> Result<()> {
        // It is read from the disk here and from the URL by whoever clones.
        let mut git = self.git();
        git.args(["-c", "protocol.file.allow=always", "submodule", "--quiet", "add"]);
        output(git.arg(submodule.repository.path()).arg(submodule.path))?;
        let key = format!("submodule.{}.url", submodule.path);
        output(self.git().args(["config", "--file", ".gitmodules", &key, submodule.url]))?;
        Ok(())
    }

    /// Returns the id of the current commit.
    pub fn head(&self) -> Result<String> {
        Ok(output(self.git().args(["rev-parse", "HEAD"]))?.trim().to_owned())
    }

    fn publish(&self) -> Result<()> {
        let mut git = self.git();
        git.args(["push", "--quiet", "--mirror"]);
        output(git.arg(&self.bare))?;
        Ok(())
    }

    fn git(&self) -> Command {
        let mut git = program("git");
        git.arg("-C").arg(&self.tree);
        for role in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{role}_NAME"), "A Developer");
            git.env(format!("GIT_{role}_EMAIL"), "developer@example.com");
        }
        git
    }
}
