//! The control groups of a build's containers: a limit on all, and no leftovers.

use std::fs;
use std::path::{Path, PathBuf};

/// The group that the groups of all builds of one server are in.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    name: String,
}

impl Cgroup {
    /// Names the group of the server whose engine works in `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self { name: format!("sbs-{}", short_name(root)) }
    }

    /// Limits the processes and threads of all builds together, and their memory in bytes.
    ///
    /// Returns what has no limit: a machine without the controller, or on which the server may not
    /// change groups, has none.
    pub(super) fn limit(&self, processes: u32, memory: Option<u64>) -> Vec<&'static str> {
        let mut wanted = vec![("processes", "+pids", "pids.max", u64::from(processes))];
        if let Some(bytes) = memory {
            wanted.push(("memory", "+memory", "memory.max", bytes));
            wanted.push(("memory", "+memory", "memory.limit_in_bytes", bytes));
        }
        let limited: Vec<_> = wanted
            .iter()
            .filter(|(_, controller, file, value)| self.set(controller, file, *value))
            .map(|(what, ..)| *what)
            .collect();
        wanted.dedup_by_key(|(what, ..)| *what);
        wanted.into_iter().map(|(what, ..)| what).filter(|what| !limited.contains(what)).collect()
    }

    /// Writes a limit wherever there is a file for it; tells whether there was.
    fn set(&self, controller: &str, file: &str, value: u64) -> bool {
        let mut done = false;
        for hierarchy in hierarchies() {
            let group = hierarchy.join(&self.name);
            if fs::create_dir_all(&group).is_ok() {
                // Version 2 hands controllers down only where it is told to.
                let _v1 = fs::write(hierarchy.join("cgroup.subtree_control"), controller);
                let file = group.join(file);
                // In version 1 each controller has its own files, and making one would succeed
                // nowhere.
                done |= file.exists() && fs::write(file, value.to_string()).is_ok();
            }
        }
        done
    }

    /// Returns the group of the build that works in `scratch`, as the engine takes it.
    pub(super) fn of_build(&self, scratch: &Path) -> String {
        format!("/{}/{}", self.name, short_name(scratch))
    }

    /// Removes the groups of a build whose processes are gone.
    pub(super) fn remove_build(&self, scratch: &Path) {
        for hierarchy in hierarchies() {
            remove_groups(&hierarchy.join(&self.name).join(short_name(scratch)));
        }
    }

    /// Removes the groups of all builds; none may run.
    pub(super) fn remove_all(&self) {
        for hierarchy in hierarchies() {
            remove_groups(&hierarchy.join(&self.name));
        }
    }
}

/// Returns where groups are made: one place in version 2, one for each controller in version 1.
pub(super) fn hierarchies() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    if top.join("cgroup.controllers").exists() {
        return vec![top.to_owned()];
    }
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a group with those below it; the kernel refuses for one that has processes.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _has_processes = fs::remove_dir(group);
}

fn short_name(path: &Path) -> String {
    let mut name = sbs_crypto::digest(path.as_os_str().as_encoded_bytes()).to_hex();
    name.truncate(16);
    name
}
