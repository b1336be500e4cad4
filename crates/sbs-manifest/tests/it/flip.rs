use std::io::Cursor;

use sbs_manifest::{Compatibility, Limits, UnverifiedManifest};

use crate::common::{Node, Project, key};

/// A bit that bzip2 does not care about may be flipped; what is signed may not.
#[test]
fn r9_no_flipped_bit_changes_what_is_read() {
    let build = Project::of([("a", Node::File(b"b".to_vec()))]).build();
    let (archive, inner, name) = (build.manifest(), build.inner().0, build.name());
    let public = key().verifying_key();
    let mut harmless = 0;
    for bit in 0..archive.len() * 8 {
        let mut flipped = archive.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut spool = Cursor::new(Vec::new());
        let read = UnverifiedManifest::read(
            flipped.as_slice(),
            &mut spool,
            Compatibility::Strict,
            &Limits::default(),
        );
        let Ok(unverified) = read else { continue };
        let Ok(manifest) = unverified.verify(&public) else { continue };
        assert_eq!(manifest.name(), &name, "bit {bit}");
        drop(manifest);
        assert_eq!(spool.into_inner(), inner, "bit {bit}");
        harmless += 1;
    }
    assert!(harmless < 64, "{harmless} bits do not matter");
}
