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

    /// Limits the processes and threads of all builds together.
    ///
    /// Tells whether that worked: a machine without the `pids` controller, or on which the server
    /// may not change groups, has no such limit.
    pub(super) fn limit_processes(&self, max: u32) -> bool {
        let mut limited = false;
        for hierarchy in hierarchies() {
            let group = hierarchy.join(&self.name);
            if fs::create_dir_all(&group).is_ok() {
                // Version 2 hands controllers down only where it is told to.
                let _v1 = fs::write(hierarchy.join("cgroup.subtree_control"), "+pids");
                limited |= fs::write(group.join("pids.max"), max.to_string()).is_ok();
            }
        }
        limited
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
