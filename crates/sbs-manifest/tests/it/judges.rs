//! What programs that know nothing of this one say of a manifest.

use std::fs;
use std::path::Path;

use sbs_manifest::EntryPath;
use tempfile::TempDir;

use crate::common::{Build, LOG, Node, Project, key, run};

/// Writes a manifest and its public key where the judges find them.
fn manifest_on_disk() -> (TempDir, Build) {
    let mut project = Project::small();
    let long = [&[b'n'; 180][..], b"/", &[b'm'; 180]].concat();
    project.nodes.insert(long, Node::File(b"long".to_vec()));
    project.nodes.insert(b"strange \xff".to_vec(), Node::File(b"bytes".to_vec()));
    // More than one bzip2 stream, so that a reader that stops after the first is noticed.
    let noise: Vec<u8> = (0..1_500_000_u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56).to_le_bytes()[0])
        .collect();
    project.nodes.insert(b"noise".to_vec(), Node::File(noise));
    let build = project.build();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("m.sig.tbz"), build.manifest()).unwrap();
    fs::write(directory.path().join("public.pem"), key().verifying_key().to_pem()).unwrap();
    (directory, build)
}

fn shell(directory: &Path, script: &str) -> String {
    run(directory, "bash", &["-euc", script])
}

/// The recipe of `docs/formats/manifest.md`, "Verifying by hand".
#[test]
fn openssl_verifies_the_signature() {
    let (directory, build) = manifest_on_disk();
    let recipe = "tar -xjf m.sig.tbz
        openssl dgst -sha256 -binary NAME.tbz > digest
        xxd -r -p NAME.sig > signature
        openssl dgst -sha256 -verify public.pem -signature signature digest";
    let recipe = recipe.replace("NAME", build.name().as_str());
    assert_eq!(shell(directory.path(), &recipe), "Verified OK\n");
    assert_eq!(
        fs::metadata(directory.path().join(format!("{}.sig", build.name()))).unwrap().len(),
        768
    );

    let damaged = recipe.replace("> digest", "> digest; printf x >> digest");
    let script = format!("if ({damaged}) 2>/dev/null; then exit 1; fi");
    assert!(shell(directory.path(), &script).starts_with("Verification failure"));
}

#[test]
fn python_reads_what_was_packed() {
    let (directory, build) = manifest_on_disk();
    let script = r#"
import hashlib, io, json, os, sys, tarfile
with tarfile.open("m.sig.tbz", "r:bz2") as outer:
    names = outer.getnames()
    inner = outer.extractfile(names[0]).read()
    signature = outer.extractfile(names[1]).read()
print(json.dumps(names), hashlib.sha256(inner).hexdigest(), len(bytes.fromhex(signature.decode())))
with tarfile.open(fileobj=io.BytesIO(inner), mode="r:bz2") as tar:
    for m in tar:
        digest = hashlib.sha256(tar.extractfile(m).read()).hexdigest() if m.isfile() else "-"
        kind = "f" if m.isfile() else "d" if m.isdir() else "?"
        print(os.fsencode(m.name).hex(), kind, oct(m.mode), m.uid, m.gid, repr(m.uname), m.mtime, digest)
"#;
    let printed = run(directory.path(), "python3", &["-c", script]);
    let mut lines = printed.lines();
    let (name, digest) = (build.name(), build.inner().1.to_hex());
    assert_eq!(lines.next().unwrap(), format!("[\"{name}.tbz\", \"{name}.sig\"] {digest} 384"));
    let mut json = serde_json::to_vec_pretty(&build.record).unwrap();
    json.push(b'\n');
    let line = |name: &[u8], content: Option<&[u8]>, mode: &str| {
        let digest =
            content.map_or_else(|| "-".to_owned(), |bytes| sbs_crypto::digest(bytes).to_hex());
        let kind = if content.is_some() { "f" } else { "d" };
        format!("{} {kind} {mode} 0 0 '' 1700000000 {digest}", hex::encode(name))
    };
    let mut expected = vec![
        line(b"data", None, "0o755"),
        line(b"data/build.json", Some(&json), "0o644"),
        line(b"data/build.log", Some(LOG), "0o644"),
        line(b"data/commit", Some(&build.commit), "0o644"),
        line(b"data/tree", Some(&build.tree), "0o644"),
        line(b"git", None, "0o755"),
    ];
    for (entry, content) in &build.entries {
        let key = entry.sort_key();
        match key.strip_suffix(b"/") {
            Some(name) => expected.push(line(name, None, "0o755")),
            None if key == b"git/run.sh" => expected.push(line(&key, Some(content), "0o755")),
            None => expected.push(line(&key, Some(content), "0o644")),
        }
    }
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

#[test]
fn gnu_tar_and_bzip2_extract_what_was_packed() {
    let (directory, build) = manifest_on_disk();
    let script = "tar -xjf m.sig.tbz; bzip2 -tv *.tbz 2>/dev/null; tar -xjf NAME.tbz";
    shell(directory.path(), &script.replace("NAME", build.name().as_str()));
    for (entry, content) in &build.entries {
        use std::os::unix::ffi::OsStrExt as _;
        let key = entry.sort_key();
        if !key.ends_with(b"/") {
            let path = directory.path().join(std::ffi::OsStr::from_bytes(&key));
            assert!(fs::symlink_metadata(&path).unwrap().is_file());
            assert_eq!(&fs::read(path).unwrap(), content);
        }
    }
}

#[test]
fn the_tar_crate_reads_what_was_packed() {
    let (_directory, build) = manifest_on_disk();
    let tar = crate::common::decompress(&build.inner().0);
    let mut archive = tar::Archive::new(tar.as_slice());
    let names: Vec<Vec<u8>> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned()).collect();
    let expected: Vec<Vec<u8>> = build.entries.iter().map(|(entry, _)| entry.sort_key()).collect();
    assert_eq!(names[6..], expected);
}

