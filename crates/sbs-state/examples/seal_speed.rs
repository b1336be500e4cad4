//! Seals or opens what stands on standard input, as a process that can be timed beside others.
//!
//! ```sh
//! cargo build --release -p sbs-state --example seal_speed
//! seal_speed seal < FILE > SEALED
//! seal_speed open < SEALED > FILE
//! ```
//!
//! Peers: `age -e -r RECIPIENT`, `age -d -i KEY`, `openssl enc -aes-256-ctr` (which does not notice
//! a change). `/usr/bin/time -v` tells the memory. The secrets are fixed: never for a real file.

use std::env;
use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::fd::AsFd as _;

use sbs_proto::{StateMeta, StateSecret};
use sbs_state::{ClientShare, Export, OpenReader, RootSecret, SealWriter, ServerShare};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = RootSecret::parse(&(0..32).collect::<Vec<u8>>())?;
    let server = ServerShare::of(&root);
    let client = ClientShare::derive(&StateSecret::from_bytes([2; 128]));
    // As files, for the library's own handles look for line ends.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    match env::args().nth(1).as_deref() {
        Some("seal") => {
            let export =
                Export { epoch: 1, export_seq: 1, created_ms: 0, meta: StateMeta::default() };
            let mut sealed = SealWriter::new(export, &server, &client, output)?;
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = input.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                sealed.write_all(buffer.split_at(count).0)?;
            }
            sealed.finish()?;
        }
        Some("open") => {
            let mut opened = OpenReader::new(&[server], &client, u64::MAX, input)?;
            loop {
                let bytes = opened.fill_buf()?;
                if bytes.is_empty() {
                    break;
                }
                output.write_all(bytes)?;
                let count = bytes.len();
                opened.consume(count);
            }
        }
        _ => return Err("see the top of this file".into()),
    }
    Ok(())
}
