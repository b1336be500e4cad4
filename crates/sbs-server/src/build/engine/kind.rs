use std::fmt;

/// How a build's processes are kept apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Isolation {
    /// A directory as root, with the weaker walls of the sandbox around it.
    Chroot,
    /// A container.
    Oci(Runtime),
}

/// What makes containers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Runtime {
    Crun,
    Runc,
}

/// How the engine keeps files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Driver {
    Overlay,
    Vfs,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chroot => f.write_str("chroot"),
            Self::Oci(runtime) => write!(f, "oci ({runtime})"),
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
        })
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
            Self::Vfs => "vfs",
        })
    }
}
