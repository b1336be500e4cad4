//! The whole path on this machine: from a git repository to a signed image and a manifest that
//! anybody can check. `cargo xtask demo` runs it.
//!
//! Everything runs on loopback and in one new directory. What is worth keeping is put into
//! `.demo`; everything else is removed, also when the demo is interrupted.

mod steps;
mod ui;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sbs_tests::{processes, program, wait_until};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let outcome = match (arguments.next(), arguments.next()) {
        (None, _) => supervise(),
        (Some(word), Some(kept)) if word == WORKER => {
            steps::run(Path::new(&kept)).map(|()| ExitCode::SUCCESS)
        }
        _ => Err(anyhow::anyhow!("the demo takes no arguments")),
    };
    outcome.unwrap_or_else(|error| {
        ui::complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// Runs the steps in a process of their own, and removes what they leave however they end.
fn supervise() -> Result<ExitCode> {
    let kept = std::env::current_dir()?.join(".demo");
    let directory = tempfile::Builder::new().prefix("sbs-demo-").tempdir()?;
    let mut worker = program(std::env::current_exe()?);
    worker.arg(WORKER).arg(&kept).env("TMPDIR", directory.path());
    if let Some(terminal) = std::env::var_os("TERM") {
        worker.env("TERM", terminal);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut worker = tokio::process::Command::from(worker).spawn()?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            status = worker.wait() => return anyhow::Ok(Some(status?)),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        worker.kill().await?;
        Ok(None)
    })?;
    // The kernel ends what a dead process had started; nothing is removed under a living one.
    wait_until("the end of every process of the demo", Duration::from_secs(10), || {
        Ok(processes::of_directory(directory.path())?.is_empty().then_some(()))
    })?;
    directory.close().context("not everything was removed")?;
    match outcome {
        Some(status) if status.success() => Ok(ExitCode::SUCCESS),
        // The worker has said why.
        Some(_) => Ok(ExitCode::FAILURE),
        None => bail!("interrupted; nothing runs on and nothing is left"),
    }
}

const WORKER: &str = "--worker";
