//! Git URLs and references: what parses cannot be taken for an option, nor leave its line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sbs_proto::{GitReference, GitUrl};

fuzz_target!(|text: &str| {
    if let Ok(url) = GitUrl::parse(text) {
        let shown = url.as_str();
        assert!(!shown.starts_with('-') && !shown.contains(char::is_control), "{shown:?}");
        assert!(!url.host().starts_with('-'), "{:?}", url.host());
        let name = url.repository_name();
        assert!(!name.contains('/'), "{name:?}");
    }
    if let Ok(reference) = GitReference::parse(text) {
        let shown = reference.as_str();
        assert!(!shown.starts_with('-') && !shown.contains(char::is_control), "{shown:?}");
    }
});
