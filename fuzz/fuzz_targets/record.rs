//! The build record: what parses can be written, and parses to the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sbs_proto::{BuildRecord, BuildStatus, parse_json};

fuzz_target!(|json: &[u8]| {
    drop(parse_json::<BuildStatus>(json));
    if let Ok(record) = parse_json::<BuildRecord>(json) {
        let text = serde_json::to_vec(&record).expect("a record has a text form");
        let again: BuildRecord = parse_json(&text).expect("its text form parses");
        assert_eq!(again, record);
    }
});
