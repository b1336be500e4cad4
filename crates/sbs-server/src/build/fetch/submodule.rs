use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sbs_proto::{CommitId, GitUrl, ParseGitError, RelativePath};
use thiserror::Error;

use super::FetchFault;
use super::checkout::{self, Budget, Tree};
use super::command::{Git, Repository};
use super::download::{Remotes, Wanted};
use super::error::shorten;

/// Fetches the submodules of one source.
#[derive(Debug)]
pub(super) struct Submodules<'a> {
    budget: Budget<'a>,
    directory: &'a Path,
    fetched: BTreeMap<String, CommitId>,
    git: &'a Git<'a>,
    remotes: &'a Remotes<'a>,
}

/// A repository that is checked out and whose own submodules are not.
#[derive(Debug)]
pub(super) struct Parent {
    commit: CommitId,
    depth: usize,
    /// The path from the top of the source, empty for the top.
    path: String,
    repository: Repository,
    tree: Tree,
    url: String,
}

impl Parent {
    /// Takes the source itself.
    pub(super) fn top(repository: Repository, commit: CommitId, tree: Tree, url: &GitUrl) -> Self {
        let url = url.as_str().to_owned();
        Self { commit, depth: 0, path: String::new(), repository, tree, url }
    }
}

impl<'a> Submodules<'a> {
    pub(super) fn new(
        git: &'a Git<'a>,
        remotes: &'a Remotes<'a>,
        budget: Budget<'a>,
        directory: &'a Path,
    ) -> Self {
        Self { budget, directory, fetched: BTreeMap::new(), git, remotes }
    }

    /// Fetches every submodule, and every submodule of those, and returns their paths and commits.
    pub(super) async fn fetch_all(
        mut self,
        top: Parent,
    ) -> Result<BTreeMap<String, CommitId>, FetchFault> {
        let mut parents = vec![top];
        while let Some(parent) = parents.pop() {
            for link in self.declared(&parent).await? {
                let path = match parent.path.as_str() {
                    "" => link.path.as_str().to_owned(),
                    above => format!("{above}/{}", link.path),
                };
                let child = self.fetch(&parent, &link, path.clone()).await;
                parents.push(child.map_err(|source| at(&path, source))?);
                self.fetched.insert(path, link.commit);
            }
        }
        Ok(self.fetched)
    }

    /// Returns the submodules that the parent's tree has, with the URLs from its `.gitmodules`.
    async fn declared(&self, parent: &Parent) -> Result<Vec<Link>, FetchFault> {
        if parent.tree.gitlinks.is_empty() {
            return Ok(Vec::new());
        }
        let Some(bytes) = parent.tree.modules_bytes else {
            return Err(at(MODULES, SubmoduleError::NoModulesFile));
        };
        if bytes > MAX_MODULES_BYTES {
            return Err(at(MODULES, SubmoduleError::ModulesTooLarge));
        }
        let blob = format!("{}:{MODULES}", parent.commit);
        let arguments = ["config", "--no-includes", "--blob", &blob, "-z", "--list"];
        let settings = self.git.output(&parent.repository, &arguments, MAX_SETTINGS_BYTES).await;
        let settings = settings.map_err(|fault| match fault {
            FetchFault::Git { .. } => at(MODULES, SubmoduleError::ModulesMalformed),
            other => other,
        })?;
        let modules = Module::parse_all(&settings).map_err(|source| at(MODULES, source))?;
        let links = parent.tree.gitlinks.iter().map(|(path, commit)| {
            Link::new(path, commit, &modules, &parent.url)
                .map_err(|source| at(&String::from_utf8_lossy(path), source))
        });
        links.collect()
    }

