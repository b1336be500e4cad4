use std::error::Error;

pub(crate) use sbs_registry::chain;

/// How a step's failure is told: a word for programs, and what the v1 status says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    /// A stable word, such as `git_access`.
    pub(crate) code: &'static str,
    /// What was run, with `<USERNAME>` and `<PASSWORD>` for credentials and no path of this
    /// machine.
    pub(crate) command: String,
    /// The return code.
    pub(crate) return_code: i32,
}

/// The error of a build step.
///
/// Its Display and those of its sources go to the build log: they hold no credential.
pub(crate) trait StepError: Error + Send + Sync + 'static {
    /// Returns how the failure is told.
    fn failure(&self) -> Failure;
}
