//! What to make of a status and a log that are asked for again and again.

use std::time::Duration;

use sbs_crypto::digest;
use sbs_proto::{BuildStatus, Digest, Progress};

use crate::limits::START_GRACE;

/// Finds what is new in a log of which every call brings the whole.
#[derive(Debug)]
pub(crate) struct LogFollower {
    digest: Digest,
    seen: usize,
}

impl LogFollower {
    /// Starts with a log that is known already.
    pub(crate) fn after(log: &str) -> Self {
        Self { digest: digest(log.as_bytes()), seen: log.len() }
    }

    /// Returns the new lines that are whole. If the log is not the one of before but another, all
    /// its lines are new.
    pub(crate) fn advance<'a>(&mut self, log: &'a str) -> &'a str {
        let new = self.new_part(log);
        let whole = new.rfind('\n').map_or(0, |end| end + 1);
        self.take(log, new, whole)
    }

    /// Returns what is new at the end of a build, whole line or not.
    pub(crate) fn finish<'a>(&mut self, log: &'a str) -> &'a str {
        let new = self.new_part(log);
        self.take(log, new, new.len())
    }

    fn new_part<'a>(&self, log: &'a str) -> &'a str {
        match log.split_at_checked(self.seen) {
            Some((old, new)) if digest(old.as_bytes()) == self.digest => new,
            _ => log,
        }
    }

    fn take<'a>(&mut self, log: &str, new: &'a str, length: usize) -> &'a str {
        let (taken, _) = new.split_at_checked(length).unwrap_or((new, ""));
        let seen = log.len() - new.len() + taken.len();
        if let Some((seen_part, _)) = log.split_at_checked(seen) {
            *self = Self::after(seen_part);
        }
        taken
    }
}

/// Judges the status of a build that was just started.
///
/// For a moment the status can still be the one of the build before, and idle until the first step
/// is done.
#[derive(Debug)]
pub(crate) struct BuildWatcher {
    before: BuildStatus,
    changed: bool,
    ran: bool,
}

/// How a build stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Cleaned,
    Failed,
    Pending,
    Succeeded,
}

impl BuildWatcher {
    /// Starts with the status from before the build was started.
    pub(crate) fn new(before: BuildStatus) -> Self {
        Self { before, changed: false, ran: false }
    }

    /// Judges the status that came `elapsed` after the build was started.
    pub(crate) fn judge(&mut self, status: &BuildStatus, elapsed: Duration) -> Verdict {
        self.changed |= *status != self.before;
        let started = self.ran || elapsed >= START_GRACE;
        match status.status.progress() {
            Progress::Running => {
                self.ran = true;
                Verdict::Pending
            }
            Progress::Idle if started => Verdict::Cleaned,
            Progress::Failed if started || self.changed => Verdict::Failed,
            Progress::Succeeded if started || self.changed => Verdict::Succeeded,
            Progress::Failed | Progress::Idle | Progress::Succeeded => Verdict::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use sbs_proto::StatusText;

    use super::*;

    #[test]
    fn only_new_whole_lines_are_taken() {
        let mut follower = LogFollower::after("");
        for (log, expected) in [
            ("", ""),
            ("a", ""),
            ("a\nb", "a\n"),
            ("a\nb\nc\n", "b\nc\n"),
            ("a\nb\nc\n", ""),
            // Shorter, or another from the first byte, or another of the same length.
            ("x\n", "x\n"),
            ("y\nz\n", "y\nz\n"),
            ("y\nZ\n", "y\nZ\n"),
            ("y\nZ\nü", ""),
        ] {
            assert_eq!(follower.advance(log), expected, "{log:?}");
        }
        assert_eq!(follower.finish("y\nZ\nü"), "ü");
        assert_eq!(follower.finish("y\nZ\nü"), "");
        // A boundary that falls into a character is a replaced log, too.
        assert_eq!(LogFollower::after("a").advance("ü\n"), "ü\n");
        assert_eq!(LogFollower::after("old\n").advance("old\nnew\n"), "new\n");
    }

    fn status(text: &str) -> BuildStatus {
        BuildStatus { status: StatusText::new(text), ..BuildStatus::fresh() }
    }

    #[test]
    fn a_build_ends_by_its_own_status_and_not_by_the_one_before() {
        let failed = "exiting due to a non-zero return value: 1, cmd: x";
        let soon = Duration::from_secs(1);
        for (before, then, expected) in [
            ("", vec![("", soon), ("cleaned up", soon), ("success", soon)], Verdict::Succeeded),
            ("success", vec![("success", soon)], Verdict::Pending),
            ("success", vec![("cleaned up", soon), ("success", soon)], Verdict::Succeeded),
            ("success", vec![("success", START_GRACE)], Verdict::Succeeded),
            (failed, vec![(failed, soon)], Verdict::Pending),
            (failed, vec![("", soon)], Verdict::Pending),
            (failed, vec![("success", soon)], Verdict::Succeeded),
            ("success", vec![(failed, soon)], Verdict::Failed),
            ("", vec![("github cloned", soon), ("restarted cicd", soon)], Verdict::Cleaned),
            ("", vec![("", START_GRACE)], Verdict::Cleaned),
            ("", vec![("image pushed", START_GRACE * 100)], Verdict::Pending),
        ] {
            let mut watcher = BuildWatcher::new(status(before));
            let verdicts: Vec<_> =
                then.iter().map(|(text, at)| watcher.judge(&status(text), *at)).collect();
            assert_eq!(verdicts.last(), Some(&expected), "{before} {then:?}");
            assert!(verdicts.iter().rev().skip(1).all(|v| *v == Verdict::Pending), "{then:?}");
        }
    }
}