    /// Fetches one submodule into the empty directory that its parent's checkout left for it.
    async fn fetch(
        &mut self,
        parent: &Parent,
        link: &Link,
        path: String,
    ) -> Result<Parent, SubmoduleError> {
        let number = self.fetched.len();
        if parent.depth == MAX_DEPTH || number == MAX_SUBMODULES {
            return Err(SubmoduleError::TooMany);
        }
        let work_tree = empty_directory(&parent.repository.work_tree, &link.path)?;
        let git_dirs = self.directory.join("git-modules");
        fs::create_dir_all(&git_dirs).map_err(|error| Box::new(FetchFault::from(error)))?;
        let repository = Repository { git_dir: git_dirs.join(number.to_string()), work_tree };
        let (host, commit) = (link.url.host(), &link.commit);
        self.git.log().info(&format!("cloning a submodule; path={path}; github_host={host}"));
        let wanted = Wanted::Commit(commit.clone());
        let git = self.git;
        self.remotes.download(git, &repository, &link.url, &wanted).await.map_err(Box::new)?;
        let tree = checkout::check_out(git, &repository, commit, &mut self.budget).await;
        let tree = tree.map_err(Box::new)?;
        let url = link.url.as_str().to_owned();
        Ok(Parent { commit: commit.clone(), depth: parent.depth + 1, path, repository, tree, url })
    }
}

/// Why a submodule is refused or could not be fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum SubmoduleError {
    /// Two submodules are declared for one path.
    #[error("`.gitmodules` declares it twice")]
    Ambiguous,

    /// The transfer or the checkout failed.
    #[error(transparent)]
    Fetch(#[from] Box<FetchFault>),

    /// The file is not in the form of git-config(1).
    #[error("it is malformed")]
    ModulesMalformed,

    /// The file is larger than 1 MiB.
    #[error("it is larger than {MAX_MODULES_BYTES} bytes")]
    ModulesTooLarge,

    /// The name would lead elsewhere as a path.
    #[error("it has a submodule whose name leads out of its place")]
    Name,

    /// The repository has submodules but no file that declares them.
    #[error("the repository has submodules but no regular file `{MODULES}` that declares them")]
    NoModulesFile,

    /// The place is not an empty directory inside the work tree.
    #[error("its place in the work tree is not a plain empty directory")]
    NotADirectory,

    /// The path leads out of the work tree, into git's administration, or is not UTF-8.
    #[error("its path leads out of the work tree or has characters that no path may have")]
    Path,

    /// A relative URL has more `../` than the parent's URL has parts.
    #[error("its relative URL leads out of the host of the repository")]
    RelativeUrl,

    /// There are too many, or they are nested too deeply.
    #[error("at most {MAX_SUBMODULES} submodules, nested {MAX_DEPTH} deep, are fetched")]
    TooMany,

    /// The submodule asks for a command to be run.
    #[error("it has a submodule with `update = !command`")]
    UpdateCommand,

    /// The tree has the submodule, `.gitmodules` has no URL for it.
    #[error("`{MODULES}` has no URL for it")]
    Undeclared,

    /// The URL is none that this server fetches from.
    #[error("its URL is refused")]
    Url(#[from] ParseGitError),
}

/// A submodule of a tree.
#[derive(Debug)]
struct Link {
    commit: CommitId,
    path: RelativePath,
    url: GitUrl,
}

impl Link {
    fn new(
        path: &[u8],
        commit: &CommitId,
        modules: &[Module],
        parent_url: &str,
    ) -> Result<Self, SubmoduleError> {
        let text = std::str::from_utf8(path).map_err(|_| SubmoduleError::Path)?;
        let path = parse_path(text).filter(|path| path.as_str() == text);
        let path = path.ok_or(SubmoduleError::Path)?;
        let mut declared = modules.iter().filter(|module| module.path.as_ref() == Some(&path));
        let url = declared.next().and_then(|module| module.url.as_deref());
        let url = url.ok_or(SubmoduleError::Undeclared)?;
        if declared.next().is_some() {
            return Err(SubmoduleError::Ambiguous);
        }
        let url = if url.starts_with("./") || url.starts_with("../") {
            GitUrl::parse(&resolve(parent_url, url).ok_or(SubmoduleError::RelativeUrl)?)?
        } else {
            GitUrl::parse(url)?
        };
        Ok(Self { commit: commit.clone(), path, url })
    }
}

/// What `.gitmodules` declares under one name.
#[derive(Debug, Default, Eq, PartialEq)]
struct Module {
    path: Option<RelativePath>,
    url: Option<String>,
}

impl Module {
    /// Parses the output of `git config -z --list`: `section.name.variable`, newline, value, NUL.
    ///
    /// Everything is checked, also of a submodule that the tree does not have: nobody writes such a
    /// name by accident.
    fn parse_all(settings: &[u8]) -> Result<Vec<Self>, SubmoduleError> {
        let mut modules: BTreeMap<&str, Self> = BTreeMap::new();
        for setting in settings.split(|&byte| byte == 0) {
            let setting =
                std::str::from_utf8(setting).map_err(|_| SubmoduleError::ModulesMalformed)?;
            let (key, value) = setting.split_once('\n').unwrap_or((setting, ""));
            let Some(key) = key.strip_prefix("submodule.") else { continue };
            let Some((name, variable)) = key.rsplit_once('.') else { continue };
            if parse_path(name).is_none() {
                return Err(SubmoduleError::Name);
            }
            let module = modules.entry(name).or_default();
            match variable {
                "path" => module.path = Some(parse_path(value).ok_or(SubmoduleError::Path)?),
                "update" if value.trim_start().starts_with('!') => {
                    return Err(SubmoduleError::UpdateCommand);
                }
                "url" => module.url = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(modules.into_values().collect())
    }
}

/// Parses the path or name of a submodule; no part of it may be git's administration.
fn parse_path(text: &str) -> Option<RelativePath> {
    let path = RelativePath::parse(text).ok().filter(|path| !path.is_top())?;
    let hostile = path.as_str().split('/').any(|part| part.eq_ignore_ascii_case(".git"));
    (!hostile && !text.starts_with('-')).then_some(path)
}

/// Resolves `./x` and `../x` against the parent's URL as git-submodule(1) does, but never above
/// the path of that URL: the host stays the same.
fn resolve(parent: &str, relative: &str) -> Option<String> {
    let path_at = if let Some((scheme, rest)) = parent.split_once("://") {
        scheme.len() + 3 + rest.find('/')? + 1
    } else {
        // The short form `user@host:path`; `:/path` is absolute and stays so.
        let colon = parent.find(':')?;
        colon + 1 + usize::from(parent.get(colon + 1..)?.starts_with('/'))
    };
    let (host, path) = parent.split_at_checked(path_at)?;
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| format!("{host}{}", parts.join("/")))
}

/// Returns the submodule's place, if it and everything above it inside the work tree is a plain
/// directory and it is empty.
fn empty_directory(work_tree: &Path, path: &RelativePath) -> Result<PathBuf, SubmoduleError> {
    let mut place = work_tree.to_owned();
    for part in path.as_str().split('/') {
        place.push(part);
        // Unlike `is_dir`, this does not follow a symbolic link.
        if !fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(SubmoduleError::NotADirectory);
        }
    }
    match fs::read_dir(&place).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(place),
        _ => Err(SubmoduleError::NotADirectory),
    }
}

