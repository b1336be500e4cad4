//! The daemon `sbs-server`.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    sbs_server::main(sbs_server::Args::parse())
}