/// The second recipe of `docs/formats/manifest.md`, "Verifying by hand".
#[test]
fn git_hashes_the_source_to_the_recorded_tree() {
    let (directory, build) = manifest_on_disk();
    let script = "tar -xjf m.sig.tbz; tar -xjf NAME.tbz
        git init -q check; cd check
        git -c core.symlinks=false --work-tree=../git add --all --force
        tr '\\0' '\\n' < ../data/tree | grep -v ' tree ' > listing
        git update-index --index-info < listing
        git write-tree
        git hash-object -t commit ../data/commit
        git -c core.symlinks=false --work-tree=../git diff --quiet && echo same";
    let printed = shell(directory.path(), &script.replace("NAME", build.name().as_str()));
    let source = &build.record.source;
    assert_eq!(printed, format!("{}\n{}\nsame\n", source.tree, source.commit));
}

/// With the settings that the server gives it; on Linux, git refuses only some of these by default.
#[test]
fn s16_git_refuses_the_same_names_for_its_own_directory() {
    let directory = tempfile::tempdir().unwrap();
    shell(directory.path(), "git init -q .");
    let script = r#"
import subprocess, sys
for line in sys.argv[1:]:
    name = bytes.fromhex(line)
    git = ["git", "-c", "core.protectHFS=true", "-c", "core.protectNTFS=true", "update-index", "--add"]
    made = subprocess.run(git + ["--cacheinfo", b"100644," + b"1" * 40 + b"," + name],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print("refused" if made.returncode else "taken")
"#;
    let names = [
        &b".git"[..],
        b".GiT",
        b"d/.git/config",
        b"GIT~1",
        b".git .. .",
        b".git::$INDEX_ALLOCATION/config",
        b"git~1.:x",
        b"d\\.git\\config",
        ".g\u{200c}it".as_bytes(),
        "d/\u{feff}.gi\u{206f}T".as_bytes(),
        b".git\xff",
        b".gitignore",
        b".git-",
        b"git~2",
        b"git~10",
        b" .git",
        b"a.git",
        b"a:.git",
        ".git\u{200b}".as_bytes(),
        b".g\xffit",
        b".git.\xff",
        ".git.\u{feff}".as_bytes(),
        "\u{feff}git~1".as_bytes(),
        "d\\\u{feff}.git".as_bytes(),
        ".g\u{131}t".as_bytes(),
        ".git\u{fffd}".as_bytes(),
    ];
    let hex = names.map(hex::encode);
    let arguments: Vec<&str> =
        ["-c", script].into_iter().chain(hex.iter().map(|name| &**name)).collect();
    let printed = run(directory.path(), "python3", &arguments);
    let ours = names.map(|name| if EntryPath::parse(name).is_ok() { "taken" } else { "refused" });
    let judged: Vec<_> = names.iter().map(|name| name.escape_ascii().to_string()).collect();
    let pairs = |said: &[&str]| -> Vec<String> {
        judged.iter().zip(said).map(|(name, said)| format!("{name} {said}")).collect()
    };
    assert_eq!(pairs(&ours), pairs(&printed.lines().collect::<Vec<_>>()));
}
