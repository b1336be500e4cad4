//! Writes the files of `tests/data/sealed` that are not there yet; replaces none.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "shared with the tests, which use all of it and may panic"
)]
#[path = "../tests/it/common.rs"]
mod common;

#[expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "shared with the tests, which may panic"
)]
#[path = "../tests/it/cases.rs"]
mod cases;

fn main() -> io::Result<()> {
    for case in cases::cases() {
        let path = Path::new(DIRECTORY).join(case.name);
        let mut file = match File::create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        writeln!(file, "{}\n", case.head())?;
        let text = STANDARD.encode(case.file);
        for line in text.as_bytes().chunks(LINE) {
            file.write_all(line)?;
            file.write_all(b"\n")?;
        }
    }
    Ok(())
}

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sealed");
const LINE: usize = 76;
