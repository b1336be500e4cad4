//! These tests run the real engine: they need root, buildah with runc, and the static busybox of
//! `busybox-static`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::time::Instant;

use sbs_proto::{RegistryHost, RelativePath};
use tempfile::TempDir;

use super::*;
use crate::build::dockerfile::plan;
use crate::build::failure::{Failure, StepError as _, chain};
use crate::build::log::Masks;
use crate::clock::Clock;

/// An engine with one base image, busybox.
struct Fixture {
    directory: TempDir,
    engine: Buildah,
}

/// What came of a build, and its log.
struct Outcome {
    result: Result<Built, BuildError>,
    log: String,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(EngineSettings { network: Network::None, ..EngineSettings::default() }).await
    }

    async fn chroot() -> Self {
        let isolation = Some(Isolation::Chroot);
        Self::with(EngineSettings { isolation, network: Network::None, ..Default::default() }).await
    }

    async fn with(settings: EngineSettings) -> Self {
        let directory = TempDir::new().unwrap();
        let engine = Buildah::probe(&directory.path().join("engine"), &settings).await;
        let fixture = Self { directory, engine: engine.unwrap() };
        fixture.import_busybox().await;
        fixture
    }

    async fn import_busybox(&self) {
        let tree = self.make("base-tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::copy("/bin/busybox", tree.join("bin/busybox"))
            .expect("/bin/busybox is there: install busybox-static");
        for name in APPLETS.split_whitespace() {
            symlink("busybox", tree.join("bin").join(name)).unwrap();
        }
        fs::create_dir(tree.join("tmp")).unwrap();
        let outcome = self.build_text(&tree, "FROM scratch\nCOPY . /\n").await;
        let layout = outcome.built().layout;
        let (log, file) = self.log();
        let cancel = CancellationToken::new();
        assert!(!self.engine.has_base(BASE));
        let imported = self.engine.import_base(&layout, "latest", BASE, &log, &cancel).await;
        assert!(imported.is_ok(), "{imported:?}\n{}", text_of(file));
        assert!(self.engine.has_base(BASE));
    }

    /// Makes a directory with a name of its own.
    fn make(&self, name: &str) -> PathBuf {
        let count = fs::read_dir(self.directory.path()).unwrap().count();
        let path = self.directory.path().join(format!("{name}-{count}"));
        fs::create_dir(&path).unwrap();
        path
    }

    fn log(&self) -> (BuildLog, File) {
        let file = tempfile::tempfile_in(self.directory.path()).unwrap();
        let reader = file.try_clone().unwrap();
        (BuildLog::new(file, Clock::system(), Masks::default(), 1 << 20), reader)
    }

    /// Builds `text` after `FROM`, with nothing in the context.
    async fn run(&self, text: &str) -> Outcome {
        let tree = self.make("tree");
        self.build_text(&tree, &format!("FROM busybox\n{text}\n")).await
    }

    async fn build_text(&self, tree: &Path, text: &str) -> Outcome {
        self.build(tree, text, &recipe(&[]), &CancellationToken::new()).await
    }

    async fn build(
        &self,
        tree: &Path,
        text: &str,
        recipe: &Recipe,
        cancel: &CancellationToken,
    ) -> Outcome {
        let hub = RegistryHost::docker_hub();
        let plan = plan(text, &recipe.arguments, &hub).unwrap();
        self.build_resolved(tree, &plan.rewrite(|_| BASE.to_owned()), recipe, cancel).await
    }

    async fn build_resolved(
        &self,
        tree: &Path,
        dockerfile: &ResolvedDockerfile,
        recipe: &Recipe,
        cancel: &CancellationToken,
    ) -> Outcome {
        let (output, scratch) = (self.make("output"), self.make("scratch"));
        let request = BuildRequest {
            dockerfile,
            epoch: 1_700_000_000,
            output: &output,
            recipe,
            scratch: &scratch,
            work_tree: tree,
        };
        let (log, file) = self.log();
        let result = self.engine.build(&request, &log, cancel).await;
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "the scratch is empty again");
        Outcome { result, log: text_of(file) }
    }
}

