//! A server that is killed, or finds no room on the disk, at any system call that changes the disk:
//! what it leaves is the old state or the new one, and the next server starts on it by itself.
//!
//! The subject is this test program itself, once more and under strace, which kills it or fails
//! its calls.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;

use sbs_proto::{Members, StateSecret, key};
use sbs_state::ClientShare;

use crate::core::Core;
use crate::core::kept::Kept;
use crate::core::tests::{Act, at, body, ended, name, open, secret};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Operation {
    Export,
    Import,
    Rotate,
    Update,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Export, Self::Import, Self::Rotate, Self::Update];
}

/// What goes wrong at a system call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    Kill,
    /// At this one and at all that follow.
    NoRoom,
}

const FAULTS: [(Fault, &[&str]); 2] = [
    (
        Fault::Kill,
        &[
            "fsync",
            "mkdir",
            "rename",
            "renameat",
            "renameat2",
            "rmdir",
            "unlink",
            "unlinkat",
            "write",
        ],
    ),
    (Fault::NoRoom, &["fsync", "mkdir", "openat", "rename", "renameat", "renameat2", "write"]),
];

/// Does what the file `operation` in its working directory says, to the data beside it.
#[test]
#[ignore = "the sweep starts it"]
fn subject() {
    let Ok(operation) = fs::read_to_string("operation") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = runtime.block_on(async {
        let core = open(Path::new("data"), Act::Succeed);
        // strace counts the calls of each thread by itself: those of this one shall have numbers
        // that no other thread gets to.
        for _ in 0..WARM_UP {
            fs::write("scratch", "x").unwrap();
        }
        fs::write(BEGIN, "").unwrap();
        let result = operate(&core, &operation).await;
        // What is answered from now on is what the next server answers.
        let slot = core.slot(&name()).unwrap();
        let kept = slot.keep.load_definition().unwrap().map(Kept::into_client_share);
        let now = slot.now();
        let known = now.known.as_ref().map(|known| &known.client_share);
        assert_eq!(known.is_some(), kept.is_some());
        assert!(known.zip(kept.as_ref()).is_none_or(|(known, kept)| known.same_as(kept)));
        assert_eq!(now.keys.is_some(), slot.keep.load_keys(at()).unwrap().is_some());
        if result.is_ok() { "done" } else { "failed" }
    });
    fs::write("told", told).unwrap();
}

async fn operate(core: &Core, operation: &str) -> Result<(), Box<dyn std::error::Error>> {
    match operation {
        "Export" => drop(core.export_state(&name()).await?.into_opened()?),
        "Import" => import(core, fs::File::open("state")?).await?,
        "Rotate" => {
            let mut members = body(1);
            members.insert(key::NEW_SECRET, secret(2));
            core.update(&name(), members).await?;
        }
        "Update" => core.update(&name(), changed()).await?,
        _ => panic!("{operation}"),
    }
    Ok(())
}

async fn import(core: &Core, file: fs::File) -> Result<(), Box<dyn std::error::Error>> {
    let secret = StateSecret::from_bytes([1; 128]);
    core.import_state(&name(), &secret, 0, file).await?;
    Ok(())
}

fn changed() -> Members {
    let mut members = body(1);
    members.insert("GITHUB_URL", CHANGED);
    members
}

/// What every subject starts from.
struct Start {
    directory: tempfile::TempDir,
    image_key: String,
}

