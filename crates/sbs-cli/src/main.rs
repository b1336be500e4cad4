//! The binary `sbs`; everything is in the library of the same crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    sbs_cli::main()
}