impl Outcome {
    fn built(&self) -> Built {
        match &self.result {
            Ok(built) => built.clone(),
            Err(error) => panic!("{}\n{}", chain(error), self.log),
        }
    }

    fn failure(&self) -> Failure {
        match &self.result {
            Ok(_) => panic!("this must not build:\n{}", self.log),
            Err(error) => error.failure(),
        }
    }

    /// The lines that the steps wrote, without time and level.
    fn lines(&self) -> Vec<&str> {
        self.log.lines().filter_map(|line| line.split_once("run: ")).map(|(_, text)| text).collect()
    }

    /// What a step wrote after this word.
    fn told(&self, word: &str) -> &str {
        let line = self.lines().into_iter().find_map(|line| line.strip_prefix(word));
        line.unwrap_or_else(|| panic!("no `{word}` in\n{}", self.log))
    }
}

fn text_of(mut file: File) -> String {
    file.rewind().unwrap();
    io::read_to_string(file).unwrap()
}

fn recipe(arguments: &[(&str, &str)]) -> Recipe {
    let arguments = arguments.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Recipe {
        arguments: arguments.collect(),
        context: RelativePath::default(),
        dockerfile: RelativePath::parse("Dockerfile").unwrap(),
    }
}

/// A Dockerfile that got past the resolver: a text that no user can make one of.
fn unchecked(text: &str) -> ResolvedDockerfile {
    let plan = plan("FROM x\n", &BTreeMap::new(), &RegistryHost::docker_hub()).unwrap();
    plan.rewrite(|_| text.trim_start_matches("FROM ").to_owned())
}

/// Counts the processes of the machine whose command line has this word.
fn running(word: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok())
        .filter(|line| line.split(|b| *b == 0).any(|w| w == word.as_bytes()))
        .count()
}

fn write_tree(tree: &Path) {
    fs::create_dir_all(tree.join("app/sub")).unwrap();
    fs::write(tree.join("app/kept"), "kept").unwrap();
    fs::write(tree.join("app/sub/also"), "also").unwrap();
    fs::write(tree.join("app/dropped"), "dropped").unwrap();
    fs::write(tree.join(".dockerignore"), "**/dropped\n").unwrap();
}

const BASE: &str = "r.example/library/busybox:sha256-\
    00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const APPLETS: &str = "sh cat ls mkdir ln rm touch id hostname sleep setsid nc timeout mknod chroot dd grep \
    find readlink env mount head wc stat printf true seq";
