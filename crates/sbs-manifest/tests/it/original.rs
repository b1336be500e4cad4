//! Manifests as the original makes them: Python's `tarfile`, RSA with 2,048 bits.

use std::fs;
use std::io::{Cursor, Read as _};

use sbs_crypto::ManifestVerifyingKey;
use sbs_manifest::{
    CheckName, Compatibility, EntryKind, Limits, Manifest, Outcome, UnverifiedManifest, Weakness,
};
use tempfile::TempDir;

use crate::common::{Spool, chain, compress, contents, open_as, run, sealed};

const NAME: &str = "manifest.us.icr.io.ns.app.latest-ad52e76.2024-07-10_15-37-37.178350";

/// Lets Python and OpenSSL make a manifest; `tamper` is Python that changes the tree before.
fn made_by_python(format: &str, tamper: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let script = r#"
import json, os, tarfile
name, format = "NAME", tarfile.FORMAT
for d in ("git/.git", "git/src", "data", "root_ssh"):
    os.makedirs(d)
status = {"build_image_tag": "1.3.0", "build_name": name[len("manifest."):], "image_tag": "latest-ad52e76",
    "manifest_key_gen": "soft_crypto", "manifest_public_key": name + "-public.pem",
    "root_ssh_enabled": False, "status": "image pushed"}
open("data/build.json", "w").write(json.dumps(status, indent=4))
open("data/build.log", "w").write("log\n")
open("git/.git/config", "w").write("[core]\n")
open("git/src/zz", "w").write("source\n")
open("git/" + "long" * 40, "w").write("long\n")
os.symlink("/etc/passwd", "git/link")
os.link("git/src/zz", "git/hard")
TAMPER
with tarfile.open(name + ".tbz", "w:bz2", format=format) as tar:
    for d in ("root_ssh", "git", "data"):
        tar.add(d)
"#;
    let script = script.replace("NAME", NAME).replace("FORMAT", format).replace("TAMPER", tamper);
    run(directory.path(), "python3", &["-c", &script]);
    let script = "openssl genrsa -out key.pem 2048 2>/dev/null
        openssl rsa -in key.pem -pubout -out public.pem 2>/dev/null
        openssl dgst -sha256 -binary NAME.tbz > digest
        openssl dgst -sha256 -sign key.pem digest | xxd -p | tr -d '\\n' > NAME.sig
        python3 -c 'import tarfile
with tarfile.open(\"NAME.sig.tbz\", \"w:bz2\") as tar:
    tar.add(\"NAME.tbz\"); tar.add(\"NAME.sig\")'";
    run(directory.path(), "bash", &["-euc", &script.replace("NAME", NAME)]);
    directory
}

fn open(directory: &TempDir, compatibility: Compatibility) -> Result<Manifest<Spool>, String> {
    let archive = fs::read(directory.path().join(format!("{NAME}.sig.tbz"))).unwrap();
    let pem = fs::read_to_string(directory.path().join("public.pem")).unwrap();
    let key = ManifestVerifyingKey::from_pem(&pem).unwrap();
    let spool = Cursor::new(Vec::new());
    UnverifiedManifest::read(archive.as_slice(), spool, compatibility, &Limits::default())
        .map_err(|error| chain(&error))?
        .verify(&key)
        .map_err(|error| chain(&error))
}

#[test]
fn a_manifest_of_the_original_verifies() {
    for format in ["PAX_FORMAT", "GNU_FORMAT"] {
        let directory = made_by_python(format, "");
        let mut manifest = open(&directory, Compatibility::Original).unwrap();
        assert_eq!(manifest.name().as_str(), NAME);
        assert_eq!(manifest.status().unwrap().image_tag.as_deref(), Some("latest-ad52e76"));
        manifest.record().unwrap_err();
        let mut log = Vec::new();
        manifest.write_log(&mut log).unwrap();
        assert_eq!(log, b"log\n");

        let report = manifest.check();
        assert!(!report.any_failed() && !report.all_passed(), "{report:?}");
        let passed: Vec<CheckName> = report
            .checks()
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Passed))
            .map(|check| check.name)
            .collect();
        assert_eq!(
            passed,
            [
                CheckName::Envelope,
                CheckName::Signature,
                CheckName::Layout,
                CheckName::Record,
                CheckName::BuildName
            ]
        );
        assert_eq!(
            report.weaknesses(),
            [
                Weakness::GitDirectory,
                Weakness::Links,
                Weakness::NoSourceProof,
                Weakness::ShortKey,
                Weakness::Unsorted
            ]
        );
    }
}

