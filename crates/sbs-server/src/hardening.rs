//! What keeps the secrets in memory in memory: no dump, no tracing by others, no swap, and no
//! panic message, which can quote a value.

use std::io;
use std::panic::{self, PanicHookInfo};

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Closes this process to dumps and to tracing, and keeps its memory from swap where it may.
pub(crate) fn harden() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // Also where dumps go to a program (core(5)), which the limit does not keep from that.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    lock_memory();
    Ok(())
}

/// Keeps memory from swap. Best effort: without the capability there is a limit, which a build
/// would run into later.
fn lock_memory() {
    let may = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if may {
        // Pages are locked when they are first used: whole thread stacks would be a waste.
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        let _best_effort = mlockall(flags);
    }
}

/// Logs where a panic was, and not what it says.
pub(crate) fn hide_panic_messages() {
    panic::set_hook(Box::new(|info| tracing::error!("{}", location(info))));
}

fn location(info: &PanicHookInfo<'_>) -> String {
    match info.location() {
        Some(at) => format!("a fault in the server: panic at {}:{}", at.file(), at.line()),
        None => "a fault in the server: panic".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn the_process_gives_no_dump() {
        harden().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    }

    #[test]
    fn a_panic_does_not_tell_its_message() {
        let told = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&told);
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| to.lock().unwrap().push_str(&location(info))));
        let panicked = panic::catch_unwind(|| panic!("canary"));
        panic::set_hook(before);
        assert!(panicked.is_err());
        let told = told.lock().unwrap();
        assert!(told.contains("hardening.rs:") && !told.contains("canary"), "{told}");
    }
}
