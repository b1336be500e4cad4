//! The outer archive of a manifest: whatever it is, it is read within the limits or refused.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use sbs_fuzz::LIMITS;
use sbs_manifest::{Compatibility, UnverifiedManifest};

fuzz_target!(|archive: &[u8]| {
    for compatibility in [Compatibility::Strict, Compatibility::Original] {
        let mut spool = Cursor::new(Vec::new());
        let read = UnverifiedManifest::read(archive, &mut spool, compatibility, &LIMITS);
        if let Ok(unverified) = read {
            let name = unverified.name().as_str();
            assert!(name.starts_with("manifest.") && !name.contains('/'), "{name}");
        }
        assert!(spool.get_ref().len() as u64 <= LIMITS.entry_bytes);
    }
});
