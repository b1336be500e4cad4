//! The inner archive of a manifest, signed with the right key whatever it is: the signer is the
//! attacker. The input is the tar inside; bzip2 is what `outer` is for.

#![no_main]

use std::io::{Cursor, Read as _};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sbs_crypto::{ManifestSigningKey, ManifestVerifyingKey};
use sbs_fuzz::{LIMITS, bzip2, with_checksums};
use sbs_manifest::{Compatibility, Envelope, Manifest, UnverifiedManifest, sign};
use sbs_proto::ManifestName;

fuzz_target!(|tar: &[u8]| {
    let archive = sealed(&bzip2(&with_checksums(tar)));
    for compatibility in [Compatibility::Strict, Compatibility::Original] {
        let spool = Cursor::new(Vec::new());
        let Ok(unverified) =
            UnverifiedManifest::read(archive.as_slice(), spool, compatibility, &LIMITS)
        else {
            // The inner archive is over a limit of the outer one.
            continue;
        };
        visit(unverified.verify(&KEYS.1).expect("the right key signed it"));
    }
});

fn visit(mut manifest: Manifest<Cursor<Vec<u8>>>) {
    let whole = walk(&mut manifest);
    let report = manifest.check();
    // A report of success about an archive that cannot be read to its end would be a lie.
    assert!(whole || !report.all_passed(), "{report:?}");
    assert!(whole || report.any_failed(), "{report:?}");
    if !whole {
        return;
    }
    drop(manifest.record());
    drop(manifest.status());
    let mut log = Vec::new();
    drop(manifest.write_log(&mut log));
    assert!(log.len() as u64 <= LIMITS.log_bytes);
}

/// Reads every entry; tells whether none was refused.
fn walk(manifest: &mut Manifest<Cursor<Vec<u8>>>) -> bool {
    let Ok(mut entries) = manifest.entries() else { return false };
    loop {
        match entries.next_entry() {
            Ok(None) => return true,
            Err(_) => return false,
            Ok(Some(mut entry)) => {
                assert!(is_beneath(entry.path().as_bytes()), "{:?}", entry.path());
                let mut content = Vec::new();
                if entry.read_to_end(&mut content).is_err() {
                    return false;
                }
            }
        }
    }
}

/// Tells, in other words than the reader's, whether a name stays where it is unpacked.
fn is_beneath(name: &[u8]) -> bool {
    !name.contains(&0)
        && !name.starts_with(b"/")
        && name.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

fn sealed(inner: &[u8]) -> Vec<u8> {
    let name = ManifestName::parse("manifest.r.example.app.0a1b2c3.2026-01-02_03-04-05.000006")
        .expect("the name is one of a manifest");
    let signature = sign(&sbs_crypto::digest(inner), &KEYS.0).expect("the key signs");
    let inner_size = inner.len() as u64;
    let envelope = Envelope { name: &name, signature: &signature, inner_size, commit_time: 0 };
    // The default limits: this one must not refuse what the reader is to refuse.
    envelope.write(inner, Vec::new(), &sbs_manifest::Limits::default()).expect("memory has room")
}

static KEYS: LazyLock<(ManifestSigningKey, ManifestVerifyingKey)> = LazyLock::new(|| {
    let pem = include_str!("../../tests/data/manifests/key.pem");
    let der = pem::parse(pem).expect("the key of the corpus is PEM");
    let key = ManifestSigningKey::from_pkcs8_der(der.contents()).expect("and a signing key");
    let public = key.verifying_key();
    (key, public)
});