#[test]
fn links_are_listed_and_have_no_content() {
    let directory = made_by_python("PAX_FORMAT", "");
    let mut manifest = open(&directory, Compatibility::Original).unwrap();
    let mut entries = manifest.entries().unwrap();
    let mut links = 0;
    while let Some(mut entry) = entries.next_entry().unwrap() {
        if entry.kind() == EntryKind::Link {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert_eq!((entry.size(), content), (0, Vec::new()), "{}", entry.path());
            links += 1;
        }
    }
    assert_eq!(links, 2);
}

#[test]
fn it_is_not_taken_for_one_of_ours() {
    let directory = made_by_python("GNU_FORMAT", "");
    let error = open(&directory, Compatibility::Strict).unwrap_err();
    assert!(error.contains("extended header"), "{error}");
}

#[test]
fn what_else_is_in_it_is_told() {
    let directory = made_by_python(
        "PAX_FORMAT",
        "open('root_ssh/id_rsa', 'w').write('x'); open('data/more', 'w').write('x')",
    );
    let report = open(&directory, Compatibility::Original).unwrap().check();
    assert!(!report.any_failed(), "{report:?}");
    assert!(report.weaknesses().contains(&Weakness::SshMaterial));
    assert!(report.weaknesses().contains(&Weakness::UnknownData));
}

#[test]
fn what_has_no_meaning_is_refused_here_too() {
    for (tamper, expected) in [
        ("os.mkfifo('git/fifo')", "is a FIFO"),
        ("os.remove('data/build.log')", "has no `data/build.log` in its place"),
        ("os.remove('data/build.json')", "has no `data/build.json` in its place"),
        (
            "os.rename('data/build.log', 'data/build.lo'); os.symlink('x', 'data/build.log')",
            "belong",
        ),
        ("import shutil; shutil.rmtree('git'); os.symlink('/etc', 'git')", "does not belong there"),
        ("open('git/line\\nend', 'w')", "has a control character"),
    ] {
        let directory = made_by_python("PAX_FORMAT", tamper);
        let mut manifest = open(&directory, Compatibility::Original).unwrap();
        let error = chain(contents(&mut manifest).unwrap_err().as_ref());
        assert!(error.contains(expected), "{tamper}: `{error}` is not `{expected}`");
        assert!(manifest.check().any_failed());
    }
}

/// Names that the original's own tool would never write, in an archive signed with the right key.
#[test]
fn s16_hostile_entries_are_refused_here_too() {
    let add = "import io
def add(name, type=tarfile.REGTYPE, content=b'', **more):
    info = tarfile.TarInfo(name)
    info.type, info.size = type, len(content)
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))
";
    let good = "add('data/build.json', content=b'{}'); add('data/build.log'); add('git/a')";
    for (entries, expected) in [
        ("add('git/../../x')", "has a `..` part"),
        ("add('/etc/passwd')", "name is absolute"),
        ("add('./../x')", "has a `..` part"),
        ("add('etc/passwd')", "does not belong there"),
        ("add('git', content=b'x')", "does not belong there"),
        ("add('git/a')", "`git/a` appears twice"),
        ("add('./git/a')", "`git/a` appears twice"),
        ("add('git/a/b')", "`git/a/b` is not in a directory"),
        ("add('git/d/e'); add('git/d')", "`git/d` appears twice"),
        (
            "add('git/l', tarfile.SYMTYPE, linkname='/etc'); add('git/l/passwd')",
            "not in a directory",
        ),
        ("add('git/l/passwd'); add('git/l', tarfile.SYMTYPE, linkname='/etc')", "appears twice"),
        ("add('data/l', tarfile.SYMTYPE, linkname='/etc')", "does not belong there"),
        ("add('git/d', tarfile.CHRTYPE)", "is a character device"),
        ("add('git/d', tarfile.BLKTYPE)", "is a block device"),
        ("add('git/z', content=b'12345678', pax_headers={'size': '1'})", "size other than"),
        ("add('git/z', pax_headers={'GNU.sparse.major': '1'})", "key `GNU.sparse.major`"),
        ("add('git/z', pax_headers={'path': '../x'})", "has a `..` part"),
        ("add('git/z', pax_headers={'path': 'git/a'})", "`git/a` appears twice"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let script = format!(
            "import tarfile\ntar = tarfile.open('t', 'w', format=tarfile.PAX_FORMAT)\n{add}\
             {good}; {entries}\ntar.close()"
        );
        run(directory.path(), "python3", &["-c", &script]);
        let tar = fs::read(directory.path().join("t")).unwrap();
        let name = sbs_proto::ManifestName::parse(NAME).unwrap();
        let archive = sealed(&name, &compress(&tar));
        let mut manifest = open_as(&archive, Compatibility::Original).unwrap();
        let error = chain(contents(&mut manifest).unwrap_err().as_ref());
        assert!(error.contains(expected), "{entries}: `{error}` is not `{expected}`");
    }
}