const DOCKERFILE: &str = "\
ARG BASE=busybox
FROM ${BASE} AS first
ARG WORD=default
ARG TARGETARCH
RUN printf '%s %s %s %s\\n' \"word=$WORD\" \"$TARGETARCH\" \"$(hostname)\" \"$(umask)\" > /told; cat /told
RUN mkdir /made && touch /made/now && chmod 4755 /made/now || touch /made/a /made/b
COPY app /app
RUN echo listed=$(find /app -type f)
FROM busybox
COPY --from=FIRST /told /told
COPY --from=0 /made /made
RUN hostname > /host; date > /dev/null; env > /env
USER 1000:1000
ENV X=y
ENTRYPOINT [\"/bin/sh\"]
";
const MOUNTS: &str = "\
USER 0
RUN --mount=type=bind,from=first,target=/first --mount=type=bind,target=/context,ro \\
    --mount=type=tmpfs,target=/empty \\
    cat /first/app/kept /context/app/sub/also > /both && ls /empty
";

#[tokio::test]
async fn a_build_argument_of_many_lines_reaches_the_step_as_it_is() {
    let fixture = Fixture::new().await;
    let pem = "-----BEGIN X-----\nfake=no\r\n--label=a=b\n-----END X-----\n";
    let recipe = recipe(&[("CERT", pem), ("ca-cert", pem), ("npm.rc", "a b")]);
    // Shells drop variables of such names, and Docker passes them on all the same.
    let text = "FROM busybox\nARG CERT\nARG ca-cert\nARG npm.rc\nRUN [\"env\"]\n\
                RUN echo \"lines=$(printf %s \"$CERT\" | wc -l)\"\n";
    let cancel = CancellationToken::new();
    let outcome = fixture.build(&fixture.make("tree"), text, &recipe, &cancel).await;
    assert_eq!(outcome.told("npm.rc="), "a b");
    assert_eq!(outcome.told("ca-cert="), "-----BEGIN X-----");
    assert_eq!(outcome.told("--label="), "a=b");
    assert_eq!(outcome.told("lines="), "4");
    assert_eq!(outcome.built().record.arguments["ca-cert"], pem);
}

#[tokio::test]
async fn the_same_source_gives_the_same_digest_in_every_isolation_and_storage() {
    let fixture = Fixture::new().await;
    assert!(matches!(fixture.engine.isolation(), Isolation::Oci(_)), "runc or crun works here");
    let tree = fixture.make("tree");
    write_tree(&tree);
    let recipe = recipe(&[("WORD", "given"), ("UNUSED", "x")]);
    let cancel = CancellationToken::new();
    let text = DOCKERFILE.to_owned() + MOUNTS;
    let first = fixture.build(&tree, &text, &recipe, &cancel).await;
    let built = first.built();
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    assert_eq!(first.told("word="), format!("given {architecture} sbs 0022"));
    let listed = first.told("listed=");
    assert!(listed.contains("/app/kept") && !listed.contains("dropped"), "{listed}");
    assert_eq!(built.record.name, "buildah");
    assert_eq!(built.record.isolation, fixture.engine.isolation().to_string());
    assert_eq!(built.record.storage_driver, "overlay");
    assert_eq!(built.record.network, "none");
    assert_eq!(built.record.arguments, recipe.arguments);

    // Another checkout, another time, a busy machine: the same bytes.
    let other = fixture.make("elsewhere");
    write_tree(&other);
    let again = fixture.build(&other, &text, &recipe, &cancel).await.built();
    assert_eq!(again.digest, built.digest);

    let chroot = Fixture::chroot().await;
    let in_chroot = chroot.build(&tree, DOCKERFILE, &recipe, &cancel).await;
    let in_container = fixture.build(&tree, DOCKERFILE, &recipe, &cancel).await;
    assert_eq!(in_chroot.built().digest, in_container.built().digest);
    assert_eq!(in_chroot.built().record.isolation, "chroot");
    assert!(in_chroot.log.contains("cannot run containers"), "{}", in_chroot.log);

    let mut vfs = Fixture::new().await;
    vfs.engine.driver = Driver::Vfs;
    vfs.engine.bases = Mutex::default();
    fs::create_dir(vfs.engine.store()).unwrap();
    probe::stored_names(&vfs.engine, &vfs.make("scratch")).await.unwrap();
    vfs.import_busybox().await;
    let in_vfs = vfs.build(&tree, &text, &recipe, &cancel).await.built();
    assert_eq!(in_vfs.digest, built.digest);

    // And other inputs give another image.
    fs::write(tree.join("app/kept"), "Kept").unwrap();
    assert_ne!(fixture.build(&tree, &text, &recipe, &cancel).await.built().digest, built.digest);
}

#[tokio::test]
async fn a_step_that_fails_gives_its_return_code_and_its_output() {
    let fixture = Fixture::new().await;
    let outcome = fixture.run("RUN echo about to fail; exit 7").await;
    let failure = outcome.failure();
    assert_eq!(failure.command, "buildah build -f Dockerfile .");
    assert_eq!((failure.code, failure.return_code), ("build_failed", 7));
    assert_eq!(outcome.lines().iter().filter(|line| **line == "about to fail").count(), 1);
    assert!(outcome.log.contains("cmd=buildah build -f Dockerfile ."), "{}", outcome.log);
    // Neither the log nor the message tells where the server keeps its things.
    let directory = fixture.directory.path().to_str().unwrap();
    let message = chain(&outcome.result.unwrap_err());
    assert!(!outcome.log.contains(directory) && !message.contains(directory), "{}", outcome.log);
}

#[tokio::test]
async fn an_image_that_was_not_imported_cannot_be_used() {
    let fixture = Fixture::new().await;
    let tree = fixture.make("tree");
    let layout = fixture.run("RUN true").await.built().layout;
    // A layout where the engine could reach it.
    let copy = tree.join("layout");
    fs::create_dir_all(copy.join("blobs/sha256")).unwrap();
    for name in ["index.json", "oci-layout"] {
        fs::copy(layout.join(name), copy.join(name)).unwrap();
    }
    for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join("blobs/sha256").join(entry.file_name())).unwrap();
    }
    for name in [
        "r.example/library/other:sha256-00",
        "docker.io/library/busybox",
        "docker://docker.io/library/busybox",
        "oci:/sbs/context/layout:latest",
        "oci:/sbs/context/layout",
        "docker-archive:/sbs/context/x",
        "dir:/sbs/context/layout",
    ] {
        for text in [
            format!("FROM {name}\nRUN true\n"),
            format!("FROM {BASE}\nCOPY --from={name} / /\n"),
            format!("FROM {BASE}\nRUN --mount=type=bind,from={name},target=/x true\n"),
        ] {
            let outcome = fixture
                .build_resolved(&tree, &unchecked(&text), &recipe(&[]), &CancellationToken::new())
                .await;
            assert_eq!(outcome.failure().code, "build_failed", "{text}");
        }
    }
}