fn at(path: &str, source: SubmoduleError) -> FetchFault {
    match source {
        SubmoduleError::Fetch(fault) if matches!(*fault, FetchFault::Cancelled) => *fault,
        source => FetchFault::Submodule { path: shorten(path), source },
    }
}

const MODULES: &str = ".gitmodules";
const MAX_DEPTH: usize = 5;
const MAX_MODULES_BYTES: u64 = 1 << 20;
/// Bytes: each setting is printed with the name of its section.
const MAX_SETTINGS_BYTES: usize = 16 << 20;
const MAX_SUBMODULES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn relative_urls_stay_on_their_host() {
        for (parent, relative, expected) in [
            ("https://h:1/a/b.git", "../c.git", Some("https://h:1/a/c.git")),
            ("https://h/a/b/", "./c", Some("https://h/a/b/c")),
            ("https://h/a/b", "../../c/d", Some("https://h/c/d")),
            ("https://h/a/b", "../../../c", None),
            ("https://h/a/b", "../../../../evil/c", None),
            ("https://h/a", "..", None),
            ("ssh://git@h:22/a/b", "../c", Some("ssh://git@h:22/a/c")),
            ("git@h:a/b.git", "../c", Some("git@h:a/c")),
            ("git@h:b.git", "../c", Some("git@h:c")),
            ("git@h:/srv/b", "../c", Some("git@h:/srv/c")),
            ("git@h:/srv/b", "../../c", Some("git@h:/c")),
            ("git@h:b", "../../evil:c", None),
        ] {
            assert_eq!(resolve(parent, relative).as_deref(), expected, "{parent} {relative}");
        }
    }

    #[test]
    fn g4_hostile_declarations_are_refused() {
        let settings = |name: &str, variable: &str, value: &str| {
            format!("submodule.{name}.{variable}\n{value}\0core.x\n1\0novalue\0")
        };
        let good = Module::parse_all(settings("a.b", "path", "x/y").as_bytes()).unwrap();
        assert_eq!(good, [Module { path: RelativePath::parse("x/y").ok(), url: None }]);
        for (name, variable, value, expected) in [
            ("../../hooks", "path", "x", SubmoduleError::Name),
            ("a/.git/hooks", "path", "x", SubmoduleError::Name),
            ("/abs", "path", "x", SubmoduleError::Name),
            ("a", "path", "../x", SubmoduleError::Path),
            ("a", "path", "/x", SubmoduleError::Path),
            ("a", "path", ".git/hooks", SubmoduleError::Path),
            ("a", "path", "b/.GIT/hooks", SubmoduleError::Path),
            ("a", "path", "-x", SubmoduleError::Path),
            ("a", "path", "x\r", SubmoduleError::Path),
            ("a", "path", "", SubmoduleError::Path),
            ("a", "update", "!touch x", SubmoduleError::UpdateCommand),
            ("a", "update", " !touch x", SubmoduleError::UpdateCommand),
        ] {
            let parsed = Module::parse_all(settings(name, variable, value).as_bytes());
            let error = parsed.unwrap_err();
            assert_eq!(error.to_string(), expected.to_string(), "{name} {variable} {value:?}");
        }
        let error = Module::parse_all(b"submodule.\xff.path\nx\0").unwrap_err();
        assert!(matches!(error, SubmoduleError::ModulesMalformed));
    }

    #[test]
    fn g2_a_link_needs_one_url_that_the_server_fetches_from() {
        let commit = CommitId::parse(ID).unwrap();
        let module =
            |url: &str| Module { path: RelativePath::parse("m").ok(), url: Some(url.to_owned()) };
        let link = |path: &[u8], modules: &[Module]| {
            Link::new(path, &commit, modules, "https://h/a/b").map(|link| link.url.to_string())
        };
        assert_eq!(link(b"m", &[module("../c")]).unwrap(), "https://h/a/c");
        for url in ["/srv/r", "file:///srv/r", "ext::sh -c x", "http://h/r", "-x", "", "fd::3"] {
            let result = link(b"m", &[module(url)]);
            assert!(matches!(result, Err(SubmoduleError::Url(_))), "{url}");
        }
        let result = link(b"m", &[module("../../../c")]);
        assert!(matches!(result, Err(SubmoduleError::RelativeUrl)));
        assert!(matches!(link(b"n", &[module("../c")]), Err(SubmoduleError::Undeclared)));
        let twice = [module("../c"), module("https://h/d")];
        assert!(matches!(link(b"m", &twice), Err(SubmoduleError::Ambiguous)));
        for path in [&b"m\r"[..], b"../m", b"./m", b"\xff", b".git"] {
            assert!(matches!(link(path, &[module("../c")]), Err(SubmoduleError::Path)));
        }
    }

    #[test]
    fn g4_a_place_behind_a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, outside) = (directory.path().join("tree"), directory.path().join("outside"));
        fs::create_dir_all(tree.join("real/empty")).unwrap();
        fs::create_dir_all(tree.join("real/full/x")).unwrap();
        fs::create_dir_all(outside.join("empty")).unwrap();
        std::os::unix::fs::symlink("../outside", tree.join("link")).unwrap();
        std::os::unix::fs::symlink("real/empty", tree.join("end")).unwrap();
        let place = |path| empty_directory(&tree, &RelativePath::parse(path).unwrap());
        assert_eq!(place("real/empty").unwrap(), tree.join("real/empty"));
        for path in ["link/empty", "end", "real/full", "absent"] {
            assert!(matches!(place(path), Err(SubmoduleError::NotADirectory)), "{path}");
        }
    }
}