impl Start {
    /// Makes a server that has built twice and exported once, its state image, and an empty server.
    async fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let built = directory.path().join("built");
        let core = open(&built, Act::Succeed);
        core.initialise(&name(), body(1)).await.unwrap();
        for _ in 0..2 {
            core.start_build(&name()).await.unwrap();
            ended(&core).await;
        }
        let slot = core.slot(&name()).unwrap();
        fs::write(slot.known_hosts(), "git.example ssh-ed25519 AAAA\n").unwrap();
        let image_key = image_key(&core).unwrap();
        let exported = core.export_state(&name()).await.unwrap();
        fs::copy(exported.file.path(), directory.path().join("state")).unwrap();
        drop(exported);
        drop(core);
        let empty = directory.path().join("empty");
        drop(open(&empty, Act::Succeed));
        Self { directory, image_key }
    }

    /// Lets one operation meet a fault at each call of one kind; returns at how many.
    async fn sweep(&self, operation: Operation, fault: Fault, call: &str) -> usize {
        let first = self.first(operation, call);
        let mut at = first;
        while self.run(operation, fault, call, at).await {
            at += 1;
        }
        at - first
    }

    /// Returns the number that the first call of a kind has once an operation has begun.
    fn first(&self, operation: Operation, call: &str) -> usize {
        let place = self.place(operation);
        assert!(strace(place.path(), &format!("trace=openat,{call}"), None).success());
        let trace = fs::read_to_string(place.path().join("trace")).unwrap();
        let lines = || trace.lines().filter_map(|line| line.split_once(' '));
        let marked = format!("\"{BEGIN}\"");
        let begin = lines().position(|(_, line)| line.contains(&marked)).unwrap();
        let (thread, _) = lines().nth(begin).unwrap();
        let start = format!("{call}(");
        let mine =
            |(of, line): &(&str, &str)| *of == thread && line.trim_start().starts_with(&start);
        lines().take(begin + 1).filter(mine).count() + 1
    }

    /// Makes the directory of a subject.
    fn place(&self, operation: Operation) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        let from = if operation == Operation::Import { "empty" } else { "built" };
        copy(&self.directory.path().join(from), &place.join("data"));
        fs::copy(self.directory.path().join("state"), place.join("state")).unwrap();
        fs::write(place.join("operation"), format!("{operation:?}")).unwrap();
        directory
    }

    /// Runs a subject with one fault; returns whether the fault came to pass.
    async fn run(&self, operation: Operation, fault: Fault, call: &str, at: usize) -> bool {
        let directory = self.place(operation);
        let place = directory.path();
        let instance = fs::read(place.join("data/instance.sealed")).unwrap();

        let inject = match fault {
            Fault::Kill => format!("inject={call}:signal=KILL:when={at}"),
            Fault::NoRoom => format!("inject={call}:error=ENOSPC:when={at}+"),
        };
        let status = strace(place, &format!("trace={call}"), Some((fault, &inject)));
        let trace = fs::read_to_string(place.join("trace")).unwrap();
        let told = fs::read_to_string(place.join("told")).unwrap_or_default();
        let killed = status.signal() == Some(9) || status.code() == Some(128 + 9);
        let happened = if fault == Fault::Kill { killed } else { trace.contains("(INJECTED)") };
        if !happened {
            assert_eq!((told.as_str(), status.success()), ("done", true), "{operation:?} {trace}");
        }
        let context = format!("{operation:?}, {fault:?} at {call} {at}, {told:?}");
        // The next server starts by itself (I3), with nothing left of the one before.
        let core = open(&place.join("data"), Act::Succeed);
        let staging = fs::read_dir(place.join("data/staging")).unwrap();
        assert_eq!(staging.count(), 0, "{context}");
        match operation {
            Operation::Export => {
                let begun = fs::read(place.join("data/instance.sealed")).unwrap() != instance;
                self.check_export(&core, begun, &context).await;
            }
            Operation::Import => self.check_import(&core, &told, place, &context).await,
            Operation::Rotate => self.check_rotation(&core, &told, &context).await,
            Operation::Update => self.check_update(&core, &told, &context),
        }
        happened
    }

    /// S9: a number that was given once is not given again.
    async fn check_export(&self, core: &Core, begun: bool, context: &str) {
        assert_eq!(image_key(core).unwrap(), self.image_key, "{context}");
        let exported = core.export_state(&name()).await.unwrap();
        let mut file = fs::File::open(exported.file.path()).unwrap();
        let header = sbs_proto::StateHeader::read(&mut file).unwrap();
        // The state image of the start had number 1.
        assert_eq!(header.export_seq, if begun { 3 } else { 2 }, "{context}");
    }

    /// S18: all of the state or nothing of it; and where nothing, it can be imported now.
    async fn check_import(&self, core: &Core, told: &str, place: &Path, context: &str) {
        if image_key(core).is_none() {
            assert_ne!(told, "done", "{context}");
            let slot = core.slot(&name()).unwrap();
            assert!(slot.now().known.is_none() && !slot.known_hosts().exists(), "{context}");
            assert_eq!(core.builds(&name()).unwrap().len(), 0, "{context}");
            let file = fs::File::open(place.join("state")).unwrap();
            import(core, file).await.unwrap();
        }
        assert_eq!(image_key(core).unwrap(), self.image_key, "{context}");
        let slot = core.slot(&name()).unwrap();
        let known_hosts = fs::read_to_string(slot.known_hosts()).unwrap();
        assert_eq!(known_hosts, "git.example ssh-ed25519 AAAA\n", "{context}");
        let builds = core.builds(&name()).unwrap();
        assert_eq!(builds.len(), 2, "{context}");
        for (_, files) in &builds {
            assert!(files.public_key().exists(), "{context}");
        }
        assert_eq!(secret_and_epoch(core), (1, 2), "{context}");
        core.export_state(&name()).await.unwrap();
    }

    /// S19: one of the two secrets, with its epoch; and the state opens with it.
    async fn check_rotation(&self, core: &Core, told: &str, context: &str) {
        assert_eq!(image_key(core).unwrap(), self.image_key, "{context}");
        let now = secret_and_epoch(core);
        assert!(now == (2, 2) || (now == (1, 1) && told != "done"), "{context} {now:?}");
        let (right, wrong) = if now.0 == 1 { (1, 2) } else { (2, 1) };
        core.update(&name(), body(wrong)).await.unwrap_err();
        core.update(&name(), body(right)).await.unwrap();
        core.export_state(&name()).await.unwrap();
    }

    /// I4: the old definition or the new one.
    fn check_update(&self, core: &Core, told: &str, context: &str) {
        assert_eq!(image_key(core).unwrap(), self.image_key, "{context}");
        assert_eq!(secret_and_epoch(core), (1, 1), "{context}");
        let kept = core.slot(&name()).unwrap().keep.load_definition().unwrap().unwrap();
        let text = String::from_utf8(kept.expose_members().to_vec()).unwrap();
        let before = String::from_utf8(body_as_kept()).unwrap();
        let after = before.replace("git@git.example:u/r.git", CHANGED);
        assert!(text == after || (text == before && told != "done"), "{context}");
    }
}

