//! The build record: what parses can be written, and parses to the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sbs_proto::{BuildRecord, BuildStatus};

fuzz_target!(|json: &[u8]| {
    let _ = serde_json::from_slice::<BuildStatus>(json);
    if let Ok(record) = serde_json::from_slice::<BuildRecord>(json) {
        let text = serde_json::to_vec(&record).expect("a record has a text form");
        let again: BuildRecord = serde_json::from_slice(&text).expect("its text form parses");
        assert_eq!(again, record);
    }
});