#[tokio::test]
async fn b7_a_cancelled_build_leaves_nothing_and_the_next_one_works() {
    let fixture = Fixture::new().await;
    let marker = format!("41{}", std::process::id());
    let cancel = CancellationToken::new();
    let tree = fixture.make("tree");
    let text = format!("FROM busybox\nRUN setsid sleep {marker} & sleep {marker}\n");
    let recipe = recipe(&[]);
    let build = fixture.build(&tree, &text, &recipe, &cancel);
    let stop = async {
        while running(&marker) < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(build, stop);
    assert_eq!(outcome.failure().code, "cancelled");
    assert_eq!(running(&marker), 0);
    let group = fixture.engine.cgroup.of_build(&fixture.directory.path().join("scratch"));
    let parent = Path::new(&group).parent().unwrap().strip_prefix("/").unwrap().to_owned();
    for entry in cgroup::hierarchies().iter().flat_map(|h| fs::read_dir(h.join(&parent))).flatten()
    {
        assert!(!entry.unwrap().path().is_dir(), "a control group is left");
    }
    fixture.run("RUN true").await.built();
}

#[tokio::test]
async fn b7_a_build_that_takes_too_long_is_ended() {
    let time_limit = Duration::from_millis(1500);
    let settings = EngineSettings { time_limit, network: Network::None, ..Default::default() };
    let directory = TempDir::new().unwrap();
    let engine = Buildah::probe(&directory.path().join("engine"), &settings).await.unwrap();
    let fixture = Fixture { directory, engine };
    fixture.import_busybox().await;
    let began = Instant::now();
    let outcome = fixture.run("RUN sleep 1000").await;
    assert_eq!((outcome.failure().code, outcome.failure().return_code), ("time_limit", 124));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn b7_the_number_of_processes_has_a_limit() {
    let settings =
        EngineSettings { max_processes: 60, network: Network::None, ..Default::default() };
    let fixture = Fixture::with(settings).await;
    let text = "RUN for i in $(seq 200); do sleep 1000 & done; echo all=started";
    let outcome = fixture.run(text).await;
    outcome.failure();
    assert!(outcome.log.contains("can't fork"), "{}", outcome.log);
    fixture.run("RUN true").await.built();
}

#[tokio::test]
async fn b7_a_step_cannot_reach_its_control_groups() {
    let fixture = Fixture::new().await;
    // Thawed again: where this fails it must not leave a process that nothing can kill.
    let text = "RUN cd /sys/fs/cgroup; echo seen=$(ls -A . | wc -l); \
        mkdir x freezer/x; echo made=$(find . -name x | wc -l); \
        sleep 1000 & echo $! > freezer/x/cgroup.procs; echo FROZEN > freezer/x/freezer.state; \
        echo frozen=$(grep -c FROZEN freezer/x/freezer.state); \
        echo THAWED > freezer/x/freezer.state; true";
    let outcome = fixture.run(text).await;
    outcome.built();
    assert_eq!(outcome.told("seen="), "0");
    assert_eq!(outcome.told("made="), "0");
    assert_ne!(outcome.told("frozen="), "1");
}

#[tokio::test]
async fn a_stage_can_be_built_on_a_stage() {
    let fixture = Fixture::new().await;
    let tree = fixture.make("tree");
    fs::write(tree.join("file"), "content").unwrap();
    let (recipe, cancel) = (recipe(&[]), CancellationToken::new());
    for text in [
        "FROM busybox AS one\nRUN echo 1 > /one\nFROM one\nRUN echo two=$(cat /one) | tee /two\n",
        "FROM busybox AS one\nFROM one AS two\nRUN echo two=1 | tee /two\nFROM scratch\nCOPY --from=two /two /\n",
        "FROM busybox AS one\nCOPY file /\nFROM ONE AS two\nFROM two\nRUN echo two=1 $(cat /file)\n",
    ] {
        let first = fixture.build(&tree, text, &recipe, &cancel).await;
        assert!(first.told("two=").starts_with('1'), "{}", first.log);
        let again = fixture.build(&tree, text, &recipe, &cancel).await;
        assert_eq!(again.built().digest, first.built().digest, "{text}");
    }
}

#[tokio::test]
async fn b7_memory_has_a_limit() {
    let settings =
        EngineSettings { max_memory: Some(48 << 20), network: Network::None, ..Default::default() };
    let fixture = Fixture::with(settings).await;
    // What has no line end, `tail` keeps whole.
    let outcome = fixture.run("RUN head -c 400m /dev/zero | tail | wc -c").await;
    assert_eq!(outcome.lines().iter().filter(|line| **line == "419430400").count(), 0);
    fixture.run("RUN true").await.built();
}

#[tokio::test]
async fn b1_a_step_finds_nothing_of_the_server() {
    for fixture in [Fixture::new().await, Fixture::chroot().await] {
        let canary = fixture.directory.path().join("canary-of-the-server");
        fs::write(&canary, "seen-the-canary").unwrap();
        let path = canary.to_str().unwrap();
        let text = format!(
            "RUN cat {path}; cat /proc/1/root{path}; cat /proc/*/root{path}; cat /proc/*/cwd/{path}; \
             cat /proc/*/environ; find / -name 'canary-of*'; cat /proc/self/mountinfo; true\n\
             RUN ln -s / /up; cat /up{path}; cat /proc/self/fd/*/../../../../../../{path}; true\n\
             RUN echo processes=$(ls /proc | grep -c '^[0-9]')\n\
             RUN echo disks=$(find /dev -type b)\n\
             RUN mknod /disk b 254 0; dd if=/disk of=/block count=1; echo block=$(ls /block)\n\
             RUN mount -t proc proc /tmp; mount --bind / /tmp; echo mounted=$(ls /tmp)\n"
        );
        let outcome = fixture.run(&text).await;
        outcome.built();
        let directory = fixture.directory.path().join("engine");
        for line in outcome.lines().iter().filter(|line| !line.starts_with("STEP")) {
            assert!(!line.contains("seen-the-canary"), "{line}");
            assert!(!line.contains(directory.to_str().unwrap()), "{line}");
        }
        assert!(outcome.told("processes=").parse::<u32>().unwrap() < 12);
        assert_eq!(outcome.told("disks="), "");
        assert_eq!(outcome.told("block="), "");
        assert_eq!(outcome.told("mounted="), "");
    }
}

#[tokio::test]
async fn b1_a_chroot_cannot_be_left() {
    let fixture = Fixture::chroot().await;
    let outcome = fixture.run("RUN mkdir /x; chroot /x /bin/true; echo left=$?").await;
    outcome.built();
    assert_eq!(outcome.told("left="), "1");
    assert!(outcome.log.contains("can't change root directory"), "{}", outcome.log);
}

/// CVE-2024-1753: the engine follows a link in the source of a mount. The resolver refuses the
/// option; here it is used nevertheless, and shows the sandbox, not the machine.
#[tokio::test]
async fn b2_a_hole_in_the_engine_shows_nothing_of_the_machine() {
    let fixture = Fixture::new().await;
    let tree = fixture.make("tree");
    fs::write(tree.join("canary"), "seen-the-canary").unwrap();
    symlink(fixture.directory.path(), tree.join("link")).unwrap();
    symlink("/", tree.join("root")).unwrap();
    let path = fixture.directory.path().strip_prefix("/").unwrap().display().to_string();
    let text = format!(
        "FROM {BASE} AS first\nRUN ln -s / /root; ln -s /{path} /data\nFROM {BASE}\n\
         RUN --mount=type=bind,source=root,target=/m echo top=$(ls /m); ls /m/{path}; true\n\
         RUN --mount=type=bind,from=first,source=/root,target=/m ls /m/{path}; ls /m/etc/shadow; true\n"
    );
    let cancel = CancellationToken::new();
    let outcome = fixture.build_resolved(&tree, &unchecked(&text), &recipe(&[]), &cancel).await;
    if outcome.result.is_ok() {
        let top: Vec<_> = outcome.told("top=").split(' ').collect();
        assert!(!top.contains(&"home") && !top.contains(&"root"), "{top:?}");
        let lines = outcome.lines();
        assert_eq!(lines.iter().filter(|l| l.contains("No such file")).count(), 3, "{lines:#?}");
    }
    let text = format!("FROM {BASE}\nRUN --mount=type=bind,source=link,target=/m ls /m\n");
    let outcome = fixture.build_resolved(&tree, &unchecked(&text), &recipe(&[]), &cancel).await;
    assert!(!outcome.log.contains("engine"), "{}", outcome.log);
}

/// CVE-2024-21626: a working directory that is an open file of the runtime's.
#[tokio::test]
async fn b2_a_working_directory_in_proc_leads_nowhere() {
    let fixture = Fixture::new().await;
    let canary = fixture.directory.path().join("canary");
    fs::write(&canary, "seen-the-canary").unwrap();
    for number in 5..=9 {
        let up = "../".repeat(12);
        let text = format!(
            "WORKDIR /proc/self/fd/{number}\nRUN cat {up}{}; ls {up}sbs; true",
            canary.strip_prefix("/").unwrap().display()
        );
        let outcome = fixture.run(&text).await;
        assert!(!outcome.log.contains("seen-the-canary"), "{}", outcome.log);
        assert!(!outcome.lines().contains(&"store"), "{}", outcome.log);
    }
}

#[tokio::test]
async fn steps_inherit_no_open_file_of_the_machine() {
    for fixture in [Fixture::new().await, Fixture::chroot().await] {
        let outcome =
            fixture.run("RUN for f in /proc/self/fd/*; do readlink $f || true; done").await;
        outcome.built();
        let lines = outcome.lines();
        let begin = lines.iter().position(|line| line.contains("RUN for f")).unwrap() + 1;
        let end = lines.iter().position(|line| line.contains("COMMIT")).unwrap();
        for target in &lines[begin..end] {
            let harmless = ["pipe:[", "/proc/", "/dev/null"];
            assert!(harmless.iter().any(|prefix| target.starts_with(prefix)), "{target}");
        }
        assert!(end - begin >= 3);
    }
}

#[tokio::test]
async fn b1_a_build_without_network_reaches_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = format!(
        "RUN timeout 3 nc 127.0.0.1 {port} < /dev/null; timeout 3 nc 169.254.169.254 80 < /dev/null; \
         echo interfaces=$(ls /sys/class/net)"
    );
    for fixture in [Fixture::new().await, Fixture::chroot().await] {
        let outcome = fixture.run(&text).await;
        outcome.built();
        assert_eq!(outcome.told("interfaces="), "lo");
        let error = listener.accept().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let outcome = fixture.run("ADD http://127.0.0.1:1/x /x").await;
        assert_eq!(outcome.failure().code, "bad_dockerfile");
    }
    // The same listener is reached where the setting says so.
    for isolation in [None, Some(Isolation::Chroot)] {
        let settings = EngineSettings { isolation, network: Network::Host, ..Default::default() };
        let fixture = Fixture::with(settings).await;
        let text = format!("RUN timeout 1 nc 127.0.0.1 {port} < /dev/null; true");
        let built = fixture.run(&text).await.built();
        listener.accept().unwrap();
        assert_eq!(built.record.network, "host");
    }
}

#[tokio::test]
async fn b8_a_build_cannot_change_its_source() {
    let fixture = Fixture::new().await;
    let tree = fixture.make("tree");
    write_tree(&tree);
    let text = "FROM busybox\nCOPY app /app\nRUN touch /app/new\n\
        RUN --mount=type=bind,target=/context touch /context/new /context/app/kept; \
        rm /context/app/kept; echo x > /context/app/kept; true\n";
    let outcome = fixture.build_text(&tree, text).await;
    outcome.built();
    assert!(outcome.log.contains("Read-only file system"), "{}", outcome.log);
    assert_eq!(fs::read_to_string(tree.join("app/kept")).unwrap(), "kept");
    assert_eq!(fs::read_dir(tree.join("app")).unwrap().count(), 3);
    assert_eq!(fs::read_dir(&tree).unwrap().count(), 2);
}

#[tokio::test]
async fn b9_a_build_leaves_nothing_for_the_next_one() {
    let fixture = Fixture::new().await;
    let store = fixture.engine.store();
    let listing = |path: &str| fs::read(store.join(path)).unwrap();
    let before = (listing("overlay-images/images.json"), listing("overlay-layers/layers.json"));
    let marker = format!("42{}", std::process::id());
    let text = format!("RUN echo one > /cached; setsid sleep {marker} &\nRUN touch /x");
    fixture.run(&text).await.built();
    assert_eq!(running(&marker), 0);
    let after = (listing("overlay-images/images.json"), listing("overlay-layers/layers.json"));
    assert_eq!(before, after);
    assert_eq!(fs::read_dir(fixture.engine.root.join(TEMPORARY)).unwrap().count(), 0);

    // A server that starts again knows its base images and clears away what was left.
    fs::write(fixture.engine.root.join(TEMPORARY).join("left"), "").unwrap();
    let again = Buildah::probe(&fixture.engine.root, &fixture.engine.settings).await.unwrap();
    assert!(again.has_base(BASE));
    assert_eq!(fs::read_dir(again.root.join(TEMPORARY)).unwrap().count(), 0);
    let fixture = Fixture { engine: again, directory: fixture.directory };
    fixture.run("RUN true").await.built();
}

#[tokio::test]
async fn a_base_image_that_is_not_in_the_layout_is_told() {
    let fixture = Fixture::new().await;
    let layout = fixture.run("RUN true").await.built().layout;
    let (log, _) = fixture.log();
    let cancel = CancellationToken::new();
    let name = "r.example/other:sha256-00";
    let error = fixture.engine.import_base(&layout, "nothing", name, &log, &cancel).await;
    assert_eq!(error.unwrap_err().failure().code, "base_import");
    assert!(!fixture.engine.has_base(name));
}

#[tokio::test]
async fn g6_the_context_is_inside_the_work_tree_and_no_link() {
    let fixture = Fixture::new().await;
    let (tree, outside) = (fixture.make("tree"), fixture.make("outside"));
    fs::create_dir(tree.join("real")).unwrap();
    fs::write(tree.join("file"), "").unwrap();
    fs::write(outside.join("secret"), "").unwrap();
    symlink(&outside, tree.join("link")).unwrap();
    symlink("real", tree.join("inner")).unwrap();
    symlink(outside.join("secret"), tree.join("real/.dockerignore")).unwrap();
    for path in ["link", "inner", "file", "missing", "link/sub", "real"] {
        let context = RelativePath::parse(path).unwrap();
        let recipe = Recipe { context, ..recipe(&[]) };
        let text = "FROM busybox\nCOPY . /\n";
        let outcome = fixture.build(&tree, text, &recipe, &CancellationToken::new()).await;
        assert_eq!(outcome.failure().code, "bad_context", "{path}");
    }
    // Links inside the context are copied as links, and those in the path of a source lead nowhere.
    fs::remove_file(tree.join("real/.dockerignore")).unwrap();
    let outcome = fixture.build_text(&tree, "FROM busybox\nCOPY link/secret /\n").await;
    assert_eq!(outcome.failure().code, "build_failed");
    let outcome = fixture.build_text(&tree, "FROM busybox\nCOPY . /x\nRUN ls /x/link/\n").await;
    assert_eq!(outcome.failure().code, "build_failed", "the link points to nothing in the image");
}

#[tokio::test]
async fn mounts_need_containers() {
    let fixture = Fixture::chroot().await;
    let outcome = fixture.run("RUN --mount=type=tmpfs,target=/x true").await;
    assert_eq!(outcome.failure().code, "bad_dockerfile");
}

#[tokio::test]
async fn b5_arguments_are_values_and_no_options() {
    let fixture = Fixture::new().await;
    let tree = fixture.make("tree");
    let recipe =
        recipe(&[("A", "--isolation=chroot"), ("B", "x --network=host\ty"), ("C", "$(id)'\"")]);
    let text =
        "FROM busybox\nARG A\nARG B\nARG C\nRUN printf 'told=%s|%s|%s\\n' \"$A\" \"$B\" \"$C\"\n";
    let outcome = fixture.build(&tree, text, &recipe, &CancellationToken::new()).await;
    outcome.built();
    assert_eq!(outcome.told("told="), "--isolation=chroot|x --network=host\ty|$(id)'\"");
}

/// Most base images are still of Docker's media types, and what was fetched by digest has no name.
#[tokio::test]
async fn an_image_of_dockers_types_without_a_name_can_be_imported() {
    let fixture = Fixture::new().await;
    let layout = fixture.run("RUN echo layer > /of-the-base").await.built().layout;
    let blob = |digest: &str| layout.join("blobs/sha256").join(digest.replace("sha256:", ""));
    let read = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let index = read(layout.join("index.json"));
    let mut manifest = read(blob(index["manifests"][0]["digest"].as_str().unwrap()));
    let docker = "application/vnd.docker.";
    manifest["mediaType"] = format!("{docker}distribution.manifest.v2+json").into();
    manifest["config"]["mediaType"] = format!("{docker}container.image.v1+json").into();
    for layer in manifest["layers"].as_array_mut().unwrap() {
        layer["mediaType"] = format!("{docker}image.rootfs.diff.tar.gzip").into();
    }
    manifest.as_object_mut().unwrap().remove("annotations");
    let bytes = manifest.to_string();
    let digest = sbs_crypto::digest(bytes.as_bytes());
    fs::write(blob(&digest.to_string()), &bytes).unwrap();
    let descriptor = serde_json::json!({
        "mediaType": manifest["mediaType"], "digest": digest, "size": bytes.len(),
    });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();

    let name = format!("r.example/docker:sha256-{}", digest.to_hex());
    let (log, file) = fixture.log();
    let cancel = CancellationToken::new();
    let imported = fixture.engine.import_base(&layout, "", &name, &log, &cancel).await;
    assert!(imported.is_ok(), "{imported:?}\n{}", text_of(file));
    let text = format!("FROM {name}\nRUN echo told=$(cat /of-the-base)\n");
    let tree = fixture.make("tree");
    let outcome = fixture.build_resolved(&tree, &unchecked(&text), &recipe(&[]), &cancel).await;
    outcome.built();
    assert_eq!(outcome.told("told="), "layer");
}
