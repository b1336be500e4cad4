use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use sbs_proto::{GitReference, GitUrl, SecretText, Source};
use tempfile::TempDir;

use super::command::{Git, ObjectFormat, Repository};
use super::diagnosis::PeerFault;
use super::ssh::KeyError;
use super::submodule::SubmoduleError;
use super::testing::{Origin, SshServer, make_key};
use super::*;
use crate::build::failure::{StepError as _, chain};
use crate::build::log::Masks;
use crate::clock::Clock;

/// The server's side of one fetch.
struct Job {
    cancel: CancellationToken,
    limits: FetchLimits,
    root: TempDir,
    trust: GitTrust,
}

impl Job {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let known_hosts = HostKeys::FirstUse(root.path().join("known_hosts"));
        let trust = GitTrust { known_hosts, ca_file: None };
        let limits = FetchLimits { idle: Duration::from_secs(30), ..FetchLimits::default() };
        let job = Self { cancel: CancellationToken::new(), limits, root, trust };
        fs::DirBuilder::new().mode(0o700).create(job.directory()).unwrap();
        job
    }

    /// A job that has the known hosts of another.
    fn after(other: &Self) -> Self {
        let job = Self::new();
        fs::copy(other.known_hosts(), job.known_hosts()).unwrap();
        job
    }

    fn pinned(known_hosts: &str) -> Self {
        let mut job = Self::new();
        fs::write(job.known_hosts(), known_hosts).unwrap();
        job.trust.known_hosts = HostKeys::Pinned(job.known_hosts());
        job
    }

    /// A path with everything that ssh or a shell could read as its own, but `$`, `"` and `\`.
    fn directory(&self) -> PathBuf {
        self.root.path().join("a job's %d;#")
    }

    fn known_hosts(&self) -> PathBuf {
        self.root.path().join("known_hosts")
    }

    fn build_log(&self) -> BuildLog {
        let file = File::create(self.root.path().join("log")).unwrap();
        BuildLog::new(file, Clock::fixed(1_700_000_000), Masks::default(), 1 << 20)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("log")).unwrap()
    }

    async fn fetch(&self, source: &Source) -> Result<Fetched, FetchError> {
        let directory = self.directory();
        let request = FetchRequest {
            source,
            directory: &directory,
            trust: &self.trust,
            limits: &self.limits,
        };
        let result = fetch(&request, &self.build_log(), &self.cancel).await;
        assert!(!directory.join("key").exists(), "the key outlives the fetch");
        result
    }

    async fn fault(&self, source: &Source) -> FetchFault {
        self.fetch(source).await.unwrap_err().fault
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.directory().join("tree").join(file)).unwrap()
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Appends a path to what sshd runs instead of what the client asks for.
fn forced(directory: &Path, script: &str) -> String {
    let path = directory.join("forced");
    fs::write(&path, script).unwrap();
    format!("AcceptEnv GIT_PROTOCOL\nForceCommand sh {}", path.display())
}

#[tokio::test]
async fn resolves_branches_tags_commits_and_head() {
    let (server, origin) = (SshServer::start(), Origin::new());
    let first = origin.commit_files("main", &[("f", "1")]);
    origin.git(["tag", "light", &first]);
    origin.git(["tag", "-a", "-m", "x", "annotated", &first]);
    // A branch goes before a tag of the same name.
    origin.git(["tag", "both", &first]);
    let second = origin.commit_files("main", &[("f", "2")]);
    let other = origin.commit_files("both", &[("f", "3")]);
    for (reference, commit, text) in [
        (None, &second, "2"),
        (Some("main"), &second, "2"),
        (Some("both"), &other, "3"),
        (Some("light"), &first, "1"),
        (Some("annotated"), &first, "1"),
        (Some(second.as_str()), &second, "2"),
        (Some(first.as_str()), &first, "1"),
    ] {
        let job = Job::new();
        let fetched = job.fetch(&server.source(origin.path(), reference)).await.unwrap();
        let record = &fetched.record;
        assert_eq!((record.commit.as_str(), job.read("f").as_str()), (commit.as_str(), text));
        assert_eq!(record.tree.as_str(), origin.git(["rev-parse", &format!("{commit}^{{tree}}")]));
        assert_eq!(record.commit_time, 1_700_000_000);
        assert_eq!(record.reference.as_deref(), reference);
        assert_eq!(record.url, server.url(origin.path()));
        assert_eq!(record.host_key, Some(server.fingerprint()));
        assert_eq!(names(&fetched.work_tree), ["f"]);
        let object = String::from_utf8(fetched.commit_object).unwrap();
        assert_eq!(object.trim_end(), origin.git(["cat-file", "commit", commit]));
        let listing = String::from_utf8(fetched.tree_listing).unwrap();
        assert_eq!(listing, origin.git(["ls-tree", "-r", "-t", "-z", commit]));
        assert!(job.log().contains("cloning a github repo; github_host=127.0.0.1\n"));
    }
}