fn body_as_kept() -> Vec<u8> {
    let share = ClientShare::derive(&StateSecret::from_bytes([1; 128]));
    Kept::new(body(1), share, 1).expose_members().to_vec()
}

fn image_key(core: &Core) -> Option<String> {
    let now = core.slot(&name()).unwrap().now();
    now.keys.as_ref().map(|keys| keys.image().current.verifying_key().to_pem())
}

/// Returns which secret the server has, and its epoch.
fn secret_and_epoch(core: &Core) -> (u8, u64) {
    let now = core.slot(&name()).unwrap().now();
    let known = now.known.as_ref().unwrap();
    let is = |byte: &u8| {
        let secret = StateSecret::from_bytes([*byte; 128]);
        known.client_share.same_as(&ClientShare::derive(&secret))
    };
    ([1, 2].into_iter().find(is).unwrap(), known.epoch)
}

/// Runs the subject in a directory and lets it meet a fault.
fn strace(place: &Path, trace: &str, inject: Option<(Fault, &str)>) -> ExitStatus {
    let mut strace = command("strace");
    strace.args(["-f", "-qq", "-o", "trace", "-e", trace]);
    if let Some((fault, inject)) = inject {
        strace.args(["-e", inject]);
        if fault == Fault::NoRoom {
            // Faster, but strace 6.1 then sends no signal from the second call on.
            strace.arg("--seccomp-bpf");
        }
    }
    strace
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "core::state::sweep::subject", "--ignored", "--test-threads=1"])
        .current_dir(place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test needs the environment, and a real status")]
fn command(program: &str) -> Command {
    Command::new(program)
}

fn copy(from: &Path, to: &Path) {
    let status = command("cp").arg("--archive").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn s18_s19_whatever_call_a_server_dies_at_the_state_is_the_old_one_or_the_new_one() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = runtime().block_on(Start::make());
    let faults =
        FAULTS.iter().flat_map(|(fault, calls)| calls.iter().map(move |call| (*fault, *call)));
    let all =
        faults.flat_map(|(fault, call)| Operation::ALL.map(|operation| (operation, fault, call)));
    let waiting: Mutex<Vec<_>> = Mutex::new(all.collect());
    let happened = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let runtime = runtime();
                loop {
                    let next = waiting.lock().unwrap().pop();
                    let Some((operation, fault, call)) = next else { return };
                    let count = runtime.block_on(start.sweep(operation, fault, call));
                    happened.lock().unwrap().push((operation, fault, call, count));
                }
            });
        }
    });
    let happened = happened.into_inner().unwrap();
    let of = |operation, fault, call| {
        let found =
            happened.iter().find(|found| (found.0, found.1, found.2) == (operation, fault, call));
        found.unwrap().3
    };
    // A sweep that swept nothing proves nothing.
    assert!(of(Operation::Import, Fault::Kill, "fsync") >= 15, "{happened:?}");
    assert_eq!(of(Operation::Import, Fault::Kill, "renameat2"), 1, "{happened:?}");
    assert_eq!(of(Operation::Import, Fault::NoRoom, "renameat2"), 1, "{happened:?}");
    for operation in Operation::ALL {
        assert!(of(operation, Fault::Kill, "fsync") >= 2, "{happened:?}");
        assert!(of(operation, Fault::NoRoom, "fsync") >= 2, "{happened:?}");
        assert!(of(operation, Fault::NoRoom, "write") >= 1, "{happened:?}");
        assert!(of(operation, Fault::NoRoom, "openat") >= 3, "{happened:?}");
    }
    let total: usize = happened.iter().map(|found| found.3).sum();
    println!("{total} faults: {happened:?}");
}

const CHANGED: &str = "git@git.example:u/changed.git";
const BEGIN: &str = "the-operation-begins";
// More than the calls of libtest's own thread.
const WARM_UP: usize = 200;
const WORKERS: usize = 4;
