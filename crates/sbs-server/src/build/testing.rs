//! What the tests of the steps have in common.

use std::fs::File;

use crate::build::log::{BuildLog, Masks};
use crate::clock::Clock;

/// A log that can be read.
pub(crate) struct TestLog {
    pub(crate) log: BuildLog,
    reader: File,
}

impl TestLog {
    pub(crate) fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        let reader = file.try_clone().unwrap();
        let log = BuildLog::new(file, Clock::fixed(1_700_000_000), Masks::default(), 1 << 20);
        Self { log, reader }
    }

    pub(crate) fn text(&self) -> String {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0; usize::try_from(self.reader.metadata().unwrap().len()).unwrap()];
        self.reader.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}