#[tokio::test]
async fn a_commit_is_found_where_the_server_gives_out_none_by_id() {
    // Without GIT_PROTOCOL git speaks the oldest protocol, which knows advertised ids alone.
    let (server, origin) = (SshServer::start_with(""), Origin::new());
    let old = origin.commit_files("main", &[("f", "1")]);
    origin.commit_files("main", &[("f", "2")]);
    let job = Job::new();
    let fetched = job.fetch(&server.source(origin.path(), Some(&old))).await.unwrap();
    assert_eq!((fetched.record.commit.as_str(), job.read("f").as_str()), (old.as_str(), "1"));
    assert!(job.log().contains("fetching the whole history"), "{}", job.log());
}

#[tokio::test]
async fn a_repository_may_use_sha256() {
    let (server, origin) = (SshServer::start(), Origin::with_format("sha256"));
    let commit = origin.commit_files("main", &[("f", "1")]);
    assert_eq!(commit.len(), 64);
    for reference in [None, Some("main"), Some(commit.as_str())] {
        let fetched = Job::new().fetch(&server.source(origin.path(), reference)).await.unwrap();
        assert_eq!(fetched.record.commit.as_str(), commit);
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (server, origin, empty) = (SshServer::start(), Origin::new(), Origin::new());
    let commit = origin.commit_files("main", &[("f", "1")]);
    origin.git(["tag", "tree", &format!("{commit}^{{tree}}")]);
    origin.git(["tag", "-a", "-m", "x", "annotated", &commit]);
    let tag_object = origin.git(["rev-parse", "refs/tags/annotated"]);
    let absent = "1".repeat(40);
    for reference in ["absent", "tree", &absent, &tag_object] {
        let error = Job::new().fetch(&server.source(origin.path(), Some(reference))).await;
        let error = error.unwrap_err();
        let told = format!("the repository has no branch, tag or commit `{reference}`");
        assert!(chain(&error).ends_with(&told), "{}", chain(&error));
        let failure = error.failure();
        assert_eq!((failure.code, failure.return_code), ("git_reference", 128));
        assert_eq!(failure.command, format!("git clone {}", server.url(origin.path())));
    }
    let fault = Job::new().fault(&server.source(empty.path(), None)).await;
    assert!(matches!(fault, FetchFault::NoDefaultBranch), "{fault:?}");
    let absent = origin.path().join("absent");
    let fault = Job::new().fault(&server.source(&absent, None)).await;
    let source = PeerFault::RepositoryNotFound;
    assert!(matches!(fault, FetchFault::Peer { source: s, .. } if s == source), "{fault:?}");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named() {
    let (mut server, origin) = (SshServer::start(), Origin::new());
    let source = server.source(origin.path(), None);
    server.stop();
    let fault = Job::new().fault(&source).await;
    let FetchFault::Peer { host, source } = fault else { panic!("{fault:?}") };
    assert_eq!((host.as_str(), source), ("127.0.0.1", PeerFault::Unreachable));
}

#[tokio::test]
async fn a_key_that_does_not_open_the_server_is_told_apart() {
    let (server, origin) = (SshServer::start(), Origin::new());
    origin.commit_files("main", &[("f", "1")]);
    let directory = tempfile::tempdir().unwrap();
    let key = |name, passphrase| {
        let path = directory.path().join(name);
        make_key(&path, passphrase);
        fs::read_to_string(path).unwrap()
    };
    let mut source = server.source(origin.path(), None);
    for key in [Some(key("other", "")), None] {
        source.key = key.map(SecretText::new);
        let fault = Job::new().fault(&source).await;
        let expected = PeerFault::AuthenticationRefused;
        assert!(
            matches!(fault, FetchFault::Peer { source, .. } if source == expected),
            "{fault:?}"
        );
    }
    for (key, expected) in [
        (key("locked", "passphrase"), KeyError::Passphrase),
        ("no key".to_owned(), KeyError::Format),
        (String::new(), KeyError::Format),
    ] {
        source.key = Some(SecretText::new(key));
        let fault = Job::new().fault(&source).await;
        assert!(matches!(fault, FetchFault::Key(error) if error == expected), "{fault:?}");
    }
}

#[tokio::test]
async fn a_key_with_foreign_line_ends_works() {
    let (server, origin) = (SshServer::start(), Origin::new());
    origin.commit_files("main", &[("f", "1")]);
    let mut source = server.source(origin.path(), None);
    let key = format!("\r\n{}", server.key().trim_end().replace('\n', "\r\n"));
    source.key = Some(SecretText::new(key));
    Job::new().fetch(&source).await.unwrap();
}

#[tokio::test]
async fn g7_the_first_host_key_is_recorded_and_another_one_refused() {
    let (mut server, origin) = (SshServer::start(), Origin::new());
    origin.commit_files("main", &[("f", "1")]);
    let source = server.source(origin.path(), None);
    let first = Job::new();
    let fetched = first.fetch(&source).await.unwrap();
    assert_eq!(fetched.record.host_key, Some(server.fingerprint()));
    let told = format!("was not known; {} is recorded", server.fingerprint());
    assert!(first.log().contains(&told), "{}", first.log());
    let recorded = fs::read_to_string(first.known_hosts()).unwrap();
    let of_line = |line: &str| line.split(' ').take(3).map(str::trim).collect::<Vec<_>>().join(" ");
    assert_eq!(of_line(&recorded), of_line(&server.known_hosts_line()));

    let second = Job::after(&first);
    second.fetch(&source).await.unwrap();
    assert!(second.log().contains("as recorded"), "{}", second.log());

    server.renew_host_key();
    let third = Job::after(&first);
    let error = third.fetch(&source).await.unwrap_err();
    assert_eq!(error.failure().code, "git_host_key");
    assert!(chain(&error).contains("is not the recorded one"), "{}", chain(&error));
    assert!(!third.directory().join("tree/f").exists());
    assert_eq!(fs::read_to_string(third.known_hosts()).unwrap(), recorded);
}

#[tokio::test]
async fn g7_pinned_host_keys_alone_are_believed() {
    let (mut server, origin) = (SshServer::start(), Origin::new());
    origin.commit_files("main", &[("f", "1")]);
    let source = server.source(origin.path(), None);
    let pin = server.known_hosts_line();
    Job::pinned(&pin).fetch(&source).await.unwrap();
    let unknown = Job::pinned("");
    server.renew_host_key();
    for (job, expected) in [
        (Job::pinned(&pin), PeerFault::HostKeyChanged),
        (
            Job::pinned(&format!("@revoked {}", server.known_hosts_line())),
            PeerFault::HostKeyChanged,
        ),
        (unknown, PeerFault::HostKeyUnknown),
    ] {
        let before = fs::read(job.known_hosts()).unwrap();
        let fault = job.fault(&source).await;
        assert!(
            matches!(fault, FetchFault::Peer { source, .. } if source == expected),
            "{fault:?}"
        );
        assert_eq!(fs::read(job.known_hosts()).unwrap(), before);
    }
}

#[tokio::test]
async fn g1_what_git_would_read_as_an_option_is_never_run() {
    let (server, origin) = (SshServer::start(), Origin::new());
    origin.commit_files("main", &[("f", "1")]);
    let job = Job::new();
    let directory = tempfile::Builder::new().prefix("canary").tempdir().unwrap();
    let canary = directory.path().join("canary");
    // Neither type lets such a text in (`sbs-proto`); what gets near it is inert.
    GitReference::parse(&format!("--upload-pack=touch {}", canary.display())).unwrap_err();
    for reference in [format!("x;touch${{IFS}}{}", canary.display()), "x`touch`y".to_owned()] {
        let fault = Job::new().fault(&server.source(origin.path(), Some(&reference))).await;
        assert!(matches!(fault, FetchFault::NoSuchReference { .. }), "{fault:?}");
    }
    let mut source = server.source(origin.path(), None);
    let path = format!("/x';touch${{IFS}}{};'", canary.display());
    source.url = GitUrl::parse(&server.url(Path::new(&path))).unwrap();
    job.fetch(&source).await.unwrap_err();
    assert!(!canary.exists());
}

/// Returns an origin with a submodule of this commit at `m`, declared by `modules`.
fn with_submodule(modules: &str, commit: &str) -> Origin {
    let origin = Origin::new();
    let entries = [
        format!("100644 blob {}\t.gitmodules", origin.blob(modules.as_bytes())),
        format!("160000 commit {commit}\tm"),
    ];
    let tree = origin.tree(&entries);
    origin.commit("main", &tree);
    origin
}

#[tokio::test]
async fn submodules_are_fetched_only_if_asked_for() {
    let server = SshServer::start();
    let inner = Origin::new();
    let inner_commit = inner.commit_files("main", &[("g", "inner")]);
    inner.commit_files("main", &[("g", "newer")]);
    let declared = format!("[submodule \"i\"]\npath = m\nurl = {}\n", server.url(inner.path()));
    let middle = with_submodule(&declared, &inner_commit);
    let middle_commit = middle.git(["rev-parse", "main"]);
    let relative = format!("../{}", middle.path().file_name().unwrap().to_str().unwrap());
    let declared = format!("[submodule \"x\"]\n\tpath = m\n\turl = {relative}\n");
    let outer = with_submodule(&declared, &middle_commit);

    let mut source = server.source(outer.path(), None);
    let job = Job::new();
    let fetched = job.fetch(&source).await.unwrap();
    assert!(fetched.record.submodules.is_empty());
    assert_eq!(names(&job.directory().join("tree/m")), Vec::<String>::new());

    source.recurse_submodules = true;
    let job = Job::new();
    let fetched = job.fetch(&source).await.unwrap();
    let submodules: Vec<_> =
        fetched.record.submodules.iter().map(|(path, id)| (path.as_str(), id.as_str())).collect();
    assert_eq!(submodules, [("m", middle_commit.as_str()), ("m/m", &inner_commit)]);
    assert_eq!(job.read("m/m/g"), "inner");
    assert_eq!(names(&job.directory().join("tree/m")), [".gitmodules", "m"]);
    assert_eq!(names(&job.directory().join("tree/m/m")), ["g"]);

    let mut job = Job::new();
    job.limits.max_files = 4;
    let fault = job.fault(&source).await;
    let FetchFault::Submodule { path, source } = fault else { panic!("{fault:?}") };
    assert_eq!(path, "m/m");
    assert!(source.to_string().contains("limit of 4 files"), "{source}");
}

#[tokio::test]
async fn a_submodule_that_leads_to_itself_ends() {
    let (server, origin) = (SshServer::start(), Origin::new());
    // A commit cannot hold its own id: a chain of ten stands for the endless one.
    let url = server.url(origin.path());
    let modules = origin.blob(format!("[submodule \"x\"]\npath = m\nurl = {url}\n").as_bytes());
    let mut commit = origin.commit_files("main", &[("f", "1")]);
    for _ in 0..10 {
        let entries =
            [format!("100644 blob {modules}\t.gitmodules"), format!("160000 commit {commit}\tm")];
        let tree = origin.tree(&entries);
        commit = origin.commit("main", &tree);
    }
    let mut source = server.source(origin.path(), None);
    source.recurse_submodules = true;
    let fault = Job::new().fault(&source).await;
    let FetchFault::Submodule { path, source } = fault else { panic!("{fault:?}") };
    assert_eq!(path, "m/m/m/m/m/m");
    assert!(matches!(source, SubmoduleError::TooMany), "{source:?}");
}

#[tokio::test]
async fn g2_a_submodule_cannot_name_a_place_on_this_machine() {
    let (server, inner) = (SshServer::start(), Origin::new());
    let commit = inner.commit_files("main", &[("g", "inner")]);
    let path = inner.path().display();
    for url in [format!("{path}"), format!("file://{path}"), format!("ext::git %s {path}")] {
        let declared = format!("[submodule \"x\"]\npath = m\nurl = \"{url}\"\n");
        let outer = with_submodule(&declared, &commit);
        let mut source = server.source(outer.path(), None);
        source.recurse_submodules = true;
        let job = Job::new();
        let fault = job.fault(&source).await;
        let FetchFault::Submodule { source, .. } = fault else { panic!("{fault:?}") };
        assert!(matches!(source, SubmoduleError::Url(_)), "{source:?}");
        assert_eq!(names(&job.directory().join("tree/m")), Vec::<String>::new());
    }
}

#[tokio::test]
async fn g4_hostile_submodules_run_nothing() {
    let server = SshServer::start();
    let canary = tempfile::tempdir().unwrap();
    let canary = canary.path().join("canary");
    let script = format!("#!/bin/sh\ntouch {}\n", canary.display());
    // A submodule whose files are hooks, to land in an administration directory.
    let inner = Origin::new();
    let hook = inner.blob(script.as_bytes());
    let hooks: Vec<_> = ["post-checkout", "post-index-change", "reference-transaction"]
        .map(|name| format!("100755 blob {hook}\t{name}"))
        .into();
    let tree = inner.tree(&[format!("040000 tree {}\thooks", inner.tree(&hooks))]);
    let commit = inner.commit("main", &tree);
    let (url, run) = (server.url(inner.path()), format!("!touch {}", canary.display()));
    let module = |name: &str, path: &str| {
        format!("[submodule \"{name}\"]\npath = \"{path}\"\nurl = {url}\n")
    };
    let link = |name: &str| format!("160000 commit {commit}\t{name}");
    let symlink =
        |origin: &Origin, to: &str| format!("120000 blob {}\tA", origin.blob(to.as_bytes()));
    let origin = Origin::new();
    let below = origin.tree(&[link("m")]);
    for (what, modules, entries) in [
        ("parent path", module("x", ".."), vec![link("..")]),
        ("path into git", module("x", ".git"), vec![link(".git")]),
        ("git in capitals", module("x", ".GIT"), vec![link(".GIT")]),
        ("name that leads out", module("../../git/modules", "m"), vec![link("m")]),
        ("name into git", module("a/.git/hooks", "m"), vec![link("m")]),
        ("update command", module("x", "m") + &format!("update = {run}\n"), vec![link("m")]),
        ("path that ends in CR", module("x", "m\r"), vec![link("m\r")]),
        (
            "path behind a link",
            module("x", "A/m"),
            vec![symlink(&origin, "../git"), format!("040000 tree {below}\tA")],
        ),
        ("declared behind a link", module("x", "A/m"), vec![symlink(&origin, "../git"), link("m")]),
        ("option as path", module("x", "-m"), vec![link("-m")]),
    ] {
        let file = format!("100644 blob {}\t.gitmodules", origin.blob(modules.as_bytes()));
        let tree = origin.tree(&[vec![file], entries].concat());
        origin.commit("main", &tree);
        let mut source = server.source(origin.path(), None);
        source.recurse_submodules = true;
        let job = Job::new();
        let fault = job.fault(&source).await;
        let refused = matches!(fault, FetchFault::Submodule { .. } | FetchFault::Unsound);
        assert!(refused, "{what}: {fault:?} {}", job.log());
        assert!(!job.directory().join("git/hooks").exists(), "{what}");
        assert!(!canary.exists(), "{what}");
    }
}

#[tokio::test]
async fn g5_what_is_checked_out_is_what_was_committed() {
    let (server, origin) = (SshServer::start(), Origin::new());
    let canary = origin.path().join("canary");
    let run = format!("touch {}", canary.display());
    let config = format!(
        "[filter \"x\"]\nsmudge = {run}\nprocess = {run}\n[diff \"x\"]\ntextconv = {run}\n\
         [core]\nfsmonitor = {run}\nsshCommand = {run}\nhooksPath = hooks\n"
    );
    let text = "$Id$ a\nb\r\nc\n";
    let files = [
        (
            ".gitattributes",
            "* text eol=crlf ident filter=x diff=x\nutf working-tree-encoding=UTF-16 text\n\
             lfs filter=lfs\nold crlf\n",
        ),
        (".gitconfig", config.as_str()),
        ("config", &config),
        ("lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        ("old", text),
        ("plain", text),
        ("utf", text),
    ];
    origin.commit_files("main", &files);
    let job = Job::new();
    job.fetch(&server.source(origin.path(), None)).await.unwrap();
    for (name, text) in files {
        assert_eq!(job.read(name), text, "{name}");
    }
    assert!(!canary.exists());
}

#[tokio::test]
async fn g5_git_has_no_configuration_but_ours() {
    let job = Job::new();
    let source = Source {
        key: None,
        recurse_submodules: false,
        reference: None,
        url: GitUrl::parse("https://git.example/r").unwrap(),
    };
    let directory = job.directory();
    let request = FetchRequest {
        source: &source,
        directory: &directory,
        trust: &job.trust,
        limits: &job.limits,
    };
    let log = job.build_log();
    let git = Git::new(&request, &log, &job.cancel).unwrap();
    let repository = Repository { git_dir: directory.join("g"), work_tree: directory.clone() };
    git.init(&repository, ObjectFormat::Sha1).await.unwrap();
    let arguments = ["config", "--list", "--show-origin", "-z"];
    let list = git.output(&repository, &arguments, 1 << 16).await.unwrap();
    let list = String::from_utf8(list).unwrap();
    let (origins, settings): (Vec<_>, Vec<_>) =
        list.split_terminator('\0').collect::<Vec<_>>().chunks(2).map(|c| (c[0], c[1])).unzip();
    let own = format!("file:{}", directory.join("g/config").display());
    assert!(origins.iter().all(|&o| o == "command line:" || o == own), "{origins:?}");
    for expected in
        ["core.hookspath\n/dev/null", "core.fsmonitor\nfalse", "transfer.fsckobjects\ntrue"]
    {
        assert!(settings.contains(&expected), "{settings:?}");
    }
}

#[tokio::test]
async fn links_stay_links_and_modes_are_two() {
    let (server, origin) = (SshServer::start(), Origin::new());
    let blob = |text: &str| origin.blob(text.as_bytes());
    let deep = origin.tree(&[format!("100644 blob {}\tf", blob("deep"))]);
    let entries = [
        format!("120000 blob {}\tabsolute", blob("/etc/hostname")),
        format!("120000 blob {}\tout", blob("../../known_hosts")),
        format!("120000 blob {}\tto-git", blob("../git/config")),
        format!("040000 tree {deep}\tdirectory"),
        format!("100755 blob {}\trun", blob("#!/bin/sh\n")),
        format!("100644 blob {}\tnew\nline\u{1b}[2J", blob("x")),
    ];
    let tree = origin.tree(&entries);
    origin.commit("main", &tree);
    let job = Job::new();
    let fetched = job.fetch(&server.source(origin.path(), None)).await.unwrap();
    for (name, target) in
        [("absolute", "/etc/hostname"), ("out", "../../known_hosts"), ("to-git", "../git/config")]
    {
        assert_eq!(fs::read_link(fetched.work_tree.join(name)).unwrap(), Path::new(target));
    }
    for (name, mode) in [
        ("", 0o40755),
        ("directory", 0o40755),
        ("directory/f", 0o100_644),
        ("run", 0o100_755),
        ("new\nline\u{1b}[2J", 0o100_644),
    ] {
        let metadata = fs::metadata(fetched.work_tree.join(name)).unwrap();
        assert_eq!(format!("{:o}", metadata.mode()), format!("{mode:o}"), "{name:?}");
    }
    assert_eq!(names(job.root.path()), ["a job's %d;#", "known_hosts", "log"]);
    assert!(fs::symlink_metadata(job.known_hosts()).unwrap().is_file());
}

#[tokio::test]
async fn g4_a_file_behind_a_link_of_the_same_tree_is_refused() {
    let (server, origin) = (SshServer::start(), Origin::new());
    let job = Job::new();
    let file = origin.blob(b"written through the link");
    let below = origin.tree(&[format!("100644 blob {file}\tcanary")]);
    let target = origin.blob(job.root.path().to_str().unwrap().as_bytes());
    let tree =
        origin.tree(&[format!("120000 blob {target}\tA"), format!("040000 tree {below}\tA")]);
    origin.commit("main", &tree);
    let fault = job.fault(&server.source(origin.path(), None)).await;
    assert!(matches!(fault, FetchFault::Unsound), "{fault:?}");
    assert!(!job.root.path().join("canary").exists());
}

#[tokio::test]
async fn g8_a_branch_that_moves_afterwards_changes_nothing() {
    let origin = Origin::new();
    let before = origin.commit_files("main", &[("f", "before")]);
    let after = origin.commit_files("next", &[("f", "after")]);
    // The branch moves as soon as the transfer is over, before anything is checked out.
    let script = format!(
        "sh -c \"$SSH_ORIGINAL_COMMAND\"; git -C {} update-ref refs/heads/main {after}\n",
        origin.path().display()
    );
    let server = SshServer::start_with(&forced(origin.path(), &script));
    let job = Job::new();
    let fetched = job.fetch(&server.source(origin.path(), Some("main"))).await.unwrap();
    assert_eq!(fetched.record.commit.as_str(), before);
    assert_eq!(fetched.record.tree.as_str(), origin.git(["rev-parse", &format!("{before}:")]));
    assert_eq!(job.read("f"), "before");
    assert_eq!(origin.git(["rev-parse", "main"]), after);
}

#[tokio::test]
async fn g8_a_work_tree_that_is_not_the_commits_is_noticed() {
    let (server, origin) = (SshServer::start(), Origin::new());
    origin.commit_files("main", &[("f", "content"), ("g", "x")]);
    let job = Job::new();
    let source = server.source(origin.path(), None);
    let fetched = job.fetch(&source).await.unwrap();
    let directory = job.directory();
    let request = FetchRequest {
        source: &source,
        directory: &directory,
        trust: &job.trust,
        limits: &job.limits,
    };
    fs::remove_dir(directory.join("home")).unwrap();
    let log = job.build_log();
    let git = Git::new(&request, &log, &job.cancel).unwrap();
    let repository =
        Repository { git_dir: directory.join("git"), work_tree: fetched.work_tree.clone() };
    let verify = || checkout::verify(&git, &repository, &fetched.record.commit);
    verify().await.unwrap();
    let file = fetched.work_tree.join("f");
    let times = fs::metadata(&file).unwrap().modified().unwrap();
    for change in ["CONTENT", "content and more"] {
        fs::write(&file, change).unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
        assert!(matches!(verify().await, Err(FetchFault::WorkTree)), "{change}");
    }
    fs::write(&file, "content").unwrap();
    verify().await.unwrap();
    fs::write(fetched.work_tree.join("more"), "").unwrap();
    assert!(matches!(verify().await, Err(FetchFault::WorkTree)));
    fs::remove_file(fetched.work_tree.join("more")).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(matches!(verify().await, Err(FetchFault::WorkTree)));
    std::os::unix::fs::symlink("g", &file).unwrap();
    assert!(matches!(verify().await, Err(FetchFault::WorkTree)));
}

#[tokio::test]
async fn g10_a_repository_over_a_limit_is_refused() {
    let (server, origin) = (SshServer::start(), Origin::new());
    let noise: Vec<u8> = (0..1_000_000_u32)
        .scan(1_u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some(state.to_be_bytes()[0])
        })
        .collect();
    let blob = origin.blob(&noise);
    let tree = origin.tree(&["a", "b"].map(|name| format!("100644 blob {blob}\t{name}")));
    origin.commit("main", &tree);
    let source = server.source(origin.path(), None);
    let limits = FetchLimits {
        max_bytes: 2_000_000,
        max_files: 2,
        max_file_bytes: 2_000_000,
        ..Job::new().limits
    };
    for (limits, expected) in [
        (limits, None),
        (FetchLimits { max_bytes: 1_999_999, ..limits }, Some("1999999 bytes in files")),
        (
            FetchLimits { max_file_bytes: 999_999, ..limits },
            // The noise does not compress: the transfer is larger than the file.
            Some("999999 bytes in a transfer"),
        ),
        (FetchLimits { max_files: 1, ..limits }, Some("1 files and directories")),
        (FetchLimits { max_file_bytes: 500_000, ..limits }, Some("500000 bytes in a transfer")),
    ] {
        let mut job = Job::new();
        job.limits = limits;
        let error = job.fetch(&source).await.err();
        let told = error.as_ref().map(|error| (error.failure().code, error.fault.to_string()));
        let expected = expected
            .map(|what| ("quota", format!("the repository is over this server's limit of {what}")));
        assert_eq!(told, expected, "{}", job.log());
        assert!(expected.is_none() || !job.directory().join("tree/a").exists());
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    let origin = Origin::new();
    let server = SshServer::start_with(&forced(origin.path(), "exec sleep 600\n"));
    let mut job = Job::new();
    job.limits.idle = Duration::from_secs(1);
    let fault = job.fault(&server.source(origin.path(), None)).await;
    assert!(matches!(fault, FetchFault::Idle { seconds: 1 }), "{fault:?}");
    let mut job = Job::new();
    job.limits.time = Duration::from_secs(1);
    let fault = job.fault(&server.source(origin.path(), None)).await;
    assert!(matches!(fault, FetchFault::TimeLimit { seconds: 1 }), "{fault:?}");
}

#[tokio::test]
async fn cancelling_leaves_no_process_and_no_key() {
    let origin = Origin::new();
    let connected = origin.path().join("connected");
    let script = format!("touch {}; exec sleep 600\n", connected.display());
    let server = SshServer::start_with(&forced(origin.path(), &script));
    let job = Job::new();
    let source = server.source(origin.path(), None);
    let cancel = async {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !connected.exists() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(job.directory().join("key/identity").exists());
        assert!(processes_of(&job.directory()) > 0);
        job.cancel.cancel();
    };
    // That the key is gone is asserted by `Job::fetch`.
    let (fault, ()) = tokio::join!(job.fault(&source), cancel);
    assert!(matches!(fault, FetchFault::Cancelled), "{fault:?}");
    assert_eq!(processes_of(&job.directory()), 0);
}

/// Counts the processes of the machine that work in or name a directory.
fn processes_of(directory: &Path) -> usize {
    let name = directory.parent().unwrap().to_str().unwrap().as_bytes();
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let pids =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().is_ok());
    let of_directory = pids.filter(|pid| {
        let words = fs::read(pid.join("cmdline")).unwrap_or_default();
        let works_in = fs::read_link(pid.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        works_in || words.windows(name.len()).any(|part| part == name)
    });
    of_directory.count()
}

#[tokio::test]
async fn the_key_is_readable_by_its_owner_alone() {
    let origin = Origin::new();
    let connected = origin.path().join("connected");
    let script = format!("touch {}; exec sleep 600\n", connected.display());
    let server = SshServer::start_with(&forced(origin.path(), &script));
    let job = Job::new();
    let source = server.source(origin.path(), None);
    let look = async {
        while !connected.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mode = |path: &str| fs::metadata(job.directory().join(path)).unwrap().mode() & 0o7777;
        let modes = (mode("key"), mode("key/identity"));
        job.cancel.cancel();
        modes
    };
    let (_cancelled, modes) = tokio::join!(job.fault(&source), look);
    assert_eq!(modes, (0o700, 0o600));
}

#[tokio::test]
async fn g11_a_password_in_the_url_is_told_to_nobody() {
    // Nobody listens there any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let canary = "canary-5f3a77";
    let text = format!("https://us%65r:{canary}@127.0.0.1:{port}/u/r.git");
    let source = Source {
        key: Some(SecretText::new(format!("-----BEGIN {canary}"))),
        recurse_submodules: false,
        reference: None,
        url: GitUrl::parse(&text).unwrap(),
    };
    let job = Job::new();
    let error = job.fetch(&source).await.unwrap_err();
    assert!(
        matches!(error.fault, FetchFault::Peer { source: PeerFault::Unreachable, .. }),
        "{error:?} {}",
        job.log()
    );
    let failure = error.failure();
    assert_eq!(failure.command, format!("git clone https://127.0.0.1:{port}/u/r.git"));
    let told = format!("{} {error:?} {failure:?} {}", chain(&error), job.log());
    assert!(!told.contains(canary) && !told.contains("user:"), "{told}");
    for directory in ["git", "home"] {
        let out = fs::read_to_string(job.directory().join(directory).join("config"));
        assert!(!out.unwrap_or_default().contains("xtra"));
    }
}

#[tokio::test]
async fn a_fetched_source_can_be_sent_to_another_process() {
    let (server, origin) = (SshServer::start(), Origin::new());
    origin.commit_files("main", &[("f", "1")]);
    let fetched = Job::new().fetch(&server.source(origin.path(), None)).await.unwrap();
    let json = serde_json::to_string(&fetched).unwrap();
    let read: Fetched = serde_json::from_str(&json).unwrap();
    assert_eq!(read.record, fetched.record);
    assert_eq!(read.commit_object, fetched.commit_object);
    assert_eq!(read.tree_listing, fetched.tree_listing);
    assert_eq!(read.work_tree, fetched.work_tree);
}
