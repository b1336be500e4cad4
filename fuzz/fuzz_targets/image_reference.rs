//! Image references: what parses is printed in a form that parses to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sbs_proto::ImageReference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = ImageReference::parse(text) {
        let printed = reference.to_string();
        assert_eq!(ImageReference::parse(&printed).as_ref(), Ok(&reference), "{printed}");
        let _ = reference.registry().api_host();
    }
});
